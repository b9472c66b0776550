//! How fast the fastest possible client would have been.
//!
//! The world knows how long each thing takes, because a latency depends on the seed and the thing's name only. From what
//! exists after a deployment this computes the earliest instant at which it could have existed: each thing starts the
//! moment everything it needs is there, and writes go out within Azure's published limits, those first that have the
//! longest road ahead. What a client adds to that (asking, polling, deciding, running commands) is its overhead.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use crate::{
    Latency, World, kube,
    machine::{Membership, memberships},
};

/// ARM's allowance for writes: so many at once, and so many a second (Azure documentation).
const ARM_WRITES: (f64, f64) = (200.0, 10.0);
/// The network provider's allowance for writes: 1000 in 5 minutes (Azure documentation).
const NETWORK_WRITES: (f64, f64) = (1000.0, 1000.0 / 300.0);

/// The longest chain of things that had to wait for each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CriticalPath {
    /// Its length, in world seconds.
    pub seconds: f64,
    /// The earliest instant at which every node could have been Ready.
    pub nodes_ready_seconds: f64,
    /// What it consists of: each thing with the instant at which it was there.
    pub chain: Vec<(String, f64)>,
}

/// A machine on its way: what it still has to go through.
struct Road {
    member: Membership,
    public_address: f64,
    interface: f64,
    /// From the accepted request until k0s can be started.
    until_k0s: f64,
    /// From the accepted request until Azure calls the machine ready.
    provisioning: f64,
    /// From starting k0s until it is a member of the cluster.
    joining: f64,
    /// How much depends on it after its creation.
    weight: f64,
}

/// The critical path of what exists now; zero if there is no cluster.
pub fn critical_path(world: &World) -> CriticalPath {
    let members = memberships(world);
    let Some(first) = members.iter().find(|member| member.is_first).cloned() else { return CriticalPath::default() };
    let chart = seconds(kube::chart_installation(world, first.cluster));
    let components = seconds(kube::kcm_installation_path(world, first.cluster));
    let roads: Vec<Road> = members.into_iter().map(|member| road(world, member, chart + components)).collect();

    let network = foundation(world, &first);
    let created = if first.was_there { vec![0.0; roads.len()] } else { create(&roads, &network) };
    let can_start: BTreeMap<&str, f64> =
        roads.iter().zip(&created).map(|(road, at)| (road.member.name.as_str(), at + road.until_k0s)).collect();
    let leader = roads.iter().find(|road| road.member.is_first);
    let leader_ready = can_start[first.name.as_str()] + leader.map_or(0.0, |road| road.joining);
    let kubelet = |road: &Road| seconds(world.latency(Latency::K0sJoinWorker, &road.member.name));

    // Controllers join one at a time; workers when they and the first controller are ready.
    let mut joined: BTreeMap<&str, f64> = BTreeMap::from([(first.name.as_str(), leader_ready)]);
    let mut previous = leader_ready;
    let mut followers: Vec<&Road> =
        roads.iter().filter(|road| road.member.is_controller && !road.member.is_first).collect();
    followers
        .sort_by(|one, other| can_start[one.member.name.as_str()].total_cmp(&can_start[other.member.name.as_str()]));
    for road in followers {
        previous = previous.max(can_start[road.member.name.as_str()]) + road.joining;
        joined.insert(&road.member.name, previous);
    }
    for road in roads.iter().filter(|road| !road.member.is_controller) {
        joined.insert(&road.member.name, leader_ready.max(can_start[road.member.name.as_str()]) + road.joining);
    }
    let node_ready = |road: &Road| {
        let at = joined[road.member.name.as_str()];
        if road.member.is_controller && road.member.is_schedulable { at + kubelet(road) } else { at }
    };
    let nodes_ready = latest(roads.iter().map(node_ready));
    // One node is enough for the chart's pods, and the limits on writes do not bind a client that makes it first.
    let alone = |road: &Road| {
        let interface = network.ready.max(network.group + road.public_address) + road.interface;
        let ready =
            leader_ready.max(interface + road.until_k0s) + if road.member.is_first { 0.0 } else { road.joining };
        if road.member.is_controller { ready + kubelet(road) } else { ready }
    };
    let schedulable = roads.iter().filter(|road| road.member.is_schedulable).map(alone).fold(f64::INFINITY, f64::min);
    let provisioned = latest(roads.iter().zip(&created).map(|(road, at)| at + road.provisioning));

    let mut chain = Vec::new();
    if !first.was_there {
        chain.extend([("resource group".to_owned(), network.group), ("network".to_owned(), network.ready)]);
    }
    chain.extend([
        (format!("{} can start k0s", first.name), can_start[first.name.as_str()]),
        (format!("API server on {}", first.name), leader_ready),
    ]);
    let mut end = nodes_ready.max(provisioned);
    if chart > 0.0 {
        let installed = leader_ready.max(schedulable) + chart;
        chain.push(("first node that takes pods".to_owned(), leader_ready.max(schedulable)));
        chain.push(("k0rdent chart".to_owned(), installed));
        chain.push(("k0rdent components".to_owned(), installed + components));
        end = end.max(installed + components);
    }
    chain.push(("all nodes Ready".to_owned(), nodes_ready));
    chain.push(("all machines provisioned".to_owned(), provisioned));
    CriticalPath { seconds: end, nodes_ready_seconds: nodes_ready, chain }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn latest(instants: impl Iterator<Item = f64>) -> f64 {
    instants.fold(0.0, f64::max)
}

fn road(world: &World, member: Membership, after_the_leader: f64) -> Road {
    let take = |latency: Latency, key: &str| seconds(world.latency(latency, key));
    let name = &member.name;
    let joining = match (member.is_controller, member.is_first) {
        (true, true) => take(Latency::K0sInitialise, name),
        (true, false) => take(Latency::K0sJoinController, name),
        (false, _) => take(Latency::K0sJoinWorker, name),
    };
    let download = if member.has_downloaded { take(Latency::K0sDownload, name) } else { 0.0 };
    if member.was_there {
        let (public_address, interface, provisioning, weight) = Default::default();
        return Road { public_address, interface, until_k0s: download, provisioning, joining, weight, member };
    }
    let until_k0s = take(Latency::Boot, name) + take(Latency::CloudInit, name) + download;
    let provisioning = take(Latency::VirtualMachinePut, name).max(take(Latency::Boot, name));
    let weight = until_k0s + joining + if member.is_first { after_the_leader + 1000.0 } else { 0.0 };
    Road {
        public_address: take(Latency::PublicAddressPut, &format!("{name}-pip")),
        interface: take(Latency::NetworkInterfacePut, &format!("{name}-nic")),
        until_k0s,
        provisioning,
        joining,
        weight,
        member,
    }
}

/// What all machines need.
struct Foundation {
    group: f64,
    ready: f64,
}

fn foundation(world: &World, first: &Membership) -> Foundation {
    if first.was_there {
        return Foundation { group: 0.0, ready: 0.0 };
    }
    let (group, network, rules) = crate::azure::foundation_latencies(world);
    let group = seconds(group);
    Foundation { group, ready: group + seconds(rules) + seconds(network) }
}

/// The instant at which each machine's creation can be asked for, within the limits on writes.
fn create(roads: &[Road], network: &Foundation) -> Vec<f64> {
    let mut created = vec![0.0; roads.len()];
    // The group, its key, its rules and its network were written before.
    let mut arm = Bucket::new(ARM_WRITES, 4.0);
    let mut provider = Bucket::new(NETWORK_WRITES, 2.0);
    // (instant at which it may start, machine, stage), earliest first; times in whole milliseconds to be comparable.
    let mut coming: BTreeSet<(u64, usize, usize)> =
        (0..roads.len()).map(|node| (millis(network.group), node, 0)).collect();
    let mut ready: BTreeSet<(u64, usize, usize)> = BTreeSet::new();
    let mut now = network.group;
    loop {
        while let Some(&(at, node, stage)) = coming.first().filter(|(at, ..)| *at <= millis(now)) {
            coming.remove(&(at, node, stage));
            let road = &roads[node];
            let ahead = road.weight + [road.public_address + road.interface, road.interface, 0.0][stage];
            ready.insert((u64::MAX - millis(ahead), node, stage));
        }
        let Some(&(rank, node, stage)) = ready.first() else {
            let Some(&(at, ..)) = coming.first() else { return created };
            now = at as f64 / 1000.0;
            continue;
        };
        let is_network = stage < 2;
        let wait = arm.wait(now).max(if is_network { provider.wait(now) } else { 0.0 });
        if wait > 0.0 {
            now += wait;
            continue;
        }
        ready.remove(&(rank, node, stage));
        arm.take(now);
        if is_network {
            provider.take(now);
        }
        match stage {
            0 => {
                let there = (now + roads[node].public_address).max(network.ready);
                coming.insert((millis(there), node, 1));
            }
            1 => {
                coming.insert((millis(now + roads[node].interface), node, 2));
            }
            _ => created[node] = now,
        }
    }
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).ceil() as u64
}

/// A token bucket.
struct Bucket {
    size: f64,
    refill_per_second: f64,
    tokens: f64,
    at: f64,
}

impl Bucket {
    fn new((size, refill_per_second): (f64, f64), taken: f64) -> Self {
        Self { size, refill_per_second, tokens: size - taken, at: 0.0 }
    }

    fn refill(&mut self, now: f64) {
        self.tokens = (self.tokens + (now - self.at).max(0.0) * self.refill_per_second).min(self.size);
        self.at = self.at.max(now);
    }

    /// How long until there is a token.
    fn wait(&mut self, now: f64) -> f64 {
        self.refill(now);
        if self.tokens >= 1.0 - 1e-9 { 0.0 } else { (1.0 - self.tokens) / self.refill_per_second }
    }

    fn take(&mut self, now: f64) {
        self.refill(now);
        self.tokens -= 1.0;
    }
}

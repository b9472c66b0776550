//! What the configuration means for one cluster: its machines with their names, zones and addresses, and the names of
//! everything in Azure. Computed once; pure.

use crate::config::{Config, Host, MESH_FIRST_NODE_OFFSET, Provider, SUBNET_FIRST_NODE_OFFSET};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

const ID_PREFIX: &str = "k0rdent-";
const ID_LENGTH: usize = 8;
const ID_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// The only identifier of a cluster: `k0rdent-` and 8 of a-z and 0-9.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(String);

/// Text that is not a cluster's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cluster id: k0rdent- and 8 of a-z and 0-9, as in k0rdent-abcd1234")]
pub struct ClusterIdError(pub String);

impl ClusterId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, ClusterIdError> {
        let own = text.strip_prefix(ID_PREFIX).unwrap_or_default();
        let legal = own.len() == ID_LENGTH && own.bytes().all(|byte| ID_ALPHABET.contains(&byte));
        if legal { Ok(Self(text.to_owned())) } else { Err(ClusterIdError(text.to_owned())) }
    }

    /// A new id from a random source.
    pub fn from_random(mut draw: impl FnMut() -> u32) -> Self {
        let letters = (0..ID_LENGTH).map(|_| char::from(ID_ALPHABET[draw() as usize % ID_ALPHABET.len()]));
        Self(ID_PREFIX.chars().chain(letters).collect())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 8 characters that tell clusters apart, for names with little room.
    pub fn short(&self) -> &str {
        &self.0[ID_PREFIX.len()..]
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ClusterId {
    type Error = ClusterIdError;

    fn try_from(text: String) -> Result<Self, ClusterIdError> {
        Self::parse(&text)
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs the control plane.
    Controller,
    /// Runs workloads.
    Worker,
}

impl Role {
    /// `controller` or `worker`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its place in the address ranges, from 0.
    pub position: u32,
    /// `k0s-controller-1`, `k0s-worker-1`, ...
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its number within its role, from 1.
    pub index: u16,
    /// The zone it belongs in; none in a region without zones.
    pub zone: Option<u8>,
    /// The zones it may go to when that one has no room, in the configured order.
    pub allowed_zones: Vec<u8>,
    /// Its address in the mesh.
    pub mesh_address: Ipv4Addr,
    /// Its address in the subnet.
    pub private_address: Ipv4Addr,
    /// Its Azure size.
    pub size: String,
    /// Whether it runs workloads.
    pub runs_workloads: bool,
    /// Whether it is the first controller, whom the others join.
    pub leader: bool,
    /// The host that it is, if it existed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
}

impl Node {
    /// Where the operator reaches its ports: in the mesh, or where its SSH answers if there is no mesh.
    pub fn operator_side_address(&self) -> String {
        self.host.as_ref().map_or_else(|| self.mesh_address.to_string(), |host| host.address.clone())
    }

    /// Whether it may be in this zone; where no zones are asked for, any will do.
    pub fn may_be_in(&self, zone: &str) -> bool {
        self.allowed_zones.is_empty() || self.allowed_zones.iter().any(|allowed| allowed.to_string() == zone)
    }

    /// Name of its public address in Azure.
    pub fn public_ip_name(&self) -> String {
        public_ip_name(&self.name)
    }

    /// Name of its network interface in Azure.
    pub fn network_interface_name(&self) -> String {
        network_interface_name(&self.name)
    }

    /// Name of its disk in Azure.
    pub fn os_disk_name(&self) -> String {
        format!("{}-osdisk", self.name)
    }
}

/// Names of what the machines share in Azure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Resource group.
    pub resource_group: String,
    /// Virtual network.
    pub vnet: String,
    /// Subnet.
    pub subnet: String,
    /// Network security group.
    pub nsg: String,
    /// SSH key.
    pub ssh_key: String,
}

impl Names {
    /// The names of a cluster's resources: its id and what they are.
    pub fn of(cluster_id: &ClusterId) -> Self {
        let name = |kind: &str| format!("{cluster_id}-{kind}");
        Self {
            resource_group: name("resgrp"),
            vnet: name("vnet"),
            subnet: name("subnet"),
            nsg: name("nsg"),
            ssh_key: name("admin"),
        }
    }
}

/// A cluster as it shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The machines: controllers first, each role by number.
    pub nodes: Vec<Node>,
    /// The operator's address in the mesh.
    pub operator_mesh_address: Ipv4Addr,
    /// UDP port of the mesh on every machine.
    pub mesh_port: u16,
    /// Names in Azure.
    pub names: Names,
    /// Machines that exist and are not wanted any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Leaving>,
    /// The positions of those machines that are deleted and made anew.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub replacing: BTreeSet<usize>,
    /// Where the machines come from.
    #[serde(default)]
    pub provider: Provider,
}

/// A machine that is to leave the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its address in the virtual network, as far as it is known.
    pub private_address: Option<Ipv4Addr>,
    /// What it was in the cluster, if it is a host that existed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Box<Node>>,
}

impl Topology {
    /// The machine of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The first controller; none only when the configuration has no controller.
    pub fn leader(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.leader)
    }

    /// The controllers in order.
    pub fn controllers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Controller)
    }

    /// The workers in order.
    pub fn workers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Worker)
    }
}

/// The name of a machine's public address in Azure.
pub fn public_ip_name(machine: &str) -> String {
    format!("{machine}-pip")
}

/// The name of a machine's network interface in Azure.
pub fn network_interface_name(machine: &str) -> String {
    format!("{machine}-nic")
}

/// The places of machines in the address ranges, by name: they stay while the machine does, whoever else comes or goes.
pub type Positions = BTreeMap<String, u32>;

/// The cluster that a valid configuration describes.
pub fn topology(config: &Config, cluster_id: &ClusterId) -> Topology {
    topology_at(config, cluster_id, &Positions::new())
}

/// The cluster that a valid configuration describes, where some machines have their places already; others take the
/// first that are free, in order.
pub fn topology_at(config: &Config, cluster_id: &ClusterId, taken: &Positions) -> Topology {
    let controllers = (1..=config.cluster.controllers.count).map(|index| (Role::Controller, index));
    let workers = (1..=config.cluster.workers.count).map(|index| (Role::Worker, index));
    let occupied: BTreeSet<u32> = taken.values().copied().collect();
    let mut free = (0..).filter(|position| !occupied.contains(position));
    let nodes = controllers.chain(workers).map(|(role, index)| {
        let known = taken.get(&node_name(role, index)).copied();
        let position = known.or_else(|| free.next()).unwrap_or_default();
        node(config, role, index, position)
    });
    Topology {
        cluster_id: cluster_id.clone(),
        nodes: nodes.collect(),
        operator_mesh_address: address(config.network.wireguard_network, 1),
        mesh_port: config.network.mesh_port.unwrap_or_else(|| mesh_port(cluster_id)),
        names: Names::of(cluster_id),
        leaving: Vec::new(),
        replacing: BTreeSet::new(),
        provider: config.provider,
    }
}

fn node_name(role: Role, index: u16) -> String {
    format!("k0s-{role}-{index}")
}

fn node(config: &Config, role: Role, index: u16, position: u32) -> Node {
    let (zones, size, runs_workloads) = match role {
        Role::Controller => {
            (&config.cluster.controllers.zones, &config.vm_sizing.controller.size, config.controllers_run_workloads())
        }
        Role::Worker => (&config.cluster.workers.zones, &config.vm_sizing.worker.size, true),
    };
    let mut hosts = config.hosts.iter().filter(|host| config.provider == Provider::Ssh && host.role == role);
    let host = hosts.nth(usize::from(index) - 1).cloned();
    let in_subnet = address(config.network.subnet_prefix, SUBNET_FIRST_NODE_OFFSET + position);
    Node {
        name: node_name(role, index),
        position,
        role,
        index,
        zone: zones.iter().cycle().nth(usize::from(index) - 1).copied(),
        allowed_zones: zones.clone(),
        mesh_address: address(config.network.wireguard_network, MESH_FIRST_NODE_OFFSET + position),
        private_address: host.as_ref().and_then(Host::private_address).unwrap_or(in_subnet),
        size: size.clone(),
        runs_workloads,
        leader: role == Role::Controller && index == 1,
        host,
    }
}

/// The address so far into a range. Checking the configuration made sure that there is one.
fn address(range: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits().wrapping_add(offset))
}

/// A port that follows from the id, so that a plan needs no random source. From 61000 to 64000: above the ports that
/// Kubernetes gives to services and Linux to clients (60999 is the last, Linux documentation).
fn mesh_port(cluster_id: &ClusterId) -> u16 {
    let digest = Sha256::digest(cluster_id.as_str());
    61_000 + u16::from_be_bytes([digest[0], digest[1]]) % 3_001
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn sample(yaml: &str) -> Topology {
        let config = load(yaml).expect("the test's configuration is valid").config;
        topology(&config, &ClusterId::parse("k0rdent-abcd1234").expect("a valid id"))
    }

    #[test]
    fn nodes_have_names_zones_and_addresses() {
        let topology = sample(
            "cluster: {controllers: {count: 3, zones: [2, 3]}, workers: {count: 2, zones: [1]}}\n\
             vm_sizing: {worker: {size: Standard_D4s_v5}}",
        );
        let lines: Vec<_> = topology
            .nodes
            .iter()
            .map(|node| {
                let Node { name, zone, mesh_address, private_address, size, leader, runs_workloads, .. } = node;
                format!(
                    "{name} z{} {mesh_address} {private_address} {size} {leader} {runs_workloads}",
                    zone.unwrap_or_default()
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        k0s-controller-1 z2 192.168.100.11 10.0.1.4 Standard_B2s true false
        k0s-controller-2 z3 192.168.100.12 10.0.1.5 Standard_B2s false false
        k0s-controller-3 z2 192.168.100.13 10.0.1.6 Standard_B2s false false
        k0s-worker-1 z1 192.168.100.14 10.0.1.7 Standard_D4s_v5 false true
        k0s-worker-2 z1 192.168.100.15 10.0.1.8 Standard_D4s_v5 false true
        ");
        assert_eq!(topology.operator_mesh_address.to_string(), "192.168.100.1");
        assert_eq!(topology.nodes[1].allowed_zones, [2, 3]);
        assert_eq!(topology.leader().map(|node| node.network_interface_name()), Some("k0s-controller-1-nic".into()));
        assert_eq!(topology.nodes[0].public_ip_name(), "k0s-controller-1-pip");
        assert_eq!(topology.nodes[0].os_disk_name(), "k0s-controller-1-osdisk");
        assert_eq!((topology.controllers().count(), topology.workers().count()), (3, 2));
        assert_eq!(topology.names.resource_group, "k0rdent-abcd1234-resgrp");
        assert_eq!(topology.names.ssh_key, "k0rdent-abcd1234-admin");
    }

    #[test]
    fn a_range_may_span_more_than_one_byte() {
        let topology = sample(
            "network: {wireguard_network: 172.20.0.0/22, subnet_prefix: 10.0.4.0/22}\ncluster: {workers: {count: 300}}",
        );
        let last = &topology.nodes[300];
        assert_eq!(
            (last.mesh_address.to_string(), last.private_address.to_string()),
            ("172.20.1.55".into(), "10.0.5.48".into())
        );
    }

    #[test]
    fn controllers_run_workloads_when_nobody_else_does() {
        assert!(sample("cluster: {workers: {count: 0}}").nodes[0].runs_workloads);
        assert!(sample("cluster: {controllers: {run_workloads: true}}").nodes[0].runs_workloads);
    }

    #[test]
    fn the_mesh_port_is_configured_or_follows_from_the_id() {
        assert_eq!(sample("network: {mesh_port: 51820}").mesh_port, 51820);
        let derived = sample("").mesh_port;
        assert_eq!(derived, sample("").mesh_port);
        assert!((61_000..=64_000).contains(&derived));
    }

    #[test]
    fn ids_are_checked_and_drawn() {
        for wrong in ["", "k0rdent-", "k0rdent-abcd123", "k0rdent-abcd12345", "k0rdent-ABCD1234", "other-abcd1234"] {
            assert!(ClusterId::parse(wrong).is_err(), "{wrong}");
        }
        let mut next = 0;
        let drawn = ClusterId::from_random(|| {
            next += 35;
            next
        });
        assert_eq!(ClusterId::parse(drawn.as_str()), Ok(drawn.clone()));
        assert_eq!(drawn.short().len(), 8);
        assert!(serde_json::from_str::<ClusterId>("\"nonsense\"").is_err());
    }
}

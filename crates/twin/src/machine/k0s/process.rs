//! k0s as it runs: the first controller, further ones, etcd's majority, and kubelets.

use std::{collections::BTreeMap, time::Duration};

use super::{Cluster, Member, Service, config, name_of, state, state_mut, token};
use crate::{
    FaultKind, Latency, World,
    kube::{self, ClusterId, ClusterSpec, NodeSpec},
    machine::systemd,
    proxy,
};

/// systemd waits this long before it starts k0s again (`RestartSec` of its unit, k0s source).
const RESTART: Duration = Duration::from_secs(10);
/// How often something that is not there yet is tried again (guess).
const RETRY: Duration = Duration::from_secs(5);
/// How often k0s tries to join with the token that it has read when it began, before it ends with an error (retry-go, which
/// k0s uses with what it sets by itself).
const ATTEMPTS: u32 = 10;
/// How long k0s waits before it tries again to be let in as a controller; then twice as long (retry-go's own delay).
const CONTROLLER_RETRY: Duration = Duration::from_millis(100);
/// The same for a worker (k0s source, `BootstrapKubeletKubeconfig`).
const WORKER_RETRY: Duration = Duration::from_secs(1);
/// What a kubelet has with which it logs in, once its first request was granted (k0s source, `KubeletAuthConfigPath`).
pub(super) const LOGIN: &str = "/var/lib/k0s/kubelet.conf";
/// Where etcd keeps what it knows (k0s source, `EtcdDataDir`).
pub(super) const ETCD_DATA: &str = "/var/lib/k0s/etcd/member";
/// Where images are put that need not be pulled (k0s documentation, airgap installation), and where the others come from.
const BUNDLE: &str = "/var/lib/k0s/images/airgap-bundle.tar";
const IMAGES: &str = "quay.io";
/// A node is lost when its kubelet has been silent for this long (Kubernetes, `node-monitor-grace-period`).
const NODE_GRACE: Duration = Duration::from_secs(40);

/// Starts what is installed.
pub(in crate::machine) fn start(world: &mut World, key: &str) {
    let Some(k0s) = state_mut(world, key) else { return };
    if k0s.running || k0s.service.is_none() {
        return;
    }
    k0s.running = true;
    k0s.run += 1;
    begin(world, key);
}

fn begin(world: &mut World, key: &str) {
    let Some(service) = state(world, key).and_then(|k0s| k0s.service.clone()) else { return };
    log(world, key, format!("starting k0s {}", service.version));
    let proxy = world.machines.get(key).and_then(|machine| systemd::variable(machine, service.unit(), "HTTPS_PROXY"));
    if let Some(k0s) = state_mut(world, key) {
        k0s.proxy = proxy;
    }
    if service.is_controller { controller(world, key, &service) } else { kubelet(world, key) }
}

/// Stops what runs.
pub(in crate::machine) fn stop(world: &mut World, key: &str) {
    let Some(k0s) = state_mut(world, key) else { return };
    if !k0s.running {
        return;
    }
    k0s.running = false;
    k0s.run += 1;
    k0s.etcd_runs = false;
    let lost = k0s.node.clone().filter(|_| std::mem::take(&mut k0s.node_ready));
    let cluster = k0s.cluster;
    if let Some((cluster, node)) = lost {
        lose_later(world, key, cluster, node);
    }
    end_connections(world, key, cluster);
}

/// The node is lost unless its kubelet is back in time.
pub(super) fn lose_later(world: &mut World, key: &str, cluster: ClusterId, node: String) {
    let key = key.to_owned();
    world.after(world.hastened(NODE_GRACE), move |world| node_lost(world, &key, cluster, &node));
}

/// Connections to an API server end with it, and those to all others when the majority is gone.
fn end_connections(world: &mut World, key: &str, cluster: Option<ClusterId>) {
    let majority = cluster.is_none_or(|cluster| has_majority(world, cluster));
    for (other, machine) in &mut world.machines.by_id {
        if other == key || (!majority && machine.k0s.cluster == cluster) {
            machine.k0s.api_ends.send_modify(|count| *count += 1);
        }
    }
}

fn node_lost(world: &mut World, key: &str, cluster: ClusterId, node: &str) {
    let is_back =
        state(world, key).is_some_and(|k0s| k0s.node_ready && k0s.node.as_ref().is_some_and(|(_, name)| name == node));
    if !is_back && world.machines.k0s_clusters.contains_key(&cluster) {
        kube::set_node_ready(world, cluster, node, false, "Kubelet stopped posting node status.");
    }
}

fn log(world: &mut World, key: &str, message: impl Into<String>) {
    let Some(unit) = state(world, key).and_then(|k0s| k0s.service.as_ref()).map(Service::unit) else { return };
    systemd::log(world, key, unit, "k0s", message);
}

/// Does something later, unless k0s has been stopped in between.
fn later(world: &mut World, key: &str, delay: Duration, act: impl FnOnce(&mut World, &str) + Send + 'static) {
    let Some(run) = state(world, key).map(|k0s| k0s.run) else { return };
    world.after_in_machine(key, delay, move |world, key| {
        if state(world, key).is_some_and(|k0s| k0s.running && k0s.run == run) {
            act(world, key);
        }
    });
}

/// The process ends with an error; systemd starts it again.
fn fail(world: &mut World, key: &str, reason: &str) {
    log(world, key, format!("Error: {reason}"));
    let Some(unit) = state(world, key).and_then(|k0s| k0s.service.as_ref()).map(Service::unit) else { return };
    systemd::set_state(world, key, unit, systemd::State::Restarting);
    later(world, key, RESTART, move |world, key| {
        if let Some(unit) = world.machines.get_mut(key).and_then(|machine| machine.units.get_mut(unit)) {
            unit.restarts += 1;
        }
        systemd::set_state(world, key, unit, systemd::State::Active);
        begin(world, key);
    });
}

fn controller(world: &mut World, key: &str, service: &Service) {
    let settings = match settings(world, key, service) {
        Ok(settings) => settings,
        Err(reason) => return fail(world, key, &reason),
    };
    // It is read whenever k0s starts, whether it is needed or not (k0s source, `cmd/controller`).
    if let Some(Err(reason)) = service.token_file.as_ref().map(|file| token_text(world, key, file)) {
        return fail(world, key, &reason);
    }
    let Some(machine) = world.machines.get_mut(key) else { return };
    machine.k0s.settings = settings;
    // Whose data it was is known from the data alone.
    if machine.files.get(ETCD_DATA).is_none() {
        machine.k0s.cluster = None;
    }
    let name = name_of(world, key);
    if let Some(cluster) = state(world, key).and_then(|k0s| k0s.cluster) {
        // What has joined before starts faster: nothing has to be downloaded (guess).
        let delay = world.latency(Latency::K0sJoinController, &name) / 2;
        return later(world, key, delay, move |world, key| etcd_up(world, key, cluster));
    }
    match &service.token_file {
        None => {
            let delay = world.latency(Latency::K0sInitialise, &name);
            later(world, key, delay, initialised);
        }
        Some(_) if world.faults.strikes(FaultKind::IsolatedController, &name) => {
            let delay = world.latency(Latency::K0sInitialise, &name);
            later(world, key, delay, initialised);
        }
        Some(file) => match token_text(world, key, file) {
            Err(reason) => fail(world, key, &reason),
            Ok(token) => ask_to_join(world, key, token, 0),
        },
    }
}

/// Asks with the token that was read when the process began, until k0s gives up: a new token in the file helps only who
/// starts again (k0s source).
fn ask_to_join(world: &mut World, key: &str, token: String, attempt: u32) {
    match join(world, key, &token) {
        Ok(cluster) => {
            let delay = world.latency(Latency::K0sJoinController, &name_of(world, key));
            later(world, key, delay, move |world, key| joined(world, key, cluster));
        }
        // Only the certificate authority is asked for again (k0s source, `joinController`); etcd refuses once.
        Err(reason) if attempt < ATTEMPTS && !reason.contains("etcd") => {
            let delay = world.hastened(CONTROLLER_RETRY * 2_u32.pow(attempt));
            later(world, key, delay, move |world, key| ask_to_join(world, key, token, attempt + 1));
        }
        Err(reason) => fail(world, key, &reason),
    }
}

fn token_text(world: &World, key: &str, file: &str) -> Result<String, String> {
    let text = world.machines.get(key).and_then(|machine| machine.files.text(file));
    text.ok_or_else(|| format!("failed to read token: open {file}: no such file or directory"))
}

fn settings(world: &World, key: &str, service: &Service) -> Result<config::Settings, String> {
    let Some(machine) = world.machines.get(key) else { return Ok(config::Settings::default()) };
    match &service.config {
        None => Ok(config::Settings::default()),
        Some(path) => {
            let text = machine.files.text(path).ok_or_else(|| format!("open {path}: no such file or directory"))?;
            config::parse(&text)
        }
    }
}

/// Whether the fault is in force that keeps k0s from becoming ready.
fn is_held_back(world: &World, key: &str) -> bool {
    world.faults.holds(FaultKind::K0sNotReady, &name_of(world, key))
}

/// The address at which this controller's API is offered to others.
pub(super) fn api_address(world: &World, key: &str) -> String {
    let Some(machine) = world.machines.get(key) else { return String::new() };
    let settings = &machine.k0s.settings;
    let address = settings.external_address.as_ref().or(settings.address.as_ref());
    address.cloned().unwrap_or_else(|| machine.spec.private_ip.to_string())
}

fn initialised(world: &mut World, key: &str) {
    if is_held_back(world, key) {
        return later(world, key, world.hastened(RETRY), initialised);
    }
    let Some(machine) = world.machines.get(key) else { return };
    let version = machine.k0s.service.as_ref().map(|service| service.version.clone()).unwrap_or_default();
    let mut names = machine.k0s.settings.names.clone();
    names.extend([api_address(world, key), machine.spec.private_ip.to_string(), machine.hostname.clone()]);
    names.extend(["127.0.0.1", "localhost", "kubernetes", "kubernetes.default"].map(str::to_owned));
    let mut unique = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    let cluster = kube::create(world, ClusterSpec { k0s_version: version, names: unique });
    world.machines.k0s_clusters.insert(cluster, Cluster::default());
    add_member(world, key, cluster);
    world.machine_change(key, "created", "k0s cluster");
    etcd_up(world, key, cluster);
}

fn add_member(world: &mut World, key: &str, cluster: ClusterId) {
    let (name, peer_address) = (name_of(world, key), peer_address(world, key));
    if let Some(state) = world.machines.k0s_clusters.get_mut(&cluster) {
        state.members.push(Member { machine: key.into(), name, peer_address, started: false });
    }
}

/// The address of this controller's etcd.
pub(super) fn peer_address(world: &World, key: &str) -> String {
    let Some(machine) = world.machines.get(key) else { return String::new() };
    machine.k0s.settings.peer_address.clone().unwrap_or_else(|| machine.spec.private_ip.to_string())
}

/// Asks a running controller to be let in.
fn join(world: &mut World, key: &str, token: &str) -> Result<ClusterId, String> {
    let (cluster, is_controller) = invited_by(world, key, token)?;
    if !is_controller {
        return Err("failed to join: unauthorized: the token is not a controller token".into());
    }
    let (name, address) = (name_of(world, key), peer_address(world, key));
    let Some(state) = world.machines.k0s_clusters.get(&cluster) else { return Err("no such cluster".into()) };
    match state.members.iter().find(|member| member.peer_address == address) {
        // It was let in before and has never started.
        Some(member) if member.machine == key && member.name == name && !member.started => return Ok(cluster),
        Some(_) => return Err("failed to join etcd cluster: etcdserver: Peer URLs already exists".into()),
        None => {}
    }
    // etcd source, `IsReadyToAddVotingMember`: those who run must be a majority of what the cluster will be.
    let (members, started) = (state.members.len() + 1, state.members.iter().filter(|member| member.started).count());
    if !(started == 1 && members == 2) && started < members / 2 + 1 {
        return Err("failed to join etcd cluster: etcdserver: unhealthy cluster".into());
    }
    add_member(world, key, cluster);
    Ok(cluster)
}

/// The cluster that a token leads to, and whether it admits controllers.
fn invited_by(world: &World, key: &str, token: &str) -> Result<(ClusterId, bool), String> {
    let invitation = token::read(token)?;
    let host = &invitation.host;
    let server = world.machines.route(key, host).and_then(|server| serving(world, &server));
    let cluster =
        server.ok_or_else(|| format!("failed to join: Post \"https://{host}\": connect: connection refused"))?;
    let tokens = world.machines.k0s_clusters.get(&cluster).map(|state| state.tokens.as_slice()).unwrap_or_default();
    let token = tokens.iter().find(|token| token.bearer() == invitation.bearer && token.holds(world.now));
    match token {
        Some(token) => Ok((cluster, token.is_controller)),
        None => Err("failed to join: 401 Unauthorized".into()),
    }
}

fn joined(world: &mut World, key: &str, cluster: ClusterId) {
    if is_held_back(world, key) {
        return later(world, key, world.hastened(RETRY), move |world, key| joined(world, key, cluster));
    }
    if !world.machines.k0s_clusters.contains_key(&cluster) {
        return fail(world, key, "etcd cluster is gone");
    }
    world.machine_change(key, "updated", "k0s controller joined");
    etcd_up(world, key, cluster);
}

/// This controller's part of the control plane runs.
fn etcd_up(world: &mut World, key: &str, cluster: ClusterId) {
    let member = world
        .machines
        .k0s_clusters
        .get_mut(&cluster)
        .and_then(|state| state.members.iter_mut().find(|member| member.machine == key));
    // Somebody has made it leave.
    let Some(member) = member else {
        return fail(world, key, "the member has been permanently removed from the cluster");
    };
    member.started = true;
    let admin = kube::admin_kubeconfig(world, cluster, "https://localhost:6443");
    let Some(machine) = world.machines.get_mut(key) else { return };
    machine.files.put_directory("/var/lib/k0s", 0o755, "root");
    machine.files.put("/var/lib/k0s/pki/admin.conf", admin, 0o600, "root");
    machine.files.put_directory(ETCD_DATA, 0o700, "root");
    machine.k0s.cluster = Some(cluster);
    machine.k0s.etcd_runs = true;
    machine.changed.notify_waiters();
    log(world, key, "kube-apiserver is ready");
    if state(world, key).and_then(|k0s| k0s.service.as_ref()).is_some_and(|service| service.enable_worker) {
        kubelet(world, key);
    }
}

/// Whether enough members run to agree on anything.
fn has_majority(world: &World, cluster: ClusterId) -> bool {
    let Some(state) = world.machines.k0s_clusters.get(&cluster) else { return false };
    let started = state.members.iter().filter(|member| member.started);
    let runs = |member: &&Member| {
        world.machines.get(&member.machine).is_some_and(|machine| {
            machine.runs() && machine.k0s.running && machine.k0s.etcd_runs && machine.k0s.cluster == Some(cluster)
        })
    };
    started.clone().filter(runs).count() * 2 > started.count()
}

/// The cluster whose API answers on this machine.
pub(in crate::machine) fn serving(world: &World, key: &str) -> Option<ClusterId> {
    let machine = world.machines.get(key).filter(|machine| machine.runs())?;
    let cluster = machine.k0s.cluster.filter(|_| machine.k0s.running && machine.k0s.etcd_runs)?;
    has_majority(world, cluster).then_some(cluster)
}

/// The cluster that answers at an address, asked from this machine. On workers k0s's load balancer leads to whichever API
/// server answers (k0s documentation, node-local load balancing: port 7443).
pub(super) fn server_at(world: &World, key: &str, server: &str) -> Option<ClusterId> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "443"));
    let is_here = ["localhost", "127.0.0.1"].contains(&host);
    match (is_here, port) {
        (true, "7443") => {
            let k0s = state(world, key).filter(|k0s| k0s.running && k0s.cluster.is_none())?;
            let (cluster, _) = k0s.node.as_ref()?;
            api_answers(world, key, *cluster).then_some(*cluster)
        }
        (true, "6443") => serving(world, key),
        (false, "6443") => world.machines.route(key, host).and_then(|server| serving(world, &server)),
        _ => None,
    }
}

/// Whether any API server of the cluster answers, and this machine's packets get there.
fn api_answers(world: &World, key: &str, cluster: ClusterId) -> bool {
    let Some(state) = world.machines.k0s_clusters.get(&cluster) else { return false };
    state.members.iter().any(|member| {
        serving(world, &member.machine) == Some(cluster)
            && (member.machine == key || world.machines.route(key, &api_address(world, &member.machine)).is_some())
    })
}

/// The kubelet starts: it comes back if it has something to log in with, and otherwise asks for that with its token.
fn kubelet(world: &mut World, key: &str) {
    let Some(machine) = world.machines.get(key) else { return };
    let has_login = machine.files.get(LOGIN).is_some();
    let k0s = &machine.k0s;
    let token_file = k0s.service.as_ref().and_then(|service| service.token_file.clone()).unwrap_or_default();
    let (node, cluster) = (k0s.node.clone().filter(|_| has_login), k0s.cluster);
    let delay = world.latency(Latency::K0sJoinWorker, &name_of(world, key));
    match (node, cluster) {
        (Some((cluster, _)), _) => later(world, key, delay / 2, move |world, key| returned(world, key, cluster)),
        (None, Some(cluster)) => later(world, key, delay / 2, move |world, key| register(world, key, cluster)),
        (None, None) => match token_text(world, key, &token_file).and_then(|text| token::read(&text).map(|_| text)) {
            Ok(token) => bootstrap(world, key, token, 0),
            Err(reason) => fail(world, key, &reason),
        },
    }
}

/// Asks for a certificate with the token that was read when the process began, until k0s gives up (k0s source,
/// `BootstrapKubeletKubeconfig`).
fn bootstrap(world: &mut World, key: &str, token: String, attempt: u32) {
    let cluster = invited_by(world, key, &token).and_then(|(cluster, is_controller)| match is_controller {
        true => Err("wrong token type controller-bootstrap, expected type: kubelet-bootstrap".into()),
        false => Ok(cluster),
    });
    match cluster {
        Ok(cluster) => {
            let delay = world.latency(Latency::K0sJoinWorker, &name_of(world, key)) / 2;
            later(world, key, delay, move |world, key| register(world, key, cluster));
        }
        Err(_) if attempt < ATTEMPTS => {
            let delay = world.hastened(WORKER_RETRY * 2_u32.pow(attempt));
            later(world, key, delay, move |world, key| bootstrap(world, key, token, attempt + 1));
        }
        Err(reason) => fail(world, key, &format!("failed to bootstrap kubelet client configuration: {reason}")),
    }
}

/// A kubelet that starts registers its node, if somebody has deleted it.
fn returned(world: &mut World, key: &str, cluster: ClusterId) {
    if !api_answers(world, key, cluster) {
        return later(world, key, world.hastened(RETRY), move |world, key| returned(world, key, cluster));
    }
    enter_node(world, key, cluster);
    node_ready(world, key, cluster);
}

fn register(world: &mut World, key: &str, cluster: ClusterId) {
    if !api_answers(world, key, cluster) {
        log(world, key, "unable to register node: connection refused");
        return later(world, key, world.hastened(RETRY), move |world, key| register(world, key, cluster));
    }
    enter_node(world, key, cluster);
    let delay = world.latency(Latency::K0sJoinWorker, &name_of(world, key)) / 2;
    later(world, key, delay, move |world, key| node_ready(world, key, cluster));
}

/// Whether the cluster's configuration wants load balancers on workers.
fn balances(world: &World, cluster: ClusterId) -> bool {
    let members = world.machines.k0s_clusters.get(&cluster).into_iter().flat_map(|cluster| &cluster.members);
    members.filter_map(|member| world.machines.get(&member.machine)).any(|machine| machine.k0s.settings.balances)
}

/// The node is an object of the cluster, and the kubelet has something to log in with.
fn enter_node(world: &mut World, key: &str, cluster: ClusterId) {
    let Some(machine) = world.machines.get(key) else { return };
    let Some(service) = machine.k0s.service.clone() else { return };
    let name = service.node_name.clone().unwrap_or_else(|| machine.hostname.to_lowercase());
    // On workers only, as a static pod of the kubelet (k0s documentation, node-local load balancing).
    let balances = !service.is_controller && balances(world, cluster);
    let mut labels: BTreeMap<String, String> = service.labels.iter().cloned().collect();
    let mut taints = Vec::new();
    if service.is_controller {
        labels.insert("node.k0sproject.io/role".into(), "control-plane".into());
        labels.insert("node-role.kubernetes.io/control-plane".into(), "true".into());
        if !service.no_taints && !service.single {
            taints.push(("node-role.kubernetes.io/control-plane".into(), String::new(), "NoSchedule".into()));
        }
    }
    let node = NodeSpec {
        name: name.clone(),
        internal_ip: service.node_ip.unwrap_or_else(|| machine.spec.private_ip.to_string()),
        labels,
        taints,
        architecture: machine.architecture().into(),
        static_pods: if balances { vec!["nllb".into()] } else { Vec::new() },
    };
    kube::register_node(world, cluster, node);
    if let Some(machine) = world.machines.get_mut(key) {
        machine.files.put(LOGIN, Vec::new(), 0o600, "root");
        machine.k0s.node = Some((cluster, name));
    }
}

/// Whether containerd has the images that every node needs, or can pull them: with the proxy that k0s was told when it
/// started (k0s documentation: its components inherit its environment).
fn has_images(world: &mut World, key: &str) -> bool {
    let Some(machine) = world.machines.get(key) else { return false };
    if machine.k0s.has_images || machine.files.get(BUNDLE).is_some() {
        return true;
    }
    let (node, proxy) = (machine.name().to_owned(), machine.k0s.proxy.clone());
    let has_images = proxy::judge_machine(world, &node, IMAGES, proxy.as_deref()).is_ok();
    if let Some(k0s) = state_mut(world, key) {
        k0s.has_images = has_images;
    }
    if !has_images {
        log(
            world,
            key,
            format!("ErrImagePull: failed to pull image from {IMAGES}: dial tcp: connect: connection refused"),
        );
    }
    has_images
}

fn node_ready(world: &mut World, key: &str, cluster: ClusterId) {
    if !has_images(world, key) || is_held_back(world, key) || !api_answers(world, key, cluster) {
        return later(world, key, world.hastened(RETRY), move |world, key| node_ready(world, key, cluster));
    }
    let Some((_, node)) = state(world, key).and_then(|k0s| k0s.node.clone()) else { return };
    kube::set_node_ready(world, cluster, &node, true, "kubelet is posting ready status");
    if let Some(machine) = world.machines.get_mut(key) {
        machine.k0s.node_ready = true;
        machine.changed.notify_waiters();
    }
    log(world, key, "node is ready");
}

/// Clusters whose last control plane data is gone are gone.
pub(in crate::machine) fn forget_lost_clusters(world: &mut World) {
    let machines = &world.machines;
    let holds = |cluster: ClusterId, member: &Member| {
        machines.get(&member.machine).is_some_and(|machine| machine.k0s.cluster == Some(cluster))
    };
    let clusters = machines.k0s_clusters.iter();
    let lost: Vec<ClusterId> = clusters
        .filter(|(cluster, state)| !state.members.iter().any(|member| holds(**cluster, member)))
        .map(|(cluster, _)| *cluster)
        .collect();
    for cluster in lost {
        world.machines.k0s_clusters.remove(&cluster);
        kube::destroy(world, cluster);
        world.ledger.change(world.now, "world", "deleted", "k0s cluster");
    }
}

//! k0s of real hosts: a host takes the place of a machine, and a process on it does for real what the model says.
//!
//! The process of the controller has the cluster. Hosts that join it get a machine in its world; what their kubelets would
//! do happens there.

use std::{net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

pub use super::token::{Invitation, read as invitation};
use super::{
    Binary, Cluster, Member, Service,
    command::{Answer, command},
    config, process,
    token::{self, Token},
};
use crate::{
    World, kube,
    machine::{MachineSpec, boot, files::Who, shell::Outcome, systemd},
};

/// Where the binary is.
pub const BINARY: &str = "/usr/local/bin/k0s";

/// What there is to know about a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its address, at which others reach it.
    pub address: Ipv4Addr,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// The release of its k0s.
    pub version: String,
}

/// The address at which a `ClusterConfig` offers the API, if it names one.
pub fn api_address(cluster_config: &str) -> Option<Ipv4Addr> {
    config::parse(cluster_config).ok()?.address?.parse().ok()
}

/// What a command leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The exit code.
    pub code: u32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Outcome> for Said {
    fn from(outcome: Outcome) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: outcome.code, stdout: text(&outcome.stdout), stderr: text(&outcome.stderr) }
    }
}

fn key_of(name: &str) -> String {
    name.to_lowercase()
}

/// A host takes the place of a machine, with its binary and nothing else.
pub fn adopt(world: &mut World, host: &Host) {
    let spec = MachineSpec {
        vm_id: host.name.clone(),
        name: host.name.clone(),
        size: String::new(),
        architecture: if host.architecture == "arm64" { "Arm64".into() } else { "x64".into() },
        public_ip: None,
        private_ip: host.address,
        network: "hosts".into(),
        admin_username: "root".into(),
        authorized_keys: Vec::new(),
        custom_data: Vec::new(),
        ssh_port: 22,
    };
    boot::insert_running(world, spec);
    let binary = Binary { version: host.version.clone(), architecture: host.architecture.clone() };
    if let Some(machine) = world.machines.get_mut(&key_of(&host.name)) {
        machine.files.put(BINARY, binary.bytes(), 0o755, "root");
    }
}

/// A file of the host, for the model to read.
pub fn put_file(world: &mut World, name: &str, path: &str, content: &[u8]) {
    if let Some(machine) = world.machines.get_mut(&key_of(name)) {
        machine.files.put(path, content, 0o600, "root");
    }
}

/// What the model has written at a path: content and mode.
pub fn file(world: &World, name: &str, path: &str) -> Option<(Vec<u8>, u32)> {
    let node = world.machines.get(&key_of(name))?.files.get(path)?;
    Some((node.content.clone()?, node.mode))
}

/// Runs `k0s ARGUMENTS` in the model, in no time.
pub fn run(world: &mut World, name: &str, is_root: bool, arguments: &[String]) -> Said {
    let who = if is_root { Who::root() } else { Who { user: "nobody".into(), ..Who::root() } };
    let key = key_of(name);
    match command(world, &key, (&who, ""), BINARY, arguments) {
        Answer::Now(outcome) => outcome.into(),
        Answer::After(_, act) => act(world, &key).into(),
    }
}

/// The unit that k0s has installed: its name, and the arguments in it.
pub fn unit(world: &World, name: &str) -> Option<(&'static str, Vec<String>)> {
    let service = world.machines.get(&key_of(name))?.k0s.service.as_ref()?;
    Some((service.unit(), service.arguments.clone()))
}

/// Starts what is installed.
pub fn start(world: &mut World, name: &str) {
    if let Some((unit, _)) = unit(world, name) {
        // What k0s makes of it is in its log.
        let _ = systemd::start(world, &key_of(name), unit);
    }
}

/// Stops what runs.
pub fn stop(world: &mut World, name: &str) {
    if let Some((unit, _)) = unit(world, name) {
        systemd::stop(world, &key_of(name), unit);
    }
}

/// A process somewhere else does the work: it runs, and its node is ready or not.
pub fn runs_elsewhere(world: &mut World, name: &str, node_ready: bool) {
    let key = key_of(name);
    let Some((unit, _)) = unit(world, name) else { return };
    systemd::set_state(world, &key, unit, systemd::State::Active);
    if let Some(machine) = world.machines.get_mut(&key) {
        machine.k0s.running = true;
        machine.k0s.node_ready = node_ready;
    }
}

/// Whether the process has ended with an error.
pub fn has_failed(world: &World, name: &str) -> bool {
    let Some((unit, _)) = unit(world, name) else { return true };
    let machine = world.machines.get(&key_of(name));
    machine.and_then(|machine| machine.units.get(unit)).is_some_and(|unit| unit.state == systemd::State::Restarting)
}

/// What has been written to the journal since the last time.
pub fn take_log(world: &mut World, name: &str) -> Vec<String> {
    let Some(machine) = world.machines.get_mut(&key_of(name)) else { return Vec::new() };
    std::mem::take(&mut machine.journal).into_iter().map(|line| line.message).collect()
}

/// The cluster whose API answers here.
pub fn serving(world: &World, name: &str) -> Option<kube::ClusterId> {
    process::serving(world, &key_of(name))
}

/// Whether the kubelet has joined, and whether its node is ready.
pub fn node(world: &World, name: &str) -> (bool, bool) {
    let k0s = world.machines.get(&key_of(name)).map(|machine| &machine.k0s);
    k0s.map_or((false, false), |k0s| (k0s.node.is_some(), k0s.node_ready))
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    format_version: u32,
    cluster: Value,
    tokens: Vec<KeptToken>,
    tokens_made: u64,
    hosts: Vec<KeptHost>,
}

#[derive(Serialize, Deserialize)]
struct KeptToken {
    id: String,
    secret: String,
    is_controller: bool,
    /// Seconds since 1970.
    expires: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct KeptHost {
    host: Host,
    arguments: Vec<String>,
    node: Option<String>,
}

/// What changes whenever [`snapshot`] would say something else.
pub fn revision(world: &World, name: &str) -> Option<(u64, u64, usize, usize)> {
    let id = world.machines.get(&key_of(name))?.k0s.cluster?;
    let cluster = world.machines.k0s_clusters.get(&id)?;
    let joined = world.machines.by_id.values().filter(|machine| machine.k0s.node.is_some()).count();
    Some((kube::revision(world, id), cluster.tokens_made, cluster.tokens.len(), joined))
}

/// Everything that the controller on the host `name` has on its disk; nothing as long as there is no cluster.
pub fn snapshot(world: &World, name: &str) -> Option<Value> {
    let id = world.machines.get(&key_of(name))?.k0s.cluster?;
    let cluster = world.machines.k0s_clusters.get(&id)?;
    let expires = |expires: Duration| (world.options.epoch + expires).unix_timestamp();
    let token = |token: &Token| KeptToken {
        id: token.id.clone(),
        secret: token.secret.clone(),
        is_controller: token.is_controller,
        expires: token.expires.map(expires),
    };
    let kept = |machine: &crate::machine::Machine| {
        let service = machine.k0s.service.as_ref()?;
        let host = Host {
            name: machine.spec.name.clone(),
            address: machine.spec.private_ip,
            architecture: machine.architecture().into(),
            version: service.version.clone(),
        };
        let node = machine.k0s.node.as_ref().map(|(_, node)| node.clone());
        Some(KeptHost { host, arguments: service.arguments.clone(), node })
    };
    let snapshot = Snapshot {
        format_version: 1,
        cluster: kube::snapshot(world, id)?,
        tokens: cluster.tokens.iter().map(token).collect(),
        tokens_made: cluster.tokens_made,
        hosts: world.machines.by_id.values().filter_map(kept).collect(),
    };
    serde_json::to_value(snapshot).ok()
}

/// The controller on the host `name`, which has been adopted and has its service, finds this on its disk.
pub fn restore(world: &mut World, name: &str, snapshot: Value) -> Result<(), String> {
    let kept: Snapshot = serde_json::from_value(snapshot).map_err(|error| error.to_string())?;
    if kept.format_version != 1 {
        return Err(format!("format {} is newer than this program", kept.format_version));
    }
    let id = kube::restore(world, kept.cluster)?;
    let mut cluster = Cluster { tokens_made: kept.tokens_made, ..Cluster::default() };
    for KeptToken { id: token_id, secret, is_controller, expires } in kept.tokens {
        let lifetime = expires.map(|at| lifetime(world, at));
        let expires = lifetime.map(|lifetime| world.now + lifetime);
        let token = Token { id: token_id, secret, is_controller, expires };
        let bearer = token.bearer();
        kube::bearer_token(world, id, &bearer, true);
        if let Some(lifetime) = lifetime {
            world.after(lifetime, move |world| token::forget(world, id, &bearer));
        }
        cluster.tokens.push(token);
    }
    let key = key_of(name);
    let peer_address = process::peer_address(world, &key);
    cluster.members.push(Member { machine: key.clone(), name: name.into(), peer_address, started: true });
    world.machines.k0s_clusters.insert(id, cluster);
    for KeptHost { host, arguments, node } in kept.hosts {
        let other = key_of(&host.name);
        if other != key {
            adopt(world, &host);
            let install: Vec<String> = ["install", "worker"]
                .map(str::to_owned)
                .into_iter()
                .chain(arguments)
                .chain(["--force".into()])
                .collect();
            run(world, &host.name, true, &install);
        }
        let Some(machine) = world.machines.get_mut(&other) else { continue };
        machine.k0s.node = node.clone().map(|node| (id, node));
        if let Some(node) = node {
            machine.files.put(process::LOGIN, Vec::new(), 0o600, "root");
            process::lose_later(world, &other, id, node);
        }
    }
    if let Some(machine) = world.machines.get_mut(&key) {
        machine.k0s.cluster = Some(id);
        machine.files.put_directory(process::ETCD_DATA, 0o700, "root");
    }
    Ok(())
}

/// From now until then.
fn lifetime(world: &World, unix_seconds: i64) -> Duration {
    let until = OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap_or(world.options.epoch) - world.utc();
    Duration::try_from(until).unwrap_or_default()
}

impl Service {
    /// Whether it would join a controller that exists.
    fn joins_controllers(&self) -> bool {
        self.is_controller && self.token_file.is_some()
    }
}

/// Whether the service would make a further controller of the host.
pub fn joins_controllers(world: &World, name: &str) -> bool {
    let service = world.machines.get(&key_of(name)).and_then(|machine| machine.k0s.service.as_ref());
    service.is_some_and(Service::joins_controllers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Twin};

    const SECOND: Duration = Duration::from_secs(1);

    fn host(name: &str, last: u8) -> Host {
        let (architecture, version) = ("amd64".to_owned(), "v1.33.2+k0s.0".to_owned());
        Host { name: name.to_owned(), address: Ipv4Addr::new(10, 0, 0, last), architecture, version }
    }

    fn says(twin: &Twin, arguments: &str) -> String {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let said = twin.with(|world| run(world, "one", true, &arguments));
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.stdout
    }

    fn world() -> Twin {
        let twin = Twin::new(Options { haste: 10.0, ..Options::default() });
        tokio::spawn(twin.clone().drive());
        twin.with(|world| adopt(world, &host("one", 1)));
        says(&twin, "install controller");
        twin
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_starts_again_finds_what_it_had() {
        let twin = world();
        twin.with(|world| start(world, "one"));
        twin.sleep(20 * SECOND).await;
        let token = says(&twin, "token create --role=worker --expiry=30m");
        let install: Vec<String> = ["install", "worker", "--token-file=/t"].map(str::to_owned).to_vec();
        twin.with(|world| {
            adopt(world, &host("two", 2));
            put_file(world, "two", "/t", token.trim().as_bytes());
            assert_eq!(run(world, "two", true, &install).code, 0);
            start(world, "two");
        });
        twin.sleep(20 * SECOND).await;
        assert_eq!(twin.with(|world| node(world, "two")), (true, true));
        let (tokens, kept) = (says(&twin, "token list"), twin.with(|world| snapshot(world, "one")).unwrap());

        let again = world();
        again.with(|world| restore(world, "one", kept.clone())).unwrap();
        again.with(|world| start(world, "one"));
        again.sleep(3 * SECOND).await;
        let now = again.with(|world| snapshot(world, "one")).unwrap();
        assert_eq!(now["cluster"]["administrator"], kept["cluster"]["administrator"]);
        assert_eq!(now["cluster"]["objects"], kept["cluster"]["objects"]);
        assert_eq!(says(&again, "token list").split_whitespace().nth(4), tokens.split_whitespace().nth(4));
        // The node's kubelet is silent, until it comes back.
        again.sleep(5 * SECOND).await;
        assert!(says(&again, "kubectl get nodes").contains("NotReady"));
        again.with(|world| start(world, "two"));
        again.sleep(10 * SECOND).await;
        assert!(!says(&again, "kubectl get nodes").contains("NotReady"));
        // Its token is good for as long as it was to be.
        again.sleep(1900 * SECOND).await;
        assert!(says(&again, "token list").starts_with("No k0s join tokens"));
    }
}

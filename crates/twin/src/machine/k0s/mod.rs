//! k0s: the binary, the configuration, the tokens, and what runs once it is started.
//!
//! - [`command`]: the command line
//! - [`config`]: the `ClusterConfig`
//! - [`token`]: join tokens
//! - [`host`]: k0s of real hosts
//! - [`process`]: controllers, etcd and kubelets over time

mod command;
mod config;
pub mod host;
mod process;
mod token;

use crate::{World, kube::ClusterId};

pub(super) use command::{Answer, command};
pub(super) use process::{forget_lost_clusters, serving, start, stop};

use token::Token;

/// A k0s binary: a small file that says which release it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binary {
    version: String,
    /// `amd64` or `arm64`.
    pub(super) architecture: String,
}

impl Binary {
    /// The binary that a release of k0s offers under a file name, `k0s-v1.33.2+k0s.0-amd64`.
    pub(super) fn released(version: &str, file: &str) -> Option<Self> {
        let architecture = file.strip_prefix("k0s-")?.strip_prefix(version)?.strip_prefix('-')?;
        let (kubernetes, k0s) = version.strip_prefix('v')?.split_once("+k0s.")?;
        let number = |text: &str| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit());
        let is_release = kubernetes.split('.').count() == 3 && kubernetes.split('.').all(number) && number(k0s);
        let is_known = ["amd64", "arm64", "arm"].contains(&architecture);
        (is_release && is_known).then(|| Self { version: version.into(), architecture: architecture.into() })
    }

    /// What is in the file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        format!("\u{7f}ELF stands for the k0s binary\nversion={}\narchitecture={}\n", self.version, self.architecture)
            .into_bytes()
    }

    /// The binary that a file stands for, if it is one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_prefix("\u{7f}ELF stands for the k0s binary\n")?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Some(Self { version: field("version=")?, architecture: field("architecture=")? })
    }
}

/// What a release of k0s offers under a file name; none if it offers no such binary.
pub(crate) fn released_binary(version: &str, file: &str) -> Option<Vec<u8>> {
    Binary::released(version, file).map(|binary| binary.bytes())
}

/// The file that stands for the k0s binary of a release on the machines of the world. `architecture` is `amd64` or `arm64`.
pub fn stand_in_binary(version: &str, architecture: &str) -> Vec<u8> {
    Binary { version: version.into(), architecture: architecture.into() }.bytes()
}

/// What `k0s install` has written down.
#[derive(Debug, Clone, Default)]
struct Service {
    version: String,
    is_controller: bool,
    enable_worker: bool,
    no_taints: bool,
    single: bool,
    token_file: Option<String>,
    config: Option<String>,
    node_ip: Option<String>,
    node_name: Option<String>,
    labels: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl Service {
    fn unit(&self) -> &'static str {
        if self.is_controller { "k0scontroller" } else { "k0sworker" }
    }
}

/// k0s on one machine.
#[derive(Debug, Default)]
pub(super) struct K0s {
    service: Option<Service>,
    /// Counts starts and stops: what was under way in an earlier run does not happen.
    run: u64,
    running: bool,
    /// The cluster whose control plane data is on the disk.
    cluster: Option<ClusterId>,
    etcd_runs: bool,
    settings: config::Settings,
    /// The cluster that the kubelet has joined, and its node's name there.
    node: Option<(ClusterId, String)>,
    node_ready: bool,
    /// Told when the API server here stops serving.
    api_ends: tokio::sync::watch::Sender<u64>,
    /// The proxy for https that was among its variables when it started.
    proxy: Option<String>,
    /// Whether the images that a node needs have been there.
    has_images: bool,
    /// Whether the machine has fetched the binary by itself; somebody may also have put it there.
    pub(super) has_downloaded: bool,
}

impl K0s {
    /// Counts the times that the API server here has stopped serving.
    pub(super) fn api_ends(&self) -> &tokio::sync::watch::Sender<u64> {
        &self.api_ends
    }
}

/// What the controllers of a cluster agree on.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    members: Vec<Member>,
    tokens: Vec<Token>,
    tokens_made: u64,
}

/// A member of etcd.
#[derive(Debug, Clone)]
struct Member {
    machine: String,
    name: String,
    peer_address: String,
    /// Whether it has run at least once.
    started: bool,
}

/// A machine as a part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The machine's name.
    pub name: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Whether it is a controller.
    pub is_controller: bool,
    /// Whether it is the controller that the cluster began with.
    pub is_first: bool,
    /// Whether workloads can run there: it has a kubelet, and no taint keeps them away.
    pub is_schedulable: bool,
    /// Whether it was there before any client.
    pub was_there: bool,
    /// Whether it has downloaded the binary; otherwise it was given to it.
    pub has_downloaded: bool,
}

/// The machines that are part of a cluster, by resource id.
pub fn memberships(world: &World) -> Vec<Membership> {
    let membership = |machine: &super::Machine| {
        let (k0s, service) = (&machine.k0s, machine.k0s.service.as_ref()?);
        Some(Membership {
            name: machine.name().to_owned(),
            cluster: k0s.cluster.or_else(|| k0s.node.as_ref().map(|(cluster, _)| *cluster))?,
            is_controller: service.is_controller,
            is_first: service.is_controller && service.token_file.is_none(),
            is_schedulable: !service.is_controller || service.no_taints && service.enable_worker,
            was_there: machine.was_there(),
            has_downloaded: k0s.has_downloaded,
        })
    };
    world.machines.by_id.values().filter_map(membership).collect()
}

/// The machine's name, for latencies, faults and etcd.
fn name_of(world: &World, key: &str) -> String {
    world.machines.get(key).map(|machine| machine.name().to_owned()).unwrap_or_default()
}

fn state<'a>(world: &'a World, key: &str) -> Option<&'a K0s> {
    world.machines.get(key).map(|machine| &machine.k0s)
}

fn state_mut<'a>(world: &'a mut World, key: &str) -> Option<&'a mut K0s> {
    world.machines.get_mut(key).map(|machine| &mut machine.k0s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_named_as_the_release_names_it() {
        let version = "v1.33.2+k0s.0";
        let binary = Binary::released(version, "k0s-v1.33.2+k0s.0-amd64").unwrap();
        assert_eq!(Binary::read(&binary.bytes()), Some(binary));
        for (version, file) in [
            (version, "k0s-v1.33.3+k0s.0-amd64"),
            (version, "k0s-v1.33.2+k0s.0-riscv"),
            ("v1.33+k0s.0", "k0s-v1.33+k0s.0-amd64"),
            ("1.33.2", "k0s-1.33.2-amd64"),
        ] {
            assert_eq!(Binary::released(version, file), None, "{version} {file}");
        }
    }
}

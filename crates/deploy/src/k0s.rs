//! What k0s is told: its configuration, its command lines, and the kubeconfigs that come out of it.

use serde_json::{Value, json};

use crate::{
    config::{Architecture, Config, Provider},
    topology::{Node, Role, Topology},
    yaml::yaml,
};

/// Where the binary lives on a machine (k0sctl's choice too).
pub const BINARY: &str = "/usr/local/bin/k0s";
/// Where the configuration lives on a controller.
pub const CONFIG: &str = "/etc/k0s/k0s.yaml";
/// Where the join token lives on a machine.
pub const TOKEN: &str = "/etc/k0s/k0stoken";
/// Everything that k0s and this program put on a machine, apart from the unit; `k0s reset` removes most of it.
pub const PLACES: [&str; 5] = [BINARY, "/usr/local/bin/k0s.partial", "/etc/k0s", "/var/lib/k0s", "/run/k0s"];
/// What a machine has once it is part of a cluster: etcd's data on a controller, the kubelet's login on a worker (k0s source,
/// `EtcdDataDir` and `KubeletAuthConfigPath`). As long as it is there, k0s comes back by itself and needs no token.
pub fn membership(node: &Node) -> &'static str {
    match node.role {
        Role::Controller => "/var/lib/k0s/etcd/member",
        Role::Worker => "/var/lib/k0s/kubelet.conf",
    }
}
/// What keeps a machine from joining a cluster if it is of another one, or half made: k0s makes none of it anew.
pub const BELONGINGS: &str = "/var/lib/k0s/pki /var/lib/k0s/etcd /var/lib/k0s/kubelet.conf /var/lib/k0s/kubelet/pki";
/// The API server's port.
pub const API_PORT: u16 = 6443;

/// The port of k0s's own load balancer on each worker, which leads to every controller that answers (k0s documentation,
/// node-local load balancing: `apiServerBindPort`).
pub const BALANCER_PORT: u16 = 7443;

/// Where kubectl is on a machine.
pub const KUBECTL: &str = "/usr/local/bin/kubectl";
/// kubectl on a machine is k0s's own. A symbolic link would do for root alone: without `KUBECONFIG`, k0s reads nothing but
/// the administrator's file, which nobody else may read (k0s source, `NewK0sKubectlCmd`).
pub const KUBECTL_SCRIPT: &str = "#!/bin/sh
# Made by k0rdentctl: kubectl is a part of k0s.
test -n \"$KUBECONFIG\" || export KUBECONFIG=\"$HOME/.kube/config\"
exec /usr/local/bin/k0s kubectl \"$@\"
";

/// Where k0s looks for images that it need not pull (k0s documentation, airgap installation).
pub const AIRGAP_BUNDLE: &str = "/var/lib/k0s/images/airgap-bundle.tar";

/// What a machine gets k0s from: a file of this computer or an address, and perhaps images.
pub fn source(config: &Config, node: &Node) -> String {
    let k0s = &config.software.k0s;
    let binary = k0s.binary.clone().unwrap_or_else(|| download_url(config, architecture_of_size(node)));
    match k0s.airgap_bundle.as_ref().filter(|_| node.runs_workloads) {
        Some(bundle) => format!("{binary} {bundle}"),
        None => binary,
    }
}

/// Where a machine of this architecture downloads the k0s binary from.
pub fn download_url(config: &Config, architecture: &str) -> String {
    let k0s = &config.software.k0s;
    k0s.download_url.clone().unwrap_or_else(|| {
        let file = release_file(&k0s.version, architecture).replace('+', "%2B");
        format!("{}{file}", release_address(&k0s.version))
    })
}

/// Where the files of a release are, with a `/` at its end.
pub fn release_address(version: &str) -> String {
    format!("https://github.com/k0sproject/k0s/releases/download/{}/", version.replace('+', "%2B"))
}

/// The file of a release for that architecture.
pub fn release_file(version: &str, architecture: &str) -> String {
    format!("k0s-{version}-{architecture}")
}

/// The architecture of k0s's releases for a machine of this size.
pub fn architecture_of_size(node: &Node) -> &'static str {
    match Architecture::of_size(&node.size) {
        Architecture::Arm64 => "arm64",
        Architecture::X64 => "amd64",
    }
}

/// The architecture of k0s's releases for what `uname -m` says.
pub fn architecture(machine: &str) -> Option<&'static str> {
    match machine {
        "x86_64" => Some("amd64"),
        "aarch64" | "arm64" => Some("arm64"),
        _ => None,
    }
}

/// What machines have to reach on the internet, an address of each: the binary, k0s's images, and k0rdent's chart.
pub fn downloads(config: &Config) -> Vec<String> {
    let k0s = &config.software.k0s;
    let registry = config.software.k0rdent.registry.trim_start_matches("oci://");
    let chart = format!("https://{}/v2/", registry.split('/').next().unwrap_or_default());
    // A release is there for each architecture.
    let binary = k0s.binary.is_none().then(|| download_url(config, "amd64"));
    let images = k0s.airgap_bundle.is_none().then(|| ["https://quay.io/v2/".to_owned(), chart]);
    binary.into_iter().chain(images.into_iter().flatten()).collect()
}

/// The systemd unit in which k0s runs on a machine.
pub fn unit(node: &Node) -> &'static str {
    match node.role {
        Role::Controller => "k0scontroller",
        Role::Worker => "k0sworker",
    }
}

/// The ClusterConfig for a controller (k0s documentation, configuration options).
///
/// Set on purpose: the addresses of a machine with several interfaces; etcd also for one controller, so that others can
/// join later; Calico's packet size and the way it finds its address, both of which go wrong by themselves.
pub fn cluster_config(config: &Config, topology: &Topology, node: &Node) -> String {
    yaml(&json!({
        "apiVersion": "k0s.k0sproject.io/v1beta1",
        "kind": "ClusterConfig",
        "metadata": {"name": "k0s"},
        "spec": {
            "api": {
                "address": node.private_address.to_string(),
                "port": API_PORT,
                "sans": api_names(topology),
            },
            "storage": {"type": "etcd", "etcd": {"peerAddress": node.private_address.to_string()}},
            "network": network(config),
            "telemetry": {"enabled": false},
        },
    }))
}

/// The cluster's network, the same on every controller.
pub fn network(config: &Config) -> Value {
    json!({
        "provider": "calico",
        "podCIDR": config.network.pod_cidr.to_string(),
        "serviceCIDR": config.network.service_cidr.to_string(),
        "calico": {
            "mode": "vxlan",
            "mtu": config.network.calico_mtu,
            "ipAutodetectionMethod": match config.provider {
                Provider::Azure => format!("cidr={}", config.network.subnet_prefix),
                // The address that --node-ip has given to kubelet (Calico documentation).
                Provider::Ssh => "kubernetes-internal-ip".to_owned(),
            },
            "envVars": {"FELIX_IGNORELOOSERPF": "true"},
        },
        // Also for one controller: others may join later, and what workers know of them cannot change then.
        "nodeLocalLoadBalancing": {"enabled": true, "type": "EnvoyProxy"},
    })
}

/// Every address by which the API server is reached.
fn api_names(topology: &Topology) -> Vec<String> {
    topology
        .controllers()
        .flat_map(|node| [node.private_address.to_string(), node.operator_side_address()])
        .chain(["127.0.0.1".to_owned()])
        .collect()
}

/// The command that installs k0s as a service. The controller that starts a cluster has no token.
pub fn install_command(node: &Node, joins: bool) -> String {
    let mut command = format!("sudo {BINARY} install");
    match node.role {
        Role::Controller => {
            command += &format!(" controller --config={CONFIG}");
            if node.runs_workloads {
                command += " --enable-worker --no-taints";
            }
        }
        Role::Worker => command += " worker",
    }
    if joins {
        command += &format!(" --token-file={TOKEN}");
    }
    if node.role == Role::Worker || node.runs_workloads {
        command += &match node.host {
            None => format!(" --kubelet-extra-args=--node-ip={}", node.private_address),
            // A host keeps its own name; k0s takes the node's from here (k0s source, `GetNodeName`).
            Some(_) => {
                format!(" '--kubelet-extra-args=--node-ip={} --hostname-override={}'", node.private_address, node.name)
            }
        };
    }
    command + " --force"
}

/// The file for k0sctl's users: the same cluster in its words (k0sctl documentation).
pub fn k0sctl_config(config: &Config, topology: &Topology, key_path: &str) -> String {
    let hosts: Vec<Value> = topology
        .nodes
        .iter()
        .map(|node| {
            let role = match (node.role, node.runs_workloads) {
                (Role::Worker, _) => "worker",
                (Role::Controller, true) => "controller+worker",
                (Role::Controller, false) => "controller",
            };
            let mut host = json!({
                "role": role,
                "hostname": node.name,
                "privateAddress": node.private_address.to_string(),
                "ssh": {
                    "address": node.operator_side_address(),
                    "user": config.ssh.username,
                    "port": 22,
                    "keyPath": key_path,
                },
            });
            if let Some(known) = &node.host {
                host["ssh"]["user"] = json!(known.user);
                host["ssh"]["port"] = json!(known.port);
                host["ssh"]["keyPath"] = json!(known.key);
            }
            if role == "controller+worker" {
                host["noTaints"] = json!(true);
            }
            host
        })
        .collect();
    yaml(&json!({
        "apiVersion": "k0sctl.k0sproject.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": topology.cluster_id.to_string()},
        "spec": {
            "hosts": hosts,
            "k0s": {
                "version": config.software.k0s.version,
                "dynamicConfig": false,
                "config": {"spec": {
                    "api": {"sans": api_names(topology)},
                    "network": network(config),
                    "telemetry": {"enabled": false},
                }},
            },
        },
    }))
}

/// What a kubelet of this k0s release calls itself: `v1.33.2+k0s` for `v1.33.2+k0s.0` (k0s documentation).
pub fn kubelet_version(k0s_version: &str) -> &str {
    k0s_version.rsplit_once('.').map(|(rest, _)| rest).filter(|rest| rest.ends_with("+k0s")).unwrap_or(k0s_version)
}

/// A file to be sourced by any shell that POSIX describes, from anywhere.
pub fn kubeconfig_env(kubeconfig: &std::path::Path) -> String {
    let path = kubeconfig.display().to_string().replace('\'', r"'\''");
    format!(
        "# For sh, dash, bash and zsh: . THIS_FILE\n# For fish: set -x KUBECONFIG '{path}'\nKUBECONFIG='{path}'\nexport KUBECONFIG\n"
    )
}

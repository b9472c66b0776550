//! The encrypted mesh between the operator and the machines.
//!
//! WireGuard today: each machine knows the operator, the operator knows each machine. Machines talk to each other over
//! the virtual network, as the cluster's own traffic does.

use crate::{
    keys::{ClusterKeys, OPERATOR},
    secret::Secret,
    topology::{ClusterId, Node, Topology},
};

/// What carries the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mesh {
    /// WireGuard through `wg-quick`.
    Wireguard,
}

/// A file that a machine needs before it joins the mesh.
pub struct MeshFile {
    /// Its path on the machine.
    pub path: &'static str,
    /// Its mode, octal.
    pub mode: &'static str,
    /// Its content.
    pub content: Secret,
}

/// Restarting does what `wg-quick` itself does not: it waits for the network and tries again.
const RETRY_DROP_IN: &str = "[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Restart=on-failure
RestartSec=5
";

impl Mesh {
    /// The packages that a machine needs.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Wireguard => &["wireguard"],
        }
    }

    /// The systemd unit on a machine.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Wireguard => "wg-quick@wg0.service",
        }
    }

    /// A command on a machine that prints the machine's identity in the mesh.
    pub fn identity_command(self) -> &'static str {
        match self {
            Self::Wireguard => "sudo wg show wg0 public-key",
        }
    }

    /// What [`Mesh::identity_command`] must print.
    pub fn identity(self, keys: &ClusterKeys, node: &Node) -> String {
        match self {
            Self::Wireguard => keys.wireguard(&node.name).public,
        }
    }

    /// The files that a machine needs.
    pub fn files(self, topology: &Topology, keys: &ClusterKeys, node: &Node) -> Vec<MeshFile> {
        let Self::Wireguard = self;
        let content = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {}/32\nListenPort = {}\n\n[Peer]\n# operator\nPublicKey = {}\nAllowedIPs = {}/32\n",
            keys.wireguard(&node.name).private.expose(),
            node.mesh_address,
            topology.mesh_port,
            keys.wireguard(OPERATOR).public,
            topology.operator_mesh_address,
        );
        vec![
            MeshFile { path: "/etc/wireguard/wg0.conf", mode: "0600", content: Secret::new(content) },
            MeshFile {
                path: "/etc/systemd/system/wg-quick@wg0.service.d/10-retry.conf",
                mode: "0644",
                content: Secret::new(RETRY_DROP_IN),
            },
        ]
    }

    /// The operator's interface name: at most 15 characters (Linux).
    pub fn operator_interface(self, cluster: &ClusterId) -> String {
        format!("wgk0{}", cluster.short())
    }

    /// The operator's configuration, for `wg-quick`; `public_address` tells where each machine is.
    pub fn operator_config(
        self,
        topology: &Topology,
        keys: &ClusterKeys,
        public_address: impl Fn(&Node) -> String,
    ) -> Secret {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {}/32\n",
            keys.wireguard(OPERATOR).private.expose(),
            topology.operator_mesh_address
        );
        for node in &topology.nodes {
            text += &format!(
                "\n[Peer]\n# {}\nPublicKey = {}\nAllowedIPs = {}/32\nEndpoint = {}:{}\nPersistentKeepalive = 25\n",
                node.name,
                keys.wireguard(&node.name).public,
                node.mesh_address,
                public_address(node),
                topology.mesh_port,
            );
        }
        Secret::new(text)
    }
}

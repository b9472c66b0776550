//! The cloud-init document of a machine: everything it must know before anybody can reach it.

use serde_json::{Value, json};

use crate::{
    config::Config,
    keys::{ClusterKeys, openssh_private, openssh_public},
    machine_proxy,
    mesh::Mesh,
    secret::Secret,
    topology::{Node, Topology},
    yaml::yaml,
};

/// Azure refuses custom data of more than 64 KiB (Azure documentation).
pub const BYTES_LIMIT: usize = 64 * 1024;

/// The packages that a machine needs.
fn packages(mesh: Mesh) -> Vec<&'static str> {
    mesh.packages().iter().copied().chain(["curl"]).collect()
}

/// The command that installs them where cloud-init could not: it waits 30 s for apt's lock and no longer (cloud-init source),
/// and others, such as unattended upgrades or an extension of Azure, have it for minutes.
pub fn install_packages(mesh: Mesh) -> String {
    let packages = packages(mesh).join(" ");
    format!("sudo apt-get -q update && sudo apt-get -qy -o DPkg::Lock::Timeout=60 install {packages}")
}

/// The `#cloud-config` document for a node. It holds the machine's private keys.
pub fn document(config: &Config, topology: &Topology, keys: &ClusterKeys, mesh: Mesh, node: &Node) -> Secret {
    let host_key = keys.ssh_host(&node.name);
    let mut files: Vec<Value> = mesh
        .files(topology, keys, node)
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "owner": "root:root",
                "permissions": file.mode,
                "content": file.content.expose(),
            })
        })
        .collect();
    if let Some(content) = machine_proxy::apt(config) {
        let content = content.expose();
        files.push(json!({
            "path": machine_proxy::APT, "owner": "root:root", "permissions": "0600", "content": content,
        }));
    }
    let value = json!({
        "hostname": node.name,
        "preserve_hostname": false,
        "users": [{
            "name": config.ssh.username,
            "gecos": "k0rdent administrator",
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": [openssh_public(&keys.ssh_user())],
        }],
        "disable_root": true,
        "ssh_pwauth": false,
        "ssh_deletekeys": true,
        "ssh_keys": {
            "ed25519_private": openssh_private(&host_key).expose(),
            "ed25519_public": openssh_public(&host_key),
        },
        "package_update": true,
        "packages": packages(mesh),
        "write_files": files,
        // The start does not block: whether the mesh is up is looked at for its own sake, not as an error of cloud-init.
        "runcmd": [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", mesh.unit()],
            ["systemctl", "start", "--no-block", mesh.unit()],
        ],
    });
    let yaml = yaml(&value);
    Secret::new(format!("#cloud-config\n# {} of {}\n{yaml}", node.name, topology.cluster_id))
}

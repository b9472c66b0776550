//! Keys that nobody follows: ever, or in a configuration that lacks what they are about.

use super::{Config, VmPriority};

/// What is about machines that are made for the cluster, and about the network that is made for them.
const OF_MADE_MACHINES: &[&str] = &[
    "azure.",
    "vm_sizing.",
    "network.vnet_prefix",
    "network.subnet_prefix",
    "network.wireguard_network",
    "network.mesh_port",
    "cluster.controllers.zones",
    "cluster.workers.zones",
    "ssh.username",
];

/// Why nobody ever follows a key, or what it is in.
pub(super) fn never_followed(key: &str) -> Option<&'static str> {
    let mut reason = None;
    super::each_key("", super::top_level(), &mut |known, field| {
        let is_in = key.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        reason = reason.or(field.idle.filter(|_| is_in));
    });
    reason
}

/// Why nobody follows a key: nobody ever does, or it is about something that this configuration does not have.
pub(super) fn without_effect(key: &str, config: &Config) -> Option<&'static str> {
    let makes_machines = config.provider.makes_machines();
    let circumstance = match key {
        _ if !makes_machines && OF_MADE_MACHINES.iter().any(|section| key.starts_with(section)) => {
            "the hosts of provider ssh exist already"
        }
        "ssh.bastions" if makes_machines && !config.ssh.bastions.is_empty() => {
            "the way to machines in Azure needs no bastion"
        }
        "azure.eviction_policy" if config.azure.vm_priority == VmPriority::Regular => {
            "Azure takes back Spot machines only"
        }
        "vm_sizing.worker.size" | "cluster.workers.zones" if config.cluster.workers.count == 0 => {
            "there are no workers"
        }
        _ => return never_followed(key),
    };
    Some(circumstance)
}

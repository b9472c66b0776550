//! A changed configuration of a cluster that exists: what `deploy` can follow, and what it must refuse.

use engine::Failure;

use crate::{
    config::Config,
    topology::{Node, Topology},
};

/// Settings that are built into a cluster, and what changing them would cost.
const BUILT_IN: [(&str, &str); 18] = [
    ("/provider", "every machine would have to be replaced"),
    ("/azure/location", "every machine would have to be made anew in the other region"),
    ("/azure/vm_image", "every machine would have to be made anew"),
    ("/azure/os_disk_gb", "every machine would have to be made anew"),
    ("/azure/vm_priority", "every machine would have to be made anew"),
    ("/vm_sizing/controller/size", "every controller would have to be made anew"),
    ("/vm_sizing/worker/size", "every worker would have to be made anew"),
    ("/network/vnet_prefix", "the network and every machine in it would have to be made anew"),
    ("/network/subnet_prefix", "the network and every machine in it would have to be made anew"),
    ("/network/wireguard_network", "every machine's cloud-init document would change, and it is read once"),
    ("/network/mesh_port", "every machine's cloud-init document would change, and it is read once"),
    ("/network/pod_cidr", "k0s cannot change it: the cluster and everything in it would be lost"),
    ("/network/service_cidr", "k0s cannot change it: the cluster and everything in it would be lost"),
    ("/cluster/controllers/run_workloads", "every controller would have to join anew"),
    ("/ssh/username", "every machine would have to be made anew"),
    ("/software/k0s/version", "upgrades are not a part of deploy"),
    ("/software/k0rdent/version", "upgrades are not a part of deploy"),
    ("/software/k0rdent/namespace", "k0rdent and its child clusters would be lost"),
];

/// What cannot be changed in place, all of it at once; nothing if all can.
pub fn refusals(before: &Config, wanted: &Config) -> Vec<Failure> {
    let taken_away = (before.proxy.is_set() && !wanted.proxy.is_set()).then(|| {
        Failure::refused("proxy cannot be taken away while the cluster exists: its machines would go on using it")
            .advise(
                "Leave proxy.http and proxy.https, and set proxy.no_proxy to [\"*\"]: then nothing goes through it.",
            )
    });
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (before, wanted) = (value(before), value(wanted));
    BUILT_IN
        .iter()
        .filter(|(pointer, _)| before.pointer(pointer) != wanted.pointer(pointer))
        .map(|(pointer, cost)| {
            let text =
                |config: &serde_json::Value| config.pointer(pointer).map_or_else(String::new, ToString::to_string);
            let key = pointer.trim_start_matches('/').replace('/', ".");
            Failure::refused(format!(
                "{key} cannot change from {} to {} while the cluster exists: {cost}",
                text(&before),
                text(&wanted)
            ))
            .advise("Set it back; or `k0rdentctl reset`, then deploy anew.")
        })
        .chain(taken_away)
        .collect()
}

/// The hosts that have another address than when they were claimed: names follow the order of the list.
pub fn moved_hosts(claimed: &[Node], wanted: &Topology) -> Vec<Failure> {
    let place = |node: &Node| node.host.as_ref().map(|host| format!("{}:{}", host.address, host.port));
    let moved = claimed.iter().filter_map(|before| {
        let (before_place, now_place) = (place(before)?, place(wanted.node(&before.name)?)?);
        let message =
            format!("{} cannot move from {before_place} to {now_place} while the cluster exists", before.name);
        let advice = "Hosts are named in the order of the list: add and remove them at the end of their role.";
        (before_place != now_place).then(|| Failure::refused(message).advise(advice))
    });
    moved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        crate::config::load(text).unwrap().config
    }

    #[test]
    fn counts_may_change_and_addresses_may_not() {
        let before = config("cluster: {workers: {count: 1}}\n");
        assert_eq!(refusals(&before, &config("cluster: {workers: {count: 3}}\n")), []);
        let refused = refusals(&before, &config("network: {pod_cidr: 10.128.0.0/16}\nssh: {username: ada}\n"));
        let messages: Vec<String> = refused.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n"), @r#"
        network.pod_cidr cannot change from "10.244.0.0/16" to "10.128.0.0/16" while the cluster exists: k0s cannot change it: the cluster and everything in it would be lost
        ssh.username cannot change from "k0rdent" to "ada" while the cluster exists: every machine would have to be made anew
        "#);
    }

    #[test]
    fn every_built_in_setting_exists() {
        let value = serde_json::to_value(config("{}\n")).unwrap();
        for (pointer, _) in BUILT_IN {
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
    }
}

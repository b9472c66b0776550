//! The tags of what exists, compared with those that are wanted. Pure.
//!
//! Tags that others have given to our resources are theirs, and stay. Ours are those that make a resource ours, and those of
//! the configuration; which of the latter there were before is in the records, so that they can go again.

use std::collections::BTreeMap;

use engine::{State, StepStatus};
use serde_json::Value;

use crate::{
    azure::{
        Inventory, Kind, Tags, inventory,
        resources::{TAG_CLUSTER, TAG_NODE, TAG_ROLE},
    },
    config::Config,
    difference::{Cause, DifferenceKind, Reason},
    plan::Question,
    task::Task,
    topology::{Node, Topology},
};

/// The key under which the tags of the configuration are settled.
pub(crate) const SETTLED: &str = "azure_tags";

/// What is otherwise than wanted at one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retag {
    /// The resource's identifier.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// The tags that are missing or have another value.
    pub(crate) set: Tags,
    /// The tags that are not wanted any more.
    pub(crate) remove: Tags,
}

/// The tags that this or an earlier configuration has given, as recorded.
pub(crate) fn given(state: &State) -> Tags {
    let settled = state.settled.get(SETTLED).and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    settled.into_iter().flatten().filter_map(text).collect()
}

/// What has to change at what exists. `given` are the tags that configurations have given so far.
pub(crate) fn changes(config: &Config, topology: &Topology, inventory: &Inventory, given: &Tags) -> Vec<Retag> {
    let cluster = topology.cluster_id.as_str();
    let is_ours =
        |resource: &&Value| inventory::tag(resource, TAG_CLUSTER) == Some(cluster) && !inventory::is_deleting(resource);
    let change = |resource: &Value, ours: &[(&str, &str)]| {
        let mut wanted = config.azure.given_tags();
        wanted.extend(config.metadata.owner.iter().map(|owner| ("owner".to_owned(), owner.clone())));
        wanted.extend(ours.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let has = |name: &str, value: &str| inventory::tag(resource, name) == Some(value);
        let is_wanted = |name: &str| wanted.keys().any(|wanted| wanted.eq_ignore_ascii_case(name));
        let remove = given.iter().filter(|(name, value)| !is_wanted(name) && has(name, value));
        let remove = remove.map(|(name, value)| (name.clone(), value.clone())).collect();
        let set = wanted.clone().into_iter().filter(|(name, value)| !has(name, value)).collect();
        let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
        Retag { id: text("id"), name: text("name"), set, remove }
    };
    let of_group = [("cluster-id", cluster), ("created-by", "k0rdentctl")];
    let group = inventory.group.iter().filter(is_ours).map(|group| change(group, &of_group));
    let of_cluster = named(topology).into_iter().filter_map(|(kind, name, node)| {
        if node.is_some_and(|node| goes(topology, inventory, node, kind)) {
            return None;
        }
        let resource = inventory.find(kind, &name).filter(is_ours)?;
        let ours: &[(&str, &str)] = match node {
            Some(node) => &[(TAG_NODE, node.name.as_str()), (TAG_ROLE, node.role.name())],
            None => &[],
        };
        Some(change(resource, ours))
    });
    group.chain(of_cluster).filter(|change| !change.set.is_empty() || !change.remove.is_empty()).collect()
}

/// Every resource that a cluster has, with the node that it belongs to.
fn named(topology: &Topology) -> Vec<(Kind, String, Option<&Node>)> {
    let names = &topology.names;
    let mut named = vec![
        (Kind::SshKey, names.ssh_key.clone(), None),
        (Kind::NetworkSecurityGroup, names.nsg.clone(), None),
        (Kind::VirtualNetwork, names.vnet.clone(), None),
    ];
    for node in &topology.nodes {
        named.extend([
            (Kind::VirtualMachine, node.name.clone(), Some(node)),
            (Kind::NetworkInterface, node.network_interface_name(), Some(node)),
            (Kind::PublicIp, node.public_ip_name(), Some(node)),
            (Kind::Disk, node.os_disk_name(), Some(node)),
        ]);
    }
    named
}

/// Whether something of a node's goes, and is made anew with its tags.
fn goes(topology: &Topology, inventory: &Inventory, node: &Node, kind: Kind) -> bool {
    let is_replaced = topology.replacing.iter().any(|&replaced| topology.nodes[replaced].name == node.name);
    let machine = inventory.find(Kind::VirtualMachine, &node.name);
    machine.is_some_and(inventory::is_deleting) || (is_replaced && matches!(kind, Kind::VirtualMachine | Kind::Disk))
}

/// Whether everything that exists has the tags that are wanted: what was seen, or what is otherwise.
pub(crate) fn verdict(question: &Question<'_>) -> Result<String, Reason> {
    let Question { config, topology, recorded, observed, .. } = question;
    let changes = changes(config, topology, &observed.inventory, &given(recorded));
    let Some(text) = text(&changes) else { return Ok("everything that exists has its tags".to_owned()) };
    // What held with the same configuration was changed by somebody else.
    let held = recorded.steps.get(&Task::Tags.id(topology)).is_some_and(|step| {
        step.status == StepStatus::Completed && step.planned.fingerprint == question.fingerprint(Task::Tags)
    });
    Err(Reason::new(if held { DifferenceKind::TagsChanged.into() } else { Cause::Changed }, text))
}

/// The changes in words, tag by tag; nothing if there are none.
pub(crate) fn text(changes: &[Retag]) -> Option<String> {
    let mut places: BTreeMap<(bool, &str, &str), Vec<&str>> = BTreeMap::new();
    for Retag { name: resource, set, remove, .. } in changes {
        let set = set.iter().map(|(name, value)| (false, name, value));
        for (goes, name, value) in set.chain(remove.iter().map(|(name, value)| (true, name, value))) {
            places.entry((goes, name, value)).or_default().push(resource);
        }
    }
    let line = |((goes, name, value), resources): (&(bool, &str, &str), &Vec<&str>)| {
        let place = match resources.as_slice() {
            [one] => format!("on {one}"),
            [one, other] => format!("on {one} and {other}"),
            many => format!("on {} resources", many.len()),
        };
        let state = if *goes { "is not wanted any more" } else { "is not set" };
        format!("{name}={value} {state} {place}")
    };
    let lines: Vec<String> = places.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::topology::{ClusterId, topology};

    fn seen(text: &str, tags: &Value, given: &[(&str, &str)]) -> Option<String> {
        let config = crate::config::load(text).unwrap().config;
        let topology = topology(&config, &ClusterId::from_random(|| 23));
        let mut tags = tags.clone();
        tags[TAG_CLUSTER] = json!(topology.cluster_id.as_str());
        let mut inventory = Inventory::default();
        for name in [topology.names.vnet.clone(), "of-somebody-else".to_owned()] {
            let resource = json!({"id": format!("/x/{name}"), "name": name, "tags": tags});
            inventory.vnets.insert(name, resource);
        }
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        text_of(&changes(&config, &topology, &inventory, &given))
    }

    fn text_of(changes: &[Retag]) -> Option<String> {
        text(changes).map(|text| text.replace(|character: char| character.is_ascii_digit(), "9"))
    }

    #[test]
    fn what_is_ours_is_set_and_what_was_ours_goes() {
        let text = "azure: {tags: {Team: storage}}\n";
        assert_eq!(seen(text, &json!({"team": "storage", "theirs": "x"}), &[]), None);
        let wanted =
            seen(text, &json!({"team": "other", "old": "1", "kept": "theirs"}), &[("old", "1"), ("kept", "ours")]);
        let vnet = "k0rdent-zzzzzzzz-vnet";
        let shown = wanted.unwrap();
        assert!(
            shown.starts_with("Team=storage is not set on ") && shown.contains("; old=9 is not wanted any more on "),
            "{shown} {vnet}"
        );
        assert!(!shown.contains("kept"), "{shown}");
    }

    #[test]
    fn an_owner_that_is_configured_is_followed_and_the_operators_name_is_not() {
        let tags = json!({"owner": "somebody"});
        assert_eq!(seen("{}\n", &tags, &[]), None);
        assert!(seen("metadata: {owner: ada}\n", &tags, &[]).unwrap().starts_with("owner=ada is not set on "));
    }
}

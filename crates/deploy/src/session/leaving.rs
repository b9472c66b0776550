//! What is still there of a cluster and is not wanted any more.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    azure::{Inventory, Kind, inventory, resources},
    topology::{Leaving, Node, Role, Topology, network_interface_name},
};

/// The machines of ours that are not wanted, as the tags of what is left of them describe them: a run may have ended
/// after a machine was gone, and before its interface and its address were.
pub(super) fn leaving(topology: &Topology, inventory: &Inventory) -> Vec<Leaving> {
    let cluster = Some(topology.cluster_id.as_str());
    let kinds = [Kind::VirtualMachine, Kind::NetworkInterface, Kind::PublicIp];
    let resources = kinds.into_iter().flat_map(|kind| inventory.of(kind).values());
    let ours = resources.filter(|resource| inventory::tag(resource, resources::TAG_CLUSTER) == cluster);
    let named = ours.filter_map(|resource| Some((inventory::tag(resource, resources::TAG_NODE)?, resource)));
    let mut left: BTreeMap<&str, &Value> = BTreeMap::new();
    for (name, resource) in named.filter(|(name, _)| topology.node(name).is_none()) {
        left.entry(name).or_insert(resource);
    }
    let leaving = left.into_iter().map(|(name, resource)| {
        let is_controller = inventory::tag(resource, resources::TAG_ROLE) == Some("controller");
        let interface = inventory.find(Kind::NetworkInterface, &network_interface_name(name));
        let private_address = interface.and_then(|interface| {
            let address = interface.pointer("/properties/ipConfigurations/0/properties/privateIPAddress")?;
            address.as_str()?.parse().ok()
        });
        let role = if is_controller { Role::Controller } else { Role::Worker };
        Leaving { name: name.to_owned(), role, private_address, host: None }
    });
    leaving.collect()
}

/// The hosts of a run that follows a configuration: those that are wanted, and those that are not and are still ours.
pub(super) fn hosts_of(topology: &Topology) -> Vec<&Node> {
    let leaving = topology.leaving.iter().filter_map(|leaving| leaving.host.as_deref());
    topology.nodes.iter().filter(|node| node.host.is_some()).chain(leaving).collect()
}

//! The resources that we create in Azure, as the JSON that ARM wants. Pure functions of their arguments.
//!
//! Everything of a machine is tied to it with `deleteOption`, so that deleting the machine leaves nothing behind.

use std::{collections::BTreeMap, net::Ipv4Addr};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Value, json};

use super::watch::Kind;
use crate::{config::Image, difference::DifferenceKind};

/// Tags by name.
pub type Tags = BTreeMap<String, String>;

/// The tag that says which cluster a resource belongs to.
pub const TAG_CLUSTER: &str = "k0rdent-cluster-id";
/// The tag of a resource group that says when the cluster was begun.
pub const TAG_CREATED: &str = "created";
/// The tag that says whose it is.
pub const TAG_OWNER: &str = "owner";
/// The tag that says in which run a resource was created.
pub const TAG_EPOCH: &str = "k0rdent-run-epoch";
/// The tag that names the node that a resource belongs to.
pub const TAG_NODE: &str = "k0rdent-node";
/// The tag that says what the node does.
pub const TAG_ROLE: &str = "k0rdent-role";

/// The identifiers of the resources in one resource group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The subscription's identifier.
    pub subscription: String,
    /// The name of the resource group.
    pub resource_group: String,
}

impl Ids {
    /// Identifiers in a resource group.
    pub fn new(subscription: impl Into<String>, resource_group: impl Into<String>) -> Ids {
        Ids { subscription: subscription.into(), resource_group: resource_group.into() }
    }

    /// The resource group.
    pub fn group(&self) -> String {
        format!("/subscriptions/{}/resourceGroups/{}", self.subscription, self.resource_group)
    }

    /// All resources of a kind.
    pub fn collection(&self, kind: Kind) -> String {
        format!("{}/providers/{}", self.group(), kind.resource_type())
    }

    /// One resource.
    pub fn of(&self, kind: Kind, name: &str) -> String {
        format!("{}/{name}", self.collection(kind))
    }

    /// A subnet of a virtual network.
    pub fn subnet(&self, network: &str, subnet: &str) -> String {
        format!("{}/subnets/{subnet}", self.of(Kind::VirtualNetwork, network))
    }
}

/// The tags of a resource group.
pub fn group_tags(cluster_id: &str, owner: &str, created: &str) -> Tags {
    let tags = [("cluster-id", cluster_id), (TAG_CREATED, created), ("created-by", "k0rdentctl"), (TAG_OWNER, owner)];
    let mut tags = to_tags(&tags);
    tags.insert(TAG_CLUSTER.to_owned(), cluster_id.to_owned());
    tags.retain(|_, value| !value.is_empty());
    tags
}

/// The tags of everything in the group; node and role are added where there is one.
pub fn resource_tags(cluster_id: &str, owner: &str, epoch: u64, node: Option<(&str, &str)>) -> Tags {
    let mut tags = to_tags(&[(TAG_CLUSTER, cluster_id), (TAG_OWNER, owner), (TAG_EPOCH, &epoch.to_string())]);
    tags.retain(|_, value| !value.is_empty());
    if let Some((node, role)) = node {
        tags.extend(to_tags(&[(TAG_NODE, node), (TAG_ROLE, role)]));
    }
    tags
}

/// The tags that somebody wants, and ours, which count where both have a name.
pub fn with_tags(theirs: &Tags, ours: Tags) -> Tags {
    let is_ours = |name: &str| ours.keys().any(|own| own.eq_ignore_ascii_case(name));
    let mut tags: Tags = theirs.clone();
    tags.retain(|name, _| !is_ours(name));
    tags.extend(ours);
    tags
}

fn to_tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A resource group.
pub fn resource_group(location: &str, tags: &Tags) -> Value {
    json!({"location": location, "tags": tags})
}

/// An SSH public key, for people who look for it in the portal; machines carry their own copy.
pub fn ssh_key(location: &str, tags: &Tags, public_key: &str) -> Value {
    json!({"location": location, "tags": tags, "properties": {"publicKey": public_key.trim()}})
}

/// The network security group: the mesh from anywhere, SSH from the given prefixes only.
pub fn network_security_group(location: &str, tags: &Tags, mesh_port: u16, ssh_from: &[String]) -> Value {
    let rules = [
        rule("AllowWireGuard", 1000, "Udp", mesh_port, json!({"sourceAddressPrefix": "*"})),
        rule(SSH_RULE, 1010, "Tcp", 22, json!({"sourceAddressPrefixes": ssh_from})),
    ];
    json!({"location": location, "tags": tags, "properties": {"securityRules": rules}})
}

/// The name of the rule that lets SSH in.
pub const SSH_RULE: &str = "AllowSSH";

/// What is not as it should be in a network security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleTrouble<'group> {
    /// A rule is missing.
    Missing(&'static str),
    /// A rule lets something else in than it should.
    Changed(&'static str),
    /// SSH is open, to these ranges and not to those that are wanted.
    OpenTo(Vec<&'group str>),
}

impl RuleTrouble<'_> {
    /// What kind of difference it is, and what that means where SSH is to be open to these ranges.
    pub fn told(&self, ssh_from: &[String]) -> (DifferenceKind, String) {
        match self {
            Self::Missing(rule) => (DifferenceKind::RuleMissing, format!("rule {rule} is missing")),
            Self::Changed(rule) => (DifferenceKind::RuleChanged, format!("rule {rule} was changed")),
            Self::OpenTo(ranges) => {
                let (there, wanted) = (ranges.join(", "), ssh_from.join(", "));
                (
                    DifferenceKind::RuleChanged,
                    format!("rule {SSH_RULE} was changed: SSH is open to {there}, not to {wanted}"),
                )
            }
        }
    }
}

/// What is wrong with the first of our rules that is not in a network security group as it should be. Where SSH may come
/// from is not compared if it is not known.
pub fn rule_trouble<'group>(group: &'group Value, mesh_port: u16, ssh_from: &[String]) -> Option<RuleTrouble<'group>> {
    let rules = group["properties"]["securityRules"].as_array();
    let find = |name: &str| rules.into_iter().flatten().find(|rule| rule["name"] == name);
    let is_open = |rule: &Value, protocol: &str, port: u16| {
        let properties = &rule["properties"];
        let text = |key: &str| properties[key].as_str().unwrap_or_default();
        text("access").eq_ignore_ascii_case("Allow")
            && text("direction").eq_ignore_ascii_case("Inbound")
            && text("protocol").eq_ignore_ascii_case(protocol)
            && text("destinationPortRange") == port.to_string()
    };
    match find("AllowWireGuard") {
        None => return Some(RuleTrouble::Missing("AllowWireGuard")),
        Some(rule) if !is_open(rule, "Udp", mesh_port) => return Some(RuleTrouble::Changed("AllowWireGuard")),
        Some(_) => {}
    }
    let Some(rule) = find(SSH_RULE) else { return Some(RuleTrouble::Missing(SSH_RULE)) };
    // Others may write a single range into the field for one (Azure documentation: both exist).
    let (one, several) = (&rule["properties"]["sourceAddressPrefix"], &rule["properties"]["sourceAddressPrefixes"]);
    let sources = several.as_array().into_iter().flatten().chain(std::iter::once(one));
    let sources: Vec<&str> = sources.filter_map(Value::as_str).collect();
    let same = ssh_from.is_empty()
        || sources.len() == ssh_from.len() && ssh_from.iter().all(|from| sources.contains(&from.as_str()));
    match same {
        _ if !is_open(rule, "Tcp", 22) => Some(RuleTrouble::Changed(SSH_RULE)),
        false => Some(RuleTrouble::OpenTo(sources)),
        true => None,
    }
}

fn rule(name: &str, priority: u16, protocol: &str, port: u16, source: Value) -> Value {
    let mut properties = json!({
        "priority": priority,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": protocol,
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": port.to_string(),
    });
    if let (Some(properties), Value::Object(source)) = (properties.as_object_mut(), source) {
        properties.extend(source);
    }
    json!({"name": name, "properties": properties})
}

/// The virtual network with its one subnet, guarded by the network security group.
pub fn virtual_network(
    location: &str,
    tags: &Tags,
    prefix: &str,
    (subnet, subnet_prefix): (&str, &str),
    security_group_id: &str,
) -> Value {
    json!({
        "location": location,
        "tags": tags,
        "properties": {
            "addressSpace": {"addressPrefixes": [prefix]},
            "subnets": [{
                "name": subnet,
                "properties": {"addressPrefix": subnet_prefix, "networkSecurityGroup": {"id": security_group_id}},
            }],
        },
    })
}

/// A public address. It spans the zones, where there are any, so that its machine may move from one to another.
pub fn public_ip(location: &str, tags: &Tags, has_zones: bool) -> Value {
    let zones: &[u8] = if has_zones { &[1, 2, 3] } else { &[] };
    let body = json!({
        "location": location,
        "tags": tags,
        "sku": {"name": "Standard", "tier": "Regional"},
        "properties": {
            "publicIPAllocationMethod": "Static",
            "publicIPAddressVersion": "IPv4",
            "idleTimeoutInMinutes": 4,
            "deleteOption": "Delete",
        },
    });
    in_zones(body, zones)
}

/// A region without zones does not know the field.
fn in_zones(mut body: Value, zones: &[u8]) -> Value {
    if !zones.is_empty() {
        body["zones"] = json!(zones.iter().map(u8::to_string).collect::<Vec<_>>());
    }
    body
}

/// A network interface with a fixed private address and a public one that goes when it goes.
pub fn network_interface(location: &str, tags: &Tags, subnet_id: &str, address: Ipv4Addr, public_ip_id: &str) -> Value {
    json!({
        "location": location,
        "tags": tags,
        "properties": {
            // Small sizes do not have it, and the mesh would not use it.
            "enableAcceleratedNetworking": false,
            "ipConfigurations": [{
                "name": "primary",
                "properties": {
                    "primary": true,
                    "subnet": {"id": subnet_id},
                    "privateIPAllocationMethod": "Static",
                    "privateIPAddress": address.to_string(),
                    "publicIPAddress": {"id": public_ip_id, "properties": {"deleteOption": "Delete"}},
                },
            }],
        },
    })
}

/// What happens to a Spot machine when Azure takes it back; in Azure's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Eviction {
    /// It stays, switched off; its disk costs.
    Deallocate,
    /// It is deleted, with all that belongs to it.
    Delete,
}

/// A machine to create.
#[derive(Debug, Clone)]
pub struct VirtualMachine<'a> {
    /// The node's name, which is also its host name.
    pub name: &'a str,
    /// The region.
    pub location: &'a str,
    /// The availability zone, if it is to be in one.
    pub zone: Option<u8>,
    /// The size.
    pub size: &'a str,
    /// Spot, with what happens on eviction; a regular machine if absent.
    pub spot: Option<Eviction>,
    /// The image.
    pub image: &'a Image,
    /// Its version, if that is known better than the image says it.
    pub image_version: Option<&'a str>,
    /// The name of its disk.
    pub disk_name: &'a str,
    /// The size of its disk.
    pub disk_gb: u32,
    /// The user that is created with the SSH key.
    pub username: &'a str,
    /// The public half of the SSH key.
    pub public_key: &'a str,
    /// The cloud-init configuration; at most 64 KiB (Azure documentation).
    pub custom_data: &'a str,
    /// The interface that it takes along.
    pub network_interface_id: &'a str,
    /// Its tags.
    pub tags: &'a Tags,
}

/// The best kind of disk that a size can have: the letter s among a size's features means premium storage (Azure
/// documentation of size names).
pub fn disk_type(size: &str) -> &'static str {
    let name = size.strip_prefix("Standard_").unwrap_or(size);
    let name = name.split('_').next().unwrap_or_default();
    let (family, rest) = name.split_at(name.find(|character: char| character.is_ascii_digit()).unwrap_or(name.len()));
    if rest.contains('s') || family.ends_with('S') { "Premium_LRS" } else { "StandardSSD_LRS" }
}

/// The image of a machine. Of an own image without a version, Azure takes the latest (Azure documentation).
fn image_reference(image: &Image, version: Option<&str>) -> Value {
    match image {
        Image::Marketplace { publisher, offer, sku, version: named } => {
            json!({"publisher": publisher, "offer": offer, "sku": sku, "version": version.unwrap_or(named)})
        }
        Image::Gallery { definition, version: named } => match version.or(named.as_deref()) {
            Some(version) => json!({"id": format!("{definition}/versions/{version}")}),
            None => json!({"id": definition}),
        },
    }
}

/// A machine.
pub fn virtual_machine(machine: &VirtualMachine<'_>) -> Value {
    let key_path = format!("/home/{}/.ssh/authorized_keys", machine.username);
    let mut body = json!({
        "location": machine.location,
        "tags": machine.tags,
        "properties": {
            "hardwareProfile": {"vmSize": machine.size},
            "storageProfile": {
                "imageReference": image_reference(machine.image, machine.image_version),
                "osDisk": {
                    "name": machine.disk_name,
                    "createOption": "FromImage",
                    "caching": "ReadWrite",
                    "diskSizeGB": machine.disk_gb,
                    "deleteOption": "Delete",
                    "managedDisk": {"storageAccountType": disk_type(machine.size)},
                },
            },
            "osProfile": {
                "computerName": machine.name,
                "adminUsername": machine.username,
                "customData": BASE64_STANDARD.encode(machine.custom_data),
                "linuxConfiguration": {
                    "disablePasswordAuthentication": true,
                    "provisionVMAgent": true,
                    "ssh": {"publicKeys": [{"path": key_path, "keyData": machine.public_key.trim()}]},
                },
            },
            "networkProfile": {
                "networkInterfaces": [{
                    "id": machine.network_interface_id,
                    "properties": {"primary": true, "deleteOption": "Delete"},
                }],
            },
            // Azure keeps the console's log; it is the only witness when a machine does not boot.
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": true}},
        },
    });
    if let Some(eviction) = machine.spot {
        let properties = &mut body["properties"];
        properties["priority"] = json!("Spot");
        properties["evictionPolicy"] = json!(eviction);
        // At most the price of a regular machine (Azure documentation).
        properties["billingProfile"] = json!({"maxPrice": -1});
    }
    in_zones(body, machine.zone.as_slice())
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;

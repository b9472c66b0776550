//! Public addresses and network interfaces.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    call::Refusal,
    network, quota,
    resource::{Kind, Target},
    store::{Hidden, Parts},
    validate,
};
use crate::World;

/// How long Azure keeps interfaces for a machine that it could not create (observed: Azure's message in gardenlinux issue 4133).
const RESERVATION: Duration = Duration::from_secs(180);

/// Keeps interfaces for a machine that was refused for want of quota or has failed (observed: karpenter-provider-azure issues 67
/// and 92, rancher/machine pull request 359).
pub(super) fn reserve(world: &mut World, interfaces: &[String], machine: &str) {
    let (now, until) = (world.now, world.now + RESERVATION);
    for interface in interfaces {
        world.azure.store.change(now, interface, |record| record.hidden.reserved = Some((machine.to_owned(), until)));
    }
}

/// Nobody but the machine for which it is kept gets an interface, and nobody deletes it (observed: gardenlinux issue 4133).
pub(super) fn check_reservation(world: &World, interface: &str, user: Option<&str>) -> Result<(), Refusal> {
    let reserved = world.azure.store.get(interface).and_then(|record| record.hidden.reserved.as_ref());
    match reserved.filter(|(_, until)| world.now < *until) {
        Some((machine, _)) if user.is_none_or(|user| !user.eq_ignore_ascii_case(machine)) => {
            let text = format!(
                "Nic(s) in request is reserved for another Virtual Machine for 180 seconds. Please provide another nic(s) or \
                 retry after 180 seconds. Reserved VM: {machine}"
            );
            Err(Refusal::new(400, "NicReservedForAnotherVm", text))
        }
        _ => Ok(()),
    }
}

pub(super) fn prepare_public_address(
    world: &mut World,
    target: &Target,
    request: Value,
    location: &str,
) -> Result<Parts, Refusal> {
    validate::zones(&request, location)?;
    let sku = request["sku"]["name"].as_str().unwrap_or("Basic");
    let method = request["properties"]["publicIPAllocationMethod"].as_str().unwrap_or("Dynamic");
    if sku.eq_ignore_ascii_case("Basic") {
        // Retired in 2025 (Azure documentation).
        let text = "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription in this region.";
        return Err(Refusal::new(400, "IPv4BasicSkuPublicIpCountLimitReached", text));
    }
    if !method.eq_ignore_ascii_case("Static") {
        let text =
            "Standard sku publicIp addresses only support Static allocation: publicIPAllocationMethod must be Static.";
        return Err(Refusal::new(400, "PublicIPAddressStandardSkuMustBeStatic", text));
    }
    let known = world.azure.store.get(&target.key).and_then(|record| record.hidden.public_address);
    let address = match known {
        Some(address) => address,
        None => {
            quota::check_public_address(world, location)?;
            next_public_address(world)
        }
    };
    let mut body = target.body(&request, location);
    let defaults = json!({"publicIPAddressVersion": "IPv4", "idleTimeoutInMinutes": 4, "ipTags": [], "ddosSettings": {"protectionMode": "VirtualNetworkInherited"}});
    for (field, value) in defaults.as_object().into_iter().flatten() {
        if body["properties"][field].is_null() {
            body["properties"][field] = value.clone();
        }
    }
    let hidden = Hidden { public_address: Some(address), ..Hidden::default() };
    Ok(Parts { body, request, references: Vec::new(), hidden })
}

/// Addresses are handed out upwards; those that end in 0 and 255 look like networks and are left out.
fn next_public_address(world: &mut World) -> Ipv4Addr {
    loop {
        let address = Ipv4Addr::from_bits(world.azure.next_public_address);
        world.azure.next_public_address += 1;
        if !matches!(address.octets()[3], 0 | 255) {
            return address;
        }
    }
}

pub(super) fn prepare_network_interface(
    world: &World,
    target: &Target,
    request: Value,
    location: &str,
) -> Result<Parts, Refusal> {
    let mut body = target.body(&request, location);
    let mut references = Vec::new();
    let reserved = world.azure.store.get(&target.key).and_then(|record| record.hidden.reserved.clone());
    let mut hidden = Hidden { reserved, ..Hidden::default() };
    let group = &request["properties"]["networkSecurityGroup"];
    let group = validate::reference(world, &target.id, group, Kind::SecurityGroup, location)?;
    references.extend(group.map(|group| (target.id.clone(), group)));
    let configurations = body["properties"]["ipConfigurations"].as_array_mut();
    let Some(configurations) = configurations.filter(|list| !list.is_empty()) else {
        let text = format!("Network interface {} must have one or more IP configurations.", target.id);
        return Err(Refusal::new(400, "NetworkInterfaceMustHaveAtLeastOneIpConfiguration", text));
    };
    for (index, configuration) in configurations.iter_mut().enumerate() {
        let name = configuration["name"].as_str().unwrap_or_default().to_owned();
        let from = format!("{}/ipConfigurations/{name}", target.id);
        configuration["id"] = json!(from);
        configuration["type"] = json!("Microsoft.Network/networkInterfaces/ipConfigurations");
        let properties = &mut configuration["properties"];
        let (subnet, address) = private_address(world, target, &from, properties, &hidden)?;
        properties["privateIPAddress"] = json!(address.to_string());
        properties["provisioningState"] = json!("Succeeded");
        properties["privateIPAddressVersion"] = json!("IPv4");
        for (field, value) in [("primary", json!(index == 0)), ("privateIPAllocationMethod", json!("Dynamic"))] {
            if properties[field].is_null() {
                properties[field] = value;
            }
        }
        if let Some(public) = public_address(world, &from, &properties["publicIPAddress"], location)? {
            references.push((from.clone(), public));
        }
        references.push((from.clone(), subnet.clone()));
        hidden.private_addresses.push((subnet, address, from));
    }
    body["properties"]["macAddress"] = json!(mac_address(&target.key));
    body["properties"]["primary"] = json!(true);
    Ok(Parts { body, request, references, hidden })
}

/// The lower-case id of a configuration's public address, if it wants one that is free.
fn public_address(world: &World, from: &str, reference: &Value, location: &str) -> Result<Option<String>, Refusal> {
    let Some(public) = validate::reference(world, from, reference, Kind::PublicAddress, location)? else {
        return Ok(None);
    };
    if let Some(user) = world.azure.store.referrers(&public).find(|user| !user.eq_ignore_ascii_case(from)) {
        let text = format!(
            "Resource {from} is referencing public IP address {public} that is already allocated to resource {user}."
        );
        return Err(Refusal::new(400, "PublicIPAddressInUse", text));
    }
    Ok(Some(public))
}

/// The lower-case id of a configuration's subnet, and its address there: the one asked for, the one it has, or the first
/// free one.
fn private_address(
    world: &World,
    target: &Target,
    from: &str,
    properties: &Value,
    hidden: &Hidden,
) -> Result<(String, Ipv4Addr), Refusal> {
    let subnet_id = properties["subnet"]["id"].as_str().unwrap_or_default();
    let subnet = subnet_id.to_lowercase();
    let missing = || validate::missing_reference(from, subnet_id);
    let (network, name) = subnet.split_once("/subnets/").ok_or_else(missing)?;
    let record = world.azure.store.get(network).ok_or_else(missing)?;
    let named = |part: &&Value| part["name"].as_str().is_some_and(|other| other.eq_ignore_ascii_case(name));
    let part = record.body["properties"]["subnets"].as_array().into_iter().flatten().find(named).ok_or_else(missing)?;
    let range = network::subnet_prefix(part)?;
    // Azure keeps the first four addresses and the last (Azure documentation).
    let (first, last) = (range.network().to_bits() + 4, range.broadcast().to_bits() - 1);
    let own = |user: &str| user.to_lowercase().starts_with(&format!("{}/", target.key));
    let taken = |address: Ipv4Addr| {
        let before = hidden.private_addresses.iter().any(|(other, used, _)| *other == subnet && *used == address);
        let owner = world.azure.store.address_owner(&subnet, address).filter(|user| !own(user));
        if before { Some(from.to_owned()) } else { owner.cloned() }
    };
    let refuse = |code: &str, text: String| {
        Err(Refusal::new(if code == "PrivateIPAddressInUse" { 409 } else { 400 }, code, text))
    };
    let is_static =
        properties["privateIPAllocationMethod"].as_str().is_some_and(|method| method.eq_ignore_ascii_case("Static"));
    if !is_static {
        let old = world.azure.store.get(&target.key);
        let old = old.into_iter().flat_map(|record| &record.hidden.private_addresses);
        let kept = old
            .filter(|(other, _, user)| *other == subnet && user.eq_ignore_ascii_case(from))
            .map(|(_, address, _)| *address);
        let free = (first..=last).map(Ipv4Addr::from_bits);
        return match kept.chain(free).find(|address| taken(*address).is_none()) {
            Some(address) => Ok((subnet, address)),
            None => refuse(
                "SubnetIsFull",
                format!("Subnet {name} with address prefix {range} does not have enough capacity for 1 IP addresses."),
            ),
        };
    }
    let asked = properties["privateIPAddress"].as_str().unwrap_or_default();
    let Some(address) = asked.parse::<Ipv4Addr>().ok() else {
        return refuse("InvalidRequestFormat", format!("Private static IP address '{asked}' is not an address."));
    };
    if !range.contains(&address) {
        let text =
            format!("Private static IP address {address} does not belong to the range of subnet prefix {range}.");
        return refuse("PrivateIPAddressNotInSubnet", text);
    }
    if !(first..=last).contains(&address.to_bits()) {
        let text =
            format!("Private static IP address {address} falls within reserved IP range of subnet prefix {range}.");
        return refuse("PrivateIPAddressInReservedRange", text);
    }
    match taken(address) {
        None => Ok((subnet, address)),
        Some(user) => {
            let text = format!(
                "IP configuration {from} is using the private IP address {address} which is already allocated to resource {user}."
            );
            refuse("PrivateIPAddressInUse", text)
        }
    }
}

/// Microsoft's prefix and three bytes of the id's hash.
fn mac_address(key: &str) -> String {
    let hash = Sha256::digest(key.as_bytes());
    format!("00-0D-3A-{:02X}-{:02X}-{:02X}", hash[0], hash[1], hash[2])
}

/// What a virtual machine gets from its primary interface.
pub(super) struct Attachment {
    pub(super) private_address: Ipv4Addr,
    pub(super) public_address: Option<Ipv4Addr>,
    /// The lower-case id of the virtual network.
    pub(super) network: String,
}

/// What the interface with this lower-case id gives to its machine.
pub(super) fn attachment(world: &World, interface: &str) -> Option<Attachment> {
    let store = &world.azure.store;
    let record = store.get(interface)?;
    let (subnet, private_address, configuration) = record.hidden.private_addresses.first()?.clone();
    let network = subnet.split("/subnets/").next().unwrap_or_default().to_owned();
    let of_kind = |kind: Kind| {
        let wanted = move |target: &&String| Kind::of(target) == Some(kind);
        record
            .references
            .iter()
            .filter(|(from, _)| *from == configuration || *from == record.id)
            .map(|(_, target)| target)
            .find(wanted)
    };
    let public_address = of_kind(Kind::PublicAddress).and_then(|key| store.get(key)?.hidden.public_address);
    Some(Attachment { private_address, public_address, network })
}

/// Whether the security groups in front of the interface with this lower-case id, its own and its subnet's, let TCP in
/// from that address to that port.
pub(super) fn lets_in(world: &World, interface: &str, from: IpAddr, port: u16) -> bool {
    let store = &world.azure.store;
    let Some(record) = store.get(interface) else { return false };
    let is_group = |target: &&String| Kind::of(target) == Some(Kind::SecurityGroup);
    let own = record.references.iter().map(|(_, target)| target).filter(is_group);
    let subnet = record.hidden.private_addresses.first().map(|(subnet, ..)| subnet.as_str()).unwrap_or_default();
    let network = store.get(subnet.split("/subnets/").next().unwrap_or_default());
    let of_network = network.into_iter().flat_map(|network| &network.references);
    let of_subnet = of_network.filter(|(from, _)| from.to_lowercase() == subnet).map(|(_, target)| target);
    let mut groups = own.chain(of_subnet.filter(is_group)).peekable();
    // A Standard public address is closed until a security group opens it (Azure documentation).
    groups.peek().is_some() && groups.all(|group| network::lets_in(world, group, from, port))
}

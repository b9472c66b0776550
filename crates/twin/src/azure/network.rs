//! Network security groups and virtual networks, with their rules and subnets.

use std::{collections::BTreeMap, net::IpAddr};

use http::Method;
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, Refusal, Reply},
    locks,
    resource::{self, Kind, Target},
    store::{Hidden, Parts},
    validate,
};
use crate::World;

/// The rules that every security group has (Azure documentation): name, priority, direction, access, source,
/// destination.
const DEFAULT_RULES: [(&str, u32, &str, &str, &str, &str); 6] = [
    ("AllowVnetInBound", 65_000, "Inbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", 65_001, "Inbound", "Allow", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", 65_500, "Inbound", "Deny", "*", "*"),
    ("AllowVnetOutBound", 65_000, "Outbound", "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", 65_001, "Outbound", "Allow", "*", "Internet"),
    ("DenyAllOutBound", 65_500, "Outbound", "Deny", "*", "*"),
];

fn default_rule(id: &str, rule: &(&str, u32, &str, &str, &str, &str)) -> Value {
    let (name, priority, direction, access, source, destination) = rule;
    json!({
        "id": format!("{id}/defaultSecurityRules/{name}"), "name": name,
        "type": "Microsoft.Network/networkSecurityGroups/defaultSecurityRules",
        "properties": {
            "provisioningState": "Succeeded", "protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*",
            "sourceAddressPrefix": source, "destinationAddressPrefix": destination,
            "access": access, "priority": priority, "direction": direction,
        },
    })
}

/// The objects of an array property.
fn items<'a>(body: &'a Value, field: &str) -> &'a [Value] {
    body["properties"][field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Gives the parts of a resource their ids and states, as Azure does.
fn dress(body: &mut Value, target: &Target, field: &str) {
    for part in body["properties"][field].as_array_mut().into_iter().flatten() {
        let name = part["name"].as_str().unwrap_or_default().to_owned();
        part["id"] = json!(format!("{}/{field}/{name}", target.id));
        part["type"] = json!(format!("Microsoft.Network/{}/{field}", target.kind.name()));
        part["properties"]["provisioningState"] = json!("Succeeded");
    }
}

pub(super) fn prepare_security_group(
    _: &World,
    target: &Target,
    request: Value,
    location: &str,
) -> Result<Parts, Refusal> {
    let mut taken: BTreeMap<(String, i64), String> = BTreeMap::new();
    for rule in items(&request, "securityRules") {
        let (name, direction, priority) = check_rule(rule)?;
        if let Some(other) = taken.insert((direction, priority), name.clone()) {
            let text = format!(
                "Security rule {name} conflicts with rule {other}. Rules cannot have the same Priority and Direction."
            );
            return Err(Refusal::new(400, "SecurityRuleConflict", text));
        }
    }
    let mut body = target.body(&request, location);
    if !body["properties"]["securityRules"].is_array() {
        body["properties"]["securityRules"] = json!([]);
    }
    dress(&mut body, target, "securityRules");
    let defaults: Vec<Value> = DEFAULT_RULES.iter().map(|rule| default_rule(&target.id, rule)).collect();
    body["properties"]["defaultSecurityRules"] = json!(defaults);
    Ok(Parts { body, request, references: Vec::new(), hidden: Hidden::default() })
}

/// Name, direction and priority of a rule that is well-formed.
fn check_rule(rule: &Value) -> Result<(String, String, i64), Refusal> {
    let name = rule["name"].as_str().unwrap_or_default();
    let text = |field: &str| rule["properties"][field].as_str().unwrap_or_default().to_lowercase();
    for (field, allowed) in [
        ("direction", &["inbound", "outbound"][..]),
        ("access", &["allow", "deny"]),
        ("protocol", &["tcp", "udp", "icmp", "esp", "ah", "*"]),
    ] {
        if !allowed.contains(&text(field).as_str()) {
            let text =
                format!("Security rule parameter {field} for rule {name} has an unsupported value '{}'.", text(field));
            return Err(Refusal::new(400, "SecurityRuleParameterContainsUnsupportedValue", text));
        }
    }
    for side in ["source", "destination"] {
        for (one, many) in [("AddressPrefix", "AddressPrefixes"), ("PortRange", "PortRanges")] {
            let given = |suffix: &str| !rule["properties"][format!("{side}{suffix}")].is_null();
            if !given(one) && !given(many) && !given("ApplicationSecurityGroups") {
                let text =
                    format!("Required security rule parameters are missing for security rule {name}: {side}{one}.");
                return Err(Refusal::new(400, "SecurityRuleInvalidAddressPrefix", text));
            }
        }
    }
    match rule["properties"]["priority"].as_i64() {
        Some(priority @ 100..=4096) => Ok((name.to_owned(), text("direction"), priority)),
        priority => {
            let text = format!(
                "Security rule {name} has invalid Priority. Value: {priority:?}. It must be between 100 and 4096."
            );
            Err(Refusal::new(400, "SecurityRuleInvalidPriority", text))
        }
    }
}

pub(super) fn prepare_virtual_network(
    world: &World,
    target: &Target,
    request: Value,
    location: &str,
) -> Result<Parts, Refusal> {
    let space = &request["properties"]["addressSpace"]["addressPrefixes"];
    let space: Vec<Ipv4Net> = space.as_array().into_iter().flatten().map(parse_prefix).collect::<Result<_, _>>()?;
    if space.is_empty() {
        let text = format!("Virtual network {} must have at least one address prefix.", target.name);
        return Err(Refusal::new(400, "VirtualNetworkAddressSpaceMissing", text));
    }
    let mut subnets: BTreeMap<String, Ipv4Net> = BTreeMap::new();
    let mut references = Vec::new();
    for subnet in items(&request, "subnets") {
        let name = subnet["name"].as_str().unwrap_or_default();
        let prefix = subnet_prefix(subnet)?;
        if !space.iter().any(|space| space.contains(&prefix)) || prefix.prefix_len() > 29 {
            let text = format!("Subnet '{name}' is not valid in virtual network '{}'.", target.name);
            return Err(Refusal::new(400, "NetcfgInvalidSubnet", text));
        }
        if let Some((other, _)) = subnets.iter().find(|(_, other)| other.contains(&prefix) || prefix.contains(*other)) {
            let text = format!(
                "Subnet '{name}' is not valid because its IP address range overlaps with that of subnet '{other}'."
            );
            return Err(Refusal::new(400, "NetcfgSubnetRangesOverlap", text));
        }
        subnets.insert(name.to_lowercase(), prefix);
        let from = format!("{}/subnets/{name}", target.id);
        let group = &subnet["properties"]["networkSecurityGroup"];
        let group = validate::reference(world, &from, group, Kind::SecurityGroup, location)?;
        references.extend(group.map(|group| (from.clone(), group)));
        for field in ["natGateway", "routeTable"] {
            if let Some(id) = subnet["properties"][field]["id"].as_str() {
                return Err(validate::missing_reference(&from, id));
            }
        }
    }
    check_subnets_kept(world, target, &subnets)?;
    let mut body = target.body(&request, location);
    if !body["properties"]["subnets"].is_array() {
        body["properties"]["subnets"] = json!([]);
    }
    dress(&mut body, target, "subnets");
    Ok(Parts { body, request, references, hidden: Hidden::default() })
}

fn parse_prefix(prefix: &Value) -> Result<Ipv4Net, Refusal> {
    let text = prefix.as_str().unwrap_or_default();
    let parsed = text.parse::<Ipv4Net>().ok().filter(|net| net.trunc() == *net);
    let invalid =
        || Refusal::new(400, "InvalidCIDRNotation", format!("The address prefix {text} is not formatted correctly."));
    parsed.ok_or_else(invalid)
}

/// The address range of a subnet.
pub(super) fn subnet_prefix(subnet: &Value) -> Result<Ipv4Net, Refusal> {
    let properties = &subnet["properties"];
    let one = &properties["addressPrefix"];
    parse_prefix(if one.is_string() { one } else { &properties["addressPrefixes"][0] })
}

/// A full `PUT` replaces the list of subnets: those in use must stay as they are.
fn check_subnets_kept(world: &World, target: &Target, subnets: &BTreeMap<String, Ipv4Net>) -> Result<(), Refusal> {
    let Some(old) = world.azure.store.get(&target.key) else { return Ok(()) };
    for subnet in items(&old.body, "subnets") {
        let name = subnet["name"].as_str().unwrap_or_default();
        match subnets.get(&name.to_lowercase()) {
            None => check_subnet_unused(world, &target.key, name)?,
            Some(prefix) if subnet_prefix(subnet).ok() == Some(*prefix) => {}
            Some(_) if check_subnet_unused(world, &target.key, name).is_ok() => {}
            Some(_) => {
                let text = format!("IP prefix of subnet {name} is in use and cannot be changed.");
                return Err(Refusal::new(400, "InUsePrefixCannotBeDeleted", text));
            }
        }
    }
    Ok(())
}

/// Refuses to delete a subnet that has addresses in use.
pub(super) fn check_subnet_unused(world: &World, network_key: &str, name: &str) -> Result<(), Refusal> {
    let key = format!("{network_key}/subnets/{}", name.to_lowercase());
    let Some(user) = world.azure.store.referrers(&key).next() else { return Ok(()) };
    let text = format!(
        "Subnet {name} is in use by {user} and cannot be deleted. In order to delete the subnet, delete all the resources \
         within the subnet. See aka.ms/deletesubnet."
    );
    Err(Refusal::new(400, "InUseSubnetCannotBeDeleted", text))
}

/// Requests to a rule or a subnet: a write is a write of the whole with that part changed.
pub(super) fn child(world: &mut World, call: &Call, target: &Target) -> Answer {
    let field = match call.lower[8].as_str() {
        "subnets" => "subnets",
        "securityrules" => "securityRules",
        _ => "defaultSecurityRules",
    };
    let whole = world.azure.store.rendered(&target.key).ok_or_else(|| target.missing())?;
    let parts = items(&whole, field);
    let Some(name) = call.segments.get(9) else {
        return Ok(Reply::new(200, &json!({"value": parts})));
    };
    let same = |part: &Value| part["name"].as_str().is_some_and(|other| other.eq_ignore_ascii_case(name));
    let existing = parts.iter().find(|part| same(part));
    if call.method == Method::GET {
        let missing = || Refusal::new(404, "NotFound", format!("Resource {}/{field}/{name} not found.", target.id));
        return existing.map(|part| Reply::new(200, part)).ok_or_else(missing);
    }
    if field == "defaultSecurityRules" || ![Method::PUT, Method::DELETE].contains(&call.method) {
        return Err(Refusal::method(call));
    }
    if call.method == Method::DELETE && existing.is_none() {
        return Ok(Reply::empty(204));
    }
    let mut request = changeable(world, target)?;
    if !request["properties"][field].is_array() {
        request["properties"][field] = json!([]);
    }
    let Some(list) = request["properties"][field].as_array_mut() else { return Err(target.missing()) };
    let position = list.iter().position(same);
    if call.method == Method::DELETE {
        locks::check(world, &format!("{}/{field}/{name}", target.id).to_lowercase(), locks::Intent::Delete)?;
        list.retain(|part| !same(part));
        let reply = resource::put(world, call, target, request)?;
        return Ok(deleted(reply));
    }
    let mut part = call.json()?;
    part["name"] = json!(name);
    match position {
        Some(position) => list[position] = part,
        None => list.push(part),
    }
    let reply = resource::put(world, call, target, request)?;
    let whole = world.azure.store.rendered(&target.key).ok_or_else(|| target.missing())?;
    let mut part = items(&whole, field).iter().find(|part| same(part)).cloned().unwrap_or_default();
    part["properties"]["provisioningState"] = whole["properties"]["provisioningState"].clone();
    Ok(Reply { headers: reply.headers, ..Reply::new(if position.is_some() { 200 } else { 201 }, &part) })
}

/// What was last asked for, unless another write is under way: parallel writes to parts of one resource collide (Azure
/// documentation).
fn changeable(world: &World, target: &Target) -> Result<Value, Refusal> {
    let record = world.azure.store.get(&target.key).ok_or_else(|| target.missing())?;
    if record.state() != "Updating" {
        return Ok(record.request.clone());
    }
    let text = format!("The operation on {} is being retried due to another operation in progress.", target.id);
    Err(Refusal::new(429, "RetryableErrorDueToAnotherOperation", text).after(2))
}

/// The answer to a deleted part: 202 with both headers.
fn deleted(reply: Reply) -> Reply {
    let location = reply.headers.iter().find(|(name, _)| *name == "azure-asyncoperation");
    let location = location.map(|(_, url)| ("location", url.replace("/operations/", "/operationResults/")));
    Reply { headers: reply.headers, ..Reply::empty(202) }.headers(location)
}

/// Whether a security group lets TCP in, from that address to that port: of the rules that cover it, the one with the
/// lowest number decides (Azure documentation).
pub(super) fn lets_in(world: &World, security_group: &str, from: IpAddr, port: u16) -> bool {
    let Some(record) = world.azure.store.get(security_group) else { return false };
    let rules = ["securityRules", "defaultSecurityRules"].into_iter().flat_map(|field| items(&record.body, field));
    let covering = rules.map(|rule| &rule["properties"]).filter(|rule| covers(rule, from, port));
    let decides = covering.min_by_key(|rule| rule["priority"].as_i64());
    decides.is_some_and(|rule| rule["access"].as_str().is_some_and(|access| access.eq_ignore_ascii_case("allow")))
}

fn covers(rule: &Value, from: IpAddr, port: u16) -> bool {
    let is = |field: &str, allowed: &[&str]| {
        rule[field].as_str().is_some_and(|value| allowed.contains(&value.to_lowercase().as_str()))
    };
    // One value, or a list of them.
    let any = |one: &str, many: &str, fits: &dyn Fn(&str) -> bool| {
        let many = rule[many].as_array().into_iter().flatten();
        many.chain(std::iter::once(&rule[one])).filter_map(Value::as_str).any(fits)
    };
    let has_port = |range: &str| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        range == "*" || matches!((low.parse(), high.parse()), (Ok(low), Ok(high)) if (low..=high).contains(&port))
    };
    // Whoever comes from outside is of no virtual network, and no load balancer.
    let has_address = |prefix: &str| {
        ["*", "internet"].contains(&prefix.to_lowercase().as_str())
            || prefix.parse::<IpNet>().is_ok_and(|range| range.contains(&from))
            || prefix.parse::<IpAddr>().is_ok_and(|address| address == from)
    };
    is("direction", &["inbound"])
        && is("protocol", &["tcp", "*"])
        && any("destinationPortRange", "destinationPortRanges", &has_port)
        && any("sourceAddressPrefix", "sourceAddressPrefixes", &has_address)
}

//! What all typed resources have in common: names, reading, writing, tagging, deleting.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    SUBSCRIPTION,
    call::{Answer, Call, Refusal, Reply},
    compute, disk, groups, interface, listing, locks, network,
    operation::{self, Purpose},
    policy,
    store::{Hidden, Parts},
    validate,
};
use crate::{FaultKind, Latency, World, machine};

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SshPublicKey,
    Disk,
    VirtualMachine,
    SecurityGroup,
    VirtualNetwork,
    PublicAddress,
    NetworkInterface,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 7] = [
        Self::SshPublicKey,
        Self::Disk,
        Self::VirtualMachine,
        Self::SecurityGroup,
        Self::VirtualNetwork,
        Self::PublicAddress,
        Self::NetworkInterface,
    ];

    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::SshPublicKey | Self::Disk | Self::VirtualMachine => "Microsoft.Compute",
            _ => "Microsoft.Network",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SshPublicKey => "sshPublicKeys",
            Self::Disk => "disks",
            Self::VirtualMachine => "virtualMachines",
            Self::SecurityGroup => "networkSecurityGroups",
            Self::VirtualNetwork => "virtualNetworks",
            Self::PublicAddress => "publicIPAddresses",
            Self::NetworkInterface => "networkInterfaces",
        }
    }

    /// The kind with this provider and name, in any case.
    pub(super) fn parse(provider: &str, name: &str) -> Option<Self> {
        let same =
            |kind: &Self| kind.provider().eq_ignore_ascii_case(provider) && kind.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(same)
    }

    /// The kind of the resource with this id.
    pub(super) fn of(id: &str) -> Option<Self> {
        let parts: Vec<&str> = id.split('/').collect();
        match parts.as_slice() {
            [_, _, _, _, _, _, provider, name, _] => Self::parse(provider, name),
            _ => None,
        }
    }

    /// What the lower-case ids of this kind in a group start with.
    pub(super) fn prefix(self, group: &str) -> String {
        format!("{}/providers/{}/{}/", groups::key(group), self.provider(), self.name()).to_lowercase()
    }

    fn put_latency(self) -> Latency {
        match self {
            Self::SshPublicKey => Latency::ArmRequest,
            Self::Disk => Latency::DiskPut,
            Self::VirtualMachine => Latency::VirtualMachinePut,
            Self::SecurityGroup => Latency::SecurityGroupPut,
            Self::VirtualNetwork => Latency::VirtualNetworkPut,
            Self::PublicAddress => Latency::PublicAddressPut,
            Self::NetworkInterface => Latency::NetworkInterfacePut,
        }
    }
}

/// What a request is about: a resource that may or may not exist.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) group: String,
    pub(super) name: String,
    /// With the case in which it was first written.
    pub(super) id: String,
    /// The id in lower case.
    pub(super) key: String,
}

impl Target {
    pub(super) fn new(world: &World, kind: Kind, group: &str, name: &str) -> Self {
        let group = world.azure.groups.get(&group.to_lowercase()).map_or(group, |found| found.name.as_str());
        let (provider, kind_name) = (kind.provider(), kind.name());
        let id =
            format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/{provider}/{kind_name}/{name}");
        let key = id.to_lowercase();
        let known = world.azure.store.get(&key);
        let (id, name) = known.map_or((id, name), |record| (record.id.clone(), record.name()));
        Self { kind, group: group.into(), name: name.into(), id, key }
    }

    pub(super) fn missing(&self) -> Refusal {
        let text = format!(
            "The Resource '{}/{}/{}' under resource group '{}' was not found. For more details please go to \
             https://aka.ms/ARMResourceNotFoundFix",
            self.kind.provider(),
            self.kind.name(),
            self.name,
            self.group
        );
        Refusal::new(404, "ResourceNotFound", text)
    }

    /// `Microsoft.Compute/disks`.
    pub(super) fn type_name(&self) -> String {
        format!("{}/{}", self.kind.provider(), self.kind.name())
    }

    /// The fields that every body starts with: what was asked for, and what it is called.
    pub(super) fn body(&self, request: &Value, location: &str) -> Value {
        let mut body = request.clone();
        body["id"] = json!(self.id);
        body["name"] = json!(self.name);
        body["type"] = json!(self.type_name());
        body["location"] = json!(location);
        if !body["properties"].is_object() {
            body["properties"] = json!({});
        }
        body
    }
}

/// `GET`.
pub(super) fn get(world: &World, call: &Call, target: &Target) -> Answer {
    let store = &world.azure.store;
    store.get(&target.key).ok_or_else(|| target.missing())?;
    let expand = call.query("$expand").unwrap_or_default().to_lowercase();
    let with_view = target.kind == Kind::VirtualMachine && expand.contains("instanceview");
    let text = if with_view { store.view_text(&target.key) } else { store.text(&target.key) };
    Ok(Reply::text(200, text.into()))
}

/// `PUT`.
pub(super) fn put(world: &mut World, call: &Call, target: &Target, request: Value) -> Answer {
    groups::writable(world, &target.group)?;
    locks::check(world, &target.key, locks::Intent::Write)?;
    validate::name(target)?;
    validate::tags(&request)?;
    let location = validate::location(&request)?;
    policy::check(world, &target.key, &target.type_name(), &target.name, &request)?;
    check_conditions(world, call, target)?;
    if let Some(record) = world.azure.store.get(&target.key) {
        if record.location() != location {
            let text = format!(
                "The resource '{}' already exists in location '{}' in resource group '{}'. A resource with the same name \
                 cannot be created in location '{location}'. Please select a new resource name.",
                target.name,
                record.location(),
                target.group
            );
            return Err(Refusal::new(409, "InvalidResourceLocation", text));
        }
        if record.hidden.deletion.is_some() {
            return Err(another_operation(&target.id));
        }
        if target.kind != Kind::VirtualMachine && record.request == request && record.state() == "Succeeded" {
            return Ok(Reply::text(200, world.azure.store.text(&target.key).into()));
        }
    }
    let parts = match target.kind {
        Kind::VirtualMachine => return compute::put(world, call, target, request, &location),
        Kind::SshPublicKey => ssh_public_key(target, request, &location)?,
        Kind::Disk => disk::prepare(world, target, request, &location)?,
        Kind::SecurityGroup => network::prepare_security_group(world, target, request, &location)?,
        Kind::VirtualNetwork => network::prepare_virtual_network(world, target, request, &location)?,
        Kind::PublicAddress => interface::prepare_public_address(world, target, request, &location)?,
        Kind::NetworkInterface => interface::prepare_network_interface(world, target, request, &location)?,
    };
    Ok(write(world, call, target, parts))
}

/// A field that is null is a field that is not there: `az vm create` writes many of them (observed with Azure CLI
/// 2.91.0).
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// What Azure says while another operation has the resource.
pub(super) fn another_operation(id: &str) -> Refusal {
    let text = format!("Another operation on this or dependent resource is in progress: {id}.");
    Refusal::new(409, "AnotherOperationInProgress", text)
}

/// `If-Match` and `If-None-Match`, where the request is about the resource itself and not about a part of it.
fn check_conditions(world: &World, call: &Call, target: &Target) -> Result<(), Refusal> {
    if call.segments.len() != 8 {
        return Ok(());
    }
    let record = world.azure.store.get(&target.key);
    let tag = record.and_then(|record| record.body["etag"].as_str());
    let must_be_new = call.header("if-none-match") == Some("*");
    let other_than = |wanted: &str| record.is_none() || (wanted != "*" && tag != Some(wanted));
    let exists_already = must_be_new && record.is_some();
    if !exists_already && call.header("if-match").is_none_or(|wanted| !other_than(wanted)) {
        return Ok(());
    }
    let text = format!("Precondition failed: the resource {} does not match the given condition.", target.id);
    Err(Refusal::new(412, "PreconditionFailed", text))
}

fn ssh_public_key(target: &Target, request: Value, location: &str) -> Result<Parts, Refusal> {
    let key = request["properties"]["publicKey"].as_str();
    if key.is_some_and(|key| !compute::is_public_key(key)) {
        return Err(Refusal::parameter("publicKey", "The value of parameter publicKey is invalid."));
    }
    let body = target.body(&request, location);
    Ok(Parts { body, request, references: Vec::new(), hidden: Hidden::default() })
}

/// Stores what was prepared and begins the operation that completes it.
fn write(world: &mut World, call: &Call, target: &Target, mut parts: Parts) -> Reply {
    let created = world.azure.store.get(&target.key).is_none();
    let status = if created { 201 } else { 200 };
    let asynchronous = target.kind != Kind::SshPublicKey;
    if asynchronous {
        parts.body["properties"]["provisioningState"] = json!("Updating");
    }
    if target.kind.provider() == "Microsoft.Network" {
        let guid = world.azure.store.get(&target.key).map(|record| record.body["properties"]["resourceGuid"].clone());
        let guid = guid.unwrap_or_else(|| json!(world.azure.identifier("resource")));
        parts.body["properties"]["resourceGuid"] = guid;
        parts.body["etag"] = json!(format!("W/\"{}\"", world.azure.identifier("etag")));
    }
    let location = parts.body["location"].as_str().unwrap_or_default().to_owned();
    let now = world.now;
    let generation = world.azure.store.put(now, &target.id, parts);
    world.ledger.change(now, "arm", if created { "created" } else { "updated" }, &*target.id);
    let text = world.azure.store.text(&target.key).to_owned();
    if !asynchronous {
        return Reply::text(status, text);
    }
    let provider = target.kind.provider();
    let operation = operation::begin(world, &target.key, provider, Purpose::Write);
    let failed = world.faults.strikes(FaultKind::OperationFailure, &target.name);
    let (key, name) = (target.key.clone(), operation.clone());
    // What is made for the first time takes as long as its name says, whatever else is going on in the world.
    let occasion = if created { target.name.clone() } else { format!("{}/{generation}", target.name) };
    let duration = world.latency(target.kind.put_latency(), &occasion);
    world.after(duration, move |world| complete(world, &key, generation, &name, failed));
    // `PUT` of a disk answers 202; clients refuse anything else (Azure SDK).
    let status = if target.kind == Kind::Disk { 202 } else { status };
    let headers = operation::headers(world, call, provider, &location, &operation, target.kind == Kind::Disk);
    Reply::text(status, text).headers(headers)
}

/// What a struck operation ends with.
pub(super) fn internal_error() -> Refusal {
    Refusal::new(500, "InternalOperationError", "An internal execution error occurred. Please retry later.")
}

/// The end of a write: its operation, and the resource's state unless a newer write has it.
fn complete(world: &mut World, key: &str, generation: u64, operation: &str, failed: bool) {
    let outcome = match world.azure.store.get(key) {
        None => Err(operation::preempted()),
        Some(record) if record.hidden.deletion.is_some() => Err(operation::preempted()),
        Some(record) if record.generation != generation => Ok(()),
        Some(_) => {
            let outcome = if failed { Err(internal_error()) } else { Ok(()) };
            set_state(world, key, if failed { "Failed" } else { "Succeeded" });
            outcome
        }
    };
    operation::end(world, operation, outcome);
}

/// Moves a resource to a final state and records it.
pub(super) fn set_state(world: &mut World, key: &str, state: &'static str) {
    let now = world.now;
    world.azure.store.change(now, key, |record| {
        record.body["properties"]["provisioningState"] = json!(state);
        if let (Some(address), "Succeeded") = (record.hidden.public_address, state) {
            record.body["properties"]["ipAddress"] = json!(address.to_string());
        }
    });
    if let Some(record) = world.azure.store.get(key) {
        world.ledger.change(now, "world", state.to_lowercase(), &*record.id);
    }
}

/// `PATCH` of tags; of a machine also what happens to its interfaces when it goes (Azure documentation: delete options
/// can be changed on an existing machine).
pub(super) fn patch(world: &mut World, call: &Call, target: &Target) -> Answer {
    groups::writable(world, &target.group)?;
    locks::check(world, &target.key, locks::Intent::Write)?;
    let record = world.azure.store.get(&target.key).ok_or_else(|| target.missing())?;
    let request = call.json()?;
    validate::tags(&request)?;
    if request.get("tags").is_some() {
        let wanted = json!({"tags": request["tags"], "location": record.location()});
        policy::check(world, &target.key, &target.type_name(), &target.name, &wanted)?;
    }
    let interfaces = request.pointer("/properties/networkProfile/networkInterfaces").cloned();
    let other = |name: &str| name != "tags" && !(name == "properties" && interfaces.is_some());
    if request.as_object().is_some_and(|fields| fields.keys().any(|field| other(field))) {
        return Err(Refusal::unsupported("PATCH of anything but tags and delete options"));
    }
    let now = world.now;
    world.azure.store.change(now, &target.key, |record| {
        if let (Kind::VirtualMachine, Some(interfaces)) = (target.kind, interfaces) {
            record.body["properties"]["networkProfile"]["networkInterfaces"] = interfaces.clone();
            record.request["properties"]["networkProfile"]["networkInterfaces"] = interfaces;
        }
        if let Some(tags) = request.get("tags") {
            record.body["tags"] = tags.clone();
            record.request["tags"] = tags.clone();
        }
    });
    world.ledger.change(now, "arm", "updated", &*target.id);
    Ok(Reply::text(200, world.azure.store.text(&target.key).into()))
}

/// Replaces the tags of a resource, if it exists.
pub(super) fn set_tags(world: &mut World, key: &str, tags: Value) {
    let now = world.now;
    world.azure.store.change(now, key, |record| {
        record.body["tags"] = tags.clone();
        record.request["tags"] = tags;
    });
    if let Some(record) = world.azure.store.get(key) {
        world.ledger.change(now, "arm", "updated", &*record.id);
    }
}

/// `DELETE` of a network resource or an SSH key.
pub(super) fn delete(world: &mut World, call: &Call, target: &Target) -> Answer {
    if world.azure.store.get(&target.key).is_none() {
        return Ok(Reply::empty(204));
    }
    locks::check(world, &target.key, locks::Intent::Delete)?;
    check_conditions(world, call, target)?;
    if target.kind == Kind::SshPublicKey {
        remove(world, "arm", &target.key);
        return Ok(Reply::empty(200));
    }
    check_unused(world, target)?;
    let duration = world.latency(Latency::NetworkDelete, &target.name);
    begin_delete(world, call, target, duration)
}

/// Refuses to delete what others need (messages: Azure documentation).
fn check_unused(world: &World, target: &Target) -> Result<(), Refusal> {
    let store = &world.azure.store;
    let id = &target.id;
    if target.kind == Kind::VirtualNetwork {
        let subnets = store.get(&target.key).map(|record| &record.body["properties"]["subnets"]);
        let names =
            subnets.and_then(Value::as_array).into_iter().flatten().filter_map(|subnet| subnet["name"].as_str());
        return names.into_iter().try_for_each(|name| network::check_subnet_unused(world, &target.key, name));
    }
    let Some(user) = store.referrers(&target.key).next() else {
        return interface::check_reservation(world, &target.key, None);
    };
    Err(match target.kind {
        Kind::NetworkInterface => Refusal::new(
            400,
            "NicInUse",
            format!(
                "Network Interface {id} is used by existing resource {user}. In order to delete the network interface, it \
                 must be dissociated from the resource. To learn more, see aka.ms/deletenic."
            ),
        ),
        Kind::PublicAddress => Refusal::new(
            400,
            "PublicIPAddressCannotBeDeleted",
            format!(
                "Public IP address {id} can not be deleted since it is still allocated to resource {user}. In order to \
                 delete the public IP, disassociate/detach the Public IP address from the resource. To learn how to do \
                 this, see aka.ms/deletepublicip."
            ),
        ),
        _ => Refusal::new(
            400,
            "InUseNetworkSecurityGroupCannotBeDeleted",
            format!(
                "Network security group {id} cannot be deleted because it is in use by the following resources: {user}. In \
                 order to delete the Network security group, remove the association with the resource(s). To learn how to \
                 do this, see aka.ms/deletensg."
            ),
        ),
    })
}

/// Begins to delete; a second request joins the first.
pub(super) fn begin_delete(world: &mut World, call: &Call, target: &Target, duration: Duration) -> Answer {
    let Some(record) = world.azure.store.get(&target.key) else { return Ok(Reply::empty(204)) };
    let (provider, location) = (target.kind.provider(), record.location().to_owned());
    let operation = match record.hidden.deletion.clone() {
        Some(operation) => operation,
        None => {
            let operation = operation::begin(world, &target.key, provider, Purpose::Delete);
            let failed = world.faults.strikes(FaultKind::OperationFailure, &target.name);
            let (now, name) = (world.now, operation.clone());
            world.azure.store.change(now, &target.key, |record| {
                record.body["properties"]["provisioningState"] = json!("Deleting");
                record.hidden.deletion = Some(name.clone());
            });
            let (key, name) = (target.key.clone(), operation.clone());
            world.after(duration, move |world| finish_delete(world, &key, &name, failed));
            operation
        }
    };
    let headers = operation::headers(world, call, provider, &location, &operation, true);
    Ok(Reply::empty(202).headers(headers))
}

fn finish_delete(world: &mut World, key: &str, operation: &str, failed: bool) {
    let now = world.now;
    if failed {
        world.azure.store.change(now, key, |record| record.hidden.deletion = None);
        set_state(world, key, "Failed");
        return operation::end(world, operation, Err(internal_error()));
    }
    remove(world, "world", key);
    operation::end(world, operation, Ok(()));
}

/// Removes a resource, and for a virtual machine also what shall die with it.
pub(super) fn remove(world: &mut World, actor: &'static str, key: &str) {
    let Some(record) = world.azure.store.take(key) else { return };
    let item = listing::item(world, &record);
    let now = world.now;
    let stale = world.faults.strikes(FaultKind::StaleListing, key);
    let lag = if stale { groups::STALE_LISTING_LAG } else { groups::LISTING_LAG };
    world.azure.ghosts.retain(|(until, ..)| *until > now);
    world.azure.ghosts.push((now + lag, key.into(), item));
    world.ledger.change(now, actor, "deleted", &*record.id);
    let Some(facts) = &record.hidden.machine else { return };
    if facts.placed {
        machine::destroy(world, &record.id);
    }
    for dependent in compute::dependents(world, &record) {
        remove(world, actor, &dependent);
    }
}

//! Virtual machines: what a `PUT` may ask for, and what comes of it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    call::{Answer, Call, Refusal, Reply},
    catalogue::{self, Size},
    disk, gallery, interface,
    operation::{self, Purpose},
    quota,
    resource::{self, Kind, Target},
    store::{Hidden, MachineFacts, Parts, Record},
    validate,
};
use crate::{
    FaultKind, Latency, World,
    machine::{self, MachineSpec},
};

/// Decoded custom data (Azure documentation).
const CUSTOM_DATA_BYTES: usize = 64 * 1024;
/// How long Azure waits for the guest to report (guess).
const PROVISIONING_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// How long Azure looks for a computer before it gives up (guess).
const ALLOCATION: Duration = Duration::from_secs(10);
/// How often Azure looks whether the guest has reported (guess).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a change takes that leaves the machine running (guess).
const UPDATE: Duration = Duration::from_secs(5);

/// What a request asks for, checked.
struct Draft {
    size: &'static Size,
    version: String,
    spot: bool,
    /// Lower-case ids, the primary one first.
    interfaces: Vec<String>,
    admin_username: String,
    authorized_keys: Vec<String>,
    custom_data: Vec<u8>,
}

/// Whether a line is a public key that Azure takes (Azure documentation: RSA and Ed25519).
pub(super) fn is_public_key(line: &str) -> bool {
    let mut words = line.split_whitespace();
    matches!(words.next(), Some("ssh-ed25519" | "ssh-rsa"))
        && words.next().is_some_and(|key| STANDARD.decode(key).is_ok())
}

/// `PUT`.
pub(super) fn put(world: &mut World, call: &Call, target: &Target, request: Value, location: &str) -> Answer {
    if world.azure.store.get(&target.key).is_some() {
        return update(world, call, target, request, location);
    }
    let draft = check(world, target, &request, location)?;
    quota::check_cores(world, location, draft.size, draft.spot)
        .inspect_err(|_| interface::reserve(world, &draft.interfaces, &target.id))?;
    let disks = disk::plan(world, target, &request, draft.size.premium_storage)?;
    let mut body = body(world, target, &request, &draft, location);
    let mut references: Vec<(String, String)> =
        draft.interfaces.iter().map(|interface| (target.id.clone(), interface.clone())).collect();
    for plan in disks {
        references.push((target.id.clone(), plan.target.key.clone()));
        plan.carry_out(world, &mut body);
    }
    let facts = MachineFacts {
        cores: draft.size.cores,
        family: draft.size.family,
        spot: draft.spot,
        power: "starting",
        custom_data_hash: Sha256::digest(&draft.custom_data).into(),
        placed: false,
    };
    let hidden = Hidden { machine: Some(facts), ..Hidden::default() };
    let request = without_secrets(request);
    let now = world.now;
    world.azure.store.put(now, &target.id, Parts { body, request, references, hidden });
    world.ledger.change(now, "arm", "created", &*target.id);
    let operation = operation::begin(world, &target.key, "Microsoft.Compute", Purpose::Write);
    allocate(world, target, &draft, &operation);
    let headers = operation::headers(world, call, "Microsoft.Compute", location, &operation, true);
    Ok(Reply::text(201, world.azure.store.text(&target.key).into()).headers(headers))
}

/// Finds a computer and starts the machine on it, or not.
fn allocate(world: &mut World, target: &Target, draft: &Draft, operation: &str) {
    let zone = world.azure.store.get(&target.key).and_then(|record| record.body["zones"][0].as_str().map(String::from));
    let place = zone.as_ref().map_or_else(|| "no-zone".to_owned(), |zone| format!("zone-{zone}"));
    let faults = &mut world.faults;
    let full = faults.strikes(FaultKind::Capacity, &place) || faults.strikes(FaultKind::Capacity, &target.name);
    let broken = !full && faults.strikes(FaultKind::OperationFailure, &target.name);
    let (key, name) = (target.key.clone(), operation.to_owned());
    if full || broken {
        let outcome = if full { no_capacity(zone.is_some()) } else { resource::internal_error() };
        interface::reserve(world, &draft.interfaces, &target.id);
        world.after(ALLOCATION, move |world| fail(world, &key, &name, outcome));
        return;
    }
    let Some(attachment) = draft.interfaces.first().and_then(|key| interface::attachment(world, key)) else { return };
    let computer_name =
        world.azure.store.get(&target.key).map(|record| record.body["properties"]["osProfile"]["computerName"].clone());
    let spec = MachineSpec {
        vm_id: target.id.clone(),
        name: computer_name.as_ref().and_then(Value::as_str).unwrap_or(&target.name).into(),
        size: draft.size.name.into(),
        architecture: draft.size.architecture.into(),
        public_ip: attachment.public_address,
        private_ip: attachment.private_address,
        network: attachment.network,
        admin_username: draft.admin_username.clone(),
        authorized_keys: draft.authorized_keys.clone(),
        custom_data: draft.custom_data.clone(),
        ssh_port: 22,
    };
    machine::create(world, spec);
    let now = world.now;
    world.azure.store.change(now, &key, |record| {
        if let Some(facts) = &mut record.hidden.machine {
            facts.placed = true;
        }
    });
    let duration = world.latency(Latency::VirtualMachinePut, &target.name);
    await_report(world, target, operation, duration);
}

/// Ends the operation when the guest has reported, but not before Azure would.
fn await_report(world: &mut World, target: &Target, operation: &str, duration: Duration) {
    let deadline = world.now + PROVISIONING_TIMEOUT;
    let (key, operation) = (target.key.clone(), operation.to_owned());
    world.after(duration, move |world| settle(world, key, operation, deadline));
}

fn settle(world: &mut World, key: String, operation: String, deadline: Duration) {
    let Some(record) = world.azure.store.get(&key).filter(|record| record.hidden.deletion.is_none()) else {
        return operation::end(world, &operation, Err(operation::preempted()));
    };
    match machine::boot_outcome(world, &record.id) {
        Some(Ok(())) => {
            if record.state() != "Succeeded" {
                set_power_state(world, &key, "starting", "running");
                resource::set_state(world, &key, "Succeeded");
            }
            operation::end(world, &operation, Ok(()));
        }
        _ if world.now >= deadline => {
            let text = format!(
                "OS Provisioning for VM '{}' did not finish in the allotted time. The VM may still finish provisioning \
                 successfully. Please check provisioning state later.",
                record.name()
            );
            set_power_state(world, &key, "starting", "running");
            fail(world, &key, &operation, Refusal::new(409, "OSProvisioningTimedOut", text));
        }
        _ => world.after(REPORT_INTERVAL, move |world| settle(world, key, operation, deadline)),
    }
}

/// Moves the power state, if it is still what it was.
pub(super) fn set_power_state(world: &mut World, key: &str, from: &str, to: &'static str) -> bool {
    let now = world.now;
    let mut moved = false;
    world.azure.store.change(now, key, |record| {
        if let Some(facts) = record.hidden.machine.as_mut().filter(|facts| facts.power == from) {
            facts.power = to;
            moved = true;
        }
    });
    moved
}

fn fail(world: &mut World, key: &str, operation: &str, outcome: Refusal) {
    if world.azure.store.get(key).is_none_or(|record| record.hidden.deletion.is_some()) {
        return operation::end(world, operation, Err(operation::preempted()));
    }
    resource::set_state(world, key, "Failed");
    operation::end(world, operation, Err(outcome));
}

/// The messages are Azure's.
fn no_capacity(zonal: bool) -> Refusal {
    let (code, place) = if zonal { ("ZonalAllocationFailed", "zone") } else { ("AllocationFailed", "region") };
    let text = format!(
        "Allocation failed. We do not have sufficient capacity for the requested VM size in this {place}. Read more about \
         improving likelihood of allocation success at http://aka.ms/allocation-guidance"
    );
    Refusal::new(409, code, text)
}

fn without_secrets(mut request: Value) -> Value {
    if let Some(profile) = request.pointer_mut("/properties/osProfile").and_then(Value::as_object_mut) {
        profile.remove("customData");
        profile.remove("adminPassword");
    }
    request
}

fn body(world: &mut World, target: &Target, request: &Value, draft: &Draft, location: &str) -> Value {
    let mut body = without_secrets(target.body(request, location));
    let properties = &mut body["properties"];
    properties["provisioningState"] = json!("Creating");
    properties["vmId"] = json!(world.azure.identifier("machine"));
    properties["timeCreated"] = json!(world.timestamp());
    properties["hardwareProfile"]["vmSize"] = json!(draft.size.name);
    properties["storageProfile"]["imageReference"]["exactVersion"] = json!(draft.version);
    let profile = &mut properties["osProfile"];
    if !profile["computerName"].is_string() {
        profile["computerName"] = json!(target.name);
    }
    profile["secrets"] = json!([]);
    profile["allowExtensionOperations"] = json!(true);
    profile["requireGuestProvisionSignal"] = json!(true);
    body
}

fn check(world: &World, target: &Target, request: &Value, location: &str) -> Result<Draft, Refusal> {
    let properties = &request["properties"];
    let size = check_size(request, location)?;
    let version = check_image(world, properties, size, location)?;
    let spot = check_priority(properties, size)?;
    let (admin_username, authorized_keys, custom_data) = check_profile(&properties["osProfile"])?;
    let interfaces = check_interfaces(world, target, properties, location)?;
    Ok(Draft { size, version, spot, interfaces, admin_username, authorized_keys, custom_data })
}

fn check_size(request: &Value, location: &str) -> Result<&'static Size, Refusal> {
    let asked = request["properties"]["hardwareProfile"]["vmSize"].as_str().unwrap_or_default();
    let size = catalogue::find_size(asked).ok_or_else(|| {
        let text = format!(
            "The value {asked} provided for the VM size is not valid. The valid sizes are listed by the skus API."
        );
        Refusal::parameter("vmSize", text)
    })?;
    for zone in validate::zones(request, location)? {
        if !catalogue::zone_offers(size, location, &zone) {
            let text = format!(
                "The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {}' is currently \
                 not available in location '{location}' zones '{zone}'. Please try another size or deploy to a different \
                 location or different zone. See https://aka.ms/azureskunotavailable for details.",
                size.name
            );
            return Err(Refusal::new(409, "SkuNotAvailable", text));
        }
    }
    Ok(size)
}

/// The exact version of the image.
fn check_image(world: &World, properties: &Value, size: &Size, location: &str) -> Result<String, Refusal> {
    let reference = &properties["storageProfile"]["imageReference"];
    let image = match reference["id"].as_str() {
        Some(id) => gallery::resolve(world, id, location)?,
        None => catalogue::resolve_image(reference)?,
    };
    if image.architecture != size.architecture {
        let text = format!(
            "Cannot create a VM of size '{}' because this VM size only supports a CPU Architecture of '{}', but an image or disk \
             with CPU Architecture '{}' was given. Please check that the CPU Architecture of the image or disk is compatible \
             with that of the VM size.",
            size.name, size.architecture, image.architecture
        );
        return Err(Refusal::new(400, "BadRequest", text));
    }
    if !size.generations.contains(&image.generation) {
        let text = format!(
            "The selected VM size '{}' cannot boot Hypervisor Generation '{}'. If this was a Create operation please check that \
             the Hypervisor Generation of the Image matches the Hypervisor Generation of the selected VM Size.",
            size.name,
            image.generation.trim_start_matches('V')
        );
        return Err(Refusal::new(400, "BadRequest", text));
    }
    Ok(image.version)
}

/// Whether the machine is a Spot machine.
fn check_priority(properties: &Value, size: &Size) -> Result<bool, Refusal> {
    let spot = matches!(properties["priority"].as_str(), Some("Spot" | "Low"));
    if spot && !size.spot {
        let text = format!("Azure Spot is not supported for this VM size {}.", size.name);
        return Err(Refusal::new(409, "AzureSpotIsNotSupportedForThisVMSize", text));
    }
    if !spot && properties["evictionPolicy"].is_string() {
        let text = "Eviction policy can be set only on Azure Spot Virtual Machines.";
        return Err(Refusal::new(409, "EvictionPolicyCanBeSetOnlyOnAzureSpotVirtualMachines", text));
    }
    Ok(spot)
}

/// The user, their keys, and the decoded custom data.
fn check_profile(profile: &Value) -> Result<(String, Vec<String>, Vec<u8>), Refusal> {
    let user = profile["adminUsername"].as_str().unwrap_or_default();
    if user.is_empty() {
        return Err(Refusal::parameter("adminUsername", "Required parameter 'adminUsername' is missing (null)."));
    }
    // A part of Azure's list.
    if ["root", "admin", "administrator", "user", "test", "guest", "sys"].contains(&user.to_lowercase().as_str()) {
        let text = "The Admin Username specified is not allowed.";
        return Err(Refusal::parameter("adminUsername", text));
    }
    let linux = &profile["linuxConfiguration"];
    let keys = linux["ssh"]["publicKeys"].as_array().cloned().unwrap_or_default();
    if keys.is_empty() && (linux["disablePasswordAuthentication"] == true || !profile["adminPassword"].is_string()) {
        let text = "Authentication using either SSH or by user name and password must be enabled in Linux profile.";
        return Err(Refusal::parameter("linuxConfiguration", text));
    }
    let home = format!("/home/{user}/.ssh/authorized_keys");
    let mut authorized = Vec::new();
    for key in &keys {
        if key["path"].as_str().is_some_and(|path| path != home) {
            let text = format!(
                "Destination path for SSH public keys is currently limited to its default value {home} due to a known issue in Linux provisioning agent."
            );
            return Err(Refusal::parameter("linuxConfiguration.ssh.publicKeys.path", text));
        }
        let line = key["keyData"].as_str().unwrap_or_default().trim();
        if !is_public_key(line) {
            let text = "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.";
            return Err(Refusal::parameter("linuxConfiguration.ssh.publicKeys.keyData", text));
        }
        authorized.push(line.to_owned());
    }
    Ok((user.into(), authorized, decode_custom_data(profile)?))
}

fn decode_custom_data(profile: &Value) -> Result<Vec<u8>, Refusal> {
    let encoded = profile["customData"].as_str().unwrap_or_default();
    let decoded = STANDARD.decode(encoded).ok().filter(|bytes| bytes.len() <= CUSTOM_DATA_BYTES);
    decoded.ok_or_else(|| {
        let text = "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.";
        Refusal::parameter("customData", text)
    })
}

fn interface_ids(properties: &Value) -> Vec<&str> {
    let interfaces =
        properties["networkProfile"]["networkInterfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut interfaces: Vec<&Value> = interfaces.iter().collect();
    interfaces.sort_by_key(|interface| interface["properties"]["primary"] != true);
    interfaces.into_iter().filter_map(|interface| interface["id"].as_str()).collect()
}

fn check_interfaces(
    world: &World,
    target: &Target,
    properties: &Value,
    location: &str,
) -> Result<Vec<String>, Refusal> {
    if !properties["networkProfile"]["networkInterfaceConfigurations"].is_null() {
        return Err(Refusal::unsupported("network interfaces made with the machine (networkInterfaceConfigurations)"));
    }
    let ids = interface_ids(properties);
    if ids.is_empty() {
        return Err(Refusal::parameter("networkProfile", "Required parameter 'networkProfile' is missing (null)."));
    }
    let mut keys = Vec::new();
    for id in ids {
        let key = id.to_lowercase();
        let usable = |record: &&Record| record.location() == location && record.hidden.deletion.is_none();
        if Kind::of(&key) != Some(Kind::NetworkInterface) || world.azure.store.get(&key).filter(usable).is_none() {
            return Err(Refusal::new(404, "NotFound", format!("Resource {id} not found.")));
        }
        if let Some(user) = world.azure.store.referrers(&key).find(|user| !user.eq_ignore_ascii_case(&target.id)) {
            let text = format!("Network Interface {id} is used by existing resource {user}.");
            return Err(Refusal::new(400, "NicInUse", text));
        }
        interface::check_reservation(world, &key, Some(&target.id))?;
        keys.push(key);
    }
    Ok(keys)
}

/// `PUT` of a machine that exists.
fn update(world: &mut World, call: &Call, target: &Target, request: Value, location: &str) -> Answer {
    let Some(record) = world.azure.store.get(&target.key) else { return Err(target.missing()) };
    let Some(facts) = record.hidden.machine.clone() else { return Err(target.missing()) };
    check_immutable(record, &facts, &request)?;
    let tags = request.get("tags").cloned();
    let whole = merged(record.request.clone(), request);
    let draft = check(world, target, &whole, location)?;
    let mut asked = without_secrets(whole);
    if let Some(tags) = tags {
        asked["tags"] = tags;
    }
    let state = record.state().to_owned();
    if state == "Succeeded" && asked == record.request {
        return Ok(Reply::text(200, world.azure.store.text(&target.key).into()));
    }
    let now = world.now;
    world.azure.store.change(now, &target.key, |record| {
        for pointer in
            ["/tags", "/properties/hardwareProfile", "/properties/scheduledEventsProfile", "/properties/userData"]
        {
            if let Some(value) = asked.pointer(pointer) {
                let (parent, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
                if let Some(parent) = record.body.pointer_mut(parent) {
                    parent[field] = value.clone();
                }
            }
        }
        record.request = asked;
        if state != "Creating" {
            record.body["properties"]["provisioningState"] = json!("Updating");
        }
        if let Some(facts) = &mut record.hidden.machine {
            (facts.cores, facts.family) = (draft.size.cores, draft.size.family);
        }
    });
    world.ledger.change(now, "arm", "updated", &*target.id);
    let operation = operation::begin(world, &target.key, "Microsoft.Compute", Purpose::Write);
    if facts.placed || state == "Creating" {
        // While the machine is being made, this joins the first request.
        let creation = world.latency(Latency::VirtualMachinePut, &target.name);
        await_report(world, target, &operation, if state == "Creating" { creation } else { UPDATE });
    } else {
        allocate(world, target, &draft, &operation);
    }
    let headers = operation::headers(world, call, "Microsoft.Compute", location, &operation, true);
    Ok(Reply::text(200, world.azure.store.text(&target.key).into()).headers(headers))
}

/// What an update leaves out stays as it is: `az vm update` and `az vm resize` leave out the image (observed with Azure
/// CLI 2.91.0).
fn merged(old: Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(mut old), Value::Object(new)) => {
            for (name, value) in new {
                let before = old.remove(&name).unwrap_or_default();
                old.insert(name, merged(before, value));
            }
            Value::Object(old)
        }
        (_, new) => new,
    }
}

/// What cannot change while a machine exists (Azure documentation). What a request leaves out stays as it is.
fn check_immutable(record: &Record, facts: &MachineFacts, request: &Value) -> Result<(), Refusal> {
    // Clients write back what they read, with what Azure has added: observed with `az vm update` of Azure CLI 2.91.0.
    let differs = |pointer: &str| {
        let new = request.pointer(pointer);
        new.is_some() && new != record.request.pointer(pointer) && new != record.body.pointer(pointer)
    };
    let refuse = |property: &str| {
        let text = format!("Changing property '{property}' is not allowed.");
        Err(Refusal { target: Some(property.into()), ..Refusal::new(409, "PropertyChangeNotAllowed", text) })
    };
    for (pointer, property) in [
        ("/zones", "zones"),
        ("/properties/storageProfile/imageReference", "imageReference"),
        ("/properties/storageProfile/osDisk/name", "osDisk.name"),
        ("/properties/osProfile/computerName", "osProfile.computerName"),
        ("/properties/osProfile/adminUsername", "osProfile.adminUsername"),
        ("/properties/osProfile/linuxConfiguration/ssh/publicKeys", "linuxConfiguration.ssh.publicKeys"),
        ("/properties/priority", "priority"),
    ] {
        if differs(pointer) {
            return refuse(property);
        }
    }
    if differs("/properties/storageProfile/dataDisks") {
        return Err(Refusal::unsupported("attaching and detaching data disks of a machine that exists"));
    }
    let lower =
        |body: &Value| interface_ids(&body["properties"]).iter().map(|id| id.to_lowercase()).collect::<Vec<_>>();
    if lower(request) != lower(&record.request) {
        return refuse("networkProfile.networkInterfaces");
    }
    let profile = &request["properties"]["osProfile"];
    if profile["customData"].is_string() {
        let hash: [u8; 32] = Sha256::digest(decode_custom_data(profile)?).into();
        if hash != facts.custom_data_hash {
            return refuse("osProfile.customData");
        }
    }
    Ok(())
}

/// The lower-case ids of what dies with a machine: where `deleteOption` says so.
pub(super) fn dependents(world: &World, record: &Record) -> Vec<String> {
    let dies =
        |options: &Value| options["deleteOption"].as_str().is_some_and(|option| option.eq_ignore_ascii_case("Delete"));
    let properties = &record.body["properties"];
    let storage = &properties["storageProfile"];
    let disks = std::iter::once(&storage["osDisk"]).chain(storage["dataDisks"].as_array().into_iter().flatten());
    let disks = disks.filter(|disk| dies(disk)).filter_map(|disk| disk["managedDisk"]["id"].as_str());
    let mut dependents: Vec<String> = disks.map(str::to_lowercase).collect();
    let interfaces = properties["networkProfile"]["networkInterfaces"].as_array().into_iter().flatten();
    let dying = interfaces.filter(|interface| dies(&interface["properties"]));
    for key in dying.filter_map(|interface| interface["id"].as_str()).map(str::to_lowercase) {
        let Some(interface) = world.azure.store.get(&key) else { continue };
        let configurations = interface.body["properties"]["ipConfigurations"].as_array().cloned().unwrap_or_default();
        dependents.push(key);
        for address in configurations.iter().map(|configuration| &configuration["properties"]["publicIPAddress"]) {
            let Some(key) = address["id"].as_str().map(str::to_lowercase) else { continue };
            let by_itself = world.azure.store.get(&key).is_some_and(|record| dies(&record.body["properties"]));
            if by_itself || dies(&address["properties"]) {
                dependents.push(key);
            }
        }
    }
    dependents
}

//! Managed disks: on their own, and with a virtual machine.

use serde_json::{Value, json};

use super::{
    call::{Answer, Call, Refusal, Reply},
    catalogue::IMAGE_GIGABYTES,
    locks,
    resource::{self, Kind, Target},
    store::{Hidden, Parts},
    validate,
};
use crate::{Latency, World};

/// `PUT` of an empty disk.
pub(super) fn prepare(world: &mut World, target: &Target, request: Value, location: &str) -> Result<Parts, Refusal> {
    validate::zones(&request, location)?;
    let properties = &request["properties"];
    if !properties["creationData"]["createOption"].as_str().is_some_and(|option| option.eq_ignore_ascii_case("Empty")) {
        return Err(Refusal::unsupported("disks that do not start empty"));
    }
    if properties["diskSizeGB"].as_u64().is_none_or(|size| size == 0) {
        return Err(Refusal::parameter("diskSizeGB", "Required parameter 'diskSizeGB' is missing (null)."));
    }
    let mut body = target.body(&request, location);
    body["properties"]["timeCreated"] = json!(world.timestamp());
    body["properties"]["uniqueId"] = json!(world.azure.identifier("disk"));
    Ok(Parts { body, request, references: Vec::new(), hidden: Hidden::default() })
}

/// `DELETE`.
pub(super) fn delete(world: &mut World, call: &Call, target: &Target) -> Answer {
    if world.azure.store.get(&target.key).is_none() {
        return Ok(Reply::empty(204));
    }
    locks::check(world, &target.key, locks::Intent::Delete)?;
    if let Some(user) = world.azure.store.referrers(&target.key).next() {
        let text = format!("Disk {} is attached to VM {user}.", target.name);
        return Err(Refusal::new(409, "OperationNotAllowed", text));
    }
    let duration = world.latency(Latency::DiskPut, &target.name);
    resource::begin_delete(world, call, target, duration)
}

/// A disk of a machine that is about to be made.
pub(super) struct Plan {
    pub(super) target: Target,
    /// Where it stands in the machine's body.
    pub(super) pointer: String,
    /// Absent if the disk exists.
    create: Option<Value>,
}

/// The disks that a machine asks for.
pub(super) fn plan(
    world: &mut World,
    machine: &Target,
    request: &Value,
    premium_storage: bool,
) -> Result<Vec<Plan>, Refusal> {
    let mut plans = Vec::new();
    let pointer = "/properties/storageProfile/osDisk".to_owned();
    let disk = request.pointer(&pointer).cloned().unwrap_or_default();
    let size = disk["diskSizeGB"].as_u64().unwrap_or(IMAGE_GIGABYTES);
    if size < IMAGE_GIGABYTES {
        let text = format!(
            "The specified disk size {size} GB is smaller than the size of the corresponding disk in the VM image: \
             {IMAGE_GIGABYTES} GB. This is not allowed. Please choose equal or greater size or do not specify an explicit size."
        );
        return Err(Refusal::parameter("osDisk.diskSizeGB", text));
    }
    // `az vm create` writes `fromImage` (observed with Azure CLI 2.91.0).
    if !disk["createOption"].as_str().is_some_and(|option| option.eq_ignore_ascii_case("FromImage")) {
        return Err(Refusal::parameter(
            "osDisk.createOption",
            "The twin makes OS disks from images only: createOption must be FromImage.",
        ));
    }
    plans.push(create(world, machine, &disk, pointer, "OsDisk_1", size, premium_storage)?);
    let data_disks = request["properties"]["storageProfile"]["dataDisks"].as_array().cloned().unwrap_or_default();
    for (index, disk) in data_disks.iter().enumerate() {
        let pointer = format!("/properties/storageProfile/dataDisks/{index}");
        let option = disk["createOption"].as_str().map(str::to_lowercase);
        match (option.as_deref(), disk["managedDisk"]["id"].as_str()) {
            (Some("attach"), Some(id)) => plans.push(attach(world, id, pointer)?),
            (Some("empty"), _) => {
                let size = disk["diskSizeGB"].as_u64().unwrap_or(32);
                plans.push(create(
                    world,
                    machine,
                    disk,
                    pointer,
                    &format!("disk{}", index + 2),
                    size,
                    premium_storage,
                )?);
            }
            _ => {
                return Err(Refusal::parameter(
                    "dataDisks.createOption",
                    "Required parameter 'createOption' is invalid.",
                ));
            }
        }
    }
    Ok(plans)
}

fn attach(world: &World, id: &str, pointer: String) -> Result<Plan, Refusal> {
    let key = id.to_lowercase();
    let missing = || Refusal::new(404, "NotFound", format!("Disk {id} is not found."));
    let record = world.azure.store.get(&key).filter(|_| Kind::of(&key) == Some(Kind::Disk)).ok_or_else(missing)?;
    if let Some(user) = world.azure.store.referrers(&key).next() {
        let text = format!(
            "Cannot attach data disk '{}' because the disk is currently being used by VM '{user}'.",
            record.name()
        );
        return Err(Refusal::new(409, "AttachDiskWhileBeingDetached", text));
    }
    let group = id.split('/').nth(4).unwrap_or_default();
    Ok(Plan { target: Target::new(world, Kind::Disk, group, record.name()), pointer, create: None })
}

fn create(
    world: &mut World,
    machine: &Target,
    disk: &Value,
    pointer: String,
    suffix: &str,
    size: u64,
    premium_storage: bool,
) -> Result<Plan, Refusal> {
    let generated = || format!("{}_{suffix}_{}", machine.name, world.azure.identifier("disk").replace('-', ""));
    let name = disk["name"].as_str().map(String::from).unwrap_or_else(generated);
    let target = Target::new(world, Kind::Disk, &machine.group, &name);
    if world.azure.store.get(&target.key).is_some() {
        let text = format!(
            "Disk {name} already exists in resource group {}. Only CreateOption.Attach is supported.",
            machine.group
        );
        return Err(Refusal::new(409, "ConflictingUserInput", text));
    }
    let usual = if premium_storage { "Premium_LRS" } else { "Standard_LRS" };
    let storage = disk["managedDisk"]["storageAccountType"].as_str().unwrap_or(usual);
    if storage.starts_with("Premium") && !premium_storage {
        let text = format!(
            "Requested operation cannot be performed because the VM size does not support the storage account type {storage} \
             of disk '{name}'. Consider updating the VM to a size that supports Premium storage."
        );
        return Err(Refusal::parameter("osDisk.managedDisk.storageAccountType", text));
    }
    let (option, system) = if suffix == "OsDisk_1" { ("FromImage", json!("Linux")) } else { ("Empty", Value::Null) };
    let mut properties = json!({
        "diskSizeGB": size, "diskSizeBytes": size << 30, "creationData": {"createOption": option},
        "timeCreated": world.timestamp(), "uniqueId": world.azure.identifier("disk"), "provisioningState": "Succeeded",
    });
    if !system.is_null() {
        properties["osType"] = system;
    }
    let create = json!({"sku": {"name": storage}, "properties": properties});
    Ok(Plan { target, pointer, create: Some(create) })
}

impl Plan {
    /// Makes the disk if it does not exist, and enters it into the machine's body.
    pub(super) fn carry_out(self, world: &mut World, machine: &mut Value) {
        let now = world.now;
        let location = machine["location"].as_str().unwrap_or_default().to_owned();
        if let Some(mut request) = self.create {
            for field in ["zones", "tags"] {
                if let Some(value) = machine.get(field).filter(|value| !value.is_null()) {
                    request[field] = value.clone();
                }
            }
            let body = self.target.body(&request, &location);
            let parts = Parts { body, request: Value::Null, references: Vec::new(), hidden: Hidden::default() };
            world.azure.store.put(now, &self.target.id, parts);
            world.ledger.change(now, "arm", "created", &*self.target.id);
        }
        let record = world.azure.store.get(&self.target.key).map(|record| record.body.clone()).unwrap_or_default();
        let Some(disk) = machine.pointer_mut(&self.pointer) else { return };
        disk["name"] = json!(self.target.name);
        if !record["properties"]["osType"].is_null() {
            disk["createOption"] = json!("FromImage");
        }
        disk["diskSizeGB"] = record["properties"]["diskSizeGB"].clone();
        disk["managedDisk"] = json!({"id": self.target.id, "storageAccountType": record["sku"]["name"]});
        if let Some(system) = record["properties"].get("osType") {
            disk["osType"] = system.clone();
        }
        for (field, value) in [("deleteOption", "Detach"), ("caching", "ReadWrite")] {
            if disk[field].is_null() {
                disk[field] = json!(value);
            }
        }
    }
}

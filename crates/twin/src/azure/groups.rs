//! Resource groups.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    SUBSCRIPTION,
    call::{Answer, Call, Refusal, Reply, retry_after},
    listing::{self, Filter},
    locks,
    operation::{self, Purpose},
    policy, resource, validate,
};
use crate::{FaultKind, Latency, World};

/// A resource group.
pub(super) struct Group {
    pub(super) name: String,
    location: String,
    tags: Value,
    /// The operation that deletes it.
    deletion: Option<String>,
}

impl Group {
    fn id(&self) -> String {
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", self.name)
    }

    /// What a `GET` shows.
    pub(super) fn body(&self) -> Value {
        let state = if self.deletion.is_some() { "Deleting" } else { "Succeeded" };
        json!({
            "id": self.id(), "name": self.name, "type": "Microsoft.Resources/resourceGroups", "location": self.location,
            "tags": self.tags, "properties": {"provisioningState": state},
        })
    }
}

/// The lower-case id of a group.
pub(super) fn key(name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/{}", name.to_lowercase())
}

fn find<'a>(world: &'a World, name: &str) -> Result<&'a Group, Refusal> {
    let missing = || Refusal::new(404, "ResourceGroupNotFound", format!("Resource group '{name}' could not be found."));
    world.azure.groups.get(&name.to_lowercase()).ok_or_else(missing)
}

/// What a `GET` of a group shows.
pub(super) fn body(world: &World, name: &str) -> Result<Value, Refusal> {
    find(world, name).map(Group::body)
}

/// Refuses what is asked in a group that does not exist.
pub(super) fn exists(world: &World, name: &str) -> Result<(), Refusal> {
    find(world, name).map(drop)
}

/// Refuses what is written into a group that does not exist, or soon will not.
pub(super) fn writable(world: &World, name: &str) -> Result<(), Refusal> {
    if find(world, name)?.deletion.is_none() {
        return Ok(());
    }
    let text = format!("The resource group '{name}' is in deprovisioning state and cannot perform this operation.");
    Err(Refusal::new(409, "ResourceGroupBeingDeleted", text))
}

/// `GET /subscriptions/{s}/resourcegroups`.
pub(super) fn list(world: &World, call: &Call) -> Answer {
    let filter = Filter::parse(call)?;
    let bodies = world.azure.groups.values().map(Group::body).filter(|body| filter.matches(body));
    Ok(listing::page(call, bodies, |body| body.to_string().into()))
}

/// Requests to one group.
pub(super) fn one(world: &mut World, call: &Call, name: &str) -> Answer {
    match call.method.as_str() {
        "GET" => Ok(Reply::new(200, &find(world, name)?.body())),
        "HEAD" => Ok(Reply::empty(if find(world, name).is_ok() { 204 } else { 404 })),
        "PUT" => put(world, call, name),
        "PATCH" => patch(world, call, name),
        "DELETE" => delete(world, call, name),
        _ => Err(Refusal::method(call)),
    }
}

fn put(world: &mut World, call: &Call, name: &str) -> Answer {
    let fits = |character: char| character.is_alphanumeric() || "-_.()".contains(character);
    if name.chars().count() > 90 || name.ends_with('.') || !name.chars().all(fits) {
        let text = format!("The provided resource group name '{name}' has these invalid characters or is too long.");
        return Err(Refusal::new(400, "InvalidResourceGroup", text));
    }
    let request = call.json()?;
    validate::tags(&request)?;
    let location = validate::location(&request)?;
    if let Ok(group) = find(world, name) {
        writable(world, name)?;
        locks::check(world, &key(name), locks::Intent::Write)?;
        if group.location != location {
            let text = format!(
                "Invalid resource group location '{location}'. The Resource group already exists in location '{}'.",
                group.location
            );
            return Err(Refusal::new(409, "InvalidResourceGroupLocation", text));
        }
    }
    let tags = request.get("tags").filter(|tags| tags.is_object()).cloned().unwrap_or_else(|| json!({}));
    policy::check(world, &key(name), policy::GROUP, name, &json!({"tags": tags, "location": location}))?;
    let groups = &mut world.azure.groups;
    let created = !groups.contains_key(&name.to_lowercase());
    let group = groups.entry(name.to_lowercase());
    let group = group.or_insert_with(|| Group { name: name.into(), location, tags: Value::Null, deletion: None });
    group.tags = tags;
    let (id, body) = (group.id(), group.body());
    world.ledger.change(world.now, "arm", if created { "created" } else { "updated" }, id);
    Ok(Reply::new(if created { 201 } else { 200 }, &body).takes(Latency::ResourceGroupPut))
}

fn patch(world: &mut World, call: &Call, name: &str) -> Answer {
    writable(world, name)?;
    locks::check(world, &key(name), locks::Intent::Write)?;
    let request = call.json()?;
    validate::tags(&request)?;
    if request.get("tags").is_some() {
        let location = find(world, name)?.location.clone();
        let wanted = json!({"tags": request["tags"], "location": location});
        policy::check(world, &key(name), policy::GROUP, name, &wanted)?;
    }
    let missing = || Refusal::new(404, "ResourceGroupNotFound", name);
    let group = world.azure.groups.get_mut(&name.to_lowercase()).ok_or_else(missing)?;
    if let Some(tags) = request.get("tags") {
        group.tags = tags.clone();
    }
    let (id, body) = (group.id(), group.body());
    world.ledger.change(world.now, "arm", "updated", id);
    Ok(Reply::new(200, &body))
}

/// Replaces the tags of a group, if it exists.
pub(super) fn set_tags(world: &mut World, name: &str, tags: Value) {
    if let Some(group) = world.azure.groups.get_mut(&name.to_lowercase()) {
        group.tags = tags;
        let id = group.id();
        world.ledger.change(world.now, "arm", "updated", id);
    }
}

/// First the machines go with their disks and interfaces, then the rest (Azure documentation: children first). A failed
/// deletion does not bring back what is gone already; the group is as before (Azure documentation: rolled back).
fn delete(world: &mut World, call: &Call, name: &str) -> Answer {
    let group_key = key(name);
    locks::check(world, &group_key, locks::Intent::Delete)?;
    let deletion = find(world, name)?.deletion.clone();
    let operation = match deletion {
        Some(operation) => operation,
        None => begin_delete(world, call, name, &group_key),
    };
    let (base, version) = (call.base(), call.api_version());
    let url = format!("{base}/subscriptions/{SUBSCRIPTION}/operationresults/{operation}?api-version={version}");
    let again = retry_after(world, operation::poll_seconds("Microsoft.Resources"));
    Ok(Reply::empty(202).header("location", url).headers([again]))
}

fn begin_delete(world: &mut World, call: &Call, name: &str, group_key: &str) -> String {
    let operation = operation::begin(world, group_key, "Microsoft.Resources", Purpose::Delete);
    if let Some(group) = world.azure.groups.get_mut(&name.to_lowercase()) {
        group.deletion = Some(operation.clone());
    }
    let empty = world.azure.store.under(&format!("{group_key}/")).next().is_none();
    let latency = if empty { Latency::EmptyResourceGroupDelete } else { Latency::ResourceGroupDelete };
    // Machines that are not shut down first save some of the time (guess).
    let hurry = if call.query("forcedeletiontypes").is_some() { 0.6 } else { 1.0 };
    let duration = world.latency(latency, name).mul_f64(hurry);
    let (machines_in, everything_in) = (group_key.to_owned(), group_key.to_owned());
    let (group, ended) = (name.to_lowercase(), operation.clone());
    let failed = world.faults.strikes(FaultKind::OperationFailure, name);
    world.after(duration.mul_f64(0.6), move |world| {
        for kind in ["compute/virtualmachines/", "compute/disks/", "network/networkinterfaces/"] {
            remove_all(world, &format!("{machines_in}/providers/microsoft.{kind}"));
        }
    });
    world.after(duration, move |world| {
        if failed {
            return roll_back(world, &group, &ended);
        }
        remove_all(world, &format!("{everything_in}/"));
        let inside = format!("{everything_in}/");
        world.azure.locks.retain(|lock, _| !lock.starts_with(&inside));
        world.azure.deployments.retain(|deployment, _| !deployment.starts_with(&inside));
        if let Some(group) = world.azure.groups.remove(&group) {
            world.ledger.change(world.now, "world", "deleted", group.id());
        }
        operation::end(world, &ended, Ok(()));
    });
    operation
}

fn roll_back(world: &mut World, group: &str, operation: &str) {
    let prefix = format!("{}/", key(group));
    let left: Vec<&str> = world.azure.store.under(&prefix).take(1).map(|(_, record)| record.id.as_str()).collect();
    let text = format!(
        "Deletion of resource group '{group}' failed as resources with identifiers '{}' could not be deleted. The \
         provisioning state of the resource group will be rolled back. Please check audit logs for more details.",
        left.join(", ")
    );
    if let Some(group) = world.azure.groups.get_mut(group) {
        group.deletion = None;
    }
    operation::end(world, operation, Err(Refusal::new(409, "ResourceGroupDeletionBlocked", text)));
}

fn remove_all(world: &mut World, prefix: &str) {
    let keys: Vec<String> = world.azure.store.under(prefix).map(|(key, _)| key.clone()).collect();
    for key in keys {
        resource::remove(world, "world", &key);
    }
}

/// How long a listing lags behind the truth (guess).
pub(super) const LISTING_LAG: Duration = Duration::from_secs(3);
/// How long it lags on a bad day (guess).
pub(super) const STALE_LISTING_LAG: Duration = Duration::from_secs(600);

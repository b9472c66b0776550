//! Management locks, on the subscription, a resource group or a resource.

use serde_json::{Value, json};

use super::call::{Answer, Call, Refusal, Reply};
use crate::World;

/// What a lock may forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Write,
    Delete,
}

/// The path of the request without `/providers/Microsoft.Authorization/locks...`, lower-case.
pub(super) fn scope(call: &Call, parts_after: usize) -> String {
    let scope = &call.lower[..call.lower.len() - parts_after];
    format!("/{}", scope.join("/"))
}

/// Whether `inner` is `outer` or inside it.
pub(super) fn inside(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The scope of the lock with this lower-case id.
fn scope_of(lock: &str) -> &str {
    lock.split("/providers/microsoft.authorization/locks/").next().unwrap_or(lock)
}

/// `GET .../locks`: those on the scope, above it and below it.
pub(super) fn list(world: &World, call: &Call) -> Answer {
    let scope = scope(call, 3);
    let here = |key: &str| inside(scope_of(key), &scope) || inside(&scope, scope_of(key));
    let locks: Vec<&Value> = world.azure.locks.iter().filter(|(key, _)| here(key)).map(|(_, lock)| lock).collect();
    Ok(Reply::new(200, &json!({"value": locks})))
}

/// `GET`, `PUT` and `DELETE` of one lock.
pub(super) fn one(world: &mut World, call: &Call) -> Answer {
    let key = format!("/{}", call.lower.join("/"));
    let now = world.now;
    match call.method.as_str() {
        "GET" => {
            let missing = || Refusal::new(404, "LockNotFound", format!("The lock '{}' could not be found.", call.path));
            world.azure.locks.get(&key).map(|lock| Reply::new(200, lock)).ok_or_else(missing)
        }
        "PUT" => {
            check_scope(world, &scope(call, 4))?;
            let request = call.json()?;
            let level = request["properties"]["level"].as_str().unwrap_or_default();
            if !["CanNotDelete", "ReadOnly"].contains(&level) {
                return Err(Refusal::new(400, "LockLevelInvalid", format!("The lock level '{level}' is invalid.")));
            }
            let id = format!("/{}", call.segments.join("/"));
            let lock = json!({
                "id": id, "type": "Microsoft.Authorization/locks", "name": call.segments.last(),
                "properties": request["properties"],
            });
            let reply = |status| Reply::new(status, &lock);
            let created = world.azure.locks.insert(key, lock.clone()).is_none();
            world.ledger.change(now, "arm", if created { "created" } else { "updated" }, id);
            Ok(reply(if created { 201 } else { 200 }))
        }
        "DELETE" => match world.azure.locks.remove(&key) {
            None => Ok(Reply::empty(204)),
            Some(lock) => {
                world.ledger.change(now, "arm", "deleted", lock["id"].as_str().unwrap_or_default());
                Ok(Reply::empty(200))
            }
        },
        _ => Err(Refusal::method(call)),
    }
}

pub(super) fn check_scope(world: &World, scope: &str) -> Result<(), Refusal> {
    let parts: Vec<&str> = scope.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["subscriptions", _] => Ok(()),
        ["subscriptions", _, "resourcegroups", group] => super::groups::exists(world, group),
        _ if world.azure.store.get(scope).is_some() => Ok(()),
        _ => Err(Refusal::new(404, "ResourceNotFound", format!("The Resource '{scope}' was not found."))),
    }
}

/// Whether a lock forbids to write or delete `key` (a lower-case id). Deleting something deletes what is inside it, so
/// a lock inside it forbids that too.
pub(super) fn check(world: &World, key: &str, intent: Intent) -> Result<(), Refusal> {
    let forbids = |(lock, body): &(&String, &Value)| {
        let above = inside(key, scope_of(lock));
        match intent {
            Intent::Delete => above || inside(scope_of(lock), key),
            Intent::Write => above && body["properties"]["level"] == "ReadOnly",
        }
    };
    let Some((lock, _)) = world.azure.locks.iter().find(forbids) else { return Ok(()) };
    let verb = if intent == Intent::Delete { "delete" } else { "write" };
    let text = format!(
        "The scope '{key}' cannot perform {verb} operation because following scope(s) are locked: '{}'. \
         Please remove the lock and try again.",
        scope_of(lock)
    );
    Err(Refusal::new(409, "ScopeLocked", text))
}

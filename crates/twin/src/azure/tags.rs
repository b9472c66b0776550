//! Tags as resources of their own: read and written at the scope of a resource or of a resource group, and counted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    SUBSCRIPTION,
    call::{Answer, Call, Refusal, Reply},
    groups, locks, policy, resource, validate,
};
use crate::World;

/// Requests to `{scope}/providers/Microsoft.Resources/tags/default` (operations and answers: Azure SDK; observed with Azure
/// CLI 2.91.0).
pub(super) fn at_scope(world: &mut World, call: &Call) -> Answer {
    let scope = &call.segments[..call.segments.len() - 4];
    let key = format!("/{}", scope.join("/").to_lowercase());
    let known = read(world, &key, scope)?;
    let tags = match call.method.as_str() {
        "GET" => return Ok(Reply::new(200, &body(call, &known))),
        "PUT" => given(&call.json()?),
        "DELETE" => Map::new(),
        "PATCH" => patched(known, &call.json()?)?,
        _ => return Err(Refusal::method(call)),
    };
    groups::writable(world, &scope[3])?;
    locks::check(world, &key, locks::Intent::Write)?;
    let wanted = json!({"tags": tags});
    validate::tags(&wanted)?;
    let kind = if scope.len() == 4 { policy::GROUP.to_owned() } else { scope[5..scope.len() - 1].join("/") };
    policy::check(world, &key, &kind, &scope[scope.len() - 1], &wanted)?;
    if scope.len() == 4 {
        groups::set_tags(world, &scope[3], Value::Object(tags.clone()));
    } else {
        resource::set_tags(world, &key, Value::Object(tags.clone()));
    }
    if call.method == "DELETE" { Ok(Reply::empty(200)) } else { Ok(Reply::new(200, &body(call, &tags))) }
}

fn body(call: &Call, tags: &Map<String, Value>) -> Value {
    json!({"id": call.path, "name": "default", "type": "Microsoft.Resources/tags", "properties": {"tags": tags}})
}

fn given(request: &Value) -> Map<String, Value> {
    request["properties"]["tags"].as_object().cloned().unwrap_or_default()
}

/// The tags that a resource or a resource group has.
fn read(world: &World, key: &str, scope: &[String]) -> Result<Map<String, Value>, Refusal> {
    let tags = match scope.len() {
        2 => return Err(Refusal::unsupported("tags of a subscription")),
        4 => groups::body(world, &scope[3])?["tags"].clone(),
        _ => {
            let missing = || Refusal::new(404, "ResourceNotFound", format!("The Resource '{key}' was not found."));
            world.azure.store.get(key).ok_or_else(missing)?.body["tags"].clone()
        }
    };
    Ok(tags.as_object().cloned().unwrap_or_default())
}

fn patched(mut tags: Map<String, Value>, request: &Value) -> Result<Map<String, Value>, Refusal> {
    let given = given(request);
    match request["operation"].as_str().unwrap_or_default().to_lowercase().as_str() {
        "replace" => return Ok(given),
        "merge" => {
            // The names of tags are case-insensitive (Azure documentation).
            tags.retain(|known, _| !given.keys().any(|name| name.eq_ignore_ascii_case(known)));
            tags.extend(given);
        }
        "delete" => tags.retain(|known, value| {
            !given.iter().any(|(name, given)| name.eq_ignore_ascii_case(known) && (given == value || given == ""))
        }),
        other => {
            let text = format!("The tags operation '{other}' is not one of 'Replace', 'Merge', 'Delete'.");
            return Err(Refusal::new(400, "InvalidTagsOperation", text));
        }
    }
    Ok(tags)
}

/// `GET /subscriptions/{s}/tagNames`: how often each name and each value is used.
pub(super) fn names(world: &World) -> Answer {
    let mut names: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for item in super::resources(world) {
        for (name, value) in item["tags"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            *names.entry(name.clone()).or_default().entry(value).or_default() += 1;
        }
    }
    let count = |number: u64| json!({"type": "Total", "value": number});
    let value: Vec<Value> = names
        .iter()
        .map(|(name, values)| {
            let id = format!("/subscriptions/{SUBSCRIPTION}/tagNames/{name}");
            let each = values.iter().map(|(value, number)| {
                json!({"id": format!("{id}/tagValues/{value}"), "tagValue": value, "count": count(*number)})
            });
            json!({"id": id, "tagName": name, "count": count(values.values().sum()), "values": each.collect::<Vec<_>>()})
        })
        .collect();
    Ok(Reply::new(200, &json!({"value": value})))
}

//! Server-side apply: fields have owners, and taking another's field is a conflict.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{cluster::Cluster, failure::Failure, types::ResourceType},
    fields::{
        Entry, ListKind, Path, display, entries, find, item_segment, last_field, list_kind, owned, remove, schema_of,
        set_entries, step,
    },
    request::Request,
};

/// The object that applying `applied` to what exists leads to.
pub(super) fn apply(
    cluster: &Cluster,
    request: &Request,
    kind: &ResourceType,
    subresource: &str,
    live: Option<&Value>,
    applied: &Value,
) -> Result<Value, Failure> {
    let manager = request.parameter("fieldManager");
    if manager.is_empty() {
        return Err(Failure::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if applied.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let mut owner = Entry::new(manager, "Apply", subresource, kind.api_version(), &cluster.now);
    owner.paths = owned(kind, applied);
    let Some(live) = live else {
        let mut object = applied.clone();
        set_entries(&mut object, &[owner]);
        return Ok(object);
    };
    let mut all = entries(live);
    let before: BTreeSet<Path> =
        all.iter().find(|entry| entry.is_same(&owner)).map(|entry| entry.paths.clone()).unwrap_or_default();
    all.retain(|entry| !entry.is_same(&owner));
    settle_conflicts(&mut all, &owner, live, applied, request.flag("force"))?;
    let mut object = live.clone();
    merge(&mut object, applied, &mut Vec::new(), schema_of(kind));
    for path in before.difference(&owner.paths) {
        let is_shared = all.iter().any(|entry| entry.paths.iter().any(|other| other.starts_with(path)));
        if !is_shared && !owner.paths.iter().any(|kept| kept.starts_with(path)) {
            remove(&mut object, path);
        }
    }
    // What has not changed keeps the time of its last change.
    if before == owner.paths && object == *live {
        return Ok(object);
    }
    all.push(owner);
    set_entries(&mut object, &all);
    Ok(object)
}

/// Fields that others own with another value: taken from them by force, or a conflict.
fn settle_conflicts(
    others: &mut [Entry],
    owner: &Entry,
    live: &Value,
    applied: &Value,
    force: bool,
) -> Result<(), Failure> {
    let mut conflicts = Vec::new();
    for other in others {
        let is_contested = |path: &Path| {
            let is_item = path.last().is_some_and(|segment| segment.starts_with("k:"));
            !is_item && owner.paths.contains(path) && find(live, path) != find(applied, path)
        };
        let contested: Vec<Path> = other.paths.iter().filter(|path| is_contested(path)).cloned().collect();
        for path in contested {
            if force {
                other.paths.remove(&path);
            } else {
                let subresource = match other.subresource.as_str() {
                    "" => String::new(),
                    name => format!(" with subresource \"{name}\""),
                };
                let manager = format!("{}{subresource}", other.manager);
                conflicts.push((manager, display(&path)));
            }
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(Failure::apply_conflict(&conflicts)) }
}

fn merge(live: &mut Value, applied: &Value, path: &mut Path, schema: Option<&Value>) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (key, value) in applied {
                let segment = format!("f:{key}");
                let below = if path.is_empty() && key == "metadata" { None } else { step(schema, &segment) };
                path.push(segment);
                merge(live.entry(key.clone()).or_insert(Value::Null), value, path, below);
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(applied)) => match list_kind(last_field(path), schema, applied) {
            ListKind::Atomic => live.clone_from(applied),
            ListKind::Set => {
                let new: Vec<Value> = applied.iter().filter(|item| !live.contains(item)).cloned().collect();
                live.extend(new);
            }
            ListKind::Map(keys) => {
                for item in applied {
                    let segment = item_segment(item, &keys);
                    match live.iter_mut().find(|other| item_segment(other, &keys) == segment) {
                        Some(existing) => {
                            path.push(segment);
                            merge(existing, item, path, step(schema, "k:"));
                            path.pop();
                        }
                        None => live.push(item.clone()),
                    }
                }
            }
        },
        (live, applied) => *live = applied.clone(),
    }
}

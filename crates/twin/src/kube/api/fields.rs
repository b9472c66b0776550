//! Field ownership: which manager has set which field, in the form of `metadata.managedFields` (`FieldsV1`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::{
    object::{list, set, text},
    types::{Custom, ResourceType},
};

/// A field: segments as `FieldsV1` writes them, `f:spec`, `k:{"name":"a"}`, `v:"b"`.
pub(super) type Path = Vec<String>;

/// Metadata that no manager owns.
const UNOWNED_METADATA: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// How the items of a list belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListKind {
    /// One value.
    Atomic,
    /// Different values.
    Set,
    /// Objects told apart by these fields.
    Map(Vec<String>),
}

/// The kind of a list in a field; of built-in types by the field's name (Kubernetes API reference).
pub(super) fn list_kind(field: &str, schema: Option<&Value>, items: &[Value]) -> ListKind {
    let by = |keys: &[&str]| ListKind::Map(keys.iter().map(|&key| key.to_owned()).collect());
    if let Some(schema) = schema {
        return match text(schema, "/x-kubernetes-list-type") {
            "set" => ListKind::Set,
            "map" => {
                let keys = list(schema, "/x-kubernetes-list-map-keys").iter().filter_map(Value::as_str);
                ListKind::Map(keys.map(str::to_owned).collect())
            }
            _ => ListKind::Atomic,
        };
    }
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "webhooks" => by(&["name"]),
        "volumeMounts" => by(&["mountPath"]),
        "ports" if items.iter().any(|item| item.get("containerPort").is_some()) => by(&["containerPort", "protocol"]),
        "ports" => by(&["port", "protocol"]),
        "conditions" | "addresses" => by(&["type"]),
        "ownerReferences" => by(&["uid"]),
        "hostAliases" => by(&["ip"]),
        "topologySpreadConstraints" => by(&["topologyKey", "whenUnsatisfiable"]),
        "finalizers" | "podCIDRs" => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

/// The schema of a field or of a list's items.
pub(super) fn step<'schema>(schema: Option<&'schema Value>, segment: &str) -> Option<&'schema Value> {
    let schema = schema?;
    match segment.strip_prefix("f:") {
        Some(field) => schema
            .get("properties")
            .and_then(|properties| properties.get(field))
            .or_else(|| schema.get("additionalProperties").filter(|each| each.is_object())),
        None => schema.get("items"),
    }
}

/// The schema of a custom resource, without that of its metadata, which is a built-in one.
pub(super) fn schema_of(kind: &ResourceType) -> Option<&Value> {
    kind.custom.as_ref().map(Custom::schema)
}

/// The segment of an item in a list of maps.
pub(super) fn item_segment(item: &Value, keys: &[String]) -> String {
    let identity: Map<String, Value> =
        keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone()))).collect();
    format!("k:{}", Value::Object(identity))
}

/// Every field that an object sets and that can have an owner.
pub(super) fn owned(kind: &ResourceType, object: &Value) -> BTreeSet<Path> {
    let mut paths = BTreeSet::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        let path = vec![format!("f:{key}")];
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !UNOWNED_METADATA.contains(&key.as_str()) {
                        collect(value, vec!["f:metadata".into(), format!("f:{key}")], None, &mut paths);
                    }
                }
            }
            _ => {
                let schema = step(schema_of(kind), &path[0]);
                collect(value, path, schema, &mut paths);
            }
        }
    }
    paths
}

fn collect(value: &Value, path: Path, schema: Option<&Value>, paths: &mut BTreeSet<Path>) {
    let deeper = |segment: String| path.iter().cloned().chain([segment]).collect::<Path>();
    match value {
        Value::Object(fields) if !fields.is_empty() && !is_atomic_map(schema) => {
            for (key, field) in fields {
                let segment = format!("f:{key}");
                collect(field, deeper(segment.clone()), step(schema, &segment), paths);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            match list_kind(last_field(&path), schema, items) {
                ListKind::Atomic => _ = paths.insert(path.clone()),
                ListKind::Set => paths.extend(items.iter().map(|item| deeper(format!("v:{item}")))),
                ListKind::Map(keys) => {
                    for item in items {
                        let at = deeper(item_segment(item, &keys));
                        paths.insert(at.clone());
                        collect(item, at, step(schema, "k:"), paths);
                    }
                }
            };
        }
        _ => _ = paths.insert(path),
    }
}

fn is_atomic_map(schema: Option<&Value>) -> bool {
    schema.is_some_and(|schema| schema["x-kubernetes-map-type"] == "atomic")
}

/// The name of the field that a path ends in.
pub(super) fn last_field(path: &[String]) -> &str {
    path.iter().rev().find_map(|segment| segment.strip_prefix("f:")).unwrap_or_default()
}

fn is_item(item: &Value, segment: &str) -> bool {
    if let Some(value) = segment.strip_prefix("v:") {
        return serde_json::from_str::<Value>(value).is_ok_and(|wanted| *item == wanted);
    }
    let identity: Value =
        segment.strip_prefix("k:").and_then(|keys| serde_json::from_str(keys).ok()).unwrap_or_default();
    identity.as_object().is_some_and(|keys| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
}

/// The value of a field.
pub(super) fn find<'object>(object: &'object Value, path: &[String]) -> Option<&'object Value> {
    path.iter().try_fold(object, |value, segment| match segment.strip_prefix("f:") {
        Some(field) => value.get(field),
        None => value.as_array()?.iter().find(|item| is_item(item, segment)),
    })
}

/// Takes a field away.
pub(super) fn remove(object: &mut Value, path: &[String]) {
    let Some((segment, rest)) = path.split_first() else { return };
    match (segment.strip_prefix("f:"), rest.is_empty()) {
        (Some(field), true) => _ = object.as_object_mut().and_then(|fields| fields.remove(field)),
        (Some(field), false) => {
            if let Some(field) = object.get_mut(field) {
                remove(field, rest);
            }
        }
        (None, last) => {
            let Some(items) = object.as_array_mut() else { return };
            if last {
                items.retain(|item| !is_item(item, segment));
            } else if let Some(item) = items.iter_mut().find(|item| is_item(item, segment)) {
                remove(item, rest);
            }
        }
    }
}

/// A field as people read it in a conflict: `.spec.release`, `.list[name="a"].b`.
pub(super) fn display(path: &[String]) -> String {
    path.iter()
        .map(|segment| match segment.split_at_checked(2) {
            Some(("f:", field)) => format!(".{field}"),
            Some(("k:", keys)) => {
                let keys: Value = serde_json::from_str(keys).unwrap_or_default();
                let keys = keys.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
                format!("[{}]", keys.collect::<Vec<_>>().join(","))
            }
            Some((_, value)) => format!("[={value}]"),
            None => segment.clone(),
        })
        .collect()
}

/// One manager's fields.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) manager: String,
    /// `Apply` or `Update`.
    pub(super) operation: String,
    pub(super) subresource: String,
    api_version: String,
    time: String,
    pub(super) paths: BTreeSet<Path>,
}

impl Entry {
    pub(super) fn new(manager: &str, operation: &str, subresource: &str, api_version: String, time: &str) -> Self {
        Self {
            manager: manager.into(),
            operation: operation.into(),
            subresource: subresource.into(),
            api_version,
            time: time.into(),
            paths: BTreeSet::new(),
        }
    }

    /// Whether both are the same manager doing the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.manager, &self.operation, &self.subresource) == (&other.manager, &other.operation, &other.subresource)
    }
}

/// Reads `metadata.managedFields`.
pub(super) fn entries(object: &Value) -> Vec<Entry> {
    list(object, "/metadata/managedFields")
        .iter()
        .map(|entry| {
            let mut paths = BTreeSet::new();
            read_tree(&entry["fieldsV1"], &mut Vec::new(), &mut paths);
            Entry {
                manager: text(entry, "/manager").into(),
                operation: text(entry, "/operation").into(),
                subresource: text(entry, "/subresource").into(),
                api_version: text(entry, "/apiVersion").into(),
                time: text(entry, "/time").into(),
                paths,
            }
        })
        .collect()
}

/// Writes `metadata.managedFields`; managers without fields are left out.
pub(super) fn set_entries(object: &mut Value, entries: &[Entry]) {
    let entries: Vec<Value> = entries
        .iter()
        .filter(|entry| !entry.paths.is_empty())
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": tree(&entry.paths),
            });
            if !entry.subresource.is_empty() {
                value["subresource"] = json!(entry.subresource);
            }
            value
        })
        .collect();
    set(object, &["metadata", "managedFields"], Value::Array(entries));
}

fn read_tree(tree: &Value, path: &mut Path, paths: &mut BTreeSet<Path>) {
    let Some(fields) = tree.as_object() else { return };
    if !path.is_empty() && (fields.is_empty() || fields.contains_key(".")) {
        paths.insert(path.clone());
    }
    for (segment, below) in fields.iter().filter(|(segment, _)| *segment != ".") {
        path.push(segment.clone());
        read_tree(below, path, paths);
        path.pop();
    }
}

fn tree(paths: &BTreeSet<Path>) -> Value {
    let mut root = json!({});
    // Sorted: a path comes before those below it, so that whoever comes to have something below gets its dot.
    for path in paths {
        let mut place = &mut root;
        for segment in path {
            let fields = super::super::object::fields(place);
            place = fields.entry(segment.clone()).or_insert_with(|| json!({}));
        }
    }
    for path in paths {
        let mut place = &mut root;
        for segment in path {
            place = &mut place[segment.as_str()];
        }
        if place.as_object().is_some_and(|below| !below.is_empty()) {
            place["."] = json!({});
        }
    }
    root
}

/// Records who changed what, for every write that is not an apply.
pub(super) fn track(kind: &ResourceType, before: Option<&Value>, after: &mut Value, mut writer: Entry) {
    let now_set = owned(kind, after);
    let differs = |path: &Path| match before.and_then(|before| find(before, path)) {
        None => true,
        Some(old) => {
            let is_item = path.last().is_some_and(|segment| segment.starts_with("k:"));
            !is_item && Some(old) != find(after, path)
        }
    };
    let changed: BTreeSet<Path> = now_set.iter().filter(|path| differs(path)).cloned().collect();
    let mut entries = entries(after);
    for entry in &mut entries {
        entry.paths.retain(|path| find(after, path).is_some() && !changed.contains(path));
    }
    match entries.iter_mut().find(|entry| entry.is_same(&writer)) {
        _ if changed.is_empty() => {}
        Some(entry) => {
            entry.paths.extend(changed);
            entry.time = writer.time;
        }
        None => {
            writer.paths = changed;
            entries.push(writer);
        }
    }
    set_entries(after, &entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_fields_survives_being_written_and_read() {
        let path = |segments: &[&str]| segments.iter().map(|&each| each.to_owned()).collect::<Path>();
        let paths = BTreeSet::from([
            path(&["f:spec", "f:release"]),
            path(&["f:spec", "f:list", "k:{\"name\":\"a\"}"]),
            path(&["f:spec", "f:list", "k:{\"name\":\"a\"}", "f:name"]),
        ]);
        let written = tree(&paths);
        assert_eq!(
            written,
            json!({"f:spec": {"f:release": {}, "f:list": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}}}}})
        );
        let mut read = BTreeSet::new();
        read_tree(&written, &mut Vec::new(), &mut read);
        assert_eq!(read, paths);
        let conflict = display(&path(&["f:spec", "f:list", "k:{\"name\":\"a\"}", "f:image"]));
        assert_eq!(conflict, ".spec.list[name=\"a\"].image");
    }
}

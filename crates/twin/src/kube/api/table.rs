//! Objects as rows for people: the `Table` form of an answer.

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::{
    object::{condition, list, name, text},
    types::ResourceType,
};

/// Name, type, priority (1 is shown with `-o wide` only).
type ColumnOf = (&'static str, &'static str, u8);

const NAME: ColumnOf = ("Name", "string", 0);
const AGE: ColumnOf = ("Age", "string", 0);

/// Objects as a table. `columns` says whether the definitions of the columns are wanted again.
pub(super) fn table(
    now_unix_seconds: i64,
    kind: &ResourceType,
    include: &str,
    items: &[&Value],
    metadata: Value,
    columns: bool,
) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|item| json!({"cells": cells(now_unix_seconds, kind, item), "object": included(include, item)}))
        .collect();
    let columns = if columns { definitions(kind) } else { Vec::new() };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn included(include: &str, item: &Value) -> Value {
    match include {
        "None" => Value::Null,
        "Object" => item.clone(),
        _ => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"],
        }),
    }
}

fn definitions(kind: &ResourceType) -> Vec<Value> {
    let definition = |name: &str, kind: &str, description: &str, priority: i64| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
    };
    let Some(custom) = &kind.custom else {
        let columns = built_in_columns(&kind.id).iter();
        return columns.map(|(name, kind, priority)| definition(name, kind, "", i64::from(*priority))).collect();
    };
    let mut columns = vec![definition("Name", "string", "", 0)];
    if custom.columns.is_empty() {
        columns.push(definition("Age", "date", "", 0));
    }
    let rest = custom.columns.iter();
    columns.extend(rest.map(|column| definition(&column.name, &column.kind, &column.description, column.priority)));
    columns
}

fn cells(now: i64, kind: &ResourceType, item: &Value) -> Vec<Value> {
    let Some(custom) = &kind.custom else { return built_in_cells(now, &kind.id, item) };
    let mut cells = vec![json!(name(item))];
    if custom.columns.is_empty() {
        cells.push(age(now, item));
    }
    for column in &custom.columns {
        let value = json_path(item, &column.json_path);
        cells.push(match (column.kind.as_str(), value) {
            ("date", value) => json!(value.and_then(Value::as_str).map_or("<unknown>".into(), |time| since(now, time))),
            (_, None) => Value::Null,
            ("string", Some(value @ (Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Array(_)))) => {
                json!(value.to_string())
            }
            (_, Some(value)) => value.clone(),
        });
    }
    cells
}

/// The value at a path as CRDs write them: `.a.b`, `.a['b']`, `.list[0]`, `.list[?(@.type=="Ready")].status`.
pub(super) fn json_path<'item>(item: &'item Value, path: &str) -> Option<&'item Value> {
    let mut rest = path.trim().trim_start_matches('$');
    let mut value = item;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = after.split_once(']')?;
            rest = after;
            value = match inside.strip_prefix("?(@.").and_then(|filter| filter.strip_suffix(')')) {
                Some(filter) => {
                    let (field, wanted) = filter.split_once("==")?;
                    let wanted = wanted.trim().trim_matches(['"', '\'']);
                    let pointer = format!("/{}", field.trim().replace('.', "/"));
                    value.as_array()?.iter().find(|each| text(each, &pointer) == wanted)?
                }
                None => match inside.parse::<usize>() {
                    Ok(index) => value.get(index)?,
                    Err(_) => value.get(inside.trim_matches(['"', '\'']))?,
                },
            };
        } else {
            let after = rest.strip_prefix('.')?;
            // A dot in a name is escaped, as in annotations.
            let mut key = String::new();
            let mut characters = after.char_indices().peekable();
            let mut end = after.len();
            while let Some((position, character)) = characters.next() {
                match character {
                    '\\' => key.extend(characters.next().map(|(_, escaped)| escaped)),
                    '.' | '[' => {
                        end = position;
                        break;
                    }
                    _ => key.push(character),
                }
            }
            rest = after.get(end..)?;
            if !key.is_empty() {
                value = value.get(&key)?;
            }
        }
    }
    Some(value)
}

fn built_in_columns(id: &str) -> &'static [ColumnOf] {
    match id {
        "nodes" => &[
            NAME,
            ("Status", "string", 0),
            ("Roles", "string", 0),
            AGE,
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ],
        "pods" => &[
            NAME,
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            AGE,
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
        "namespaces" => &[NAME, ("Status", "string", 0), AGE],
        "deployments.apps" => {
            &[NAME, ("Ready", "string", 0), ("Up-to-date", "string", 0), ("Available", "string", 0), AGE]
        }
        "replicasets.apps" => {
            &[NAME, ("Desired", "integer", 0), ("Current", "integer", 0), ("Ready", "integer", 0), AGE]
        }
        "statefulsets.apps" => &[NAME, ("Ready", "string", 0), AGE],
        "services" => &[
            NAME,
            ("Type", "string", 0),
            ("Cluster-IP", "string", 0),
            ("External-IP", "string", 0),
            ("Port(s)", "string", 0),
            AGE,
        ],
        "secrets" => &[NAME, ("Type", "string", 0), ("Data", "string", 0), AGE],
        "configmaps" => &[NAME, ("Data", "string", 0), AGE],
        "customresourcedefinitions.apiextensions.k8s.io" => &[NAME, ("Created At", "date", 0)],
        "events" => &[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Message", "string", 0),
            ("Name", "string", 1),
        ],
        "leases.coordination.k8s.io" => &[NAME, ("Holder", "string", 0), AGE],
        "storageclasses.storage.k8s.io" => &[NAME, ("Provisioner", "string", 0), AGE],
        _ => &[NAME, AGE],
    }
}

fn built_in_cells(now: i64, id: &str, item: &Value) -> Vec<Value> {
    let name = json!(name(item));
    let age = age(now, item);
    let or_none = |text: &str| json!(if text.is_empty() { "<none>" } else { text });
    let count = |pointer: &str| item.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let entries = |pointer: &str| item.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    match id {
        "nodes" => {
            let info = |key: &str| json!(text(item, &format!("/status/nodeInfo/{key}")));
            let version = info("kubeletVersion");
            let (os, kernel, runtime) = (info("osImage"), info("kernelVersion"), info("containerRuntimeVersion"));
            let internal = or_none(address(item, "InternalIP"));
            let external = or_none(address(item, "ExternalIP"));
            vec![
                name,
                json!(node_status(item)),
                json!(node_roles(item)),
                age,
                version,
                internal,
                external,
                os,
                kernel,
                runtime,
            ]
        }
        "pods" => {
            let ready = format!("{}/{}", ready_containers(item), list(item, "/spec/containers").len());
            let status =
                if super::super::object::is_terminating(item) { "Terminating" } else { text(item, "/status/phase") };
            let (ip, node) = (or_none(text(item, "/status/podIP")), or_none(text(item, "/spec/nodeName")));
            vec![name, json!(ready), json!(status), json!("0"), age, ip, node, json!("<none>"), json!("<none>")]
        }
        "namespaces" => vec![name, json!(text(item, "/status/phase")), age],
        "deployments.apps" => {
            let ready = format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"));
            vec![
                name,
                json!(ready),
                json!(count("/status/updatedReplicas")),
                json!(count("/status/availableReplicas")),
                age,
            ]
        }
        "replicasets.apps" => vec![
            name,
            json!(count("/spec/replicas")),
            json!(count("/status/replicas")),
            json!(count("/status/readyReplicas")),
            age,
        ],
        "statefulsets.apps" => {
            vec![name, json!(format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"))), age]
        }
        "services" => {
            let kind = text(item, "/spec/type");
            let ports: Vec<String> = list(item, "/spec/ports")
                .iter()
                .map(|port| format!("{}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP")))
                .collect();
            let cluster_ip = or_none(text(item, "/spec/clusterIP"));
            vec![name, json!(kind), cluster_ip, json!("<none>"), or_none(&ports.join(",")), age]
        }
        "secrets" => vec![name, json!(text(item, "/type")), json!(entries("/data").to_string()), age],
        "configmaps" => vec![name, json!((entries("/data") + entries("/binaryData")).to_string()), age],
        "customresourcedefinitions.apiextensions.k8s.io" => {
            vec![name, json!(text(item, "/metadata/creationTimestamp"))]
        }
        "events" => {
            let (involved, seen) = (&item["involvedObject"], text(item, "/lastTimestamp"));
            let object = format!("{}/{}", text(involved, "/kind").to_lowercase(), text(involved, "/name"));
            let (kind, reason) = (json!(text(item, "/type")), json!(text(item, "/reason")));
            vec![json!(since(now, seen)), kind, reason, json!(object), json!(text(item, "/message")), name]
        }
        "leases.coordination.k8s.io" => vec![name, json!(text(item, "/spec/holderIdentity")), age],
        "storageclasses.storage.k8s.io" => vec![name, json!(text(item, "/provisioner")), age],
        _ => vec![name, age],
    }
}

fn node_status(node: &Value) -> String {
    let ready = match condition(node, "Ready").map(|ready| text(ready, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if node["spec"]["unschedulable"] == true { format!("{ready},SchedulingDisabled") } else { ready.into() }
}

fn node_roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ => (key == "kubernetes.io/role").then(|| value.as_str().unwrap_or_default()),
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

fn address<'node>(node: &'node Value, kind: &str) -> &'node str {
    list(node, "/status/addresses")
        .iter()
        .find(|each| text(each, "/type") == kind)
        .map_or("", |each| text(each, "/address"))
}

fn ready_containers(pod: &Value) -> usize {
    list(pod, "/status/containerStatuses").iter().filter(|each| each["ready"] == true).count()
}

fn age(now: i64, item: &Value) -> Value {
    json!(since(now, text(item, "/metadata/creationTimestamp")))
}

fn since(now: i64, time: &str) -> String {
    match OffsetDateTime::parse(time, &Rfc3339) {
        Ok(time) => human_duration(now - time.unix_timestamp()),
        Err(_) => "<unknown>".into(),
    }
}

/// As kubectl shows ages: two units while the first is small (Kubernetes source, `duration.HumanDuration`).
fn human_duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_what_columns_show() {
        let item = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "Other", "status": "?"}, {"type": "Ready", "status": "True"}], "list": [1, 2]},
        });
        for (path, expected) in [
            (".status.conditions[?(@.type==\"Ready\")].status", Some(json!("True"))),
            (".status.conditions[?(@.type=='Ready')].status", Some(json!("True"))),
            (".status.conditions[?(@.type=='Gone')].status", None),
            (".status.list[1]", Some(json!(2))),
            (".metadata.annotations.a\\.b/c", Some(json!("x"))),
            (".metadata.annotations['a.b/c']", Some(json!("x"))),
            (".missing.field", None),
        ] {
            assert_eq!(json_path(&item, path).cloned(), expected, "{path}");
        }
    }

    #[test]
    fn ages_are_as_kubectl_shows_them() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (1100, "18m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
        ] {
            assert_eq!(human_duration(seconds), expected);
        }
    }
}

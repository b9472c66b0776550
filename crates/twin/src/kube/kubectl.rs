//! `k0s kubectl ARGUMENTS` on a machine: the few commands that scripts run there.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    ClusterId,
    api::{Caller, Reply, Request, handle},
    object::{list, name, namespace, text},
    types::ResourceType,
};
use crate::World;

/// Flags that take a value in the next argument.
const VALUED: [&str; 9] =
    ["-n", "--namespace", "-o", "--output", "--kubeconfig", "-l", "--selector", "--timeout", "--grace-period"];

/// What `k0s kubectl ARGUMENTS` prints: exit code, standard output, standard error.
pub fn kubectl(world: &mut World, cluster: ClusterId, arguments: &[String]) -> (u32, String, String) {
    let command = Command::parse(arguments);
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["get"] if command.flags.contains_key("--raw") => raw(world, cluster, command.flag("--raw")),
        ["get", kind, names @ ..] => get(world, cluster, &command, kind, names),
        ["delete", kind, names @ ..] if !names.is_empty() => delete(world, cluster, &command, kind, names),
        [verb @ ("cordon" | "uncordon"), nodes @ ..] if !nodes.is_empty() => {
            nodes.iter().map(|node| cordon(world, cluster, node, *verb == "cordon")).collect()
        }
        ["drain", nodes @ ..] if !nodes.is_empty() => nodes.iter().map(|node| drain(world, cluster, node)).collect(),
        [] => Err("error: a command is missing\n".into()),
        [unknown, ..] => Err(format!("error: unknown command \"{unknown}\" for \"kubectl\"\n")),
    };
    match outcome {
        Ok(output) => (0, output, String::new()),
        Err(error) => (1, String::new(), error),
    }
}

struct Command {
    words: Vec<String>,
    flags: BTreeMap<String, String>,
}

impl Command {
    fn parse(arguments: &[String]) -> Self {
        let mut command = Self { words: Vec::new(), flags: BTreeMap::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if !argument.starts_with('-') {
                command.words.push(argument.clone());
            } else if let Some((flag, value)) = argument.split_once('=') {
                command.flags.insert(flag.into(), value.into());
            } else if VALUED.contains(&argument.as_str()) || argument == "--raw" {
                command.flags.insert(argument.clone(), rest.next().cloned().unwrap_or_default());
            } else if let Some(form) = argument.strip_prefix("-o") {
                command.flags.insert("-o".into(), form.into());
            } else {
                command.flags.insert(argument.clone(), "true".into());
            }
        }
        // `kind/name` is the same as `kind name`.
        if let Some((kind, name)) = command.words.get(1).and_then(|word| word.split_once('/')) {
            let (kind, name) = (kind.to_owned(), name.to_owned());
            if command.words.first().is_some_and(|verb| verb == "get" || verb == "delete") {
                command.words.splice(1..2, [kind, name]);
            }
        }
        command
    }

    fn flag(&self, name: &str) -> &str {
        self.flags.get(name).map_or("", String::as_str)
    }

    fn either(&self, short: &str, long: &str) -> &str {
        if self.flag(short).is_empty() { self.flag(long) } else { self.flag(short) }
    }

    fn namespace(&self) -> &str {
        match self.either("-n", "--namespace") {
            "" => "default",
            namespace => namespace,
        }
    }
}

fn ask(world: &mut World, cluster: ClusterId, method: &str, path: &str, accept: &str, body: &Value) -> Reply {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut request = Request::of(Caller::Administrator, method, path, query, body);
    request.accept = accept.into();
    request.user_agent = "kubectl".into();
    if method == "PATCH" {
        request.content_type = "application/merge-patch+json".into();
    }
    handle(world, cluster, &request)
}

/// The body of a successful answer; otherwise what kubectl prints.
fn accepted(reply: &Reply) -> Result<Value, String> {
    let body: Value = serde_json::from_str(&reply.body_text()).unwrap_or_default();
    if reply.code < 400 {
        return Ok(body);
    }
    let (reason, message) = (text(&body, "/reason"), text(&body, "/message"));
    Err(format!("Error from server ({reason}): {message}\n"))
}

fn raw(world: &mut World, cluster: ClusterId, path: &str) -> Result<String, String> {
    let reply = ask(world, cluster, "GET", path, "", &Value::Null);
    if reply.code < 400 {
        return Ok(reply.body_text());
    }
    accepted(&reply).map(|_| String::new())
}

fn kind_of(world: &World, cluster: ClusterId, called: &str) -> Result<std::sync::Arc<ResourceType>, String> {
    let cluster =
        world.clusters.by_id.get(&cluster).ok_or(
            "The connection to the server localhost:6443 was refused - did you specify the right host or port?\n",
        )?;
    let found = cluster.types.by_name(called);
    found.ok_or_else(|| format!("error: the server doesn't have a resource type \"{called}\"\n"))
}

fn path_of(kind: &ResourceType, namespace: Option<&str>, name: Option<&str>) -> String {
    let root = if kind.group.is_empty() { "/api" } else { "/apis" };
    let space = match namespace {
        Some(namespace) if kind.namespaced => format!("/namespaces/{namespace}"),
        _ => String::new(),
    };
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("{root}/{}{space}/{}{name}", kind.api_version(), kind.plural)
}

fn get(
    world: &mut World,
    cluster: ClusterId,
    command: &Command,
    called: &str,
    names: &[&str],
) -> Result<String, String> {
    let kind = kind_of(world, cluster, called)?;
    let everywhere = command.flags.contains_key("-A") || command.flags.contains_key("--all-namespaces");
    let space = (!everywhere).then(|| command.namespace());
    let mut path = path_of(&kind, space, names.first().copied());
    let labels = command.either("-l", "--selector");
    if !labels.is_empty() {
        let encoded = percent_encoding::utf8_percent_encode(labels, percent_encoding::NON_ALPHANUMERIC);
        path = format!("{path}?labelSelector={encoded}");
    }
    let form = command.either("-o", "--output");
    let accept = if matches!(form, "" | "wide") { "application/json;as=Table;v=v1;g=meta.k8s.io" } else { "" };
    let reply = ask(world, cluster, "GET", &path, accept, &Value::Null);
    let body = match accepted(&reply) {
        Err(_) if reply.code == 404 && command.flags.contains_key("--ignore-not-found") => return Ok(String::new()),
        body => body?,
    };
    match form {
        "" | "wide" => {
            let with_namespace = everywhere && kind.namespaced;
            let table = print_table(&body, form == "wide", command.flags.contains_key("--no-headers"), with_namespace);
            if list(&body, "/rows").is_empty() {
                return Ok(String::new());
            }
            Ok(table)
        }
        "json" => Ok(format!("{}\n", serde_json::to_string_pretty(&body).unwrap_or_default())),
        "name" => {
            let items = if body.get("items").is_some() { list(&body, "/items").to_vec() } else { vec![body] };
            let qualified =
                if kind.group.is_empty() { kind.singular.clone() } else { format!("{}.{}", kind.singular, kind.group) };
            Ok(items.iter().map(|item| format!("{qualified}/{}\n", name(item))).collect())
        }
        other => Err(format!("error: unable to match a printer suitable for the output format \"{other}\"\n")),
    }
}

fn print_table(table: &Value, wide: bool, no_headers: bool, with_namespace: bool) -> String {
    let columns = list(table, "/columnDefinitions");
    let shown: Vec<usize> =
        (0..columns.len()).filter(|&index| wide || columns[index]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let mut lines: Vec<Vec<String>> = Vec::new();
    if !no_headers {
        let mut header: Vec<String> =
            shown.iter().map(|&index| text(&columns[index], "/name").to_uppercase()).collect();
        if with_namespace {
            header.insert(0, "NAMESPACE".into());
        }
        lines.push(header);
    }
    for row in list(table, "/rows") {
        let mut line: Vec<String> = shown.iter().map(|&index| cell(&row["cells"][index])).collect();
        if with_namespace {
            line.insert(0, namespace(&row["object"]).to_owned());
        }
        lines.push(line);
    }
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|index| lines.iter().filter_map(|line| line.get(index)).map(String::len).max().unwrap_or(0))
        .collect();
    let print = |line: &Vec<String>| {
        let padded: String =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   ", width = *width)).collect();
        format!("{}\n", padded.trim_end())
    };
    lines.iter().map(print).collect()
}

fn delete(
    world: &mut World,
    cluster: ClusterId,
    command: &Command,
    called: &str,
    names: &[&str],
) -> Result<String, String> {
    let kind = kind_of(world, cluster, called)?;
    let mut output = String::new();
    for each in names {
        let path = path_of(&kind, Some(command.namespace()), Some(each));
        let reply = ask(world, cluster, "DELETE", &path, "", &Value::Null);
        if reply.code == 404 && command.flags.contains_key("--ignore-not-found") {
            continue;
        }
        accepted(&reply)?;
        let qualified =
            if kind.group.is_empty() { kind.singular.clone() } else { format!("{}.{}", kind.singular, kind.group) };
        output += &format!("{qualified} \"{each}\" deleted\n");
    }
    Ok(output)
}

fn cordon(world: &mut World, cluster: ClusterId, node: &str, unschedulable: bool) -> Result<String, String> {
    let patch = json!({"spec": {"unschedulable": if unschedulable { json!(true) } else { Value::Null }}});
    accepted(&ask(world, cluster, "PATCH", &format!("/api/v1/nodes/{node}"), "", &patch))?;
    Ok(format!("node/{node} {}\n", if unschedulable { "cordoned" } else { "uncordoned" }))
}

fn drain(world: &mut World, cluster: ClusterId, node: &str) -> Result<String, String> {
    let mut output = cordon(world, cluster, node, true)?;
    let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
    let pods = accepted(&ask(world, cluster, "GET", &path, "", &Value::Null))?;
    // What mirrors a static pod is passed over (kubectl source, `drain`).
    let is_mirror = |pod: &&Value| pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    for pod in list(&pods, "/items").iter().filter(|pod| !is_mirror(pod)) {
        let (space, pod_name) = (namespace(pod), name(pod));
        let path = format!("/api/v1/namespaces/{space}/pods/{pod_name}/eviction");
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod_name, "namespace": space},
        });
        accepted(&ask(world, cluster, "POST", &path, "", &eviction))?;
        output += &format!("evicting pod {space}/{pod_name}\npod/{pod_name} evicted\n");
    }
    Ok(output + &format!("node/{node} drained\n"))
}

//! What the server is and what it serves: versions, health, discovery, OpenAPI.

use serde_json::{Map, Value, json};

use super::{
    super::{cluster::Cluster, types::ResourceType},
    request::{Reply, Request},
};

const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

pub(super) fn answer(cluster: &Cluster, request: &Request) -> Reply {
    match request.path.trim_end_matches('/') {
        "/readyz" | "/livez" | "/healthz" => Reply::text(200, &health(request)),
        "/version" => Reply::json(200, &version(&cluster.spec.k0s_version)),
        "/api" => Reply::json(
            200,
            &json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
            }),
        ),
        "/apis" => Reply::json(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(cluster)})),
        "" => Reply::json(200, &json!({"paths": paths(cluster)})),
        "/openapi/v2" => open_api_v2(request),
        "/openapi/v3" => Reply::json(200, &open_api_v3_index(cluster)),
        path => {
            if let Some(name) = path.strip_prefix("/apis/") {
                let group = groups(cluster).into_iter().find(|group| group["name"] == name);
                return group.map_or_else(Reply::not_served, |group| Reply::json(200, &group));
            }
            path.strip_prefix("/openapi/v3/")
                .and_then(|rest| open_api_v3(cluster, rest))
                .map_or_else(Reply::not_served, |document| Reply::json(200, &document))
        }
    }
}

fn health(request: &Request) -> String {
    if !request.query.contains_key("verbose") {
        return "ok".into();
    }
    let checks = ["ping", "log", "etcd", "informer-sync", "poststarthook/start-apiextensions-controllers"];
    let lines: Vec<String> = checks.iter().map(|check| format!("[+]{check} ok")).collect();
    format!("{}\n{} check passed\n", lines.join("\n"), request.path.trim_matches('/'))
}

/// The answer of `/version`. The Kubernetes version is the k0s version without the number of the k0s build.
fn version(k0s_version: &str) -> Value {
    let kubernetes = super::super::kubernetes_version(k0s_version);
    let mut parts = kubernetes.trim_start_matches('v').split('.');
    json!({
        "major": parts.next().unwrap_or_default(), "minor": parts.next().unwrap_or_default(),
        "gitVersion": kubernetes, "gitCommit": "", "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
    })
}

fn groups(cluster: &Cluster) -> Vec<Value> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (group, version) in cluster.types.versions().into_iter().filter(|(group, _)| !group.is_empty()) {
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    let describe = |(group, versions): (String, Vec<String>)| {
        let versions: Vec<Value> = versions
            .iter()
            .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
            .collect();
        json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": group,
            "preferredVersion": versions.first(), "versions": versions,
        })
    };
    groups.into_iter().map(describe).collect()
}

fn paths(cluster: &Cluster) -> Vec<String> {
    let mut paths: Vec<String> =
        cluster.types.versions().iter().map(|(group, version)| format!("/{}", api_path(group, version))).collect();
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths
}

fn api_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn types_of<'cluster>(
    cluster: &'cluster Cluster,
    group: &str,
    version: &str,
) -> impl Iterator<Item = &'cluster ResourceType> {
    let (group, version) = (group.to_owned(), version.to_owned());
    cluster.types.iter().map(AsRef::as_ref).filter(move |each| each.group == group && each.version == version)
}

/// The resources of one version of a group.
pub(super) fn api(cluster: &Cluster, group: &str, version: &str) -> Reply {
    let resources: Vec<Value> = types_of(cluster, group, version).flat_map(resources).collect();
    if resources.is_empty() {
        return Reply::not_served();
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Reply::json(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

fn resources(kind: &ResourceType) -> Vec<Value> {
    let mut entry = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": ALL_VERBS,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let mut entries = vec![entry];
    let subresource = |name: &str, of: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
            "kind": of, "verbs": verbs,
        })
    };
    if kind.has_status {
        entries.push(subresource("status", &kind.kind, &["get", "patch", "update"]));
    }
    match kind.id.as_str() {
        "pods" => {
            let mut eviction = subresource("eviction", "Eviction", &["create"]);
            (eviction["group"], eviction["version"]) = (json!("policy"), json!("v1"));
            entries.extend([eviction, subresource("log", "Pod", &["get"])]);
        }
        "namespaces" => entries.push(subresource("finalize", "Namespace", &["update"])),
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" => {
            let mut scale = subresource("scale", "Scale", &["get", "patch", "update"]);
            (scale["group"], scale["version"]) = (json!("autoscaling"), json!("v1"));
            entries.push(scale);
        }
        _ => {}
    }
    entries
}

/// Clients that ask for protocol buffers get the smallest valid document (`swagger: "2.0"`), the others the same in JSON.
fn open_api_v2(request: &Request) -> Reply {
    if request.accept.contains("openapi.spec.v2") {
        let document = b"\x0a\x032.0\x12\x14\x0a\x0aKubernetes\x12\x06v1.0.0".to_vec();
        return Reply::raw(200, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", document);
    }
    let document = json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.0.0"}, "paths": {}});
    Reply::json(200, &document)
}

fn open_api_v3_index(cluster: &Cluster) -> Value {
    let paths: Map<String, Value> = cluster
        .types
        .versions()
        .iter()
        .map(|(group, version)| {
            let path = api_path(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", cluster.store.revision);
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// What kubectl looks for: that writes take `fieldValidation`, and the schemas of custom resources (for `explain`).
fn open_api_v3(cluster: &Cluster, rest: &str) -> Option<Value> {
    let (group, version) = match rest.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => (String::new(), (*version).to_owned()),
        ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
        _ => return None,
    };
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in types_of(cluster, &group, &version) {
        let identity = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
        let prefix = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{prefix}{}/{{name}}", api_path(&group, &version), kind.plural);
        paths.insert(path, operations(kind));
        let mut schema =
            kind.custom.as_ref().map_or_else(|| json!({"type": "object"}), |custom| custom.schema().clone());
        schema["x-kubernetes-group-version-kind"] = identity;
        let reversed: Vec<&str> = group.split('.').rev().collect();
        schemas.insert(format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind), schema);
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.0.0"},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

fn operations(kind: &ResourceType) -> Value {
    let identity = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters = ["dryRun", "fieldManager", "fieldValidation"].map(parameter);
    let media = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    let content: Map<String, Value> =
        media.iter().map(|&each| (each.to_owned(), json!({"schema": {"type": "object"}}))).collect();
    let operation = |action: &str| {
        json!({
            "parameters": parameters, "requestBody": {"content": content, "required": true},
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": identity,
        })
    };
    json!({
        "get": {"responses": {"200": {"description": "OK"}}, "x-kubernetes-action": "get",
            "x-kubernetes-group-version-kind": identity},
        "put": operation("put"), "patch": operation("patch"),
    })
}

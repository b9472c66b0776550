//! Reading: one object, lists with pages, watches.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    super::{cluster::Cluster, failure::Failure, object::text, selector::Selector, store::key_of, types::ResourceType},
    request::{Reply, Request, continue_token, parse_continue_token},
    table,
    watch::Stream,
};

/// A list as it is sent; the items are never copied.
#[derive(Serialize)]
struct List<'list> {
    kind: &'list str,
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: Value,
    items: Vec<&'list Value>,
}

pub(super) fn get(
    cluster: &Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<Reply, Failure> {
    let object = cluster.store.get(&kind.id, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    Ok(one(cluster, request, kind, 200, &object))
}

/// An answer that is one object, as a table if the client wants that.
pub(super) fn one(cluster: &Cluster, request: &Request, kind: &ResourceType, code: u16, object: &Arc<Value>) -> Reply {
    let object = in_version(kind, object);
    if request.wants_table() {
        let metadata = json!({"resourceVersion": text(&object, "/metadata/resourceVersion")});
        return Reply::json(
            code,
            &table::table(
                cluster.unix_seconds,
                kind,
                request.parameter("includeObject"),
                &[object.as_ref()],
                metadata,
                true,
            ),
        );
    }
    Reply::json(code, &object)
}

/// The object in the version that was asked for: versions differ in nothing but their name here.
pub(super) fn in_version(kind: &ResourceType, object: &Arc<Value>) -> Arc<Value> {
    let api_version = kind.api_version();
    if text(object, "/apiVersion") == api_version {
        return object.clone();
    }
    let mut converted = (**object).clone();
    converted["apiVersion"] = json!(api_version);
    Arc::new(converted)
}

pub(super) fn selector(request: &Request, kind: &ResourceType, namespace: Option<&str>) -> Result<Selector, Failure> {
    let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
    Selector::parse(namespace, labels, fields, kind.custom.is_some())
}

pub(super) fn list(
    cluster: &Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: Option<&str>,
) -> Result<Reply, Failure> {
    let selector = selector(request, kind, namespace)?;
    let start = match request.parameter("continue") {
        "" => None,
        token => {
            let start = parse_continue_token(token);
            Some(start.ok_or_else(|| Failure::bad_request("continue key is not valid: illegal base64 data"))?)
        }
    };
    let limit = request.parameter("limit").parse().ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let mut found = cluster.store.select(&kind.id, &selector, start).map(|(_, object)| object);
    let page: Vec<Arc<Value>> = found.by_ref().take(limit).map(|object| in_version(kind, object)).collect();
    let remaining = found.count();
    let mut metadata = json!({"resourceVersion": cluster.store.revision.to_string()});
    if let Some(last) = page.last().filter(|_| remaining > 0) {
        metadata["continue"] = json!(continue_token(&key_of(last)));
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items: Vec<&Value> = page.iter().map(Arc::as_ref).collect();
    if request.wants_table() {
        let table =
            table::table(cluster.unix_seconds, kind, request.parameter("includeObject"), &items, metadata, true);
        return Ok(Reply::json(200, &table));
    }
    let list = List { kind: &kind.list_kind, api_version: kind.api_version(), metadata, items };
    let body = serde_json::to_vec(&list).unwrap_or_default();
    Ok(Reply::raw(200, "application/json", body))
}

pub(super) fn watch(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: Option<&str>,
) -> Result<Reply, Failure> {
    let selector = selector(request, kind, namespace)?;
    let since = match request.parameter("resourceVersion") {
        "" | "0" => None,
        revision => Some(revision.parse().map_err(|_| {
            Failure::bad_request(format!("Invalid value: \"{revision}\": must be a non-negative integer"))
        })?),
    };
    // With `sendInitialEvents`, the revision is only a lower bound of what the initial state must contain.
    let initial = request.flag("sendInitialEvents");
    let since = if initial { None } else { since };
    let stream = match cluster.store.watch(&kind.id, selector, since) {
        Ok(watch) => Stream::new(request, kind, watch, initial, cluster.unix_seconds),
        Err(oldest) => Stream::failed(&Failure::expired(since.unwrap_or_default(), oldest)),
    };
    Ok(Reply::watch(stream))
}

pub(super) fn scale(cluster: &Cluster, kind: &ResourceType, namespace: &str, name: &str) -> Result<Reply, Failure> {
    let object = cluster.store.get(&kind.id, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    match scale_of(&object) {
        Some(scale) => Ok(Reply::json(200, &scale)),
        None => Ok(Reply::not_served()),
    }
}

/// The Scale of a workload; nothing else has one.
pub(super) fn scale_of(object: &Value) -> Option<Value> {
    matches!(text(object, "/kind"), "Deployment" | "ReplicaSet" | "StatefulSet").then(|| {
        json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
                "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"],
            },
            "spec": {"replicas": object["spec"]["replicas"]},
            "status": {"replicas": object["status"]["replicas"].as_u64().unwrap_or(0)},
        })
    })
}

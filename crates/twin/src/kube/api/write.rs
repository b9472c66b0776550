//! Writing: create, replace, patch, delete, and the subresources that write.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        cluster::{Cluster, Deletion},
        failure::{Cause, Failure},
        object::{fields as fields_of, is_terminating, list, name, namespace, set, text, unset},
        store::key_of,
        types::ResourceType,
    },
    admission::{admit, admit_deletion},
    apply::apply,
    fields::{Entry, entries, set_entries, track},
    patch::{json_merge, json_patch, strategic_merge},
    read,
    request::{Reply, Request},
};

pub(super) fn create(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
) -> Result<Reply, Failure> {
    if kind.namespaced && namespace.is_empty() {
        return Err(Failure::method_not_allowed());
    }
    let mut object = request.object()?;
    check_identity(kind, &object)?;
    place(kind, &mut object, namespace)?;
    check_namespace(cluster, kind, &object)?;
    if name(&object).is_empty() {
        let prefix = text(&object, "/metadata/generateName").to_owned();
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name");
            let cause = Cause { message: "Required value: name or generateName is required".into(), ..cause };
            return Err(Failure::invalid(kind, "", &[cause]));
        }
        let generated = format!("{prefix}{}", cluster.name_suffix());
        set(&mut object, &["metadata", "name"], json!(generated));
    }
    unset(&mut object, &["metadata", "managedFields"]);
    add(cluster, request, kind, object, true)
}

/// Admits and writes a new object.
fn add(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    mut object: Value,
    is_update: bool,
) -> Result<Reply, Failure> {
    if cluster.store.get(&kind.id, namespace(&object), name(&object)).is_some() {
        return Err(Failure::already_exists(kind, name(&object)));
    }
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
        unset(&mut object, &["metadata", field]);
    }
    // A kubelet brings its node's first status along; all other status is written apart.
    if kind.has_status && kind.id != "nodes" {
        unset(&mut object, &["status"]);
    }
    if kind.id == "pods" {
        set(&mut object, &["status"], json!({"phase": "Pending"}));
    }
    let warnings = admit(request, kind, &mut object)?;
    if is_update {
        let writer = Entry::new(&request.manager(), "Update", "", kind.api_version(), &cluster.now);
        track(kind, None, &mut object, writer);
    }
    let object = if request.is_dry_run() {
        set(&mut object, &["metadata", "creationTimestamp"], json!(cluster.now));
        set(&mut object, &["metadata", "uid"], json!("00000000-0000-0000-0000-000000000000"));
        Arc::new(object)
    } else {
        cluster.create(kind, object)
    };
    let mut reply = read::one(cluster, request, kind, 201, &object);
    reply.warnings = warnings;
    Ok(reply)
}

pub(super) fn replace(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
    subresource: &str,
) -> Result<Reply, Failure> {
    let mut object = request.object()?;
    check_identity(kind, &object)?;
    place(kind, &mut object, namespace)?;
    check_name(&mut object, name)?;
    let before = cluster.store.get(&kind.id, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    if kind.custom.is_some() && text(&object, "/metadata/resourceVersion").is_empty() {
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(Failure::invalid(kind, name, &[cause]));
    }
    if object.pointer("/metadata/managedFields").is_none() {
        set_entries(&mut object, &entries(&before));
    }
    write(cluster, request, kind, subresource, &before, object)
}

pub(super) fn patch(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
    subresource: &str,
) -> Result<Reply, Failure> {
    let patch = request.document()?;
    let before = cluster.store.get(&kind.id, namespace, name);
    if request.media_type().starts_with("application/apply-patch") {
        return server_side_apply(cluster, request, kind, (namespace, name, subresource), before, patch);
    }
    let before = before.ok_or_else(|| Failure::not_found(kind, name))?;
    let mut object = (*before).clone();
    match request.media_type() {
        "application/json-patch+json" => json_patch(&mut object, &patch)?,
        "application/merge-patch+json" => json_merge(&mut object, &patch),
        "application/strategic-merge-patch+json" if kind.custom.is_none() => strategic_merge(&mut object, &patch),
        other => return Err(Failure::unsupported_media(other)),
    }
    check_identity(kind, &object)?;
    check_name(&mut object, name)?;
    write(cluster, request, kind, subresource, &before, object)
}

fn server_side_apply(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    (namespace, name, subresource): (&str, &str, &str),
    before: Option<Arc<Value>>,
    mut applied: Value,
) -> Result<Reply, Failure> {
    check_identity(kind, &applied)?;
    place(kind, &mut applied, namespace)?;
    check_name(&mut applied, name)?;
    if kind.has_status {
        match subresource {
            "status" => fields_of(&mut applied)
                .retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status")),
            _ => _ = unset(&mut applied, &["status"]),
        }
    }
    let object = apply(cluster, request, kind, subresource, before.as_deref(), &applied)?;
    match before {
        Some(before) => write(cluster, request, kind, subresource, &before, object),
        None if subresource.is_empty() => {
            check_namespace(cluster, kind, &object)?;
            add(cluster, request, kind, object, false)
        }
        None => Err(Failure::not_found(kind, name)),
    }
}

/// Admits and writes a changed object.
fn write(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    subresource: &str,
    before: &Arc<Value>,
    mut object: Value,
) -> Result<Reply, Failure> {
    check_preconditions(kind, before, &object["metadata"])?;
    if kind.has_status {
        object = keep_apart(subresource, before, object);
    }
    let warnings = admit(request, kind, &mut object)?;
    let is_apply = request.media_type().starts_with("application/apply-patch");
    if !is_apply && differs(before, &object) {
        let writer = Entry::new(&request.manager(), "Update", subresource, kind.api_version(), &cluster.now);
        track(kind, Some(before), &mut object, writer);
    }
    let object = if request.is_dry_run() { Arc::new(object) } else { cluster.update(kind, object) };
    let mut reply = read::one(cluster, request, kind, 200, &object);
    reply.warnings = warnings;
    Ok(reply)
}

/// What is wanted and what is reported are written apart from each other.
fn keep_apart(subresource: &str, before: &Value, mut object: Value) -> Value {
    if subresource == "status" {
        let mut kept = before.clone();
        match unset(&mut object, &["status"]) {
            Some(status) => set(&mut kept, &["status"], status),
            None => _ = unset(&mut kept, &["status"]),
        }
        kept["metadata"]["managedFields"] = object["metadata"]["managedFields"].clone();
        return kept;
    }
    match before.get("status") {
        Some(status) => set(&mut object, &["status"], status.clone()),
        None => _ = unset(&mut object, &["status"]),
    }
    object
}

fn differs(before: &Value, after: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        unset(&mut object, &["metadata", "managedFields"]);
        object
    };
    bare(before) != bare(after)
}

/// The API version and kind in the data are those of the path.
fn check_identity(kind: &ResourceType, object: &Value) -> Result<(), Failure> {
    let (wanted, found) = (kind.api_version(), text(object, "/apiVersion"));
    if found != wanted {
        let message =
            format!("the API version in the data ({found}) does not match the expected API version ({wanted})");
        return Err(Failure::bad_request(message));
    }
    if text(object, "/kind") != kind.kind {
        let message = format!(
            "{} in version \"{}\" cannot be handled as a {}: no kind \"{}\" is registered",
            text(object, "/kind"),
            kind.version,
            kind.kind,
            text(object, "/kind")
        );
        return Err(Failure::bad_request(message));
    }
    Ok(())
}

/// The namespace in the data is that of the path.
fn place(kind: &ResourceType, object: &mut Value, wanted: &str) -> Result<(), Failure> {
    if !kind.namespaced {
        unset(object, &["metadata", "namespace"]);
        return Ok(());
    }
    if !namespace(object).is_empty() && namespace(object) != wanted {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set(object, &["metadata", "namespace"], json!(wanted));
    Ok(())
}

fn check_name(object: &mut Value, wanted: &str) -> Result<(), Failure> {
    if name(object).is_empty() {
        set(object, &["metadata", "name"], json!(wanted));
    }
    if name(object) == wanted {
        return Ok(());
    }
    let message = format!("the name of the object ({}) does not match the name on the URL ({wanted})", name(object));
    Err(Failure::bad_request(message))
}

fn check_namespace(cluster: &Cluster, kind: &ResourceType, object: &Value) -> Result<(), Failure> {
    let wanted = namespace(object);
    if !kind.namespaced {
        return Ok(());
    }
    match cluster.namespace_accepts(wanted) {
        Some(true) => Ok(()),
        Some(false) => {
            let why = format!("unable to create new content in namespace {wanted} because it is being terminated");
            Err(Failure::forbidden(kind, name(object), &why))
        }
        None => Err(match cluster.types.by_id("namespaces") {
            Some(namespaces) => Failure::not_found(&namespaces, wanted),
            None => Failure::unavailable(),
        }),
    }
}

/// `uid` and `resourceVersion`, where the client gives them, are those of what exists.
fn check_preconditions(kind: &ResourceType, before: &Value, wanted: &Value) -> Result<(), Failure> {
    let (uid, revision) = (text(wanted, "/uid"), text(wanted, "/resourceVersion"));
    let found = text(before, "/metadata/uid");
    if !uid.is_empty() && uid != found {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Failure::conflict(kind, name(before), &why));
    }
    if !revision.is_empty() && revision != text(before, "/metadata/resourceVersion") {
        return Err(Failure::modified(kind, name(before)));
    }
    Ok(())
}

/// The options of a deletion are in its body, where there is one.
fn deletion_options(request: &Request) -> Result<Value, Failure> {
    if request.body.is_empty() { Ok(json!({})) } else { request.document() }
}

fn is_dry(request: &Request, options: &Value) -> bool {
    request.is_dry_run() || list(options, "/dryRun").iter().any(|each| each == "All")
}

pub(super) fn delete(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<Reply, Failure> {
    let options = deletion_options(request)?;
    let before = cluster.store.get(&kind.id, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    check_preconditions(kind, &before, &options["preconditions"])?;
    admit_deletion(cluster, kind, &before)?;
    if is_dry(request, &options) {
        return Ok(deleted(kind, &before));
    }
    Ok(match cluster.delete(kind, &key_of(&before)) {
        // Pods are answered as they were last, as graceful deletion does.
        Some(Deletion::Gone(object)) if kind.id == "pods" => Reply::json(200, &object),
        Some(Deletion::Gone(object)) => deleted(kind, &object),
        Some(Deletion::Held(object)) => Reply::json(200, &read::in_version(kind, &object)),
        None => return Err(Failure::not_found(kind, name)),
    })
}

fn deleted(kind: &ResourceType, object: &Value) -> Reply {
    let mut details = json!({"name": name(object), "kind": kind.plural, "uid": object["metadata"]["uid"]});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Reply::json(200, &status)
}

pub(super) fn delete_collection(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: Option<&str>,
) -> Result<Reply, Failure> {
    if kind.namespaced && namespace.is_none() || kind.id == "namespaces" {
        return Err(Failure::method_not_allowed());
    }
    let options = deletion_options(request)?;
    let selector = read::selector(request, kind, namespace)?;
    let meant: Vec<Arc<Value>> =
        cluster.store.select(&kind.id, &selector, None).map(|(_, object)| object.clone()).collect();
    for object in &meant {
        admit_deletion(cluster, kind, object)?;
    }
    if !is_dry(request, &options) {
        for object in &meant {
            cluster.delete(kind, &key_of(object));
        }
    }
    let metadata = json!({"resourceVersion": cluster.store.revision.to_string()});
    let items: Vec<Value> = meant.iter().map(|object| (**object).clone()).collect();
    let list = json!({"kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": items});
    Ok(Reply::json(200, &list))
}

pub(super) fn evict(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<Reply, Failure> {
    let pod = cluster.store.get(&kind.id, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    let options = request.document()?["deleteOptions"].clone();
    check_preconditions(kind, &pod, &options["preconditions"])?;
    if !is_dry(request, &options) {
        cluster.delete(kind, &key_of(&pod));
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Reply::json(201, &status))
}

pub(super) fn scale(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: &str,
    name: &str,
) -> Result<Reply, Failure> {
    let before = cluster.store.get(&kind.id, namespace, name).ok_or_else(|| Failure::not_found(kind, name))?;
    let Some(mut scale) = read::scale_of(&before) else { return Ok(Reply::not_served()) };
    json_merge(&mut scale, &request.document()?);
    check_preconditions(kind, &before, &scale["metadata"])?;
    let mut object = (*before).clone();
    set(&mut object, &["spec", "replicas"], scale["spec"]["replicas"].clone());
    if !request.is_dry_run() {
        object = (*cluster.update(kind, object)).clone();
    }
    Ok(Reply::json(200, &read::scale_of(&object).unwrap_or_default()))
}

/// Takes the last hold off a namespace that is on its way out.
pub(super) fn finalize(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    name: &str,
) -> Result<Reply, Failure> {
    let before = cluster.store.get(&kind.id, "", name).ok_or_else(|| Failure::not_found(kind, name))?;
    let finalizers = request.object()?["spec"]["finalizers"].clone();
    let mut object = (*before).clone();
    set(&mut object, &["spec", "finalizers"], finalizers);
    let is_last = is_terminating(&object) && list(&object, "/spec/finalizers").is_empty();
    let object = cluster.update(kind, object);
    if is_last {
        cluster.remove(&kind.id, &key_of(&object));
    }
    Ok(Reply::json(200, &object))
}

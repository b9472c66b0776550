//! The HTTP API: who asks, for what, and who answers.

mod admission;
mod apply;
mod discovery;
mod fields;
mod patch;
mod protobuf;
mod read;
mod request;
mod table;
mod watch;
mod write;

use http::Response;
use serde_json::{Value, json};

#[cfg(test)]
pub(super) use self::request::Content;
use self::request::Target;
pub(super) use self::request::{Caller, Reply, Request};
use super::{ClusterId, cluster::Cluster, cluster::enter, failure::Failure, types::ResourceType};
use crate::{
    FaultKind, Twin, World,
    http::{Body, Received},
};

/// A request's way through the network and the server (guess).
const ROUND_TRIP: std::time::Duration = std::time::Duration::from_millis(4);

/// Answers one request; effects come before the answer's way back.
pub(super) async fn answer(twin: Twin, id: ClusterId, certified: bool, received: Received) -> Response<Body> {
    let request = Request::new(&received, certified);
    if twin.with(|world| world.faults.strikes(FaultKind::ApiServerHang, &request.path)) {
        return std::future::pending().await;
    }
    let reply = twin.with(|world| handle(world, id, &request));
    twin.sleep(ROUND_TRIP).await;
    reply.respond(&twin)
}

/// Answers one request, in no time.
pub(super) fn handle(world: &mut World, id: ClusterId, request: &Request) -> Reply {
    let reply = authorise(world, id, request)
        .and_then(|()| {
            enter(world, id, "kubernetes", |cluster| route(cluster, request)).unwrap_or(Err(Failure::unavailable()))
        })
        .unwrap_or_else(|failure| Reply::json(failure.code, &failure.status()));
    let method = if reply.is_watch() { "WATCH" } else { request.method.as_str() };
    let now = world.now;
    world.ledger.request(now, "kubernetes", method, request.path.clone(), reply.code.into(), None);
    reply
}

/// k0s switches anonymous access off (k0s source). Whoever has a certificate of the cluster's authority is taken for an
/// administrator; a bearer token is taken for a join token, which lets nobody touch objects.
fn authorise(world: &World, id: ClusterId, request: &Request) -> Result<(), Failure> {
    match &request.caller {
        Caller::Administrator => Ok(()),
        Caller::Token(token) => {
            let known = world.clusters.by_id.get(&id).is_some_and(|cluster| cluster.tokens.contains(token));
            if !known {
                return Err(Failure::unauthorized());
            }
            if request.method == "GET" && !matches!(request.target, Target::Objects { .. }) {
                return Ok(());
            }
            let user = format!("system:bootstrap:{}", token.split('.').next().unwrap_or_default());
            Err(Failure::not_allowed(&user, &request.method.to_lowercase(), &request.path))
        }
        Caller::Nobody => Err(Failure::unauthorized()),
    }
}

fn route(cluster: &mut Cluster, request: &Request) -> Result<Reply, Failure> {
    if !request.accepts_json() {
        return Err(Failure::not_acceptable());
    }
    match &request.target {
        Target::Objects { group, version, plural, namespace, name, subresource } => {
            if let Some(reply) = review(group, plural, request)? {
                return Ok(reply);
            }
            let Some(kind) = cluster.types.by_path(group, version, plural) else { return Ok(Reply::not_served()) };
            if namespace.is_some() && !kind.namespaced {
                return Ok(Reply::not_served());
            }
            objects(cluster, request, &kind, namespace.as_deref(), name.as_deref(), subresource)
        }
        _ if request.method != "GET" && request.method != "HEAD" => Err(Failure::method_not_allowed()),
        Target::Path => Ok(discovery::answer(cluster, request)),
        Target::Api { group, version } => Ok(discovery::api(cluster, group, version)),
    }
}

fn objects(
    cluster: &mut Cluster,
    request: &Request,
    kind: &ResourceType,
    namespace: Option<&str>,
    name: Option<&str>,
    subresource: &str,
) -> Result<Reply, Failure> {
    let space = namespace.unwrap_or_default();
    match (request.method.as_str(), name, subresource) {
        ("GET", None, "") if request.flag("watch") => read::watch(cluster, request, kind, namespace),
        ("GET", None, "") => read::list(cluster, request, kind, namespace),
        ("GET", Some(_), "log") if kind.id == "pods" => Ok(Reply::text(200, "")),
        ("GET", Some(name), "" | "status") => read::get(cluster, request, kind, space, name),
        ("GET", Some(name), "scale") => read::scale(cluster, kind, space, name),
        ("POST", None, "") => write::create(cluster, request, kind, space),
        ("POST", Some(name), "eviction") if kind.id == "pods" => write::evict(cluster, request, kind, space, name),
        ("PUT" | "PATCH", Some(name), "scale") => write::scale(cluster, request, kind, space, name),
        ("PUT", Some(name), "finalize") if kind.id == "namespaces" => write::finalize(cluster, request, kind, name),
        ("PUT", Some(name), "" | "status") => write::replace(cluster, request, kind, space, name, subresource),
        ("PATCH", Some(name), "" | "status") => write::patch(cluster, request, kind, space, name, subresource),
        ("DELETE", Some(name), "") => write::delete(cluster, request, kind, space, name),
        ("DELETE", None, "") => write::delete_collection(cluster, request, kind, namespace),
        (_, _, "" | "status" | "scale") => Err(Failure::method_not_allowed()),
        _ => Ok(Reply::not_served()),
    }
}

/// Questions about rights: whoever may ask may do everything.
fn review(group: &str, plural: &str, request: &Request) -> Result<Option<Reply>, Failure> {
    let status: Value = match (request.method.as_str(), group, plural) {
        ("POST", "authorization.k8s.io", "selfsubjectaccessreviews" | "subjectaccessreviews") => {
            json!({"allowed": true})
        }
        ("POST", "authorization.k8s.io", "selfsubjectrulesreviews") => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        ("POST", "authentication.k8s.io", "selfsubjectreviews") => json!({
            "userInfo": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]},
        }),
        _ => return Ok(None),
    };
    let mut review = request.object()?;
    super::object::set(&mut review, &["status"], status);
    Ok(Some(Reply::json(201, &review)))
}

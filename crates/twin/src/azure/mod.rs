//! Azure Resource Manager and its login endpoint.
//!
//! A request is answered in one visit to the world, so its effects are whole before anything waits; then the answer is
//! held back for as long as Azure would take. Sources of behaviour: the Azure documentation, the generated Azure SDKs
//! (status codes, headers), terraform logs (latencies); everything else says "guess". What `tests/azure-clients` does was
//! observed with Azure CLI 2.91.0 and with the Azure SDKs for Python (compute 39.0.0, network 33.1.0, resource 26.0.0): they
//! accept the status codes, headers, bodies and errors that they meet there.
//!
//! - [`call`]: requests, answers and refusals
//! - [`login`], [`admit`]: who may ask, and how often
//! - [`route`]: which path belongs to whom
//! - [`store`], [`operation`]: what exists, and what is under way
//! - [`subscription`], [`groups`], [`locks`], [`policy`], [`tags`], [`listing`], [`activity`]: the resource manager's own resources
//! - [`deployment`], [`template`]: deployments of templates
//! - [`resource`]: what all typed resources have in common; [`network`], [`interface`], [`compute`], [`power`], [`disk`]
//! - [`catalogue`], [`gallery`], [`quota`]: sizes, images, regions and limits

mod activity;
mod admit;
mod call;
mod catalogue;
mod compute;
mod deployment;
mod disk;
mod gallery;
mod groups;
mod interface;
mod listing;
mod locks;
mod login;
mod network;
mod operation;
mod policy;
mod power;
mod quota;
mod resource;
mod route;
mod store;
mod subscription;
mod tags;
mod template;
#[cfg(test)]
mod tests;
mod validate;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hyper::Response;
use rustls::ServerConfig;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    Latency, Options, Twin, World,
    http::{Body, Received},
    tls::Authority,
};

/// The one subscription that exists.
pub const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
/// The tenant that it belongs to.
pub const TENANT: &str = "00000000-0000-0000-0000-00000000000a";

/// Which of Azure's hosts a connection belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `management.azure.com`.
    ResourceManager,
    /// `login.microsoftonline.com`.
    Login,
}

impl Service {
    /// Who answers at this name and port, in memory.
    pub fn at(host: &str, port: u16) -> Option<Self> {
        match (host, port) {
            ("management.azure.com", 443) => Some(Self::ResourceManager),
            ("login.microsoftonline.com", 443) => Some(Self::Login),
            _ => None,
        }
    }
}

/// Subscriptions and what they hold.
pub struct Azure {
    authority: Authority,
    tls: Arc<ServerConfig>,
    /// Where clients find the login endpoint: what `/metadata/endpoints` tells them.
    pub login_url: String,
    seed: u64,
    store: store::Store,
    groups: BTreeMap<String, groups::Group>,
    locks: BTreeMap<String, Value>,
    /// Galleries, their images and the versions of those, by lower-case id.
    galleries: BTreeMap<String, Value>,
    /// Assignments of policies by lower-case id.
    policies: BTreeMap<String, Value>,
    deployments: BTreeMap<String, deployment::Deployment>,
    operations: BTreeMap<String, operation::Operation>,
    /// Access tokens and when they expire.
    tokens: BTreeMap<String, Duration>,
    buckets: admit::Buckets,
    unregistered: BTreeSet<String>,
    /// Deleted resources that listings still show: until when, and what they looked like.
    ghosts: Vec<(Duration, String, Value)>,
    next_public_address: u32,
    identifiers_made: u64,
}

impl Azure {
    /// An empty subscription.
    pub fn new(options: &Options) -> Self {
        let authority = Authority::new("Twin of Azure");
        let names = ["management.azure.com", "login.microsoftonline.com", "localhost", "127.0.0.1"];
        // One certificate for every server of the world: who asks trusts one authority.
        let names: Vec<String> = names.into_iter().chain(crate::internet::HOSTS).map(String::from).collect();
        let identity = authority.server(&names);
        let first = options.loopback.map_or(Ipv4Addr::new(20, 40, 0, 1), |network| Ipv4Addr::new(127, network, 0, 1));
        Self {
            tls: Authority::server_config(&identity, None),
            authority,
            login_url: "https://login.microsoftonline.com".into(),
            seed: options.seed,
            store: store::Store::default(),
            groups: BTreeMap::new(),
            locks: BTreeMap::new(),
            galleries: BTreeMap::new(),
            policies: BTreeMap::new(),
            deployments: BTreeMap::new(),
            operations: BTreeMap::new(),
            tokens: BTreeMap::new(),
            buckets: admit::Buckets::default(),
            unregistered: subscription::unregistered_at_first(),
            ghosts: Vec::new(),
            next_public_address: first.to_bits(),
            identifiers_made: 0,
        }
    }

    /// The TLS settings of all of Azure's hosts.
    pub fn tls(&self) -> Arc<ServerConfig> {
        self.tls.clone()
    }

    /// The certificate authority that Azure's clients must trust, PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.certificate_pem.clone()
    }

    /// A GUID that no other thing has; the same in each run of the same world.
    fn identifier(&mut self, purpose: &str) -> String {
        self.identifiers_made += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(self.identifiers_made.to_le_bytes());
        hash.update(purpose.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// How long the first resource group took, then the first network and the first security group: what every machine
/// needs.
pub(crate) fn foundation_latencies(world: &World) -> (Duration, Duration, Duration) {
    let put = world.ledger.entries.iter().find(|entry| {
        let path = entry.object.to_ascii_lowercase();
        entry.verb == "PUT" && path.contains("/resourcegroups/") && !path.contains("/providers/")
    });
    let group =
        put.map_or(Duration::ZERO, |put| world.latency(Latency::ResourceGroupPut, &format!("PUT {}", put.object)));
    let first = |kind: &str, latency: Latency| {
        let name = world.azure.store.first_name(kind);
        name.map_or(Duration::ZERO, |name| world.latency(latency, name))
    };
    let network = first("microsoft.network/virtualnetworks", Latency::VirtualNetworkPut);
    (group, network, first("microsoft.network/networksecuritygroups", Latency::SecurityGroupPut))
}

/// Answers one request.
pub async fn answer(twin: Twin, service: Service, request: Received) -> Response<Body> {
    let (reply, wait) = twin.with(|world| {
        let call = call::Call::new(&request);
        let reply = handle(world, service, &call);
        let latency = reply.latency.unwrap_or(Latency::ArmRequest);
        let wait = world.latency(latency, &format!("{} {}", call.method, call.path));
        (reply, wait)
    });
    twin.sleep(wait).await;
    reply.into_response()
}

/// Somebody else's request: another credential, with allowances of its own. Returns the HTTP status.
pub(crate) fn act(world: &mut World, method: http::Method, path: &str, body: Option<&Value>) -> u16 {
    let body = body.map(ToString::to_string).unwrap_or_default();
    let call = call::Call::made(method, path, "2024-11-01", body);
    match route::route(world, &call) {
        Ok(reply) => reply.status,
        Err(refusal) => refusal.status,
    }
}

/// Answers one request and records it.
fn handle(world: &mut World, service: Service, call: &call::Call) -> call::Reply {
    let (actor, mut reply) = match service {
        Service::Login => ("login", login::answer(world, call)),
        Service::ResourceManager => ("arm", admit::answer(world, call)),
    };
    let request_id = world.azure.identifier("request");
    let routing = format!("WESTUS2:{}:{request_id}", world.timestamp().replace(['-', ':'], ""));
    reply.headers.push(("x-ms-request-id", request_id.clone()));
    reply.headers.push(("x-ms-correlation-request-id", request_id));
    reply.headers.push(("x-ms-routing-request-id", routing));
    if let (Some(client_id), Some("true")) =
        (call.header("x-ms-client-request-id"), call.header("x-ms-return-client-request-id"))
    {
        reply.headers.push(("x-ms-client-request-id", client_id.into()));
    }
    let node = route::node(world, call);
    let now = world.now;
    world.ledger.request(now, actor, call.method.as_str(), call.path.clone(), u32::from(reply.status), node);
    reply
}

/// Publishes an image of somebody's own: `definition` is the id of `.../galleries/GALLERY/images/IMAGE`.
pub fn publish_image(world: &mut World, definition: &str, version: &str, architecture: &str, region: &str) {
    gallery::publish(world, definition, version, architecture, region);
}

/// What exists in resource groups, each with everything that is known of it.
pub fn bodies(world: &World) -> Vec<Value> {
    world.azure.store.under("").map(|(_, record)| record.body.clone()).collect()
}

/// Azure calls a resource failed, whatever it does.
pub(crate) fn call_failed(world: &mut World, id: &str) {
    resource::set_state(world, &id.to_lowercase(), "Failed");
}

/// The memory of a machine of that size; of one that nobody sells, that of a small one.
pub(crate) fn memory_gigabytes(size: &str) -> u64 {
    catalogue::SIZES.iter().find(|known| known.name.eq_ignore_ascii_case(size)).map_or(4, |size| size.memory_gigabytes)
}

/// Whether the security groups in front of a machine let TCP in, from that address to that port. In front of a host that
/// is no machine of Azure's there are none.
pub(crate) fn lets_in(world: &World, vm_id: &str, from: IpAddr, port: u16) -> bool {
    let Some(record) = world.azure.store.get(&vm_id.to_lowercase()) else { return true };
    let interface = record.references.iter().map(|(_, target)| target);
    let mut interfaces =
        interface.filter(|target| resource::Kind::of(target) == Some(resource::Kind::NetworkInterface));
    interfaces.next().is_some_and(|interface| interface::lets_in(world, interface, from, port))
}

/// What exists now: resource groups and everything in them, as objects with `id`, `type`, `name` and `tags`.
pub fn resources(world: &World) -> Vec<Value> {
    let brief = |id: &Value, kind: &Value, name: &Value, tags: &Value| serde_json::json!({"id": id, "type": kind, "name": name, "tags": if tags.is_null() { serde_json::json!({}) } else { tags.clone() }});
    let groups = world.azure.groups.values().map(groups::Group::body);
    let groups: Vec<Value> =
        groups.map(|body| brief(&body["id"], &body["type"], &body["name"], &body["tags"])).collect();
    let records = world.azure.store.under("").map(|(_, record)| &record.body);
    groups
        .into_iter()
        .chain(records.map(|body| brief(&body["id"], &body["type"], &body["name"], &body["tags"])))
        .collect()
}

//! Kubernetes API servers, and the controllers that matter here.
//!
//! - [`api`]: HTTP requests, from authentication to the answer
//! - [`store`], [`cluster`]: objects, their history, and the one path on which they are written
//! - [`types`], [`schema`]: which resource types there are and what their objects must be like
//! - [`controllers`]: k0s' Helm charts, kcm, namespaces, nodes, pods
//! - [`snapshot`]: a cluster as data, for processes that start again
//! - [`kubectl`]: what `k0s kubectl` prints on a machine

mod api;
mod cluster;
mod controllers;
mod failure;
mod kubectl;
mod object;
mod schema;
mod selector;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use controllers::{
    charts::installation as chart_installation, kcm::installation_path as kcm_installation_path,
};

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::snapshot::revision;
use self::{
    cluster::{Cluster, enter},
    controllers::{catalogue, nodes},
};
pub use self::{
    kubectl::kubectl,
    snapshot::{restore, snapshot},
};
use crate::{Twin, World, http};

/// Names one cluster of the world.
pub type ClusterId = u64;

/// The clusters that exist.
#[derive(Default)]
pub struct Clusters {
    made: u64,
    by_id: BTreeMap<ClusterId, Cluster>,
}

/// What a cluster is made from.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// The k0s version, `v1.33.2+k0s.0`.
    pub k0s_version: String,
    /// Names and addresses in the API server's certificate.
    pub names: Vec<String>,
}

/// What a kubelet says about its node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// The node's name.
    pub name: String,
    /// Its address in the cluster.
    pub internal_ip: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// The static pods that the kubelet runs by itself, and mirrors in `kube-system`.
    pub static_pods: Vec<String>,
}

/// Makes an empty cluster, with its namespaces, CRDs and controllers.
pub fn create(world: &mut World, spec: ClusterSpec) -> ClusterId {
    world.clusters.made += 1;
    let id = world.clusters.made;
    let random = world.random(&format!("kubernetes cluster {id}"));
    world.clusters.by_id.insert(id, Cluster::new(spec, random));
    enter(world, id, "world", |cluster| {
        // k0s adds the last one (k0s source).
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease", "k0s-autopilot"] {
            cluster.ensure("namespaces", json!({"metadata": {"name": namespace}}));
        }
        for definition in catalogue::K0S_DEFINITIONS.iter() {
            cluster.ensure(types::DEFINITIONS, definition.clone());
        }
        let service = json!({
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1",
                "ports": [{"name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP"}]},
        });
        cluster.ensure("services", service);
    });
    id
}

/// The cluster and all that was in it is gone.
pub fn destroy(world: &mut World, cluster: ClusterId) {
    world.clusters.by_id.remove(&cluster);
}

/// A kubeconfig for the administrator (`system:masters`), YAML, with a client certificate; named as k0s names things
/// (k0s source). Empty if the cluster does not exist.
pub fn admin_kubeconfig(world: &World, cluster: ClusterId, server: &str) -> String {
    let Some(cluster) = world.clusters.by_id.get(&cluster) else { return String::new() };
    let authority = BASE64_STANDARD.encode(&cluster.certificate_pem);
    let certificate = BASE64_STANDARD.encode(&cluster.administrator.certificate_pem);
    let key = BASE64_STANDARD.encode(&cluster.administrator.key_pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- cluster:
    server: {server}
    certificate-authority-data: {authority}
  name: local
contexts:
- context:
    cluster: local
    namespace: default
    user: user
  name: Default
current-context: Default
users:
- name: user
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// The cluster's certificate authority, PEM; empty if the cluster does not exist.
pub fn certificate_authority(world: &World, cluster: ClusterId) -> String {
    world.clusters.by_id.get(&cluster).map(|cluster| cluster.certificate_pem.clone()).unwrap_or_default()
}

/// The API server knows a bearer token (a join token) from now on, or no longer.
pub fn bearer_token(world: &mut World, cluster: ClusterId, token: &str, valid: bool) {
    if let Some(cluster) = world.clusters.by_id.get_mut(&cluster) {
        if valid {
            cluster.tokens.insert(token.to_owned());
        } else {
            cluster.tokens.remove(token);
        }
    }
}

/// A kubelet registers its node, not ready yet; again is fine.
pub fn register_node(world: &mut World, cluster: ClusterId, node: NodeSpec) {
    nodes::register(world, cluster, &node);
}

/// A kubelet reports whether its node is ready.
pub fn set_node_ready(world: &mut World, cluster: ClusterId, name: &str, ready: bool, message: &str) {
    nodes::set_ready(world, cluster, name, ready, message);
}

/// The TLS settings of a cluster's servers.
pub fn tls(world: &World, cluster: ClusterId) -> Option<Arc<rustls::ServerConfig>> {
    world.clusters.by_id.get(&cluster).map(|cluster| cluster.tls.clone())
}

/// Serves the API on one connection: TLS, then HTTP; clients show a certificate of the cluster's authority.
pub async fn serve<Stream>(twin: Twin, cluster: ClusterId, stream: Stream)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    serve_and_keep(twin, cluster, stream, || {}).await;
}

/// The same for a world that is kept: `keep` is called after each request, before it is answered.
pub async fn serve_and_keep<Stream, Keep>(twin: Twin, cluster: ClusterId, stream: Stream, keep: Keep)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    Keep: Fn() + Clone + Send + 'static,
{
    let Some(tls) = twin.with(|world| tls(world, cluster)) else { return };
    // A client that does not trust us hangs up: its concern.
    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
    let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    http::serve(stream, move |received| {
        let (twin, keep) = (twin.clone(), keep.clone());
        async move {
            let answer = api::answer(twin, cluster, certified, received).await;
            keep();
            answer
        }
    })
    .await;
}

/// The Kubernetes version of a k0s version: `v1.33.2+k0s` of `v1.33.2+k0s.0` (k0s website).
fn kubernetes_version(k0s_version: &str) -> &str {
    k0s_version.rfind("+k0s").and_then(|position| k0s_version.get(..position + "+k0s".len())).unwrap_or(k0s_version)
}

/// What a kubelet reports as its version: `v1.33.2+k0s` for k0s `v1.33.2+k0s.0` (k0s documentation).
fn kubelet_version(k0s_version: &str) -> String {
    let kubernetes = k0s_version.rsplit_once('.').map(|(kubernetes, _)| kubernetes);
    kubernetes.filter(|version| version.ends_with("+k0s")).unwrap_or(k0s_version).to_owned()
}

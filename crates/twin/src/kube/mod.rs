//! Kubernetes API servers, and the controllers that matter here.

use std::collections::BTreeMap;

use crate::{Twin, World};

/// Names one cluster of the world.
pub type ClusterId = u64;

/// The clusters that exist.
#[derive(Default)]
pub struct Clusters {}

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
}

/// Makes an empty cluster, with its namespaces, CRDs and controllers.
pub fn create(_world: &mut World, _spec: ClusterSpec) -> ClusterId {
    todo!()
}

/// The cluster and all that was in it is gone.
pub fn destroy(_world: &mut World, _cluster: ClusterId) {
    todo!()
}

/// A kubeconfig for the administrator (`system:masters`), YAML, with a client certificate.
pub fn admin_kubeconfig(_world: &World, _cluster: ClusterId, _server: &str) -> String {
    todo!()
}

/// A kubelet registers its node, not ready yet; again is fine.
pub fn register_node(_world: &mut World, _cluster: ClusterId, _node: NodeSpec) {
    todo!()
}

/// A kubelet reports whether its node is ready.
pub fn set_node_ready(_world: &mut World, _cluster: ClusterId, _name: &str, _ready: bool, _message: &str) {
    todo!()
}

/// What `k0s kubectl ARGUMENTS` prints: exit code, standard output, standard error.
pub fn kubectl(_world: &mut World, _cluster: ClusterId, _arguments: &[String]) -> (u32, String, String) {
    todo!()
}

/// Serves the API on one connection: TLS, then HTTP; clients show a certificate of the cluster's authority.
pub async fn serve<Stream>(_twin: Twin, _cluster: ClusterId, _stream: Stream)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    todo!()
}

//! The Kubernetes client: the cluster's API through whatever network leads to it.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use engine::Intent;
use futures::{StreamExt as _, pin_mut};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
    client::{Body, ClientBuilder},
};
use rustls::AlertDescription;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    http::{ConnectFailure, Connector, chain, tls_config},
    kubeconfig::Admin,
    seam::{Network, World, pause},
};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the server may keep one watch open; it is opened again afterwards.
const WATCH_SECONDS: u32 = 290;
/// What marks the mirror of a static pod (Kubernetes documentation, well-known annotations).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Between two tries after a broken connection.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Who changes the fields that we apply.
const FIELD_MANAGER: &str = "k0rdentctl";

/// A kind of object.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its API group; empty for the core.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Its name in URLs.
    pub plural: &'static str,
}

/// `v1` Node.
pub const NODE: Kind = Kind { group: "", version: "v1", kind: "Node", plural: "nodes" };
/// `v1` Namespace.
pub const NAMESPACE: Kind = Kind { group: "", version: "v1", kind: "Namespace", plural: "namespaces" };
/// `v1` Pod.
pub const POD: Kind = Kind { group: "", version: "v1", kind: "Pod", plural: "pods" };
/// k0s's Helm chart (k0s documentation, Helm charts).
pub const CHART: Kind = Kind { group: "helm.k0sproject.io", version: "v1beta1", kind: "Chart", plural: "charts" };
/// k0rdent's Management.
pub const MANAGEMENT: Kind =
    Kind { group: "k0rdent.mirantis.com", version: "v1beta1", kind: "Management", plural: "managements" };
/// Flux's HelmRelease, by which kcm installs its components (Flux documentation; kcm source).
pub const HELM_RELEASE: Kind =
    Kind { group: "helm.toolkit.fluxcd.io", version: "v2", kind: "HelmRelease", plural: "helmreleases" };
/// `apps/v1` Deployment.
pub const DEPLOYMENT: Kind = Kind { group: "apps", version: "v1", kind: "Deployment", plural: "deployments" };
/// The definitions of kinds that are not built in.
pub const DEFINITION: Kind = Kind {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
};
/// Webhooks that refuse.
pub const VALIDATING_WEBHOOK: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
};
/// Webhooks that change.
pub const MUTATING_WEBHOOK: Kind = Kind {
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
};
/// k0rdent's child clusters.
pub const CLUSTER_DEPLOYMENT: Kind =
    Kind { group: "k0rdent.mirantis.com", version: "v1beta1", kind: "ClusterDeployment", plural: "clusterdeployments" };

/// The annotation by which Flux is asked to look at an object; it tells in the status which value it has acted on last
/// (Flux documentation, HelmRelease, triggering a reconcile).
pub const RECONCILE_REQUEST: &str = "reconcile.fluxcd.io/requestedAt";
/// With the same value, Flux forgets how often it has failed (the same, resetting remediation retries).
const RESET_REQUEST: &str = "reconcile.fluxcd.io/resetAt";

/// Why the API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// No answer.
    #[error("the Kubernetes API does not answer: {0}")]
    Unreachable(String),
    /// A refusal, in the server's words.
    #[error("the Kubernetes API refuses: {message} (HTTP {code})")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The message.
        message: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the cluster's certificates cannot be used: {0}")]
    Certificates(String),
}

impl KubernetesError {
    /// Whether there is no such object, or no such kind of object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether a retry may get an answer.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Refused { code: 429 | 500..=599, .. })
    }
}

impl From<kube::Error> for KubernetesError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused { code: status.code, message: status.message.clone() },
            other => match chain(&other).find_map(tls_error) {
                Some(distrust) => Self::Certificates(distrust.to_string()),
                None => Self::Unreachable(chain(&other).last().map(ToString::to_string).unwrap_or_default()),
            },
        }
    }
}

/// An error of TLS that no later try mends: one side does not trust the other.
fn tls_error<'error>(cause: &'error (dyn std::error::Error + 'static)) -> Option<&'error rustls::Error> {
    let error = match cause.downcast_ref() {
        Some(ConnectFailure::Secure(error)) => error,
        // After the handshake: the server looks at the client's certificate last (RFC 8446, section 2).
        _ => cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref()?,
    };
    let distrusts = match error {
        rustls::Error::InvalidCertificate(_) => true,
        // TLS 1.3 (RFC 8446, section 6.2).
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRequired
                | AlertDescription::UnknownCA
        ),
        _ => false,
    };
    distrusts.then_some(error)
}

/// The cluster's API, as its administrator.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    /// The API server that `network` reaches at `host`, trusted and addressed as `admin` says.
    pub fn new(world: &World, network: Arc<dyn Network>, host: &str, admin: &Admin) -> Result<Self, KubernetesError> {
        let bad = |error: &dyn std::fmt::Display| KubernetesError::Certificates(error.to_string());
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(admin.authority.as_bytes()).map_err(|error| bad(&error))?;
        roots.add(authority).map_err(|error| bad(&error))?;
        let certificate = CertificateDer::from_pem_slice(admin.certificate.as_bytes()).map_err(|error| bad(&error))?;
        let key = PrivateKeyDer::from_pem_slice(admin.key.expose().as_bytes())
            .map_err(|_| bad(&"the client's key is not PEM"))?;
        let like = tls_config(world);
        let tls =
            rustls::ClientConfig::builder_with_details(like.crypto_provider().clone(), like.time_provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(|error| bad(&error))?
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate], key)
                .map_err(|error| bad(&error))?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build::<_, Body>(Connector::new(network, Arc::new(tls)));
        let base: http::Uri =
            format!("https://{host}:{}", crate::k0s::API_PORT).parse().map_err(|error| bad(&error))?;
        let config = kube::Config::new(base);
        let service = tower::ServiceBuilder::new()
            .layer(kube::client::ConfigExt::base_uri_layer(&config))
            .map_err(tower::BoxError::from)
            .service(http);
        Ok(Self { client: ClientBuilder::new(service, "default").build() })
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let api_version = match kind.group {
            "" => kind.version.to_owned(),
            group => format!("{group}/{}", kind.version),
        };
        let resource = ApiResource {
            group: kind.group.into(),
            version: kind.version.into(),
            api_version,
            kind: kind.kind.into(),
            plural: kind.plural.into(),
        };
        self.api_of(&resource, namespace)
    }

    fn api_of(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// One object, if it exists.
    pub async fn get(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<DynamicObject>, KubernetesError> {
        match bounded(self.api(kind, namespace).get_opt(name)).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other,
        }
    }

    /// All objects of a kind, by name (`namespace/name` if all namespaces are asked); none if there is no such kind.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> Result<BTreeMap<String, DynamicObject>, KubernetesError> {
        match bounded(self.api(kind, namespace).list(&ListParams::default())).await {
            Ok(list) => Ok(list.items.into_iter().map(|object| named(namespace, object)).collect()),
            Err(error) if error.is_not_found() => self.none_of(kind).await.map(|()| BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// That a kind is not served may mean that there is none, or that the API server has just started and does not know
    /// its own definitions yet: where the definition exists, nobody has said that there are no such objects.
    async fn none_of(&self, kind: Kind) -> Result<(), KubernetesError> {
        let Kind { group, plural, .. } = kind;
        if !group.contains('.') || group.ends_with(".k8s.io") {
            return Ok(());
        }
        match self.get(DEFINITION, None, &format!("{plural}.{group}")).await? {
            Some(_) => Err(KubernetesError::Unreachable(format!("it does not serve {plural}.{group} yet"))),
            None => Ok(()),
        }
    }

    /// Makes the object be as described (server-side apply).
    pub async fn apply(
        &self,
        _intent: &Intent,
        kind: Kind,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<(), KubernetesError> {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        bounded(self.api(kind, namespace).patch(name, &parameters, &Patch::Apply(object))).await.map(drop)
    }

    /// Asks for an object's deletion; fine if there is none.
    pub async fn delete(
        &self,
        _intent: &Intent,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), KubernetesError> {
        match bounded(self.api(kind, namespace).delete(name, &DeleteParams::default())).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The objects of the kind that a definition defines; none if it is gone.
    pub async fn instances(&self, definition: &DynamicObject) -> Result<Vec<DynamicObject>, KubernetesError> {
        let Some(resource) = defined(definition) else { return Ok(Vec::new()) };
        match bounded(self.api_of(&resource, None).list(&ListParams::default())).await {
            Ok(list) => Ok(list.items),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Leaves a defined object only these finalizers, unless it has changed since it was read.
    pub async fn keep_finalizers(
        &self,
        _intent: &Intent,
        definition: &DynamicObject,
        object: &DynamicObject,
        kept: &[String],
    ) -> Result<(), KubernetesError> {
        let Some(resource) = defined(definition) else { return Ok(()) };
        let metadata = json!({"resourceVersion": object.metadata.resource_version, "finalizers": kept});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let api = self.api_of(&resource, object.metadata.namespace.as_deref());
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match bounded(api.patch(name, &PatchParams::default(), &patch)).await {
            Ok(_) | Err(KubernetesError::Refused { code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has the API server read a kind's objects as they are stored, without asking a webhook that may be gone.
    pub async fn stop_converting(&self, _intent: &Intent, definition: &str) -> Result<(), KubernetesError> {
        let patch = Patch::Merge(json!({"spec": {"conversion": {"strategy": "None", "webhook": null}}}));
        match bounded(self.api(DEFINITION, None).patch(definition, &PatchParams::default(), &patch)).await {
            Ok(_) | Err(KubernetesError::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has Flux begin again with a release that it has given up: once for each token, however often it is sent. Fine if
    /// there is no such release.
    pub async fn try_again(
        &self,
        _intent: &Intent,
        namespace: &str,
        release: &str,
        token: &str,
    ) -> Result<(), KubernetesError> {
        let patch =
            Patch::Merge(json!({"metadata": {"annotations": {RECONCILE_REQUEST: token, RESET_REQUEST: token}}}));
        let api = self.api(HELM_RELEASE, Some(namespace));
        match bounded(api.patch(release, &PatchParams::default(), &patch)).await {
            Ok(_) | Err(KubernetesError::Refused { code: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Keeps new pods away from a node.
    pub async fn cordon(&self, _intent: &Intent, node: &str) -> Result<(), KubernetesError> {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": true}}));
        bounded(self.api(NODE, None).patch(node, &PatchParams::default(), &patch)).await.map(drop)
    }

    /// The pods on a node that would move elsewhere: namespace and name. Those of a DaemonSet stay with their node, and so
    /// do the mirrors of static pods, such as k0s's load balancer, which the kubelet makes again (Kubernetes documentation,
    /// safely drain a node); those that have ended need not move.
    pub async fn pods_to_move(&self, node: &str) -> Result<Vec<(String, String)>, KubernetesError> {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = bounded(self.api(POD, None).list(&on_node)).await?;
        let moves = |pod: &DynamicObject| {
            let owners = pod.metadata.owner_references.iter().flatten();
            let ended =
                matches!(pod.data.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed"));
            pod.data.pointer("/spec/nodeName") == Some(&json!(node))
                && !ended
                && owners.clone().all(|owner| owner.kind != "DaemonSet")
                && !pod.annotations().contains_key(MIRROR)
        };
        let place =
            |pod: DynamicObject| (pod.metadata.namespace.unwrap_or_default(), pod.metadata.name.unwrap_or_default());
        Ok(pods.items.into_iter().filter(moves).map(place).collect())
    }

    /// Asks for a pod to be moved; fine if it is gone, or if its disruption budget does not allow it yet.
    pub async fn evict(&self, _intent: &Intent, namespace: &str, pod: &str) -> Result<(), KubernetesError> {
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        });
        let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|error| KubernetesError::Unreachable(error.to_string()))?;
        match bounded(self.client.request_text(request)).await {
            Ok(_) | Err(KubernetesError::Refused { code: 404 | 429, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Follows the objects of a kind (one of them, or all) until `look` has seen enough. A broken connection is
    /// reported to `trouble` and made again; only a refusal ends it early. The caller bounds its patience.
    pub async fn follow<T>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        only: Option<&str>,
        mut look: impl FnMut(&BTreeMap<String, DynamicObject>) -> ControlFlow<T>,
        mut trouble: impl FnMut(&KubernetesError),
    ) -> Result<T, KubernetesError> {
        loop {
            match self.follow_once(kind, namespace, only, &mut look).await {
                Ok(ControlFlow::Break(result)) => return Ok(result),
                Ok(ControlFlow::Continue(())) => {}
                // A kind that is not there yet is like an object that is not there yet.
                Err(error) if error.is_not_found() => {
                    if let ControlFlow::Break(result) = look(&BTreeMap::new()) {
                        return Ok(result);
                    }
                    pause(RETRY_INTERVAL).await;
                }
                Err(error) if error.is_transient() => {
                    trouble(&error);
                    pause(RETRY_INTERVAL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One list and the watch that follows it.
    async fn follow_once<T>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        only: Option<&str>,
        look: &mut impl FnMut(&BTreeMap<String, DynamicObject>) -> ControlFlow<T>,
    ) -> Result<ControlFlow<T>, KubernetesError> {
        let api = self.api(kind, namespace);
        let selector = only.map(|name| format!("metadata.name={name}"));
        let list = bounded(api.list(&ListParams { field_selector: selector.clone(), ..ListParams::default() })).await?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        let named = |object| named(namespace, object);
        let mut objects: BTreeMap<String, DynamicObject> = list.items.into_iter().map(named).collect();
        if let ControlFlow::Break(result) = look(&objects) {
            return Ok(ControlFlow::Break(result));
        }
        let parameters =
            WatchParams { field_selector: selector, timeout: Some(WATCH_SECONDS), ..WatchParams::default() };
        let stream = bounded(api.watch(&parameters, &version)).await?;
        pin_mut!(stream);
        // The server ends the watch by itself; a connection that died without a word is noticed a little later.
        let patience = Duration::from_secs(u64::from(WATCH_SECONDS)) + PATIENCE;
        while let Ok(Some(event)) = timeout(patience, stream.next()).await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let (name, object) = named(object);
                    objects.insert(name, object);
                }
                WatchEvent::Deleted(object) => {
                    objects.remove(&named(object).0);
                }
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(_) => return Ok(ControlFlow::Continue(())),
            }
            if let ControlFlow::Break(result) = look(&objects) {
                return Ok(ControlFlow::Break(result));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The object with its name; if all namespaces were asked, with its namespace before it.
fn named(asked: Option<&str>, object: DynamicObject) -> (String, DynamicObject) {
    let name = object.metadata.name.clone().unwrap_or_default();
    match &object.metadata.namespace {
        Some(namespace) if asked.is_none() => (format!("{namespace}/{name}"), object),
        _ => (name, object),
    }
}

/// The kind that a definition defines, in the version that it is stored in.
fn defined(definition: &DynamicObject) -> Option<ApiResource> {
    let spec = &definition.data["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let version = spec["versions"].as_array()?.iter().find(|version| version["storage"] == true)?;
    let (group, version) = (text(&spec["group"])?, text(&version["name"])?);
    let api_version = format!("{group}/{version}");
    let (kind, plural) = (text(&spec["names"]["kind"])?, text(&spec["names"]["plural"])?);
    Some(ApiResource { group, version, api_version, kind, plural })
}

async fn bounded<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KubernetesError> {
    match timeout(PATIENCE, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(KubernetesError::Unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// Whether a condition of the object's status is True.
pub fn condition<'object>(object: &'object DynamicObject, name: &str) -> Option<&'object Value> {
    object.data.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == name)
}

/// Whether a node is Ready.
pub fn node_ready(node: &DynamicObject) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready["status"] == "True")
}

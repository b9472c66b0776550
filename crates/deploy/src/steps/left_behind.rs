//! What k0rdent's chart leaves in a cluster when it goes: definitions, the objects of the kinds that they define, and
//! webhooks.
//!
//! An object that a finalizer holds waits for a controller. If that controller is k0rdent's and its deployment does not
//! exist, nobody will ever clear the finalizer, and this does; any other finalizer is left to its owner.

use std::{collections::BTreeSet, time::Duration};

use engine::{Context, Done, Failure, pause};
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;

use super::k0s::refused;
use crate::{
    deployment::LOOK_AGAIN,
    kubernetes::{DEFINITION, DEPLOYMENT, Kind, Kubernetes, KubernetesError, MUTATING_WEBHOOK, VALIDATING_WEBHOOK},
    words::count,
};

/// The API groups that k0rdent brings along, each with its subgroups (k0rdent source: its charts and its providers).
const GROUPS: [&str; 10] = [
    "k0rdent.mirantis.com",
    "cluster.x-k8s.io",
    "projectsveltos.io",
    "toolkit.fluxcd.io",
    "cert-manager.io",
    "velero.io",
    "k0smotron.io",
    "rbacmanager.reactiveops.io",
    "openstack.k-orc.cloud",
    "azure.com",
];

/// Who clears a finalizer of a domain or its subdomains: deployments (k0rdent documentation, verifying the installation).
const CONTROLLERS: [(&str, &[&str]); 7] = [
    ("k0rdent.mirantis.com", &["kcm-controller-manager"]),
    ("fluxcd.io", &["helm-controller", "source-controller"]),
    (
        "projectsveltos.io",
        &["access-manager", "addon-controller", "classifier-manager", "event-manager", "hc-manager", "sc-manager"],
    ),
    (
        "cluster.x-k8s.io",
        &[
            "kcm-cluster-api-operator",
            "capi-controller-manager",
            "capa-controller-manager",
            "capd-controller-manager",
            "capg-controller-manager",
            "capi-ipam-in-cluster-controller-manager",
            "capi-ipam-infoblox-controller-manager",
            "capk-controller-manager",
            "capo-controller-manager",
            "capv-controller-manager",
            "capz-controller-manager",
            "k0smotron-controller-manager-bootstrap",
            "k0smotron-controller-manager-control-plane",
            "k0smotron-controller-manager-infrastructure",
        ],
    ),
    ("cert-manager.io", &["kcm-cert-manager"]),
    ("velero.io", &["velero"]),
    ("azure.com", &["azureserviceoperator-controller-manager"]),
];

/// Whether a domain is this one or a part of it.
fn is_within(domain: &str, whole: &str) -> bool {
    domain == whole || domain.strip_suffix(whole).is_some_and(|rest| rest.ends_with('.'))
}

/// The deployments that clear a finalizer; `None` if it is not one of k0rdent's.
fn controllers(finalizer: &str) -> Option<&'static [&'static str]> {
    let domain = finalizer.split('/').next().unwrap_or_default();
    CONTROLLERS.iter().find(|(whole, _)| is_within(domain, whole)).map(|(_, deployments)| *deployments)
}

/// Whether a definition came with k0rdent: by its group, unless it says that another Helm release brought it.
fn is_ours(definition: &DynamicObject, namespaces: &[&str]) -> bool {
    let group = definition.data.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default();
    let annotations = definition.metadata.annotations.as_ref();
    let brought_to = annotations.and_then(|annotations| annotations.get("meta.helm.sh/release-namespace"));
    GROUPS.iter().any(|whole| is_within(group, whole)) && brought_to.is_none_or(|at| namespaces.contains(&at.as_str()))
}

/// Whether a configuration of webhooks calls a service in one of the namespaces.
fn calls_into(webhooks: &DynamicObject, namespaces: &[&str]) -> bool {
    let called = webhooks.data["webhooks"].as_array().into_iter().flatten();
    let mut services = called.filter_map(|webhook| webhook.pointer("/clientConfig/service/namespace")?.as_str());
    services.any(|namespace| namespaces.contains(&namespace))
}

async fn webhooks(kubernetes: &Kubernetes, namespaces: &[&str]) -> Result<Vec<(Kind, String)>, KubernetesError> {
    let mut found = Vec::new();
    for kind in [VALIDATING_WEBHOOK, MUTATING_WEBHOOK] {
        let all = kubernetes.list(kind, None).await?;
        found.extend(all.into_iter().filter(|(_, one)| calls_into(one, namespaces)).map(|(name, _)| (kind, name)));
    }
    Ok(found)
}

async fn definitions(
    kubernetes: &Kubernetes,
    namespaces: &[&str],
) -> Result<Vec<(String, DynamicObject)>, KubernetesError> {
    let all = kubernetes.list(DEFINITION, None).await?;
    Ok(all.into_iter().filter(|(_, definition)| is_ours(definition, namespaces)).collect())
}

/// The names of what is left.
pub(super) async fn names(kubernetes: &Kubernetes, namespaces: &[&str]) -> Result<Vec<String>, KubernetesError> {
    let webhooks = webhooks(kubernetes, namespaces).await?;
    let webhooks = webhooks.into_iter().map(|(kind, name)| format!("{} {name}", kind.kind));
    let definitions = definitions(kubernetes, namespaces).await?;
    let definitions = definitions.into_iter().map(|(name, _)| format!("{} {name}", DEFINITION.kind));
    Ok(webhooks.chain(definitions).collect())
}

/// Deletes it. Webhooks go first: nobody answers them any more, and they would refuse every change.
pub(super) async fn delete(
    kubernetes: &Kubernetes,
    context: &Context<'_>,
    namespaces: &[&str],
    patience: Duration,
) -> Result<Done, Failure> {
    let until = Instant::now() + patience;
    let webhooks = webhooks(kubernetes, namespaces).await.map_err(refused)?;
    for (kind, name) in &webhooks {
        let intent = context.intend(format!("delete {} {name}", kind.kind)).await?;
        kubernetes.delete(&intent, *kind, None, name).await.map_err(refused)?;
        context.effected(intent).await?;
    }
    let definitions = definitions(kubernetes, namespaces).await.map_err(refused)?;
    if !definitions.is_empty() {
        let intent = context.intend(format!("delete {} of k0rdent", count(definitions.len(), "definition"))).await?;
        for (name, definition) in &definitions {
            let converter = definition.data.pointer("/spec/conversion/webhook/clientConfig/service/namespace");
            if converter.and_then(Value::as_str).is_some_and(|namespace| namespaces.contains(&namespace)) {
                kubernetes.stop_converting(&intent, name).await.map_err(refused)?;
            }
            kubernetes.delete(&intent, DEFINITION, None, name).await.map_err(refused)?;
        }
        context.effected(intent).await?;
    }
    for (name, definition) in &definitions {
        while kubernetes.get(DEFINITION, None, name).await.map_err(refused)?.is_some() {
            let held = release(kubernetes, context, definition).await?;
            let evidence = held.unwrap_or_else(|| "its objects are going".to_owned());
            if Instant::now() >= until {
                return Err(Failure::new(format!("definition {name} does not go: {evidence}")).advise(
                    "If nobody will ever clear that finalizer, remove it: `k0rdentctl exec -- kubectl edit`; then uninstall again.",
                ));
            }
            context.waiting(format!("definition {name} is gone"), evidence);
            pause(LOOK_AGAIN).await;
        }
    }
    Ok(Done::seen(format!(
        "gone: {} and {}",
        count(definitions.len(), "definition"),
        count(webhooks.len(), "webhook configuration")
    )))
}

/// Clears the finalizers that nobody will ever clear from the objects of a kind that are on their way out. Returns
/// what holds one of them still.
async fn release(
    kubernetes: &Kubernetes,
    context: &Context<'_>,
    definition: &DynamicObject,
) -> Result<Option<String>, Failure> {
    let instances = kubernetes.instances(definition).await.map_err(refused)?;
    let leaving = |object: &&DynamicObject| object.metadata.deletion_timestamp.is_some();
    let held: Vec<&DynamicObject> = instances.iter().filter(leaving).collect();
    if held.is_empty() {
        return Ok(None);
    }
    let running = kubernetes.list(DEPLOYMENT, None).await.map_err(refused)?;
    let running: BTreeSet<&str> = running.keys().filter_map(|name| name.rsplit('/').next()).collect();
    let kind = definition.data.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default();
    let mut holder = None;
    for object in held {
        let name = format!("{kind} {}", object.metadata.name.as_deref().unwrap_or_default());
        let (mut kept, mut cleared) = (Vec::new(), Vec::new());
        for finalizer in object.metadata.finalizers.iter().flatten() {
            let alive = controllers(finalizer).map(|all| all.iter().find(|one| running.contains(**one)));
            match alive {
                Some(None) => cleared.push(finalizer.as_str()),
                Some(Some(controller)) => {
                    holder = Some(format!("{name} has finalizer {finalizer}, and {controller} still runs"));
                    kept.push(finalizer.clone());
                }
                None => {
                    holder = Some(format!("{name} has finalizer {finalizer}, which is not one of k0rdent's"));
                    kept.push(finalizer.clone());
                }
            }
        }
        if !cleared.is_empty() {
            let cleared = cleared.join(", ");
            context.note(format!("{name}: finalizer {cleared} is cleared, because its controller does not exist"))?;
            let intent = context.intend(format!("clear finalizer {cleared} of {name}")).await?;
            kubernetes.keep_finalizers(&intent, definition, object, &kept).await.map_err(refused)?;
            context.effected(intent).await?;
        }
    }
    Ok(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_belong_to_controllers() {
        assert_eq!(controllers("k0rdent.mirantis.com/credential"), Some(&["kcm-controller-manager"][..]));
        assert_eq!(controllers("finalizers.fluxcd.io"), Some(&["helm-controller", "source-controller"][..]));
        assert!(controllers("azurecluster.infrastructure.cluster.x-k8s.io").is_some());
        assert_eq!(controllers("example.com/hold"), None);
        assert_eq!(controllers("notfluxcd.io"), None);
        assert_eq!(controllers("foregroundDeletion"), None);
    }

    #[test]
    fn definitions_of_others_are_not_ours() {
        let definition = |value: Value| serde_json::from_value::<DynamicObject>(value).unwrap();
        let of = |group: &str, release_namespace: Option<&str>| {
            let annotations = release_namespace.map(|at| serde_json::json!({"meta.helm.sh/release-namespace": at}));
            let metadata = serde_json::json!({"name": "x", "annotations": annotations});
            is_ours(
                &definition(serde_json::json!({"metadata": metadata, "spec": {"group": group}})),
                &["kcm-system", "projectsveltos"],
            )
        };
        assert!(of("k0rdent.mirantis.com", None));
        assert!(of("infrastructure.cluster.x-k8s.io", None));
        assert!(of("cert-manager.io", Some("kcm-system")));
        assert!(!of("cert-manager.io", Some("cert-manager")));
        assert!(!of("example.com", None));
    }
}

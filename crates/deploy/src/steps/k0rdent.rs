//! k0rdent: its chart, installed by k0s's own Helm controller, and the Management object that says whether all is well.

use std::ops::ControlFlow;

use engine::{Context, Done, Failure, pause};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::k0s::refused;
use crate::{
    config::Config,
    deployment::{Deployment, LOOK_AGAIN},
    kubernetes::{CHART, MANAGEMENT, condition},
};

/// The Helm release's name; kcm looks for itself under it (kcm source).
pub const RELEASE: &str = "kcm";
/// The namespace in which k0s looks for charts (k0s documentation).
pub const CHART_NAMESPACE: &str = "kube-system";
/// The one Management object (kcm source).
pub const MANAGEMENT_NAME: &str = "kcm";

/// The Release object of a version: `kcm-1-1-1` for 1.1.1 (kcm source).
pub fn release_name(version: &str) -> String {
    format!("kcm-{}", version.replace(['.', '+'], "-"))
}

/// The Chart object. It is written once and never changed: k0s upgrades a chart when its object changes, and from the
/// first minute on the release belongs to kcm's own Flux (k0s documentation; kcm source).
pub fn chart_object(config: &Config) -> Value {
    let k0rdent = &config.software.k0rdent;
    let values =
        if k0rdent.providers.is_empty() { json!({}) } else { json!({"controller": {"createManagement": false}}) };
    json!({
        "apiVersion": "helm.k0sproject.io/v1beta1",
        "kind": "Chart",
        "metadata": {"name": RELEASE, "namespace": CHART_NAMESPACE},
        "spec": {
            "chartName": k0rdent.registry,
            "releaseName": RELEASE,
            "version": k0rdent.version,
            "namespace": k0rdent.namespace,
            "timeout": format!("{}s", config.timeouts.k0rdent_install_wait),
            "values": serde_saphyr::to_string(&values).unwrap_or_default(),
            "forceUpgrade": false,
            "order": 1,
        },
    })
}

/// The Management object with the configured providers only.
fn management_object(config: &Config) -> Value {
    let k0rdent = &config.software.k0rdent;
    let providers: Vec<Value> = k0rdent.providers.iter().map(|name| json!({"name": name})).collect();
    json!({
        "apiVersion": "k0rdent.mirantis.com/v1beta1",
        "kind": "Management",
        "metadata": {"name": MANAGEMENT_NAME},
        "spec": {"release": release_name(&k0rdent.version), "providers": providers},
    })
}

/// Has k0s install the chart, and waits until it says that it did.
pub(super) async fn chart(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    let version = &deployment.config.software.k0rdent.version;
    let existing = loop {
        match kubernetes.get(CHART, Some(CHART_NAMESPACE), RELEASE).await {
            Ok(existing) => break existing,
            Err(error) if error.is_transient() => context.waiting("the Kubernetes API answers", error.to_string()),
            Err(error) => return Err(refused(error)),
        }
        pause(LOOK_AGAIN).await;
    };
    if existing.is_none() {
        let intent =
            context.intend(format!("install chart {} {version}", deployment.config.software.k0rdent.registry)).await?;
        let object = chart_object(&deployment.config);
        loop {
            match kubernetes.apply(&intent, CHART, Some(CHART_NAMESPACE), &object).await {
                Ok(()) => break,
                // k0s makes the kind known a moment after its API server is ready.
                Err(error) if error.is_not_found() || error.is_transient() => {
                    context.waiting("k0s takes charts", error.to_string());
                }
                Err(error) => return Err(refused(error)),
            }
            pause(LOOK_AGAIN).await;
        }
        context.effected(intent).await?;
    }
    let look = |charts: &std::collections::BTreeMap<String, DynamicObject>| {
        let Some(chart) = charts.get(RELEASE) else { return ControlFlow::Continue(()) };
        let status = &chart.data["status"];
        let error = status["error"].as_str().unwrap_or_default();
        if error.is_empty() && status["version"] == version.as_str() && status["releaseName"].is_string() {
            return ControlFlow::Break(status["revision"].to_string());
        }
        let seen = if error.is_empty() { "k0s has not installed it yet" } else { error };
        context.waiting(format!("k0s has installed chart {RELEASE} {version}"), seen);
        ControlFlow::Continue(())
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    let revision =
        kubernetes.follow(CHART, Some(CHART_NAMESPACE), Some(RELEASE), look, trouble).await.map_err(refused)?;
    Ok(Done::seen(format!("{RELEASE} {version}, revision {revision}")))
}

/// Waits until the Management object is ready, for its own generation, of the wanted release, with every component
/// successful. Until then, what it says about itself is the evidence.
pub(super) async fn management(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    let config = &deployment.config;
    let wanted = release_name(&config.software.k0rdent.version);
    if !config.software.k0rdent.providers.is_empty()
        && kubernetes.get(MANAGEMENT, None, MANAGEMENT_NAME).await.map_err(refused)?.is_none()
    {
        let intent =
            context.intend(format!("create Management {MANAGEMENT_NAME} with the configured providers")).await?;
        loop {
            match kubernetes.apply(&intent, MANAGEMENT, None, &management_object(config)).await {
                Ok(()) => break,
                Err(error) if error.is_not_found() || error.is_transient() => {
                    context.waiting("k0rdent takes a Management object", error.to_string());
                }
                Err(error) => return Err(refused(error)),
            }
            pause(LOOK_AGAIN).await;
        }
        context.effected(intent).await?;
    }
    let look = |objects: &std::collections::BTreeMap<String, DynamicObject>| {
        let seen = objects.get(MANAGEMENT_NAME).map(ManagementSeen::of);
        match seen {
            Some(seen) if seen.trouble(&wanted).is_none() => ControlFlow::Break(seen),
            Some(seen) => {
                context.waiting(
                    format!("Management {MANAGEMENT_NAME} is Ready with release {wanted}"),
                    seen.trouble(&wanted).unwrap_or_default(),
                );
                ControlFlow::Continue(())
            }
            None => {
                context.waiting(format!("Management {MANAGEMENT_NAME} exists"), "k0rdent has not made it yet");
                ControlFlow::Continue(())
            }
        }
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    let seen = kubernetes.follow(MANAGEMENT, None, Some(MANAGEMENT_NAME), look, trouble).await.map_err(refused)?;
    let output = serde_json::to_value(&seen).unwrap_or_default();
    Ok(Done::seen(format!("Ready, release {}, {} components", seen.release, seen.components.len())).with(output))
}

/// What the Management object says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ManagementSeen {
    /// Whether it is Ready for its own generation.
    pub ready: bool,
    /// The release that is installed.
    pub release: String,
    /// The version of that release.
    pub version: String,
    /// Its components.
    pub components: Vec<ComponentSeen>,
    /// Its own words about being ready.
    pub message: String,
}

/// One component of the Management object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ComponentSeen {
    /// Its name.
    pub name: String,
    /// Whether it is installed.
    pub success: bool,
    /// Why not, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ManagementSeen {
    /// Reads the object.
    pub fn of(object: &DynamicObject) -> Self {
        let status = &object.data["status"];
        let ready = condition(object, "Ready");
        let observed = status["observedGeneration"].as_i64();
        let components =
            status["components"].as_object().into_iter().flatten().map(|(name, component)| ComponentSeen {
                name: name.clone(),
                success: component["success"] == true,
                error: component["error"].as_str().filter(|error| !error.is_empty()).map(str::to_owned),
            });
        let release = status["release"].as_str().unwrap_or_default().to_owned();
        Self {
            ready: ready.is_some_and(|ready| ready["status"] == "True") && observed == object.metadata.generation,
            version: release.strip_prefix("kcm-").unwrap_or_default().replace('-', "."),
            release,
            components: components.collect(),
            message: ready.and_then(|ready| ready["message"].as_str()).unwrap_or("no Ready condition yet").to_owned(),
        }
    }

    /// Why this is not what was asked for; nothing if it is.
    pub fn trouble(&self, wanted: &str) -> Option<String> {
        let failing: Vec<String> = self
            .components
            .iter()
            .filter(|component| !component.success)
            .map(|component| {
                format!("component {}: {}", component.name, component.error.as_deref().unwrap_or("not successful"))
            })
            .collect();
        if !failing.is_empty() {
            return Some(failing.join("; "));
        }
        if !self.ready {
            return Some(self.message.clone());
        }
        (self.release != wanted).then(|| format!("its release is {:?}, not {wanted:?}", self.release))
    }
}

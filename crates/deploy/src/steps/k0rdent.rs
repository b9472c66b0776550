//! k0rdent: its chart, installed by k0s's own Helm controller, and the Management object that says whether all is well.

use std::{ops::ControlFlow, sync::Mutex};

use engine::{Context, Done, Failure, pause};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{
    k0s::refused,
    releases::{self, GivenUp, on_one_line},
};
use crate::{
    config::Config,
    deployment::{Deployment, LOOK_AGAIN},
    kubernetes::{CHART, MANAGEMENT, condition},
    seam::lock,
    words::count,
    yaml::yaml,
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
            "values": yaml(&values),
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
/// successful. Until then, what it says about itself is the evidence, and what Flux has given up because of a late webhook
/// is tried again.
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
    let given_up = GivenUp::default();
    let not_yet = || (format!("Management {MANAGEMENT_NAME} exists"), "k0rdent has not made it yet".to_owned());
    let waits_for = Mutex::new(not_yet());
    let tell = || {
        let (condition, evidence) = lock(&waits_for).clone();
        let given_up: Vec<String> = lock(&given_up).values().cloned().chain([evidence]).collect();
        context.waiting(condition, given_up.join("; "));
    };
    let mut recorded = None;
    let look = |objects: &std::collections::BTreeMap<String, DynamicObject>| {
        let seen = objects.get(MANAGEMENT_NAME).map(ManagementSeen::of);
        if let Some(seen) = seen.as_ref().filter(|seen| recorded.as_ref() != Some(*seen)) {
            // Whoever asks later is to know how far it came, however this ends.
            if let Err(failure) = seen.record(context) {
                return ControlFlow::Break(Err(failure));
            }
            recorded = Some(seen.clone());
        }
        match seen {
            Some(seen) if seen.trouble(&wanted).is_none() => ControlFlow::Break(Ok(seen)),
            seen => {
                *lock(&waits_for) = seen.map_or_else(not_yet, |seen| {
                    let condition = format!("Management {MANAGEMENT_NAME} is Ready with release {wanted}");
                    (condition, seen.trouble(&wanted).unwrap_or_default())
                });
                tell();
                ControlFlow::Continue(())
            }
        }
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    let seen = tokio::select! {
        biased;
        seen = kubernetes.follow(MANAGEMENT, None, Some(MANAGEMENT_NAME), look, trouble) => seen.map_err(refused)??,
        failure = releases::follow(deployment, context, &given_up, tell) => return failure.map(|never| match never {}),
    };
    let output = serde_json::to_value(&seen).unwrap_or_default();
    Ok(Done::seen(format!("Ready, release {}, {}", seen.release, count(seen.components.len(), "component")))
        .with(output))
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
    /// Whether it is being deleted.
    #[serde(default)]
    pub deleting: bool,
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

/// What is settled about the Management object: what it said last.
pub(crate) const SEEN: &str = "management";

impl ManagementSeen {
    /// Records what it says.
    pub(crate) fn record(&self, context: &Context<'_>) -> Result<(), Failure> {
        context.settle(SEEN, serde_json::to_value(self).unwrap_or_default())
    }

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
            deleting: object.metadata.deletion_timestamp.is_some(),
            message: ready.and_then(|ready| ready["message"].as_str()).unwrap_or("no Ready condition yet").to_owned(),
        }
    }

    /// Why this is not what was asked for; nothing if it is.
    pub fn trouble(&self, wanted: &str) -> Option<String> {
        if self.deleting {
            return Some("it is being deleted".to_owned());
        }
        let failing: Vec<&ComponentSeen> = self.components.iter().filter(|component| !component.success).collect();
        if let [first, others @ ..] = failing.as_slice() {
            let (all, ready) = (self.components.len(), self.components.len() - failing.len());
            let why = on_one_line(first.error.as_deref().unwrap_or("not successful"));
            let others: Vec<&str> = others.iter().map(|component| component.name.as_str()).collect();
            let others = if others.is_empty() { String::new() } else { format!("; then {}", others.join(", ")) };
            return Some(format!("{ready} of {all} components are ready; component {}: {why}{others}", first.name));
        }
        if !self.ready {
            return Some(self.message.clone());
        }
        (self.release != wanted).then(|| format!("its release is {:?}, not {wanted:?}", self.release))
    }
}

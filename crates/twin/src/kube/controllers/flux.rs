//! Flux's helm-controller, as far as kcm needs it: a HelmRelease for each component of the Management.
//!
//! Whether a component is installed is decided in [`super::kcm`]. Here is what its HelmRelease says about that, how often an
//! install is tried, and how Flux is asked to begin again.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    super::{
        cluster::Cluster,
        object::{
            has_finalizer, is_terminating, list, name, namespace, remove_finalizer, set, set_condition, text, unset,
        },
        store::{Change, ObjectKey, Verb},
    },
    catalogue,
};

/// The id of the HelmRelease type.
pub(super) const HELM_RELEASES: &str = "helmreleases.helm.toolkit.fluxcd.io";
/// Holds a HelmRelease until its release is uninstalled (Flux source).
const FINALIZER: &str = "finalizers.fluxcd.io";
/// kcm's Flux sees only what carries it, and a Management that goes takes all of these with it (kcm source).
const MANAGED: &str = "k0rdent.mirantis.com/managed";
/// How often a failed install is tried again before Flux gives it up (kcm source: `retries`).
pub(super) const RETRIES: u64 = 3;
/// From one try whose webhook is late until the next has come to nothing as well: the API server waits 10 s for the
/// webhook, then Helm removes what it has made (kcm issue 1094; guess).
pub(super) const TRY: Duration = Duration::from_secs(15);

/// How far a component has come.
#[derive(Debug)]
pub(super) enum State {
    /// It is installed.
    Ready,
    /// Helm is installing it.
    Installing,
    /// It waits for another component.
    Waiting(&'static str),
    /// So many tries have failed, and why.
    Failed(u64, String),
}

impl State {
    /// What Flux says about it; nothing if it is installed.
    pub(super) fn message(&self, component: &str, space: &str, template: &str) -> Option<String> {
        match self {
            Self::Ready => None,
            Self::Installing => Some("Running 'install' action with timeout of 20m0s".to_owned()),
            Self::Waiting(other) => Some(format!("dependency '{space}/{other}' is not ready")),
            Self::Failed(_, why) => Some(format!(
                "Helm install failed for release {space}/{component} with chart {}: {why}",
                chart(template)
            )),
        }
    }
}

/// What Helm says when a chart's objects cannot be made because a webhook does not answer in time (kcm issue 1094).
pub(super) fn late_webhook(component: &str, space: &str) -> String {
    let kind = if component == "capi" { "coreprovider" } else { "infrastructureprovider" };
    let path = format!("/mutate-operator-cluster-x-k8s-io-v1alpha2-{kind}?timeout=10s");
    let url = format!("https://capi-operator-webhook-service.{space}.svc:443{path}");
    format!(
        "1 error occurred:\n\t* Internal error occurred: failed calling webhook \"v{kind}.kb.io\": failed to call webhook: Post \"{url}\": dial tcp 10.96.119.28:443: i/o timeout"
    )
}

/// A chart with its version, as Flux writes it.
fn chart(template: &str) -> String {
    let (chart, version) = catalogue::split_template_name(template);
    format!("{chart}@{version}")
}

/// The HelmReleases in kcm's namespace.
pub(super) fn releases(cluster: &Cluster, space: &str) -> Vec<Arc<Value>> {
    let here = cluster.store.iter(HELM_RELEASES).filter(|(key, _)| key.0 == space);
    here.map(|(_, release)| release.clone()).collect()
}

/// Whether somebody wants something of Flux: its own reports do not wake it.
pub(super) fn is_wanted(change: &Change) -> bool {
    let annotations = |release: &Value| release["metadata"]["annotations"].clone();
    match (change.verb, &change.previous) {
        (Verb::Modified, Some(before)) => {
            annotations(before) != annotations(&change.object)
                || is_terminating(before) != is_terminating(&change.object)
        }
        (verb, _) => verb == Verb::Deleted,
    }
}

/// What was asked of Flux since it looked last.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Components whose HelmRelease was deleted: kcm makes it anew (kcm issue 1094).
    pub(super) deleted: Vec<String>,
    /// Components whose failures are to be forgotten.
    pub(super) reset: Vec<String>,
}

/// Does what was asked for by annotations: with a new `reconcile.fluxcd.io/requestedAt`, Flux acts; if a new `resetAt` has
/// the same value, it forgets its failures (Flux documentation, HelmRelease, resetting remediation retries). `forceAt` is
/// not imitated.
pub(super) fn heed(cluster: &mut Cluster, space: &str) -> Asked {
    let mut asked = Asked::default();
    for release in releases(cluster, space) {
        let component = name(&release).to_owned();
        let key: ObjectKey = (space.to_owned(), component.clone());
        if is_terminating(&release) {
            cluster.modify(HELM_RELEASES, &key, |release| remove_finalizer(release, FINALIZER));
            asked.deleted.push(component);
            continue;
        }
        let annotation = |name: &str| release["metadata"]["annotations"][format!("reconcile.fluxcd.io/{name}")].clone();
        let (requested, reset) = (annotation("requestedAt"), annotation("resetAt"));
        if requested.is_null() || requested == release["status"]["lastHandledReconcileAt"] {
            continue;
        }
        let begins_again = reset == requested && reset != release["status"]["lastHandledResetAt"];
        if begins_again {
            asked.reset.push(component);
        }
        cluster.modify(HELM_RELEASES, &key, |release| {
            set(release, &["status", "lastHandledReconcileAt"], requested);
            if !reset.is_null() {
                set(release, &["status", "lastHandledResetAt"], reset);
            }
            // Nobody sees a release that is being tried and given up at the same time.
            if begins_again {
                let rest = list(release, "/status/conditions").iter().filter(|each| text(each, "/type") != "Stalled");
                let rest = rest.cloned().collect();
                set(release, &["status", "conditions"], Value::Array(rest));
            }
        });
    }
    asked
}

/// Makes the HelmRelease of a component, and has it say how far that has come (Flux documentation, HelmRelease,
/// conditions; Flux source; kcm source).
pub(super) fn show(cluster: &mut Cluster, space: &str, component: &str, template: &str, state: &State) {
    let depends_on = match component {
        "kcm" => None,
        "capi" => Some("kcm"),
        _ => Some("capi"),
    };
    let mut spec = json!({
        "chartRef": {"kind": "HelmChart", "name": template, "namespace": space},
        "install": {"remediation": {"retries": RETRIES, "remediateLastFailure": true}},
        "interval": "10m0s",
        "releaseName": component,
    });
    if let Some(other) = depends_on {
        spec["dependsOn"] = json!([{"name": other}]);
    }
    let labels = json!({MANAGED: "true"});
    let metadata = json!({"name": component, "namespace": space, "labels": labels, "finalizers": [FINALIZER]});
    cluster.ensure(HELM_RELEASES, json!({"metadata": metadata, "spec": spec.clone()}));
    let now = cluster.now.clone();
    cluster.modify(HELM_RELEASES, &(space.to_owned(), component.to_owned()), |release| {
        set(release, &["spec"], spec);
        report(release, template, state, &now);
    });
}

/// What a HelmRelease says about itself.
fn report(release: &mut Value, template: &str, state: &State, now: &str) {
    let (space, component) = (namespace(release).to_owned(), name(release).to_owned());
    let (full, chart_name) = (format!("{space}/{component}.v1"), chart(template));
    let message = state
        .message(&component, &space, template)
        .unwrap_or_else(|| format!("Helm install succeeded for release {full} with chart {chart_name}"));
    let failed = |tries: u64| format!("Failed to install after {tries} attempt(s)");
    let removed = || format!("Helm uninstall remediation for release {full} with chart {chart_name} succeeded");
    let conditions: Vec<(&str, &str, &str, String)> = match state {
        State::Ready => vec![
            ("Ready", "True", "InstallSucceeded", message.clone()),
            ("Released", "True", "InstallSucceeded", message),
        ],
        State::Installing => {
            vec![("Reconciling", "True", "Progressing", message.clone()), ("Ready", "Unknown", "Progressing", message)]
        }
        State::Waiting(_) => vec![
            ("Reconciling", "True", "Progressing", "Fulfilling prerequisites".to_owned()),
            ("Ready", "False", "DependencyNotReady", message),
        ],
        State::Failed(tries, _) => {
            let next = if *tries > RETRIES {
                ("Stalled", "True", "RetriesExceeded", failed(*tries))
            } else {
                ("Reconciling", "True", "ProgressingWithRetry", message.clone())
            };
            vec![
                next,
                ("Ready", "False", "InstallFailed", message.clone()),
                ("Released", "False", "InstallFailed", message),
                ("Remediated", "True", "UninstallSucceeded", removed()),
            ]
        }
    };
    let is_said = |condition: &Value| conditions.iter().any(|(kind, ..)| *kind == text(condition, "/type"));
    let said = list(release, "/status/conditions").iter().filter(|condition| is_said(condition)).cloned();
    let said = Value::Array(said.collect());
    set(release, &["status", "conditions"], said);
    for (kind, status, reason, message) in &conditions {
        set_condition(release, kind, status, reason, message, now);
    }
    let generation = release["metadata"]["generation"].clone();
    for condition in release["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["observedGeneration"] = generation.clone();
    }
    // The generation counts as observed when Flux has come to an end with it, good or bad (Flux documentation).
    if matches!(state, State::Ready) || matches!(state, State::Failed(tries, _) if *tries > RETRIES) {
        set(release, &["status", "observedGeneration"], generation);
    }
    set(release, &["status", "lastAttemptedReleaseAction"], json!("install"));
    match state {
        State::Failed(tries, _) => {
            set(release, &["status", "installFailures"], json!(tries));
            set(release, &["status", "failures"], json!(tries));
        }
        _ => {
            unset(release, &["status", "installFailures"]);
            unset(release, &["status", "failures"]);
        }
    }
}

/// The HelmRelease of a component that is not wanted any more.
pub(super) fn forget(cluster: &mut Cluster, space: &str, component: &str) {
    cluster.remove(HELM_RELEASES, &(space.to_owned(), component.to_owned()));
}

fn managed(cluster: &Cluster) -> Vec<ObjectKey> {
    let all = cluster.store.iter(HELM_RELEASES);
    let is_managed = |release: &Value| release["metadata"]["labels"][MANAGED] == "true";
    all.filter(|(_, release)| is_managed(release)).map(|(key, _)| key.clone()).collect()
}

/// The Management goes: kcm suspends its own HelmRelease, so that it is not uninstalled by itself, and deletes all of them,
/// in whatever namespace (kcm source).
pub(super) fn begin_to_go(cluster: &mut Cluster) {
    for key in managed(cluster) {
        if key.1 == "kcm" {
            cluster.modify(HELM_RELEASES, &key, |release| set(release, &["spec", "suspend"], json!(true)));
        }
        cluster.discard(HELM_RELEASES, &key);
    }
}

/// Flux has uninstalled them, and lets go of those that it holds itself.
pub(super) fn let_go(cluster: &mut Cluster) {
    for key in managed(cluster) {
        let held = cluster.store.get(HELM_RELEASES, &key.0, &key.1);
        if held.is_some_and(|release| is_terminating(&release) && has_finalizer(&release, FINALIZER)) {
            cluster.modify(HELM_RELEASES, &key, |release| remove_finalizer(release, FINALIZER));
        }
    }
}

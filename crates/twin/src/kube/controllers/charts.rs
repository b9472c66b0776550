//! k0s' Helm controller: Chart objects become releases.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{
    super::{
        ClusterId,
        cluster::{Cluster, digest, enter},
        object::{add_finalizer, has_finalizer, is_terminating, remove_finalizer, set, text},
        store::ObjectKey,
    },
    Job, kcm, nodes, schedule,
};
use crate::{Latency, World};

/// The id of the Chart type.
pub(super) const CHARTS: &str = "charts.helm.k0sproject.io";
/// Holds a Chart until its release is uninstalled (k0s source).
const FINALIZER: &str = "helm.k0sproject.io/uninstall-helm-release";

static VERSION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$").ok());

/// What has become of a Chart.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(in super::super) struct Installation {
    /// What is or was last tried.
    wanted: Value,
    /// An install or uninstall is under way.
    is_busy: bool,
    /// How often it has been installed or upgraded.
    revision: u64,
}

impl Installation {
    /// As it is for k0s when it starts again: what was under way is tried once more.
    pub(in super::super) fn interrupted(self) -> Self {
        let wanted = if self.is_busy { Value::Null } else { self.wanted };
        Self { wanted, is_busy: false, revision: self.revision }
    }
}

/// Nodes have changed: what waits for one may begin.
pub(super) fn nodes_changed(world: &mut World, id: ClusterId) {
    let Some(cluster) = world.clusters.by_id.get(&id) else { return };
    let is_waiting = |key: &ObjectKey| {
        cluster.installations.get(key).is_none_or(|installation| installation.revision == 0 && !installation.is_busy)
    };
    let waiting: Vec<ObjectKey> =
        cluster.store.iter(CHARTS).map(|(key, _)| key).filter(|key| is_waiting(key)).cloned().collect();
    for key in waiting {
        schedule(world, id, Job::Chart(key));
    }
}

/// Brings a Chart a step closer to what is wanted.
pub(super) fn reconcile(world: &mut World, id: ClusterId, key: &ObjectKey) {
    let step = enter(world, id, "world", |cluster| next_step(cluster, key)).flatten();
    let label = format!("cluster {id} {}/{}", key.0, key.1);
    let key = key.clone();
    match step {
        Some(Step::Install(revision)) => {
            let delay = world.latency(Latency::KcmChart, &format!("{label} {revision}"));
            world.after(delay, move |world| finish_installation(world, id, &key));
        }
        Some(Step::Uninstall) => {
            let delay = world.latency(Latency::ChartUninstall, &label);
            world.after(delay, move |world| finish_uninstallation(world, id, &key));
        }
        None => {}
    }
}

/// How long it takes to install each chart that is there, for the first time; the longest counts.
pub(crate) fn installation(world: &World, id: ClusterId) -> std::time::Duration {
    let Some(cluster) = world.clusters.by_id.get(&id) else { return std::time::Duration::ZERO };
    let label = |key: &ObjectKey| format!("cluster {id} {}/{} 0", key.0, key.1);
    let charts = cluster.store.iter(CHARTS).map(|(key, _)| world.latency(Latency::KcmChart, &label(key)));
    charts.max().unwrap_or_default()
}

enum Step {
    /// Helm installs or upgrades; how often it has before.
    Install(u64),
    /// Helm uninstalls.
    Uninstall,
}

fn next_step(cluster: &mut Cluster, key: &ObjectKey) -> Option<Step> {
    let Some(chart) = cluster.store.get(CHARTS, &key.0, &key.1) else {
        cluster.installations.remove(key);
        return None;
    };
    // k0s watches one namespace only (k0s documentation).
    if key.0 != "kube-system" || cluster.installations.get(key).is_some_and(|installation| installation.is_busy) {
        return None;
    }
    let revision = cluster.installations.get(key).map_or(0, |installation| installation.revision);
    if is_terminating(&chart) {
        if !has_finalizer(&chart, FINALIZER) {
            return None;
        }
        if revision == 0 {
            cluster.modify(CHARTS, key, |chart| remove_finalizer(chart, FINALIZER));
            return None;
        }
        cluster.installations.entry(key.clone()).or_default().is_busy = true;
        return Some(Step::Uninstall);
    }
    cluster.modify(CHARTS, key, |chart| add_finalizer(chart, FINALIZER));
    let wanted = chart["spec"].clone();
    if cluster.installations.get(key).is_some_and(|installation| installation.wanted == wanted) {
        return None;
    }
    if let Err(error) = check(&wanted) {
        fail(cluster, key, wanted, &error);
        return None;
    }
    // Helm waits for the chart's pods, and they wait for a node.
    if nodes::schedulable(cluster).is_empty() {
        return None;
    }
    let installation = cluster.installations.entry(key.clone()).or_default();
    installation.wanted = wanted;
    installation.is_busy = true;
    Some(Step::Install(revision))
}

fn fail(cluster: &mut Cluster, key: &ObjectKey, wanted: Value, error: &str) {
    cluster.installations.entry(key.clone()).or_default().wanted = wanted;
    let now = go_time(&cluster.now);
    cluster.modify(CHARTS, key, |chart| {
        set(chart, &["status", "error"], json!(error));
        set(chart, &["status", "updated"], json!(now));
    });
}

/// What Helm would refuse at once: the world has one chart, in any registry.
fn check(spec: &Value) -> Result<(), String> {
    let (chart, version) = (text(spec, "/chartName"), text(spec, "/version"));
    if !VERSION.as_ref().is_none_or(|pattern| pattern.is_match(version)) {
        return Err(format!("can't locate chart `{chart}-{version}`: improper constraint: {version}"));
    }
    if chart.rsplit('/').next() != Some("kcm") || !chart.starts_with("oci://") {
        return Err(format!("can't locate chart `{chart}-{version}`: failed to pull {chart}:{version}: not found"));
    }
    parse_values(spec).map(|_| ()).map_err(|error| format!("failed to parse values: {error}"))
}

/// The values, which are YAML in a string.
pub(super) fn parse_values(spec: &Value) -> Result<Value, String> {
    match text(spec, "/values").trim() {
        "" => Ok(json!({})),
        values => serde_saphyr::from_str(values).map_err(|error| error.to_string()),
    }
}

fn finish_installation(world: &mut World, id: ClusterId, key: &ObjectKey) {
    let spec = enter(world, id, "world", |cluster| {
        let installation = cluster.installations.get_mut(key)?;
        installation.is_busy = false;
        installation.revision += 1;
        Some((installation.wanted.clone(), installation.revision))
    });
    let Some((spec, revision)) = spec.flatten() else { return };
    let release_name = match text(&spec, "/releaseName") {
        "" => format!(
            "{}-{}",
            text(&spec, "/chartName").rsplit('/').next().unwrap_or_default(),
            world.utc().unix_timestamp()
        ),
        name => name.to_owned(),
    };
    kcm::install(world, id, key, &spec, &release_name, revision);
    enter(world, id, "world", |cluster| {
        let now = go_time(&cluster.now);
        let version = text(&spec, "/version").trim_start_matches('v').to_owned();
        cluster.modify(CHARTS, key, |chart| {
            let status = json!({
                "releaseName": release_name, "namespace": target_namespace(&spec), "version": version,
                "appVersion": version, "revision": revision, "updated": now,
                "valuesHash": digest(text(&spec, "/values"), 64),
            });
            set(chart, &["status"], status);
        });
    });
    // Whatever has happened to the Chart in the meantime.
    schedule(world, id, Job::Chart(key.clone()));
}

/// Where the release goes.
pub(super) fn target_namespace(spec: &Value) -> String {
    match text(spec, "/namespace") {
        "" => "default".into(),
        namespace => namespace.into(),
    }
}

fn finish_uninstallation(world: &mut World, id: ClusterId, key: &ObjectKey) {
    kcm::uninstall(world, id, key);
    enter(world, id, "world", |cluster| {
        cluster.installations.remove(key);
        cluster.modify(CHARTS, key, |chart| remove_finalizer(chart, FINALIZER));
    });
}

/// As Go prints a time, which is how k0s writes `status.updated` (k0s source).
fn go_time(timestamp: &str) -> String {
    let Ok(time) = time::OffsetDateTime::parse(timestamp, &Rfc3339) else { return timestamp.to_owned() };
    let pattern = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    time.format(pattern).unwrap_or_else(|_| timestamp.to_owned())
}

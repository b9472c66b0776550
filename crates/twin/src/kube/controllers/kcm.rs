//! kcm: the chart's contents, the Management object and its components, ClusterDeployments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::{
        ClusterId,
        cluster::{Cluster, enter},
        object::{add_finalizer, has_finalizer, is_terminating, list, remove_finalizer, set, set_condition, text},
        store::ObjectKey,
        types::DEFINITIONS,
    },
    catalogue, charts, children,
    flux::{self, State},
};
use crate::{Fault, FaultKind, Latency, World};

/// The ids of kcm's types.
pub(in super::super) const MANAGEMENTS: &str = "managements.k0rdent.mirantis.com";
pub(in super::super) const CLUSTER_DEPLOYMENTS: &str = "clusterdeployments.k0rdent.mirantis.com";
pub(in super::super) const REGIONS: &str = "regions.k0rdent.mirantis.com";
const RELEASES: &str = "releases.k0rdent.mirantis.com";

const MANAGEMENT_FINALIZER: &str = "k0rdent.mirantis.com/management";
const CREDENTIALS: &str = "credentials.k0rdent.mirantis.com";
const CREDENTIAL_FINALIZER: &str = "k0rdent.mirantis.com/credential";
/// How often kcm looks at its Management (guess; kcm requeues after 10 s while something is missing).
const TICK: Duration = Duration::from_secs(10);
/// What a Management shows that has been given another release than the wanted one.
const WRONG_RELEASE: &str = "kcm-0-0-1";
/// kcm's controllers, while their chart is installed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Kcm {
    chart: ObjectKey,
    release_name: String,
    namespace: String,
    /// When each component is installed, unless a fault is in the way.
    #[serde(skip)]
    due: BTreeMap<String, Duration>,
    /// Components whose deployments are there.
    installed: BTreeSet<String>,
    /// How many tries to install a component have failed since Flux began to count, until one succeeds.
    failures: BTreeMap<String, u64>,
    /// The release that the components are of.
    release: String,
    /// The release that was wanted before a fault put another in its place.
    displaced_release: Option<String>,
    #[serde(skip)]
    is_deleting: bool,
    /// What the last look was at, and until when another at the same would find what it found.
    #[serde(skip)]
    seen: Option<(Sight, Option<Duration>)>,
}

/// All that kcm decides by, besides the time.
#[derive(Debug, Clone, PartialEq)]
struct Sight {
    management: Arc<Value>,
    release: Option<Arc<Value>>,
    /// The HelmReleases: others ask Flux for things by their annotations.
    helm_releases: Vec<Arc<Value>>,
    faults: Vec<Fault>,
}

/// kcm starts again: what was installed is there.
pub(in super::super) fn resume(world: &mut World, id: ClusterId) {
    if let Some(kcm) = world.clusters.by_id.get_mut(&id).and_then(|cluster| cluster.kcm.as_mut()) {
        kcm.due = kcm.installed.iter().map(|component| (component.clone(), Duration::ZERO)).collect();
        tick(world, id);
    }
}

/// The chart is installed or upgraded.
pub(super) fn install(
    world: &mut World,
    id: ClusterId,
    chart: &ObjectKey,
    spec: &Value,
    release_name: &str,
    revision: u64,
) {
    let namespace = charts::target_namespace(spec);
    let version = text(spec, "/version").trim_start_matches('v').to_owned();
    let values = charts::parse_values(spec).unwrap_or_default();
    let enabled = |key: &str| values["controller"][key] != false;
    let is_new = enter(world, id, "world", |cluster| {
        cluster.ensure("namespaces", json!({"metadata": {"name": namespace}}));
        for definition in catalogue::KCM_DEFINITIONS.iter() {
            cluster.ensure(DEFINITIONS, definition.clone());
        }
        for deployment in catalogue::CHART_DEPLOYMENTS {
            cluster.ensure("deployments.apps", catalogue::deployment_object(&namespace, deployment, release_name));
        }
        cluster.ensure("secrets", catalogue::helm_secret(&namespace, release_name, revision));
        for kind in ["mutating", "validating"] {
            let webhooks = json!({"metadata": {
                "name": format!("kcm-{kind}-webhook-configuration"), "labels": {catalogue::RELEASE_LABEL: release_name},
            }});
            cluster.ensure(&format!("{kind}webhookconfigurations.admissionregistration.k8s.io"), webhooks);
        }
        if enabled("createRelease") {
            create_release(cluster, &version);
        }
        if enabled("createTemplates") {
            create_templates(cluster, &namespace, &version);
        }
        if enabled("createManagement") {
            create_management(cluster, &version, &values);
        }
        if enabled("createAccessManagement") {
            cluster.ensure("accessmanagements.k0rdent.mirantis.com", json!({"metadata": {"name": "kcm"}, "spec": {}}));
        }
        let is_new = cluster.kcm.is_none();
        cluster.kcm.get_or_insert_with(|| Kcm {
            chart: chart.clone(),
            release_name: release_name.to_owned(),
            namespace: namespace.clone(),
            due: BTreeMap::new(),
            installed: BTreeSet::new(),
            failures: BTreeMap::new(),
            release: String::new(),
            displaced_release: None,
            is_deleting: false,
            seen: None,
        });
        is_new
    });
    if is_new == Some(true) {
        tick(world, id);
    }
}

/// Looks at the Management again and again, for as long as kcm lives: time passes and faults come and go.
fn tick(world: &mut World, id: ClusterId) {
    if world.clusters.by_id.get(&id).is_some_and(|cluster| cluster.kcm.is_some()) {
        reconcile(world, id);
        children::reconcile_all(world, id);
        world.after(world.hastened(TICK), move |world| tick(world, id));
    }
}

/// The chart is uninstalled: the controllers go, CRDs, templates and custom resources stay (kcm source).
pub(super) fn uninstall(world: &mut World, id: ClusterId, chart: &ObjectKey) {
    let is_stuck = world.faults.holds(FaultKind::FinalizerStuck, "kcm");
    enter(world, id, "world", |cluster| {
        let Some(kcm) = cluster.kcm.take_if(|kcm| kcm.chart == *chart) else { return };
        discard_labelled(cluster, &kcm.release_name);
        if is_stuck {
            let reference = json!({"kind": "AzureClusterIdentity", "name": "left", "namespace": kcm.namespace});
            let metadata = json!({"name": "left", "namespace": kcm.namespace, "finalizers": [CREDENTIAL_FINALIZER]});
            cluster.ensure(CREDENTIALS, json!({"metadata": metadata, "spec": {"identityRef": reference}}));
        }
    });
}

fn discard_labelled(cluster: &mut Cluster, release_name: &str) {
    let is_meant = |object: &Value| object["metadata"]["labels"][catalogue::RELEASE_LABEL] == release_name;
    let meant: Vec<(String, ObjectKey)> = cluster
        .store
        .everything()
        .filter(|(kind, _, object)| *kind != "pods" && *kind != "replicasets.apps" && is_meant(object))
        .map(|(kind, key, _)| (kind.clone(), key.clone()))
        .collect();
    for (kind, key) in meant {
        cluster.discard(&kind, &key);
    }
}

fn create_release(cluster: &mut Cluster, version: &str) {
    let release_name = format!("kcm-{}", catalogue::dashed(version));
    let now = cluster.now.clone();
    let mut release = json!({
        "metadata": {"name": release_name, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": catalogue::release_spec(version),
        "status": {"ready": true, "observedGeneration": 1},
    });
    for (kind, message) in
        [("TemplatesCreated", "All templates have been created"), ("TemplatesValid", "All templates are valid")]
    {
        set_condition(&mut release, kind, "True", "Succeeded", message, &now);
    }
    cluster.ensure(RELEASES, release);
}

fn create_templates(cluster: &mut Cluster, namespace: &str, version: &str) {
    let dashed = catalogue::dashed(version);
    let template = |name: &str, space: Option<&str>| {
        let mut metadata = json!({"name": name, "annotations": {"helm.sh/resource-policy": "keep"}});
        if let Some(space) = space {
            metadata["namespace"] = json!(space);
        }
        let (chart, chart_version) = catalogue::split_template_name(name);
        json!({
            "metadata": metadata,
            "spec": {"helm": {"chartSpec": {
                "chart": chart, "version": chart_version, "interval": "10m0s", "reconcileStrategy": "ChartVersion",
                "sourceRef": {"kind": "HelmRepository", "name": "kcm-templates"},
            }}},
            "status": {
                "valid": true, "observedGeneration": 1, "chartVersion": chart_version,
                "chartRef": {"kind": "HelmChart", "name": name, "namespace": namespace},
            },
        })
    };
    let own = [format!("kcm-{dashed}"), format!("kcm-regional-{dashed}"), catalogue::CAPI_TEMPLATE.to_owned()];
    for name in own.iter().map(String::as_str).chain(catalogue::PROVIDERS.iter().map(|(_, name, ..)| *name)) {
        cluster.ensure("providertemplates.k0rdent.mirantis.com", template(name, None));
    }
    for name in catalogue::cluster_templates(version) {
        cluster.ensure("clustertemplates.k0rdent.mirantis.com", template(name, Some(namespace)));
    }
}

fn create_management(cluster: &mut Cluster, version: &str, values: &Value) {
    let providers: Vec<Value> = catalogue::PROVIDERS.iter().map(|(name, ..)| json!({"name": name})).collect();
    let mut spec = json!({"release": format!("kcm-{}", catalogue::dashed(version)), "providers": providers});
    if values.as_object().is_some_and(|values| !values.is_empty()) {
        spec["core"] = json!({"kcm": {"config": values}, "capi": {}});
    }
    cluster.ensure(MANAGEMENTS, json!({"metadata": {"name": "kcm"}, "spec": spec}));
}

/// What is in the way of things, as of now.
struct Faults {
    failing: BTreeSet<String>,
    /// Components that Flux tries to install now, and whether that fails because a webhook is late.
    tries: BTreeMap<String, bool>,
    /// From one such try to the next.
    pause: Duration,
    never_ready: bool,
    wrong_release: bool,
}

/// Brings the Management a step closer to what is wanted.
pub(super) fn reconcile(world: &mut World, id: ClusterId) {
    let Some(cluster) = world.clusters.by_id.get(&id) else { return };
    let (Some(kcm), Some(management)) = (&cluster.kcm, cluster.store.get(MANAGEMENTS, "", "kcm")) else { return };
    if is_terminating(&management) {
        if !kcm.is_deleting && has_finalizer(&management, MANAGEMENT_FINALIZER) {
            delete(world, id);
        }
        return;
    }
    let release = kcm.displaced_release.as_deref().unwrap_or_else(|| text(&management, "/spec/release"));
    let sight = Sight {
        release: cluster.store.get(RELEASES, "", release),
        helm_releases: flux::releases(cluster, &kcm.namespace),
        faults: world.faults.active.clone(),
        management,
    };
    let now = world.now;
    if kcm.seen.as_ref().is_some_and(|(seen, until)| *seen == sight && until.is_none_or(|until| now < until)) {
        return;
    }
    let components = components(&sight.management, sight.release.as_deref());
    let offsets: BTreeMap<String, Duration> =
        components.keys().map(|component| (component.clone(), installation_time(world, id, component))).collect();
    let tries = tries(world, id, &components);
    let faults = Faults {
        tries,
        pause: world.hastened(flux::TRY),
        failing: components
            .keys()
            .filter(|component| world.faults.holds(FaultKind::ComponentFailure, component))
            .cloned()
            .collect(),
        never_ready: world.faults.holds(FaultKind::ManagementNotReady, "kcm"),
        wrong_release: world.faults.holds(FaultKind::WrongRelease, "kcm"),
    };
    enter(world, id, "world", |cluster| {
        let Some(mut kcm) = cluster.kcm.take() else { return };
        report(cluster, &mut kcm, &components, &offsets, &faults, now);
        kcm.seen = Some((sight, kcm.due.values().copied().filter(|due| *due > now).min()));
        cluster.kcm = Some(kcm);
    });
}

/// The components that Flux tries to install now, each with whether a webhook that is late makes that fail. kcm itself is
/// there already. A fault is used up when the last of the tries has failed.
fn tries(world: &mut World, id: ClusterId, components: &BTreeMap<String, String>) -> BTreeMap<String, bool> {
    let Some(kcm) = world.clusters.by_id.get(&id).and_then(|cluster| cluster.kcm.as_ref()) else {
        return BTreeMap::new();
    };
    let failures = |component: &str| kcm.failures.get(component).copied().unwrap_or_default();
    let is_due = |component: &str| kcm.due.get(component).is_some_and(|&due| world.now >= due);
    let is_tried = |component: &str| {
        let may = component == "capi" || kcm.installed.contains("capi");
        component != "kcm" && may && is_due(component) && !kcm.installed.contains(component)
    };
    let trying = components.keys().filter(|component| is_tried(component) && failures(component) <= flux::RETRIES);
    let trying: Vec<(String, u64)> = trying.map(|component| (component.clone(), failures(component))).collect();
    let mut fails = |component: &str, failures: u64| match failures < flux::RETRIES {
        true => world.faults.holds(FaultKind::LateWebhook, component),
        false => world.faults.strikes(FaultKind::LateWebhook, component),
    };
    trying.into_iter().map(|(component, failures)| (component.clone(), fails(&component, failures))).collect()
}

/// The components of a Management with their templates: kcm, capi, and the providers it names.
fn components(management: &Value, release: Option<&Value>) -> BTreeMap<String, String> {
    let of_release = |path: &str| release.map(|release| text(release, path).to_owned()).unwrap_or_default();
    let mut components = BTreeMap::from([
        ("kcm".to_owned(), of_release("/spec/kcm/template")),
        ("capi".to_owned(), of_release("/spec/capi/template")),
    ]);
    for provider in list(management, "/spec/providers") {
        let name = text(provider, "/name");
        let template = match text(provider, "/template") {
            "" => release
                .iter()
                .flat_map(|release| list(release, "/spec/providers"))
                .find(|each| text(each, "/name") == name)
                .map_or("", |each| text(each, "/template")),
            template => template,
        };
        components.insert(name.to_owned(), template.to_owned());
    }
    components
}

/// How long a component's own installation takes: kcm is there, Cluster API is small, the providers come after it. All
/// together end 5 to 10 minutes after the chart (k0rdent documentation).
fn installation_time(world: &World, id: ClusterId, component: &str) -> Duration {
    let drawn = || world.latency(Latency::KcmComponent, &format!("cluster {id} {component}"));
    match component {
        "kcm" => Duration::ZERO,
        "capi" => drawn() / 3,
        _ => drawn(),
    }
}

/// How long it takes from the installed chart until the last component is there, if nothing goes wrong.
pub(crate) fn installation_path(world: &World, id: ClusterId) -> Duration {
    let Some(cluster) = world.clusters.by_id.get(&id) else { return Duration::ZERO };
    let Some(management) = cluster.store.get(MANAGEMENTS, "", "kcm") else { return Duration::ZERO };
    let release = cluster.store.get(RELEASES, "", text(&management, "/spec/release"));
    let components = components(&management, release.as_deref());
    let longest = components.keys().filter(|name| *name != "capi").map(|name| installation_time(world, id, name)).max();
    let installed = installation_time(world, id, "capi") + longest.unwrap_or_default();
    // The Management object says so when its controller looks the next time.
    let tick = world.hastened(TICK);
    tick * u32::try_from(installed.as_millis().div_ceil(tick.as_millis())).unwrap_or_default()
}

fn report(
    cluster: &mut Cluster,
    kcm: &mut Kcm,
    components: &BTreeMap<String, String>,
    offsets: &BTreeMap<String, Duration>,
    faults: &Faults,
    now: Duration,
) {
    let key: ObjectKey = (String::new(), "kcm".into());
    let displaced = &mut kcm.displaced_release;
    let adjusted = cluster.modify(MANAGEMENTS, &key, |management| {
        add_finalizer(management, MANAGEMENT_FINALIZER);
        let release = text(management, "/spec/release").to_owned();
        if faults.wrong_release && release != WRONG_RELEASE {
            *displaced = Some(release);
            set(management, &["spec", "release"], json!(WRONG_RELEASE));
        } else if !faults.wrong_release
            && release == WRONG_RELEASE
            && let Some(wanted) = displaced.take()
        {
            set(management, &["spec", "release"], json!(wanted));
        }
    });
    let Some(management) = adjusted else { return };
    let release = text(&management, "/spec/release").to_owned();
    let wanted = kcm.displaced_release.clone().unwrap_or_else(|| release.clone());
    if cluster.store.get(RELEASES, "", &wanted).is_none() {
        let stamp = cluster.now.clone();
        cluster.modify(MANAGEMENTS, &key, |management| {
            let message = format!("Release {wanted} is not found");
            set_condition(management, "Ready", "False", "ReleaseIsNotFound", &message, &stamp);
        });
        return;
    }
    if kcm.release != wanted {
        kcm.release = wanted;
        kcm.due.clear();
    }
    kcm.due.retain(|component, _| components.contains_key(component));
    answer(cluster, kcm, offsets, faults, now);
    let capi_due = *kcm.due.entry("capi".into()).or_insert(now + offsets.get("capi").copied().unwrap_or_default());
    for (component, offset) in offsets {
        let start = if component == "kcm" { now } else { now.max(capi_due) };
        kcm.due.entry(component.clone()).or_insert(start + *offset);
    }
    let space = kcm.namespace.clone();
    let states = states(kcm, components, faults, now);
    let errors = states.iter().map(|(component, state)| {
        let message = state.message(component, &space, &components[component]);
        let error = message.map(|message| format!("HelmRelease {space}/{component} is not yet ready: {message}"));
        (component.clone(), error)
    });
    let errors: BTreeMap<String, Option<String>> = errors.collect();
    settle_deployments(cluster, kcm, &errors);
    for (component, state) in &states {
        flux::show(cluster, &space, component, &components[component], state);
    }
    write_status(cluster, &key, components, &errors, faults.never_ready);
}

/// What was asked of Flux, and what its tries have come to.
fn answer(cluster: &mut Cluster, kcm: &mut Kcm, offsets: &BTreeMap<String, Duration>, faults: &Faults, now: Duration) {
    for (component, fails) in &faults.tries {
        if *fails {
            *kcm.failures.entry(component.clone()).or_default() += 1;
            kcm.due.insert(component.clone(), now + faults.pause);
        } else if kcm.failures.remove(component).is_some() && component == "capi" {
            // What waits for it begins only now.
            let waiting = offsets.iter().filter(|(other, _)| *other != "kcm" && *other != "capi");
            kcm.due.extend(waiting.map(|(other, offset)| (other.clone(), now + *offset)));
        }
    }
    let asked = flux::heed(cluster, &kcm.namespace);
    for component in asked.reset {
        if let Some(failures) = kcm.failures.get_mut(&component) {
            *failures = 0;
            kcm.due.insert(component, now + faults.pause);
        }
    }
    for component in asked.deleted {
        kcm.failures.remove(&component);
        kcm.due.remove(&component);
        if kcm.installed.remove(&component) {
            discard_labelled_unless_chart(cluster, &component);
        }
    }
}

/// How far each component has come.
fn states(kcm: &Kcm, components: &BTreeMap<String, String>, faults: &Faults, now: Duration) -> BTreeMap<String, State> {
    let is_due = |component: &str| kcm.due.get(component).is_some_and(|&due| now >= due);
    let failures = |component: &str| kcm.failures.get(component).copied();
    let capi_is_up = is_due("capi") && !faults.failing.contains("capi") && failures("capi").is_none();
    let state = |component: &str| match component {
        _ if let Some(failures @ 1..) = failures(component) => {
            State::Failed(failures, flux::late_webhook(component, &kcm.namespace))
        }
        "kcm" | "capi" if !is_due(component) => State::Installing,
        _ if faults.failing.contains(component) => {
            State::Failed(flux::RETRIES + 1, "context deadline exceeded".to_owned())
        }
        "kcm" | "capi" => State::Ready,
        _ if !capi_is_up => State::Waiting("capi"),
        _ if !is_due(component) => State::Installing,
        _ => State::Ready,
    };
    components.keys().map(|component| (component.clone(), state(component))).collect()
}

/// Deployments come with their component, and go with it.
fn settle_deployments(cluster: &mut Cluster, kcm: &mut Kcm, states: &BTreeMap<String, Option<String>>) {
    for (component, error) in states {
        if error.is_some() || !kcm.installed.insert(component.clone()) {
            continue;
        }
        let space = namespace_of(component, &kcm.namespace).to_owned();
        cluster.ensure("namespaces", json!({"metadata": {"name": space}}));
        for deployment in catalogue::deployments(component) {
            cluster.ensure("deployments.apps", catalogue::deployment_object(&space, deployment, component));
        }
    }
    let gone: Vec<String> = kcm.installed.iter().filter(|each| !states.contains_key(*each)).cloned().collect();
    for component in gone {
        kcm.installed.remove(&component);
        discard_labelled(cluster, &component);
        flux::forget(cluster, &kcm.namespace, &component);
    }
}

fn namespace_of<'name>(component: &str, default: &'name str) -> &'name str {
    if component == "projectsveltos" { "projectsveltos" } else { default }
}

fn write_status(
    cluster: &mut Cluster,
    key: &ObjectKey,
    components: &BTreeMap<String, String>,
    states: &BTreeMap<String, Option<String>>,
    never_ready: bool,
) {
    let mut failing: Vec<&str> =
        states.iter().filter(|(_, error)| error.is_some()).map(|(component, _)| component.as_str()).collect();
    let all_installed = failing.is_empty();
    if never_ready && all_installed {
        failing.push("kcm");
    }
    let status_of = |component: &String, error: &Option<String>| {
        let mut status = json!({"template": components.get(component), "success": error.is_none()});
        if let Some(error) = error {
            status["error"] = json!(error);
        }
        let exposed = catalogue::exposed(component);
        if error.is_none() && !exposed.is_empty() {
            status["exposedProviders"] = json!(exposed);
        }
        status
    };
    let statuses: serde_json::Map<String, Value> =
        states.iter().map(|(component, error)| (component.clone(), status_of(component, error))).collect();
    let available: BTreeSet<&str> = states
        .iter()
        .filter(|(_, error)| error.is_none())
        .flat_map(|(component, _)| catalogue::exposed(component).iter().copied())
        .collect();
    let now = cluster.now.clone();
    cluster.modify(MANAGEMENTS, key, |management| {
        let generation = management["metadata"]["generation"].clone();
        set(management, &["status", "observedGeneration"], generation);
        set(management, &["status", "components"], Value::Object(statuses));
        set(management, &["status", "availableProviders"], json!(available));
        if failing.is_empty() {
            let release = management["spec"]["release"].clone();
            set(management, &["status", "release"], release);
            let message = "All components are successfully installed";
            set_condition(management, "Ready", "True", "AllComponentsHealthy", message, &now);
        } else {
            let message = format!("Components not ready: [{}]", failing.join(" "));
            set_condition(management, "Ready", "False", "NotAllComponentsHealthy", &message, &now);
        }
    });
}

/// kcm removes the Helm releases of its components, then lets go of the Management.
fn delete(world: &mut World, id: ClusterId) {
    enter(world, id, "world", |cluster| {
        if let Some(kcm) = &mut cluster.kcm {
            kcm.is_deleting = true;
            flux::begin_to_go(cluster);
        }
    });
    let delay = world.latency(Latency::KcmDelete, &format!("cluster {id}"));
    world.after(delay, move |world| {
        enter(world, id, "world", |cluster| {
            // Without the controllers nobody is there to let go: the Management stays (kcm issue 887).
            let Some(kcm) = &mut cluster.kcm else { return };
            kcm.is_deleting = false;
            kcm.due.clear();
            for component in std::mem::take(&mut kcm.installed) {
                discard_labelled_unless_chart(cluster, &component);
            }
            flux::let_go(cluster);
            let key: ObjectKey = (String::new(), "kcm".into());
            cluster.modify(MANAGEMENTS, &key, |management| remove_finalizer(management, MANAGEMENT_FINALIZER));
        });
    });
}

/// The chart's own release is called as the component `kcm`, and stays until its Chart goes.
fn discard_labelled_unless_chart(cluster: &mut Cluster, component: &str) {
    if component != "kcm" {
        discard_labelled(cluster, component);
    }
}

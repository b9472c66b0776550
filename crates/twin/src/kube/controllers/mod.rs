//! The controllers that act on a cluster: who hears of a change, and when they act.

pub(super) mod catalogue;
pub(crate) mod charts;
mod children;
mod flux;
pub(crate) mod kcm;
pub(super) mod namespaces;
pub(super) mod nodes;
pub(super) mod workloads;

use std::time::Duration;

use super::{
    ClusterId,
    object::{is_terminating, text},
    store::{Change, ObjectKey, Verb, key_of},
    types::DEFINITIONS,
};
use crate::World;

/// From a change until a controller has acted on it (guess).
const REACTION: Duration = Duration::from_millis(200);
/// Until the namespace controller has emptied a namespace (guess).
const NAMESPACE_REACTION: Duration = Duration::from_secs(5);

/// Something that a controller will look into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// k0s: a Chart.
    Chart(ObjectKey),
    /// kcm: the Management object.
    Management,
    /// kcm: a ClusterDeployment.
    ClusterDeployment(ObjectKey),
    /// A namespace that is on its way out.
    Namespace(String),
    /// A CRD that is on its way out.
    Definition(String),
    /// Whatever the object with this uid owned.
    Garbage(String),
    /// The pods of the node of this name that no controller has put there, and those of one that is gone.
    PodsOfNode(String),
    /// Deployments, replica sets and pods.
    Workloads,
}

/// Lets the controllers know of a change.
pub(super) fn react(world: &mut World, id: ClusterId, change: &Change) {
    let key = key_of(&change.object);
    let is_gone = change.verb == Verb::Deleted;
    let is_leaving = is_terminating(&change.object) && !is_gone;
    let generation = |object: &serde_json::Value| object["metadata"]["generation"].as_u64();
    let wants_changed =
        change.previous.as_ref().is_none_or(|previous| generation(previous) != generation(&change.object));
    match change.kind.as_str() {
        charts::CHARTS => schedule(world, id, Job::Chart(key.clone())),
        kcm::MANAGEMENTS if !is_gone => schedule(world, id, Job::Management),
        flux::HELM_RELEASES if flux::is_wanted(change) => schedule(world, id, Job::Management),
        kcm::CLUSTER_DEPLOYMENTS if !is_gone => schedule(world, id, Job::ClusterDeployment(key.clone())),
        "nodes" => {
            if change.verb != Verb::Modified {
                schedule(world, id, Job::PodsOfNode(key.1.clone()));
            }
            schedule(world, id, Job::Workloads);
            charts::nodes_changed(world, id);
        }
        "namespaces" if is_leaving => schedule(world, id, Job::Namespace(key.1.clone())),
        DEFINITIONS if is_leaving => schedule(world, id, Job::Definition(key.1.clone())),
        "deployments.apps" if wants_changed => schedule(world, id, Job::Workloads),
        "pods" if change.verb != Verb::Modified => {
            let node = text(&change.object, "/spec/nodeName");
            if !node.is_empty() {
                schedule(world, id, Job::PodsOfNode(node.to_owned()));
            }
            if is_gone {
                schedule(world, id, Job::Workloads);
            }
        }
        _ => {}
    }
    if is_gone {
        let uid = text(&change.object, "/metadata/uid").to_owned();
        schedule(world, id, Job::Garbage(uid));
        let Some(cluster) = world.clusters.by_id.get(&id) else { return };
        let emptied_namespace = cluster.namespace_accepts(&key.0) == Some(false);
        let definition = cluster.store.get(DEFINITIONS, "", &change.kind);
        if emptied_namespace {
            schedule(world, id, Job::Namespace(key.0));
        }
        if definition.is_some_and(|definition| is_terminating(&definition)) {
            schedule(world, id, Job::Definition(change.kind.clone()));
        }
    }
}

/// Has a job done soon; one that waits already is not doubled.
pub(super) fn schedule(world: &mut World, id: ClusterId, job: Job) {
    let Some(cluster) = world.clusters.by_id.get_mut(&id) else { return };
    // Only a few kinds of objects own others.
    if matches!(job, Job::Garbage(_)) && !cluster.has_dependents(&job) {
        return;
    }
    if !cluster.pending.insert(job.clone()) {
        return;
    }
    let delay = if matches!(job, Job::Namespace(_)) { NAMESPACE_REACTION } else { REACTION };
    world.after(delay, move |world| {
        if let Some(cluster) = world.clusters.by_id.get_mut(&id) {
            cluster.pending.remove(&job);
            run(world, id, job);
        }
    });
}

/// The controllers of a cluster start again and look at everything.
pub(super) fn resume(world: &mut World, id: ClusterId) {
    let Some(cluster) = world.clusters.by_id.get(&id) else { return };
    let job = |(kind, key, object): (&String, &ObjectKey, &std::sync::Arc<serde_json::Value>)| match kind.as_str() {
        charts::CHARTS => Some(Job::Chart(key.clone())),
        kcm::CLUSTER_DEPLOYMENTS => Some(Job::ClusterDeployment(key.clone())),
        "nodes" => Some(Job::PodsOfNode(key.1.clone())),
        "namespaces" if is_terminating(object) => Some(Job::Namespace(key.1.clone())),
        DEFINITIONS if is_terminating(object) => Some(Job::Definition(key.1.clone())),
        _ => None,
    };
    let jobs: Vec<Job> = cluster.store.everything().filter_map(job).chain([Job::Workloads]).collect();
    for job in jobs {
        schedule(world, id, job);
    }
    kcm::resume(world, id);
}

fn run(world: &mut World, id: ClusterId, job: Job) {
    match job {
        Job::Chart(key) => charts::reconcile(world, id, &key),
        Job::Management => kcm::reconcile(world, id),
        Job::ClusterDeployment(key) => children::reconcile(world, id, &key),
        Job::Namespace(name) => namespaces::empty(world, id, &name),
        Job::Definition(name) => namespaces::empty_definition(world, id, &name),
        Job::Garbage(uid) => namespaces::collect_garbage(world, id, &uid),
        Job::PodsOfNode(name) => nodes::keep_pods(world, id, &name),
        Job::Workloads => workloads::reconcile(world, id),
    }
}

//! Deployments become replica sets, replica sets become pods, pods run on nodes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    super::{
        ClusterId,
        cluster::{Cluster, digest, enter},
        object::{is_terminating, list, name, namespace, owner_reference, set, set_condition, text},
        store::key_of,
    },
    Job, nodes, schedule,
};
use crate::World;

/// From a pod's node being known until it runs, its image pulled (guess).
const POD_START: Duration = Duration::from_secs(5);

/// Objects by the uids of their owners.
type Owned = BTreeMap<String, Vec<Arc<Value>>>;

/// Brings every deployment's pods a step closer to what is wanted. A deployment for which the last look found nothing to
/// do and nothing to wait for is left alone until it, its replica set or one of its pods is another.
pub(super) fn reconcile(world: &mut World, id: ClusterId) {
    let now = world.now;
    let starting = enter(world, id, "world", |cluster| {
        let deployments: Vec<Arc<Value>> = cluster
            .store
            .iter("deployments.apps")
            .map(|(_, deployment)| deployment.clone())
            .filter(|deployment| !is_terminating(deployment))
            .collect();
        let nodes = nodes::schedulable(cluster);
        let (sets, pods) = (by_owner(cluster, "replicasets.apps"), by_owner(cluster, "pods"));
        let mut settled_before = std::mem::take(&mut cluster.settled);
        let mut is_starting = false;
        for (position, deployment) in deployments.iter().enumerate() {
            if cluster.namespace_accepts(namespace(deployment)) != Some(true) {
                continue;
            }
            let parts = parts(deployment, &sets, &pods);
            let key = key_of(deployment);
            if settled_before.remove(&key).is_some_and(|before| before == parts) {
                cluster.settled.insert(key, parts);
                continue;
            }
            let revision = cluster.store.revision;
            match bring_up(cluster, deployment, &sets, &pods, &nodes, position, now) {
                Progress::Running if cluster.store.revision == revision => drop(cluster.settled.insert(key, parts)),
                Progress::Starting => is_starting = true,
                _ => {}
            }
        }
        is_starting
    });
    if starting == Some(true) {
        world.after(POD_START, move |world| schedule(world, id, Job::Workloads));
    }
}

fn by_owner(cluster: &Cluster, kind: &str) -> Owned {
    let mut owned = Owned::new();
    for (_, object) in cluster.store.iter(kind) {
        for owner in list(object, "/metadata/ownerReferences") {
            owned.entry(text(owner, "/uid").to_owned()).or_default().push(object.clone());
        }
    }
    owned
}

fn owned(objects: &Owned, owner: &Value) -> Vec<Arc<Value>> {
    objects.get(text(owner, "/metadata/uid")).cloned().unwrap_or_default()
}

/// A deployment with the replica sets that it owns and the pods that they own.
fn parts(deployment: &Arc<Value>, sets: &Owned, pods: &Owned) -> Vec<Arc<Value>> {
    let mut parts = vec![deployment.clone()];
    for set in owned(sets, deployment) {
        parts.extend(owned(pods, &set));
        parts.push(set);
    }
    parts
}

/// How far the pods have come that have come least far.
fn bring_up(
    cluster: &mut Cluster,
    deployment: &Value,
    sets: &Owned,
    pods: &Owned,
    nodes: &[String],
    position: usize,
    now: Duration,
) -> Progress {
    let template = &deployment["spec"]["template"];
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let set_name = format!("{}-{}", name(deployment), digest(&template.to_string(), 10));
    let space = namespace(deployment);
    let Some(replica_set) = cluster.ensure("replicasets.apps", replica_set(deployment, &set_name)) else {
        return Progress::Waiting;
    };
    let other_sets = owned(sets, deployment).into_iter().filter(|set| name(set) != set_name);
    other_sets.for_each(|set| cluster.discard("replicasets.apps", &key_of(&set)));
    let mut pods = owned(pods, &replica_set);
    pods.retain(|pod| namespace(pod) == space);
    while pods.len() > wanted {
        if let Some(pod) = pods.pop() {
            cluster.remove("pods", &key_of(&pod));
        }
    }
    while pods.len() < wanted {
        let pod_name = format!("{set_name}-{}", cluster.name_suffix());
        match cluster.ensure("pods", pod(&replica_set, template, &pod_name)) {
            Some(pod) => pods.push(pod),
            None => break,
        }
    }
    let (mut ready, mut is_starting) = (0, false);
    for (index, pod) in pods.iter().enumerate() {
        match advance(cluster, pod, nodes, position + index, now) {
            Progress::Running => ready += 1,
            Progress::Starting => is_starting = true,
            Progress::Waiting => {}
        }
    }
    report(cluster, &replica_set, wanted, ready);
    report(cluster, deployment, wanted, ready);
    match is_starting {
        true => Progress::Starting,
        false if ready < wanted => Progress::Waiting,
        false => Progress::Running,
    }
}

enum Progress {
    Waiting,
    Starting,
    Running,
}

/// A pod without a node gets one; a pod that has had its node for long enough runs.
fn advance(cluster: &mut Cluster, pod: &Value, nodes: &[String], position: usize, now: Duration) -> Progress {
    if text(pod, "/status/phase") == "Running" {
        return Progress::Running;
    }
    let key = key_of(pod);
    let stamp = cluster.now.clone();
    if text(pod, "/spec/nodeName").is_empty() {
        let Some(node) = nodes.get(position % nodes.len().max(1)) else { return Progress::Waiting };
        cluster.modify("pods", &key, |pod| {
            set(pod, &["spec", "nodeName"], json!(node));
            set_condition(pod, "PodScheduled", "True", "", "", &stamp);
        });
        cluster.pod_starts.insert(key, now + POD_START);
        return Progress::Starting;
    }
    if cluster.pod_starts.get(&key).is_some_and(|&starts| now < starts) {
        return Progress::Starting;
    }
    cluster.pod_starts.remove(&key);
    cluster.modify("pods", &key, |pod| run(pod, position, &stamp));
    Progress::Running
}

fn run(pod: &mut Value, position: usize, now: &str) {
    set(pod, &["status", "phase"], json!("Running"));
    set(pod, &["status", "startTime"], json!(now));
    set(pod, &["status", "podIP"], json!(format!("10.244.{}.{}", position % 256, 10 + position % 200)));
    for kind in ["Initialized", "Ready", "ContainersReady"] {
        set_condition(pod, kind, "True", "", "", now);
    }
    let containers = list(pod, "/spec/containers").iter();
    let statuses: Vec<Value> = containers
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "", "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    set(pod, &["status", "containerStatuses"], Value::Array(statuses));
}

fn replica_set(deployment: &Value, set_name: &str) -> Value {
    json!({
        "metadata": {
            "name": set_name, "namespace": namespace(deployment),
            "labels": deployment["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": deployment["spec"]["replicas"], "selector": deployment["spec"]["selector"],
            "template": deployment["spec"]["template"],
        },
    })
}

fn pod(replica_set: &Value, template: &Value, pod_name: &str) -> Value {
    let mut pod = json!({
        "metadata": {
            "name": pod_name, "namespace": namespace(replica_set), "labels": template["metadata"]["labels"],
            "ownerReferences": [owner_reference(replica_set)],
        },
        "spec": template["spec"], "status": {"phase": "Pending"},
    });
    if pod["metadata"]["labels"].is_null() {
        super::super::object::unset(&mut pod, &["metadata", "labels"]);
    }
    pod
}

fn report(cluster: &mut Cluster, workload: &Value, wanted: usize, ready: usize) {
    let is_deployment = text(workload, "/kind") == "Deployment";
    let kind = if is_deployment { "deployments.apps" } else { "replicasets.apps" };
    let now = cluster.now.clone();
    cluster.modify(kind, &key_of(workload), |object| {
        let generation = object["metadata"]["generation"].clone();
        set(object, &["status", "observedGeneration"], generation);
        for (field, count) in
            [("replicas", wanted), ("updatedReplicas", wanted), ("readyReplicas", ready), ("availableReplicas", ready)]
        {
            if is_deployment || field != "updatedReplicas" {
                set(object, &["status", field], json!(count));
            }
        }
        if !is_deployment {
            set(object, &["spec", "replicas"], json!(wanted));
            return;
        }
        let (status, reason, message) = if ready >= wanted {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        set_condition(object, "Available", status, reason, message, &now);
    });
}

//! Nodes, as kubelets report them.

use serde_json::{Value, json};

use super::super::{
    ClusterId, NodeSpec,
    cluster::{Cluster, digest, enter},
    kubelet_version,
    object::{condition_holds, list, owner_reference, set, set_condition, text, unset},
};
use crate::World;

/// The taints of a node that is not ready (Kubernetes documentation).
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A kubelet registers its node.
pub(in super::super) fn register(world: &mut World, id: ClusterId, node: &NodeSpec) {
    enter(world, id, "world", |cluster| {
        let key = (String::new(), node.name.clone());
        cluster.static_pods.insert(node.name.clone(), node.static_pods.clone());
        if cluster.store.get("nodes", "", &node.name).is_some() {
            cluster.modify("nodes", &key, |object| describe(object, node));
            return;
        }
        let position = cluster.store.iter("nodes").count();
        let version = kubelet_version(&cluster.spec.k0s_version);
        let now = cluster.now.clone();
        let mut object = json!({
            "metadata": {"name": node.name, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {"podCIDR": pod_range(position), "podCIDRs": [pod_range(position)]},
            "status": status(node, &version),
        });
        let taints = node.taints.iter().map(|(key, value, effect)| {
            let mut taint = json!({"key": key, "effect": effect});
            if !value.is_empty() {
                taint["value"] = json!(value);
            }
            taint
        });
        let taints: Vec<Value> = taints.collect();
        if !taints.is_empty() {
            set(&mut object, &["spec", "taints"], Value::Array(taints));
        }
        describe(&mut object, node);
        for (kind, reason, message) in [
            ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ] {
            set_condition(&mut object, kind, "False", reason, message, &now);
        }
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
             message:Network plugin returns error: cni plugin not initialized";
        report(&mut object, false, message, &now);
        cluster.ensure("nodes", object);
    });
}

/// A kubelet mirrors its static pods, again and again if somebody deletes them (Kubernetes documentation, static pods).
/// The pods of a node that is gone are gone.
pub(super) fn keep_pods(world: &mut World, id: ClusterId, name: &str) {
    enter(world, id, "world", |cluster| match cluster.store.get("nodes", "", name) {
        Some(node) => {
            for pod in cluster.static_pods.get(name).cloned().unwrap_or_default() {
                let mirror = mirror(&node, name, &pod, &cluster.now);
                cluster.ensure("pods", mirror);
            }
        }
        None => {
            let pods = cluster.store.iter("pods").filter(|(_, pod)| text(pod, "/spec/nodeName") == name);
            for key in pods.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                cluster.remove("pods", &key);
            }
        }
    });
}

/// What the API shows of a static pod.
fn mirror(node: &Value, node_name: &str, pod: &str, now: &str) -> Value {
    let hash = digest(&format!("{pod} {node_name}"), 32);
    let mut owner = owner_reference(node);
    unset(&mut owner, &["blockOwnerDeletion"]);
    let mut mirror = json!({
        "metadata": {
            "name": format!("{pod}-{node_name}"), "namespace": "kube-system",
            "annotations": {"kubernetes.io/config.mirror": hash, "kubernetes.io/config.hash": hash},
            "ownerReferences": [owner],
        },
        "spec": {
            "nodeName": node_name, "hostNetwork": true, "priorityClassName": "system-node-critical",
            "containers": [{"name": pod, "image": pod}],
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {"phase": "Running", "startTime": now},
    });
    for kind in ["Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        set_condition(&mut mirror, kind, "True", "", "", now);
    }
    mirror
}

/// A kubelet reports whether its node is ready, or the node controller that the kubelet is silent.
pub(in super::super) fn set_ready(world: &mut World, id: ClusterId, name: &str, ready: bool, message: &str) {
    enter(world, id, "world", |cluster| {
        let now = cluster.now.clone();
        cluster.modify("nodes", &(String::new(), name.to_owned()), |object| report(object, ready, message, &now));
    });
}

/// How many nodes take new pods that tolerate nothing.
pub(super) fn schedulable(cluster: &Cluster) -> Vec<String> {
    let is_schedulable = |node: &Value| {
        condition_holds(node, "Ready")
            && node["spec"]["unschedulable"] != true
            && list(node, "/spec/taints").iter().all(|taint| taint["effect"] == "PreferNoSchedule")
    };
    cluster.store.iter("nodes").filter(|(_, node)| is_schedulable(node)).map(|((_, name), _)| name.clone()).collect()
}

fn describe(object: &mut Value, node: &NodeSpec) {
    for (label, value) in [
        ("beta.kubernetes.io/arch", node.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", &node.architecture),
        ("kubernetes.io/hostname", &node.name),
        ("kubernetes.io/os", "linux"),
    ] {
        set(object, &["metadata", "labels", label], json!(value));
    }
    for (label, value) in &node.labels {
        set(object, &["metadata", "labels", label], json!(value));
    }
    let addresses = json!([
        {"type": "InternalIP", "address": node.internal_ip}, {"type": "Hostname", "address": node.name},
    ]);
    set(object, &["status", "addresses"], addresses);
}

/// A /24 of 10.244.0.0/16 for each node, more of it than there is beyond 256 (k0s default; the rest is a guess).
fn pod_range(position: usize) -> String {
    format!("10.{}.{}.0/24", 244 + position / 256, position % 256)
}

/// The size is that of no particular machine: nobody plans by it (guess).
fn status(node: &NodeSpec, kubelet_version: &str) -> Value {
    let resources = json!({"cpu": "4", "memory": "16384000Ki", "ephemeral-storage": "64000000Ki", "pods": "110"});
    json!({
        "capacity": resources, "allocatable": resources,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": node.architecture, "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 12 (bookworm)", "kernelVersion": "6.1.0-40-cloud",
            "containerRuntimeVersion": "containerd://1.7.27", "kubeletVersion": kubelet_version,
            "kubeProxyVersion": kubelet_version, "machineID": "", "systemUUID": "", "bootID": "",
        },
    })
}

fn report(object: &mut Value, ready: bool, message: &str, now: &str) {
    let silent = message.contains("stopped posting");
    let (status, reason) = match (ready, silent) {
        (true, _) => ("True", "KubeletReady"),
        (false, true) => ("Unknown", "NodeStatusUnknown"),
        (false, false) => ("False", "KubeletNotReady"),
    };
    let message = match (ready, message) {
        (true, "") => "kubelet is posting ready status",
        (false, "") => "container runtime network not ready",
        (_, message) => message,
    };
    set_condition(object, "Ready", status, reason, message, now);
    // Heartbeats are not modelled: nothing happens between changes.
    for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = condition["lastTransitionTime"].clone();
    }
    let kept = |taint: &&Value| !matches!(text(taint, "/key"), NOT_READY | UNREACHABLE);
    let mut taints: Vec<Value> = list(object, "/spec/taints").iter().filter(kept).cloned().collect();
    if !ready {
        let key = if silent { UNREACHABLE } else { NOT_READY };
        taints.extend(["NoSchedule", "NoExecute"].map(|effect| json!({"key": key, "effect": effect})));
    }
    if taints.is_empty() {
        unset(object, &["spec", "taints"]);
    } else {
        set(object, &["spec", "taints"], Value::Array(taints));
    }
}

//! ClusterDeployments: child clusters, with machines of their own in a resource group of their own.
//!
//! What Cluster API Provider Azure makes of an `azure-standalone-cp` template, as far as it costs: a resource group of the
//! cluster's name with the provider's tag of ownership, a network, and machines (its documentation). Their Kubernetes is
//! not imitated.

use http::Method;
use serde_json::{Value, json};

use super::{
    super::{
        ClusterId,
        cluster::enter,
        object::{add_finalizer, has_finalizer, is_terminating, remove_finalizer, set, set_condition, text, unset},
        store::ObjectKey,
    },
    kcm::CLUSTER_DEPLOYMENTS,
};
use crate::{FaultKind, World, azure};

/// Holds a ClusterDeployment until its machines are gone (kcm source).
const FINALIZER: &str = "k0rdent.mirantis.com/cluster-deployment";
/// The key that the machines take; nobody logs in.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Looks at every child cluster.
pub(super) fn reconcile_all(world: &mut World, id: ClusterId) {
    let Some(cluster) = world.clusters.by_id.get(&id) else { return };
    let keys: Vec<ObjectKey> = cluster.store.iter(CLUSTER_DEPLOYMENTS).map(|(key, _)| key.clone()).collect();
    keys.iter().for_each(|key| reconcile(world, id, key));
}

/// Brings a child cluster a step closer to what is wanted.
pub(super) fn reconcile(world: &mut World, id: ClusterId, key: &ObjectKey) {
    let Some(cluster) = world.clusters.by_id.get(&id).filter(|cluster| cluster.kcm.is_some()) else { return };
    let Some(child) = cluster.store.get(CLUSTER_DEPLOYMENTS, &key.0, &key.1) else { return };
    if is_terminating(&child) {
        if has_finalizer(&child, FINALIZER) {
            delete(world, id, key);
        }
        return;
    }
    let refused = make_machines(world, &key.1, &child["spec"]);
    enter(world, id, "world", |cluster| {
        let now = cluster.now.clone();
        cluster.modify(CLUSTER_DEPLOYMENTS, key, |child| {
            add_finalizer(child, FINALIZER);
            let generation = child["metadata"]["generation"].clone();
            set(child, &["status", "observedGeneration"], generation);
            let message = match refused {
                Some(status) => format!("AzureCluster {}/{}: Azure answers {status}", key.0, key.1),
                None => format!("Cluster {}/{} is being provisioned", key.0, key.1),
            };
            set_condition(child, "Ready", "False", "Progressing", &message, &now);
        });
    });
}

fn group(name: &str) -> String {
    format!("/subscriptions/{}/resourceGroups/{name}", azure::SUBSCRIPTION)
}

/// Cluster API Provider Azure deletes only what carries its tag (its documentation).
fn tag(name: &str) -> String {
    format!("sigs.k8s.io_cluster-api-provider-azure_cluster_{name}")
}

/// Makes what is missing; the HTTP status of the first refusal.
fn make_machines(world: &mut World, name: &str, spec: &Value) -> Option<u16> {
    if !text(spec, "/template").starts_with("azure-standalone-cp") || spec["dryRun"] == true {
        return None;
    }
    let config = &spec["config"];
    let location = &config["location"];
    let tags = json!({tag(name): "owned"});
    let group = group(name);
    let subnet = json!({"name": "node-subnet", "properties": {"addressPrefix": "10.1.0.0/16"}});
    let network = json!({"addressSpace": {"addressPrefixes": ["10.0.0.0/8"]}, "subnets": [subnet]});
    let network_id = format!("{group}/providers/Microsoft.Network/virtualNetworks/{name}-vnet");
    let mut wanted = vec![
        (group.clone(), json!({"location": location, "tags": tags})),
        (network_id.clone(), json!({"location": location, "tags": tags, "properties": network})),
    ];
    // The template's defaults (kcm source).
    for (role, number, usual) in [("cp", "controlPlaneNumber", 3), ("md", "workersNumber", 2)] {
        let sizing = if role == "cp" { "controlPlane" } else { "worker" };
        let size = config[sizing]["vmSize"].as_str().unwrap_or("Standard_B2s");
        for index in 0..config[number].as_u64().unwrap_or(usual) {
            let machine = format!("{name}-{role}-{index}");
            let interface = format!("{group}/providers/Microsoft.Network/networkInterfaces/{machine}-nic");
            let subnet = json!({"id": format!("{network_id}/subnets/node-subnet")});
            let addresses = json!([{"name": "primary", "properties": {"subnet": subnet}}]);
            let properties = json!({"ipConfigurations": addresses});
            let body = json!({"location": location, "tags": tags, "properties": properties});
            wanted.push((interface.clone(), body));
            let properties = machine_properties(&machine, &interface, size);
            let body = json!({"location": location, "tags": tags, "properties": properties});
            wanted.push((format!("{group}/providers/Microsoft.Compute/virtualMachines/{machine}"), body));
        }
    }
    wanted.into_iter().find_map(|(id, body)| {
        if azure::act(world, Method::GET, &id, None) == 200 {
            return None;
        }
        Some(azure::act(world, Method::PUT, &id, Some(&body))).filter(|status| *status >= 400)
    })
}

fn machine_properties(machine: &str, interface: &str, size: &str) -> Value {
    let keys = json!([{"path": "/home/capi/.ssh/authorized_keys", "keyData": KEY}]);
    json!({
        "hardwareProfile": {"vmSize": size},
        "storageProfile": {
            "imageReference": {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"},
            "osDisk": {"name": format!("{machine}_OSDisk"), "createOption": "FromImage", "deleteOption": "Delete"},
        },
        "osProfile": {
            "computerName": machine, "adminUsername": "capi",
            "linuxConfiguration": {"disablePasswordAuthentication": true, "ssh": {"publicKeys": keys}},
        },
        "networkProfile": {"networkInterfaces": [{"id": interface, "properties": {"primary": true}}]},
    })
}

/// The resource group goes, then the ClusterDeployment.
fn delete(world: &mut World, id: ClusterId, key: &ObjectKey) {
    if world.faults.holds(FaultKind::ChildDeletionHang, &key.1) {
        return;
    }
    let (group, tag) = (group(&key.1), tag(&key.1));
    let owned =
        |resource: &Value| text(resource, "/id").eq_ignore_ascii_case(&group) && resource["tags"][&tag] == "owned";
    if azure::resources(world).iter().any(owned) {
        let _accepted = azure::act(world, Method::DELETE, &group, None);
        return;
    }
    enter(world, id, "world", |cluster| {
        cluster.modify(CLUSTER_DEPLOYMENTS, key, |child| {
            remove_finalizer(child, FINALIZER);
            unset(child, &["status", "services"]);
        });
    });
}

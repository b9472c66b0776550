//! Machines that are not wanted any more: drained, taken out of etcd, and deleted.

use std::time::Duration;

use engine::{Context, Done, Failure, pause};

use super::{hosts::give_back, k0s::refused};
use crate::{
    azure::{Call, Kind},
    control_plane::etcd_peers,
    deployment::{Deployment, LOOK_AGAIN, arm_failure, ssh_failure},
    k0s::BINARY,
    kubernetes::NODE,
    words::count,
};

/// How long a command on a machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cordons the node, evicts its pods as their budgets allow, and takes it out of the cluster.
pub(super) async fn drain(deployment: &Deployment, context: &Context<'_>, machine: usize) -> Result<Done, Failure> {
    drain_node(deployment, context, &deployment.topology.leaving[machine].name).await
}

/// [`drain`], of any node.
pub(super) async fn drain_node(deployment: &Deployment, context: &Context<'_>, name: &str) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    if kubernetes.get(NODE, None, name).await.map_err(refused)?.is_none() {
        return Ok(Done::seen("it is not a node of the cluster"));
    }
    let intent = context.intend(format!("cordon and drain node {name}")).await?;
    kubernetes.cordon(&intent, name).await.map_err(refused)?;
    loop {
        let pods = kubernetes.pods_to_move(name).await.map_err(refused)?;
        let Some((_, first)) = pods.first() else { break };
        context.waiting(
            format!("node {name} runs no more workloads"),
            format!("{} left, {first} among them", count(pods.len(), "pod")),
        );
        for (namespace, pod) in &pods {
            kubernetes.evict(&intent, namespace, pod).await.map_err(refused)?;
        }
        pause(LOOK_AGAIN).await;
    }
    kubernetes.delete(&intent, NODE, None, name).await.map_err(refused)?;
    context.effected(intent).await?;
    Ok(Done::seen("drained, and no node of the cluster any more"))
}

/// Asks a controller that stays to strike the leaving one off the list of etcd's members.
pub(super) async fn leave_etcd(
    deployment: &Deployment,
    context: &Context<'_>,
    machine: usize,
) -> Result<Done, Failure> {
    let leaving = &deployment.topology.leaving[machine];
    let peers = etcd_peers(&member_list(deployment).await?);
    // Members that are gone count for the majority that the others need: were one that is there to leave before them, the
    // rest might be none any more.
    for (name, peer) in peers.iter().filter(|(name, _)| **name != leaving.name && is_gone(deployment, name)) {
        strike_off(deployment, context, name, host_of(peer)).await?;
    }
    let address = match (leaving.private_address, peers.get(&leaving.name)) {
        (Some(address), _) => address.to_string(),
        // Its interface is gone; etcd knows it by the name of the machine (k0s source, `EtcdConfig`).
        (None, Some(peer)) => host_of(peer).to_owned(),
        (None, None) => return Ok(Done::seen("it is not a member of etcd")),
    };
    strike_off(deployment, context, &leaving.name, &address).await
}

/// Whether nobody wants this member, and its machine does not exist.
fn is_gone(deployment: &Deployment, name: &str) -> bool {
    deployment.topology.provider.makes_machines()
        && deployment.topology.node(name).is_none()
        && deployment.inventory.find(Kind::VirtualMachine, name).is_none()
}

/// The host in the address of a member: `https://10.0.0.4:2380`.
fn host_of(peer: &str) -> &str {
    let address = peer.trim_start_matches("https://");
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Whether the cluster counts the controller at this address among etcd's members.
pub(super) async fn is_member(deployment: &Deployment, address: &str) -> Result<bool, Failure> {
    Ok(member_list(deployment).await?.contains(&format!("//{address}:")))
}

async fn member_list(deployment: &Deployment) -> Result<String, Failure> {
    let speaker = deployment.remote(deployment.speaker()).await?;
    speaker.run(&format!("sudo {BINARY} etcd member-list")).await.map_err(ssh_failure)
}

/// Strikes a controller off the list of etcd's members, if it is on it.
pub(super) async fn strike_off(
    deployment: &Deployment,
    context: &Context<'_>,
    name: &str,
    address: &str,
) -> Result<Done, Failure> {
    if !is_member(deployment, address).await? {
        return Ok(Done::seen("it is not a member of etcd"));
    }
    let speaker = deployment.remote(deployment.speaker()).await?;
    let intent = context.intend(format!("take {name} ({address}) out of etcd")).await?;
    let leave = format!("sudo {BINARY} etcd leave --peer-address={address}");
    speaker.run_with(&leave, None, PATIENCE).await.map_err(ssh_failure)?;
    context.effected(intent).await?;
    Ok(Done::seen("it has left etcd"))
}

/// Deletes the machine; its disk, interface and address go with it. A host that existed before is given back.
pub(super) async fn delete(deployment: &Deployment, context: &Context<'_>, machine: usize) -> Result<Done, Failure> {
    let leaving = &deployment.topology.leaving[machine];
    if let Some(host) = &leaving.host {
        return give_back(deployment, context, host).await;
    }
    let name = &leaving.name;
    let call = Call::within(context.step().deadline);
    let azure = deployment.azure()?;
    let intent = context.intend(format!("delete virtual machine {name} with what belongs to it")).await?;
    azure.arm.delete(&intent, &azure.ids.of(Kind::VirtualMachine, name), call).await.map_err(arm_failure)?;
    context.effected(intent).await?;
    let belongings = [
        (Kind::VirtualMachine, name.clone()),
        (Kind::NetworkInterface, crate::topology::network_interface_name(name)),
        (Kind::PublicIp, crate::topology::public_ip_name(name)),
    ];
    for (kind, belonging) in belongings {
        // What belonged to a machine that had gone before does not go by itself.
        if deployment.inventory.find(Kind::VirtualMachine, name).is_none() {
            let intent = context.intend(format!("delete {belonging}")).await?;
            let kept = |text: &str| context.waiting(format!("{belonging} can be deleted"), text);
            azure.watch.delete(&intent, &azure.ids.of(kind, &belonging), call, &kept).await.map_err(arm_failure)?;
            context.effected(intent).await?;
        }
        let evidence = |text: &str| context.waiting(format!("{belonging} is gone"), text);
        azure.watch.removed(kind, &belonging, call, &evidence).await.map_err(arm_failure)?;
    }
    Ok(Done::seen("it is gone, with its interface and its address"))
}

//! Machines that are not wanted any more: drained, taken out of etcd, and deleted.

use std::time::Duration;

use engine::{Context, Done, Failure, pause};

use super::{hosts::give_back, k0s::refused};
use crate::{
    azure::{Call, Kind},
    deployment::{Deployment, LOOK_AGAIN, arm_failure, ssh_failure},
    k0s::BINARY,
    kubernetes::NODE,
};

/// How long a command on a machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cordons the node, evicts its pods as their budgets allow, and takes it out of the cluster.
pub(super) async fn drain(deployment: &Deployment, context: &Context<'_>, machine: usize) -> Result<Done, Failure> {
    let name = &deployment.topology.leaving[machine].name;
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
            format!("{} pods left, {first} among them", pods.len()),
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
    let Some(address) = leaving.private_address else {
        return Err(Failure::new(format!("the private address of {} is not known", leaving.name)));
    };
    strike_off(deployment, context, &leaving.name, &address.to_string()).await
}

/// Strikes a controller off the list of etcd's members, if it is on it.
pub(super) async fn strike_off(
    deployment: &Deployment,
    context: &Context<'_>,
    name: &str,
    address: &str,
) -> Result<Done, Failure> {
    let speaker = deployment.remote(deployment.speaker()).await?;
    let members = speaker.run(&format!("sudo {BINARY} etcd member-list")).await.map_err(ssh_failure)?;
    if !members.contains(&format!("//{address}:")) {
        return Ok(Done::seen("it is not a member of etcd"));
    }
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
    azure.arm.delete(&azure.ids.of(Kind::VirtualMachine, name), call).await.map_err(arm_failure)?;
    context.effected(intent).await?;
    let belongings = [
        (Kind::VirtualMachine, name.clone()),
        (Kind::NetworkInterface, crate::topology::network_interface_name(name)),
        (Kind::PublicIp, crate::topology::public_ip_name(name)),
    ];
    for (kind, belonging) in belongings {
        let evidence = |text: &str| context.waiting(format!("{belonging} is gone"), text);
        azure.watch.removed(kind, &belonging, call, &evidence).await.map_err(arm_failure)?;
    }
    Ok(Done::seen("it is gone, with its interface and its address"))
}

//! Machines that are deleted, with their disks, and made anew.

use std::time::Duration;

use engine::{Context, Done, Failure};
use serde_json::json;

use super::{leaving, machine, network};
use crate::{
    azure::{Call, Kind},
    deployment::{Deployment, Fate, arm_failure},
    topology::Role,
};

/// How long its workloads may take to move away.
const DRAIN: Duration = Duration::from_secs(300);

/// Takes the machine out of the cluster, if it is asked for and the cluster answers; deletes it, and asks for a new one.
pub(super) async fn replace(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<Done, Failure> {
    let planned = deployment.node(node);
    if deployment.repair.replace.as_ref() == Some(&planned.name) && !deployment.repair.start_anew {
        leave(deployment, context, node).await?;
    }
    if deployment.inventory.find(Kind::VirtualMachine, &planned.name).is_some() {
        again(deployment, context, node).await?;
    }
    Ok(Done::seen("deleted, and asked for anew"))
}

/// Takes the machine out of the cluster. What does not answer cannot be asked to leave.
async fn leave(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<(), Failure> {
    let planned = deployment.node(node);
    match tokio::time::timeout(DRAIN, leaving::drain_node(deployment, context, &planned.name)).await {
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => context.note(format!("{} is not drained: {failure}", planned.name))?,
        Err(_) => context.note(format!("{} is not drained after {} s", planned.name, DRAIN.as_secs()))?,
    }
    if planned.role == Role::Controller && deployment.has_cluster() {
        leaving::strike_off(deployment, context, &planned.name, &planned.private_address.to_string()).await?;
    }
    Ok(())
}

/// Deletes the machine, keeping its address, and asks for a new one. The interface must outlive the machine, so it is
/// made again if it went with it.
pub(super) async fn again(deployment: &Deployment, context: &Context<'_>, node: usize) -> Result<(), Failure> {
    let planned = deployment.node(node);
    let call = Call::within(context.step().deadline);
    let ids = &deployment.azure()?.ids;
    let (kind, name) = (Kind::VirtualMachine, &planned.name);
    // Whoever waits for the old machine must not mistake it for the new one.
    deployment.machine(node).fate.send_replace(Fate::Replaced);
    let intent = context.intend(format!("delete the machine {name} with its disk")).await?;
    // Detached first: the address and the interface would die with the machine.
    let keep = json!({"properties": {"networkProfile": {"networkInterfaces": [{
        "id": ids.of(Kind::NetworkInterface, &planned.network_interface_name()),
        "properties": {"primary": true, "deleteOption": "Detach"},
    }]}}});
    match deployment.azure()?.arm.patch(&intent, &ids.of(kind, name), &keep, call).await {
        Err(error) if !error.is_not_found() => return Err(arm_failure(error)),
        _ => {}
    }
    deployment.azure()?.arm.delete(&intent, &ids.of(kind, name), call).await.map_err(arm_failure)?;
    context.effected(intent).await?;
    let evidence = |text: &str| context.waiting(format!("the machine {name} is gone"), text);
    deployment.azure()?.watch.removed(kind, name, call, &evidence).await.map_err(arm_failure)?;
    network::interface_of(deployment, context, node, true).await?;
    machine::put(deployment, context, node).await?.map_err(arm_failure)?;
    deployment.machine(node).fate.send_replace(Fate::Open);
    Ok(())
}

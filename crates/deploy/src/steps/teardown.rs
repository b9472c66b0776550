//! Taking it down: k0s, the resource group, and the proof that nothing is left.

use std::time::Duration;

use engine::{Context, Done, Failure};
use serde_json::json;

use crate::{
    azure::{Call, inventory, resources},
    deployment::{Deployment, arm_failure, ssh_failure},
    k0s::{BINARY, CONFIG, TOKEN, unit},
    ssh::SshError,
};

/// k0s on one machine: stopped, reset, and its files removed. A machine that does not answer cannot hold up the others:
/// it goes with its resource group, whose deletion follows.
pub(super) async fn reset_machine(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
) -> Result<Done, Failure> {
    match clear_machine(deployment, context, node).await? {
        Err(error @ (SshError::Unreachable { .. } | SshError::Timeout { .. })) => {
            context.note(format!("k0s is not reset on {}: {error}", deployment.node(node).name))?;
            Ok(Done::seen("the machine does not answer; it goes with its resource group"))
        }
        cleared => cleared.map_err(ssh_failure),
    }
}

async fn clear_machine(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
) -> Result<Result<Done, SshError>, Failure> {
    let planned = deployment.node(node);
    let remote = deployment.remote(node).await?;
    let patience = Duration::from_secs(300);
    match remote.try_run(&format!("test -x {BINARY}"), None, patience).await {
        Ok(output) if output.code == 0 => {}
        Ok(_) => return Ok(Ok(Done::seen("k0s is not there"))),
        Err(error) => return Ok(Err(error)),
    }
    let intent = context.intend(format!("reset k0s on {}", planned.name)).await?;
    context.waiting(format!("k0s is reset on {}", planned.name), "");
    let cleared = async {
        if planned.role == crate::topology::Role::Controller && !planned.leader {
            // Best effort: a member that cannot leave any more is gone with its machine.
            let leave = format!("sudo {BINARY} etcd leave --peer-address={}", planned.private_address);
            remote.try_run(&leave, None, patience).await?;
        }
        remote.try_run(&format!("sudo systemctl stop {}", unit(planned)), None, patience).await?;
        remote.run_with(&format!("sudo {BINARY} reset"), None, patience).await?;
        let home = format!("/home/{}/.kube/config", deployment.config.ssh.username);
        remote.run(&format!("sudo rm -rf -- {CONFIG} {TOKEN} {home} {BINARY}")).await
    };
    if let Err(error) = cleared.await {
        return Ok(Err(error));
    }
    context.effected(intent).await?;
    remote.disconnect().await;
    Ok(Ok(Done::seen("k0s is gone")))
}

/// The resource group with everything in it, waited for until it is gone.
pub(super) async fn resource_group(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline);
    let cluster = deployment.topology.cluster_id.as_str();
    let group = &deployment.topology.names.resource_group;
    let Some(existing) = &deployment.inventory.group else { return Ok(Done::seen("it does not exist")) };
    if inventory::tag(existing, resources::TAG_CLUSTER) != Some(cluster) {
        return Err(Failure::refused(format!(
            "resource group {group} is not ours (no tag {}={cluster}); it is left alone",
            resources::TAG_CLUSTER
        )));
    }
    let mut operation = None;
    if !deployment.inventory.is_deleting() {
        let intent = context.intend(format!("delete resource group {group} with everything in it")).await?;
        let path = format!("{}?forceDeletionTypes=Microsoft.Compute/virtualMachines", deployment.azure.ids.group());
        let answer = deployment.azure.arm.delete(&path, call).await.map_err(arm_failure)?;
        operation = answer.location;
        context.effected(intent).await?;
    }
    let evidence = |text: &str| context.waiting(format!("resource group {group} is gone"), text);
    deployment.azure.watch.gone(operation.as_deref(), call, &evidence).await.map_err(arm_failure)?;
    Ok(Done::seen("it is gone"))
}

/// Looks, by tag and by name, whether anything is left in the subscription. Listings lag behind deletions by minutes,
/// so what they still show is looked at again until the deadline.
pub(super) async fn evidence(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let cluster = deployment.topology.cluster_id.as_str();
    let call = Call::within(context.step().deadline);
    let deadline = call.deadline - Duration::from_secs(10);
    loop {
        let left = crate::leftovers::look(&deployment.azure.arm, &deployment.azure.ids.subscription, cluster, call)
            .await
            .map_err(arm_failure)?;
        if left.is_empty() {
            return Ok(Done::seen("0 left").with(json!({"leftovers": []})));
        }
        let names: Vec<&str> = left.iter().map(|left| left.id.as_str()).collect();
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::new(format!("{} left: {}", left.len(), names.join(", ")))
                .advise("Run `k0rdentctl reset` again; it deletes what is left."));
        }
        context.waiting("Azure lists nothing of this cluster", format!("{} left: {}", left.len(), names[0]));
        engine::pause(Duration::from_secs(2)).await;
    }
}

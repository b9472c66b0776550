//! k0s taken off a machine.

use std::time::Duration;

use engine::{Context, Done, Failure};

use crate::{
    deployment::{Deployment, ssh_failure},
    k0s::{BINARY, CONFIG, KUBECTL, TOKEN, unit},
    machine_proxy,
    ssh::{Remote, SshError},
    topology::Node,
};

/// How long a machine may take to say that it is there at all.
const PROBE: Duration = Duration::from_secs(60);

/// k0s on one machine: stopped, reset, and its files removed. A machine that does not answer cannot hold up the others:
/// it goes with its resource group, whose deletion follows.
pub(super) async fn reset_machine(
    deployment: &Deployment,
    context: &Context<'_>,
    node: usize,
) -> Result<Done, Failure> {
    let makes_machines = deployment.topology.provider.makes_machines();
    let planned = deployment.node(node);
    let remote = deployment.remote(node).await?;
    let cleared = clear(deployment, context, planned, &remote).await?;
    match cleared {
        Err(error @ (SshError::Unreachable { .. } | SshError::Timeout { .. })) if makes_machines => {
            context.note(format!("k0s is not reset on {}: {error}", deployment.node(node).name))?;
            Ok(Done::seen("the machine does not answer; it goes with its resource group"))
        }
        cleared => cleared.map_err(ssh_failure),
    }
}

/// Takes k0s off a machine.
pub(super) async fn clear(
    deployment: &Deployment,
    context: &Context<'_>,
    planned: &Node,
    remote: &Remote,
) -> Result<Result<Done, SshError>, Failure> {
    let patience = Duration::from_secs(300);
    match remote.try_run(&format!("test -x {BINARY}"), None, PROBE).await {
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
        let home = match planned.host {
            None => format!("/home/{}/.kube/config {KUBECTL}", remote.target().user),
            Some(_) => String::new(),
        };
        let proxy = machine_proxy::places(&deployment.config, planned).join(" ");
        remote.run(&format!("sudo rm -rf -- {CONFIG} {TOKEN} {home} {BINARY} {proxy}")).await
    };
    if let Err(error) = cleared.await {
        return Ok(Err(error));
    }
    context.effected(intent).await?;
    remote.disconnect().await;
    Ok(Ok(Done::seen("k0s is gone")))
}

//! Taking it down inside the cluster: k0rdent in its own order, then k0s.

use std::{ops::ControlFlow, time::Duration};

use engine::{Context, Done, Failure, Intent};

use super::{
    k0rdent::{CHART_NAMESPACE, MANAGEMENT_NAME, RELEASE},
    k0s::refused,
};
use crate::{
    deployment::{Deployment, ssh_failure},
    k0s::{BINARY, CONFIG, TOKEN, unit},
    kubernetes::{CHART, CLUSTER_DEPLOYMENT, Kind, MANAGEMENT, NAMESPACE},
    ssh::SshError,
};

/// How long a machine may take to say that it is there at all.
const PROBE: Duration = Duration::from_secs(60);

/// Deletes an object and waits until it is gone.
async fn delete(
    deployment: &Deployment,
    context: &Context<'_>,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    if kubernetes.get(kind, namespace, name).await.map_err(refused)?.is_none() {
        return Ok(Done::seen("it does not exist"));
    }
    let intent: Intent = context.intend(format!("delete {} {name}", kind.kind)).await?;
    kubernetes.delete(&intent, kind, namespace, name).await.map_err(refused)?;
    context.effected(intent).await?;
    let look = |objects: &std::collections::BTreeMap<String, kube::api::DynamicObject>| match objects.get(name) {
        None => ControlFlow::Break(()),
        Some(object) => {
            let finalizers = object.metadata.finalizers.clone().unwrap_or_default().join(", ");
            context.waiting(format!("{} {name} is gone", kind.kind), format!("finalizers: {finalizers}"));
            ControlFlow::Continue(())
        }
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    kubernetes.follow(kind, namespace, Some(name), look, trouble).await.map_err(refused)?;
    Ok(Done::seen("it is gone"))
}

/// The Management object: refused while child clusters exist, because their machines would outlive their manager.
pub(super) async fn management(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let children = deployment.kubernetes().await?.list(CLUSTER_DEPLOYMENT, None).await.map_err(refused)?;
    if !children.is_empty() {
        let names: Vec<&str> = children.keys().map(String::as_str).collect();
        return Err(Failure::refused(format!("child clusters exist: {}", names.join(", "))).advise(
            "Their machines would outlive their manager. Delete them first: `k0rdentctl exec -- kubectl delete clusterdeployments --all --all-namespaces`, then `k0rdentctl reset`.",
        ));
    }
    delete(deployment, context, MANAGEMENT, None, MANAGEMENT_NAME).await
}

/// The chart: its object's deletion makes k0s uninstall it.
pub(super) async fn chart(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    delete(deployment, context, CHART, Some(CHART_NAMESPACE), RELEASE).await
}

/// The namespace.
pub(super) async fn namespace(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    delete(deployment, context, NAMESPACE, None, &deployment.config.software.k0rdent.namespace).await
}

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
        remote.run(&format!("sudo rm -rf -- {CONFIG} {TOKEN} {BINARY}")).await
    };
    if let Err(error) = cleared.await {
        return Ok(Err(error));
    }
    context.effected(intent).await?;
    remote.disconnect().await;
    Ok(Ok(Done::seen("k0s is gone")))
}

//! Taking k0rdent off a cluster in its own order, and looking whether k0rdent or k0s has left anything.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use engine::{Context, Done, Failure};
use futures::StreamExt as _;
use kube::api::DynamicObject;

use super::{
    k0rdent::{CHART_NAMESPACE, MANAGEMENT_NAME, RELEASE},
    k0s::refused,
    left_behind,
    removal::SURVEY,
};
use crate::{
    deployment::{Deployment, ssh_failure},
    k0s::{BINARY, CONFIG, unit},
    kubernetes::{CHART, CLUSTER_DEPLOYMENT, Kind, MANAGEMENT, NAMESPACE, POD, condition},
};

/// What ends early so that it can give advice, instead of being ended at its deadline.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long a machine may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many machines are asked at the same time.
const MACHINES_AT_ONCE: usize = 64;

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
    let intent = context.intend(format!("delete {} {name}", kind.kind)).await?;
    kubernetes.delete(&intent, kind, namespace, name).await.map_err(refused)?;
    context.effected(intent).await?;
    let look = |objects: &BTreeMap<String, DynamicObject>| match objects.get(name) {
        None => ControlFlow::Break(()),
        Some(object) => {
            context.waiting(format!("{} {name} is gone", kind.kind), holds(object));
            ControlFlow::Continue(())
        }
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    kubernetes.follow(kind, namespace, Some(name), look, trouble).await.map_err(refused)?;
    Ok(Done::seen("it is gone"))
}

/// What keeps an object from going: its finalizers, and what it says itself (a namespace tells what is left in it).
fn holds(object: &DynamicObject) -> String {
    let finalizers = object.metadata.finalizers.iter().flatten().map(|finalizer| format!("finalizer {finalizer}"));
    let said = ["NamespaceContentRemaining", "NamespaceFinalizersRemaining"].into_iter().filter_map(|name| {
        let condition = condition(object, name).filter(|condition| condition["status"] == "True")?;
        condition["message"].as_str().map(str::to_owned)
    });
    finalizers.chain(said).collect::<Vec<_>>().join("; ")
}

/// No child cluster exists: their machines would outlive their manager. Those that do are deleted first if that was
/// asked for, and otherwise named.
pub(super) async fn child_clusters(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let asked = async {
        let kubernetes = deployment.kubernetes().await?;
        let children = kubernetes.list(CLUSTER_DEPLOYMENT, None).await.map_err(refused)?;
        Ok((kubernetes, children))
    };
    // A cluster without some of its machines may never answer.
    let is_whole = deployment.inventory.vms.len() >= deployment.topology.nodes.len();
    let patience = if is_whole { context.step().deadline } else { SURVEY };
    let answer = tokio::time::timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(Failure::new(format!("the cluster does not answer within {} s", patience.as_secs()))));
    let (kubernetes, children) = match answer {
        Err(failure) if !is_whole => {
            context.note(format!("child clusters were not looked for: {failure}"))?;
            return Ok(Done::seen("the cluster does not answer"));
        }
        answer => answer?,
    };
    if children.is_empty() {
        return Ok(Done::seen("there are none"));
    }
    let names = children.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if !deployment.with_children {
        return Err(Failure::refused(format!("{} child clusters exist: {names}", children.len())).advise(
            "Their machines would outlive their manager. Say --with-children to delete them, with their machines, first.",
        ));
    }
    context.note(format!("{} child clusters are deleted with their machines: {names}", children.len()))?;
    for child in children.values() {
        let (namespace, name) = (child.metadata.namespace.as_deref(), child.metadata.name.as_deref());
        let name = name.unwrap_or_default();
        let intent = context.intend(format!("delete child cluster {name} with its machines")).await?;
        kubernetes.delete(&intent, CLUSTER_DEPLOYMENT, namespace, name).await.map_err(refused)?;
        context.effected(intent).await?;
    }
    let mut left = String::new();
    let look = |children: &BTreeMap<String, DynamicObject>| {
        let Some((name, child)) = children.first_key_value() else { return ControlFlow::Break(()) };
        let said = condition(child, "Ready").and_then(|ready| ready["message"].as_str()).unwrap_or_default();
        let evidence = format!("{} left; {name}: {}; {said}", children.len(), holds(child));
        left.clone_from(&evidence);
        context.waiting("the child clusters are gone, and their machines with them", evidence);
        ControlFlow::Continue(())
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    let gone = kubernetes.follow(CLUSTER_DEPLOYMENT, None, None, look, trouble);
    let gone = tokio::time::timeout(context.step().deadline.saturating_sub(LAST_WORDS), gone).await;
    let Ok(gone) = gone else {
        return Err(Failure::new(format!("child clusters do not go: {left}")).advise(
            "Their machines may still run. See why: `k0rdentctl exec -- kubectl describe clusterdeployments --all-namespaces`.",
        ));
    };
    gone.map_err(refused)?;
    Ok(Done::seen(format!("they are gone: {names}")))
}

/// The Management object: its controllers take down what they have installed.
pub(super) async fn management(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    delete(deployment, context, MANAGEMENT, None, MANAGEMENT_NAME).await
}

/// The chart: its object's deletion makes k0s uninstall it.
pub(super) async fn chart(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    delete(deployment, context, CHART, Some(CHART_NAMESPACE), RELEASE).await
}

/// Definitions and webhooks that the chart's removal leaves.
pub(super) async fn left_behind(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let patience = context.step().deadline.saturating_sub(LAST_WORDS);
    left_behind::delete(&deployment.kubernetes().await?, context, &namespace_names(deployment), patience).await
}

/// The namespaces that k0rdent makes: its own, and those of Sveltos and of what it knows as the management cluster
/// (k0rdent documentation).
fn namespace_names(deployment: &Deployment) -> [&str; 3] {
    [&deployment.config.software.k0rdent.namespace, "projectsveltos", "mgmt"]
}

/// The namespaces. k0rdent runs nothing in `mgmt`: if anything does run there, it is somebody else's.
pub(super) async fn namespaces(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    let mut seen = Vec::new();
    for name in namespace_names(deployment) {
        if name == "mgmt" && !kubernetes.list(POD, Some(name)).await.map_err(refused)?.is_empty() {
            context.note("namespace mgmt is left alone: pods run in it, and k0rdent runs none there")?;
            continue;
        }
        seen.push(format!("{name}: {}", delete(deployment, context, NAMESPACE, None, name).await?.evidence));
    }
    Ok(Done::seen(seen.join("; ")))
}

/// Nothing of k0rdent is left in the cluster.
pub(super) async fn k0rdent_gone(deployment: &Deployment) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    let mut left = Vec::new();
    if kubernetes.get(CHART, Some(CHART_NAMESPACE), RELEASE).await.map_err(refused)?.is_some() {
        left.push(format!("chart {RELEASE}"));
    }
    let names = namespace_names(deployment);
    left.extend(left_behind::names(&kubernetes, &names).await.map_err(refused)?);
    for name in &names[..2] {
        if kubernetes.get(NAMESPACE, None, name).await.map_err(refused)?.is_some() {
            left.push(format!("namespace {name}"));
        }
    }
    if left.is_empty() {
        return Ok(Done::seen("0 left: no chart, no definition, no webhook, no namespace"));
    }
    Err(Failure::new(format!("{} left of k0rdent: {}", left.len(), left.join(", "))))
}

/// Nothing of k0s is left on any machine, nor its kubeconfig here.
pub(super) async fn k0s_gone(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let machines = deployment.topology.nodes.len();
    context.waiting("no machine has anything of k0s", "");
    let asked = (0..machines).map(async |node| {
        let remote = deployment.remote(node).await?;
        let planned = deployment.node(node);
        let question =
            format!("ls -d {BINARY} {CONFIG} /var/lib/k0s 2>/dev/null; systemctl is-active {}", unit(planned));
        let output = remote.try_run(&question, None, PATIENCE).await.map_err(ssh_failure)?;
        remote.disconnect().await;
        let there = |line: &&str| line.starts_with('/') || *line == "active";
        let there = output.stdout.lines().map(str::trim).filter(there).collect::<Vec<_>>().join(", ");
        let left = if there.is_empty() { None } else { Some(format!("{}: {there}", planned.name)) };
        Ok::<_, Failure>(left)
    });
    let answers: Vec<_> = futures::stream::iter(asked).buffered(MACHINES_AT_ONCE).collect().await;
    let left: Vec<String> = answers.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
    if !left.is_empty() {
        return Err(Failure::new(format!("k0s has left something on {} machines: {}", left.len(), left.join("; "))));
    }
    let removed = deployment.environment.remove("kubeconfig");
    removed.map_err(|error| Failure::refused(error.to_string()))?;
    Ok(Done::seen(format!("0 left on {machines} machines")))
}

//! Taking k0rdent off a cluster in its own order, and looking whether k0rdent or k0s has left anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::Duration,
};

use engine::{Context, Done, Failure, pause};
use futures::StreamExt as _;
use kube::api::DynamicObject;

use super::{
    k0rdent::{CHART_NAMESPACE, MANAGEMENT_NAME, ManagementSeen, RELEASE},
    k0s::refused,
    left_behind,
    removal::SURVEY,
};
use crate::{
    deployment::{Deployment, LOOK_AGAIN, ssh_failure},
    k0s::{BINARY, CONFIG, unit},
    kubernetes::{CHART, CLUSTER_DEPLOYMENT, Kind, MANAGEMENT, NAMESPACE, POD, condition},
    session::CHILDREN,
    words::count,
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
    delete_seen(deployment, context, kind, namespace, name, |_| Ok(())).await
}

/// The same; what is seen of the object while it goes is told.
async fn delete_seen(
    deployment: &Deployment,
    context: &Context<'_>,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
    mut tell: impl FnMut(&DynamicObject) -> Result<(), Failure>,
) -> Result<Done, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    if kubernetes.get(kind, namespace, name).await.map_err(refused)?.is_none() {
        return Ok(Done::seen("it does not exist"));
    }
    let intent = context.intend(format!("delete {} {name}", kind.kind)).await?;
    kubernetes.delete(&intent, kind, namespace, name).await.map_err(refused)?;
    context.effected(intent).await?;
    let look = |objects: &BTreeMap<String, DynamicObject>| match objects.get(name).map(|object| (object, tell(object)))
    {
        None => ControlFlow::Break(Ok(())),
        Some((_, Err(failure))) => ControlFlow::Break(Err(failure)),
        Some((object, Ok(()))) => {
            context.waiting(format!("{} {name} is gone", kind.kind), holds(object));
            ControlFlow::Continue(())
        }
    };
    let trouble =
        |error: &crate::kubernetes::KubernetesError| context.waiting("the Kubernetes API answers", error.to_string());
    kubernetes.follow(kind, namespace, Some(name), look, trouble).await.map_err(refused)??;
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

/// Nobody can say whether there are child clusters.
pub(crate) fn nobody_can_say(why: &str) -> Failure {
    Failure::refused(format!("nobody can say whether there are child clusters: {why}")).advise(
        "Their machines would outlive their manager. Let the cluster answer again (`k0rdentctl status --check`), or say --abandon-children to go on without knowing.",
    )
}

/// There are child clusters, and nobody has said what is to become of them.
pub(crate) fn exist(names: &str, number: usize) -> Failure {
    let exist = if number == 1 { "exists" } else { "exist" };
    Failure::refused(format!("{} {exist}: {names}", count(number, "child cluster"))).advise(
        "Their machines would keep running, and costing money. Say --with-children to delete them, with their machines, first; or --abandon-children to leave them behind.",
    )
}

/// Asks for the child clusters and records their names, because nobody can be asked for them when the cluster is gone. One
/// error is not yet silence.
pub(super) async fn ask_for_children(
    deployment: &Deployment,
    context: &Context<'_>,
) -> Result<Result<BTreeMap<String, DynamicObject>, String>, Failure> {
    let evidence = |said: &str| context.waiting("the cluster says which child clusters there are", said);
    let answer = children(deployment, usize::MAX, evidence).await;
    match &answer {
        Ok(children) => {
            deployment.learn_children(Some(names(children)));
            context.settle(CHILDREN, serde_json::json!(deployment.known_children().unwrap_or_default()))?;
        }
        Err(_) => deployment.learn_children(None),
    }
    Ok(answer)
}

/// The child clusters, by namespace and name: one controller after the other is asked, so many times, and for no longer
/// than a survey may take. Why nobody answers, otherwise.
pub(crate) async fn children(
    deployment: &Deployment,
    times: usize,
    evidence: impl Fn(&str),
) -> Result<BTreeMap<String, DynamicObject>, String> {
    let deadline = tokio::time::Instant::now() + SURVEY;
    let mut said = format!("the cluster does not answer within {} s", SURVEY.as_secs());
    for _ in 0..times {
        let asked = async { deployment.kubernetes().await?.list(CLUSTER_DEPLOYMENT, None).await.map_err(refused) };
        match tokio::time::timeout_at(deadline, asked).await {
            Err(_) => break,
            Ok(Ok(children)) => return Ok(children),
            Ok(Err(failure)) => said = failure.message,
        }
        evidence(&said);
        deployment.ask_another();
        pause(LOOK_AGAIN).await;
    }
    Err(said)
}

/// Their names alone.
pub(crate) fn names(children: &BTreeMap<String, DynamicObject>) -> BTreeSet<String> {
    children.values().filter_map(|child| child.metadata.name.clone()).collect()
}

/// No child cluster exists: their machines would outlive their manager. Those that do are deleted first if that was
/// asked for, and otherwise named.
pub(super) async fn child_clusters(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let children = match ask_for_children(deployment, context).await? {
        Ok(answer) => answer,
        Err(why) if deployment.abandon_children => {
            context.note(format!("child clusters were not looked for: {why}"))?;
            return Ok(Done::seen("the cluster does not answer"));
        }
        Err(why) => return Err(nobody_can_say(&why)),
    };
    if children.is_empty() {
        return Ok(Done::seen("there are none"));
    }
    let names = children.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if deployment.abandon_children && !deployment.with_children {
        context.note(format!("child clusters are left behind with their machines: {names}"))?;
        return Ok(Done::seen(format!("left behind: {names}")));
    }
    if !deployment.with_children {
        return Err(exist(&names, children.len()));
    }
    context.note(format!("child clusters are deleted with their machines: {names}"))?;
    let kubernetes = deployment.kubernetes().await?;
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
    let mut recorded = None;
    let tell = |object: &DynamicObject| {
        let mut seen = ManagementSeen::of(object);
        if seen.deleting {
            // What it says about being ready is not what it waits for now.
            seen.message = holds(object);
        }
        if recorded.as_ref() != Some(&seen) {
            seen.record(context)?;
            recorded = Some(seen);
        }
        Ok(())
    };
    delete_seen(deployment, context, MANAGEMENT, None, MANAGEMENT_NAME, tell).await
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
        return Err(Failure::new(format!(
            "k0s has left something on {}: {}",
            count(left.len(), "machine"),
            left.join("; ")
        )));
    }
    deployment.environment.discard(context, "kubeconfig", |_| false)?;
    Ok(Done::seen(format!("0 left on {}", count(machines, "machine"))))
}

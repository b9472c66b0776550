//! A look at the real before anything is planned: a constant number of requests to Azure and to the cluster, and one
//! command on each machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use engine::{Failure, State};
use futures::StreamExt as _;

use crate::{
    azure::{Inventory, Kind, inventory},
    deployment::{Deployment, kubernetes_failure},
    environment::{Environment, sha256},
    hosts::CLAIM,
    k0s::{BINARY, KUBECTL, membership},
    kubernetes::{CHART, MANAGEMENT, NODE},
    steps::{
        k0rdent::{CHART_NAMESPACE, MANAGEMENT_NAME, ManagementSeen, RELEASE},
        k0s::NodeSeen,
    },
    task::Task,
    topology::Role,
};

/// How long a machine may take to answer one question, once it has let us in.
const HOST_PATIENCE: Duration = Duration::from_secs(15);
/// How long the cluster may take to answer before it counts as not answering.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(20);
/// How many machines are asked at the same time.
const HOSTS_AT_ONCE: usize = 64;

/// What was seen of the world before the run.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What exists in Azure.
    pub inventory: Inventory,
    /// What the cluster says about itself, if it was there to ask.
    pub cluster: Option<ClusterSeen>,
    /// What each machine says about itself, if it should be there to ask.
    pub hosts: BTreeMap<String, HostSeen>,
    /// The files of the environment that are as they were recorded.
    pub intact_files: BTreeSet<String>,
}

/// What a cluster says about itself.
#[derive(Debug, Clone, Default)]
pub struct ClusterSeen {
    /// Its nodes.
    pub nodes: BTreeMap<String, NodeSeen>,
    /// Whether the kcm chart is installed.
    pub chart: bool,
    /// Its Management object.
    pub management: Option<ManagementSeen>,
}

/// What a machine says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostSeen {
    /// It does not answer, and why.
    Unreachable(String),
    /// It answers.
    Reachable {
        /// What is wrong with its place in the mesh, if anything.
        mesh: Option<String>,
        /// What is wrong with its k0s service, if anything.
        k0s: Option<String>,
        /// What is wrong with our claim, if it is a host that existed before.
        claim: Option<String>,
        /// The release of its k0s binary, if it has one.
        binary: Option<String>,
        /// Whether its disk has what only a member of a cluster has.
        is_member: bool,
        /// Whether it has kubectl and a kubeconfig.
        has_kubectl: bool,
    },
}

/// Looks at everything that the planner wants to know beyond Azure's inventory.
pub async fn observe(deployment: &Deployment, state: &State, environment: &Environment) -> Observed {
    let intact_files: BTreeSet<String> = state
        .artifacts
        .iter()
        .filter(|(file, artifact)| {
            environment.read(file).ok().flatten().is_some_and(|content| sha256(&content) == artifact.sha256)
        })
        .map(|(file, _)| file.clone())
        .collect();
    let hosts = hosts(deployment, state).await;
    choose_speaker(deployment, state, &hosts);
    let completed = |task: Task| completed(deployment, state, task);
    let speaker = hosts.get(&deployment.node(deployment.speaker()).name);
    let is_silent = matches!(speaker, Some(HostSeen::Unreachable(_)));
    let cluster = if !is_silent && (0..deployment.topology.nodes.len()).any(|node| completed(Task::Leader(node))) {
        // A cluster that does not answer is a finding for the plan, not an error of looking.
        tokio::time::timeout(CLUSTER_PATIENCE, cluster(deployment)).await.ok().and_then(Result::ok)
    } else {
        None
    };
    Observed { inventory: deployment.inventory.clone(), cluster, hosts, intact_files }
}

fn completed(deployment: &Deployment, state: &State, task: Task) -> bool {
    state.steps.get(&task.id(&deployment.topology)).is_some_and(|step| step.completed_with.is_some())
}

/// Asks every machine that was ready before and is running now.
async fn hosts(deployment: &Deployment, state: &State) -> BTreeMap<String, HostSeen> {
    let running = |node: usize| {
        let machine = deployment.inventory.find(Kind::VirtualMachine, &deployment.node(node).name);
        machine.is_some_and(|machine| {
            !inventory::is_deleting(machine)
                && !matches!(inventory::power_state(machine), Some("deallocated" | "stopped"))
        })
    };
    let asked = (0..deployment.topology.nodes.len())
        .filter(|&node| {
            (deployment.node(node).host.is_some() || running(node)) && completed(deployment, state, Task::Ready(node))
        })
        .map(async |node| (deployment.node(node).name.clone(), host(deployment, state, node).await));
    futures::stream::iter(asked).buffer_unordered(HOSTS_AT_ONCE).collect().await
}

async fn host(deployment: &Deployment, state: &State, node: usize) -> HostSeen {
    let unreachable = |why: String| HostSeen::Unreachable(why);
    let remote = match deployment.remote(node).await {
        Ok(remote) => remote,
        Err(failure) => return unreachable(failure.message),
    };
    let (mesh, planned) = (deployment.mesh, deployment.node(node));
    let unit = crate::k0s::unit(planned);
    let (binary, files) = (format!("{BINARY} version"), format!("ls -d .kube/config {KUBECTL}"));
    let (active, member) = (format!("systemctl is-active {unit}"), format!("sudo ls -d {}", membership(planned)));
    let mut questions = vec![("k0s", active.as_str()), ("binary", &binary), ("member", &member)];
    let (claim, active) = (format!("readlink {CLAIM}"), format!("systemctl is-active {}", mesh.unit()));
    match planned.host {
        Some(_) => questions.push(("claim", &claim)),
        None => {
            questions.extend([("mesh", active.as_str()), ("identity", mesh.identity_command()), ("kubectl", &files)]);
        }
    }
    let ask = |(name, command): &(&str, &str)| format!("echo {name} $({command} 2>/dev/null); ");
    let question: String = questions.iter().map(ask).collect();
    if let Err(error) = remote.connect_for_a_look(deployment.config.ssh.bastions.len()).await {
        return unreachable(error.to_string());
    }
    let output = match remote.run_once(&question, HOST_PATIENCE).await {
        Ok(output) => output,
        Err(error) => return unreachable(error.to_string()),
    };
    remote.disconnect_unless(planned.role == Role::Controller).await;
    let answers: BTreeMap<&str, &str> =
        output.stdout.lines().map(|line| line.trim().split_once(' ').unwrap_or((line.trim(), ""))).collect();
    let answer = |name: &str| answers.get(name).copied().unwrap_or_default();
    let (k0s_state, identity) = (answer("k0s"), answer("identity"));
    let (claim, mesh) = match (&planned.host, answer(if planned.host.is_some() { "claim" } else { "mesh" })) {
        (Some(_), owner) if owner == deployment.topology.cluster_id.as_str() => (None, None),
        (Some(_), "") => (Some(format!("{CLAIM} is not there")), None),
        (Some(_), owner) => (Some(format!("it belongs to {owner} ({CLAIM})")), None),
        (None, "active") if identity == mesh.identity(&deployment.keys, planned) => (None, None),
        (None, "active") => (None, Some(format!("{} runs with another key", mesh.unit()))),
        (None, other) => (None, Some(format!("{} is {other}", mesh.unit()))),
    };
    let joined = [Task::Leader(node), Task::Controller(node), Task::Worker(node)];
    let expected = joined.into_iter().any(|task| completed(deployment, state, task));
    let k0s = (expected && k0s_state != "active").then(|| format!("{unit} is {k0s_state}"));
    HostSeen::Reachable {
        mesh,
        k0s,
        claim,
        binary: Some(answer("binary").to_owned()).filter(|version| !version.is_empty()),
        is_member: !answer("member").is_empty(),
        has_kubectl: answer("kubectl").split_whitespace().count() == 2,
    }
}

/// The controller through which the cluster is spoken to: the first that is a member, answers, and runs.
fn choose_speaker(deployment: &Deployment, state: &State, hosts: &BTreeMap<String, HostSeen>) {
    let speaks = |&node: &usize| {
        let member =
            completed(deployment, state, Task::Leader(node)) || completed(deployment, state, Task::Controller(node));
        member && matches!(hosts.get(&deployment.node(node).name), Some(HostSeen::Reachable { k0s: None, .. }))
    };
    if let Some(speaker) = (0..deployment.topology.nodes.len()).find(speaks) {
        deployment.set_speaker(speaker);
    }
}

/// Three requests: nodes, chart, Management.
pub async fn cluster(deployment: &Deployment) -> Result<ClusterSeen, Failure> {
    let kubernetes = deployment.kubernetes().await?;
    let (nodes, chart, management) = futures::try_join!(
        kubernetes.list(NODE, None),
        kubernetes.get(CHART, Some(CHART_NAMESPACE), RELEASE),
        kubernetes.get(MANAGEMENT, None, MANAGEMENT_NAME),
    )
    .map_err(kubernetes_failure)?;
    Ok(ClusterSeen {
        nodes: nodes.iter().map(|(name, node)| (name.clone(), NodeSeen::of(node))).collect(),
        chart: chart.is_some_and(|chart| chart.data["status"]["releaseName"].is_string()),
        management: management.as_ref().map(ManagementSeen::of),
    })
}

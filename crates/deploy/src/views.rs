//! What people and programs see of an environment: pure functions of the recorded state.

use std::collections::BTreeMap;

use engine::{Decision, Outcome, Plan, PlannedStep, Record, State, StepState, StepStatus};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    config::Provider,
    plan::Difference,
    recipe,
    steps::k0rdent::ManagementSeen,
    task::{Phase, Task},
    topology::{ClusterId, Topology},
};

/// The version of the views' format.
pub const FORMAT_VERSION: u32 = 1;

/// Where an environment stands.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The version of this format.
    pub format_version: u32,
    /// The cluster; absent if there is none.
    pub cluster_id: Option<String>,
    /// The last phase that is complete, with all before it.
    pub phase: &'static str,
    /// Each phase.
    pub phases: Vec<PhaseStatus>,
    /// Each machine.
    pub nodes: Vec<NodeStatus>,
    /// k0rdent's Management object, as seen last.
    pub management: Option<ManagementSeen>,
    /// The last run.
    pub last_run: Option<LastRun>,
    /// Who holds the environment right now, if a run is active.
    pub holder: Option<engine::Holder>,
    /// Since when a deletion is under way that nobody has waited for.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deletion_since: Option<OffsetDateTime>,
    /// What failed last, and why.
    pub failures: Vec<FailedStep>,
    /// What to do next: a command.
    pub next: String,
}

/// Where a phase stands.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseStatus {
    /// Its name.
    pub name: &'static str,
    /// `pending`, `running`, `completed`, `failed` or `skipped`.
    pub status: &'static str,
    /// When its first step began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When its last step ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// Where a machine stands.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `controller` or `worker`.
    pub role: String,
    /// Its availability zone; absent for a host that existed before.
    pub zone: Option<u64>,
    /// Its address on the internet, or where its SSH answers.
    pub public_ip: Option<String>,
    /// Its address in the virtual network.
    pub private_ip: String,
    /// Its address in the mesh, if there is one.
    pub mesh_ip: Option<String>,
    /// `absent`, `creating`, `booting`, `ready`, `joined` or `failed`.
    pub state: &'static str,
}

/// A run, for people.
#[derive(Debug, Clone, Serialize)]
pub struct LastRun {
    /// The command.
    pub command: String,
    /// Who.
    pub by: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// `active`, `succeeded`, `failed`, `interrupted` or `killed`.
    pub outcome: &'static str,
}

/// A step that failed.
#[derive(Debug, Clone, Serialize)]
pub struct FailedStep {
    /// Its name.
    pub step: String,
    /// Why.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
}

/// Where the environment stands. `active`: a run holds the journal right now.
pub fn status(state: &State, provider: Provider, topology: Option<&Topology>, active: bool) -> Status {
    let known: Vec<Phase> = Phase::of(provider).collect();
    let phases: Vec<PhaseStatus> = known.iter().map(|phase| phase_status(state, *phase, active)).collect();
    let complete = known.iter().zip(&phases).take_while(|(_, status)| status.status == "completed");
    let deletion_since = recipe::deletion_under_way(state);
    let phase = match deletion_since {
        Some(_) => "deleting",
        None => complete.last().map_or("none", |(phase, _)| phase.reached()),
    };
    let failures: Vec<FailedStep> = current(state).filter_map(failed_step).collect();
    let last_run = state.runs.last().map(|run| LastRun {
        command: run.command.clone(),
        by: format!("{}@{}", run.holder.user, run.holder.host),
        started_at: run.started_at,
        ended_at: run.ended_at,
        outcome: match run.outcome {
            Some(Outcome::Succeeded) => "succeeded",
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Interrupted) => "interrupted",
            None if active => "active",
            None => "killed",
        },
    });
    let nodes = topology.map_or_else(Vec::new, |topology| {
        (0..topology.nodes.len()).map(|node| node_status(state, topology, node)).collect()
    });
    let management = topology
        .and_then(|topology| state.output(&Task::Management.id(topology)))
        .and_then(|output| serde_json::from_value(output.clone()).ok());
    let next = match (phase, recipe::teardown_to_finish(state), active) {
        (_, _, true) => "k0rdentctl events --follow".to_owned(),
        (_, Some(command), _) => format!("k0rdentctl {command}"),
        ("deleting", ..) => "k0rdentctl reset".to_owned(),
        ("k0rdent_deployed", ..) => "k0rdentctl exec -- kubectl get nodes".to_owned(),
        _ => "k0rdentctl deploy".to_owned(),
    };
    Status {
        format_version: FORMAT_VERSION,
        cluster_id: state.settled.get("cluster_id").and_then(|id| id.as_str()).map(str::to_owned),
        phase,
        phases,
        nodes,
        management,
        last_run,
        holder: state.runs.last().filter(|_| active).map(|run| run.holder.clone()),
        deletion_since,
        failures,
        next,
    }
}

/// The steps of the last plan.
fn current(state: &State) -> impl Iterator<Item = &StepState> {
    state.order.iter().filter_map(|id| state.steps.get(id))
}

fn failed_step(step: &StepState) -> Option<FailedStep> {
    let failure = step.failure.as_ref().filter(|_| step.status == StepStatus::Failed)?;
    Some(FailedStep {
        step: step.planned.id.to_string(),
        message: failure.message.clone(),
        advice: failure.advice.clone(),
    })
}

fn phase_status(state: &State, phase: Phase, active: bool) -> PhaseStatus {
    // Steps that the last plan does not name are history, unless it does not speak of the phase at all.
    let mut steps: Vec<&StepState> = current(state).filter(|step| step.planned.phase == phase.name()).collect();
    if steps.is_empty() {
        steps = state.steps.values().filter(|step| step.planned.phase == phase.name()).collect();
    }
    let any = |status: StepStatus| steps.iter().any(|step| step.status == status);
    let all_complete = !steps.is_empty() && steps.iter().all(|step| step.status == StepStatus::Completed || held(step));
    let begun = steps.iter().any(|step| step.started_at.is_some());
    let status = match () {
        () if all_complete => "completed",
        () if any(StepStatus::Failed) => "failed",
        () if active && begun => "running",
        // The program was stopped, or ended, in the middle of a step.
        () if any(StepStatus::Running) => "failed",
        () => "pending",
    };
    PhaseStatus {
        name: phase.name(),
        status,
        started_at: steps.iter().filter_map(|step| step.started_at).min(),
        ended_at: if all_complete { steps.iter().filter_map(|step| step.ended_at).max() } else { None },
    }
}

/// Seen to hold by the planner, though no run of ours recorded it (an adopted resource).
fn held(step: &StepState) -> bool {
    step.planned.decision == engine::Decision::Skip
}

fn node_status(state: &State, topology: &Topology, node: usize) -> NodeStatus {
    let planned = &topology.nodes[node];
    let is_made = planned.host.is_none();
    let step = |task: Task| state.steps.get(&task.id(topology));
    let complete = |task: Task| step(task).is_some_and(|step| step.status == StepStatus::Completed || held(step));
    let joined = [Task::Leader(node), Task::Controller(node), Task::Worker(node)].into_iter().any(complete);
    let of_node = state.steps.values().filter(|step| step.planned.node.as_deref() == Some(&planned.name));
    let failed = of_node.clone().any(|step| step.status == StepStatus::Failed);
    let machine_state = match () {
        () if failed => "failed",
        () if joined => "joined",
        () if complete(Task::Ready(node)) => "ready",
        () if is_made && complete(Task::Machine(node)) => "booting",
        () if of_node.clone().any(|step| step.started_at.is_some()) => "creating",
        () => "absent",
    };
    let output = |task: Task, key: &str| step(task).map(|step| step.output[key].clone()).unwrap_or_default();
    NodeStatus {
        name: planned.name.clone(),
        role: planned.role.name().to_owned(),
        zone: is_made.then(|| output(Task::Provisioned(node), "zone").as_u64().unwrap_or(u64::from(planned.zone))),
        public_ip: match &planned.host {
            Some(host) => Some(host.address.clone()),
            None => output(Task::PublicAddress(node), "public_address").as_str().map(str::to_owned),
        },
        private_ip: planned.private_address.to_string(),
        mesh_ip: is_made.then(|| planned.mesh_address.to_string()),
        state: machine_state,
    }
}

/// A plan, with what it will cost.
#[derive(Debug, Clone, Serialize)]
pub struct PlanView {
    /// The version of this format.
    pub format_version: u32,
    /// The cluster; absent if it has no name yet.
    pub cluster_id: Option<String>,
    /// How many steps run.
    pub steps_to_run: usize,
    /// How long they usually take.
    pub expected_seconds: u64,
    /// What they ask of Azure; absent if it makes no machine.
    pub requests: Option<Requests>,
    /// What is not as it is recorded, and what the plan does about it.
    pub differences: Vec<Difference>,
    /// The phases.
    pub phases: Vec<PlannedPhase>,
    /// The steps in order.
    pub steps: Vec<PlannedStepView>,
}

/// A step of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStepView {
    /// Its name.
    pub id: String,
    /// The phase under which it is shown.
    pub phase: String,
    /// What it is about, for people.
    pub title: String,
    /// The node that it is about, if it is about one.
    pub node: Option<String>,
    /// The steps that must hold before.
    pub after: Vec<String>,
    /// Whether it runs.
    pub decision: Decision,
    /// Why it runs, or why it need not.
    pub why: String,
    /// How long it usually takes.
    pub usual_seconds: u64,
    /// How long it may take.
    pub deadline_seconds: u64,
}

impl PlannedStepView {
    /// A step as it was planned.
    pub fn of(step: &PlannedStep) -> Self {
        Self {
            id: step.id.to_string(),
            phase: step.phase.clone(),
            title: step.title.clone(),
            node: step.node.clone(),
            after: step.after.iter().map(ToString::to_string).collect(),
            decision: step.decision,
            why: step.why.clone(),
            usual_seconds: step.usual.as_secs(),
            deadline_seconds: step.deadline.as_secs(),
        }
    }
}

/// Requests to Azure that a plan is expected to need.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Requests {
    /// An estimate: they depend on how often somebody has to look.
    pub reads: usize,
    /// One for each thing that is created.
    pub writes: usize,
}

/// A phase of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedPhase {
    /// Its name.
    pub name: &'static str,
    /// How many steps it has.
    pub steps: usize,
    /// How many of them run.
    pub to_run: usize,
}

impl PlanView {
    /// What is to be known about a plan; the cluster if it has a name already.
    pub fn of(plan: &Plan, differences: &[Difference], cluster: Option<&ClusterId>) -> Self {
        let runs = |step: &&PlannedStep| step.decision == Decision::Run;
        let phase = |phase: &Phase| {
            let steps: Vec<&PlannedStep> = plan.steps.iter().filter(|step| step.phase == phase.name()).collect();
            let to_run = steps.iter().copied().filter(runs).count();
            PlannedPhase { name: phase.name(), steps: steps.len(), to_run }
        };
        Self {
            format_version: FORMAT_VERSION,
            cluster_id: cluster.map(ToString::to_string),
            steps_to_run: plan.to_run(),
            expected_seconds: plan.usual().as_secs(),
            requests: plan
                .steps
                .iter()
                .any(|step| step.phase == Phase::Infrastructure.name())
                .then(|| Requests::of(plan)),
            differences: differences.to_vec(),
            phases: Phase::DEPLOY.iter().map(phase).filter(|phase| phase.steps > 0).collect(),
            steps: plan.steps.iter().map(PlannedStepView::of).collect(),
        }
    }
}

impl Requests {
    /// Looking at what exists takes about ten requests, and preflight another ten. While something is created, its
    /// list is read about once a second, together with that of others of its kind; machines take longest (guess).
    fn of(plan: &Plan) -> Self {
        let creates =
            ["resource-group", "ssh-key", "security-group", "virtual-network", "public-address", "interface", "create"];
        let verb = |step: &PlannedStep| step.id.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let runs: Vec<&PlannedStep> = plan.steps.iter().filter(|step| step.decision == Decision::Run).collect();
        let writes = runs.iter().filter(|step| creates.contains(&verb(step).as_str())).count();
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for step in &runs {
            if creates.contains(&verb(step).as_str()) || verb(step) == "provisioned" {
                kinds.insert(verb(step), step.usual.as_secs());
            }
        }
        let looks = if runs.iter().any(|step| verb(step) == "preflight") { 20 } else { 10 };
        Self { reads: looks + usize::try_from(kinds.values().sum::<u64>()).unwrap_or_default(), writes }
    }
}

/// `deployment-state.yaml`: the state for people and their tools. A view: nothing reads it back.
pub fn state_yaml(state: &State, status: &Status) -> String {
    #[derive(Serialize)]
    struct View<'a> {
        #[serde(flatten)]
        status: &'a Status,
        settled: &'a BTreeMap<String, serde_json::Value>,
        artifacts: &'a BTreeMap<String, engine::state::ArtifactState>,
        steps: BTreeMap<String, StepStatus>,
    }
    let steps = state.steps.iter().map(|(id, step)| (id.to_string(), step.status)).collect();
    let view = View { status, settled: &state.settled, artifacts: &state.artifacts, steps };
    yaml(&view)
}

/// `deployment-events.yaml`: what happened, for people and their tools. Plans are left out: they are long, and each of
/// their steps says what became of it.
pub fn events_yaml(records: &[Record]) -> String {
    #[derive(Serialize)]
    struct View<'a> {
        format_version: u32,
        events: Vec<&'a Record>,
    }
    let events = records.iter().filter(|record| !matches!(record.event, engine::Event::Planned { .. })).collect();
    yaml(&View { format_version: FORMAT_VERSION, events })
}

/// JSON first: the YAML writer then sees plain values only.
fn yaml(view: &impl Serialize) -> String {
    let value = serde_json::to_value(view).unwrap_or_default();
    serde_saphyr::to_string(&value).unwrap_or_default()
}

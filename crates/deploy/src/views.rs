//! What people and programs see of an environment: pure functions of the recorded state.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Decision, Outcome, Plan, PlannedStep, Record, State, StepId, StepState, StepStatus};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    config::Provider,
    difference::Difference,
    preview::Preview,
    recipe,
    session::{Place, Planned},
    steps::k0rdent::{ManagementSeen, SEEN},
    task::{Phase, Task},
    topology::{Node, Role, Topology},
    yaml::yaml,
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
    /// What is there, each by itself.
    #[serde(flatten)]
    pub milestones: Milestones,
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
    /// What is not as it was asked for, though nothing has failed.
    pub warnings: Vec<String>,
    /// What to do next: a command.
    pub next: String,
}

/// What is there, as the records know it: a step that is undoing something has undone it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Milestones {
    /// The resource group and the network, with an address and an interface for each machine. What existed before needs
    /// none.
    pub infrastructure_ready: bool,
    /// Every machine answers SSH and has finished cloud-init.
    pub vms_ready: bool,
    /// Every machine has joined the Kubernetes cluster.
    pub k0s_installed: bool,
    /// k0rdent's chart is installed.
    pub k0rdent_installed: bool,
    /// Its Management object is ready.
    pub k0rdent_ready: bool,
}

impl Milestones {
    /// Those of a cluster.
    pub fn of(state: &State, topology: &Topology) -> Self {
        let step = |task: Task| state.steps.get(&task.id(topology));
        if recipe::deletion_under_way(state).is_some() || WHOLE.into_iter().filter_map(step).any(is_going) {
            return Self::default();
        }
        let group = Task::DeleteResourceGroup.id(topology);
        let begun = state.steps.values().filter(|step| step.intent.is_some() && step.planned.id != group);
        let undoing: BTreeSet<&StepId> =
            begun.filter(|step| step.status != StepStatus::Pending).flat_map(|step| &step.planned.undoes).collect();
        let holds = |task: Task| {
            let is_undone = undoing.contains(&task.id(topology));
            step(task).is_some_and(|step| step.status == StepStatus::Completed && !is_undone)
        };
        let nodes = || 0..topology.nodes.len();
        let is_made = topology.provider.makes_machines();
        let shared = [Task::ResourceGroup, Task::SshKey, Task::SecurityGroup, Task::VirtualNetwork];
        let network = || {
            shared.into_iter().all(holds)
                && nodes().all(|node| holds(Task::PublicAddress(node)) && holds(Task::Interface(node)))
        };
        Self {
            infrastructure_ready: !is_made || network(),
            vms_ready: nodes().all(|node| holds(Task::Ready(node))),
            k0s_installed: nodes().all(|node| holds(recipe::joined(topology, node))),
            k0rdent_installed: holds(Task::Chart),
            k0rdent_ready: holds(Task::Management),
        }
    }
}

/// The steps that delete everything at once.
const WHOLE: [Task; 3] = [Task::DeleteResourceGroup, Task::RequestDeletion, Task::TryResourceGroup];

/// Whether such a step has asked for it. Where it was refused, everything is still there.
fn is_going(step: &StepState) -> bool {
    match step.status {
        StepStatus::Running => step.intent.is_some(),
        StepStatus::Completed => step.planned.decision == Decision::Run && step.output["skipped"].is_null(),
        StepStatus::Pending | StepStatus::Failed => false,
    }
}

/// Where a phase stands.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseStatus {
    /// Its name.
    pub name: &'static str,
    /// `pending`, `running`, `completed`, `failed`, `interrupted` or `skipped`.
    pub status: &'static str,
    /// When its first step began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When its last step ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// How long its steps took, at least one of them at work; absent until all are complete. What passed between two
    /// runs does not count.
    pub took_seconds: Option<u64>,
}

/// Where a machine stands.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// `controller` or `worker`.
    pub role: String,
    /// Its availability zone; absent for a host that existed before, and in a region without zones.
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
        // Steps that the last plan does not name are history, unless it does not speak of the machine at all.
        let (now, ever) = (by_node(current(state)), by_node(state.steps.values()));
        let of_node = |name: &str| now.get(name).or_else(|| ever.get(name)).map_or(&[][..], Vec::as_slice);
        let status = |(position, node): (usize, &Node)| node_status(state, topology, position, of_node(&node.name));
        topology.nodes.iter().enumerate().map(status).collect()
    });
    let warnings = topology.map(|topology| misplaced(topology, &nodes)).unwrap_or_default();
    let management = topology.and_then(|topology| management(state, topology));
    let milestones = topology.map(|topology| Milestones::of(state, topology)).unwrap_or_default();
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
        milestones,
        phases,
        nodes,
        management,
        last_run,
        holder: state.runs.last().filter(|_| active).map(|run| run.holder.clone()),
        deletion_since,
        failures,
        warnings,
        next,
    }
}

/// k0rdent's Management object as it was seen last, for as long as nobody has seen it gone.
fn management(state: &State, topology: &Topology) -> Option<ManagementSeen> {
    let made = state.steps.get(&Task::Management.id(topology))?;
    let was_there = made.status != StepStatus::Pending || made.started_at.is_some();
    let seen = state.settled.get(SEEN).filter(|_| was_there).or_else(|| state.output(&made.planned.id))?;
    serde_json::from_value(seen.clone()).ok()
}

/// Machines that are in another zone than was asked for, and what that means for the control plane.
fn misplaced(topology: &Topology, nodes: &[NodeStatus]) -> Vec<String> {
    let moved = topology.nodes.iter().zip(nodes).filter(|(planned, node)| {
        let is_elsewhere = |asked: u8| node.zone.is_some_and(|zone| zone != u64::from(asked));
        node.state != "absent" && planned.zone.is_some_and(is_elsewhere)
    });
    let moved: Vec<&str> = moved.map(|(_, node)| node.name.as_str()).collect();
    let mut warnings = Vec::new();
    match moved.as_slice() {
        [] => return warnings,
        [one] => warnings.push(format!("{one} is not in the zone that was asked for")),
        some => warnings.push(format!(
            "{} machines are not in the zones that were asked for: {}",
            some.len(),
            some.join(", ")
        )),
    }
    let mut zones: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let controllers: Vec<&NodeStatus> = nodes.iter().filter(|node| node.role == "controller").collect();
    for (zone, node) in controllers.iter().filter_map(|node| Some((node.zone?, node))) {
        zones.entry(zone).or_default().push(&node.name);
    }
    let majority = controllers.len() / 2 + 1;
    let is_fatal = |members: &&Vec<&str>| controllers.len() > 1 && controllers.len() - members.len() < majority;
    // Where everything was asked to be in one zone, nobody is surprised.
    let asked: Vec<&Node> = topology.nodes.iter().filter(|node| node.role == Role::Controller).collect();
    let was_asked = |zone: u64| asked.iter().filter(|node| node.zone.map(u64::from) == Some(zone)).count();
    for (zone, members) in zones.iter().filter(|(_, members)| is_fatal(members)) {
        if was_asked(*zone) < members.len() {
            let names = members.join(" and ");
            warnings.push(format!("{names} share zone {zone}: if that zone fails, etcd loses its majority"));
        }
    }
    warnings
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
        () if any(StepStatus::Running) => "interrupted",
        () => "pending",
    };
    PhaseStatus {
        name: phase.name(),
        status,
        started_at: steps.iter().filter_map(|step| step.started_at).min(),
        ended_at: if all_complete { steps.iter().filter_map(|step| step.ended_at).max() } else { None },
        took_seconds: all_complete.then(|| took(&steps)).flatten(),
    }
}

/// How long at least one of these steps was at work, in seconds; nothing if none ever was.
fn took(steps: &[&StepState]) -> Option<u64> {
    let mut spans: Vec<_> = steps.iter().filter_map(|step| step.started_at.zip(step.ended_at)).collect();
    spans.sort();
    let (mut total, mut until) = (time::Duration::ZERO, spans.first()?.0);
    for (from, to) in spans {
        total += (to - from.max(until)).max(time::Duration::ZERO);
        until = until.max(to);
    }
    u64::try_from(total.as_seconds_f64().round() as i64).ok()
}

/// Seen to hold by the planner, though no run of ours recorded it (an adopted resource).
fn held(step: &StepState) -> bool {
    step.planned.decision == engine::Decision::Skip
}

fn by_node<'state>(steps: impl Iterator<Item = &'state StepState>) -> BTreeMap<&'state str, Vec<&'state StepState>> {
    let mut by_node: BTreeMap<&str, Vec<&StepState>> = BTreeMap::new();
    for (node, step) in steps.filter_map(|step| Some((step.planned.node.as_deref()?, step))) {
        by_node.entry(node).or_default().push(step);
    }
    by_node
}

/// Where a node stands, by the steps that are about it.
fn node_status(state: &State, topology: &Topology, node: usize, of_node: &[&StepState]) -> NodeStatus {
    let planned = &topology.nodes[node];
    let is_made = planned.host.is_none();
    let step = |task: Task| state.steps.get(&task.id(topology));
    let complete = |task: Task| step(task).is_some_and(|step| step.status == StepStatus::Completed || held(step));
    let joined = [Task::Leader(node), Task::Controller(node), Task::Worker(node)].into_iter().any(complete);
    let failed = of_node.iter().any(|step| step.status == StepStatus::Failed);
    let machine_state = match () {
        () if failed => "failed",
        () if joined => "joined",
        () if complete(Task::Ready(node)) => "ready",
        () if is_made && complete(Task::Machine(node)) => "booting",
        () if of_node.iter().any(|step| step.started_at.is_some()) => "creating",
        () => "absent",
    };
    let output = |task: Task, key: &str| step(task).map(|step| step.output[key].clone()).unwrap_or_default();
    NodeStatus {
        name: planned.name.clone(),
        role: planned.role.name().to_owned(),
        zone: output(Task::Provisioned(node), "zone").as_u64().or(planned.zone.map(u64::from)).filter(|_| is_made),
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
    /// Where it is, and as whom we are there; absent if Azure was not asked.
    pub place: Option<Place>,
    /// What is created, changed and deleted; what that costs; what is open afterwards; what is dangerous.
    #[serde(flatten)]
    pub preview: Preview,
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
    /// One for each machine that is deleted.
    pub deletes: usize,
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
    /// What is to be known about a plan.
    pub fn of(planned: &Planned, place: Option<Place>) -> Self {
        let Planned { plan, differences, preview, topology, is_new, .. } = planned;
        let runs = |step: &&PlannedStep| step.decision == Decision::Run;
        let phase = |phase: &Phase| {
            let steps: Vec<&PlannedStep> = plan.steps.iter().filter(|step| step.phase == phase.name()).collect();
            let to_run = steps.iter().copied().filter(runs).count();
            PlannedPhase { name: phase.name(), steps: steps.len(), to_run }
        };
        Self {
            format_version: FORMAT_VERSION,
            cluster_id: (!is_new).then(|| topology.cluster_id.to_string()),
            steps_to_run: plan.to_run(),
            expected_seconds: plan.usual().as_secs(),
            requests: plan
                .steps
                .iter()
                .any(|step| step.phase == Phase::Infrastructure.name())
                .then(|| Requests::of(plan)),
            place,
            preview: preview.clone(),
            differences: differences.clone(),
            phases: Phase::DEPLOY.iter().map(phase).filter(|phase| phase.steps > 0).collect(),
            steps: plan.steps.iter().map(PlannedStepView::of).collect(),
        }
    }
}

impl Requests {
    /// A look at what exists, a preflight, and for each kind of thing a list about once a second until the slowest is
    /// there (figures: rehearsals of the examples, from 1 to 500 machines).
    fn of(plan: &Plan) -> Self {
        const LOOK: f64 = 12.0;
        let runs = plan.steps.iter().filter(|step| step.decision == Decision::Run);
        let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
        for step in runs {
            *steps.entry(step.id.as_str().rsplit('/').next().unwrap_or_default()).or_default() += 1;
        }
        let number = |task: Task| steps.get(task.verb()).copied().unwrap_or_default();
        let writes = [
            Task::ResourceGroup,
            Task::SshKey,
            Task::SecurityGroup,
            Task::VirtualNetwork,
            Task::PublicAddress(0),
            Task::Interface(0),
            Task::Machine(0),
        ];
        // How long a list is asked for until the slowest of so many is there; long lists come in pages, half as often.
        let listed = |task: Task, seconds: fn(f64) -> f64| match number(task) {
            0 => 0.0,
            some @ 1..=100 => seconds(some as f64),
            many => seconds(many as f64) * many.div_ceil(200) as f64 / 2.0,
        };
        let fixed = [
            (Task::Preflight, 22.0),
            (Task::ResourceGroup, 8.0),
            (Task::SecurityGroup, 5.0),
            (Task::VirtualNetwork, 5.0),
            (Task::SshKey, 1.0),
        ];
        let reads = LOOK
            + fixed.iter().filter(|(task, _)| number(*task) > 0).map(|(_, reads)| reads).sum::<f64>()
            + listed(Task::PublicAddress(0), |many| 10.0 + many / 10.0)
            + listed(Task::Interface(0), |many| 4.0 + many / 6.0)
            + listed(Task::Machine(0), |many| if many < 2.0 { 38.0 } else { 70.0 + 17.0 * many.ln() })
            + listed(Task::DeleteMachine(0), |_| 40.0);
        Self {
            reads: reads.round() as usize,
            writes: writes.into_iter().map(number).sum(),
            deletes: number(Task::DeleteMachine(0)),
        }
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

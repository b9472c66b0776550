//! Back to nothing, in the order in which nothing hangs; and what a teardown leaves undone.

use engine::{Failure, Outcome, State, StepStatus, state::RunState};

use super::{Line, deploy, line, uninstall};
use crate::{
    task::{
        Phase,
        Task::{self, *},
    },
    topology::Topology,
};

/// Steps of a teardown after which a deployment can still go on: child clusters are nothing that it builds on.
const HARMLESS: [&str; 1] = ["teardown/child-clusters"];

/// The steps of a teardown, as far as the environment ever got. What k0rdent's chart leaves in the cluster goes with the
/// machines.
pub fn reset(topology: &Topology, reached: Option<Phase>) -> Vec<Line> {
    let mut lines = if reached >= Some(Phase::K0rdent) { uninstall::k0rdent() } else { Vec::new() };
    if reached >= Some(Phase::K0s) {
        let after = lines.last().map(|line| line.task);
        lines.extend(uninstall::k0s(topology, after));
    }
    let after = lines.last().map(|line| line.task);
    lines.push(line(DeleteResourceGroup, after));
    lines.push(line(Evidence, [DeleteResourceGroup]));
    lines
}

/// The steps of a deployment that do not hold any more once this one has succeeded.
pub(crate) fn undoes(topology: &Topology, task: Task) -> Vec<Task> {
    match task {
        DeleteManagement => vec![Management],
        DeleteChart => vec![Chart, Management],
        // It also clears the machine's network (k0s documentation, reset): whether the mesh stands has to be seen again.
        ResetMachine(node) => vec![
            MeshMember(node),
            Binary(node),
            deploy::joined(topology, node),
            HomeKubeconfig(node),
            NodesReady,
            Tokens,
            Kubeconfig,
        ],
        DeleteResourceGroup => deploy::deploy(topology).into_iter().map(|line| line.task).collect(),
        _ => Vec::new(),
    }
}

/// Whether the last thing that happened is a teardown that ended well.
pub fn is_torn_down(state: &State) -> bool {
    state.runs.last().is_some_and(|run| run.command == "reset" && run.outcome == Some(Outcome::Succeeded))
}

fn is_unfinished_teardown(run: &&RunState) -> bool {
    let is_teardown = run.command == "reset" || uninstall::Part::ALL.iter().any(|part| part.command() == run.command);
    is_teardown && run.outcome != Some(Outcome::Succeeded)
}

/// The command that finishes what the last run has begun to tear down, if it is not finished.
pub fn teardown_to_finish(state: &State) -> Option<&str> {
    state.runs.last().filter(is_unfinished_teardown).map(|run| run.command.as_str())
}

/// Why `command` cannot build on what a teardown has left that has begun and has not ended well: k0rdent's controllers
/// do not make a Management object twice (kcm issue 175), and a controller that has left etcd does not say so. A reset
/// can follow everything.
pub fn unfinished_teardown(state: &State, command: &str) -> Option<Failure> {
    let unfinished: Vec<&RunState> = state.runs.iter().rev().take_while(is_unfinished_teardown).collect();
    let (last, first) = (unfinished.first()?, unfinished.last()?);
    if command == "reset" || command == last.command {
        return None;
    }
    let acted = state.steps.values().any(|step| {
        let acted = step.intent.is_some() || step.status == StepStatus::Completed;
        let acted = acted && !HARMLESS.contains(&step.planned.id.as_str());
        step.planned.phase == Phase::Teardown.name() && acted && step.started_at >= Some(first.started_at)
    });
    acted.then(|| {
        Failure::refused(
            "a teardown of this cluster has begun and is not finished: what it has left cannot be built on",
        )
        .advise(format!("Run `k0rdentctl {}` to finish it, then `k0rdentctl {command}`.", last.command))
    })
}

//! Back to nothing, in the order in which nothing hangs.

use engine::{Failure, Outcome, State, StepStatus};

use super::{Line, line};
use crate::{
    task::{Phase, Task::*},
    topology::Topology,
};

/// The steps of a teardown, as far as the environment ever got. k0rdent clears up after itself only while its
/// controllers run: the Management object goes before the chart (k0rdent documentation, clean-up).
pub fn reset(topology: &Topology, reached: Option<Phase>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut after = Vec::new();
    if reached >= Some(Phase::K0rdent) {
        lines.push(line(DeleteManagement, []));
        lines.push(line(DeleteChart, [DeleteManagement]));
        lines.push(line(DeleteNamespace, [DeleteChart]));
        after = vec![DeleteNamespace];
    }
    if reached >= Some(Phase::K0s) {
        // Workers first, then controllers from the last to the first, so that etcd keeps its quorum while they leave.
        let (controllers, workers): (Vec<_>, Vec<_>) = (0..topology.nodes.len())
            .partition(|&node| topology.controllers().any(|c| c.name == topology.nodes[node].name));
        lines.extend(workers.iter().map(|&node| line(ResetMachine(node), after.clone())));
        after.extend(workers.iter().map(|&node| ResetMachine(node)));
        for &node in controllers.iter().rev() {
            lines.push(line(ResetMachine(node), after));
            after = vec![ResetMachine(node)];
        }
    }
    lines.push(line(DeleteResourceGroup, after));
    lines.push(line(Evidence, [DeleteResourceGroup]));
    lines
}

/// Whether the last thing that happened is a teardown that ended well.
pub fn is_torn_down(state: &State) -> bool {
    state.runs.last().is_some_and(|run| run.command == "reset" && run.outcome == Some(Outcome::Succeeded))
}

/// Why nothing can be built on what a teardown has left that has begun and has not ended well: k0rdent's controllers do
/// not make a Management object twice, and a controller that has left etcd does not say so.
pub fn unfinished_teardown(state: &State) -> Option<Failure> {
    let reset = state.runs.iter().rev().find(|run| run.command == "reset")?;
    let acted = state.steps.values().any(|step| {
        let acted = step.intent.is_some() || step.status == StepStatus::Completed;
        step.planned.phase == Phase::Teardown.name() && acted && step.started_at >= Some(reset.started_at)
    });
    acted.then(|| {
        Failure::refused(
            "a teardown of this cluster has begun and is not finished: what it has left cannot be built on",
        )
        .advise("Run `k0rdentctl reset` to finish it, then `k0rdentctl deploy`.")
    })
}

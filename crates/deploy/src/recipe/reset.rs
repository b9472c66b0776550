//! Back to nothing, in the order in which nothing hangs.

use engine::{Failure, Outcome, State, StepStatus};
use serde::Serialize;
use time::OffsetDateTime;

use super::{Line, line};
use crate::{
    task::{Phase, Task::*},
    topology::Topology,
};

/// Steps of a teardown that only look.
const LOOKS: [&str; 2] = ["teardown/check", "teardown/child-clusters"];
/// The step with which every teardown ends that somebody waits for.
const EVIDENCE: &str = "teardown/evidence";

/// How a cluster is taken down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// k0rdent and k0s are uninstalled first, each in its own order.
    #[default]
    Orderly,
    /// Nothing has to work: what is ours is found in the subscription and deleted, whatever goes wrong on the way.
    Force,
    /// The resource group is deleted in one request, and the cluster is asked nothing.
    Fast,
    /// The same, and nobody waits for it.
    FastNoWait,
}

/// The steps of a teardown, as far as the environment ever got; nothing is asked of a cluster that never was. k0rdent
/// clears up after itself only while its controllers run: the Management object goes before the chart (k0rdent
/// documentation, clean-up).
pub fn reset(topology: &Topology, reached: Option<Phase>, manner: Manner) -> Vec<Line> {
    let check = line(CheckGroup, []);
    match manner {
        Manner::Orderly => {
            let (mut lines, after) = inside(topology, reached);
            lines.insert(0, check);
            lines.extend([line(DeleteResourceGroup, after), line(DeleteRest, [DeleteResourceGroup])]);
            lines.push(line(Evidence, [DeleteRest]));
            lines
        }
        Manner::Fast => {
            let group = [check, line(DeleteResourceGroup, [CheckGroup])];
            group.into_iter().chain([line(DeleteRest, [DeleteResourceGroup]), line(Evidence, [DeleteRest])]).collect()
        }
        Manner::FastNoWait => vec![check, line(RequestDeletion, [CheckGroup])],
        Manner::Force => {
            let survey = (reached >= Some(Phase::K0rdent)).then_some(Survey);
            let mut lines: Vec<Line> = survey.iter().map(|survey| line(*survey, [])).collect();
            lines.extend([line(TryResourceGroup, survey), line(DeleteRest, [TryResourceGroup])]);
            lines.push(line(Evidence, [DeleteRest]));
            lines
        }
    }
}

/// The steps inside the cluster, and what the rest comes after.
fn inside(topology: &Topology, reached: Option<Phase>) -> (Vec<Line>, Vec<crate::task::Task>) {
    let mut lines = Vec::new();
    let mut after = vec![CheckGroup];
    if reached >= Some(Phase::K0rdent) {
        lines.push(line(DeleteManagement, [CheckGroup]));
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
    (lines, after)
}

/// Whether the last thing that happened is a teardown that ended well, with its evidence.
pub fn is_torn_down(state: &State) -> bool {
    last_reset(state).is_some() && has_evidence(state)
}

/// Since when a deletion is under way that was accepted and that nobody has waited for.
pub fn deletion_under_way(state: &State) -> Option<OffsetDateTime> {
    last_reset(state).filter(|_| !has_evidence(state))
}

/// When the last run ended, if it is a teardown that ended well.
fn last_reset(state: &State) -> Option<OffsetDateTime> {
    let run = state.runs.last().filter(|run| run.command == "reset" && run.outcome == Some(Outcome::Succeeded))?;
    run.ended_at
}

fn has_evidence(state: &State) -> bool {
    state.order.iter().any(|id| id.as_str() == EVIDENCE)
}

/// Why nothing can be built on what a teardown has left that has begun and has not ended well: k0rdent's controllers do
/// not make a Management object twice, and a controller that has left etcd does not say so.
pub fn unfinished_teardown(state: &State) -> Option<Failure> {
    let reset = state.runs.iter().rev().find(|run| run.command == "reset")?;
    let acted = state.steps.values().any(|step| {
        let acted = step.intent.is_some() || step.status == StepStatus::Completed;
        let id = step.planned.id.as_str();
        let is_teardown = step.planned.phase == Phase::Teardown.name() && !LOOKS.contains(&id);
        is_teardown && acted && step.started_at >= Some(reset.started_at)
    });
    acted.then(|| {
        Failure::refused(
            "a teardown of this cluster has begun and is not finished: what it has left cannot be built on",
        )
        .advise("Run `k0rdentctl reset` to finish it, then `k0rdentctl deploy`.")
    })
}

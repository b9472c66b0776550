//! Back to nothing, in the order in which nothing hangs; and what a teardown leaves undone.

use engine::{Failure, Outcome, State, StepStatus, state::RunState};
use serde::Serialize;
use time::OffsetDateTime;

use super::{Line, deploy, line, uninstall};
use crate::{
    task::{
        Phase,
        Task::{self, *},
    },
    topology::Topology,
};

/// Steps of a teardown after which a deployment can still go on: child clusters are nothing that it builds on.
const LOOKS: [Task; 3] = [CheckGroup, ChildClusters, Survey];

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

/// The steps of a teardown, as far as the environment ever got; nothing is asked of a cluster that never was. What
/// k0rdent's chart leaves in the cluster goes with the machines.
pub fn reset(topology: &Topology, reached: Option<Phase>, may_have_children: bool, manner: Manner) -> Vec<Line> {
    if !topology.provider.makes_machines() {
        return give_back(topology, reached, may_have_children, manner);
    }
    let check = line(CheckGroup, []);
    match manner {
        Manner::Orderly => {
            let mut lines = vec![check];
            inside(&mut lines, topology, reached, may_have_children);
            let after = lines.last().map(|line| line.task);
            lines.extend([line(DeleteResourceGroup, after), line(DeleteRest, [DeleteResourceGroup])]);
            lines.push(line(Evidence, [DeleteRest]));
            lines
        }
        Manner::Fast => {
            let (mut lines, last) = after_children(check, may_have_children);
            lines.extend([line(DeleteResourceGroup, [last]), line(DeleteRest, [DeleteResourceGroup])]);
            lines.push(line(Evidence, [DeleteRest]));
            lines
        }
        Manner::FastNoWait => {
            let (mut lines, last) = after_children(check, may_have_children);
            lines.push(line(RequestDeletion, [last]));
            lines
        }
        Manner::Force => {
            let survey = may_have_children.then_some(Survey);
            let mut lines: Vec<Line> = survey.iter().map(|survey| line(*survey, [])).collect();
            lines.extend([line(TryResourceGroup, survey), line(DeleteRest, [TryResourceGroup])]);
            lines.push(line(Evidence, [DeleteRest]));
            lines
        }
    }
}

/// A look at the group, and at child clusters if there may be any: not even a fast teardown abandons them unasked.
fn after_children(check: Line, may_have_children: bool) -> (Vec<Line>, Task) {
    match may_have_children {
        true => (vec![check, line(ChildClusters, [CheckGroup])], ChildClusters),
        false => (vec![check], CheckGroup),
    }
}

/// The steps that give hosts back that existed before: each by itself, because nobody can delete them.
fn give_back(topology: &Topology, reached: Option<Phase>, may_have_children: bool, manner: Manner) -> Vec<Line> {
    let mut lines = Vec::new();
    match manner {
        Manner::Force if may_have_children => lines.push(line(Survey, [])),
        Manner::Force => {}
        _ => inside(&mut lines, topology, reached, may_have_children),
    }
    let after = lines.last().map(|line| line.task);
    let hosts = 0..topology.nodes.len();
    let leaving = (0..topology.leaving.len()).map(DeleteMachine);
    let hosts: Vec<Task> = hosts.map(Release).chain(leaving).collect();
    lines.extend(hosts.iter().map(|host| line(*host, after)));
    lines.push(line(Evidence, hosts));
    lines
}

/// The steps inside the cluster.
fn inside(lines: &mut Vec<Line>, topology: &Topology, reached: Option<Phase>, may_have_children: bool) {
    let after = lines.last().map(|line| line.task);
    if reached >= Some(Phase::K0rdent) {
        lines.extend(uninstall::k0rdent(after));
    } else if may_have_children {
        lines.push(line(ChildClusters, after));
    }
    if reached >= Some(Phase::K0s) {
        let after = lines.last().map(|line| line.task);
        lines.extend(uninstall::k0s(topology, after));
    }
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
        Release(node) => vec![Ready(node), Binary(node), deploy::joined(topology, node)],
        // What goes by force may also stay: a lock, a refusal. Only the evidence has seen everything gone.
        DeleteResourceGroup | Evidence => deploy::deploy(topology).into_iter().map(|line| line.task).collect(),
        _ => Vec::new(),
    }
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

/// Whether the last plan ends with the look with which every teardown ends that somebody waits for.
fn has_evidence(state: &State) -> bool {
    state.order.contains(&Evidence.common_id())
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
        let is_harmless = LOOKS.iter().any(|look| look.common_id() == step.planned.id);
        let is_teardown = step.planned.phase == Phase::Teardown.name() && !is_harmless;
        is_teardown && acted && step.started_at >= Some(first.started_at)
    });
    acted.then(|| {
        Failure::refused(
            "a teardown of this cluster has begun and is not finished: what it has left cannot be built on",
        )
        .advise(format!("Run `k0rdentctl {}` to finish it, then `k0rdentctl {command}`.", last.command))
    })
}

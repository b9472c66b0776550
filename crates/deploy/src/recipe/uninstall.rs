//! Back by one state: k0rdent alone, or k0s alone. A reset begins with the same steps.

use super::{Line, line};
use crate::{
    task::Task::{self, *},
    topology::Topology,
};

/// What can be taken off a cluster by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// k0rdent, with everything that it has installed; Kubernetes stays.
    K0rdent,
    /// Kubernetes; the machines stay.
    K0s,
}

impl Part {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::K0rdent, Self::K0s];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::K0rdent => "k0rdent",
            Self::K0s => "k0s",
        }
    }

    /// The command that uninstalls it.
    pub const fn command(self) -> &'static str {
        match self {
            Self::K0rdent => "uninstall k0rdent",
            Self::K0s => "uninstall k0s",
        }
    }
}

/// The steps that take one part off, and prove that it is gone.
pub fn uninstall(topology: &Topology, part: Part) -> Vec<Line> {
    match part {
        Part::K0rdent => {
            let mut lines = k0rdent(None);
            // What the chart leaves goes when its controllers are gone.
            lines.push(line(DeleteLeftBehind, [DeleteChart]));
            lines.push(line(DeleteNamespace, [DeleteLeftBehind]));
            lines.push(line(K0rdentGone, [DeleteNamespace]));
            lines
        }
        Part::K0s => {
            let mut lines = k0s(topology, None);
            let last = lines.last().map(|line| line.task);
            lines.push(line(K0sGone, last));
            lines
        }
    }
}

/// k0rdent clears up after itself only while its controllers run: child clusters go before the Management object, and
/// that before the chart (k0rdent documentation, clean-up).
pub(super) fn k0rdent(after: Option<Task>) -> Vec<Line> {
    vec![line(ChildClusters, after), line(DeleteManagement, [ChildClusters]), line(DeleteChart, [DeleteManagement])]
}

/// Workers first, then controllers from the last to the first, so that etcd keeps its quorum while they leave.
pub(super) fn k0s(topology: &Topology, after: Option<Task>) -> Vec<Line> {
    let is_controller = |node: &usize| topology.controllers().any(|c| c.name == topology.nodes[*node].name);
    let (controllers, workers): (Vec<_>, Vec<_>) = (0..topology.nodes.len()).partition(is_controller);
    let mut after: Vec<Task> = after.into_iter().collect();
    let mut lines: Vec<Line> = workers.iter().map(|&node| line(ResetMachine(node), after.clone())).collect();
    after.extend(workers.iter().map(|&node| ResetMachine(node)));
    for &node in controllers.iter().rev() {
        lines.push(line(ResetMachine(node), std::mem::replace(&mut after, vec![ResetMachine(node)])));
    }
    lines
}

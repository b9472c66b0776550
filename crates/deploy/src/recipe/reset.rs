//! Back to nothing, in the order in which nothing hangs.

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
        let (controllers, workers): (Vec<_>, Vec<_>) =
            (0..topology.nodes.len()).partition(|&node| topology.controllers().any(|c| c.name == topology.nodes[node].name));
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

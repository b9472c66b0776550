//! From nothing to a ready management cluster.

use std::ops::Range;

use super::{Line, line};
use crate::{
    config::Provider,
    task::Task::{self, *},
    topology::{Role, Topology},
};

/// The steps of a deployment. Steps wait for steps, never for phases: a worker joins when it and the first controller
/// are ready, and k0rdent is installed while other workers are still booting.
pub fn deploy(topology: &Topology) -> Vec<Line> {
    let nodes = 0..topology.nodes.len();
    let role = |node: usize| topology.nodes[node].role;
    let controllers: Vec<usize> = nodes.clone().filter(|&node| role(node) == Role::Controller).collect();
    let (leader, followers) = (controllers[0], &controllers[1..]);

    let mut lines = vec![line(Documents, []), line(Preflight, [])];
    lines.extend(match topology.provider {
        Provider::Azure => azure(topology, nodes.clone()),
        // Nothing is claimed before all were found fit.
        Provider::Ssh => nodes.clone().map(|node| line(Ready(node), [Preflight, Documents])).collect(),
    });
    lines.extend(nodes.clone().map(|node| line(Binary(node), [Ready(node)])));
    // The mesh is a gate: no cluster is begun on a machine that is not in it.
    let fit = |node: usize| {
        let mesh = topology.provider.makes_machines().then_some(MeshMember(node));
        std::iter::once(Binary(node)).chain(mesh)
    };
    lines.push(line(Leader(leader), fit(leader)));
    // One at a time: etcd loses its quorum when two members join at once.
    let mut previous = Leader(leader);
    for &node in followers {
        lines.push(line(Controller(node), fit(node).chain([previous])));
        previous = Controller(node);
    }
    for node in nodes.clone().filter(|&node| role(node) == Role::Worker) {
        lines.push(line(Worker(node), fit(node).chain([Leader(leader)])));
    }
    let joined = |node: usize| joined(topology, node);
    // Those that are not wanted any more leave after the others have joined, controllers one at a time.
    let mut previous =
        nodes.clone().map(joined).filter(|task| matches!(task, Leader(_) | Controller(_))).collect::<Vec<_>>();
    for (machine, leaving) in topology.leaving.iter().enumerate() {
        lines.push(line(Drain(machine), nodes.clone().map(joined)));
        match leaving.role {
            Role::Worker => lines.push(line(DeleteMachine(machine), [Drain(machine)])),
            Role::Controller => {
                previous.push(Drain(machine));
                lines.push(line(LeaveEtcd(machine), std::mem::take(&mut previous)));
                lines.push(line(DeleteMachine(machine), [LeaveEtcd(machine)]));
                previous = vec![DeleteMachine(machine)];
            }
        }
    }
    lines.push(line(NodesReady, nodes.clone().map(joined)));
    lines.push(line(Tokens, [NodesReady]));
    lines.push(line(Kubeconfig, [Leader(leader)]));
    lines.push(line(K0sctl, [Documents]));
    if topology.provider.makes_machines() {
        lines.extend(nodes.clone().map(|node| line(HomeKubeconfig(node), [joined(node)])));
    }
    lines.push(line(Chart, [Leader(leader)]));
    lines.push(line(Management, [Chart]));
    if topology.provider.makes_machines() {
        // Last: what was up at the beginning may be down by now.
        let before = nodes.flat_map(|node| [MeshMember(node), HomeKubeconfig(node)]);
        lines.push(line(MeshHolds, before.chain([NodesReady, Management])));
    }
    lines
}

/// The steps after which machines of Azure answer SSH and are in the mesh.
fn azure(topology: &Topology, nodes: Range<usize>) -> Vec<Line> {
    let mut lines = vec![
        line(ResourceGroup, [Preflight, Documents]),
        line(SshKey, [ResourceGroup]),
        line(SecurityGroup, [ResourceGroup]),
        line(VirtualNetwork, [SecurityGroup]),
        line(Tags, [ResourceGroup, SshKey, SecurityGroup, VirtualNetwork]),
    ];
    for node in nodes.clone() {
        lines.push(line(PublicAddress(node), [ResourceGroup]));
        lines.push(line(Interface(node), [VirtualNetwork, PublicAddress(node)]));
        let replaced = topology.replacing.contains(&node).then_some(Replace(node));
        lines.extend(replaced.map(|task| line(task, [Interface(node)])));
        lines.push(line(Machine(node), std::iter::once(Interface(node)).chain(replaced)));
        lines.push(line(Provisioned(node), [Machine(node)]));
        lines.push(line(Ready(node), [Machine(node)]));
        lines.push(line(MeshMember(node), [Ready(node)]));
    }
    lines.push(line(MeshOperator, nodes.map(PublicAddress)));
    lines
}

/// The step after which a node is part of the cluster.
pub(crate) fn joined(topology: &Topology, node: usize) -> Task {
    match (topology.nodes[node].role, topology.nodes[node].leader) {
        (_, true) => Leader(node),
        (Role::Controller, _) => Controller(node),
        (Role::Worker, _) => Worker(node),
    }
}

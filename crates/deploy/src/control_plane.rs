//! What is left of a control plane: whether the cluster can go on, or is lost with the machines that held it.

use std::collections::BTreeMap;

use engine::{Failure, PlannedStep, State, StepId};
use serde_json::Value;

use crate::{
    azure::{Inventory, Kind, inventory},
    deployment::Repair,
    observe::HostSeen,
    plan::Question,
    recipe,
    task::{Phase, Task},
    topology::{Role, Topology},
};

/// What `Ready` says about the machine that it has seen.
pub(crate) const MACHINE: &str = "machine";

/// The steps that do not hold any more once this one has succeeded. What a machine did goes with it, so that a later
/// machine of that name is new and not one that somebody has taken away.
pub(crate) fn undone(question: &Question<'_>, task: Task) -> Vec<StepId> {
    let id = task.id(question.topology);
    let ids = |is_undone: &dyn Fn(&PlannedStep) -> bool| -> Vec<StepId> {
        let steps = question.recorded.steps.values().map(|step| &step.planned);
        steps.filter(|step| step.id != id && is_undone(step)).map(|step| step.id.clone()).collect()
    };
    let is_of = |step: &PlannedStep, phases: &[Phase]| phases.iter().any(|phase| phase.name() == step.phase);
    let of_machine = |step: &PlannedStep| step.node.as_deref() == task.machine(question.topology);
    let verb = |step: &PlannedStep, verbs: &[&str]| verbs.iter().any(|verb| step.id.as_str().ends_with(verb));
    match task {
        // Its machine may be gone before anybody can say so: the run may be killed.
        Task::Drain(_) => ids(&|step| of_machine(step) && verb(step, &["/worker"])),
        Task::LeaveEtcd(_) => ids(&|step| of_machine(step) && verb(step, &["/controller", "/first-controller"])),
        Task::DeleteMachine(_) => ids(&|step| of_machine(step) && !verb(step, &["/drain", "/leave-etcd"])),
        // The address and the interface stay.
        Task::Replace(_) => ids(&|step| of_machine(step) && is_of(step, &[Phase::Machines, Phase::Mesh, Phase::K0s])),
        // The old cluster is given up, with everything in it.
        Task::Leader(_) if question.starts_anew() => {
            ids(&|step| is_of(step, &[Phase::K0s, Phase::K0rdent]) && !verb(step, &["/binary", "/k0sctl"]))
        }
        _ => recipe::undoes(question.topology, task).iter().map(|task| task.id(question.topology)).collect(),
    }
}

/// Why a machine that never held anything is of no use, by its name: which machine it is, and what has failed.
pub(crate) fn broken(node: &str) -> String {
    format!("broken/{node}")
}

/// Whether something was done on the machine that exists now and would be lost with it.
pub(crate) fn is_kept(state: &State, topology: &Topology, inventory: &Inventory, node: usize) -> bool {
    let Some(ready) = state.steps.get(&Task::Ready(node).id(topology)) else { return false };
    let found = inventory.find(Kind::VirtualMachine, &topology.nodes[node].name);
    match (ready.output[MACHINE].as_str(), found.and_then(inventory::identity)) {
        (Some(before), Some(now)) => before == now,
        // Records that do not say which machine it was: then it is the one.
        _ => ready.completed_with.is_some(),
    }
}

/// The machines of ours on which nothing was ever done, and which are of no use as they are: with the cause.
pub(crate) fn useless(state: &State, topology: &Topology, inventory: &Inventory) -> Vec<(usize, String)> {
    let cluster = topology.cluster_id.as_str();
    let why = |(node, planned): (usize, &crate::topology::Node)| {
        let found = inventory.find(Kind::VirtualMachine, &planned.name)?;
        let is_ours = inventory::tag(found, crate::azure::resources::TAG_CLUSTER) == Some(cluster);
        if !is_ours || inventory::is_deleting(found) || is_kept(state, topology, inventory, node) {
            return None;
        }
        let broken = state.settled.get(&broken(&planned.name)).cloned().unwrap_or_default();
        let is_it = broken[MACHINE].is_string() && broken[MACHINE].as_str() == inventory::identity(found);
        if is_it {
            return Some((node, broken["why"].as_str().unwrap_or_default().to_owned()));
        }
        inventory::is_failed(found).then(|| (node, "Azure calls it Failed".to_owned()))
    };
    topology.nodes.iter().enumerate().filter_map(why).collect()
}

impl Question<'_> {
    /// The controllers of which the records say that they are members of etcd.
    pub(crate) fn members(&self) -> Vec<usize> {
        let step = |task: Task| self.recorded.steps.get(&task.id(self.topology));
        let was_member = |&node: &usize| {
            let joined = [Task::Leader(node), Task::Controller(node)].into_iter().filter_map(step);
            let joined = joined.filter(|step| step.completed_with.is_some());
            // Whoever began to take k0s off a machine wanted its data to go.
            let reset = step(Task::ResetMachine(node)).and_then(|step| step.started_at);
            let mut at = joined.map(|step| step.ended_at.or(step.started_at));
            at.any(|joined| reset.is_none_or(|reset| joined.is_some_and(|joined| reset < joined)))
        };
        (0..self.topology.nodes.len()).filter(was_member).collect()
    }

    /// Why a member is gone with its data; nothing if it is there, or may be.
    fn gone(&self, node: usize) -> Option<String> {
        let planned = &self.topology.nodes[node];
        if self.repair.start_anew && self.repair.replace.as_ref() == Some(&planned.name) {
            return Some("it is replaced".to_owned());
        }
        if planned.host.is_none() {
            let Some(found) = self.observed.inventory.find(Kind::VirtualMachine, &planned.name) else {
                return Some("its machine does not exist".to_owned());
            };
            if inventory::is_deleting(found) {
                return Some("its machine is being deleted".to_owned());
            }
            if !is_kept(self.recorded, self.topology, &self.observed.inventory, node) {
                return Some("its machine is another one".to_owned());
            }
        }
        match self.observed.hosts.get(&planned.name) {
            Some(HostSeen::Reachable { is_member: false, .. }) => Some("its etcd has no data".to_owned()),
            _ => None,
        }
    }

    /// What is lost, if the cluster cannot come back by itself.
    pub(crate) fn loss(&self) -> Option<String> {
        let members = self.members();
        let leaving = self.topology.leaving.iter().filter(|leaving| leaving.role == Role::Controller).count();
        let gone: Vec<(usize, String)> =
            members.iter().filter_map(|&node| self.gone(node).map(|why| (node, why))).collect();
        let all = members.len() + leaving;
        // etcd goes on as long as more than half of its members are there.
        if gone.is_empty() || (all - gone.len()) * 2 > all {
            return None;
        }
        let named: Vec<String> =
            gone.iter().map(|(node, why)| format!("{} ({why})", self.topology.nodes[*node].name)).collect();
        let named = named.join(" and ");
        Some(match all {
            1 => format!("the control plane is lost: {named} was the only controller"),
            all => format!(
                "etcd has lost its quorum, and the control plane is lost: {named} of {all} controllers; a majority of {} is needed",
                all / 2 + 1
            ),
        })
    }

    /// Why what somebody has asked for cannot be done.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        let loss = self.loss();
        let Repair { start_anew, replace } = self.repair;
        let there = self.members();
        match (loss, replace) {
            (Some(_), _) if *start_anew => None,
            (Some(loss), _) => Some(
                Failure::refused(format!(
                    "{loss}. With it goes what the cluster knew: k0rdent, its credentials and its records of child clusters. Machines of child clusters go on running, and cost, and nothing manages them. Nothing was touched"
                ))
                .advise(
                    "Restore what is lost with its disk, and run `k0rdentctl deploy`. Or give the cluster's data up: `k0rdentctl deploy --start-anew` begins an empty cluster on these machines; child clusters have to be deleted by hand.",
                ),
            ),
            (None, None) if *start_anew && !there.is_empty() => Some(
                Failure::refused("the control plane is not lost, and `--start-anew` would throw it away")
                    .advise("Run `k0rdentctl deploy`, or `k0rdentctl reset` to take the cluster down."),
            ),
            (None, Some(name)) => self.refuse_to_replace(name),
            (None, None) => None,
        }
    }

    fn refuse_to_replace(&self, name: &str) -> Option<Failure> {
        let Some(node) = self.topology.nodes.iter().position(|node| node.name == name) else {
            let names: Vec<&str> = self.topology.nodes.iter().map(|node| node.name.as_str()).collect();
            return Some(Failure::refused(format!("there is no machine {name}; there are {}", names.join(", "))));
        };
        if self.topology.nodes[node].host.is_some() {
            return Some(
                Failure::refused(format!("{name} is a host that existed before: nobody here can make it anew"))
                    .advise("Take it out of the configuration, deploy, put another one in, and deploy again."),
            );
        }
        let members = self.members();
        if !members.contains(&node) {
            return None;
        }
        if members.len() == 1 {
            return Some(
                Failure::refused(format!("{name} is the only controller: the cluster's data would go with it"))
                    .advise(format!("To give the data up: `k0rdentctl replace {name} --start-anew`.")),
            );
        }
        let answers = |&&other: &&usize| {
            matches!(
                self.observed.hosts.get(&self.topology.nodes[other].name),
                Some(HostSeen::Reachable { k0s: None, is_member: true, .. })
            )
        };
        let answering = members.iter().filter(answers).count();
        let others = members.iter().filter(|&&other| other != node).filter(answers).count();
        let (now, then) = (members.len() / 2 + 1, (members.len() - 1) / 2 + 1);
        (answering < now || others < then).then(|| {
            Failure::refused(format!(
                "etcd would lose its quorum: of the other controllers {others} answer, and {} are needed",
                then.max(now.min(members.len() - 1))
            ))
            .advise("Run `k0rdentctl deploy` first: it repairs the others.")
        })
    }

    /// Whether the old cluster is given up.
    pub(crate) fn starts_anew(&self) -> bool {
        self.repair.start_anew && self.loss().is_some()
    }

    /// Why a machine is replaced, if it is.
    pub(crate) fn replaced_because(&self, node: usize) -> String {
        let name = &self.topology.nodes[node].name;
        if self.repair.replace.as_ref() == Some(name) {
            return "asked for".to_owned();
        }
        let useless = useless(self.recorded, self.topology, &self.observed.inventory);
        let why = useless.into_iter().find(|(other, _)| *other == node).map(|(_, why)| why);
        format!("{}; nothing of the cluster is on it", why.unwrap_or_else(|| "it is of no use".to_owned()))
    }
}

/// The members of etcd, as one of them says: name and address. What is not an answer has none.
pub(crate) fn etcd_peers(answer: &str) -> BTreeMap<String, String> {
    let text = answer.find('{').map_or("", |start| answer[start..].trim());
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let members = answer["members"].as_object().into_iter().flatten();
    members.filter_map(|(name, peer)| Some((name.clone(), peer.as_str()?.to_owned()))).collect()
}

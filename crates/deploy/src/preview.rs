//! What a plan means to whoever answers for it: what is created, changed and deleted, by name; what that costs; what is
//! opened to whom; and what cannot be taken back. Pure, like the planner.

use std::collections::BTreeSet;

use engine::{Decision, Plan, PlannedStep};
use serde::Serialize;
use serde_json::Value;

use crate::{
    azure::{Kind, inventory, resources},
    config::Config,
    plan::Question,
    prices::{self, Cost},
    recipe::Line,
    steps::tags::resources as resources_in_words,
    tags,
    task::{Phase, Task},
    topology::{Leaving, Node, Role, network_interface_name},
};

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It stays, and is made to be as it should.
    Change,
    /// It goes, with what is in it.
    Delete,
}

/// A thing that a plan creates, changes or deletes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// What it is: `virtual machine`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Why, if it was there before.
    pub why: Option<String>,
    /// What it costs, about, in US dollars; absent if that is not known.
    pub usd_per_hour: Option<f64>,
}

/// A way in from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opening {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Which port; absent if it follows from a name that the cluster does not have yet.
    pub port: Option<u16>,
    /// What for.
    pub purpose: &'static str,
    /// From where, as ranges; empty if that is not known yet: from the address of whoever deploys.
    pub from: Vec<String>,
}

/// The meaning of a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Preview {
    /// What happens to which thing, in the order of the steps.
    pub changes: Vec<Change>,
    /// What the cluster's machines, disks and addresses cost now.
    pub cost_before: Cost,
    /// What they cost afterwards.
    pub cost_after: Cost,
    /// What is open to the outside afterwards.
    pub open: Vec<Opening>,
    /// What cannot be taken back, or weakens the cluster: to be said in red.
    pub dangers: Vec<String>,
}

impl Preview {
    /// What a plan means that was made from these lines of a recipe.
    pub fn of(question: &Question<'_>, recipe: &[Line], plan: &Plan) -> Self {
        let lines = recipe.iter().filter(|line| line.task.phase() <= question.until);
        let steps: Vec<(Task, &PlannedStep)> = lines.map(|line| line.task).zip(&plan.steps).collect();
        let runs = steps.iter().filter(|(_, step)| step.decision == Decision::Run);
        let changes: Vec<Change> = runs.flat_map(|(task, step)| question.changes(*task, step)).collect();
        let cost_before = question.cost_now();
        let of = |action: Action| changes.iter().filter(move |change| change.action == action);
        let mut cost_after = cost_before;
        of(Action::Create).for_each(|change| cost_after.add(change.usd_per_hour));
        of(Action::Delete).for_each(|change| cost_after.subtract(change.usd_per_hour));
        let starts =
            of(Action::Change).filter(|change| change.kind == MACHINE).filter_map(|change| change.usd_per_hour);
        starts.for_each(|price| cost_after.add(Some(price)));
        let dangers = question.dangers(&changes);
        Self { changes, cost_before, cost_after, open: question.open(), dangers }
    }

    /// What follows from the cluster's name is not known before it has one.
    pub(crate) fn without_a_name(&mut self, config: &Config) {
        let mesh = self.open.iter_mut().filter(|opening| opening.protocol == "UDP");
        mesh.for_each(|opening| opening.port = config.network.mesh_port);
    }

    /// Whether something goes that does not come back, or the cluster is weaker afterwards.
    pub fn is_destructive(&self) -> bool {
        !self.dangers.is_empty() || self.changes.iter().any(|change| change.action == Action::Delete)
    }

    /// What is changed here and is not in `shown`; of what is deleted only, if whoever was shown it has agreed to all
    /// that destroys nothing.
    pub fn beyond(&self, shown: &Self, only_deleted: bool) -> Vec<Change> {
        let key = |change: &Change| (change.action, change.kind, change.name.clone());
        let known: BTreeSet<_> = shown.changes.iter().map(key).collect();
        let counts = |change: &&Change| !only_deleted || change.action == Action::Delete;
        self.changes.iter().filter(counts).filter(|change| !known.contains(&key(change))).cloned().collect()
    }
}

const MACHINE: &str = "virtual machine";
const DISK: &str = "disk";
const INTERFACE: &str = "network interface";
const ADDRESS: &str = "public IP";

impl Question<'_> {
    /// What a step does to which things. Looking, waiting and local files change nothing that costs or can be lost.
    fn changes(&self, task: Task, step: &PlannedStep) -> Vec<Change> {
        let names = &self.topology.names;
        let inventory = &self.observed.inventory;
        let was_done = self.recorded.steps.get(&step.id).is_some_and(|state| state.completed_with.is_some());
        let action = |exists: bool| if exists { Action::Change } else { Action::Create };
        let change = |exists: bool, kind: &'static str, name: &str, price: Option<f64>| Change {
            action: action(exists),
            kind,
            name: name.to_owned(),
            why: exists.then(|| step.why.clone()),
            usd_per_hour: price,
        };
        let of_kind = |kind: Kind, word: &'static str, name: &str, price: f64| {
            let exists = inventory.find(kind, name).is_some();
            vec![change(exists, word, name, Some(price))]
        };
        let node = |node: usize| &self.topology.nodes[node];
        match task {
            Task::ResourceGroup => {
                let exists = inventory.group.is_some() && !inventory.is_deleting();
                vec![change(exists, "resource group", &names.resource_group, Some(0.0))]
            }
            Task::SshKey => of_kind(Kind::SshKey, "SSH key", &names.ssh_key, 0.0),
            Task::SecurityGroup => of_kind(Kind::NetworkSecurityGroup, "network security group", &names.nsg, 0.0),
            Task::VirtualNetwork => of_kind(Kind::VirtualNetwork, "virtual network", &names.vnet, 0.0),
            Task::Tags => {
                let given = tags::given(self.recorded);
                let number = tags::changes(self.config, self.topology, inventory, &given).len();
                vec![change(true, "tags of", &resources_in_words(number), Some(0.0))]
            }
            Task::PublicAddress(index) => {
                of_kind(Kind::PublicIp, ADDRESS, &node(index).public_ip_name(), prices::PUBLIC_ADDRESS)
            }
            Task::Interface(index) => {
                of_kind(Kind::NetworkInterface, INTERFACE, &node(index).network_interface_name(), 0.0)
            }
            Task::Replace(index) => self.replace_changes(node(index), step),
            Task::Machine(index) if self.topology.replacing.contains(&index) => Vec::new(),
            Task::Machine(index) => self.machine_changes(node(index), step),
            Task::DeleteMachine(index) => self.leaving_changes(&self.topology.leaving[index]),
            Task::MeshMember(index) if was_done => vec![change(true, "WireGuard on", &node(index).name, Some(0.0))],
            Task::Leader(index) | Task::Controller(index) | Task::Worker(index) => {
                let name = &node(index).name;
                let exists =
                    was_done && (node(index).host.is_some() || inventory.find(Kind::VirtualMachine, name).is_some());
                vec![change(exists, "Kubernetes node", name, Some(0.0))]
            }
            Task::Chart => vec![change(was_done, "k0rdent chart", &self.config.software.k0rdent.version, Some(0.0))],
            Task::Management => vec![change(was_done, "k0rdent Management", "kcm", Some(0.0))],
            _ => Vec::new(),
        }
    }

    fn machine_changes(&self, node: &Node, step: &PlannedStep) -> Vec<Change> {
        let [price, disk_price, _] = prices::of_machine(self.config, &node.size);
        let machine =
            Change { action: Action::Create, kind: MACHINE, name: node.name.clone(), why: None, usd_per_hour: price };
        match self.observed.inventory.find(Kind::VirtualMachine, &node.name) {
            Some(found) if !inventory::is_deleting(found) => {
                let usd_per_hour = if is_off(found) { price } else { None };
                vec![Change { action: Action::Change, why: Some(step.why.clone()), usd_per_hour, ..machine }]
            }
            _ => {
                let disk =
                    Change { kind: DISK, name: node.os_disk_name(), usd_per_hour: disk_price, ..machine.clone() };
                vec![machine, disk]
            }
        }
    }

    /// A machine that is replaced loses its disk, and keeps its interface and its address.
    fn replace_changes(&self, node: &Node, step: &PlannedStep) -> Vec<Change> {
        let [price, disk_price, _] = prices::of_machine(self.config, &node.size);
        let change = |action, kind, name: &str, usd_per_hour| Change {
            action,
            kind,
            name: name.to_owned(),
            why: Some(format!("replaced: {}", step.why)),
            usd_per_hour,
        };
        let now = self.observed.inventory.find(Kind::VirtualMachine, &node.name).map_or(Some(0.0), price_now);
        let disk = node.os_disk_name();
        vec![
            change(Action::Delete, MACHINE, &node.name, now),
            change(Action::Delete, DISK, &disk, disk_price),
            change(Action::Create, MACHINE, &node.name, price),
            change(Action::Create, DISK, &disk, disk_price),
        ]
    }

    /// A machine that goes takes its disk, its interface and its address along.
    fn leaving_changes(&self, leaving: &Leaving) -> Vec<Change> {
        let why = Some("removed from the configuration".to_owned());
        let gone = |kind: &'static str, name: &str, usd_per_hour: Option<f64>| Change {
            action: Action::Delete,
            kind,
            name: name.to_owned(),
            why: why.clone(),
            usd_per_hour,
        };
        if leaving.host.is_some() {
            return vec![gone("k0s on host", &leaving.name, Some(0.0))];
        }
        let price = |kind: Kind, name: &str| self.observed.inventory.find(kind, name).map(price_now);
        let machine = price(Kind::VirtualMachine, &leaving.name).unwrap_or(Some(0.0));
        let mut changes = vec![gone(MACHINE, &leaving.name, machine)];
        let of_node = |body: &&Value| inventory::tag(body, resources::TAG_NODE) == Some(leaving.name.as_str());
        let named = |kind: Kind| {
            let found = self.observed.inventory.of(kind);
            found.values().filter(of_node).filter_map(|body| Some((body["name"].as_str()?.to_owned(), price_now(body))))
        };
        let disk = format!("{}-osdisk", leaving.name);
        if let Some(price) = price(Kind::Disk, &disk) {
            changes.push(gone(DISK, &disk, price));
        }
        let interface = network_interface_name(&leaving.name);
        if let Some(price) = price(Kind::NetworkInterface, &interface) {
            changes.push(gone(INTERFACE, &interface, price));
        }
        changes.extend(named(Kind::PublicIp).map(|(name, price)| gone(ADDRESS, &name, price)));
        changes
    }

    /// What is there already.
    fn cost_now(&self) -> Cost {
        let kinds = [Kind::VirtualMachine, Kind::Disk, Kind::PublicIp];
        kinds.iter().flat_map(|kind| self.observed.inventory.of(*kind).values()).map(price_now).collect()
    }

    fn open(&self) -> Vec<Opening> {
        if !self.topology.provider.makes_machines() || self.until < Phase::Infrastructure {
            return Vec::new();
        }
        let mesh = Opening {
            protocol: "UDP",
            port: Some(self.topology.mesh_port),
            purpose: "WireGuard mesh",
            from: vec!["0.0.0.0/0".to_owned()],
        };
        let ssh = Opening { protocol: "TCP", port: Some(22), purpose: "SSH", from: self.ssh_from.to_vec() };
        vec![mesh, ssh]
    }

    fn dangers(&self, changes: &[Change]) -> Vec<String> {
        let mut dangers = Vec::new();
        let kinds = [MACHINE, "k0s on host"];
        let deleted = |change: &&Change| change.action == Action::Delete && kinds.contains(&change.kind);
        let machines: Vec<&str> = changes.iter().filter(deleted).map(|change| change.name.as_str()).collect();
        if !machines.is_empty() {
            dangers.push(format!("deleted, with everything that is stored on them: {}", machines.join(", ")));
        }
        dangers.extend(self.weaker_control_plane(changes));
        dangers
    }

    /// Fewer controllers than before, and not enough of them, or one too many, to survive the loss of one.
    fn weaker_control_plane(&self, changes: &[Change]) -> Option<String> {
        let is_created = |name: &str| {
            let creates = |change: &Change| change.action == Action::Create && change.kind == MACHINE;
            changes.iter().any(|change| creates(change) && change.name == name)
        };
        let wanted: Vec<&Node> = self.topology.nodes.iter().filter(|node| node.role == Role::Controller).collect();
        let kept = wanted.iter().filter(|node| !is_created(&node.name)).count();
        let leaving = self.topology.leaving.iter().filter(|leaving| leaving.role == Role::Controller).count();
        let (before, after) = (kept + leaving, wanted.len());
        match after {
            _ if leaving == 0 || before <= after => None,
            1 => Some(format!(
                "1 controller instead of {before}: no high availability any more; if it is lost, the cluster is lost"
            )),
            even if even % 2 == 0 => Some(format!(
                "{even} controllers instead of {before}: an even number survives the loss of no more controllers than {}",
                even - 1
            )),
            _ => None,
        }
    }
}

/// What a resource costs as it is: a machine that is deallocated does not.
fn price_now(body: &Value) -> Option<f64> {
    if is_off(body) { Some(0.0) } else { prices::resource(body) }
}

/// A machine that only stands still goes on costing (Azure documentation: states and billing of virtual machines).
fn is_off(machine: &Value) -> bool {
    matches!(inventory::power_state(machine), Some("deallocated" | "deallocating"))
}

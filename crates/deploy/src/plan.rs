//! The planner: a pure function of what is wanted, what is recorded and what was seen.

use std::collections::BTreeSet;

use engine::{Decision, Plan, PlannedStep, State, StepState, StepStatus};
use serde_json::{Value, json};

use crate::{
    azure::{
        Kind, inventory,
        resources::{self, RuleTrouble},
    },
    config::Config,
    control_plane::{self, MACHINE},
    deployment::Repair,
    difference::{Cause, Difference, DifferenceKind, Reason},
    environment::fingerprint,
    k0s,
    observe::{HostSeen, Observed},
    recipe::Line,
    steps::k0rdent::{chart_object, release_name},
    tags,
    task::{Phase, Task},
    topology::{Node, Role, Topology},
    way_in,
};

/// What the planner looks at.
pub struct Question<'a> {
    /// What is wanted.
    pub config: &'a Config,
    /// What that means.
    pub topology: &'a Topology,
    /// What is recorded.
    pub recorded: &'a State,
    /// What was seen.
    pub observed: &'a Observed,
    /// Where SSH may come from, CIDRs; empty if that is not known now.
    pub ssh_from: &'a [String],
    /// The last phase that is wanted.
    pub until: Phase,
    /// Make files again even if they are right: those whose path has this part; all if it is empty.
    pub force: Option<&'a str>,
    /// What somebody has asked for beyond that.
    pub repair: &'a Repair,
}

/// Whether a step holds: what was seen, or why it has to run.
type Verdict = Result<String, Reason>;

/// Plans a deployment: which steps of the recipe run, and why; and what of it repairs a difference.
pub fn deployment(question: &Question<'_>, recipe: &[Line]) -> (Plan, Vec<Difference>) {
    let mut runs = BTreeSet::new();
    let (mut steps, mut differences) = (Vec::new(), Vec::new());
    for line in recipe.iter().filter(|line| line.task.phase() <= question.until) {
        let (decision, why) = match question.holds(line, &runs) {
            Ok(evidence) => (Decision::Skip, evidence),
            Err(reason) => {
                runs.insert(line.task);
                differences.extend(question.difference(line.task, &reason));
                (Decision::Run, reason.text)
            }
        };
        steps.push(question.step(line, decision, why));
    }
    differences.extend(question.unrepaired());
    (Plan { steps }, differences)
}

/// Whether a file of the environment is what that step makes.
pub(crate) fn is_made_by(topology: &Topology, task: Task, file: &str) -> bool {
    match task {
        Task::Documents if !topology.provider.makes_machines() => file.starts_with("ssh/"),
        Task::Documents => file.starts_with("cloud-init-yaml/") || file.contains("-ssh-key"),
        Task::MeshOperator => file.starts_with("wireguard/") || file == "ssh/config" || file == "ssh/known_hosts",
        Task::Kubeconfig => file.starts_with("kubeconfig/"),
        Task::K0sctl => file.starts_with("k0sctl-config/"),
        _ => false,
    }
}

/// Plans a teardown: every step runs, and looks for itself whether there is anything to do.
pub fn teardown(question: &Question<'_>, recipe: &[Line]) -> Plan {
    let steps = recipe.iter().map(|line| question.step(line, Decision::Run, "asked for".to_owned())).collect();
    Plan { steps }
}

impl Question<'_> {
    fn step(&self, line: &Line, decision: Decision, why: String) -> PlannedStep {
        let task = line.task;
        PlannedStep {
            id: task.id(self.topology),
            phase: task.phase().name().to_owned(),
            title: task.title(self.config, self.topology),
            node: task.machine(self.topology).map(str::to_owned),
            after: line.after.iter().map(|task| task.id(self.topology)).collect(),
            decision,
            why,
            usual: task.usual(),
            deadline: task.deadline(self.config),
            fingerprint: self.fingerprint(task),
            undoes: control_plane::undone(self, task),
            output: if decision == Decision::Skip { self.seen(task) } else { Value::Null },
        }
    }

    /// What was seen of a step that need not run: an earlier run may have ended before it could say so.
    fn seen(&self, task: Task) -> Value {
        let found = |kind: Kind, name: &str| self.observed.inventory.find(kind, name);
        let machine = |node: usize| found(Kind::VirtualMachine, &self.node(node).name);
        match task {
            Task::PublicAddress(node) => {
                let address = found(Kind::PublicIp, &self.node(node).public_ip_name()).and_then(inventory::ip_address);
                address.map_or(Value::Null, |address| json!({"public_address": address}))
            }
            Task::Provisioned(node) => {
                let zone = machine(node).and_then(|machine| machine["zones"][0].as_str()?.parse::<u8>().ok());
                zone.map_or(Value::Null, |zone| json!({"zone": zone}))
            }
            Task::Ready(node) => {
                machine(node).and_then(inventory::identity).map_or(Value::Null, |identity| json!({MACHINE: identity}))
            }
            Task::Management => {
                let seen = self.observed.cluster.as_ref().and_then(|cluster| cluster.management.as_ref());
                seen.map_or(Value::Null, |seen| serde_json::to_value(seen).unwrap_or_default())
            }
            _ => Value::Null,
        }
    }

    /// A digest of what the step is made from: if it changes, the step has to run again.
    pub(crate) fn fingerprint(&self, task: Task) -> String {
        let config = self.config;
        let node = task.node().map(|node| &self.topology.nodes[node]);
        let proxy = || crate::machine_proxy::mark(config, self.topology);
        let input = match (task, node) {
            (Task::Documents | Task::MeshOperator | Task::K0sctl, _) => {
                let nodes = serde_json::to_string(&self.topology.nodes).unwrap_or_default();
                let (port, k0s) = (self.topology.mesh_port, &config.software.k0s.version);
                format!("{nodes} {port} {} {k0s}{}", config.ssh.username, proxy())
            }
            (Task::Tags, _) => format!("{:?} {:?}", config.azure.given_tags(), config.metadata.owner),
            (Task::SecurityGroup, _) => format!("{} {}", self.topology.mesh_port, self.ssh_from.join(" ")),
            (Task::Binary(_), Some(node)) => {
                let digests = config.software.k0s.sha256.any().join(" ");
                format!("{} {} {digests}", config.software.k0s.version, k0s::source(config, node)).trim_end().to_owned()
            }
            (Task::Leader(_) | Task::Controller(_), Some(node)) => {
                format!("{} {}{}", k0s::install_command(node, false), k0s::network(config), proxy())
            }
            (Task::Worker(_), Some(node)) => k0s::install_command(node, true) + &proxy(),
            (Task::HomeKubeconfig(_), _) => config.ssh.username.clone(),
            (Task::NodesReady | Task::Tokens, _) => {
                self.topology.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ")
            }
            (Task::Chart | Task::Management, _) => chart_object(config).to_string(),
            _ => String::new(),
        };
        fingerprint(&[&input])
    }

    /// What a reason says about a step that was done before.
    fn difference(&self, task: Task, reason: &Reason) -> Option<Difference> {
        let state = self.recorded.steps.get(&task.id(self.topology));
        let done = |step: &StepState| step.completed_with.is_some() || step.status == StepStatus::Completed;
        let Cause::Differs(kind) = reason.cause else { return None };
        if !state.is_some_and(done) {
            return None;
        }
        let title = || task.title(self.config, self.topology);
        let repair = match kind {
            DifferenceKind::Foreign | DifferenceKind::SshSilent => None,
            DifferenceKind::MachineStopped => Some("start it".to_owned()),
            DifferenceKind::MachineMissing => Some("recreate it and rejoin it to the cluster".to_owned()),
            DifferenceKind::RuleMissing | DifferenceKind::RuleChanged => Some("restore the rules".to_owned()),
            DifferenceKind::AddressChanged | DifferenceKind::SshClosed => Some("open SSH to your address".to_owned()),
            DifferenceKind::MeshDown => Some("restart WireGuard".to_owned()),
            DifferenceKind::KubectlMissing => Some("put it back".to_owned()),
            DifferenceKind::ResourceMissing | DifferenceKind::GroupMissing => Some(format!("recreate {}", title())),
            _ => Some(format!("repair {}", title())),
        };
        Some(Difference {
            kind,
            subject: task.machine(self.topology).map_or_else(title, str::to_owned),
            cause: reason.text.clone(),
            repair,
        })
    }

    /// What is otherwise than it was made and cannot be put right in place: named, and left to a person.
    fn unrepaired(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        if let Some(cause) = self.loss().filter(|_| !self.repair.start_anew) {
            let subject = "control plane".to_owned();
            differences.push(Difference { kind: DifferenceKind::ControlPlaneLost, subject, cause, repair: None });
        }
        let mut add = |kind: DifferenceKind, node: &Node, cause: String| {
            differences.push(Difference { kind, subject: node.name.clone(), cause, repair: None });
        };
        for node in &self.topology.nodes {
            if let Some(machine) = self.observed.inventory.find(Kind::VirtualMachine, &node.name) {
                if inventory::is_failed(machine) && self.is_kept(self.position(node)) {
                    add(
                        DifferenceKind::MachineNotReady,
                        node,
                        format!(
                            "Azure calls it Failed; it is left as it is, with what runs on it (to make it anew: `k0rdentctl replace {}`)",
                            node.name
                        ),
                    );
                }
                let size = machine.pointer("/properties/hardwareProfile/vmSize").and_then(|size| size.as_str());
                if let Some(size) = size.filter(|size| !size.eq_ignore_ascii_case(&node.size)) {
                    add(DifferenceKind::MachineSize, node, format!("its size is {size}, not {}", node.size));
                }
                let zone = machine["zones"][0].as_str().unwrap_or_default();
                if !node.may_be_in(zone) {
                    add(
                        DifferenceKind::MachineZone,
                        node,
                        format!("it is in zone {zone:?}, which is not among those wanted"),
                    );
                }
            }
            let cluster = self.observed.cluster.as_ref();
            let wanted = k0s::kubelet_version(&self.config.software.k0s.version);
            if let Some(seen) = cluster.and_then(|cluster| cluster.nodes.get(&node.name))
                && seen.version != wanted
            {
                add(DifferenceKind::K0sVersion, node, format!("it runs {}, not {wanted}", seen.version));
            }
        }
        differences
    }

    fn holds(&self, line: &Line, runs: &BTreeSet<Task>) -> Verdict {
        let task = line.task;
        let names = &self.topology.names;
        let of_node = |other: &Task| task.node().is_some() && other.node() == task.node();
        if task.is_of_cluster() && self.starts_anew() {
            return Err(Reason::new(Cause::Changed, "an empty cluster is begun"));
        }
        match task {
            Task::Replace(node) => Err(Reason::new(DifferenceKind::MachineUseless, self.replaced_because(node))),
            Task::ResourceGroup => self.group(),
            Task::SshKey => self.resource(Kind::SshKey, &names.ssh_key),
            Task::SecurityGroup => self.rules(),
            Task::VirtualNetwork => self.resource(Kind::VirtualNetwork, &names.vnet),
            Task::Tags => tags::verdict(self),
            Task::PublicAddress(node) => {
                self.stays(node)?;
                self.resource(Kind::PublicIp, &self.node(node).public_ip_name())
            }
            Task::Interface(node) => {
                self.stays(node)?;
                self.resource(Kind::NetworkInterface, &self.node(node).network_interface_name())
            }
            Task::Machine(node) => {
                let seen = self.machine(node, false)?;
                self.not_after(line, runs, |task| matches!(task, Task::Replace(_)))?;
                Ok(seen)
            }
            Task::Provisioned(node) => {
                self.not_after(line, runs, of_node)?;
                self.machine(node, true)
            }
            Task::Preflight => self.nothing_to_create(),
            Task::Ready(node) | Task::Binary(node) | Task::HomeKubeconfig(node) => {
                self.recorded(task)?;
                self.not_after(line, runs, of_node)?;
                self.machine(node, true)?;
                self.same_machine(node)?;
                self.reachable(node)?;
                self.files_on(task, node)
            }
            Task::MeshMember(node) => {
                self.recorded(task)?;
                self.not_after(line, runs, of_node)?;
                self.in_mesh(node)
            }
            Task::MeshHolds => {
                self.recorded(task)?;
                self.not_after(line, runs, |_| true)?;
                (0..self.topology.nodes.len()).try_for_each(|node| self.in_mesh(node).map(drop))?;
                Ok("every machine is in the mesh".to_owned())
            }
            Task::Leader(node) | Task::Controller(node) | Task::Worker(node) => {
                self.recorded(task)?;
                self.not_after(line, runs, of_node)?;
                self.member(node)
            }
            Task::Documents | Task::MeshOperator | Task::Kubeconfig | Task::K0sctl => {
                self.recorded(task)?;
                self.not_after(line, runs, |_| true)?;
                self.files(task)
            }
            Task::NodesReady | Task::Tokens => {
                self.recorded(task)?;
                self.not_after(line, runs, |_| true)?;
                (0..self.topology.nodes.len()).try_for_each(|node| self.member(node).map(drop))?;
                Ok("every node is Ready".to_owned())
            }
            Task::Chart => {
                self.recorded(task)?;
                match &self.observed.cluster {
                    Some(cluster) if cluster.chart => Ok("it is installed".to_owned()),
                    Some(_) => Err(Reason::new(DifferenceKind::ChartMissing, "it is not installed")),
                    None => Err(Reason::new(DifferenceKind::ClusterSilent, "the cluster does not answer")),
                }
            }
            Task::Management => self.management(task),
            _ => Err(Reason::new(Cause::NotDone, "removed from the configuration")),
        }
    }

    fn node(&self, node: usize) -> &Node {
        &self.topology.nodes[node]
    }

    fn position(&self, node: &Node) -> usize {
        self.topology.nodes.iter().position(|other| other.name == node.name).unwrap_or_default()
    }

    fn is_kept(&self, node: usize) -> bool {
        control_plane::is_kept(self.recorded, self.topology, &self.observed.inventory, node)
    }

    /// What goes with a machine that is being deleted does not stay.
    fn stays(&self, node: usize) -> Result<(), Reason> {
        let machine = self.observed.inventory.find(Kind::VirtualMachine, &self.node(node).name);
        match machine.is_some_and(inventory::is_deleting) {
            true => {
                Err(Reason::new(DifferenceKind::ResourceMissing, "it goes with its machine, which is being deleted"))
            }
            false => Ok(()),
        }
    }

    /// The machine is the one that was ready before, as far as the records say which one that was.
    fn same_machine(&self, node: usize) -> Result<(), Reason> {
        match self.node(node).host.is_some() || self.is_kept(node) {
            true => Ok(()),
            false => Err(Reason::new(DifferenceKind::MachineReplaced, "it is another machine than before")),
        }
    }

    /// What the step has put on the machine is there.
    fn files_on(&self, task: Task, node: usize) -> Verdict {
        let Some(HostSeen::Reachable { binary, has_kubectl, .. }) = self.host(node) else {
            return Ok("it answers SSH".to_owned());
        };
        let wanted = &self.config.software.k0s.version;
        match (task, binary) {
            (Task::Binary(_), Some(version)) if version == wanted => Ok(format!("k0s {wanted} is there")),
            (Task::Binary(_), Some(version)) => {
                Err(Reason::new(DifferenceKind::K0sBinary, format!("its k0s is {version}")))
            }
            (Task::Binary(_), None) => Err(Reason::new(DifferenceKind::K0sBinary, "its k0s binary is missing")),
            (Task::HomeKubeconfig(_), _) if !has_kubectl => {
                Err(Reason::new(DifferenceKind::KubectlMissing, "its kubectl or its ~/.kube/config is missing"))
            }
            _ => Ok("it answers SSH".to_owned()),
        }
    }

    fn group(&self) -> Verdict {
        match &self.observed.inventory.group {
            Some(_) if self.observed.inventory.is_deleting() => {
                Err(Reason::new(DifferenceKind::GroupDeleting, "it is being deleted"))
            }
            Some(group) if !self.ours(group) => {
                Err(Reason::new(DifferenceKind::Foreign, "it exists and does not carry our tag"))
            }
            Some(_) => Ok("it exists".to_owned()),
            None => Err(Reason::new(DifferenceKind::GroupMissing, "it does not exist")),
        }
    }

    fn ours(&self, resource: &serde_json::Value) -> bool {
        inventory::tag(resource, resources::TAG_CLUSTER) == Some(self.topology.cluster_id.as_str())
    }

    /// A network resource exists, is ours, and Azure calls it ready.
    fn resource(&self, kind: Kind, name: &str) -> Verdict {
        let found = self.observed.inventory.find(kind, name);
        let found = found.ok_or_else(|| Reason::new(DifferenceKind::ResourceMissing, "it does not exist"))?;
        if !self.ours(found) {
            return Err(Reason::new(DifferenceKind::Foreign, "it exists and does not carry our tag"));
        }
        match inventory::provisioning_state(found) {
            None | Some("Succeeded") => Ok("it exists".to_owned()),
            Some(state) => Err(Reason::new(DifferenceKind::ResourceNotReady, format!("Azure calls it {state}"))),
        }
    }

    /// The security group exists with every rule as it should be.
    fn rules(&self) -> Verdict {
        let name = &self.topology.names.nsg;
        self.resource(Kind::NetworkSecurityGroup, name)?;
        let Some(found) = self.observed.inventory.find(Kind::NetworkSecurityGroup, name) else {
            return Err(Reason::new(DifferenceKind::ResourceMissing, "it does not exist"));
        };
        match resources::rule_trouble(found, self.topology.mesh_port, self.ssh_from) {
            None => Ok("its rules are there".to_owned()),
            Some(RuleTrouble::OpenTo(ranges)) if self.config.azure.ssh_allowed_from.is_empty() => {
                Err(Reason::new(DifferenceKind::AddressChanged, way_in::closed_to(&ranges, self.ssh_from)))
            }
            // Which addresses may come in, and by which port, is not as it was when the rules were made.
            Some(trouble) => {
                let (kind, text) = trouble.told(self.ssh_from);
                Err(match self.rules_follow() {
                    true => Reason::new(Cause::Changed, format!("the configuration changed: {text}")),
                    false => Reason::new(kind, text),
                })
            }
        }
    }

    fn rules_follow(&self) -> bool {
        let made = self.recorded.steps.get(&Task::SecurityGroup.id(self.topology));
        let made_with = made.and_then(|step| step.completed_with.as_ref());
        !self.ssh_from.is_empty() && made_with.is_some_and(|made| *made != self.fingerprint(Task::SecurityGroup))
    }

    /// A machine exists, is ours, runs, has the size it should have, and (if `ready`) Azure calls it ready.
    fn machine(&self, node: usize, ready: bool) -> Verdict {
        let planned = self.node(node);
        if planned.host.is_some() {
            return Ok("it was there before".to_owned());
        }
        let found = self.observed.inventory.find(Kind::VirtualMachine, &planned.name);
        let found = found.ok_or_else(|| Reason::new(DifferenceKind::MachineMissing, "it does not exist"))?;
        if !self.ours(found) {
            return Err(Reason::new(
                DifferenceKind::Foreign,
                "a machine of that name exists and does not carry our tag",
            ));
        }
        if inventory::is_deleting(found) {
            return Err(Reason::new(DifferenceKind::MachineMissing, "it is being deleted"));
        }
        if let Some(power @ ("deallocated" | "deallocating" | "stopped" | "stopping")) = inventory::power_state(found) {
            return Err(Reason::new(DifferenceKind::MachineStopped, format!("it is {power}")));
        }
        match inventory::provisioning_state(found) {
            Some("Succeeded") | None => Ok("it exists".to_owned()),
            Some(_) if ready && inventory::is_failed(found) && self.is_kept(node) => {
                Ok("Azure calls it Failed, and it is left as it is".to_owned())
            }
            Some(state) if ready => {
                Err(Reason::new(DifferenceKind::MachineNotReady, format!("Azure calls it {state}")))
            }
            Some(_) => Ok("Azure has accepted it".to_owned()),
        }
    }

    fn nothing_to_create(&self) -> Verdict {
        for node in 0..self.topology.nodes.len() {
            if self.node(node).host.is_some() {
                self.recorded(Task::Ready(node))?;
            }
            self.machine(node, false)
                .map_err(|reason| Reason::new(Cause::Follows, format!("{}: {}", self.node(node).name, reason.text)))?;
        }
        Ok("every machine exists".to_owned())
    }

    /// An earlier run completed the step, from the same inputs.
    fn recorded(&self, task: Task) -> Result<(), Reason> {
        let Some(state) = self.recorded.steps.get(&task.id(self.topology)) else {
            return Err(Reason::new(Cause::NotDone, "not done yet"));
        };
        match &state.completed_with {
            None => Err(Reason::new(Cause::NotDone, "not done yet")),
            Some(before) if *before != self.fingerprint(task) => {
                Err(Reason::new(Cause::Changed, "configuration changed"))
            }
            Some(_) => match state.status {
                StepStatus::Completed => Ok(()),
                StepStatus::Failed => Err(Reason::new(Cause::NotDone, "it failed in the last run")),
                StepStatus::Pending | StepStatus::Running => {
                    Err(Reason::new(Cause::NotDone, "the last run did not finish it"))
                }
            },
        }
    }

    /// None of the steps before it that matter to it runs in this plan.
    fn not_after(&self, line: &Line, runs: &BTreeSet<Task>, matters: impl Fn(&Task) -> bool) -> Result<(), Reason> {
        let follows = line.after.iter().any(|task| runs.contains(task) && matters(task));
        if follows { Err(Reason::new(Cause::Follows, "depends on a step that runs first")) } else { Ok(()) }
    }

    fn host(&self, node: usize) -> Option<&HostSeen> {
        self.observed.hosts.get(&self.node(node).name)
    }

    fn reachable(&self, node: usize) -> Verdict {
        match self.host(node) {
            Some(HostSeen::Reachable { claim: Some(trouble), .. }) => {
                Err(Reason::new(DifferenceKind::HostNotOurs, trouble.clone()))
            }
            Some(HostSeen::Reachable { .. }) => Ok("it answers SSH".to_owned()),
            Some(HostSeen::Unreachable(why)) => {
                let own = self.ssh_from.first().map(String::as_str);
                Err(way_in::silent(self.topology, &self.observed.inventory, own, self.node(node), why))
            }
            None => Err(Reason::new(Cause::NotDone, "it was not asked")),
        }
    }

    fn in_mesh(&self, node: usize) -> Verdict {
        self.reachable(node)?;
        match self.host(node) {
            Some(HostSeen::Reachable { mesh: Some(trouble), .. }) => {
                Err(Reason::new(DifferenceKind::MeshDown, trouble.clone()))
            }
            _ => Ok("it is in the mesh with its own key".to_owned()),
        }
    }

    /// A node of the cluster runs k0s and is Ready. A controller without workloads is no node: that its service runs
    /// and its cluster answers has to do.
    fn member(&self, node: usize) -> Verdict {
        self.reachable(node)?;
        if let Some(HostSeen::Reachable { k0s: Some(trouble), .. }) = self.host(node) {
            return Err(Reason::new(DifferenceKind::K0sDown, trouble.clone()));
        }
        let planned = self.node(node);
        let silent = || Reason::new(DifferenceKind::ClusterSilent, "the cluster does not answer");
        let cluster = self.observed.cluster.as_ref().ok_or_else(silent)?;
        if planned.role == Role::Controller && !planned.runs_workloads {
            return Ok("its service runs, and the cluster answers".to_owned());
        }
        match cluster.nodes.get(&planned.name) {
            None => Err(Reason::new(DifferenceKind::NodeMissing, "it is not a node of the cluster")),
            Some(seen) if !seen.ready => {
                Err(Reason::new(DifferenceKind::NodeNotReady, format!("its node is not Ready: {}", seen.message)))
            }
            Some(_) => Ok("its node is Ready".to_owned()),
        }
    }

    fn management(&self, task: Task) -> Verdict {
        self.recorded(task)?;
        let Some(cluster) = &self.observed.cluster else {
            return Err(Reason::new(DifferenceKind::ClusterSilent, "the cluster does not answer"));
        };
        let Some(seen) = &cluster.management else {
            return Err(Reason::new(DifferenceKind::ManagementMissing, "there is no Management object"));
        };
        if seen.deleting {
            return Err(Reason::new(DifferenceKind::ManagementDeleting, "it is being deleted"));
        }
        match seen.trouble(&release_name(&self.config.software.k0rdent.version)) {
            None => Ok(format!("Ready, release {}", seen.release)),
            Some(trouble) => Err(Reason::new(DifferenceKind::ManagementNotReady, trouble)),
        }
    }

    fn files(&self, task: Task) -> Verdict {
        let belongs = |file: &str| is_made_by(self.topology, task, file);
        let mut recorded = self.recorded.artifacts.keys();
        let forced = |file: &&String| belongs(file) && self.force.is_some_and(|part| file.contains(part));
        if let Some(file) = recorded.clone().find(forced) {
            return Err(Reason::new(Cause::Changed, format!("asked to regenerate {file}")));
        }
        let missing = recorded.find(|file| belongs(file) && !self.observed.intact_files.contains(*file));
        match missing {
            Some(file) => Err(Reason::new(DifferenceKind::FileChanged, format!("{file} is missing or was changed"))),
            None => Ok("its files are there".to_owned()),
        }
    }
}

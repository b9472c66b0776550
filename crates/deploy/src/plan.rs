//! The planner: a pure function of what is wanted, what is recorded and what was seen.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Decision, Plan, PlannedStep, State};

use crate::{
    azure::{Inventory, Kind, inventory, resources::TAG_CLUSTER},
    config::Config,
    environment::fingerprint,
    k0s,
    recipe::Line,
    steps::{
        k0rdent::{ManagementSeen, chart_object, release_name},
        k0s::NodeSeen,
    },
    task::{Phase, Task},
    topology::{Node, Role, Topology},
};

/// What was seen of the world before the run.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What exists in Azure.
    pub inventory: Inventory,
    /// What the cluster says about itself, if it was there to ask.
    pub cluster: Option<ClusterSeen>,
    /// The files of the environment that are as they were recorded.
    pub intact_files: BTreeSet<String>,
}

/// What a cluster says about itself.
#[derive(Debug, Clone, Default)]
pub struct ClusterSeen {
    /// Its nodes.
    pub nodes: BTreeMap<String, NodeSeen>,
    /// Whether the kcm chart is installed.
    pub chart: bool,
    /// Its Management object.
    pub management: Option<ManagementSeen>,
}

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
    /// The last phase that is wanted.
    pub until: Phase,
    /// Make files again even if they are right.
    pub force: bool,
}

/// Plans a deployment: which steps of the recipe run, and why.
pub fn deployment(question: &Question<'_>, recipe: &[Line]) -> Plan {
    let mut runs = BTreeSet::new();
    let mut steps = Vec::new();
    for line in recipe.iter().filter(|line| line.task.phase() <= question.until) {
        let (decision, why) = question.decide(line, &runs);
        if decision == Decision::Run {
            runs.insert(line.task);
        }
        steps.push(question.step(line, decision, why));
    }
    Plan { steps }
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
            node: task.node().map(|node| self.topology.nodes[node].name.clone()),
            after: line.after.iter().map(|task| task.id(self.topology)).collect(),
            decision,
            why,
            usual: task.usual(),
            deadline: task.deadline(self.config),
            fingerprint: self.fingerprint(task),
        }
    }

    /// A digest of what the step is made from: if it changes, the step has to run again.
    fn fingerprint(&self, task: Task) -> String {
        let config = self.config;
        let node = task.node().map(|node| &self.topology.nodes[node]);
        let input = match (task, node) {
            (Task::Documents | Task::MeshOperator | Task::K0sctl, _) => {
                let nodes = serde_json::to_string(&self.topology.nodes).unwrap_or_default();
                format!("{nodes} {} {} {}", self.topology.mesh_port, config.ssh.username, config.software.k0s.version)
            }
            (Task::Binary(_), Some(node)) => {
                format!("{} {}", config.software.k0s.version, k0s::download_url(config, node))
            }
            (Task::Leader(_) | Task::Controller(_), Some(node)) => {
                let cluster = k0s::cluster_config(config, self.topology, node);
                format!("{} {cluster}", k0s::install_command(node))
            }
            (Task::Worker(_), Some(node)) => k0s::install_command(node),
            (Task::HomeKubeconfig(_), _) => config.ssh.username.clone(),
            (Task::NodesReady | Task::Tokens, _) => {
                self.topology.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" ")
            }
            (Task::Chart | Task::Management, _) => chart_object(config).to_string(),
            _ => String::new(),
        };
        fingerprint(&[&input])
    }

    fn decide(&self, line: &Line, runs: &BTreeSet<Task>) -> (Decision, String) {
        match self.holds(line, runs) {
            Ok(evidence) => (Decision::Skip, evidence),
            Err(why) => (Decision::Run, why),
        }
    }

    /// Whether a step holds: what was seen, or why it does not.
    fn holds(&self, line: &Line, runs: &BTreeSet<Task>) -> Result<String, String> {
        let task = line.task;
        let names = &self.topology.names;
        match task {
            Task::ResourceGroup => match &self.observed.inventory.group {
                Some(_) if self.observed.inventory.is_deleting() => Err("it is being deleted".to_owned()),
                Some(group) if inventory::tag(group, TAG_CLUSTER) != Some(self.topology.cluster_id.as_str()) => {
                    Err("it is not ours".to_owned())
                }
                Some(_) => Ok("it exists".to_owned()),
                None => Err("it does not exist".to_owned()),
            },
            Task::SshKey => self.resource(Kind::SshKey, &names.ssh_key),
            Task::SecurityGroup => self.resource(Kind::NetworkSecurityGroup, &names.nsg),
            Task::VirtualNetwork => self.resource(Kind::VirtualNetwork, &names.vnet),
            Task::PublicAddress(node) => self.resource(Kind::PublicIp, &self.node(node).public_ip_name()),
            Task::Interface(node) => self.resource(Kind::NetworkInterface, &self.node(node).network_interface_name()),
            Task::Machine(node) => self.machine(node, false),
            Task::Provisioned(node) => self.machine(node, true),
            Task::Preflight => self.nothing_to_create(),
            Task::Ready(node)
            | Task::MeshMember(node)
            | Task::Binary(node)
            | Task::Leader(node)
            | Task::Controller(node)
            | Task::Worker(node)
            | Task::HomeKubeconfig(node) => {
                self.recorded(task)?;
                self.not_after(line, runs, |other| other.node() == Some(node))?;
                self.machine(node, true)?;
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
                    _ => Err("it is not installed".to_owned()),
                }
            }
            Task::Management => {
                self.recorded(task)?;
                let seen = self.observed.cluster.as_ref().and_then(|cluster| cluster.management.as_ref());
                let seen = seen.ok_or("there is none")?;
                let wanted = release_name(&self.config.software.k0rdent.version);
                seen.trouble(&wanted).map_or_else(|| Ok(format!("Ready, release {}", seen.release)), Err)
            }
            _ => Err("asked for".to_owned()),
        }
    }

    fn node(&self, node: usize) -> &Node {
        &self.topology.nodes[node]
    }

    /// A network resource exists and Azure calls it ready.
    fn resource(&self, kind: Kind, name: &str) -> Result<String, String> {
        let found = self.observed.inventory.find(kind, name).ok_or("it does not exist")?;
        match inventory::provisioning_state(found) {
            None | Some("Succeeded") => Ok("it exists".to_owned()),
            Some(state) => Err(format!("Azure calls it {state}")),
        }
    }

    /// A machine exists, runs, and (if `ready`) Azure calls it ready.
    fn machine(&self, node: usize, ready: bool) -> Result<String, String> {
        let found = self.observed.inventory.find(Kind::VirtualMachine, &self.node(node).name);
        let found = found.ok_or("it does not exist")?;
        if let Some(power @ ("deallocated" | "stopped")) = inventory::power_state(found) {
            return Err(format!("it is {power}"));
        }
        match inventory::provisioning_state(found) {
            Some("Succeeded") | None => Ok("it exists".to_owned()),
            Some(state) if ready => Err(format!("Azure calls it {state}")),
            Some(_) => Ok("Azure has accepted it".to_owned()),
        }
    }

    fn nothing_to_create(&self) -> Result<String, String> {
        for node in 0..self.topology.nodes.len() {
            self.machine(node, false).map_err(|why| format!("{}: {why}", self.node(node).name))?;
        }
        Ok("every machine exists".to_owned())
    }

    /// An earlier run completed the step, from the same inputs.
    fn recorded(&self, task: Task) -> Result<(), String> {
        let id = task.id(self.topology);
        let Some(state) = self.recorded.steps.get(&id) else { return Err("not done yet".to_owned()) };
        match &state.completed_with {
            None => Err("not done yet".to_owned()),
            Some(before) if *before != self.fingerprint(task) => Err("its configuration has changed".to_owned()),
            Some(_) if state.status == engine::StepStatus::Failed => Err("it failed in the last run".to_owned()),
            Some(_) => Ok(()),
        }
    }

    /// None of the steps before it that matter to it runs in this plan.
    fn not_after(&self, line: &Line, runs: &BTreeSet<Task>, matters: impl Fn(&Task) -> bool) -> Result<(), String> {
        match line.after.iter().find(|task| runs.contains(task) && matters(task)) {
            Some(task) => Err(format!("{} runs again", task.title(self.config, self.topology))),
            None => Ok(()),
        }
    }

    /// A node of the cluster is Ready with the wanted version. A controller without workloads has no node: that its
    /// cluster answers has to do.
    fn member(&self, node: usize) -> Result<String, String> {
        let node = self.node(node);
        let Some(cluster) = &self.observed.cluster else { return Err("the cluster does not answer".to_owned()) };
        if node.role == Role::Controller && !node.runs_workloads {
            return Ok("the cluster answers".to_owned());
        }
        match cluster.nodes.get(&node.name) {
            None => Err("it is not a node of the cluster".to_owned()),
            Some(seen) if !seen.ready => Err(format!("its node is not Ready: {}", seen.message)),
            Some(_) => Ok("its node is Ready".to_owned()),
        }
    }

    fn files(&self, task: Task) -> Result<String, String> {
        if self.force {
            return Err("asked to regenerate files".to_owned());
        }
        let cluster = &self.topology.cluster_id;
        let belongs = |file: &str| match task {
            Task::Documents => file.starts_with("cloud-init-yaml/") || file.contains("-ssh-key"),
            Task::MeshOperator => file.starts_with("wireguard/") || file == "ssh/config" || file == "ssh/known_hosts",
            Task::Kubeconfig => file == format!("kubeconfig/{cluster}-kubeconfig") || file.ends_with("kubeconfig-env.sh"),
            _ => file.starts_with("k0sctl-config/"),
        };
        let missing = self
            .recorded
            .artifacts
            .keys()
            .find(|file| belongs(file) && !self.observed.intact_files.contains(*file));
        match missing {
            Some(file) => Err(format!("{file} is missing or was changed")),
            None => Ok("its files are there".to_owned()),
        }
    }
}

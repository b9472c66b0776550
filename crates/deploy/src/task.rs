//! Every step that this program knows, by name: its phase, its title, how long it usually takes and may take.
//!
//! What a step does is in [`crate::steps`]; which steps make up a command is in [`crate::recipe`].

use std::time::Duration;

use engine::StepId;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Provider},
    topology::Topology,
};

/// The stations of the road, as people see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Keys, documents, and a look at whether Azure will let us.
    Prepare,
    /// The resource group and the network.
    Infrastructure,
    /// Machines that boot and finish cloud-init.
    Machines,
    /// The encrypted mesh.
    Mesh,
    /// Kubernetes.
    K0s,
    /// k0rdent itself.
    K0rdent,
    /// Taking it all down again.
    Teardown,
}

impl Phase {
    /// The phases of a deployment, in order.
    pub const DEPLOY: [Self; 6] =
        [Self::Prepare, Self::Infrastructure, Self::Machines, Self::Mesh, Self::K0s, Self::K0rdent];

    /// The phases of a deployment on machines of this provider, in order.
    pub fn of(provider: Provider) -> impl Iterator<Item = Self> {
        let needs_machines = |phase: &Self| matches!(phase, Self::Infrastructure | Self::Mesh);
        Self::DEPLOY.into_iter().filter(move |phase| provider.makes_machines() || !needs_machines(phase))
    }

    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Infrastructure => "infrastructure",
            Self::Machines => "machines",
            Self::Mesh => "mesh",
            Self::K0s => "k0s",
            Self::K0rdent => "k0rdent",
            Self::Teardown => "teardown",
        }
    }

    /// What the environment is called when this phase, and all before it, are complete.
    pub const fn reached(self) -> &'static str {
        match self {
            Self::Prepare => "prepared",
            Self::Infrastructure => "infrastructure_ready",
            Self::Machines => "vms_ready",
            Self::Mesh => "mesh_ready",
            Self::K0s => "k0s_deployed",
            Self::K0rdent => "k0rdent_deployed",
            Self::Teardown => "none",
        }
    }
}

/// A step. Numbers are positions in [`Topology::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Write the keys' files and the cloud-init documents.
    Documents,
    /// Ask Azure whether it will let us, before the first write.
    Preflight,
    /// The resource group.
    ResourceGroup,
    /// The SSH key in Azure.
    SshKey,
    /// The network security group with its rules.
    SecurityGroup,
    /// The virtual network with its subnet.
    VirtualNetwork,
    /// The tags of what exists already.
    Tags,
    /// A machine's public address.
    PublicAddress(usize),
    /// A machine's network interface.
    Interface(usize),
    /// A machine that is deleted, with its disk, and asked for anew.
    Replace(usize),
    /// A machine, accepted by Azure.
    Machine(usize),
    /// A machine, provisioned according to Azure; moved to another zone if there is no capacity.
    Provisioned(usize),
    /// A machine that answers SSH with its own host key and has finished cloud-init.
    Ready(usize),
    /// A machine's place in the mesh.
    MeshMember(usize),
    /// The operator's configuration for the mesh.
    MeshOperator,
    /// Every machine in the mesh, at the end.
    MeshHolds,
    /// The k0s binary on a machine.
    Binary(usize),
    /// The first controller.
    Leader(usize),
    /// A further controller.
    Controller(usize),
    /// A worker.
    Worker(usize),
    /// All nodes Ready.
    NodesReady,
    /// No join token is left.
    Tokens,
    /// The kubeconfig on this computer.
    Kubeconfig,
    /// The file for k0sctl's users.
    K0sctl,
    /// The kubeconfig in the user's home on a machine.
    HomeKubeconfig(usize),
    /// The kcm chart.
    Chart,
    /// The Management object, ready and of the wanted release.
    Management,
    /// Move the workloads away from a machine that is to leave. Numbers are positions in [`Topology::leaving`].
    Drain(usize),
    /// Take a controller that is to leave out of etcd.
    LeaveEtcd(usize),
    /// Delete a machine that has left.
    DeleteMachine(usize),
    /// No child cluster is left.
    ChildClusters,
    /// Delete the Management object and wait for its controllers to clear up.
    DeleteManagement,
    /// Delete the kcm chart.
    DeleteChart,
    /// Delete what k0rdent's chart leaves: definitions and webhooks.
    DeleteLeftBehind,
    /// Delete k0rdent's namespaces.
    DeleteNamespace,
    /// Look whether anything of k0rdent is left.
    K0rdentGone,
    /// Reset k0s on a machine.
    ResetMachine(usize),
    /// Give a host back that existed before.
    Release(usize),
    /// Look whether the resource group can go as a whole: ours alone, and not locked.
    CheckGroup,
    /// Ask the cluster for child clusters, for so long and no longer.
    Survey,
    /// Look whether anything of k0s is left.
    K0sGone,
    /// Delete the resource group and wait until it is gone.
    DeleteResourceGroup,
    /// Delete the resource group if that is possible, and go on if not.
    TryResourceGroup,
    /// Ask for the resource group's deletion, and do not wait.
    RequestDeletion,
    /// Delete one by one what is ours and is left, in whatever resource group.
    DeleteRest,
    /// Look whether anything is left.
    Evidence,
}

impl Task {
    /// The node that this is about.
    pub fn node(self) -> Option<usize> {
        match self {
            Self::PublicAddress(node)
            | Self::Interface(node)
            | Self::Replace(node)
            | Self::Machine(node)
            | Self::Provisioned(node)
            | Self::Ready(node)
            | Self::MeshMember(node)
            | Self::Binary(node)
            | Self::Leader(node)
            | Self::Controller(node)
            | Self::Worker(node)
            | Self::HomeKubeconfig(node)
            | Self::ResetMachine(node)
            | Self::Release(node) => Some(node),
            _ => None,
        }
    }

    /// Whether it is about what a cluster knows, and so to be done anew in a new one.
    pub fn is_of_cluster(self) -> bool {
        matches!(
            self,
            Self::Leader(_)
                | Self::Controller(_)
                | Self::Worker(_)
                | Self::NodesReady
                | Self::Tokens
                | Self::Kubeconfig
                | Self::HomeKubeconfig(_)
                | Self::Chart
                | Self::Management
        )
    }

    /// The leaving machine that this is about.
    pub fn leaving(self) -> Option<usize> {
        match self {
            Self::Drain(machine) | Self::LeaveEtcd(machine) | Self::DeleteMachine(machine) => Some(machine),
            _ => None,
        }
    }

    /// The name of the machine that this is about.
    pub fn machine(self, topology: &Topology) -> Option<&str> {
        let wanted = self.node().map(|node| topology.nodes[node].name.as_str());
        wanted.or_else(|| self.leaving().map(|machine| topology.leaving[machine].name.as_str()))
    }

    /// The phase under which it is shown.
    pub fn phase(self) -> Phase {
        match self {
            Self::Documents | Self::Preflight => Phase::Prepare,
            Self::ResourceGroup | Self::SshKey | Self::SecurityGroup | Self::VirtualNetwork => Phase::Infrastructure,
            Self::Tags | Self::PublicAddress(_) | Self::Interface(_) => Phase::Infrastructure,
            Self::Replace(_) | Self::Machine(_) | Self::Provisioned(_) | Self::Ready(_) => Phase::Machines,
            Self::MeshMember(_) | Self::MeshOperator => Phase::Mesh,
            Self::Binary(_) | Self::Leader(_) | Self::Controller(_) | Self::Worker(_) => Phase::K0s,
            Self::NodesReady | Self::Tokens | Self::Kubeconfig | Self::K0sctl | Self::HomeKubeconfig(_) => Phase::K0s,
            Self::Drain(_) | Self::LeaveEtcd(_) | Self::DeleteMachine(_) => Phase::K0s,
            Self::Chart | Self::Management | Self::MeshHolds => Phase::K0rdent,
            Self::ChildClusters
            | Self::DeleteManagement
            | Self::DeleteChart
            | Self::DeleteLeftBehind
            | Self::DeleteNamespace
            | Self::K0rdentGone
            | Self::ResetMachine(_)
            | Self::Release(_)
            | Self::CheckGroup
            | Self::Survey
            | Self::K0sGone
            | Self::DeleteResourceGroup
            | Self::TryResourceGroup
            | Self::RequestDeletion
            | Self::DeleteRest
            | Self::Evidence => Phase::Teardown,
        }
    }

    /// The last part of its name.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Preflight => "preflight",
            Self::ResourceGroup => "resource-group",
            Self::SshKey => "ssh-key",
            Self::SecurityGroup => "security-group",
            Self::VirtualNetwork => "virtual-network",
            Self::Tags => "tags",
            Self::PublicAddress(_) => "public-address",
            Self::Interface(_) => "interface",
            Self::Replace(_) => "replace",
            Self::Machine(_) => "create",
            Self::Provisioned(_) => "provisioned",
            Self::Ready(_) => "ready",
            Self::MeshMember(_) => "member",
            Self::MeshOperator => "operator",
            Self::MeshHolds => "mesh",
            Self::Binary(_) => "binary",
            Self::Leader(_) => "first-controller",
            Self::Controller(_) => "controller",
            Self::Worker(_) => "worker",
            Self::NodesReady => "nodes-ready",
            Self::Tokens => "tokens",
            Self::Kubeconfig => "kubeconfig",
            Self::K0sctl => "k0sctl",
            Self::HomeKubeconfig(_) => "home-kubeconfig",
            Self::Chart => "chart",
            Self::Management => "management",
            Self::Drain(_) => "drain",
            Self::LeaveEtcd(_) => "leave-etcd",
            Self::DeleteMachine(_) => "delete",
            Self::ChildClusters => "child-clusters",
            Self::DeleteManagement => "management",
            Self::DeleteChart => "chart",
            Self::DeleteLeftBehind => "left-behind",
            Self::DeleteNamespace => "namespace",
            Self::K0rdentGone => "k0rdent-gone",
            Self::ResetMachine(_) => "k0s",
            Self::Release(_) => "release",
            Self::CheckGroup => "check",
            Self::Survey => "child-clusters",
            Self::DeleteResourceGroup | Self::TryResourceGroup | Self::RequestDeletion => "resource-group",
            Self::DeleteRest => "rest",
            Self::K0sGone => "k0s-gone",
            Self::Evidence => "evidence",
        }
    }

    /// Its name for ever: `machines/k0s-worker-1/create`.
    pub fn id(self, topology: &Topology) -> StepId {
        self.machine(topology).map_or_else(|| self.common_id(), |machine| self.id_of(machine))
    }

    /// The name of a step that is about no machine, whatever the cluster.
    pub(crate) fn common_id(self) -> StepId {
        StepId::new(format!("{}/{}", self.phase().name(), self.verb()))
    }

    /// The name of such a step for that machine, also for one that no topology has.
    pub(crate) fn id_of(self, machine: &str) -> StepId {
        StepId::new(format!("{}/{machine}/{}", self.phase().name(), self.verb()))
    }

    /// What it is about, for people.
    pub fn title(self, config: &Config, topology: &Topology) -> String {
        let names = &topology.names;
        let makes_machines = topology.provider.makes_machines();
        let node = self.machine(topology).unwrap_or_default();
        match self {
            Self::Documents if !makes_machines => "OpenSSH configuration".to_owned(),
            Self::Documents => "keys and cloud-init documents".to_owned(),
            Self::Preflight if !makes_machines => "preflight: are the hosts fit".to_owned(),
            Self::Preflight => format!("preflight: will Azure let us in {}", config.azure.location),
            Self::ResourceGroup => format!("resource group {}", names.resource_group),
            Self::SshKey => format!("SSH key {}", names.ssh_key),
            Self::SecurityGroup => format!("network security group {}", names.nsg),
            Self::VirtualNetwork => format!("virtual network {}", names.vnet),
            Self::Tags => "tags of what exists".to_owned(),
            Self::PublicAddress(_) => format!("public address of {node}"),
            Self::Interface(_) => format!("network interface of {node}"),
            Self::Replace(_) => format!("replace virtual machine {node}: deleted with its disk, made anew"),
            Self::Machine(_) => format!("virtual machine {node}"),
            Self::Provisioned(_) => format!("provisioning of {node}"),
            Self::Ready(_) if !makes_machines => format!("{node} answers SSH and is ours"),
            Self::Ready(_) => format!("SSH and cloud-init on {node}"),
            Self::MeshMember(_) => format!("WireGuard on {node}"),
            Self::MeshHolds => "WireGuard on every machine".to_owned(),
            Self::MeshOperator => "the operator's WireGuard configuration".to_owned(),
            Self::Binary(_) => format!("k0s {} on {node}", config.software.k0s.version),
            Self::Leader(_) => format!("first controller {node}"),
            Self::Controller(_) => format!("controller {node} joins"),
            Self::Worker(_) => format!("worker {node} joins"),
            Self::NodesReady => "all nodes Ready".to_owned(),
            Self::Tokens => "join tokens revoked".to_owned(),
            Self::Kubeconfig => "kubeconfig".to_owned(),
            Self::K0sctl => "k0sctl configuration".to_owned(),
            Self::HomeKubeconfig(_) => format!("kubeconfig on {node}"),
            Self::Chart => format!("k0rdent chart {}", config.software.k0rdent.version),
            Self::Management => "k0rdent Management".to_owned(),
            Self::Drain(_) => format!("workloads moved away from {node}"),
            Self::LeaveEtcd(_) => format!("{node} leaves etcd"),
            Self::DeleteMachine(_) if !makes_machines => format!("{node} given back"),
            Self::DeleteMachine(_) => format!("virtual machine {node} deleted"),
            Self::ChildClusters => "no child clusters".to_owned(),
            Self::DeleteManagement => "k0rdent Management deleted".to_owned(),
            Self::DeleteChart => "k0rdent chart uninstalled".to_owned(),
            Self::DeleteLeftBehind => "definitions and webhooks of k0rdent deleted".to_owned(),
            Self::DeleteNamespace => format!("namespace {} deleted", config.software.k0rdent.namespace),
            Self::K0rdentGone => "nothing of k0rdent is left".to_owned(),
            Self::ResetMachine(_) => format!("k0s reset on {node}"),
            Self::Release(_) => format!("{node} given back"),
            Self::CheckGroup => "safety check".to_owned(),
            Self::Survey => "child clusters asked for".to_owned(),
            Self::K0sGone => "nothing of k0s is left".to_owned(),
            Self::DeleteResourceGroup => format!("resource group {} deleted", names.resource_group),
            Self::TryResourceGroup => format!("resource group {} deleted, if possible", names.resource_group),
            Self::RequestDeletion => format!("deletion of resource group {} accepted", names.resource_group),
            Self::DeleteRest => "what is left deleted one by one".to_owned(),
            Self::Evidence => "nothing is left".to_owned(),
        }
    }

    /// How long it usually takes: medians of what was seen on Azure, else experience.
    pub fn usual(self) -> Duration {
        Duration::from_secs(match self {
            Self::Documents | Self::MeshOperator | Self::MeshHolds | Self::Kubeconfig | Self::K0sctl | Self::Tokens => {
                1
            }
            Self::Preflight | Self::ResourceGroup | Self::SshKey | Self::Machine(_) => 2,
            Self::SecurityGroup | Self::Interface(_) | Self::Tags => 3,
            Self::VirtualNetwork | Self::PublicAddress(_) => 4,
            Self::Replace(_) => 60,
            Self::Provisioned(_) => 50,
            Self::Ready(_) => 80,
            Self::MeshMember(_) | Self::HomeKubeconfig(_) => 2,
            Self::Binary(_) => 6,
            Self::Leader(_) => 35,
            Self::Controller(_) | Self::Worker(_) => 30,
            Self::NodesReady => 5,
            Self::Chart => 65,
            // kcm installs thirteen components, one after the other where they depend on each other.
            Self::Management => 440,
            Self::Drain(_) => 30,
            Self::LeaveEtcd(_) => 3,
            Self::DeleteMachine(_) => 40,
            Self::ChildClusters => 1,
            Self::DeleteManagement => 60,
            Self::DeleteLeftBehind => 30,
            Self::K0rdentGone | Self::K0sGone => 2,
            Self::DeleteChart | Self::DeleteNamespace | Self::ResetMachine(_) | Self::Release(_) => 15,
            Self::DeleteResourceGroup | Self::TryResourceGroup => 120,
            Self::CheckGroup | Self::Survey | Self::RequestDeletion | Self::DeleteRest => 2,
            Self::Evidence => 3,
        })
    }

    /// How long it may take.
    pub fn deadline(self, config: &Config) -> Duration {
        let timeouts = &config.timeouts;
        let minutes = |minutes: u32| u64::from(minutes) * 60;
        // A machine may have to move twice.
        let provisioned = 3 * minutes(timeouts.vm_creation_minutes.max(10));
        Duration::from_secs(match self {
            Self::Documents | Self::MeshOperator | Self::K0sctl => 60,
            Self::Preflight => 180,
            Self::ResourceGroup | Self::SshKey | Self::SecurityGroup | Self::VirtualNetwork => 600,
            Self::Tags | Self::PublicAddress(_) | Self::Interface(_) | Self::Machine(_) => 900,
            Self::Provisioned(_) => provisioned,
            // The machine that is made last has as long as the first.
            Self::Ready(_) => provisioned + timeouts.machine_ready().as_secs(),
            Self::MeshMember(_) | Self::MeshHolds | Self::Tokens | Self::Kubeconfig | Self::HomeKubeconfig(_) => 300,
            Self::Binary(_) => 900,
            Self::Leader(_) | Self::Controller(_) => u64::from(timeouts.k0s_ready_seconds),
            Self::Worker(_) | Self::NodesReady => u64::from(timeouts.node_ready_seconds),
            Self::Chart | Self::Management => u64::from(timeouts.k0rdent_install_wait),
            Self::Replace(_) => 1800,
            Self::Drain(_) | Self::LeaveEtcd(_) => 600,
            Self::DeleteMachine(_) => 1200,
            Self::DeleteManagement | Self::DeleteLeftBehind => 900,
            Self::K0rdentGone | Self::K0sGone => 300,
            Self::DeleteChart | Self::DeleteNamespace | Self::ResetMachine(_) | Self::Release(_) => 600,
            Self::ChildClusters
            | Self::Survey
            | Self::DeleteResourceGroup
            | Self::TryResourceGroup
            | Self::DeleteRest => minutes(timeouts.reset_minutes),
            Self::CheckGroup | Self::RequestDeletion => 120,
            Self::Evidence => 180,
        })
    }
}

//! What the steps of one run share: the clients, the keys, and what is known so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::Failure;
use tokio::{
    sync::{OnceCell, watch},
    task::JoinSet,
};

use crate::{
    azure::{ArmClient, ArmError, Ids, Inventory, Kind, Tags, Watch, inventory},
    config::Config,
    environment::Environment,
    hosts::Users,
    keys::ClusterKeys,
    kubeconfig::Admin,
    kubernetes::{Kubernetes, KubernetesError},
    mesh::Mesh,
    seam::{World, lock},
    ssh::{Remote, SshError, Target, Tunnel},
    steps::k0s::{NodeSeen, Token, follow_nodes},
    topology::{Node, Role, Topology},
};

/// Azure, as the steps use it.
pub struct Azure {
    /// The requests.
    pub arm: Arc<ArmClient>,
    /// The waits.
    pub watch: Watch,
    /// The names.
    pub ids: Ids,
}

/// What became of a machine that other steps are already talking to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It may come up.
    Open,
    /// It is deleted, and another one is asked for.
    Replaced,
    /// Azure calls it ready: SSH answers soon, or not at all.
    Up,
    /// It will not.
    Doomed(String),
}

/// What is known about one machine in this run.
pub struct Machine {
    public_address: Mutex<Option<Ipv4Addr>>,
    identity: Mutex<Option<String>>,
    is_kept: AtomicBool,
    /// Whether it is worth waiting for.
    pub fate: watch::Sender<Fate>,
    /// The zone in which it is, or is to be, if it is to be in one.
    pub zone: Mutex<Option<u8>>,
    remote: OnceCell<Arc<Remote>>,
}

/// What somebody has asked for beyond what the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Begin an empty cluster where the old one is lost.
    pub start_anew: bool,
    /// Delete the machine of that name, and make it anew.
    pub replace: Option<String>,
}

/// Everything that the steps of one run share.
pub struct Deployment {
    /// Connections, clock, chance.
    pub world: World,
    /// The environment's directory.
    pub environment: Environment,
    /// The configuration.
    pub config: Config,
    /// What it means.
    pub topology: Topology,
    /// The cluster's keys.
    pub keys: ClusterKeys,
    /// The mesh.
    pub mesh: Mesh,
    /// The owner's tag.
    pub owner: String,
    /// The number of the run.
    pub epoch: u64,
    /// Where SSH may come from, CIDRs.
    pub ssh_from: Vec<String>,
    /// Azure, if it makes the machines.
    azure: Option<Azure>,
    /// What existed in Azure when the run began.
    pub inventory: Inventory,
    /// The version of the image from which this run makes machines, once it is known.
    pub image_version: std::sync::OnceLock<String>,
    /// The tags that configurations have given so far.
    pub given_tags: Tags,
    /// Where the end of a deletion can be asked for that an earlier run has not waited for.
    pub deletion: Option<String>,
    /// Whether a teardown deletes child clusters.
    pub with_children: bool,
    /// Whether a teardown goes on although child clusters stay.
    pub abandon_children: bool,
    /// The child clusters that there are or were, by name; `None` while nobody could say.
    pub children: Mutex<Option<BTreeSet<String>>>,
    /// What somebody has asked for.
    pub repair: Repair,
    has_cluster: AtomicBool,
    users: Users,
    /// The world as it is seen from where SSH connections to machines begin.
    ssh_world: World,
    machines: Vec<Machine>,
    speaker: AtomicUsize,
    access: Mutex<Arc<Access>>,
    nodes: OnceCell<NodeBoard>,
    /// Join tokens of this run.
    pub tokens: tokio::sync::Mutex<Vec<Token>>,
    /// SHA-256 of the files of this computer that are put on machines.
    pub digests: tokio::sync::Mutex<BTreeMap<String, String>>,
}

/// The way into the cluster.
#[derive(Default)]
struct Access {
    /// Whether the file that an earlier run left is of another cluster that was here before.
    file_is_old: bool,
    admin: OnceCell<Admin>,
    kubernetes: OnceCell<Kubernetes>,
}

/// The nodes as they are, and the task that keeps them so; it ends with the run.
struct NodeBoard {
    nodes: Arc<watch::Sender<BTreeMap<String, NodeSeen>>>,
    _follower: JoinSet<()>,
}

/// What a [`Deployment`] is made from.
pub struct Parts {
    /// Connections, clock, chance.
    pub world: World,
    /// The environment's directory.
    pub environment: Environment,
    /// The configuration.
    pub config: Config,
    /// What it means.
    pub topology: Topology,
    /// The cluster's keys.
    pub keys: ClusterKeys,
    /// The owner's tag.
    pub owner: String,
    /// Where SSH may come from, CIDRs.
    pub ssh_from: Vec<String>,
    /// If Azure makes the machines: the ARM client, and the subscription that was chosen.
    pub azure: Option<(Arc<ArmClient>, String)>,
    /// What exists in Azure.
    pub inventory: Inventory,
    /// Those who log in to hosts that exist already.
    pub users: Users,
    /// The world as it is seen from the last bastion.
    pub ssh_world: World,
    /// Whether a teardown deletes child clusters.
    pub with_children: bool,
    /// Whether a teardown goes on although child clusters stay.
    pub abandon_children: bool,
    /// What somebody has asked for.
    pub repair: Repair,
}

impl Deployment {
    /// Puts the parts together for the run with this number.
    pub fn new(parts: Parts, epoch: u64) -> Self {
        let azure = parts.azure.map(|(arm, subscription)| {
            let ids = Ids::new(subscription, &parts.topology.names.resource_group);
            Azure { watch: Watch::new(arm.clone(), ids.clone()), arm, ids }
        });
        let machines = parts.topology.nodes.iter().map(|node| Machine::known(node, &parts.inventory)).collect();
        Self {
            world: parts.world,
            environment: parts.environment,
            config: parts.config,
            keys: parts.keys,
            mesh: Mesh::Wireguard,
            owner: parts.owner,
            epoch,
            ssh_from: parts.ssh_from,
            azure,
            users: parts.users,
            ssh_world: parts.ssh_world,
            inventory: parts.inventory,
            image_version: std::sync::OnceLock::new(),
            given_tags: Tags::new(),
            deletion: None,
            with_children: parts.with_children,
            abandon_children: parts.abandon_children,
            children: Mutex::new(Some(BTreeSet::new())),
            repair: parts.repair,
            has_cluster: AtomicBool::new(false),
            machines,
            speaker: AtomicUsize::new(parts.topology.nodes.iter().position(|node| node.leader).unwrap_or(0)),
            topology: parts.topology,
            access: Mutex::default(),
            nodes: OnceCell::new(),
            tokens: tokio::sync::Mutex::default(),
            digests: tokio::sync::Mutex::default(),
        }
    }

    /// Azure. Only recipes for machines that Azure makes have steps that ask for it.
    pub fn azure(&self) -> Result<&Azure, Failure> {
        self.azure.as_ref().ok_or_else(|| Failure::refused("the machines of this cluster are not Azure's"))
    }

    /// A node by its position.
    pub fn node(&self, node: usize) -> &Node {
        &self.topology.nodes[node]
    }

    /// What is known about a machine.
    pub fn machine(&self, node: usize) -> &Machine {
        &self.machines[node]
    }

    /// The position of the first controller.
    pub fn leader(&self) -> usize {
        self.topology.nodes.iter().position(|node| node.leader).unwrap_or(0)
    }

    /// The position of the controller through which the cluster is spoken to: the first, unless another one was chosen.
    pub fn speaker(&self) -> usize {
        self.speaker.load(Ordering::Relaxed)
    }

    /// Speaks to the cluster through another controller.
    pub fn set_speaker(&self, controller: usize) {
        self.speaker.store(controller, Ordering::Relaxed);
    }

    /// Whether there is a cluster that a first controller would belong to: it must not begin another one.
    pub fn has_cluster(&self) -> bool {
        self.has_cluster.load(Ordering::Relaxed)
    }

    /// Says that there is one, or that there is none any more.
    pub fn set_has_cluster(&self, has_cluster: bool) {
        self.has_cluster.store(has_cluster, Ordering::Relaxed);
    }

    /// The way to run commands on a machine.
    pub async fn remote(&self, node: usize) -> Result<Arc<Remote>, Failure> {
        let remote = self.machines[node].remote.get_or_try_init(async || {
            let planned = self.node(node);
            if planned.host.is_some() {
                return Ok(Arc::new(self.remote_host(planned)?));
            }
            let address = self.machines[node].address().ok_or_else(|| {
                Failure::new(format!("{} has no public address yet", planned.name))
                    .advise("Run `k0rdentctl deploy` again.")
            })?;
            Ok::<_, Failure>(Arc::new(Remote::new(self.world.clone(), self.target(node, address))))
        });
        remote.await.cloned()
    }

    /// The way to run commands on a host that may not be wanted any more.
    pub fn remote_host(&self, node: &Node) -> Result<Remote, Failure> {
        let no_host = || Failure::refused(format!("{} did not exist before this cluster", node.name));
        let host = node.host.as_ref().ok_or_else(no_host)?;
        Ok(Remote::new(self.ssh_world.clone(), self.users.host(&node.name, host)?))
    }

    /// Where and as whom to log in to a machine that was made for the cluster.
    pub fn target(&self, node: usize, address: Ipv4Addr) -> Target {
        let node = self.node(node);
        Target {
            node: node.name.clone(),
            host: address.to_string(),
            port: 22,
            user: self.config.ssh.username.clone(),
            identity: self.keys.ssh_user().into(),
            host_key: self.keys.ssh_host(&node.name).public_key().clone(),
            patience: self.config.timeouts.ssh(),
        }
    }

    /// The cluster's administrator, from the file that an earlier run left, or from a controller.
    pub async fn admin(&self) -> Result<Admin, Failure> {
        let access = Arc::clone(&lock(&self.access));
        self.admin_of(&access).await.cloned()
    }

    async fn admin_of<'access>(&self, access: &'access Access) -> Result<&'access Admin, Failure> {
        access
            .admin
            .get_or_try_init(async || {
                if !access.file_is_old
                    && let Ok(Some(text)) = self.environment.read(&self.kubeconfig_file())
                    && let Ok(admin) = Admin::from_kubeconfig(&text)
                {
                    return Ok(admin);
                }
                let remote = self.remote(self.speaker()).await?;
                let text =
                    remote.run(&format!("sudo {} kubeconfig admin", crate::k0s::BINARY)).await.map_err(ssh_failure)?;
                Admin::from_kubeconfig(&text)
                    .map_err(|why| Failure::new(format!("`k0s kubeconfig admin` on {}: {why}", remote.target().node)))
            })
            .await
    }

    /// The cluster's API, through a controller.
    pub async fn kubernetes(&self) -> Result<Kubernetes, Failure> {
        let access = Arc::clone(&lock(&self.access));
        let kubernetes = access.kubernetes.get_or_try_init(async || {
            let admin = self.admin_of(&access).await?;
            let tunnel = Arc::new(Tunnel(self.remote(self.speaker()).await?));
            Kubernetes::new(&self.world, tunnel, "127.0.0.1", admin).map_err(kubernetes_failure)
        });
        kubernetes.await.cloned()
    }

    /// Learns of child clusters, or that nobody can say which there are.
    pub fn learn_children(&self, names: Option<BTreeSet<String>>) {
        let mut known = lock(&self.children);
        *known = match (known.take(), names) {
            (Some(known), Some(names)) => Some(known.into_iter().chain(names).collect()),
            _ => None,
        };
    }

    /// The child clusters that there are or were; `None` if nobody could say.
    pub fn known_children(&self) -> Option<BTreeSet<String>> {
        lock(&self.children).clone()
    }

    /// Speaks to the cluster through the next controller that has an address.
    pub fn ask_another(&self) {
        let is_there = |node: &usize| {
            self.node(*node).role == Role::Controller
                && (self.node(*node).host.is_some() || self.machine(*node).address().is_some())
        };
        let (nodes, speaker) = (self.topology.nodes.len(), self.speaker());
        if let Some(other) = (1..=nodes).map(|step| (speaker + step) % nodes.max(1)).find(is_there) {
            self.set_speaker(other);
            self.forget_cluster();
        }
    }

    /// Asks for the way into the cluster anew: the one that is known may lead into a cluster that was here before.
    pub fn forget_cluster(&self) {
        *lock(&self.access) = Arc::new(Access { file_is_old: true, ..Access::default() });
    }

    /// What the nodes say about themselves, kept up to date from now on.
    pub async fn node_board(&self) -> Result<&watch::Sender<BTreeMap<String, NodeSeen>>, Failure> {
        let board = self.nodes.get_or_try_init(async || {
            let kubernetes = self.kubernetes().await?;
            let nodes = Arc::new(watch::Sender::default());
            let mut follower = JoinSet::new();
            follower.spawn(follow_nodes(kubernetes, Arc::clone(&nodes)));
            Ok::<_, Failure>(NodeBoard { nodes, _follower: follower })
        });
        Ok(&board.await?.nodes)
    }

    /// The kubeconfig's file in the environment's directory.
    pub fn kubeconfig_file(&self) -> String {
        kubeconfig_file(&self.topology)
    }

    /// The private key's file in the environment's directory.
    pub fn ssh_key_file(&self) -> String {
        format!("ssh/{}-ssh-key", self.topology.cluster_id)
    }
}

/// The kubeconfig's file in the environment's directory.
pub fn kubeconfig_file(topology: &Topology) -> String {
    format!("kubeconfig/{}-kubeconfig", topology.cluster_id)
}

impl Machine {
    fn known(node: &Node, inventory: &Inventory) -> Self {
        let address = inventory
            .find(Kind::PublicIp, &node.public_ip_name())
            .and_then(inventory::ip_address)
            .and_then(|address| address.parse().ok());
        let machine = inventory.find(Kind::VirtualMachine, &node.name);
        let zone = machine.map_or(node.zone, |vm| vm["zones"][0].as_str().and_then(|zone| zone.parse().ok()));
        let is_up = machine.is_some_and(|vm| inventory::provisioning_state(vm) == Some("Succeeded"));
        Self {
            public_address: Mutex::new(address),
            identity: Mutex::new(machine.and_then(inventory::identity).map(str::to_owned)),
            is_kept: AtomicBool::new(false),
            fate: watch::Sender::new(if is_up { Fate::Up } else { Fate::Open }),
            zone: Mutex::new(zone),
            remote: OnceCell::new(),
        }
    }

    /// Its public address, once it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        *lock(&self.public_address)
    }

    /// Makes its public address known.
    pub fn set_address(&self, address: Ipv4Addr) {
        *lock(&self.public_address) = Some(address);
    }

    /// Which machine it is: another one of the same name has another identity.
    pub fn identity(&self) -> Option<String> {
        lock(&self.identity).clone()
    }

    /// It is a new machine, on which nothing was done yet.
    pub fn set_new(&self, identity: Option<&str>) {
        *lock(&self.identity) = identity.map(str::to_owned);
        self.is_kept.store(false, Ordering::Relaxed);
    }

    /// Whether something was done on it that would be lost with it.
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// From now on it is not replaced unless somebody asks for it.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// The zone in which it is, or is to be, if it is to be in one.
    pub fn zone(&self) -> Option<u8> {
        *lock(&self.zone)
    }
}

/// An error of Azure as a step's failure.
pub fn arm_failure(error: ArmError) -> Failure {
    let failure =
        if error.is_refusal() { Failure::refused(error.to_string()) } else { Failure::new(error.to_string()) };
    let advice = error.advice();
    if advice.is_empty() { failure } else { failure.advise(advice) }
}

/// An error of SSH as a step's failure.
pub fn ssh_failure(error: SshError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        SshError::HostKey { .. } => {
            failure.advise("Look at the machine itself before you go on: is it the one that you mean?")
        }
        _ => failure,
    }
}

/// An error of Kubernetes as a step's failure.
pub fn kubernetes_failure(error: KubernetesError) -> Failure {
    Failure::new(error.to_string())
}

/// Between two looks at something that cannot tell us by itself.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

//! The front door: one environment, and what can be done with it.

mod run;
mod teardown;

pub use teardown::{Deletion, Remains, Teardown, TeardownPlan};

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use engine::{
    Failure, Holder, Journal, JournalError, Message, Plan, State, StepId, StepStatus, Stop, journal::Durability,
    runner::FaultInjector,
};
use rand_core::RngCore as _;
use tokio::sync::watch;

use run::Run;
use teardown::subscription;

use crate::{
    archive,
    azure::{ArmClient, ArmError, Call, Credentials, Endpoints, Inventory, Kind, inventory, resources},
    change,
    config::{self, Config, Provider},
    deployment::{Deployment, Parts, arm_failure},
    environment::{Access, Environment},
    hosts::{Finding, UserKeys},
    http::HttpClient,
    keys::ClusterKeys,
    observe::{Observed, observe},
    plan::{self, Difference, Question},
    recipe::{self, Part},
    seam::World,
    steps::{hosts, prepare},
    task::{Phase, Task},
    topology::{ClusterId, Leaving, Node, Positions, Role, Topology, network_interface_name, topology, topology_at},
    views::{self, Status},
};

/// The seed of the cluster's keys.
const KEY_FILE: &str = "keys.json";
/// The configuration as it was used.
const CONFIG_FILE: &str = "k0rdent.yaml";

/// What is settled about hosts that existed before.
const HOSTS: &str = "hosts";

/// How long looking at the world before a run may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(120);

/// Everything that a session needs from outside.
#[derive(Clone)]
pub struct Settings {
    /// The environment's directory.
    pub home: PathBuf,
    /// Connections, clock, chance.
    pub world: World,
    /// Where Azure is.
    pub endpoints: Endpoints,
    /// Who we are there.
    pub credentials: Credentials,
    /// Who runs this.
    pub holder: Holder,
    /// Who owns what is created, unless the configuration says.
    pub owner: String,
    /// Where SSH may come from, unless the configuration says: the operator's own address.
    pub own_address: Option<String>,
    /// How hard the journal tries to survive a power cut.
    pub durability: Durability,
    /// Make files again even if they are right.
    pub force_regenerate: bool,
    /// Delete child clusters, with their machines, before what manages them.
    pub with_children: bool,
    /// The last phase that is wanted.
    pub until: Phase,
}

/// How a run is watched and stopped.
#[derive(Clone)]
pub struct Watching<'run> {
    /// Whether to go on.
    pub stop: watch::Receiver<Stop>,
    /// Sees every message.
    pub listener: &'run (dyn Fn(&Message) + Send + Sync),
    /// Faults to inject; none outside tests.
    pub faults: Option<FaultInjector>,
}

/// Why a command of a session did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file of the environment cannot be used.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A file of the environment makes no sense.
    #[error("{}: {reason}", path.display())]
    BadFile {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Steps failed, or the world said no before any step.
    #[error("{}", .0.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("\n"))]
    Failed(Vec<Failure>),
    /// Somebody asked the run to stop.
    #[error("interrupted; everything done so far is recorded")]
    Interrupted,
    /// Something is left after a teardown.
    #[error("{0}")]
    Leftovers(Box<Remains>),
    /// There is no cluster in this environment.
    #[error("there is no cluster in {}", .0.display())]
    NoCluster(PathBuf),
}

/// What a successful run did.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How many steps had to run.
    pub steps_run: usize,
    /// Where the environment stands now.
    pub status: Status,
    /// Where a teardown left its evidence.
    pub archive: Option<PathBuf>,
    /// What a teardown did not do, and why.
    pub skipped: Vec<String>,
    /// Archives of earlier teardowns that it has removed, because they were too old.
    pub expired: Vec<PathBuf>,
}

/// What a deployment would do.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The steps.
    pub plan: Plan,
    /// What is not as it is recorded.
    pub differences: Vec<Difference>,
    /// The cluster that is wanted.
    pub topology: Topology,
}

/// One environment.
pub struct Session {
    settings: Settings,
    environment: Environment,
}

impl Session {
    /// The environment that the settings name.
    pub fn new(settings: Settings) -> Self {
        let mut environment = Environment::new(&settings.home);
        environment.force = settings.force_regenerate;
        Self { settings, environment }
    }

    /// Brings the cluster up, or the rest of it.
    pub async fn deploy(
        &self,
        config_text: &str,
        config: &Config,
        watching: Watching<'_>,
    ) -> Result<Finished, SessionError> {
        self.make_room(watching.clone()).await?;
        let run = Run::begin(self, "deploy", Some((config_text, config)), watching).await?;
        let observed = run.observe().await;
        let recipe = recipe::deploy(&run.deployment.topology);
        let (plan, _) = plan::deployment(&run.question(&observed), &recipe);
        run.execute(&plan, &recipe).await
    }

    /// Removes archives that are too old, after another was made.
    fn expire(&self, finished: Finished, kept_days: u32) -> Result<Finished, SessionError> {
        let now = self.settings.world.clock.utc();
        Ok(Finished { expired: archive::expire(&self.environment, now, kept_days)?, ..finished })
    }

    /// Takes one part off the cluster, so that it is where it was before that part was deployed.
    pub async fn uninstall(&self, part: Part, watching: Watching<'_>) -> Result<Finished, SessionError> {
        if self.state()?.is_none_or(|state| self.is_over(&state)) {
            self.put_away()?;
            return Err(SessionError::NoCluster(self.settings.home.clone()));
        }
        self.refuse_if_protected(part.command())?;
        let run = Run::begin(self, part.command(), None, watching).await?;
        let observed = run.observe().await;
        let recipe = match run.is_there(part) {
            true => recipe::uninstall(&run.deployment.topology, part),
            false => Vec::new(),
        };
        let manages = observed.cluster.as_ref().is_some_and(|cluster| cluster.chart || cluster.management.is_some());
        if part == Part::K0s && (manages || run.is_there(Part::K0rdent)) {
            let refusal = Failure::refused("k0rdent is still there, and would go without clearing up after itself");
            return run.refuse(refusal.advise("Run `k0rdentctl uninstall k0rdent` first."));
        }
        let silent = if part == Part::K0s { run.silent(&observed) } else { Vec::new() };
        if !silent.is_empty() {
            let refusal = Failure::new(format!("k0s cannot be taken off {}: no answer over SSH", silent.join(", ")));
            let advice = "Nothing was touched. Start what is stopped, or run `k0rdentctl reset` to delete everything.";
            return run.refuse(refusal.advise(advice));
        }
        let plan = plan::teardown(&run.question(&observed), &recipe);
        run.execute(&plan, &recipe).await
    }

    fn refuse_if_protected(&self, command: &str) -> Result<(), SessionError> {
        // A configuration that cannot be read protects nothing.
        if !self.used_config().ok().flatten().is_some_and(|config| config.protect) {
            return Ok(());
        }
        let refusal =
            Failure::refused(format!("the configuration says `protect: true`: no `{command}` for this cluster"));
        let advice = format!("Set it to false, run `k0rdentctl deploy`, then `k0rdentctl {command}`.");
        Err(SessionError::Failed(vec![refusal.advise(advice)]))
    }

    /// What `deploy` would do, and which differences from what is recorded it would repair. Touches nothing.
    pub async fn plan(&self, config: &Config) -> Result<Planned, SessionError> {
        let state = self.state()?.unwrap_or_default();
        let Settings { until, force_regenerate: force, .. } = self.settings;
        let question = |topology: &Topology, observed: &Observed, ssh_from: &[String]| {
            let question = Question { config, topology, recorded: &state, observed, ssh_from, until, force };
            plan::deployment(&question, &recipe::deploy(topology))
        };
        let Some(cluster) = cluster_id(&state) else {
            // The name is drawn by `deploy`; nothing of ours can exist before.
            let topology = topology(config, &ClusterId::from_random(|| 23));
            let (plan, differences) = question(&topology, &Observed::default(), &[]);
            return Ok(Planned { plan, differences, topology });
        };
        let parts = self.parts(config.clone(), &cluster, self.read_keys(&cluster)?, &state).await?;
        self.check_change(&parts, &state)?;
        let deployment = Deployment::new(parts, 0);
        let observed = observe(&deployment, &state, &self.environment).await;
        let (plan, differences) = question(&deployment.topology, &observed, &deployment.ssh_from);
        Ok(Planned { plan, differences, topology: deployment.topology })
    }

    /// Compares what is recorded with the real, with the configuration that the cluster was made from.
    pub async fn check(&self) -> Result<Vec<Difference>, SessionError> {
        let config = self.used_config()?.ok_or_else(|| SessionError::NoCluster(self.settings.home.clone()))?;
        Ok(self.plan(&config).await?.differences)
    }

    /// What stands in the way of a deployment: what Azure does not allow, or hosts that are not fit. Touches nothing.
    pub async fn examine(&self, config: &Config) -> Result<Vec<Finding>, SessionError> {
        let state = self.state()?.unwrap_or_default();
        // Without a cluster, every claim is somebody else's.
        let cluster = cluster_id(&state).unwrap_or_else(|| ClusterId::from_random(|| 23));
        let keys = ClusterKeys::new(cluster.clone(), [0; 32]);
        let deployment = Deployment::new(self.parts(config.clone(), &cluster, keys, &state).await?, 0);
        if !config.provider.makes_machines() {
            return Ok(hosts::examine(&deployment).await);
        }
        let call = Call::within(LOOK_PATIENCE);
        prepare::examine(&deployment, call).await.map_err(|failure| SessionError::Failed(vec![failure]))
    }

    /// The parts of a deployment; if it is to follow a configuration, only if it can.
    async fn parts_for(
        &self,
        config: Config,
        cluster: &ClusterId,
        keys: ClusterKeys,
        state: &State,
        follows: bool,
    ) -> Result<Parts, SessionError> {
        let parts = self.parts(config, cluster, keys, state).await?;
        if follows {
            self.check_change(&parts, state)?;
        }
        Ok(parts)
    }

    /// Refuses what cannot be changed while the cluster exists.
    fn check_change(&self, parts: &Parts, state: &State) -> Result<(), SessionError> {
        let hosts = claimed_hosts(state);
        let exists = !parts.inventory.of(Kind::VirtualMachine).is_empty() || !hosts.is_empty();
        let Some(before) = self.used_config()?.filter(|_| exists) else { return Ok(()) };
        let mut refusals = change::refusals(&before, &parts.config);
        refusals.extend(change::moved_hosts(&hosts, &parts.topology));
        if refusals.is_empty() { Ok(()) } else { Err(SessionError::Failed(refusals)) }
    }

    /// What is recorded about the environment; `None` if there never was anything.
    pub fn recorded(&self) -> Result<Option<(State, Vec<engine::Record>)>, SessionError> {
        recorded(&self.settings.home)
    }

    /// A deployment to look at, with all clients, but no run: for `ssh`, `exec` and the like.
    pub async fn look(&self) -> Result<Deployment, SessionError> {
        let no_cluster = || SessionError::NoCluster(self.settings.home.clone());
        let state = self.state()?.ok_or_else(no_cluster)?;
        let cluster = cluster_id(&state).ok_or_else(no_cluster)?;
        let config = self.used_config()?.ok_or_else(no_cluster)?;
        let topology = topology_of(&config, &cluster, &state);
        let keys = self.read_keys(&cluster)?;
        let deployment = Deployment::new(self.offline_parts(config, topology.clone(), keys)?, 0);
        for node in 0..topology.nodes.len() {
            let address =
                state.output(&Task::PublicAddress(node).id(&topology)).map(|output| output["public_address"].clone());
            if let Some(address) = address.and_then(|address| address.as_str()?.parse().ok()) {
                deployment.machine(node).set_address(address);
            }
        }
        Ok(deployment)
    }

    /// The configuration with which the cluster was made.
    pub fn used_config(&self) -> Result<Option<Config>, SessionError> {
        used_config(&self.environment)
    }

    fn read_keys(&self, cluster: &ClusterId) -> Result<ClusterKeys, SessionError> {
        let path = self.environment.path(KEY_FILE);
        let text = self.environment.read(KEY_FILE)?.ok_or_else(|| SessionError::BadFile {
            path: path.clone(),
            reason: "it is missing, and without it no machine of the cluster can be reached; restore it from a backup, or delete the resource group in Azure and this directory".to_owned(),
        })?;
        ClusterKeys::from_file(&text, cluster).map_err(|reason| SessionError::BadFile { path, reason })
    }

    fn new_keys(&self, cluster: &ClusterId) -> Result<ClusterKeys, SessionError> {
        let mut seed = [0; 32];
        lock(&self.settings.world.random).fill_bytes(&mut seed);
        let keys = ClusterKeys::new(cluster.clone(), seed);
        self.environment.write(KEY_FILE, &keys.to_file(), Access::Secret)?;
        Ok(keys)
    }

    fn arm(&self, config: &Config) -> Arc<ArmClient> {
        let Settings { world, endpoints, credentials, .. } = &self.settings;
        let subscription = config.azure.subscription_id.clone();
        Arc::new(ArmClient::new(world, HttpClient::new(world), endpoints.clone(), credentials.clone(), subscription))
    }

    fn offline_parts(&self, config: Config, topology: Topology, keys: ClusterKeys) -> Result<Parts, SessionError> {
        let azure = topology.provider.makes_machines().then(|| {
            let arm = self.arm(&config);
            let subscription = arm.subscription().unwrap_or_default().to_owned();
            (arm, subscription)
        });
        let world = &self.settings.world;
        let bastions = if azure.is_none() { &config.ssh.bastions[..] } else { &[] };
        let user_keys = UserKeys::read(world, bastions, &topology).map_err(SessionError::Failed)?;
        let ssh_world = user_keys.behind(world, bastions).map_err(|failure| SessionError::Failed(vec![failure]))?;
        let from_config: Vec<String> = config.azure.ssh_allowed_from.iter().map(ToString::to_string).collect();
        let own = self.settings.own_address.iter().cloned().collect();
        Ok(Parts {
            world: world.clone(),
            environment: self.environment.clone(),
            topology,
            keys,
            owner: config.metadata.owner.clone().unwrap_or_else(|| self.settings.owner.clone()),
            ssh_from: if from_config.is_empty() { own } else { from_config },
            azure,
            inventory: Inventory::default(),
            user_keys,
            ssh_world,
            with_children: self.settings.with_children,
            config,
        })
    }

    /// The parts of a deployment, with a look at what exists in Azure if Azure makes the machines.
    async fn parts(
        &self,
        config: Config,
        cluster: &ClusterId,
        keys: ClusterKeys,
        state: &State,
    ) -> Result<Parts, SessionError> {
        let mut topology = topology_of(&config, cluster, state);
        topology.leaving = leaving_hosts(&topology, state);
        let mut parts = self.offline_parts(config, topology, keys)?;
        if let Some((arm, chosen)) = &mut parts.azure {
            let call = Call::within(LOOK_PATIENCE);
            *chosen = subscription(arm, call).await?;
            let ids = crate::azure::Ids::new(&*chosen, &parts.topology.names.resource_group);
            parts.inventory = Inventory::take(arm, &ids, call).await.map_err(failed)?;
            parts.topology.leaving = leaving(&parts.topology, &parts.inventory);
        }
        Ok(parts)
    }

    /// What is the case, as recorded; `None` if there never was anything.
    fn state(&self) -> Result<Option<State>, SessionError> {
        Ok(journal(&self.settings.home)?.map(|journal| journal.state()).transpose()?)
    }

    /// Whether a teardown has ended well, and nobody is at work.
    fn is_over(&self, state: &State) -> bool {
        recipe::is_torn_down(state) && !Journal::is_held(&self.settings.home)
    }

    /// Archives a teardown that ended well, if the program was killed before it could.
    fn put_away(&self) -> Result<Option<Finished>, SessionError> {
        if !self.state()?.is_some_and(|state| self.is_over(&state)) {
            return Ok(None);
        }
        let status = status_of(&self.settings.home)?;
        let archive = Some(self.archive(&status)?);
        Ok(Some(Finished { steps_run: 0, status, archive, skipped: Vec::new(), expired: Vec::new() }))
    }

    fn archive(&self, status: &Status) -> Result<PathBuf, SessionError> {
        let home = &self.settings.home;
        let journal = journal(home)?.ok_or_else(|| SessionError::NoCluster(home.clone()))?;
        journal.checkpoint()?;
        let records = journal.after(0)?;
        let state = State::of(&records);
        let cluster = cluster_id(&state).ok_or_else(|| SessionError::NoCluster(self.settings.home.clone()))?;
        let config = self.environment.read(CONFIG_FILE)?.unwrap_or_default();
        let report = serde_json::to_string_pretty(&archive::Report::of(&cluster, &records)).unwrap_or_default();
        let files = [
            (archive::REPORT_FILE, report),
            ("deployment-state.yaml", views::state_yaml(&state, status)),
            ("deployment-events.yaml", views::events_yaml(&records)),
            (CONFIG_FILE, config),
        ];
        let files = files.each_ref().map(|(name, content)| (*name, content.as_str()));
        let ended = state.runs.last().and_then(|run| run.ended_at);
        Ok(self.environment.archive(&cluster, ended.unwrap_or_else(|| self.settings.world.clock.utc()), &files)?)
    }
}

/// The machines of ours that exist and are not wanted, as their tags describe them.
fn leaving(topology: &Topology, inventory: &Inventory) -> Vec<Leaving> {
    let ours = |machine: &&serde_json::Value| {
        inventory::tag(machine, resources::TAG_CLUSTER) == Some(topology.cluster_id.as_str())
    };
    let leaving = |machine: &serde_json::Value| {
        let name = inventory::tag(machine, resources::TAG_NODE)?.to_owned();
        let role = if inventory::tag(machine, resources::TAG_ROLE) == Some("controller") {
            Role::Controller
        } else {
            Role::Worker
        };
        let interface = inventory.find(Kind::NetworkInterface, &network_interface_name(&name));
        let address = interface.and_then(|interface| {
            let address = interface.pointer("/properties/ipConfigurations/0/properties/privateIPAddress")?;
            address.as_str()?.parse().ok()
        });
        topology.node(&name).is_none().then_some(Leaving { name, role, private_address: address, host: None })
    };
    inventory.of(Kind::VirtualMachine).values().filter(ours).filter_map(leaving).collect()
}

/// The hosts that were claimed and are not wanted any more, until they are given back.
fn leaving_hosts(topology: &Topology, state: &State) -> Vec<Leaving> {
    let leaving = claimed_hosts(state).into_iter().filter(|node| topology.node(&node.name).is_none());
    let leaving = leaving.map(|node| Leaving {
        name: node.name.clone(),
        role: node.role,
        private_address: Some(node.private_address),
        host: Some(Box::new(node)),
    });
    leaving.collect()
}

/// The hosts that existed before and were claimed, or are about to be, as recorded.
fn claimed_hosts(state: &State) -> Vec<Node> {
    let recorded = state.settled.get(HOSTS).cloned().unwrap_or_default();
    let mut nodes: Vec<Node> = serde_json::from_value(recorded).unwrap_or_default();
    nodes.retain(|node| {
        let begun = state.steps.get(&StepId::new(format!("machines/{}/ready", node.name)));
        let gone = state.steps.get(&StepId::new(format!("k0s/{}/delete", node.name)));
        let gone = gone.filter(|step| step.status == StepStatus::Completed).and_then(|step| step.ended_at);
        gone.is_none() || gone < begun.and_then(|step| step.started_at)
    });
    nodes
}

/// The hosts of a run that follows a configuration: those that are wanted, and those that are not and are still ours.
fn hosts_of(topology: &Topology) -> Vec<&Node> {
    let leaving = topology.leaving.iter().filter_map(|leaving| leaving.host.as_deref());
    topology.nodes.iter().filter(|node| node.host.is_some()).chain(leaving).collect()
}

/// The journal in a directory; `None` if there never was a cluster.
fn journal(home: &std::path::Path) -> Result<Option<Journal>, SessionError> {
    let journal = Journal::open_to_read(home)?;
    if journal.is_none() && home.join(KEY_FILE).exists() {
        return Err(JournalError::Damaged {
            path: Journal::file(home),
            reason: format!("it is missing, and {KEY_FILE} says that there was a cluster"),
        }
        .into());
    }
    Ok(journal)
}

/// Whether a directory says nothing of a cluster: neither a journal nor keys.
pub fn has_no_cluster(home: &std::path::Path) -> bool {
    !Journal::file(home).exists() && !home.join(KEY_FILE).exists()
}

/// What is recorded in a directory; `None` if there never was anything.
pub fn recorded(home: &std::path::Path) -> Result<Option<(State, Vec<engine::Record>)>, SessionError> {
    let Some(journal) = journal(home)? else { return Ok(None) };
    let records = journal.after(0)?;
    Ok(Some((State::of(&records), records)))
}

/// The configuration with which the cluster in a directory was made.
pub fn used_config(environment: &Environment) -> Result<Option<Config>, SessionError> {
    let Some(text) = environment.read(CONFIG_FILE)? else { return Ok(None) };
    let bad = |problems: Vec<config::Problem>| SessionError::BadFile {
        path: environment.path(CONFIG_FILE),
        reason: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    config::load(&text).map(|loaded| Some(loaded.config)).map_err(bad)
}

/// Where the environment in a directory stands, from its own records.
pub fn status_of(home: &std::path::Path) -> Result<Status, SessionError> {
    let Some(journal) = journal(home)? else {
        return Ok(views::status(&State::default(), Provider::default(), None, false));
    };
    let state = journal.state()?;
    let config = used_config(&Environment::new(home))?;
    let topology =
        config.as_ref().zip(cluster_id(&state)).map(|(config, cluster)| topology_of(config, &cluster, &state));
    let provider = config.map(|config| config.provider).unwrap_or_default();
    Ok(views::status(&state, provider, topology.as_ref(), Journal::is_held(home)))
}

/// What the configuration means for a cluster whose machines may have their places already.
fn topology_of(config: &Config, cluster: &ClusterId, state: &State) -> Topology {
    topology_at(config, cluster, &positions(state))
}

/// The places of the machines that are wanted, and of those that are still there.
fn kept_positions(parts: &Parts, state: &State) -> Positions {
    let mut positions = positions(state);
    positions.retain(|name, _| parts.inventory.find(Kind::VirtualMachine, name).is_some());
    positions.extend(parts.topology.nodes.iter().map(|node| (node.name.clone(), node.position)));
    positions
}

/// The places that machines have, as recorded.
fn positions(state: &State) -> Positions {
    let recorded = state.settled.get("positions").cloned().unwrap_or_default();
    serde_json::from_value(recorded).unwrap_or_default()
}

/// The cluster that an environment's records name.
pub fn cluster_id(state: &State) -> Option<ClusterId> {
    state.settled.get("cluster_id").and_then(|id| ClusterId::parse(id.as_str()?).ok())
}

fn failed(error: ArmError) -> SessionError {
    SessionError::Failed(vec![arm_failure(error)])
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

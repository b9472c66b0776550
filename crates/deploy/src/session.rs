//! The front door: one environment, and what can be done with it.

mod exporting;
mod leaving;
mod overtaken;
mod planning;
mod recorded;
mod run;
mod teardown;
mod way_in;

pub use overtaken::Overtaken;
pub use planning::{Agreed, Neighbour, Place, Planned};
pub(crate) use recorded::CHILDREN;
pub use recorded::{cluster_id, known_children};
pub use teardown::{Children, Deletion, Remains, Teardown, TeardownPlan};

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use engine::{
    Failure, Holder, Journal, JournalError, Message, State, Stop,
    journal::{Durability, Lease},
    runner::FaultInjector,
};
use rand_core::RngCore as _;
use tokio::sync::watch;

use leaving::{hosts_of, leaving};
use recorded::{claimed_hosts, leaving_hosts, legible, positions};
use run::Run;
use teardown::subscription;

use crate::{
    archive,
    azure::{ArmClient, ArmError, Call, Credentials, Endpoints, Inventory, Kind},
    change,
    config::{self, Config, Provider},
    control_plane,
    deployment::{Deployment, Parts, Repair, arm_failure},
    difference::Difference,
    environment::{Access, Environment},
    hosts::{Finding, Users},
    http::HttpClient,
    keys::ClusterKeys,
    leftovers::Leftover,
    observe::{Observed, observe},
    plan::{self, Question},
    preview::{Change, Preview},
    recipe::{self, Part},
    seam::{World, lock},
    steps::{hosts, prepare},
    task::{Phase, Task},
    topology::{ClusterId, Positions, Topology, topology, topology_at},
    views::{self, Status},
};

/// The seed of the cluster's keys.
const KEY_FILE: &str = "keys.json";
/// The configuration as it was used.
const CONFIG_FILE: &str = "k0rdent.yaml";

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
    /// Which world this is: Azure, or a twin. What a twin has forgotten, another one never had.
    pub world_name: String,
    /// Who runs this.
    pub holder: Holder,
    /// Who owns what is created, unless the configuration says.
    pub owner: String,
    /// Where SSH may come from, unless the configuration says: the operator's own address.
    pub own_address: Option<String>,
    /// How hard the journal tries to survive a power cut.
    pub durability: Durability,
    /// Make files again even if they are right: those whose path has this part; all if it is empty.
    pub force_regenerate: Option<String>,
    /// Delete child clusters, with their machines, before what manages them.
    pub with_children: bool,
    /// Go on although child clusters stay, or nobody can say whether there are any.
    pub abandon_children: bool,
    /// Whether the configuration at hand protects the cluster; if there is none, the one that was used says so.
    pub protect: Option<bool>,
    /// What somebody has asked for beyond what the configuration says.
    pub repair: Repair,
    /// The last phase that is wanted.
    pub until: Phase,
}

/// What is not as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Drift {
    /// All of it.
    pub differences: Vec<Difference>,
    /// Why a deployment would not repair it, and the ways on.
    pub refusal: Option<Failure>,
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
    /// The world has changed since a plan was shown: these things would be created, changed or deleted as well.
    #[error("the world has changed since the plan was shown; nothing was touched")]
    PlanChanged(Vec<Change>),
    /// A run of another copy of this environment has gone further than the records here.
    #[error(transparent)]
    Overtaken(Overtaken),
    /// Something is left after a teardown.
    #[error("{0}")]
    Leftovers(Box<Remains>),
    /// The environment's cluster is in another world.
    #[error("the cluster of {} is in {recorded}, and this is {here}; nothing was touched", home.display())]
    OtherWorld {
        /// The environment's directory.
        home: PathBuf,
        /// Where it is.
        recorded: String,
        /// Where we are.
        here: String,
    },
    /// The keys are lost, and with them the way to every machine.
    #[error("{} is missing, and without it no machine of {cluster} can be reached", path.display())]
    LostKeys {
        /// Their file.
        path: PathBuf,
        /// The cluster.
        cluster: ClusterId,
    },
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
    /// What is ours and a teardown has left, because it holds what belongs to others.
    pub kept: Vec<Leftover>,
    /// What runs on of child clusters that a teardown has left behind.
    pub children: Vec<Leftover>,
    /// Archives of earlier teardowns that it has removed, because they were too old.
    pub expired: Vec<PathBuf>,
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
        environment.force.clone_from(&settings.force_regenerate);
        Self { settings, environment }
    }

    /// Brings the cluster up, or the rest of it.
    pub async fn deploy(
        &self,
        config_text: &str,
        config: &Config,
        watching: Watching<'_>,
    ) -> Result<Finished, SessionError> {
        self.deploy_as_agreed(config_text, config, None, watching).await
    }

    /// [`Session::deploy`], unless it would do more than what somebody has agreed to.
    pub async fn deploy_as_agreed(
        &self,
        config_text: &str,
        config: &Config,
        agreed: Option<&Agreed>,
        watching: Watching<'_>,
    ) -> Result<Finished, SessionError> {
        self.refuse_strangers()?;
        Box::pin(self.make_room(watching.clone())).await?;
        let run = Box::pin(Run::begin(self, "deploy", Some((config_text, config)), watching)).await?;
        let observed = run.observe().await;
        let recipe = recipe::deploy(&run.deployment.topology);
        let question = run.question(&observed);
        if let Some(refusal) = question.refusal() {
            return run.end(SessionError::Failed(vec![refusal]));
        }
        run.deployment.set_has_cluster(!question.members().is_empty() && !question.starts_anew());
        if question.starts_anew() {
            run.deployment.set_speaker(run.deployment.leader());
        }
        let (plan, _) = plan::deployment(&question, &recipe);
        let more = agreed.map(|agreed| Preview::of(&question, &recipe, &plan).beyond(&agreed.shown, agreed.to_more));
        if let Some(more) = more.filter(|more| !more.is_empty()) {
            return run.end(SessionError::PlanChanged(more));
        }
        Box::pin(run.execute(&plan, &recipe)).await
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
        let run = Box::pin(Run::begin(self, part.command(), None, watching)).await?;
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
        Box::pin(run.execute(&plan, &recipe)).await
    }

    /// Refuses what cannot build on what a teardown has left that is not finished.
    fn refuse_unfinished_teardown(&self, command: &str) -> Result<(), SessionError> {
        let refusal = self.state()?.and_then(|state| recipe::unfinished_teardown(&state, command));
        refusal.map_or(Ok(()), |refusal| Err(SessionError::Failed(vec![refusal])))
    }

    /// What `deploy` would do, and which differences from what is recorded it would repair. Touches nothing.
    pub async fn plan(&self, config: &Config) -> Result<Planned, SessionError> {
        self.refuse_unfinished_teardown("deploy")?;
        self.refuse_strangers()?;
        let planned = self.compare(config).await?;
        match &planned.refusal {
            Some(refusal) => Err(SessionError::Failed(vec![refusal.clone()])),
            None => Ok(planned),
        }
    }

    /// What is wanted, compared with the real.
    async fn compare(&self, config: &Config) -> Result<Planned, SessionError> {
        let state = self.state()?.unwrap_or_default();
        let unfinished = recipe::unfinished_teardown(&state, "deploy");
        // What was torn down makes room for a new cluster.
        let is_gone = self.is_over(&state) || recipe::deletion_under_way(&state).is_some();
        let state = if is_gone { State::default() } else { state };
        let (until, force) = (self.settings.until, self.settings.force_regenerate.as_deref());
        let repair = &self.settings.repair;
        let question = |topology: &Topology, observed: &Observed, ssh_from: &[String]| {
            let question = Question { config, topology, recorded: &state, observed, ssh_from, until, force, repair };
            let recipe = recipe::deploy(topology);
            let (plan, differences) = plan::deployment(&question, &recipe);
            let preview = Preview::of(&question, &recipe, &plan);
            (plan, differences, preview, unfinished.clone().or_else(|| question.refusal()))
        };
        // A run that was killed before it had made keys has made nothing else.
        let has_nothing = state.steps.is_empty() && self.environment.read(KEY_FILE)?.is_none();
        let Some(cluster) = cluster_id(&state).filter(|_| !has_nothing) else {
            // The name is drawn by `deploy`; nothing of ours can exist before.
            let topology = topology(config, &ClusterId::from_random(|| 23));
            let ssh_from = self.ssh_from(config);
            let (plan, differences, mut preview, refusal) = question(&topology, &Observed::default(), &ssh_from);
            preview.without_a_name(config);
            return Ok(Planned { plan, differences, preview, topology, is_new: true, refusal });
        };
        let parts = self.parts(config.clone(), &cluster, self.read_keys(&cluster)?, &state).await?;
        self.check_change(&parts, &state)?;
        let deployment = Deployment::new(parts, 0);
        let observed = observe(&deployment, &state, &self.environment).await;
        let (plan, differences, preview, refusal) = question(&deployment.topology, &observed, &deployment.ssh_from);
        Ok(Planned { plan, differences, preview, topology: deployment.topology, is_new: false, refusal })
    }

    /// Compares what is recorded with the real, with the configuration that the cluster was made from.
    pub async fn check(&self) -> Result<Drift, SessionError> {
        let config = self.used_config()?.ok_or_else(|| SessionError::NoCluster(self.settings.home.clone()))?;
        let Planned { mut differences, refusal, .. } = self.compare(&config).await?;
        differences.extend(self.environment.loose()?.into_iter().map(Difference::of_mode));
        Ok(Drift { differences, refusal })
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
        let hosts = claimed_hosts(state)?;
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
        let topology = topology_of(&config, &cluster, &state)?;
        let must_be_private = |reason| SessionError::BadFile { path: self.environment.path(KEY_FILE), reason };
        self.environment.is_private(KEY_FILE)?.map_err(must_be_private)?;
        let keys = self.read_keys(&cluster)?;
        let deployment = Deployment::new(self.offline_parts(config, topology.clone(), keys).await?, 0);
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
        let lost = || SessionError::LostKeys { path: path.clone(), cluster: cluster.clone() };
        let text = self.environment.read(KEY_FILE)?.ok_or_else(lost)?;
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

    async fn offline_parts(
        &self,
        config: Config,
        topology: Topology,
        keys: ClusterKeys,
    ) -> Result<Parts, SessionError> {
        let azure = topology.provider.makes_machines().then(|| {
            let arm = self.arm(&config);
            let subscription = arm.subscription().unwrap_or_default().to_owned();
            (arm, subscription)
        });
        let world = &self.settings.world;
        let bastions = if azure.is_none() { &config.ssh.bastions[..] } else { &[] };
        let users =
            Users::read(world, bastions, &topology, config.timeouts.ssh()).await.map_err(SessionError::Failed)?;
        let ssh_world = users.behind(world, bastions).map_err(|failure| SessionError::Failed(vec![failure]))?;
        let ssh_from = self.ssh_from(&config);
        Ok(Parts {
            world: world.clone(),
            environment: self.environment.clone(),
            topology,
            keys,
            owner: config.metadata.owner.clone().unwrap_or_else(|| self.settings.owner.clone()),
            ssh_from,
            azure,
            inventory: Inventory::default(),
            users,
            ssh_world,
            with_children: self.settings.with_children,
            abandon_children: self.settings.abandon_children,
            repair: self.settings.repair.clone(),
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
        let mut topology = topology_of(&config, cluster, state)?;
        topology.leaving = leaving_hosts(&topology, state)?;
        let mut parts = self.offline_parts(config, topology, keys).await?;
        if let Some((arm, chosen)) = &mut parts.azure {
            let call = Call::within(LOOK_PATIENCE);
            *chosen = subscription(arm, call).await?;
            let ids = crate::azure::Ids::new(&*chosen, &parts.topology.names.resource_group);
            parts.inventory = Inventory::take(arm, &ids, call).await.map_err(failed)?;
            parts.topology.leaving = leaving(&parts.topology, &parts.inventory);
            let useless = control_plane::useless(state, &parts.topology, &parts.inventory);
            parts.topology.replacing = useless.into_iter().map(|(node, _)| node).collect();
            let asked = self.settings.repair.replace.as_ref();
            let asked = parts.topology.nodes.iter().position(|node| Some(&node.name) == asked);
            parts.topology.replacing.extend(asked);
        }
        Ok(parts)
    }

    /// What is the case, as recorded; `None` if there never was anything.
    fn state(&self) -> Result<Option<State>, SessionError> {
        let state = journal(&self.settings.home)?.map(|journal| legible(journal.state()?)).transpose()?;
        state.iter().try_for_each(|state| self.refuse_other_world(state))?;
        Ok(state)
    }

    /// Whether a teardown has ended well, and nobody is at work.
    fn is_over(&self, state: &State) -> bool {
        recipe::is_torn_down(state) && !Journal::is_held(&self.settings.home)
    }

    /// Archives the records of a cluster that is gone, and removes what belonged to it. Whoever does it has the directory
    /// to himself: what somebody else began there would be removed with it.
    fn archive(&self, status: &Status, _claimed: &Lease) -> Result<PathBuf, SessionError> {
        let home = &self.settings.home;
        let journal = journal(home)?.ok_or_else(|| SessionError::NoCluster(home.clone()))?;
        journal.checkpoint()?;
        let records = journal.after(0)?;
        drop(journal);
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
    let topology = config
        .as_ref()
        .zip(cluster_id(&state))
        .map(|(config, cluster)| topology_of(config, &cluster, &state))
        .transpose()?;
    let provider = config.map(|config| config.provider).unwrap_or_default();
    Ok(views::status(&state, provider, topology.as_ref(), Journal::is_held(home)))
}

/// What the configuration means for a cluster whose machines may have their places already.
fn topology_of(config: &Config, cluster: &ClusterId, state: &State) -> Result<Topology, JournalError> {
    Ok(topology_at(config, cluster, &positions(state)?))
}

/// The places of the machines that are wanted, and of those that are still there.
fn kept_positions(parts: &Parts, state: &State) -> Result<Positions, JournalError> {
    let mut positions = positions(state)?;
    positions.retain(|name, _| parts.inventory.find(Kind::VirtualMachine, name).is_some());
    positions.extend(parts.topology.nodes.iter().map(|node| (node.name.clone(), node.position)));
    Ok(positions)
}

fn failed(error: ArmError) -> SessionError {
    SessionError::Failed(vec![arm_failure(error)])
}

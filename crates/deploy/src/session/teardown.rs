//! Taking a cluster down: what is known about it, what will happen, how it ended, and what is left anywhere.

use std::fmt;

use engine::{Event, Failure, Journal, State};
use serde::Serialize;
use serde_json::json;

use super::{
    CONFIG_FILE, Finished, KEY_FILE, LOOK_PATIENCE, Session, SessionError, Watching, cluster_id, failed, leaving_hosts,
    run::{Run, reached},
    topology_of,
};
use crate::{
    azure::{Call, Ids, Inventory, preflight},
    config::{self, Config},
    deployment::Deployment,
    environment::Access,
    keys::ClusterKeys,
    leftovers::{self, Leftover, cost, short},
    observe::Observed,
    plan::{self, Question},
    prices::Cost,
    recipe::{self, Line, Manner},
    steps::hosts,
    task::{Phase, Task},
    topology::{ClusterId, Topology},
    views::{FORMAT_VERSION, PlannedStepView},
};

/// The journal with what SQLite keeps beside it.
const JOURNAL_FILES: [&str; 3] = ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"];

/// What is to be taken down, and how.
#[derive(Debug, Clone, Default)]
pub struct Teardown {
    /// How.
    pub manner: Manner,
    /// The cluster, where the environment's records are lost; for [`Manner::Force`].
    pub cluster: Option<ClusterId>,
    /// The subscription, where the records do not say.
    pub subscription: Option<String>,
}

/// What a teardown would do.
#[derive(Debug, Clone, Serialize)]
pub struct TeardownPlan {
    /// The version of this format.
    pub format_version: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// How it is taken down.
    pub manner: Manner,
    /// Where it is, if Azure has made its machines.
    pub subscription_id: Option<String>,
    /// What there is of it.
    pub found: Vec<Leftover>,
    /// What is in its resource group and belongs to others.
    pub strangers: Vec<String>,
    /// What will not cost any more.
    pub cost: Cost,
    /// How long it usually takes.
    pub usual_seconds: u64,
    /// How long it may take.
    pub bound_seconds: u64,
    /// What is not done, and why.
    pub skipped: Vec<String>,
    /// The steps.
    pub steps: Vec<PlannedStepView>,
}

/// What a teardown has left.
#[derive(Debug, Clone)]
pub struct Remains {
    /// What is left.
    pub left: Vec<Leftover>,
    /// What went wrong.
    pub reasons: Vec<String>,
}

impl fmt::Display for Remains {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in &self.reasons {
            writeln!(formatter, "{reason}")?;
        }
        write!(formatter, "{} left, {}", self.left.len(), cost(&self.left))?;
        self.left.iter().try_for_each(|left| write!(formatter, "\n  {}", short(&left.id)))
    }
}

/// How a deletion stands that nobody has waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "kebab-case")]
pub enum Deletion {
    /// It goes on.
    UnderWay,
    /// The resource group is gone.
    Done,
    /// Azure has given it up.
    Failed(String),
}

/// What the environment's files say about the cluster that is to go.
struct Subject {
    cluster: ClusterId,
    state: State,
    config: Config,
    /// Whether the journal cannot be read.
    is_damaged: bool,
    /// Whether the journal names the cluster.
    is_recorded: bool,
    is_config_lost: bool,
    are_keys_lost: bool,
}

impl Session {
    /// Takes the cluster down and proves that nothing is left.
    pub async fn reset(&self, teardown: &Teardown, watching: Watching<'_>) -> Result<Finished, SessionError> {
        let no_cluster = || SessionError::NoCluster(self.settings.home.clone());
        // What cannot be read does not say how long archives are kept: all of them stay.
        let kept_days = self.used_config().ok().flatten().map_or(0, |config| config.archive.retention_days);
        if let Some(finished) = self.put_away_readable()? {
            return self.expire(finished, kept_days);
        }
        let subject = self.subject(teardown)?.ok_or_else(no_cluster)?;
        subject.refuse_if_impossible(teardown.manner)?;
        self.refuse_if_protected("reset")?;
        if teardown.manner == Manner::Force {
            self.adopt(&subject, teardown)?;
        }
        let run = Run::begin(self, "reset", None, watching).await?;
        let (recipe, mut skipped) =
            subject.recipe(teardown.manner, &run.deployment.topology, &run.deployment.inventory);
        let plan = plan::teardown(&run.question(&Observed::default()), &recipe);
        let mut finished = run.execute(&plan, &recipe).await?;
        let state = self.state()?.unwrap_or_default();
        let outputs = state.order.iter().filter_map(|id| state.output(id)?["skipped"].as_array());
        skipped.extend(outputs.flatten().filter_map(|reason| reason.as_str().map(str::to_owned)));
        finished.skipped = skipped;
        if recipe::is_torn_down(&state) {
            finished.archive = Some(self.archive(&finished.status)?);
            return self.expire(finished, kept_days);
        }
        Ok(finished)
    }

    /// What [`Session::reset`] would do. Touches nothing; `None` if there is no cluster.
    pub async fn teardown_plan(&self, teardown: &Teardown) -> Result<Option<TeardownPlan>, SessionError> {
        Journal::check_free(&self.settings.home, &self.settings.holder)?;
        let Some(subject) = self.subject(teardown)? else { return Ok(None) };
        subject.refuse_if_impossible(teardown.manner)?;
        let Subject { cluster, config, state, .. } = &subject;
        let mut topology = topology_of(config, cluster, state);
        let (mut inventory, mut subscription_id, mut strangers) = (Inventory::default(), None, Vec::new());
        let found = if config.provider.makes_machines() {
            let (arm, call) = (self.arm(config), Call::within(LOOK_PATIENCE));
            let subscription = subscription(&arm, call).await?;
            let ids = Ids::new(&subscription, &topology.names.resource_group);
            inventory = Inventory::take(&arm, &ids, call).await.map_err(failed)?;
            strangers = leftovers::strangers(&arm, &subscription, cluster, call).await.map_err(failed)?;
            let found = leftovers::look(&arm, &subscription, cluster, call).await.map_err(failed)?;
            subscription_id = Some(subscription);
            found
        } else {
            topology.leaving = leaving_hosts(&topology, state);
            let parts = self.offline_parts(config.clone(), topology.clone(), self.read_keys(cluster)?)?;
            hosts::left(&Deployment::new(parts, 0)).await
        };
        let (recipe, skipped) = subject.recipe(teardown.manner, &topology, &inventory);
        let plan = plan::teardown(
            &Question {
                config,
                topology: &topology,
                recorded: state,
                observed: &Observed::default(),
                ssh_from: &[],
                until: Phase::Teardown,
                force: false,
            },
            &recipe,
        );
        Ok(Some(TeardownPlan {
            format_version: FORMAT_VERSION,
            cluster_id: cluster.clone(),
            manner: teardown.manner,
            subscription_id,
            cost: cost(&found),
            found,
            strangers,
            usual_seconds: plan.usual().as_secs(),
            bound_seconds: (plan.bound() + LOOK_PATIENCE).as_secs(),
            skipped,
            steps: plan.steps.iter().map(PlannedStepView::of).collect(),
        }))
    }

    /// What there is of this environment's cluster on the hosts that existed before it; `None` if it has none.
    pub async fn left_on_hosts(&self) -> Result<Option<Vec<Leftover>>, SessionError> {
        if self.used_config()?.is_none_or(|config| config.provider.makes_machines()) {
            return Ok(None);
        }
        Ok(Some(hosts::left(&self.look().await?).await))
    }

    /// What there is of one cluster in the subscription, or of all that carry our tags; and which subscription.
    pub async fn leftovers(
        &self,
        cluster: Option<&ClusterId>,
        subscription_id: Option<String>,
    ) -> Result<(String, Vec<Leftover>), SessionError> {
        let mut config = default_config()?;
        config.azure.subscription_id = subscription_id;
        let (arm, call) = (self.arm(&config), Call::within(LOOK_PATIENCE));
        let subscription = subscription(&arm, call).await?;
        let left = match cluster {
            Some(cluster) => leftovers::look(&arm, &subscription, cluster, call).await,
            None => leftovers::look_for_all(&arm, &subscription, call).await,
        };
        Ok((subscription, left.map_err(failed)?))
    }

    /// How the deletion stands that an earlier run has not waited for; `None` if there is none.
    pub async fn deletion(&self) -> Result<Option<Deletion>, SessionError> {
        let Some(subject) = self.subject(&Teardown::default())? else { return Ok(None) };
        if recipe::deletion_under_way(&subject.state).is_none() {
            return Ok(None);
        }
        let (arm, call) = (self.arm(&subject.config), Call::within(LOOK_PATIENCE));
        let subscription = subscription(&arm, call).await?;
        let topology = topology_of(&subject.config, &subject.cluster, &subject.state);
        let group = Ids::new(subscription, &topology.names.resource_group).group();
        let Some(found) = arm.find(&group, call).await.map_err(failed)? else { return Ok(Some(Deletion::Done)) };
        if crate::azure::inventory::is_deleting(&found) {
            return Ok(Some(Deletion::UnderWay));
        }
        let operation = match deletion_operation(&subject.state, &topology) {
            Some(url) => arm.operation(&url, &group, call).await,
            None => return Ok(Some(Deletion::UnderWay)),
        };
        Ok(Some(match operation {
            Err(error) if !error.is_not_found() => Deletion::Failed(error.to_string()),
            _ => Deletion::UnderWay,
        }))
    }

    /// Lets something new begin: a deletion that nobody has waited for is waited for, and what has ended well is archived.
    pub(super) async fn make_room(&self, watching: Watching<'_>) -> Result<(), SessionError> {
        let Some(state) = self.state()? else { return Ok(()) };
        if recipe::deletion_under_way(&state).is_some() && !Journal::is_held(&self.settings.home) {
            self.reset(&Teardown { manner: Manner::Fast, ..Teardown::default() }, watching).await?;
        } else if self.is_over(&state) {
            self.put_away()?;
        }
        Ok(())
    }

    /// [`Session::put_away`], unless the journal cannot be read: then nothing is known to have ended well.
    fn put_away_readable(&self) -> Result<Option<Finished>, SessionError> {
        match self.put_away() {
            Err(SessionError::Journal(error)) if error.is_damage() => Ok(None),
            put_away => put_away,
        }
    }

    /// What the files say, and what they do not say any more. Changes nothing. `None` if nobody knows a cluster.
    fn subject(&self, teardown: &Teardown) -> Result<Option<Subject>, SessionError> {
        let home = &self.settings.home;
        let is_forced = teardown.manner == Manner::Force;
        let (state, damage) = match self.state() {
            Err(SessionError::Journal(error)) if error.is_damage() && is_forced => (State::default(), Some(error)),
            state => (state?.unwrap_or_default(), None),
        };
        let recorded = cluster_id(&state);
        let keys = self.environment.read(KEY_FILE).ok().flatten();
        let in_keys = keys.as_deref().filter(|_| is_forced).and_then(ClusterKeys::cluster_in);
        if let Some(wanted) = &teardown.cluster
            && let Some(other) = recorded.as_ref().or(in_keys.as_ref()).filter(|other| *other != wanted)
        {
            let reason = format!(
                "these are the files of {other}, not of {wanted}; nothing was touched. Say --home DIR with another directory"
            );
            return Err(SessionError::BadFile { path: home.clone(), reason });
        }
        let is_recorded = recorded.is_some();
        let Some(cluster) = recorded.or_else(|| teardown.cluster.clone()).or(in_keys) else {
            return damage.map_or(Ok(None), |error| Err(error.into()));
        };
        let used = match self.used_config() {
            Err(SessionError::BadFile { .. }) if is_forced => None,
            used => used?,
        };
        let is_config_lost = used.is_none();
        let mut config = used.map_or_else(default_config, Ok)?;
        // The cluster is where it was made, whatever was said there about the subscription.
        let settled = state.settled.get("subscription_id").and_then(|id| id.as_str()).map(str::to_owned);
        config.azure.subscription_id =
            settled.or_else(|| teardown.subscription.clone()).or(config.azure.subscription_id);
        let are_keys_lost = keys.is_none_or(|keys| ClusterKeys::from_file(&keys, &cluster).is_err());
        let is_damaged = damage.is_some();
        Ok(Some(Subject { cluster, state, config, is_damaged, is_recorded, is_config_lost, are_keys_lost }))
    }

    /// Makes an environment of what is left of one, so that the teardown is a run like any other: recorded, resumable,
    /// archived. What cannot be read is moved into the archive.
    fn adopt(&self, subject: &Subject, teardown: &Teardown) -> Result<(), SessionError> {
        let now = self.settings.world.clock.utc();
        Journal::check_free(&self.settings.home, &self.settings.holder)?;
        if subject.is_damaged {
            self.environment.set_aside(&JOURNAL_FILES, now)?;
        }
        if subject.is_config_lost {
            self.environment.set_aside(&[CONFIG_FILE], now)?;
            self.environment.write(CONFIG_FILE, "", Access::Secret)?;
        }
        if subject.are_keys_lost {
            self.environment.set_aside(&[KEY_FILE], now)?;
            self.new_keys(&subject.cluster)?;
        }
        let mut settle = Vec::new();
        if !subject.is_recorded {
            settle.push(("cluster_id", json!(subject.cluster.as_str())));
        }
        if let Some(subscription) =
            teardown.subscription.as_ref().filter(|_| !subject.state.settled.contains_key("subscription_id"))
        {
            settle.push(("subscription_id", json!(subscription)));
        }
        if !settle.is_empty() {
            let journal = Journal::open_to_write(&self.settings.home, &self.settings.holder, self.settings.durability)?;
            for (key, value) in settle {
                journal.append(now, Event::Settled { key: key.to_owned(), value })?;
            }
        }
        Ok(())
    }
}

impl Subject {
    /// Not everybody can delete everything at once.
    fn refuse_if_impossible(&self, manner: Manner) -> Result<(), SessionError> {
        if !matches!(manner, Manner::Fast | Manner::FastNoWait) || self.config.provider.deletes_at_once() {
            return Ok(());
        }
        let refusal = Failure::refused("hosts that existed before cannot be deleted at once; nothing was touched");
        Err(SessionError::Failed(vec![refusal.advise("Run `k0rdentctl reset`, or `k0rdentctl reset --force`.")]))
    }

    /// The steps, and what is not among them, with the reason.
    fn recipe(&self, manner: Manner, topology: &Topology, inventory: &Inventory) -> (Vec<Line>, Vec<String>) {
        let mut skipped = Vec::new();
        let reached = reached(&self.state, topology, inventory);
        let begun = self.state.steps.get(&Task::Chart.id(topology)).is_some_and(|step| step.started_at.is_some());
        // Without a journal nobody knows how far the cluster got.
        let has_machines = !self.config.provider.makes_machines() || !inventory.vms.is_empty();
        let mut may_have_children = has_machines && (begun || !self.is_recorded);
        if manner != Manner::Orderly && self.config.provider.makes_machines() {
            skipped.push("k0rdent and k0s are not uninstalled: they go with their machines".to_owned());
        }
        if may_have_children && self.are_keys_lost && manner == Manner::Force {
            skipped.push("child clusters were not looked for: keys.json is lost or damaged".to_owned());
            may_have_children = false;
        }
        (recipe::reset(topology, reached, may_have_children, manner), skipped)
    }
}

/// Where the end of an accepted deletion can be asked for.
pub(super) fn deletion_operation(state: &State, topology: &Topology) -> Option<String> {
    let output = state.output(&Task::RequestDeletion.id(topology))?;
    output["operation"].as_str().map(str::to_owned)
}

fn default_config() -> Result<Config, SessionError> {
    let bad = |problems: Vec<config::Problem>| {
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        SessionError::BadFile { path: CONFIG_FILE.into(), reason: text }
    };
    config::load("").map(|loaded| loaded.config).map_err(bad)
}

/// Logs in and settles on the subscription.
pub(super) async fn subscription(arm: &crate::azure::ArmClient, call: Call) -> Result<String, SessionError> {
    preflight::subscription(arm, call)
        .await
        .map_err(failed)?
        .map_err(|finding| SessionError::Failed(vec![engine::Failure::refused(finding.to_string())]))?;
    Ok(arm.subscription().unwrap_or_default().to_owned())
}

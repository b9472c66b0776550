//! Taking a cluster down: what is known about it, what will happen, how it ended, and what is left anywhere.

use std::{collections::BTreeSet, fmt};

use engine::{Event, Failure, Journal, Message, State};
use serde::Serialize;
use serde_json::json;

use super::{
    CONFIG_FILE, Finished, KEY_FILE, LOOK_PATIENCE, Session, SessionError, Watching, cluster_id, failed, leaving_hosts,
    recorded::{self, CHILDREN},
    run::{Run, reached},
    status_of, topology_of,
};
use crate::{
    azure::{Call, Ids, Inventory, preflight},
    config::{self, Config},
    deployment::{Deployment, Parts},
    environment::Access,
    keys::ClusterKeys,
    leftovers::{self, Leftover, cost, short},
    observe::Observed,
    plan::{self, Question},
    prices::Cost,
    recipe::{self, Line, Manner},
    steps::{hosts, uninstall},
    task::{Phase, Task},
    topology::{ClusterId, Topology},
    views::{FORMAT_VERSION, PlannedStepView},
};

/// How long it takes to see that nothing is there.
const NOTHING_SECONDS: u64 = 5;
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
    /// Its child clusters, whose machines it does not delete by itself.
    pub children: Children,
    /// How long the cluster has lived, as far as that is recorded.
    pub lived_seconds: Option<u64>,
    /// How long it usually takes.
    pub usual_seconds: u64,
    /// How long it may take.
    pub bound_seconds: u64,
    /// What is not done, and why.
    pub skipped: Vec<String>,
    /// The steps.
    pub steps: Vec<PlannedStepView>,
}

/// What is known of a cluster's children before it is taken down.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Children {
    /// Their names, as the cluster says or has said.
    pub names: Vec<String>,
    /// Why the cluster does not say which there are.
    pub unknown: Option<String>,
    /// What there is of them in the subscription; of all children there, if it is not known which are the cluster's.
    pub found: Vec<Leftover>,
    /// What that costs.
    pub cost: Cost,
}

impl TeardownPlan {
    /// Why it cannot be done as it was asked for, whatever somebody answers: the run would refuse it.
    pub fn refusal(&self, with_children: bool, abandon_children: bool) -> Option<SessionError> {
        let Children { names, unknown, found, .. } = &self.children;
        let asks = self.steps.iter().any(|step| step.id == Task::ChildClusters.common_id().as_str());
        let refusal = match unknown {
            _ if with_children || abandon_children => return None,
            Some(_) if self.manner == Manner::Force => return None,
            Some(why) if asks => uninstall::nobody_can_say(why),
            None if !names.is_empty() && (asks || !found.is_empty()) => {
                uninstall::exist(&names.join(", "), names.len())
            }
            _ => return None,
        };
        Some(SessionError::Failed(vec![refusal]))
    }
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
        self.left.iter().try_for_each(|left| {
            let of_child = match ClusterId::parse(&left.cluster_id) {
                Ok(_) => String::new(),
                Err(_) => format!(" of child cluster {}", left.cluster_id),
            };
            write!(formatter, "\n  {}{of_child}", left.kept().unwrap_or_else(|| short(&left.id)))
        })
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
            self.adopt(&subject, teardown, watching.listener)?;
        }
        let run = Box::pin(Run::begin(self, "reset", None, watching)).await?;
        let (recipe, skipped) = subject.recipe(
            teardown.manner,
            self.settings.abandon_children,
            &run.deployment.topology,
            &run.deployment.inventory,
        );
        if subject.cannot_know_children(&run.deployment.topology, &recipe) {
            run.settle(CHILDREN, serde_json::Value::Null)?;
            run.deployment.learn_children(None);
        }
        let plan = plan::teardown(&run.question(&Observed::default()), &recipe);
        let mut finished = Box::pin(run.execute(&plan, &recipe)).await?;
        let state = self.state()?.unwrap_or_default();
        finished.skipped = skipped;
        let mut finished = with_what_it_said(&state, finished)?;
        // Until everything is put away, nobody else begins here.
        if recipe::is_torn_down(&state)
            && let Some(lease) = run.close()
        {
            finished.archive = Some(self.archive(&finished.status, &lease)?);
            return self.expire(finished, kept_days);
        }
        Ok(finished)
    }

    /// What [`Session::reset`] would do. Touches nothing; `None` if there is no cluster.
    pub async fn teardown_plan(&self, teardown: &Teardown) -> Result<Option<TeardownPlan>, SessionError> {
        Journal::check_free(&self.settings.home)?;
        let Some(subject) = self.subject(teardown)? else { return Ok(None) };
        subject.refuse_if_impossible(teardown.manner)?;
        let Subject { cluster, config, state, .. } = &subject;
        let mut topology = topology_of(config, cluster, state)?;
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
            topology.leaving = leaving_hosts(&topology, state)?;
            let keys = self.read_keys(cluster)?;
            let parts = self.offline_parts(config.clone(), topology.clone(), keys).await?;
            hosts::left(&Deployment::new(parts, 0)).await
        };
        let (recipe, skipped) = subject.recipe(teardown.manner, self.settings.abandon_children, &topology, &inventory);
        let asks = recipe.iter().any(|line| matches!(line.task, Task::ChildClusters | Task::Survey));
        let asked = asks.then(|| self.ask_children(&subject, topology.clone(), inventory));
        let asked = futures::future::OptionFuture::from(asked.map(Box::pin)).await;
        let children = self.children_of(&subject, subscription_id.as_deref(), asked).await?;
        let plan = plan::teardown(
            &Question {
                config,
                topology: &topology,
                recorded: state,
                observed: &Observed::default(),
                ssh_from: &[],
                until: Phase::Teardown,
                force: None,
                repair: &self.settings.repair,
            },
            &recipe,
        );
        Ok(Some(TeardownPlan {
            format_version: FORMAT_VERSION,
            cluster_id: cluster.clone(),
            manner: teardown.manner,
            subscription_id,
            cost: cost(&found),
            children,
            lived_seconds: subject.lived(self.settings.world.clock.utc()),
            // Where there is nothing to delete, the steps look and are done.
            usual_seconds: if found.is_empty() { NOTHING_SECONDS } else { plan.usual().as_secs() },
            bound_seconds: if found.is_empty() { LOOK_PATIENCE } else { plan.bound() + LOOK_PATIENCE }.as_secs(),
            found,
            strangers,
            skipped,
            steps: plan.steps.iter().map(PlannedStepView::of).collect(),
        }))
    }

    /// What is known of the children of a cluster that is to go, and what it answered if it was asked.
    async fn children_of(
        &self,
        subject: &Subject,
        subscription: Option<&str>,
        asked: Option<Result<BTreeSet<String>, String>>,
    ) -> Result<Children, SessionError> {
        let mut names = recorded::children(&subject.state)?;
        let mut unknown = None;
        match asked {
            Some(Ok(found)) => names.extend(found),
            Some(Err(why)) => unknown = Some(why),
            None if subject.are_keys_lost => unknown = Some("keys.json is lost or damaged".to_owned()),
            None => {}
        }
        let mut found = Vec::new();
        if let Some(subscription) = subscription
            && (unknown.is_some() || !names.is_empty())
        {
            let of = unknown.is_none().then_some(&names);
            let call = Call::within(LOOK_PATIENCE);
            found = leftovers::children(&self.arm(&subject.config), subscription, of, call).await.map_err(failed)?;
        }
        Ok(Children { names: names.into_iter().collect(), unknown, cost: cost(&found), found })
    }

    /// The names of the children, as the cluster says; why it does not, otherwise. Each controller is asked once: the run
    /// itself asks again, and longer.
    async fn ask_children(
        &self,
        subject: &Subject,
        topology: Topology,
        inventory: Inventory,
    ) -> Result<BTreeSet<String>, String> {
        let keys = self.read_keys(&subject.cluster).map_err(|error| error.to_string())?;
        let times = topology.controllers().count();
        let parts =
            self.offline_parts(subject.config.clone(), topology, keys).await.map_err(|error| error.to_string())?;
        let deployment = Deployment::new(Parts { inventory, ..parts }, 0);
        uninstall::children(&deployment, times, |_| {}).await.map(|children| uninstall::names(&children))
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
        let mut left = left.map_err(failed)?;
        if cluster.is_none() {
            left.extend(leftovers::children(&arm, &subscription, None, call).await.map_err(failed)?);
        }
        Ok((subscription, left))
    }

    /// How the deletion stands that an earlier run has not waited for; `None` if there is none.
    pub async fn deletion(&self) -> Result<Option<Deletion>, SessionError> {
        let Some(subject) = self.subject(&Teardown::default())? else { return Ok(None) };
        if recipe::deletion_under_way(&subject.state).is_none() {
            return Ok(None);
        }
        let (arm, call) = (self.arm(&subject.config), Call::within(LOOK_PATIENCE));
        let subscription = subscription(&arm, call).await?;
        let topology = topology_of(&subject.config, &subject.cluster, &subject.state)?;
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
            let teardown = Teardown { manner: Manner::Fast, ..Teardown::default() };
            Box::pin(self.reset(&teardown, watching)).await?;
        } else if self.is_over(&state) {
            self.put_away()?;
        }
        Ok(())
    }

    /// Archives a teardown that ended well, if the program was killed before it could.
    pub(super) fn put_away(&self) -> Result<Option<Finished>, SessionError> {
        if !self.state()?.is_some_and(|state| self.is_over(&state)) {
            return Ok(None);
        }
        let status = status_of(&self.settings.home)?;
        let Some(lease) = Journal::claim(&self.settings.home)? else { return Ok(None) };
        // Somebody may have put it away, and begun something new, before it was claimed.
        let Some(state) = self.state()?.filter(recipe::is_torn_down) else { return Ok(None) };
        let archive = Some(self.archive(&status, &lease)?);
        let (steps_run, skipped, kept, children, expired) = Default::default();
        with_what_it_said(&state, Finished { steps_run, status, archive, skipped, kept, children, expired }).map(Some)
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
    fn adopt(
        &self,
        subject: &Subject,
        teardown: &Teardown,
        listener: &(dyn Fn(&Message) + Send + Sync),
    ) -> Result<(), SessionError> {
        let now = self.settings.world.clock.utc();
        Journal::check_free(&self.settings.home)?;
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
                let record = journal.append(now, Event::Settled { key: key.to_owned(), value })?;
                listener(&Message::Recorded(Box::new(record)));
            }
        }
        Ok(())
    }
}

impl Subject {
    /// How long ago its first machine was asked for; if it never had one, nobody paid for it.
    fn lived(&self, now: time::OffsetDateTime) -> Option<u64> {
        let steps = self.state.steps.values().filter(|step| step.planned.phase == Phase::Machines.name());
        let began = steps.filter_map(|step| step.started_at).min()?;
        u64::try_from((now - began).whole_seconds()).ok()
    }

    /// Not everybody can delete everything at once.
    fn refuse_if_impossible(&self, manner: Manner) -> Result<(), SessionError> {
        if !matches!(manner, Manner::Fast | Manner::FastNoWait) || self.config.provider.deletes_at_once() {
            return Ok(());
        }
        let refusal = Failure::refused("hosts that existed before cannot be deleted at once; nothing was touched");
        Err(SessionError::Failed(vec![refusal.advise("Run `k0rdentctl reset`, or `k0rdentctl reset --force`.")]))
    }

    /// Whether there may be child clusters: k0rdent was begun. A journal that does not know of a deployment, because the
    /// one that did is lost, does not know how far the cluster got either.
    fn may_have_children(&self, topology: &Topology) -> bool {
        let chart = self.state.steps.get(&Task::Chart.id(topology));
        let is_known = self.state.runs.iter().any(|run| run.command == "deploy");
        !is_known || chart.is_some_and(|chart| chart.started_at.is_some())
    }

    /// Whether there may be child clusters of which nobody can say anything: nobody has asked, and nobody will. A teardown
    /// that has seen everything gone remembers that it could not know.
    fn cannot_know_children(&self, topology: &Topology, recipe: &[Line]) -> bool {
        let asks = recipe.iter().any(|line| matches!(line.task, Task::ChildClusters | Task::Survey));
        let is_unknown = match self.state.settled.get(CHILDREN) {
            None => self.may_have_children(topology),
            Some(known) => known.is_null(),
        };
        is_unknown && !asks
    }

    /// The steps, and what is not among them, with the reason. k0rdent does not let itself be uninstalled while it has
    /// child clusters (kcm source, validation of Management): who abandons them takes away what it runs on.
    fn recipe(
        &self,
        manner: Manner,
        abandon_children: bool,
        topology: &Topology,
        inventory: &Inventory,
    ) -> (Vec<Line>, Vec<String>) {
        let mut skipped = Vec::new();
        let manner = match (manner, self.config.provider.deletes_at_once()) {
            (Manner::Orderly, true) if abandon_children => Manner::Fast,
            (Manner::Orderly, false) if abandon_children => Manner::Force,
            (manner, _) => manner,
        };
        let reached = reached(&self.state, topology, inventory);
        let has_machines = !self.config.provider.makes_machines() || !inventory.vms.is_empty();
        let mut may_have_children = has_machines && self.may_have_children(topology);
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

/// What a teardown that ended well has not done, what others keep of ours, and what runs on of child clusters, as its
/// steps have said.
fn with_what_it_said(state: &State, finished: Finished) -> Result<Finished, SessionError> {
    let outputs = || state.order.iter().filter_map(|id| state.output(id));
    let skipped = outputs().filter_map(|output| output["skipped"].as_array()).flatten();
    let skipped = skipped.filter_map(|reason| reason.as_str().map(str::to_owned));
    let left = |what: &str| -> Result<Vec<Leftover>, SessionError> {
        let left = outputs().filter_map(|output| output.get(what).cloned()).next_back();
        Ok(left.map(serde_json::from_value).transpose().map_err(std::io::Error::from)?.unwrap_or_default())
    };
    let (kept, children) = (left("leftovers")?, left("children")?);
    let skipped = finished.skipped.iter().cloned().chain(skipped).collect();
    Ok(Finished { skipped, kept, children, ..finished })
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

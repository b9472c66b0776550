//! One run of a session: from the lease to the views that it leaves behind.

use std::{collections::BTreeMap, sync::Arc};

use engine::{
    ArtifactState, Decision, Event, Failure, FailureKind, Holder, Journal, Message, Origin, Outcome, Plan, State, Step,
    StepId, StepStatus, Stop, journal::Lease,
};
use rand_core::RngCore as _;
use serde_json::json;
use tokio::sync::watch;

use super::{
    CONFIG_FILE, Finished, KEY_FILE, LOOK_PATIENCE, Overtaken, Remains, Session, SessionError, Watching,
    exporting::Exporting,
    hosts_of, kept_positions, lock,
    recorded::{self, HOSTS, POSITIONS, WORLD, legible},
    teardown::deletion_operation,
};
use crate::{
    archive,
    azure::{Call, Inventory, Kind},
    config::Config,
    control_plane,
    deployment::Deployment,
    environment::{Access, Loose, sha256},
    leftovers::{self, Leftover},
    observe::{HostSeen, Observed, observe},
    plan::{self, Question},
    recipe::{self, Part},
    steps::{Bound, hosts},
    tags,
    task::{Phase, Task},
    topology::{ClusterId, Topology},
    views::{self, Status},
};

/// How many files of one step are named each time that it need not run: of five hundred, not all are.
const FILES_NAMED: usize = 40;

/// One run of a session: it holds the journal.
pub(super) struct Run<'session> {
    session: &'session Session,
    journal: Journal,
    pub(super) state: State,
    pub(super) deployment: Arc<Deployment>,
    watching: Watching<'session>,
}

impl<'session> Run<'session> {
    /// Takes the lease, settles who the cluster is, and looks at what exists in Azure.
    pub(super) async fn begin(
        session: &'session Session,
        command: &str,
        wanted: Option<(&str, &Config)>,
        watching: Watching<'session>,
    ) -> Result<Self, SessionError> {
        let settings = &session.settings;
        let clock = &settings.world.clock;
        let holder = Holder { command: command.to_owned(), ..settings.holder.clone() };
        session.environment.settle_in()?;
        let journal = Journal::open_to_write(&settings.home, &holder, settings.durability)?;
        let records = journal.after(0)?;
        let before = legible(State::of(&records))?;
        session.refuse_other_world(&before)?;
        let mut state = before.clone();
        if let Some(refusal) = recipe::unfinished_teardown(&state, command) {
            return Err(SessionError::Failed(vec![refusal]));
        }
        let mut append = |event: Event| -> Result<(), SessionError> {
            let record = journal.append(clock.utc(), event)?;
            state.apply(&record);
            (watching.listener)(&Message::Recorded(Box::new(record)));
            Ok(())
        };
        append(Event::RunStarted { command: command.to_owned(), holder })?;
        if let Some(what) = journal.recovered() {
            append(Event::Recovered { what: what.to_owned() })?;
        }
        for Loose { path, mode, wanted } in session.environment.make_private()? {
            append(Event::Recovered {
                what: format!("others could read {path} (mode {mode:04o}); it is {wanted:04o} again"),
            })?;
        }
        let known = records.iter().rev().find_map(|record| match &record.event {
            Event::Settled { key, value } if key == "cluster_id" => ClusterId::parse(value.as_str()?).ok(),
            _ => None,
        });
        let (cluster, keys) = match known {
            Some(cluster) => {
                // The keys follow the name in the journal: a run that was killed in between has made nothing else yet.
                let fresh = !records.iter().any(|record| matches!(record.event, Event::Planned { .. }));
                let missing = session.environment.read(KEY_FILE)?.is_none();
                let keys = if fresh && missing { session.new_keys(&cluster)? } else { session.read_keys(&cluster)? };
                (cluster, keys)
            }
            None if wanted.is_none() => return Err(SessionError::NoCluster(settings.home.clone())),
            None => {
                let cluster = ClusterId::from_random(|| lock(&settings.world.random).next_u32());
                append(Event::Settled { key: "cluster_id".to_owned(), value: json!(cluster.as_str()) })?;
                let keys = session.new_keys(&cluster)?;
                (cluster, keys)
            }
        };
        let config = match wanted {
            Some((_, config)) => config.clone(),
            None => {
                let mut config =
                    session.used_config()?.ok_or_else(|| SessionError::NoCluster(settings.home.clone()))?;
                // The cluster is where it was made, whatever was said there about the subscription.
                if let Some(id) = before.settled.get("subscription_id").and_then(|id| id.as_str()) {
                    config.azure.subscription_id = Some(id.to_owned());
                }
                config
            }
        };
        if let Some((text, _)) = wanted
            && session.environment.read(CONFIG_FILE)?.is_none()
        {
            session.environment.write(CONFIG_FILE, text, Access::Secret)?;
        }
        if recorded::world(&before).is_none() {
            append(Event::Settled { key: WORLD.to_owned(), value: json!(settings.world_name) })?;
        }
        let looked = tokio::select! {
            biased;
            () = asked_to_stop(watching.stop.clone()) => Err(SessionError::Interrupted),
            parts = session.parts_for(config, &cluster, keys, &before, wanted.is_some()) => parts,
        };
        // A reset needs no more than the tags, and may be all that is left to do.
        let looked =
            looked.and_then(|parts| match Overtaken::of(&parts.inventory, &cluster, &before, &settings.home) {
                Some(overtaken) if command != "reset" => Err(SessionError::Overtaken(overtaken)),
                _ => Ok(parts),
            });
        let parts = match looked {
            Ok(parts) => parts,
            Err(error) => {
                let interrupted = matches!(error, SessionError::Interrupted);
                append(Event::RunEnded { outcome: if interrupted { Outcome::Interrupted } else { Outcome::Failed } })?;
                return Err(error);
            }
        };
        if let Some((text, _)) = wanted {
            // The old configuration has judged the new one, so it is replaced only now.
            session.environment.write(CONFIG_FILE, text, Access::Secret)?;
            append(Event::Settled { key: "config_sha256".to_owned(), value: json!(sha256(text)) })?;
            // Before any of them is given, so that none is forgotten.
            let mut given = tags::given(&before);
            given.extend(parts.config.azure.given_tags());
            append(Event::Settled { key: tags::SETTLED.to_owned(), value: json!(given) })?;
            append(Event::Settled { key: POSITIONS.to_owned(), value: json!(kept_positions(&parts, &before)?) })?;
            if parts.azure.is_none() {
                append(Event::Settled { key: HOSTS.to_owned(), value: json!(hosts_of(&parts.topology)) })?;
            }
        }
        if let Some((_, subscription)) = &parts.azure {
            append(Event::Settled { key: "subscription_id".to_owned(), value: json!(subscription) })?;
        }
        let mut deployment = Deployment::new(parts, journal.epoch());
        let written = before.artifacts.iter().map(|(file, artifact)| (file.clone(), artifact.sha256.clone()));
        deployment.environment.recorded = written.collect();
        deployment.given_tags = tags::given(&before);
        deployment.learn_children(Some(recorded::children(&before)?));
        deployment.deletion = deletion_operation(&before, &deployment.topology);
        for node in 0..deployment.topology.nodes.len() {
            if control_plane::is_kept(&before, &deployment.topology, &deployment.inventory, node) {
                deployment.machine(node).keep();
            }
        }
        let deployment = Arc::new(deployment);
        Ok(Self { session, journal, state, deployment, watching })
    }

    pub(super) fn question<'a>(&'a self, observed: &'a Observed) -> Question<'a> {
        let (until, force) = (self.session.settings.until, self.session.settings.force_regenerate.as_deref());
        let repair = &self.session.settings.repair;
        let Deployment { config, topology, ssh_from, .. } = &*self.deployment;
        Question { config, topology, recorded: &self.state, observed, ssh_from, until, force, repair }
    }

    pub(super) async fn observe(&self) -> Observed {
        observe(&self.deployment, &self.state, &self.session.environment).await
    }

    /// Whether there is anything to uninstall, as far as the records know: it was begun, and its removal is not finished.
    pub(super) fn is_there(&self, part: Part) -> bool {
        let topology = &self.deployment.topology;
        let begun = |task: Task| self.begun(task);
        let before = self.state.runs.iter().rev().nth(1);
        let removal_is_open =
            before.is_some_and(|run| run.command == part.command() && run.outcome != Some(Outcome::Succeeded));
        let was_begun = match part {
            Part::K0rdent => begun(Task::Chart),
            Part::K0s => (0..topology.nodes.len()).any(|node| begun(Task::Binary(node))),
        };
        was_begun || removal_is_open
    }

    fn begun(&self, task: Task) -> bool {
        let step = self.state.steps.get(&task.id(&self.deployment.topology));
        step.is_some_and(|step| step.started_at.is_some())
    }

    /// The machines that may have k0s and were not seen to answer.
    pub(super) fn silent(&self, observed: &Observed) -> Vec<String> {
        let nodes = self.deployment.topology.nodes.iter().enumerate();
        let answers = |name: &str| matches!(observed.hosts.get(name), Some(HostSeen::Reachable { .. }));
        let silent = nodes.filter(|(node, planned)| self.begun(Task::Binary(*node)) && !answers(&planned.name));
        silent.map(|(_, planned)| planned.name.clone()).collect()
    }

    /// Ends the run before its first step.
    pub(super) fn refuse(self, refusal: Failure) -> Result<Finished, SessionError> {
        self.end(SessionError::Failed(vec![refusal]))
    }

    /// The same, for another reason.
    pub(super) fn end(self, why: SessionError) -> Result<Finished, SessionError> {
        let now = self.session.settings.world.clock.utc();
        let record = self.journal.append(now, Event::RunEnded { outcome: Outcome::Failed })?;
        (self.watching.listener)(&Message::Recorded(Box::new(record)));
        // Why is what counts.
        let _written_next_time = self.export();
        Err(why)
    }

    /// Ends the run and keeps the right to write in the environment's directory.
    pub(super) fn close(self) -> Option<Lease> {
        self.journal.close()
    }

    pub(super) async fn execute(&self, plan: &Plan, recipe: &[recipe::Line]) -> Result<Finished, SessionError> {
        let topology = &self.deployment.topology;
        let steps: BTreeMap<StepId, Box<dyn Step>> = recipe
            .iter()
            .map(|line| {
                let bound = Bound { task: line.task, deployment: Arc::clone(&self.deployment) };
                (line.task.id(topology), Box::new(bound) as Box<dyn Step>)
            })
            .collect();
        self.say_what_is_used(plan, recipe)?;
        let requests = || (archive::REQUESTS.to_owned(), self.requests());
        let exporting = Exporting::new(self, plan);
        let listener = |message: &Message| {
            (self.watching.listener)(message);
            exporting.hear(message);
        };
        let options = engine::Options {
            clock: self.session.settings.world.clock.clone(),
            stop: self.watching.stop.clone(),
            listener: &listener,
            faults: self.watching.faults.clone(),
            at_end: Some(&requests),
        };
        let report = engine::run(plan, &steps, &self.journal, &options).await?;
        drop(steps);
        let status = self.export()?;
        match report.outcome {
            Outcome::Succeeded => {
                let (archive, skipped, kept, children, expired) = Default::default();
                Ok(Finished { steps_run: plan.to_run(), status, archive, skipped, kept, children, expired })
            }
            Outcome::Interrupted => Err(SessionError::Interrupted),
            Outcome::Failed => {
                let left = self.left_behind(&report).await;
                let evidence = Task::Evidence.id(topology);
                // What the look at the end has found is what is left, and that is named anyway.
                let is_reason = |(step, _): &(engine::PlannedStep, Failure)| left.is_none() || step.id != evidence;
                let failures = report.failures.into_iter().filter(is_reason);
                let failures: Vec<Failure> = failures.map(|(step, failure)| named(&step, failure)).collect();
                match left {
                    Some(left) => {
                        let reasons = failures.into_iter().map(|failure| failure.message).collect();
                        Err(SessionError::Leftovers(Box::new(Remains { left, reasons })))
                    }
                    None => Err(SessionError::Failed(failures)),
                }
            }
        }
    }

    /// Names the files of the steps that need not run.
    fn say_what_is_used(&self, plan: &Plan, recipe: &[recipe::Line]) -> Result<(), SessionError> {
        let topology = &self.deployment.topology;
        let skipped = |task: Task| {
            let id = task.id(topology);
            plan.steps.iter().any(|step| step.id == id && step.decision == Decision::Skip)
        };
        for line in recipe.iter().filter(|line| skipped(line.task)) {
            let of_it = |(file, _): &(&String, &ArtifactState)| plan::is_made_by(topology, line.task, file);
            for (file, artifact) in self.state.artifacts.iter().filter(of_it).take(FILES_NAMED) {
                let event =
                    Event::Artifact { path: file.clone(), sha256: artifact.sha256.clone(), origin: Origin::Existing };
                let record = self.journal.append(self.session.settings.world.clock.utc(), event)?;
                (self.watching.listener)(&Message::Recorded(Box::new(record)));
            }
        }
        Ok(())
    }

    /// Settles something before the plan runs.
    pub(super) fn settle(&self, key: &str, value: serde_json::Value) -> Result<(), SessionError> {
        let event = Event::Settled { key: key.to_owned(), value };
        let record = self.journal.append(self.session.settings.world.clock.utc(), event)?;
        (self.watching.listener)(&Message::Recorded(Box::new(record)));
        Ok(())
    }

    /// What a teardown has left that failed while it deleted; nothing if it failed before.
    async fn left_behind(&self, report: &engine::Report) -> Option<Vec<Leftover>> {
        let topology = &self.deployment.topology;
        let mut deleting = vec![Task::DeleteResourceGroup, Task::TryResourceGroup, Task::DeleteRest, Task::Evidence];
        deleting.extend((0..topology.nodes.len()).map(Task::Release));
        let deleting: Vec<StepId> = deleting.iter().map(|task| task.id(topology)).collect();
        let failed = |(step, failure): &(engine::PlannedStep, Failure)| {
            deleting.contains(&step.id) && matches!(failure.kind, FailureKind::Failed | FailureKind::Deadline)
        };
        if !report.failures.iter().any(failed) {
            return None;
        }
        let left = match self.deployment.azure() {
            Ok(azure) => {
                let call = Call::within(LOOK_PATIENCE);
                let (arm, subscription) = (&azure.arm, &azure.ids.subscription);
                let left = leftovers::look(arm, subscription, &topology.cluster_id, call).await.ok();
                let children = match self.deployment.known_children() {
                    Some(names) if !names.is_empty() => {
                        leftovers::children(arm, subscription, Some(&names), call).await.unwrap_or_default()
                    }
                    _ => Vec::new(),
                };
                left.map(|left| left.into_iter().chain(children).collect::<Vec<_>>())
            }
            Err(_) => Some(hosts::left(&self.deployment).await),
        };
        left.filter(|left| !left.is_empty())
    }

    /// How many requests to Azure this run and those before it have sent.
    fn requests(&self) -> serde_json::Value {
        let sent = self.deployment.azure().map(|azure| azure.arm.usage().counts()).ok();
        let sent = serde_json::to_value(sent).unwrap_or_default();
        let before = self.state.settled.get(archive::REQUESTS).cloned().unwrap_or_default();
        let sum = |(key, sent): (String, serde_json::Value)| {
            let total = sent.as_u64().unwrap_or_default() + before[&key].as_u64().unwrap_or_default();
            (key, json!(total))
        };
        let fields = sent.as_object().cloned().unwrap_or_default();
        serde_json::Value::Object(fields.into_iter().map(sum).collect())
    }

    /// Writes the views that people and their tools read.
    fn export(&self) -> Result<Status, SessionError> {
        let records = self.journal.after(0)?;
        let status = self.export_state(&State::of(&records), false)?;
        let events = views::events_yaml(&records);
        self.session.environment.write("deployment-events.yaml", &events, Access::Secret)?;
        Ok(status)
    }

    /// Writes the one that says where the environment stands. `active`: the run goes on.
    pub(super) fn export_state(&self, state: &State, active: bool) -> Result<Status, SessionError> {
        let Deployment { config, topology, .. } = &*self.deployment;
        let status = views::status(state, config.provider, Some(topology), active);
        self.session.environment.write("deployment-state.yaml", &views::state_yaml(state, &status), Access::Secret)?;
        Ok(status)
    }
}

/// How far the cluster ever got, as far as it matters for taking it down.
pub(super) fn reached(state: &State, topology: &Topology, inventory: &Inventory) -> Option<Phase> {
    let is_made = topology.provider.makes_machines();
    if is_made && inventory.group.is_none() {
        return None;
    }
    let leader = topology.nodes.iter().position(|node| node.leader).unwrap_or(0);
    let step = |task: Task| state.steps.get(&task.id(topology));
    let done = |task: Task| step(task).is_some_and(|step| step.completed_with.is_some());
    let begun = |task: Task| step(task).is_some_and(|step| step.started_at.is_some());
    let machines = !is_made || inventory.of(Kind::VirtualMachine).len() == topology.nodes.len();
    // A teardown that was interrupted does not go back: where k0rdent was cleared up, k0s may be gone as well.
    let cleared = step(Task::DeleteNamespace)
        .filter(|step| step.status == StepStatus::Completed)
        .is_some_and(|cleared| cleared.ended_at >= step(Task::Chart).and_then(|chart| chart.started_at));
    match () {
        () if !machines || !begun(Task::Binary(leader)) => None,
        () if done(Task::Leader(leader)) && begun(Task::Chart) && !cleared => Some(Phase::K0rdent),
        () => Some(Phase::K0s),
    }
}

/// Waits until somebody asks the run to stop. While it only looks there is nothing to settle.
async fn asked_to_stop(mut stop: watch::Receiver<Stop>) {
    if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending().await
    }
}

/// The failure with the step that it belongs to, unless it names it already.
fn named(step: &engine::PlannedStep, failure: Failure) -> Failure {
    if failure.message.contains(&step.title) || failure.kind == FailureKind::Deadline {
        return failure;
    }
    Failure { message: format!("{}: {}", step.title, failure.message), ..failure }
}

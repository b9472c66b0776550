//! Plays a scenario on a world of its own, and judges the program after each command.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deploy::{
    azure::{Credentials, Endpoints},
    config::{self, Config},
    recipe::Manner,
    seam::Severable,
    secret::Secret,
    session::{Finished, Session, SessionError, Teardown, Watching, recorded, status_of},
    task::Phase,
    topology::{ClusterId, Names},
    views,
};
use engine::{Decision, Event, Journal, Message, Record, Stop};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use rehearsal::Stage;
use time::OffsetDateTime;
use tokio::sync::watch;
use twin::FaultKind;

use super::{
    children::{Children, Fates, is_about_children, without_children},
    ending::{Death, Direction, Ended, Running},
    foreign::Foreign,
    heard::Heard,
    invariants::{Books, Deeds, Violation, broken},
    network::{Roughness, Traffic, Weather, Weathered},
    plain,
    scenario::{Act, Command, Ending, Fate, Loss, Scenario},
    secrets::Secrets,
    trace::Trace,
};
use crate::{guests::Guests, ways};

/// No command takes longer than this: all deadlines of the longest chain together.
const LONGEST_COMMAND: Duration = Duration::from_secs(24 * 3600);
/// How long the resource group may take to vanish before a new deployment can begin.
const DELETION: Duration = Duration::from_secs(1800);
/// How long the world needs until what others did to it has happened; Azure takes a Spot machine within 30 minutes.
const MISCHIEF: Duration = Duration::from_secs(2400);
/// What the program uses to log in.
const CLIENT_SECRET: &str = "client-secret-of-the-simulation";

/// What a simulation leaves to be compared and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Everything that happened.
    pub trace: Trace,
    /// What passed through the network.
    pub traffic: Traffic,
    /// How many commands were run.
    pub commands: u64,
    /// How many of them died.
    pub crashes: u64,
    /// How many of them were asked to stop.
    pub interrupts: u64,
    /// World seconds that passed.
    pub seconds: u64,
    /// The faults of the world that have made a difference.
    pub struck: BTreeSet<FaultKind>,
    /// What became of child clusters.
    pub children: Fates,
}

/// One simulation.
pub(super) struct Play<'a> {
    scenario: &'a Scenario,
    home: PathBuf,
    is_plain: bool,
    stage: Stage,
    weather: Arc<Weather>,
    foreign: Foreign,
    heard: Arc<Mutex<Heard>>,
    secrets: Secrets,
    books: Books,
    trace: Trace,
    /// The cluster's resource group, once its name is drawn.
    group: String,
    /// How many events there were when the present run began.
    run_from: usize,
    /// The machines that were in use then, and that the run wants.
    in_use: BTreeSet<String>,
    /// The number of workers of the last successful deployment, if nothing happened since.
    settled_workers: Option<u16>,
    /// A teardown was begun and did not end.
    half_reset: bool,
    /// Records were lost and the cluster is not gone yet.
    is_lost: bool,
    children: Children,
    guests: Guests,
    played: Played,
}

impl<'a> Play<'a> {
    /// A new world for the scenario, with other people's things in it.
    pub(super) async fn new(scenario: &'a Scenario, home: PathBuf, is_plain: bool) -> Result<Self, Violation> {
        let stage = Stage::new(scenario.seed);
        let foreign = Foreign::settle(&stage, &group_of(first_chance(scenario)), scenario.squatter).await?;
        let guests = Guests::beside(&home).map_err(|error| unreadable(&error.into()))?;
        let traffic = Traffic::default();
        let (trace, commands, crashes, interrupts, seconds, struck, children) = Default::default();
        Ok(Self {
            scenario,
            home,
            is_plain,
            weather: Arc::new(Weather::new(scenario.seed)),
            stage,
            foreign,
            heard: Arc::default(),
            secrets: Secrets::default(),
            books: Books::default(),
            trace: Trace::default(),
            group: String::new(),
            run_from: 0,
            in_use: BTreeSet::new(),
            settled_workers: None,
            half_reset: false,
            is_lost: false,
            children: Children::default(),
            guests,
            played: Played { trace, traffic, commands, crashes, interrupts, seconds, struck, children },
        })
    }

    /// Plays all of it.
    pub(super) async fn play(mut self) -> Result<Played, Violation> {
        if self.scenario.squatter {
            self.be_refused().await?;
        }
        for act in &self.scenario.acts {
            self.act(act).await?;
        }
        self.stage.twin.with(|world| {
            self.trace.ledger(&world.ledger.entries);
            self.played.seconds = world.now.as_secs();
            self.played.struck = world.faults.struck();
        });
        self.played.children = self.children.fates;
        self.played.trace = self.trace;
        self.played.traffic = self.weather.traffic();
        Ok(self.played)
    }

    /// Somebody else has the resource group's name: the program leaves it alone, and goes on when it is gone.
    async fn be_refused(&mut self) -> Result<(), Violation> {
        let Some(first) = self.scenario.acts.first() else { return Ok(()) };
        for command in [Command::Deploy, Command::Reset] {
            let act = Act {
                mischief: None,
                command,
                ending: Ending::Natural,
                faults: Vec::new(),
                roughness: Roughness::default(),
                manner: Manner::Orderly,
                children: 0,
                ..first.clone()
            };
            match self.run(&act).await? {
                Ended::Failed(SessionError::Failed(failures))
                    if failures.iter().any(|failure| failure.message.contains("is not ours")) => {}
                ended => {
                    return broken("a group of somebody else is refused", format!("{command:?}: {}", ended.describe()));
                }
            }
            self.judge_world(&act)?;
        }
        self.foreign.leave(&self.stage).await
    }

    /// One command and its aftermath.
    async fn act(&mut self, act: &Act) -> Result<(), Violation> {
        let had_cluster = !self.heard().records.is_empty();
        if let Some(mischief) = &act.mischief {
            // Not every machine is there in every run.
            let done = self.stage.twin.with(|world| mischief.perform(world));
            engine::pause(if done.is_ok() { MISCHIEF } else { Duration::ZERO }).await;
            self.settled_workers = None;
        }
        self.stage.twin.with(|world| world.faults.active.clone_from(&act.faults));
        if let Some(end) = act.faults_end_after {
            self.stage.twin.with(|world| world.after(end, |world| world.faults.active.clear()));
        }
        if let Some(loss) = act.loss.filter(|_| had_cluster) {
            self.lose(loss)?;
        }
        let children = self.children.things(&self.stage);
        let is_whole = act.is_calm() && had_cluster && !self.half_reset && !self.is_lost;
        if act.command == Command::Reset && is_whole {
            let session = self.session(&self.incarnation(act.chance), act.fate);
            let plan = session.teardown_plan(&self.teardown(act)?).await.map_err(|error| unreadable(&error))?;
            plan.map_or(Ok(()), |plan| self.children.judge_plan(act, &plan, &self.stage))?;
        }
        self.weather.set(act.roughness);
        let mut ended = self.run(act).await?;
        self.stage.twin.with(|world| world.faults.active.clear());
        self.weather.set(Roughness::default());
        self.judge_world(act)?;
        if act.is_calm() && act.command == Command::Deploy && self.half_reset && ended.waits_for_deletion() {
            // It named the reason; once the group is gone it must work.
            engine::pause(DELETION).await;
            ended = self.run(act).await?;
            self.judge_world(act)?;
        }
        if act.command == Command::Reset {
            self.children.judge(act, &ended, &children, is_whole, &self.stage)?;
            if act.is_calm() && self.children.are_there() && is_about_children(&ended) {
                if is_whole {
                    return Ok(());
                }
                let act = without_children(act);
                ended = self.run(&act).await?;
                self.judge_world(&act)?;
                self.children.judge(&act, &ended, &children, false, &self.stage)?;
            }
        }
        let is_reset = act.command == Command::Reset && matches!(ended, Ended::Finished(_));
        self.guests.judge().or_else(|why| broken("what is not ours is left alone", why))?;
        let moved = if is_reset { self.guests.leave() } else { self.guests.come_in() };
        moved.map_err(|error| unreadable(&error.into()))?;
        self.judge_end(act, &ended, had_cluster)?;
        let session = self.session(&self.incarnation(act.chance), act.fate);
        if act.command == Command::Deploy && matches!(ended, Ended::Finished(_)) {
            ways::lead_in(&session).await.or_else(|why| broken("after a deployment the ways in lead there", why))?;
        }
        if is_reset {
            self.is_lost = false;
            self.children.bury(&session, &self.stage).await?;
        }
        if act.children > 0 {
            self.children.make(&session, &self.stage, act.children).await?;
        }
        engine::pause(act.rest).await;
        Ok(())
    }

    /// Somebody loses records.
    fn lose(&mut self, loss: Loss) -> Result<(), Violation> {
        let files: &[&str] = match loss {
            Loss::Journal => &["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"],
            Loss::Keys => &["keys.json"],
            Loss::Everything => &[],
        };
        let failed = |error: std::io::Error| unreadable(&error.into());
        for file in files.iter().filter(|file| self.home.join(file).exists()) {
            fs_err::remove_file(self.home.join(file)).map_err(failed)?;
        }
        if loss == Loss::Everything {
            fs_err::remove_dir_all(&self.home).map_err(failed)?;
            self.guests.are_lost();
        }
        if loss != Loss::Keys {
            *self.heard() = Heard::default();
        }
        self.secrets.look_again();
        self.is_lost = true;
        Ok(())
    }

    /// What a reset is told: who has lost the records names the cluster.
    fn teardown(&self, act: &Act) -> Result<Teardown, Violation> {
        let id = self.group.strip_suffix("-resgrp").unwrap_or_default();
        let cluster = ClusterId::parse(id).ok().filter(|_| self.is_lost);
        match self.is_lost && cluster.is_none() {
            true => broken("a cluster has a name", self.group.clone()),
            false => Ok(Teardown { manner: act.manner, cluster, ..Teardown::default() }),
        }
    }

    /// What the end of a command says, and what it must be if nothing went wrong.
    fn judge_end(&mut self, act: &Act, ended: &Ended, had_cluster: bool) -> Result<(), Violation> {
        if act.command == Command::Plan {
            return if act.is_calm() { ended.expect_success("plan works") } else { Ok(()) };
        }
        let before = self.settled_workers.take();
        match (act.command, ended) {
            (Command::Deploy, Ended::Finished(Some(finished))) => {
                self.judge_deployed(act, finished, before)?;
                self.settled_workers = (!act.troubles_management()).then_some(act.workers);
                self.half_reset = false;
            }
            (Command::Reset, Ended::Finished(_)) => {
                self.judge_nothing_left()?;
                self.half_reset = false;
            }
            (Command::Reset, Ended::Failed(SessionError::NoCluster(_))) if !had_cluster => {}
            (Command::Reset, _) => self.half_reset = true,
            _ => {}
        }
        match ended {
            Ended::Failed(SessionError::NoCluster(_)) if act.command == Command::Reset && !had_cluster => Ok(()),
            Ended::Failed(SessionError::Journal(_) | SessionError::File(_) | SessionError::BadFile { .. }) => {
                broken("the environment's own files are usable", ended.describe())
            }
            Ended::Failed(SessionError::Interrupted)
                if !matches!(act.ending, Ending::Interrupt(_) | Ending::InterruptTwice(..)) =>
            {
                broken("only who is asked to stop is interrupted", ended.describe())
            }
            _ if act.is_calm() => ended.expect_success("once faults stop, the next run converges"),
            _ => Ok(()),
        }
    }

    /// The steps that the last plan had to run, and why.
    fn planned_to_run(&self) -> Result<String, Violation> {
        let (_, records) = recorded(&self.home).map_err(|error| unreadable(&error))?.unwrap_or_default();
        let planned = records.iter().rev().find_map(|record| match &record.event {
            Event::Planned { steps } => Some(steps),
            _ => None,
        });
        let to_run = planned.into_iter().flatten().filter(|step| step.decision == Decision::Run);
        Ok(to_run.map(|step| format!("{}: {}", step.id, step.why)).collect::<Vec<_>>().join("; "))
    }

    fn judge_deployed(&self, act: &Act, finished: &Finished, before: Option<u16>) -> Result<(), Violation> {
        let status = &finished.status;
        let count = usize::from(self.scenario.controllers + act.workers);
        let joined = status.nodes.iter().filter(|node| node.state == "joined").count();
        if status.phase != "k0rdent_deployed" || joined != count {
            return broken(
                "a deployment that succeeds is complete",
                format!("{}, {joined} of {count} joined", status.phase),
            );
        }
        let machines = self.stage.twin.with(|world| {
            let resources = twin::azure::resources(world);
            let ours = |id: &str| id.to_lowercase().contains(&format!("/resourcegroups/{}/", self.group));
            let machine = |resource: &&serde_json::Value| {
                let text = |key: &str| resource[key].as_str().unwrap_or_default();
                text("type") == "Microsoft.Compute/virtualMachines" && ours(text("id"))
            };
            resources.iter().filter(machine).count()
        });
        if machines != count {
            return broken("there are as many machines as asked for", format!("{machines} instead of {count}"));
        }
        if act.is_calm() && before == Some(act.workers) && finished.steps_run > 0 {
            return broken("a second deployment has nothing to do", self.planned_to_run()?);
        }
        let claimed = status.nodes.iter().map(|node| node.name.clone()).collect();
        let memberships = self.stage.twin.with(|world| twin::machine::memberships(world));
        if let Err(why) = crate::matrix::invariants::members(&claimed, &memberships) {
            return broken("who is said to have joined has joined", why);
        }
        let fresh = status_of(&self.home).map_err(|error| unreadable(&error))?;
        let (reported, fresh) = (serde_json::to_string(status), serde_json::to_string(&fresh));
        match (reported, fresh) {
            (Ok(reported), Ok(fresh)) if reported == fresh => Ok(()),
            (reported, fresh) => {
                broken("the journal says what the run reported", format!("{reported:?} and {fresh:?}"))
            }
        }
    }

    /// After a reset: nothing of ours anywhere but the archive, and a new life begins.
    fn judge_nothing_left(&mut self) -> Result<(), Violation> {
        let left = self.stage.twin.with(|world| twin::azure::resources(world));
        let of_children = self.children.things(&self.stage);
        let is_childs = |id: &str| of_children.contains(&id.to_lowercase());
        let left: Vec<_> = left
            .iter()
            .filter(|resource| !self.foreign.owns(resource))
            .filter_map(|left| left["id"].as_str().filter(|id| !is_childs(id)))
            .collect();
        if !left.is_empty() {
            return broken("a reset leaves nothing", format!("{left:?}"));
        }
        let entries = fs_err::read_dir(&self.home).map_err(|error| unreadable(&error.into()))?;
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        if names != [".gitignore", "README", "old_deployments"] {
            return broken("a reset leaves a clean directory", names.join(", "));
        }
        let heard = std::mem::take(&mut *self.heard());
        self.secrets.judge("what was said", &heard.text)?;
        self.judge_archive(&heard.records)?;
        self.secrets = Secrets::default();
        Ok(())
    }

    /// The archive has the events as they were told, and no secret.
    fn judge_archive(&self, records: &[Record]) -> Result<(), Violation> {
        let failed = |error: std::io::Error| unreadable(&error.into());
        let mut archives: Vec<_> = fs_err::read_dir(self.home.join("old_deployments"))
            .map_err(failed)?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        archives.sort();
        // Only the newest: the others were looked at before.
        let wanted = views::events_yaml(records);
        let mut is_there = false;
        for archive in &archives {
            let read = |file: &str| fs_err::read_to_string(archive.join(file)).map_err(failed);
            is_there |= read("deployment-events.yaml")? == wanted;
            self.secrets.judge("the archived events", &read("deployment-events.yaml")?)?;
            self.secrets.judge("the archived state", &read("deployment-state.yaml")?)?;
            self.secrets.judge("the archived report", &read("report.json")?)?;
        }
        if is_there { Ok(()) } else { broken("the archive has every event", format!("{} archives", archives.len())) }
    }

    /// What must hold after each command, however it ended.
    fn judge_world(&mut self, act: &Act) -> Result<(), Violation> {
        self.secrets.add(CLIENT_SECRET);
        self.secrets.learn(&self.home);
        let heard = Arc::clone(&self.heard);
        let heard = lock(&heard);
        if Journal::file(&self.home).exists() {
            let (state, records) = recorded(&self.home)
                .map_err(|error| unreadable(&error))?
                .ok_or_else(|| Violation { rule: "a journal that exists can be read", detail: String::new() })?;
            if records != heard.records {
                let detail = format!("{} events in the journal, {} were told", records.len(), heard.records.len());
                return broken("no event is lost", detail);
            }
            if state != heard.state {
                return broken("the journal says what the run reported", format!("{:?}", act.command));
            }
        }
        if let Some(gap) = (1u64..).zip(&heard.records).find(|(sequence, record)| record.sequence != *sequence) {
            return broken("no event is lost", format!("number {} is missing", gap.0));
        }
        let epoch = self.stage.twin.with(|world| world.options.epoch);
        let deeds = Deeds { epoch, records: &heard.records[self.run_from..], group: &self.group, in_use: &self.in_use };
        self.stage.twin.with(|world| self.books.judge(&world.ledger.entries, &deeds))?;
        let one_etcd = self.stage.twin.with(|world| crate::matrix::invariants::one_etcd(&world.ledger.entries));
        one_etcd.or_else(|why| broken("there is one etcd cluster", why))?;
        self.foreign.judge(&self.stage)
    }

    /// Runs one command to its end, whatever that is.
    async fn run(&mut self, act: &Act) -> Result<Ended, Violation> {
        self.played.commands += 1;
        let stage = self.incarnation(act.chance);
        let run_from = self.heard().records.len();
        self.run_from = run_from;
        self.in_use =
            if act.command == Command::Deploy { self.heard().in_use(&self.nodes(act)) } else { BTreeSet::new() };
        if !self.heard().has_name() && act.command == Command::Deploy {
            self.group = group_of(act.chance);
        }
        self.stage.twin.with(|world| self.books.begin(&world.ledger.entries))?;
        let (text, config) = self.configuration(act)?;
        let session = self.session(&stage, act.fate);
        let heard = Arc::clone(&self.heard);
        let listener = move |message: &Message| lock(&heard).hear(message);
        let (stop, receiver) = watch::channel(Stop::No);
        let death = Death::new(act.ending);
        let watching = Watching { stop: receiver, listener: &listener, faults: death.injector() };
        let teardown = self.teardown(act)?;
        let running: Running<'_> = match act.command {
            Command::Deploy => Box::pin(async { session.deploy(&text, &config, watching).await.map(Some) }),
            Command::Reset => Box::pin(async { session.reset(&teardown, watching).await.map(Some) }),
            Command::Plan => Box::pin(async { session.plan(&config).await.map(|_| None) }),
        };
        let rival = || self.session(&self.incarnation(act.chance ^ 1), Fate::Unsaid);
        let direction = Direction {
            stage: &stage,
            stop: &stop,
            death: &death,
            config: (&text, &config),
            rival: &rival,
            home: &self.home,
        };
        let ended = tokio::time::timeout(LONGEST_COMMAND, direction.lead(act, running)).await;
        let ended = ended.unwrap_or_else(|_| broken("every command ends", format!("{:?}", act.command)))?;
        let now = self.stage.twin.with(|world| world.utc());
        // Whatever of the program is still alive in the background dies here.
        stage.network.sever();
        engine::pause(Duration::from_millis(1)).await;
        match &ended {
            Ended::Died => self.played.crashes += 1,
            Ended::Failed(error) => self.heard().text += &format!("{error}\n{error:?}\n"),
            Ended::Finished(_) => {}
        }
        self.played.interrupts += u64::from(matches!(act.ending, Ending::Interrupt(_) | Ending::InterruptTwice(..)));
        self.judge_run(now)?;
        Ok(ended)
    }

    /// The journal of the run that has just ended.
    fn judge_run(&mut self, now: OffsetDateTime) -> Result<(), Violation> {
        let heard = Arc::clone(&self.heard);
        let heard = lock(&heard);
        let records = &heard.records[self.run_from..];
        self.trace.records(records);
        // What is known of a cluster whose records are lost is written down before the run begins.
        let adopted = if self.is_lost { records.iter().take_while(|record| is_settled(record)).count() } else { 0 };
        let records = &records[adopted..];
        let epoch = self.stage.twin.with(|world| world.options.epoch);
        Deeds { epoch, records, group: &self.group, in_use: &self.in_use }.judge_journal(now)
    }

    /// The program, started anew on the same world.
    fn incarnation(&self, chance: u64) -> Stage {
        let mut stage = self.stage.again(chance);
        let network = Weathered::new(self.stage.twin.clone(), Arc::clone(&self.weather));
        stage.network = Arc::new(Severable::new(Arc::new(network)));
        stage.world = stage.world.with_network(stage.network.clone());
        stage
    }

    fn session(&self, stage: &Stage, fate: Fate) -> Session {
        let mut settings = stage.settings(&self.home, Phase::K0rdent);
        settings.with_children = fate == Fate::Deleted;
        settings.abandon_children = fate == Fate::Abandoned;
        settings.credentials = Credentials::ServicePrincipal {
            tenant: twin::azure::TENANT.to_owned(),
            client_id: "simulation".to_owned(),
            secret: Secret::new(CLIENT_SECRET),
        };
        settings.endpoints = if self.is_plain { plain::endpoints() } else { Endpoints::default() };
        Session::new(settings)
    }

    fn configuration(&self, act: &Act) -> Result<(String, Config), Violation> {
        let Scenario { controllers, controller_zones, worker_zones, spot, .. } = self.scenario;
        // Not every size is for sale as Spot.
        let (priority, size) = if *spot { ("Spot", "Standard_D2s_v5") } else { ("Regular", "Standard_B2s") };
        let text = format!(
            "azure: {{vm_priority: {priority}}}\nvm_sizing: {{controller: {{size: {size}}}, worker: {{size: {size}}}}}\ncluster:\n  controllers: {{count: {controllers}, zones: {controller_zones:?}}}\n  workers: {{count: {}, zones: {worker_zones:?}}}\n",
            act.workers
        );
        match config::load(&text) {
            Ok(loaded) => Ok((text, loaded.config)),
            Err(problems) => broken("the drawn configuration is good", format!("{problems:?}")),
        }
    }

    /// The machines that an act asks for.
    fn nodes(&self, act: &Act) -> Vec<String> {
        let controllers = (1..=self.scenario.controllers).map(|number| format!("k0s-controller-{number}"));
        controllers.chain((1..=act.workers).map(|number| format!("k0s-worker-{number}"))).collect()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

fn is_settled(record: &Record) -> bool {
    matches!(record.event, Event::Settled { .. })
}

/// The resource group of the cluster that a run with this chance would begin: its name is the first that it draws.
fn group_of(chance: u64) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(chance);
    Names::of(&ClusterId::from_random(|| random.next_u32())).resource_group
}

fn first_chance(scenario: &Scenario) -> u64 {
    scenario.acts.first().map_or(0, |act| act.chance)
}

pub(super) fn unreadable(error: &SessionError) -> Violation {
    Violation { rule: "the environment's own files are usable", detail: error.to_string() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

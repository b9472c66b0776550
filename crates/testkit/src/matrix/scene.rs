//! One environment on one world, and the program that is started in it again and again.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deploy::{
    azure::{ArmClient, Call, Endpoints, Ids, Kind, resources},
    config::{self, Config},
    http::HttpClient,
    recipe::Manner,
    seam::Network,
    session::{Finished, Session, SessionError, Teardown, Watching},
    task::Phase,
};
use engine::{
    Event, FailureKind, Holder, Intent, Journal, Message, Record, State, StepId, Stop,
    journal::Durability,
    pause,
    runner::{FaultInjector, FaultPoint, Injection},
};
use futures::FutureExt as _;
use rehearsal::{Stage, credentials};
use tokio::sync::watch;

use super::invariants;
use crate::{guests::Guests, ways};

/// Decides every latency of the world.
pub(super) const SEED: u64 = 7;
/// Longer than any run takes: one that is still going on hangs.
const TOO_LONG: Duration = Duration::from_secs(24 * 3600);

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipe {
    /// `deploy`.
    Deploy,
    /// `reset`.
    Reset,
}

/// A place in a run: the point of the step, and at which time of passing it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The point.
    pub point: FaultPoint,
    /// The step.
    pub step: StepId,
    /// Which time, from 0: a step may have several effects.
    pub occurrence: usize,
}

/// What happens to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blow {
    /// Nothing.
    None,
    /// The step fails here.
    Fail(Place),
    /// The program is killed here.
    Crash(Place),
    /// The step goes no further, until its deadline ends it.
    Hang(Place),
    /// The program is killed right after it has told its readers this, counted from 0.
    CrashAfterMessage(usize),
    /// The program is killed when it has recorded the run's end, before it has put anything away.
    CrashAfterTheEnd,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// It did what it should.
    Finished(Box<Finished>),
    /// It says why not.
    Failed(SessionError),
    /// It was killed.
    Crashed,
}

/// A record of the journal, and how long the world's ledger was when it was written.
#[derive(Debug, Clone)]
pub struct Told {
    /// Entries in the ledger.
    pub ledger: usize,
    /// The record.
    pub record: Record,
}

/// What runs have told and passed.
#[derive(Default)]
struct Heard {
    told: Vec<Told>,
    /// The places that the last run has passed.
    passed: Vec<Place>,
    /// What the last run has waited for.
    waits: BTreeSet<(StepId, String)>,
    messages: usize,
}

/// The program is killed: not a panic, so nobody reports one.
struct Killed;

/// One environment on one world.
pub struct Scene {
    stage: Stage,
    home: PathBuf,
    text: String,
    config: Config,
    heard: Arc<Mutex<Heard>>,
    incarnations: u64,
    strangers: Strangers,
    guests: Guests,
    /// How `reset` takes it down.
    pub manner: Manner,
    /// Whether `deploy` may found a new cluster where one is lost.
    pub start_anew: bool,
}

/// Things that are not ours, though their names are like ours.
#[derive(Default)]
struct Strangers {
    group: String,
    resources: Vec<serde_json::Value>,
    /// Where the ledger's entries begin that are about us.
    since: usize,
    /// Those after it that are of others all the same.
    requests: BTreeSet<u64>,
}

impl Scene {
    /// A new world, and a directory below this one in which nothing is yet.
    pub fn new(home: &Path, controllers: u16, workers: u16) -> Result<Self, String> {
        let text = format!(
            "cluster:\n  controllers: {{count: {controllers}, zones: [1, 2, 3]}}\n  workers: {{count: {workers}, zones: [1, 2, 3]}}\n"
        );
        let loaded = config::load(&text).map_err(|problems| format!("{problems:?}"))?;
        let home = home.join("environment");
        Ok(Self {
            stage: Stage::new(SEED),
            guests: Guests::beside(&home).map_err(|error| error.to_string())?,
            home,
            text,
            config: loaded.config,
            heard: Arc::default(),
            incarnations: 0,
            strangers: Strangers::default(),
            manner: Manner::Orderly,
            start_anew: false,
        })
    }

    /// The world.
    pub fn twin(&self) -> &twin::Twin {
        &self.stage.twin
    }

    /// Puts a network between the program, from its next start on, and the world.
    pub fn reroute(&mut self, reroute: impl FnOnce(Arc<dyn Network>) -> Arc<dyn Network>) {
        self.stage.world = self.stage.world.with_network(reroute(self.stage.world.network.clone()));
    }

    /// A way to Azure that is not the program's.
    fn other_client(&self) -> ArmClient {
        let world = self.stage.again(SEED + 1).world;
        let subscription = Some(twin::azure::SUBSCRIPTION.to_owned());
        ArmClient::new(&world, HttpClient::new(&world), Endpoints::default(), credentials(), subscription)
    }

    /// Somebody deletes the cluster's resource group behind our back.
    pub async fn delete_group(&mut self, cluster: &str) -> Result<(), String> {
        let ids = Ids::new(twin::azure::SUBSCRIPTION, format!("{cluster}-resgrp"));
        let before = self.ledger().len();
        let deleted = self.other_client().delete(&Intent::for_tests(), &ids.group(), Call::within(TOO_LONG)).await;
        deleted.map_err(|error| error.to_string())?;
        self.strangers.requests.extend(before as u64..self.ledger().len() as u64);
        Ok(())
    }

    /// Puts things into the world that are not ours, with names and tags that are almost those of `cluster`.
    pub async fn invite_strangers(&mut self, cluster: &str) -> Result<(), String> {
        let (arm, subscription) = (self.other_client(), twin::azure::SUBSCRIPTION);
        let group = format!("{cluster}-resgrp-of-somebody-else");
        let other = format!("{cluster}0");
        let (ids, location) = (Ids::new(subscription, &group), &self.config.azure.location);
        let tags = resources::resource_tags(&other, "somebody", 1, None);
        let things = [
            (ids.group(), resources::resource_group(location, &resources::group_tags(&other, "somebody", ""))),
            (
                ids.of(Kind::NetworkSecurityGroup, &format!("{cluster}-nsg")),
                resources::network_security_group(location, &tags, 61_000, &[]),
            ),
            (ids.of(Kind::PublicIp, "k0s-controller-1-pip"), resources::public_ip(location, &tags, true)),
        ];
        for (path, body) in things {
            arm.put(&Intent::for_tests(), &path, &body, Call::within(TOO_LONG))
                .await
                .map_err(|error| error.to_string())?;
        }
        pause(Duration::from_secs(60)).await;
        self.strangers = Strangers { group, ..Strangers::default() };
        self.strangers.resources = self.resources().0;
        self.strangers.since = self.ledger().len();
        Ok(())
    }

    /// What exists: the strangers, and ours.
    fn resources(&self) -> (Vec<serde_json::Value>, Vec<serde_json::Value>) {
        let group = self.strangers.group.to_lowercase();
        let strange = |resource: &serde_json::Value| {
            !group.is_empty() && resource["id"].as_str().unwrap_or_default().to_lowercase().contains(&group)
        };
        self.stage.twin.with(|world| twin::azure::resources(world)).into_iter().partition(strange)
    }

    /// What was asked of the world and what changed in it, from its beginning.
    pub fn ledger(&self) -> Vec<twin::Entry> {
        self.stage.twin.with(|world| world.ledger.entries.clone())
    }

    /// What all runs have recorded.
    pub fn told(&self) -> Vec<Told> {
        self.hear().told.clone()
    }

    /// The places that the last run has passed.
    pub fn passed(&self) -> Vec<Place> {
        self.hear().passed.clone()
    }

    /// How many messages of the last run count (see [`Blow::CrashAfterMessage`]).
    pub fn messages(&self) -> usize {
        self.hear().messages
    }

    fn hear(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    fn session(&self) -> Session {
        let mut settings = self.stage.settings(&self.home, Phase::K0rdent);
        settings.repair.start_anew = self.start_anew;
        Session::new(settings)
    }

    /// Starts the program; it takes what comes, and what it leaves behind is checked.
    pub async fn run(&mut self, recipe: Recipe, blow: &Blow) -> Result<End, String> {
        let told = std::mem::take(&mut *self.hear()).told;
        let (silent, since) = (told.len(), self.ledger().len());
        *self.hear() = Heard { told, ..Heard::default() };
        let end = match tokio::time::timeout(TOO_LONG, self.start(recipe, blow)).await {
            Ok(end) => end,
            Err(_) => return Err(format!("{recipe:?} goes on for ever")),
        };
        self.incarnations += 1;
        self.stage.network.sever();
        let stage = self.stage.again(SEED + 100 + self.incarnations);
        let before = std::mem::replace(&mut self.stage, stage);
        pause(Duration::from_millis(1)).await;
        drop(before);
        self.check_guests(recipe, &end)?;
        self.check(recipe, &end, silent)?;
        if recipe == Recipe::Deploy && matches!(end, End::Finished(_)) {
            self.check_ways_in().await?;
        }
        if recipe == Recipe::Deploy {
            let told = self.told();
            let born = told[..silent].iter().rposition(|told| told.record.sequence == 1).unwrap_or(0);
            let before: Vec<Record> = told[born..silent].iter().map(|told| told.record.clone()).collect();
            invariants::held(&self.ledger()[since..], &State::of(&before))?;
        }
        Ok(end)
    }

    async fn start(&self, recipe: Recipe, blow: &Blow) -> End {
        let session = self.session();
        let (_go_on, stop) = watch::channel(Stop::No);
        let (heard, twin) = (Arc::clone(&self.heard), self.stage.twin.clone());
        let blow_of_listener = blow.clone();
        let listener = move |message: &Message| listen(&heard, &twin, &blow_of_listener, message);
        let watching = Watching { stop, listener: &listener, faults: Some(injector(&self.heard, blow)) };
        let running = async {
            match recipe {
                Recipe::Deploy => session.deploy(&self.text, &self.config, watching).await,
                Recipe::Reset => {
                    session.reset(&Teardown { manner: self.manner, ..Teardown::default() }, watching).await
                }
            }
        };
        let mut running = Box::pin(AssertUnwindSafe(running).catch_unwind());
        match (&mut running).await {
            Ok(Ok(finished)) => End::Finished(Box::new(finished)),
            Ok(Err(error)) => End::Failed(error),
            Err(panic) if panic.is::<Killed>() => {
                // Nothing that still lies in a buffer may reach the world.
                self.stage.network.sever();
                End::Crashed
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// What must hold after every run, however it ended. Before it, so many things had been told.
    fn check(&self, recipe: Recipe, end: &End, silent: usize) -> Result<(), String> {
        let (ledger, told) = (self.ledger(), self.told());
        let Strangers { group, since, requests, .. } = &self.strangers;
        let is_ours = |entry: &&twin::Entry| !requests.contains(&entry.sequence);
        let ours: Vec<twin::Entry> = ledger[*since..].iter().filter(is_ours).cloned().collect();
        invariants::created_once(&ours)?;
        invariants::one_etcd(&ledger)?;
        invariants::explained(&ours, &told)?;
        invariants::untouched(&ours, group)?;
        if self.resources().0 != self.strangers.resources {
            return Err("something that is not ours has changed".to_owned());
        }
        if recipe == Recipe::Reset && matches!(end, End::Finished(_)) {
            return self.check_nothing_left();
        }
        let recorded = self.session().recorded().map_err(|error| error.to_string())?;
        let Some((state, records)) = recorded else {
            return if told.is_empty() { Ok(()) } else { Err("the journal is gone".to_owned()) };
        };
        // A new cluster begins a new journal.
        let born = told.iter().rposition(|told| told.record.sequence == 1).unwrap_or(told.len());
        invariants::recorded(&records, &told[born..])?;
        match end {
            End::Finished(finished) => {
                let status = deploy::session::status_of(&self.home).map_err(|error| error.to_string())?;
                invariants::same("the status", &status, &finished.status)
            }
            // Who is refused at the door, or after a look, has planned nothing that could have failed.
            End::Failed(SessionError::Failed(failures))
                if told[silent..].iter().any(|told| matches!(told.record.event, Event::Planned { .. })) =>
            {
                invariants::failures(&state, failures)
            }
            _ => Ok(()),
        }
    }

    /// What is not ours in and beside the directory is as it was. A new life begins in a directory of its own.
    fn check_guests(&mut self, recipe: Recipe, end: &End) -> Result<(), String> {
        self.guests.judge()?;
        let is_gone = recipe == Recipe::Reset && matches!(end, End::Finished(_));
        let moved = if is_gone { self.guests.leave() } else { self.guests.come_in() };
        moved.map_err(|error| error.to_string())
    }

    /// What a person does after a deployment works. Their connections are their own.
    async fn check_ways_in(&self) -> Result<(), String> {
        let stage = self.stage.again(SEED + 50);
        let led = ways::lead_in(&Session::new(stage.settings(&self.home, Phase::K0rdent))).await;
        stage.network.sever();
        led.map_err(|why| format!("the deployment says that it is done: {why}"))
    }

    fn check_nothing_left(&self) -> Result<(), String> {
        let left = self.resources().1;
        if !left.is_empty() {
            return Err(format!("a teardown left {left:?}"));
        }
        invariants::only_the_archive(&self.home)
    }

    /// The cluster is there, whole, and the program agrees.
    pub async fn check_deployed(&mut self, end: &End) -> Result<(), String> {
        let End::Finished(finished) = end else { return Err(format!("the next deployment: {}", describe(end))) };
        if finished.status.phase != "k0rdent_deployed" {
            return Err(format!("the next deployment reaches {} only", finished.status.phase));
        }
        if let Some(node) = finished.status.nodes.iter().find(|node| node.state != "joined") {
            return Err(format!("{} is {}", node.name, node.state));
        }
        // The group, the key, the rules, the network; each machine with its disk, interface and address.
        let claimed = finished.status.nodes.iter().map(|node| node.name.clone()).collect();
        invariants::members(&claimed, &self.twin().with(|world| twin::machine::memberships(world)))?;
        let expected = 4 + 4 * finished.status.nodes.len();
        let found = self.resources().1.len();
        if found != expected {
            return Err(format!("{found} resources, not {expected}"));
        }
        match self.run(Recipe::Deploy, &Blow::None).await? {
            End::Finished(again) if again.steps_run == 0 => Ok(()),
            End::Finished(again) => Err(format!("a third deployment still finds {} steps to run", again.steps_run)),
            other => Err(format!("a third deployment: {}", describe(&other))),
        }
    }

    /// Makes the environment forget that a step was completed: as if a run had begun it again and had been killed.
    pub fn forget(&mut self, step: &StepId) -> Result<(), String> {
        let failed = |error: engine::JournalError| error.to_string();
        let clock = &self.stage.world.clock;
        let holder = Holder { command: "deploy".to_owned(), ..self.stage.settings(&self.home, Phase::K0rdent).holder };
        let journal = Journal::open_to_write(&self.home, &holder, Durability::Process).map_err(failed)?;
        for event in
            [Event::RunStarted { command: "deploy".to_owned(), holder }, Event::StepStarted { step: step.clone() }]
        {
            let record = journal.append(clock.utc(), event).map_err(failed)?;
            let ledger = self.ledger().len();
            self.hear().told.push(Told { ledger, record });
        }
        Ok(())
    }

    /// The environment's directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The cluster's name, once it has one.
    pub fn cluster(&self) -> Option<String> {
        self.hear().told.iter().rev().find_map(|told| match &told.record.event {
            Event::Settled { key, value } if key == "cluster_id" => value.as_str().map(str::to_owned),
            _ => None,
        })
    }
}

/// An end, in words.
pub fn describe(end: &End) -> String {
    match end {
        End::Finished(finished) => format!("finished, {}", finished.status.phase),
        End::Failed(error) => format!("failed: {error}"),
        End::Crashed => "killed".to_owned(),
    }
}

/// Whether a run ended by the deadline of a step.
pub fn is_too_late(end: &End) -> bool {
    match end {
        End::Failed(SessionError::Failed(failures)) => {
            failures.iter().any(|failure| failure.kind == FailureKind::Deadline)
        }
        End::Failed(SessionError::Leftovers(remains)) => remains.to_string().contains("not done after"),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears a message; dies of it if the blow says so.
fn listen(heard: &Mutex<Heard>, twin: &twin::Twin, blow: &Blow, message: &Message) {
    let ledger = twin.with(|world| world.ledger.entries.len());
    let mut heard = lock(heard);
    match message {
        Message::Recorded(record) => heard.told.push(Told { ledger, record: Record::clone(record) }),
        Message::Progress { step, waiting_for, .. } => {
            // Once for each condition: what is seen while it is waited for changes every second.
            if !heard.waits.insert((step.id.clone(), waiting_for.clone())) {
                return;
            }
        }
    }
    heard.messages += 1;
    let is_end = matches!(message, Message::Recorded(record) if matches!(record.event, Event::RunEnded { .. }));
    let dies = match blow {
        Blow::CrashAfterMessage(number) => heard.messages == number + 1,
        Blow::CrashAfterTheEnd => is_end,
        _ => false,
    };
    drop(heard);
    if dies {
        resume_unwind(Box::new(Killed));
    }
}

fn injector(heard: &Arc<Mutex<Heard>>, blow: &Blow) -> FaultInjector {
    let (heard, blow) = (Arc::clone(heard), blow.clone());
    Arc::new(move |point, step| {
        let place = {
            let mut heard = lock(&heard);
            let occurrence = heard.passed.iter().filter(|place| place.point == point && place.step == *step).count();
            let place = Place { point, step: step.clone(), occurrence };
            heard.passed.push(place.clone());
            place
        };
        match &blow {
            Blow::Fail(here) if *here == place => Injection::Fail,
            Blow::Hang(here) if *here == place => Injection::Hang,
            Blow::Crash(here) if *here == place => resume_unwind(Box::new(Killed)),
            _ => Injection::None,
        }
    })
}

//! Executes a plan as fast as its dependencies allow.
//!
//! All steps of a run live inside one future: when it is dropped, nothing of the run goes on. A step starts as soon as
//! the steps that it depends on hold, whatever the others do; one that fails stops only those that depend on it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::watch, time::Instant};

use crate::{
    clock::Clock,
    event::{Event, Outcome, Record},
    journal::{Journal, JournalError},
    plan::{Decision, Plan, PlannedStep, StepId},
    step::{Context, Done, Failure, FailureKind, Step, Waiting},
};

/// How long running steps may go on after somebody asked the run to stop.
pub const SETTLE: Duration = Duration::from_secs(30);

/// What readers of a run see: the events as they are recorded, and what running steps wait for.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "readers get it by reference, one at a time")]
pub enum Message {
    /// An event is in the journal.
    Recorded(Box<Record>),
    /// A running step says what it waits for.
    Progress {
        /// Which.
        step: PlannedStep,
        /// The condition, in words.
        waiting_for: String,
        /// What was last seen.
        evidence: String,
        /// How long it has been running.
        elapsed: Duration,
    },
}

/// Whether the run should go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// Go on.
    #[default]
    No,
    /// Start nothing new; let what runs settle for [`SETTLE`].
    Gently,
    /// End at once; the journal is right as it is.
    Now,
}

/// The instants at which a crash is most instructive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultPoint {
    /// The step has begun, and has done nothing.
    Start,
    /// The intention is recorded, nothing has happened.
    BeforeEffect,
    /// It has happened, and is not recorded.
    AfterEffect,
    /// The step was seen to hold, and that is not recorded.
    BeforeRecord,
    /// It is recorded, and the next step has not begun.
    AfterRecord,
}

/// Decides, at each instant that matters, whether the run fails or dies there. For tests.
pub type FaultInjector = Arc<dyn Fn(FaultPoint, &StepId) -> Injection + Send + Sync>;

/// What a [`FaultInjector`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// Nothing.
    None,
    /// The step fails here.
    Fail,
    /// The run makes no further progress: the caller drops it, as a crash would.
    Hang,
}

/// What a run needs besides its plan.
pub struct Options<'run> {
    /// The calendar.
    pub clock: Arc<dyn Clock>,
    /// Whether to go on.
    pub stop: watch::Receiver<Stop>,
    /// Sees every message, in order.
    pub listener: &'run (dyn Fn(&Message) + Send + Sync),
    /// Faults to inject; none outside tests.
    pub faults: Option<FaultInjector>,
    /// What is settled about the whole environment when the run ends: key and value.
    pub at_end: Option<&'run (dyn Fn() -> (String, serde_json::Value) + Send + Sync)>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The outcome.
    pub outcome: Outcome,
    /// The steps that failed, in the order of failure.
    pub failures: Vec<(PlannedStep, Failure)>,
    /// The steps that were not tried because of those.
    pub not_tried: Vec<StepId>,
}

/// What all steps of a run share.
pub(crate) struct Shared<'run> {
    journal: &'run Journal,
    options: &'run Options<'run>,
    /// Why the journal could not be written.
    trouble: Mutex<Option<JournalError>>,
}

impl Shared<'_> {
    pub(crate) fn record(&self, event: Event) -> Result<(), Failure> {
        let at = self.options.clock.utc();
        let record = self.journal.append(at, event).map_err(|error| {
            let failure = Failure { kind: FailureKind::Journal, ..Failure::new(error.to_string()) };
            self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            failure
        })?;
        self.tell(Message::Recorded(Box::new(record)));
        Ok(())
    }

    pub(crate) fn tell(&self, message: Message) {
        (self.options.listener)(&message);
    }

    pub(crate) async fn reach(&self, point: FaultPoint, step: &StepId) -> Result<(), Failure> {
        match self.options.faults.as_ref().map_or(Injection::None, |inject| inject(point, step)) {
            Injection::None => Ok(()),
            Injection::Fail => Err(Failure::new(format!("injected failure {point:?} in {step}"))),
            Injection::Hang => std::future::pending().await,
        }
    }
}

/// Runs the plan. `steps` holds an implementation for each step that runs.
///
/// # Errors
/// Only if the journal cannot be written, or the plan makes no sense; everything else is in the report.
pub async fn run(
    plan: &Plan,
    steps: &BTreeMap<StepId, Box<dyn Step>>,
    journal: &Journal,
    options: &Options<'_>,
) -> Result<Report, JournalError> {
    // A step whose dependency nobody knows would start at once.
    if let Some(defect) = plan.defect() {
        return Err(JournalError::File(std::io::Error::other(format!("the plan makes no sense: {defect}"))));
    }
    let shared = Shared { journal, options, trouble: Mutex::new(None) };
    let lost = |failure: Failure| {
        let trouble = shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        trouble.unwrap_or_else(|| JournalError::File(std::io::Error::other(failure.message)))
    };
    shared.record(Event::Planned { steps: plan.steps.clone() }).map_err(lost)?;
    let schedule = RefCell::new(Schedule::new(plan));
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut stop = options.stop.clone();
    let mut settle_until = None;
    let mut interrupted = false;
    loop {
        let now = *stop.borrow_and_update();
        interrupted |= now != Stop::No;
        if now == Stop::Gently && settle_until.is_none() {
            settle_until = Some(Instant::now() + SETTLE);
        }
        if !interrupted {
            while let Some(planned) = schedule.borrow_mut().next_ready() {
                running.push(execute(planned, steps.get(&planned.id).map(Box::as_ref), &shared));
            }
        }
        if running.is_empty() || now == Stop::Now {
            break;
        }
        tokio::select! {
            biased;
            Some((planned, result)) = running.next() => match result {
                Ok(()) => schedule.borrow_mut().succeeded(&planned.id),
                Err(failure) if failure.kind == FailureKind::Journal => return Err(lost(failure)),
                Err(failure) => failures.push((planned.clone(), failure)),
            },
            Ok(()) = stop.changed() => {}
            () = tokio::time::sleep_until(settle_until.unwrap_or_else(Instant::now)), if settle_until.is_some() => break,
        }
    }
    let cut_short = !running.is_empty();
    drop(running);
    let not_tried = schedule.into_inner().not_started();
    let outcome = match (interrupted && (cut_short || !not_tried.is_empty()), failures.is_empty()) {
        (true, _) => Outcome::Interrupted,
        (false, false) => Outcome::Failed,
        (false, true) => Outcome::Succeeded,
    };
    if let Some((key, value)) = options.at_end.map(|settled| settled()) {
        shared.record(Event::Settled { key, value }).map_err(lost)?;
    }
    shared.record(Event::RunEnded { outcome }).map_err(lost)?;
    Ok(Report { outcome, failures, not_tried })
}

/// Runs one step to its end and records how it went.
async fn execute<'run>(
    planned: &'run PlannedStep,
    step: Option<&'run dyn Step>,
    shared: &'run Shared<'run>,
) -> (&'run PlannedStep, Result<(), Failure>) {
    (planned, execute_and_record(planned, step, shared).await)
}

async fn execute_and_record(
    planned: &PlannedStep,
    step: Option<&dyn Step>,
    shared: &Shared<'_>,
) -> Result<(), Failure> {
    let Some(step) = step else { return Err(Failure::new(format!("no implementation of step {}", planned.id))) };
    shared.record(Event::StepStarted { step: planned.id.clone() })?;
    let context = Context { step: planned, shared, waiting: Mutex::new(Waiting::default()), since: Instant::now() };
    let attempt = async {
        shared.reach(FaultPoint::Start, &planned.id).await?;
        let done = step.ensure(&context).await?;
        shared.reach(FaultPoint::BeforeRecord, &planned.id).await?;
        Ok(done)
    };
    let attempt = tokio::time::timeout(planned.deadline, attempt).await;
    match attempt.unwrap_or_else(|_| Err(context.too_late(planned.deadline))) {
        Ok(Done { evidence, output }) => {
            shared.record(Event::StepSucceeded { step: planned.id.clone(), evidence, output })?;
            shared.reach(FaultPoint::AfterRecord, &planned.id).await
        }
        Err(failure) if failure.kind == FailureKind::Journal => Err(failure),
        Err(failure) => {
            shared.record(Event::StepFailed { step: planned.id.clone(), failure: failure.clone() })?;
            Err(failure)
        }
    }
}

/// Which steps may start.
struct Schedule<'plan> {
    /// Waiting steps, with how many of their dependencies do not hold yet.
    waiting: BTreeMap<&'plan StepId, usize>,
    dependents: BTreeMap<&'plan StepId, Vec<&'plan PlannedStep>>,
    /// Ready steps, by their place in the plan: what the plan names first starts first.
    ready: BTreeMap<usize, &'plan PlannedStep>,
    places: BTreeMap<&'plan StepId, usize>,
}

impl<'plan> Schedule<'plan> {
    fn new(plan: &'plan Plan) -> Self {
        let mut schedule = Self {
            waiting: BTreeMap::new(),
            dependents: BTreeMap::new(),
            ready: BTreeMap::new(),
            places: plan.steps.iter().enumerate().map(|(place, step)| (&step.id, place)).collect(),
        };
        let runs: BTreeMap<&StepId, bool> =
            plan.steps.iter().map(|step| (&step.id, step.decision == Decision::Run)).collect();
        for (place, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.decision == Decision::Run) {
            let open: Vec<_> = step.after.iter().filter(|id| runs.get(id).copied().unwrap_or(false)).collect();
            if open.is_empty() {
                schedule.ready.insert(place, step);
            } else {
                schedule.waiting.insert(&step.id, open.len());
                for id in open {
                    schedule.dependents.entry(id).or_default().push(step);
                }
            }
        }
        schedule
    }

    fn next_ready(&mut self) -> Option<&'plan PlannedStep> {
        self.ready.pop_first().map(|(_, step)| step)
    }

    fn succeeded(&mut self, id: &StepId) {
        for step in self.dependents.remove(id).unwrap_or_default() {
            let Some(open) = self.waiting.get_mut(&step.id) else { continue };
            *open -= 1;
            if *open == 0 {
                self.waiting.remove(&step.id);
                self.ready.insert(self.places[&step.id], step);
            }
        }
    }

    fn not_started(self) -> Vec<StepId> {
        let mut left: Vec<_> = self.waiting.into_keys().chain(self.ready.into_values().map(|step| &step.id)).collect();
        left.sort_by_key(|id| self.places[id]);
        left.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use time::OffsetDateTime;

    use super::*;
    use crate::journal::{Durability, Holder};

    /// Changes the world once.
    struct Effect(Arc<AtomicU32>);

    #[async_trait]
    impl Step for Effect {
        async fn ensure(&self, context: &Context<'_>) -> Result<Done, Failure> {
            let intent = context.intend("needs a page of its own ".repeat(500)).await?;
            self.0.fetch_add(1, Ordering::Relaxed);
            context.effected(intent).await?;
            Ok(Done::default())
        }
    }

    fn planned(name: &str, after: &[&str]) -> PlannedStep {
        PlannedStep {
            id: StepId::new(name),
            title: name.to_owned(),
            phase: "phase".to_owned(),
            node: None,
            after: after.iter().map(|name| StepId::new(*name)).collect(),
            decision: Decision::Run,
            why: String::new(),
            fingerprint: String::new(),
            undoes: Vec::new(),
            output: serde_json::Value::Null,
            deadline: Duration::from_secs(60),
            usual: Duration::ZERO,
        }
    }

    /// Three steps in a row; the disk becomes full, or read-only, after the first.
    async fn run_onto_a_bad_disk(read_only: bool) -> (u32, JournalError) {
        let directory = tempfile::tempdir().unwrap();
        let since = OffsetDateTime::UNIX_EPOCH;
        let holder = Holder { user: "ada".into(), host: "desk".into(), pid: 7, command: "deploy".into(), since };
        let journal = Journal::open_to_write(directory.path(), &holder, Durability::Disk).unwrap();
        let effects = Arc::new(AtomicU32::new(0));
        let plan = Plan { steps: vec![planned("a", &[]), planned("b", &["a"]), planned("c", &["b"])] };
        let step = || Box::new(Effect(Arc::clone(&effects))) as Box<dyn Step>;
        let steps = plan.steps.iter().map(|planned| (planned.id.clone(), step())).collect();
        let listener = |message: &Message| {
            if let Message::Recorded(record) = message
                && matches!(&record.event, Event::StepSucceeded { step, .. } if step.as_str() == "a")
            {
                journal.fill_disk(read_only);
            }
        };
        let (_go_on, stop) = watch::channel(Stop::No);
        let options = Options {
            clock: Arc::new(crate::clock::SystemClock),
            stop,
            listener: &listener,
            faults: None,
            at_end: None,
        };
        let error = run(&plan, &steps, &journal, &options).await.unwrap_err();
        (effects.load(Ordering::Relaxed), error)
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_makes_no_sense_is_an_error_and_runs_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let since = OffsetDateTime::UNIX_EPOCH;
        let holder = Holder { user: "ada".into(), host: "desk".into(), pid: 7, command: "deploy".into(), since };
        let journal = Journal::open_to_write(directory.path(), &holder, Durability::Process).unwrap();
        let (_go_on, stop) = watch::channel(Stop::No);
        let clock = Arc::new(crate::clock::SystemClock);
        let options = Options { clock, stop, listener: &|_| {}, faults: None, at_end: None };
        let plan = Plan { steps: vec![planned("a", &["unknown"])] };
        let error = run(&plan, &BTreeMap::new(), &journal, &options).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the plan makes no sense: step a comes after unknown, which does not come before it"
        );
        assert_eq!(journal.after(0).unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_is_full_or_read_only_stops_the_run_before_the_next_effect() {
        for (read_only, words) in [(false, "full"), (true, "readonly")] {
            let (effects, error) = run_onto_a_bad_disk(read_only).await;
            assert_eq!(effects, 1);
            assert!(matches!(error, JournalError::Database { .. }) && error.to_string().contains(words), "{error}");
        }
    }
}

//! What is the case: a pure fold of the journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    event::{Event, Origin, Outcome, Record},
    journal::Holder,
    plan::{Decision, PlannedStep, StepId},
    step::Failure,
};

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// It has not begun.
    Pending,
    /// It began and has not ended, or the program ended first.
    Running,
    /// It holds.
    Completed,
    /// It failed in the last run that tried it.
    Failed,
}

/// What the journal says about one step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepState {
    /// As it was planned last.
    pub planned: PlannedStep,
    /// Where it stands.
    pub status: StepStatus,
    /// When it last began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it last ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// The change it was about to make, if it has not ended since.
    pub intent: Option<String>,
    /// The fingerprint with which it was completed.
    pub completed_with: Option<String>,
    /// What was seen when it was completed.
    pub evidence: String,
    /// What it told others.
    pub output: serde_json::Value,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl StepState {
    /// A step that has not begun.
    fn new(planned: PlannedStep) -> Self {
        Self {
            planned: PlannedStep { decision: Decision::Run, ..planned },
            status: StepStatus::Pending,
            started_at: None,
            ended_at: None,
            intent: None,
            completed_with: None,
            evidence: String::new(),
            output: serde_json::Value::Null,
            failure: None,
        }
    }
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArtifactState {
    /// The digest of its content.
    pub sha256: String,
    /// Whether it was made or found.
    pub origin: Origin,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub generated_at: OffsetDateTime,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunState {
    /// Its number.
    pub run: u64,
    /// The command.
    pub command: String,
    /// Who.
    pub holder: Holder,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended; absent if it is active or was killed.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// Everything the journal says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct State {
    /// What is settled about the whole environment.
    pub settled: BTreeMap<String, serde_json::Value>,
    /// The steps by name.
    pub steps: BTreeMap<StepId, StepState>,
    /// The steps' names in the order of the last plan.
    pub order: Vec<StepId>,
    /// The files.
    pub artifacts: BTreeMap<String, ArtifactState>,
    /// The runs, oldest first.
    pub runs: Vec<RunState>,
    /// The sequence number of the last event.
    pub sequence: u64,
}

impl State {
    /// Folds a whole journal.
    pub fn of(records: &[Record]) -> Self {
        let mut state = Self::default();
        for record in records {
            state.apply(record);
        }
        state
    }

    /// Whether the step holds as far as the journal knows, made from the same inputs.
    pub fn completed(&self, id: &StepId, fingerprint: &str) -> bool {
        self.steps.get(id).is_some_and(|step| {
            step.status == StepStatus::Completed && step.completed_with.as_deref() == Some(fingerprint)
        })
    }

    /// What a completed step told others.
    pub fn output(&self, id: &StepId) -> Option<&serde_json::Value> {
        self.steps.get(id).map(|step| &step.output).filter(|output| !output.is_null())
    }

    /// Takes one more event into account.
    pub fn apply(&mut self, record: &Record) {
        self.sequence = record.sequence;
        match &record.event {
            Event::RunStarted { command, holder } => self.runs.push(RunState {
                run: record.run,
                command: command.clone(),
                holder: holder.clone(),
                started_at: record.at,
                ended_at: None,
                outcome: None,
            }),
            Event::RunEnded { outcome } => {
                if let Some(run) = self.runs.iter_mut().rev().find(|run| run.run == record.run) {
                    run.ended_at = Some(record.at);
                    run.outcome = Some(*outcome);
                }
            }
            Event::Settled { key, value } => {
                self.settled.insert(key.clone(), value.clone());
            }
            Event::Planned { steps } => self.planned(steps),
            Event::StepStarted { step } => self.step(step, |state| {
                state.status = StepStatus::Running;
                state.started_at = Some(record.at);
                state.ended_at = None;
                state.failure = None;
            }),
            Event::Intended { step, what } => self.step(step, |state| state.intent = Some(what.clone())),
            Event::StepSucceeded { step, evidence, output } => {
                self.step(step, |state| {
                    state.status = StepStatus::Completed;
                    state.ended_at = Some(record.at);
                    state.intent = None;
                    state.completed_with = Some(state.planned.fingerprint.clone());
                    state.evidence.clone_from(evidence);
                    state.output = output.clone();
                    state.failure = None;
                });
                self.undo(step);
            }
            Event::StepFailed { step, failure } => self.step(step, |state| {
                state.status = StepStatus::Failed;
                state.ended_at = Some(record.at);
                state.failure = Some(failure.clone());
            }),
            Event::Artifact { path, sha256, origin } => {
                let unchanged = *origin == Origin::Existing
                    && self.artifacts.get(path).is_some_and(|artifact| artifact.sha256 == *sha256);
                if !unchanged {
                    let artifact = ArtifactState { sha256: sha256.clone(), origin: *origin, generated_at: record.at };
                    self.artifacts.insert(path.clone(), artifact);
                }
            }
            Event::Discarded { path } => drop(self.artifacts.remove(path)),
            Event::Noted { .. } | Event::Recovered { .. } | Event::Unknown => {}
        }
    }

    /// What the step has undone is as if it had never been done.
    fn undo(&mut self, id: &StepId) {
        let undone = self.steps.get(id).map(|step| step.planned.undoes.clone()).unwrap_or_default();
        for id in &undone {
            self.step(id, |state| *state = StepState::new(state.planned.clone()));
        }
    }

    fn step(&mut self, id: &StepId, change: impl FnOnce(&mut StepState)) {
        if let Some(step) = self.steps.get_mut(id) {
            change(step);
        }
    }

    /// A new plan: steps that it wants to run are pending until they begin, those that it skips hold, and steps that it
    /// does not name are history.
    fn planned(&mut self, steps: &[PlannedStep]) {
        self.order = steps.iter().map(|step| step.id.clone()).collect();
        for planned in steps {
            let state = self.steps.entry(planned.id.clone()).or_insert_with(|| StepState::new(planned.clone()));
            state.planned = planned.clone();
            match planned.decision {
                Decision::Run => state.status = StepStatus::Pending,
                // It was seen to hold, whatever became of it before.
                Decision::Skip => {
                    state.status = StepStatus::Completed;
                    state.intent = None;
                    state.failure = None;
                    if !planned.output.is_null() {
                        state.output = planned.output.clone();
                    }
                }
            }
        }
    }
}

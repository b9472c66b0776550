//! What a step is, and what it may ask of the engine while it runs.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    event::{Event, Origin},
    plan::PlannedStep,
    runner::{FaultPoint, Message, Shared},
};

/// Something that can be made to hold, however often it is asked for.
#[async_trait]
pub trait Step: Send + Sync {
    /// Looks, changes what is missing, and returns when the step was seen to hold.
    ///
    /// Before each change it asks [`Context::intend`]; clients that change the world take the [`Intent`] as proof.
    async fn ensure(&self, context: &Context<'_>) -> Result<Done, Failure>;
}

/// The proof that an intention is in the journal. Only the engine makes it.
#[derive(Debug)]
pub struct Intent(());

impl Intent {
    /// An intent that no journal knows, for exercising clients in tests: only with the feature `testing`.
    #[cfg(feature = "testing")]
    pub fn for_tests() -> Self {
        Self(())
    }
}

/// A step holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Done {
    /// What was seen, in words.
    pub evidence: String,
    /// What later steps and views want to know.
    pub output: serde_json::Value,
}

impl Done {
    /// A step that was seen to hold.
    pub fn seen(evidence: impl Into<String>) -> Self {
        Self { evidence: evidence.into(), output: serde_json::Value::Null }
    }

    /// With something for others to know.
    pub fn with(mut self, output: serde_json::Value) -> Self {
        self.output = output;
        self
    }
}

/// What kind of failure it is: it decides the program's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// It did not work; trying again may help.
    Failed,
    /// The world said no (quota, permission, capacity): somebody must act first.
    Refused,
    /// It took longer than it may.
    Deadline,
    /// The journal cannot be written any more: another run took over, or the disk is full.
    Journal,
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What failed, on what, and why.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Failure {
    /// A failure that another try may overcome.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Failed, message: message.into(), advice: None }
    }

    /// A refusal by the world.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Refused, ..Self::new(message) }
    }

    /// With what to do about it.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What a running step is waiting for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) condition: String,
    pub(crate) evidence: String,
}

/// The engine, as a running step sees it.
pub struct Context<'run> {
    pub(crate) step: &'run PlannedStep,
    pub(crate) shared: &'run Shared<'run>,
    pub(crate) waiting: Mutex<Waiting>,
    pub(crate) since: Instant,
}

impl Context<'_> {
    /// The step as it was planned.
    pub fn step(&self) -> &PlannedStep {
        self.step
    }

    /// Records durably that the world is about to be changed.
    pub async fn intend(&self, what: impl Into<String>) -> Result<Intent, Failure> {
        self.shared.record(Event::Intended { step: self.step.id.clone(), what: what.into() })?;
        self.shared.reach(FaultPoint::BeforeEffect, &self.step.id).await?;
        Ok(Intent(()))
    }

    /// Says that what was intended has been done, as far as the caller can know.
    pub async fn effected(&self, _intent: Intent) -> Result<(), Failure> {
        self.shared.reach(FaultPoint::AfterEffect, &self.step.id).await
    }

    /// Says what the step waits for and what was last seen; people see it at once, and in the error at the deadline.
    pub fn waiting(&self, condition: impl Into<String>, evidence: impl Into<String>) {
        let now = Waiting { condition: condition.into(), evidence: evidence.into() };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting != now {
            self.shared.tell(Message::Progress {
                step: self.step.clone(),
                waiting_for: now.condition.clone(),
                evidence: now.evidence.clone(),
                elapsed: self.since.elapsed(),
            });
            *waiting = now;
        }
    }

    /// The failure of a wait that took longer than it may: what was waited for, and what was seen last.
    pub fn too_late(&self, patience: Duration) -> Failure {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seconds = patience.as_secs();
        let after = if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) };
        let mut message = format!("{}: not done after {after}", self.step.title);
        if !waiting.condition.is_empty() {
            message += &format!("; waiting for: {}", waiting.condition);
        }
        if !waiting.evidence.is_empty() {
            message += &format!("; last seen: {}", waiting.evidence);
        }
        Failure { kind: FailureKind::Deadline, message, advice: None }
    }

    /// Records something worth knowing.
    pub fn note(&self, text: impl Into<String>) -> Result<(), Failure> {
        self.shared.record(Event::Noted { step: self.step.id.clone(), text: text.into() })
    }

    /// Records that a file is in place.
    pub fn artifact(&self, path: impl Into<String>, sha256: impl Into<String>, origin: Origin) -> Result<(), Failure> {
        self.shared.record(Event::Artifact { path: path.into(), sha256: sha256.into(), origin })
    }

    /// Records that a file is not wanted any more, and gone.
    pub fn discarded(&self, path: impl Into<String>) -> Result<(), Failure> {
        self.shared.record(Event::Discarded { path: path.into() })
    }

    /// Records something about the whole environment.
    pub fn settle(&self, key: impl Into<String>, value: serde_json::Value) -> Result<(), Failure> {
        self.shared.record(Event::Settled { key: key.into(), value })
    }
}

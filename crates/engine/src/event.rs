//! What happened, as it is written into the journal.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    journal::Holder,
    plan::{PlannedStep, StepId},
    step::Failure,
};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the journal, from 1.
    pub sequence: u64,
    /// The run that wrote it, from 1.
    pub run: u64,
    /// When, in UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A program took the lease and began.
    RunStarted {
        /// The command, `deploy`.
        command: String,
        /// Who.
        holder: Holder,
    },
    /// Something about the whole environment is settled: its cluster id, its configuration's digest.
    Settled {
        /// What it is.
        key: String,
        /// Its value.
        value: serde_json::Value,
    },
    /// The run knows what it is going to do.
    Planned {
        /// Every step, those that need not run included.
        steps: Vec<PlannedStep>,
    },
    /// A step began.
    StepStarted {
        /// Which.
        step: StepId,
    },
    /// A step is about to change the world.
    Intended {
        /// Which.
        step: StepId,
        /// The change, in words.
        what: String,
    },
    /// Something worth knowing that is neither success nor failure: a machine moved to another zone.
    Noted {
        /// Which.
        step: StepId,
        /// What.
        text: String,
    },
    /// A step holds, and was seen to hold.
    StepSucceeded {
        /// Which.
        step: StepId,
        /// What was seen.
        evidence: String,
        /// What later steps and views want to know.
        output: serde_json::Value,
    },
    /// A step did not succeed in this run.
    StepFailed {
        /// Which.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// A file is in place.
    Artifact {
        /// Where, relative to the environment's directory.
        path: String,
        /// The digest of its content.
        sha256: String,
        /// Whether it was there before.
        origin: Origin,
    },
    /// A file that was made is not wanted any more, and is gone.
    Discarded {
        /// Where it was, relative to the environment's directory.
        path: String,
    },
    /// Opening the journal had to give something up: a record that was being written when the power went.
    Recovered {
        /// What.
        what: String,
    },
    /// The run is over.
    RunEnded {
        /// How.
        outcome: Outcome,
    },
    /// An event of a later version of this program.
    #[serde(other)]
    Unknown,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was there and was right.
    Existing,
    /// It was not there, or was made from something else.
    Generated,
    /// It was made again because somebody asked for it.
    Regenerated,
    /// What it is made from has changed.
    Updated,
    /// Somebody else had changed it; what they wrote is kept beside it, as `.bak`.
    Edited,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every step holds.
    Succeeded,
    /// A step failed; what exists is kept.
    Failed,
    /// Somebody asked it to stop.
    Interrupted,
}

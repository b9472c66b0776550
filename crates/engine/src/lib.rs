//! The engine: it executes a plan of steps, remembers everything in a journal, and can be killed at any instant.
//!
//! It knows no cloud, no Kubernetes, no SSH and no terminal. What it does know:
//!
//! - [`plan`]: steps that depend on steps, decided before anything runs
//! - [`step`]: what a step is, and what it may ask of the engine while it runs
//! - [`event`] and [`journal`]: what happened, durable before it has effects; one run at a time
//! - [`state`]: what is the case, a pure fold of the events
//! - [`runner`]: executes a plan as fast as its dependencies allow
//! - [`clock`]: the calendar, and the only pause there is

pub mod clock;
pub mod event;
pub mod journal;
pub mod plan;
pub mod runner;
pub mod state;
pub mod step;

pub use clock::{Clock, SystemClock, pause};
pub use event::{Event, Origin, Outcome, Record};
pub use journal::{Holder, Journal, JournalError};
pub use plan::{Decision, Plan, PlannedStep, StepId};
pub use runner::{Message, Options, Report, Stop, run};
pub use state::{ArtifactState, State, StepState, StepStatus};
pub use step::{Context, Done, Failure, FailureKind, Intent, Step};

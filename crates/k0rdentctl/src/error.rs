//! Why a command did not do what it should: the exit code, the reason, and what to type next.

use std::path::Path;

use deploy::session::SessionError;
use engine::{Failure, FailureKind, JournalError};

/// The most failures that an error repeats; `status` has them all.
const FAILURES_SHOWN: usize = 10;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed; a resume may help.
    Failed = 1,
    /// Usage or configuration error; nothing was touched.
    Usage = 2,
    /// The world said no: quota, permission, capacity, credentials.
    Refused = 3,
    /// Somebody else holds the lease.
    Held = 4,
    /// Something remains after a teardown.
    Leftovers = 5,
    /// There is something to do or not as it was left, and somebody asked whether there is.
    Differs = 6,
    /// Interrupted, safely.
    Interrupted = 130,
}

impl Exit {
    /// Its name in JSON.
    pub(crate) fn outcome(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Held => "held",
            Self::Leftovers => "leftovers",
            Self::Differs => "differs",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An error as a person meets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CommandError {
    /// What the exit code says.
    pub(crate) exit: Exit,
    /// What failed, on what, and why.
    pub(crate) message: String,
    /// What to do about it, in the order in which to try.
    pub(crate) hints: Vec<String>,
    /// What a teardown has left, for programs.
    pub(crate) leftovers: serde_json::Value,
}

impl CommandError {
    /// An error without advice.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: Vec::new(), leftovers: serde_json::Value::Null }
    }

    /// A usage or configuration error.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
        self
    }

    /// A file that cannot be used; the error of `fs_err` names it already.
    pub(crate) fn file(error: &std::io::Error) -> Self {
        Self::failed(error.to_string())
    }

    /// A file that has no business to look like this.
    pub(crate) fn bad_file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::usage(format!("{}: {reason}", path.display()))
    }
}

impl From<JournalError> for CommandError {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::Held { .. } => {
                Self::new(Exit::Held, error.to_string()).hint("watch it with: k0rdentctl events --follow")
            }
            JournalError::LostLease { .. } => Self::new(Exit::Held, error.to_string()),
            JournalError::Newer { .. } => Self::usage(error.to_string()),
            JournalError::Damaged { .. } | JournalError::Illegible { .. } => Self::failed(error.to_string())
                .hint("restore the file from a backup")
                .hint("or have Azure cleared without it: k0rdentctl reset --force --cluster-id ID"),
            JournalError::Database { .. } | JournalError::File(_) => Self::failed(error.to_string()),
        }
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        failures(&[failure])
    }
}

impl From<SessionError> for CommandError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Journal(error) => error.into(),
            SessionError::File(error) => Self::file(&error),
            SessionError::BadFile { path, reason } => Self::bad_file(&path, reason),
            SessionError::Failed(found) => failures(&found),
            SessionError::PlanChanged(more) => {
                let names = more.iter().map(|change| format!("\n  {} {}", change.kind, change.name));
                let message =
                    "the world has changed since the plan was shown; nothing was touched. It would delete also:";
                Self::new(Exit::Refused, names.fold(message.to_owned(), |text, name| text + &name))
                    .hint("look at it again: k0rdentctl plan")
            }
            SessionError::Overtaken(overtaken) => {
                let (theirs, cluster) = (overtaken.theirs, &overtaken.cluster);
                let go_on = format!("go on in the directory whose events show run {theirs}, or copy that one here");
                let delete =
                    format!("if it is lost, delete the cluster: k0rdentctl reset --force --cluster-id {cluster}");
                Self::new(Exit::Held, overtaken.to_string()).hint(go_on).hint(delete)
            }
            SessionError::Interrupted => Self::new(Exit::Interrupted, "interrupted; progress is saved"),
            SessionError::Leftovers(remains) => {
                let error = Self::new(Exit::Leftovers, remains.to_string());
                let remove = remains.left.iter().map(|left| format!("delete what is left: {}", left.remove));
                Self { leftovers: serde_json::json!(remains.left), ..remove.fold(error, Self::hint) }
            }
            SessionError::OtherWorld { ref home, .. } => Self::usage(error.to_string())
                .hint("say --twin (or K0RDENTCTL_TWIN) as when it was deployed, or neither for Azure")
                .hint(format!("if that twin is gone for good, so is its cluster: delete {}", home.display())),
            SessionError::LostKeys { ref cluster, .. } => Self::failed(error.to_string())
                .hint("restore it from a backup")
                .hint(format!("or delete the cluster without it: k0rdentctl reset --force --cluster-id {cluster}")),
            SessionError::NoCluster(home) => {
                Self::usage(format!("there is no cluster in {}", home.display())).hint("make one: k0rdentctl deploy")
            }
        }
    }
}

/// Several failures as one error. The world said no only if nothing simply failed.
fn failures(found: &[Failure]) -> CommandError {
    let refused = found.iter().any(|failure| failure.kind == FailureKind::Refused);
    let failed = found
        .iter()
        .any(|failure| matches!(failure.kind, FailureKind::Failed | FailureKind::Deadline | FailureKind::Journal));
    let exit = if refused && !failed { Exit::Refused } else { Exit::Failed };
    let mut lines: Vec<&str> = found.iter().take(FAILURES_SHOWN).map(|failure| failure.message.as_str()).collect();
    let more = format!("and {} more; `k0rdentctl status` has them all", found.len().saturating_sub(FAILURES_SHOWN));
    if found.len() > FAILURES_SHOWN {
        lines.push(&more);
    }
    let error = CommandError::new(exit, lines.join("\n"));
    found.iter().filter_map(|failure| failure.advice.clone()).fold(error, CommandError::hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(failures: Vec<Failure>) -> Exit {
        CommandError::from(SessionError::Failed(failures)).exit
    }

    #[test]
    fn the_exit_code_tells_refusals_from_failures() {
        assert_eq!(exit(vec![Failure::refused("quota")]), Exit::Refused);
        assert_eq!(exit(vec![Failure::refused("quota"), Failure::new("SSH")]), Exit::Failed);
        let late = Failure { kind: FailureKind::Deadline, ..Failure::new("late") };
        assert_eq!(exit(vec![late]), Exit::Failed);
    }

    #[test]
    fn many_failures_are_cut_and_advice_is_not_repeated() {
        let failure = |number| Failure::new(format!("failure {number}")).advise("Try again.");
        let error = CommandError::from(SessionError::Failed((0..12).map(failure).collect()));
        assert_eq!(error.message.lines().count(), 11);
        assert!(error.message.ends_with("and 2 more; `k0rdentctl status` has them all"));
        assert_eq!(error.hints, ["Try again."]);
    }
}

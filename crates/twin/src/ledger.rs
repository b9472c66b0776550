//! What was asked and what changed, in the order in which it happened.

use std::time::Duration;

use serde::Serialize;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Position, from 0.
    pub sequence: u64,
    /// World seconds since the world began.
    pub at_seconds: f64,
    /// Who answered: `arm`, `login`, `ssh`, `kubernetes`; for changes that happen by themselves, `world`.
    pub actor: &'static str,
    /// `request` or `change`.
    pub kind: &'static str,
    /// The HTTP method, `exec` for a command, or what happened (`created`, `updated`, `deleted`, ...).
    pub verb: String,
    /// A resource id, a path, or `machine: command` (secrets never: commands carry none).
    pub object: String,
    /// The HTTP status or exit code; absent for changes.
    pub status: Option<u32>,
    /// The machine that this is about, where one can be named.
    pub node: Option<String>,
}

/// Every request and every change.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In order.
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// Records an answered request.
    pub fn request(
        &mut self,
        now: Duration,
        actor: &'static str,
        verb: impl Into<String>,
        object: impl Into<String>,
        status: u32,
        node: Option<String>,
    ) {
        self.push(now, actor, "request", verb.into(), object.into(), Some(status), node);
    }

    /// Records that something came to be, changed or ceased to be.
    pub fn change(&mut self, now: Duration, actor: &'static str, verb: impl Into<String>, object: impl Into<String>) {
        self.push(now, actor, "change", verb.into(), object.into(), None, None);
    }

    #[expect(clippy::too_many_arguments, reason = "one per column")]
    fn push(
        &mut self,
        now: Duration,
        actor: &'static str,
        kind: &'static str,
        verb: String,
        object: String,
        status: Option<u32>,
        node: Option<String>,
    ) {
        let sequence = self.entries.len() as u64;
        self.entries.push(Entry { sequence, at_seconds: now.as_secs_f64(), actor, kind, verb, object, status, node });
    }
}

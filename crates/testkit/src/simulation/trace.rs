//! Everything that happened, the same wherever and whenever the seed is played.

use engine::{Event, Record};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use twin::Entry;

/// What happened so far, a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace(Vec<String>);

impl Trace {
    /// Adds what the journal was told.
    pub(super) fn records(&mut self, records: &[Record]) {
        for record in records {
            match &record.event {
                // It names this process.
                Event::RunStarted { command, .. } => self.add(&(record.sequence, record.run, record.at, command)),
                // Some files name the directory that they are in.
                Event::Artifact { path, origin, .. } => {
                    self.add(&(record.sequence, record.run, record.at, path, origin))
                }
                _ => self.add(record),
            }
        }
    }

    /// Adds what the world saw. What happened in the same instant has no order: the SSH library goes through the channels
    /// of a connection in an order that no seed decides.
    pub(super) fn ledger(&mut self, entries: &[Entry]) {
        for instant in entries.chunk_by(|one, other| one.at_seconds == other.at_seconds) {
            let mut instant: Vec<Entry> = instant.iter().map(|entry| Entry { sequence: 0, ..entry.clone() }).collect();
            instant.sort_by(|one, other| {
                (one.actor, &one.object, &one.verb).cmp(&(other.actor, &other.object, &other.verb))
            });
            instant.iter().for_each(|entry| self.add(entry));
        }
    }

    /// The digest of all that.
    pub fn digest(&self) -> String {
        let mut all = Sha256::new();
        self.0.iter().for_each(|line| all.update(line));
        hex::encode(&all.finalize()[..16])
    }

    /// The first line in which the two are not the same.
    pub fn first_difference<'a>(&'a self, other: &'a Trace) -> Option<(&'a str, &'a str)> {
        let lines = |trace: &'a Trace| trace.0.iter().map(String::as_str).chain(std::iter::once("the end"));
        lines(self).zip(lines(other)).find(|(one, other)| one != other)
    }

    fn add(&mut self, thing: &impl Serialize) {
        self.0.push(serde_json::to_string(thing).unwrap_or_default());
    }
}

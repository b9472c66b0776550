//! A digest of everything that happened, the same wherever and whenever the seed is played.

use engine::{Event, Record};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use twin::Entry;

/// The digest so far.
#[derive(Default)]
pub(super) struct Trace(Sha256);

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

    /// Adds what the world saw.
    pub(super) fn ledger(&mut self, entries: &[Entry]) {
        entries.iter().for_each(|entry| self.add(entry));
    }

    /// The digest of all that.
    pub(super) fn digest(self) -> String {
        hex::encode(&self.0.finalize()[..16])
    }

    fn add(&mut self, thing: &impl Serialize) {
        self.0.update(serde_json::to_vec(thing).unwrap_or_default());
    }
}

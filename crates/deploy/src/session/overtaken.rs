//! Whether somebody has gone on with a copy of this environment.

use std::path::{Path, PathBuf};

use engine::State;

use crate::{azure::Inventory, topology::ClusterId};

/// What was made by a run that is not in these records: another journal has gone on, of a copy of this directory or of what
/// this one was copied from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another copy of this environment has gone on: its run {theirs} has made {made}, and the records in {} end with run {ours}",
    home.display()
)]
pub struct Overtaken {
    /// The environment's directory.
    pub home: PathBuf,
    /// The cluster.
    pub cluster: ClusterId,
    /// The number of the run there.
    pub theirs: u64,
    /// The last run here.
    pub ours: u64,
    /// What was made there.
    pub made: String,
}

impl Overtaken {
    /// What the tags of the cluster's resources say that the records do not know.
    pub(super) fn of(inventory: &Inventory, cluster: &ClusterId, before: &State, home: &Path) -> Option<Self> {
        let ours = before.runs.last().map_or(0, |run| run.run);
        let (theirs, made) = inventory.latest_run(cluster.as_str()).filter(|(theirs, _)| *theirs > ours)?;
        Some(Self { home: home.to_owned(), cluster: cluster.clone(), theirs, ours, made: made.to_owned() })
    }
}

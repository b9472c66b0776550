//! The commands as tables of contents: which steps there are, and what each comes after.

mod deploy;
mod reset;
mod uninstall;

pub use deploy::deploy;
pub(crate) use deploy::joined;
pub(crate) use reset::undoes;
pub use reset::{Manner, deletion_under_way, is_torn_down, reset, teardown_to_finish, unfinished_teardown};
pub use uninstall::{Part, uninstall};

use crate::task::Task;

/// A step and the steps that it comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The step.
    pub task: Task,
    /// What must hold before.
    pub after: Vec<Task>,
}

fn line(task: Task, after: impl IntoIterator<Item = Task>) -> Line {
    Line { task, after: after.into_iter().collect() }
}

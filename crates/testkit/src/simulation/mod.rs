//! Simulation: whole lives of clusters, drawn by seed, on a world that goes wrong, with a program that dies.
//!
//! Each seed draws a scenario and plays it on a runtime of its own with a paused clock: the real program with its real
//! protocols against the twin. After each command everything that must hold is checked. A seed that fails, fails again.
//!
//! - [`scenario`]: what a seed draws
//! - [`network`]: connections that are refused, break, hang, crawl or lose an answer; [`plain`]: without TLS
//! - [`campaign`]: many seeds on all processors
//! - `play`: one simulation; `ending`: how commands end; `children`: child clusters; `foreign`: other people's things
//! - `invariants`, `secrets`: what must hold; `heard`: what was said; `trace`: what happened, by which two simulations are compared

pub mod campaign;
mod children;
mod ending;
mod foreign;
mod heard;
mod invariants;
pub mod network;
pub mod plain;
mod play;
pub mod scenario;
mod secrets;
mod trace;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

pub use children::Fates;
pub use invariants::Violation;
pub use play::Played;
use scenario::Scenario;
pub use trace::Trace;

/// Plays one seed in a directory below `directory`, which is gone afterwards.
pub fn play(scenario: &Scenario, directory: &Path, is_plain: bool) -> Result<Played, Violation> {
    let home = directory.join(format!("seed-{}", scenario.seed));
    let played = catch_unwind(AssertUnwindSafe(|| played(scenario, &home.join("environment"), is_plain)));
    let played = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Violation { rule: "nothing panics", detail: text.unwrap_or("without a word").to_owned() })
    });
    match fs_err::remove_dir_all(&home) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Violation { rule: "the directory can be removed", detail: error.to_string() })
        }
        _ => played,
    }
}

fn played(scenario: &Scenario, home: &Path, is_plain: bool) -> Result<Played, Violation> {
    let runtime = rehearsal::runtime(scenario.seed).enable_time().build();
    let runtime = runtime.map_err(|error| Violation { rule: "there is a runtime", detail: error.to_string() })?;
    runtime.block_on(async {
        let play = play::Play::new(scenario, home.to_owned(), is_plain).await?;
        play.play().await
    })
}

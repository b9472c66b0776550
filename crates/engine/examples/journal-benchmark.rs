//! Measures the journal on this computer's disk: how long an append takes until it is durable, and how long it takes to
//! read 100,000 events and fold them. `cargo run --release --package engine --example journal-benchmark [DIRECTORY]`
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the computer's clock and its own arguments")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::{path::PathBuf, time::Instant};

use engine::{Event, Holder, Journal, StepId, journal::Durability};
use time::OffsetDateTime;

/// Appends that are measured one by one.
const MEASURED: usize = 10_000;
/// Events in the journal that is read.
const READ: usize = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let holder = Holder {
        user: "benchmark".into(),
        host: "here".into(),
        pid: std::process::id(),
        command: "benchmark".into(),
        since: OffsetDateTime::UNIX_EPOCH,
    };
    let event = |number: usize| Event::Intended {
        step: StepId::new(format!("machines/k0s-worker-{}/create", number % 500)),
        what: format!("create virtual machine k0s-worker-{} in zone 1", number % 500),
    };

    let journal = Journal::open_to_write(directory.path(), &holder, Durability::Disk)?;
    let mut milliseconds = Vec::with_capacity(MEASURED);
    for number in 0..MEASURED {
        let began = Instant::now();
        journal.append(OffsetDateTime::UNIX_EPOCH, event(number))?;
        milliseconds.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    drop(journal);
    milliseconds.sort_by(f64::total_cmp);
    let percentile = |share: f64| milliseconds[((MEASURED - 1) as f64 * share) as usize];
    println!(
        "append, durable: p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        percentile(0.5),
        percentile(0.99),
        percentile(1.0)
    );

    let journal = Journal::open_to_write(directory.path(), &holder, Durability::Process)?;
    for number in MEASURED..READ {
        journal.append(OffsetDateTime::UNIX_EPOCH, event(number))?;
    }
    drop(journal);
    let began = Instant::now();
    let journal = Journal::open_to_read(directory.path())?.ok_or("the journal is gone")?;
    let state = journal.state()?;
    println!("read and fold {} events: {:.0} ms", state.sequence, began.elapsed().as_secs_f64() * 1000.0);
    Ok(())
}

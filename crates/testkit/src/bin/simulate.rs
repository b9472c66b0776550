//! `cargo xtask simulate`: plays seeds and says which of them broke a rule.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use testkit::simulation::campaign::{Options, Summary, run, scratch};
use tokio::time::Instant;

/// A simulation is mostly JSON: small pieces of memory that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: cargo xtask simulate --seeds N [--from S] [--plain] [--threads T] [--show]

  --seeds N    play N seeds
  --from S     beginning with this one (0)
  --plain      small clusters with short lives, and Azure without TLS: less real, but more seeds in the same time
  --threads T  on so many threads (all processors)
  --show       show what the seeds stand for, and play nothing";

fn main() -> ExitCode {
    let Some((mut options, show)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if show {
        for seed in options.from..options.from + options.seeds {
            print!("seed {seed}\n{}", testkit::simulation::scenario::Scenario::draw(seed, options.is_plain));
        }
        return ExitCode::SUCCESS;
    }
    let directory = match scratch() {
        Ok(directory) => directory,
        Err(error) => {
            eprintln!("no temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    options.directory = directory.path().to_owned();
    let began = Instant::now();
    // The panics of a seed are part of its result.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let mut shown = 0;
    let summary = run(&options, |summary| {
        for failed in &summary.failed[shown..] {
            print!("{}", failed.report(options.is_plain));
        }
        shown = summary.failed.len();
        eprintln!(
            "{} of {} seeds, {} failed, {:.0} s",
            summary.seeds,
            options.seeds,
            shown,
            began.elapsed().as_secs_f64()
        );
        let _unimportant = std::io::stdout().flush();
    });
    print!("{}", totals(&summary, began.elapsed().as_secs_f64()));
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(Options, bool)> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let mut options = Options { from: 0, seeds: 0, is_plain: false, threads, directory: PathBuf::new() };
    let mut show = false;
    #[expect(clippy::disallowed_methods, reason = "a program of its own, not a part of the product")]
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => options.seeds = arguments.next()?.parse().ok()?,
            "--from" => options.from = arguments.next()?.parse().ok()?,
            "--threads" => options.threads = arguments.next()?.parse().ok()?,
            "--plain" => options.is_plain = true,
            "--show" => show = true,
            _ => return None,
        }
    }
    (options.seeds > 0 && options.threads > 0).then_some((options, show))
}

fn totals(summary: &Summary, seconds: f64) -> String {
    let list = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let traffic = &summary.traffic;
    format!(
        "{} seeds ({} of them twice), {} failed, in {seconds:.1} s\n\
         {} commands, {} died, {} asked to stop; {:.0} h of world time\n\
         {} lives, {} of them with child clusters: {} teardowns refused, {} lives ended with nothing left, {} with what is left named\n\
         {} connections, {:.1} MB sent, {:.1} MB received\n\
         world faults: {}; never struck: {}\nnetwork faults: {}\ndigest {}\n",
        summary.seeds,
        summary.twice,
        summary.failed.len(),
        summary.commands,
        summary.crashes,
        summary.interrupts,
        summary.world_seconds as f64 / 3600.0,
        summary.children.lives,
        summary.children.with_children,
        summary.children.refused,
        summary.children.deleted,
        summary.children.named,
        traffic.connections,
        traffic.bytes_sent as f64 / 1e6,
        traffic.bytes_received as f64 / 1e6,
        list(summary.faults.iter().map(|(name, times)| format!("{name} {times}")).collect()),
        list(summary.idle()),
        list(traffic.troubles.iter().map(|(name, times)| format!("{name} {times}")).collect()),
        summary.digest(),
    )
}

//! Many seeds on several threads, each seed on a runtime of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{Fates, Played, Violation, network::Traffic, play, scenario::Scenario};

/// Every so many-th seed is played twice.
const TWICE_EVERY: u64 = 10;
/// After so many failures it is not worth going on.
const FAILURES_LIMIT: usize = 10;
/// A seed that takes longer than this in real time waits for something that will never happen.
const REAL_TIME_LIMIT: Duration = Duration::from_secs(300);
/// A thread that plays no seed.
const NOTHING: u64 = u64::MAX;
/// How often progress is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// What to play.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Small clusters, and Azure without TLS.
    pub is_plain: bool,
    /// On how many threads.
    pub threads: u64,
    /// Where environments are kept while they live.
    pub directory: PathBuf,
}

/// A seed that broke a rule.
#[derive(Debug, Clone)]
pub struct Failed {
    /// What it stands for.
    pub scenario: Scenario,
    /// What was broken.
    pub violation: Violation,
}

impl Failed {
    /// What a person needs to look into it.
    pub fn report(&self, is_plain: bool) -> String {
        let Self { scenario, violation } = self;
        let (seed, plain) = (scenario.seed, if is_plain { " --plain" } else { "" });
        format!(
            "\nseed {seed} breaks a rule\n  {violation}\n{scenario}  again: cargo xtask simulate --from {seed} --seeds 1{plain}\n\n"
        )
    }
}

/// A directory for environments while they live: in memory where that is possible.
pub fn scratch() -> io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("k0rdent-simulation-").tempdir_in(parent)
}

/// What was played so far.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds.
    pub seeds: u64,
    /// Of those, how many were played twice.
    pub twice: u64,
    /// Commands.
    pub commands: u64,
    /// Commands that died.
    pub crashes: u64,
    /// Commands that were asked to stop.
    pub interrupts: u64,
    /// World seconds that passed.
    pub world_seconds: u64,
    /// What passed through all networks.
    pub traffic: Traffic,
    /// Faults of the world by name.
    pub faults: BTreeMap<String, u64>,
    /// Those of them that have made a difference somewhere.
    pub struck: BTreeSet<String>,
    /// What became of child clusters.
    pub children: Fates,
    /// What failed.
    pub failed: Vec<Failed>,
    /// The digest of every seed.
    digests: BTreeMap<u64, String>,
}

impl Summary {
    /// The faults that were drawn and have never made a difference: they prove nothing.
    pub fn idle(&self) -> Vec<String> {
        self.faults.keys().filter(|fault| !self.struck.contains(*fault)).cloned().collect()
    }

    /// One digest of all that happened.
    pub fn digest(&self) -> String {
        let mut all = Sha256::new();
        self.digests.values().for_each(|digest| all.update(digest));
        hex::encode(&all.finalize()[..8])
    }

    fn add(&mut self, scenario: Scenario, twice: bool, result: Result<Played, Violation>) {
        self.seeds += 1;
        self.twice += u64::from(twice);
        for fault in scenario.acts.iter().flat_map(|act| &act.faults) {
            *self.faults.entry(format!("{:?}", fault.name)).or_default() += 1;
        }
        match result {
            Ok(played) => {
                self.commands += played.commands;
                self.crashes += played.crashes;
                self.interrupts += played.interrupts;
                self.world_seconds += played.seconds;
                self.struck.extend(played.struck.iter().map(|fault| format!("{fault:?}")));
                let Fates { lives, with_children, refused, deleted, named } = &played.children;
                self.children.lives += lives;
                self.children.with_children += with_children;
                self.children.refused += refused;
                self.children.deleted += deleted;
                self.children.named += named;
                self.traffic.connections += played.traffic.connections;
                self.traffic.bytes_sent += played.traffic.bytes_sent;
                self.traffic.bytes_received += played.traffic.bytes_received;
                for (trouble, times) in &played.traffic.troubles {
                    *self.traffic.troubles.entry(trouble).or_default() += times;
                }
                self.digests.insert(scenario.seed, played.trace.digest());
            }
            Err(violation) => self.failed.push(Failed { scenario, violation }),
        }
    }
}

/// Plays all seeds, or stops after too many failures. `progress` is called now and then, and for each failure.
pub fn run(options: &Options, mut progress: impl FnMut(&Summary)) -> Summary {
    let (next, stopped) = (AtomicU64::new(options.from), AtomicBool::new(false));
    let playing: Vec<AtomicU64> = (0..options.threads).map(|_| AtomicU64::new(NOTHING)).collect();
    let (report, reports) = mpsc::channel();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for playing in &playing {
            let (report, next, stopped) = (report.clone(), &next, &stopped);
            scope.spawn(move || work(options, next, stopped, playing, &report));
        }
        drop(report);
        let (mut reported, mut heard) = (Instant::now(), Instant::now());
        loop {
            match reports.recv_timeout(REPORT_INTERVAL) {
                Ok((scenario, twice, result)) => {
                    heard = Instant::now();
                    let failures = summary.failed.len();
                    summary.add(scenario, twice, result);
                    if summary.failed.len() > failures {
                        progress(&summary);
                    }
                    stopped.fetch_or(summary.failed.len() >= FAILURES_LIMIT, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) if heard.elapsed() > REAL_TIME_LIMIT => {
                    progress(&summary);
                    // Threads cannot be ended.
                    let seeds = playing.iter().map(|seed| seed.load(Ordering::Relaxed)).filter(|seed| *seed != NOTHING);
                    eprintln!("waiting for what never happens: seeds {:?}", seeds.collect::<Vec<_>>());
                    std::process::exit(1);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                progress(&summary);
            }
        }
    });
    summary
}

type Report = (Scenario, bool, Result<Played, Violation>);

/// Plays one seed after the other until there is none left.
fn work(options: &Options, next: &AtomicU64, stopped: &AtomicBool, playing: &AtomicU64, report: &mpsc::Sender<Report>) {
    while !stopped.load(Ordering::Relaxed) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= options.from + options.seeds {
            return;
        }
        playing.store(seed, Ordering::Relaxed);
        let scenario = Scenario::draw(seed, options.is_plain);
        let twice = seed.is_multiple_of(TWICE_EVERY);
        let result =
            if twice { agreeing(&scenario, options) } else { play(&scenario, &options.directory, options.is_plain) };
        playing.store(NOTHING, Ordering::Relaxed);
        if report.send((scenario, twice, result)).is_err() {
            return;
        }
    }
}

/// Plays a seed twice; nothing may differ.
fn agreeing(scenario: &Scenario, options: &Options) -> Result<Played, Violation> {
    let first = play(scenario, &options.directory, options.is_plain)?;
    let second = play(scenario, &options.directory, options.is_plain)?;
    let essence = |played: &Played| (played.trace.digest(), played.seconds, played.traffic.clone());
    if essence(&first) == essence(&second) {
        return Ok(first);
    }
    let difference = first.trace.first_difference(&second.trace);
    let detail = format!("{:?} and {:?}; first {difference:?}", essence(&first), essence(&second));
    Err(Violation { rule: "the same seed plays the same", detail })
}

//! `cargo xtask kill-sweep`: the program as it is shipped, against a served twin, struck by signals at random instants and
//! started again until it is done: deployed, made larger and smaller, taken apart, and reset in every manner.
//!
//! What a simulation cannot kill is killed here: the journal in the middle of a write, the archive half made. Real time
//! decides what exactly is struck, so a failure need not come again: what a life has left behind is kept.
//!
//! - [`program`]: the program, its signals, and the served twin
//! - [`judge`]: what must hold

mod judge;
mod program;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use program::{Blow, Program};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tokio::time::Instant;

const USAGE: &str = "usage: cargo xtask kill-sweep --kills N [--seed S] [--hunt] [--seconds N] [--program FILE]

  --kills N       strike the program N times
  --seed S        decides when, and how (0)
  --hunt          go on after a failure, each life in a world of its own
  --seconds N     begin no life after so many seconds
  --program FILE  this program, instead of the one that was built";

/// World seconds per second: a deployment then takes some four, two or one seconds of computing and waiting.
const SPEEDS: [u32; 3] = [200, 600, 1200];
/// A blow comes within so many milliseconds, at the first of these speeds.
const WITHIN_MILLISECONDS: u32 = 4500;
/// How long a run may take in real time: at any of these speeds, far more than it needs.
const LONGEST_RUN: Duration = Duration::from_secs(240);
/// The most blows that one deployment, one change and one reset survive before they may finish.
const BLOWS: (u32, u32, u32) = (9, 4, 5);
/// Failures after which it is not worth hunting on.
const FAILURES_LIMIT: usize = 10;

/// What is asked for.
struct Options {
    kills: u32,
    seed: u64,
    hunt: bool,
    seconds: Option<u64>,
    program: Option<PathBuf>,
}

/// What has happened so far.
#[derive(Default)]
struct Score {
    killed: u32,
    missed: u32,
    lives: u32,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let Some(options) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let mut score = Score::default();
    if let Err(message) = sweep(&options, &mut score) {
        score.failures.push(message);
    }
    let Score { killed, missed, lives, failures } = &score;
    let seconds = began.elapsed().as_secs_f64();
    println!("{killed} blows, and {missed} that came too late, in {lives} lives of a cluster and {seconds:.0} s");
    if failures.is_empty() {
        println!("nothing was made twice, nothing was lost, nothing is left");
        return ExitCode::SUCCESS;
    }
    eprintln!("kill-sweep: {} failures\n{}", failures.len(), failures.join("\n"));
    eprintln!(
        "  again, as far as time allows: cargo xtask kill-sweep --kills {} --seed {}",
        options.kills, options.seed
    );
    ExitCode::FAILURE
}

fn arguments() -> Option<Options> {
    let mut options = Options { kills: 0, seed: 0, hunt: false, seconds: None, program: None };
    #[expect(clippy::disallowed_methods, reason = "a program of its own, not a part of the product")]
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--kills" => options.kills = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            "--hunt" => options.hunt = true,
            "--seconds" => options.seconds = Some(arguments.next()?.parse().ok()?),
            "--program" => options.program = Some(arguments.next()?.into()),
            _ => return None,
        }
    }
    (options.kills > 0).then_some(options)
}

/// Lives of clusters until all blows are spent.
fn sweep(options: &Options, score: &mut Score) -> Result<(), String> {
    let here = std::env::current_exe().map_err(text)?;
    let binary = options.program.clone().unwrap_or_else(|| here.with_file_name("k0rdentctl"));
    if !binary.is_file() {
        return Err(format!("{} is missing: cargo build --release --package k0rdentctl", binary.display()));
    }
    let until = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    while score.killed < options.kills && until.is_none_or(|until| Instant::now() < until) {
        let directory = tempfile::Builder::new().prefix("kill-sweep-").tempdir().map_err(text)?;
        let ended = live(&binary, directory.path(), options, score, &mut random);
        score.lives += 1;
        eprintln!(
            "{} of {} blows after {} lives, {} failures",
            score.killed,
            options.kills,
            score.lives,
            score.failures.len()
        );
        if let Err(why) = ended {
            // What the program left behind is the evidence.
            let kept = directory.keep();
            let why = format!("life {}: {why}\n  everything is kept in {}", score.lives, kept.display());
            eprintln!("{why}");
            score.failures.push(why);
            if !options.hunt || score.failures.len() >= FAILURES_LIMIT {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What the cluster is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Size {
    controllers: u32,
    workers: u32,
}

impl Size {
    fn nodes(self) -> Vec<String> {
        let controllers = (1..=self.controllers).map(|number| format!("k0s-controller-{number}"));
        controllers.chain((1..=self.workers).map(|number| format!("k0s-worker-{number}"))).collect()
    }

    fn configuration(self) -> String {
        let Self { controllers, workers } = self;
        format!(
            "cluster:\n  controllers: {{count: {controllers}, zones: [1, 2, 3]}}\n  workers: {{count: {workers}, zones: [1, 2]}}\n"
        )
    }
}

/// The life of one cluster in a world of its own.
fn live(
    binary: &Path,
    directory: &Path,
    options: &Options,
    score: &mut Score,
    random: &mut ChaCha8Rng,
) -> Result<(), String> {
    let mut draw = |below: u32| random.next_u32() % below;
    let speed = SPEEDS[draw(SPEEDS.len() as u32) as usize];
    let mut size = Size { controllers: [1, 1, 3][draw(3) as usize], workers: draw(4) };
    let seed = options.seed + u64::from(score.lives);
    let program = Program::begin(binary, directory, speed, seed)?;
    let mut torment = Torment { program: &program, score, draw: &mut draw, speed, kills: options.kills };
    let result = torment.life(&mut size);
    if result.is_err() {
        program.keep_evidence();
    }
    result
}

struct Torment<'a> {
    program: &'a Program,
    score: &'a mut Score,
    draw: &'a mut dyn FnMut(u32) -> u32,
    speed: u32,
    kills: u32,
}

impl Torment<'_> {
    fn life(&mut self, size: &mut Size) -> Result<(), String> {
        self.program.configure(&size.configuration())?;
        self.deploy(*size, BLOWS.0)?;
        for _ in 0..(self.draw)(3) {
            match (self.draw)(4) {
                0 => size.workers = (self.draw)(4),
                1 => size.controllers = [1, 3][(self.draw)(2) as usize],
                2 => self.command(&["uninstall", "k0rdent", "-y"], BLOWS.1)?,
                _ => {
                    self.command(&["uninstall", "k0rdent", "-y"], BLOWS.1)?;
                    self.command(&["uninstall", "k0s", "-y"], BLOWS.1)?;
                }
            }
            self.program.configure(&size.configuration())?;
            self.deploy(*size, BLOWS.1)?;
        }
        self.reset()
    }

    fn deploy(&mut self, size: Size, most: u32) -> Result<(), String> {
        let before = self.program.ledger()?.len();
        self.command(&["deploy", "-y"], most)?;
        judge::deployed(self.program, &size.nodes(), before)
    }

    /// Each attempt in a manner of its own; the last one is orderly.
    fn reset(&mut self) -> Result<(), String> {
        const MANNERS: [&[&str]; 4] = [
            &["reset", "-y"],
            &["reset", "-y", "--force"],
            &["reset", "-y", "--fast"],
            &["reset", "-y", "--fast", "--no-wait"],
        ];
        let times = 1 + (self.draw)(BLOWS.2);
        for _ in 0..times {
            let manner = MANNERS[(self.draw)(MANNERS.len() as u32) as usize];
            if self.strike(manner)? && !manner.contains(&"--no-wait") {
                return judge::reset(self.program);
            }
        }
        // There may be nothing left to reset, and that is said.
        self.finish(&["reset", "-y"])?;
        judge::reset(self.program)
    }

    /// Runs a command, striking it up to so many times, and then to its end.
    fn command(&mut self, arguments: &[&str], most: u32) -> Result<(), String> {
        let times = (1 + (self.draw)(most)).min(self.kills.saturating_sub(self.score.killed));
        for _ in 0..times {
            if self.strike(arguments)? {
                return Ok(());
            }
        }
        self.finish(arguments)
    }

    /// Runs a command and strikes it; whether it was done before that.
    fn strike(&mut self, arguments: &[&str]) -> Result<bool, String> {
        let within = WITHIN_MILLISECONDS * SPEEDS[0] / self.speed.max(SPEEDS[0]) + 300;
        let instant = Duration::from_millis(u64::from((self.draw)(within)));
        let pause = Duration::from_millis(u64::from((self.draw)(400)));
        let blow = match (self.draw)(10) {
            0..=4 => Blow::Kill,
            5 => Blow::Interrupt,
            6 => Blow::InterruptTwice(pause),
            7 | 8 => Blow::Terminate,
            _ => Blow::Pause(pause),
        };
        match self.program.run(arguments, Some((instant, blow)), LONGEST_RUN)? {
            // Dead, or stopped because it was asked to.
            program::End::Killed | program::End::Code(130) => self.score.killed += 1,
            program::End::Code(0) => {
                self.score.missed += u32::from(!matches!(blow, Blow::Pause(_)));
                self.score.killed += u32::from(matches!(blow, Blow::Pause(_)));
                return Ok(true);
            }
            other => return Err(format!("`{}` under {blow:?} after {instant:?} {other}", arguments.join(" "))),
        }
        Ok(false)
    }

    /// Runs a command to its end.
    fn finish(&mut self, arguments: &[&str]) -> Result<(), String> {
        match self.program.run(arguments, None, LONGEST_RUN)? {
            program::End::Code(0) => Ok(()),
            other => Err(format!("`{}`, undisturbed, {other}", arguments.join(" "))),
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

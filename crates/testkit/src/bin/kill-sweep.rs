//! `cargo xtask kill-sweep`: the program as it is shipped, against a served twin, killed with SIGKILL at random instants
//! and started again until it is done.
//!
//! What a simulation cannot kill is killed here: the journal in the middle of a write, the archive half made. Real time
//! decides what exactly is struck, so a failure need not come again.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use serde_json::Value;
use tokio::time::Instant;

const USAGE: &str = "usage: cargo xtask kill-sweep --kills N [--seed S]

  --kills N  kill the program N times
  --seed S   decides when (0)";

/// World seconds per second: a deployment then takes about four seconds.
const SPEED: &str = "200";
/// A kill comes within so many milliseconds.
const WITHIN_MILLISECONDS: u32 = 4500;
/// How long a run may take in real time: at this speed, far more than any deadline.
const LONGEST_RUN: Duration = Duration::from_secs(240);
/// How long the twin may take to begin.
const TWIN_PATIENCE: Duration = Duration::from_secs(20);
/// How often a child is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The most kills that one cluster survives before it may finish, deploying and resetting.
const KILLS_A_LIFE: (u32, u32) = (9, 5);
/// One controller that workers join.
const CONFIGURATION: &str = "cluster:\n  controllers: {count: 1, zones: [1]}\n  workers: {count: 2, zones: [1, 2]}\n";
/// The machines of that.
const MACHINES: usize = 3;

fn main() -> ExitCode {
    let Some((kills, seed)) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match sweep(kills, seed) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!(
                "kill-sweep: {message}\n  again, as far as time allows: cargo xtask kill-sweep --kills {kills} --seed {seed}"
            );
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<(u32, u64)> {
    let (mut kills, mut seed) = (0, 0);
    #[expect(clippy::disallowed_methods, reason = "a program of its own, not a part of the product")]
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--kills" => kills = arguments.next()?.parse().ok()?,
            "--seed" => seed = arguments.next()?.parse().ok()?,
            _ => return None,
        }
    }
    (kills > 0).then_some((kills, seed))
}

/// Lives of clusters until all kills are spent.
fn sweep(kills: u32, seed: u64) -> Result<String, String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let began = Instant::now();
    let mut sweep = Sweep::begin(directory.path(), kills, seed)?;
    let result = sweep.live();
    let Sweep { killed, missed, lives, .. } = &sweep;
    let seconds = began.elapsed().as_secs_f64();
    let summary = format!(
        "{killed} kills, and {missed} that came too late, in {lives} lives of a cluster and {seconds:.0} s: nothing was made twice, nothing is left"
    );
    match result {
        Ok(()) => Ok(summary),
        Err(why) => {
            // What the program left behind is the evidence.
            let kept = directory.keep();
            Err(format!("{why}\n  after {killed} kills; everything is kept in {}", kept.display()))
        }
    }
}

/// A process that dies with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

struct Sweep {
    binary: PathBuf,
    directory: PathBuf,
    admin: String,
    random: ChaCha8Rng,
    kills_left: u32,
    killed: u32,
    missed: u32,
    lives: u32,
    _twin: Running,
}

impl Sweep {
    fn begin(directory: &Path, kills: u32, seed: u64) -> Result<Self, String> {
        let here = std::env::current_exe().map_err(text)?;
        let binary = here.with_file_name("k0rdentctl");
        if !binary.is_file() {
            return Err(format!("{} is missing: cargo build --release --package k0rdentctl", binary.display()));
        }
        fs_err::write(directory.join("k0rdent.yaml"), CONFIGURATION).map_err(text)?;
        let mut twin = command(&binary);
        twin.args(["twin", "serve", "--speed", SPEED, "--seed", &seed.to_string(), "--data-dir"])
            .arg(directory.join("twin"));
        twin.stdout(log(directory, "twin")?).stderr(log(directory, "twin")?);
        let twin = Running(twin.spawn().map_err(text)?);
        let random = ChaCha8Rng::seed_from_u64(seed);
        let directory = directory.to_owned();
        let admin = admin(&directory.join("twin/endpoints.json"))?;
        let (killed, missed, lives) = (0, 0, 0);
        Ok(Self { binary, directory, admin, random, kills_left: kills, killed, missed, lives, _twin: twin })
    }

    fn live(&mut self) -> Result<(), String> {
        while self.kills_left > 0 {
            self.lives += 1;
            self.torment("deploy", KILLS_A_LIFE.0)?;
            self.judge_deployed()?;
            self.torment("reset", KILLS_A_LIFE.1)?;
            self.judge_reset()?;
            eprintln!("{} kills left after {} lives", self.kills_left, self.lives);
        }
        Ok(())
    }

    /// Runs a command, killing it up to so many times, and then to its end.
    fn torment(&mut self, what: &str, most: u32) -> Result<(), String> {
        let times = (1 + self.random.next_u32() % most).min(self.kills_left);
        for _ in 0..times {
            let instant = Duration::from_millis(u64::from(self.random.next_u32() % WITHIN_MILLISECONDS));
            match self.run(what, instant)? {
                None => {
                    self.killed += 1;
                    self.kills_left -= 1;
                }
                Some(0) => {
                    self.missed += 1;
                    return Ok(());
                }
                Some(code) => return Err(format!("`{what}` ended with {code}; see {what}.log")),
            }
        }
        match self.run(what, LONGEST_RUN)? {
            Some(0) => Ok(()),
            Some(code) => Err(format!("`{what}` ended with {code} after {times} kills; see {what}.log")),
            None => Err(format!("`{what}` does not end")),
        }
    }

    /// Runs a command; nothing if it had to be killed after this time.
    fn run(&self, what: &str, patience: Duration) -> Result<Option<i32>, String> {
        let mut command = self.program();
        command.args([what, "-y", "--config"]).arg(self.directory.join("k0rdent.yaml"));
        command.stdout(log(&self.directory, what)?).stderr(log(&self.directory, what)?);
        let mut running = Running(command.spawn().map_err(text)?);
        let began = Instant::now();
        loop {
            if let Some(status) = running.0.try_wait().map_err(text)? {
                return Ok(Some(status.code().unwrap_or(-1)));
            }
            if began.elapsed() >= patience {
                return Ok(None);
            }
            rest();
        }
    }

    fn program(&self) -> Command {
        let mut command = command(&self.binary);
        command.arg("--twin").arg(self.directory.join("twin")).arg("--home").arg(self.home());
        command
    }

    fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    fn judge_deployed(&self) -> Result<(), String> {
        let output = self.program().args(["status", "--output", "json"]).output().map_err(text)?;
        let status: Value = serde_json::from_slice(&output.stdout).map_err(text)?;
        let phase = status["phase"].as_str().unwrap_or_default();
        let machine = |resource: &&Value| resource["type"] == "Microsoft.Compute/virtualMachines";
        let machines = self.ask("/resources")?.as_array().map_or(0, |all| all.iter().filter(machine).count());
        if (phase, machines) != ("k0rdent_deployed", MACHINES) {
            return Err(format!("after `deploy`, the status is {phase} and there are {machines} machines"));
        }
        self.judge_ledger()
    }

    fn judge_reset(&self) -> Result<(), String> {
        let left = self.ask("/resources")?;
        if left.as_array().is_none_or(|left| !left.is_empty()) {
            return Err(format!("after `reset`, there is {left}"));
        }
        let entries = fs_err::read_dir(self.home()).map_err(text)?;
        let names: BTreeSet<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        if !names.iter().all(|name| name == "old_deployments") {
            return Err(format!("after `reset`, the directory has {names:?}"));
        }
        self.judge_ledger()
    }

    /// Nothing was created while it existed, and never were there two clusters.
    fn judge_ledger(&self) -> Result<(), String> {
        let ledger = self.ask("/ledger")?;
        let mut alive = BTreeSet::new();
        for entry in ledger.as_array().into_iter().flatten().filter(|entry| entry["kind"] == "change") {
            let id = entry["object"].as_str().unwrap_or_default().to_lowercase();
            match entry["verb"].as_str() {
                Some("created") if id.starts_with("/subscriptions/") && !alive.insert(id.clone()) => {
                    return Err(format!("{id} was created twice"));
                }
                Some("deleted") => drop(alive.remove(&id)),
                _ => {}
            }
            let groups = alive.iter().filter(|id| !id.contains("/providers/")).count();
            if groups > 1 {
                return Err(format!("{id} is the resource group of a second cluster"));
            }
        }
        Ok(())
    }

    /// Asks the twin's administrator.
    fn ask(&self, path: &str) -> Result<Value, String> {
        let mut stream = TcpStream::connect(&self.admin).map_err(text)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin).map_err(text)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(text)?;
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|head| &answer[head + 4..]);
        serde_json::from_slice(body.unwrap_or_default()).map_err(|error| format!("{path}: {error}"))
    }
}

/// A program with nobody's account.
#[expect(clippy::disallowed_methods, reason = "it tests a program by running it")]
fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().stdin(Stdio::null());
    command
}

/// What a command says is added to what it said before.
fn log(directory: &Path, name: &str) -> Result<Stdio, String> {
    let file = fs_err::OpenOptions::new().create(true).append(true).open(directory.join(format!("{name}.log")));
    Ok(file.map_err(text)?.into_parts().0.into())
}

/// Where the twin's administrator answers, once it does.
fn admin(file: &Path) -> Result<String, String> {
    let began = Instant::now();
    while began.elapsed() < TWIN_PATIENCE {
        let endpoints = fs_err::read_to_string(file).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let admin =
            endpoints.and_then(|endpoints| Some(endpoints["admin"].as_str()?.strip_prefix("http://")?.to_owned()));
        if let Some(admin) = admin {
            return Ok(admin);
        }
        rest();
    }
    Err("the twin does not begin; see twin.log".to_owned())
}

/// Until the next look at another process.
#[expect(clippy::disallowed_methods, reason = "another process has a clock of its own")]
fn rest() {
    std::thread::sleep(LOOK_INTERVAL);
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

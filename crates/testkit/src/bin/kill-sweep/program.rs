//! The program, the signals that strike it, and the served twin that it talks to.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::text;

/// How long the twin may take to begin.
const TWIN_PATIENCE: Duration = Duration::from_secs(20);
/// How often a child is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What happens to a run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGINT.
    Interrupt,
    /// SIGINT, and again after so long.
    InterruptTwice(Duration),
    /// SIGTERM.
    Terminate,
    /// SIGSTOP, and SIGCONT after so long.
    Pause(Duration),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With this code.
    Code(i32),
    /// By a signal.
    Killed,
    /// Not at all.
    Never,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with {code}"),
            Self::Killed => write!(formatter, "was killed"),
            Self::Never => write!(formatter, "does not end"),
        }
    }
}

/// A process that dies with its owner.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) -> Result<(), String> {
        let mut kill = command(Path::new("/bin/kill"));
        // It may have ended by itself.
        kill.args(["-s", name, &self.0.id().to_string()]).stderr(Stdio::null()).status().map(drop).map_err(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The program in one environment, and its world.
pub(super) struct Program {
    binary: PathBuf,
    directory: PathBuf,
    admin: String,
    _twin: Running,
}

impl Program {
    /// A new world, and a directory in which nothing is yet.
    pub(super) fn begin(binary: &Path, directory: &Path, speed: u32, seed: u64) -> Result<Self, String> {
        let mut twin = command(binary);
        twin.args(["twin", "serve", "--speed", &speed.to_string(), "--seed", &seed.to_string(), "--data-dir"]);
        twin.arg(directory.join("twin")).stdout(log(directory, "twin")?).stderr(log(directory, "twin")?);
        let twin = Running(twin.spawn().map_err(text)?);
        let admin = admin(&directory.join("twin/endpoints.json"))?;
        Ok(Self { binary: binary.to_owned(), directory: directory.to_owned(), admin, _twin: twin })
    }

    /// What the cluster is to be from now on.
    pub(super) fn configure(&self, text_of: &str) -> Result<(), String> {
        fs_err::write(self.directory.join("k0rdent.yaml"), text_of).map_err(text)
    }

    /// The environment's directory.
    pub(super) fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// Runs a command, and strikes it after so long, if it has not ended by then.
    pub(super) fn run(
        &self,
        arguments: &[&str],
        blow: Option<(Duration, Blow)>,
        patience: Duration,
    ) -> Result<End, String> {
        let mut output = fs_err::OpenOptions::new();
        let mut output = output.create(true).append(true).open(self.directory.join("output.log")).map_err(text)?;
        writeln!(output, "--- {} {blow:?}", arguments.join(" ")).map_err(text)?;
        let mut command = self.command();
        command.args(arguments).stdout(log(&self.directory, "output")?).stderr(log(&self.directory, "output")?);
        let mut running = Running(command.spawn().map_err(text)?);
        let ended = |running: &mut Running, within: Duration| -> Result<Option<End>, String> {
            let began = Instant::now();
            loop {
                if let Some(status) = running.0.try_wait().map_err(text)? {
                    return Ok(Some(status.code().map_or(End::Killed, End::Code)));
                }
                if began.elapsed() >= within {
                    return Ok(None);
                }
                rest();
            }
        };
        if let Some((instant, blow)) = blow {
            if let Some(end) = ended(&mut running, instant)? {
                return Ok(end);
            }
            let (first, then) = match blow {
                Blow::Kill => ("KILL", None),
                Blow::Interrupt => ("INT", None),
                Blow::InterruptTwice(pause) => ("INT", Some((pause, "INT"))),
                Blow::Terminate => ("TERM", None),
                Blow::Pause(pause) => ("STOP", Some((pause, "CONT"))),
            };
            running.signal(first)?;
            if let Some((pause, second)) = then {
                if let Some(end) = ended(&mut running, pause)? {
                    return Ok(end);
                }
                running.signal(second)?;
            }
        }
        Ok(ended(&mut running, patience)?.unwrap_or(End::Never))
    }

    /// What a command prints, if it succeeds.
    pub(super) fn says(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command().args(arguments).output().map_err(text)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("`{}` ended with {:?}: {said}", arguments.join(" "), output.status.code()));
        }
        String::from_utf8(output.stdout).map_err(text)
    }

    /// What a command prints as JSON, if it succeeds.
    pub(super) fn document(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.says(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&output).map_err(|error| format!("`{}`: {error}", arguments.join(" ")))
    }

    fn command(&self) -> Command {
        let mut command = command(&self.binary);
        command.arg("--twin").arg(self.directory.join("twin")).arg("--home").arg(self.home());
        command.arg("--config").arg(self.directory.join("k0rdent.yaml"));
        command
    }

    /// What was asked of the world, and what changed in it.
    pub(super) fn ledger(&self) -> Result<Vec<Value>, String> {
        Ok(self.ask("/ledger")?.as_array().cloned().unwrap_or_default())
    }

    /// What exists in Azure.
    pub(super) fn resources(&self) -> Result<Vec<Value>, String> {
        Ok(self.ask("/resources")?.as_array().cloned().unwrap_or_default())
    }

    /// Writes down what only the world knows, next to what the program has left.
    pub(super) fn keep_evidence(&self) {
        for path in ["/ledger", "/resources", "/now"] {
            let answer = self.ask(path).map_or_else(|error| error, |value| format!("{value:#}"));
            // There is nobody to tell.
            let _unkept = fs_err::write(self.directory.join(format!("{}.json", &path[1..])), answer);
        }
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
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
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

//! A small shell on one machine: runs what the grammar has understood.
//!
//! Output is collected for each command and handed on when it ends. The world is entered only for moments; waiting is
//! done outside. During boot there is nobody who could wait: time is counted instead.

mod coreutils;
mod glance;
mod parse;
mod programs;
mod special;
mod test;
mod text;

use std::{collections::BTreeMap, future::Future, pin::Pin, time::Duration};

use russh::{ChannelMsg, ChannelReadHalf};

use self::parse::{Command, Connector, List, Part, Pipeline, Redirect, Word};
use super::{Machine, files};
use crate::{Twin, World};

pub(super) use self::{parse::parse, programs::packages_come};

/// What a command leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The exit code.
    pub(super) code: u32,
    /// Standard output.
    pub(super) stdout: Vec<u8>,
    /// Standard error.
    pub(super) stderr: Vec<u8>,
}

impl Outcome {
    /// Success, with something to say.
    pub(super) fn says(text: impl Into<Vec<u8>>) -> Self {
        Self { stdout: text.into(), ..Self::default() }
    }

    /// An exit code and one line on standard error.
    pub(super) fn fails(code: u32, line: impl std::fmt::Display) -> Self {
        Self { code, stderr: format!("{line}\n").into_bytes(), ..Self::default() }
    }

    /// An exit code and nothing else.
    pub(super) fn code(code: u32) -> Self {
        Self { code, ..Self::default() }
    }

    fn then(&mut self, next: Self) {
        self.code = next.code;
        self.stdout.extend_from_slice(&next.stdout);
        self.stderr.extend_from_slice(&next.stderr);
    }
}

/// The machine has been switched off or destroyed: nothing more happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

type Running<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Gone>> + Send + 'a>>;

/// Standard input.
#[derive(Default)]
pub(super) enum Input {
    /// At its end.
    #[default]
    Empty,
    /// From a file or another command.
    Bytes(Vec<u8>),
    /// From the client, until it says that this is all.
    Channel(ChannelReadHalf),
}

impl Input {
    async fn read(&mut self) -> Vec<u8> {
        match std::mem::take(self) {
            Self::Empty => Vec::new(),
            Self::Bytes(bytes) => bytes,
            Self::Channel(mut channel) => {
                let mut bytes = Vec::new();
                // The end of the connection ends the input too, as sshd has it.
                while let Some(message) = channel.wait().await {
                    match message {
                        ChannelMsg::Data { data } => bytes.extend_from_slice(&data),
                        ChannelMsg::Eof | ChannelMsg::Close => break,
                        _ => {}
                    }
                }
                bytes
            }
        }
    }
}

/// How the shell enters the world, and how it waits.
enum Kernel<'world> {
    Live(Twin),
    Boot { world: &'world mut World, spent: Duration },
}

/// One shell.
pub(super) struct Shell<'world> {
    kernel: Kernel<'world>,
    machine: String,
    epoch: u64,
    user: String,
    directory: String,
    variables: BTreeMap<String, String>,
    /// What a script was called with.
    arguments: Vec<String>,
    umask: u32,
    last_code: u32,
    exit_on_error: bool,
    exited: bool,
    /// Whether it is bash, which those who log in get, and not dash, which is `sh` (Debian): they complain differently.
    is_bash: bool,
    input: Input,
}

impl Shell<'static> {
    /// A shell for a user who has logged in.
    pub(super) fn logged_in(twin: Twin, key: &str, user: &str) -> Option<Self> {
        let epoch = twin.with(|world| world.machines.get(key).map(|machine| *machine.epoch.borrow()))?;
        let mut shell = Shell::new(Kernel::Live(twin), key, epoch, user);
        shell.directory = shell.machine(|machine| machine.home(user)).ok()?;
        shell.is_bash = true;
        Some(shell)
    }
}

impl<'world> Shell<'world> {
    /// Root's shell while cloud-init runs.
    pub(super) fn during_boot(world: &'world mut World, key: &str) -> Option<Self> {
        let epoch = *world.machines.get(key)?.epoch.borrow();
        Some(Self::new(Kernel::Boot { world, spent: Duration::ZERO }, key, epoch, "root"))
    }

    fn new(kernel: Kernel<'world>, key: &str, epoch: u64, user: &str) -> Self {
        Self {
            kernel,
            machine: key.into(),
            epoch,
            user: user.into(),
            directory: "/".into(),
            variables: BTreeMap::new(),
            arguments: Vec::new(),
            umask: 0o022,
            last_code: 0,
            exit_on_error: false,
            exited: false,
            is_bash: false,
            input: Input::Empty,
        }
    }

    /// Gives the shell its standard input.
    pub(super) fn feed(&mut self, input: Input) {
        self.input = input;
    }

    /// The time that a shell during boot would have taken.
    pub(super) fn spent(&self) -> Duration {
        match &self.kernel {
            Kernel::Live(_) => Duration::ZERO,
            Kernel::Boot { spent, .. } => *spent,
        }
    }

    /// Whether `exit` has been called.
    pub(super) fn has_exited(&self) -> bool {
        self.exited
    }

    fn world<R>(&mut self, visit: impl FnOnce(&mut World) -> R) -> R {
        match &mut self.kernel {
            Kernel::Live(twin) => twin.with(visit),
            Kernel::Boot { world, .. } => visit(world),
        }
    }

    /// Enters the machine, if it is still the one that the shell was started on.
    fn machine<R>(&mut self, visit: impl FnOnce(&mut Machine) -> R) -> Result<R, Gone> {
        let (key, epoch) = (self.machine.clone(), self.epoch);
        self.world(|world| {
            let machine = world.machines.get_mut(&key).filter(|machine| *machine.epoch.borrow() == epoch);
            machine.map(visit).ok_or(Gone)
        })
    }

    /// Enters the world, if the machine is still the one that the shell was started on.
    fn here<R>(&mut self, visit: impl FnOnce(&mut World, &str) -> R) -> Result<R, Gone> {
        self.machine(|_| ())?;
        let key = self.machine.clone();
        Ok(self.world(|world| visit(world, &key)))
    }

    async fn sleep(&mut self, duration: Duration) {
        match &mut self.kernel {
            Kernel::Live(twin) => twin.sleep(duration).await,
            Kernel::Boot { spent, .. } => *spent += duration,
        }
    }

    fn who(&mut self) -> Result<files::Who, Gone> {
        let user = self.user.clone();
        self.machine(|machine| machine.who(&user))
    }

    /// Runs a script.
    pub(super) fn run<'a>(&'a mut self, script: &str) -> Running<'a> {
        match parse(script) {
            Ok(list) => Box::pin(async move { self.run_list(&list).await }),
            Err(error) => Box::pin(async move { Ok(Outcome::fails(2, format!("sh: 1: {error}"))) }),
        }
    }

    fn run_list<'a>(&'a mut self, list: &'a List) -> Running<'a> {
        Box::pin(async move {
            let mut all = Outcome::code(0);
            for position in 0..list.0.len() {
                if let Some(outcome) = self.step(list, position).await? {
                    all.then(outcome);
                }
            }
            Ok(all)
        })
    }

    /// Runs the pipeline at `position`, if it is its turn.
    pub(super) async fn step(&mut self, list: &List, position: usize) -> Result<Option<Outcome>, Gone> {
        let Some((connector, pipeline)) = list.0.get(position) else { return Ok(None) };
        let wanted = match connector {
            Connector::Always => true,
            Connector::And => self.last_code == 0,
            Connector::Or => self.last_code != 0,
        };
        if !wanted || self.exited {
            return Ok(None);
        }
        let mut outcome = self.run_pipeline(pipeline).await?;
        if pipeline.negated {
            outcome.code = u32::from(outcome.code == 0);
        }
        self.last_code = outcome.code;
        let tested = list.0.get(position + 1).is_some_and(|(next, _)| *next != Connector::Always);
        if outcome.code != 0 && self.exit_on_error && !tested && !pipeline.negated {
            self.exited = true;
        }
        Ok(Some(outcome))
    }

    /// The commands of a pipeline run one after the other: each has all of its input when it starts.
    async fn run_pipeline(&mut self, pipeline: &Pipeline) -> Result<Outcome, Gone> {
        let mut errors = Vec::new();
        let mut last = Outcome::default();
        for (position, command) in pipeline.commands.iter().enumerate() {
            if position == 0 {
                last = self.run_command(command).await?;
            } else {
                let outer = std::mem::replace(&mut self.input, Input::Bytes(std::mem::take(&mut last.stdout)));
                let outcome = self.run_command(command).await;
                self.input = outer;
                last = outcome?;
            }
            errors.append(&mut last.stderr);
        }
        last.stderr = errors;
        Ok(last)
    }

    async fn run_command(&mut self, command: &Command) -> Result<Outcome, Gone> {
        let redirection = match self.redirect(&command.redirects).await? {
            Ok(redirection) => redirection,
            Err(outcome) => return Ok(outcome),
        };
        let outer = redirection.input.map(|bytes| std::mem::replace(&mut self.input, Input::Bytes(bytes)));
        let outcome = self.run_plain(command).await;
        if let Some(outer) = outer {
            self.input = outer;
        }
        self.deliver(outcome?, &redirection.streams)
    }

    async fn run_plain(&mut self, command: &Command) -> Result<Outcome, Gone> {
        if let Some(group) = &command.group {
            return self.run_list(group).await;
        }
        let mut words = Vec::new();
        for word in &command.words {
            words.extend(self.expand(word).await?);
        }
        let mut before = Vec::new();
        for (name, word) in &command.assignments {
            let value = self.expand(word).await?.join(" ");
            before.push((name.clone(), self.variables.insert(name.clone(), value)));
        }
        if words.is_empty() {
            return Ok(Outcome::code(0));
        }
        let outcome = self.execute(words).await;
        // Assignments in front of a command are for that command only.
        for (name, value) in before {
            match value {
                Some(value) => drop(self.variables.insert(name, value)),
                None => drop(self.variables.remove(&name)),
            }
        }
        outcome
    }

    /// Expands one word into any number of arguments.
    async fn expand(&mut self, word: &Word) -> Result<Vec<String>, Gone> {
        let mut fields: Vec<String> = Vec::new();
        let mut current: Option<String> = None;
        // `"$@"` is as many words as there are.
        let is_all = |part: &&Part| matches!(part, Part::Variable(name, None, true) if name == "@");
        if word.0.iter().any(|part| is_all(&part)) {
            return Ok(self.arguments.clone());
        }
        for part in &word.0 {
            let (text, quoted) = match part {
                Part::Text(text) => (text.clone(), true),
                Part::Variable(name, default, quoted) => {
                    let value = self.variable(name)?;
                    (if value.is_empty() { default.clone().unwrap_or(value) } else { value }, *quoted)
                }
                Part::Substitution(list, quoted) => {
                    let outcome = self.run_list(list).await?;
                    let text = String::from_utf8_lossy(&outcome.stdout).trim_end_matches('\n').to_owned();
                    (text, *quoted)
                }
            };
            if quoted {
                current.get_or_insert_default().push_str(&text);
                continue;
            }
            for (position, field) in text.split_whitespace().enumerate() {
                if position > 0 || text.starts_with(char::is_whitespace) {
                    fields.extend(current.take());
                }
                current.get_or_insert_default().push_str(field);
            }
            if text.ends_with(char::is_whitespace) {
                fields.extend(current.take());
            }
        }
        fields.extend(current);
        Ok(fields)
    }

    fn variable(&mut self, name: &str) -> Result<String, Gone> {
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        let user = self.user.clone();
        Ok(match name {
            "HOME" => self.machine(|machine| machine.home(&user))?,
            "USER" | "LOGNAME" => user,
            "PWD" => self.directory.clone(),
            "PATH" => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            "HOSTNAME" => self.machine(|machine| machine.hostname.clone())?,
            "?" => self.last_code.to_string(),
            "$" => "1000".into(),
            _ => String::new(),
        })
    }

    /// Opens the files that a command's streams are redirected to, in order.
    async fn redirect(&mut self, redirects: &[Redirect]) -> Result<Result<Redirection, Outcome>, Gone> {
        let mut redirection = Redirection { input: None, streams: [Sink::Stdout, Sink::Stderr] };
        for redirect in redirects {
            let (word, from) = match redirect {
                Redirect::Duplicate(from, to) => {
                    let sink = redirection.streams[usize::from(*to == 2)].clone();
                    redirection.streams[usize::from(*from == 2)] = sink;
                    continue;
                }
                Redirect::Output(from, word, _) => (word, *from),
                Redirect::Input(word) => (word, 0),
            };
            let path = files::absolute(&self.expand(word).await?.join(" "), &self.directory);
            let (who, mode) = (self.who()?, 0o666 & !self.umask);
            if let Redirect::Output(_, _, append) = redirect {
                let sink = match path.as_str() {
                    "/dev/null" => Sink::Nowhere,
                    "/dev/stdout" => Sink::Stdout,
                    "/dev/stderr" => Sink::Stderr,
                    _ => match self.machine(|machine| machine.files.write(&path, b"", *append, mode, &who))? {
                        Ok(()) => Sink::File(path),
                        Err(error) => return Ok(Err(self.cannot_open("create", &path, error))),
                    },
                };
                redirection.streams[usize::from(from == 2)] = sink;
            } else if path == "/dev/null" {
                redirection.input = Some(Vec::new());
            } else {
                match self.machine(|machine| machine.files.read(&path, &who).map(<[u8]>::to_vec))? {
                    Ok(bytes) => redirection.input = Some(bytes),
                    Err(error) => return Ok(Err(self.cannot_open("open", &path, error))),
                }
            }
        }
        Ok(Ok(redirection))
    }

    /// Sends a command's streams where they were redirected to.
    /// A redirection that does not work (observed with bash 5.2 and dash 0.5.12).
    fn cannot_open(&self, verb: &str, path: &str, error: files::FileError) -> Outcome {
        let reason = match error {
            error if self.is_bash => return Outcome::fails(1, format!("bash: line 1: {path}: {error}")),
            files::FileError::NotFound if verb == "create" => "Directory nonexistent".to_owned(),
            files::FileError::NotFound => "No such file".to_owned(),
            other => other.to_string(),
        };
        Outcome::fails(2, format!("sh: 1: cannot {verb} {path}: {reason}"))
    }

    fn deliver(&mut self, outcome: Outcome, streams: &[Sink; 2]) -> Result<Outcome, Gone> {
        let mut delivered = Outcome::code(outcome.code);
        for (bytes, sink) in [outcome.stdout, outcome.stderr].into_iter().zip(streams) {
            match sink {
                Sink::Stdout => delivered.stdout.extend(bytes),
                Sink::Stderr => delivered.stderr.extend(bytes),
                Sink::Nowhere => {}
                Sink::File(path) => {
                    let root = files::Who::root();
                    // The file was opened with the user's rights before the command ran.
                    let _ = self.machine(|machine| machine.files.write(path, &bytes, true, 0o644, &root))?;
                }
            }
        }
        Ok(delivered)
    }
}

/// Where a stream goes.
#[derive(Debug, Clone)]
enum Sink {
    Stdout,
    Stderr,
    Nowhere,
    File(String),
}

struct Redirection {
    input: Option<Vec<u8>>,
    streams: [Sink; 2],
}

//! SSH: connections with a pinned host key, commands, uploads and tunnels.
//!
//! A host key is never learnt from the network: it is made before the machine boots, or named by the configuration, and
//! any other one is refused.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use async_trait::async_trait;
use engine::Intent;
use russh::{
    AlgorithmKind, ChannelMsg, Limits, Preferred,
    client::{self, AuthResult},
    keys::{Algorithm, HashAlg, PublicKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::Mutex,
    time::timeout,
};

use crate::{
    identity::Identity,
    seam::{Network, Stream, World, pause},
};

/// How long a TCP connection from here may take: short, because a machine that is not up yet answers nothing, and
/// whoever waits for it asks again.
const TCP_PATIENCE: Duration = Duration::from_secs(2);
/// How much a command may print that is collected: the longest answers that are asked for have some 100 KiB.
const OUTPUT_MIB_LIMIT: usize = 16;
/// How often a broken connection is made again for one command.
const ATTEMPTS: u32 = 5;

/// Why a command could not be run on a machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SshError {
    /// Nobody answered.
    #[error("{machine}: {cause}")]
    Unreachable {
        /// The machine, by name and address.
        machine: String,
        /// Why.
        cause: String,
    },
    /// Somebody answered who is not the machine that is meant.
    #[error("{machine}: the SSH host key is another one: this is another machine, or somebody is in between")]
    HostKey {
        /// The machine, by name and address.
        machine: String,
    },
    /// The machine does not let us in.
    #[error("{machine}: SSH does not accept the key of user {user}")]
    Login {
        /// The machine, by name and address.
        machine: String,
        /// The user.
        user: String,
    },
    /// The command did not end in time.
    #[error("{machine}: `{command}` did not end within {seconds} s")]
    Timeout {
        /// The machine, by name and address.
        machine: String,
        /// The command.
        command: String,
        /// The patience, in seconds.
        seconds: u64,
    },
    /// What is to be uploaded cannot be read.
    #[error("what becomes {path} on the machine cannot be read: {cause}")]
    Source {
        /// The path on the machine.
        path: String,
        /// Why.
        cause: String,
    },
    /// The command printed more than anybody expects of it.
    #[error("{machine}: `{command}` printed more than {limit_mib} MiB, and was left")]
    TooMuch {
        /// The machine, by name and address.
        machine: String,
        /// The command.
        command: String,
        /// The limit, in MiB.
        limit_mib: usize,
    },
    /// The command ended with another exit code than 0.
    #[error("{machine}: `{command}` ended with exit code {code}: {output}")]
    Command {
        /// The machine, by name and address.
        machine: String,
        /// The command.
        command: String,
        /// The exit code.
        code: u32,
        /// The end of what it printed.
        output: String,
    },
}

/// Where to log in, as whom, and who must answer.
#[derive(Clone)]
pub struct Target {
    /// The node's name.
    pub node: String,
    /// Its address.
    pub host: String,
    /// Its SSH port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The user's key.
    pub identity: Identity,
    /// The host key that must answer.
    pub host_key: PublicKey,
    /// How long things may take there.
    pub patience: Patience,
}

/// How long things may take on one machine.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Its part of a connection: from an open stream until somebody is logged in; and a stream from there to the next.
    pub connect: Duration,
    /// A command, where nobody says otherwise.
    pub command: Duration,
}

impl Target {
    /// The machine for people, by name and address.
    pub fn machine(&self) -> String {
        let Self { node, host, .. } = self;
        if node.contains(host.as_str()) { node.clone() } else { format!("{node} ({host})") }
    }

    fn unreachable(&self, cause: impl Into<String>) -> SshError {
        SshError::Unreachable { machine: self.machine(), cause: cause.into() }
    }

    fn too_late(&self, command: &str, patience: Duration) -> SshError {
        SshError::Timeout { machine: self.machine(), command: command.to_owned(), seconds: patience.as_secs() }
    }
}

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 255 if the command was killed.
    pub code: u32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

struct Pinned {
    expected: PublicKey,
    refused: Arc<AtomicBool>,
}

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, server: &client_key::Presented) -> Result<bool, Self::Error> {
        let right = client_key::key_data(server).is_some_and(|key| key == self.expected.key_data());
        self.refused.store(!right, Ordering::Relaxed);
        Ok(right)
    }
}

/// What a server presents as its identity.
mod client_key {
    pub(super) use russh::keys::PublicKeyOrCertificate as Presented;
    use russh::keys::ssh_key::public::KeyData;

    /// The plain key; certificates are not used here, so they are nobody's.
    pub(super) fn key_data(presented: &Presented) -> Option<&KeyData> {
        match presented {
            Presented::PublicKey { key, .. } => Some(key.key_data()),
            Presented::Certificate(_) => None,
        }
    }
}

/// An open connection to a machine.
pub struct Connection {
    handle: client::Handle<Pinned>,
    target: Target,
}

impl Connection {
    /// Connects and logs in. Each machine on the way has a time of its own.
    pub async fn open(world: &World, target: &Target) -> Result<Self, SshError> {
        let Target { host, port, patience, .. } = target;
        let stream = world.network.connect_within(host, *port, TCP_PATIENCE).await.map_err(|error| {
            // What stands in the way may be a machine before this one.
            match error.get_ref().and_then(|cause| cause.downcast_ref::<SshError>()) {
                Some(on_the_way) => on_the_way.clone(),
                None if error.kind() == io::ErrorKind::TimedOut => {
                    target.unreachable(format!("no answer on port {port}"))
                }
                None => target.unreachable(format!("port {port}: {error}")),
            }
        })?;
        timeout(patience.connect, Self::log_in(stream, target)).await.map_err(|_| {
            target.unreachable(format!(
                "port {port} accepts the connection, and SSH does not answer within {} s",
                patience.connect.as_secs()
            ))
        })?
    }

    async fn log_in(stream: Stream, target: &Target) -> Result<Self, SshError> {
        let refused = Arc::default();
        let pinned = Pinned { expected: target.host_key.clone(), refused: Arc::clone(&refused) };
        let connected = client::connect_stream(Arc::new(settings(&target.host_key)), stream, pinned).await;
        let mut handle = connected.map_err(|error| {
            let has_none = matches!(error, russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. });
            if has_none || refused.load(Ordering::Relaxed) {
                SshError::HostKey { machine: target.machine() }
            } else {
                target.unreachable(format!("SSH: {error}"))
            }
        })?;
        match target.identity.log_in(&mut handle, &target.user).await.map_err(|why| target.unreachable(why))? {
            AuthResult::Success => Ok(Self { handle, target: target.clone() }),
            AuthResult::Failure { .. } => Err(SshError::Login { machine: target.machine(), user: target.user.clone() }),
        }
    }

    /// Runs a command, feeding it `input`; any exit code is an answer.
    pub async fn run(&self, command: &str, input: Option<&[u8]>, patience: Duration) -> Result<Output, SshError> {
        timeout(patience, self.execute(command, input)).await.map_err(|_| self.target.too_late(command, patience))?
    }

    async fn execute(&self, command: &str, input: Option<&[u8]>) -> Result<Output, SshError> {
        let broken = |error: russh::Error| self.target.unreachable(format!("SSH: {error}"));
        let mut channel = self.handle.channel_open_session().await.map_err(broken)?;
        channel.exec(true, command).await.map_err(broken)?;
        if let Some(input) = input {
            channel.data(input).await.map_err(broken)?;
        }
        // Also where there is nothing to say: a program that reads its standard input would wait for it.
        channel.eof().await.map_err(broken)?;
        let (mut stdout, mut stderr, mut code) = (Vec::new(), Vec::new(), None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                ChannelMsg::ExitSignal { .. } => code = Some(255),
                _ => {}
            }
            if stdout.len() + stderr.len() > OUTPUT_MIB_LIMIT << 20 {
                return Err(SshError::TooMuch {
                    machine: self.target.machine(),
                    command: command.to_owned(),
                    limit_mib: OUTPUT_MIB_LIMIT,
                });
            }
        }
        let code = code.ok_or_else(|| self.target.unreachable("the connection broke while a command was running"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output { code, stdout: text(stdout), stderr: text(stderr) })
    }

    /// Runs a command for as long as it takes, with the caller's own input and outputs; any exit code is an answer.
    pub async fn attach(
        &self,
        command: &str,
        mut input: impl AsyncRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
        mut errors: impl AsyncWrite + Unpin,
    ) -> Result<u32, SshError> {
        let broken = |cause: String| self.target.unreachable(cause);
        let ssh_broke = |error: russh::Error| broken(format!("SSH: {error}"));
        let channel = self.handle.channel_open_session().await.map_err(ssh_broke)?;
        channel.exec(true, command).await.map_err(ssh_broke)?;
        let (mut answers, questions) = channel.split();
        let feed = async {
            let mut writer = std::pin::pin!(questions.make_writer());
            // The command may end without reading its input.
            let _ended = tokio::io::copy(&mut input, &mut writer).await;
            let _ended = questions.eof().await;
            std::future::pending::<()>().await
        };
        let answer = async {
            let mut code = None;
            while let Some(message) = answers.wait().await {
                match message {
                    ChannelMsg::Data { data } => output.write_all(&data).await?,
                    ChannelMsg::ExtendedData { data, .. } => errors.write_all(&data).await?,
                    ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                    ChannelMsg::ExitSignal { .. } => code = Some(255),
                    _ => {}
                }
                output.flush().await?;
                errors.flush().await?;
            }
            io::Result::Ok(code)
        };
        let code = tokio::select! {
            biased;
            code = answer => code,
            () = feed => Ok(None),
        };
        let code = code.map_err(|error| broken(format!("nobody takes the output: {error}")))?;
        code.ok_or_else(|| broken("the connection broke while a command was running".to_owned()))
    }

    /// Opens a connection from the machine to `host` and `port` as seen from there.
    pub async fn tunnel(&self, host: &str, port: u16) -> io::Result<Stream> {
        let opened = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let from = |why: String| format!("not reached from {}: {why}", self.target.machine());
        match timeout(self.target.patience.connect, opened).await {
            Ok(Ok(channel)) => Ok(Box::new(channel.into_stream())),
            Ok(Err(error)) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, from(error.to_string()))),
            Err(_) => {
                let seconds = self.target.patience.connect.as_secs();
                Err(io::Error::other(from(format!("no answer within {seconds} s"))))
            }
        }
    }

    fn alive(&self) -> bool {
        !self.handle.is_closed()
    }
}

/// Curve25519 only: what every OpenSSH since 2014 speaks, at a third of the cost of the post-quantum hybrid, which
/// matters when 500 machines are greeted at once. The others are no exchanges, but say what we understand: which
/// signatures the server takes (RFC 8308), and that nobody may have left anything out (OpenSSH, against Terrapin).
const KEX: &[russh::kex::Name] = &[
    russh::kex::CURVE25519,
    russh::kex::EXTENSION_SUPPORT_AS_CLIENT,
    russh::kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

fn settings(host_key: &PublicKey) -> client::Config {
    // A server has several host keys, and shows the one that is asked for.
    let key = match host_key.algorithm() {
        Algorithm::Rsa { .. } => {
            [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }).to_vec()
        }
        other => vec![other],
    };
    client::Config {
        preferred: Preferred { kex: Cow::Borrowed(KEX), key: Cow::Owned(key), ..Preferred::default() },
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 4,
        // The rekey timer mixes two clocks; our connections are short and carry little.
        limits: Limits::new(1 << 30, 1 << 30, Duration::from_secs(7 * 24 * 3600)),
        nodelay: true,
        ..client::Config::default()
    }
}

/// A machine to run commands on; the connection is made when it is first needed, and again when it breaks.
pub struct Remote {
    world: World,
    target: Target,
    connection: Mutex<Slot>,
    /// How many connections were not made.
    failures: AtomicU64,
}

/// The open connection, or why there is none.
#[derive(Default)]
struct Slot {
    open: Option<Arc<Connection>>,
    failed: Option<SshError>,
}

impl Remote {
    /// The machine at `target`, not connected yet.
    pub fn new(world: World, target: Target) -> Self {
        Self { world, target, connection: Mutex::default(), failures: AtomicU64::new(0) }
    }

    /// Where this goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The open connection, made if need be. Those who come while it is being made share what becomes of it: behind a
    /// bastion that is dead, nobody waits for the tries of all others.
    pub async fn connect(&self) -> Result<Arc<Connection>, SshError> {
        let failures = self.failures.load(Ordering::Relaxed);
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.open.as_ref().filter(|connection| connection.alive()) {
            return Ok(Arc::clone(connection));
        }
        if let Some(error) = slot.failed.as_ref().filter(|_| failures != self.failures.load(Ordering::Relaxed)) {
            return Err(error.clone());
        }
        slot.open = None;
        match Connection::open(&self.world, &self.target).await {
            Ok(connection) => Ok(Arc::clone(slot.open.insert(Arc::new(connection)))),
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                slot.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// [`Remote::connect`], for those who only want to know whether somebody is there: a quarter of the patience has to
    /// do, for each machine on the way.
    pub async fn connect_for_a_look(&self, machines_before: usize) -> Result<Arc<Connection>, SshError> {
        let legs = u32::try_from(machines_before + 1).unwrap_or(u32::MAX);
        let patience = (self.target.patience.connect / 4).saturating_mul(legs);
        let late = || self.target.unreachable(format!("SSH does not answer within {} s", patience.as_secs()));
        timeout(patience, self.connect()).await.unwrap_or_else(|_| Err(late()))
    }

    /// Lets go of the connection; the next command makes a new one.
    pub async fn disconnect(&self) {
        self.connection.lock().await.open = None;
    }

    /// Lets go of the connection unless it is still needed.
    pub async fn disconnect_unless(&self, needed: bool) {
        if !needed {
            self.disconnect().await;
        }
    }

    /// Runs a command that may be run again, over a new connection if the old one breaks. Any exit code is an answer.
    pub async fn try_run(&self, command: &str, input: Option<&[u8]>, patience: Duration) -> Result<Output, SshError> {
        let mut attempt = 1;
        loop {
            let result = match self.connect().await {
                Ok(connection) => connection.run(command, input, patience).await,
                Err(error) => Err(error),
            };
            match result {
                Err(SshError::Unreachable { .. }) if attempt < ATTEMPTS => {
                    self.disconnect().await;
                    pause(Duration::from_secs(1 << attempt.min(3))).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Runs a command, and tries once; the way there is made in its own time. Any exit code is an answer.
    pub async fn run_once(&self, command: &str, patience: Duration) -> Result<Output, SshError> {
        self.connect().await?.run(command, None, patience).await
    }

    /// Runs a command that must succeed; returns its standard output.
    pub async fn run(&self, command: &str) -> Result<String, SshError> {
        self.run_with(command, None, self.target.patience.command).await
    }

    /// [`Remote::run`] with input and patience.
    pub async fn run_with(&self, command: &str, input: Option<&[u8]>, patience: Duration) -> Result<String, SshError> {
        let output = self.try_run(command, input, patience).await?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
        Err(SshError::Command {
            machine: self.target.machine(),
            command: command.to_owned(),
            code: output.code,
            output: last_line(&said),
        })
    }

    /// Writes a file like [`Remote::upload`], from a source of any size that is opened for each attempt. Returns the
    /// SHA-256 of what is there then, in hexadecimal: a source that breaks off leaves a shorter file.
    pub async fn upload_from(
        &self,
        _proof: &Intent,
        path: &str,
        open: impl Fn() -> io::Result<Box<dyn io::Read + Send>>,
        mode: &str,
        owner: &str,
        patience: Duration,
    ) -> Result<String, SshError> {
        let command =
            format!("cat | sudo install -D -m {mode} -o {owner} -g {owner} /dev/stdin {path} && sudo sha256sum {path}");
        let mut attempt = 1;
        let (code, output, errors) = loop {
            let source =
                open().map_err(|error| SshError::Source { path: path.to_owned(), cause: error.to_string() })?;
            let (mut output, mut errors) = (Vec::new(), Vec::new());
            let run = async {
                let connection = self.connect().await?;
                connection.attach(&command, Source(source), &mut output, &mut errors).await
            };
            match timeout(patience, run).await {
                Err(_) => return Err(self.target.too_late(&command, patience)),
                Ok(Err(SshError::Unreachable { .. })) if attempt < ATTEMPTS => {
                    self.disconnect().await;
                    pause(Duration::from_secs(1 << attempt.min(3))).await;
                    attempt += 1;
                }
                Ok(code) => break (code?, output, errors),
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match code {
            0 => Ok(text(output).split_whitespace().next().unwrap_or_default().to_owned()),
            code => Err(SshError::Command {
                machine: self.target.machine(),
                command,
                code,
                output: last_line(&text(errors)),
            }),
        }
    }

    /// Writes a file with its mode and owner from its first byte, making the directories above it.
    pub async fn upload(
        &self,
        _proof: &Intent,
        path: &str,
        content: &[u8],
        mode: &str,
        owner: &str,
    ) -> Result<(), SshError> {
        // Through `cat`, because sshd may give a command a socket for its input, and a socket cannot be opened by name.
        let command = format!("cat | sudo install -D -m {mode} -o {owner} -g {owner} /dev/stdin {path}");
        self.run_with(&command, Some(content), self.target.patience.command).await.map(drop)
    }
}

/// A source that never makes its reader wait: a file of this computer.
struct Source(Box<dyn io::Read + Send>);

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.0.read(buffer.initialize_unfilled());
        Poll::Ready(read.map(|count| buffer.advance(count)))
    }
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output").trim().chars().take(300).collect()
}

/// A network in which every connection starts on a machine that we are logged in to.
pub struct Tunnel(pub Arc<Remote>);

#[async_trait]
impl Network for Tunnel {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let connection = self.0.connect().await.map_err(io::Error::other)?;
        let opened = connection.tunnel(host, port).await;
        if opened.is_err() && !connection.alive() {
            self.0.disconnect().await;
        }
        opened
    }

    /// The machine's own patience holds: for the way to it, and for the leg from there.
    async fn connect_within(&self, host: &str, port: u16, _patience: Duration) -> io::Result<Stream> {
        self.connect(host, port).await
    }
}

//! SSH: connections with a pinned host key, commands, uploads and tunnels.
//!
//! A host key is never learnt from the network: it is made before the machine boots, or named by the configuration, and
//! any other one is refused.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use async_trait::async_trait;
use russh::{
    ChannelMsg, Limits, Preferred,
    client::{self, AuthResult},
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::Mutex,
    time::timeout,
};

use crate::seam::{Network, Stream, World, pause};

/// How long the TCP connection may take: short, because a machine that is not up yet answers nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the handshake and the login may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a broken connection is made again for one command.
const ATTEMPTS: u32 = 5;

/// Why a command could not be run on a machine.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SshError {
    /// Nobody answered.
    #[error("{host}: {cause}")]
    Unreachable {
        /// The machine's address.
        host: String,
        /// Why.
        cause: String,
    },
    /// Somebody answered who is not the machine that is meant.
    #[error(
        "{host}: the SSH host key is not the one that {node} has: this is another machine, or somebody is in between"
    )]
    HostKey {
        /// The machine's address.
        host: String,
        /// The machine.
        node: String,
    },
    /// The machine does not let us in.
    #[error("{host}: SSH does not accept the key of user {user}")]
    Login {
        /// The machine's address.
        host: String,
        /// The user.
        user: String,
    },
    /// The command did not end in time.
    #[error("{host}: `{command}` did not end within {seconds} s")]
    Timeout {
        /// The machine's address.
        host: String,
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
    /// The command ended with another exit code than 0.
    #[error("{host}: `{command}` ended with exit code {code}: {output}")]
    Command {
        /// The machine's address.
        host: String,
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
    pub user_key: Arc<PrivateKey>,
    /// The host key that must answer.
    pub host_key: PublicKey,
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
    refused: Arc<std::sync::atomic::AtomicBool>,
}

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, server: &client_key::Presented) -> Result<bool, Self::Error> {
        let right = client_key::key_data(server).is_some_and(|key| key == self.expected.key_data());
        self.refused.store(!right, std::sync::atomic::Ordering::Relaxed);
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
    /// Connects and logs in.
    pub async fn open(world: &World, target: &Target) -> Result<Self, SshError> {
        let unreachable = |cause: String| SshError::Unreachable { host: target.host.clone(), cause };
        let stream = timeout(CONNECT_TIMEOUT, world.network.connect(&target.host, target.port))
            .await
            .map_err(|_| unreachable(format!("no answer on port {}", target.port)))?
            .map_err(|error| unreachable(format!("port {}: {error}", target.port)))?;
        timeout(HANDSHAKE_TIMEOUT, Self::log_in(stream, target))
            .await
            .map_err(|_| unreachable("SSH accepts the connection and does not answer".to_owned()))?
    }

    async fn log_in(stream: Stream, target: &Target) -> Result<Self, SshError> {
        let host = &target.host;
        let refused = Arc::default();
        let pinned = Pinned { expected: target.host_key.clone(), refused: Arc::clone(&refused) };
        let connected = client::connect_stream(Arc::new(settings()), stream, pinned).await;
        let mut handle = connected.map_err(|error| {
            if refused.load(std::sync::atomic::Ordering::Relaxed) {
                SshError::HostKey { host: host.clone(), node: target.node.clone() }
            } else {
                SshError::Unreachable { host: host.clone(), cause: format!("SSH: {error}") }
            }
        })?;
        let key = PrivateKeyWithHashAlg::new(target.user_key.clone(), None);
        let login = handle.authenticate_publickey(&target.user, key).await;
        match login.map_err(|error| SshError::Unreachable { host: host.clone(), cause: format!("SSH: {error}") })? {
            AuthResult::Success => Ok(Self { handle, target: target.clone() }),
            AuthResult::Failure { .. } => Err(SshError::Login { host: host.clone(), user: target.user.clone() }),
        }
    }

    /// Runs a command, feeding it `input`; any exit code is an answer.
    pub async fn run(&self, command: &str, input: Option<&[u8]>, patience: Duration) -> Result<Output, SshError> {
        timeout(patience, self.execute(command, input)).await.map_err(|_| SshError::Timeout {
            host: self.target.host.clone(),
            command: command.to_owned(),
            seconds: patience.as_secs(),
        })?
    }

    async fn execute(&self, command: &str, input: Option<&[u8]>) -> Result<Output, SshError> {
        let broken = |error: russh::Error| SshError::Unreachable {
            host: self.target.host.clone(),
            cause: format!("SSH: {error}"),
        };
        let mut channel = self.handle.channel_open_session().await.map_err(broken)?;
        channel.exec(true, command).await.map_err(broken)?;
        if let Some(input) = input {
            channel.data(input).await.map_err(broken)?;
            channel.eof().await.map_err(broken)?;
        }
        let (mut stdout, mut stderr, mut code) = (Vec::new(), Vec::new(), None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                ChannelMsg::ExitSignal { .. } => code = Some(255),
                _ => {}
            }
        }
        let code = code.ok_or_else(|| SshError::Unreachable {
            host: self.target.host.clone(),
            cause: "the connection broke while a command was running".to_owned(),
        })?;
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
        let broken = |cause: String| SshError::Unreachable { host: self.target.host.clone(), cause };
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
    pub async fn tunnel(&self, host: &str, port: u16) -> Result<Stream, SshError> {
        let channel =
            self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await.map_err(|error| {
                SshError::Unreachable {
                    host: self.target.host.clone(),
                    cause: format!("no way from there to {host}:{port}: {error}"),
                }
            })?;
        Ok(Box::new(channel.into_stream()))
    }

    fn alive(&self) -> bool {
        !self.handle.is_closed()
    }
}

/// Curve25519 only: what every OpenSSH since 2014 speaks, at a third of the cost of the post-quantum hybrid, which
/// matters when 500 machines are greeted at once.
fn settings() -> client::Config {
    client::Config {
        preferred: Preferred { kex: Cow::Borrowed(&[russh::kex::CURVE25519]), ..Preferred::default() },
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
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Remote {
    /// The machine at `target`, not connected yet.
    pub fn new(world: World, target: Target) -> Self {
        Self { world, target, connection: Mutex::new(None) }
    }

    /// Where this goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The open connection, made if need be.
    pub async fn connect(&self) -> Result<Arc<Connection>, SshError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.alive()) {
            return Ok(Arc::clone(connection));
        }
        *slot = None;
        let connection = Arc::new(Connection::open(&self.world, &self.target).await?);
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Lets go of the connection; the next command makes a new one.
    pub async fn disconnect(&self) {
        *self.connection.lock().await = None;
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

    /// Runs a command over a connection that is made within the same patience, and tries once. Any exit code is an answer.
    pub async fn run_once(&self, command: &str, patience: Duration) -> Result<Output, SshError> {
        let run = async { self.connect().await?.run(command, None, patience).await };
        timeout(patience, run).await.map_err(|_| self.timeout(command, patience))?
    }

    /// Runs a command that must succeed; returns its standard output.
    pub async fn run(&self, command: &str) -> Result<String, SshError> {
        self.run_with(command, None, Duration::from_secs(60)).await
    }

    /// [`Remote::run`] with input and patience.
    pub async fn run_with(&self, command: &str, input: Option<&[u8]>, patience: Duration) -> Result<String, SshError> {
        let output = self.try_run(command, input, patience).await?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let said = if output.stderr.trim().is_empty() { output.stdout } else { output.stderr };
        Err(SshError::Command {
            host: self.target.host.clone(),
            command: command.to_owned(),
            code: output.code,
            output: last_line(&said),
        })
    }

    /// Writes a file like [`Remote::upload`], from a source of any size that is opened for each attempt. Returns the
    /// SHA-256 of what is there then, in hexadecimal: a source that breaks off leaves a shorter file.
    pub async fn upload_from(
        &self,
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
                Err(_) => return Err(self.timeout(&command, patience)),
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
                host: self.target.host.clone(),
                command,
                code,
                output: last_line(&text(errors)),
            }),
        }
    }

    fn timeout(&self, command: &str, patience: Duration) -> SshError {
        let host = self.target.host.clone();
        SshError::Timeout { host, command: command.to_owned(), seconds: patience.as_secs() }
    }

    /// Writes a file with its mode and owner from its first byte, making the directories above it.
    pub async fn upload(&self, path: &str, content: &[u8], mode: &str, owner: &str) -> Result<(), SshError> {
        // Through `cat`, because sshd may give a command a socket for its input, and a socket cannot be opened by name.
        let command = format!("cat | sudo install -D -m {mode} -o {owner} -g {owner} /dev/stdin {path}");
        self.run_with(&command, Some(content), Duration::from_secs(60)).await.map(drop)
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
        match connection.tunnel(host, port).await {
            Ok(stream) => Ok(stream),
            Err(error) => {
                if !connection.alive() {
                    self.0.disconnect().await;
                }
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, error))
            }
        }
    }
}

//! sshd: public keys only, commands, simple interactive shells, and forwarded connections.

use std::{borrow::Cow, collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, Limits, MethodKind, MethodSet, Preferred, Pty,
    SshId, kex,
    keys::{PublicKey, ssh_key},
    server::{self, Auth, ChannelOpenHandle, Msg, VerifiedPublicKey},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Machine, k0s,
    shell::{self, Input, Outcome, Shell},
    wire::{self, Wire},
};
use crate::{FaultKind, Latency, Twin, World, kube};

/// Characters of a command line that the ledger keeps.
const LEDGER_CHARACTERS: usize = 200;

/// How much later things arrive over a slow link.
const SLOW_LINK: Duration = Duration::from_millis(500);

/// Sessions that one connection may have at a time (`MaxSessions` of sshd, its default).
const SESSIONS_LIMIT: usize = 10;

/// Serves one connection to the sshd of a machine. Boxed, because one may lead through another.
pub(super) fn serve<Stream>(twin: Twin, key: String, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name = twin.with(|world| world.machines.get(&key).map(|machine| machine.name().to_owned()).unwrap_or_default());
    match twin.with(|world| world.faults.holds(FaultKind::SlowLink, &name)) {
        true => serve_near(twin.clone(), key, wire::far_away(twin, stream, SLOW_LINK)),
        false => serve_near(twin, key, stream),
    }
}

fn serve_near<Stream>(twin: Twin, key: String, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        let found = twin.with(|world| {
            let machine = world.machines.get(&key).filter(|machine| machine.runs())?;
            let found = (config(machine), Wire::new(stream, &machine.epoch), machine.name().to_owned());
            let hangs = world.faults.strikes(FaultKind::SshHang, &found.2);
            Some((found.0, found.1, hangs))
        });
        let Some((config, mut wire, hangs)) = found else { return };
        if hangs {
            // Whatever comes in is read, and nothing is ever said.
            let _ = tokio::io::copy(&mut wire, &mut tokio::io::sink()).await;
            return;
        }
        let login = Login {
            twin,
            key,
            user: String::new(),
            waiting: BTreeMap::new(),
            running: Arc::default(),
            has_terminal: false,
        };
        if let Ok(session) = server::run_stream(config, wire, login).await {
            // How a connection ends is the client's concern.
            let _ = session.await;
        }
    })
}

fn config(machine: &Machine) -> Arc<server::Config> {
    Arc::new(server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3")),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(20),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        keys: vec![machine.host_key.clone()],
        // Keys are never exchanged again: the library would ask the real clock when.
        limits: Limits::new(1 << 30, 1 << 30, Duration::from_secs(1 << 32)),
        preferred: Preferred {
            kex: Cow::Borrowed(&[
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ]),
            ..Preferred::default()
        },
        inactivity_timeout: None,
        ..server::Config::default()
    })
}

/// One connection: who is at the other end, and the channels that have not been told yet what they are for.
struct Login {
    twin: Twin,
    key: String,
    user: String,
    waiting: BTreeMap<u32, Channel<Msg>>,
    /// Held by everything that runs.
    running: Arc<()>,
    has_terminal: bool,
}

impl Login {
    fn is_authorised(&self, user: &str, key: &PublicKey) -> bool {
        self.twin
            .with(|world| {
                let machine = world.machines.get(&self.key)?;
                let home = &machine.users.get(user)?.home;
                let lines = machine.files.text(&format!("{home}/.ssh/authorized_keys"))?;
                let known = |line: &str| {
                    ssh_key::PublicKey::from_openssh(line.trim()).is_ok_and(|known| known.key_data() == key.key_data())
                };
                lines.lines().any(known).then_some(())
            })
            .is_some()
    }

    fn job(&mut self, channel: ChannelId, session: &server::Session) -> Option<(Job, ChannelReadHalf)> {
        let (input, _) = self.waiting.remove(&channel.into())?.split();
        let job = Job {
            twin: self.twin.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            handle: session.handle(),
            channel,
            _running: self.running.clone(),
        };
        Some((job, input))
    }
}

impl server::Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.is_authorised(user, offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if !self.is_authorised(user, key.public_key) {
            return Ok(Auth::reject());
        }
        self.user = user.into();
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        if self.waiting.len() + Arc::strong_count(&self.running) > SESSIONS_LIMIT {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        }
        self.waiting.insert(channel.id().into(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut server::Session) -> Result<(), Self::Error> {
        self.waiting.remove(&channel.into());
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        // sshd accepts what `AcceptEnv` lists, and says so; nothing here depends on it.
        session.channel_success(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _terminal: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.has_terminal = true;
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let Some((job, input)) = self.job(channel, session) else { return session.channel_failure(channel) };
        session.channel_success(channel)?;
        let line = String::from_utf8_lossy(data).into_owned();
        // On its own: a client that hangs up does not stop what it has started.
        tokio::spawn(job.run(line, input));
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut server::Session) -> Result<(), Self::Error> {
        let Some((job, input)) = self.job(channel, session) else { return session.channel_failure(channel) };
        session.channel_success(channel)?;
        tokio::spawn(job.interact(input, self.has_terminal));
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        match self.twin.with(|world| behind(world, &self.key, host, port)) {
            None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            Some(target) => {
                reply.accept().await;
                tokio::spawn(forward(self.twin.clone(), target, channel));
            }
        }
        Ok(())
    }
}

/// Who answers behind a forwarded connection.
enum Target {
    Ssh(String),
    Api(String, kube::ClusterId),
}

fn behind(world: &World, from: &str, host: &str, port: u32) -> Option<Target> {
    let target = world.machines.route(from, host)?;
    match port {
        port if port == world.machines.get(&target).map_or(0, |machine| u32::from(machine.spec.ssh_port)) => {
            Some(Target::Ssh(target))
        }
        6443 => k0s::serving(world, &target).map(|cluster| Target::Api(target, cluster)),
        _ => None,
    }
}

async fn forward(twin: Twin, target: Target, channel: Channel<Msg>) {
    let stream = channel.into_stream();
    match target {
        Target::Ssh(key) => serve(twin, key, stream).await,
        Target::Api(key, cluster) => {
            let wire = twin.with(|world| {
                let machine = world.machines.get(&key)?;
                Some(Wire::new(Wire::new(stream, &machine.epoch), machine.k0s.api_ends()))
            });
            if let Some(wire) = wire {
                kube::serve(twin, cluster, wire).await;
            }
        }
    }
}

/// Something that runs on a channel.
struct Job {
    twin: Twin,
    key: String,
    user: String,
    handle: server::Handle,
    channel: ChannelId,
    _running: Arc<()>,
}

impl Job {
    /// Runs one command line.
    async fn run(self, line: String, input: ChannelReadHalf) {
        let Some(mut shell) = Shell::logged_in(self.twin.clone(), &self.key, &self.user) else { return };
        shell.feed(Input::Channel(input));
        if let Some(code) = self.execute(&mut shell, &line).await {
            self.end(code).await;
        }
    }

    /// Runs a line to its end and sends what it says as it goes; nothing if the machine goes away.
    async fn execute(&self, shell: &mut Shell<'_>, line: &str) -> Option<u32> {
        let name = self.twin.with(|world| world.machines.get(&self.key).map(|machine| machine.name().to_owned()))?;
        let wait = self.twin.with(|world| world.latency(Latency::Command, &format!("{name}/{line}")));
        self.twin.sleep(wait).await;
        let code = match shell::parse(line) {
            Err(error) => {
                self.send(Outcome::fails(2, format!("sh: 1: {error}"))).await;
                2
            }
            Ok(list) => {
                let mut code = 0;
                for position in 0..list.0.len() {
                    if let Some(outcome) = shell.step(&list, position).await.ok()? {
                        code = outcome.code;
                        self.send(outcome).await;
                    }
                }
                code
            }
        };
        let short: String = line.chars().take(LEDGER_CHARACTERS).collect();
        self.twin.with(|world| {
            world.ledger.request(world.now, "ssh", "exec", format!("{name}: {short}"), code, Some(name));
        });
        Some(code)
    }

    /// Sends output; a client that has hung up misses it.
    async fn send(&self, outcome: Outcome) {
        if !outcome.stdout.is_empty() {
            let _ = self.handle.data(self.channel, outcome.stdout).await;
        }
        if !outcome.stderr.is_empty() {
            let _ = self.handle.extended_data(self.channel, 1, outcome.stderr).await;
        }
    }

    async fn end(&self, code: u32) {
        let _ = self.handle.exit_status_request(self.channel, code).await;
        let _ = self.handle.eof(self.channel).await;
        let _ = self.handle.close(self.channel).await;
    }

    /// Reads lines and runs them until `exit` or the end of the input.
    async fn interact(self, mut input: ChannelReadHalf, has_terminal: bool) {
        let Some(mut shell) = Shell::logged_in(self.twin.clone(), &self.key, &self.user) else { return };
        let (mut typed, mut code) = (Vec::new(), 0);
        loop {
            if has_terminal {
                let Ok(prompt) = shell.prompt() else { return };
                self.send(Outcome::says(prompt)).await;
            }
            let Some(line) = self.line(&mut input, &mut typed, has_terminal).await else { break };
            let Some(result) = self.interactive_line(&mut shell, &line, has_terminal).await else { return };
            code = result;
            if shell.has_exited() {
                break;
            }
        }
        self.end(code).await;
    }

    async fn interactive_line(&self, shell: &mut Shell<'_>, line: &str, has_terminal: bool) -> Option<u32> {
        if !has_terminal {
            return self.execute(shell, line).await;
        }
        // A terminal wants carriage returns, and has only one output.
        let outcome = shell.run(line).await.ok()?;
        let text = [outcome.stdout, outcome.stderr].concat();
        let text = String::from_utf8_lossy(&text).replace('\n', "\r\n");
        self.send(Outcome::says(text)).await;
        Some(outcome.code)
    }

    /// The next line; nothing at the end of the input.
    async fn line(&self, input: &mut ChannelReadHalf, typed: &mut Vec<u8>, echo: bool) -> Option<String> {
        loop {
            if let Some(end) = typed.iter().position(|byte| [b'\n', b'\r'].contains(byte)) {
                let line: Vec<u8> = typed.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            match input.wait().await? {
                // Control-D on an empty line.
                ChannelMsg::Data { data } if echo && data.as_ref() == [4] && typed.is_empty() => return None,
                ChannelMsg::Data { data } => {
                    if echo {
                        let text = String::from_utf8_lossy(&data).replace('\r', "\r\n");
                        self.send(Outcome::says(text)).await;
                    }
                    typed.extend_from_slice(&data);
                }
                ChannelMsg::Eof | ChannelMsg::Close => return None,
                _ => {}
            }
        }
    }
}

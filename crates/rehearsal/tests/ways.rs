//! The ways in over SSH: whose keys open, which host keys are believed, and how long each machine on the way may take.

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use deploy::{
    config::{self, HostKey},
    identity::Identity,
    seam::{Keyring, Stream, World},
    secret::Secret,
    session::Session,
    ssh::{Connection, Patience, Remote, SshError, Target},
    task::Phase,
};
use rehearsal::Stage;
use russh::keys::{PrivateKey, agent};
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use twin::{Fault, FaultKind};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// Kinds of host keys, as OpenSSH names them.
const HOST_KEYS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
/// The passphrase of the keys that have one.
const PASSPHRASE: &str = "open sesame";

/// Keys as ssh-keygen of OpenSSH 9.2 has written them.
fn key_file(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tests/data/keys");
    directory.join(name).display().to_string()
}

/// Everything that [`key_file`] has.
fn all_keys() -> Vec<String> {
    let files = fs_err::read_dir(key_file("")).expect("the keys").flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().into_string().expect("a name")).collect();
    names.retain(|name| !name.ends_with(".pub"));
    names.sort();
    names
}

/// Somebody who says these passphrases, one after the other, and has an agent or none.
#[derive(Default)]
struct Person {
    says: Vec<&'static str>,
    asked: Mutex<Vec<PathBuf>>,
    agent: Option<mpsc::UnboundedSender<io::Result<DuplexStream>>>,
}

#[async_trait]
impl Keyring for Person {
    fn passphrase(&self, file: &Path, attempt: u32) -> Option<Secret> {
        self.asked.lock().expect("one thread").push(file.to_owned());
        self.says.get(attempt as usize).map(|said| Secret::new(*said))
    }

    async fn agent(&self) -> io::Result<Option<Stream>> {
        let Some(agent) = &self.agent else { return Ok(None) };
        let (near, far) = tokio::io::duplex(64 * 1024);
        agent.send(Ok(far)).map_err(io::Error::other)?;
        Ok(Some(Box::new(near)))
    }
}

impl Person {
    fn who_says(says: &[&'static str]) -> Arc<Self> {
        Arc::new(Self { says: says.to_vec(), ..Self::default() })
    }

    /// With an agent that holds this key.
    async fn with_agent(key: &PrivateKey) -> Arc<Self> {
        let (agent, connections) = mpsc::unbounded_channel();
        let connections = futures::stream::unfold(connections, async |mut connections| {
            Some((connections.recv().await?, connections))
        });
        tokio::spawn(async move { agent::server::serve(Box::pin(connections), ()).await });
        let person = Arc::new(Self { agent: Some(agent), ..Self::default() });
        let stream = person.agent().await.expect("a connection").expect("an agent");
        agent::client::AgentClient::connect(stream).add_identity(key, &[]).await.expect("a key");
        person
    }
}

fn patience() -> Patience {
    Patience { connect: Duration::from_secs(30), command: Duration::from_secs(60) }
}

/// A host in the world of the stage for the owner of that key.
fn settled(stage: &Stage, authorized_key: String, host_key: &str) -> HostKey {
    let host = twin::machine::Host {
        name: "host-1".to_owned(),
        public_address: Some(ADDRESS),
        private_address: Ipv4Addr::new(10, 1, 0, 20),
        ssh_port: 22,
        user: "ada".to_owned(),
        authorized_key,
        host_key: host_key.to_owned(),
    };
    HostKey::new(&stage.twin.with(|world| twin::machine::settle(world, host)))
}

fn target(identity: Identity, host_key: &HostKey) -> Target {
    Target {
        node: "host-1".to_owned(),
        host: ADDRESS.to_string(),
        port: 22,
        user: "ada".to_owned(),
        identity,
        host_key: host_key.key().expect("a host key"),
        patience: patience(),
    }
}

/// Reads a key, and logs in with it where its public half is authorised.
async fn enter(keyring: Arc<dyn Keyring>, file: &str) -> Result<String, String> {
    let stage = Stage::new(3);
    let world = World { keyring, ..stage.world.clone() };
    let public = fs_err::read_to_string(format!("{}.pub", file.trim_end_matches(".pub"))).expect("a public key");
    let host_key = settled(&stage, public, "ssh-ed25519");
    let identity = Identity::read(&world, file).await?;
    let connection = Connection::open(&world, &target(identity, &host_key)).await.map_err(|error| error.to_string())?;
    let said = connection.run("whoami", None, Duration::from_secs(5)).await.map_err(|error| error.to_string())?;
    Ok(said.stdout)
}

#[tokio::test(start_paused = true)]
async fn every_key_that_people_have_opens() {
    let names = all_keys();
    assert!(names.len() >= 15, "{names:?}");
    for name in names.iter().filter(|name| *name != "ecdsa-sec1-locked") {
        let is_locked = name.ends_with("-locked");
        let person = Person::who_says(if is_locked { &["wrong", PASSPHRASE] } else { &[] });
        assert_eq!(enter(person.clone(), &key_file(name)).await.as_deref(), Ok("ada\n"), "{name}");
        let asked = person.asked.lock().expect("one thread").len();
        assert_eq!(asked, if is_locked { 2 } else { 0 }, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_of_no_use_says_what_helps() {
    let mut said = Vec::new();
    for (name, passphrases) in [
        ("rsa-locked", &[][..]),
        ("rsa-locked", &["no", "nor this", "nor that", PASSPHRASE]),
        ("ecdsa-sec1-locked", &[PASSPHRASE]),
        ("ed25519.pub", &[]),
    ] {
        let refused = enter(Person::who_says(passphrases), &key_file(name)).await.expect_err("a refusal");
        said.push(refused.replace(&key_file(""), "/keys/"));
    }
    insta::assert_snapshot!(said.join("\n"), @"
    it has a passphrase, and nobody is there to ask; `ssh-add /keys/rsa-locked` gives it to an ssh-agent, or set K0RDENT_SSH_PASSPHRASE
    the passphrase is wrong
    it is encrypted in a way that is not read; `ssh-keygen -p -f /keys/ecdsa-sec1-locked` writes it anew
    it is a public key, and no ssh-agent holds its private key; `ssh-add` gives it one
    ");
}

#[tokio::test(start_paused = true)]
async fn an_agent_signs_for_the_key_that_it_holds_and_nobody_is_asked() {
    for name in ["ed25519", "rsa", "ecdsa-384"] {
        let held = PrivateKey::read_openssh_file(Path::new(&key_file(name))).expect("a key");
        let person = Person::with_agent(&held).await;
        assert_eq!(enter(person, &key_file(&format!("{name}.pub"))).await.as_deref(), Ok("ada\n"), "{name}");
    }
    for name in ["rsa-locked", "rsa-pkcs8-locked"] {
        let open = russh::keys::load_secret_key(key_file(name), Some(PASSPHRASE)).expect("a key");
        let person = Person::with_agent(&open).await;
        assert_eq!(enter(person.clone(), &key_file(name)).await.as_deref(), Ok("ada\n"), "{name}");
        assert!(person.asked.lock().expect("one thread").is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_host_key_can_be_pinned_and_no_other_is_believed() {
    let public = fs_err::read_to_string(key_file("ed25519.pub")).expect("a public key");
    for kind in HOST_KEYS {
        let stage = Stage::new(4);
        let identity = Identity::read(&stage.world, &key_file("ed25519")).await.expect("a key");
        let host_key = settled(&stage, public.clone(), kind);
        assert_eq!(host_key.algorithm(), kind);
        let right = target(identity.clone(), &host_key);
        Connection::open(&stage.world, &right).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        for other in HOST_KEYS {
            // Another one of the same kind, or of a kind that this host has not got.
            let stranger = settled(&Stage::new(5), public.clone(), other);
            let wrong = target(identity.clone(), &stranger);
            let refused = Connection::open(&stage.world, &wrong).await.err();
            assert!(matches!(refused, Some(SshError::HostKey { .. })), "{kind}, {other} pinned: {refused:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_prints_has_an_end() {
    let stage = Stage::new(6);
    let public = fs_err::read_to_string(key_file("ed25519.pub")).expect("a public key");
    let host_key = settled(&stage, public, "ssh-ed25519");
    let text = "x".repeat(17 << 20);
    stage.twin.with(|world| twin::machine::write_file(world, "host-1", "/tmp/much", &text));
    let identity = Identity::read(&stage.world, &key_file("ed25519")).await.expect("a key");
    let remote = Remote::new(stage.world.clone(), target(identity, &host_key));
    let error = remote.run("cat /tmp/much").await.expect_err("too much");
    insta::assert_snapshot!(error, @"host-1 (203.0.113.20): `cat /tmp/much` printed more than 16 MiB, and was left");
}

/// Two hosts behind two bastions.
fn behind_bastions(more: &str) -> String {
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbhYf3pTSCPnbNJqYx9vLTzs7uyHyRR8SOELcDNYiEQ";
    let bastion = |number: u8| {
        format!("    - {{address: 203.0.113.{number}, port: 2200, user: jump, key: /keys/jump, host_key: {KEY}}}\n")
    };
    let host = |role: &str, number: u8| {
        format!("  - {{role: {role}, address: 10.1.0.{number}, user: debian, key: /keys/cluster, host_key: {KEY}}}\n")
    };
    format!(
        "provider: ssh\n{more}ssh:\n  bastions:\n{}{}hosts:\n{}{}",
        bastion(250),
        bastion(251),
        host("controller", 1),
        host("worker", 2)
    )
}

/// What speaks against the hosts, and how long it took to say so.
async fn findings(faults: &[(FaultKind, &str)], more: &str) -> (Vec<String>, Duration) {
    let config = config::load(&behind_bastions(more)).expect("a good configuration").config;
    let (stage, config) = Stage::new(7).with_hosts_of(&config);
    let fault =
        |(name, target): &(FaultKind, &str)| Fault { name: *name, target: Some((*target).to_owned()), times: None };
    stage.twin.with(|world| world.faults.active = faults.iter().map(fault).collect());
    let home = tempfile::tempdir().expect("a directory");
    let session = Session::new(stage.settings(home.path(), Phase::K0rdent));
    let began = Instant::now();
    let found = session.examine(&config).await.expect("a look");
    (found.iter().map(ToString::to_string).collect(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn bastions_that_are_far_away_are_gone_through() {
    let (found, _) = findings(&[(FaultKind::SlowLink, "bastion")], "").await;
    assert_eq!(found, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_bastion_that_is_dead_is_named_and_nobody_waits_for_the_tries_of_others() {
    let (found, took) = findings(&[(FaultKind::SshHang, "bastion-1")], "").await;
    insta::assert_snapshot!(found.join("\n"), @"
    k0s-controller-1: bastion 203.0.113.1: port 2200 accepts the connection, and SSH does not answer within 30 s
    k0s-worker-1: bastion 203.0.113.1: port 2200 accepts the connection, and SSH does not answer within 30 s
    ");
    assert!(took < Duration::from_secs(40), "{took:?}");
    let (found, _) = findings(&[(FaultKind::SshHang, "bastion-2")], "timeouts: {ssh_connect: 7}\n").await;
    insta::assert_snapshot!(found.join("\n"), @"
    k0s-controller-1: bastion 198.51.100.2: port 2200 accepts the connection, and SSH does not answer within 7 s
    k0s-worker-1: bastion 198.51.100.2: port 2200 accepts the connection, and SSH does not answer within 7 s
    ");
    let (found, _) = findings(&[(FaultKind::SshRefused, "bastion-1")], "").await;
    insta::assert_snapshot!(found.join("\n"), @"
    k0s-controller-1: bastion 203.0.113.1: port 2200: connection refused
    k0s-worker-1: bastion 203.0.113.1: port 2200: connection refused
    ");
}

#[tokio::test(start_paused = true)]
async fn a_command_has_the_time_that_is_configured() {
    let stage = Stage::new(8);
    let public = fs_err::read_to_string(key_file("ed25519.pub")).expect("a public key");
    let host_key = settled(&stage, public, "ssh-ed25519");
    let identity = Identity::read(&stage.world, &key_file("ed25519")).await.expect("a key");
    let config = config::load("timeouts: {ssh_command: 7}\n").expect("a good configuration").config;
    let target = Target { patience: config.timeouts.ssh(), ..target(identity, &host_key) };
    let remote = Remote::new(stage.world.clone(), target);
    let asked = timeout(Duration::from_secs(60), remote.run("sleep 100")).await.expect("an end");
    assert!(matches!(asked, Err(SshError::Timeout { seconds: 7, .. })), "{asked:?}");
}

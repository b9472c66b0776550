//! Machines as a client meets them: over SSH, in memory.

mod k0s;

use std::{net::IpAddr, time::Duration};

use russh::{
    ChannelMsg, Disconnect, client,
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, ssh_key::private::Ed25519Keypair},
};

use super::*;
use crate::{Fault, Options};

const ID: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/";

fn key(seed: u8) -> PrivateKey {
    Ed25519Keypair::from_seed(&[seed; 32]).into()
}

fn public_line(seed: u8) -> String {
    key(seed).public_key().to_openssh().unwrap()
}

/// A cloud-config as a careful client writes it.
fn careful_config() -> String {
    let private = key(9).to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
    let private = private.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "#cloud-config\nssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {}\npackages: [curl, wireguard]\n\
        write_files:\n  - {{path: /opt/early, content: aGVsbG8=, encoding: b64, permissions: '0640'}}\n\
        runcmd:\n  - mkdir -p /opt/made\n  - [sh, -c, 'echo $(id -un) > /opt/made/by']\n",
        public_line(9)
    )
}

fn spec(number: u8, custom_data: &str) -> MachineSpec {
    MachineSpec {
        vm_id: format!("{ID}node-{number}"),
        name: format!("node-{number}"),
        size: "Standard_B2s".into(),
        architecture: "x64".into(),
        public_ip: Some(Ipv4Addr::new(20, 0, 0, number)),
        private_ip: Ipv4Addr::new(10, 0, 0, number),
        network: "/net".into(),
        admin_username: "ada".into(),
        authorized_keys: vec![public_line(1)],
        custom_data: custom_data.as_bytes().to_vec(),
        ssh_port: 22,
    }
}

fn world(specs: Vec<MachineSpec>) -> Twin {
    let twin = Twin::new(Options::default());
    tokio::spawn(twin.clone().drive());
    twin.with(|world| specs.into_iter().for_each(|spec| create(world, spec)));
    twin
}

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(20, 0, 0, number))
}

/// Waits until the SSH port of a machine is open.
async fn booted(twin: &Twin, number: u8) {
    for _ in 0..400 {
        if twin.with(|world| reach(world, address(99), address(number), 22)) == Reach::Open {
            return;
        }
        twin.sleep(Duration::from_secs(1)).await;
    }
    panic!("node-{number} does not boot");
}

struct Pinned(PrivateKey);

impl client::Handler for Pinned {
    type Error = russh::Error;
    async fn check_server_key(&mut self, found: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(match found {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.0.public_key().key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}

type Session = client::Handle<Pinned>;

async fn connect(twin: &Twin, number: u8, host_key: u8) -> Result<Session, russh::Error> {
    let stream = twin.connect(&address(number).to_string(), 22).await?;
    client::connect_stream(Arc::default(), stream, Pinned(key(host_key))).await
}

async fn login(twin: &Twin, number: u8) -> Session {
    booted(twin, number).await;
    let mut session = connect(twin, number, 9).await.unwrap();
    let user_key = PrivateKeyWithHashAlg::new(Arc::new(key(1)), None);
    assert!(session.authenticate_publickey("ada", user_key).await.unwrap().success());
    session
}

async fn run_with(session: &Session, command: &str, input: &[u8]) -> (u32, String, String) {
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    if !input.is_empty() {
        channel.data(input).await.unwrap();
    }
    channel.eof().await.unwrap();
    collect(&mut channel).await
}

async fn collect(channel: &mut russh::Channel<client::Msg>) -> (u32, String, String) {
    let (mut code, mut stdout, mut stderr) = (u32::MAX, Vec::new(), Vec::new());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => code = exit_status,
            _ => {}
        }
    }
    (code, String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

async fn run(session: &Session, command: &str) -> (u32, String, String) {
    run_with(session, command, b"").await
}

/// Runs a command that must succeed.
async fn ok(session: &Session, command: &str) -> String {
    let (code, stdout, stderr) = run(session, command).await;
    assert_eq!(code, 0, "{command}: {stdout}{stderr}");
    stdout
}

#[tokio::test(start_paused = true)]
async fn only_the_right_key_opens_and_only_the_right_host_is_trusted() {
    let twin = world(vec![spec(1, &careful_config())]);
    assert_eq!(twin.with(|world| reach(world, address(99), address(1), 22)), Reach::Silent);
    assert_eq!(twin.with(|world| boot_outcome(world, &format!("{ID}NODE-1"))), None);
    booted(&twin, 1).await;
    assert_eq!(twin.with(|world| boot_outcome(world, &format!("{ID}NODE-1"))), Some(Ok(())));
    assert_eq!(twin.with(|world| reach(world, address(99), address(1), 6443)), Reach::Silent);
    assert!(connect(&twin, 1, 8).await.is_err());
    let mut session = connect(&twin, 1, 9).await.unwrap();
    for (user, seed, welcome) in [("ada", 2, false), ("eve", 1, false), ("root", 1, false), ("ada", 1, true)] {
        let user_key = PrivateKeyWithHashAlg::new(Arc::new(key(seed)), None);
        let result = session.authenticate_publickey(user, user_key).await.unwrap();
        assert_eq!(result.success(), welcome, "{user} {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn commands_answer_as_a_debian_does() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    let cases: &[(&str, u32, &str, &str)] = &[
        ("true", 0, "", ""),
        ("echo 'a  b' $HOME \"$USER\"", 0, "a  b /home/ada ada\n", ""),
        ("hostname; uname -m; id -un; sudo -n id -un", 0, "node-1\nx86_64\nada\nroot\n", ""),
        ("nonsense", 127, "", "bash: line 1: nonsense: command not found\n"),
        ("sh -c nonsense", 127, "", "sh: 1: nonsense: not found\n"),
        ("/opt/nothing", 127, "", "bash: line 1: /opt/nothing: No such file or directory\n"),
        ("/etc", 126, "", "bash: line 1: /etc: Is a directory\n"),
        ("cd /nowhere", 1, "", "bash: line 1: cd: /nowhere: No such file or directory\n"),
        ("cat .bashrc; ls -d /tmp /etc; pwd", 0, "# as in /etc/skel\n/etc\n/tmp\n/home/ada\n", ""),
        ("false && echo a || echo b; exit 3; echo c", 3, "b\n", ""),
        ("echo a | cat | sha256sum", 0, "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7  -\n", ""),
        ("cat /nowhere 2>&1 >/dev/null", 1, "cat: /nowhere: No such file or directory\n", ""),
        ("cat /nowhere 2>/dev/null || test ! -e /nowhere", 0, "", ""),
        ("cat /opt/early; stat -c '%a %U:%G' /opt/early", 0, "640 root:root\n", "cat: /opt/early: Permission denied\n"),
        ("sudo cat /opt/early", 0, "hello", ""),
        ("echo x > /etc/x", 1, "", "bash: line 1: /etc/x: Permission denied\n"),
        ("sh -c 'echo x > /etc/x'", 2, "", "sh: 1: cannot create /etc/x: Permission denied\n"),
        ("umask 077; echo 1 > f; echo 2 >> f; stat -c %a f; cat < f", 0, "600\n1\n2\n", ""),
        ("sh -c 'echo $0 $1' a b; cd /tmp; pwd=$(echo $PWD); echo \"$pwd\"", 0, "a b\n/tmp\n", ""),
        ("[ -d /tmp ] && test -x /etc/os-release", 1, "", ""),
        ("mkdir -p a/b && mv -f a c && ls && rm -rf -- c zz && ls", 0, "c\nf\nf\n", ""),
        ("grep -qxF ID=debian /etc/os-release", 0, "", ""),
        ("grep -qxF debian /etc/os-release", 1, "", ""),
        ("timeout 5 sleep 60", 124, "", ""),
        ("'", 2, "", "sh: 1: Syntax error: Unterminated quoted string\n"),
        ("set -e; false; echo not reached", 1, "", ""),
        ("sudo nonsense", 1, "", "sudo: nonsense: command not found\n"),
        ("systemctl is-active ssh nothing", 3, "active\ninactive\n", ""),
        ("sudo systemctl start nothing", 5, "", "Failed to start nothing.service: Unit nothing.service not found.\n"),
        ("systemctl show ssh -p SubState,Id,NRestarts", 0, "NRestarts=0\nId=ssh.service\nSubState=running\n", ""),
        ("systemctl daemon-reload", 1, "", "Reload daemon failed: Access denied\n"),
        ("systemctl enable ssh", 1, "", "Failed to enable unit: Access denied\n"),
        (
            "systemctl stop ssh",
            4,
            "",
            "Failed to stop ssh.service: Access denied\n\
            See system logs and 'systemctl status ssh.service' for details.\n",
        ),
        (
            "sudo install -D /etc/os-release /etc/os-release/x",
            1,
            "",
            "install: cannot create directory '/etc/os-release': Not a directory\n",
        ),
        ("k0s version", 127, "", "bash: line 1: k0s: command not found\n"),
    ];
    for (command, code, stdout, stderr) in cases {
        let found = run(&session, command).await;
        assert_eq!((found.0, found.1.as_str(), found.2.as_str()), (*code, *stdout, *stderr), "{command}");
    }
    let last = twin.with(|world| world.ledger.entries.last().cloned()).unwrap();
    assert_eq!((last.verb.as_str(), last.object.as_str(), last.status), ("exec", "node-1: k0s version", Some(127)));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_uploaded_through_standard_input() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    let bytes: Vec<u8> = (0..300_000).map(|number: u32| b'a' + (number % 26) as u8).collect();
    let install = "sudo install -D -m 0600 -o root -g root /dev/stdin /etc/k0s/big";
    assert_eq!(run_with(&session, install, &bytes).await.0, 0);
    assert_eq!(ok(&session, "sudo stat -c '%a %U:%G %s' /etc/k0s/big").await, "600 root:root 300000\n");
    assert_eq!(run(&session, "cat /etc/k0s/big").await.0, 1);
    assert_eq!(ok(&session, "sudo cat /etc/k0s/big").await.into_bytes(), bytes);
    assert_eq!(
        run_with(&session, "sudo tee -a /etc/motd >/dev/null", b"hi\n").await,
        (0, String::new(), String::new())
    );
    assert_eq!(
        ok(&session, "cat /etc/motd; sudo install -d -m 0700 -o ada -g ada /srv/d; ls -d /srv/d").await,
        "hi\n/srv/d\n"
    );
}

#[tokio::test(start_paused = true)]
async fn commands_of_one_connection_run_side_by_side_and_survive_it() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    let before = twin.now();
    let (first, second) = tokio::join!(run(&session, "sleep 100"), run(&session, "sleep 100; echo done"));
    assert_eq!((first.0, second.1.as_str()), (0, "done\n"));
    assert!(twin.now() - before < Duration::from_secs(102));
    let channel = session.channel_open_session().await.unwrap();
    channel.exec(true, "sleep 10; touch /tmp/later").await.unwrap();
    twin.sleep(Duration::from_secs(1)).await;
    session.disconnect(Disconnect::ByApplication, "", "").await.unwrap();
    twin.sleep(Duration::from_secs(20)).await;
    let session = login(&twin, 1).await;
    ok(&session, "test -f /tmp/later").await;
}

#[tokio::test(start_paused = true)]
async fn cloud_init_is_waited_for() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    assert_eq!(ok(&session, "cloud-init status").await, "status: running\n");
    assert_eq!(run(&session, "curl --version").await.0, 127);
    let text = ok(&session, "cloud-init status --wait --format json").await;
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["status"], "done");
    assert_eq!(status["extended_status"], "done");
    assert_eq!(ok(&session, "cat /opt/made/by; test -e /var/lib/cloud/instance/boot-finished").await, "root\n");
    assert_eq!(run(&session, "wg show").await, (0, String::new(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn cloud_init_says_what_went_wrong() {
    let broken = careful_config().replace("[curl, wireguard]", "curl");
    let failing = careful_config().replace("mkdir -p /opt/made", "true");
    let twin = world(vec![spec(1, &broken), spec(2, &failing), spec(3, &careful_config())]);
    twin.with(|world| {
        world.faults.active.push(Fault { name: FaultKind::CloudInitError, target: Some("node-3".into()), times: None });
    });
    for (number, code, status, text) in
        [(1, 2, "done", "degraded done"), (2, 1, "error", "Runparts"), (3, 1, "error", "Runparts")]
    {
        let session = login(&twin, number).await;
        let (found, stdout, _) = run(&session, "cloud-init status --wait --format=json").await;
        assert_eq!(found, code, "{stdout}");
        assert!(stdout.contains(&format!("\"status\": \"{status}\"")) && stdout.contains(text), "{stdout}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_keeps_files_and_keys_and_starts_what_is_enabled() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    ok(&session, "cloud-init status --wait; echo keep > kept").await;
    let config = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", private_key(1));
    run_with(&session, "sudo install -m 0600 -D /dev/stdin /etc/wireguard/wg0.conf", config.as_bytes()).await;
    ok(&session, "sudo systemctl enable --now wg-quick@wg0").await;
    let mut hanging = session.channel_open_session().await.unwrap();
    hanging.exec(true, "sleep 1000; touch never").await.unwrap();
    twin.sleep(Duration::from_secs(1)).await;
    twin.with(|world| set_power(world, &format!("{ID}node-1"), false));
    assert_eq!(collect(&mut hanging).await.0, u32::MAX, "the connection ends without an exit code");
    assert!(session.is_closed());
    assert_eq!(twin.with(|world| reach(world, address(99), address(1), 22)), Reach::Silent);
    twin.with(|world| set_power(world, &format!("{ID}node-1"), true));
    let session = login(&twin, 1).await;
    assert_eq!(
        ok(&session, "cat kept; systemctl is-active wg-quick@wg0; cloud-init status").await,
        "keep\nactive\nstatus: done\n"
    );
    twin.sleep(Duration::from_secs(2000)).await;
    assert_eq!(run(&session, "test -e never").await.0, 1);
    twin.with(|world| destroy(world, &format!("{ID}node-1")));
    assert_eq!(twin.with(|world| addresses(world)), Vec::<IpAddr>::new());
}

fn private_key(number: u8) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode([number; 32])
}

fn wireguard_public_key(number: u8) -> String {
    use base64::Engine;
    let secret = x25519_dalek::StaticSecret::from([number; 32]);
    base64::prelude::BASE64_STANDARD.encode(x25519_dalek::PublicKey::from(&secret).as_bytes())
}

/// The file of node `number` in a mesh of two.
fn mesh_config(number: u8) -> String {
    let other = 3 - number;
    format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.{number}/24\nListenPort = 51820\n\n[Peer]\nPublicKey = {}\n\
        AllowedIPs = 10.9.0.{other}/32\nEndpoint = 20.0.0.{other}:51820\nPersistentKeepalive = 25\n",
        private_key(number),
        wireguard_public_key(other)
    )
}

#[tokio::test(start_paused = true)]
async fn two_machines_meet_in_a_mesh() {
    let twin = world(vec![spec(1, &careful_config()), spec(2, &careful_config())]);
    let sessions = [login(&twin, 1).await, login(&twin, 2).await];
    for (number, session) in [(1, &sessions[0]), (2, &sessions[1])] {
        ok(session, "cloud-init status --wait").await;
        let file = mesh_config(number);
        run_with(session, "sudo install -m 0600 -D /dev/stdin /etc/wireguard/wg0.conf", file.as_bytes()).await;
        assert_eq!(run(session, "systemctl start wg-quick@wg0").await.0, 4, "only root starts units");
        ok(session, "sudo systemctl enable --now wg-quick@wg0 && systemctl is-enabled wg-quick@wg0").await;
        assert_eq!(ok(session, "sudo wg show wg0 public-key").await, format!("{}\n", wireguard_public_key(number)));
        assert_eq!(ok(session, "sudo wg show wg0 listen-port").await, "51820\n");
    }
    twin.sleep(Duration::from_secs(5)).await;
    let handshakes = ok(&sessions[0], "sudo wg show wg0 latest-handshakes").await;
    let (peer, at) = handshakes.trim().split_once('\t').unwrap();
    assert_eq!(peer, wireguard_public_key(2));
    let now = twin.with(|world| world.utc().unix_timestamp());
    assert!((now - 10..=now).contains(&at.parse().unwrap()), "{at} {now}");
    let through = sessions[0].channel_open_direct_tcpip("10.9.0.2", 22, "127.0.0.1", 1).await.unwrap();
    let inner = client::connect_stream(Arc::default(), through.into_stream(), Pinned(key(9))).await;
    assert!(inner.is_ok(), "sshd answers through the mesh");
    for (host, port) in [("10.9.0.2", 80), ("10.9.0.3", 22), ("10.0.0.2", 6443)] {
        assert!(sessions[0].channel_open_direct_tcpip(host, port, "127.0.0.1", 1).await.is_err(), "{host}:{port}");
    }
    ok(&sessions[1], "sudo systemctl stop wg-quick@wg0").await;
    assert!(sessions[0].channel_open_direct_tcpip("10.9.0.2", 22, "127.0.0.1", 1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wireguard_that_is_down_says_so() {
    let twin = world(vec![spec(1, &careful_config())]);
    twin.with(|world| world.faults.active.push(Fault { name: FaultKind::WireguardDown, target: None, times: Some(1) }));
    let session = login(&twin, 1).await;
    ok(&session, "cloud-init status --wait").await;
    assert_eq!(run(&session, "sudo systemctl start wg-quick@wg0").await.0, 1, "no file");
    let file = mesh_config(1);
    run_with(&session, "sudo install -m 0600 -D /dev/stdin /etc/wireguard/wg0.conf", file.as_bytes()).await;
    assert_eq!(run(&session, "sudo systemctl start wg-quick@wg0").await.0, 1, "the fault");
    let state = run(&session, "systemctl is-active wg-quick@wg0").await;
    assert_eq!((state.0, state.1.as_str()), (3, "failed\n"));
    assert!(ok(&session, "sudo journalctl -u wg-quick@wg0 -n 5 --no-pager").await.contains("Failed to start"));
    ok(&session, "sudo systemctl restart wg-quick@wg0 && systemctl is-active wg-quick@wg0").await;
}

#[tokio::test(start_paused = true)]
async fn a_drop_in_lets_a_failed_mesh_try_again() {
    let drop_in = "write_files:\n  - path: /etc/systemd/system/wg-quick@wg0.service.d/10-retry.conf\n    \
        content: \"[Service]\\nRestart=on-failure\\nRestartSec=5\\n\"\n";
    let start = "runcmd:\n  - [systemctl, daemon-reload]\n  - [systemctl, enable, wg-quick@wg0.service]\n  \
        - [systemctl, start, --no-block, wg-quick@wg0.service]\n";
    let (before, _) = careful_config().split_once("write_files:").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let twin = world(vec![spec(1, &format!("{before}{drop_in}{start}"))]);
    let session = login(&twin, 1).await;
    ok(&session, "cloud-init status --wait").await;
    assert_eq!(run(&session, "systemctl is-active wg-quick@wg0.service").await.1, "activating\n");
    run_with(&session, "sudo install -D /dev/stdin /etc/wireguard/wg0.conf", mesh_config(1).as_bytes()).await;
    twin.sleep(Duration::from_secs(6)).await;
    ok(&session, "systemctl is-active wg-quick@wg0.service && systemctl is-enabled wg-quick@wg0.service").await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_carries_ten_sessions_at_a_time() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    let mut channels = Vec::new();
    for _ in 0..10 {
        let channel = session.channel_open_session().await.unwrap();
        channel.exec(true, "sleep 5").await.unwrap();
        channels.push(channel);
    }
    assert!(session.channel_open_session().await.is_err());
    assert_eq!(collect(&mut channels[0]).await.0, 0);
    twin.sleep(Duration::from_secs(1)).await;
    assert!(session.channel_open_session().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_world() {
    let mut ledgers = Vec::new();
    for _ in 0..2 {
        let twin = world((1..=5).map(|number| spec(number, &careful_config())).collect());
        let commands = (1..=5).map(async |number| {
            let session = login(&twin, number).await;
            ok(&session, "cloud-init status --wait").await;
            ok(&session, "echo done | sudo tee /etc/done").await;
        });
        futures::future::join_all(commands).await;
        ledgers.push(twin.with(|world| std::mem::take(&mut world.ledger.entries)));
    }
    assert!(ledgers[0].len() > 10);
    assert_eq!(ledgers[0], ledgers[1]);
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_port_and_of_the_boot() {
    let twin = world(vec![]);
    let fault = |name, times| Fault { name, target: None, times };
    twin.with(|world| {
        world.faults.active.push(fault(FaultKind::SlowBoot, Some(1)));
        create(world, spec(1, ""));
        world.faults.active = vec![fault(FaultKind::BootFailure, None)];
        create(world, spec(2, ""));
        world.faults.active.clear();
    });
    assert!(matches!(twin.with(|world| boot_outcome(world, &format!("{ID}node-2"))), Some(Err(_))));
    twin.sleep(Duration::from_secs(70)).await;
    assert_eq!(twin.with(|world| boot_outcome(world, &format!("{ID}node-1"))), None);
    booted(&twin, 1).await;
    twin.with(|world| world.faults.active.push(fault(FaultKind::SshRefused, Some(1))));
    assert_eq!(twin.connect("20.0.0.1", 22).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    twin.with(|world| world.faults.active.push(fault(FaultKind::SshHang, Some(1))));
    let patience = Duration::from_secs(30);
    assert!(tokio::time::timeout(patience, connect(&twin, 1, 9)).await.is_err());
    assert!(tokio::time::timeout(patience, connect(&twin, 2, 9)).await.is_err(), "a dead machine is silent");
}

#[tokio::test(start_paused = true)]
async fn an_interactive_shell_reads_lines() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    let mut channel = session.channel_open_session().await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.data(&b"cd /tmp\necho here: $PWD\nexit 4\n"[..]).await.unwrap();
    assert_eq!(collect(&mut channel).await, (4, "here: /tmp\n".into(), String::new()));
}

#[tokio::test(start_paused = true)]
async fn what_people_type_first_is_answered() {
    let twin = world(vec![spec(1, &careful_config())]);
    let session = login(&twin, 1).await;
    for (command, expected) in [
        ("printf 'a\\nb\\nc\\n' | head -1", "a\n"),
        ("printf 'a\\nb\\nc\\n' | head -n 2", "a\nb\n"),
        ("printf 'a\\nb\\nc\\n' | head -n -1", "a\nb\n"),
        ("printf 'a\\nb\\nc\\n' | tail -n +2", "b\nc\n"),
        ("printf 'a\\nb\\nc\\n' | tail -1", "c\n"),
        ("printf 'a b\\nc\\n' | wc -l", "2\n"),
        ("printf 'a b\\nc\\n' | wc", "      2       3       6\n"),
        ("printf 'a b\\nc\\n' > /tmp/f; wc -w /tmp/f", "3 /tmp/f\n"),
        ("date -u +%Y-%m-%d", "2027-01-04\n"),
        ("ip -br a | head -1", "lo               UNKNOWN        127.0.0.1/8 \n"),
        ("ip route | wc -l", "2\n"),
        ("ps -e | grep sshd", "    600 ?        00:00:00 sshd\n"),
    ] {
        assert_eq!(ok(&session, command).await, expected, "{command}");
    }
    let up = ok(&session, "uptime").await;
    assert!(up.contains(" up 0 min,  1 user,  load average: "), "{up}");
    twin.sleep(Duration::from_secs(2 * 3600 + 61)).await;
    let up = ok(&session, "uptime").await;
    assert!(up.contains(" up  2:01,  1 user,"), "{up}");
    assert_eq!(ok(&session, "uptime -p").await, "up 2 hours, 1 minute\n");
    let free = ok(&session, "free -m").await;
    let lines: Vec<Vec<&str>> = free.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[0].len(), lines[1].len(), lines[2].len()), (6, 7, 4), "{free}");
    assert!(ok(&session, "date").await.starts_with("Mon Jan  4 10:"));
}

//! One contract, two worlds: the commands that the product sends to machines, and the files that it puts there, on a machine
//! of the twin and on a real host. The answers must agree.

use engine::Intent;
use std::{net::Ipv4Addr, path::Path, sync::OnceLock, time::Duration};

use deploy::{
    hosts::{CLAIM, download_command},
    k0s,
    keys::openssh_public,
    machine_proxy,
    mesh::Mesh,
    ssh::{Output, Remote},
};
use engine::pause;
use rehearsal::Stage;
use serde_json::Value;
use testkit::hosts::{BOOT_PATIENCE, Host, Paper, block_on, k0s_binary, k0s_version};

/// What is done to a machine.
enum Act {
    /// A command; its exit code, its standard output and the end of what it complains about are compared.
    Run(String),
    /// A command that says the same in each world with words of its own: only the exit code is compared.
    Code(String),
    /// A file, put there as the product does it.
    Upload(String, Vec<u8>, &'static str, &'static str),
    /// A file of any size, put there as the product does it.
    Stream(&'static str, Vec<u8>),
    /// The k0s of each world.
    Binary,
    /// A command that is repeated until it prints this line.
    Until(String, &'static str),
}

fn run(command: impl Into<String>) -> Act {
    Act::Run(command.into())
}

fn code(command: impl Into<String>) -> Act {
    Act::Code(command.into())
}

/// The answers of a machine, as far as they must agree, with the question.
async fn answers(remote: &Remote, binary: &'static [u8], acts: &[Act]) -> Vec<(String, String)> {
    let patience = Duration::from_secs(60);
    let ask = async |command: &str| remote.try_run(command, None, patience).await.expect("an answer");
    let mut all = Vec::new();
    for act in acts {
        all.push(match act {
            Act::Run(command) => {
                let Output { code, stdout, stderr } = ask(command).await;
                let complaint = stderr.trim_end().lines().next_back().unwrap_or_default();
                (command.clone(), format!("{code}, {stdout:?}, {complaint:?}"))
            }
            Act::Code(command) => (command.clone(), ask(command).await.code.to_string()),
            Act::Upload(path, content, mode, owner) => {
                let done = remote.upload(&Intent::for_tests(), path, content, mode, owner).await;
                // The error names the host.
                let done = done.map_err(|error| error.to_string().replace(&remote.target().host, "HOST"));
                (format!("upload {path}"), format!("{done:?}"))
            }
            Act::Stream(path, content) => {
                let open = || Ok(Box::new(std::io::Cursor::new(content.clone())) as Box<dyn std::io::Read + Send>);
                let done = remote.upload_from(&Intent::for_tests(), path, open, "0755", "root", patience).await;
                let done = done.map_err(|error| error.to_string().replace(&remote.target().host, "HOST"));
                (format!("stream {path}"), format!("{done:?}"))
            }
            Act::Binary => {
                let open = || Ok(Box::new(std::io::Cursor::new(binary)) as Box<dyn std::io::Read + Send>);
                remote
                    .upload_from(&Intent::for_tests(), k0s::BINARY, open, "0755", "root", patience)
                    .await
                    .expect("the binary");
                ("the binary".to_owned(), String::new())
            }
            Act::Until(command, line) => {
                let mut last = ask(command).await;
                for _ in 0..150 {
                    if last.stdout.trim() == *line {
                        break;
                    }
                    pause(Duration::from_millis(200)).await;
                    last = ask(command).await;
                }
                (command.clone(), last.stdout)
            }
        });
    }
    all
}

const CLOUD_INIT: &str = "cloud-init status --wait --format json";

/// What cloud-init says in the end, as the product reads it.
async fn birth(remote: &Remote) -> (u32, Value, bool) {
    let since = tokio::time::Instant::now();
    while let Err(error) = remote.connect().await {
        assert!(since.elapsed() < Duration::from_secs(900), "{error}");
        pause(Duration::from_millis(200)).await;
    }
    let output = remote.try_run(CLOUD_INIT, None, BOOT_PATIENCE).await.expect("an answer");
    let report = output.stdout.find('{').map(|start| &output.stdout[start..]).unwrap_or_default();
    let mut report: Value = serde_json::from_str(report).expect("JSON");
    let has_errors = report["errors"].as_array().is_some_and(|errors| !errors.is_empty());
    (output.code, report["status"].take(), has_errors)
}

/// The k0s of the twin's machines, and that of hosts.
fn binaries() -> [&'static [u8]; 2] {
    static BINARIES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let make = || {
        let real = k0s_binary(env!("CARGO_BIN_EXE_k0s-stand-in"));
        let twin = twin::machine::stand_in_binary(&k0s_version(&real), "amd64");
        [twin, fs_err::read(&real).expect("k0s")]
    };
    BINARIES.get_or_init(make).each_ref().map(Vec::as_slice)
}

/// Both worlds, with the same document: how cloud-init ended, and the answers.
fn compare(paper: &Paper, document: &str, acts: &[Act]) -> (u32, Value, bool) {
    let (twin_birth, twin) =
        rehearsal::runtime(7).enable_time().start_paused(true).build().expect("a runtime").block_on(async {
            let stage = Stage::new(7);
            stage.twin.with(|world| twin::machine::create(world, spec(paper, document)));
            let remote = Remote::new(stage.world.clone(), paper.target(0, "20.0.0.1"));
            (birth(&remote).await, answers(&remote, binaries()[0], acts).await)
        });
    let (real_birth, real) = block_on(async {
        let host = Host::start_with(paper, 0, document);
        host.answers().await;
        (birth(&host.remote).await, answers(&host.remote, binaries()[1], acts).await)
    });
    let differences = twin.iter().zip(&real).filter(|(twin, real)| twin != real);
    let differences: String =
        differences.map(|(twin, real)| format!("{}\n  twin: {}\n  real: {}\n", twin.0, twin.1, real.1)).collect();
    assert!(twin_birth == real_birth && differences.is_empty(), "{twin_birth:?} {real_birth:?}\n{differences}");
    real_birth
}

fn spec(paper: &Paper, document: &str) -> twin::machine::MachineSpec {
    twin::machine::MachineSpec {
        vm_id: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/one".to_owned(),
        name: paper.node(0).name.clone(),
        size: paper.node(0).size.clone(),
        architecture: "x64".to_owned(),
        public_ip: Some(Ipv4Addr::new(20, 0, 0, 1)),
        private_ip: paper.node(0).private_address,
        network: "/net".to_owned(),
        admin_username: paper.config.ssh.username.clone(),
        authorized_keys: vec![openssh_public(&paper.keys.ssh_user())],
        custom_data: document.as_bytes().to_vec(),
        ssh_port: 22,
    }
}

fn birth_and_mesh() -> Vec<Act> {
    let mesh = Mesh::Wireguard;
    let (unit, identity) = (mesh.unit(), mesh.identity_command());
    let is_active = format!("systemctl is-active {unit}");
    let mut acts = vec![
        run("hostname; id -un; sudo id -un; pwd"),
        run("sudo stat -c '%a %U:%G' /etc/wireguard/wg0.conf"),
        run("sudo stat -c '%a %U:%G' /etc/ssh/ssh_host_ed25519_key"),
        run("stat -c '%a %U:%G' /etc/systemd/system/wg-quick@wg0.service.d/10-retry.conf"),
        run("stat -c '%a %U:%G' .ssh"),
        run("stat -c '%a %U:%G' .ssh/authorized_keys"),
        run("stat -c '%a %U:%G' /home/k0rdent"),
        run("sudo cat /etc/wireguard/wg0.conf; cat /etc/systemd/system/wg-quick@wg0.service.d/10-retry.conf"),
        run("cat /etc/wireguard/wg0.conf"),
        Act::Until(is_active.clone(), "active"),
        run(&is_active),
        run(identity),
        run(format!("{is_active}; systemctl is-active k0scontroller; {identity}")),
        run(format!("echo mesh $({is_active} 2>/dev/null); echo identity $({identity} 2>/dev/null); ")),
        run(
            "echo kubectl $(ls -d .kube/config /usr/local/bin/kubectl 2>/dev/null); echo member $(sudo ls -d /var/lib/k0s/etcd/member 2>/dev/null); ",
        ),
        run(format!("systemctl is-enabled {unit}")),
        run(format!("sudo systemctl daemon-reload; sudo systemctl enable {unit}; sudo systemctl restart {unit}")),
        run(format!("systemctl show {unit} -p ActiveState,SubState,Result")),
        run(format!("sudo systemctl restart {unit}")),
        run(format!("{is_active}; {identity}")),
        run(format!("sudo systemctl stop {unit}")),
        run(&is_active),
        // A kernel without WireGuard has another word for an interface that is not there.
        code(identity),
        run("sudo mv -f /etc/wireguard/wg0.conf /etc/wireguard/away"),
        run(format!("sudo systemctl start {unit}")),
        run(&is_active),
        run(format!("systemctl show {unit} -p ActiveState,SubState")),
        run(format!("sudo systemctl start --no-block {unit}")),
        run("sudo mv -f /etc/wireguard/away /etc/wireguard/wg0.conf"),
        Act::Until(is_active, "active"),
        run(identity),
    ];
    // What the product never does: without an administrator's rights.
    acts.extend(["restart", "stop", "enable"].map(|verb| run(format!("systemctl {verb} {unit} --no-ask-password"))));
    acts.push(run("systemctl daemon-reload --no-ask-password"));
    acts
}

fn files() -> Vec<Act> {
    let line = "export KUBECONFIG=$HOME/.kube/config";
    let profile = format!("grep -qxF '{line}' .bashrc || echo '{line}' >> .bashrc");
    vec![
        Act::Upload(k0s::CONFIG.to_owned(), b"first: 1\n".repeat(40_000), "0600", "root"),
        run("sudo stat -c '%a %U:%G %s' /etc/k0s/k0s.yaml; stat -c '%a %U:%G' /etc/k0s"),
        Act::Upload(k0s::CONFIG.to_owned(), b"second: 2\n".to_vec(), "0600", "root"),
        run("sudo cat /etc/k0s/k0s.yaml; cat /etc/k0s/k0s.yaml"),
        Act::Upload(k0s::TOKEN.to_owned(), Vec::new(), "0600", "root"),
        run("sudo stat -c '%a %U:%G %s' /etc/k0s/k0stoken"),
        run("sudo install -d -m 0700 -o k0rdent -g k0rdent /home/k0rdent/.kube"),
        Act::Upload("/home/k0rdent/.kube/config".to_owned(), b"apiVersion: v1\n".to_vec(), "0600", "k0rdent"),
        run("stat -c '%a %U:%G' .kube; stat -c '%a %U:%G' .kube/config; cat .kube/config"),
        run(&profile),
        run(&profile),
        run("grep -cxF 'export KUBECONFIG=$HOME/.kube/config' .bashrc"),
        Act::Upload("/etc/k0s/other".to_owned(), b"x".to_vec(), "0600", "nobody-here"),
        Act::Upload("/etc/hostname/x".to_owned(), b"x".to_vec(), "0600", "root"),
        Act::Upload("/usr/local/bin/tool.partial".to_owned(), b"#!/bin/sh\n".to_vec(), "0600", "root"),
        run(
            "sudo chmod 0755 /usr/local/bin/tool.partial && sudo mv -f /usr/local/bin/tool.partial /usr/local/bin/tool",
        ),
        run("stat -c '%a %U:%G' /usr/local/bin/tool; test -x /usr/local/bin/tool; test -x /etc/hosts"),
        run("ls -d /usr/local/bin/tool /etc/k0s/k0s.yaml /var/lib/k0s 2>/dev/null; systemctl is-active k0scontroller"),
        Act::Stream("/opt/new/bundle.partial", b"images".repeat(1 << 20)),
        Act::Stream("/etc/hostname/x", b"x".to_vec()),
        Act::Stream("/opt/new/empty", Vec::new()),
        run("sudo mkdir -p /opt/new/images && sudo mv -f /opt/new/bundle.partial /opt/new/images/bundle.tar"),
        run("sudo mkdir -p /etc/hostname && sudo mv -f /opt/new/nothing /opt/new/there"),
        run("sudo sha256sum /opt/new/images/bundle.tar; stat -c '%a %U:%G %s' /opt/new/images/bundle.tar"),
        run("sudo sha256sum /opt/new/bundle.partial"),
        run("sudo rm -rf -- /etc/k0s/k0s.yaml /etc/k0s/k0stoken /home/k0rdent/.kube/config /usr/local/bin/tool"),
        run("ls -d /usr/local/bin/tool /etc/k0s/k0s.yaml /var/lib/k0s 2>/dev/null"),
        run("sudo cat /etc/k0s/k0s.yaml"),
    ]
}

/// Before k0s is there: its programs and its units, and a download that comes to nothing.
fn without_k0s() -> Vec<Act> {
    let paper = Paper::new(1, 1);
    let (controller, worker) = (paper.node(0), paper.node(1));
    let binary = k0s::BINARY;
    vec![
        run(format!("{binary} version")),
        run(format!("test -x {binary}")),
        run(format!("sudo {binary} kubectl get --raw=/readyz")),
        run(format!("sudo {binary} reset")),
        run(format!("systemctl is-active {}", k0s::unit(controller))),
        run(format!("systemctl is-enabled {}", k0s::unit(worker))),
        run(format!("sudo systemctl stop {}", k0s::unit(controller))),
        run(format!("sudo systemctl enable --now {}", k0s::unit(worker))),
        run(format!("sudo systemctl start {}", k0s::unit(worker))),
        run(format!("{} && sudo systemctl daemon-reload", k0s::install_command(controller, false))),
        run(format!("sudo curl -fsSL --retry 5 --retry-connrefused -o {binary}.partial 'https://nowhere.invalid/k0s'")),
        run(format!("ls -d {binary} {binary}.partial")),
        run("nonsense"),
        run("echo out; echo error >&2; exit 7"),
        run("true && false"),
        run("sh -c nonsense; cd /nowhere; echo x > /etc/x; cat < /nowhere; /etc"),
        run("sudo -u nobody-here true; sudo nonsense"),
    ]
}

/// The proxy that k0s, apt and curl are told of.
fn proxy() -> Vec<Act> {
    let text = "proxy: {http: 'http://proxy.invalid:3128', https: 'http://ada:hunter2@proxy.invalid:3128'}\n";
    let config = deploy::config::load(text).expect("a configuration").config;
    let paper = Paper::new(1, 1);
    let controller = paper.node(0);
    let [drop_in, variables] = machine_proxy::files(controller);
    let environment = machine_proxy::environment(&config, &paper.topology).expect("a proxy");
    let apt = machine_proxy::apt(&config).expect("a proxy");
    let stat = |file: &str| run(format!("sudo stat -c '%a %U:%G %s' {file}"));
    let removal = machine_proxy::removal(&config, controller);
    let directory = machine_proxy::directory(controller);
    vec![
        run(machine_proxy::look(controller)),
        Act::Upload(variables.clone(), environment.expose().as_bytes().to_vec(), "0600", "root"),
        Act::Upload(drop_in.clone(), machine_proxy::drop_in(controller).into_bytes(), "0644", "root"),
        stat(&variables),
        stat(&drop_in),
        run(machine_proxy::look(controller)),
        Act::Upload(machine_proxy::APT.to_owned(), apt.expose().as_bytes().to_vec(), "0600", "root"),
        stat(machine_proxy::APT),
        run(format!("sudo rm -f {}", machine_proxy::APT)),
        // Nobody says anything of a proxy on its standard input here.
        run("sudo curl --config - -fsSL -o /tmp/nothing 'https://nowhere.invalid/k0s'"),
        run(format!("{} true", download_command("https://nowhere.invalid/", true))),
        run(format!("{removal} ls -d {directory} 2>/dev/null")),
        Act::Upload(format!("{directory}/other.conf"), b"[Service]\n".to_vec(), "0644", "root"),
        run(format!("{removal} ls -d {directory}")),
    ]
}

/// A service that runs, as k0s does in the end.
fn units() -> Vec<Act> {
    let unit = b"[Service]\nExecStart=/bin/sleep 100000\n\n[Install]\nWantedBy=multi-user.target\n".to_vec();
    vec![
        Act::Upload("/etc/systemd/system/stand-in.service".to_owned(), unit, "0644", "root"),
        run("sudo systemctl daemon-reload"),
        run("systemctl is-active stand-in; systemctl is-enabled stand-in"),
        run("sudo systemctl enable --now stand-in"),
        run("sudo systemctl enable --now stand-in"),
        run("systemctl is-active stand-in; systemctl is-enabled stand-in"),
        run("systemctl show stand-in -p LoadState,ActiveState,SubState,NRestarts"),
        run("sudo systemctl restart stand-in; systemctl is-active stand-in"),
        run("sudo systemctl stop stand-in; systemctl is-active stand-in"),
        run("sudo systemctl stop stand-in"),
        run("sudo systemctl disable stand-in; systemctl is-enabled stand-in"),
    ]
}

/// How a host is examined, claimed and given back.
fn claim() -> Vec<Act> {
    let readlink = format!("readlink {CLAIM}");
    let claimed_by = |cluster: &str| run(format!("sudo ln -s {cluster} {CLAIM}"));
    vec![
        run("uname -s; uname -m; ls -d /run/systemd/system; sudo -n true 2>&1 && echo yes"),
        run(format!("ls -d {}", k0s::PLACES.join(" "))),
        run(&readlink),
        claimed_by("k0rdent-hosts001"),
        claimed_by("k0rdent-hosts002"),
        run(&readlink),
        run(format!("sudo rm -f -- {CLAIM}; sudo rm -f -- {CLAIM}")),
        run(&readlink),
    ]
}

fn everything() -> Vec<Act> {
    [birth_and_mesh(), files(), without_k0s(), proxy(), units(), claim()].into_iter().flatten().collect()
}

/// The life of a controller, from its binary to its reset. Only with a real k0s is this a comparison with the real one;
/// without, it holds what runs under systemd against what runs in the twin.
fn of_k0s() -> Vec<Act> {
    let paper = Paper::new(1, 1);
    let (controller, binary) = (paper.node(0), k0s::BINARY);
    let k0s = |command: &str| run(format!("sudo {binary} {command}"));
    let code_of = |command: &str| code(format!("sudo {binary} {command}"));
    let config = k0s::cluster_config(&paper.config, &paper.topology, controller);
    let install = k0s::install_command(controller, false);
    let address = controller.private_address;
    vec![
        Act::Binary,
        run(format!("{binary} version")),
        run(format!("{binary} token list")),
        k0s("token list"),
        k0s("status"),
        k0s("start"),
        k0s("stop"),
        k0s("kubeconfig admin"),
        k0s("nonsense"),
        k0s("install worker"),
        Act::Upload(k0s::CONFIG.to_owned(), config.into_bytes(), "0600", "root"),
        run(format!("{install} && sudo systemctl daemon-reload")),
        run(&install),
        run(install.replace(" --force", "")),
        run(
            "cat /etc/systemd/system/k0scontroller.service; stat -c '%a %U:%G' /etc/systemd/system/k0scontroller.service",
        ),
        run("systemctl is-active k0scontroller; systemctl is-enabled k0scontroller"),
        run("sudo systemctl enable --now k0scontroller"),
        Act::Until(format!("sudo {binary} kubectl get --raw=/readyz"), "ok"),
        run("systemctl is-active k0scontroller; systemctl is-enabled k0scontroller"),
        k0s("start"),
        k0s("reset"),
        code_of("status -o json"),
        code_of("kubeconfig admin"),
        run("sudo stat -c '%a %U:%G' /var/lib/k0s/pki/admin.conf; stat -c '%a %U:%G' /var/lib/k0s"),
        k0s("token list"),
        k0s("token create --role=nobody"),
        code_of("token create --role=worker --expiry=30m"),
        code_of("token create --role=controller --expiry=30m"),
        k0s("token invalidate nobody"),
        k0s("etcd member-list"),
        k0s("etcd leave --peer-address=192.0.2.1"),
        k0s(&format!("etcd leave --peer-address={address}")),
        run("sudo systemctl stop k0scontroller; systemctl is-active k0scontroller"),
        k0s("kubectl get --raw=/readyz"),
        k0s("etcd member-list"),
        k0s("stop"),
        run("sudo systemctl start k0scontroller"),
        Act::Until(format!("sudo {binary} kubectl get --raw=/readyz"), "ok"),
        k0s("stop"),
        code_of("reset"),
        run("ls -d /var/lib/k0s /run/k0s /etc/systemd/system/k0scontroller.service; systemctl is-active k0scontroller"),
        code("systemctl is-enabled k0scontroller"),
        run("ls /etc/k0s /usr/local/bin"),
    ]
}

#[test]
fn every_command_of_the_product_is_in_the_contract() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/src");
    let steps = fs_err::read_dir(sources.join("steps")).expect("the steps").map(|file| file.expect("a step").path());
    let others = ["observe.rs", "deployment.rs", "mesh.rs", "k0s.rs"].map(|name| sources.join(name));
    let known: Vec<String> = everything()
        .into_iter()
        .chain(of_k0s())
        .filter_map(|act| match act {
            Act::Run(command) | Act::Code(command) | Act::Until(command, _) => Some(command),
            Act::Upload(..) | Act::Stream(..) | Act::Binary => None,
        })
        .chain([CLOUD_INIT.to_owned()])
        .collect();
    let (mut found, mut unknown) = (0, Vec::new());
    for path in steps.chain(others) {
        let text = fs_err::read_to_string(path).expect("a source");
        for beginning in ["\"sudo ", "\"systemctl ", "\"cloud-init status", "\"test -", "\"ls ", "\"grep "] {
            for (place, _) in text.match_indices(beginning) {
                let command = text[place + 1..].split('"').next().unwrap_or_default().replace("{BINARY}", k0s::BINARY);
                // As far as it is the same on every machine.
                let command = command.split('{').next().unwrap_or_default();
                found += 1;
                if !known.iter().any(|known| known.contains(command)) {
                    unknown.push(command.to_owned());
                }
            }
        }
    }
    assert!(found >= 15 && unknown.is_empty(), "{found} commands; these are not compared: {unknown:#?}");
}

#[test]
fn a_machine_of_the_twin_answers_as_a_real_host() {
    let paper = Paper::new(1, 0);
    assert_eq!(compare(&paper, &paper.document(0), &everything()), (0, "done".into(), false));
}

#[test]
fn k0s_on_a_machine_of_the_twin_answers_as_on_a_real_host() {
    let paper = Paper::new(1, 1);
    compare(&paper, &paper.document(0), &of_k0s());
}

#[test]
fn both_say_who_may_not_become_root() {
    let paper = Paper::new(1, 0);
    let document = paper.document(0).replace("NOPASSWD:ALL", "ALL");
    let mesh = Mesh::Wireguard;
    let acts = [
        run(mesh.identity_command()),
        run(format!("sudo systemctl restart {}", mesh.unit())),
        Act::Upload(k0s::CONFIG.to_owned(), b"x".to_vec(), "0600", "root"),
        code("test -e /etc/k0s"),
    ];
    compare(&paper, &document, &acts);
}

#[test]
fn both_say_that_cloud_init_has_failed() {
    let paper = Paper::new(1, 0);
    let document = paper.document(0).replace("- start\n", "- no-such-verb\n");
    assert_ne!(document, paper.document(0), "the last command of runcmd decides how all of it has ended");
    let ended = compare(&paper, &document, &[run("hostname")]);
    assert_eq!(ended, (1, "error".into(), true));
}

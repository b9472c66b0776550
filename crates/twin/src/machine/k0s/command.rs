//! The command line of k0s. Words and exit codes follow its source (`cmd/`), where they are known.

use std::time::Duration;

use serde_json::json;

use super::{Binary, K0s, Service, config, name_of, process, serving, state, state_mut, token};
use crate::{
    Latency, World, kube,
    machine::{files::Who, shell::Outcome, systemd},
};

/// What a command leads to.
pub(in crate::machine) enum Answer {
    /// It is done.
    Now(Outcome),
    /// It takes this long, and then does its work.
    After(Duration, fn(&mut World, &str) -> Outcome),
}

fn error(text: impl std::fmt::Display) -> Outcome {
    Outcome::fails(1, format!("Error: {text}"))
}

/// Runs `k0s ARGUMENTS`; the binary is at `path`.
pub(in crate::machine) fn command(
    world: &mut World,
    key: &str,
    (who, chosen): (&Who, &str),
    path: &str,
    arguments: &[String],
) -> Answer {
    let text = world.machines.get(key).and_then(|machine| machine.files.text(path)).unwrap_or_default();
    let Some(binary) = Binary::read(text.as_bytes()) else { return Answer::Now(Outcome::code(126)) };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["version", ..] => return Answer::Now(Outcome::says(format!("{}\n", binary.version))),
        ["sysinfo", ..] => return Answer::Now(sysinfo(world, key)),
        ["kubectl", ..] => return Answer::Now(kubectl(world, key, who, chosen, &arguments[1..])),
        _ if !who.is_root() => return Answer::Now(error("this command must be run as root")),
        ["reset", ..] => return reset(world, key),
        _ => {}
    }
    Answer::Now(match words.as_slice() {
        ["install", role @ ("controller" | "worker"), ..] => {
            install(world, key, &binary.version, *role == "controller", &arguments[2..])
        }
        ["start", ..] => start_stop(world, key, true),
        ["stop", ..] => start_stop(world, key, false),
        ["status", rest @ ..] => status(world, key, rest),
        ["kubeconfig", "admin", ..] => kubeconfig(world, key),
        ["token", "create", ..] => token_create(world, key, &arguments[2..]),
        ["token", "list", ..] => token_list(world, key),
        ["token", "invalidate", ids @ ..] => token_invalidate(world, key, ids),
        ["etcd", "member-list", ..] => member_list(world, key),
        ["etcd", "leave", ..] => leave(world, key, &arguments[2..]),
        ["config", "validate", ..] => validate(world, key, &arguments[2..]),
        _ => error(format!("unknown command \"{}\" for \"k0s\"", words.join(" "))),
    })
}

/// Flags: `--name=value`, `--name value` for those that take one, `--name` for switches.
fn flags(arguments: &[String], with_value: &[&str], switches: &[&str]) -> Result<Vec<(String, String)>, Outcome> {
    let mut flags = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let name = match argument.as_str() {
            "-c" => "config",
            "-o" => "out",
            "-d" => "debug",
            other => other.trim_start_matches("--"),
        };
        let (name, glued) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
        if !argument.starts_with('-') {
            return Err(error(format!("unknown command \"{argument}\" for \"k0s\"")));
        } else if with_value.contains(&name) {
            flags.push((name.into(), glued.or_else(|| arguments.next().cloned()).unwrap_or_default()));
        } else if switches.contains(&name) {
            flags.push((name.into(), glued.unwrap_or_else(|| "true".into())));
        } else {
            return Err(error(format!("unknown flag: --{name}")));
        }
    }
    Ok(flags)
}

fn flag<'a>(flags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
}

fn install(world: &mut World, key: &str, version: &str, is_controller: bool, arguments: &[String]) -> Outcome {
    let with_value = [
        "config",
        "data-dir",
        "token-file",
        "kubelet-extra-args",
        "kubelet-root-dir",
        "labels",
        "taints",
        "env",
        "profile",
        "cri-socket",
        "disable-components",
        "iptables-mode",
        "logging",
        "status-socket",
    ];
    let switches = [
        "enable-worker",
        "no-taints",
        "single",
        "force",
        "debug",
        "verbose",
        "enable-dynamic-config",
        "enable-cloud-provider",
        "enable-metrics-scraper",
        "ignore-pre-flight-checks",
    ];
    let flags = match flags(arguments, &with_value, &switches) {
        Ok(flags) => flags,
        Err(outcome) => return outcome,
    };
    let is_set = |name: &str| flag(&flags, name) == Some("true");
    let text = |name: &str| flag(&flags, name).map(str::to_owned);
    if !is_controller && flag(&flags, "token-file").is_none() {
        return error("failed to install worker service: --token-file is required");
    }
    let kubelet = text("kubelet-extra-args").unwrap_or_default();
    let kubelet_flag =
        |name: &str| kubelet.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let labels = text("labels").unwrap_or_default();
    let service = Service {
        version: version.into(),
        is_controller,
        enable_worker: is_set("enable-worker") || is_set("single"),
        no_taints: is_set("no-taints"),
        single: is_set("single"),
        token_file: text("token-file"),
        config: text("config"),
        node_ip: kubelet_flag("--node-ip="),
        node_name: kubelet_flag("--hostname-override="),
        labels: labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(k, v)| (k.into(), v.into()))
            .collect(),
        arguments: arguments.iter().filter(|argument| !argument.starts_with("--force")).cloned().collect(),
    };
    write_unit(world, key, service, is_set("force"))
}

fn write_unit(world: &mut World, key: &str, service: Service, force: bool) -> Outcome {
    let (unit, role) = (service.unit(), if service.is_controller { "controller" } else { "worker" });
    let Some(machine) = world.machines.get_mut(key) else { return Outcome::code(1) };
    let path = systemd::path(unit);
    if machine.files.get(&path).is_some() && !force {
        return error(format!(
            "failed to install {role} service: failed to install service: Init already exists: {path}"
        ));
    }
    // k0s source, `pkg/install`: the template of its unit, in which a space in an argument is `\x20`.
    let arguments: Vec<String> = service.arguments.iter().map(|argument| argument.replace(' ', "\\x20")).collect();
    let text = format!(
        "[Unit]\nDescription=k0s - Zero Friction Kubernetes\nDocumentation=https://docs.k0sproject.io\n\
        ConditionFileIsExecutable=/usr/local/bin/k0s\n\nAfter=network-online.target\nWants=network-online.target\n\n\
        [Service]\nStartLimitInterval=5\nStartLimitBurst=10\nExecStart=/usr/local/bin/k0s {role} {}\n\n\
        RestartSec=10\nDelegate=yes\nKillMode=process\nLimitCORE=infinity\nTasksMax=infinity\nTimeoutStartSec=0\n\
        LimitNOFILE=999999\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n",
        arguments.join(" ")
    );
    machine.files.put(&path, text, 0o644, "root");
    machine.k0s.service = Some(service);
    systemd::set_enabled(world, key, unit, true);
    world.machine_change(key, "created", &format!("unit {unit}"));
    Outcome::code(0)
}

fn start_stop(world: &mut World, key: &str, on: bool) -> Outcome {
    let Some(k0s) = state(world, key) else { return Outcome::code(1) };
    let Some(unit) = k0s.service.as_ref().map(Service::unit) else {
        return error("k0s has not been installed as a service");
    };
    match (on, k0s.running) {
        (true, true) => return error("already running"),
        (false, false) => return error("already stopped"),
        (true, false) => drop(systemd::start(world, key, unit)),
        (false, true) => systemd::stop(world, key, unit),
    }
    Outcome::code(0)
}

/// Whether the process is there that answers on k0s's status socket.
fn process_runs(world: &World, key: &str) -> bool {
    let Some(machine) = world.machines.get(key) else { return false };
    let unit = machine.k0s.service.as_ref().and_then(|service| machine.units.get(service.unit()));
    machine.k0s.running && unit.is_some_and(|unit| unit.state == systemd::State::Active)
}

fn status(world: &World, key: &str, rest: &[&str]) -> Outcome {
    let running = state(world, key).filter(|_| process_runs(world, key));
    let Some((k0s, service)) = running.and_then(|k0s| Some((k0s, k0s.service.as_ref()?))) else {
        return error(
            "status: can't get \"status\" via \"/run/k0s/status.sock\": Get \"http://localhost/status\": \
            dial unix /run/k0s/status.sock: connect: no such file or directory",
        );
    };
    let role = if service.is_controller { "controller" } else { "worker" };
    let workloads = !service.is_controller || service.enable_worker;
    let reaches_api = k0s.node_ready || serving(world, key).is_some();
    if rest.join(" ").contains("json") {
        let mut all = vec!["/usr/local/bin/k0s".to_owned(), role.to_owned()];
        all.extend(service.arguments.iter().cloned());
        let document = json!({
            "Version": service.version,
            "Pid": 812,
            "PPid": 1,
            "Role": role,
            "SysInit": "linux-systemd",
            "StubFile": systemd::path(service.unit()),
            "Workloads": workloads,
            "SingleNode": service.single,
            "DynamicConfig": false,
            "Args": all,
            "WorkerToAPIConnectionStatus": { "Message": "", "Success": reaches_api },
            "ClusterConfig": null,
            "K0sVars": { "DataDir": "/var/lib/k0s", "KubeletRootDir": "/var/lib/k0s/kubelet" },
        });
        return Outcome::says(format!("{document:#}\n"));
    }
    Outcome::says(format!(
        "Version: {}\nProcess ID: 812\nRole: {role}\nWorkloads: {workloads}\nSingleNode: {}\n\
        Kube-api probing successful: {reaches_api}\nKube-api probing last error: \n",
        service.version, service.single
    ))
}

/// The cluster whose API answers here, or the reason why none does.
fn cluster_here(world: &World, key: &str) -> Result<kube::ClusterId, Outcome> {
    let refused = "Get \"https://localhost:6443/\": dial tcp 127.0.0.1:6443: connect: connection refused";
    serving(world, key).ok_or_else(|| error(refused))
}

fn kubeconfig(world: &World, key: &str) -> Outcome {
    let path = "/var/lib/k0s/pki/admin.conf";
    let exists = world.machines.get(key).is_some_and(|machine| machine.files.get(path).is_some());
    match state(world, key).and_then(|k0s| k0s.cluster).filter(|_| exists) {
        None => error(format!(
            "failed to read admin config, check if the control plane is initialized on this node: \
            open {path}: no such file or directory"
        )),
        Some(cluster) => {
            let server = format!("https://{}:6443", process::api_address(world, key));
            Outcome::says(kube::admin_kubeconfig(world, cluster, &server))
        }
    }
}

fn token_create(world: &mut World, key: &str, arguments: &[String]) -> Outcome {
    let flags = match flags(arguments, &["role", "expiry", "data-dir"], &["wait", "debug"]) {
        Ok(flags) => flags,
        Err(outcome) => return outcome,
    };
    let is_controller = match flag(&flags, "role").unwrap_or("worker") {
        "controller" => true,
        "worker" => false,
        other => return error(format!("unsupported role {other:?}; supported roles are: [\"controller\" \"worker\"]")),
    };
    let Some(lifetime) = token::lifetime(flag(&flags, "expiry").unwrap_or("0s")) else {
        return error("invalid argument for \"--expiry\" flag: time: invalid duration");
    };
    let cluster = match cluster_here(world, key) {
        Ok(cluster) => cluster,
        Err(outcome) => return outcome,
    };
    let host = process::api_address(world, key);
    let text = token::create(world, cluster, is_controller, lifetime, &host);
    world.machine_change(key, "created", if is_controller { "controller token" } else { "worker token" });
    Outcome::says(format!("{}\n", text.unwrap_or_default()))
}

fn token_list(world: &World, key: &str) -> Outcome {
    let cluster = match cluster_here(world, key) {
        Ok(cluster) => cluster,
        Err(outcome) => return outcome,
    };
    let tokens = world.machines.k0s_clusters.get(&cluster).map(|state| state.tokens.as_slice()).unwrap_or_default();
    let valid: Vec<String> = tokens
        .iter()
        .filter(|token| token.holds(world.now))
        .map(|token| {
            let until = token.expires.map(|expires| world.options.epoch + expires);
            let until = until.and_then(|until| until.format(&time::format_description::well_known::Rfc3339).ok());
            let role = if token.is_controller { "controller" } else { "worker" };
            format!("{:<9}{role:<12}{}\n", token.id, until.unwrap_or_else(|| "<never>".into()))
        })
        .collect();
    match valid.is_empty() {
        true => Outcome::says("No k0s join tokens found\n"),
        false => Outcome::says(format!("{:<9}{:<12}EXPIRES AT\n{}", "ID", "ROLE", valid.concat())),
    }
}

fn token_invalidate(world: &mut World, key: &str, ids: &[&str]) -> Outcome {
    let cluster = match cluster_here(world, key) {
        Ok(cluster) => cluster,
        Err(outcome) => return outcome,
    };
    for id in ids {
        let Some(state) = world.machines.k0s_clusters.get_mut(&cluster) else { return Outcome::code(1) };
        let Some(position) = state.tokens.iter().position(|token| token.id == *id) else {
            return error(format!("secrets \"bootstrap-token-{id}\" not found"));
        };
        let token = state.tokens.remove(position);
        token::forget(world, cluster, &token.bearer());
    }
    Outcome::says(ids.iter().map(|id| format!("token {id} deleted successfully\n")).collect::<String>())
}

fn member_list(world: &World, key: &str) -> Outcome {
    let cluster = match cluster_here(world, key) {
        Ok(cluster) => cluster,
        Err(outcome) => return outcome,
    };
    let members = world.machines.k0s_clusters.get(&cluster).map(|state| state.members.as_slice()).unwrap_or_default();
    let members: serde_json::Map<String, serde_json::Value> = members
        .iter()
        .map(|member| (member.name.clone(), format!("https://{}:2380", member.peer_address).into()))
        .collect();
    Outcome::says(format!("{}\n", json!({ "members": members })))
}

fn leave(world: &mut World, key: &str, arguments: &[String]) -> Outcome {
    let flags = match flags(arguments, &["peer-address", "data-dir", "datadir"], &["debug"]) {
        Ok(flags) => flags,
        Err(outcome) => return outcome,
    };
    let cluster = match cluster_here(world, key) {
        Ok(cluster) => cluster,
        Err(_) => return error("can't list etcd cluster members: context deadline exceeded"),
    };
    let address = flag(&flags, "peer-address").map_or_else(|| process::peer_address(world, key), str::to_owned);
    let Some(state) = world.machines.k0s_clusters.get_mut(&cluster) else { return Outcome::code(1) };
    let Some(position) = state.members.iter().position(|member| member.peer_address == address) else {
        return error(format!("peer not found: https://{address}:2380"));
    };
    if state.members.len() == 1 {
        return error("etcdserver: re-configuration failed due to not enough started members");
    }
    let member = state.members.remove(position);
    // Who has left no longer belongs to the cluster's data.
    if let Some(k0s) = state_mut(world, &member.machine) {
        k0s.etcd_runs = false;
        k0s.api_ends.send_modify(|count| *count += 1);
    }
    world.machine_change(key, "deleted", &format!("etcd member {}", member.name));
    Outcome { stderr: b"level=info msg=\"Successfully removed etcd member\"\n".to_vec(), ..Outcome::default() }
}

/// kubectl as k0s has it: without `KUBECONFIG` it reads the administrator's file and nothing else, whoever asks (k0s source,
/// `NewK0sKubectlCmd`).
fn kubectl(world: &mut World, key: &str, who: &Who, kubeconfig: &str, arguments: &[String]) -> Outcome {
    let path = if kubeconfig.is_empty() { ADMIN } else { kubeconfig };
    let Some(machine) = world.machines.get(key) else { return Outcome::code(255) };
    let address = match machine.files.read(path, who) {
        Ok(bytes) => server(&String::from_utf8_lossy(bytes)).unwrap_or_default(),
        Err(_) if kubeconfig.is_empty() => {
            return error(format!("cannot read admin kubeconfig at {ADMIN}, is the server running?"));
        }
        // What is not there is an empty configuration (kubectl source).
        Err(_) => "localhost:8080".to_owned(),
    };
    match process::server_at(world, key, &address) {
        Some(cluster) => {
            let (code, stdout, stderr) = kube::kubectl(world, cluster, arguments);
            Outcome { code, stdout: stdout.into(), stderr: stderr.into() }
        }
        None => Outcome::fails(
            1,
            format!("The connection to the server {address} was refused - did you specify the right host or port?"),
        ),
    }
}

/// Where k0s keeps the administrator's kubeconfig (k0s source, `AdminKubeConfigPath`).
const ADMIN: &str = "/var/lib/k0s/pki/admin.conf";

/// The host and the port of the first server in a kubeconfig.
fn server(kubeconfig: &str) -> Option<String> {
    let line = kubeconfig.lines().find_map(|line| line.trim().trim_start_matches("- ").strip_prefix("server:"))?;
    Some(line.trim().trim_matches(['"', '\'']).strip_prefix("https://")?.trim_end_matches('/').to_owned())
}

fn validate(world: &World, key: &str, arguments: &[String]) -> Outcome {
    let flags = match flags(arguments, &["config"], &["debug"]) {
        Ok(flags) => flags,
        Err(outcome) => return outcome,
    };
    let path = flag(&flags, "config").unwrap_or("/etc/k0s/k0s.yaml");
    match world.machines.get(key).and_then(|machine| machine.files.text(path)) {
        None => error(format!("open {path}: no such file or directory")),
        Some(text) => match config::parse(&text) {
            Ok(_) => Outcome::code(0),
            Err(reason) => error(reason),
        },
    }
}

fn sysinfo(world: &World, key: &str) -> Outcome {
    Outcome::says(format!(
        "Total memory: 7.8 GiB (pass)\nFile system of /var/lib/k0s: ext4 (pass)\nName resolution: {}: (pass)\n\
        Operating system: Linux (pass)\n  Linux kernel release: 6.1.0-28-cloud (pass)\n  cgroup version: 2 (pass)\n",
        name_of(world, key)
    ))
}

fn reset(world: &mut World, key: &str) -> Answer {
    if state(world, key).is_some_and(|k0s| k0s.running) {
        return Answer::Now(error("k0s seems to be running, please stop k0s before reset"));
    }
    Answer::After(world.latency(Latency::K0sReset, &name_of(world, key)), wipe)
}

/// Everything that k0s has left on the disk goes, except its configuration and its binary.
fn wipe(world: &mut World, key: &str) -> Outcome {
    process::stop(world, key);
    let Some(machine) = world.machines.get_mut(key) else { return Outcome::code(1) };
    for unit in ["k0scontroller", "k0sworker"] {
        let _ = machine.files.remove(&systemd::path(unit), false, &Who::root());
        machine.units.remove(unit);
    }
    let _ = machine.files.remove("/var/lib/k0s", true, &Who::root());
    // The count of runs goes on: what an earlier run has planned must not happen.
    machine.k0s = K0s { run: machine.k0s.run + 1, ..K0s::default() };
    process::forget_lost_clusters(world);
    world.machine_change(key, "deleted", "k0s");
    Outcome {
        stderr: b"level=info msg=\"k0s cleanup operations done.\"\nlevel=warning msg=\"To ensure a full reset, a node reboot is recommended.\"\n".to_vec(),
        ..Outcome::default()
    }
}

//! cloud-init on first boot: users, files, packages and commands, and what it says about itself.
//!
//! The order is Debian's (`/etc/cloud/cloud.cfg`): files, users and SSH keys before sshd listens; packages and commands
//! after. Status and exit codes are those of cloud-init 23.4 and later.

use std::{collections::BTreeSet, io::Read, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::FutureExt;
use serde_json::{Map, Value, json};

use super::{Machine, cloud_config::CloudConfig, files, shell};
use crate::{FaultKind, Latency, World};

const DATA_SOURCE: &str = "DataSourceAzure [seed=/dev/sr0]";
/// How a failing script of `runcmd` is reported (cloud-init source, `subp.runparts`).
const RUNPARTS_FAILED: &str = "('scripts_user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))";

/// How packages that cannot be downloaded are reported (guess, after cloud-init source: the module raises apt's exit code).
const PACKAGES_CLOSED: &str = "('package_update_upgrade_install', ProcessExecutionError('Exit code: 100'))";
/// How a lock of apt that others keep is reported, and how long cloud-init waits for it (cloud-init source).
const PACKAGES_FAILED: &str = "('package_update_upgrade_install', TimeoutError('Could not get APT lock'))";
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// What cloud-init was asked to do, and how far it is.
pub(super) struct CloudInit {
    configuration: CloudConfig,
    early_done: bool,
    /// Whether it has ended, well or not.
    pub(super) done: bool,
    errors: Vec<String>,
    last_update: String,
}

impl CloudInit {
    /// Nothing done yet.
    pub(super) fn new(configuration: CloudConfig) -> Self {
        let errors = configuration.error.iter().cloned().collect();
        Self { configuration, early_done: false, done: false, errors, last_update: String::new() }
    }

    fn extended_status(&self) -> &'static str {
        match (self.done, self.errors.is_empty(), self.configuration.warnings.is_empty()) {
            (false, ..) => "running",
            (true, false, _) => "error - done",
            (true, true, false) => "degraded done",
            (true, true, true) => "done",
        }
    }

    /// 0 done or running, 1 failed, 2 done with something left out.
    pub(super) fn exit_code(&self) -> u32 {
        match self.extended_status() {
            "error - done" => 1,
            "degraded done" => 2,
            _ => 0,
        }
    }

    /// `done`, `running` or `error`.
    pub(super) fn status(&self) -> &'static str {
        self.extended_status().split([' ']).next().map_or("done", |word| match word {
            "running" => "running",
            "error" => "error",
            _ => "done",
        })
    }

    /// What `cloud-init status --format json` prints.
    pub(super) fn status_json(&self) -> String {
        let recoverable = match self.configuration.warnings.as_slice() {
            [] => json!({}),
            warnings => {
                json!({ "WARNING": [format!("cloud-config failed schema validation!\n{}", warnings.join("\n"))] })
            }
        };
        let document = json!({
            "boot_status_code": "enabled-by-generator",
            "datasource": "azure",
            "detail": DATA_SOURCE,
            "errors": self.errors,
            "extended_status": self.extended_status(),
            "last_update": self.last_update,
            "recoverable_errors": recoverable,
            "status": self.status(),
        });
        format!("{document:#}\n")
    }
}

/// What is done before sshd listens; the rest follows. Each instance is initialised once.
pub(super) fn begin(world: &mut World, key: &str) {
    let now = world.utc().format(&time::format_description::well_known::Rfc2822).unwrap_or_default();
    let Some(machine) = world.machines.get_mut(key) else { return };
    if machine.cloud_init.done {
        return;
    }
    machine.cloud_init.last_update = now;
    if !machine.cloud_init.early_done {
        machine.cloud_init.early_done = true;
        let configuration = std::mem::take(&mut machine.cloud_init.configuration);
        identify(machine);
        write_files(machine, &configuration, false);
        make_users(machine, &configuration);
        machine.cloud_init.configuration = configuration;
    }
    let name = machine.name().to_owned();
    let delay = world.latency(Latency::CloudInit, &name);
    world.after_in_machine(key, delay, finish);
}

/// It was done long ago.
pub(super) fn complete(world: &mut World, key: &str) {
    if let Some(machine) = world.machines.get_mut(key) {
        machine.cloud_init.done = true;
    }
}

/// Packages, late files and commands.
fn finish(world: &mut World, key: &str) {
    let Some(machine) = world.machines.get(key).filter(|machine| !machine.cloud_init.done) else { return };
    let wants_packages = !machine.cloud_init.configuration.list("packages").is_empty();
    let name = machine.name().to_owned();
    let is_locked = wants_packages && world.faults.strikes(FaultKind::AptLock, &name);
    let is_closed = wants_packages && shell::packages_come(world, key).is_err();
    let Some(machine) = world.machines.get_mut(key) else { return };
    let configuration = std::mem::take(&mut machine.cloud_init.configuration);
    if is_locked {
        machine.cloud_init.errors.push(PACKAGES_FAILED.into());
    } else if is_closed {
        machine.cloud_init.errors.push(PACKAGES_CLOSED.into());
    } else {
        install_packages(machine, &configuration);
    }
    write_files(machine, &configuration, true);
    let script = runcmd_script(&configuration);
    machine.cloud_init.configuration = configuration;
    let (outcome, spent) = run_script(world, key, &script);
    if let Some(machine) = world.machines.get_mut(key) {
        let output = [outcome.stdout, outcome.stderr].concat();
        machine.files.put("/var/log/cloud-init-output.log", output, 0o640, "root");
    }
    let spent = if is_locked { spent + LOCK_WAIT } else { spent };
    let failed = world.faults.strikes(FaultKind::CloudInitError, &name) || outcome.code != 0;
    world.after_in_machine(key, spent, move |world, key| done(world, key, failed));
}

/// Runs what `runcmd` asks for, as root, in one go; the time that it takes is handed back.
fn run_script(world: &mut World, key: &str, script: &str) -> (shell::Outcome, Duration) {
    let Some(mut shell) = shell::Shell::during_boot(world, key) else { return Default::default() };
    // During boot the shell never waits: it counts the time instead, and so is done at once.
    let outcome = shell.run(script).now_or_never().and_then(Result::ok).unwrap_or_else(|| shell::Outcome::code(1));
    (outcome, shell.spent())
}

fn done(world: &mut World, key: &str, failed: bool) {
    let now = world.utc().format(&time::format_description::well_known::Rfc2822).unwrap_or_default();
    let Some(machine) = world.machines.get_mut(key) else { return };
    let state = &mut machine.cloud_init;
    if failed {
        state.errors.push(RUNPARTS_FAILED.into());
    }
    state.done = true;
    state.last_update = now;
    let result = json!({ "v1": { "datasource": DATA_SOURCE, "errors": state.errors } });
    let outcome = state.extended_status();
    machine.files.put("/run/cloud-init/result.json", format!("{result:#}\n"), 0o644, "root");
    machine.files.put("/var/lib/cloud/instance/boot-finished", "45.00 - finished\n", 0o644, "root");
    machine.changed.notify_waiters();
    world.machine_change(key, "updated", &format!("cloud-init {outcome}"));
}

fn identify(machine: &mut Machine) {
    let hostname = format!("{}\n", machine.hostname);
    machine.files.put("/etc/hostname", hostname, 0o644, "root");
    if let Ok(public) = machine.host_key.public_key().to_openssh() {
        machine.files.put("/etc/ssh/ssh_host_ed25519_key.pub", format!("{public}\n"), 0o644, "root");
    }
    if let Ok(private) = machine.host_key.to_openssh(russh::keys::ssh_key::LineEnding::LF) {
        machine.files.put("/etc/ssh/ssh_host_ed25519_key", private.as_bytes().to_vec(), 0o600, "root");
    }
}

fn make_users(machine: &mut Machine, configuration: &CloudConfig) {
    let listed = configuration.list("users");
    // With a list of users, the cloud's own user exists only if `default` is on it (cloud-init documentation).
    if listed.is_empty() || listed.iter().any(|user| user == "default") {
        let (name, keys) = (machine.spec.admin_username.clone(), machine.spec.authorized_keys.clone());
        make_user(machine, &name, &keys, BTreeSet::from(["adm".into(), "sudo".into()]), true);
    }
    for user in listed.iter().filter_map(Value::as_object) {
        let Some(name) = user.get("name").and_then(Value::as_str) else { continue };
        let keys: Vec<String> = strings(user.get("ssh_authorized_keys"));
        let groups = strings(user.get("groups"))
            .iter()
            .flat_map(|groups| groups.split(','))
            .map(|group| group.trim().to_owned())
            .collect();
        let sudo = strings(user.get("sudo")).iter().any(|rule| rule.contains("NOPASSWD"));
        make_user(machine, name, &keys, groups, sudo);
    }
}

/// The strings in a string or a list.
fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn make_user(machine: &mut Machine, name: &str, keys: &[String], groups: BTreeSet<String>, sudo: bool) {
    let home = if name == "root" { "/root".to_owned() } else { format!("/home/{name}") };
    if machine.files.get(&home).is_none() {
        machine.files.put_directory(&home, 0o755, name);
        // What Debian's /etc/skel has; nothing here reads it.
        for file in [".bash_logout", ".bashrc", ".profile"] {
            machine.files.put(&format!("{home}/{file}"), "# as in /etc/skel\n", 0o644, name);
        }
    }
    if !keys.is_empty() {
        machine.files.put_directory(&format!("{home}/.ssh"), 0o700, name);
        let path = format!("{home}/.ssh/authorized_keys");
        let mut lines = machine.files.text(&path).unwrap_or_default();
        for key in keys {
            lines.push_str(key.trim());
            lines.push('\n');
        }
        machine.files.put(&path, lines, 0o600, name);
    }
    let user = machine.users.entry(name.into()).or_default();
    user.groups.extend(groups);
    user.sudo |= sudo || name == "root";
    user.home = home;
}

fn write_files(machine: &mut Machine, configuration: &CloudConfig, deferred: bool) {
    for file in configuration.list("write_files").iter().filter_map(Value::as_object) {
        if file.get("defer").and_then(Value::as_bool).unwrap_or(false) != deferred {
            continue;
        }
        if let Err(error) = write_file(machine, file) {
            let module = if deferred { "write_files_deferred" } else { "write_files" };
            machine.cloud_init.errors.push(format!("('{module}', {error})"));
            return;
        }
    }
}

fn write_file(machine: &mut Machine, file: &Map<String, Value>) -> Result<(), String> {
    let text = |key: &str, default: &str| file.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
    let path = text("path", "");
    if !path.starts_with('/') {
        return Err(format!("ValueError('No path provided to write for entry: {path}')"));
    }
    let owner = text("owner", "root:root");
    let (owner, group) = owner.split_once(':').unwrap_or((&owner, "root"));
    // Files are written before users are made, unless they are deferred.
    if !machine.users.contains_key(owner) {
        return Err(format!("OSError('Unknown user or group: \"getpwnam(): name not found: '{owner}'\"')"));
    }
    let bytes = decode(&text("content", ""), &text("encoding", "text/plain"))
        .ok_or_else(|| format!("ValueError('Failed decoding the content of {path}')"))?;
    let mode = u32::from_str_radix(text("permissions", "0644").trim_start_matches("0o"), 8).unwrap_or(0o644);
    let mut content = match file.get("append") {
        Some(Value::Bool(true)) => machine.files.get(&path).and_then(|node| node.content.clone()).unwrap_or_default(),
        _ => Vec::new(),
    };
    content.extend_from_slice(&bytes);
    machine.files.put(&path, content, mode, owner);
    let _ = machine.files.set_owner(&path, None, Some(group), &files::Who::root());
    Ok(())
}

fn decode(content: &str, encoding: &str) -> Option<Vec<u8>> {
    let base64 = |text: &str| BASE64_STANDARD.decode(text.split_whitespace().collect::<String>()).ok();
    let gunzip = |bytes: Vec<u8>| {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut text).ok().map(|_| text)
    };
    match encoding {
        "b64" | "base64" => base64(content),
        "gz+b64" | "gzip+b64" | "gz+base64" | "gzip+base64" => base64(content).and_then(gunzip),
        "gz" | "gzip" => gunzip(content.as_bytes().to_vec()),
        _ => Some(content.as_bytes().to_vec()),
    }
}

fn install_packages(machine: &mut Machine, configuration: &CloudConfig) {
    for package in configuration.list("packages") {
        // A package may come with its version: `[name, version]`.
        let name = package.as_str().or_else(|| package.get(0).and_then(Value::as_str));
        machine.packages.extend(name.map(str::to_owned));
    }
}

/// The commands of `bootcmd` are left alone: they run before anything that this model has (guess: nobody needs them).
fn runcmd_script(configuration: &CloudConfig) -> String {
    let line = |item: &Value| match item {
        Value::Array(_) => shell_words::join(strings(Some(item))),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    configuration.list("runcmd").iter().map(line).collect::<Vec<_>>().join("\n")
}

//! systemd: units, their states, and the journal.

use std::time::Duration;

use super::{Machine, k0s, wireguard};
use crate::World;

/// Lines that the journal of a machine keeps.
const JOURNAL_LINES: usize = 60;

/// What a unit is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// Not started, or stopped.
    #[default]
    Inactive,
    /// Running.
    Active,
    /// Its program has ended well, and what it made remains.
    Exited,
    /// Its program has failed and will be started again.
    Restarting,
    /// Its program has failed.
    Failed,
}

/// One unit.
#[derive(Debug, Clone, Default)]
pub(super) struct Unit {
    /// Whether it starts with the machine.
    pub(super) enabled: bool,
    /// What it is doing.
    pub(super) state: State,
    /// How many times it has been started again by itself.
    pub(super) restarts: u32,
    /// The id of its process, 0 if there is none.
    pub(super) process: u32,
}

impl Unit {
    /// One that is part of the system.
    pub(super) fn running() -> Self {
        Self { enabled: true, state: State::Active, restarts: 0, process: 600 }
    }

    /// `ActiveState`.
    pub(super) fn active(&self) -> &'static str {
        match self.state {
            State::Inactive => "inactive",
            State::Active | State::Exited => "active",
            State::Restarting => "activating",
            State::Failed => "failed",
        }
    }

    /// `SubState`.
    pub(super) fn sub(&self) -> &'static str {
        match self.state {
            State::Inactive => "dead",
            State::Active => "running",
            State::Exited => "exited",
            State::Restarting => "auto-restart",
            State::Failed => "failed",
        }
    }
}

/// One line of the journal.
#[derive(Debug, Clone)]
pub(super) struct JournalLine {
    /// As journalctl prints it.
    pub(super) time: String,
    /// The unit that it belongs to.
    pub(super) unit: String,
    /// The program that wrote it.
    pub(super) program: &'static str,
    /// Its process.
    pub(super) process: u32,
    /// What it wrote.
    pub(super) message: String,
}

/// Writes a line to a unit's journal.
pub(super) fn log(world: &mut World, key: &str, unit: &str, program: &'static str, message: impl Into<String>) {
    let format = time::macros::format_description!("[month repr:short] [day] [hour]:[minute]:[second]");
    let time = world.utc().format(format).unwrap_or_default();
    let Some(machine) = world.machines.get_mut(key) else { return };
    let process = machine.units.get(unit).map_or(1, |unit| unit.process);
    if machine.journal.len() >= JOURNAL_LINES {
        machine.journal.remove(0);
    }
    machine.journal.push(JournalLine { time, unit: unit.into(), program, process, message: message.into() });
}

/// What a unit runs.
enum Kind {
    WireGuard(String),
    K0s,
    /// Nothing that this model knows: it starts and stops.
    Plain,
}

fn kind(machine: &Machine, unit: &str) -> Option<Kind> {
    if let Some(interface) = unit.strip_prefix("wg-quick@") {
        let installed = wireguard::is_installed(machine);
        return installed.then(|| Kind::WireGuard(interface.into()));
    }
    let has_file = machine.files.get(&path(unit)).is_some();
    match unit {
        "k0scontroller" | "k0sworker" => has_file.then_some(Kind::K0s),
        "ssh" | "cron" | "cloud-init" | "cloud-final" | "systemd-networkd" => Some(Kind::Plain),
        _ => has_file.then_some(Kind::Plain),
    }
}

/// Where the file of a unit is.
pub(super) fn path(unit: &str) -> String {
    match unit.split_once('@') {
        Some((template, _)) => format!("/lib/systemd/system/{template}@.service"),
        None => format!("/etc/systemd/system/{unit}.service"),
    }
}

/// Whether there is such a unit.
pub(super) fn exists(world: &World, key: &str, unit: &str) -> bool {
    world.machines.get(key).is_some_and(|machine| kind(machine, unit).is_some())
}

/// Starts a unit; nothing happens if it runs.
pub(super) fn start(world: &mut World, key: &str, unit: &str) -> Result<(), String> {
    let Some(machine) = world.machines.get(key) else { return Ok(()) };
    let Some(kind) = kind(machine, unit) else { return Err(format!("Unit {unit}.service not found.")) };
    let state = machine.units.get(unit).map(|unit| unit.state).unwrap_or_default();
    let is_coming_back = state == State::Restarting && matches!(kind, Kind::K0s);
    if matches!(state, State::Active | State::Exited) || is_coming_back {
        return Ok(());
    }
    match kind {
        Kind::WireGuard(interface) => match wireguard::up(world, key, &interface) {
            Ok(()) => set_state(world, key, unit, State::Exited),
            Err(reason) => {
                log(world, key, unit, "wg-quick", reason.clone());
                log(
                    world,
                    key,
                    unit,
                    "systemd",
                    format!("Failed to start {unit}.service - WireGuard via wg-quick(8)."),
                );
                failed(world, key, unit);
                return Err(reason);
            }
        },
        Kind::K0s => {
            set_state(world, key, unit, State::Active);
            k0s::start(world, key);
        }
        Kind::Plain => set_state(world, key, unit, State::Active),
    }
    Ok(())
}

/// A unit has failed: it stays so, or is started again if a drop-in says so.
fn failed(world: &mut World, key: &str, unit: &str) {
    let Some(machine) = world.machines.get_mut(key) else { return };
    let Some(delay) = restart_delay(machine, unit) else { return set_state(world, key, unit, State::Failed) };
    let entry = machine.units.entry(unit.into()).or_default();
    entry.restarts += 1;
    let attempt = entry.restarts;
    set_state(world, key, unit, State::Restarting);
    let unit = unit.to_owned();
    world.after_in_machine(key, delay, move |world, key| {
        let found = world.machines.get(key).and_then(|machine| machine.units.get(&unit));
        if found.is_some_and(|found| found.state == State::Restarting && found.restarts == attempt) {
            // A further failure is handled as this one was.
            let _ = start(world, key, &unit);
        }
    });
}

/// How long systemd waits before it starts a failed unit again, if its drop-ins want that (100 ms unless they say:
/// systemd documentation, `RestartSec`).
fn restart_delay(machine: &Machine, unit: &str) -> Option<Duration> {
    let directory = format!("/etc/systemd/system/{unit}.service.d");
    let files = machine.files.names(&directory);
    let text: String = files
        .iter()
        .filter_map(|name| machine.files.text(&format!("{directory}/{name}")))
        .collect::<Vec<_>>()
        .join("\n");
    let setting = |name: &str| text.lines().filter_map(|line| line.trim().strip_prefix(name)).next_back();
    let wanted = setting("Restart=").is_some_and(|when| ["on-failure", "always"].contains(&when.trim()));
    let seconds = setting("RestartSec=").and_then(|text| text.trim().trim_end_matches('s').parse().ok());
    wanted.then(|| seconds.map_or(Duration::from_millis(100), Duration::from_secs))
}

/// A variable that a unit's drop-ins give to its programs, each file and each line overriding those before (systemd
/// documentation: `EnvironmentFile=`).
pub(super) fn variable(machine: &Machine, unit: &str, name: &str) -> Option<String> {
    let directory = format!("/etc/systemd/system/{unit}.service.d");
    let drop_ins = machine.files.names(&directory).into_iter().filter(|file| file.ends_with(".conf"));
    let texts: Vec<String> = drop_ins.filter_map(|file| machine.files.text(&format!("{directory}/{file}"))).collect();
    let files =
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.trim().strip_prefix("EnvironmentFile="));
    let variables: Vec<String> = files.filter_map(|file| machine.files.text(file.trim_start_matches('-'))).collect();
    let mut values = variables.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once('='));
    values.rfind(|(known, _)| known.trim() == name).map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

/// Stops a unit; nothing happens if it does not run.
pub(super) fn stop(world: &mut World, key: &str, unit: &str) {
    let Some(machine) = world.machines.get(key) else { return };
    let runs = machine.units.get(unit).is_some_and(|unit| unit.state != State::Inactive);
    match kind(machine, unit) {
        Some(Kind::WireGuard(interface)) => drop(wireguard::down(world, key, &interface)),
        Some(Kind::K0s) => k0s::stop(world, key),
        _ => {}
    }
    if runs {
        set_state(world, key, unit, State::Inactive);
    }
}

/// Sets a unit's state, and says so in the ledger.
pub(super) fn set_state(world: &mut World, key: &str, unit: &str, state: State) {
    let Some(machine) = world.machines.get_mut(key) else { return };
    let entry = machine.units.entry(unit.into()).or_default();
    if entry.state == state {
        return;
    }
    entry.state = state;
    entry.process = if state == State::Active { 800 + entry.restarts } else { 0 };
    let active = entry.active();
    machine.changed.notify_waiters();
    world.machine_change(key, "updated", &format!("unit {unit} {active}"));
}

/// Forgets that a unit has failed.
pub(super) fn reset_failed(world: &mut World, key: &str, unit: &str) {
    let failed = world.machines.get(key).and_then(|machine| machine.units.get(unit)).map(|unit| unit.state);
    if failed == Some(State::Failed) {
        set_state(world, key, unit, State::Inactive);
    }
}

/// Decides whether a unit starts with the machine; says whether that is new.
pub(super) fn set_enabled(world: &mut World, key: &str, unit: &str, enabled: bool) -> bool {
    let Some(machine) = world.machines.get_mut(key) else { return false };
    let entry = machine.units.entry(unit.into()).or_default();
    std::mem::replace(&mut entry.enabled, enabled) != enabled
}

/// Starts what starts with the machine.
pub(super) fn start_enabled(world: &mut World, key: &str) {
    let Some(machine) = world.machines.get(key) else { return };
    let enabled = machine.units.iter().filter(|(_, unit)| unit.enabled).map(|(name, _)| name.clone());
    let mut enabled: Vec<String> = enabled.collect();
    // The network comes before what needs it.
    enabled.sort_by_key(|unit| !unit.starts_with("wg-quick@"));
    for unit in enabled {
        // A unit that fails says so in its state.
        let _ = start(world, key, &unit);
    }
}

//! From power to an open SSH port, and back.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::rand_core::RngCore;
use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
use tokio::sync::watch;

use super::{Machine, MachineSpec, Stage, User, cloud_config, cloud_init, files::Files, k0s, key_of, systemd};
use crate::{FaultKind, Latency, World};

/// What identifies the operating system.
const OS_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n\
    VERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n";

/// Makes a machine and starts it. Boot takes [`crate::Latency::Boot`], keyed by the name.
pub fn create(world: &mut World, spec: MachineSpec) {
    let key = insert(world, spec);
    power_on(world, &key);
}

/// A machine that runs from the beginning.
pub(super) fn insert_running(world: &mut World, spec: MachineSpec) {
    let key = insert(world, spec);
    if let Some(machine) = world.machines.get_mut(&key) {
        machine.stage = Stage::Running;
        machine.outcome = Some(Ok(()));
    }
}

/// A machine that is switched off.
pub(super) fn insert(world: &mut World, spec: MachineSpec) -> String {
    let key = key_of(&spec.vm_id);
    let configuration = cloud_config::parse(&spec.custom_data);
    let host_key = configuration.host_key().unwrap_or_else(|| own_host_key(world, &key));
    let mut files = Files::new();
    files.put("/etc/os-release", OS_RELEASE, 0o644, "root");
    let root = User { groups: BTreeSet::new(), sudo: true, home: "/root".into() };
    let machine = Machine {
        stage: Stage::Off,
        booted_at: world.now,
        epoch: watch::Sender::new(0),
        outcome: None,
        changed: Default::default(),
        hostname: configuration.hostname().unwrap_or(&spec.name).to_owned(),
        host_key,
        users: BTreeMap::from([("root".into(), root)]),
        files,
        packages: BTreeSet::new(),
        units: BTreeMap::from([("ssh".into(), systemd::Unit::running())]),
        journal: Vec::new(),
        cloud_init: cloud_init::CloudInit::new(configuration),
        interfaces: BTreeMap::new(),
        k0s: k0s::K0s::default(),
        clock_ahead_seconds: 0,
        spec,
    };
    world.machines.by_id.insert(key.clone(), machine);
    key
}

/// A key that nobody chose, as sshd makes on first boot.
fn own_host_key(world: &World, key: &str) -> PrivateKey {
    let mut seed = [0; 32];
    world.random(&format!("host-key/{key}")).fill_bytes(&mut seed);
    Ed25519Keypair::from_seed(&seed).into()
}

/// Destroys a machine; its disk is gone.
pub fn destroy(world: &mut World, vm_id: &str) {
    let key = key_of(vm_id);
    power_off(world, &key);
    world.machines.by_id.remove(&key);
    k0s::forget_lost_clusters(world);
}

/// Switches a machine off (its disk stays) or on again.
pub fn set_power(world: &mut World, vm_id: &str, running: bool) {
    let key = key_of(vm_id);
    let Some(machine) = world.machines.get(&key) else { return };
    match (running, machine.stage) {
        (true, Stage::Off) => power_on(world, &key),
        (false, Stage::Booting | Stage::Running) => power_off(world, &key),
        _ => {}
    }
}

fn power_on(world: &mut World, key: &str) {
    let Some(machine) = world.machines.get_mut(key) else { return };
    machine.stage = Stage::Booting;
    machine.epoch.send_modify(|epoch| *epoch += 1);
    let name = machine.name().to_owned();
    if world.faults.strikes(FaultKind::BootFailure, &name) {
        if let Some(machine) = world.machines.get_mut(key) {
            machine.outcome =
                Some(Err(format!("OS Provisioning for VM '{name}' did not finish in the allotted time.")));
        }
        return;
    }
    let slowness = if world.faults.strikes(FaultKind::SlowBoot, &name) { 5 } else { 1 };
    let delay = world.latency(Latency::Boot, &name) * slowness;
    world.after_in_machine(key, delay, booted);
}

/// sshd listens; cloud-init goes on in the background.
pub(super) fn booted(world: &mut World, key: &str) {
    let now = world.now;
    let Some(machine) = world.machines.get_mut(key) else { return };
    machine.booted_at = now;
    machine.stage = Stage::Running;
    machine.outcome = Some(Ok(()));
    machine.changed.notify_waiters();
    world.machine_change(key, "booted", "sshd listens");
    cloud_init::begin(world, key);
    systemd::start_enabled(world, key);
}

fn power_off(world: &mut World, key: &str) {
    k0s::stop(world, key);
    let Some(machine) = world.machines.get_mut(key) else { return };
    machine.stage = Stage::Off;
    machine.epoch.send_modify(|epoch| *epoch += 1);
    machine.interfaces.clear();
    for (name, unit) in &mut machine.units {
        unit.state = if name == "ssh" { systemd::State::Active } else { systemd::State::Inactive };
    }
    machine.changed.notify_waiters();
    world.machine_change(key, "stopped", "power off");
}

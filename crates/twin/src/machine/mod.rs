//! Virtual machines from the inside: boot, cloud-init, SSH, the shell, systemd, WireGuard and k0s.
//!
//! - [`boot`]: from power to an open SSH port, and back
//! - [`cloud_config`] and [`cloud_init`]: what the custom data asks for, and doing it
//! - [`files`]: the file system
//! - [`settled`]: machines that were there before any client
//! - [`ssh`]: the way in
//! - [`shell`]: the commands
//! - [`systemd`], [`wireguard`], [`k0s`]: the services

mod boot;
mod cloud_config;
mod cloud_init;
mod files;
mod k0s;
mod settled;
mod shell;
mod ssh;
mod systemd;
#[cfg(test)]
mod tests;
mod wire;
mod wireguard;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use russh::keys::PrivateKey;
use tokio::sync::{Notify, watch};

use crate::{FaultKind, Twin, World, azure, kube};

pub use boot::{create, destroy, set_power};
pub(crate) use k0s::released_binary;
pub use k0s::{Membership, host, memberships, stand_in_binary};
pub use settled::{Host, files, forbid_sudo, set_clock, settle, write_file};

/// What the cloud knows about a machine when it makes one.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// The ARM resource id, as the client wrote it.
    pub vm_id: String,
    /// The computer name, which is the hostname.
    pub name: String,
    /// The size, `Standard_B2s`.
    pub size: String,
    /// `x64` or `Arm64`.
    pub architecture: String,
    /// The address on the internet, if any.
    pub public_ip: Option<Ipv4Addr>,
    /// The address in the virtual network.
    pub private_ip: Ipv4Addr,
    /// The virtual network's resource id in lower case: machines of one network reach each other's private addresses.
    pub network: String,
    /// The user that Azure provisions.
    pub admin_username: String,
    /// That user's public keys, OpenSSH lines.
    pub authorized_keys: Vec<String>,
    /// The decoded custom data (a cloud-config).
    pub custom_data: Vec<u8>,
    /// The port on which sshd listens.
    pub ssh_port: u16,
}

/// The machines that exist.
#[derive(Default)]
pub struct Machines {
    /// By resource id in lower case.
    by_id: BTreeMap<String, Machine>,
    /// What the controllers of each k0s cluster agree on.
    k0s_clusters: BTreeMap<kube::ClusterId, k0s::Cluster>,
}

/// What a client meets at an address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Somebody listens.
    Open,
    /// The machine runs, and nobody listens there.
    Refused,
    /// Nothing answers: no machine, or one that is not running, or a firewall in front of it.
    Silent,
}

/// How far a machine has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Switched off.
    Off,
    /// Switched on; nobody listens yet.
    Booting,
    /// sshd listens.
    Running,
}

/// One machine.
struct Machine {
    spec: MachineSpec,
    stage: Stage,
    /// When it was last switched on and ready.
    booted_at: Duration,
    /// Counts the times that it was switched on or off: what began before the last change never ends.
    epoch: watch::Sender<u64>,
    /// As [`boot_outcome`] says it.
    outcome: Option<Result<(), String>>,
    /// Told whenever something changes that a command waits for.
    changed: Arc<Notify>,
    hostname: String,
    host_key: PrivateKey,
    users: BTreeMap<String, User>,
    files: files::Files,
    /// The Debian packages that cloud-init has installed.
    packages: BTreeSet<String>,
    units: BTreeMap<String, systemd::Unit>,
    journal: Vec<systemd::JournalLine>,
    cloud_init: cloud_init::CloudInit,
    interfaces: BTreeMap<String, wireguard::Interface>,
    k0s: k0s::K0s,
    /// How far its clock is ahead of the world's, in seconds.
    clock_ahead_seconds: i64,
}

/// Somebody who can log in.
#[derive(Debug, Clone, Default)]
struct User {
    groups: BTreeSet<String>,
    /// Whether sudo asks for no password.
    sudo: bool,
    home: String,
}

impl Machine {
    fn name(&self) -> &str {
        &self.spec.name
    }

    /// `amd64` or `arm64`, as Debian and k0s say it.
    fn architecture(&self) -> &'static str {
        if self.spec.architecture.eq_ignore_ascii_case("arm64") { "arm64" } else { "amd64" }
    }

    fn who(&self, user: &str) -> files::Who {
        let mut groups = self.users.get(user).map(|user| user.groups.clone()).unwrap_or_default();
        groups.insert(user.into());
        files::Who { user: user.into(), groups }
    }

    fn home(&self, user: &str) -> String {
        match self.users.get(user) {
            Some(user) => user.home.clone(),
            None => "/root".into(),
        }
    }

    fn runs(&self) -> bool {
        self.stage == Stage::Running
    }
}

impl Machines {
    fn get(&self, key: &str) -> Option<&Machine> {
        self.by_id.get(key)
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Machine> {
        self.by_id.get_mut(key)
    }

    /// The machine that has this address on the internet.
    fn at_public(&self, address: IpAddr) -> Option<(&String, &Machine)> {
        self.by_id.iter().find(|(_, machine)| machine.spec.public_ip.map(IpAddr::V4) == Some(address))
    }

    /// Where packets go that a machine sends to `host`: itself, a neighbour in its network, or a peer in its mesh.
    fn route(&self, from: &str, host: &str) -> Option<String> {
        let sender = self.get(from).filter(|sender| sender.runs())?;
        if host.eq_ignore_ascii_case("localhost") || host == sender.hostname {
            return Some(from.into());
        }
        let address: IpAddr = host.parse().ok()?;
        let own = address.is_loopback()
            || sender.interfaces.values().any(|interface| interface.has(address))
            || address == IpAddr::V4(sender.spec.private_ip);
        if own {
            return Some(from.into());
        }
        let neighbour = self.by_id.iter().find(|(_, machine)| {
            machine.spec.network == sender.spec.network && IpAddr::V4(machine.spec.private_ip) == address
        });
        let found = neighbour.or_else(|| wireguard::peer_at(self, sender, address))?;
        found.1.runs().then(|| found.0.clone())
    }
}

/// How the machine with this resource id is filed.
fn key_of(vm_id: &str) -> String {
    vm_id.to_lowercase()
}

impl World {
    /// Records a change inside a machine.
    fn machine_change(&mut self, key: &str, verb: &str, what: &str) {
        let name = self.machines.get(key).map(|machine| machine.name().to_owned()).unwrap_or_default();
        self.ledger.change(self.now, "world", verb, format!("{name}: {what}"));
    }

    /// Lets something happen to a machine later, unless it has been switched off or on in between.
    fn after_in_machine(
        &mut self,
        key: &str,
        delay: Duration,
        happening: impl FnOnce(&mut World, &str) + Send + 'static,
    ) {
        let Some(epoch) = self.machines.get(key).map(|machine| *machine.epoch.borrow()) else { return };
        let key = key.to_owned();
        self.after(delay, move |world| {
            if world.machines.get(&key).is_some_and(|machine| *machine.epoch.borrow() == epoch) {
                happening(world, &key);
            }
        });
    }
}

/// Whether the guest has reported that it is provisioned: `Some(Err(_))` if it never will.
pub fn boot_outcome(world: &World, vm_id: &str) -> Option<Result<(), String>> {
    world.machines.get(&key_of(vm_id))?.outcome.clone()
}

/// The public addresses of all machines.
pub fn addresses(world: &World) -> Vec<IpAddr> {
    world.machines.by_id.values().filter_map(|machine| machine.spec.public_ip).map(IpAddr::V4).collect()
}

/// Somebody on the machine stops a systemd unit.
pub fn stop_unit(world: &mut World, vm_id: &str, unit: &str) {
    systemd::stop(world, &key_of(vm_id), unit.trim_end_matches(".service"));
}

/// Somebody on the machine removes a file or a directory.
pub fn remove_file(world: &mut World, vm_id: &str, path: &str) {
    if let Some(machine) = world.machines.get_mut(&key_of(vm_id)) {
        // What is not there need not go.
        let _gone = machine.files.remove(path, true, &files::Who::root());
    }
}

/// Whether the security groups in front of a public address let a client in that comes from another.
pub(crate) fn lets_in(world: &World, from: IpAddr, address: IpAddr, port: u16) -> bool {
    let machine = world.machines.at_public(address);
    machine.is_some_and(|(_, machine)| azure::lets_in(world, &machine.spec.vm_id, from, port))
}

/// What a client meets at a public address that comes from another.
pub fn reach(world: &mut World, from: IpAddr, address: IpAddr, port: u16) -> Reach {
    let Some((_, machine)) = world.machines.at_public(address) else { return Reach::Silent };
    // A network security group drops what it does not let in (Azure documentation).
    if !machine.runs() || port != machine.spec.ssh_port || !lets_in(world, from, address, port) {
        return Reach::Silent;
    }
    let name = machine.name().to_owned();
    if world.faults.strikes(FaultKind::SshRefused, &name) { Reach::Refused } else { Reach::Open }
}

/// Serves one connection to a public address (on sshd's port: SSH).
pub async fn serve<Stream>(twin: Twin, address: IpAddr, port: u16, stream: Stream)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let found = twin.with(|world| {
        let (key, machine) = world.machines.at_public(address)?;
        (port == machine.spec.ssh_port).then(|| key.clone())
    });
    if let Some(key) = found {
        ssh::serve(twin, key, stream).await;
    }
}

//! Machines that were there before any client: somebody has set them up, and they run.

use std::net::Ipv4Addr;

use russh::keys::{Algorithm, PrivateKey, key::safe_rng, ssh_key::private::RsaKeypair};

use super::{Machine, MachineSpec, boot, cloud_init, key_of};
use crate::World;

/// Bits of an RSA host key: enough, and made soon.
const RSA_BITS: usize = 2048;

/// A host as somebody has set it up: a Debian with curl, whose user may use sudo without a password.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its hostname.
    pub name: String,
    /// The address where it is reached from outside, if it is.
    pub public_address: Option<Ipv4Addr>,
    /// Its address in the network that the hosts share.
    pub private_address: Ipv4Addr,
    /// The port on which sshd listens.
    pub ssh_port: u16,
    /// The user.
    pub user: String,
    /// That user's public key, an OpenSSH line.
    pub authorized_key: String,
    /// The kind of host key that sshd has, as SSH calls it (`ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`). Others than
    /// Ed25519 are not the same in each run of the same world.
    pub host_key: String,
}

/// Puts a host into the world, running. Answers the public host key of its sshd, an OpenSSH line.
pub fn settle(world: &mut World, host: Host) -> String {
    let Host { name, public_address, private_address, ssh_port, user, authorized_key, host_key } = host;
    let spec = MachineSpec {
        vm_id: id_of(&name),
        name,
        size: "Standard_B2s".into(),
        architecture: "x64".into(),
        public_ip: public_address,
        private_ip: private_address,
        network: "hosts".into(),
        admin_username: user,
        authorized_keys: vec![authorized_key],
        custom_data: Vec::new(),
        ssh_port,
    };
    let key = boot::insert(world, spec);
    boot::booted(world, &key);
    cloud_init::complete(world, &key);
    let machine_id = format!("{:032x}\n", u128::from(u32::from(private_address)) << 64 | 0x0a);
    let Some(machine) = world.machines.get_mut(&key) else { return String::new() };
    if let Some(drawn) = drawn(&host_key) {
        machine.host_key = drawn;
    }
    machine.packages.insert("curl".into());
    for (path, content) in [
        ("/etc/machine-id", machine_id.as_str()),
        ("/proc/meminfo", "MemTotal:        8131032 kB\nMemFree:         6214532 kB\n"),
        ("/proc/net/tcp", LISTENING),
        ("/proc/net/tcp6", ""),
        ("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n"),
    ] {
        machine.files.put(path, content, 0o644, "root");
    }
    machine.host_key.public_key().to_openssh().unwrap_or_default()
}

/// A host key of another kind than Ed25519.
fn drawn(algorithm: &str) -> Option<PrivateKey> {
    match Algorithm::new(algorithm).ok()? {
        Algorithm::Ed25519 => None,
        Algorithm::Rsa { .. } => RsaKeypair::random(&mut safe_rng(), RSA_BITS).ok().map(PrivateKey::from),
        other => PrivateKey::random(&mut safe_rng(), other).ok(),
    }
}

/// sshd alone (Linux documentation, proc(5)).
const LISTENING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
    0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17411 1\n";

/// Somebody on a host writes a file.
pub fn write_file(world: &mut World, name: &str, path: &str, content: &str) {
    if let Some(machine) = world.machines.get_mut(&key_of(&id_of(name))) {
        machine.files.put(path, content, 0o644, "root");
    }
}

/// A user may not use sudo any more without a password.
pub fn forbid_sudo(world: &mut World, name: &str, user: &str) {
    let machine = world.machines.get_mut(&key_of(&id_of(name)));
    if let Some(user) = machine.and_then(|machine| machine.users.get_mut(user)) {
        user.sudo = false;
    }
}

/// A host's clock is so many seconds ahead of the world's.
pub fn set_clock(world: &mut World, name: &str, seconds: i64) {
    if let Some(machine) = world.machines.get_mut(&key_of(&id_of(name))) {
        machine.clock_ahead_seconds = seconds;
    }
}

impl Machine {
    /// Whether it was there before any client.
    pub(super) fn was_there(&self) -> bool {
        self.spec.vm_id == id_of(&self.spec.name)
    }
}

fn id_of(name: &str) -> String {
    format!("host/{name}")
}

/// Every file of a host with its mode, owner and content, in order of paths: to compare.
pub fn files(world: &World, name: &str) -> Vec<String> {
    let machine = world.machines.get(&key_of(&id_of(name)));
    machine.map(|machine| machine.files.listing()).unwrap_or_default()
}

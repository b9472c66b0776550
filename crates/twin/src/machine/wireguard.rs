//! WireGuard: interfaces from their configuration files, and who can talk to whom through them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use ipnet::IpNet;
use rand_chacha::rand_core::RngCore;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Machine, Machines};
use crate::{FaultKind, World};

/// One interface that is up.
#[derive(Debug, Clone, Default)]
pub(super) struct Interface {
    public_key: String,
    listen_port: u16,
    addresses: Vec<IpNet>,
    peers: Vec<Peer>,
    up_since: Duration,
}

/// One peer of an interface.
#[derive(Debug, Clone, Default)]
struct Peer {
    public_key: String,
    allowed: Vec<IpNet>,
    endpoint: Option<String>,
    keepalive_seconds: u16,
}

impl Interface {
    /// Its addresses with their ranges.
    pub(super) fn ranges(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    /// Whether `address` is its own.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }

    fn peer(&self, public_key: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.public_key == public_key)
    }
}

/// Whether the tools are there.
pub(super) fn is_installed(machine: &Machine) -> bool {
    ["wireguard", "wireguard-tools"].iter().any(|package| machine.packages.contains(*package))
}

/// Brings an interface up as its file says.
pub(super) fn up(world: &mut World, key: &str, name: &str) -> Result<(), String> {
    let Some(machine) = world.machines.get(key) else { return Ok(()) };
    if machine.interfaces.contains_key(name) {
        return Err(format!("wg-quick: `{name}' already exists"));
    }
    let path = format!("/etc/wireguard/{name}.conf");
    let text = machine.files.text(&path).ok_or_else(|| format!("wg-quick: `{path}' does not exist"))?;
    let mut interface = parse(&text)?;
    let machine_name = machine.name().to_owned();
    if world.faults.strikes(FaultKind::WireguardDown, &machine_name) {
        return Err(
            "RTNETLINK answers: Operation not supported\nUnable to access interface: Protocol not supported".into()
        );
    }
    if interface.listen_port == 0 {
        interface.listen_port = 32768 + (world.random(&format!("wireguard/{key}")).next_u32() % 28000) as u16;
    }
    interface.up_since = world.now;
    if let Some(machine) = world.machines.get_mut(key) {
        machine.interfaces.insert(name.into(), interface);
        machine.changed.notify_waiters();
    }
    world.machine_change(key, "created", &format!("interface {name}"));
    Ok(())
}

/// Takes an interface down; says whether it was up.
pub(super) fn down(world: &mut World, key: &str, name: &str) -> bool {
    let was_up = world.machines.get_mut(key).is_some_and(|machine| machine.interfaces.remove(name).is_some());
    if was_up {
        world.machine_change(key, "deleted", &format!("interface {name}"));
    }
    was_up
}

/// Reads a file of wg-quick. Keys are those of wg(8) and wg-quick(8).
fn parse(text: &str) -> Result<Interface, String> {
    let mut interface = Interface::default();
    let mut in_peer = false;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let unrecognised = || format!("Line unrecognized: `{line}'\nConfiguration parsing error");
        match line.to_lowercase().as_str() {
            "" => continue,
            "[interface]" => in_peer = false,
            "[peer]" => {
                in_peer = true;
                interface.peers.push(Peer::default());
            }
            _ => {
                let (name, value) = line.split_once('=').ok_or_else(unrecognised)?;
                let (name, value) = (name.trim().to_lowercase(), value.trim());
                let known = match interface.peers.last_mut().filter(|_| in_peer) {
                    Some(peer) => peer_setting(peer, &name, value)?,
                    None => interface_setting(&mut interface, &name, value)?,
                };
                known.then_some(()).ok_or_else(unrecognised)?;
            }
        }
    }
    if interface.public_key.is_empty() {
        return Err("Configuration parsing error: no PrivateKey".into());
    }
    match interface.peers.iter().find(|peer| peer.public_key.is_empty()) {
        Some(_) => Err("A peer is missing a public key".into()),
        None => Ok(interface),
    }
}

fn interface_setting(interface: &mut Interface, name: &str, value: &str) -> Result<bool, String> {
    match name {
        "privatekey" => interface.public_key = public_key_of(value)?,
        "listenport" => interface.listen_port = number(value)?,
        "address" => interface.addresses.extend(networks(value)?),
        "mtu" => drop(number(value)?),
        "dns" | "table" | "fwmark" | "preup" | "postup" | "predown" | "postdown" | "saveconfig" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn peer_setting(peer: &mut Peer, name: &str, value: &str) -> Result<bool, String> {
    match name {
        "publickey" => {
            key_bytes(value)?;
            peer.public_key = value.into();
        }
        "presharedkey" => drop(key_bytes(value)?),
        "allowedips" => peer.allowed.extend(networks(value)?),
        "endpoint" => peer.endpoint = Some(value.into()),
        "persistentkeepalive" => peer.keepalive_seconds = if value == "off" { 0 } else { number(value)? },
        _ => return Ok(false),
    }
    Ok(true)
}

fn key_bytes(text: &str) -> Result<[u8; 32], String> {
    let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| "Key is not the correct length or format\nConfiguration parsing error".into())
}

fn public_key_of(private_key: &str) -> Result<String, String> {
    let secret = StaticSecret::from(key_bytes(private_key)?);
    Ok(BASE64_STANDARD.encode(PublicKey::from(&secret).as_bytes()))
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("Unable to parse number: `{text}'\nConfiguration parsing error"))
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let parse = |text: &str| network(text.trim()).map_err(|_| format!("Unable to parse IP address: `{text}'"));
    text.split(',').map(parse).collect()
}

/// The machine that `sender` reaches at `address` through one of its interfaces: both must know each other.
pub(super) fn peer_at<'a>(
    machines: &'a Machines,
    sender: &Machine,
    address: IpAddr,
) -> Option<(&'a String, &'a Machine)> {
    sender.interfaces.values().find_map(|interface| {
        let peer = interface.peers.iter().find(|peer| peer.allowed.iter().any(|network| network.contains(&address)))?;
        machines.by_id.iter().find(|(_, machine)| {
            machine.interfaces.values().any(|other| {
                other.has(address) && other.public_key == peer.public_key && other.peer(&interface.public_key).is_some()
            })
        })
    })
}

/// Who is behind each public key, of all interfaces in the world that are up.
fn everybody(world: &World) -> BTreeMap<&str, (&Machine, &Interface)> {
    let machines = world.machines.by_id.values().filter(|machine| machine.runs());
    machines
        .flat_map(|machine| {
            machine.interfaces.values().map(move |interface| (interface.public_key.as_str(), (machine, interface)))
        })
        .collect()
}

/// World time of the last handshake. There is one when both are up, know each other, one of them knows where the other
/// listens, and one of them has a reason to speak, which is a keepalive; it is renewed every two minutes (WireGuard
/// white paper).
fn handshake(
    world: &World,
    own: (&Machine, &Interface),
    peer: &Peer,
    everybody: &BTreeMap<&str, (&Machine, &Interface)>,
) -> Option<Duration> {
    let other = *everybody.get(peer.public_key.as_str())?;
    let back = other.1.peer(&own.1.public_key)?;
    let finds = |peer: &Peer, target: (&Machine, &Interface)| {
        let host = peer.endpoint.as_ref()?.rsplit_once(':')?;
        let address: IpAddr = host.0.trim_matches(['[', ']']).parse().ok()?;
        let at_home = address == IpAddr::V4(target.0.spec.private_ip);
        let at_public = target.0.spec.public_ip.map(IpAddr::V4) == Some(address);
        ((at_home || at_public) && host.1.parse() == Ok(target.1.listen_port)).then_some(())
    };
    let knock = |peer: &Peer, target| (peer.keepalive_seconds > 0).then_some(()).and_then(|()| finds(peer, target));
    knock(peer, other).or_else(|| knock(back, own))?;
    let first = own.1.up_since.max(other.1.up_since) + Duration::from_secs(1);
    let age = world.now.checked_sub(first)?;
    Some(first + Duration::from_secs(age.as_secs() / 120 * 120))
}

/// What `wg show NAME WHAT` prints; nothing if `what` is unknown. `wg show NAME` has an empty `what`.
pub(super) fn show(world: &World, key: &str, name: &str, what: &str) -> Option<String> {
    let machine = world.machines.get(key)?;
    let interface = machine.interfaces.get(name)?;
    let everybody = everybody(world);
    let epoch = world.options.epoch.unix_timestamp();
    let list = |networks: &[IpNet], joint: &str| networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(joint);
    let each = |line: &dyn Fn(&Peer) -> String| -> String {
        interface.peers.iter().map(|peer| format!("{}\t{}\n", peer.public_key, line(peer))).collect()
    };
    let last = |peer: &Peer| handshake(world, (machine, interface), peer, &everybody);
    Some(match what {
        "public-key" => format!("{}\n", interface.public_key),
        "listen-port" => format!("{}\n", interface.listen_port),
        "peers" => interface.peers.iter().map(|peer| format!("{}\n", peer.public_key)).collect(),
        "endpoints" => each(&|peer| peer.endpoint.clone().unwrap_or_else(|| "(none)".into())),
        "allowed-ips" => each(&|peer| list(&peer.allowed, " ")),
        "persistent-keepalive" => each(&|peer| match peer.keepalive_seconds {
            0 => "off".into(),
            seconds => seconds.to_string(),
        }),
        "latest-handshakes" => each(&|peer| last(peer).map_or(0, |at| epoch + at.as_secs() as i64).to_string()),
        "" => {
            let mut text = format!(
                "interface: {name}\n  public key: {}\n  private key: (hidden)\n  listening port: {}\n",
                interface.public_key, interface.listen_port
            );
            for peer in &interface.peers {
                text += &format!("\npeer: {}\n", peer.public_key);
                text += &peer.endpoint.as_ref().map_or(String::new(), |endpoint| format!("  endpoint: {endpoint}\n"));
                text += &format!("  allowed ips: {}\n", list(&peer.allowed, ", "));
                if let Some(at) = last(peer) {
                    text += &format!("  latest handshake: {} seconds ago\n", (world.now - at).as_secs());
                }
            }
            text
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 7748, section 6.1: Alice's keys.
    #[test]
    fn the_public_key_is_that_of_the_standard() {
        let encode = |text: &str| BASE64_STANDARD.encode(hex::decode(text).unwrap());
        let private = encode("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let public = encode("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(public_key_of(&private).unwrap(), public);
    }

    #[test]
    fn a_file_is_read_as_wg_quick_does() {
        let key = BASE64_STANDARD.encode([7; 32]);
        let text = format!(
            "[Interface]\nPrivateKey = {key}\nAddress = 10.0.0.1/24 # mine\nListenPort = 51820\n\n\
            [Peer]\nPublicKey={key}\nAllowedIPs = 10.0.0.2/32, 10.1.0.0/16\nEndpoint = 1.2.3.4:51820\nPersistentKeepalive = 25\n"
        );
        let interface = parse(&text).unwrap();
        assert_eq!(interface.listen_port, 51820);
        assert_eq!(interface.peers[0].allowed.len(), 2);
        assert!(interface.has("10.0.0.1".parse().unwrap()));
        for broken in ["[Interface]\n", "[Interface]\nPrivateKey = abc\n", &text.replace("ListenPort", "Port")] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }
}

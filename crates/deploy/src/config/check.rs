//! What must hold between and within settings beyond their types. Pure: nothing is asked of the world.

use super::forms::{
    absolute_path, dns_label, download_url, k0s_version, location, registry, semantic_version, sha256, size,
    subscription, tag_name, tag_value, tenant, username,
};
use super::idle::without_effect;
use super::read::Reading;
use super::{Architecture, Config, Kind, Problem, Provider, Severity};
use crate::topology::Role;
use crate::words;
use ipnet::Ipv4Net;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Machines start at the eleventh address of the mesh, as in the scripts.
pub(crate) const MESH_FIRST_NODE_OFFSET: u32 = 11;
/// Azure documentation: the first four addresses of a subnet and the last are reserved.
pub(crate) const SUBNET_FIRST_NODE_OFFSET: u32 = 4;
const SUBNET_RESERVED: u64 = 5;
/// Not for machines in the mesh: .0 to .10, and the last address.
const MESH_RESERVED: u64 = 12;
/// The layout of a configuration that this program knows.
const SCHEMA: &str = "k0rdent-config";
const LAYOUT: (u32, u32) = (1, 0);
/// Azure documentation: how many tags a resource can have.
const MOST_TAGS: usize = 50;
/// The tags that k0rdentctl gives to what it creates.
pub(super) const OWN_TAGS: &[&str] = &[
    "cluster-id",
    "created",
    "created-by",
    "k0rdent-cluster-id",
    "k0rdent-node",
    "k0rdent-role",
    "k0rdent-run-epoch",
    "owner",
];
/// Calico encapsulates pod traffic to this UDP port (k0s source: `vxlanPort`).
const VXLAN_PORT: u16 = 4789;

/// Every problem of `config`, except with keys that reading rejected already.
pub(super) fn check(config: &mut Config, reading: &Reading) -> Vec<Problem> {
    let declared = [config.cluster.controllers.count, config.cluster.workers.count];
    if config.provider == Provider::Ssh && !reading.rejected.contains("hosts") {
        let count = |role: Role| config.hosts.iter().filter(|host| host.role == role).count();
        let count = |role: Role| u16::try_from(count(role)).unwrap_or(u16::MAX);
        (config.cluster.controllers.count, config.cluster.workers.count) =
            (count(Role::Controller), count(Role::Worker));
    }
    let config = &*config;
    let mut checker = Checker { config, reading, problems: Vec::new() };
    checker.layout();
    checker.texts();
    checker.sources();
    checker.hosts(declared);
    checker.cluster();
    checker.ranges();
    if config.provider.makes_machines() {
        checker.azure();
        checker.sizes();
        checker.zones("cluster.controllers.zones", &config.cluster.controllers.zones);
        checker.zones("cluster.workers.zones", &config.cluster.workers.zones);
    }
    checker.room();
    checker.packets();
    checker.proxy();
    checker.timeouts();
    checker.kof();
    checker.without_effect();
    checker.problems
}

type TextCheck = fn(&str) -> Result<(), String>;

struct Checker<'a> {
    config: &'a Config,
    reading: &'a Reading,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    /// Reports at the first of `keys` that the file has, unless one of them has no usable value. The message need not
    /// repeat that key.
    fn report(&mut self, severity: Severity, keys: &[&str], message: impl Into<String>) {
        if keys.iter().any(|key| self.reading.rejected.contains(*key)) {
            return;
        }
        let given = keys.iter().find(|key| self.is_given(key));
        let key = given.or(keys.first()).copied().unwrap_or_default();
        let position = self.reading.positions.get(key).copied();
        let message = message.into();
        let message = message.strip_prefix(&format!("{key} ")).unwrap_or(&message).to_owned();
        self.problems.push(Problem { severity, ..Problem::new(position, key.to_owned(), message) });
    }

    fn is_given(&self, key: &str) -> bool {
        self.reading.positions.contains_key(key)
    }

    fn error(&mut self, keys: &[&str], message: impl Into<String>) {
        self.report(Severity::Error, keys, message);
    }

    fn warning(&mut self, keys: &[&str], message: impl Into<String>) {
        self.report(Severity::Warning, keys, message);
    }

    /// The file's layout, which whoever wrote the file may have had from another program, or from a later one.
    fn layout(&mut self) {
        let metadata = &self.config.metadata;
        if metadata.schema != SCHEMA {
            self.error(
                &["metadata.schema"],
                format!("{:?} is another layout; this program reads {SCHEMA}", metadata.schema),
            );
        }
        let numbers: Option<Vec<u32>> = metadata.version.split('.').map(|number| number.parse().ok()).collect();
        let version = match numbers.as_deref() {
            Some([major]) => (*major, 0),
            Some([major, minor]) => (*major, *minor),
            _ => {
                let message = format!("{:?} is not the version of a layout, such as 1.0", metadata.version);
                return self.error(&["metadata.version"], message);
            }
        };
        let (given, (major, minor)) = (&metadata.version, LAYOUT);
        match version.cmp(&LAYOUT) {
            Ordering::Equal => {}
            Ordering::Greater => self.error(
                &["metadata.version"],
                format!("{given} is newer than this program, which knows {major}.{minor}; install a newer k0rdentctl"),
            ),
            Ordering::Less => self.warning(
                &["metadata.version"],
                format!("{given} is older than {major}.{minor}, as which the file is read; write {major}.{minor}"),
            ),
        }
    }

    /// Keys that somebody has set and nobody follows: one warning for each reason, at the first of them.
    fn without_effect(&mut self) {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        super::each_key("", super::top_level(), &mut |key, field| {
            let is_section = matches!(field.kind, Kind::Section(_));
            // What is off is off, as its author wants it.
            let is_off = key == "kof.enabled" && !self.config.kof.enabled;
            if is_section || is_off || !self.is_given(key) {
                return;
            }
            let Some(reason) = without_effect(key, self.config) else { return };
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, keys)) => keys.push(key.to_owned()),
                None => reasons.push((reason, vec![key.to_owned()])),
            }
        });
        for (reason, keys) in reasons {
            let Some((first, others)) = keys.split_first() else { continue };
            let others = if others.is_empty() { String::new() } else { format!("; nor has {}", others.join(", ")) };
            self.warning(&[first], format!("has no effect: {reason}{others}"));
        }
    }

    /// Texts whose form is known.
    fn texts(&mut self) {
        let Config { metadata, azure, vm_sizing, ssh, software, kof, .. } = self.config;
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let texts: &[(&str, &str, TextCheck)] = &[
            ("metadata.owner", &optional(&metadata.owner), tag_value),
            ("azure.subscription_id", &optional(&azure.subscription_id), subscription),
            ("azure.tenant_id", &optional(&azure.tenant_id), tenant),
            ("azure.location", &azure.location, location),
            ("vm_sizing.controller.size", &vm_sizing.controller.size, size),
            ("vm_sizing.worker.size", &vm_sizing.worker.size, size),
            ("ssh.username", &ssh.username, username),
            ("software.k0s.version", &software.k0s.version, k0s_version),
            ("software.k0s.download_url", &optional(&software.k0s.download_url), download_url),
            ("software.k0s.sha256.amd64", &optional(&software.k0s.sha256.amd64), sha256),
            ("software.k0s.sha256.arm64", &optional(&software.k0s.sha256.arm64), sha256),
            ("software.k0s.binary", &optional(&software.k0s.binary), absolute_path),
            ("software.k0s.airgap_bundle", &optional(&software.k0s.airgap_bundle), absolute_path),
            ("software.k0rdent.version", &software.k0rdent.version, semantic_version),
            ("software.k0rdent.registry", &software.k0rdent.registry, registry),
            ("software.k0rdent.namespace", &software.k0rdent.namespace, dns_label),
            ("kof.version", &kof.version, semantic_version),
            ("kof.istio.version", &kof.istio.version, semantic_version),
            ("kof.istio.namespace", &kof.istio.namespace, dns_label),
            ("kof.mothership.namespace", &kof.mothership.namespace, dns_label),
            ("kof.regional.location", &kof.regional.location, location),
            ("kof.regional.cp_instance_size", &kof.regional.cp_instance_size, size),
            ("kof.regional.worker_instance_size", &kof.regional.worker_instance_size, size),
        ];
        for (key, text, check) in texts {
            if let Err(message) = check(text) {
                self.error(&[key], message);
            }
        }
        for (index, provider) in software.k0rdent.providers.iter().enumerate() {
            if let Err(message) = dns_label(provider) {
                self.error(&[&format!("software.k0rdent.providers[{index}]")], message);
            }
        }
    }

    /// Hosts that exist already.
    fn hosts(&mut self, declared: [u16; 2]) {
        let Config { provider, hosts, cluster, network, ssh, .. } = self.config;
        if *provider != Provider::Ssh {
            if !hosts.is_empty() {
                self.error(&["hosts"], "hosts are for `provider: ssh`");
            }
            return;
        }
        let counted = [cluster.controllers.count, cluster.workers.count];
        for (index, key) in ["cluster.controllers.count", "cluster.workers.count"].into_iter().enumerate() {
            if self.is_given(key) && declared[index] != counted[index] && !self.reading.rejected.contains("hosts") {
                let message = format!("{} are in the list of hosts; leave this out", counted[index]);
                self.error(&[key], message);
            }
        }
        let (mut places, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (index, host) in hosts.iter().enumerate() {
            let key = |name: &str| format!("hosts[{index}].{name}");
            self.login(&format!("hosts[{index}]"), [&host.address, &host.user, &host.key], host.port);
            if !places.insert((&host.address, host.port)) {
                self.error(&[&key("address")], format!("{}:{} is there twice", host.address, host.port));
                continue;
            }
            let Some(address) = host.private_address() else {
                let message =
                    format!("{:?} is a name, and Kubernetes needs an address: say private_address", host.address);
                self.error(&[&key("address")], message);
                continue;
            };
            let keys = [key("private_address"), key("address")];
            let keys = keys.each_ref().map(String::as_str);
            if !addresses.insert(address) {
                self.error(&keys, format!("{address} belongs to another host of the list too"));
            }
            let ranges = [("network.pod_cidr", network.pod_cidr), ("network.service_cidr", network.service_cidr)];
            for (other, range) in ranges.into_iter().filter(|(_, range)| range.contains(&address)) {
                self.error(&keys, format!("{address} is inside {other} {range}"));
            }
        }
        for (index, host) in hosts.iter().enumerate() {
            let same: Vec<usize> = (0..hosts.len()).filter(|&other| hosts[other].host_key == host.host_key).collect();
            if let [first, others @ ..] = &same[..]
                && *first == index
                && !others.is_empty()
            {
                let others: Vec<String> = others.iter().map(|other| format!("hosts[{other}]")).collect();
                let message = format!(
                    "{} hosts cannot have one key, and this is that of {} too; on each of them, `cat \
                    /etc/ssh/ssh_host_ed25519_key.pub` prints its own",
                    same.len(),
                    others.join(" and "),
                );
                self.warning(&[&format!("hosts[{index}].host_key")], message);
            }
        }
        for (index, bastion) in ssh.bastions.iter().enumerate() {
            let login = [bastion.address.as_str(), &bastion.user, &bastion.key];
            self.login(&format!("ssh.bastions[{index}]"), login, bastion.port);
        }
    }

    /// Where somebody logs in: address, user and key.
    fn login(&mut self, path: &str, login: [&str; 3], port: u16) {
        let [address, user, key] = login;
        let is_word = |text: &str, others: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
        };
        if !is_word(address, "-_.:") {
            self.error(&[&format!("{path}.address")], format!("{address:?} is neither an address nor a name"));
        }
        if !is_word(user, "-_.") || user.starts_with('-') {
            self.error(&[&format!("{path}.user")], format!("{user:?} is not a user's name"));
        }
        if port == 0 {
            self.error(&[&format!("{path}.port")], "a port is a number from 1 to 65535");
        }
        if !key.starts_with("~/")
            && let Err(message) = absolute_path(key)
        {
            self.error(&[&format!("{path}.key")], message);
        }
    }

    /// The binary has one source.
    fn sources(&mut self) {
        let k0s = &self.config.software.k0s;
        if k0s.binary.is_some() && k0s.download_url.is_some() {
            let keys = ["software.k0s.binary", "software.k0s.download_url"];
            self.error(&keys, "the binary is either uploaded or downloaded; remove this or software.k0s.download_url");
        }
        if let Some(url) = &k0s.download_url
            && k0s.sha256.any().is_empty()
        {
            let message = format!(
                "nobody says what is there; say software.k0s.sha256.amd64 (or arm64) too, which \
                `curl -fsSL {url} | sha256sum` prints where you trust what it downloads"
            );
            self.error(&["software.k0s.download_url"], message);
        }
    }

    /// Azure documentation: the rules for tags.
    fn tags(&mut self) {
        let tags = &self.config.azure.tags;
        if tags.len() > MOST_TAGS - OWN_TAGS.len() {
            let room = MOST_TAGS - OWN_TAGS.len();
            let message =
                format!("{} are too many: a resource has at most {MOST_TAGS} tags, and {room} are free", tags.len());
            self.error(&["azure.tags"], message);
        }
        let mut seen = BTreeSet::new();
        for (name, value) in tags {
            let key = format!("azure.tags.{name}");
            if let Err(message) = tag_name(name) {
                self.error(&[&key], message);
            }
            if value.chars().count() > 256 {
                self.error(&[&key], "a tag in Azure has at most 256 characters");
            }
            if !seen.insert(name.to_lowercase()) {
                self.error(
                    &[&key],
                    "stands twice: Azure does not tell upper case from lower case in the names of tags",
                );
            }
            if OWN_TAGS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                self.warning(&[&key], "has no effect: the tag is k0rdentctl's own");
            }
        }
    }

    fn azure(&mut self) {
        self.tags();
        // Debian's images are 30 GB (guess: those of other publishers too); 4095 GiB is Azure's limit.
        if !(30..=4095).contains(&self.config.azure.os_disk_gb) {
            self.error(&["azure.os_disk_gb"], "a disk has 30 to 4095 GiB");
        }
        if let Some(trouble) = super::regions::trouble(&self.config.azure.location) {
            self.warning(&["azure.location"], trouble);
        }
        for (index, range) in self.config.azure.ssh_allowed_from.iter().enumerate() {
            if range.prefix_len() == 0 {
                let message = "the whole internet may try to log in; leave the list empty for your own address only";
                self.warning(&[&format!("azure.ssh_allowed_from[{index}]")], message);
            }
        }
    }

    /// The image must run on the machines.
    fn sizes(&mut self) {
        let Config { azure, vm_sizing, cluster, .. } = self.config;
        let image = &azure.vm_image;
        let mut sizes = vec![("vm_sizing.controller.size", &vm_sizing.controller.size)];
        if cluster.workers.count > 0 {
            sizes.push(("vm_sizing.worker.size", &vm_sizing.worker.size));
        }
        for (key, size) in sizes {
            let (machine, Some(image_architecture)) = (Architecture::of_size(size), image.architecture()) else {
                continue;
            };
            if machine != image_architecture {
                let (machine, has) = (machine.name(), image_architecture.name());
                let message =
                    format!("{key} {size} is {machine}, but azure.vm_image {image} is {has}; change one of them");
                self.error(&[key, "azure.vm_image"], message);
            }
        }
    }

    fn cluster(&mut self) {
        let controllers = &self.config.cluster.controllers;
        let count = controllers.count;
        let [controllers_key, workers_key] = match self.config.provider {
            Provider::Azure => ["cluster.controllers.count", "cluster.workers.count"],
            Provider::Ssh => ["hosts"; 2],
        };
        if count == 0 {
            self.error(&[controllers_key], "there must be at least 1 controller");
        } else if count.is_multiple_of(2) {
            let fewer = count - 1;
            let message = format!("{count} controllers survive no more failures than {fewer}; take an odd number");
            self.warning(&[controllers_key], message);
        }
        if self.config.cluster.workers.count > 0 {
            return;
        }
        match controllers.run_workloads {
            Some(false) => {
                let keys = ["cluster.controllers.run_workloads", workers_key];
                self.error(&keys, "nothing would run workloads: there are no workers and controllers may not");
            }
            // One machine that is everything, or somebody who says so: it is meant.
            None if count > 1 => {
                let message = "without workers, the controllers run workloads too; say so with \
                    cluster.controllers.run_workloads: true";
                self.warning(&[workers_key], message);
            }
            _ => {}
        }
    }

    fn zones(&mut self, key: &str, zones: &[u8]) {
        let mut seen = BTreeSet::new();
        for (index, zone) in zones.iter().enumerate() {
            let item = format!("{key}[{index}]");
            if !(1..=3).contains(zone) {
                self.error(&[&item], format!("there is no zone {zone}; Azure has 1, 2 and 3"));
            } else if !seen.insert(zone) {
                self.error(&[&item], format!("zone {zone} is there twice"));
            }
        }
    }

    /// Ranges must be apart, and the subnet inside its network.
    fn ranges(&mut self) {
        let network = &self.config.network;
        let ranges = [
            ("network.vnet_prefix", network.vnet_prefix),
            ("network.wireguard_network", network.wireguard_network),
            ("network.pod_cidr", network.pod_cidr),
            ("network.service_cidr", network.service_cidr),
        ];
        // Hosts that exist already have a network of their own.
        let makes_machines = self.config.provider.makes_machines();
        let ranges = if makes_machines { &ranges[..] } else { &ranges[2..] };
        for (index, (second_key, second)) in ranges.iter().enumerate() {
            if is_special(second) {
                self.error(&[second_key], format!("{second} has another use on every host; take a private range"));
            }
            for (first_key, first) in &ranges[..index] {
                if !overlap(first, second) {
                    continue;
                }
                // The one that the file has is the one to change.
                let mut pair = [(*second_key, second), (*first_key, first)];
                if !self.is_given(second_key) {
                    pair.reverse();
                }
                let [(key, range), (other_key, other)] = pair;
                self.error(&[key, other_key], format!("{range} overlaps with {other_key} {other}"));
            }
        }
        if !makes_machines {
            return;
        }
        let (subnet, vnet) = (network.subnet_prefix, network.vnet_prefix);
        if !vnet.contains(&subnet) {
            let message = format!("{subnet} is not inside network.vnet_prefix {vnet}");
            self.error(&["network.subnet_prefix", "network.vnet_prefix"], message);
        }
        let mesh = network.wireguard_network;
        if !is_private(&mesh) && !is_special(&mesh) {
            let message = format!(
                "{mesh} is not private: addresses there belong to somebody on the internet, whom you \
                could not reach; take a range of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10"
            );
            self.warning(&["network.wireguard_network"], message);
        }
    }

    /// Enough addresses for all machines.
    fn room(&mut self) {
        let network = &self.config.network;
        let nodes = u64::from(self.config.node_count());
        // Kubernetes documentation: the controller manager gives each node a /24 of the pod range. Calico does without.
        let demands = [
            (Severity::Error, "network.wireguard_network", network.wireguard_network, nodes + MESH_RESERVED),
            (Severity::Error, "network.subnet_prefix", network.subnet_prefix, nodes + SUBNET_RESERVED),
            (Severity::Warning, "network.pod_cidr", network.pod_cidr, nodes * 256),
        ];
        let made = if self.config.provider.makes_machines() { 0 } else { 2 };
        for (severity, key, range, needed) in demands.into_iter().skip(made) {
            if needed <= size_of(&range) {
                continue;
            }
            let why = match key {
                "network.wireguard_network" => "machines start at the 11th address",
                "network.subnet_prefix" => "Azure keeps 5 addresses",
                _ => "each takes a /24",
            };
            let prefix = prefix_for(needed);
            let machines = words::count(nodes as usize, "machine");
            let message = format!("{key} {range} has no room for {machines} ({why}); give it a /{prefix}");
            self.report(severity, &[key, "cluster.workers.count", "cluster.controllers.count"], message);
        }
    }

    /// Ports and packet sizes.
    fn packets(&mut self) {
        match self.config.network.mesh_port {
            Some(0) => self.error(&["network.mesh_port"], "a port is a number from 1 to 65535"),
            Some(VXLAN_PORT) => self.error(&["network.mesh_port"], "4789 belongs to the pod network (VXLAN)"),
            Some(30_000..=32_767) => self.warning(
                &["network.mesh_port"],
                "Kubernetes gives the ports from 30000 to 32767 to services (NodePort); take another",
            ),
            _ => {}
        }
        match self.config.network.calico_mtu {
            0..576 => self.error(&["network.calico_mtu"], "a packet has at least 576 bytes"),
            1451.. => self.warning(
                &["network.calico_mtu"],
                "Azure's packets are 1500 bytes and VXLAN takes 50 of them; more than 1450 may be lost",
            ),
            _ => {}
        }
    }

    /// The proxy of the machines.
    fn proxy(&mut self) {
        let proxy = &self.config.proxy;
        for (index, exception) in proxy.no_proxy.iter().enumerate() {
            if let Err(message) = super::proxy::exception(exception) {
                self.error(&[&format!("proxy.no_proxy[{index}]")], message);
            }
        }
        for (key, address) in [("proxy.http", &proxy.http), ("proxy.https", &proxy.https)] {
            match address {
                Some(address) if address.is_masked() => {
                    self.warning(&[key], "its password is ***, which is how `config show` masks one");
                }
                None if proxy.is_set() => self.warning(&[key], "is not set: the machines go there without a proxy"),
                _ => {}
            }
        }
        if proxy.is_set() {
            self.warning(
                &["proxy"],
                "is for the machines: k0rdent's own pods, which download charts and providers, do not get it",
            );
        }
        if !proxy.no_proxy.is_empty() && !proxy.is_set() {
            let keys = ["proxy.no_proxy", "proxy.http", "proxy.https"];
            self.warning(&keys, "has no effect: there is neither proxy.http nor proxy.https");
        }
    }

    fn timeouts(&mut self) {
        let Ok(serde_json::Value::Object(timeouts)) = serde_json::to_value(&self.config.timeouts) else { return };
        for (name, value) in timeouts {
            if value.as_u64() == Some(0) {
                self.error(&[&format!("timeouts.{name}")], "must be more than 0");
            }
        }
    }

    fn kof(&mut self) {
        let regional = &self.config.kof.regional;
        if !regional.cluster_name.is_empty()
            && let Err(message) = dns_label(&regional.cluster_name)
        {
            self.error(&["kof.regional.cluster_name"], message);
        }
        if self.config.kof.enabled && !regional.domain.contains('.') {
            self.error(&["kof.regional.domain"], "KOF needs a DNS domain, as in regional.example.com");
        }
        if self.config.kof.enabled && !regional.admin_email.contains('@') {
            self.error(&["kof.regional.admin_email"], "KOF needs an e-mail address for its certificates");
        }
    }
}

fn overlap(first: &Ipv4Net, second: &Ipv4Net) -> bool {
    first.contains(second) || second.contains(first)
}

/// RFC 1918, and RFC 6598 for carriers.
fn is_private(range: &Ipv4Net) -> bool {
    let private = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)];
    is_in(range, &private, |private, range| private.contains(range))
}

/// Whether the relation holds between one of `blocks` and `range`.
fn is_in(range: &Ipv4Net, blocks: &[([u8; 4], u8)], relation: impl Fn(&Ipv4Net, &Ipv4Net) -> bool) -> bool {
    let block = |(base, prefix): &([u8; 4], u8)| Ipv4Net::new(Ipv4Addr::from(*base), *prefix);
    blocks.iter().flat_map(block).any(|block| relation(&block, range))
}

/// What no network in Azure can have (Azure documentation): loopback, link-local, multicast, and Azure's own address.
fn is_special(range: &Ipv4Net) -> bool {
    is_in(range, &[([127, 0, 0, 0], 8), ([169, 254, 0, 0], 16), ([224, 0, 0, 0], 4), ([168, 63, 129, 16], 32)], overlap)
}

/// How many addresses a range has.
fn size_of(range: &Ipv4Net) -> u64 {
    1 << (32 - range.prefix_len())
}

/// The longest prefix whose range has at least that many addresses.
fn prefix_for(addresses: u64) -> u32 {
    32u32.saturating_sub(addresses.next_power_of_two().trailing_zeros())
}

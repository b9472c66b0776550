//! Hosts that exist already (`provider: ssh`): how to log in to them, how they say whose they are, and whether they are
//! fit. They are somebody's: what is not ours there is left as it was found.

use std::{collections::BTreeMap, fmt, sync::Arc};

use engine::Failure;
use serde::Serialize;

use crate::{
    config::{Bastion, Host, HostKey, Severity},
    identity::{self, Identity},
    k0s,
    seam::World,
    ssh::{Patience, Remote, Target, Tunnel},
    topology::{Node, Role, Topology},
};

/// Says whose a host is: a symbolic link to the cluster's id, which is made in one piece and only where there is none.
pub const CLAIM: &str = "/etc/k0rdentctl-cluster";

/// Those who log in, by the files in which their keys are, and how long they wait.
#[derive(Clone)]
pub struct Users {
    identities: BTreeMap<String, Identity>,
    patience: Patience,
}

impl Users {
    /// Reads every key that somebody needs; or says of each what is wrong with it.
    pub async fn read(
        world: &World,
        bastions: &[Bastion],
        topology: &Topology,
        patience: Patience,
    ) -> Result<Self, Vec<Failure>> {
        let leaving = topology.leaving.iter().filter_map(|leaving| leaving.host.as_deref());
        let hosts = topology.nodes.iter().chain(leaving).filter_map(|node| node.host.as_ref());
        let files = hosts.map(|host| &host.key).chain(bastions.iter().map(|bastion| &bastion.key));
        let failure = |(file, why): (String, String)| Failure::refused(format!("key {file}: {why}"));
        let identities = identity::read_all(world, files).await;
        let identities = identities.map_err(|failures| failures.into_iter().map(failure).collect::<Vec<_>>())?;
        Ok(Self { identities, patience })
    }

    fn target(&self, place: Place<'_>) -> Result<Target, Failure> {
        let missing = |what: &str| Failure::refused(format!("{}: no {what}", place.name));
        Ok(Target {
            node: place.name.to_owned(),
            host: place.address.to_owned(),
            port: place.port,
            user: place.user.to_owned(),
            identity: self.identities.get(place.key).cloned().ok_or_else(|| missing("key"))?,
            host_key: place.host_key.key().ok_or_else(|| missing("host key"))?,
            patience: self.patience,
        })
    }

    /// Where and as whom to log in to a host.
    pub fn host(&self, name: &str, host: &Host) -> Result<Target, Failure> {
        let Host { address, port, user, key, host_key, .. } = host;
        self.target(Place { name, address, port: *port, user, key, host_key })
    }

    /// The world as it is seen from the last of the bastions.
    pub fn behind(&self, world: &World, bastions: &[Bastion]) -> Result<World, Failure> {
        let mut world = world.clone();
        for bastion in bastions {
            let Bastion { address, port, user, key, host_key } = bastion;
            let name = format!("bastion {address}");
            let target = self.target(Place { name: &name, address, port: *port, user, key, host_key })?;
            world = world.with_network(Arc::new(Tunnel(Arc::new(Remote::new(world.clone(), target)))));
        }
        Ok(world)
    }
}

struct Place<'a> {
    name: &'a str,
    address: &'a str,
    port: u16,
    user: &'a str,
    key: &'a str,
    host_key: &'a HostKey,
}

/// What is said of a host before anything is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: a host, or Azure.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.message)
    }
}

/// Prints everything that is wanted to be known of a host, each part under a heading. It changes nothing.
pub fn survey_command(downloads: &[String]) -> String {
    let parts = [
        ("os", "cat /etc/os-release".to_owned()),
        ("kernel", "uname -s".to_owned()),
        ("architecture", "uname -m".to_owned()),
        ("hostname", "hostname".to_owned()),
        ("machine-id", "cat /etc/machine-id".to_owned()),
        ("systemd", "ls -d /run/systemd/system".to_owned()),
        ("sudo", "sudo -n true 2>&1 && echo yes".to_owned()),
        ("cgroup", "ls /sys/fs/cgroup/cgroup.controllers".to_owned()),
        ("memory", "cat /proc/meminfo".to_owned()),
        ("disk", "df -Pk /var/lib".to_owned()),
        ("listening", "cat /proc/net/tcp /proc/net/tcp6".to_owned()),
        ("time", "date +%s".to_owned()),
        ("k0s", format!("ls -d {}", k0s::PLACES.join(" "))),
        ("claim", format!("readlink {CLAIM}")),
    ];
    let downloads: String = downloads.iter().map(|url| download_command(url, false)).collect();
    // The sources of errors are of no interest: what is not there has no line under its heading.
    parts.iter().map(|(name, command)| format!("echo '# {name}'; {command} 2>&1; ")).collect::<String>()
        + &downloads
        + "true"
}

/// Prints whether an address can be reached; `through_proxy` reads from the standard input how.
pub fn download_command(url: &str, through_proxy: bool) -> String {
    let config = if through_proxy { "--config - " } else { "" };
    format!(
        "echo '# download'; echo {url}; curl {config}-sSIL --max-time 20 -o /dev/null '{url}' 2>&1 && echo reached 2>&1; "
    )
}

/// What a host says about itself.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    parts: BTreeMap<String, Vec<String>>,
    downloads: Vec<(String, String)>,
}

impl Survey {
    /// Reads what [`survey_command`] has printed.
    pub fn of(printed: &str) -> Self {
        let mut survey = Self::default();
        let mut heading = String::new();
        for line in printed.lines().map(str::trim_end) {
            if let Some(name) = line.strip_prefix("# ") {
                name.clone_into(&mut heading);
                if heading == "download" {
                    survey.downloads.push((String::new(), String::new()));
                }
                continue;
            }
            match survey.downloads.last_mut().filter(|_| heading == "download") {
                Some((url, _)) if url.is_empty() => line.clone_into(url),
                Some((_, answer)) => line.clone_into(answer),
                None => survey.parts.entry(heading.clone()).or_default().push(line.to_owned()),
            }
        }
        survey
    }

    fn lines(&self, part: &str) -> &[String] {
        self.parts.get(part).map_or(&[], Vec::as_slice)
    }

    fn first(&self, part: &str) -> &str {
        self.lines(part).first().map_or("", String::as_str)
    }

    /// The machine's id (systemd documentation, machine-id).
    fn machine_id(&self) -> Option<&str> {
        Some(self.first("machine-id")).filter(|id| id.len() == 32)
    }

    /// Its time, seconds since 1970.
    fn seconds(&self) -> Option<i64> {
        self.first("time").parse().ok()
    }

    /// The cluster whose it is.
    fn claim(&self) -> Option<&str> {
        Some(self.first("claim")).filter(|claim| !claim.is_empty())
    }

    /// The ports on which somebody listens (Linux documentation, proc(5): state 0A, ports in hexadecimal).
    fn listening(&self) -> Vec<u16> {
        let port = |line: &String| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?;
            let state = fields.nth(1)?;
            u16::from_str_radix(local.rsplit(':').next()?, 16).ok().filter(|_| state == "0A")
        };
        self.lines("listening").iter().filter_map(port).collect()
    }

    /// Everything that speaks against this host, or should be known about it. `cluster` is who asks; none that was not
    /// made yet.
    pub fn findings(&self, node: &Node, cluster: Option<&str>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut say = |severity: Severity, message: String| {
            findings.push(Finding { subject: node.name.clone(), severity, message });
        };
        let is_ours = cluster.is_some() && self.claim() == cluster;
        if let Some(other) = self.claim().filter(|_| !is_ours) {
            say(Severity::Error, format!("it belongs to the cluster {other} ({CLAIM})"));
        } else if let Some(place) = self.lines("k0s").iter().find(|line| line.starts_with('/')).filter(|_| !is_ours) {
            let message = format!("k0s is there already ({place}), and not ours; `k0s reset` removes it");
            say(Severity::Error, message);
        }
        if self.first("kernel") != "Linux" {
            say(Severity::Error, format!("its system is {:?}, not Linux", self.first("kernel")));
        }
        if k0s::architecture(self.first("architecture")).is_none() {
            let message =
                format!("its architecture is {}; k0s is made for x86_64 and aarch64", self.first("architecture"));
            say(Severity::Error, message);
        }
        if !self.first("systemd").starts_with('/') {
            say(Severity::Error, "systemd does not run there, and k0s is a service of it".to_owned());
        }
        if self.first("sudo") != "yes" {
            let message = format!("its user may not use sudo without a password: {}", self.first("sudo"));
            say(Severity::Error, message);
        }
        if !self.first("cgroup").starts_with("/sys") || self.first("cgroup").contains("No such") {
            let message = "it has control groups of version 1; kubelet calls them obsolete, take version 2";
            say(Severity::Warning, message.to_owned());
        }
        let (memory, disk) = requirements(node);
        match self.memory_mb() {
            Some(there) if there < memory => {
                say(Severity::Error, format!("it has {there} MB of memory; k0s needs {memory}"));
            }
            _ => {}
        }
        match self.disk_mb() {
            Some(there) if there < disk => {
                say(Severity::Error, format!("it has {there} MB free under /var/lib; k0s needs {disk}"));
            }
            _ => {}
        }
        if !is_ours {
            let listening = self.listening();
            for port in ports(node).iter().filter(|port| listening.contains(port)) {
                say(Severity::Error, format!("somebody listens on port {port} already, which k0s needs"));
            }
        }
        for (url, answer) in self.downloads.iter().filter(|(_, answer)| answer != "reached") {
            say(Severity::Error, format!("{url} cannot be reached from there: {answer}"));
        }
        findings
    }

    fn memory_mb(&self) -> Option<u64> {
        let line = self.lines("memory").iter().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
    }

    fn disk_mb(&self) -> Option<u64> {
        let line = self.lines("disk").iter().rfind(|line| line.contains('%'))?;
        line.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib / 1024)
    }
}

/// Memory and free disk that k0s needs at least, in MB (k0s documentation, system requirements).
fn requirements(node: &Node) -> (u64, u64) {
    match (node.role, node.runs_workloads) {
        (Role::Controller, true) => (1000, 1700),
        (Role::Controller, false) => (1000, 500),
        (Role::Worker, _) => (500, 1300),
    }
}

/// The TCP ports on which k0s listens on a node (k0s documentation, networking).
fn ports(node: &Node) -> &'static [u16] {
    match (node.role, node.runs_workloads) {
        (Role::Controller, true) => &[2379, 2380, k0s::API_PORT, 8132, 9443, 10250],
        (Role::Controller, false) => &[2379, 2380, k0s::API_PORT, 8132, 9443],
        (Role::Worker, _) => &[10250],
    }
}

/// How far clocks may be apart, in seconds: certificates are valid from the second in which they were made, and etcd
/// warns at one (guess at what does no harm).
const CLOCKS_APART: i64 = 30;

/// What speaks against these hosts together.
pub fn findings_together(surveys: &[(&Node, Survey)], now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |severity: Severity, node: &Node, message: String| {
        findings.push(Finding { subject: node.name.clone(), severity, message });
    };
    let (mut ids, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (node, survey) in surveys {
        if let Some(other) = survey.machine_id().and_then(|id| ids.insert(id, &node.name)) {
            let message =
                format!("it has the same /etc/machine-id as {other}; give it its own: `systemd-machine-id-setup`");
            say(Severity::Error, node, message);
        }
        let hostname = survey.first("hostname");
        if let Some(other) = names.insert(hostname, &node.name) {
            say(Severity::Error, node, format!("it has the same hostname as {other}: {hostname}"));
        }
    }
    let first = surveys.iter().find_map(|(node, survey)| Some((*node, survey.seconds()?)));
    if let Some((reference, seconds)) = first {
        for (node, survey) in surveys {
            let apart = survey.seconds().map_or(0, |there| there - seconds);
            if apart.abs() > CLOCKS_APART {
                let way = if apart > 0 { "ahead of" } else { "behind" };
                say(Severity::Error, node, format!("its clock is {} s {way} that of {}", apart.abs(), reference.name));
            }
        }
        if (seconds - now).abs() > CLOCKS_APART {
            let message = format!("its clock and that of this computer are {} s apart", (seconds - now).abs());
            say(Severity::Warning, reference, message);
        }
    }
    findings
}

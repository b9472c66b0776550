//! The settings themselves: every key, its type, its default and its meaning. The defaults are those of the shell
//! scripts that this program succeeds (randybias/k0rdent-azure-setup), whose files load unmodified; "not used" marks
//! their keys that are accepted without effect.

use super::schema::{Field, Kind, Setting, settings};
use crate::topology::Role;
use ipnet::{IpNet, Ipv4Net};
use russh::keys::{Algorithm, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::Ipv4Addr;

settings! {
    /// A whole configuration.
    Config {
        /// About the file and its owner.
        metadata: Metadata;
        /// Refuse to reset this cluster while true.
        protect: bool = false;
        /// Where the machines come from: azure makes them, ssh takes the hosts that are listed.
        provider: Provider = "azure";
        /// The hosts of provider ssh, which exist already.
        hosts: Vec<Host> = [];
        /// Where in Azure the machines live.
        azure: Azure;
        /// Address ranges.
        network: Network;
        /// Machine sizes.
        vm_sizing: VmSizing;
        /// How many machines, and where.
        cluster: Cluster;
        /// The administrator's access to the machines.
        ssh: Ssh;
        /// What is installed.
        software: Software;
        /// How long to wait.
        timeouts: Timeouts;
        /// What a reset leaves.
        archive: Archive;
        /// KOF, the observability stack.
        kof: Kof;
    }

    /// About the file and its owner.
    Metadata {
        /// Version of the file's layout. Not used.
        version: String = "1.0";
        /// Name of the file's layout. Not used.
        schema: String = "k0rdent-config";
        /// What this configuration is for.
        description: String = "";
        /// Who owns the cluster: the `owner` tag in Azure. Not set: the person who deploys.
        owner: Option<String>;
    }

    /// A host that exists already.
    Host {
        /// What it is for: controller or worker. Names are given in the order of the list: k0s-worker-1, ...
        role: Role = required;
        /// Where its SSH answers: an address or a name.
        address: String = required;
        /// The port of its SSH.
        port: u16 = 22;
        /// Who logs in: somebody who may use sudo without a password.
        user: String = required;
        /// The file of that user's private key, without a passphrase.
        key: String = required;
        /// The host's public Ed25519 key, as in its /etc/ssh/ssh_host_ed25519_key.pub. Nobody else is spoken to.
        host_key: HostKey = required;
        /// Its address as the other hosts see it. Not set: the address where its SSH answers.
        private_address: Option<Ipv4Addr>;
    }

    /// A host to go through on the way to the others.
    Bastion {
        /// Where its SSH answers: an address or a name.
        address: String = required;
        /// The port of its SSH.
        port: u16 = 22;
        /// Who logs in.
        user: String = required;
        /// The file of that user's private key, without a passphrase.
        key: String = required;
        /// Its public Ed25519 key, as in its /etc/ssh/ssh_host_ed25519_key.pub.
        host_key: HostKey = required;
    }

    /// Where in Azure the machines live.
    Azure {
        /// The subscription's id. Not set: the only one that the credential can see.
        subscription_id: Option<String>;
        /// The tenant's id or domain. Not set: the credential's own.
        tenant_id: Option<String>;
        /// The region.
        location: String = "westus2";
        /// The image as publisher:offer:sku:version.
        vm_image: Image = "Debian:debian-12:12-gen2:latest";
        /// Regular, or Spot for cheaper machines that Azure may take back.
        vm_priority: VmPriority = "Regular";
        /// What happens to a Spot machine that Azure takes back: Deallocate or Delete.
        eviction_policy: EvictionPolicy = "Deallocate";
        /// Size of each machine's disk in GiB.
        os_disk_gb: u16 = 64;
        /// Address ranges that may reach SSH. Empty: only the operator's own address, found at run time.
        ssh_allowed_from: Vec<IpNet> = [];
    }

    /// Address ranges. They must not overlap.
    Network {
        /// The virtual network.
        vnet_prefix: Ipv4Net = "10.0.0.0/16";
        /// The machines' subnet, inside the virtual network.
        subnet_prefix: Ipv4Net = "10.0.1.0/24";
        /// The WireGuard mesh: the operator has the first address, machines the eleventh and following.
        wireguard_network: Ipv4Net = "192.168.100.0/24";
        /// UDP port of the mesh. Not set: a port from 61000 to 64000 that follows from the cluster's id.
        mesh_port: Option<u16>;
        /// Pod addresses.
        pod_cidr: Ipv4Net = "10.244.0.0/16";
        /// Service addresses.
        service_cidr: Ipv4Net = "10.96.0.0/12";
        /// Packet size of Calico, the pod network, in bytes: 1500 of Azure less 50 for VXLAN.
        calico_mtu: u16 = 1450;
    }

    /// Machine sizes.
    VmSizing {
        /// Controllers.
        controller: ControllerSizing;
        /// Workers.
        worker: WorkerSizing;
    }

    /// Size of the controllers.
    ControllerSizing {
        /// The Azure size.
        size: String = "Standard_B2s";
    }

    /// Size of the workers.
    WorkerSizing {
        /// The Azure size.
        size: String = "Standard_B2s";
    }

    /// How many machines, and where.
    Cluster {
        /// Controllers, which run the control plane.
        controllers: Controllers;
        /// Workers, which run workloads.
        workers: Workers;
    }

    /// Controllers.
    Controllers {
        /// How many; 1, or an odd number so that etcd keeps a majority.
        count: u16 = 1;
        /// Availability zones, used in turn.
        zones: Vec<u8> = [1];
        /// Whether controllers run workloads too. Not set: only when there are no workers.
        run_workloads: Option<bool>;
    }

    /// Workers.
    Workers {
        /// How many; 0 lets the controllers run workloads.
        count: u16 = 1;
        /// Availability zones, used in turn.
        zones: Vec<u8> = [1];
    }

    /// The administrator's access to the machines.
    Ssh {
        /// The administrator's user name.
        username: String = "k0rdent";
        /// Comment of the key. Not used: the comment names the cluster.
        key_comment: String = "k0rdent-azure-key";
        /// Hosts to go through on the way to the hosts of provider ssh, in this order.
        bastions: Vec<Bastion> = [];
    }

    /// What is installed.
    Software {
        /// k0s, the Kubernetes distribution.
        k0s: K0s;
        /// k0rdent, the multi-cluster manager.
        k0rdent: K0rdent;
    }

    /// k0s.
    K0s {
        /// The release.
        version: String = "v1.33.2+k0s.0";
        /// Where the machines download the k0s binary from. Not set: the release on GitHub.
        download_url: Option<String>;
        /// The k0s binary as a file on this computer, absolute path; it is uploaded, and nothing is downloaded.
        binary: Option<String>;
        /// The images of a k0s release as a file on this computer, absolute path; it is uploaded to every machine that runs
        /// workloads, before k0s starts there.
        airgap_bundle: Option<String>;
    }

    /// k0rdent.
    K0rdent {
        /// The release.
        version: String = "1.1.1";
        /// The chart's OCI address.
        registry: String = "oci://ghcr.io/k0rdent/kcm/charts/kcm";
        /// The namespace it runs in.
        namespace: String = "kcm-system";
        /// The providers to enable. Empty: the release's own set.
        providers: Vec<String> = [];
    }

    /// How long to wait.
    Timeouts {
        /// Seconds until an SSH connection must stand.
        ssh_connect: u32 = 30;
        /// Seconds that one command over SSH may take.
        ssh_command: u32 = 300;
        /// Not used.
        k0s_install_wait: u32 = 30;
        /// Seconds until k0s on a controller must be ready.
        k0s_ready_seconds: u32 = 600;
        /// Seconds until a node must be Ready in Kubernetes.
        node_ready_seconds: u32 = 900;
        /// Seconds until k0rdent must be ready.
        k0rdent_install_wait: u32 = 1500;
        /// Not used.
        wireguard_connect_wait: u32 = 5;
        /// Minutes until a machine must exist.
        vm_creation_minutes: u32 = 10;
        /// Not used.
        vm_wait_check_interval: u32 = 30;
        /// Seconds until cloud-init must be done.
        cloud_init_timeout: u32 = 600;
        /// Not used.
        cloud_init_check_interval: u32 = 10;
        /// Not used.
        verification_retries: u32 = 3;
        /// Not used.
        verification_retry_delay: u32 = 10;
        /// Minutes until everything must be deleted.
        reset_minutes: u32 = 30;
    }

    /// What a reset leaves.
    Archive {
        /// Days after which a reset removes the records of earlier ones. 0: never.
        retention_days: u32 = 30;
    }

    /// KOF, the observability stack.
    Kof {
        /// Whether it is installed.
        enabled: bool = false;
        /// The release of its charts.
        version: String = "1.1.0";
        /// Istio for KOF.
        istio: Istio;
        /// The part on the management cluster.
        mothership: Mothership;
        /// The regional cluster that stores the data.
        regional: Regional;
    }

    /// Istio for KOF.
    Istio {
        /// The release of the kof-istio chart.
        version: String = "1.1.0";
        /// The namespace it runs in.
        namespace: String = "istio-system";
    }

    /// The part of KOF on the management cluster.
    Mothership {
        /// The namespace it runs in.
        namespace: String = "kof";
        /// The storage class; `default` is the cluster's own.
        storage_class: String = "default";
        /// How often to try the installation.
        install_retries: u32 = 3;
        /// Seconds between two tries.
        retry_delay_seconds: u32 = 30;
        /// Additional collectors.
        collectors: Collectors;
    }

    /// Additional collectors.
    Collectors {
        /// Collectors of every cluster. Not used.
        global: Map<String, Value> = {};
    }

    /// The regional cluster of KOF.
    Regional {
        /// Its name. Empty: derived from the cluster's id and the region.
        cluster_name: String = "";
        /// Its DNS domain.
        domain: String = "regional.example.com";
        /// Contact for certificates.
        admin_email: String = "admin@example.com";
        /// Its region.
        location: String = "southeastasia";
        /// The cluster template.
        template: String = "azure-standalone-cp-1-0-8";
        /// The credential.
        credential: String = "azure-cluster-credential";
        /// The size of its controllers.
        cp_instance_size: String = "Standard_A4_v2";
        /// The size of its workers.
        worker_instance_size: String = "Standard_A4_v2";
        /// Size of each disk in GiB.
        root_volume_size: u32 = 32;
    }
}

impl Timeouts {
    /// How long a machine may take from the request for it until SSH answers and cloud-init is done.
    pub fn machine_ready(&self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::from(self.vm_creation_minutes) * 60 + u64::from(self.cloud_init_timeout))
    }
}

impl Config {
    /// All machines.
    pub fn node_count(&self) -> u32 {
        u32::from(self.cluster.controllers.count) + u32::from(self.cluster.workers.count)
    }

    /// Whether controllers run workloads: as configured, otherwise when there is nobody else to do it.
    pub fn controllers_run_workloads(&self) -> bool {
        self.cluster.controllers.run_workloads.unwrap_or(self.cluster.workers.count == 0)
    }
}

impl Host {
    /// Its address as the other hosts see it; none only where checking has refused the configuration.
    pub fn private_address(&self) -> Option<Ipv4Addr> {
        self.private_address.or_else(|| self.address.parse().ok())
    }
}

/// Where machines come from. What a provider cannot do is a capability that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Azure makes them.
    #[default]
    Azure,
    /// They exist already, and SSH answers there.
    Ssh,
}

impl Provider {
    /// Whether machines are made for the cluster: with a network around them, a document that tells them who they are,
    /// and a place in the mesh. Otherwise they are somebody's, and left as they were found.
    pub const fn makes_machines(self) -> bool {
        matches!(self, Self::Azure)
    }

    /// Whether everything of a cluster can be deleted in one request.
    pub const fn deletes_at_once(self) -> bool {
        matches!(self, Self::Azure)
    }
}

impl Setting for Provider {
    const KIND: Kind = Kind::Parsed("azure or ssh", |text| choose(text, &["azure", "ssh"]));
}

impl Setting for Role {
    const KIND: Kind = Kind::Parsed("controller or worker", |text| choose(text, &["controller", "worker"]));
}

/// A public Ed25519 key of a host, as an OpenSSH line. Every OpenSSH server has one (OpenSSH 6.5 and later).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey(String);

impl HostKey {
    /// The key in an OpenSSH line.
    pub fn new(line: &str) -> Self {
        Self(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// The key itself; none only where reading has refused the text.
    pub fn key(&self) -> Option<PublicKey> {
        PublicKey::from_openssh(&self.0).ok()
    }
}

impl std::fmt::Display for HostKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Setting for HostKey {
    const KIND: Kind = Kind::Parsed("an OpenSSH public key", |text| {
        let key = PublicKey::from_openssh(text).ok().filter(|key| key.algorithm() == Algorithm::Ed25519);
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        key.map(|_| words.join(" ")).ok_or_else(|| {
            "is not a line such as `ssh-ed25519 AAAA...`; `cat /etc/ssh/ssh_host_ed25519_key.pub` on the host prints it"
                .to_owned()
        })
    });
}

/// What Azure may do with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmPriority {
    /// Keep it.
    Regular,
    /// Take it back when it needs the capacity.
    Spot,
}

impl Setting for VmPriority {
    const KIND: Kind = Kind::Parsed("Regular or Spot", |text| choose(text, &["Regular", "Spot"]));
}

/// What happens to a Spot machine that Azure takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictionPolicy {
    /// It is stopped and its disk is kept.
    Deallocate,
    /// It is deleted.
    Delete,
}

impl Setting for EvictionPolicy {
    const KIND: Kind = Kind::Parsed("Deallocate or Delete", |text| choose(text, &["Deallocate", "Delete"]));
}

/// One of `choices`, in any case.
fn choose(text: &str, choices: &[&str]) -> Result<String, String> {
    let found = choices.iter().find(|choice| choice.eq_ignore_ascii_case(text));
    found.map(|choice| (*choice).to_owned()).ok_or_else(|| format!("{text:?} is not {}", choices.join(" or ")))
}

/// The processor architecture of an image or a machine size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD; `x64` in Azure.
    X64,
    /// `Arm64` in Azure.
    Arm64,
}

impl Architecture {
    /// Of a machine size. Azure documentation: a name is family letters, vCPUs, then feature letters, and the letter
    /// `p` among those means Arm64 (`Standard_D4pls_v6`).
    pub fn of_size(size: &str) -> Self {
        let name = size.split('_').nth(1).unwrap_or_default();
        let features = name.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
        if features.contains('p') { Self::Arm64 } else { Self::X64 }
    }

    /// The name in Azure.
    pub fn name(self) -> &'static str {
        match self {
            Self::X64 => "x64",
            Self::Arm64 => "Arm64",
        }
    }
}

/// A marketplace image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image {
    /// Who publishes it.
    pub publisher: String,
    /// The product.
    pub offer: String,
    /// The variant.
    pub sku: String,
    /// The version, or `latest`.
    pub version: String,
}

impl Image {
    /// The architecture, by the custom of publishers to name arm64 in the SKU (Debian, Ubuntu).
    pub fn architecture(&self) -> Architecture {
        if self.sku.to_ascii_lowercase().contains("arm64") { Architecture::Arm64 } else { Architecture::X64 }
    }
}

impl TryFrom<String> for Image {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let legal =
            |part: &&str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !part.is_empty();
        match text.split(':').filter(legal).collect::<Vec<_>>()[..] {
            [publisher, offer, sku, version] if text.matches(':').count() == 3 => {
                let [publisher, offer, sku, version] = [publisher, offer, sku, version].map(str::to_owned);
                Ok(Self { publisher, offer, sku, version })
            }
            _ => Err(format!("{text:?} is not publisher:offer:sku:version, as in Debian:debian-12:12-gen2:latest")),
        }
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.to_string()
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}:{}:{}", self.publisher, self.offer, self.sku, self.version)
    }
}

impl Setting for Image {
    const KIND: Kind = Kind::Parsed("an image as publisher:offer:sku:version", |text| {
        Image::try_from(text.to_owned()).map(String::from)
    });
}

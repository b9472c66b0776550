//! The settings themselves: every key, its type, its default and its meaning. The defaults are those of the shell
//! scripts that this program succeeds (randybias/k0rdent-azure-setup), whose files load unmodified; `idle` marks
//! their keys that are accepted without effect, of which whoever sets one is told.

use super::image::Image;
use super::proxy::ProxyAddress;
use super::schema::{Field, Kind, Setting, settings};
use crate::ssh::Patience;
use crate::topology::Role;
use ipnet::{IpNet, Ipv4Net};
use russh::keys::{Algorithm, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
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
        /// The proxy through which the machines download: apt, k0s and containerd. Pods do not get it.
        proxy: MachineProxy;
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
        kof: Kof, idle "this version does not install KOF";
    }

    /// About the file and its owner.
    Metadata {
        /// Version of the file's layout. A newer one than this is refused.
        version: String = "1.0";
        /// Name of the file's layout, which is this one.
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
        /// The file of that user's private key: RSA, ECDSA or Ed25519, in a format that OpenSSH reads. Its passphrase, if it
        /// has one, is asked for, unless an ssh-agent holds the key. A public key's file stands for a key that an ssh-agent
        /// holds.
        key: String = required;
        /// One of the host's public keys (Ed25519, ECDSA or RSA), as in its /etc/ssh/ssh_host_ed25519_key.pub. Nobody else
        /// is spoken to.
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
        /// The file of that user's private key, as for hosts.
        key: String = required;
        /// One of its public keys, as in its /etc/ssh/ssh_host_ed25519_key.pub.
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
        /// The image as publisher:offer:sku:version, or the id of an image in a gallery of your own, with or without its version.
        vm_image: Image = "Debian:debian-12:12-gen2:latest";
        /// Regular, or Spot for cheaper machines that Azure may take back.
        vm_priority: VmPriority = "Regular";
        /// What happens to a Spot machine that Azure takes back: Deallocate or Delete.
        eviction_policy: EvictionPolicy = "Deallocate";
        /// Size of each machine's disk in GiB.
        os_disk_gb: u16 = 64;
        /// Tags of the resource group and of everything in it, beside those of k0rdentctl.
        tags: BTreeMap<String, String> = {};
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

    /// The proxy through which the machines download.
    MachineProxy {
        /// For what is downloaded over http, as apt does: `http://[USER:PASSWORD@]HOST[:PORT]`. A password is masked where it
        /// is shown.
        http: Option<ProxyAddress>;
        /// For what is downloaded over https: the k0s binary, images, and charts.
        https: Option<ProxyAddress>;
        /// What is reached without it, beside the machines, pods and services of the cluster and their names: names such as
        /// .example.com, addresses, ranges, or "*".
        no_proxy: Vec<String> = [];
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
        /// Availability zones, used in turn. Empty: none, for regions that have none.
        zones: Vec<u8> = [1];
        /// Whether controllers run workloads too. Not set: only when there are no workers.
        run_workloads: Option<bool>;
    }

    /// Workers.
    Workers {
        /// How many; 0 lets the controllers run workloads.
        count: u16 = 1;
        /// Availability zones, used in turn. Empty: none, for regions that have none.
        zones: Vec<u8> = [1];
    }

    /// The administrator's access to the machines.
    Ssh {
        /// The administrator's user name.
        username: String = "k0rdent";
        /// Comment of the key, as the scripts have it.
        key_comment: String = "k0rdent-azure-key", idle "the key's comment names its cluster";
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
        /// The SHA-256 that the binary must have. Not set: the one that its release says; `download_url` has none, and needs one.
        sha256: Sha256;
        /// The k0s binary as a file on this computer, absolute path; it is uploaded, and nothing is downloaded.
        binary: Option<String>;
        /// The images of a k0s release as a file on this computer, absolute path; it is uploaded to every machine that runs
        /// workloads, before k0s starts there.
        airgap_bundle: Option<String>;
    }

    /// The SHA-256 of the k0s binary, in hexadecimal.
    Sha256 {
        /// For x64 machines.
        amd64: Option<String>;
        /// For Arm64 machines.
        arm64: Option<String>;
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
        /// Seconds until SSH must have let us in, from the moment when a machine has accepted the connection; a bastion and
        /// the machine behind it have as long each. A mere look waits a quarter of it.
        ssh_connect: u32 = 30;
        /// Seconds that a command over SSH may take for which its step has no limit of its own.
        ssh_command: u32 = 300;
        /// Seconds after the installation of k0s, as the scripts have it.
        k0s_install_wait: u32 = 30, idle "k0s is watched until it is ready";
        /// Seconds until k0s on a controller must be ready.
        k0s_ready_seconds: u32 = 600;
        /// Seconds until a node must be Ready in Kubernetes.
        node_ready_seconds: u32 = 900;
        /// Seconds until k0rdent must be ready.
        k0rdent_install_wait: u32 = 1500;
        /// Seconds after WireGuard is started, as the scripts have it.
        wireguard_connect_wait: u32 = 5, idle "the mesh is watched until it answers";
        /// Minutes until a machine must exist.
        vm_creation_minutes: u32 = 10;
        /// Seconds between two looks at a machine, as the scripts have it.
        vm_wait_check_interval: u32 = 30, idle "Azure is asked as often as its limits allow";
        /// Seconds until cloud-init must be done.
        cloud_init_timeout: u32 = 600;
        /// Seconds between two looks at cloud-init, as the scripts have it.
        cloud_init_check_interval: u32 = 10, idle "the machine itself says when cloud-init is done";
        /// How often to look whether SSH answers, as the scripts have it.
        verification_retries: u32 = 3, idle "it is tried until timeouts.cloud_init_timeout";
        /// Seconds between two such looks, as the scripts have it.
        verification_retry_delay: u32 = 10, idle "it is tried until timeouts.cloud_init_timeout";
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
        /// Collectors of every cluster.
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

impl Sha256 {
    /// The one for machines of this architecture.
    pub fn of(&self, architecture: &str) -> Option<&str> {
        if architecture == "arm64" { self.arm64.as_deref() } else { self.amd64.as_deref() }
    }

    /// All that are known.
    pub fn any(&self) -> Vec<&str> {
        [&self.amd64, &self.arm64].into_iter().flatten().map(String::as_str).collect()
    }
}

impl MachineProxy {
    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.http.is_some() || self.https.is_some()
    }
}

impl Timeouts {
    /// How long SSH may take.
    pub fn ssh(&self) -> Patience {
        let seconds = |seconds: u32| std::time::Duration::from_secs(seconds.into());
        Patience { connect: seconds(self.ssh_connect), command: seconds(self.ssh_command) }
    }

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

/// A public key of a host, as an OpenSSH line: Ed25519, ECDSA or RSA, of which an OpenSSH server usually has one each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey(String);

impl HostKey {
    /// The key in an OpenSSH line.
    pub fn new(line: &str) -> Self {
        Self(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    /// Its kind, as SSH calls it.
    pub fn algorithm(&self) -> String {
        self.0.split(' ').next().unwrap_or_default().to_owned()
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
        let key = PublicKey::from_openssh(text).ok().filter(|key| {
            matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. })
        });
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

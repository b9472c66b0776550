//! The twin behind the product's seam.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use deploy::{
    azure::{Credentials, Endpoints},
    config::{Architecture, Config, HostKey, Image},
    keys::{ClusterKeys, openssh_private, openssh_public},
    proxy::Proxy,
    seam::{Disk, Files, Network, NoKeyring, Roots, Severable, Stream, World},
    secret::Secret,
    session::Settings,
    task::Phase,
    topology::ClusterId,
};
use engine::{Clock, Holder, journal::Durability};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::OffsetDateTime;
use twin::Twin;

/// A world and the way into it.
pub struct Stage {
    /// The world.
    pub twin: Twin,
    /// What the product sees of it.
    pub world: World,
    /// Cuts everything that goes through [`Stage::world`].
    pub network: Arc<Severable>,
    seed: u64,
}

struct TwinNetwork(Twin);

#[async_trait]
impl Network for TwinNetwork {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        Ok(Box::new(self.0.connect(host, port).await?))
    }
}

struct TwinClock(Twin);

impl Clock for TwinClock {
    fn utc(&self) -> OffsetDateTime {
        self.0.with(|world| world.utc())
    }
}

/// The disk, with the world's own things in the place of those that are for real machines.
struct StandIns {
    binary: Option<PathBuf>,
    content: Vec<u8>,
    bundle: Option<PathBuf>,
    /// Private keys of those who log in to hosts that exist already.
    keys: BTreeMap<PathBuf, Secret>,
}

impl Files for StandIns {
    fn read_to_string(&self, path: &Path) -> io::Result<String> {
        self.keys.get(path).map_or_else(|| Disk.read_to_string(path), |key| Ok(key.expose().to_owned()))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        let file = Disk.open(path)?;
        if self.bundle.as_deref() == Some(path) {
            return Ok(Box::new(file.take(1 << 16)));
        }
        if self.binary.as_deref() != Some(path) {
            return Ok(file);
        }
        // What is no program shall be found out here too.
        let mut beginning = Vec::new();
        file.take(4).read_to_end(&mut beginning)?;
        let content = if self.content.starts_with(&beginning) { self.content.clone() } else { beginning };
        Ok(Box::new(io::Cursor::new(content)))
    }
}

/// A credential that the twin takes.
pub fn credentials() -> Credentials {
    Credentials::ServicePrincipal {
        tenant: twin::azure::TENANT.to_owned(),
        client_id: "00000000-0000-0000-0000-0000000000c1".to_owned(),
        secret: Secret::new("rehearsal"),
    }
}

impl Stage {
    /// A new world, its agenda running.
    pub fn new(seed: u64) -> Self {
        let twin = Twin::new(twin::Options { seed, ..twin::Options::default() });
        tokio::spawn(twin.clone().drive());
        Self::on(twin, seed, seed)
    }

    /// Another way into the same world, with chance of its own: a program that starts again.
    pub fn again(&self, chance: u64) -> Self {
        let mut again = Self::on(self.twin.clone(), self.seed, chance);
        again.world.files = self.world.files.clone();
        again
    }

    /// The product reads the files that a configuration names, of which the world gets its own: its machines run no
    /// real binary, and images are only weight there.
    pub fn with_files_of(mut self, config: &Config) -> Self {
        self.set_files(config, BTreeMap::new());
        self
    }

    fn set_files(&mut self, config: &Config, keys: BTreeMap<PathBuf, Secret>) {
        // Whoever lets only some addresses in deploys from one of these.
        if let Some(range) = config.azure.ssh_allowed_from.first() {
            let allowed = range.hosts().next().unwrap_or_else(|| range.addr());
            self.twin.with(|world| world.client_moved_to = Some(allowed));
        }
        let k0s = &config.software.k0s;
        let architecture = match Architecture::of_size(&config.vm_sizing.controller.size) {
            Architecture::Arm64 => "arm64",
            Architecture::X64 => "amd64",
        };
        self.world.files = Arc::new(StandIns {
            binary: k0s.binary.clone().map(PathBuf::from),
            content: twin::machine::stand_in_binary(&k0s.version, architecture),
            bundle: k0s.airgap_bundle.clone().map(PathBuf::from),
            keys,
        });
    }

    /// Puts the hosts into the world that a configuration says exist already. Answers the configuration with keys that
    /// are theirs: nobody's real keys are read, and the world's sshd have keys of their own.
    pub fn with_hosts_of(mut self, config: &Config) -> (Self, Config) {
        let (mut config, mut keys) = (config.clone(), BTreeMap::new());
        if config.provider.makes_machines() {
            self.publish_image_of(&mut config);
            return (self.with_files_of(&config), config);
        }
        let drawn = ClusterKeys::new(ClusterId::from_random(|| 0), [self.seed.to_le_bytes()[0]; 32]);
        let mut authorize = |file: &str| {
            let key = drawn.ssh_host(file);
            keys.insert(PathBuf::from(file), openssh_private(&key));
            openssh_public(&key)
        };
        let behind_bastion = !config.ssh.bastions.is_empty();
        for (index, bastion) in config.ssh.bastions.iter_mut().enumerate() {
            let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
            let host = twin::machine::Host {
                name: format!("bastion-{number}"),
                public_address: Some(Ipv4Addr::new(203, 0, 113, number)),
                private_address: Ipv4Addr::new(198, 51, 100, number),
                ssh_port: bastion.port,
                user: bastion.user.clone(),
                authorized_key: authorize(&bastion.key),
                host_key: bastion.host_key.algorithm(),
            };
            // The first is reached from outside, the others from the one before.
            let address = if index == 0 { Ipv4Addr::new(203, 0, 113, number) } else { host.private_address };
            bastion.address = address.to_string();
            bastion.host_key = HostKey::new(&self.twin.with(|world| twin::machine::settle(world, host)));
        }
        for (index, host) in config.hosts.iter_mut().enumerate() {
            let number = u8::try_from(index + 101).unwrap_or(u8::MAX);
            let private_address = host.private_address().unwrap_or(Ipv4Addr::new(198, 51, 100, number));
            let outside = host.address.parse().unwrap_or(Ipv4Addr::new(203, 0, 113, number));
            let settled = twin::machine::Host {
                name: format!("host-{}", index + 1),
                public_address: (!behind_bastion).then_some(outside),
                private_address,
                ssh_port: host.port,
                user: host.user.clone(),
                authorized_key: authorize(&host.key),
                host_key: host.host_key.algorithm(),
            };
            host.address = if behind_bastion { private_address.to_string() } else { outside.to_string() };
            host.private_address = Some(private_address);
            host.host_key = HostKey::new(&self.twin.with(|world| twin::machine::settle(world, settled)));
        }
        self.set_files(&config, keys);
        (self, config)
    }

    /// An image of somebody's own exists in the world too, in the one subscription that it has.
    fn publish_image_of(&self, config: &mut Config) {
        let Image::Gallery { definition, version } = &mut config.azure.vm_image else { return };
        let place = definition.splitn(4, '/').nth(3).unwrap_or_default();
        *definition = format!("/subscriptions/{}/{place}", twin::azure::SUBSCRIPTION);
        let architecture = Architecture::of_size(&config.vm_sizing.controller.size).name();
        let version = version.as_deref().unwrap_or("1.0.0");
        self.twin.with(|world| {
            twin::azure::publish_image(world, definition, version, architecture, &config.azure.location);
        });
    }

    fn on(twin: Twin, seed: u64, chance: u64) -> Self {
        let ca = twin.with(|world| world.azure.ca_pem());
        let roots = Roots::PublicAnd(CertificateDer::from_pem_slice(ca.as_bytes()).into_iter().collect());
        let network = Arc::new(Severable::new(Arc::new(TwinNetwork(twin.clone()))));
        let world = World {
            network: network.clone(),
            clock: Arc::new(TwinClock(twin.clone())),
            random: Arc::new(Mutex::new(ChaCha8Rng::seed_from_u64(chance))),
            roots,
            proxy: Proxy::default(),
            files: Arc::new(Disk),
            keyring: Arc::new(NoKeyring),
        };
        Self { twin, world, network, seed }
    }

    /// Settings for a session in `home` on this stage.
    pub fn settings(&self, home: &Path, until: Phase) -> Settings {
        Settings {
            home: home.to_owned(),
            world: self.world.clone(),
            endpoints: Endpoints::default(),
            credentials: credentials(),
            world_name: "a rehearsal".to_owned(),
            holder: Holder {
                user: "rehearsal".to_owned(),
                host: "twin".to_owned(),
                pid: std::process::id(),
                command: String::new(),
                since: self.world.clock.utc(),
            },
            owner: "rehearsal".to_owned(),
            own_address: Some("203.0.113.7/32".to_owned()),
            durability: Durability::Process,
            force_regenerate: None,
            with_children: false,
            abandon_children: false,
            protect: None,
            repair: deploy::deployment::Repair::default(),
            until,
        }
    }
}

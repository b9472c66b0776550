//! Real hosts: systemd, cloud-init, sshd and WireGuard of a real Debian, in a world that `tests/real-hosts/run.sh` makes.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use deploy::{
    cloud_init,
    config::{self, Config},
    keys::ClusterKeys,
    mesh::Mesh,
    seam::World,
    ssh::{Output, Remote, SshError, Target},
    topology::{ClusterId, Node, Topology, topology},
};
use engine::pause;
use fs_err as fs;

/// How long a host may take from power to the end of cloud-init: seconds, on a machine that is busy with other things.
pub const BOOT_PATIENCE: Duration = Duration::from_secs(90);

/// A cluster on paper: what the product makes of a configuration before it touches anything.
pub struct Paper {
    /// The configuration.
    pub config: Config,
    /// Its machines.
    pub topology: Topology,
    /// Its keys.
    pub keys: ClusterKeys,
}

impl Paper {
    /// A cluster of so many machines.
    pub fn new(controllers: u8, workers: u8) -> Self {
        let text = format!("cluster:\n  controllers: {{count: {controllers}}}\n  workers: {{count: {workers}}}\n");
        let config = config::load(&text).expect("a good configuration").config;
        let cluster = ClusterId::parse("k0rdent-hosts001").expect("a cluster's name");
        Self { topology: topology(&config, &cluster), keys: ClusterKeys::new(cluster, [7; 32]), config }
    }

    /// A machine's place in the cluster.
    pub fn node(&self, position: usize) -> &Node {
        &self.topology.nodes[position]
    }

    /// The document that the product gives to a machine.
    pub fn document(&self, position: usize) -> String {
        let node = self.node(position);
        cloud_init::document(&self.config, &self.topology, &self.keys, Mesh::Wireguard, node).expose().to_owned()
    }

    /// How the product reaches a machine at an address.
    pub fn target(&self, position: usize, address: impl ToString) -> Target {
        let node = self.node(position);
        Target {
            node: node.name.clone(),
            host: address.to_string(),
            port: 22,
            user: self.config.ssh.username.clone(),
            identity: self.keys.ssh_user().into(),
            host_key: self.keys.ssh_host(&node.name).public_key().clone(),
            patience: self.config.timeouts.ssh(),
        }
    }
}

/// A host that was switched on. It goes when nobody has it any more.
pub struct Host {
    /// Its address.
    pub address: Ipv4Addr,
    /// How the product logs in.
    pub target: Target,
    /// The product's way to it.
    pub remote: Remote,
    console: PathBuf,
    /// The host ends when this process's standard input does.
    _process: Child,
}

/// The directory that `tests/real-hosts/install.sh` has filled.
#[expect(clippy::disallowed_methods, reason = "the scripts say where the hosts are")]
fn directory() -> PathBuf {
    std::env::var_os("REAL_HOSTS").expect("these tests are run by `cargo xtask real-hosts`").into()
}

impl Host {
    /// Switches a host on that gets the product's document for this machine.
    pub fn start(paper: &Paper, position: usize) -> Self {
        Self::start_with(paper, position, &paper.document(position))
    }

    /// Switches a host on that gets this document.
    pub fn start_with(paper: &Paper, position: usize, document: &str) -> Self {
        // A real k0s unpacks itself.
        let disk = if real_k0s().is_some() { "6g" } else { "256m" };
        Self::start_sized(paper, position, document, disk)
    }

    /// Switches a host on that has a disk of this size, `3g`.
    pub fn start_sized(paper: &Paper, position: usize, document: &str, disk: &str) -> Self {
        // Each test has hosts of its own, so that none has to wait for another.
        static NEXT: AtomicU8 = AtomicU8::new(11);
        let address = Ipv4Addr::new(198, 51, 100, NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("{}-{}", paper.node(position).name, address.octets()[3]);
        let file = |ending: &str| directory().join(format!("run/{name}.{ending}"));
        let (user_data, console) = (file("yaml"), file("console"));
        fs::write(&user_data, document).expect("the user data");
        let output = fs::File::create(&console).expect("a console").into_parts().0;
        let target = paper.target(position, address);
        let process = script("host.sh")
            .args([name.as_ref(), address.to_string().as_ref(), user_data.as_os_str(), disk.as_ref()])
            .stdin(Stdio::piped())
            .stderr(output.try_clone().expect("a console"))
            .stdout(output)
            .spawn()
            .expect("a host");
        let remote = Remote::new(World::real().expect("this machine"), target.clone());
        Self { address, target, remote, console, _process: process }
    }

    /// Waits until the host answers as the product wants it, as often as it takes.
    pub async fn answers(&self) {
        let since = tokio::time::Instant::now();
        while let Err(error) = self.remote.connect().await {
            assert!(since.elapsed() < BOOT_PATIENCE, "{error}\n{}", self.console());
            pause(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the host is up and cloud-init is done.
    pub async fn ready(&self) {
        self.answers().await;
        let status = self.remote.try_run("cloud-init status --wait", None, BOOT_PATIENCE).await.expect("a status");
        assert_eq!(status.code, 0, "{}{}\n{}", status.stdout, status.stderr, self.console());
    }

    /// Runs a command; any exit code is an answer.
    pub async fn run(&self, command: &str) -> Output {
        self.remote.try_run(command, None, Duration::from_secs(60)).await.expect(command)
    }

    /// Runs a command that must succeed.
    pub async fn ok(&self, command: &str) -> String {
        self.remote.run(command).await.expect(command)
    }

    /// Asks until the command prints this line.
    pub async fn until(&self, command: &str, line: &str) {
        self.until_within(command, line, Duration::from_secs(30)).await;
    }

    /// [`Host::until`], with patience.
    pub async fn until_within(&self, command: &str, line: &str, patience: Duration) {
        let since = tokio::time::Instant::now();
        loop {
            let output = self.run(command).await;
            if output.stdout.trim() == line {
                return;
            }
            assert!(since.elapsed() < patience, "{command}: {output:?}");
            pause(Duration::from_millis(200)).await;
        }
    }

    /// Boots the host again, and waits until it is up.
    pub async fn reboot(&self) {
        let boot = "cat /proc/sys/kernel/random/boot_id";
        let before = self.ok(boot).await;
        let said = self.remote.run_once("sudo systemctl reboot", Duration::from_secs(20)).await;
        assert!(!matches!(said, Err(SshError::HostKey { .. } | SshError::Login { .. })), "{said:?}");
        self.remote.disconnect().await;
        while self.remote.run_once(boot, Duration::from_secs(5)).await.is_ok_and(|output| output.stdout == before) {
            self.remote.disconnect().await;
            pause(Duration::from_millis(200)).await;
        }
        self.remote.disconnect().await;
        self.ready().await;
        assert_ne!(self.ok(boot).await, before);
    }

    /// Sets the clock by so much (`-2h`) for those who log in and for services that start from now on. The kernel has one
    /// clock for all hosts, so this is libfaketime's work: programs written in Go, what sudo starts, and sshd do not notice.
    pub async fn set_clock(&self, offset: &str) {
        let variables = format!("LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1) FAKETIME={offset}");
        self.ok(&format!("printf '%s\\n' {variables} | sudo tee -a /etc/environment")).await;
        self.ok(&format!("sudo systemctl set-environment {variables}")).await;
        self.remote.disconnect().await;
    }

    /// Puts the network cable in, or pulls it.
    pub fn plug(&self, on: bool) {
        let interface = format!("host{}", self.address.octets()[3]);
        let state = if on { "up" } else { "down" };
        let done = program("ip").args(["link", "set", &interface, state]).status().expect("ip");
        assert!(done.success(), "{interface} {state}");
    }

    fn console(&self) -> String {
        fs::read_to_string(&self.console).unwrap_or_default()
    }
}

/// The k0s for hosts, as a file: the real one that `K0S_BINARY` names, or what stands in for it, which is built at `stand_in`
/// (`env!("CARGO_BIN_EXE_k0s-stand-in")` in a test), without what only debuggers need.
pub fn k0s_binary(stand_in: &str) -> PathBuf {
    static STRIPPED: OnceLock<PathBuf> = OnceLock::new();
    let strip = || {
        let stripped = directory().join("k0s-stand-in");
        let done = program("strip").arg("-o").args([stripped.as_os_str(), stand_in.as_ref()]).status();
        if done.is_ok_and(|status| status.success()) { stripped } else { stand_in.into() }
    };
    real_k0s().unwrap_or_else(|| STRIPPED.get_or_init(strip).clone())
}

/// The program under test, as a process: the one that `cargo xtask real-hosts` has built.
pub fn k0rdentctl() -> Command {
    program(file_in("K0RDENTCTL").expect("these tests are run by `cargo xtask real-hosts`"))
}

/// What `ip` says about this computer, or does to it: in the world of `run.sh`, that is nobody else's.
pub fn ip(arguments: &[&str]) -> String {
    let output = program("ip").args(arguments).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The release that a k0s binary is, for `software.k0s.version`.
pub fn k0s_version(binary: &Path) -> String {
    let output = program(binary).arg("version").output().expect("k0s");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The real k0s, if somebody has one.
pub fn real_k0s() -> Option<PathBuf> {
    file_in("K0S_BINARY")
}

/// The images of the real k0s, if somebody has them.
pub fn real_images() -> Option<PathBuf> {
    file_in("K0S_AIRGAP_BUNDLE")
}

#[expect(clippy::disallowed_methods, reason = "who runs the tests says where it is")]
fn file_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// One of the scripts beside `run.sh`.
fn script(name: &str) -> Command {
    program(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/real-hosts").join(name))
}

#[expect(clippy::disallowed_methods, reason = "a host is a program that runs, and so is what pulls its cable")]
fn program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(path)
}

/// Lets a test wait for real time: its hosts have no other.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test)
}

//! `provider: ssh` with the program as a process: three hosts become a cluster with k0rdent, whatever happens to the program, and
//! then what they were, file by file.

use std::{
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use deploy::keys::{openssh_private, openssh_public};
use engine::pause;
use fs_err as fs;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use testkit::hosts::{self, Host, Paper, block_on};

/// Every file that somebody might miss, with its type, mode, owner and content. Left out is what a running system writes by itself:
/// the journal, the random seed, timers and what logins leave.
const FILES: &str = "sudo find /etc /home /opt /root /srv /usr/lib/systemd /usr/libexec /usr/local /var/lib -xdev \
    \\( -path /var/lib/systemd -o -path /var/lib/cloud -o -path /var/lib/private \\) -prune -o \
    \\( -printf '%p %y %m %U:%G %l\\n' -a -type f -exec sha256sum {} + \\) | grep -v '^/etc/systemd/system d' | sort";
/// The configuration's file.
const CONFIGURATION: &str = "k0rdent.yaml";
/// What the operator's computer may take for one command, in tries of this length.
const LOOK: Duration = Duration::from_millis(50);
/// How long one command of the program may take.
const PATIENCE: Duration = Duration::from_secs(90);

struct Cluster {
    hosts: Vec<Host>,
    home: tempfile::TempDir,
    before: Vec<String>,
}

impl Cluster {
    /// Three hosts, one of which has another user and another port, and a configuration that names them.
    async fn new() -> Self {
        let paper = Paper::new(1, 2);
        let hosts: Vec<Host> =
            (0..3).map(|position| Host::start_sized(&paper, position, &paper.document(position), "3g")).collect();
        for host in &hosts {
            host.ready().await;
        }
        let ada = "sudo useradd -m -s /bin/bash ada && echo 'ada ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/ada && \
            sudo cp -r .ssh /home/ada/ && sudo chown -R ada:ada /home/ada/.ssh && \
            printf 'Port 22\\nPort 2222\\n' | sudo tee /etc/ssh/sshd_config.d/ports.conf && sudo systemctl restart ssh";
        hosts[2].ok(ada).await;
        let home = tempfile::tempdir().expect("a directory");
        let key = home.path().join("key");
        fs::write(&key, openssh_private(&paper.keys.ssh_user()).expose()).expect("a key");
        let images = home.path().join("images.tar");
        fs::write(&images, "no images").expect("a bundle");
        let binary = hosts::k0s_binary(env!("CARGO_BIN_EXE_k0s-stand-in"));
        let mut text = format!(
            "provider: ssh\nsoftware: {{k0s: {{version: {}, binary: {}, airgap_bundle: {}}}}}\nhosts:\n",
            hosts::k0s_version(&binary),
            binary.display(),
            images.display(),
        );
        for (position, host) in hosts.iter().enumerate() {
            let role = if position == 0 { "controller" } else { "worker" };
            let (user, port) = if position == 2 { ("ada", 2222) } else { ("k0rdent", 22) };
            let host_key = openssh_public(&paper.keys.ssh_host(&paper.node(position).name));
            text += &format!(
                "  - {{role: {role}, address: {}, port: {port}, user: {user}, key: {}, host_key: {host_key}}}\n",
                host.address,
                key.display(),
            );
        }
        fs::write(home.path().join(CONFIGURATION), text).expect("a configuration");
        let mut cluster = Self { hosts, home, before: Vec::new() };
        cluster.before = cluster.files().await;
        cluster
    }

    /// From now on every host is reached by way of the first.
    fn go_through_the_first(&self) {
        let file = self.home.path().join(CONFIGURATION);
        let text = fs::read_to_string(&file).expect("a configuration");
        let first = text.lines().find_map(|line| line.strip_prefix("  - {role: controller, ")).expect("the first");
        fs::write(&file, format!("{text}ssh: {{bastions: [{{{first}]}}\n")).expect("a configuration");
    }

    async fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for host in &self.hosts {
            files.push(host.ok(FILES).await);
        }
        files
    }

    /// Starts the program; what it says is in a file.
    fn start(&self, arguments: &[&str]) -> Child {
        let output = fs::File::create(self.home.path().join("said")).expect("a file").into_parts().0;
        let mut command = hosts::k0rdentctl();
        command.current_dir(self.home.path()).env_clear().args(arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a file")).stderr(output).spawn().expect("the program")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.home.path().join("said")).unwrap_or_default()
    }

    /// Waits for the program; its exit code, if it ends in time.
    async fn wait(child: &mut Child, patience: Duration) -> Option<i32> {
        let since = tokio::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("a status") {
                return Some(status.code().unwrap_or(-1));
            }
            if since.elapsed() >= patience {
                return None;
            }
            pause(LOOK).await;
        }
    }

    /// Runs the program to its end: its exit code, and what it said.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut child = self.start(arguments);
        let code = Self::wait(&mut child, PATIENCE).await;
        (code.unwrap_or_else(|| panic!("{arguments:?}: {}", self.said())), self.said())
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let (code, said) = self.run(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {said}");
        said
    }

    /// Each host is a node once, and there is one Management.
    async fn is_whole(&self) {
        let look = |what: &str| format!("sudo k0s kubectl get --raw={what}");
        let controller = &self.hosts[0];
        let nodes = controller.ok(&look("/api/v1/nodes")).await;
        let named = |name: &str| nodes.matches(&format!("\"kubernetes.io/hostname\":\"{name}\"")).count();
        assert_eq!((named("k0s-worker-1"), named("k0s-worker-2")), (1, 1), "{nodes}");
        let managements = controller.ok(&look("/apis/k0rdent.mirantis.com/v1beta1/managements")).await;
        assert_eq!(managements.matches("\"kind\":\"Management\"").count(), 1, "{managements}");
    }

    async fn is_as_before(&self) {
        for (now, before) in self.files().await.iter().zip(&self.before) {
            let only = |one: &str, other: &str| {
                let other: std::collections::BTreeSet<&str> = other.lines().collect();
                one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!((only(now, before), only(before, now)), Default::default());
        }
    }

    /// What the operator's interface in the mesh would be called.
    fn interface(&self) -> String {
        let (state, _) = deploy::session::recorded(&self.environment()).expect("a journal").expect("records");
        let cluster = deploy::session::cluster_id(&state).expect("a cluster");
        deploy::mesh::Mesh::Wireguard.operator_interface(&cluster)
    }

    fn environment(&self) -> std::path::PathBuf {
        self.home.path().join(".k0rdent")
    }
}

/// What is left in an environment's directory.
fn left(environment: &Path) -> Vec<std::ffi::OsString> {
    let mut left: Vec<_> =
        fs::read_dir(environment).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    left
}

#[test]
fn hosts_become_a_cluster_and_then_what_they_were() {
    block_on(async {
        let cluster = Cluster::new().await;
        // Somebody's k0s, and a port that is in use, are named; nothing is touched.
        cluster.hosts[1].ok("sudo mkdir -p /var/lib/k0s/pki").await;
        let (code, said) = cluster.run(&["check"]).await;
        assert!(code == 3 && said.contains("k0s-worker-1: k0s is there already (/var/lib/k0s)"), "{code} {said}");
        cluster.hosts[1].ok("sudo rm -r /var/lib/k0s").await;
        let said = cluster.ok(&["check"]).await;
        assert!(said.contains("Ready to deploy: 3 machines"), "{said}");
        cluster.is_as_before().await;

        let said = cluster.ok(&["deploy", "-y"]).await;
        assert!(said.contains("on 3 machines"), "{said}");
        cluster.is_whole().await;
        let said = cluster.ok(&["deploy", "-y"]).await;
        assert!(said.contains("nothing to do"), "{said}");
        cluster.ok(&["status", "--check"]).await;
        // Only the name counts: not every kernel that this runs on has WireGuard.
        let interface = cluster.interface();
        hosts::ip(&["link", "add", &interface, "type", "bridge"]);
        let said = cluster.ok(&["reset", "-y", "--force"]).await;
        assert!(said.contains(&format!("the interface {interface} of this computer is taken down")), "{said}");
        assert!(!hosts::ip(&["-brief", "link"]).contains(&interface));
        cluster.is_as_before().await;
        assert_eq!(left(&cluster.environment()), [".gitignore", "README", "old_deployments"]);
    });
}

#[test]
fn a_program_that_is_killed_at_any_instant_finishes_when_it_is_started_again() {
    block_on(async {
        let cluster = Cluster::new().await;
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let commands = [["deploy", "-y"], ["reset", "-y"]];
        let (mut kills, mut command) = (0, 0);
        while kills < 20 {
            let instant = Duration::from_millis(50 + random.next_u64() % 4500);
            let mut child = cluster.start(&commands[command]);
            match Cluster::wait(&mut child, instant).await {
                Some(0) => command = 1 - command,
                Some(code) => panic!("{:?} ended with {code}: {}", commands[command], cluster.said()),
                None => {
                    child.kill().expect("a program");
                    child.wait().expect("its end");
                    println!("killed {:?} after {instant:?}", commands[command]);
                    kills += 1;
                }
            }
        }
        // What was begun is finished first: a deploy does not build on half a teardown.
        cluster.ok(&commands[command]).await;
        cluster.ok(&["deploy", "-y"]).await;
        cluster.is_whole().await;
        cluster.ok(&["reset", "-y"]).await;
        cluster.is_as_before().await;
    });
}

#[test]
fn a_host_that_boots_in_the_middle_of_a_deployment_joins_all_the_same() {
    block_on(async {
        let cluster = Cluster::new().await;
        cluster.go_through_the_first();
        let mut child = cluster.start(&["deploy", "-y"]);
        while !cluster.said().contains("k0s/k0s-worker-1/binary: done") {
            assert_eq!(Cluster::wait(&mut child, LOOK).await, None, "{}", cluster.said());
        }
        cluster.hosts[1].reboot().await;
        let code = Cluster::wait(&mut child, PATIENCE).await;
        assert!(matches!(code, Some(0 | 1)), "{code:?} {}", cluster.said());
        cluster.ok(&["deploy", "-y"]).await;
        cluster.is_whole().await;
        cluster.ok(&["ssh", "k0s-worker-2", "--", "true"]).await;
        cluster.ok(&["reset", "-y"]).await;
        cluster.is_as_before().await;
    });
}

//! A cluster on real hosts, with the product's own documents and commands: k0s under systemd, on its real ports.
//!
//! What runs there stands in for k0s ([`testkit::stand_in`]), unless `K0S_BINARY` names a real one.

use engine::Intent;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use deploy::{
    k0s::{AIRGAP_BUNDLE, API_PORT, BINARY, CONFIG, TOKEN, cluster_config, install_command, unit},
    kubeconfig::Admin,
    kubernetes::{Kubernetes, NODE, node_ready},
    seam::World,
    ssh::Tunnel,
    steps::k0rdent::chart_object,
};
use engine::pause;
use fs_err as fs;
use testkit::hosts::{self, Host, Paper, block_on};

/// How long anything that k0s does may take; a real one takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);
/// Everything that may be left of k0s, and what it may have changed.
const FILES: &str = "sudo find /etc /usr/local /opt /home /root /var/lib/k0s /run/k0s /usr/libexec/k0s -xdev \
    -printf '%p %y %m %U:%G\\n' 2>/dev/null | grep -v '^/etc/systemd/system ' | sort";

async fn put(host: &Host, file: &Path, path: &str, mode: &str) {
    let open = || Ok(Box::new(fs::File::open(file)?) as Box<dyn std::io::Read + Send>);
    host.remote.upload_from(&Intent::for_tests(), path, open, mode, "root", PATIENCE).await.expect(path);
}

/// Hosts with their places in a cluster.
struct Cluster {
    paper: Paper,
    hosts: Vec<Host>,
    /// What was there before k0s.
    before: Vec<String>,
}

impl Cluster {
    /// One controller and so many workers, with the binary.
    async fn new(workers: u8) -> Self {
        let mut paper = Paper::new(1, workers);
        let hosts: Vec<Host> = (0..=usize::from(workers)).map(|position| Host::start(&paper, position)).collect();
        for (node, host) in paper.topology.nodes.iter_mut().zip(&hosts) {
            node.private_address = host.address;
        }
        let binary = hosts::k0s_binary(env!("CARGO_BIN_EXE_k0s-stand-in"));
        let mut before = Vec::new();
        for host in &hosts {
            host.ready().await;
            before.push(host.run(FILES).await.stdout);
            put(host, &binary, BINARY, "0755").await;
            if let Some(images) = hosts::real_images() {
                put(host, &images, AIRGAP_BUNDLE, "0644").await;
            }
        }
        Self { paper, hosts, before }
    }

    fn controller(&self) -> &Host {
        &self.hosts[0]
    }

    /// Runs what the product runs to install k0s on a host.
    async fn install(&self, position: usize, token: Option<&str>) {
        let (node, host) = (self.paper.node(position), &self.hosts[position]);
        if position == 0 {
            let config = cluster_config(&self.paper.config, &self.paper.topology, node);
            host.remote
                .upload(&Intent::for_tests(), CONFIG, config.as_bytes(), "0600", "root")
                .await
                .expect("the configuration");
        }
        if let Some(token) = token {
            host.remote.upload(&Intent::for_tests(), TOKEN, token.as_bytes(), "0600", "root").await.expect("the token");
        }
        let unit = unit(node);
        let install = install_command(node, token.is_some());
        host.ok(&format!("{install} && sudo systemctl daemon-reload && sudo systemctl enable --now {unit}")).await;
    }

    /// The whole cluster, with every node Ready.
    async fn up(workers: u8) -> Self {
        let cluster = Self::new(workers).await;
        cluster.install(0, None).await;
        cluster.api_ready().await;
        let token = cluster.controller().ok(&format!("sudo {BINARY} token create --role=worker --expiry=30m")).await;
        for position in 1..cluster.hosts.len() {
            cluster.install(position, Some(token.trim())).await;
        }
        cluster.nodes(&[true].repeat(usize::from(workers.max(1)))).await;
        cluster
    }

    async fn api_ready(&self) {
        self.controller().until_within(&format!("sudo {BINARY} kubectl get --raw=/readyz"), "ok", PATIENCE).await;
    }

    /// The product's client.
    async fn kubernetes(&self) -> Kubernetes {
        let text = self.controller().ok(&format!("sudo {BINARY} kubeconfig admin")).await;
        let admin = Admin::from_kubeconfig(&text).expect("a kubeconfig");
        let world = World::real().expect("this machine");
        let network =
            Arc::new(Tunnel(Arc::new(deploy::ssh::Remote::new(world.clone(), self.controller().target.clone()))));
        Kubernetes::new(&world, network, "127.0.0.1", &admin).expect("a client")
    }

    /// Waits until each node that runs workloads is as it should be; returns the nodes' identities.
    async fn nodes(&self, ready: &[bool]) -> BTreeMap<String, String> {
        let nodes = self.paper.topology.nodes.iter().filter(|node| node.runs_workloads);
        let wanted: BTreeMap<String, bool> = nodes.map(|node| node.name.clone()).zip(ready.iter().copied()).collect();
        let kubernetes = self.kubernetes().await;
        let since = tokio::time::Instant::now();
        loop {
            let nodes = kubernetes.list(NODE, None).await;
            let seen = nodes.as_ref().map(|nodes| {
                nodes.iter().map(|(name, node)| (name.clone(), node_ready(node))).collect::<BTreeMap<_, _>>()
            });
            if let (Ok(nodes), Ok(seen)) = (&nodes, seen)
                && seen == wanted
            {
                let identities = nodes.iter().map(|(name, node)| (name, node.metadata.uid.clone().unwrap_or_default()));
                return identities.map(|(name, identity)| (name.clone(), identity)).collect();
            }
            assert!(since.elapsed() < PATIENCE, "{wanted:?} {nodes:?}");
            pause(Duration::from_millis(300)).await;
        }
    }

    /// Takes k0s from a host as the product does, and looks for what is left.
    async fn reset(&self, position: usize) {
        let (node, host) = (self.paper.node(position), &self.hosts[position]);
        let running = host.run(&format!("sudo {BINARY} reset")).await;
        assert_ne!(running.code, 0, "a k0s that runs is not reset");
        host.ok(&format!("sudo systemctl stop {}", unit(node))).await;
        host.ok(&format!("sudo {BINARY} reset")).await;
        host.ok(&format!("sudo rm -rf -- {CONFIG} {TOKEN} {BINARY} && sudo rmdir /etc/k0s")).await;
        assert_eq!(host.run(FILES).await.stdout, self.before[position]);
        assert_ne!(host.run(&format!("systemctl is-enabled {}", unit(node))).await.code, 0);
    }
}

#[test]
fn a_cluster_survives_what_happens_to_its_hosts_and_goes_without_a_trace() {
    block_on(async {
        let cluster = Cluster::up(2).await;
        let (controller, worker) = (cluster.controller(), &cluster.hosts[1]);
        let nodes = cluster.nodes(&[true, true]).await;
        // Killed processes come back by systemd (after `RestartSec`), and find what they had.
        for (host, unit) in [(controller, "k0scontroller"), (worker, "k0sworker")] {
            host.ok(&format!("sudo systemctl kill --signal=KILL {unit}")).await;
            host.until(&format!("systemctl show {unit} -p NRestarts,ActiveState --value | xargs"), "1 active").await;
        }
        cluster.api_ready().await;
        assert_eq!(cluster.nodes(&[true, true]).await, nodes);
        // A node whose k0s is gone is not Ready, and comes back as the same.
        worker.ok("sudo systemctl stop k0sworker").await;
        cluster.nodes(&[false, true]).await;
        worker.ok("sudo systemctl start k0sworker").await;
        assert_eq!(cluster.nodes(&[true, true]).await, nodes);
        worker.reboot().await;
        cluster.nodes(&[true, true]).await;
        controller.reboot().await;
        cluster.api_ready().await;
        assert_eq!(cluster.nodes(&[true, true]).await, nodes);
        for position in [2, 1, 0] {
            cluster.reset(position).await;
        }
    });
}

#[test]
fn k0rdent_becomes_ready_and_stays_so() {
    if hosts::real_k0s().is_some() {
        // It needs images and charts, which no host can get.
        return;
    }
    block_on(async {
        let cluster = Cluster::up(1).await;
        let controller = cluster.controller();
        // As everybody does it who has the administrator's kubeconfig.
        for (field, file) in [
            ("certificate-authority-data", "ca.pem"),
            ("client-certificate-data", "client.pem"),
            ("client-key-data", "key.pem"),
        ] {
            let admin = "/var/lib/k0s/pki/admin.conf";
            controller.ok(&format!("sudo sed -n 's/^ *{field}: //p' {admin} | base64 -d > {file}")).await;
        }
        let curl = format!("curl -fsS --cacert ca.pem --cert client.pem --key key.pem https://127.0.0.1:{API_PORT}");
        let chart = chart_object(&cluster.paper.config).to_string();
        controller
            .remote
            .upload(&Intent::for_tests(), "/home/k0rdent/chart.json", chart.as_bytes(), "0600", "k0rdent")
            .await
            .expect("a file");
        let charts = "apis/helm.k0sproject.io/v1beta1/namespaces/kube-system/charts";
        controller.ok(&format!("{curl}/{charts} -H 'Content-Type: application/json' -d @chart.json")).await;
        let management = format!("{curl}/apis/k0rdent.mirantis.com/v1beta1/managements/kcm");
        let ready = format!("{management} | grep -o '\"reason\":\"AllComponentsHealthy\"' || true");
        let wanted = "\"reason\":\"AllComponentsHealthy\"";
        controller.until_within(&ready, wanted, PATIENCE).await;
        controller.ok("sudo systemctl restart k0scontroller").await;
        cluster.api_ready().await;
        // It does not have to become so again, and the port is open when k0s says that it is ready.
        assert!(controller.ok(&management).await.contains(wanted));
    });
}

#[test]
fn a_stranger_is_not_let_in_and_a_second_controller_is_refused() {
    block_on(async {
        let cluster = Cluster::new(1).await;
        cluster.install(0, None).await;
        cluster.api_ready().await;
        let (controller, worker) = (cluster.controller(), &cluster.hosts[1]);
        let token = controller.ok(&format!("sudo {BINARY} token create --role=worker --expiry=30m")).await;
        let listed = controller.ok(&format!("sudo {BINARY} token list")).await;
        let id = listed.lines().nth(1).and_then(|line| line.split_whitespace().next()).expect("a token").to_owned();
        controller.ok(&format!("sudo {BINARY} token invalidate {id}")).await;
        cluster.install(1, Some(token.trim())).await;
        let complaint = "sudo journalctl -u k0sworker | grep -ci unauthorized | sed 's/^[1-9].*/some/'";
        // It says so when it gives up: after ten tries, each after twice as long as the one before (k0s source).
        worker.until_within(complaint, "some", PATIENCE).await;
        assert!(cluster.kubernetes().await.list(NODE, None).await.expect("nodes").is_empty());
        if hosts::real_k0s().is_none() {
            let status = worker.ok(&format!("sudo {BINARY} status -o json")).await;
            assert!(status.contains("\"Role\": \"worker\"") && status.contains("\"Success\": false"), "{status}");
            let token = controller.ok(&format!("sudo {BINARY} token create --role=controller")).await;
            worker.ok("sudo systemctl stop k0sworker").await;
            worker
                .remote
                .upload(&Intent::for_tests(), TOKEN, token.trim().as_bytes(), "0600", "root")
                .await
                .expect("the token");
            let second = worker.run(&format!("sudo {BINARY} controller --token-file={TOKEN}")).await;
            assert!(second.code == 1 && second.stderr.contains("the only controller"), "{second:?}");
        }
    });
}

#[test]
fn a_controller_alone_is_a_node_too() {
    block_on(async {
        let cluster = Cluster::up(0).await;
        let nodes = cluster.nodes(&[true]).await;
        cluster.controller().ok("sudo systemctl restart k0scontroller").await;
        cluster.api_ready().await;
        assert_eq!(cluster.nodes(&[true]).await, nodes);
        cluster.reset(0).await;
    });
}

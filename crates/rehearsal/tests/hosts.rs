//! `provider: ssh`: hosts that exist already, from what they are to a cluster and back to what they were.

mod common;

use std::sync::{Arc, Mutex};

use common::{only_way, show};
use deploy::{
    config::{self, Config},
    recipe::Manner,
    session::{Finished, Session, SessionError, Teardown, Watching},
    task::Phase,
};
use engine::{
    StepId, Stop,
    runner::{FaultInjector, FaultPoint, Injection},
};
use rehearsal::Stage;
use tokio::sync::{Notify, watch};

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJbhYf3pTSCPnbNJqYx9vLTzs7uyHyRR8SOELcDNYiEQ";

fn host(role: &str, number: u8, more: &str) -> String {
    format!(
        "  - {{role: {role}, address: 203.0.113.{number}, private_address: 10.1.0.{number}, user: debian, key: /keys/cluster, host_key: {HOST_KEY}{more}}}\n"
    )
}

/// So many controllers and workers.
fn configuration(controllers: u8, workers: u8) -> String {
    let hosts = (1..=controllers).map(|number| host("controller", number, ""));
    let hosts = hosts.chain((1..=workers).map(|number| host("worker", 100 + number, "")));
    format!("provider: ssh\nhosts:\n{}", hosts.collect::<String>())
}

struct Hosts {
    stage: Stage,
    config: Config,
    home: tempfile::TempDir,
    before: Vec<Vec<String>>,
}

impl Hosts {
    fn new(text: &str, seed: u64) -> Self {
        let config = config::load(text).expect("a good configuration").config;
        let (stage, config) = Stage::new(seed).with_hosts_of(&config);
        let mut hosts = Self { stage, config, home: tempfile::tempdir().expect("a directory"), before: Vec::new() };
        hosts.before = hosts.files();
        hosts
    }

    /// Every file of every host.
    fn files(&self) -> Vec<Vec<String>> {
        let names = (1..=self.config.hosts.len()).map(|number| format!("host-{number}"));
        self.stage.twin.with(|world| names.map(|name| twin::machine::files(world, &name)).collect())
    }

    fn session(&self) -> Session {
        Session::new(self.stage.settings(self.home.path(), Phase::K0rdent))
    }

    async fn deploy(&self) -> Result<Finished, SessionError> {
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = Watching { stop, listener: &show, faults: None };
        self.session().deploy(&config::render(&self.config), &self.config, watching).await
    }

    async fn reset(&self, manner: Manner) -> Result<Finished, SessionError> {
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = Watching { stop, listener: &show, faults: None };
        self.session().reset(&Teardown { manner, ..Teardown::default() }, watching).await
    }

    async fn findings(&self) -> Vec<String> {
        let findings = self.session().examine(&self.config).await.expect("a look");
        findings.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_become_a_cluster_and_then_what_they_were() {
    let hosts = Hosts::new(&configuration(1, 2), 3);
    assert_eq!(hosts.findings().await, [] as [String; 0]);
    let finished = hosts.deploy().await.expect("a deployment");
    assert_eq!(finished.status.phase, "k0rdent_deployed");
    let nodes: Vec<_> = finished.status.nodes.iter().map(|node| (node.name.as_str(), node.state)).collect();
    assert_eq!(nodes, [("k0s-controller-1", "joined"), ("k0s-worker-1", "joined"), ("k0s-worker-2", "joined")]);
    assert_ne!(hosts.files(), hosts.before);

    let again = hosts.deploy().await.expect("a second deployment");
    assert_eq!(again.steps_run, 0);
    assert_eq!(hosts.session().check().await.expect("a look").differences, []);

    hosts.reset(Manner::Orderly).await.expect("a teardown");
    assert_eq!(hosts.files(), hosts.before);
}

#[tokio::test(start_paused = true)]
async fn hosts_behind_a_proxy_are_examined_used_and_given_back() {
    let text = configuration(1, 1)
        + "proxy: {http: 'http://proxy.example:3128', https: 'http://ada:hunter2@proxy.example:3128'}\n";
    let mut hosts = Hosts::new(&text, 13);
    // Somebody else's, beside ours.
    let other = "/etc/systemd/system/k0sworker.service.d/limits.conf";
    hosts.stage.twin.with(|world| twin::machine::write_file(world, "host-2", other, "[Service]\n"));
    hosts.before = hosts.files();
    let found = hosts.findings().await;
    assert_eq!(found.len(), 6, "{found:?}");
    let said = "https://quay.io/v2/ cannot be reached from there: curl: (5) Could not resolve proxy: proxy.example";
    assert!(found[1].ends_with(said), "{found:?}");
    hosts.stage.twin.with(|world| world.machines_proxy = Some(only_way("hunter2")));
    assert_eq!(hosts.findings().await, [] as [String; 0]);
    hosts.deploy().await.expect("a deployment");
    let drop_in = "/etc/systemd/system/k0scontroller.service.d/k0rdentctl-proxy.env";
    assert!(hosts.files()[0].iter().any(|file| file.contains(drop_in)), "{:?}", hosts.files()[0]);
    assert_eq!(hosts.deploy().await.expect("nothing to do").steps_run, 0);
    hosts.reset(Manner::Orderly).await.expect("a teardown");
    assert_eq!(hosts.files(), hosts.before);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_not_fit_are_all_named_at_once_and_nothing_is_touched() {
    let hosts = Hosts::new(&configuration(1, 5), 4);
    hosts.stage.twin.with(|world| {
        let mut write = |name: &str, path: &str, content: &str| twin::machine::write_file(world, name, path, content);
        write("host-1", "/proc/meminfo", "MemTotal:         524288 kB\n");
        write("host-1", "/proc/net/tcp6", "   1: 00000000:192B 00000000:0000 0A 0:0 0:0 0 0 0 1 1\n");
        write("host-2", "/var/lib/k0s/pki/ca.crt", "somebody's");
        write("host-3", "/etc/machine-id", "0a0100650000000000000000000000aa\n");
        write("host-4", "/etc/machine-id", "0a0100650000000000000000000000aa\n");
        twin::machine::set_clock(world, "host-5", -90);
        twin::machine::forbid_sudo(world, "host-6", "debian");
    });
    let found = hosts.findings().await;
    insta::assert_snapshot!(found.join("\n"), @"
    k0s-controller-1: it has 512 MB of memory; k0s needs 1000
    k0s-controller-1: somebody listens on port 6443 already, which k0s needs
    k0s-worker-1: k0s is there already (/var/lib/k0s), and not ours; `k0s reset` removes it
    k0s-worker-5: its user may not use sudo without a password: sudo: a password is required
    k0s-worker-3: it has the same /etc/machine-id as k0s-worker-2; give it its own: `systemd-machine-id-setup`
    k0s-worker-4: its clock is 90 s behind that of k0s-controller-1
    ");
    let before = hosts.files();
    let refused = hosts.deploy().await.expect_err("a refusal");
    let text = refused.to_string();
    for finding in found.iter().filter(|finding| !finding.contains("this computer")) {
        assert!(text.contains(finding), "{text}");
    }
    assert_eq!(hosts.files(), before);
}

#[tokio::test(start_paused = true)]
async fn a_host_of_another_cluster_is_left_alone() {
    let mut hosts = Hosts::new(&configuration(1, 1), 5);
    hosts.deploy().await.expect("a deployment");
    let before = hosts.files();
    let own_home = std::mem::replace(&mut hosts.home, tempfile::tempdir().expect("a directory"));
    let refused = hosts.deploy().await.expect_err("a refusal").to_string();
    assert!(refused.contains("k0s-worker-1: it belongs to the cluster k0rdent-"), "{refused}");
    // Nor does the teardown of what never began touch it.
    hosts.reset(Manner::Force).await.expect("nothing to do");
    assert_eq!(hosts.files(), before);
    hosts.home = own_home;
    hosts.reset(Manner::Orderly).await.expect("a teardown");
    assert_eq!(hosts.files(), hosts.before);
}

#[tokio::test(start_paused = true)]
async fn hosts_come_and_go_at_the_end_of_the_list() {
    let mut hosts = Hosts::new(&configuration(1, 3), 6);
    let all = hosts.config.clone();
    hosts.config.hosts.truncate(3);
    hosts.config = config::load(&config::render(&counted(&hosts.config))).expect("a configuration").config;
    hosts.deploy().await.expect("two workers");
    hosts.config = all.clone();
    let grown = hosts.deploy().await.expect("three workers");
    assert_eq!(grown.status.nodes.len(), 4);
    let third = hosts.files().pop();
    hosts.config = counted(&Config { hosts: all.hosts[..3].to_vec(), ..all.clone() });
    let shrunk = hosts.deploy().await.expect("two workers");
    assert_eq!(shrunk.status.nodes.len(), 3);
    hosts.config = all.clone();
    let files = hosts.files();
    assert_ne!(files.last(), third.as_ref());
    assert_eq!(files.last(), hosts.before.last());
    hosts.config = counted(&Config { hosts: [&all.hosts[..2], &all.hosts[3..]].concat(), ..all.clone() });
    let refused = hosts.deploy().await.expect_err("a refusal").to_string();
    assert!(refused.contains("k0s-worker-2 cannot move from 203.0.113.102:22 to 203.0.113.103:22"), "{refused}");
    hosts.config = counted(&Config { hosts: all.hosts[..3].to_vec(), ..all });
    hosts.reset(Manner::Orderly).await.expect("a teardown");
}

/// The same with the counts that belong to its hosts.
fn counted(config: &Config) -> Config {
    let mut config = config.clone();
    config.cluster.workers.count = u16::try_from(config.hosts.len() - 1).expect("few hosts");
    config
}

#[tokio::test(start_paused = true)]
async fn users_ports_and_bastions_may_differ() {
    let bastion = |number: u8| {
        format!(
            "    - {{address: 203.0.113.{number}, port: 2200, user: jump, key: /keys/jump, host_key: {HOST_KEY}}}\n"
        )
    };
    let text = format!(
        "provider: ssh\nssh:\n  bastions:\n{}{}hosts:\n{}  - {{role: worker, address: w.example.org, private_address: 10.1.0.102, port: 2222, user: ada, key: ~/.ssh/ada, host_key: {HOST_KEY}}}\n",
        bastion(250),
        bastion(251),
        host("controller", 1, ", port: 22022"),
    );
    let hosts = Hosts::new(&text, 7);
    let finished = hosts.deploy().await.expect("a deployment");
    assert_eq!(finished.status.phase, "k0rdent_deployed");
    let config = fs_err::read_to_string(hosts.home.path().join("ssh/config")).expect("ssh/config");
    for line in ["ProxyJump bastion-1", "ProxyJump bastion-2", "Port 2222", "User ada", "IdentityFile ~/.ssh/ada"] {
        assert!(config.contains(line), "{config}");
    }
    hosts.reset(Manner::Orderly).await.expect("a teardown");
    assert_eq!(hosts.files(), hosts.before);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_left_and_named() {
    let hosts = Hosts::new(&configuration(1, 1), 8);
    hosts.deploy().await.expect("a deployment");
    let silent = twin::Fault { name: twin::FaultKind::SshRefused, target: Some("host-2".to_owned()), times: None };
    hosts.stage.twin.with(|world| world.faults.active.push(silent));
    for manner in [Manner::Fast, Manner::FastNoWait] {
        let refused = hosts.reset(manner).await.expect_err("a refusal").to_string();
        assert_eq!(refused, "hosts that existed before cannot be deleted at once; nothing was touched");
    }
    let left = hosts.reset(Manner::Force).await.expect_err("a host is left");
    let SessionError::Leftovers(remains) = left else { panic!("{left}") };
    let names: Vec<&str> = remains.left.iter().map(|left| left.id.split(':').next().unwrap_or_default()).collect();
    assert_eq!(names, ["k0s-worker-1 (203.0.113.101)"]);
    assert_eq!(hosts.files()[0], hosts.before[0]);
    hosts.stage.twin.with(|world| world.faults.active.clear());
    hosts.reset(Manner::Force).await.expect("the rest");
    assert_eq!(hosts.files(), hosts.before);
}

/// What is done to the program at a step.
const TROUBLES: [(FaultPoint, Injection); 5] = [
    (FaultPoint::Start, Injection::Fail),
    (FaultPoint::BeforeEffect, Injection::Hang),
    (FaultPoint::AfterEffect, Injection::Hang),
    (FaultPoint::BeforeRecord, Injection::Hang),
    (FaultPoint::AfterRecord, Injection::Hang),
];

impl Hosts {
    /// Runs one command, and lets the world decide at each place; answers how it ended, or nothing if it was killed.
    async fn run(
        &self,
        is_reset: bool,
        faults: FaultInjector,
        killed: &Notify,
    ) -> Option<Result<Finished, SessionError>> {
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = Watching { stop, listener: &show, faults: Some(faults) };
        let (session, text) = (self.session(), config::render(&self.config));
        let teardown = Teardown::default();
        let run = async {
            match is_reset {
                true => session.reset(&teardown, watching).await,
                false => session.deploy(&text, &self.config, watching).await,
            }
        };
        tokio::select! {
            biased;
            () = killed.notified() => None,
            ended = run => Some(ended),
        }
    }

    /// Runs one command in which this trouble strikes; a program that hangs is killed, with its connections.
    async fn run_in_trouble(&mut self, is_reset: bool, step: &StepId, trouble: (FaultPoint, Injection)) {
        let (killed, target, (point, what)) = (Arc::new(Notify::new()), step.clone(), trouble);
        let notify = Arc::clone(&killed);
        let faults: FaultInjector = Arc::new(move |reached, step| {
            if reached != point || *step != target {
                return Injection::None;
            }
            if what == Injection::Hang {
                notify.notify_one();
            }
            what
        });
        let ended = self.run(is_reset, faults, &killed).await;
        match (what, ended) {
            (Injection::Hang, None) => {}
            (Injection::Fail, Some(Err(error))) => {
                assert!(error.to_string().contains("injected failure"), "{step} {trouble:?}: {error}");
            }
            (_, ended) => panic!("{step} {trouble:?} never struck: {ended:?}"),
        }
        self.stage.network.sever();
        self.stage = self.stage.again(7);
    }

    /// The places that one command passes, in order.
    async fn places(&self, is_reset: bool) -> Vec<(FaultPoint, StepId)> {
        let passed = Arc::new(Mutex::new(Vec::new()));
        let places = Arc::clone(&passed);
        let faults: FaultInjector = Arc::new(move |point, step| {
            let (mut places, place) = (places.lock().expect("one thread"), (point, step.clone()));
            if !places.contains(&place) {
                places.push(place);
            }
            Injection::None
        });
        self.run(is_reset, faults, &Notify::new()).await.expect("nobody kills it").expect("nothing in the way");
        passed.lock().expect("one thread").clone()
    }
}

async fn every_step_in_trouble(is_reset: bool) {
    let calm = Hosts::new(&configuration(1, 1), 9);
    if is_reset {
        calm.deploy().await.expect("a deployment");
    }
    let places = calm.places(is_reset).await;
    let steps = places.iter().filter(|(point, _)| *point == FaultPoint::Start).count();
    let mut cells = 0;
    for (point, step) in &places {
        let Some(trouble) = TROUBLES.iter().copied().find(|(at, _)| at == point) else { continue };
        cells += 1;
        let mut hosts = Hosts::new(&configuration(1, 1), 9);
        if is_reset {
            hosts.deploy().await.expect("a deployment");
        }
        hosts.run_in_trouble(is_reset, step, trouble).await;
        if !is_reset {
            let finished = hosts.deploy().await.unwrap_or_else(|error| panic!("{step} {trouble:?}: {error}"));
            assert_eq!(finished.status.phase, "k0rdent_deployed", "{step} {trouble:?}");
        }
        match hosts.reset(Manner::Orderly).await {
            // The one in trouble had finished, but for its last word.
            Ok(_) | Err(SessionError::NoCluster(_)) => {}
            Err(error) => panic!("{step} {trouble:?}: {error}"),
        }
        assert_eq!(hosts.files(), hosts.before, "{step} {trouble:?}");
    }
    // Each step fails, is killed when it holds and when that is recorded, and around its effects if it has any.
    assert!(cells >= 3 * steps, "{cells} cells of {steps} steps");
    println!("{steps} steps, {cells} places of trouble");
}

#[tokio::test(start_paused = true)]
async fn a_deployment_on_hosts_survives_every_trouble_at_every_step() {
    every_step_in_trouble(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_hosts_survives_every_trouble_at_every_step() {
    every_step_in_trouble(true).await;
}

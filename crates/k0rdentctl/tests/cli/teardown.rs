//! Teardowns and leftovers, against a twin in another process.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    environment::{CONFIG, Ran, TestEnvironment},
    twin::Served,
};

/// An environment on a twin, and the way to make that twin difficult.
pub(super) struct Scene {
    pub(super) environment: TestEnvironment,
    _twin: Served,
    admin: String,
}

impl Scene {
    pub(super) fn new() -> Self {
        let environment = TestEnvironment::with_config(CONFIG);
        let (twin, ready) = Served::start(&environment);
        let ready: Value = serde_json::from_str(&ready).expect("its addresses");
        let admin = ready["admin"].as_str().expect("an address").trim_start_matches("http://").to_owned();
        Self { environment, _twin: twin, admin }
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ran {
        self.environment.run(&[&["--twin", "twin"], arguments].concat())
    }

    /// Runs, and hides the cluster's name, which is drawn.
    fn shown(&self, arguments: &[&str], cluster: &str) -> String {
        self.run(arguments).to_string().replace(cluster, "CLUSTER")
    }

    fn deploy(&self) -> String {
        let ran = self.run(&["deploy", "-y", "-q", "--until", "infrastructure"]);
        assert_eq!(ran.code, 0, "{ran}");
        self.cluster()
    }

    pub(super) fn cluster(&self) -> String {
        let status: Value = serde_json::from_str(&self.run(&["status", "--output", "json"]).stdout).expect("JSON");
        status["cluster_id"].as_str().expect("a cluster").to_owned()
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> String {
        let mut stream = TcpStream::connect(&self.admin).expect("a connection");
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}",
            self.admin
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

fn last_object(ran: &Ran) -> Value {
    serde_json::from_str(ran.stdout.lines().last().unwrap_or_default()).expect("an object")
}

#[test]
fn options_that_need_each_other() {
    let environment = TestEnvironment::with_config(CONFIG);
    for wrong in [
        &["reset", "--no-wait"][..],
        &["reset", "--fast", "--force"],
        &["reset", "--cluster-id", "k0rdent-abcd1234"],
        &["reset", "--force", "--cluster-id", "mine"],
    ] {
        assert_eq!(environment.run(wrong).code, 2, "{wrong:?}");
    }
    insta::assert_snapshot!(environment.run(&["reset", "-h"]).stdout, @"
    Delete the cluster and prove that it is gone

    Usage: k0rdentctl reset [OPTIONS]

    Options:
      -y, --yes                   Skip the confirmation
          --force                 Delete whatever is ours, even if nothing works any more: no SSH, no
                                  API server, no records
          --cluster-id <ID>       The cluster, where its records are lost or elsewhere
          --fast                  Delete the resource group in one request; ask the cluster for its
                                  children alone
          --with-children         Delete child clusters with their machines first
          --abandon-children      Leave child clusters behind, or go on where nobody can say whether
                                  there are any
          --no-wait               Return as soon as Azure has accepted the deletion
          --subscription-id <ID>  The Azure subscription, where no records name it [default: as the
                                  configuration or the login says]
      -h, --help                  Print help (see more with '--help')

    Global options:
          --config <FILE>    The configuration [default: ./k0rdent.yaml, then ./config/k0rdent.yaml]
          --home <DIR>       Where the environment's files live [default: ./.k0rdent]
          --output <FORMAT>  How results are printed [default: text] [possible values: text, json]
          --twin <DIR>       Talk to the twin served from this directory instead of Azure
      -v, --verbose...       Verbose output; -vv for everything
      -q, --quiet            Only results, errors, and what is about to be confirmed or deleted
          --color <WHEN>     When to use colours [default: auto] [possible values: auto, always, never]

    Examples:
      k0rdentctl reset
      k0rdentctl reset --fast --no-wait -y
      k0rdentctl reset --force --cluster-id k0rdent-abcd1234
    ");
    insta::assert_snapshot!(environment.run(&["reset", "--force"]), @"
    nothing to reset: there is no cluster in ./.k0rdent
    --- errors
    --- exit code 0
    ");
}

#[test]
fn the_plan_comes_first() {
    let scene = Scene::new();
    let cluster = scene.deploy();
    insta::assert_snapshot!(scene.shown(&["reset"], &cluster), @"
    --- errors
    CLUSTER in subscription 00000000-0000-0000-0000-000000000001 will be deleted:
      will delete  2 network interfaces, 1 network security group, 2 public IPs, 1 resource group, 1 SSH
                   key, 1 virtual network
      saves        about 0.01 USD an hour
      time         about 2 min 7 s, at most 1 h 7 min
      local files  deleted: all in ./.k0rdent except old_deployments
    error: cannot ask for confirmation (no terminal); nothing was touched
    hint: use --yes to go on without a question
    --- exit code 2
    ");
    insta::assert_snapshot!(scene.shown(&["reset", "--force"], &cluster), @"
    --- errors
    CLUSTER in subscription 00000000-0000-0000-0000-000000000001 will be deleted:
      will delete  2 network interfaces, 1 network security group, 2 public IPs, 1 resource group, 1 SSH
                   key, 1 virtual network
      saves        about 0.01 USD an hour
      time         about 2 min 5 s, at most 1 h 5 min
      local files  deleted: all in ./.k0rdent except old_deployments
      skipped      k0rdent and k0s are not uninstalled: they go with their machines
    error: cannot ask for confirmation (no terminal); nothing was touched
    hint: use --yes to go on without a question
    --- exit code 2
    ");
}

/// Puts somebody else's disk into the cluster's resource group: the ids of both.
fn put_stranger(scene: &Scene, cluster: &str) -> (String, String) {
    let group = format!("/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/{cluster}-resgrp");
    let disk = format!("{group}/providers/Microsoft.Compute/disks/photos");
    let body =
        json!({"location": "westus2", "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 32}});
    scene.ask("POST", "/actions", &json!({"action": "put", "path": disk, "body": body}));
    (group, disk)
}

#[test]
fn a_stranger_a_failed_deletion_and_what_is_left() {
    let scene = Scene::new();
    let cluster = scene.deploy();
    let (group, disk) = put_stranger(&scene, &cluster);
    insta::assert_snapshot!(scene.shown(&["reset", "--fast", "-y", "-q"], &cluster), @"
    --- errors
    CLUSTER in subscription 00000000-0000-0000-0000-000000000001 will be deleted:
      will delete     2 network interfaces, 1 network security group, 2 public IPs, 1 SSH key, 1 virtual
                      network
      saves           about 0.01 USD an hour
      time            about 2 min 7 s, at most 1 h 7 min
      local files     deleted: all in ./.k0rdent except old_deployments
      skipped         k0rdent and k0s are not uninstalled: they go with their machines
      not ours, kept  disks/photos in CLUSTER-resgrp
      kept for that   resource group CLUSTER-resgrp
    error: safety check: resource group CLUSTER-resgrp holds what is not ours: disks/photos in CLUSTER-resgrp
    hint: Move or delete what is not ours, then reset again; or delete only what is ours: `k0rdentctl --twin twin reset --force`.
    --- exit code 3
    ");
    let ran = scene.run(&["reset", "--fast", "-y", "--output", "json"]);
    assert_eq!((ran.code, last_object(&ran)["outcome"].as_str()), (3, Some("refused")), "{ran}");
    scene.ask("POST", "/actions", &json!({"action": "delete", "path": disk}));
    let began = Instant::now();
    while scene.ask("GET", "/resources", &Value::Null).contains(&disk) {
        assert!(began.elapsed() < Duration::from_secs(10), "the disk does not go");
    }

    scene.ask("POST", "/faults", &json!({"name": "operation-failure", "target": "resgrp"}));
    let ran = scene.run(&["reset", "--fast", "-y", "--output", "json"]);
    let last = last_object(&ran);
    assert_eq!((ran.code, last["outcome"].as_str()), (5, Some("leftovers")), "{ran}");
    assert!(last["leftovers"].as_array().is_some_and(|left| left.iter().any(|left| left["id"] == group)), "{last}");
    insta::assert_snapshot!(scene.shown(&["leftovers", "--cluster-id", &cluster], &cluster), @"
    CLUSTER           WHAT                                                                   USD AN HOUR
    CLUSTER  resource group CLUSTER-resgrp                                 0.0000
    CLUSTER  sshPublicKeys/CLUSTER-admin in CLUSTER-resgrp        0.0000
    CLUSTER  networkSecurityGroups/CLUSTER-nsg in CLUSTER-resgrp  0.0000
    CLUSTER  publicIPAddresses/k0s-controller-1-pip in CLUSTER-resgrp      0.0050
    CLUSTER  publicIPAddresses/k0s-worker-1-pip in CLUSTER-resgrp          0.0050
    CLUSTER  virtualNetworks/CLUSTER-vnet in CLUSTER-resgrp       0.0000

    6 left of CLUSTER in subscription 00000000-0000-0000-0000-000000000001: about 0.01 USD an hour
    remove: k0rdentctl --twin twin reset --force --cluster-id CLUSTER
    --- errors
    --- exit code 5
    ");
    let ran = scene.run(&["leftovers", "--output", "json"]);
    let found: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &found["leftovers"]), (5, &last["leftovers"]), "{ran}");
    insta::assert_snapshot!(scene.shown(&["reset", "--fast", "-y", "-q"], &cluster), @"
    --- errors
    CLUSTER in subscription 00000000-0000-0000-0000-000000000001 will be deleted:
      will delete  1 network security group, 2 public IPs, 1 resource group, 1 SSH key, 1 virtual
                   network
      saves        about 0.01 USD an hour
      time         about 2 min 7 s, at most 1 h 7 min
      local files  deleted: all in ./.k0rdent except old_deployments
      skipped      k0rdent and k0s are not uninstalled: they go with their machines
    error: resource group CLUSTER-resgrp deleted: resourceGroups/CLUSTER-resgrp: ResourceGroupDeletionBlocked: Deletion of resource group 'CLUSTER-resgrp' failed as resources with identifiers '/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/CLUSTER-resgrp/providers/Microsoft.Compute/sshPublicKeys/CLUSTER-admin' could not be deleted. The provisioning state of the resource group will be rolled back. Please check audit logs for more details.
    6 left, about 0.01 USD an hour
      resource group CLUSTER-resgrp
      sshPublicKeys/CLUSTER-admin in CLUSTER-resgrp
      networkSecurityGroups/CLUSTER-nsg in CLUSTER-resgrp
      publicIPAddresses/k0s-controller-1-pip in CLUSTER-resgrp
      publicIPAddresses/k0s-worker-1-pip in CLUSTER-resgrp
      virtualNetworks/CLUSTER-vnet in CLUSTER-resgrp
    hint: delete what is left: k0rdentctl --twin twin reset --force --cluster-id CLUSTER
    --- exit code 5
    ");

    scene.ask("DELETE", "/faults", &Value::Null);
    let elsewhere = ["--home", "elsewhere", "reset", "--force", "--cluster-id", &cluster, "-y", "-q"];
    let ran = scene.run(&elsewhere);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains(&format!("{cluster} is gone: 0 of ")), "{ran}");
    insta::assert_snapshot!(scene.run(&["leftovers"]), @"
    0 left of any cluster in subscription 00000000-0000-0000-0000-000000000001
    --- errors
    --- exit code 0
    ");
}

/// Times differ from run to run.
fn without_times(text: &str) -> String {
    let is_time = |line: &&str| !["  lived", "  records"].iter().any(|start| line.starts_with(start));
    let text: Vec<&str> = text.lines().filter(is_time).collect();
    let (before, rest) = text.split_first().expect("a headline");
    let before = before.split_once(", 20").map_or((*before).to_owned(), |(before, _)| format!("{before}, TIME)"));
    std::iter::once(before.as_str()).chain(rest.iter().copied()).collect::<Vec<_>>().join("\n")
}

/// Ours goes, theirs stays, and no command says otherwise.
#[test]
fn force_leaves_a_stranger_and_the_group_that_holds_it() {
    let scene = Scene::new();
    let cluster = scene.deploy();
    let (_, disk) = put_stranger(&scene, &cluster);
    insta::assert_snapshot!(without_times(&scene.shown(&["reset", "--force", "-y", "-q"], &cluster)), @"
    CLUSTER is gone, but for resource group CLUSTER-resgrp: 1 of 8 resources left (looked by tag and by name in subscription 00000000-0000-0000-0000-000000000001, TIME)

      kept               resource group CLUSTER-resgrp, because it holds what is not ours: disks/photos in CLUSTER-resgrp
      once that is gone  delete it: k0rdentctl --twin twin reset --force --cluster-id CLUSTER
      skipped            k0rdent and k0s are not uninstalled: they go with their machines
      skipped            resource group CLUSTER-resgrp holds what is not ours: disks/photos in CLUSTER-resgrp
    --- errors
    CLUSTER in subscription 00000000-0000-0000-0000-000000000001 will be deleted:
      will delete     2 network interfaces, 1 network security group, 2 public IPs, 1 SSH key, 1 virtual
                      network
      saves           about 0.01 USD an hour
      time            about 2 min 5 s, at most 1 h 5 min
      local files     deleted: all in ./.k0rdent except old_deployments
      skipped         k0rdent and k0s are not uninstalled: they go with their machines
      not ours, kept  disks/photos in CLUSTER-resgrp
      kept for that   resource group CLUSTER-resgrp
    --- exit code 5
    ");
    insta::assert_snapshot!(scene.shown(&["leftovers"], &cluster), @"
    CLUSTER: remains
      0 machines, 1 resource, about 0.00 USD an hour
      kept: resource group CLUSTER-resgrp, because it holds what is not ours: disks/photos in CLUSTER-resgrp
      once that is gone, remove: k0rdentctl --twin twin reset --force --cluster-id CLUSTER

    looked by tag and by name in subscription 00000000-0000-0000-0000-000000000001
    --- errors
    --- exit code 5
    ");
    insta::assert_snapshot!(scene.shown(&["leftovers", "--cluster-id", &cluster], &cluster), @"
    CLUSTER           WHAT                                    USD AN HOUR
    CLUSTER  resource group CLUSTER-resgrp  0.0000

    1 left of CLUSTER in subscription 00000000-0000-0000-0000-000000000001: about 0.00 USD an hour
    kept: resource group CLUSTER-resgrp, because it holds what is not ours: disks/photos in CLUSTER-resgrp
    once that is gone, remove: k0rdentctl --twin twin reset --force --cluster-id CLUSTER
    --- errors
    --- exit code 5
    ");
    insta::assert_snapshot!(scene.shown(&["status", "--check"], &cluster), @"
    there is no cluster in ./.k0rdent

    next: k0rdentctl --twin twin deploy
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(scene.shown(&["reset"], &cluster), @"
    nothing to reset: there is no cluster in ./.k0rdent
    --- errors
    --- exit code 0
    ");
    let ran = scene.run(&["reset", "--force", "--cluster-id", &cluster, "-y", "--output", "json"]);
    let last = last_object(&ran);
    assert_eq!((ran.code, &last["leftovers"][0]["held_by"]), (5, &json!([disk])), "{ran}");
    let found: Value = serde_json::from_str(&scene.run(&["leftovers", "--output", "json"]).stdout).expect("JSON");
    assert_eq!(found["leftovers"], last["leftovers"]);
    scene.ask("POST", "/actions", &json!({"action": "delete", "path": disk}));
    let began = Instant::now();
    while scene.ask("GET", "/resources", &Value::Null).contains(&disk) {
        assert!(began.elapsed() < Duration::from_secs(10), "the disk does not go");
    }
    assert_eq!(scene.run(&["reset", "--force", "--cluster-id", &cluster, "-y"]).code, 0);
    assert_eq!(scene.run(&["leftovers"]).code, 0);
}

#[test]
fn nobody_waits() {
    let scene = Scene::new();
    let cluster = scene.deploy();
    let began = Instant::now();
    let shown = scene.shown(&["reset", "--fast", "--no-wait", "-y", "-q"], &cluster);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    insta::assert_snapshot!(shown, @"
    CLUSTER: Azure has accepted the deletion and finishes it in the background

      progress  k0rdentctl --twin twin status --check
      verify    k0rdentctl --twin twin reset
    --- errors
    CLUSTER in subscription 00000000-0000-0000-0000-000000000001 will be deleted:
      will delete  2 network interfaces, 1 network security group, 2 public IPs, 1 resource group, 1 SSH
                   key, 1 virtual network
      saves        about 0.01 USD an hour
      time         about 4 s, at most 6 min
      waiting      none; Azure finishes in the background
      skipped      k0rdent and k0s are not uninstalled: they go with their machines
    --- exit code 0
    ");
    let status: Value = serde_json::from_str(&scene.run(&["status", "--output", "json"]).stdout).expect("JSON");
    assert_eq!((&status["phase"], &status["next"]), (&json!("deleting"), &json!("k0rdentctl reset")));
    let check = scene.run(&["status", "--check", "--output", "json"]);
    let deletion: Value = serde_json::from_str(&check.stdout).expect("JSON");
    assert!(["under-way", "done"].contains(&deletion["deletion"]["state"].as_str().unwrap_or_default()), "{check}");
    assert_ne!(scene.deploy(), cluster, "another cluster, once the old one is gone");
    let ran = scene.run(&["reset", "-y"]);
    assert_eq!(ran.code, 0, "{ran}");
}

//! Commands that look and touch nothing.

use engine::Event;
use time::macros::datetime;

use super::environment::{CONFIG, TestEnvironment};

#[test]
fn an_empty_environment() {
    let environment = TestEnvironment::with_config(CONFIG);
    insta::assert_snapshot!(environment.run(&["status"]), @"
    there is no cluster in ./.k0rdent

    next: k0rdentctl deploy
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["--home", "my home", "status"]).stdout, @"
    there is no cluster in my home

    next: k0rdentctl --home 'my home' deploy
    ");
    insta::assert_snapshot!(environment.run(&["events"]), @"
    --- errors
    no events: there is no cluster in ./.k0rdent
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["kubeconfig"]), @"
    --- errors
    error: there is no cluster in ./.k0rdent
    hint: make one: k0rdentctl deploy
    --- exit code 2
    ");
    insta::assert_snapshot!(environment.run(&["ssh", "k0s-worker-1"]), @"
    --- errors
    error: there is no cluster in ./.k0rdent
    hint: make one: k0rdentctl deploy
    --- exit code 2
    ");
    insta::assert_snapshot!(environment.run(&["exec", "--", "true"]), @"
    --- errors
    error: there is no cluster in ./.k0rdent
    hint: make one: k0rdentctl deploy
    --- exit code 2
    ");
    assert!(!environment.home().exists());
}

#[test]
fn the_status_for_programs() {
    let ran = TestEnvironment::new().run(&["status", "--output", "json"]);
    assert_eq!(ran.code, 0);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&status["format_version"], &status["phase"]), (&1.into(), &"none".into()));
    assert_eq!(status["phases"].as_array().map(Vec::len), Some(6));
}

#[test]
fn a_plan_needs_no_login_before_there_is_a_cluster() {
    let environment = TestEnvironment::with_config(CONFIG);
    insta::assert_snapshot!(environment.run(&["plan"]), @"
    A new k0rdent management cluster (deploy assigns its name)
      where      Azure westus2, the subscription of whoever deploys
      machines   1 controller   Standard_B2s, zone 1
                 1 worker       Standard_B2s, zone 1
      software   k0s v1.33.2+k0s.0, k0rdent 1.1.1
      open       UDP port (WireGuard mesh) from anywhere; TCP 22 (SSH) from the address of whoever
                 deploys; nothing else
      cost       about 0.12 USD an hour, 88 USD a month (list prices of East US, without traffic)
      time       about 10 min 43 s; 149 reads, 10 writes in Azure

    Changes
      + 2 virtual machines: k0s-controller-1, k0s-worker-1
      + resource group, SSH key, network security group, virtual network, 2 public IPs, 2 network
        interfaces, 2 disks, 2 Kubernetes nodes, k0rdent chart 1.1.1, k0rdent Management

    16 to create (32 steps)

    Run it: k0rdentctl deploy
    --- errors
    --- exit code 0
    ");
    let ran = environment.run(&["plan", "--output", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&plan["cluster_id"], &plan["requests"]["writes"]), (&serde_json::Value::Null, &10.into()));
    assert!(ran.stdout.starts_with("{\n  \"format_version\": 1,"), "{ran}");
    assert!(!environment.home().exists());
}

#[test]
fn a_run_that_was_killed() {
    let environment = TestEnvironment::with_config(CONFIG);
    drop(environment.take_journal());
    let mut ran = environment.run(&["status"]);
    // How old the records are depends on when the test runs.
    let recorded = ran.stdout.lines().find(|line| line.starts_with("recorded  08:00 UTC, ")).map(str::to_owned);
    let recorded = recorded.expect("how old the records are");
    assert!(recorded.ends_with("; compare: k0rdentctl status --check"), "{recorded}");
    ran.stdout = ran.stdout.replace(&format!("{recorded}\n"), "");
    insta::assert_snapshot!(ran, @"
    cluster   k0rdent-abcd1234
    phase     none
    last run  deploy by ada@desk, 2027-01-04 08:00:00 UTC, killed

    PHASE           STATUS   STARTED (UTC)  TOOK
    prepare         pending  -              -
    infrastructure  pending  -              -
    machines        pending  -              -
    mesh            pending  -              -
    k0s             pending  -              -
    k0rdent         pending  -              -

    next: k0rdentctl deploy
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["events"]), @"
    2027-01-04 08:00:00  deploy by ada@desk
    2027-01-04 08:00:00  the cluster is k0rdent-abcd1234
    --- errors
    --- exit code 0
    ");
}

#[test]
fn events_are_followed_until_the_run_ends() {
    let environment = TestEnvironment::new();
    let journal = environment.take_journal();
    let mut follower = environment
        .command(&["events", "--follow", "--output", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().expect("its output")));
    let mut next = || lines.next().and_then(Result::ok).unwrap_or_default();
    assert!(next().contains(r#""event":"run-started""#));
    assert!(next().contains(r#""key":"cluster_id""#));
    let note = Event::Noted { step: engine::StepId::new("a/b"), text: "seen".into() };
    journal.append(datetime!(2027-01-04 08:01 UTC), note).expect("an event");
    insta::assert_snapshot!(next(), @r#"{"at":"2027-01-04T08:01:00Z","event":"noted","format_version":1,"run":1,"sequence":3,"step":"a/b","text":"seen"}"#);
    drop(journal);
    assert_eq!(next(), "");
    assert!(follower.wait().expect("the program ends").success());
}

#[test]
fn what_a_terminal_would_obey_in_words_of_others_is_shown() {
    let environment = TestEnvironment::new();
    let journal = environment.take_journal();
    let body =
        serde_json::json!({"error": {"code": "Conflict", "message": "busy\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}1A"}});
    let cloud = deploy::azure::ArmError::from_response(409, &body, "/subscriptions/s/resourceGroups/g");
    let remote = deploy::ssh::SshError::Command {
        machine: "192.0.2.7".into(),
        command: "true".into(),
        code: 1,
        output: "fine\r\u{1b}[1A\u{1b}[31mdone".into(),
    };
    let failures =
        [("infrastructure/resource-group", cloud.to_string()), ("machines/k0s-worker-1/ready", remote.to_string())];
    for (step, message) in failures {
        let (step, failure) = (engine::StepId::new(step), engine::Failure::new(message));
        journal.append(datetime!(2027-01-04 08:01 UTC), Event::StepFailed { step, failure }).expect("an event");
    }
    drop(journal);
    for arguments in [&["events"][..], &["--color", "always", "events"], &["events", "--output", "json"]] {
        let ran = environment.run(arguments);
        assert!(ran.stdout.contains(r"busy\u001b[2J\u001b]0;owned\u0007\u009b1A"), "{}", ran.stdout);
        let left = ran.stdout.replace("\u{1b}[", "").matches(['\u{1b}', '\r', '\u{7}', '\u{9b}']).count();
        assert_eq!(left, 0, "{:?}", ran.stdout);
        assert!(!ran.stdout.contains("\u{1b}[2J") && !ran.stdout.contains("\u{1b}[1A"), "{:?}", ran.stdout);
    }
    insta::assert_snapshot!(environment.run(&["events"]).stdout, @r#"
    2027-01-04 08:00:00  deploy by ada@desk
    2027-01-04 08:00:00  the cluster is k0rdent-abcd1234
    2027-01-04 08:01:00  infrastructure/resource-group: failed: resourceGroups/g: Conflict: busy\u001b[2J\u001b]0;owned\u0007\u009b1A
    2027-01-04 08:01:00  machines/k0s-worker-1/ready: failed: 192.0.2.7: `true` ended with exit code 1: fine\u000d\u001b[1A\u001b[31mdone
    "#);
}

/// Whoever comes from elsewhere is told before anything is touched, and before anybody is asked to log in.
#[test]
fn who_is_not_let_in_is_told_first() {
    let text = "azure: {ssh_allowed_from: [198.51.100.0/24, 203.0.113.9/32]}\n";
    let environment = TestEnvironment::with_config(text);
    let first_line = |address: &'static str, command: &[&str]| {
        let environment = TestEnvironment::with_config(text).variable("K0RDENT_OPERATOR_ADDRESS", address);
        environment.run(command).stderr.lines().next().unwrap_or_default().to_owned()
    };
    for command in [&["plan"][..], &["deploy", "-y"], &["check"]] {
        assert_eq!(
            first_line("192.0.2.7", command),
            "warning: you come from 192.0.2.7/32, and azure.ssh_allowed_from opens SSH to 198.51.100.0/24, 203.0.113.9/32 alone: from here, no machine will answer"
        );
        assert!(!first_line("198.51.100.7", command).contains("no machine will answer"));
    }
    let (_twin, _) = super::twin::Served::start(&environment);
    let check = environment.run(&["--twin", "twin", "check"]);
    assert!(check.code == 0 && check.stderr.contains("you come from 127.0.0.1/32"), "{check}");
}

/// Records may be lost: what there is in the subscription is named where none are.
#[test]
fn clusters_of_others_are_named_where_nothing_is_recorded() {
    let scene = super::teardown::Scene::new();
    assert_eq!(scene.run(&["deploy", "-y", "-q", "--until", "prepare"]).code, 0);
    let check = scene.run(&["--home", "elsewhere", "check"]);
    assert!(!check.stderr.contains("note:"), "a name alone is no cluster: {check}");
    assert_eq!(scene.run(&["deploy", "-y", "-q", "--until", "infrastructure"]).code, 0);
    let cluster = scene.cluster();
    let shown = |arguments: &[&str]| {
        let text = scene.run(arguments).stderr.replace(&cluster, "CLUSTER");
        match text.split_once("(of ").and_then(|(before, rest)| Some((before, rest.split_once(',')?.1))) {
            Some((before, rest)) => format!("{before}(of OWNER,{rest}"),
            None => text,
        }
    };
    insta::assert_snapshot!(shown(&["--home", "elsewhere", "check"]), @"
    note: nothing is recorded in elsewhere, and the subscription has 1 cluster of k0rdentctl:
      CLUSTER (of OWNER, begun just now)
    what there is of them: k0rdentctl --home elsewhere --twin twin leftovers
    ");
    let deploy = shown(&["--home", "elsewhere", "deploy", "-y", "--until", "prepare"]);
    assert!(
        deploy.starts_with("note: nothing is recorded in elsewhere, and the subscription has 1 cluster"),
        "{deploy}"
    );
    assert!(!shown(&["check"]).contains("note:"), "it is recorded here");
    let json = scene.run(&["--home", "third", "check", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["neighbours"][0]["cluster_id"], cluster);
}

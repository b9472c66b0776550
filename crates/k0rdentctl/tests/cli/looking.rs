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
    cluster  a new one; deploy draws its name

    PHASE           STEPS  TO DO
    prepare         2      2
    infrastructure  8      8
    machines        6      6
    mesh            3      3
    k0s             10     10
    k0rdent         2      2
    all             31     31

    to do, and why
      prepare/documents                     not done yet
      prepare/preflight                     k0s-controller-1: it does not exist
      infrastructure/resource-group         it does not exist
      infrastructure/ssh-key                it does not exist
      infrastructure/security-group         it does not exist
      infrastructure/virtual-network        it does not exist
      infrastructure/*/public-address  x 2  it does not exist
      infrastructure/*/interface       x 2  it does not exist
      machines/*/create                x 2  it does not exist
      machines/*/provisioned           x 2  what it builds on is made first
      machines/*/ready                 x 2  not done yet
      mesh/*/member                    x 2  not done yet
      mesh/operator                         not done yet
      k0s/*/binary                     x 2  not done yet
      k0s/*/first-controller                not done yet
      k0s/*/worker                          not done yet
      k0s/nodes-ready                       not done yet
      k0s/tokens                            not done yet
      k0s/kubeconfig                        not done yet
      k0s/k0sctl                            not done yet
      k0s/*/home-kubeconfig            x 2  not done yet
      k0rdent/chart                         not done yet
      k0rdent/management                    not done yet

    usually 8 min 22 s; about 90 requests to Azure that read and 10 that write

    next: k0rdentctl deploy
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
    insta::assert_snapshot!(environment.run(&["status"]), @"
    cluster   k0rdent-abcd1234
    phase     none
    last run  deploy by ada@desk, 2027-01-04 08:00:00, killed

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

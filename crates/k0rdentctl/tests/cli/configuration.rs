//! Finding, checking and showing the configuration.

use super::environment::{CONFIG, TestEnvironment};

#[test]
fn without_one_it_says_how_to_make_one() {
    insta::assert_snapshot!(TestEnvironment::new().run(&["deploy", "-y"]), @"
    --- errors
    error: no configuration: make one with `k0rdentctl init > k0rdent.yaml`
    hint: looked for ./k0rdent.yaml and ./config/k0rdent.yaml; --config FILE names another
    --- exit code 2
    ");
    insta::assert_snapshot!(TestEnvironment::new().run(&["plan", "--config", "my.yaml"]), @"
    --- errors
    error: no such file: my.yaml
    hint: name another with --config FILE
    --- exit code 2
    ");
}

#[test]
fn every_problem_is_reported_at_once() {
    let bad = "azure:\n  locaton: westus2\n  vm_priority: Cheap\ncluster:\n  controllers:\n    count: 2\n  workers:\n    count: many\n";
    let environment = TestEnvironment::with_config(bad);
    insta::assert_snapshot!(environment.run(&["deploy", "-y"]), @r#"
    --- errors
    error: the configuration cannot be used
    ./k0rdent.yaml:2:3: error: azure.locaton: unknown key; did you mean azure.location?
    ./k0rdent.yaml:3:16: error: azure.vm_priority: "Cheap" is not Regular or Spot
    ./k0rdent.yaml:6:12: warning: cluster.controllers.count: 2 controllers survive no more failures than 1; take an odd number
    ./k0rdent.yaml:8:12: error: cluster.workers.count: expected a whole number, found "many"
    --- exit code 2
    "#);
    insta::assert_snapshot!(environment.run(&["config", "validate", "--output", "json"]).stdout, @r#"
    {
      "file": "./k0rdent.yaml",
      "format_version": 1,
      "problems": [
        {
          "column": 3,
          "key": "azure.locaton",
          "line": 2,
          "message": "unknown key; did you mean azure.location?",
          "severity": "error"
        },
        {
          "column": 16,
          "key": "azure.vm_priority",
          "line": 3,
          "message": "\"Cheap\" is not Regular or Spot",
          "severity": "error"
        },
        {
          "column": 12,
          "key": "cluster.controllers.count",
          "line": 6,
          "message": "2 controllers survive no more failures than 1; take an odd number",
          "severity": "warning"
        },
        {
          "column": 12,
          "key": "cluster.workers.count",
          "line": 8,
          "message": "expected a whole number, found \"many\"",
          "severity": "error"
        }
      ],
      "valid": false
    }
    "#);
    assert!(!environment.home().exists());
}

#[test]
fn a_warning_does_not_stop_anything() {
    let environment = TestEnvironment::with_config("cluster:\n  controllers:\n    count: 2\n");
    insta::assert_snapshot!(environment.run(&["config", "validate"]), @"
    ./k0rdent.yaml is valid, with a warning
    --- errors
    ./k0rdent.yaml:3:12: warning: cluster.controllers.count: 2 controllers survive no more failures than 1; take an odd number
    --- exit code 0
    ");
}

#[test]
fn it_is_found_in_both_places() {
    let environment = TestEnvironment::new();
    environment.write("config/k0rdent.yaml", CONFIG);
    insta::assert_snapshot!(environment.run(&["config", "validate"]), @"
    ./config/k0rdent.yaml is valid
    --- errors
    --- exit code 0
    ");
}

#[test]
fn it_is_shown_complete() {
    let environment =
        TestEnvironment::with_config(CONFIG).variable("AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-000000000007");
    let ran = environment.run(&["config", "show"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("location: westus2"), "{ran}");
    assert!(ran.stdout.contains("subscription_id: 00000000-0000-0000-0000-000000000007"), "{ran}");
    let again = TestEnvironment::with_config(&ran.stdout).run(&["config", "show"]);
    assert_eq!(again.stdout, ran.stdout);
    let json = environment.run(&["config", "show", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(document["format_version"], 1);
    assert_eq!(document["config"]["cluster"]["workers"]["count"], 1);
}

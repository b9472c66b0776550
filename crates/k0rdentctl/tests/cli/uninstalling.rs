//! `uninstall` and `history`.

use super::environment::{CONFIG, TestEnvironment};

#[test]
fn the_help() {
    let environment = TestEnvironment::new().variable("COLUMNS", "100");
    insta::assert_snapshot!(environment.run(&["uninstall", "-h"]).stdout, @"
    Take k0rdent or k0s off the cluster again

    Usage: k0rdentctl uninstall [OPTIONS] <COMMAND>

    Commands:
      k0rdent  Remove k0rdent and all that it installed; Kubernetes stays
      k0s      Remove Kubernetes; the machines stay
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help (see more with '--help')

    Global options:
          --config <FILE>    The configuration [default: ./k0rdent.yaml, then ./config/k0rdent.yaml]
          --home <DIR>       Where the environment's files live [default: ./.k0rdent]
          --output <FORMAT>  How results are printed [default: text] [possible values: text, json]
          --twin <DIR>       Talk to the twin served from this directory instead of Azure
      -v, --verbose...       Verbose output; -vv for everything
      -q, --quiet            Only results, errors, and what is about to be confirmed or deleted
          --color <WHEN>     When to use colours [default: auto] [possible values: auto, always, never]

    Example:
      k0rdentctl uninstall k0rdent
    ");
    insta::assert_snapshot!(environment.run(&["uninstall", "k0rdent", "-h"]).stdout, @"
    Remove k0rdent and all that it installed; Kubernetes stays

    Usage: k0rdentctl uninstall k0rdent [OPTIONS]

    Options:
      -y, --yes            Skip the confirmation
          --with-children  Delete child clusters with their machines first
      -h, --help           Print help (see more with '--help')

    Global options:
          --config <FILE>    The configuration [default: ./k0rdent.yaml, then ./config/k0rdent.yaml]
          --home <DIR>       Where the environment's files live [default: ./.k0rdent]
          --output <FORMAT>  How results are printed [default: text] [possible values: text, json]
          --twin <DIR>       Talk to the twin served from this directory instead of Azure
      -v, --verbose...       Verbose output; -vv for everything
      -q, --quiet            Only results, errors, and what is about to be confirmed or deleted
          --color <WHEN>     When to use colours [default: auto] [possible values: auto, always, never]

    Examples:
      k0rdentctl uninstall k0rdent -y
      k0rdentctl uninstall k0rdent --with-children
    ");
}

#[test]
fn there_is_nothing_to_uninstall_from() {
    let environment = TestEnvironment::with_config(CONFIG);
    insta::assert_snapshot!(environment.run(&["uninstall", "k0s", "-y"]), @"
    --- errors
    error: there is no cluster in ./.k0rdent
    hint: make one: k0rdentctl deploy
    --- exit code 2
    ");
}

#[test]
fn nobody_is_there_to_answer() {
    let environment = TestEnvironment::with_config(CONFIG).with_credentials();
    drop(environment.take_journal());
    insta::assert_snapshot!(environment.run(&["uninstall", "k0rdent"]), @"
    --- errors
    k0rdent-abcd1234: k0rdent with all that it has installed will be deleted; Kubernetes will stay.
    error: cannot ask for confirmation (no terminal); nothing was touched
    hint: use --yes to go on without a question
    --- exit code 2
    ");
    insta::assert_snapshot!(environment.run(&["uninstall", "k0s"]), @"
    --- errors
    k0rdent-abcd1234: Kubernetes with all that runs in it will be deleted; the machines will stay.
    error: cannot ask for confirmation (no terminal); nothing was touched
    hint: use --yes to go on without a question
    --- exit code 2
    ");
}

#[test]
fn a_protected_cluster_is_not_uninstalled() {
    let environment = TestEnvironment::with_config("protect: true\n").with_credentials();
    drop(environment.take_journal());
    insta::assert_snapshot!(environment.run(&["uninstall", "k0s", "-y"]), @"
    --- errors
    error: the cluster is protected; nothing was touched
    hint: set protect: false in ./k0rdent.yaml
    --- exit code 2
    ");
}

#[test]
fn the_history() {
    let environment = TestEnvironment::new();
    insta::assert_snapshot!(environment.run(&["history"]), @"
    nothing was reset in ./.k0rdent
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["history", "--output", "json"]).stdout, @r#"
    {
      "archives": [],
      "format_version": 1
    }
    "#);
    let report = r#"{"format_version": 1, "cluster_id": "k0rdent-abcd1234", "deployed_at": "2027-01-04T08:00:00Z",
        "deployed_by": "ada@desk", "reset_at": "2027-01-05T09:30:00Z", "reset_by": "bob@lab", "lived_seconds": 91800,
        "outcome": "succeeded", "leftovers": [], "requests": {"reads": 7}, "runs": []}"#;
    environment.write(".k0rdent/old_deployments/k0rdent-abcd1234_2027-01-05_09-30-00/report.json", report);
    environment.write(".k0rdent/old_deployments/k0rdent-00000000_2026-12-31_23-59-59/deployment-state.yaml", "");
    environment.write(".k0rdent/old_deployments/notes/a", "");
    insta::assert_snapshot!(environment.run(&["history"]), @"
    CLUSTER           DEPLOYED (UTC)       RESET (UTC)          LIVED        BY        OUTCOME
    k0rdent-00000000  -                    2026-12-31 23:59:59  -            -         unknown: it has no report
    k0rdent-abcd1234  2027-01-04 08:00:00  2027-01-05 09:30:00  25 h 30 min  ada@desk  succeeded
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["history", "--output", "json"]).stdout, @r#"
    {
      "archives": [
        {
          "cluster_id": "k0rdent-00000000",
          "deployed_at": null,
          "deployed_by": null,
          "directory": "./.k0rdent/old_deployments/k0rdent-00000000_2026-12-31_23-59-59",
          "leftovers": null,
          "lived_seconds": null,
          "outcome": null,
          "reset_at": "2026-12-31T23:59:59Z",
          "reset_by": null,
          "trouble": "it has no report"
        },
        {
          "cluster_id": "k0rdent-abcd1234",
          "deployed_at": "2027-01-04T08:00:00Z",
          "deployed_by": "ada@desk",
          "directory": "./.k0rdent/old_deployments/k0rdent-abcd1234_2027-01-05_09-30-00",
          "leftovers": [],
          "lived_seconds": 91800,
          "outcome": "succeeded",
          "reset_at": "2027-01-05T09:30:00Z",
          "reset_by": "bob@lab",
          "trouble": null
        }
      ],
      "format_version": 1
    }
    "#);
}

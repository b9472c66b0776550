//! Environments and the world that their cluster is in, and results that cannot be written.

use std::process::Stdio;

use super::{
    environment::{CONFIG, TestEnvironment},
    twin::Served,
};

#[test]
fn an_environment_stays_in_its_world() {
    let protected = format!("protect: true\n{CONFIG}");
    let environment = TestEnvironment::with_config(&protected).variable("K0RDENTCTL_TWIN", "twin");
    let (_twin, _) = Served::start(&environment);
    let (_other, _) = Served::start_in(&environment, "other");
    let deployed = environment.run(&["deploy", "-y", "-q", "--until", "infrastructure"]);
    assert_eq!(deployed.code, 0, "the variable names the twin: {deployed}");
    environment.write("k0rdent.yaml", CONFIG);
    for command in [
        &["reset", "--fast", "-y"][..],
        &["reset", "--force", "-y"],
        &["deploy", "-y"],
        &["plan"],
        &["status", "--check"],
    ] {
        let ran = environment.run(&[&["--twin", "other"], command].concat());
        assert_eq!(ran.code, 2, "{ran}");
        assert!(
            ran.stderr.contains("and this is the twin with seed") && ran.stderr.contains("nothing was touched"),
            "{ran}"
        );
        assert!(ran.stderr.contains("hint: say --twin"), "{ran}");
    }
    // What the file says counts, not what it said when the cluster was deployed.
    let ran = environment.run(&["reset", "-y"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains(" left (looked by tag and by name in subscription "), "{ran}");
}

#[test]
fn keys_that_are_lost_are_no_end() {
    let environment = TestEnvironment::with_config(CONFIG).variable("K0RDENTCTL_TWIN", "twin");
    let (_twin, _) = Served::start(&environment);
    assert_eq!(environment.run(&["deploy", "-y", "-q", "--until", "infrastructure"]).code, 0);
    fs_err::remove_file(environment.home().join("keys.json")).expect("keys");
    let ran = environment.run(&["reset", "-y"]);
    let (_, command) = ran.stderr.split_once("or delete the cluster without it: k0rdentctl ").expect("what to type");
    let words: Vec<&str> = command.lines().next().unwrap_or_default().split(' ').chain(["-y"]).collect();
    assert!(command.contains("reset --force --cluster-id k0rdent-"), "{ran}");
    let ran = environment.run(&words);
    assert_eq!(ran.code, 0, "{ran}");
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let environment = TestEnvironment::with_config(CONFIG);
    for command in [&["init"][..], &["status"], &["status", "--output", "json"], &["config", "show"], &["version"]] {
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let mut program = environment.command(command);
        let ran = program.stdout(Stdio::from(full.into_file())).stderr(Stdio::piped()).output().expect("it runs");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("the result could not be written: No space left on device"), "{command:?}: {said}");
    }
}

#[test]
fn every_result_can_be_json() {
    let environment = TestEnvironment::with_config(CONFIG);
    let json = |arguments: &[&str]| environment.run(&[arguments, &["--output", "json"]].concat());
    insta::assert_snapshot!(json(&["unlock", "-y"]), @r#"
    {
      "format_version": 1,
      "unlocked": false
    }
    --- errors
    --- exit code 0
    "#);
    insta::assert_snapshot!(json(&["state", "export"]), @r#"
    {
      "format_version": 1,
      "journal": null
    }
    --- errors
    --- exit code 0
    "#);
    let journal = environment.take_journal();
    let ran = json(&["unlock", "-y"]);
    assert!(ran.code == 0 && ran.stdout.contains("\"unlocked\": true"), "{ran}");
    drop(journal);
    insta::assert_snapshot!(json(&["state", "export"]), @r#"
    {
      "files": [
        "./.k0rdent/deployment-state.yaml",
        "./.k0rdent/deployment-events.yaml"
      ],
      "format_version": 1
    }
    --- errors
    --- exit code 0
    "#);
}

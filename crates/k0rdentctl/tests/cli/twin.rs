//! The twin as another process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use super::environment::{CONFIG, TestEnvironment};

/// A twin that ends when the test ends.
pub(crate) struct Served(Child);

impl Served {
    /// Serves one from the directory `twin`; answers what it says when it is ready.
    pub(crate) fn start(environment: &TestEnvironment) -> (Self, String) {
        Self::start_in(environment, "twin")
    }

    /// Serves one from that directory.
    pub(crate) fn start_in(environment: &TestEnvironment, directory: &str) -> (Self, String) {
        let serve = ["twin", "serve", "--data-dir", directory, "--speed", "600"];
        let mut twin = Self(environment.command(&serve).stdout(Stdio::piped()).spawn().expect("the program starts"));
        let mut ready = String::new();
        BufReader::new(twin.0.stdout.take().expect("its output")).read_line(&mut ready).expect("a line");
        (twin, ready)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone_already = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn no_twin_is_served() {
    let environment = TestEnvironment::with_config(CONFIG);
    insta::assert_snapshot!(environment.run(&["--twin", "twin", "deploy", "-y"]), @"
    --- errors
    error: no twin is served from twin: failed to open file `twin/endpoints.json`: No such file or directory (os error 2)
    hint: serve one with `k0rdentctl twin serve --data-dir twin`
    --- exit code 2
    ");
    environment.write("twin/endpoints.json", "{}");
    insta::assert_snapshot!(environment.run(&["--twin", "twin", "deploy", "-y"]), @"
    --- errors
    error: twin/endpoints.json: missing field `arm` at line 1 column 2
    --- exit code 2
    ");
}

#[test]
fn one_twin_to_a_directory() {
    let environment = TestEnvironment::new();
    let (_twin, ready) = Served::start(&environment);
    insta::assert_snapshot!(environment.run(&["twin", "serve", "--data-dir", "twin"]), @"
    --- errors
    error: the twin cannot be served from twin: another twin is served from there; end that one, or name another directory
    --- exit code 1
    ");
    let said = fs_err::read_to_string(environment.path().join("twin/endpoints.json")).expect("its addresses");
    let (said, ready): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&said).expect("JSON"), serde_json::from_str(&ready).expect("JSON"));
    assert_eq!(said["pid"], ready["pid"], "the files still lead to the one that runs");
}

#[test]
fn a_twin_that_does_not_run_any_more() {
    let environment = TestEnvironment::with_config(CONFIG);
    let (twin, ready) = Served::start(&environment);
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("its addresses");
    drop(twin);
    let shown = |command: &[&str]| {
        let ran = environment.run(&[&["--twin", "twin"], command].concat());
        ran.to_string().replace(&ready["pid"].to_string(), "PID")
    };
    let plan = shown(&["plan"]);
    insta::assert_snapshot!(plan, @"
    --- errors
    error: no twin runs in twin any more (its process PID is gone)
    hint: serve another one: k0rdentctl twin serve --data-dir twin
    hint: it begins empty: what was in the old one is gone with it
    --- exit code 2
    ");
    for command in [&["check"][..], &["deploy", "-y"], &["leftovers"]] {
        assert_eq!(shown(command), plan, "{command:?}");
    }
}

#[test]
fn the_whole_road_over_tcp() {
    let environment = TestEnvironment::with_config(CONFIG);
    let (_twin, ready) = Served::start(&environment);
    assert!(ready.starts_with(r#"{"format_version":1,"arm":"https://127.0.0.1:"#), "{ready}");
    let run = |arguments: &[&str]| environment.run(&[&["--twin", "twin"], arguments].concat());

    let ran = run(&["deploy", "-y"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains("runs k0rdent 1.1.1 on 2 machines"), "{ran}");
    let ran = run(&["deploy", "-y"]);
    assert!(ran.stdout.starts_with("nothing to do: "), "{ran}");
    let ran = run(&["ssh", "k0s-worker-1", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"), "{ran}");
    let ran = run(&["exec", "--", "/bin/sh", "-c", "test -r $KUBECONFIG && exit 9"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (9, "", ""), "{ran}");
    let ran = run(&["exec", "--", "no-such-program"]);
    assert_eq!(ran.code, 127, "{ran}");
    let phase = || {
        let status: serde_json::Value =
            serde_json::from_str(&run(&["status", "--output", "json"]).stdout).expect("JSON");
        status["phase"].as_str().map(str::to_owned)
    };
    let ran = run(&["uninstall", "k0s", "-y"]);
    assert!(ran.code == 3 && ran.stderr.contains("k0rdentctl --twin twin uninstall k0rdent"), "{ran}");
    assert!(!ran.stderr.contains("continue with"), "one hint, and not one that contradicts it: {ran}");
    for (part, reached) in [("k0rdent", "k0s_deployed"), ("k0s", "vms_ready")] {
        let ran = run(&["uninstall", part, "-y"]);
        assert_eq!((ran.code, phase().as_deref()), (0, Some(reached)), "{ran}");
        assert!(run(&["uninstall", part, "-y"]).stdout.starts_with("nothing to do: "));
    }
    let ran = run(&["deploy", "-y"]);
    assert_eq!((ran.code, phase().as_deref()), (0, Some("k0rdent_deployed")), "{ran}");
    let ran = run(&["reset", "-y"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains(" resources left (looked by tag and by name in subscription "), "{ran}");
    assert!(run(&["status"]).stdout.starts_with("there is no cluster"));
    assert_eq!(run(&["history"]).stdout.lines().count(), 2);
}

//! What needs nothing: help, versions, completions, templates.

use super::environment::TestEnvironment;

#[test]
fn without_a_command_there_is_help() {
    let environment = TestEnvironment::new();
    let ran = environment.run(&[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("Usage: k0rdentctl [OPTIONS] <COMMAND>"), "{ran}");
    for arguments in [&["--help"][..], &["help", "deploy"], &["deploy", "--help"]] {
        let ran = environment.run(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
        assert!(ran.stdout.contains("Examples:"), "{ran}");
    }
}

#[test]
fn help_is_as_wide_as_the_terminal() {
    for (columns, width) in [("40", 60), ("72", 72), ("999", 200)] {
        let ran = TestEnvironment::new().variable("COLUMNS", columns).run(&["deploy", "--help"]);
        let longest = ran.stdout.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        assert!(longest <= width, "{longest} > {width}: {ran}");
    }
}

#[test]
fn the_version() {
    let environment = TestEnvironment::new();
    insta::assert_snapshot!(environment.run(&["version"]), @"
    k0rdentctl 0.1.0
    --- errors
    --- exit code 0
    ");
    insta::assert_snapshot!(environment.run(&["version", "--output", "json"]), @r#"
    {
      "format_version": 1,
      "formats": {
        "journal": 2,
        "views": 1
      },
      "version": "0.1.0"
    }
    --- errors
    --- exit code 0
    "#);
}

#[test]
fn completions() {
    for (shell, sign) in [("bash", "_k0rdentctl()"), ("zsh", "#compdef k0rdentctl"), ("fish", "complete -c k0rdentctl")]
    {
        let ran = TestEnvironment::new().run(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains(sign), "{shell}: {ran}");
    }
}

#[test]
fn every_template_is_a_valid_configuration() {
    for (template, text) in deploy::config::TEMPLATES {
        let environment = TestEnvironment::new();
        let ran = environment.run(&["init", "--template", template]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, *text));
        environment.write("k0rdent.yaml", &ran.stdout);
        let ran = environment.run(&["config", "validate"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "./k0rdent.yaml is valid\n"), "{template}: {ran}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let environment = TestEnvironment::new();
    let mut child = environment
        .command(&["init", "--template", "production"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

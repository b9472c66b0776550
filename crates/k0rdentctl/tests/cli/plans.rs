//! Nothing is destroyed without being named first.

use super::{
    environment::{CONFIG, TestEnvironment},
    twin::Served,
};

#[test]
fn what_a_deployment_would_delete_is_named_however_quiet_it_is_to_be() {
    let environment = TestEnvironment::with_config("cluster:\n  workers:\n    count: 2\n");
    let (_twin, _) = Served::start(&environment);
    let run = |arguments: &[&str]| environment.run(&[&["--twin", "twin"], arguments].concat());
    assert_eq!(run(&["plan", "--detailed-exitcode"]).code, 6);
    assert_eq!(run(&["deploy", "-y"]).code, 0);
    let ran = run(&["plan", "--detailed-exitcode"]);
    assert_eq!((ran.code, ran.stdout.contains("nothing to do")), (0, true), "{ran}");

    environment.write("k0rdent.yaml", CONFIG);
    let ran = run(&["plan", "--detailed-exitcode"]);
    assert_eq!(ran.code, 6, "{ran}");
    let line = "  - virtual machine k0s-worker-2 with its disk, network interface, public IP: removed from the";
    assert!(ran.stdout.contains(line), "{ran}");
    assert!(ran.stdout.contains("! deleted, with everything that is stored on them: k0s-worker-2"), "{ran}");
    let ran = run(&["plan", "--output", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let changes = plan["changes"].as_array().expect("changes");
    let deletes = |change: &&serde_json::Value| change["action"] == "delete";
    assert_eq!(changes.iter().filter(deletes).count(), 4, "{plan:#}");
    assert_eq!(
        (&plan["requests"]["deletes"], &plan["place"]["account"]),
        (&1.into(), &"application k0rdentctl".into())
    );
    let after = plan["cost_after"]["usd_per_hour"].as_f64();
    assert!(after > Some(0.0) && after < plan["cost_before"]["usd_per_hour"].as_f64(), "{plan:#}");

    // With nobody to ask there is no question, and `-q -y` still says what goes.
    let ran = run(&["deploy"]);
    assert!(ran.code == 2 && ran.stderr.contains("cannot ask for confirmation"), "{ran}");
    let ran = run(&["deploy", "-q", "-y"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("virtual machine k0s-worker-2"), "{ran}");
    // One more deployment has nothing to do, and says for each phase that it need not.
    let ran = run(&["deploy", "-y"]);
    assert!(ran.stdout.starts_with("nothing to do: "), "{ran}");
    let skipped = ran.stderr.lines().filter(|line| line.starts_with("==> Skipping: ")).collect::<Vec<_>>();
    let phases = ["prepare", "infrastructure", "machines", "mesh", "k0s", "k0rdent"];
    assert_eq!(skipped, phases.map(|phase| format!("==> Skipping: {phase} (already completed)")), "{ran}");
}

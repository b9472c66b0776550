//! The way into machines that do not answer, on a twin in another process: what is wrong, and what to type.

use serde_json::json;
use tokio::time::Instant;

use super::{environment::Ran, teardown::Scene};

/// Within how many seconds an answer is to be there, in all.
const SECONDS: u64 = 10;

impl Scene {
    fn act(&self, action: &serde_json::Value) {
        self.ask("POST", "/actions", action);
    }

    /// What is said of a machine that does not answer, soon enough; the cluster's name and its machines' addresses hidden.
    fn said(&self, arguments: &[&str]) -> String {
        let began = Instant::now();
        let Ran { code, stderr, .. } = self.run(arguments);
        assert!(began.elapsed().as_secs() < SECONDS, "{arguments:?}: {:?}: {stderr}", began.elapsed());
        let cluster = self.cluster();
        let addresses = without_addresses(&stderr.replace(&cluster, "CLUSTER"));
        format!("{addresses}--- exit code {code}")
    }
}

/// `(127.20.0.5)` as `(ADDRESS)`.
fn without_addresses(text: &str) -> String {
    let mut hidden = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("(127.") {
        let end = rest[start..].find(')').map_or(rest.len(), |end| start + end);
        hidden += &format!("{}(ADDRESS", &rest[..start]);
        rest = &rest[end..];
    }
    hidden + rest
}

#[test]
fn what_is_wrong_with_the_way_in_is_named_with_the_command_that_helps() {
    let scene = Scene::new();
    let ran = scene.run(&["deploy", "-y", "-q", "--until", "machines"]);
    assert_eq!(ran.code, 0, "{ran}");
    let hostname = ["ssh", "k0s-worker-1", "--", "hostname"];
    let is_open = || assert_eq!(scene.run(&hostname).stdout, "k0s-worker-1\n");
    is_open();

    scene.act(&json!({"action": "move-client", "address": "198.51.100.7"}));
    insta::assert_snapshot!(scene.said(&hostname), @"
    error: k0s-worker-1 (ADDRESS): SSH is open to 127.0.0.1/32, you are now 198.51.100.7
    hint: open it again: k0rdentctl --twin twin deploy
    --- exit code 1
    ");
    insta::assert_snapshot!(scene.said(&["kubeconfig"]), @"
    error: k0s-controller-1 (ADDRESS): SSH is open to 127.0.0.1/32, you are now 198.51.100.7
    hint: open it again: k0rdentctl --twin twin deploy
    --- exit code 1
    ");
    let checked = scene.run(&["status", "--check"]);
    assert_eq!(checked.code, 1);
    for line in ["SSH is open to 127.0.0.1/32, you are now 198.51.100.7", "open SSH to your address", "repair it: "] {
        assert!(checked.stdout.contains(line), "{checked}");
    }
    let planned = scene.run(&["plan"]);
    assert!(planned.stdout.contains("SSH is open to 127.0.0.1/32, you are now 198.51.100.7"), "{planned}");
    let ran = scene.run(&["deploy", "-y", "-q", "--until", "machines"]);
    assert_eq!(ran.code, 0, "{ran}");
    is_open();

    scene.act(&json!({"action": "remove-rule", "rule": "AllowSSH"}));
    insta::assert_snapshot!(scene.said(&hostname), @"
    error: k0s-worker-1 (ADDRESS): the rule AllowSSH was removed from CLUSTER-nsg
    hint: open it again: k0rdentctl --twin twin deploy
    --- exit code 1
    ");
    let ran = scene.run(&["deploy", "-y", "-q", "--until", "machines"]);
    assert_eq!(ran.code, 0, "{ran}");
    is_open();

    scene.ask("POST", "/faults", &json!({"name": "ssh-refused", "target": "k0s-worker-1"}));
    // Until its sshd has gone.
    while scene.run(&hostname).code == 0 {}
    insta::assert_snapshot!(scene.said(&hostname), @"
    error: k0s-worker-1 (ADDRESS): port 22: Connection refused (os error 111). Azure says that it is running, and SSH is open to 198.51.100.7
    hint: restart it: az vm restart --resource-group CLUSTER-resgrp --name k0s-worker-1
    --- exit code 1
    ");
    scene.ask("POST", "/faults", &json!({"name": "ssh-hang"}));
    insta::assert_snapshot!(scene.said(&["exec", "--", "true"]), @"
    error: k0s-controller-1 (ADDRESS): SSH does not answer within 7 s. Azure says that it is running, and SSH is open to 198.51.100.7
    hint: restart it: az vm restart --resource-group CLUSTER-resgrp --name k0s-controller-1
    --- exit code 1
    ");
    let began = Instant::now();
    let checked = scene.run(&["status", "--check"]);
    assert!(began.elapsed().as_secs() < SECONDS, "{:?}", began.elapsed());
    let line = |name: &str| checked.stdout.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    for machine in ["k0s-controller-1", "k0s-worker-1"] {
        let restart = format!("-resgrp --name {machine}`)");
        assert!(line(machine).contains("ssh-silent") && line(machine).contains(&restart), "{checked}");
    }
    scene.ask("DELETE", "/faults", &json!(null));

    scene.act(&json!({"action": "deallocate-machine", "machine": "k0s-worker-1"}));
    // Until Azure has done it.
    while scene.run(&hostname).code == 0 {}
    insta::assert_snapshot!(scene.said(&hostname), @"
    error: k0s-worker-1 (ADDRESS): Azure says that it is deallocated
    hint: start it: k0rdentctl --twin twin deploy
    --- exit code 1
    ");
    scene.act(&json!({"action": "delete-machine", "machine": "k0s-worker-1"}));
    while scene.ask("GET", "/resources", &json!(null)).contains("virtualMachines/k0s-worker-1") {}
    insta::assert_snapshot!(scene.said(&hostname), @"
    error: k0s-worker-1 (ADDRESS): it does not exist any more
    hint: make it anew: k0rdentctl --twin twin deploy
    --- exit code 1
    ");
}

#[test]
fn a_configuration_that_lets_others_in_is_refused_on_a_twin_before_anything_is_made() {
    let scene = Scene::new();
    scene.environment.write("k0rdent.yaml", "azure: {ssh_allowed_from: [198.51.100.0/24]}\n");
    insta::assert_snapshot!(scene.run(&["deploy", "-y", "-q"]), @r#"
    --- errors
    error: on this twin you come from 127.0.0.1/32, and azure.ssh_allowed_from does not let you in
    hint: POST {"action": "move-client", "address": "198.51.100.1"} to /actions of its admin address first
    --- exit code 2
    "#);
    scene.act(&json!({"action": "move-client", "address": "198.51.100.1"}));
    let ran = scene.run(&["deploy", "-y", "-q", "--until", "machines"]);
    assert_eq!(ran.code, 0, "{ran}");
}

//! What others do to a cluster is named, planned for, and repaired; and a changed configuration is followed.

mod common;

use std::collections::BTreeSet;

use common::{Environment, configuration};
use deploy::session::SessionError;
use twin::Action;

/// Deploys 3+2, lets something happen, and expects that one difference and its repair.
async fn repaired(text: &str, action: Action, name: &str, subject: &str) {
    let environment = Environment::new(text, 7);
    environment.deploy().await.expect("a deployment");
    assert_eq!(environment.check().await, [], "nothing has happened yet");
    environment.stage.twin.with(|world| action.perform(world)).expect("something happens");
    // Azure itself takes a minute over some of it.
    engine::pause(std::time::Duration::from_secs(300)).await;
    let differences = environment.check().await;
    let named = differences.iter().any(|(found, about)| *found == name && about.contains(subject));
    assert!(named, "{name} of {subject} is not among {differences:?}");
    environment.deploy().await.expect("a repair");
    assert_eq!(environment.check().await, [], "everything is repaired");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_machine_is_started() {
    let action = Action::StopMachine { machine: "k0s-worker-1".into() };
    repaired(&configuration(3, 2), action, "machine-stopped", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_deallocated_controller_is_started() {
    let action = Action::DeallocateMachine { machine: "k0s-controller-2".into() };
    repaired(&configuration(3, 2), action, "machine-stopped", "k0s-controller-2").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_worker_comes_back() {
    let action = Action::DeleteMachine { machine: "k0s-worker-2".into() };
    repaired(&configuration(3, 2), action, "machine-missing", "k0s-worker-2").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_controller_comes_back() {
    let action = Action::DeleteMachine { machine: "k0s-controller-3".into() };
    repaired(&configuration(3, 2), action, "machine-missing", "k0s-controller-3").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_first_controller_comes_back_by_way_of_the_others() {
    let action = Action::DeleteMachine { machine: "k0s-controller-1".into() };
    repaired(&configuration(3, 2), action, "machine-missing", "k0s-controller-1").await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_spot_machine_comes_back() {
    let text = configuration(3, 2)
        + "azure: {vm_priority: Spot, eviction_policy: Delete}\nvm_sizing: {controller: {size: Standard_D2s_v5}, worker: {size: Standard_D2s_v5}}\n";
    repaired(&text, Action::EvictMachine { machine: "k0s-worker-1".into() }, "machine-missing", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_rule_is_restored() {
    for rule in ["AllowWireGuard", "AllowSSH"] {
        let action = Action::RemoveRule { rule: rule.into() };
        repaired(&configuration(1, 1), action, "rule-missing", "network security group").await;
    }
}

#[tokio::test(start_paused = true)]
async fn wireguard_is_started_again() {
    let action = Action::StopUnit { machine: "k0s-worker-1".into(), unit: "wg-quick@wg0".into() };
    repaired(&configuration(3, 2), action, "mesh-down", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn k0s_is_started_again() {
    let action = Action::StopUnit { machine: "k0s-worker-1".into(), unit: "k0sworker".into() };
    repaired(&configuration(3, 2), action, "k0s-down", "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn the_cluster_grows_and_shrinks_and_nobody_else_is_touched() {
    let mut environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy().await.expect("a deployment");
    let mut scale = async |workers: u16| {
        let before = environment.ledger(|_| true) as u64;
        environment.configure(&configuration(3, workers));
        environment.deploy().await.expect("another size");
        let changes = |entry: &&twin::Entry| {
            entry.sequence >= before
                && entry.object.contains("/providers/")
                && ["created", "deleted"].contains(&entry.verb.as_str())
        };
        environment.stage.twin.with(|world| {
            let changed = world.ledger.entries.iter().filter(changes);
            let touched: BTreeSet<String> = changed
                .filter_map(|entry| entry.object.rsplit('/').next())
                .map(|name| {
                    name.trim_end_matches("-nic").trim_end_matches("-pip").trim_end_matches("-osdisk").to_owned()
                })
                .collect();
            touched.into_iter().collect::<Vec<_>>()
        })
    };
    assert_eq!(scale(5).await, ["k0s-worker-3", "k0s-worker-4", "k0s-worker-5"]);
    assert_eq!(scale(3).await, ["k0s-worker-4", "k0s-worker-5"]);
    assert_eq!(environment.check().await, []);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn controllers_come_and_go_one_at_a_time() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    for controllers in [3, 1] {
        environment.configure(&configuration(controllers, 1));
        environment.deploy().await.expect("another number of controllers");
        assert_eq!(environment.check().await, []);
    }
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_built_in_is_refused_before_anything_is_touched() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let before = environment.ledger(|entry| entry.kind == "change" && entry.actor == "arm");
    environment.configure(&(configuration(1, 1) + "ssh: {username: ada}\n"));
    let Err(SessionError::Failed(refusals)) = environment.deploy().await else { panic!("not refused") };
    assert!(refusals[0].message.starts_with("ssh.username cannot change"), "{refusals:?}");
    assert_eq!(environment.ledger(|entry| entry.kind == "change" && entry.actor == "arm"), before);
    environment.configure(&configuration(1, 1));
    assert_eq!(environment.deploy().await.expect("as before").steps_run, 0);
}

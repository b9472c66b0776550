//! What a machine is in the cluster decides what may be done to it: nothing that holds is replaced, there is one etcd,
//! and its loss is said and not papered over.

mod common;

use std::time::Duration;

use common::{Environment, a_while, configuration, refusal};
use deploy::task::Phase;
use engine::FailureKind;
use twin::{Action, Fault, FaultKind};

fn fault(name: FaultKind, target: &str, times: Option<u32>) -> Fault {
    Fault { name, target: Some(target.to_owned()), times }
}

impl Environment {
    fn act(&self, action: &Action) {
        self.stage.twin.with(|world| action.perform(world)).expect("something happens");
    }

    /// How often something of that name was deleted or made.
    fn times(&self, verb: &str, name: &str) -> usize {
        let ends = format!("/{name}");
        self.ledger(|entry| entry.kind == "change" && entry.verb == verb && entry.object.ends_with(&ends))
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_controller_that_azure_calls_failed_is_kept() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.act(&Action::FailMachine { machine: "k0s-controller-1".into() });
    environment.deploy().await.expect("nothing is broken");
    assert_eq!(environment.times("deleted", "k0s-controller-1"), 0, "it holds the cluster");
    assert_eq!(environment.clusters(), 1);
    let differences = environment.check().await;
    assert!(differences.contains(&("machine-not-ready", "k0s-controller-1".into())), "{differences:?}");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_whose_deletion_azure_gives_up_is_kept() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.set_faults(&[fault(FaultKind::OperationFailure, "k0s-controller-1", Some(1))]);
    environment.delete("k0s-controller-1");
    a_while().await;
    environment.deploy().await.expect("nothing is broken");
    assert_eq!((environment.times("deleted", "k0s-controller-1"), environment.clusters()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_first_controller_begins_no_second_cluster_while_the_others_are_silent() {
    let environment = Environment::new(&configuration(3, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.delete("k0s-controller-1");
    a_while().await;
    let silent = |times| {
        let names = ["k0s-controller-2", "k0s-controller-3"];
        names.map(|name| fault(FaultKind::SshRefused, name, times)).to_vec()
    };
    // Long enough for the look, and gone before the first controller is back.
    environment.set_faults(&silent(Some(40)));
    environment.deploy().await.expect("the others are waited for");
    assert_eq!(environment.clusters(), 1, "there is one etcd");
    environment.set_faults(&[]);
    assert_eq!(environment.check().await, []);
    // Where they stay silent, that is what the failure says.
    environment.delete("k0s-controller-1");
    a_while().await;
    environment.set_faults(&silent(None));
    environment.deploy().await.expect_err("nobody answers");
    assert_eq!(environment.clusters(), 1, "there is one etcd");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_azure_gives_up_is_named_at_once() {
    let environment = Environment::new(&configuration(1, 2), 7);
    environment.deploy().await.expect("a deployment");
    environment.act(&Action::DeallocateMachine { machine: "k0s-worker-1".into() });
    a_while().await;
    environment.set_faults(&[fault(FaultKind::OperationFailure, "k0s-worker-1", Some(1))]);
    let before = environment.stage.twin.now();
    let failure = refusal(environment.deploy().await);
    assert!(failure.message.contains("InternalOperationError") && failure.message.contains("start"), "{failure}");
    let took = environment.stage.twin.now() - before;
    assert!(took < Duration::from_secs(300), "{took:?}");
    environment.deploy().await.expect("the next start succeeds");
    assert_eq!(environment.check().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_binary_that_somebody_has_deleted_comes_back() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.act(&Action::RemoveFile { machine: "k0s-worker-1".into(), path: "/usr/local/bin/k0s".into() });
    let differences = environment.check().await;
    assert!(differences.contains(&("k0s-binary", "k0s-worker-1".into())), "{differences:?}");
    environment.deploy().await.expect("a repair");
    assert_eq!(environment.check().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_replaced_has_nothing_of_its_predecessor() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("machines");
    environment.delete("k0s-worker-1");
    a_while().await;
    // A run that makes the machine anew, and ends before anything was put on it.
    environment.deploy_until(Phase::Infrastructure).await.expect("a network");
    environment.deploy().await.expect("a deployment");
    assert_eq!(environment.check().await, []);
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_the_only_controller_is_said_and_not_papered_over() {
    let environment = Environment::new(&configuration(1, 2), 7);
    environment.deploy().await.expect("a deployment");
    environment.delete("k0s-controller-1");
    a_while().await;
    let before = environment.stage.twin.now();
    let failure = refusal(environment.deploy().await);
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("k0s-controller-1") && failure.message.contains("control plane is lost"));
    assert!(failure.advice.as_deref().is_some_and(|advice| advice.contains("--start-anew")), "{failure:?}");
    assert!(environment.stage.twin.now() - before < Duration::from_secs(60));
    assert_eq!(environment.clusters(), 1);
    let differences = environment.check().await;
    assert!(differences.contains(&("control-plane-lost", "control plane".into())), "{differences:?}");
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_the_quorum_is_said() {
    let environment = Environment::new(&configuration(3, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.delete("k0s-controller-2");
    environment.delete("k0s-controller-3");
    a_while().await;
    let failure = refusal(environment.deploy().await);
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("quorum"), "{failure}");
    assert!(failure.message.contains("k0s-controller-2") && failure.message.contains("k0s-controller-3"));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_being_deleted_is_waited_for() {
    for machine in ["k0s-worker-1", "k0s-controller-2"] {
        let environment = Environment::new(&configuration(3, 1), 7);
        environment.deploy().await.expect("a deployment");
        environment.delete(machine);
        environment.deploy().await.expect("one run is enough");
        assert_eq!(environment.check().await, []);
        environment.reset_to_nothing().await;
    }
}

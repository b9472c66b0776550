//! Back by one state and forward again: `uninstall k0rdent` and `uninstall k0s`, from any interruption, with child
//! clusters, and with finalizers that nobody clears.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::{Environment, configuration};
use deploy::{
    recipe::Part,
    session::{Finished, Session, SessionError, Watching},
    task::Phase,
};
use engine::{Stop, runner::FaultInjector};
use tokio::sync::watch;

async fn uninstall(
    environment: &Environment,
    part: Part,
    faults: Option<FaultInjector>,
) -> Result<Finished, SessionError> {
    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = Watching { stop, listener: &common::show, faults };
    environment.session(Phase::K0rdent).uninstall(part, watching).await
}

fn phase(environment: &Environment) -> &'static str {
    deploy::session::status_of(environment.home()).expect("a status").phase
}

/// What went wrong, with its advice.
fn failures(result: Result<Finished, SessionError>) -> String {
    let Err(SessionError::Failed(failures)) = result else { panic!("no failure but {result:?}") };
    let text =
        failures.iter().map(|failure| format!("{} | {}", failure.message, failure.advice.as_deref().unwrap_or("-")));
    text.collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn back_by_one_state_and_forward_again() {
    let environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy().await.expect("a deployment");
    let refused = failures(uninstall(&environment, Part::K0s, None).await);
    assert!(refused.contains("k0rdent is still there") && refused.contains("uninstall k0rdent"), "{refused}");
    assert_eq!(phase(&environment), "k0rdent_deployed");

    for _ in 0..2 {
        let finished = uninstall(&environment, Part::K0rdent, None).await.expect("k0rdent goes");
        assert_eq!(finished.status.phase, "k0s_deployed");
        assert_eq!(finished.status.next, "k0rdentctl deploy");
        assert_eq!(finished.status.management, None);
    }
    assert_eq!(environment.check().await, []);
    assert_eq!(environment.deploy().await.expect("k0rdent again").status.phase, "k0rdent_deployed");
    assert_eq!(environment.deploy().await.expect("nothing to do").steps_run, 0);

    uninstall(&environment, Part::K0rdent, None).await.expect("k0rdent goes");
    for _ in 0..2 {
        let finished = uninstall(&environment, Part::K0s, None).await.expect("k0s goes");
        assert_eq!(finished.status.phase, "vms_ready");
        assert!(finished.status.nodes.iter().all(|node| node.state == "ready"), "{:?}", finished.status.nodes);
    }
    assert!(!environment.home().join("kubeconfig").exists());
    assert_eq!(environment.check().await, []);
    assert_eq!(environment.deploy().await.expect("k0s and k0rdent again").status.phase, "k0rdent_deployed");
    assert_eq!(environment.deploy().await.expect("nothing to do").steps_run, 0);
    environment.reset_to_nothing().await;
}

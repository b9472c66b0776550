//! Running it again.

mod common;

use common::{Environment, configuration};

#[tokio::test(start_paused = true)]
async fn a_second_deployment_changes_nothing_and_asks_little() {
    let environment = Environment::new(&configuration(3, 3), 7);
    environment.deploy().await.expect("a deployment");
    let before = environment.ledger(|_| true);
    let finished = environment.deploy().await.expect("the same again");
    assert_eq!(finished.steps_run, 0);
    let after = |entry: &twin::Entry| entry.sequence >= before as u64;
    assert_eq!(environment.ledger(|entry| after(entry) && entry.kind == "change" && entry.actor != "world"), 0);
    let writes = ["PUT", "POST", "PATCH", "DELETE"];
    assert_eq!(
        environment.ledger(|entry| after(entry) && entry.actor == "arm" && writes.contains(&entry.verb.as_str())),
        0
    );
    let requests = environment.ledger(|entry| after(entry) && entry.kind == "request");
    assert!(requests < 30, "{requests} requests");
    assert_eq!(finished.status.phase, "k0rdent_deployed");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_grows_by_a_worker() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.configure(&configuration(1, 2));
    environment.deploy().await.expect("one more worker");
    let joined = environment
        .ledger(|entry| entry.kind == "change" && entry.verb == "created" && entry.object.contains("virtualMachines/"));
    assert_eq!(joined, 3, "each machine was made once");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn one_phase_at_a_time() {
    use deploy::task::Phase;
    let environment = Environment::new(&configuration(1, 1), 7);
    for phase in Phase::DEPLOY {
        let finished = environment.deploy_until(phase).await.expect("a phase");
        assert_eq!(finished.status.phase, phase.reached());
    }
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let history = async |seed: u64| {
        let environment = Environment::new(&configuration(3, 2), seed);
        environment.deploy().await.expect("a deployment");
        environment.reset_to_nothing().await;
        environment.stage.twin.with(|world| world.ledger.entries.clone())
    };
    let (first, second, other) = (history(7).await, history(7).await, history(8).await);
    assert!(first == second, "two runs with the same seed differ");
    assert!(first != other);
}

//! A machine whose k0s runs and that is no member of the cluster: it gets what it needs to become one.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Environment, configuration, show};
use deploy::{config, session::Watching, task::Phase};
use engine::{
    Event, Message, Stop,
    runner::{FaultInjector, FaultPoint, Injection},
};
use tokio::sync::{Notify, watch};
use twin::Action;

/// Longer than a join token is good for.
const TOO_LONG: Duration = Duration::from_secs(45 * 60);

/// A deployment whose first controller stops when a machine is about to join it, and that is killed when that machine's
/// service is installed.
async fn killed_when_installed(environment: &Environment, text: &str, step: &'static str) {
    let (reached, installs) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let injector: FaultInjector = {
        let (reached, installs) = (Arc::clone(&reached), Arc::clone(&installs));
        Arc::new(move |point, at| {
            let is_here = point == FaultPoint::AfterEffect && at.as_str() == step && installs.load(Ordering::Relaxed);
            if !is_here {
                return Injection::None;
            }
            reached.notify_one();
            Injection::Hang
        })
    };
    let listener = |message: &Message| {
        show(message);
        if let Message::Recorded(record) = message
            && matches!(&record.event, Event::Intended { step: at, what } if at.as_str() == step && what.contains("install"))
        {
            let stopped = Action::StopUnit { machine: "k0s-controller-1".into(), unit: "k0scontroller".into() };
            environment.stage.twin.with(|world| stopped.perform(world)).expect("a unit that stops");
            installs.store(true, Ordering::Relaxed);
        }
    };
    let loaded = config::load(text).expect("a good configuration");
    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = Watching { stop, listener: &listener, faults: Some(injector) };
    let session = environment.session(Phase::K0rdent);
    tokio::select! {
        biased;
        () = reached.notified() => {}
        ended = session.deploy(text, &loaded.config, watching) => panic!("{step} was not reached: {}", ended.is_ok()),
    }
}

/// A machine has a token, and cannot use it until it has expired; then a deployment goes on.
async fn comes_in_late(text: &str, step: &'static str) {
    let environment = Environment::new(text, 11);
    killed_when_installed(&environment, text, step).await;
    engine::pause(TOO_LONG).await;
    environment.deploy().await.expect("a deployment that goes on");
    assert_eq!(environment.check().await, []);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_token_has_expired_gets_a_new_one() {
    comes_in_late(&configuration(1, 3), "k0s/k0s-worker-3/worker").await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_whose_token_has_expired_gets_a_new_one() {
    comes_in_late(&configuration(3, 0), "k0s/k0s-controller-2/controller").await;
}

/// A kubelet registers its node when it starts, and never again.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_node_was_deleted_joins_again() {
    let environment = Environment::new(&configuration(1, 2), 12);
    environment.deploy().await.expect("a deployment");
    let deleted = environment.stage.twin.with(|world| {
        let cluster = twin::machine::memberships(world)[0].cluster;
        twin::kube::kubectl(world, cluster, &["delete", "node", "k0s-worker-2"].map(str::to_owned))
    });
    assert_eq!(deleted.0, 0, "{deleted:?}");
    assert_eq!(environment.check().await, [("node-missing", "k0s-worker-2".to_owned())]);
    environment.deploy().await.expect("a repair");
    assert_eq!(environment.check().await, []);
}

/// It is a member of etcd with all its data: it needs to be started, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_controller_whose_k0s_was_stopped_comes_back_as_it_was() {
    let environment = Environment::new(&configuration(3, 1), 13);
    environment.deploy().await.expect("a deployment");
    let stopped = Action::StopUnit { machine: "k0s-controller-2".into(), unit: "k0scontroller".into() };
    environment.stage.twin.with(|world| stopped.perform(world)).expect("a unit that stops");
    assert_eq!(environment.check().await, [("k0s-down", "k0s-controller-2".to_owned())]);
    environment.deploy().await.expect("a repair");
    assert_eq!(environment.check().await, []);
    assert_eq!(environment.ledger(|entry| entry.object.contains("etcd leave")), 0);
}

/// Whoever has no workers any more runs its workloads on its controllers, which were installed without a kubelet.
#[tokio::test(start_paused = true)]
async fn the_last_worker_goes_and_the_controllers_do_its_work() {
    for controllers in [1, 3] {
        let mut environment = Environment::new(&configuration(controllers, 2), 14);
        environment.deploy().await.expect("a deployment");
        for workers in [0, 1] {
            environment.configure(&configuration(controllers, workers));
            environment.deploy().await.expect("another number of workers");
            assert_eq!(environment.check().await, []);
        }
        environment.reset_to_nothing().await;
    }
}

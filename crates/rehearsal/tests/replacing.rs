//! Machines that are made anew, by hand or on evidence; and a cluster that is begun anew where the old one is lost.

mod common;

use std::time::Duration;

use common::{Environment, a_while, configuration, refusal, show};
use deploy::{
    config,
    deployment::Repair,
    preview::Action as Change,
    session::{Finished, Session, SessionError, Watching},
    task::Phase,
};
use engine::{FailureKind, Stop};
use tokio::sync::watch;
use twin::{Action, Fault, FaultKind};

impl Environment {
    fn repairing(&self, repair: &Repair) -> Session {
        let settings = self.stage.settings(self.home(), Phase::K0rdent);
        Session::new(deploy::session::Settings { repair: repair.clone(), ..settings })
    }

    async fn repair(&self, text: &str, repair: &Repair) -> Result<Finished, SessionError> {
        let loaded = config::load(text).expect("a good configuration");
        let (_go_on, stop) = watch::channel(Stop::No);
        self.repairing(repair).deploy(text, &loaded.config, Watching { stop, listener: &show, faults: None }).await
    }

    fn deleted(&self, name: &str) -> usize {
        let ends = format!("/{name}");
        self.ledger(|entry| entry.kind == "change" && entry.verb == "deleted" && entry.object.ends_with(&ends))
    }

    /// What a command on a machine prints, and its exit code.
    async fn on(&self, node: &str, command: &str) -> (u32, String) {
        let deployment = self.session(Phase::K0rdent).look().await.expect("a look");
        let node = deployment.topology.nodes.iter().position(|known| known.name == node).expect("a node");
        let remote = deployment.remote(node).await.expect("a way in");
        let output = remote.try_run(command, None, Duration::from_secs(60)).await.expect("an answer");
        (output.code, output.stdout + &output.stderr)
    }
}

fn replace(name: &str) -> Repair {
    Repair { replace: Some(name.to_owned()), ..Repair::default() }
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_replaced_by_hand_and_is_as_the_others() {
    let text = configuration(3, 1);
    let environment = Environment::new(&text, 7);
    environment.deploy().await.expect("a deployment");
    for name in ["k0s-worker-1", "k0s-controller-1", "k0s-controller-3"] {
        let loaded = config::load(&text).expect("a good configuration");
        let planned = environment.repairing(&replace(name)).plan(&loaded.config).await.expect("a plan");
        let changes = &planned.preview.changes;
        let gone = changes.iter().filter(|change| change.action == Change::Delete);
        let gone: Vec<_> = gone.map(|change| format!("{} {}", change.kind, change.name)).collect();
        assert_eq!(gone, [format!("virtual machine {name}"), format!("disk {name}-osdisk")]);
        let title = format!("replace virtual machine {name}: deleted with its disk, made anew");
        assert!(planned.plan.steps.iter().any(|step| step.title == title));
        environment.repair(&text, &replace(name)).await.expect("a replacement");
        assert_eq!((environment.deleted(name), environment.clusters()), (1, 1), "{name}");
        assert_eq!(environment.check().await, []);
    }
    environment.reset_to_nothing().await;
}

/// A later run makes the machine by itself, and does not name the step that failed any more.
#[tokio::test(start_paused = true)]
async fn a_replacement_that_failed_is_history_when_the_machine_is_there() {
    let text = configuration(3, 3);
    let environment = Environment::new(&text, 7);
    environment.deploy().await.expect("a deployment");
    environment.set_faults(&[Fault { name: FaultKind::Quota, target: None, times: None }]);
    environment.repair(&text, &replace("k0s-worker-1")).await.expect_err("there is no room for a new one");
    environment.set_faults(&[]);
    let finished = environment.deploy().await.expect("a deployment");
    let not_joined: Vec<_> = finished.status.nodes.iter().filter(|node| node.state != "joined").collect();
    assert!(not_joined.is_empty(), "{not_joined:?}");
}

#[tokio::test(start_paused = true)]
async fn what_would_lose_the_cluster_is_not_replaced() {
    let text = configuration(1, 1);
    let environment = Environment::new(&text, 7);
    environment.deploy().await.expect("a deployment");
    let failure = refusal(environment.repair(&text, &replace("k0s-controller-1")).await);
    assert!(failure.message.contains("the only controller"), "{failure}");
    let failure = refusal(environment.repair(&text, &replace("k0s-controller-9")).await);
    assert!(failure.message.contains("there is no machine k0s-controller-9"), "{failure}");
    assert_eq!(failure.kind, FailureKind::Refused);
    let text = configuration(3, 1);
    let environment = Environment::new(&text, 7);
    environment.deploy().await.expect("a deployment");
    environment.delete("k0s-controller-2");
    a_while().await;
    let failure = refusal(environment.repair(&text, &replace("k0s-controller-3")).await);
    assert!(failure.message.contains("quorum"), "{failure}");
    // The one that is lost may be replaced: that is what a deployment does.
    environment.repair(&text, &replace("k0s-controller-2")).await.expect("a replacement");
    assert_eq!(environment.check().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_lost_control_plane_is_begun_anew_when_somebody_says_so() {
    let anew = Repair { start_anew: true, ..Repair::default() };
    for (controllers, lost) in [(1, &["k0s-controller-1"][..]), (3, &["k0s-controller-1", "k0s-controller-3"])] {
        let text = configuration(controllers, 2);
        let environment = Environment::new(&text, 7);
        environment.deploy().await.expect("a deployment");
        let failure = refusal(environment.repair(&text, &anew).await);
        assert!(failure.message.contains("is not lost"), "{failure}");
        lost.iter().for_each(|name| environment.delete(name));
        a_while().await;
        environment.deploy().await.expect_err("the control plane is lost");
        environment.repair(&text, &anew).await.expect("an empty cluster");
        assert_eq!(environment.clusters(), 2);
        assert_eq!(environment.check().await, [], "{controllers}");
        environment.reset_to_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_controller_is_replaced_with_all_it_knows_when_somebody_says_so() {
    let text = configuration(1, 1);
    let environment = Environment::new(&text, 7);
    environment.deploy().await.expect("a deployment");
    let repair = Repair { start_anew: true, ..replace("k0s-controller-1") };
    environment.repair(&text, &repair).await.expect("an empty cluster");
    assert_eq!((environment.clusters(), environment.deleted("k0s-controller-1")), (2, 1));
    assert_eq!(environment.check().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_cloud_init_has_failed_is_replaced_by_the_next_deployment() {
    let text = configuration(1, 1);
    let environment = Environment::new(&text, 7);
    let fault = Fault { name: FaultKind::CloudInitError, target: Some("k0s-worker-1".into()), times: None };
    environment.set_faults(&[fault]);
    environment.deploy().await.expect_err("cloud-init fails");
    environment.set_faults(&[]);
    let loaded = config::load(&text).expect("a good configuration");
    let planned = environment.session(Phase::K0rdent).plan(&loaded.config).await.expect("a plan");
    let line = planned.plan.steps.iter().find(|step| step.title.starts_with("replace")).expect("a line of its own");
    assert!(line.title.contains("k0s-worker-1") && line.why.contains("cloud-init"), "{line:?}");
    environment.deploy().await.expect("a deployment");
    assert_eq!((environment.deleted("k0s-worker-1"), environment.deleted("k0s-controller-1")), (1, 0));
    assert_eq!(environment.check().await, []);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn kubectl_works_on_every_machine_and_comes_back() {
    let environment = Environment::new(&configuration(3, 1), 7);
    environment.deploy().await.expect("a deployment");
    for node in ["k0s-controller-1", "k0s-controller-2", "k0s-worker-1"] {
        let (code, text) = environment.on(node, "kubectl get nodes").await;
        assert!(code == 0 && text.contains("k0s-worker-1"), "{node}: {code} {text}");
    }
    let remove = |path: &str| {
        let action = Action::RemoveFile { machine: "k0s-worker-1".into(), path: path.into() };
        environment.stage.twin.with(|world| action.perform(world)).expect("a removal");
    };
    for path in ["/home/k0rdent/.kube", "/usr/local/bin/kubectl"] {
        remove(path);
        assert_eq!(environment.check().await, [("kubectl-missing", "k0s-worker-1".to_owned())]);
        environment.deploy().await.expect("a repair");
        assert_eq!(environment.check().await, []);
    }
    // Whichever controller is lost, the others are reached.
    for lost in ["k0s-controller-1", "k0s-controller-2", "k0s-controller-3"] {
        let unit = |action: Action| environment.stage.twin.with(|world| action.perform(world)).expect("something");
        unit(Action::StopUnit { machine: lost.into(), unit: "k0scontroller".into() });
        let (code, text) = environment.on("k0s-worker-1", "kubectl get nodes").await;
        assert!(code == 0 && text.contains("k0s-worker-1"), "without {lost}: {code} {text}");
        environment.deploy().await.expect("a repair");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_and_not_recorded_is_known_to_the_next_run() {
    use engine::runner::{FaultInjector, FaultPoint, Injection};
    let text = configuration(1, 1);
    let environment = Environment::new(&text, 7);
    let loaded = config::load(&text).expect("a good configuration");
    let faults: FaultInjector = std::sync::Arc::new(|point, step: &engine::StepId| {
        let dies = point == FaultPoint::AfterEffect && step.as_str().ends_with("/public-address");
        if dies { Injection::Hang } else { Injection::None }
    });
    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = Watching { stop, listener: &show, faults: Some(faults) };
    let session = environment.session(Phase::K0rdent);
    let run = session.deploy(&text, &loaded.config, watching);
    tokio::time::timeout(Duration::from_secs(120), run).await.expect_err("the run dies");
    environment.deploy().await.expect("a deployment");
    for node in ["k0s-controller-1", "k0s-worker-1"] {
        assert_eq!(environment.on(node, "true").await.0, 0);
    }
    let status = deploy::session::status_of(environment.home()).expect("a status");
    assert!(status.nodes.iter().all(|node| node.public_ip.is_some()), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_goes_down_while_k0rdent_is_installed_is_up_at_the_end() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::K0s).await.expect("Kubernetes");
    let stop = async {
        engine::pause(Duration::from_secs(60)).await;
        let action = Action::StopUnit { machine: "k0s-worker-1".into(), unit: "wg-quick@wg0.service".into() };
        environment.stage.twin.with(|world| action.perform(world)).expect("a stop");
    };
    let (finished, ()) = tokio::join!(environment.deploy(), stop);
    finished.expect("a deployment");
    assert_eq!(environment.check().await, []);
}

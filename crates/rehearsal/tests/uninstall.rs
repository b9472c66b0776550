//! Back by one state and forward again: `uninstall k0rdent` and `uninstall k0s`, from any interruption, with child
//! clusters, and with finalizers that nobody clears.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::{Environment, configuration};
use deploy::{
    kubernetes::{CLUSTER_DEPLOYMENT, Kind},
    leftovers::Leftover,
    recipe::{Manner, Part},
    session::{Finished, Session, SessionError, Teardown, Watching},
    task::Phase,
};
use engine::{
    Intent, Stop,
    runner::{FaultInjector, FaultPoint, Injection},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use twin::{Fault, FaultKind};

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
    let (state, _) = environment.session(Phase::K0rdent).recorded().expect("a journal").expect("records");
    let kubeconfigs: Vec<_> = state.artifacts.keys().filter(|file| file.starts_with("kubeconfig/")).collect();
    assert_eq!(kubeconfigs, [] as [&String; 0], "what is gone is not on the list of what was made");
    assert_eq!(environment.check().await, []);
    assert_eq!(environment.deploy().await.expect("k0s and k0rdent again").status.phase, "k0rdent_deployed");
    assert_eq!(environment.deploy().await.expect("nothing to do").steps_run, 0);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn k0s_stays_on_all_machines_if_one_does_not_answer() {
    let environment = Environment::new(&configuration(1, 2), 7);
    environment.deploy_until(Phase::K0s).await.expect("k0s");
    let silent = Fault { name: FaultKind::SshHang, target: Some("k0s-worker-2".to_owned()), times: None };
    environment.set_faults(&[silent]);
    let refused = failures(uninstall(&environment, Part::K0s, None).await);
    assert!(refused.contains("k0s cannot be taken off k0s-worker-2"), "{refused}");
    assert_eq!(phase(&environment), "k0s_deployed");
    environment.set_faults(&[]);
    assert_eq!(environment.deploy_until(Phase::K0s).await.expect("nothing has happened").steps_run, 0);
    uninstall(&environment, Part::K0s, None).await.expect("k0s goes");
    assert_eq!(phase(&environment), "vms_ready");
}

/// Fails (or hangs, as a program does that is killed) at the `number`th instant at which that is possible.
fn at(number: usize) -> (FaultInjector, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    let inject = move |point: FaultPoint, _: &engine::StepId| {
        let here = count.fetch_add(1, Ordering::Relaxed) == number;
        let how = if point == FaultPoint::AfterEffect { Injection::Hang } else { Injection::Fail };
        if here { how } else { Injection::None }
    };
    (Arc::new(inject), reached)
}

/// Uninstalls a part with an interruption at every instant in turn; then again to the end, and forward again.
async fn interrupted_everywhere(part: Part, expected: &str) {
    let environment = Environment::new(&configuration(1, 1), 7);
    for number in 0.. {
        environment.deploy().await.expect("a deployment");
        if part == Part::K0s {
            uninstall(&environment, Part::K0rdent, None).await.expect("k0rdent goes");
        }
        let (injector, reached) = at(number);
        let run = uninstall(&environment, part, Some(injector));
        let ended = tokio::time::timeout(std::time::Duration::from_secs(7200), run).await;
        if reached.load(Ordering::Relaxed) <= number {
            ended.expect("an end").expect("nothing was in its way");
            assert!(number > 8, "only {number} instants");
            break;
        }
        let status = deploy::session::status_of(environment.home()).expect("a status");
        assert!(!matches!(ended, Ok(Ok(_))), "{number}: {status:?}");
        assert_eq!(status.next, format!("k0rdentctl {}", part.command()), "{number}");
        // Before the first effect everything is as it was, and `deploy` goes on; after it, it says what to finish.
        match environment.deploy().await {
            Ok(_) if part == Part::K0rdent => {}
            Ok(_) => _ = uninstall(&environment, Part::K0rdent, None).await.expect("k0rdent goes again"),
            refused => {
                let refused = failures(refused);
                assert!(refused.contains(part.command()), "{number}: {refused}");
            }
        }
        let finished = uninstall(&environment, part, None).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(finished.status.phase, expected, "{number}");
    }
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn k0rdent_goes_after_any_interruption() {
    interrupted_everywhere(Part::K0rdent, "k0s_deployed").await;
}

#[tokio::test(start_paused = true)]
async fn k0s_goes_after_any_interruption() {
    interrupted_everywhere(Part::K0s, "vms_ready").await;
}

/// A session that deletes child clusters.
fn with_children(environment: &Environment) -> Session {
    let mut settings = environment.stage.settings(environment.home(), Phase::K0rdent);
    settings.with_children = true;
    Session::new(settings)
}

async fn apply(environment: &Environment, kind: Kind, namespace: Option<&str>, object: &Value) {
    let deployment = environment.session(Phase::K0rdent).look().await.expect("a deployment to look at");
    let kubernetes = deployment.kubernetes().await.expect("a way into the cluster");
    kubernetes.apply(&Intent::for_tests(), kind, namespace, object).await.expect("an object");
}

/// A child cluster with one controller and one worker, its machines running.
async fn make_child(environment: &Environment, name: &str) {
    let config = json!({"location": "westus2", "controlPlaneNumber": 1, "workersNumber": 1});
    let object = json!({
        "apiVersion": "k0rdent.mirantis.com/v1beta1", "kind": "ClusterDeployment",
        "metadata": {"name": name, "namespace": "kcm-system"},
        "spec": {"template": "azure-standalone-cp-1-0-8", "config": config},
    });
    apply(environment, CLUSTER_DEPLOYMENT, Some("kcm-system"), &object).await;
    engine::pause(std::time::Duration::from_secs(60)).await;
    assert_eq!(machines(environment, name), 2);
}

fn machines(environment: &Environment, group: &str) -> usize {
    let part = format!("/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/");
    let resources = environment.stage.twin.with(|world| twin::azure::resources(world));
    resources.iter().filter(|resource| resource["id"].as_str().is_some_and(|id| id.contains(&part))).count()
}

#[tokio::test(start_paused = true)]
async fn child_clusters_stop_a_teardown_or_go_first() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    make_child(&environment, "child-a").await;
    make_child(&environment, "child-b").await;
    for result in [environment.reset().await, uninstall(&environment, Part::K0rdent, None).await] {
        let refused = failures(result);
        assert!(refused.contains("2 child clusters exist: kcm-system/child-a, kcm-system/child-b"), "{refused}");
        assert!(refused.contains("--with-children"), "{refused}");
    }
    assert_eq!((machines(&environment, "child-a"), phase(&environment)), (2, "k0rdent_deployed"));
    assert_eq!(environment.deploy().await.expect("nothing has happened").steps_run, 0);

    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = Watching { stop, listener: &common::show, faults: None };
    with_children(&environment).reset(&Teardown::default(), watching).await.expect("a teardown with its children");
    assert_eq!(environment.stage.twin.with(|world| twin::azure::resources(world)), [] as [Value; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_go_stops_the_teardown() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    make_child(&environment, "child-a").await;
    environment.set_faults(&[Fault { name: FaultKind::ChildDeletionHang, target: None, times: None }]);
    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = || Watching { stop: stop.clone(), listener: &common::show, faults: None };
    let refused = failures(with_children(&environment).reset(&Teardown::default(), watching()).await);
    assert!(refused.contains("kcm-system/child-a: finalizer k0rdent.mirantis.com/cluster-deployment"), "{refused}");
    assert_eq!(machines(&environment, "child-a"), 2);
    environment.set_faults(&[]);
    with_children(&environment).reset(&Teardown::default(), watching()).await.expect("a teardown");
    assert_eq!(environment.stage.twin.with(|world| twin::azure::resources(world)), [] as [Value; 0]);
}

/// Without keys nobody can ask the cluster for its children, and once its machines are gone nobody ever will: that it may have
/// had some is said at the end all the same, wherever the teardown was killed.
#[tokio::test(start_paused = true)]
async fn children_that_nobody_could_ask_for_are_not_forgotten() {
    for number in 0.. {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy().await.expect("a deployment");
        make_child(&environment, "child-a").await;
        fs_err::remove_file(environment.home().join("keys.json")).expect("keys");
        let forced = Teardown { manner: Manner::Force, ..Teardown::default() };
        let (_go_on, stop) = watch::channel(Stop::No);
        let struck = Arc::new(tokio::sync::Notify::new());
        let (reached, strike) = (AtomicUsize::new(0), Arc::clone(&struck));
        let inject = move |_: FaultPoint, _: &engine::StepId| {
            if reached.fetch_add(1, Ordering::Relaxed) < number {
                return Injection::None;
            }
            strike.notify_one();
            Injection::Hang
        };
        let watching = Watching { stop, listener: &common::show, faults: Some(Arc::new(inject)) };
        let session = environment.session(Phase::K0rdent);
        let ended = tokio::select! {
            biased;
            () = struck.notified() => None,
            ended = session.reset(&forced, watching) => Some(ended),
        };
        let is_over = ended.is_some();
        let finished = match ended {
            Some(finished) => finished,
            None => environment.reset_as(&forced).await,
        };
        let children = finished.expect("a teardown").children;
        assert!(children.iter().any(|left| left.id.contains("child-a")), "killed at {number}: {children:?}");
        if is_over {
            assert!(number > 5, "{number}");
            return;
        }
    }
}

/// The notes in the journal.
fn notes(environment: &Environment) -> String {
    let (_, records) = environment.session(Phase::K0rdent).recorded().expect("a journal").expect("records");
    let note = |record: &engine::Record| match &record.event {
        engine::Event::Noted { text, .. } => Some(text.clone()),
        _ => None,
    };
    records.iter().filter_map(note).collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_whose_controller_is_gone_is_cleared_and_named() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    environment.set_faults(&[Fault { name: FaultKind::FinalizerStuck, target: None, times: None }]);
    uninstall(&environment, Part::K0rdent, None).await.expect("k0rdent goes");
    let notes = notes(&environment);
    let cleared = "Credential left: finalizer k0rdent.mirantis.com/credential is cleared";
    assert!(notes.contains(cleared), "{notes}");
    environment.set_faults(&[]);
    environment.deploy().await.expect("k0rdent again");
}

const CREDENTIAL: Kind =
    Kind { group: "k0rdent.mirantis.com", version: "v1beta1", kind: "Credential", plural: "credentials" };

async fn make_credential(environment: &Environment, finalizers: &[&str]) {
    let object = json!({
        "apiVersion": "k0rdent.mirantis.com/v1beta1", "kind": "Credential",
        "metadata": {"name": "held", "namespace": "kcm-system", "finalizers": finalizers},
        "spec": {"identityRef": {"kind": "AzureClusterIdentity", "name": "held"}},
    });
    apply(environment, CREDENTIAL, Some("kcm-system"), &object).await;
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_of_somebody_else_is_left_and_named() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    make_credential(&environment, &["example.com/hold", "k0rdent.mirantis.com/credential"]).await;
    let failed = failures(uninstall(&environment, Part::K0rdent, None).await);
    assert!(failed.contains("finalizer example.com/hold, which is not one of k0rdent's"), "{failed}");
    assert!(!notes(&environment).contains("example.com"), "{}", notes(&environment));
    assert_eq!(deploy::session::status_of(environment.home()).expect("a status").next, "k0rdentctl uninstall k0rdent");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_whose_controller_still_runs_is_left() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let labels = json!({"app": "other"});
    let containers = json!([{"name": "manager", "image": "example.com/kcm"}]);
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
    let controller = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "kcm-controller-manager", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    });
    apply(&environment, deploy::kubernetes::DEPLOYMENT, Some("default"), &controller).await;
    make_credential(&environment, &["k0rdent.mirantis.com/credential"]).await;
    let failed = failures(uninstall(&environment, Part::K0rdent, None).await);
    assert!(failed.contains("kcm-controller-manager still runs"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn webhooks_that_nobody_answers_go_and_those_of_others_stay() {
    use deploy::kubernetes::VALIDATING_WEBHOOK;
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    for (name, namespace) in [("left", "kcm-system"), ("foreign", "default")] {
        let service = json!({"name": "webhook", "namespace": namespace});
        let webhook = json!({
            "name": "a.example.com", "clientConfig": {"service": service}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        });
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name}, "webhooks": [webhook],
        });
        apply(&environment, VALIDATING_WEBHOOK, None, &object).await;
    }
    uninstall(&environment, Part::K0rdent, None).await.expect("k0rdent goes");
    let deployment = environment.session(Phase::K0rdent).look().await.expect("a deployment to look at");
    let kubernetes = deployment.kubernetes().await.expect("a way into the cluster");
    let left = kubernetes.list(VALIDATING_WEBHOOK, None).await.expect("a list");
    assert_eq!(left.keys().collect::<Vec<_>>(), ["foreign"]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_archives_what_happened_and_removes_what_is_old() {
    let text = configuration(1, 1) + "archive: {retention_days: 7}\n";
    let environment = Environment::new(&text, 7);
    let old = environment.home().join("old_deployments/k0rdent-00000000_2026-12-01_00-00-00");
    let young = environment.home().join("old_deployments/k0rdent-00000000_2027-01-01_00-00-00");
    for directory in [&old, &young] {
        fs_err::create_dir_all(directory).expect("an archive");
    }
    environment.deploy().await.expect("a deployment");
    environment.set_faults(&[Fault { name: FaultKind::SshHang, target: None, times: None }]);
    environment.reset().await.expect_err("no way into the cluster");
    assert!(old.exists(), "nothing is removed before a reset has ended well");
    environment.set_faults(&[]);
    let finished = environment.reset().await.expect("a teardown");
    assert_eq!(finished.expired, std::slice::from_ref(&old));
    assert!(!old.exists() && young.exists());

    let archive = finished.archive.expect("an archive");
    let names = |directory: &std::path::Path| {
        let entries = fs_err::read_dir(directory).expect("a directory").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let files = ["deployment-events.yaml", "deployment-state.yaml", "k0rdent.yaml", "report.json"];
    assert_eq!(names(&archive), files);
    assert_eq!(names(environment.home()), [".gitignore", "README", "old_deployments"]);
    for file in files {
        let content = fs_err::read_to_string(archive.join(file)).expect("a file");
        assert!(!content.contains("PRIVATE KEY") && !content.contains("PrivateKey"), "{file}");
    }
    assert_eq!(fs_err::read_to_string(archive.join("k0rdent.yaml")).expect("the configuration"), text);

    let home = deploy::environment::Environment::new(environment.home());
    let history = deploy::archive::history(&home).expect("a history");
    let report = history.last().expect("an archive").report.clone().expect("a report");
    let outcomes: Vec<_> = report.runs.iter().map(|run| (run.command.as_str(), run.outcome.as_str())).collect();
    assert_eq!(outcomes, [("deploy", "succeeded"), ("reset", "failed"), ("reset", "succeeded")]);
    assert_eq!((report.outcome.as_str(), &report.leftovers), ("succeeded", &json!([])));
    assert!(report.runs[0].steps.iter().any(|step| step.id.as_str() == "k0rdent/management" && step.seconds > 1.0));
    let seen = environment.stage.twin.with(|world| {
        world.ledger.entries.iter().filter(|entry| entry.kind == "request" && entry.actor == "arm").count()
    });
    let counted: u64 = ["reads", "writes", "deletes"].iter().filter_map(|kind| report.requests[kind].as_u64()).sum();
    assert_eq!(counted, seen as u64, "{:?}", report.requests);
    environment.deploy().await.expect("a new deployment");
}

/// A session that leaves child clusters behind.
fn abandoning(environment: &Environment) -> Session {
    let mut settings = environment.stage.settings(environment.home(), Phase::K0rdent);
    settings.abandon_children = true;
    Session::new(settings)
}

const MANNERS: [Manner; 4] = [Manner::Orderly, Manner::Fast, Manner::FastNoWait, Manner::Force];

/// The whole is taken down in that manner; nobody waits for Azure if the manner does not.
async fn teardown(session: &Session, manner: Manner) -> Result<Finished, SessionError> {
    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = Watching { stop, listener: &common::show, faults: None };
    session.reset(&Teardown { manner, ..Teardown::default() }, watching).await
}

#[tokio::test(start_paused = true)]
async fn no_manner_of_teardown_abandons_a_child_cluster_unasked() {
    for manner in MANNERS {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy().await.expect("a deployment");
        make_child(&environment, "child-a").await;
        let session = environment.session(Phase::K0rdent);
        let plan = session.teardown_plan(&Teardown { manner, ..Teardown::default() }).await;
        let children = plan.expect("a plan").expect("a cluster").children;
        assert_eq!((children.names, children.unknown), (vec!["child-a".to_owned()], None));
        assert!(children.cost.usd_per_hour > 0.0 && children.found.len() > 4, "{:?}", children.found);
        let refused = failures(teardown(&session, manner).await);
        assert!(refused.contains("1 child cluster exists: kcm-system/child-a"), "{manner:?}: {refused}");
        assert_eq!((machines(&environment, "child-a"), phase(&environment)), (2, "k0rdent_deployed"), "{manner:?}");
        teardown(&with_children(&environment), manner).await.unwrap_or_else(|error| panic!("{manner:?}: {error}"));
        if manner == Manner::FastNoWait {
            environment.reset().await.expect("the end of it");
        }
        assert_eq!(environment.stage.twin.with(|world| twin::azure::resources(world)), [] as [Value; 0], "{manner:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_behind_of_a_child_cluster_is_named_and_found_later() {
    for manner in [Manner::Orderly, Manner::Fast, Manner::Force] {
        let environment = Environment::new(&configuration(1, 1), 7);
        environment.deploy().await.expect("a deployment");
        make_child(&environment, "child-a").await;
        let finished = teardown(&abandoning(&environment), manner).await.expect("a teardown");
        let machine = |left: &&Leftover| left.id.contains("/virtualMachines/") && left.cluster_id == "child-a";
        assert_eq!(finished.children.iter().filter(machine).count(), 2, "{manner:?}: {:?}", finished.children);
        assert_eq!(machines(&environment, "child-a"), 2, "what is a child's is not deleted");
        let (_, left) = environment.session(Phase::K0rdent).leftovers(None, None).await.expect("a look");
        assert_eq!(left.iter().filter(machine).count(), 2, "{manner:?}: {left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn children_are_not_abandoned_because_nobody_can_be_asked() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    make_child(&environment, "child-a").await;
    environment.set_faults(&[Fault { name: FaultKind::ApiServerHang, target: None, times: None }]);
    for manner in [Manner::Orderly, Manner::Fast] {
        let refused = failures(teardown(&environment.session(Phase::K0rdent), manner).await);
        assert!(refused.contains("nobody can say whether there are child clusters"), "{manner:?}: {refused}");
        assert!(refused.contains("--abandon-children"), "{manner:?}: {refused}");
    }
    // Force needs no answer; what has the tags of children is named all the same.
    let finished = teardown(&environment.session(Phase::K0rdent), Manner::Force).await.expect("a teardown");
    assert!(finished.children.iter().any(|left| left.id.contains("/virtualMachines/")), "{finished:?}");
    assert_eq!(machines(&environment, "child-a"), 2);
}

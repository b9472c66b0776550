//! What people are shown before anything happens, and that it is what happens.

mod common;

use common::{Environment, configuration};
use deploy::{
    config,
    preview::{Action, Preview},
    session::{Agreed, Finished, Planned, SessionError, Watching},
    task::Phase,
    views::PlanView,
};
use engine::Stop;
use tokio::sync::watch;

/// The seed of `rehearse`: others draw other latencies, and a plan says what is usual.
const SEED: u64 = 7;

async fn plan(environment: &Environment, text: &str) -> Planned {
    let config = config::load(text).expect("a good configuration").config;
    environment.session(Phase::K0rdent).plan(&config).await.expect("a plan")
}

async fn deploy_as_agreed(
    environment: &Environment,
    text: &str,
    shown: &Preview,
    to_more: bool,
) -> Result<Finished, SessionError> {
    let config = config::load(text).expect("a good configuration").config;
    let (_go_on, stop) = watch::channel(Stop::No);
    let watching = Watching { stop, listener: &common::show, faults: None };
    let agreed = Agreed { shown: shown.clone(), to_more };
    environment.session(Phase::K0rdent).deploy_as_agreed(text, &config, Some(&agreed), watching).await
}

fn names(preview: &Preview, action: Action) -> Vec<(&str, &str)> {
    let of = preview.changes.iter().filter(|change| change.action == action);
    of.map(|change| (change.kind, change.name.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_how_long_and_how_many_requests_as_a_rehearsal_of_the_same_does() {
    for example in ["single-node", "minimal", "production"] {
        let file = format!("{}/../../examples/{example}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = fs_err::read_to_string(file).expect("the example");
        let view = PlanView::of(&plan(&Environment::new(&text, SEED), &text).await, None);
        let report = common::run(&text, SEED).await;
        let is_close = |said: f64, real: f64| (said / real - 1.0).abs() <= 0.1;
        let requests = view.requests.expect("requests");
        let (seconds, reads) = (view.expected_seconds as f64, requests.reads as f64);
        assert!(is_close(seconds, report.makespan_seconds), "{example}: {seconds} s, {} s", report.makespan_seconds);
        assert!(is_close(reads, report.requests.reads as f64), "{example}: {reads}, {} reads", report.requests.reads);
        assert_eq!(requests.writes as u64, report.requests.writes, "{example}");
    }
}

#[tokio::test(start_paused = true)]
async fn machines_that_go_are_named_before_with_what_that_means() {
    let environment = Environment::new(&configuration(3, 2), 7);
    environment.deploy().await.expect("a deployment");
    let Planned { preview, plan: steps, differences, topology, .. } = plan(&environment, &configuration(1, 1)).await;
    let deleted = names(&preview, Action::Delete);
    let machines: Vec<&str> =
        deleted.iter().filter(|(kind, _)| *kind == "virtual machine").map(|(_, name)| *name).collect();
    assert_eq!(machines, ["k0s-controller-2", "k0s-controller-3", "k0s-worker-2"]);
    assert_eq!(deleted.len(), 12, "each with its disk, its interface and its address: {deleted:?}");
    assert_eq!(
        preview.dangers,
        [
            "deleted, with everything that is stored on them: k0s-controller-2, k0s-controller-3, k0s-worker-2",
            "1 controller instead of 3: no high availability any more; if it is lost, the cluster is lost",
        ]
    );
    assert!(preview.is_destructive());
    let (before, after) = (preview.cost_before.usd_per_hour, preview.cost_after.usd_per_hour);
    assert!((after / before - 0.4).abs() < 0.01, "two of five machines are left: {before} {after}");
    assert_eq!(differences, []);
    let planned = Planned { plan: steps, differences, preview, topology, is_new: false, refusal: None };
    assert_eq!(PlanView::of(&planned, None).requests.expect("requests").deletes, 3);
    let even = plan(&environment, &configuration(2, 2)).await.preview;
    assert_eq!(
        even.dangers[1],
        "2 controllers instead of 3: an even number survives the loss of no more controllers than 1"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_on_request_is_not_damage() {
    let mut environment = Environment::new(&configuration(1, 3), 7);
    environment.deploy().await.expect("a deployment");
    environment.configure(&configuration(1, 1));
    environment.deploy().await.expect("two workers less");
    let planned = plan(&environment, &configuration(1, 4)).await;
    assert_eq!(planned.differences, []);
    let created = names(&planned.preview, Action::Create);
    assert!(created.contains(&("virtual machine", "k0s-worker-3")), "{created:?}");
    environment.configure(&configuration(1, 4));
    environment.deploy().await.expect("three workers more");
    assert_eq!(environment.check().await, []);
}

#[tokio::test(start_paused = true)]
async fn rules_that_follow_the_configuration_are_not_damage() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy().await.expect("a deployment");
    let wider = format!("azure: {{ssh_allowed_from: [192.0.2.0/24]}}\n{}", configuration(1, 1));
    let planned = plan(&environment, &wider).await;
    assert_eq!(planned.differences, []);
    let changed: Vec<_> =
        planned.preview.changes.iter().filter(|change| change.kind == "network security group").collect();
    assert_eq!(changed.len(), 1, "{:?}", planned.preview.changes);
    assert_eq!(
        (changed[0].action, planned.preview.open[1].from.as_slice()),
        (Action::Change, ["192.0.2.0/24".to_owned()].as_slice())
    );
}

#[tokio::test(start_paused = true)]
async fn the_plan_that_was_shown_is_the_plan_that_runs() {
    let text = configuration(1, 2);
    let mut environment = Environment::new(&text, 7);
    environment.deploy().await.expect("a deployment");
    let shown = plan(&environment, &text).await.preview;
    assert_eq!(shown, Preview { changes: Vec::new(), ..shown.clone() }, "nothing to do");
    let delete = twin::Action::DeleteMachine { machine: "k0s-worker-2".into() };
    environment.stage.twin.with(|world| delete.perform(world)).expect("a machine to delete");
    engine::pause(std::time::Duration::from_secs(300)).await;
    let before = environment.ledger(|_| true);
    let Err(SessionError::PlanChanged(more)) = deploy_as_agreed(&environment, &text, &shown, false).await else {
        panic!("more than was shown");
    };
    assert!(more.iter().any(|change| (change.kind, change.name.as_str()) == ("virtual machine", "k0s-worker-2")));
    let wrote = |entry: &twin::Entry| {
        entry.actor == "arm" && !matches!(entry.verb.as_str(), "GET" | "created" | "deleted" | "updated")
    };
    assert_eq!(environment.ledger(|entry| entry.sequence >= before as u64 && wrote(entry)), 0);
    // Whoever has agreed to all that deletes nothing is not asked again for a repair.
    deploy_as_agreed(&environment, &text, &shown, true).await.expect("a repair");
    environment.configure(&configuration(1, 1));
    let fewer = deploy_as_agreed(&environment, &configuration(1, 1), &shown, true).await;
    let Err(SessionError::PlanChanged(more)) = fewer else { panic!("a deletion that was not shown") };
    assert_eq!((more[0].action, more[0].name.as_str()), (Action::Delete, "k0s-worker-2"));
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_a_zone_can_take_down_is_named() {
    let environment = Environment::new(&configuration(3, 1), 7);
    let full = twin::Fault { name: twin::FaultKind::Capacity, target: Some("zone-1".into()), times: None };
    environment.set_faults(&[full]);
    let status = environment.deploy().await.expect("a deployment").status;
    let moved = status.warnings.first().expect("machines in other zones");
    assert!(moved.contains("not in the zone") && moved.contains("k0s-controller-1"), "{moved}");
    let shared = status.warnings.get(1).expect("a zone with two controllers");
    assert!(shared.ends_with("if that zone fails, etcd loses its majority"), "{shared}");
}

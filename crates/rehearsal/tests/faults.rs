//! Each fault alone, on three controllers and two workers: the deployment succeeds, or fails with a message that names
//! the cause; and once the fault is lifted, the next run finishes.

mod common;

use common::{Environment, configuration};
use deploy::session::SessionError;
use twin::{Fault, FaultKind};

fn fault(name: FaultKind, target: &str, times: Option<u32>) -> Fault {
    Fault { name, target: (!target.is_empty()).then(|| target.to_owned()), times }
}

/// Deploys under the fault; returns what went wrong, if anything.
async fn deploy_under(faults: &[Fault]) -> (Environment, Option<String>) {
    deploy_so_many_under(2, faults).await
}

#[expect(clippy::disallowed_methods, reason = "a switch for people who look into a failing test")]
async fn deploy_so_many_under(workers: u16, faults: &[Fault]) -> (Environment, Option<String>) {
    let environment = Environment::new(&configuration(3, workers), 7);
    environment.set_faults(faults);
    let result = environment.deploy().await;
    let message = result.err().map(|error| match &error {
        SessionError::Failed(failures) => failures
            .iter()
            .map(|failure| format!("{} | {}", failure.message, failure.advice.as_deref().unwrap_or("-")))
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    });
    if std::env::var_os("SHOW").is_some() {
        println!("{faults:?} after {:?}: {message:?}", environment.stage.twin.now());
    }
    (environment, message)
}

/// The deployment gets over it by itself.
async fn overcome(faults: &[Fault]) {
    let (environment, message) = deploy_under(faults).await;
    assert_eq!(message, None);
    for fault in faults {
        assert!(
            environment.stage.twin.with(|world| world.faults.struck().contains(&fault.name)),
            "{fault:?} never struck"
        );
    }
    environment.reset_to_nothing().await;
}

/// The deployment fails and says `cause`; without the fault it goes on and finishes.
async fn named(faults: &[Fault], cause: &str) {
    let (environment, message) = deploy_under(faults).await;
    let message = message.expect("a failure");
    assert!(message.contains(cause), "{message}");
    environment.set_faults(&[]);
    environment.deploy().await.expect("a deployment without the fault");
    environment.reset_to_nothing().await;
}

macro_rules! overcome {
    ($($test:ident: $kind:ident $target:literal $times:expr;)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $test() {
            overcome(&[fault(FaultKind::$kind, $target, $times)]).await;
        })*
    };
}

overcome! {
    a_zone_without_capacity: Capacity "zone-2" None;
    a_machine_without_capacity_once: Capacity "k0s-worker-1" Some(1);
    throttling: Throttle "" Some(5);
    an_operation_that_fails_once: OperationFailure "k0s-worker-1-nic" Some(1);
    a_server_in_trouble: ServerError "" Some(5);
    a_lock_of_apt_that_others_keep: AptLock "k0s-worker-1" Some(4);
    a_slow_boot: SlowBoot "k0s-controller-2" None;
    ssh_refused_for_a_while: SshRefused "k0s-worker-2" Some(5);
    ssh_silent_for_a_while: SshHang "k0s-worker-2" Some(2);
}

#[tokio::test(start_paused = true)]
async fn no_capacity_anywhere() {
    named(&[fault(FaultKind::Capacity, "k0s-worker-1", None)], "ZonalAllocationFailed").await;
}

#[tokio::test(start_paused = true)]
async fn too_little_quota() {
    let (environment, message) = deploy_so_many_under(3, &[fault(FaultKind::Quota, "", None)]).await;
    let message = message.expect("a refusal");
    assert!(message.contains("quota") && message.contains("10"), "{message}");
    let writes =
        environment.ledger(|entry| entry.actor == "arm" && matches!(entry.verb.as_str(), "PUT" | "POST" | "PATCH"));
    assert_eq!(writes, 0, "nothing is written before the quota is known to suffice");
    environment.set_faults(&[]);
    environment.deploy().await.expect("a deployment with enough quota");
}

#[tokio::test(start_paused = true)]
async fn an_operation_of_the_network_fails() {
    named(&[fault(FaultKind::OperationFailure, "k0s-worker-1-nic", None)], "InternalOperationError").await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_never_boots() {
    named(&[fault(FaultKind::BootFailure, "k0s-worker-1", None)], "k0s-worker-1").await;
}

#[tokio::test(start_paused = true)]
async fn cloud_init_fails() {
    let (_environment, message) = deploy_under(&[fault(FaultKind::CloudInitError, "k0s-worker-1", None)]).await;
    let message = message.expect("a failure");
    assert!(
        message.contains("cloud-init on k0s-worker-1 ended with error") && message.contains("scripts_user"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_apt_that_nobody_lets_go_of() {
    let faults = [fault(FaultKind::AptLock, "k0s-worker-1", None)];
    named(&faults, "the packages of k0s-worker-1 are installed; last seen: E: Could not get lock").await;
}

#[tokio::test(start_paused = true)]
async fn the_mesh_does_not_come_up() {
    named(
        &[fault(FaultKind::WireguardDown, "k0s-controller-2", None)],
        "wg-quick@wg0.service is active on k0s-controller-2",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn ssh_refused_for_ever() {
    named(&[fault(FaultKind::SshRefused, "k0s-worker-2", None)], "k0s-worker-2 answers SSH").await;
}

#[tokio::test(start_paused = true)]
async fn ssh_silent_for_ever() {
    named(&[fault(FaultKind::SshHang, "k0s-worker-2", None)], "does not answer").await;
}

#[tokio::test(start_paused = true)]
async fn the_first_controller_is_never_ready() {
    named(&[fault(FaultKind::K0sNotReady, "k0s-controller-1", None)], "the API server on k0s-controller-1 is ready")
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_never_ready() {
    named(&[fault(FaultKind::K0sNotReady, "k0s-worker-2", None)], "node k0s-worker-2 is Ready").await;
}

/// How often Flux was asked to try a HelmRelease again.
fn requests_to_flux(environment: &Environment) -> usize {
    environment
        .ledger(|entry| entry.kind == "request" && entry.verb == "PATCH" && entry.object.contains("/helmreleases/"))
}

#[tokio::test(start_paused = true)]
async fn a_component_fails() {
    let faults = [fault(FaultKind::ComponentFailure, "cluster-api-provider-azure", None)];
    let release = "HelmRelease kcm-system/cluster-api-provider-azure";
    let given_up = "has failed for good (Failed to install after 4 attempt(s)), and Flux does not try it again";
    let component = "component cluster-api-provider-azure";
    named(&faults, &format!("{release} {given_up}; 12 of 13 components are ready; {component}: {release}")).await;
}

#[tokio::test(start_paused = true)]
async fn a_component_that_fails_for_good_is_named_at_once_and_left_as_it_is() {
    let environment = Environment::new(&configuration(1, 1), 7);
    environment.set_faults(&[fault(FaultKind::ComponentFailure, "cluster-api-provider-azure", None)]);
    let heard = std::sync::Mutex::new(Vec::new());
    let listener = |message: &engine::Message| {
        if let engine::Message::Progress { step, evidence, elapsed, .. } = message
            && step.id.as_str() == "k0rdent/management"
            && evidence.contains("has failed for good")
        {
            heard.lock().expect("no panic").push(*elapsed);
        }
    };
    environment.deploy_heard(deploy::task::Phase::K0rdent, &listener).await.expect_err("a component fails");
    let first = heard.into_inner().expect("no panic").into_iter().min().expect("it is named");
    assert!(first < std::time::Duration::from_secs(60), "{first:?}");
    assert_eq!(requests_to_flux(&environment), 0);
}

/// Flux is asked to try again what it has given up because of a webhook, and people are told.
async fn tried_again(component: &str, times: u32) {
    let (environment, message) = deploy_under(&[fault(FaultKind::LateWebhook, component, Some(times))]).await;
    assert_eq!(message, None);
    assert_eq!(requests_to_flux(&environment), times as usize);
    let (_, records) = deploy::session::recorded(environment.home()).expect("records").expect("a journal");
    let notes = records.iter().filter_map(|record| match &record.event {
        engine::Event::Noted { text, .. } if text.contains("HelmRelease") => Some(text.as_str()),
        _ => None,
    });
    let notes: Vec<&str> = notes.collect();
    assert_eq!(notes.len(), times as usize, "{notes:?}");
    for (index, note) in notes.iter().enumerate() {
        let begin = format!(
            "HelmRelease kcm-system/{component} had failed for good because a webhook was late (failed calling webhook "
        );
        let end = format!(": i/o timeout): asked Flux to try again, {} of 3", index + 1);
        assert!(note.starts_with(&begin) && note.ends_with(&end) && !note.contains('\n'), "{note}");
    }
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_failed_because_of_a_late_webhook_is_tried_again() {
    tried_again("capi", 1).await;
    tried_again("cluster-api-provider-azure", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_failed_because_of_a_late_webhook_is_tried_again_three_times() {
    tried_again("capi", 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_never_answers_is_named_as_soon_as_flux_was_asked_three_times() {
    let (environment, message) = deploy_under(&[fault(FaultKind::LateWebhook, "capi", None)]).await;
    let message = message.expect("a failure");
    let expected = "HelmRelease kcm-system/capi has failed for good (Failed to install after 4 attempt(s)), though Flux was asked 3 times to try again: Helm install failed for release kcm-system/capi with chart cluster-api@1.1.15: 1 error occurred: * Internal error occurred: failed calling webhook \"vcoreprovider.kb.io\"";
    assert!(message.contains(expected), "{message}");
    assert!(message.contains("`k0rdentctl deploy`"), "{message}");
    assert_eq!(requests_to_flux(&environment), 3);
    let (_, records) = deploy::session::recorded(environment.home()).expect("records").expect("a journal");
    let at = |wanted: &dyn Fn(&engine::Event) -> bool| {
        records.iter().find(|record| wanted(&record.event)).map(|record| record.at)
    };
    let is_step = |step: &engine::StepId| step.as_str() == "k0rdent/management";
    let began =
        at(&|event| matches!(event, engine::Event::StepStarted { step, .. } if is_step(step))).expect("a begin");
    let failed = at(&|event| matches!(event, engine::Event::StepFailed { step, .. } if is_step(step))).expect("an end");
    assert!(failed - began < time::Duration::minutes(8), "{}", failed - began);
    // The next run counts anew.
    environment.set_faults(&[fault(FaultKind::LateWebhook, "capi", Some(1))]);
    environment.deploy().await.expect("a deployment whose webhook answers at last");
    assert_eq!(requests_to_flux(&environment), 5);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn management_is_never_ready() {
    named(&[fault(FaultKind::ManagementNotReady, "", None)], "Management kcm is Ready").await;
}

#[tokio::test(start_paused = true)]
async fn management_has_another_release() {
    named(&[fault(FaultKind::WrongRelease, "", None)], "its release is \"kcm-0-0-1\", not \"kcm-1-1-1\"").await;
}

/// Somebody assigns a built-in policy to the subscription.
fn assign(environment: &Environment, definition: &str, parameters: serde_json::Value) {
    let properties = serde_json::json!({
        "displayName": "Cost centres",
        "policyDefinitionId": format!("/providers/Microsoft.Authorization/policyDefinitions/{definition}"),
        "parameters": parameters,
    });
    let path = format!(
        "/subscriptions/{}/providers/Microsoft.Authorization/policyAssignments/{}",
        twin::azure::SUBSCRIPTION,
        &definition[..8]
    );
    let action = twin::Action::Put { path, body: serde_json::json!({"properties": properties}) };
    environment.stage.twin.with(|world| action.perform(world)).expect("an assignment");
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_named_with_the_tag_that_it_misses_and_the_key_that_says_it() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    let tag = serde_json::json!({"tagName": {"value": "CostCenter"}});
    assign(&environment, "96670d01-0a4d-4649-9c89-2d3abc0a5025", tag.clone());
    let refusal = common::refusal(environment.deploy().await);
    assert_eq!(refusal.kind, engine::FailureKind::Refused);
    let policy = "the Azure policy \"Require a tag on resource groups\", assigned as \"Cost centres\", forbids it: the tag CostCenter is missing";
    assert!(refusal.message.ends_with(policy), "{}", refusal.message);
    let advice = refusal.advice.expect("advice");
    assert_eq!(advice, "Set azure.tags.CostCenter in the configuration. Then repeat.");
    assert_eq!(environment.stage.twin.with(|world| twin::azure::resources(world)).len(), 0);
    // What it wants of resources is said as well, and what follows the advice is let in.
    assign(&environment, "871b6d14-10aa-478d-b590-94f262ecfa99", tag);
    environment.configure(&(configuration(1, 1) + "azure: {tags: {costcenter: '42'}}\n"));
    environment.deploy().await.expect("a deployment with the tag");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_begins_a_cluster_of_its_own_joins_anew() {
    let faults = [fault(FaultKind::IsolatedController, "k0s-controller-2", Some(1))];
    let (environment, message) = deploy_under(&faults).await;
    assert_eq!(message, None);
    let (struck, members) = environment.stage.twin.with(|world| {
        (world.faults.struck().contains(&FaultKind::IsolatedController), twin::machine::memberships(world))
    });
    let clusters: std::collections::BTreeSet<String> =
        members.iter().map(|member| format!("{:?}", member.cluster)).collect();
    assert!(struck && members.len() == 5 && clusters.len() == 1, "{members:?}");
    let (_, records) = deploy::session::recorded(environment.home()).expect("records").expect("a journal");
    let told = records.iter().any(|record| {
        matches!(&record.event, engine::Event::Noted { text, .. } if text.contains("its etcd is a cluster of its own"))
    });
    assert!(told, "nobody was told");
    environment.reset_to_nothing().await;
}

/// A front end that does not say from where SSH is to be allowed gets no group of rules that lets nobody in.
#[tokio::test(start_paused = true)]
async fn nobody_says_where_ssh_comes_from() {
    let environment = Environment::new(&configuration(1, 1), 7);
    let settings = environment.stage.settings(environment.home(), deploy::task::Phase::K0rdent);
    let session = deploy::session::Session::new(deploy::session::Settings { own_address: None, ..settings });
    let text = configuration(1, 1);
    let loaded = deploy::config::load(&text).expect("a good configuration");
    let (_go_on, stop) = tokio::sync::watch::channel(engine::Stop::No);
    let watching = deploy::session::Watching { stop, listener: &common::show, faults: None };
    let failure = common::refusal(session.deploy(&text, &loaded.config, watching).await);
    assert!(failure.message.contains("nobody has said from where SSH is to be allowed"), "{failure}");
    assert_eq!(
        environment.ledger(|entry| entry.verb == "created" && entry.object.contains("networkSecurityGroups")),
        0
    );
}

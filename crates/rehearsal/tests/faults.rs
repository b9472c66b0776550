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

#[tokio::test(start_paused = true)]
async fn a_component_fails() {
    let faults = [fault(FaultKind::ComponentFailure, "cluster-api-provider-azure", None)];
    named(&faults, "component cluster-api-provider-azure: Helm install failed").await;
}

#[tokio::test(start_paused = true)]
async fn management_is_never_ready() {
    named(&[fault(FaultKind::ManagementNotReady, "", None)], "Management kcm is Ready").await;
}

#[tokio::test(start_paused = true)]
async fn management_has_another_release() {
    named(&[fault(FaultKind::WrongRelease, "", None)], "its release is \"kcm-0-0-1\", not \"kcm-1-1-1\"").await;
}

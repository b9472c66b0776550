//! Tests of the watch against a scripted server.

use engine::Intent;
use serde_json::json;

use super::*;
use crate::azure::scripted::{Script, answer, json as json_answer, with_header};

const MINUTE: Duration = Duration::from_secs(60);

fn watch(script: &Script) -> Watch {
    Watch::new(Arc::new(script.client()), Ids::new("sub", "g"))
}

fn nothing(_: &str) {}

/// Machines `vm-N`, each ready N seconds after the start.
fn growing(count: u32) -> Script {
    let start = Instant::now();
    Script::arm(move |_| {
        let machine = |number: u32| {
            let ready = start.elapsed() >= Duration::from_secs(u64::from(number));
            let state = if ready { "Succeeded" } else { "Creating" };
            json!({"name": format!("VM-{number}"), "properties": {"provisioningState": state}})
        };
        json_answer(200, &json!({"value": (1..=count).map(machine).collect::<Vec<_>>()}))
    })
}

async fn wait_for_all(script: &Script, count: u32) {
    let watch = watch(script);
    let call = Call::within(20 * MINUTE);
    let names: Vec<String> = (1..=count).map(|number| format!("vm-{number}")).collect();
    let waits = names.iter().map(|name| watch.settled(Kind::VirtualMachine, name, call, &nothing));
    for result in futures::future::join_all(waits).await {
        assert_eq!(result.unwrap()["properties"]["provisioningState"], "Succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn many_waits_cost_one_list_each_interval() {
    let script = growing(20);
    wait_for_all(&script, 20).await;
    assert_eq!(script.lines().len(), 21, "one a second");
    let script = growing(200);
    let start = Instant::now();
    wait_for_all(&script, 200).await;
    assert_eq!(script.lines().len(), 101, "one in two seconds");
    assert_eq!(start.elapsed(), Duration::from_secs(200));
}

#[test]
fn waits_can_be_spawned() {
    fn check<T: Send>(_: impl FnOnce(&'static Watch) -> T) {}
    check(|watch| async {
        watch.put(&Intent::for_tests(), Kind::Disk, "d", &json!({}), Call::within(MINUTE), &nothing).await
    });
    check(|watch| async { watch.gone(None, Call::within(MINUTE), &nothing).await });
}

#[tokio::test(start_paused = true)]
async fn waiting_tells_what_it_sees() {
    let script = growing(2);
    let heard = Mutex::new(Vec::new());
    let watch = watch(&script);
    let evidence = |text: &str| lock(&heard).push(text.to_owned());
    watch.settled(Kind::VirtualMachine, "vm-2", Call::within(MINUTE), &evidence).await.unwrap();
    assert_eq!(*lock(&heard), ["Creating, 0 s", "Creating, 1 s", "Succeeded, 2 s"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_explained_by_its_operation() {
    let script = Script::arm(|seen| match seen.path.as_str() {
        "/operation" => json_answer(
            200,
            &json!({"status": "Failed", "error": {"code": "ZonalAllocationFailed", "message": "no capacity"}}),
        ),
        path if path.ends_with("/virtualMachines") => {
            json_answer(200, &json!({"value": [{"name": "vm", "properties": {"provisioningState": "Failed"}}]}))
        }
        _ => with_header(
            answer(201, r#"{"properties":{"provisioningState":"Creating"}}"#),
            "azure-asyncoperation",
            "http://arm.example/operation",
        ),
    });
    let watch = watch(&script);
    let error = watch
        .put(&Intent::for_tests(), Kind::VirtualMachine, "vm", &json!({}), Call::within(MINUTE), &nothing)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "virtualMachines/vm: ZonalAllocationFailed: no capacity");
}

#[tokio::test(start_paused = true)]
async fn without_its_operation_a_machine_explains_itself() {
    let script = Script::arm(|seen| match seen.path.ends_with("/instanceView") {
        true => json_answer(
            200,
            &json!({"statuses": [{"code": "ProvisioningState/failed/OSProvisioningTimedOut", "message": "late"}]}),
        ),
        false => json_answer(200, &json!({"value": [{"name": "vm", "properties": {"provisioningState": "Failed"}}]})),
    });
    let watch = watch(&script);
    let error = watch.settled(Kind::VirtualMachine, "vm", Call::within(MINUTE), &nothing).await.unwrap_err();
    assert_eq!((error.code.as_str(), &*error.message), ("OSProvisioningTimedOut", "late"));
}

#[tokio::test(start_paused = true)]
async fn what_never_appears_is_not_found_and_what_never_ends_is_out_of_time() {
    let script = Script::arm(|_| json_answer(200, &json!({"value": []})));
    let error = watch(&script).settled(Kind::PublicIp, "ip", Call::within(MINUTE), &nothing).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let script = growing(1000);
    let start = Instant::now();
    let error = watch(&script).settled(Kind::VirtualMachine, "vm-999", Call::within(MINUTE), &nothing).await;
    assert!(error.unwrap_err().message.ends_with("last seen: Creating"));
    assert!(start.elapsed() <= MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_machine_is_awaited() {
    let start = Instant::now();
    let script = Script::arm(move |_| {
        let machine = json!({"name": "vm", "properties": {"provisioningState": "Deleting"}});
        let members = if start.elapsed() < Duration::from_secs(9) { vec![machine] } else { vec![] };
        json_answer(200, &json!({"value": members}))
    });
    watch(&script).removed(Kind::VirtualMachine, "vm", Call::within(MINUTE), &nothing).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_or_its_deletion_fails() {
    let start = Instant::now();
    let script = Script::arm(move |_| match start.elapsed() < Duration::from_secs(62) {
        true => json_answer(200, &json!({"properties": {"provisioningState": "Deleting"}})),
        false => answer(404, r#"{"error":{"code":"ResourceGroupNotFound","message":""}}"#),
    });
    watch(&script).gone(None, Call::within(10 * MINUTE), &nothing).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(65));

    let script = Script::arm(|seen| match seen.path.as_str() {
        "/operation" => answer(409, r#"{"error":{"code":"ScopeLocked","message":"locked"}}"#),
        _ => json_answer(200, &json!({"properties": {"provisioningState": "Succeeded"}})),
    });
    let watch = watch(&script);
    let call = Call::within(10 * MINUTE);
    let error = watch.gone(Some("http://arm.example/operation"), call, &nothing).await.unwrap_err();
    assert_eq!((error.code.as_str(), &*error.resource), ("ScopeLocked", "resourceGroups/g"));
    let error = watch.gone(None, call, &nothing).await.unwrap_err();
    assert_eq!(error.code, "ResourceGroupDeletionFailed");
}

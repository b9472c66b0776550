//! Tests of the ARM client against a scripted server.

use std::sync::atomic::AtomicUsize;

use serde_json::json;

use engine::Intent;

use super::*;
use crate::azure::scripted::{Script, answer, json as json_answer, with_header};

const VM: &str = "/subscriptions/sub/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-1";

fn minute() -> Call {
    Call::within(Duration::from_secs(60))
}

/// Answers the first requests from the list, and all later ones with an empty object.
fn sequence(answers: Vec<http::Response<String>>) -> Script {
    let next = AtomicUsize::new(0);
    Script::arm(move |_| {
        answers.get(next.fetch_add(1, Ordering::Relaxed)).cloned().unwrap_or_else(|| answer(200, "{}"))
    })
}

fn error(code: &str) -> String {
    json!({"error": {"code": code, "message": "because"}}).to_string()
}

#[tokio::test(start_paused = true)]
async fn requests_carry_version_token_and_body() {
    let script =
        Script::arm(|_| with_header(answer(201, r#"{"id":1}"#), "azure-asyncoperation", "http://arm.example/op"));
    let answer = script.client().put(&Intent::for_tests(), VM, &json!({"location": "x"}), minute()).await.unwrap();
    assert_eq!((answer.status, answer.operation.as_deref()), (201, Some("http://arm.example/op")));
    let seen = &script.seen()[1];
    assert_eq!((seen.line(), seen.query.as_str()), (format!("PUT {VM}"), "api-version=2024-11-01"));
    assert_eq!(seen.header("authorization"), Some("Bearer T"));
    assert_eq!(seen.json(), json!({"location": "x"}));
}

#[tokio::test(start_paused = true)]
async fn a_429_is_obeyed_and_counted() {
    let script = sequence(vec![with_header(answer(429, error("TooManyRequests")), "retry-after", "17")]);
    let client = script.client();
    let start = Instant::now();
    client.get(VM, minute()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(17));
    let expected = UsageCounts { reads: 2, throttled: 1, repeated: 1, ..UsageCounts::default() };
    assert_eq!(client.usage().counts(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_429_beyond_all_bounds_is_returned_at_once_and_asked_again_within_the_hour() {
    let refused = with_header(answer(429, error("TooManyRequests")), "retry-after", "18446744073709551615");
    let client = sequence(vec![refused]).client();
    assert_eq!(client.get(VM, minute()).await.unwrap_err().class, ErrorClass::Throttled);
    let start = Instant::now();
    client.get(VM, Call::within(Duration::from_secs(2 * 60 * 60))).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(60 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_429_beyond_the_deadline_is_returned_at_once() {
    let script = sequence(vec![with_header(answer(429, error("TooManyRequests")), "retry-after", "90")]);
    let start = Instant::now();
    let refused = script.client().get(VM, minute()).await.unwrap_err();
    assert_eq!((refused.class, refused.retry), (ErrorClass::Throttled, Retry::After(Duration::from_secs(90))));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_503_and_a_busy_resource_are_repeated() {
    let script = sequence(vec![
        answer(503, error("ServerBusy")),
        answer(409, error("AnotherOperationInProgress")),
        with_header(answer(429, error("RetryableErrorDueToAnotherOperation")), "retry-after-ms", "1500"),
    ]);
    let start = Instant::now();
    script.client().put(&Intent::for_tests(), VM, &json!({}), minute()).await.unwrap();
    assert_eq!(script.lines().len(), 4);
    assert!(start.elapsed() >= Duration::from_secs(3) && start.elapsed() <= Duration::from_millis(4600));
}

#[tokio::test(start_paused = true)]
async fn a_failed_action_is_not_repeated_blindly() {
    let script = sequence(vec![answer(503, error("ServerBusy"))]);
    let refused =
        script.client().post(&Intent::for_tests(), &format!("{VM}/start"), &json!({}), minute()).await.unwrap_err();
    assert_eq!((refused.status, script.lines().len()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_renewed_once() {
    let script = sequence(vec![answer(401, error("ExpiredAuthenticationToken"))]);
    script.client().get(VM, minute()).await.unwrap();
    let lines: Vec<String> = script.seen().iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(lines, ["/t/oauth2/v2.0/token", VM, "/t/oauth2/v2.0/token", VM]);

    let script = Script::arm(|_| answer(401, error("InvalidAuthenticationToken")));
    let refused = script.client().get(VM, minute()).await.unwrap_err();
    assert_eq!((refused.class, script.lines().len()), (ErrorClass::Auth, 2));
}

#[tokio::test(start_paused = true)]
async fn lists_follow_their_links_within_azure_only() {
    let script = Script::arm(|seen| match seen.query.as_str() {
        "api-version=2024-11-01" => json_answer(
            200,
            &json!({"value": [1, 2], "nextLink": "http://arm.example/more?api-version=1&$skiptoken=a"}),
        ),
        _ => json_answer(200, &json!({"value": [3]})),
    });
    let members =
        script.client().list("/subscriptions/sub/providers/Microsoft.Compute/virtualMachines", minute()).await;
    assert_eq!(members.unwrap(), [json!(1), json!(2), json!(3)]);

    let script = Script::arm(|_| json_answer(200, &json!({"value": [], "nextLink": "http://evil.example/x"})));
    let refused = script.client().list("/subscriptions", minute()).await.unwrap_err();
    assert_eq!((refused.code.as_str(), script.lines().len()), ("InvalidAddress", 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_for_replication_and_no_longer() {
    let script = sequence(vec![answer(404, error("ResourceGroupNotFound"))]);
    script.client().put(&Intent::for_tests(), VM, &json!({}), minute()).await.unwrap();
    let script = Script::arm(|_| answer(404, error("ResourceGroupNotFound")));
    let start = Instant::now();
    assert!(script.client().put(&Intent::for_tests(), VM, &json!({}), minute()).await.unwrap_err().is_not_found());
    assert!(start.elapsed() >= REPLICATION_TIME && start.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_deleted_and_a_missing_subscription_is_not() {
    let script = sequence(vec![answer(404, error("ResourceNotFound"))]);
    assert_eq!(script.client().delete(&Intent::for_tests(), VM, minute()).await.unwrap().status, 404);
    let script = sequence(vec![answer(404, error("SubscriptionNotFound"))]);
    assert!(script.client().delete(&Intent::for_tests(), VM, minute()).await.is_err());
    let script = sequence(vec![answer(404, error("ResourceNotFound"))]);
    assert!(script.client().find(VM, minute()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_outlasts_its_deadline() {
    let script = Script::arm(|_| answer(200, "{}")).slow(Duration::from_secs(3600));
    let client = script.client();
    let start = Instant::now();
    let refused = client.get(VM, Call::within(Duration::from_secs(90))).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Transport);
    assert_eq!(start.elapsed(), Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn an_operation_runs_succeeds_or_fails() {
    let script = sequence(vec![
        answer(200, r#"{"status":"InProgress"}"#),
        answer(202, ""),
        answer(200, r#"{"status":"Succeeded"}"#),
        answer(200, r#"{"status":"Failed","error":{"code":"ZonalAllocationFailed","message":"full"}}"#),
    ]);
    let client = script.client();
    let url = "http://arm.example/op?api-version=1";
    assert!(matches!(client.operation(url, VM, minute()).await, Ok(Progress::Running(word)) if word == "InProgress"));
    assert!(matches!(client.operation(url, VM, minute()).await, Ok(Progress::Running(_))));
    assert!(matches!(client.operation(url, VM, minute()).await, Ok(Progress::Done)));
    let failed = client.operation(url, VM, minute()).await.unwrap_err();
    assert_eq!(failed.to_string(), "virtualMachines/vm-1: ZonalAllocationFailed: full");
    assert_eq!(failed.status, 200);
}

#[test]
fn versions_are_pinned_by_type() {
    let group = "/subscriptions/s/resourceGroups/g";
    for (path, version) in [
        ("/subscriptions".to_owned(), "2022-12-01"),
        (group.to_owned(), "2021-04-01"),
        ("/subscriptions/s/providers/Microsoft.Compute".to_owned(), "2021-04-01"),
        ("/subscriptions/s/providers/Microsoft.Compute/register".to_owned(), "2021-04-01"),
        ("/subscriptions/s/providers/Microsoft.Compute/skus?$filter=a".to_owned(), "2021-07-01"),
        (format!("{group}/providers/Microsoft.Network/networkInterfaces/n"), "2024-05-01"),
        (format!("{group}/providers/Microsoft.Authorization/locks"), "2020-05-01"),
    ] {
        assert_eq!(api_version(&path), version, "{path}");
    }
}

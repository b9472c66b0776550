//! Long-running operations: their status, and the headers that lead to it.

use serde_json::{Value, json};

use super::call::{Answer, Call, Refusal, Reply, retry_after};
use crate::World;

/// What was asked for; decides what the `Location` answers at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    Delete,
    Action,
}

/// One operation.
pub(super) struct Operation {
    /// The lower-case id of the resource that it is about.
    pub(super) subject: String,
    purpose: Purpose,
    /// `InProgress`, `Succeeded`, `Failed`, `Canceled`.
    status: &'static str,
    started: String,
    ended: Option<String>,
    error: Option<Refusal>,
    /// What an action answers at the end, JSON.
    answer: Option<String>,
    /// World seconds between two polls.
    poll_seconds: u64,
}

/// World seconds between two polls, as Azure asks for them (Azure documentation and guess): network 1 to 10, compute 5
/// to 15, resource groups 15.
pub(super) fn poll_seconds(provider: &str) -> u64 {
    match provider {
        "Microsoft.Network" => 2,
        "Microsoft.Compute" => 10,
        _ => 15,
    }
}

/// Begins an operation on `subject`; answers its name.
pub(super) fn begin(world: &mut World, subject: &str, provider: &str, purpose: Purpose) -> String {
    let name = world.azure.identifier("operation");
    let operation = Operation {
        subject: subject.to_lowercase(),
        purpose,
        status: "InProgress",
        started: world.timestamp(),
        ended: None,
        error: None,
        answer: None,
        poll_seconds: poll_seconds(provider),
    };
    world.azure.operations.insert(name.clone(), operation);
    name
}

/// Begins an action of Resource Manager on `subject` whose result is `answer`; answers its name.
pub(super) fn begin_answer(world: &mut World, subject: &str, answer: String) -> String {
    let name = begin(world, subject, "Microsoft.Network", Purpose::Action);
    if let Some(operation) = world.azure.operations.get_mut(&name) {
        operation.answer = Some(answer);
    }
    name
}

/// How an operation ended, if it has.
pub(super) fn outcome(world: &World, name: &str) -> Option<Result<(), Refusal>> {
    let operation = world.azure.operations.get(name)?;
    operation.ended.as_ref().map(|_| operation.error.clone().map_or(Ok(()), Err))
}

/// Ends an operation, unless it has ended already.
pub(super) fn end(world: &mut World, name: &str, outcome: Result<(), Refusal>) {
    let ended = world.timestamp();
    let Some(operation) = world.azure.operations.get_mut(name) else { return };
    if operation.ended.is_some() {
        return;
    }
    operation.ended = Some(ended);
    operation.status = match &outcome {
        Ok(()) => "Succeeded",
        Err(refusal) if refusal.code == "OperationPreempted" => "Canceled",
        Err(_) => "Failed",
    };
    operation.error = outcome.err();
}

/// What an overtaken operation ends with (Azure documentation).
pub(super) fn preempted() -> Refusal {
    Refusal::new(409, "OperationPreempted", "The operation has been preempted by a more recent operation.")
}

/// The headers that lead to an operation of a typed resource.
pub(super) fn headers(
    world: &World,
    call: &Call,
    provider: &str,
    location: &str,
    name: &str,
    with_location: bool,
) -> Vec<(&'static str, String)> {
    let url = |kind: &str| {
        let (base, version) = (call.base(), call.api_version());
        let subscription = super::SUBSCRIPTION;
        format!(
            "{base}/subscriptions/{subscription}/providers/{provider}/locations/{location}/{kind}/{name}?api-version={version}"
        )
    };
    let mut headers = vec![("azure-asyncoperation", url("operations")), retry_after(world, poll_seconds(provider))];
    if with_location {
        headers.push(("location", url("operationResults")));
    }
    headers
}

fn find<'a>(world: &'a World, name: &str) -> Result<&'a Operation, Refusal> {
    let missing = || Refusal::new(404, "NotFound", format!("The entity was not found: operation '{name}'."));
    world.azure.operations.get(name).ok_or_else(missing)
}

/// `GET` of the `Azure-AsyncOperation` URL.
pub(super) fn status(world: &World, name: &str) -> Answer {
    let operation = find(world, name)?;
    let mut body = json!({"name": name, "status": operation.status, "startTime": operation.started});
    if let Some(ended) = &operation.ended {
        body["endTime"] = json!(ended);
    }
    if let Some(error) = &operation.error {
        body["error"] = error.error();
    }
    let waiting = operation.ended.is_none().then(|| retry_after(world, operation.poll_seconds));
    Ok(Reply::new(200, &body).headers(waiting))
}

/// `GET` of the `Location` URL: 202 until it has ended, then what the operation was for.
pub(super) fn result(world: &World, call: &Call, name: &str) -> Answer {
    let operation = find(world, name)?;
    if operation.ended.is_none() {
        let again = call.url_with("api-version", call.api_version());
        return Ok(Reply::empty(202).header("location", again).headers([retry_after(world, operation.poll_seconds)]));
    }
    if let Some(error) = &operation.error {
        return Err(Refusal { status: 409, ..error.clone() });
    }
    match (operation.purpose, world.azure.store.get(&operation.subject)) {
        (Purpose::Write, Some(_)) => Ok(Reply::text(200, world.azure.store.text(&operation.subject).into())),
        (Purpose::Write, None) => Ok(Reply::new(200, &Value::Null)),
        (Purpose::Delete, _) => Ok(Reply::empty(204)),
        (Purpose::Action, _) => Ok(Reply::text(200, operation.answer.clone().unwrap_or_default())),
    }
}

/// `GET` of the `Location` URL of a resource group's deletion: 202 until it has ended, then 200 (Azure documentation).
pub(super) fn group_result(world: &World, call: &Call, name: &str) -> Answer {
    let reply = result(world, call, name)?;
    Ok(if reply.status == 204 { Reply::empty(200) } else { reply })
}

/// The lower-case id of what an operation is about.
pub(super) fn subject<'a>(world: &'a World, name: &str) -> Option<&'a str> {
    world.azure.operations.get(name).map(|operation| operation.subject.as_str())
}

//! Who may ask Resource Manager, and how often: tokens, API versions, faults of the front door, and throttling.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use http::Method;
use regex::Regex;

use super::{
    call::{Call, Refusal, Reply},
    login, operation, route,
};
use crate::{FaultKind, World};

/// Answers one request to Resource Manager.
pub(super) fn answer(world: &mut World, call: &Call) -> Reply {
    if call.lower == ["metadata", "endpoints"] {
        return super::subscription::endpoints(world, call);
    }
    let mut headers = Vec::new();
    let answer = admit(world, call, &mut headers).and_then(|()| route::route(world, call));
    let reply = answer.unwrap_or_else(|refusal| {
        let challenge = (refusal.status == 401).then(|| login::challenge(world, &refusal));
        refusal.reply(world).headers(challenge)
    });
    reply.headers(headers)
}

fn admit(world: &mut World, call: &Call, headers: &mut Vec<(&'static str, String)>) -> Result<(), Refusal> {
    static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\d{4}-\d{2}-\d{2}(-[a-z.0-9]+)?$").ok());
    login::check(world, call)?;
    let Some(version) = call.query("api-version") else {
        let text = "The api-version query parameter (?api-version=) is required for all requests.";
        return Err(Refusal::new(400, "MissingApiVersionParameter", text));
    };
    if VERSION.as_ref().is_some_and(|pattern| !pattern.is_match(version)) {
        let text = format!("The api-version '{version}' is invalid. The api-version must be a date.");
        return Err(Refusal::new(400, "InvalidApiVersionParameter", text));
    }
    if world.faults.strikes(FaultKind::Throttle, &call.path) {
        return Err(too_many("The request was throttled.", 5));
    }
    if world.faults.strikes(FaultKind::ServerError, &call.path) {
        return Err(Refusal::new(503, "ServiceUnavailable", "The service is temporarily unavailable."));
    }
    throttle(world, call, headers)
}

fn too_many(text: &str, seconds: u64) -> Refusal {
    Refusal::new(429, "TooManyRequests", text).after(seconds)
}

/// Token buckets by name.
#[derive(Default)]
pub(super) struct Buckets(BTreeMap<String, (f64, Duration)>);

/// How much fits into a bucket, and how much flows in each minute.
#[derive(Clone, Copy)]
struct Bucket {
    size: f64,
    per_minute: f64,
}

impl Buckets {
    /// Takes one token: how many are left, or in how many seconds there will be one.
    fn take(&mut self, name: String, bucket: Bucket, now: Duration) -> Result<u64, u64> {
        let (level, since) = self.0.entry(name).or_insert((bucket.size, now));
        let flowed = now.saturating_sub(*since).as_secs_f64() * bucket.per_minute / 60.0;
        *level = (*level + flowed).min(bucket.size);
        *since = now;
        if *level < 1.0 {
            return Err((((1.0 - *level) * 60.0 / bucket.per_minute).ceil() as u64).max(1));
        }
        *level -= 1.0;
        Ok(*level as u64)
    }
}

/// The buckets of Resource Manager, Compute and Network (Azure documentation, 2024-25 figures).
fn throttle(world: &mut World, call: &Call, headers: &mut Vec<(&'static str, String)>) -> Result<(), Refusal> {
    let now = world.now;
    let (class, remaining, remaining_globally, size, per_second) = match call.method {
        Method::GET | Method::HEAD => {
            let names =
                ("x-ms-ratelimit-remaining-subscription-reads", "x-ms-ratelimit-remaining-subscription-global-reads");
            ("reads", names.0, names.1, 250.0, 25.0)
        }
        Method::DELETE => {
            let names = (
                "x-ms-ratelimit-remaining-subscription-deletes",
                "x-ms-ratelimit-remaining-subscription-global-deletes",
            );
            ("deletes", names.0, names.1, 200.0, 10.0)
        }
        _ => {
            let names =
                ("x-ms-ratelimit-remaining-subscription-writes", "x-ms-ratelimit-remaining-subscription-global-writes");
            ("writes", names.0, names.1, 200.0, 10.0)
        }
    };
    let bucket = Bucket { size, per_minute: per_second * 60.0 };
    let left = world.azure.buckets.take(format!("arm/{class}"), bucket, now).map_err(|seconds| {
        let text = format!("Number of '{class}' for subscription '{}' exceeded the limit.", super::SUBSCRIPTION);
        Refusal { code: "SubscriptionRequestsThrottled".into(), ..too_many(&text, seconds) }
    })?;
    headers.push((remaining, left.to_string()));
    let globally = Bucket { size: size * 15.0, per_minute: per_second * 15.0 * 60.0 };
    let left = world.azure.buckets.take(format!("arm/global/{class}"), globally, now);
    headers.push((remaining_globally, left.unwrap_or(0).to_string()));
    match call.lower.iter().map(String::as_str).find(|part| part.starts_with("microsoft.")) {
        Some("microsoft.compute") => throttle_compute(world, call, headers),
        Some("microsoft.network") => {
            let (size, name) = if class == "reads" { (10_000.0, "reads") } else { (1000.0, "writes") };
            let bucket = Bucket { size, per_minute: size / 5.0 };
            let taken = world.azure.buckets.take(format!("network/{name}"), bucket, now);
            taken
                .map(drop)
                .map_err(|seconds| too_many("The network resource provider is throttling requests.", seconds))
        }
        _ => Ok(()),
    }
}

/// Compute counts by kind of request: for each resource, and for the subscription.
fn throttle_compute(world: &mut World, call: &Call, headers: &mut Vec<(&'static str, String)>) -> Result<(), Refusal> {
    let Some((kind, resource)) = compute_request(world, call) else { return Ok(()) };
    let ((of_resource, per_minute), (of_subscription, subscription_per_minute)) = match kind {
        "PutVM" | "UpdateVM" | "DeleteVM" => ((12.0, 4.0), (1500.0, 500.0)),
        "GetVM" => ((36.0, 12.0), (24_000.0, 8000.0)),
        "GetOperation" => ((45.0, 15.0), (15_000.0, 5000.0)),
        _ => ((900.0, 300.0), (900.0, 300.0)),
    };
    let now = world.now;
    let buckets = &mut world.azure.buckets;
    let refuse = |seconds| {
        let text = format!(
            "The server rejected the request because too many requests have been received for this subscription: {kind}."
        );
        too_many(&text, seconds)
    };
    let mut left = 0;
    if let Some(resource) = resource {
        let bucket = Bucket { size: of_resource, per_minute };
        left = buckets.take(format!("compute/{kind}/{resource}"), bucket, now).map_err(refuse)?;
    }
    let bucket = Bucket { size: of_subscription, per_minute: subscription_per_minute };
    let left_of_subscription = buckets.take(format!("compute/{kind}"), bucket, now).map_err(refuse)?;
    let value =
        format!("Microsoft.Compute/{kind}Resource;{left},Microsoft.Compute/{kind}Subscription;{left_of_subscription}");
    headers.push(("x-ms-ratelimit-remaining-resource", value));
    Ok(())
}

/// The kind of a request about virtual machines, and the resource that it is about.
fn compute_request(world: &World, call: &Call) -> Option<(&'static str, Option<String>)> {
    let lower: Vec<&str> = call.lower.iter().map(String::as_str).collect();
    match (call.method.as_str(), lower.as_slice()) {
        ("GET", ["subscriptions", _, "providers", _, "locations", _, "operations" | "operationresults", name]) => {
            Some(("GetOperation", operation::subject(world, name).map(String::from)))
        }
        ("GET", [.., "virtualmachines"]) => Some(("ListVM", None)),
        (
            method,
            ["subscriptions", _, "resourcegroups", group, "providers", _, "virtualmachines", name, action @ ..],
        ) => {
            let kind = match (method, action) {
                ("GET" | "HEAD", _) => "GetVM",
                ("PUT", _) => "PutVM",
                ("DELETE", _) | ("POST", ["deallocate" | "simulateeviction"]) => "DeleteVM",
                _ => "UpdateVM",
            };
            Some((kind, Some(format!("{group}/{name}"))))
        }
        _ => None,
    }
}

//! The activity log: who changed what, from the ledger.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    SUBSCRIPTION, TENANT,
    call::{Answer, Call},
    listing,
};
use crate::{Entry, World};

/// `GET .../providers/Microsoft.Insights/eventtypes/management/values`, the latest first (Azure documentation). The fields
/// are those that clients read: observed with Azure CLI 2.91.0.
pub(super) fn list(world: &World, call: &Call) -> Answer {
    let filter = Filter::new(call.query("$filter").unwrap_or_default());
    let entries = world.ledger.entries.iter().rev().filter(|entry| entry.kind == "change");
    let events = entries.filter_map(|entry| event(world, entry)).filter(|event| filter.matches(event));
    Ok(listing::page(call, events, |event| event.to_string().into()))
}

/// What clients filter by: times, a group, a resource.
struct Filter {
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
    equal: Vec<(String, String)>,
}

impl Filter {
    fn new(text: &str) -> Self {
        static CLAUSE: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?i)(\w+)\s+(eq|ge|le)\s+'?([^'\s]+)'?").ok());
        let mut filter = Self { since: None, until: None, equal: Vec::new() };
        for found in CLAUSE.as_ref().into_iter().flat_map(|pattern| pattern.captures_iter(text)) {
            let time = || OffsetDateTime::parse(&found[3], &Rfc3339).ok();
            match found[2].to_lowercase().as_str() {
                "ge" => filter.since = time(),
                "le" => filter.until = time(),
                _ => filter.equal.push((found[1].to_lowercase(), found[3].to_owned())),
            }
        }
        filter
    }

    fn matches(&self, event: &Value) -> bool {
        let at = event["eventTimestamp"].as_str().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        let Some(at) = at else { return false };
        let field = |name: &str| match name {
            "resourcegroupname" => event["resourceGroupName"].as_str(),
            "resourceid" | "resourceuri" => event["resourceId"].as_str(),
            _ => None,
        };
        self.since.is_none_or(|since| since <= at)
            && self.until.is_none_or(|until| at <= until)
            && self.equal.iter().all(|(name, wanted)| field(name).is_none_or(|it| it.eq_ignore_ascii_case(wanted)))
    }
}

/// One change as an event. That Azure took a Spot machine away is told by an operation whose name is a guess.
fn event(world: &World, entry: &Entry) -> Option<Value> {
    let parts: Vec<&str> = entry.object.split('/').collect();
    let (group, kind) = match parts.as_slice() {
        ["", "subscriptions", _, "resourceGroups", group] => {
            (*group, "Microsoft.Resources/subscriptions/resourceGroups".to_owned())
        }
        ["", "subscriptions", _, "resourceGroups", group, "providers", provider, kind, _] => {
            (*group, format!("{provider}/{kind}"))
        }
        _ => return None,
    };
    let action = match entry.verb.as_str() {
        "created" | "updated" => "write",
        "deleted" => "delete",
        "starting" => "start/action",
        "stopping" => "powerOff/action",
        "deallocating" => "deallocate/action",
        "evicted" => "evict/action",
        _ => return None,
    };
    let named = |name: &str| json!({"value": name, "localizedValue": name});
    let at = (world.options.epoch + Duration::seconds_f64(entry.at_seconds)).format(&Rfc3339).ok()?;
    let event_id = format!("twin-{}", entry.sequence);
    let id = format!("{}/events/{event_id}", entry.object);
    let provider = kind.split('/').next().unwrap_or_default().to_owned();
    Some(json!({
        "id": id, "eventDataId": event_id, "correlationId": event_id, "operationId": event_id, "channels": "Operation",
        "eventName": named("EndRequest"), "category": named("Administrative"), "level": "Informational",
        "eventTimestamp": at, "submissionTimestamp": at, "operationName": named(&format!("{kind}/{action}")),
        "resourceGroupName": group, "resourceProviderName": named(&provider), "resourceType": named(&kind),
        "resourceId": entry.object, "status": named("Succeeded"), "subStatus": named(""),
        "caller": if entry.actor == "arm" { "client" } else { "azure" },
        "subscriptionId": SUBSCRIPTION, "tenantId": TENANT, "description": "",
    }))
}

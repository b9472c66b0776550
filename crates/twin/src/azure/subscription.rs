//! The subscription, its tenant, its locations and its resource providers.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::{Value, json};

use super::{
    SUBSCRIPTION, TENANT,
    call::{Answer, Call, Refusal, Reply},
    catalogue::{self, REGIONS},
    resource::Kind,
};
use crate::World;

/// Resource providers and whether a new subscription has them.
const PROVIDERS: [(&str, bool); 8] = [
    ("Microsoft.Authorization", true),
    ("Microsoft.Compute", true),
    ("Microsoft.ContainerService", false),
    ("Microsoft.ManagedIdentity", true),
    ("Microsoft.Network", true),
    ("Microsoft.Quota", false),
    ("Microsoft.Resources", true),
    ("Microsoft.Storage", false),
];
/// How long a registration takes (guess).
const REGISTRATION: Duration = Duration::from_secs(20);

/// The providers that somebody has to register first, in lower case.
pub(super) fn unregistered_at_first() -> BTreeSet<String> {
    PROVIDERS.iter().filter(|(_, registered)| !registered).map(|(name, _)| name.to_lowercase()).collect()
}

/// `/metadata/endpoints`: how a client finds everything else. Asked before there is a token: `az cloud register` with the
/// address of Resource Manager alone (observed with Azure CLI 2.91.0).
pub(super) fn endpoints(world: &World, call: &Call) -> Reply {
    let base = call.base();
    let one = json!({
        "name": "AzureCloud", "portal": "https://portal.azure.com", "resourceManager": base, "suffixes": {},
        "authentication": {
            "loginEndpoint": world.azure.login_url, "identityProvider": "AAD", "tenant": "common",
            "audiences": ["https://management.core.windows.net/", "https://management.azure.com/", base],
        },
        "graph": "https://graph.windows.net/", "microsoftGraphResourceId": "https://graph.microsoft.com/",
        "graphAudience": "https://graph.windows.net/", "batch": "https://batch.core.windows.net/",
    });
    // The version of 2019 answers a list (Azure CLI source).
    let list = call.api_version().starts_with("2019");
    Reply::new(200, &if list { json!([one]) } else { one })
}

fn body() -> Value {
    json!({
        "id": format!("/subscriptions/{SUBSCRIPTION}"), "subscriptionId": SUBSCRIPTION, "tenantId": TENANT,
        "displayName": "Twin", "state": "Enabled", "authorizationSource": "RoleBased", "managedByTenants": [],
        "subscriptionPolicies": {"locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
    })
}

pub(super) fn list() -> Answer {
    Ok(Reply::new(200, &json!({"value": [body()], "count": {"type": "Total", "value": 1}})))
}

pub(super) fn get() -> Answer {
    Ok(Reply::new(200, &body()))
}

pub(super) fn tenants() -> Answer {
    let tenant = json!({
        "id": format!("/tenants/{TENANT}"), "tenantId": TENANT, "displayName": "Twin", "countryCode": "US",
        "defaultDomain": "twin.onmicrosoft.com", "domains": ["twin.onmicrosoft.com"], "tenantCategory": "Home",
    });
    Ok(Reply::new(200, &json!({"value": [tenant]})))
}

pub(super) fn locations() -> Answer {
    let locations: Vec<Value> = REGIONS
        .iter()
        .map(|(name, display)| {
            // Which logical zone is which physical one differs between subscriptions (Azure documentation).
            let zones: Vec<Value> = [("1", "2"), ("2", "3"), ("3", "1")]
                .iter()
                .map(|(logical, physical)| json!({"logicalZone": logical, "physicalZone": format!("{name}-az{physical}")}))
                .collect();
            let mut location = json!({
                "id": format!("/subscriptions/{SUBSCRIPTION}/locations/{name}"), "name": name, "type": "Region",
                "displayName": display, "regionalDisplayName": display,
                "metadata": {"regionType": "Physical", "regionCategory": "Recommended", "pairedRegion": []},
            });
            if catalogue::has_zones(name) {
                location["availabilityZoneMappings"] = json!(zones);
            }
            location
        })
        .collect();
    Ok(Reply::new(200, &json!({"value": locations})))
}

fn provider_body(world: &World, name: &str) -> Value {
    let registered = !world.azure.unregistered.contains(&name.to_lowercase());
    json!({
        "id": format!("/subscriptions/{SUBSCRIPTION}/providers/{name}"), "namespace": name,
        "registrationState": if registered { "Registered" } else { "NotRegistered" },
        "registrationPolicy": "RegistrationRequired", "resourceTypes": resource_types(name),
    })
}

/// What clients learn API versions from: `az resource` asks for the newest one (observed with Azure CLI 2.91.0).
fn resource_types(provider: &str) -> Vec<Value> {
    let own: &[&str] = match provider {
        "Microsoft.Resources" => &["resourceGroups", "deployments", "tags"],
        "Microsoft.Authorization" => &["locks"],
        _ => &[],
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.provider() == provider).map(Kind::name);
    let locations: Vec<&str> = REGIONS.iter().map(|(_, display)| *display).collect();
    own.iter()
        .copied()
        .chain(kinds)
        .map(|kind| {
            json!({
                "resourceType": kind, "locations": locations, "apiVersions": ["2024-11-01", "2024-05-01"],
                "capabilities": "SupportsTags, SupportsLocation",
            })
        })
        .collect()
}

pub(super) fn providers(world: &World) -> Answer {
    let all: Vec<Value> = PROVIDERS.iter().map(|(name, _)| provider_body(world, name)).collect();
    Ok(Reply::new(200, &json!({"value": all})))
}

fn known(call: &Call) -> Result<&'static str, Refusal> {
    let asked = call.segments[3].as_str();
    let found = PROVIDERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(asked));
    let missing =
        || Refusal::new(404, "InvalidResourceNamespace", format!("The resource namespace '{asked}' is invalid."));
    found.map(|(name, _)| *name).ok_or_else(missing)
}

pub(super) fn provider(world: &World, call: &Call) -> Answer {
    Ok(Reply::new(200, &provider_body(world, known(call)?)))
}

/// `POST .../register`.
pub(super) fn register(world: &mut World, call: &Call) -> Answer {
    if call.method != Method::POST {
        return Err(Refusal::method(call));
    }
    let name = known(call)?;
    let mut body = provider_body(world, name);
    if body["registrationState"] == "NotRegistered" {
        body["registrationState"] = json!("Registering");
        world.after(REGISTRATION, move |world| {
            world.azure.unregistered.remove(&name.to_lowercase());
        });
    }
    Ok(Reply::new(200, &body))
}

/// Writes need a registered provider (Azure documentation).
pub(super) fn check_registered(world: &World, provider: &str, method: &Method) -> Result<(), Refusal> {
    if matches!(*method, Method::GET | Method::HEAD) || !world.azure.unregistered.contains(provider) {
        return Ok(());
    }
    let name = PROVIDERS.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(provider));
    let text = format!(
        "The subscription is not registered to use namespace '{}'. See https://aka.ms/rps-not-found for how to register subscriptions.",
        name.unwrap_or(provider)
    );
    Err(Refusal::new(409, "MissingSubscriptionRegistration", text))
}

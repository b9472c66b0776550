//! Whether Azure will give us the cluster, asked before the first write: everything at once, nothing changed.

use std::{collections::BTreeMap, time::Duration};

use engine::Intent;
use serde_json::{Value, json};
use tokio::time::Instant;

mod image;

use image::{check_image, image};

use super::{
    arm::{ArmClient, Call},
    auth::AuthError,
    error::{ArmError, ErrorClass},
    watch::Evidence,
};
use crate::{config::Image, seam::pause};

/// The resource providers that the cluster needs.
const NAMESPACES: [&str; 2] = ["Microsoft.Compute", "Microsoft.Network"];

/// How often a registration is looked at; it takes a minute or two (Azure documentation).
const REGISTRATION_INTERVAL: Duration = Duration::from_secs(5);

/// What the cluster needs from Azure. Only what does not exist yet counts.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The region.
    pub location: String,
    /// Whether the machines are Spot machines.
    pub spot: bool,
    /// The machines.
    pub nodes: Vec<NodeDemand>,
    /// The image.
    pub image: Image,
}

/// Machines of one size.
#[derive(Debug, Clone)]
pub struct NodeDemand {
    /// The size.
    pub size: String,
    /// How many.
    pub count: u32,
    /// The zones that they go to.
    pub zones: Vec<u8>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The deployment cannot succeed.
    Error,
    /// The deployment may succeed, and somebody should know.
    Warning,
}

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: need {need}; have {have}. {advice}")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub what: String,
    /// What the cluster needs.
    pub need: String,
    /// What there is.
    pub have: String,
    /// What to do.
    pub advice: String,
}

/// What was learned on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The subscription's identifier.
    pub subscription: String,
    /// The subscription's name.
    pub subscription_name: String,
    /// The subscription's tenant, where Azure says it.
    pub tenant: String,
    /// Cores of one machine, by size.
    pub vcpus: BTreeMap<String, u32>,
    /// Zones in which each size can be had.
    pub zones: BTreeMap<String, Vec<u8>>,
    /// The image's version, with `latest` resolved.
    pub image_version: String,
    /// Resource providers that have to be registered first, see [`register`].
    pub unregistered: Vec<String>,
}

impl Finding {
    fn new(severity: Severity, what: &str, need: impl Into<String>, have: impl Into<String>, advice: &str) -> Finding {
        Finding { severity, what: what.into(), need: need.into(), have: have.into(), advice: advice.into() }
    }

    fn error(what: &str, need: impl Into<String>, have: impl Into<String>, advice: &str) -> Finding {
        Finding::new(Severity::Error, what, need, have, advice)
    }

    fn failed(what: &str, error: &ArmError) -> Finding {
        Finding::error(what, "an answer from Azure", format!("{}: {}", error.code, error.message), &error.advice())
    }
}

/// What the preflight found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What was learned on the way.
    pub facts: Facts,
    /// All that stands in the way.
    pub findings: Vec<Finding>,
}

/// Looks at everything, and reports all that stands in the way. An error means that Azure could not be asked.
pub async fn preflight(arm: &ArmClient, demand: &Demand, call: Call) -> Result<Report, ArmError> {
    let mut report = Report::default();
    let Some(subscription) = settle(arm, &mut report, call).await? else { return Ok(report) };
    let (registrations, sizes, image, locks, compute, network) = futures::join!(
        registrations(arm, &subscription, call),
        sizes(arm, &subscription, demand, call),
        image(arm, &subscription, demand, call),
        locks(arm, &subscription, call),
        usages(arm, &subscription, demand, "Compute", call),
        usages(arm, &subscription, demand, "Network", call),
    );
    let Report { facts, findings } = &mut report;
    if let Some(states) = answered("resource providers", registrations, findings)? {
        check_registrations(states, facts, findings);
    }
    let image = check_image(image, demand, facts, findings)?;
    if let Some(sizes) = answered("machine sizes", sizes, findings)? {
        check_zones(&sizes, demand, findings);
        for node in &demand.nodes {
            let size = sizes.get(&node.size.to_ascii_lowercase());
            check_size(size, node, demand, (&image, has_zones(&sizes, &demand.location)), facts, findings);
        }
        if let Some(usages) = answered("compute quota", compute, findings)? {
            check_cores(&usages, &sizes, demand, facts, findings);
        }
    }
    if let Some(usages) = answered("network quota", network, findings)? {
        check_addresses(&usages, demand, findings);
    }
    match locks {
        // Seeing locks needs a permission of its own; not seeing them proves nothing.
        Err(error) if error.class == ErrorClass::Permission => {}
        locks => check_locks(answered("locks", locks, findings)?.unwrap_or_default(), findings),
    }
    Ok(report)
}

/// Settles on the subscription and looks at it; without one there is nothing else to ask.
async fn settle(arm: &ArmClient, report: &mut Report, call: Call) -> Result<Option<String>, ArmError> {
    let found = subscription(arm, call).await;
    match answered("subscription", found, &mut report.findings)? {
        Some(Ok(subscription)) => {
            let text = |key: &str| subscription[key].as_str().unwrap_or_default().to_owned();
            report.facts.subscription_name = text("displayName");
            report.facts.tenant = text("tenantId");
            check_state(&subscription, &mut report.findings);
        }
        Some(Err(finding)) => report.findings.push(finding),
        None => {}
    }
    let Some(id) = arm.subscription().filter(|_| report.findings.iter().all(|found| found.severity != Severity::Error))
    else {
        return Ok(None);
    };
    report.facts.subscription = id.to_owned();
    Ok(Some(id.to_owned()))
}

/// What Azure answered. Its "no" is a finding; no answer at all is an error.
fn answered<T>(what: &str, answer: Result<T, ArmError>, findings: &mut Vec<Finding>) -> Result<Option<T>, ArmError> {
    use ErrorClass::{Throttled, Transport, Unavailable};
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if matches!(error.class, Throttled | Transport | Unavailable) => Err(error),
        // Before its registration a provider answers nothing, and that is a finding already.
        Err(error) if error.code == "MissingSubscriptionRegistration" => Ok(None),
        Err(error) => {
            findings.push(Finding::failed(what, &error));
            Ok(None)
        }
    }
}

/// Logs in and settles on the subscription: the configured one, that of the Azure CLI, or the only one.
pub async fn subscription(arm: &ArmClient, call: Call) -> Result<Result<Value, Finding>, ArmError> {
    match arm.login().await {
        Ok(()) => {}
        Err(error @ AuthError::Unreachable { .. }) => return Err(ArmError::login(&error, "login")),
        Err(error) => {
            let need = "a credential that Azure accepts";
            return Ok(Err(Finding::error("login", need, error.to_string(), &error.advice())));
        }
    }
    if let Some(id) = arm.subscription() {
        return Ok(Ok(arm.get(&format!("/subscriptions/{id}"), call).await?.body));
    }
    let all = arm.list("/subscriptions", call).await?;
    let selected = arm.cli_subscription().await;
    let chosen = match (&selected, all.as_slice()) {
        (_, [only]) => Some(only),
        (Some(selected), all) => all.iter().find(|one| one["subscriptionId"].as_str() == Some(selected)),
        _ => None,
    };
    match chosen.and_then(|one| Some((one, one["subscriptionId"].as_str()?))) {
        Some((one, id)) => {
            arm.choose_subscription(id);
            Ok(Ok(one.clone()))
        }
        None => Ok(Err(undecided(&all))),
    }
}

fn undecided(all: &[Value]) -> Finding {
    let name = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        format!("{} ({})", text("subscriptionId"), text("displayName"))
    };
    let have = if all.is_empty() { "none".to_owned() } else { all.iter().map(name).collect::<Vec<_>>().join(", ") };
    let advice = if all.is_empty() {
        "Have the role Contributor assigned to the credential on a subscription."
    } else {
        "Set azure.subscription_id to one of them."
    };
    Finding::error("subscription", "one subscription", have, advice)
}

fn check_state(subscription: &Value, findings: &mut Vec<Finding>) {
    let state = subscription["state"].as_str().unwrap_or("unknown");
    match state {
        "Enabled" => {}
        // These two can still be used for a while (Azure documentation of subscription states).
        "Warned" | "PastDue" => findings.push(Finding::new(
            Severity::Warning,
            "subscription",
            "state Enabled",
            state,
            "Settle the bill before Azure disables the subscription.",
        )),
        _ => findings.push(Finding::error(
            "subscription",
            "state Enabled",
            state,
            "Enable the subscription in the Azure portal, or use another one.",
        )),
    }
}

async fn registrations(
    arm: &ArmClient,
    subscription: &str,
    call: Call,
) -> Result<Vec<(&'static str, String)>, ArmError> {
    let states = NAMESPACES.map(|namespace| async move {
        let answer = arm.get(&format!("/subscriptions/{subscription}/providers/{namespace}"), call).await?;
        Ok((namespace, answer.body["registrationState"].as_str().unwrap_or("unknown").to_owned()))
    });
    futures::future::try_join_all(states).await
}

fn check_registrations(states: Vec<(&'static str, String)>, facts: &mut Facts, findings: &mut Vec<Finding>) {
    for (namespace, state) in states.into_iter().filter(|(_, state)| state != "Registered") {
        let advice = "It has to be registered first, which takes a minute or two.";
        findings.push(Finding::new(Severity::Warning, namespace, "Registered", state, advice));
        facts.unregistered.push(namespace.to_owned());
    }
}

/// Registers a resource provider and waits until that is done.
pub async fn register(
    proof: &Intent,
    arm: &ArmClient,
    subscription: &str,
    namespace: &str,
    call: Call,
    evidence: Evidence<'_>,
) -> Result<(), ArmError> {
    let provider = format!("/subscriptions/{subscription}/providers/{namespace}");
    arm.post(proof, &format!("{provider}/register"), &json!({}), call).await?;
    let start = Instant::now();
    loop {
        let answer = arm.get(&provider, call).await?;
        let state = answer.body["registrationState"].as_str().unwrap_or("unknown");
        evidence(&format!("{state}, {} s", start.elapsed().as_secs()));
        if state == "Registered" {
            return Ok(());
        }
        if Instant::now() + REGISTRATION_INTERVAL >= call.deadline {
            return Err(ArmError::out_of_time(&provider, state));
        }
        pause(REGISTRATION_INTERVAL).await;
    }
}

/// The machine sizes of the region by lower-case name.
async fn sizes(
    arm: &ArmClient,
    subscription: &str,
    demand: &Demand,
    call: Call,
) -> Result<BTreeMap<String, Value>, ArmError> {
    let location = &demand.location;
    let path =
        format!("/subscriptions/{subscription}/providers/Microsoft.Compute/skus?$filter=location eq '{location}'");
    let all = arm.list(&path, call).await?;
    let machines = all.into_iter().filter(|size| size["resourceType"] == "virtualMachines");
    Ok(machines.filter_map(|size| Some((size["name"].as_str()?.to_ascii_lowercase(), size))).collect())
}

/// Whether the region has zones at all, if somebody wants some.
fn check_zones(sizes: &BTreeMap<String, Value>, demand: &Demand, findings: &mut Vec<Finding>) {
    let mut wanted: Vec<u8> = demand.nodes.iter().flat_map(|node| node.zones.iter().copied()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() || sizes.is_empty() || has_zones(sizes, &demand.location) {
        return;
    }
    let have = format!("none: {} has no availability zones", demand.location);
    let advice =
        "Set cluster.controllers.zones and cluster.workers.zones to [] in the configuration, or choose another region.";
    findings.push(Finding::error("zones", join(&wanted), have, advice));
}

/// Whether any size can be had in a zone of the region.
fn has_zones(sizes: &BTreeMap<String, Value>, location: &str) -> bool {
    sizes.values().any(|size| !zones_of(size, location).is_empty())
}

fn check_size(
    size: Option<&Value>,
    node: &NodeDemand,
    demand: &Demand,
    (image, has_zones): (&Value, bool),
    facts: &mut Facts,
    findings: &mut Vec<Finding>,
) {
    let what = format!("size {}", node.size);
    let location = &demand.location;
    let Some(size) = size.filter(|size| !is_restricted(size)) else {
        let have = if size.is_some() { "none for this subscription" } else { "none" };
        let advice = "Choose another size or region, or ask Azure support for access.";
        findings.push(Finding::error(&what, format!("availability in {location}"), have, advice));
        return;
    };
    let zones = usable_zones(size, location);
    let missing: Vec<String> = node.zones.iter().filter(|zone| !zones.contains(zone)).map(u8::to_string).collect();
    if has_zones && !missing.is_empty() {
        let have = format!("zones {} of {location}", join(&zones));
        let need = format!("zone {}", missing.join(", "));
        findings.push(Finding::error(
            &what,
            need,
            have,
            "Take these zones out of the configuration, or choose another size.",
        ));
    }
    if demand.spot && capability(size, "LowPriorityCapable") == Some("False") {
        let advice = "Choose another size, or set the VM priority to Regular.";
        findings.push(Finding::error(&what, "Spot", "regular only", advice));
    }
    check_fit(&what, size, image, findings);
    if let Some(vcpus) = vcpus(size) {
        facts.vcpus.insert(node.size.clone(), vcpus);
    }
    facts.zones.insert(node.size.clone(), zones);
}

/// Whether the image runs on the size: its architecture, and the generation of its virtual hardware.
fn check_fit(what: &str, size: &Value, image: &Value, findings: &mut Vec<Finding>) {
    let ours = image["architecture"].as_str();
    let theirs = capability(size, "CpuArchitectureType");
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && !ours.eq_ignore_ascii_case(theirs)
    {
        let advice = "Choose an image and sizes of the same architecture.";
        findings.push(Finding::error(what, format!("{ours}, as the image"), theirs, advice));
    }
    let ours = image["hyperVGeneration"].as_str();
    let theirs = capability(size, "HyperVGenerations");
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && !theirs.split(',').any(|generation| generation.trim().eq_ignore_ascii_case(ours))
    {
        let advice = "Choose the image of the other generation (its sku usually ends in gen2, or does not).";
        findings.push(Finding::error(what, format!("generation {ours}, as the image"), theirs, advice));
    }
}

fn capability<'a>(size: &'a Value, name: &str) -> Option<&'a str> {
    let all = size["capabilities"].as_array()?;
    all.iter().find(|capability| capability["name"] == name)?["value"].as_str()
}

fn vcpus(size: &Value) -> Option<u32> {
    capability(size, "vCPUs")?.parse().ok()
}

fn is_restricted(size: &Value) -> bool {
    restrictions(size).any(|restriction| restriction["type"] == "Location")
}

fn restrictions(size: &Value) -> impl Iterator<Item = &Value> {
    size["restrictions"].as_array().into_iter().flatten()
}

fn usable_zones(size: &Value, location: &str) -> Vec<u8> {
    let mut zones = zones_of(size, location);
    for restriction in restrictions(size).filter(|restriction| restriction["type"] == "Zone") {
        let forbidden = numbers(&restriction["restrictionInfo"]["zones"]);
        zones.retain(|zone| !forbidden.contains(zone));
    }
    zones.sort_unstable();
    zones
}

/// The zones of a region that have the size, whoever may use them.
fn zones_of(size: &Value, location: &str) -> Vec<u8> {
    let here = |info: &&Value| info["location"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(location));
    let info = size["locationInfo"].as_array().into_iter().flatten().find(here);
    info.map(|info| numbers(&info["zones"])).unwrap_or_default()
}

fn numbers(value: &Value) -> Vec<u8> {
    value.as_array().into_iter().flatten().filter_map(|zone| zone.as_str()?.parse().ok()).collect()
}

fn join(zones: &[u8]) -> String {
    if zones.is_empty() { "none".to_owned() } else { zones.iter().map(u8::to_string).collect::<Vec<_>>().join(", ") }
}

/// The quotas of a provider in the region: name to (in use, limit).
async fn usages(
    arm: &ArmClient,
    subscription: &str,
    demand: &Demand,
    provider: &str,
    call: Call,
) -> Result<BTreeMap<String, (u64, u64)>, ArmError> {
    let location = &demand.location;
    let path = format!("/subscriptions/{subscription}/providers/Microsoft.{provider}/locations/{location}/usages");
    let all = arm.list(&path, call).await?;
    let one = |usage: &Value| {
        let name = usage["name"]["value"].as_str()?.to_ascii_lowercase();
        // Azure writes some limits as decimals and "no limit" as a negative number (guess).
        let limit = usage["limit"].as_f64()?;
        let limit = if limit < 0.0 { u64::MAX } else { limit as u64 };
        Some((name, (usage["currentValue"].as_f64()? as u64, limit)))
    };
    Ok(all.iter().filter_map(one).collect())
}

fn check_cores(
    usages: &BTreeMap<String, (u64, u64)>,
    sizes: &BTreeMap<String, Value>,
    demand: &Demand,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) {
    let mut cores = 0;
    let mut machines = 0;
    let mut families: BTreeMap<String, u64> = BTreeMap::new();
    for node in &demand.nodes {
        let needed = u64::from(node.count) * u64::from(facts.vcpus.get(&node.size).copied().unwrap_or_default());
        cores += needed;
        machines += u64::from(node.count);
        let family = sizes.get(&node.size.to_ascii_lowercase()).and_then(|size| size["family"].as_str());
        if let Some(family) = family {
            *families.entry(family.to_owned()).or_default() += needed;
        }
    }
    let location = &demand.location;
    if demand.spot {
        // Spot cores have one pool of their own, whatever the family (Azure documentation).
        check_quota(usages, "lowPriorityCores", &format!("Spot cores in {location}"), cores, findings);
    } else {
        check_quota(usages, "cores", &format!("cores in {location}"), cores, findings);
        for (family, needed) in families {
            check_quota(usages, &family, &format!("{family} cores in {location}"), needed, findings);
        }
    }
    check_quota(usages, "virtualMachines", &format!("virtual machines in {location}"), machines, findings);
}

fn check_addresses(usages: &BTreeMap<String, (u64, u64)>, demand: &Demand, findings: &mut Vec<Finding>) {
    let count = demand.nodes.iter().map(|node| u64::from(node.count)).sum();
    // The names differ between versions of the interface; those that are there count.
    for name in ["PublicIPAddresses", "StandardSkuPublicIpAddresses", "IPv4StandardSkuPublicIpAddresses"] {
        check_quota(usages, name, &format!("{name} in {}", demand.location), count, findings);
    }
    check_quota(usages, "NetworkInterfaces", &format!("NetworkInterfaces in {}", demand.location), count, findings);
}

fn check_quota(
    usages: &BTreeMap<String, (u64, u64)>,
    name: &str,
    what: &str,
    needed: u64,
    findings: &mut Vec<Finding>,
) {
    let Some((used, limit)) = usages.get(&name.to_ascii_lowercase()).copied() else { return };
    let free = limit.saturating_sub(used);
    if needed > free {
        let advice = "Request more quota (Azure portal: Subscriptions, Usage + quotas), or choose fewer or smaller \
                      machines, another size family or another region.";
        findings.push(Finding::error(what, needed.to_string(), format!("{free} of {limit}"), advice));
    }
}

/// The locks of the subscription itself. Those of resource groups are none of our business: ours does not exist yet,
/// or its lock is reported by what it stops.
async fn locks(arm: &ArmClient, subscription: &str, call: Call) -> Result<Vec<Value>, ArmError> {
    let all = arm.list(&format!("/subscriptions/{subscription}/providers/Microsoft.Authorization/locks"), call).await?;
    let id = |lock: &Value| lock["id"].as_str().unwrap_or_default().to_ascii_lowercase();
    Ok(all.into_iter().filter(|lock| !id(lock).contains("/resourcegroups/")).collect())
}

fn check_locks(locks: Vec<Value>, findings: &mut Vec<Finding>) {
    for lock in locks {
        let name = format!("lock {}", lock["name"].as_str().unwrap_or_default());
        let advice = "Remove the lock (Azure portal: Locks), or use another subscription.";
        if lock["properties"]["level"] == "ReadOnly" {
            findings.push(Finding::error(&name, "to create resources", "everything is read-only", advice));
        } else {
            let need = "to delete the cluster later";
            findings.push(Finding::new(Severity::Warning, &name, need, "nothing can be deleted", advice));
        }
    }
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;

//! Limits of the subscription, and how much of them is in use.

use serde_json::{Value, json};

use super::{
    call::{Answer, Refusal, Reply},
    catalogue::{SIZES, Size},
    resource::Kind,
    store::MachineFacts,
};
use crate::{FaultKind, World};

/// Cores for each family and for the region: generous, so that large rehearsals fit.
const CORES: u64 = 20_000;
/// Virtual machines in a region (Azure documentation: 25,000).
const MACHINES: u64 = 25_000;
/// Public addresses in a region (Azure documentation: 1000).
const PUBLIC_ADDRESSES: u64 = 1000;
/// Every limit while [`FaultKind::Quota`] is in force.
const SMALL: u64 = 10;

fn limit(world: &World, location: &str, usual: u64) -> u64 {
    if world.faults.holds(FaultKind::Quota, location) { SMALL } else { usual }
}

/// The machines in a region; stopped ones count too (Azure documentation).
fn machines<'a>(world: &'a World, location: &'a str) -> impl Iterator<Item = &'a MachineFacts> {
    let groups = world.azure.groups.keys().map(|group| Kind::VirtualMachine.prefix(group));
    let keys: Vec<String> = groups.collect();
    let store = &world.azure.store;
    keys.into_iter().flat_map(move |prefix| {
        let here = store.under_owned(prefix).filter(move |record| record.location() == location);
        here.filter_map(|record| record.hidden.machine.as_ref())
    })
}

fn cores_used(world: &World, location: &str, counts: impl Fn(&MachineFacts) -> bool) -> u64 {
    machines(world, location).filter(|facts| counts(facts)).map(|facts| facts.cores).sum()
}

/// Refuses a machine that does not fit.
pub(super) fn check_cores(world: &mut World, location: &str, size: &Size, spot: bool) -> Result<(), Refusal> {
    let limit = limit(world, location, CORES);
    let (pools, family): ([Option<(&str, u64)>; 2], String);
    if spot {
        let used = cores_used(world, location, |facts| facts.spot);
        (pools, family) = ([Some(("Low Priority Cores", used)), None], String::new());
    } else {
        family = format!("{} Cores", size.family);
        let in_family = cores_used(world, location, |facts| !facts.spot && facts.family == size.family);
        let used = cores_used(world, location, |facts| !facts.spot);
        pools = [Some(("Total Regional Cores", used)), Some(("", in_family))];
    }
    for (name, used) in pools.into_iter().flatten() {
        if used + size.cores > limit {
            world.faults.strikes(FaultKind::Quota, location);
            let name = if name.is_empty() { &family } else { name };
            return Err(exceeded(location, name, limit, used, size.cores));
        }
    }
    Ok(())
}

/// The text of Azure, which clients take apart.
fn exceeded(location: &str, pool: &str, limit: u64, used: u64, required: u64) -> Refusal {
    let text = format!(
        "Operation could not be completed as it results in exceeding approved {pool} quota. Additional details - Deployment \
         Model: Resource Manager, Location: {location}, Current Limit: {limit}, Current Usage: {used}, Additional Required: \
         {required}, (Minimum) New Limit Required: {}. Setup Alerts when Quota reaches threshold. Learn more at \
         https://aka.ms/quotamonitoring . Submit a request for Quota increase at https://aka.ms/ProdportalCRP by specifying \
         parameters listed in the 'Details' section for deployment to succeed. Please read more about quota limits at \
         https://docs.microsoft.com/en-us/azure/azure-supportability/regional-quota-requests",
        used + required
    );
    Refusal::new(409, "OperationNotAllowed", text)
}

fn count(world: &World, location: &str, kind: Kind) -> u64 {
    let prefixes: Vec<String> = world.azure.groups.keys().map(|group| kind.prefix(group)).collect();
    let store = &world.azure.store;
    let records = prefixes.iter().flat_map(|prefix| store.under(prefix));
    records.filter(|(_, record)| record.location() == location).count() as u64
}

/// Refuses a public address that is one too many.
pub(super) fn check_public_address(world: &mut World, location: &str) -> Result<(), Refusal> {
    let limit = limit(world, location, PUBLIC_ADDRESSES);
    if count(world, location, Kind::PublicAddress) < limit {
        return Ok(());
    }
    world.faults.strikes(FaultKind::Quota, location);
    let text = format!("Cannot create more than {limit} public IP addresses for this subscription in this region.");
    Err(Refusal::new(400, "PublicIPCountLimitReached", text))
}

/// `GET .../locations/{location}/usages`.
pub(super) fn usages(world: &World, provider: &str, location: &str) -> Answer {
    let mut rows: Vec<(String, String, u64, u64)> = Vec::new();
    if provider == "microsoft.compute" {
        let regular = cores_used(world, location, |facts| !facts.spot);
        let spot = cores_used(world, location, |facts| facts.spot);
        let number = machines(world, location).count() as u64;
        rows.push(("cores".into(), "Total Regional vCPUs".into(), regular, limit(world, location, CORES)));
        rows.push(("virtualMachines".into(), "Virtual Machines".into(), number, limit(world, location, MACHINES)));
        rows.push(("lowPriorityCores".into(), "Total Regional Spot vCPUs".into(), spot, limit(world, location, CORES)));
        let mut families: Vec<&str> = SIZES.iter().map(|size| size.family).collect();
        families.dedup();
        for family in families {
            let used = cores_used(world, location, |facts| !facts.spot && facts.family == family);
            rows.push((family.into(), format!("{family} vCPUs"), used, limit(world, location, CORES)));
        }
    } else {
        for (name, kind, usual) in [
            ("VirtualNetworks", Kind::VirtualNetwork, 1000),
            ("NetworkInterfaces", Kind::NetworkInterface, 65_536),
            ("NetworkSecurityGroups", Kind::SecurityGroup, 5000),
            ("PublicIPAddresses", Kind::PublicAddress, PUBLIC_ADDRESSES),
            ("StandardSkuPublicIpAddresses", Kind::PublicAddress, PUBLIC_ADDRESSES),
        ] {
            // Only addresses are refused when there are too many, so only they have a small limit.
            let limit = if kind == Kind::PublicAddress { limit(world, location, usual) } else { usual };
            rows.push((name.into(), name.into(), count(world, location, kind), limit));
        }
    }
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|(name, localized, used, limit)| {
            json!({"unit": "Count", "currentValue": used, "limit": limit, "name": {"value": name, "localizedValue": localized}})
        })
        .collect();
    Ok(Reply::new(200, &json!({"value": rows})))
}

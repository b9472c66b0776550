//! Teardowns and leftovers for people.

use std::{collections::BTreeMap, path::Path, time::Duration};

use deploy::{
    leftovers::{Leftover, cost, short},
    recipe::Manner,
    session::{Finished, TeardownPlan},
};

use super::{count, duration, table};

/// What is about to go: what, how many, what it saves, how long it takes.
pub(crate) fn plan(plan: &TeardownPlan, home: &Path) -> String {
    let seconds = |seconds: u64| duration(Duration::from_secs(seconds));
    let mut rows: Vec<(&str, String)> = vec![("deletes", things(&plan.found)), ("ends", plan.cost.to_string())];
    let takes = format!("usually {}, at most {}", seconds(plan.usual_seconds), seconds(plan.bound_seconds));
    rows.push(("takes", takes));
    if plan.manner == Manner::FastNoWait {
        rows.push(("waits", "for nothing: Azure goes on by itself".to_owned()));
    } else {
        rows.push(("files", format!("all in {} except old_deployments", home.display())));
    }
    rows.extend(plan.skipped.iter().map(|reason| ("skips", reason.clone())));
    rows.extend(plan.strangers.iter().map(|id| ("not ours", short(id))));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, text)| vec![format!("  {what}"), text]).collect();
    let place = match &plan.subscription_id {
        Some(subscription) => format!(" in subscription {subscription} will be deleted"),
        None => " will be taken off its hosts".to_owned(),
    };
    format!("{}{place}:\n{}", plan.cluster_id, table(&rows))
}

/// `2 virtualMachines, 1 resourceGroup`: as Azure calls them.
fn things(found: &[Leftover]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for left in found {
        *kinds.entry(left.kind.rsplit('/').next().unwrap_or_default()).or_default() += 1;
    }
    let known = |kind: &str| match kind.to_ascii_lowercase().as_str() {
        "virtualmachines" => "virtual machine".to_owned(),
        "networkinterfaces" => "network interface".to_owned(),
        "publicipaddresses" => "public IP".to_owned(),
        "virtualnetworks" => "virtual network".to_owned(),
        "networksecuritygroups" => "network security group".to_owned(),
        "sshpublickeys" => "SSH key".to_owned(),
        "disks" => "disk".to_owned(),
        "resourcegroups" => "resource group".to_owned(),
        _ => format!("of {kind}"),
    };
    if kinds.is_empty() {
        return "nothing: nothing of it was found".to_owned();
    }
    kinds.into_iter().map(|(kind, number)| count(number, &known(kind))).collect::<Vec<_>>().join(", ")
}

/// It is gone, and what was not done on the way.
pub(crate) fn gone(cluster: &str, finished: &Finished) -> String {
    let mut rows: Vec<Vec<String>> =
        finished.skipped.iter().map(|reason| vec!["  skipped".to_owned(), reason.clone()]).collect();
    let archive = finished.archive.as_ref().map(|archive| archive.display().to_string()).unwrap_or_default();
    rows.push(vec!["  records".to_owned(), archive]);
    rows.extend(finished.expired.iter().map(|old| vec!["  expired".to_owned(), format!("{}; removed", old.display())]));
    format!("{cluster} is gone: 0 left\n\n{}", table(&rows))
}

/// It is going.
pub(crate) fn accepted(cluster: &str, look: &str, prove: &str) -> String {
    let rows = [["  how it goes", look], ["  prove it", prove]].map(|row| row.map(str::to_owned).to_vec());
    format!("{cluster}: Azure has accepted the deletion and goes on by itself\n\n{}", table(&rows))
}

/// What is left, what it costs, and how to remove it.
pub(crate) fn leftovers(left: &[Leftover], subscription: Option<&str>, cluster: Option<&str>) -> String {
    let of = cluster.map_or_else(|| "any cluster".to_owned(), str::to_owned);
    let place = match subscription {
        Some(subscription) => format!("of {of} in subscription {subscription}"),
        None => "on the hosts".to_owned(),
    };
    if left.is_empty() {
        return format!("0 left {place}");
    }
    let mut rows = vec![["CLUSTER", "WHAT", "USD AN HOUR"].map(str::to_owned).to_vec()];
    rows.extend(left.iter().map(|left| {
        let price = left.usd_per_hour.map_or_else(|| "unknown".to_owned(), |price| format!("{price:.4}"));
        vec![left.cluster_id.clone(), short(&left.id), price]
    }));
    let mut lines = vec![table(&rows), String::new()];
    lines.push(format!("{} left {place}: {}", left.len(), cost(left)));
    let mut removals: Vec<&str> = left.iter().map(|left| left.remove.as_str()).collect();
    removals.sort_unstable();
    removals.dedup();
    lines.extend(removals.iter().map(|remove| format!("remove: {remove}")));
    lines.join("\n")
}

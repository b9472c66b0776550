//! What is left of a cluster in a subscription, found by tag and by name, not by memory.
//!
//! The list of all resources answers from a copy that lags behind by minutes, and goes on showing what is gone (Azure
//! documentation). So it only says where to look; the resource providers' own lists have the last word, and the prices.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    azure::{ArmClient, ArmError, Call, Ids, Kind, inventory::tag, resources},
    prices::{self, Cost},
    topology::{ClusterId, Names},
};

/// The most strangers that are looked at one by one; more than that are believed.
const STRANGERS_LOOKED_AT: usize = 20;

/// A resource that should not exist any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leftover {
    /// Its ARM id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cluster whose it is.
    pub cluster_id: String,
    /// Whether it is surely the cluster's: it has its tag, or is in its group under one of its names. What only has its
    /// name may be somebody else's, and is left to a person.
    pub is_sure: bool,
    /// What it costs, US dollars, about; absent if that is not known.
    pub usd_per_hour: Option<f64>,
    /// The command that removes it.
    pub remove: String,
    /// What belongs to others and keeps it: the ids of what is in a resource group of ours and is not ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
}

impl Leftover {
    /// The kind of resource, if it is one that we make.
    pub fn known_kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.resource_type().eq_ignore_ascii_case(&self.kind))
    }

    /// Whether it is a resource group.
    pub fn is_group(&self) -> bool {
        is_group(&self.kind)
    }

    /// Why it stays, if that is because of others: nothing here deletes what is theirs.
    pub fn kept(&self) -> Option<String> {
        let held_by: Vec<String> = self.held_by.iter().map(|id| short(id)).collect();
        let why = || format!("{}, because it holds what is not ours: {}", short(&self.id), held_by.join(", "));
        (!held_by.is_empty()).then(why)
    }

    /// The name of its resource group; its own name if it is one.
    pub fn group(&self) -> &str {
        group_of(&self.id)
    }
}

/// What leftovers cost together.
pub fn cost(left: &[Leftover]) -> Cost {
    left.iter().map(|left| left.usd_per_hour).collect()
}

/// How a cluster stands of which there is something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is this environment's, or a child of that, and nobody takes it down.
    AliveKnownHere,
    /// It has machines, and its records are elsewhere, or nowhere.
    AliveNotKnownHere,
    /// It has no machine, or a teardown of it was begun here.
    Remains,
}

/// What there is of one cluster together.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// The cluster, or the child cluster.
    pub cluster_id: String,
    /// How it stands.
    pub standing: Standing,
    /// How many machines it has.
    pub machines: usize,
    /// How many resources, the machines with them.
    pub resources: usize,
    /// What they cost.
    pub cost: Cost,
    /// The commands that remove it; only if it remains.
    pub remove: BTreeSet<String>,
    /// What stays because of others, and what that is.
    pub kept: Vec<String>,
}

/// What there is, by cluster. `known`: the clusters that live here; `leaving`: the one that is being taken down here.
pub fn by_cluster(left: &[Leftover], known: &BTreeSet<String>, leaving: Option<&str>) -> Vec<Share> {
    let mut clusters: BTreeMap<&str, Vec<&Leftover>> = BTreeMap::new();
    for found in left {
        clusters.entry(&found.cluster_id).or_default().push(found);
    }
    let share = |(cluster, found): (&str, Vec<&Leftover>)| {
        let machines = found.iter().filter(|found| found.known_kind() == Some(Kind::VirtualMachine)).count();
        let standing = match () {
            () if leaving == Some(cluster) => Standing::Remains,
            () if known.contains(cluster) => Standing::AliveKnownHere,
            () if machines > 0 => Standing::AliveNotKnownHere,
            () => Standing::Remains,
        };
        let remove = found.iter().filter(|_| standing == Standing::Remains).map(|found| found.remove.clone());
        Share {
            cluster_id: cluster.to_owned(),
            standing,
            machines,
            resources: found.len(),
            cost: found.iter().map(|found| found.usd_per_hour).collect(),
            remove: remove.collect(),
            kept: found.iter().filter_map(|found| found.kept()).collect(),
        }
    };
    clusters.into_iter().map(share).collect()
}

/// Everything of one cluster: what has its tag, what has its name, and its resource group.
pub async fn look(
    arm: &ArmClient,
    subscription: &str,
    cluster: &ClusterId,
    call: Call,
) -> Result<Vec<Leftover>, ArmError> {
    let list = |collection: &str, filter: String| {
        let filter = percent_encoding::utf8_percent_encode(&filter, percent_encoding::NON_ALPHANUMERIC).to_string();
        format!("/subscriptions/{subscription}/{collection}?$filter={filter}")
    };
    let by_tag = format!("tagName eq '{}' and tagValue eq '{cluster}'", resources::TAG_CLUSTER);
    let (groups, tagged) = (list("resourcegroups", by_tag.clone()), list("resources", by_tag));
    let named = list("resources", format!("substringof('{cluster}', name)"));
    let own_id = Ids::new(subscription, Names::of(cluster).resource_group).group();
    let (groups, tagged, named, own_group) = futures::try_join!(
        arm.list(&groups, call),
        arm.list(&tagged, call),
        arm.list(&named, call),
        arm.find(&own_id, call)
    )?;
    let is_own = own_group.as_ref().is_some_and(|group| tag(group, resources::TAG_CLUSTER) == Some(cluster.as_str()));
    let members = if is_own { members(arm, subscription, cluster, call).await? } else { Vec::new() };
    let inside = members.iter().filter(|member| is_ours(member, cluster));
    // Lists that were filtered by tag do not show tags (Azure documentation).
    let tagged = groups.iter().chain(&tagged).chain(inside).map(|resource| (resource, cluster.to_string(), true));
    let named = named.iter().chain(&own_group).filter_map(|resource| {
        let (whose, is_sure) = cluster_of(resource)?;
        (whose == cluster.as_str()).then_some((resource, whose, is_sure))
    });
    let mut left = confirmed(arm, subscription, tagged.chain(named).filter_map(leftover).collect(), call).await?;
    if let Some(group) = left.iter_mut().find(|left| is_own && left.id.eq_ignore_ascii_case(&own_id)) {
        group.held_by = strangers_among(arm, members.iter(), cluster, call).await;
    }
    Ok(left)
}

/// Everything of every cluster.
pub async fn look_for_all(arm: &ArmClient, subscription: &str, call: Call) -> Result<Vec<Leftover>, ArmError> {
    let list = |collection: &str| format!("/subscriptions/{subscription}/{collection}");
    let (groups, all) = (list("resourcegroups"), list("resources"));
    let (groups, all) = futures::try_join!(arm.list(&groups, call), arm.list(&all, call))?;
    let seen = groups.iter().chain(&all).filter_map(|resource| {
        let (whose, is_sure) = cluster_of(resource)?;
        leftover((resource, whose, is_sure))
    });
    let mut left = confirmed(arm, subscription, seen.collect(), call).await?;
    for group in left.iter_mut().filter(|left| left.is_sure && left.is_group()) {
        let Ok(cluster) = ClusterId::parse(&group.cluster_id) else { continue };
        let is_inside = |resource: &&Value| {
            let id = resource["id"].as_str().unwrap_or_default();
            group_id(id).eq_ignore_ascii_case(&group.id) && id.len() > group.id.len()
        };
        group.held_by = strangers_among(arm, all.iter().filter(is_inside), &cluster, call).await;
    }
    Ok(left)
}

/// The beginning of the tag with which Cluster API Provider Azure marks what it made for a cluster, and deletes with it;
/// the cluster's name follows (its documentation, ownership tags).
const CHILD_TAG: &str = "sigs.k8s.io_cluster-api-provider-azure_cluster_";

/// What there is of child clusters: of those with these names, or of all in the subscription, whoever manages them.
pub async fn children(
    arm: &ArmClient,
    subscription: &str,
    names: Option<&BTreeSet<String>>,
    call: Call,
) -> Result<Vec<Leftover>, ArmError> {
    let list = |collection: &str| format!("/subscriptions/{subscription}/{collection}");
    let (groups, all) = (list("resourcegroups"), list("resources"));
    let (groups, all) = futures::try_join!(arm.list(&groups, call), arm.list(&all, call))?;
    let wanted = |name: &String| names.is_none_or(|names| names.contains(name));
    // What is in a group that was made for a child goes with it, also disks, which have no tag.
    let of_groups: BTreeMap<String, String> = groups
        .iter()
        .filter_map(|group| Some((group["id"].as_str()?.to_lowercase(), child_of(group).filter(wanted)?)))
        .collect();
    let whose = |resource: &Value| {
        let group = group_id(resource["id"].as_str()?).to_lowercase();
        child_of(resource).filter(wanted).or_else(|| of_groups.get(&group).cloned())
    };
    let seen = groups.iter().chain(&all).filter_map(|resource| {
        let name = whose(resource)?;
        let mut found = leftover((resource, name, false))?;
        if of_groups.contains_key(&group_id(&found.id).to_lowercase()) {
            found.remove = format!("az group delete --name {}", group_of(&found.id));
        }
        Some(found)
    });
    confirmed(arm, subscription, seen.collect(), call).await
}

/// The child cluster that a resource was made for.
fn child_of(resource: &Value) -> Option<String> {
    let tags = resource["tags"].as_object()?;
    let owned = tags.iter().filter(|(_, value)| *value == "owned");
    owned.filter_map(|(tag, _)| tag.strip_prefix(CHILD_TAG)).map(str::to_owned).next()
}

/// The cluster that a resource belongs to, and whether its tag says so; otherwise its name does.
fn cluster_of(resource: &Value) -> Option<(String, bool)> {
    if let Some(whose) = tag(resource, resources::TAG_CLUSTER) {
        return ClusterId::parse(whose).ok().map(|whose| (whose.to_string(), true));
    }
    let name = resource["name"].as_str()?.to_ascii_lowercase();
    let (whose, _) = name.rsplit_once('-')?;
    let whose = ClusterId::parse(whose).ok()?;
    let Names { resource_group, vnet, nsg, ssh_key, .. } = Names::of(&whose);
    let is_ours = if is_group(resource["type"].as_str().unwrap_or_default()) {
        name == resource_group
    } else {
        [vnet, nsg, ssh_key].contains(&name)
    };
    is_ours.then(|| (whose.to_string(), false))
}

fn leftover((resource, whose, is_sure): (&Value, String, bool)) -> Option<Leftover> {
    let id = resource["id"].as_str()?.to_owned();
    let kind = resource["type"].as_str().unwrap_or_default().to_owned();
    let remove = match (is_sure, is_group(&kind)) {
        (true, _) => format!("k0rdentctl reset --force --cluster-id {whose}"),
        (false, true) => format!("az group delete --name {}", group_of(&id)),
        (false, false) => format!("az resource delete --ids {id}"),
    };
    let (usd_per_hour, held_by) = (prices::resource(resource), Vec::new());
    Some(Leftover { id, kind, cluster_id: whose, is_sure, usd_per_hour, remove, held_by })
}

/// Those that their own lists show as well, with their prices; each once, in the order of their ids.
async fn confirmed(
    arm: &ArmClient,
    subscription: &str,
    mut seen: Vec<Leftover>,
    call: Call,
) -> Result<Vec<Leftover>, ArmError> {
    seen.sort_by_key(|left| (left.id.to_lowercase(), !left.is_sure));
    seen.dedup_by(|one, other| one.id.eq_ignore_ascii_case(&other.id));
    let kinds: BTreeSet<Kind> = seen.iter().filter_map(Leftover::known_kind).collect();
    let lists = kinds.iter().map(async |kind| {
        let all = format!("/subscriptions/{subscription}/providers/{}", kind.resource_type());
        arm.list(&all, call).await
    });
    let lists = futures::future::try_join_all(lists).await?;
    let exists: BTreeMap<String, &Value> =
        lists.iter().flatten().filter_map(|body| Some((body["id"].as_str()?.to_lowercase(), body))).collect();
    let mut left = Vec::new();
    for mut found in seen {
        match (found.known_kind(), exists.get(&found.id.to_lowercase())) {
            (Some(_), None) => continue,
            (Some(_), Some(body)) => found.usd_per_hour = prices::resource(body),
            // Of other kinds nobody here knows the list; but nothing is in a group that is not there.
            (None, _) if arm.find(group_id(&found.id), call).await?.is_none() => continue,
            (None, _) => {}
        }
        left.push(found);
    }
    Ok(left)
}

/// The ids of what is in our resource group and not ours: it has another cluster's tag, or neither a tag nor a name of
/// ours, and belongs to nothing of ours.
pub async fn strangers(
    arm: &ArmClient,
    subscription: &str,
    cluster: &ClusterId,
    call: Call,
) -> Result<Vec<String>, ArmError> {
    let members = members(arm, subscription, cluster, call).await?;
    Ok(strangers_among(arm, members.iter(), cluster, call).await)
}

async fn strangers_among(
    arm: &ArmClient,
    members: impl Iterator<Item = &Value> + Clone,
    cluster: &ClusterId,
    call: Call,
) -> Vec<String> {
    let id = |resource: &Value| resource["id"].as_str().unwrap_or_default().to_owned();
    let ours = members.clone().filter(|member| is_ours(member, cluster));
    let ours: Vec<String> = ours.map(|ours| id(ours).to_lowercase()).collect();
    let belongs = |id: &str| {
        let id = id.to_lowercase();
        ours.iter().any(|ours| id.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let mut strangers: Vec<String> = members.map(id).filter(|id| !belongs(id)).collect();
    strangers.sort();
    if strangers.len() <= STRANGERS_LOOKED_AT {
        let mut real = Vec::new();
        for stranger in strangers {
            // The list may show what is gone; what cannot be asked about is believed.
            if !matches!(arm.find(&stranger, call).await, Ok(None)) {
                real.push(stranger);
            }
        }
        return real;
    }
    strangers
}

/// What is in the cluster's resource group, if there is one.
async fn members(arm: &ArmClient, subscription: &str, cluster: &ClusterId, call: Call) -> Result<Vec<Value>, ArmError> {
    let group = Ids::new(subscription, Names::of(cluster).resource_group).group();
    match arm.list(&format!("{group}/resources"), call).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        members => members,
    }
}

/// Whether a resource in our group is ours; somebody may have taken its tags away.
fn is_ours(resource: &Value, cluster: &ClusterId) -> bool {
    match tag(resource, resources::TAG_CLUSTER) {
        Some(whose) => whose == cluster.as_str(),
        None => {
            let name = resource["name"].as_str().unwrap_or_default().to_ascii_lowercase();
            [cluster.as_str(), "k0s-controller-", "k0s-worker-"].iter().any(|ours| name.starts_with(ours))
        }
    }
}

fn is_group(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("Microsoft.Resources/resourceGroups")
}

/// The beginning of an id that names the resource group.
fn group_id(id: &str) -> &str {
    id.match_indices('/').nth(4).map_or(id, |(end, _)| &id[..end])
}

fn group_of(id: &str) -> &str {
    id.split('/').nth(4).unwrap_or_default()
}

/// The end of an id that a person recognises: group and name, or the group alone.
pub fn short(id: &str) -> String {
    let parts: Vec<&str> = id.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [_, _, _, group] => format!("resource group {group}"),
        [_, _, _, group, _, _, rest @ ..] => format!("{} in {group}", rest.join("/")),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_count_more_than_names() {
        let whose = |name: &str, kind: &str, tags: Value| {
            cluster_of(&json!({"name": name, "type": kind, "tags": tags})).map(|(whose, is_sure)| {
                assert_eq!(whose, "k0rdent-abcd1234");
                is_sure
            })
        };
        let group = "Microsoft.Resources/resourceGroups";
        let ours = json!({"K0rdent-Cluster-Id": "k0rdent-abcd1234"});
        assert_eq!(whose("anything", "x/y", ours), Some(true));
        assert_eq!(whose("K0rdent-ABCD1234-resgrp", group, json!({})), Some(false));
        assert_eq!(whose("k0rdent-abcd1234-vnet", "Microsoft.Network/virtualNetworks", json!(null)), Some(false));
        assert_eq!(whose("k0rdent-abcd1234-resgrp", "x/y", json!({})), None);
        assert_eq!(whose("k0rdent-abcd1234-resgrp-old", group, json!({})), None);
        assert_eq!(whose("k0rdent-abcd1234-vnet", "x/y", json!({"k0rdent-cluster-id": "somebody"})), None);
    }

    #[test]
    fn only_what_remains_is_to_be_removed() {
        let found = |cluster: &str, kind: &str| Leftover {
            id: format!("/subscriptions/s/resourceGroups/{cluster}/providers/{kind}/x"),
            kind: kind.to_owned(),
            cluster_id: cluster.to_owned(),
            is_sure: true,
            usd_per_hour: Some(0.5),
            remove: format!("remove {cluster}"),
            held_by: Vec::new(),
        };
        let machine = "Microsoft.Compute/virtualMachines";
        let disk = "Microsoft.Compute/disks";
        let left = [
            found("ours", machine),
            found("ours", disk),
            found("theirs", machine),
            found("old", disk),
            found("going", machine),
        ];
        let known = BTreeSet::from(["ours".to_owned(), "going".to_owned()]);
        let shares = by_cluster(&left, &known, Some("going"));
        let brief: Vec<_> = shares
            .iter()
            .map(|share| {
                (share.cluster_id.as_str(), share.standing, share.machines, share.resources, share.remove.len())
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("going", Standing::Remains, 1, 1, 1),
                ("old", Standing::Remains, 0, 1, 1),
                ("ours", Standing::AliveKnownHere, 1, 2, 0),
                ("theirs", Standing::AliveNotKnownHere, 1, 1, 0),
            ]
        );
    }

    #[test]
    fn ids_are_shortened() {
        assert_eq!(short("/subscriptions/s/resourceGroups/g"), "resource group g");
        let disk = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d";
        assert_eq!(short(disk), "disks/d in g");
    }
}

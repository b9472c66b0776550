//! What is left of a cluster in a subscription, found by tag and by name, not by memory.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::azure::{ArmClient, ArmError, Call, resources};

/// A resource that should not exist any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Its ARM id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Everything that carries the cluster's tag or is in its resource group. Three requests.
pub async fn look(arm: &ArmClient, subscription: &str, cluster: &str, call: Call) -> Result<Vec<Leftover>, ArmError> {
    let filter = |prefix: &str| {
        let text = format!("tagName eq '{}' and tagValue eq '{cluster}'", resources::TAG_CLUSTER);
        let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
        format!("/subscriptions/{subscription}/{prefix}?$filter={encoded}")
    };
    let (groups, resources) = (filter("resourcegroups"), filter("resources"));
    let (groups, tagged) = futures::try_join!(arm.list(&groups, call), arm.list(&resources, call))?;
    let group = format!("/subscriptions/{subscription}/resourceGroups/{cluster}-resgrp");
    let by_name = arm.find(&group, call).await?;
    let mut left: Vec<Leftover> = groups.iter().chain(&tagged).chain(&by_name).filter_map(leftover).collect();
    left.sort_by_key(|left| left.id.to_lowercase());
    left.dedup_by(|one, other| one.id.eq_ignore_ascii_case(&other.id));
    Ok(left)
}

fn leftover(resource: &Value) -> Option<Leftover> {
    Some(Leftover {
        id: resource["id"].as_str()?.to_owned(),
        kind: resource["type"].as_str().unwrap_or_default().to_owned(),
    })
}

//! Other people's things in the same subscription, which nobody of ours may touch.

use std::time::Duration;

use deploy::{
    azure::{ArmClient, ArmError, Call, Endpoints},
    http::HttpClient,
};
use engine::Intent;
use rehearsal::{Stage, credentials};
use serde_json::{Value, json};

use super::invariants::{Violation, broken};

/// How long anything of theirs takes at most.
const PATIENCE: Duration = Duration::from_secs(1800);
/// A key of somebody else (made for this purpose, its private half was thrown away).
const PUBLIC_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJmvB0gV1lT3nEyk0ZJ0zV3wJrZ2h8Qk2bV5uJ7cXx1A colleague";

/// The child cluster of somebody else's management cluster, and its resource group.
pub(super) const CHILD: &str = "colleagues-child";
/// The beginning of the tag that Cluster API Provider Azure puts on what it makes (its documentation).
const CHILD_TAG: &str = "sigs.k8s.io_cluster-api-provider-azure_cluster_";

/// What belongs to others.
pub(super) struct Foreign {
    /// Their resource groups, as they begin in lower-case ids.
    groups: Vec<String>,
    /// Everything of theirs, as it was left.
    things: Vec<Value>,
    squatted: Option<String>,
}

impl Foreign {
    /// Others were there first: one with a group of their own, one with a name like ours, and perhaps one with ours.
    pub(super) async fn settle(stage: &Stage, ours: &str, squatter: bool) -> Result<Self, Violation> {
        let similar = format!("{ours}-old");
        let squatted = squatter.then(|| ours.to_owned());
        let arm = arm(stage);
        // The tag of a cluster, but of none of ours.
        let tags = json!({"owner": "colleague", "k0rdent-cluster-id": "k0rdent-colleagu"});
        for name in ["colleague-resgrp", &similar].into_iter().chain(squatted.as_deref()) {
            settle(&arm, name, &tags).await.map_err(|error| failed(&error))?;
        }
        let of_child = json!({format!("{CHILD_TAG}{CHILD}"): "owned"});
        settle(&arm, CHILD, &of_child).await.map_err(|error| failed(&error))?;
        engine::pause(Duration::from_secs(60)).await;
        let groups = ["colleague-resgrp", &similar, CHILD].into_iter().chain(squatted.as_deref());
        let groups = groups.map(|name| group(name).to_lowercase()).collect();
        let mut foreign = Self { groups, things: Vec::new(), squatted };
        foreign.things = foreign.now(stage);
        Ok(foreign)
    }

    /// Whoever has the name that we want gives it up.
    pub(super) async fn leave(&mut self, stage: &Stage) -> Result<(), Violation> {
        let Some(name) = self.squatted.take() else { return Ok(()) };
        arm(stage)
            .delete(&Intent::for_tests(), &group(&name), Call::within(PATIENCE))
            .await
            .map_err(|error| failed(&error))?;
        engine::pause(PATIENCE).await;
        let gone = group(&name).to_lowercase();
        self.groups.retain(|group| *group != gone);
        self.things = self.now(stage);
        Ok(())
    }

    /// Whether a resource is theirs.
    pub(super) fn owns(&self, resource: &Value) -> bool {
        let id = resource["id"].as_str().unwrap_or_default().to_lowercase();
        self.groups
            .iter()
            .any(|group| id.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Everything of theirs is as it was.
    pub(super) fn judge(&self, stage: &Stage) -> Result<(), Violation> {
        let now = self.now(stage);
        if now == self.things {
            return Ok(());
        }
        broken("what is not ours is left alone", format!("{} things were {}", now.len(), self.things.len()))
    }

    fn now(&self, stage: &Stage) -> Vec<Value> {
        let mut all = stage.twin.with(|world| twin::azure::resources(world));
        all.retain(|resource| self.owns(resource));
        all
    }
}

async fn settle(arm: &ArmClient, name: &str, tags: &Value) -> Result<(), ArmError> {
    let call = Call::within(PATIENCE);
    arm.put(&Intent::for_tests(), &group(name), &json!({"location": "westus2", "tags": tags}), call).await?;
    let key = json!({"location": "westus2", "tags": tags, "properties": {"publicKey": PUBLIC_KEY}});
    let path = format!("{}/providers/Microsoft.Compute/sshPublicKeys/colleague", group(name));
    arm.put(&Intent::for_tests(), &path, &key, call).await.map(drop)
}

fn arm(stage: &Stage) -> ArmClient {
    let subscription = Some(twin::azure::SUBSCRIPTION.to_owned());
    ArmClient::new(&stage.world, HttpClient::new(&stage.world), Endpoints::default(), credentials(), subscription)
}

fn group(name: &str) -> String {
    format!("/subscriptions/{}/resourceGroups/{name}", twin::azure::SUBSCRIPTION)
}

fn failed(error: &ArmError) -> Violation {
    Violation { rule: "others can use the subscription", detail: error.to_string() }
}

//! What a deployment would do, where, and as whom; and what somebody has agreed to.

use engine::{Failure, Plan, State};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{LOOK_PATIENCE, Session, SessionError, failed, has_no_cluster, recorded, teardown::subscription};
use crate::{
    azure::{Call, inventory::tag, resources},
    config::Config,
    difference::Difference,
    preview::Preview,
    topology::{ClusterId, Topology},
};

/// What a deployment would do.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The steps.
    pub plan: Plan,
    /// What is not as it is recorded.
    pub differences: Vec<Difference>,
    /// What that means.
    pub preview: Preview,
    /// The cluster that is wanted.
    pub topology: Topology,
    /// Whether the cluster has no name yet.
    pub is_new: bool,
    /// Why it cannot be done, if it cannot.
    pub refusal: Option<Failure>,
}

/// What somebody was shown before a deployment, and has agreed to.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// What they were shown.
    pub shown: Preview,
    /// Whether they agreed to everything more that deletes nothing.
    pub to_more: bool,
}

/// Where a cluster is, and as whom we are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The region.
    pub location: String,
    /// The subscription's identifier.
    pub subscription_id: Option<String>,
    /// Its name.
    pub subscription_name: Option<String>,
    /// Who is logged in.
    pub account: Option<String>,
}

/// Another cluster in a subscription, as its resource group's tags tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// Its name.
    pub cluster_id: ClusterId,
    /// Whose it is.
    pub owner: Option<String>,
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
}

impl Neighbour {
    /// The cluster that a resource group was made for.
    fn of(group: &Value) -> Option<Self> {
        let created = tag(group, resources::TAG_CREATED).and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        Some(Self {
            cluster_id: ClusterId::parse(tag(group, resources::TAG_CLUSTER)?).ok()?,
            owner: tag(group, resources::TAG_OWNER).map(str::to_owned),
            created_at: created,
        })
    }
}

impl Session {
    /// Which clusters there are in the subscription, for an environment that knows of none: its records may be lost. One
    /// request; the list that is filtered by tag does not show tags (Azure documentation), so it is that of all groups.
    pub async fn neighbours(&self, config: &Config) -> Result<Vec<Neighbour>, SessionError> {
        if !config.provider.makes_machines() || !has_no_cluster(&self.settings.home) {
            return Ok(Vec::new());
        }
        let (arm, call) = (self.arm(config), Call::within(LOOK_PATIENCE));
        let subscription = subscription(&arm, call).await?;
        let groups = arm.list(&format!("/subscriptions/{subscription}/resourcegroups"), call).await.map_err(failed)?;
        let mut neighbours: Vec<Neighbour> = groups.iter().filter_map(Neighbour::of).collect();
        neighbours.sort_by(|one, other| one.cluster_id.as_str().cmp(other.cluster_id.as_str()));
        Ok(neighbours)
    }

    /// Where a cluster of this configuration is, and as whom we are there; nothing if Azure does not make its machines.
    pub async fn place(&self, config: &Config) -> Result<Option<Place>, SessionError> {
        if !config.provider.makes_machines() {
            return Ok(None);
        }
        let (arm, call) = (self.arm(config), Call::within(LOOK_PATIENCE));
        subscription(&arm, call).await?;
        let subscription_id = arm.subscription().map(str::to_owned);
        let named = arm.get(&format!("/subscriptions/{}", subscription_id.as_deref().unwrap_or_default()), call).await;
        Ok(Some(Place {
            location: config.azure.location.clone(),
            subscription_name: named.map_err(failed)?.body["displayName"].as_str().map(str::to_owned),
            subscription_id,
            account: arm.account().await,
        }))
    }

    /// Where SSH may come from: as the configuration says, else our own address, as far as that is known.
    pub(super) fn ssh_from(&self, config: &Config) -> Vec<String> {
        let configured: Vec<String> = config.azure.ssh_allowed_from.iter().map(ToString::to_string).collect();
        if configured.is_empty() { self.settings.own_address.iter().cloned().collect() } else { configured }
    }

    /// Refuses to begin a new environment among files of others: what a reset removes has the names of ours.
    pub(super) fn refuse_strangers(&self) -> Result<(), SessionError> {
        let path = self.settings.home.clone();
        let strangers = self.environment.strangers()?;
        if !has_no_cluster(&path) || strangers.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "it holds what is not k0rdentctl's ({}), and an environment needs a directory of its own; nothing was touched. Say --home DIR with another one",
            strangers.join(", ")
        );
        Err(SessionError::BadFile { path, reason })
    }

    /// Refuses to take down what the configuration protects.
    pub(super) fn refuse_if_protected(&self, command: &str) -> Result<(), SessionError> {
        // A configuration that cannot be read protects nothing.
        let used = || self.used_config().ok().flatten().is_some_and(|config| config.protect);
        if !self.settings.protect.unwrap_or_else(used) {
            return Ok(());
        }
        let refusal =
            Failure::refused(format!("the configuration says `protect: true`: no `{command}` for this cluster"));
        Err(SessionError::Failed(vec![refusal.advise(format!("Set it to false, then run `k0rdentctl {command}`."))]))
    }

    /// Refuses what is recorded of another world: nothing that is seen in this one says anything about it.
    pub(super) fn refuse_other_world(&self, state: &State) -> Result<(), SessionError> {
        match recorded::world(state) {
            Some(recorded) if recorded != self.settings.world_name => Err(SessionError::OtherWorld {
                home: self.settings.home.clone(),
                recorded: recorded.to_owned(),
                here: self.settings.world_name.clone(),
            }),
            _ => Ok(()),
        }
    }
}

//! Waiting for Azure at constant cost: one list of a collection answers everybody who waits for a member of it.
//!
//! There is no task behind this. Whoever waits and finds the list older than the interval fetches it, the others wait
//! for that; so nothing goes on when nobody waits, and nothing outlives its owner.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use engine::Intent;
use serde_json::Value;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout_at},
};

use super::{
    arm::{Answer, ArmClient, Call, Progress},
    error::{ArmError, ErrorClass, Retry},
    resources::Ids,
};
use crate::seam::{lock, pause};

/// How often a list is fetched: small ones each second, larger ones less often, and never so that a collection costs
/// more than 2.5 requests a second; three collections then stay within a third of what Azure allows for reads.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);
const LONG_INTERVAL: Duration = Duration::from_secs(2);
const SMALL_COLLECTION: usize = 100;
const INTERVAL_PER_PAGE: Duration = Duration::from_millis(400);

/// How long a thing may be missing from its list after it was created: lists lag (Azure documentation).
const LISTING_LAG: Duration = Duration::from_secs(30);

/// How often a vanishing resource group or a single operation is looked at.
const SINGLE_INTERVAL: Duration = Duration::from_secs(5);

/// Between two tries to delete what is still in use.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// How long a resource group may look untouched after its deletion was accepted (guess).
const DELETION_LAG: Duration = Duration::from_secs(60);

/// What a wait tells while it waits, such as `Creating, 12 s`.
pub type Evidence<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The collections that can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Virtual machines.
    VirtualMachine,
    /// Network interfaces.
    NetworkInterface,
    /// Public addresses.
    PublicIp,
    /// Virtual networks.
    VirtualNetwork,
    /// Network security groups.
    NetworkSecurityGroup,
    /// SSH public keys.
    SshKey,
    /// Managed disks.
    Disk,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 7] = [
        Kind::VirtualMachine,
        Kind::NetworkInterface,
        Kind::PublicIp,
        Kind::VirtualNetwork,
        Kind::NetworkSecurityGroup,
        Kind::SshKey,
        Kind::Disk,
    ];

    /// Azure's name of the type.
    pub fn resource_type(self) -> &'static str {
        match self {
            Kind::VirtualMachine => "Microsoft.Compute/virtualMachines",
            Kind::NetworkInterface => "Microsoft.Network/networkInterfaces",
            Kind::PublicIp => "Microsoft.Network/publicIPAddresses",
            Kind::VirtualNetwork => "Microsoft.Network/virtualNetworks",
            Kind::NetworkSecurityGroup => "Microsoft.Network/networkSecurityGroups",
            Kind::SshKey => "Microsoft.Compute/sshPublicKeys",
            Kind::Disk => "Microsoft.Compute/disks",
        }
    }
}

/// Waits for the resources of one resource group.
pub struct Watch {
    arm: Arc<ArmClient>,
    ids: Ids,
    collections: BTreeMap<Kind, Collection>,
    /// Where the last operation on a resource reports its error, by lower-case identifier.
    operations: Mutex<BTreeMap<String, String>>,
}

#[derive(Default)]
struct Collection {
    /// How many lists were begun.
    begun: AtomicU64,
    latest: AsyncMutex<Latest>,
}

#[derive(Default)]
struct Latest {
    /// Which list this is; 0 for none.
    number: u64,
    fetched_at: Option<Instant>,
    pages: usize,
    /// By lower-case name.
    members: BTreeMap<String, Arc<Value>>,
}

impl Latest {
    fn next_at(&self) -> Option<Instant> {
        let base = if self.members.len() <= SMALL_COLLECTION { SHORT_INTERVAL } else { LONG_INTERVAL };
        let pages = u32::try_from(self.pages).unwrap_or(u32::MAX);
        self.fetched_at.map(|at| at + base.max(INTERVAL_PER_PAGE.saturating_mul(pages)))
    }
}

impl Watch {
    /// A watch over the resource group that the identifiers belong to.
    pub fn new(arm: Arc<ArmClient>, ids: Ids) -> Watch {
        let collections = Kind::ALL.into_iter().map(|kind| (kind, Collection::default())).collect();
        Watch { arm, ids, collections, operations: Mutex::default() }
    }

    /// Remembers the operation that an accepted request began, so that its failure can be explained.
    pub fn remember(&self, kind: Kind, name: &str, answer: &Answer) {
        let mut operations = lock(&self.operations);
        let key = self.ids.of(kind, name).to_ascii_lowercase();
        match &answer.operation {
            Some(url) => operations.insert(key, url.clone()),
            None => operations.remove(&key),
        };
    }

    /// Sends a PUT and waits until the resource is ready, unless the answer already says so.
    pub async fn put(
        &self,
        proof: &Intent,
        kind: Kind,
        name: &str,
        body: &Value,
        call: Call,
        evidence: Evidence<'_>,
    ) -> Result<Value, ArmError> {
        let answer = self.arm.put(proof, &self.ids.of(kind, name), body, call).await?;
        self.remember(kind, name, &answer);
        match state_of(&answer.body) {
            // Types without long operations, such as SSH keys, may not speak of a state.
            None if answer.operation.is_none() => Ok(answer.body),
            Some("Succeeded") => Ok(answer.body),
            _ => self.settled(kind, name, call, evidence).await,
        }
    }

    /// Waits until the resource is in its final state, and returns it; a failure is the error of its operation.
    pub async fn settled(&self, kind: Kind, name: &str, call: Call, evidence: Evidence<'_>) -> Result<Value, ArmError> {
        let start = Instant::now();
        let collection = &self.collections[&kind];
        // A list that was begun before this moment may show the state before our request.
        let mut needed = collection.begun.load(Ordering::Relaxed) + 1;
        let mut last = "nothing yet".to_owned();
        loop {
            let (number, member) = self.look(kind, name, needed, &last, call).await?;
            needed = number + 1;
            let state = member.as_deref().and_then(state_of).unwrap_or("not listed yet");
            evidence(&format!("{state}, {} s", start.elapsed().as_secs()));
            match (state.to_ascii_lowercase().as_str(), member.as_deref()) {
                ("succeeded", Some(member)) => return Ok(member.clone()),
                ("failed" | "canceled", Some(member)) => return Err(self.explain(kind, name, member, call).await),
                (_, None) if start.elapsed() > LISTING_LAG => return Err(self.vanished(kind, name, call).await),
                _ => last = state.to_owned(),
            }
        }
    }

    /// Asks for a deletion, in whatever resource group, again and again while Azure says that the resource is still in use:
    /// what used it has just gone, or was never made, and Azure lets go of it by itself.
    pub async fn delete(
        &self,
        proof: &Intent,
        id: &str,
        call: Call,
        evidence: Evidence<'_>,
    ) -> Result<Answer, ArmError> {
        let start = Instant::now();
        loop {
            let error = match self.arm.delete(proof, id, call).await {
                Err(error) if error.class == ErrorClass::InUse => error,
                answer => return answer,
            };
            let Retry::Later(kept) = error.retry else { return Err(error) };
            if start.elapsed() > kept || Instant::now() + TRY_AGAIN >= call.deadline {
                return Err(error);
            }
            let (code, kept) = (&error.code, kept.as_secs());
            evidence(&format!("Azure keeps it for up to {kept} s ({code}), {} s", start.elapsed().as_secs()));
            pause(TRY_AGAIN).await;
        }
    }

    /// Waits until a deleted resource is no longer there.
    pub async fn removed(&self, kind: Kind, name: &str, call: Call, evidence: Evidence<'_>) -> Result<(), ArmError> {
        let start = Instant::now();
        let mut needed = self.collections[&kind].begun.load(Ordering::Relaxed) + 1;
        let mut last = "nothing yet".to_owned();
        loop {
            let (number, member) = self.look(kind, name, needed, &last, call).await?;
            needed = number + 1;
            let Some(member) = member else { return Ok(()) };
            last = state_of(&member).unwrap_or("unknown state").to_owned();
            evidence(&format!("{last}, {} s", start.elapsed().as_secs()));
            // A machine whose creation failed is in this state before its deletion begins.
            if last.eq_ignore_ascii_case("failed") && start.elapsed() > LISTING_LAG {
                return Err(self.explain(kind, name, &member, call).await);
            }
        }
    }

    /// Waits until the whole resource group is gone. `operation` is the `Location` of the accepted deletion, if known.
    pub async fn gone(&self, operation: Option<&str>, call: Call, evidence: Evidence<'_>) -> Result<(), ArmError> {
        let group = self.ids.group();
        let start = Instant::now();
        loop {
            let Some(found) = self.arm.find(&group, call).await? else { return Ok(()) };
            let state = state_of(&found).unwrap_or("unknown state").to_owned();
            evidence(&format!("{state}, {} s", start.elapsed().as_secs()));
            if !state.eq_ignore_ascii_case("deleting") && start.elapsed() > SINGLE_INTERVAL {
                self.check_deletion(operation, &group, start, call).await?;
            }
            if Instant::now() + SINGLE_INTERVAL >= call.deadline {
                return Err(ArmError::out_of_time(&group, &state));
            }
            pause(SINGLE_INTERVAL).await;
        }
    }

    /// A group that is not being deleted: either it has only just begun, or the deletion failed.
    async fn check_deletion(
        &self,
        operation: Option<&str>,
        group: &str,
        start: Instant,
        call: Call,
    ) -> Result<(), ArmError> {
        if let Some(url) = operation {
            match self.arm.operation(url, group, call).await {
                Err(error) if error.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        if start.elapsed() <= DELETION_LAG {
            return Ok(());
        }
        Err(ArmError::new(409, "ResourceGroupDeletionFailed", "Azure gave up deleting the resource group", group))
    }

    /// Waits for one operation by its own address, for things that are in no collection.
    pub async fn operation(
        &self,
        url: &str,
        resource: &str,
        call: Call,
        evidence: Evidence<'_>,
    ) -> Result<(), ArmError> {
        let start = Instant::now();
        loop {
            let Progress::Running(state) = self.arm.operation(url, resource, call).await? else { return Ok(()) };
            evidence(&format!("{state}, {} s", start.elapsed().as_secs()));
            if Instant::now() + SINGLE_INTERVAL >= call.deadline {
                return Err(ArmError::out_of_time(resource, &state));
            }
            pause(SINGLE_INTERVAL).await;
        }
    }

    /// The member as of a list with at least this number; fetches one if it is time and nobody else does.
    async fn look(
        &self,
        kind: Kind,
        name: &str,
        needed: u64,
        last: &str,
        call: Call,
    ) -> Result<(u64, Option<Arc<Value>>), ArmError> {
        let collection = &self.collections[&kind];
        let out_of_time = || ArmError::out_of_time(&self.ids.of(kind, name), last);
        loop {
            let latest = timeout_at(call.deadline, collection.latest.lock()).await;
            let mut latest = latest.map_err(|_| out_of_time())?;
            if latest.number >= needed {
                return Ok((latest.number, latest.members.get(&name.to_ascii_lowercase()).cloned()));
            }
            match latest.next_at().filter(|next| Instant::now() < *next) {
                None => self.fetch(kind, collection, &mut latest, call).await?,
                Some(next) if next >= call.deadline => return Err(out_of_time()),
                Some(next) => {
                    drop(latest);
                    pause(next.saturating_duration_since(Instant::now())).await;
                }
            }
        }
    }

    async fn fetch(
        &self,
        kind: Kind,
        collection: &Collection,
        latest: &mut Latest,
        call: Call,
    ) -> Result<(), ArmError> {
        let number = collection.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let fetched_at = Instant::now();
        let (members, pages) = match self.arm.list_pages(&self.ids.collection(kind), call).await {
            Ok(list) => list,
            // Without its group a collection is empty.
            Err(error) if error.is_not_found() => (Vec::new(), 1),
            Err(error) => return Err(error),
        };
        let members = members.into_iter().filter_map(|member| Some((key_of(&member)?, Arc::new(member)))).collect();
        *latest = Latest { number, fetched_at: Some(fetched_at), pages, members };
        Ok(())
    }

    /// Why a resource has failed: what its operation says, else what the machine's instance view says.
    async fn explain(&self, kind: Kind, name: &str, member: &Value, call: Call) -> ArmError {
        let id = self.ids.of(kind, name);
        if let Some(error) = self.operation_error(&id, call).await {
            return error;
        }
        if kind == Kind::VirtualMachine
            && let Ok(view) = self.arm.get(&format!("{id}/instanceView"), call).await
            && let Some(error) = instance_error(&view.body, &id)
        {
            return error;
        }
        let state = state_of(member).unwrap_or("Failed");
        ArmError::new(200, format!("Provisioning{state}"), "Azure does not say why", &id)
    }

    async fn vanished(&self, kind: Kind, name: &str, call: Call) -> ArmError {
        let id = self.ids.of(kind, name);
        let error = self.operation_error(&id, call).await;
        error.unwrap_or_else(|| ArmError::new(404, "ResourceNotFound", "it is gone; somebody or Azure deleted it", &id))
    }

    async fn operation_error(&self, id: &str, call: Call) -> Option<ArmError> {
        let url = lock(&self.operations).get(&id.to_ascii_lowercase()).cloned()?;
        // Only the operation's own verdict counts, not a failure to ask for it.
        self.arm.operation(&url, id, call).await.err().filter(|error| error.status == 200)
    }
}

/// `properties.provisioningState`.
pub(crate) fn state_of(resource: &Value) -> Option<&str> {
    resource["properties"]["provisioningState"].as_str()
}

/// The lower-case name of a resource.
pub(crate) fn key_of(resource: &Value) -> Option<String> {
    resource["name"].as_str().map(str::to_ascii_lowercase)
}

/// The failure in an instance view: a status with the code `ProvisioningState/failed/REASON` (Azure documentation).
fn instance_error(view: &Value, id: &str) -> Option<ArmError> {
    view["statuses"].as_array()?.iter().find_map(|status| {
        let reason = status["code"].as_str()?.strip_prefix("ProvisioningState/failed/")?;
        Some(ArmError::new(200, reason, status["message"].as_str().unwrap_or_default(), id))
    })
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

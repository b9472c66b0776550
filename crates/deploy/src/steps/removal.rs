//! Taking it out of the cloud: the resource group in one request where that is safe, everything else one by one, and the
//! proof that nothing is left. Nothing here needs the cluster, its machines or the journal.
//!
//! That one request can delete a whole cluster is what Azure offers with its resource groups. A provider without them has
//! [`rest`] alone: it finds by tag and name, and deletes in the order of dependencies.

use std::{collections::BTreeSet, time::Duration};

use engine::{Context, Done, Failure};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::uninstall::{ask_for_children, child_clusters};
use crate::{
    azure::{Call, ErrorClass, Kind, inventory, resources},
    deployment::{Deployment, arm_failure},
    leftovers::{self, Leftover, short},
};

/// What is deleted first: each comes before what it stands on. A network's subnets hold on to the security group.
const ORDER: [Kind; 7] = [
    Kind::VirtualMachine,
    Kind::NetworkInterface,
    Kind::PublicIp,
    Kind::Disk,
    Kind::VirtualNetwork,
    Kind::NetworkSecurityGroup,
    Kind::SshKey,
];
/// How many resources are deleted at the same time (guess at what is polite).
const AT_ONCE: usize = 32;
/// How long the cluster is asked for its children before it is given up.
pub(super) const SURVEY: Duration = Duration::from_secs(30);
/// How long lists may show what is gone (guess).
const LISTS_LAG: Duration = Duration::from_secs(60);
/// What is left of a step's time for saying what was seen last.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Whether the resource group can go as a whole: it is ours, holds nothing of others, and nothing is locked.
pub(super) async fn check_group(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let Some(existing) = deployment.inventory.group.as_ref().filter(|_| !deployment.inventory.is_deleting()) else {
        return Ok(Done::seen("there is no resource group, or it is going"));
    };
    let call = Call::within(context.step().deadline);
    own(deployment, existing)?;
    let strangers = strangers(deployment, call).await?;
    if !strangers.is_empty() {
        return Err(not_alone(deployment, &strangers).advise(
            "Move or delete what is not ours, then reset again; or delete only what is ours: `k0rdentctl reset --force`.",
        ));
    }
    let locks = locks(deployment, call).await?;
    if !locks.is_empty() {
        let group = &deployment.azure()?.ids.resource_group;
        return Err(Failure::refused(format!("resource group {group} cannot be deleted: {}", locks.join(", ")))
            .advise("Remove the lock (Azure portal: Locks), then reset again."));
    }
    Ok(Done::seen("it is ours, holds nothing of others, and is not locked"))
}

/// The resource group with everything in it, waited for until it is gone.
pub(super) async fn resource_group(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline.saturating_sub(LAST_WORDS));
    let Some(existing) = &deployment.inventory.group else { return Ok(Done::seen("it does not exist")) };
    own(deployment, existing)?;
    let operation = request(deployment, context, call).await?;
    wait(deployment, context, operation.as_deref(), call).await?;
    Ok(Done::seen("it is gone"))
}

/// The resource group's deletion asked for, and not waited for.
pub(super) async fn request_deletion(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline);
    let Some(existing) = &deployment.inventory.group else { return Ok(Done::seen("it does not exist")) };
    own(deployment, existing)?;
    let operation = request(deployment, context, call).await?;
    Ok(Done::seen("Azure has accepted it and goes on by itself").with(json!({"operation": operation})))
}

/// The resource group as a whole if that is possible; otherwise why not, and what is ours in it goes with the rest.
pub(super) async fn try_resource_group(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline.saturating_sub(LAST_WORDS));
    let Some(existing) = &deployment.inventory.group else { return Ok(Done::seen("it does not exist")) };
    if let Err(refusal) = own(deployment, existing) {
        return skipped(context, vec![refusal.message]);
    }
    let tried = async {
        let strangers = strangers(deployment, call).await?;
        if !strangers.is_empty() {
            return Ok(Some(not_alone(deployment, &strangers).message));
        }
        let operation = match request(deployment, context, call).await {
            Ok(operation) => operation,
            Err(failure) => return Ok(Some(failure.message)),
        };
        wait(deployment, context, operation.as_deref(), call).await.map(|()| None)
    };
    match tried.await {
        Ok(None) => Ok(Done::seen("it is gone")),
        Ok(Some(reason)) => skipped(context, vec![reason]),
        Err(error) => skipped(context, vec![error.message]),
    }
}

/// Whatever else is ours, wherever it is, in the order of dependencies. What cannot be deleted is noted; the evidence
/// judges it.
pub(super) async fn rest(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline.saturating_sub(LAST_WORDS));
    let left = look(deployment, call).await?;
    let (groups, things): (Vec<&Leftover>, Vec<&Leftover>) =
        left.iter().filter(|left| left.is_sure).partition(|left| left.is_group());
    if things.is_empty() && groups.is_empty() {
        return Ok(Done::seen("there is nothing else"));
    }
    let of_kind = |kind: Option<Kind>| things.iter().copied().filter(|thing| thing.known_kind() == kind).collect();
    let mut troubles = delete(deployment, context, of_kind(None), call).await?;
    for kind in ORDER {
        troubles.extend(delete(deployment, context, of_kind(Some(kind)), call).await?);
    }
    // A group of ours that is empty now goes too; one with strangers in it stays.
    let own = deployment.azure()?.ids.group();
    let own: Vec<&Leftover> = groups.into_iter().filter(|group| group.id.eq_ignore_ascii_case(&own)).collect();
    if strangers(deployment, call).await.is_ok_and(|strangers| strangers.is_empty()) {
        troubles.extend(delete(deployment, context, own, call).await?);
    }
    if troubles.is_empty() { Ok(Done::seen("everything else is gone")) } else { skipped(context, troubles) }
}

/// What the cluster says about child clusters, if it says anything in time. Their machines would outlive it.
pub(super) async fn survey(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    match ask_for_children(deployment, context).await? {
        Ok(children) if children.is_empty() => Ok(Done::seen("there are none")),
        Ok(children) if deployment.abandon_children && !deployment.with_children => {
            let names: Vec<&str> = children.keys().map(String::as_str).collect();
            let text = format!("child clusters are left behind with their machines: {}", names.join(", "));
            skipped(context, vec![text])
        }
        Ok(_) => child_clusters(deployment, context).await,
        // Force does not need an answer; the look at the end sees what carries the tags of children.
        Err(why) => skipped(context, vec![format!("child clusters were not looked for: {why}")]),
    }
}

/// Looks, by tag and by name, whether anything is left in the subscription. Lists lag, so what they still show is looked
/// at again for a while.
pub(super) async fn evidence(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let call = Call::within(context.step().deadline.saturating_sub(LAST_WORDS));
    let patience = Instant::now() + LISTS_LAG;
    loop {
        let left = look(deployment, call).await?;
        // What others keep stays, however long anybody looks at it.
        let Some(first) = left.iter().find(|left| left.kept().is_none()) else {
            let kept: Vec<String> = left.iter().filter_map(Leftover::kept).collect();
            let nothing = match kept.is_empty() {
                true => "0 left".to_owned(),
                false => format!("nothing is left but {}", kept.join(", ")),
            };
            let children = children_left(deployment, call).await?;
            let runs_on = children_run_on(&children);
            if children.is_empty() || deployment.abandon_children || deployment.known_children().is_none() {
                let seen = if children.is_empty() { nothing } else { format!("{nothing}; {runs_on}") };
                return Ok(Done::seen(seen).with(json!({"leftovers": left, "children": children})));
            }
            if Instant::now() >= patience {
                return Err(Failure::new(runs_on).advise(
                    "Delete them, or run `k0rdentctl reset --force --abandon-children` to leave them behind.",
                ));
            }
            context.waiting("nothing of the child clusters is left", runs_on);
            engine::pause(Duration::from_secs(2)).await;
            continue;
        };
        if Instant::now() >= patience {
            let names: Vec<String> = left.iter().map(|left| short(&left.id)).collect();
            let failure = Failure::new(format!("{} left: {}", left.len(), names.join(", ")));
            return Err(match left.iter().find(|left| !left.is_sure) {
                // A reset will never touch what may be somebody else's.
                Some(unsure) => failure.advise(format!("Delete by hand what is yours: {}", unsure.remove)),
                None => failure.advise("Run `k0rdentctl reset` again; it deletes what is left."),
            });
        }
        context.waiting("nothing of this cluster is left", format!("{} left: {}", left.len(), short(&first.id)));
        engine::pause(Duration::from_secs(2)).await;
    }
}

/// What there is of this cluster's children; of all in the subscription if nobody could say which are its own.
async fn children_left(deployment: &Deployment, call: Call) -> Result<Vec<Leftover>, Failure> {
    let (azure, names) = (deployment.azure()?, deployment.known_children());
    if names.as_ref().is_some_and(BTreeSet::is_empty) {
        return Ok(Vec::new());
    }
    let children = leftovers::children(&azure.arm, &azure.ids.subscription, names.as_ref(), call).await;
    children.map_err(arm_failure)
}

fn children_run_on(left: &[Leftover]) -> String {
    let names: BTreeSet<&str> = left.iter().map(|left| left.cluster_id.as_str()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    format!("{} of child clusters {names} still there, {}", left.len(), leftovers::cost(left))
}

/// Refuses a resource group that has our name and not our tag.
fn own(deployment: &Deployment, group: &Value) -> Result<(), Failure> {
    let cluster = deployment.topology.cluster_id.as_str();
    if inventory::tag(group, resources::TAG_CLUSTER) == Some(cluster) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "resource group {} is not ours (no tag {}={cluster}); it is left alone",
        deployment.azure()?.ids.resource_group,
        resources::TAG_CLUSTER
    )))
}

/// Asks for the deletion, unless it is under way; answers where its end can be asked for. An earlier one that nobody
/// waited for and that failed is named.
async fn request(deployment: &Deployment, context: &Context<'_>, call: Call) -> Result<Option<String>, Failure> {
    let group = &deployment.azure()?.ids.resource_group;
    if deployment.inventory.is_deleting() {
        return Ok(deployment.deletion.clone());
    }
    if let Some(earlier) = &deployment.deletion
        && let Err(error) = deployment.azure()?.arm.operation(earlier, &deployment.azure()?.ids.group(), call).await
        && !error.is_not_found()
    {
        context.note(format!("the deletion that was asked for earlier has failed: {error}"))?;
    }
    let intent = context.intend(format!("delete resource group {group} with everything in it")).await?;
    let path = format!("{}?forceDeletionTypes=Microsoft.Compute/virtualMachines", deployment.azure()?.ids.group());
    let answer = deployment.azure()?.arm.delete(&intent, &path, call).await.map_err(arm_failure)?;
    context.effected(intent).await?;
    Ok(answer.location)
}

async fn wait(
    deployment: &Deployment,
    context: &Context<'_>,
    operation: Option<&str>,
    call: Call,
) -> Result<(), Failure> {
    let group = &deployment.azure()?.ids.resource_group;
    let evidence = |text: &str| context.waiting(format!("resource group {group} is gone"), text);
    deployment.azure()?.watch.gone(operation, call, &evidence).await.map_err(arm_failure)
}

/// Deletes all of these at the same time, and waits until they are gone; answers what went wrong.
async fn delete(
    deployment: &Deployment,
    context: &Context<'_>,
    things: Vec<&Leftover>,
    call: Call,
) -> Result<Vec<String>, Failure> {
    if things.is_empty() {
        return Ok(Vec::new());
    }
    let names = things.iter().map(|thing| short(&thing.id)).collect::<Vec<_>>().join(", ");
    let intent = context.intend(format!("delete {names}")).await?;
    let evidence = |text: &str| context.waiting(format!("{names} gone"), text);
    let azure = deployment.azure()?;
    let mut deletions = Vec::new();
    for thing in things {
        deletions.push(async {
            let kept = |text: &str| context.waiting(format!("{} can be deleted", short(&thing.id)), text);
            let answer = azure.watch.delete(&intent, &thing.id, call, &kept).await;
            let gone = match answer.map(|answer| answer.operation.or(answer.location)) {
                Ok(Some(url)) => azure.watch.operation(&url, &thing.id, call, &evidence).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            gone.err().map(|error| format!("{} is not deleted: {error}", short(&thing.id)))
        });
    }
    let troubles: Vec<Option<String>> = futures::stream::iter(deletions).buffer_unordered(AT_ONCE).collect().await;
    context.effected(intent).await?;
    let mut troubles: Vec<String> = troubles.into_iter().flatten().collect();
    troubles.sort();
    Ok(troubles)
}

async fn look(deployment: &Deployment, call: Call) -> Result<Vec<Leftover>, Failure> {
    let azure = deployment.azure()?;
    let left = leftovers::look(&azure.arm, &azure.ids.subscription, &deployment.topology.cluster_id, call);
    left.await.map_err(arm_failure)
}

async fn strangers(deployment: &Deployment, call: Call) -> Result<Vec<String>, Failure> {
    let azure = deployment.azure()?;
    let strangers = leftovers::strangers(&azure.arm, &azure.ids.subscription, &deployment.topology.cluster_id, call);
    strangers.await.map_err(arm_failure)
}

fn not_alone(deployment: &Deployment, strangers: &[String]) -> Failure {
    let names: Vec<String> = strangers.iter().map(|id| short(id)).collect();
    let group = &deployment.topology.names.resource_group;
    Failure::refused(format!("resource group {group} holds what is not ours: {}", names.join(", ")))
}

/// The management locks on the group, above it or in it. Seeing locks needs a permission of its own (Azure
/// documentation); not seeing them proves nothing, and the deletion itself will say so.
async fn locks(deployment: &Deployment, call: Call) -> Result<Vec<String>, Failure> {
    let path = format!("{}/providers/Microsoft.Authorization/locks", deployment.azure()?.ids.group());
    let locks = match deployment.azure()?.arm.list(&path, call).await {
        Err(error) if error.class == ErrorClass::Permission => return Ok(Vec::new()),
        locks => locks.map_err(arm_failure)?,
    };
    let describe = |lock: &Value| {
        let scope = lock["id"].as_str().unwrap_or_default().split("/providers/Microsoft.Authorization/").next();
        format!("lock {} on {}", lock["name"].as_str().unwrap_or_default(), short(scope.unwrap_or_default()))
    };
    Ok(locks.iter().map(describe).collect())
}

/// Not everything was done, and why: noted, shown at the end, and no reason to stop.
fn skipped(context: &Context<'_>, reasons: Vec<String>) -> Result<Done, Failure> {
    for reason in &reasons {
        context.note(format!("skipped: {reason}"))?;
    }
    Ok(Done::seen("not everything was possible").with(json!({"skipped": reasons})))
}

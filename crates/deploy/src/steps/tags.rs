//! The tags of what exists.

use engine::{Context, Done, Failure};
use futures::StreamExt as _;
use serde_json::json;

use crate::{
    azure::{Call, Priority, Tags},
    deployment::{Deployment, arm_failure},
    tags::{self, Retag},
};

/// How many resources are asked for at the same time.
const AT_ONCE: usize = 16;

/// Sets and removes what is otherwise than wanted, and leaves the tags of others alone.
pub(super) async fn tags(deployment: &Deployment, context: &Context<'_>) -> Result<Done, Failure> {
    let Deployment { config, topology, inventory, given_tags, .. } = deployment;
    let changes = tags::changes(config, topology, inventory, given_tags);
    let number = changes.len();
    if number > 0 {
        let changed = changes.into_iter().map(async |change| apply(deployment, context, &change).await);
        let changed: Vec<_> = futures::stream::iter(changed).buffer_unordered(AT_ONCE).collect().await;
        changed.into_iter().collect::<Result<(), Failure>>()?;
    }
    // What an earlier configuration has given is gone everywhere now.
    context.settle(tags::SETTLED, json!(config.azure.given_tags()))?;
    Ok(Done::seen(format!("changed at {}", resources(number))))
}

pub(crate) fn resources(number: usize) -> String {
    format!("{number} resource{}", if number == 1 { "" } else { "s" })
}

/// Changes the tags of one resource at their own scope, where what is not named stays (Azure documentation: tags, update at
/// scope).
async fn apply(deployment: &Deployment, context: &Context<'_>, change: &Retag) -> Result<(), Failure> {
    let azure = deployment.azure()?;
    let path = format!("{}/providers/Microsoft.Resources/tags/default", change.id);
    let call = Call::within(context.step().deadline).with_priority(Priority::BACKGROUND);
    let intent = context.intend(format!("change the tags of {}", change.name)).await?;
    let patch = async |operation: &str, tags: &Tags| {
        if tags.is_empty() {
            return Ok(());
        }
        context.waiting(format!("Azure changes the tags of {}", change.name), "");
        let body = json!({"operation": operation, "properties": {"tags": tags}});
        match azure.arm.patch(&intent, &path, &body, call).await {
            // Somebody has deleted it since it was looked at; whatever takes its place gets its tags when it is made.
            Err(error) if error.is_not_found() => Ok(()),
            answer => answer.map(drop).map_err(arm_failure),
        }
    };
    patch("Merge", &change.set).await?;
    patch("Delete", &change.remove).await?;
    context.effected(intent).await
}

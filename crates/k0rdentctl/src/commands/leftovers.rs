//! `leftovers`: what clusters have left in Azure, whatever any records say.

use deploy::{
    leftovers::{Leftover, cost},
    topology::ClusterId,
};
use serde_json::json;

use crate::{
    arguments::Leftovers,
    commands::{Context, FORMAT_VERSION},
    configuration,
    error::{CommandError, Exit},
    views::teardown,
    world::{Login, reach},
};

/// Looks, and says what there is. Exit code 5 if there is anything.
pub(crate) async fn run(context: &Context, arguments: &Leftovers) -> Result<u8, CommandError> {
    let reach = reach(context)?;
    if arguments.cluster_id.is_none()
        && let Some(left) = reach.session(context, "leftovers", &Login::NotNeeded)?.left_on_hosts().await?
    {
        return Ok(show(context, &left, None, None));
    }
    let tenant = configuration::at_hand(context).and_then(|config| config.azure.tenant_id);
    let session = reach.session(context, "leftovers", &Login::Needed(tenant.as_deref()))?;
    let subscription = reach.subscription(context, arguments.place.subscription_id.as_ref());
    let cluster = arguments.cluster_id.as_ref();
    let (subscription, left) = session.leftovers(cluster, subscription).await?;
    Ok(show(context, &left, Some(&subscription), cluster))
}

fn show(context: &Context, left: &[Leftover], subscription: Option<&str>, cluster: Option<&ClusterId>) -> u8 {
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "subscription_id": subscription,
            "cluster_id": cluster,
            "cost": cost(left),
            "leftovers": left,
        }));
    } else {
        context.printer.result(&teardown::leftovers(left, subscription, cluster.map(ClusterId::as_str)));
    }
    if left.is_empty() { 0 } else { Exit::Leftovers as u8 }
}

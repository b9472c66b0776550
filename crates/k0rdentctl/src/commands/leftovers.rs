//! `leftovers`: what clusters have left in Azure, whatever any records say.

use deploy::leftovers::cost;
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
    let tenant = configuration::at_hand(context).and_then(|config| config.azure.tenant_id);
    let session = reach.session(context, "leftovers", &Login::Needed(tenant.as_deref()))?;
    let subscription = reach.subscription(context, arguments.place.subscription_id.as_ref());
    let cluster = arguments.cluster_id.as_ref();
    let (subscription, left) = session.leftovers(cluster, subscription).await?;
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "subscription_id": subscription,
            "cluster_id": cluster,
            "cost": cost(&left),
            "leftovers": left,
        }));
    } else {
        context.printer.result(&teardown::leftovers(&left, &subscription, cluster.map(|cluster| cluster.as_str())));
    }
    Ok(if left.is_empty() { 0 } else { Exit::Leftovers as u8 })
}

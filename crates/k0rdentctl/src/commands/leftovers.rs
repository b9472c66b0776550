//! `leftovers`: what clusters have left in Azure, whatever any records say.

use std::collections::BTreeSet;

use deploy::{
    leftovers::{Leftover, Share, Standing, by_cluster, cost},
    recipe::{deletion_under_way, teardown_to_finish},
    session::{cluster_id, known_children, recorded},
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

/// Looks, and says what there is. Exit code 5 if anything remains of a cluster that does not live any more, or if there is
/// anything of the one that was asked for.
pub(crate) async fn run(context: &Context, arguments: &Leftovers) -> Result<u8, CommandError> {
    let reach = reach(context).await?;
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
    if cluster.is_some() {
        return Ok(show(context, &left, Some(&subscription), cluster));
    }
    let (known, leaving) = known(context)?;
    let shares = by_cluster(&left, &known, leaving.as_deref());
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "subscription_id": subscription,
            "cluster_id": null,
            "cost": cost(&left),
            "clusters": shares,
            "leftovers": left,
        }));
    } else {
        let details = if context.global.verbose > 0 { &left[..] } else { &[] };
        context.printer.result(&teardown::shares(&shares, details, &subscription));
    }
    let is_alive = |share: &Share| share.standing != Standing::Remains;
    Ok(if shares.iter().all(is_alive) { 0 } else { Exit::Leftovers as u8 })
}

/// The clusters that live in this environment, and the one that is being taken down.
fn known(context: &Context) -> Result<(BTreeSet<String>, Option<String>), CommandError> {
    let Some((state, _)) = recorded(&context.global.home)? else { return Ok(Default::default()) };
    let Some(cluster) = cluster_id(&state).map(|cluster| cluster.to_string()) else { return Ok(Default::default()) };
    let is_leaving = teardown_to_finish(&state) == Some("reset") || deletion_under_way(&state).is_some();
    if is_leaving {
        return Ok((BTreeSet::new(), Some(cluster)));
    }
    let children = known_children(&state)?;
    Ok((children.into_iter().chain([cluster]).collect(), None))
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

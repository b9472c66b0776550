//! `plan`: what `deploy` would do, how long it takes, and what it asks of Azure.

use deploy::{session, views::PlanView};

use crate::{
    commands::Context,
    configuration,
    error::CommandError,
    views::plan,
    world::{Login, reach},
};

/// Prints it. Without a cluster there is nothing in Azure to look at, so that nobody has to be logged in.
pub(crate) async fn run(context: &Context) -> Result<u8, CommandError> {
    let mut configuration = configuration::read(context)?;
    let recorded = session::recorded(&context.global.home)?;
    let is_new = recorded.and_then(|(state, _)| session::cluster_id(&state)).is_none();
    let reach = reach(context)?;
    reach.adapt(&mut configuration.config);
    let login = if is_new { Login::NotNeeded } else { Login::of(Some(&configuration.config)) };
    let session = reach.session(context, "plan", &login)?;
    let session::Planned { plan, differences, topology } = session.plan(&configuration.config).await?;
    let view = PlanView::of(&plan, &differences, (!is_new).then_some(&topology.cluster_id));
    if context.printer.is_json() {
        context.printer.document(&view);
    } else {
        let text = plan::text(&view, &context.command("deploy"), context.global.verbose > 0, context.printer.colours);
        context.printer.result(&text);
    }
    Ok(0)
}

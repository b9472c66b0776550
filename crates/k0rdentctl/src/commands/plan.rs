//! `plan`: what `deploy` would do: what it creates, changes and deletes, what that costs, and how long it takes.

use deploy::{
    config::Config,
    session::{self, Session},
    views::PlanView,
};

use crate::{
    commands::{Context, check::warn_if_locked_out, patience::patiently},
    configuration,
    error::{CommandError, Exit},
    views::plan::{self, Frame},
    world::{Login, Reach, reach},
};

/// Prints it. Without a cluster there is nothing in Azure to look at, so that nobody has to be logged in.
pub(crate) async fn run(context: &Context, detailed_exitcode: bool) -> Result<u8, CommandError> {
    let mut configuration = configuration::read(context)?;
    let recorded = session::recorded(&context.global.home)?;
    let is_new = recorded.and_then(|(state, _)| session::cluster_id(&state)).is_none();
    let reach = reach(context).await?;
    reach.adapt(&mut configuration.config);
    let config = &configuration.config;
    if reach.twin.is_none() {
        warn_if_locked_out(context, &reach, config).await;
    }
    let asks_nobody = is_new && reach.twin.is_none();
    let login = if asks_nobody { Login::NotNeeded } else { Login::of(Some(config)) };
    let mut settings = reach.settings(context, "plan", &login)?;
    let looking = async {
        if !asks_nobody {
            // Where it cannot be found out, the rules are not compared with it.
            settings.own_address = reach.own_address(context, config).await.ok().flatten();
        }
        let session = Session::new(settings);
        let planned = session.plan(config).await?;
        let place = if asks_nobody { None } else { session.place(config).await? };
        Ok::<_, session::SessionError>((planned, place))
    };
    let (planned, place) = patiently(context, "looking at Azure and at the machines", looking).await?;
    let view = PlanView::of(&planned, place);
    if context.printer.is_json() {
        context.printer.document(&view);
    } else {
        let text = page(context, &reach, config, &view, context.printer.colours);
        let next =
            if view.steps_to_run == 0 { String::new() } else { format!("\n\nRun it: {}", context.command("deploy")) };
        context.printer.result(&format!("{text}{next}"));
    }
    let differs = detailed_exitcode && view.steps_to_run > 0;
    Ok(if differs { Exit::Differs as u8 } else { 0 })
}

/// The plan for people.
pub(super) fn page(context: &Context, reach: &Reach, config: &Config, view: &PlanView, colours: bool) -> String {
    let twin = reach.twin.as_ref().and(context.global.twin.as_deref());
    let (every_step, width) = (context.global.verbose > 0, context.surroundings.width);
    plan::text(view, &Frame { config, twin, every_step, colours, width })
}

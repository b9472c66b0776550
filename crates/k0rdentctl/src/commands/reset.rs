//! `reset`: deletes the cluster and proves that it is gone.

use deploy::{
    environment::Environment,
    mesh::Mesh,
    recipe::Manner,
    seam::delete_interface,
    session::{Finished, Session, Teardown, TeardownPlan, used_config},
};
use serde_json::json;

use crate::{
    arguments::Reset,
    commands::{
        Context, FORMAT_VERSION, ending,
        run::{Run, watch},
    },
    configuration,
    error::{CommandError, Exit},
    printer::CARE,
    views::teardown::{self, Page},
    world::{Login, reach},
};

/// Resets, after the plan was seen and the cluster's name was typed.
pub(crate) async fn run(context: &Context, arguments: &Reset) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let manner = manner(arguments);
    let used = match used_config(&Environment::new(home)) {
        // What cannot be read does not matter to force.
        Err(_) if manner == Manner::Force => None,
        used => used?,
    };
    if deploy::session::has_no_cluster(home) && arguments.cluster_id.is_none() {
        return Ok(nothing(context));
    }
    refuse_if_protected(context, used.as_ref().is_some_and(|config| config.protect))?;
    let reach = reach(context).await?;
    let mut settings = reach.settings(context, "reset", &Login::of(used.as_ref()))?;
    settings.with_children = arguments.with_children;
    settings.abandon_children = arguments.abandon_children;
    let session = Session::new(settings);
    let teardown = Teardown {
        manner,
        cluster: arguments.cluster_id.clone(),
        subscription: reach.subscription(context, arguments.place.subscription_id.as_ref()),
    };
    let Some(plan) = session.teardown_plan(&teardown).await? else { return Ok(nothing(context)) };
    show(context, &plan);
    if let Some(refusal) = plan.refusal(arguments.with_children, arguments.abandon_children) {
        return Err(refusal.into());
    }
    let cluster = plan.cluster_id.as_str();
    if !context.confirm(arguments.confirmation.yes, &format!("Type {cluster} to confirm: "), &[cluster])? {
        context.printer.say("cancelled; nothing was touched");
        return Ok(0);
    }
    let finished = watch(context, &session, Run::Reset(&teardown)).await?;
    let is_nothing_left = finished.kept.is_empty() && finished.children.is_empty();
    let code = if is_nothing_left { 0 } else { Exit::Leftovers as u8 };
    end(context, &plan, &finished, code);
    leave_mesh(context, &plan).await;
    Ok(code)
}

/// Takes the operator's interface down, if it is up. Its configuration has gone with the cluster, and `wg-quick down` would
/// need that; whatever else that does, this configuration does not ask for.
async fn leave_mesh(context: &Context, plan: &TeardownPlan) {
    let interface = Mesh::Wireguard.operator_interface(&plan.cluster_id);
    match delete_interface(&interface).await {
        Ok(false) => {}
        Ok(true) => context.printer.say(&format!("the interface {interface} of this computer is taken down")),
        Err(why) => {
            let command = format!("sudo ip link delete dev {interface}");
            let message = format!("the interface {interface} of this computer is still up ({why}): {command}");
            context.printer.marked(CARE, "warning", &message);
        }
    }
}

fn manner(arguments: &Reset) -> Manner {
    match (arguments.force, arguments.fast, arguments.no_wait) {
        (true, ..) => Manner::Force,
        (_, true, false) => Manner::Fast,
        (_, true, true) => Manner::FastNoWait,
        (_, false, _) => Manner::Orderly,
    }
}

fn show(context: &Context, plan: &TeardownPlan) {
    if context.printer.is_json() {
        context.printer.object(&json!({"format_version": FORMAT_VERSION, "event": "teardown-plan", "plan": plan}));
    } else {
        // What is deleted is said, however quiet the program is to be.
        let page = Page { colours: context.printer.colours_of_messages, width: context.surroundings.width };
        context.printer.warn(&teardown::plan(plan, &context.global.home, page));
    }
}

fn end(context: &Context, plan: &TeardownPlan, finished: &Finished, code: u8) {
    let waits = plan.manner != Manner::FastNoWait;
    if context.printer.is_json() {
        let mut last = ending(if waits { "succeeded" } else { "accepted" }, code);
        last["cluster_id"] = json!(plan.cluster_id);
        last["skipped"] = json!(finished.skipped);
        if waits {
            last["leftovers"] = json!(finished.kept);
            last["children"] = json!(finished.children);
            last["archive"] = json!(finished.archive);
            last["expired"] = json!(finished.expired);
        }
        context.printer.object(&last);
    } else if waits {
        context.printer.result(&teardown::gone(plan, finished));
    } else {
        let (look, prove) = (context.command("status --check"), context.command("reset"));
        context.printer.result(&teardown::accepted(plan.cluster_id.as_str(), &look, &prove));
    }
}

fn nothing(context: &Context) -> u8 {
    if context.printer.is_json() {
        context.printer.object(&ending("nothing-to-reset", 0));
    } else {
        context.printer.result(&format!("nothing to reset: there is no cluster in {}", context.global.home.display()));
    }
    0
}

/// The configuration that counts is the one at hand; without one, the one that was used.
pub(super) fn refuse_if_protected(context: &Context, used: bool) -> Result<(), CommandError> {
    let at_hand =
        configuration::check(context).ok().and_then(|checked| checked.config.map(|config| (checked.file, config)));
    let is_protected = at_hand.as_ref().map_or(used, |(_, config)| config.protect);
    if !is_protected {
        return Ok(());
    }
    let file = at_hand.map_or_else(|| "the configuration".to_owned(), |(file, _)| file.display().to_string());
    Err(CommandError::usage("the cluster is protected; nothing was touched")
        .hint(format!("set protect: false in {file}")))
}

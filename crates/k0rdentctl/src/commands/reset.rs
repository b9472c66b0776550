//! `reset`: deletes the cluster and proves that it is gone.

use deploy::{
    environment::Environment,
    recipe::Manner,
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
    error::CommandError,
    views::teardown,
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
    let reach = reach(context)?;
    let mut settings = reach.settings(context, "reset", &Login::of(used.as_ref()))?;
    settings.with_children = arguments.with_children;
    let session = Session::new(settings);
    let teardown = Teardown {
        manner,
        cluster: arguments.cluster_id.clone(),
        subscription: reach.subscription(context, arguments.place.subscription_id.as_ref()),
    };
    let Some(plan) = session.teardown_plan(&teardown).await? else { return Ok(nothing(context)) };
    show(context, &plan);
    let cluster = plan.cluster_id.as_str();
    if !context.confirm(arguments.confirmation.yes, &format!("Type {cluster} to delete it: "), &[cluster])? {
        context.printer.say("cancelled; nothing was touched");
        return Ok(0);
    }
    let finished = watch(context, &session, Run::Reset(&teardown)).await?;
    end(context, &plan, &finished);
    Ok(0)
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
        context.printer.say(&teardown::plan(plan, &context.global.home));
    }
}

fn end(context: &Context, plan: &TeardownPlan, finished: &Finished) {
    let waits = plan.manner != Manner::FastNoWait;
    if context.printer.is_json() {
        let mut last = ending(if waits { "succeeded" } else { "accepted" }, 0);
        last["cluster_id"] = json!(plan.cluster_id);
        last["skipped"] = json!(finished.skipped);
        if waits {
            last["leftovers"] = json!([]);
            last["archive"] = json!(finished.archive);
            last["expired"] = json!(finished.expired);
        }
        context.printer.object(&last);
    } else if waits {
        context.printer.result(&teardown::gone(plan.cluster_id.as_str(), finished));
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

//! `reset`: deletes the cluster and proves that it is gone.

use deploy::{
    environment::Environment,
    session::{recorded, status_of, used_config},
    topology::Names,
};
use serde_json::json;

use crate::{
    arguments::Reset,
    commands::{
        Context, ending,
        run::{Run, watch},
    },
    configuration,
    error::CommandError,
    views::count,
    world::{Login, reach},
};

/// Resets, after the cluster's name was typed.
pub(crate) async fn run(context: &Context, arguments: Reset) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let cluster = recorded(home)?.and_then(|(state, _)| deploy::session::cluster_id(&state));
    let Some(cluster) = cluster else { return Ok(nothing(context)) };
    let used = used_config(&Environment::new(home))?;
    refuse_if_protected(context, used.as_ref().is_some_and(|config| config.protect))?;
    let tenant = used.and_then(|config| config.azure.tenant_id);
    let mut settings = reach(context)?.settings(context, "reset", &Login::Needed(tenant.as_deref()))?;
    settings.with_children = arguments.with_children;
    let session = deploy::session::Session::new(settings);
    let machines = status_of(home)?.nodes.len();
    let machines = if machines == 0 { String::new() } else { format!(" with {}", count(machines, "machine")) };
    let group = Names::of(&cluster).resource_group;
    context.printer.say(&format!(
        "{cluster}: resource group {group}{machines}, and all files in {} except old_deployments, will be deleted.",
        home.display()
    ));
    if !context.confirm(arguments.confirmation.yes, &format!("Type {cluster} to delete it: "), &[cluster.as_str()])? {
        context.printer.say("cancelled; nothing was touched");
        return Ok(0);
    }
    let finished = watch(context, &session, Run::Reset).await?;
    if context.printer.is_json() {
        let mut last = ending("succeeded", 0);
        last["cluster_id"] = json!(cluster);
        last["leftovers"] = json!([]);
        last["archive"] = json!(finished.archive);
        last["expired"] = json!(finished.expired);
        context.printer.object(&last);
    } else {
        let archive = finished.archive.map(|archive| archive.display().to_string()).unwrap_or_default();
        let mut lines = vec![format!("{cluster} is gone: 0 left"), String::new(), format!("  records      {archive}")];
        lines.extend(finished.expired.iter().map(|old| format!("  expired      {}; removed", old.display())));
        context.printer.result(&lines.join("\n"));
    }
    Ok(0)
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

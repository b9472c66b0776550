//! `uninstall`: takes k0rdent or k0s off the cluster.

use deploy::{
    environment::Environment,
    recipe::Part,
    session::{Session, SessionError, recorded, used_config},
};
use serde_json::json;

use crate::{
    arguments::{Uninstall, UninstallK0rdent},
    commands::{
        Context, ending,
        reset::refuse_if_protected,
        run::{Run, watch},
    },
    error::CommandError,
    world::{Login, reach},
};

/// Uninstalls, after the cluster's name was typed.
pub(crate) async fn run(context: &Context, arguments: Uninstall) -> Result<u8, CommandError> {
    let (part, yes, with_children) = match arguments {
        Uninstall::K0rdent(UninstallK0rdent { confirmation, with_children }) => {
            (Part::K0rdent, confirmation.yes, with_children)
        }
        Uninstall::K0s(confirmation) => (Part::K0s, confirmation.yes, false),
    };
    let home = &context.global.home;
    let cluster = recorded(home)?.and_then(|(state, _)| deploy::session::cluster_id(&state));
    let Some(cluster) = cluster else {
        return Err(SessionError::NoCluster(home.clone()).into());
    };
    let used = used_config(&Environment::new(home))?;
    refuse_if_protected(context, used.as_ref().is_some_and(|config| config.protect))?;
    let mut settings = reach(context).await?.settings(context, part.command(), &Login::of(used.as_ref()))?;
    settings.with_children = with_children;
    let (goes, stays) = match part {
        Part::K0rdent => ("k0rdent with all that it has installed", "Kubernetes"),
        Part::K0s => ("Kubernetes with all that runs in it", "the machines"),
    };
    context.printer.warn(&format!("{cluster}: {goes} will be deleted; {stays} will stay."));
    if !context.confirm(yes, &format!("Type {cluster} to confirm: "), &[cluster.as_str()])? {
        context.printer.say("cancelled; nothing was touched");
        return Ok(0);
    }
    let finished = watch(context, &Session::new(settings), Run::Uninstall(part)).await?;
    if context.printer.is_json() {
        let mut last = ending("succeeded", 0);
        last["steps_run"] = json!(finished.steps_run);
        last["status"] = json!(finished.status);
        context.printer.object(&last);
    } else {
        let name = part.name();
        let did = if finished.steps_run == 0 { "nothing to do: " } else { "" };
        let next = context.command("deploy");
        let phase = finished.status.phase;
        context.printer.result(&format!("{did}{cluster} has no {name}; it is at {phase}\n\n  redeploy     {next}"));
    }
    Ok(0)
}

//! `status`: where the environment stands, from its own records; and with `--check`, compared with the real.

use deploy::{
    session::{Deletion, status_of, used_config},
    views::Status,
};
use serde_json::json;

use crate::{
    commands::{Context, FORMAT_VERSION},
    error::{CommandError, Exit},
    views::{plan::differences, status},
    world::{Login, reach},
};

/// Compares, and names each difference. Exit code 1 if there is any.
pub(crate) async fn check(context: &Context) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let status = status_of(home)?;
    let environment = deploy::environment::Environment::new(home);
    let Some(config) = used_config(&environment)?.filter(|_| status.cluster_id.is_some()) else {
        return run(context);
    };
    let reach = reach(context)?;
    let mut settings = reach.settings(context, "status", &Login::of(Some(&config)))?;
    settings.own_address = None;
    let session = deploy::session::Session::new(settings);
    if let Some(deletion) = session.deletion().await? {
        return Ok(deleting(context, &status, &deletion));
    }
    let found = session.check().await?;
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "cluster_id": status.cluster_id,
            "phase": status.phase,
            "differences": found,
        }));
    } else if found.is_empty() {
        context.printer.result("everything is as it was left");
    } else {
        context.printer.result(&differences(&found));
        context.printer.result(&format!("\nrepair it: {}", context.command("deploy")));
    }
    Ok(if found.is_empty() { 0 } else { Exit::Failed as u8 })
}

/// How a deletion stands that nobody has waited for. Exit code 1 if it has failed.
fn deleting(context: &Context, status: &Status, deletion: &Deletion) -> u8 {
    let is_failed = matches!(deletion, Deletion::Failed(_));
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "cluster_id": status.cluster_id,
            "phase": status.phase,
            "deletion": deletion,
        }));
    } else {
        let text = match deletion {
            Deletion::UnderWay => "Azure is deleting the cluster".to_owned(),
            Deletion::Done => "Azure has deleted the cluster's resource group".to_owned(),
            Deletion::Failed(why) => format!("Azure has not deleted the cluster: {why}"),
        };
        context.printer.result(&format!("{text}\n\nprove that nothing is left: {}", context.command("reset")));
    }
    if is_failed { Exit::Failed as u8 } else { 0 }
}

/// Prints it.
pub(crate) fn run(context: &Context) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let status = status_of(home)?;
    if context.printer.is_json() {
        context.printer.document(&status);
        return Ok(0);
    }
    let next = status.next.strip_prefix("k0rdentctl ").unwrap_or(&status.next);
    let next = context.command(next);
    match &status.cluster_id {
        Some(_) => context.printer.result(&status::text(&status, &next, context.printer.colours)),
        None => context.printer.result(&format!("there is no cluster in {}\n\nnext: {next}", home.display())),
    }
    Ok(0)
}

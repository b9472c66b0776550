//! `status`: where the environment stands, from its own records; and with `--check`, compared with the real.

use engine::{Clock as _, Failure};

use deploy::{
    session::{Deletion, status_of, used_config},
    views::Status,
};
use serde_json::json;

use crate::{
    commands::{Context, FORMAT_VERSION, patience::patiently},
    error::{CommandError, Exit},
    views::{
        count,
        plan::differences,
        status::{self, Asked},
    },
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
    let reach = reach(context).await?;
    let mut settings = reach.settings(context, "status", &Login::of(Some(&config)))?;
    let looking = async {
        // Where it cannot be found out, the rules are not compared with it.
        settings.own_address = reach.own_address(context, &config).await.ok().flatten();
        let session = deploy::session::Session::new(settings);
        match session.deletion().await? {
            Some(deletion) => Ok(Err(deletion)),
            None => session.check().await.map(Ok),
        }
    };
    let found = match patiently(context, "looking at Azure and at the machines", looking).await {
        Ok(Ok(found)) => found,
        Ok(Err(deletion)) => return Ok(deleting(context, &status, &deletion)),
        Err(error) => return Err(CommandError::from(error)),
    };
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "cluster_id": status.cluster_id,
            "phase": status.phase,
            "differences": found.differences,
            "refusal": found.refusal,
        }));
    } else if found.differences.is_empty() {
        context.printer.result("No drift: everything matches the last deployment.");
    } else {
        let number = count(found.differences.len(), "difference");
        context.printer.result(&format!("{number} between the records and the live resources\n"));
        context.printer.result(&differences(&found.differences));
        let next = match &found.refusal {
            Some(Failure { message, advice, .. }) => {
                let advice = advice.as_deref().map(|advice| format!("\n{advice}")).unwrap_or_default();
                format!("`k0rdentctl deploy` does not repair it: {message}{advice}")
            }
            None => format!("repair it: {}", context.command("deploy")),
        };
        context.printer.result(&format!("\n{next}"));
    }
    Ok(if found.differences.is_empty() { 0 } else { Exit::Failed as u8 })
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
        Some(_) => {
            let (now, compare) = (engine::SystemClock.utc(), context.command("status --check"));
            let asked = Asked { now, compare: &compare, colours: context.printer.colours };
            context.printer.result(&status::text(&status, &next, &asked));
        }
        None => context.printer.result(&format!("there is no cluster in {}\n\nnext: {next}", home.display())),
    }
    Ok(0)
}

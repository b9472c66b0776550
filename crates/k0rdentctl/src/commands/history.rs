//! `history`: the deployments that were reset, from the archives that they left.

use deploy::{
    archive::{Archived, history},
    environment::Environment,
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    commands::{Context, FORMAT_VERSION},
    error::CommandError,
    views::{duration, moment, table},
};

/// Prints the list, oldest first.
pub(crate) fn run(context: &Context) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let archives = history(&Environment::new(home)).map_err(|error| CommandError::file(&error))?;
    if context.printer.is_json() {
        let archives: Vec<Value> = archives.iter().map(object).collect();
        context.printer.document(&json!({"format_version": FORMAT_VERSION, "archives": archives}));
    } else if archives.is_empty() {
        context.printer.result(&format!("nothing was reset in {}", home.display()));
    } else {
        let header = ["CLUSTER", "DEPLOYED (UTC)", "RESET (UTC)", "LIVED", "BY", "OUTCOME"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(archives.iter().map(row));
        context.printer.result(&table(&rows));
    }
    Ok(0)
}

fn row(archive: &Archived) -> Vec<String> {
    let report = archive.report.as_ref().ok();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let lived = report.and_then(|report| report.lived_seconds).map(std::time::Duration::from_secs);
    vec![
        archive.cluster.to_string(),
        or_dash(report.and_then(|report| report.deployed_at).map(moment)),
        moment(archive.reset_at),
        or_dash(lived.map(duration)),
        or_dash(report.and_then(|report| report.deployed_by.clone())),
        archive.report.as_ref().map_or_else(|why| format!("unknown: {why}"), |report| report.outcome.clone()),
    ]
}

fn object(archive: &Archived) -> Value {
    let report = archive.report.as_ref().ok();
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    json!({
        "cluster_id": archive.cluster,
        "directory": archive.directory,
        "deployed_at": report.and_then(|report| report.deployed_at).map(time),
        "deployed_by": report.and_then(|report| report.deployed_by.clone()),
        "reset_at": time(archive.reset_at),
        "reset_by": report.and_then(|report| report.reset_by.clone()),
        "lived_seconds": report.and_then(|report| report.lived_seconds),
        "outcome": report.map(|report| report.outcome.clone()),
        "leftovers": report.map(|report| report.leftovers.clone()),
        "trouble": archive.report.as_ref().err(),
    })
}

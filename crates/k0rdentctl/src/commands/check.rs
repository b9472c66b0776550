//! `check`: whether a deployment can begin: what Azure will allow, or whether the hosts are fit. Touches nothing.

use deploy::config::Severity;
use serde_json::json;

use crate::{
    commands::{Context, FORMAT_VERSION},
    configuration,
    error::{CommandError, Exit},
    printer::{BAD, CARE},
    views::count,
    world::{Login, reach},
};

/// Looks, and says everything that was found at once. Exit code 3 if anything stands in the way.
pub(crate) async fn run(context: &Context) -> Result<u8, CommandError> {
    let mut configuration = configuration::read(context)?;
    let reach = reach(context)?;
    reach.adapt(&mut configuration.config);
    let config = &configuration.config;
    let session = reach.session(context, "check", &Login::of(Some(config)))?;
    let findings = session.examine(config).await?;
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if context.printer.is_json() {
        context.printer.document(&json!({"format_version": FORMAT_VERSION, "findings": findings}));
    } else {
        for finding in &findings {
            match finding.severity {
                Severity::Error => context.printer.marked(BAD, "error", &finding.to_string()),
                Severity::Warning => context.printer.marked(CARE, "warning", &finding.to_string()),
            }
        }
        let machines = count(config.node_count() as usize, "machine");
        match errors {
            0 => context.printer.result(&format!("{machines}: nothing stands in the way")),
            errors => context.printer.result(&format!("{machines}: {} in the way", count(errors, "thing"))),
        }
    }
    Ok(if errors == 0 { 0 } else { Exit::Refused as u8 })
}

//! `config`: checks the configuration, or shows it with all defaults.

use serde_json::json;

use crate::{
    arguments::ConfigCommand,
    commands::{Context, FORMAT_VERSION},
    configuration::{self, Checked},
    error::CommandError,
};

/// Checks or shows.
pub(crate) fn run(context: &Context, command: ConfigCommand) -> Result<u8, CommandError> {
    match command {
        ConfigCommand::Validate => validate(context),
        ConfigCommand::Show => show(context),
    }
}

fn validate(context: &Context) -> Result<u8, CommandError> {
    let checked = configuration::check(context)?;
    let Checked { file, config, problems, .. } = &checked;
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION, "file": file, "valid": config.is_some(), "problems": problems,
        }));
    }
    let lines = checked.lines();
    if config.is_none() {
        return Err(configuration::unusable(&lines));
    }
    lines.iter().for_each(|line| context.printer.warn(line));
    if !context.printer.is_json() {
        let warnings = match problems.len() {
            0 => String::new(),
            1 => ", with a warning".to_owned(),
            count => format!(", with {count} warnings"),
        };
        context.printer.result(&format!("{} is valid{warnings}", file.display()));
    }
    Ok(0)
}

fn show(context: &Context) -> Result<u8, CommandError> {
    let found = configuration::read(context)?;
    if context.printer.is_json() {
        let document = json!({"format_version": FORMAT_VERSION, "file": found.file, "config": found.config});
        context.printer.document(&document);
    } else {
        context.printer.result(&deploy::config::render(&found.config));
    }
    Ok(0)
}

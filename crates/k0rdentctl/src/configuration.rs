//! Finds and reads the configuration, and shows what is wrong with it.

use std::path::{Path, PathBuf};

use deploy::config::{self, Config, Problem, Severity};

use crate::{commands::Context, error::CommandError};

/// Where the configuration is looked for, in the current directory.
const PLACES: [&str; 2] = ["./k0rdent.yaml", "./config/k0rdent.yaml"];
/// Where `deploy` keeps the configuration that it used, in the environment's directory.
const USED: &str = "k0rdent.yaml";

/// A configuration that can be used.
pub(crate) struct Configuration {
    /// Its file.
    pub(crate) file: PathBuf,
    /// The file's text.
    pub(crate) text: String,
    /// What it says.
    pub(crate) config: Config,
}

/// The text of a configuration and what there is to say about it.
pub(crate) struct Checked {
    /// Its file.
    pub(crate) file: PathBuf,
    /// The file's text.
    pub(crate) text: String,
    /// What it says, if it can be used.
    pub(crate) config: Option<Config>,
    /// Errors and warnings in the order of the file.
    pub(crate) problems: Vec<Problem>,
}

impl Checked {
    /// The problems, one a line: `FILE:LINE:COLUMN: error: key: message`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.problems.iter().map(|problem| line(&self.file, problem)).collect()
    }
}

/// The file that is meant: the one asked for, else one in the current directory, else the one with which the
/// environment was made.
fn find(context: &Context) -> Result<PathBuf, CommandError> {
    if let Some(file) = &context.global.config {
        return Ok(file.clone());
    }
    let used = context.global.home.join(USED);
    let places = PLACES.iter().map(PathBuf::from).chain([used]);
    places.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        CommandError::usage("no configuration: make one with `k0rdentctl init > k0rdent.yaml`")
            .hint(format!("looked for {} and {}; --config FILE names another", PLACES[0], PLACES[1]))
    })
}

/// Finds and checks it.
pub(crate) fn check(context: &Context) -> Result<Checked, CommandError> {
    let file = find(context)?;
    let text = fs_err::read_to_string(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            CommandError::usage(format!("no such file: {}", file.display())).hint("name another with --config FILE")
        }
        _ => CommandError::usage(format!("the configuration cannot be read: {error}")),
    })?;
    Ok(match config::load(&text) {
        Ok(loaded) => Checked { file, text, config: Some(loaded.config), problems: loaded.warnings },
        Err(problems) => Checked { file, text, config: None, problems },
    })
}

/// What the one at hand says, if there is one that can be used.
pub(crate) fn at_hand(context: &Context) -> Option<Config> {
    check(context).ok()?.config
}

/// Reads one that can be used. Warnings are printed; errors, with all warnings, are the error.
pub(crate) fn read(context: &Context) -> Result<Configuration, CommandError> {
    let checked = check(context)?;
    let lines = checked.lines();
    let Checked { file, text, config: Some(mut config), .. } = checked else { return Err(unusable(&lines)) };
    lines.iter().for_each(|line| context.printer.warn(line));
    if config.azure.subscription_id.is_none() {
        config.azure.subscription_id = context.surroundings.variable("AZURE_SUBSCRIPTION_ID").map(str::to_owned);
    }
    Ok(Configuration { file, text, config })
}

/// The error that names every problem.
pub(crate) fn unusable(lines: &[String]) -> CommandError {
    CommandError::usage(format!("the configuration cannot be used\n{}", lines.join("\n")))
}

fn line(file: &Path, problem: &Problem) -> String {
    let place = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", file.display()),
        _ => file.display().to_string(),
    };
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
    format!("{place}: {severity}: {key}{}", problem.message)
}

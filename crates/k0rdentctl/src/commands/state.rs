//! `state`: the environment's records themselves.

use deploy::{
    environment::{Access, Environment},
    session::{recorded, status_of},
    views,
};
use engine::Journal;
use serde_json::json;

use crate::{
    arguments::StateCommand,
    commands::{Context, FORMAT_VERSION},
    error::CommandError,
    views::count,
};

/// Checks the journal, or writes its views.
pub(crate) fn run(context: &Context, command: StateCommand) -> Result<u8, CommandError> {
    match command {
        StateCommand::Doctor => doctor(context),
        StateCommand::Export => export(context),
    }
}

/// Reads every record and asks the database to check itself. Any damage is an error that names the place.
fn doctor(context: &Context) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let Some(journal) = Journal::open_to_read(home)? else { return Ok(no_journal(context)) };
    journal.check()?;
    let records = journal.after(0)?;
    let state = engine::State::of(&records);
    let unfinished = state.runs.last().is_some_and(|run| run.outcome.is_none()) && !Journal::is_held(home);
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "journal": Journal::file(home),
            "journal_format_version": engine::journal::FORMAT_VERSION,
            "records": records.len(),
            "runs": state.runs.len(),
            "last_run_was_killed": unfinished,
        }));
        return Ok(0);
    }
    let file = Journal::file(home);
    let mut lines = vec![format!(
        "{}: whole; {} of {}",
        file.display(),
        count(records.len(), "record"),
        count(state.runs.len(), "run")
    )];
    if unfinished {
        lines.push(format!("the last run was ended from outside; continue with: {}", context.command("deploy")));
    }
    context.printer.result(&lines.join("\n"));
    Ok(0)
}

/// Writes `deployment-state.yaml` and `deployment-events.yaml` from the journal.
fn export(context: &Context) -> Result<u8, CommandError> {
    let home = &context.global.home;
    let Some((state, records)) = recorded(home)? else { return Ok(no_journal(context)) };
    let environment = Environment::new(home);
    let files = [
        ("deployment-state.yaml", views::state_yaml(&state, &status_of(home)?)),
        ("deployment-events.yaml", views::events_yaml(&records)),
    ];
    let mut paths = Vec::new();
    for (file, content) in files {
        environment.write(file, &content, Access::Secret).map_err(|error| CommandError::file(&error))?;
        paths.push(environment.path(file));
    }
    match context.printer.is_json() {
        true => context.printer.document(&json!({"format_version": FORMAT_VERSION, "files": paths})),
        false => paths.iter().for_each(|path| context.printer.result(&path.display().to_string())),
    }
    Ok(0)
}

fn no_journal(context: &Context) -> u8 {
    match context.printer.is_json() {
        true => context.printer.document(&json!({"format_version": FORMAT_VERSION, "journal": null})),
        false => context.printer.result(&format!("there is no journal in {}", context.global.home.display())),
    }
    0
}

//! The commands, one file each, and what they have in common: from the command line to an exit code.

mod check;
mod completions;
mod config;
mod deploy;
mod events;
mod exec;
mod history;
mod init;
mod kubeconfig;
mod leftovers;
mod patience;
mod plan;
mod reset;
mod run;
mod ssh;
mod state;
mod status;
mod twin;
mod uninstall;
mod unlock;
mod version;
mod way_in;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use crate::{
    arguments::{self, Arguments, Command, Global},
    error::{CommandError, Exit},
    printer::{BAD, GOOD, Printer},
    rehearse,
    settings::Surroundings,
};

/// The variable that names the twin to talk to, unless the command line does.
const TWIN: &str = "K0RDENTCTL_TWIN";
/// The version of the format of our own JSON documents.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What every command gets.
pub(crate) struct Context {
    /// Options of every command.
    pub(crate) global: Global,
    /// Where we are.
    pub(crate) surroundings: Surroundings,
    /// How we print.
    pub(crate) printer: Printer,
}

impl Context {
    /// A command line to type next, with the options that lead to the same environment.
    pub(crate) fn command(&self, rest: &str) -> String {
        self.printer.command(rest)
    }

    /// Whoever is to be asked is not there.
    pub(crate) fn unconfirmed(&self) -> CommandError {
        CommandError::usage("cannot ask for confirmation (no terminal); nothing was touched")
            .hint("use --yes to go on without a question")
    }

    /// Asks whether to go on; `wanted` is the answer that means yes, in any case.
    pub(crate) fn confirm(&self, yes: bool, question: &str, wanted: &[&str]) -> Result<bool, CommandError> {
        if yes {
            return Ok(true);
        }
        if !self.surroundings.interactive {
            return Err(self.unconfirmed());
        }
        self.printer.ask(question);
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(|error| CommandError::usage(error.to_string()))?;
        Ok(wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(answer.trim())))
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let surroundings = Surroundings::read();
    let Arguments { global, command } = match arguments::parse(surroundings.arguments.clone(), surroundings.width) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _nobody_there = error.print().and_then(|()| std::io::stdout().flush());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    let twin = global.twin.or_else(|| surroundings.variable(TWIN).map(PathBuf::from));
    let global = Global { twin, ..global };
    let context = Context { printer: Printer::new(&global, &surroundings), global, surroundings };
    ::deploy::environment::sweep(&context.global.home);
    let is_stream =
        matches!(command, Command::Deploy(_) | Command::Replace(_) | Command::Uninstall(_) | Command::Reset(_));
    let ended = dispatch(&context, command).and_then(|code| match context.printer.trouble() {
        // Whoever goes on with half a result has to know.
        Some(error) if code == 0 => Err(CommandError::failed(format!("the result could not be written: {error}"))),
        _ => Ok(code),
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            show(&context, &error, is_stream);
            ExitCode::from(error.exit as u8)
        }
    }
}

/// One line for each command. The number is the exit code.
fn dispatch(context: &Context, command: Command) -> Result<u8, CommandError> {
    match command {
        Command::Init { template } => init::run(context, &template),
        Command::Config(command) => config::run(context, command),
        Command::Check => block_on(check::run(context)),
        Command::Plan { detailed_exitcode } => block_on(plan::run(context, detailed_exitcode)),
        Command::Deploy(arguments) => block_on(deploy::run(context, &arguments)),
        Command::Replace(arguments) => block_on(deploy::run(context, &arguments.deploy())),
        Command::Uninstall(arguments) => block_on(uninstall::run(context, arguments)),
        Command::Reset(arguments) => block_on(reset::run(context, &arguments)),
        Command::Leftovers(arguments) => block_on(leftovers::run(context, &arguments)),
        Command::Status { check: false } => status::run(context),
        Command::Status { check: true } => block_on(status::check(context)),
        Command::Unlock(confirmation) => unlock::run(context, confirmation),
        Command::History => history::run(context),
        Command::State(command) => state::run(context, command),
        Command::Events { follow } => block_on(events::run(context, follow)),
        Command::Ssh { node, command } => block_on(ssh::run(context, &node, &command)),
        Command::Kubeconfig => block_on(kubeconfig::run(context)),
        Command::Exec { command } => block_on(exec::run(context, &command)),
        // It makes a runtime of its own, with a clock of its own.
        Command::Rehearse(arguments) => rehearse::run(context, &arguments),
        Command::Twin(command) => block_on(twin::run(context, command)),
        Command::Version => version::run(context),
        Command::Completions { shell } => completions::run(context, shell),
    }
}

/// Runs a command's future on this thread.
fn block_on(command: impl Future<Output = Result<u8, CommandError>>) -> Result<u8, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("no runtime: {error}")))?;
    let result = runtime.block_on(command);
    // Somebody may still wait for the next key of the keyboard.
    runtime.shutdown_background();
    result
}

/// An error for people; and, where the result is a stream for programs, its last object.
fn show(context: &Context, error: &CommandError, is_stream: bool) {
    let printer = &context.printer;
    let hints: Vec<String> = error.hints.iter().map(|hint| printer.typed(hint).into_owned()).collect();
    printer.marked(BAD, "error", &error.message);
    hints.iter().for_each(|hint| printer.marked(GOOD, "hint", hint));
    if is_stream && printer.is_json() {
        let mut last = ending(error.exit.outcome(), error.exit as u8);
        last["message"] = json!(printer.typed(&error.message));
        last["hints"] = json!(hints);
        if !error.leftovers.is_null() {
            last["leftovers"] = error.leftovers.clone();
        }
        printer.object(&last);
    }
}

/// The last object of a stream.
pub(crate) fn ending(outcome: &str, exit_code: u8) -> Value {
    json!({"format_version": FORMAT_VERSION, "outcome": outcome, "exit_code": exit_code})
}

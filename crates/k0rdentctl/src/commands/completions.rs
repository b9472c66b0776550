//! `completions`: a completion script for a shell.

use crate::{arguments, commands::Context, error::CommandError};

/// Prints the script.
pub(crate) fn run(context: &Context, shell: clap_complete::Shell) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(context.surroundings.width), "k0rdentctl", &mut script);
    context.printer.result(&String::from_utf8_lossy(&script));
    Ok(0)
}

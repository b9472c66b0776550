//! `status`: where the environment stands, from its own records.

use deploy::session::status_of;

use crate::{commands::Context, error::CommandError, views::status};

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

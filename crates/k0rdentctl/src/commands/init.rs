//! `init`: prints a starter configuration.

use crate::{commands::Context, error::CommandError};

/// Prints the template.
pub(crate) fn run(context: &Context, template: &str) -> Result<u8, CommandError> {
    let text = deploy::config::template(template)
        .ok_or_else(|| CommandError::usage(format!("there is no template {template:?}")))?;
    context.printer.result(text);
    Ok(0)
}

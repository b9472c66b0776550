//! `version`: the program's version, and those of the formats that it reads and writes.

use serde_json::json;

use crate::{
    commands::{Context, FORMAT_VERSION},
    error::CommandError,
};

/// Prints them.
pub(crate) fn run(context: &Context) -> Result<u8, CommandError> {
    let version = env!("CARGO_PKG_VERSION");
    if context.printer.is_json() {
        context.printer.document(&json!({
            "format_version": FORMAT_VERSION,
            "version": version,
            "formats": {"journal": engine::journal::FORMAT_VERSION, "views": deploy::views::FORMAT_VERSION},
        }));
    } else {
        context.printer.result(&format!("k0rdentctl {version}"));
    }
    Ok(0)
}

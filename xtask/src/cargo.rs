//! cargo, as the chores use it.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

/// A cargo command in the workspace.
pub(crate) fn cargo() -> Command {
    // The directory of this package's manifest is set by cargo at build time.
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = program(option_env!("CARGO").unwrap_or("cargo"));
    cargo.current_dir(workspace);
    cargo
}

/// A command, to be run in the directory in which we are.
#[expect(clippy::disallowed_methods, reason = "chores run programs")]
pub(crate) fn program(path: &str) -> Command {
    Command::new(path)
}

/// What cargo knows about the workspace.
pub(crate) fn metadata() -> Result<Value, String> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]);
    let output = command.output().map_err(|error| format!("cargo metadata: {error}"))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}\n{}", String::from_utf8_lossy(&output.stderr)))
}

//! cargo, as the chores use it.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

/// A cargo command in the workspace, as if nobody but the user had called it: what the cargo that runs this chore tells
/// the chore about itself would make the inner cargo build some dependencies (ring) anew.
#[expect(clippy::disallowed_methods, reason = "a chore of the project, not a part of the program")]
pub(crate) fn cargo() -> Command {
    // As cargo says now: a target directory that several clones share may hold a chore that was built in another one.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let workspace = PathBuf::from(here).join("..");
    let mut cargo = program(option_env!("CARGO").unwrap_or("cargo"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
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

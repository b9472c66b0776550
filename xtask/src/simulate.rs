//! `cargo xtask simulate` and `cargo xtask kill-sweep`: programs of the testkit, built for speed.

use crate::cargo::cargo;

/// Whether no seed broke a rule.
pub(crate) fn simulate() -> Result<bool, String> {
    run("simulate")
}

/// Whether the program survived every kill.
pub(crate) fn kill_sweep() -> Result<bool, String> {
    let built = cargo().args(["build", "--release", "--quiet", "--package", "k0rdentctl"]).status();
    if !built.map_err(|error| format!("cargo build: {error}"))?.success() {
        return Err("cargo build failed".to_owned());
    }
    run("kill-sweep")
}

/// Runs it with the rest of the command line.
fn run(name: &str) -> Result<bool, String> {
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--package", "testkit", "--bin", name, "--"]);
    #[expect(clippy::disallowed_methods, reason = "a chore of the project, not a part of the program")]
    command.args(std::env::args_os().skip(2));
    Ok(command.status().map_err(|error| format!("cargo run: {error}"))?.success())
}

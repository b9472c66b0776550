//! The tier `real-hosts`: the product's documents, commands and SSH client on hosts with a real systemd, cloud-init, sshd and
//! WireGuard.
//!
//! The hosts' file system is made once, in `target/real-hosts`, by `tests/real-hosts/install.sh`; remove that directory for
//! newer packages. Where it cannot be made, or not used, the tests are skipped.

use std::path::PathBuf;

use fs_err as fs;

use crate::{
    azure_clients::{Ran, quietly, root},
    cargo::{cargo, metadata, program},
    test::number as figure,
};

/// The scripts that make hosts, in the workspace.
const SCRIPTS: &str = "tests/real-hosts";
/// The tests, in the workspace.
const SOURCES: &str = "crates/testkit/tests/real-hosts";

/// Whether everything passed.
pub(crate) fn alone() -> Result<bool, String> {
    let ran = run()?;
    ran.failed.iter().for_each(|test| println!("FAILED: {test}"));
    Ok(ran.failed.is_empty())
}

/// How many tests there are.
pub(crate) fn number() -> Result<u64, String> {
    let mut number = 0;
    for entry in fs::read_dir(root()?.join(SOURCES)).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        number += fs::read_to_string(path).map_err(|error| error.to_string())?.matches("#[test]\n").count() as u64;
    }
    Ok(number)
}

/// Runs the tests; an error says why that is not possible.
pub(crate) fn run() -> Result<Ran, String> {
    let scripts = root()?.join(SCRIPTS);
    let target = PathBuf::from(metadata()?["target_directory"].as_str().unwrap_or_default());
    let directory = target.join("real-hosts");
    println!("\n     Running {SCRIPTS}/install.sh (a few minutes, once)");
    quietly(program(&scripts.join("install.sh").to_string_lossy()).arg(&directory))?;
    let mut build = cargo();
    quietly(build.args(["build", "--workspace", "--bin", "k0rdentctl"]))?;
    let runner = format!("target.'cfg(unix)'.runner=['{}']", scripts.join("run.sh").display());
    let mut command = cargo();
    command.args(["test", "--config", &runner, "--workspace", "--test", "real-hosts", "--", "--test-threads=4"]);
    command.env("REAL_HOSTS", &directory).env("CARGO_TERM_COLOR", "never");
    command.env("K0RDENTCTL", target.join("debug/k0rdentctl"));
    let output = command.output().map_err(|error| format!("real-hosts: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{}{text}", String::from_utf8_lossy(&output.stderr));
    let mut ran = Ran::default();
    ran.read_cargo(&text, output.status.success());
    Ok(ran)
}

impl Ran {
    /// Reads what cargo's tests say. If they say nothing, they have failed as a whole.
    fn read_cargo(&mut self, text: &str, succeeded: bool) {
        let result = text.lines().find_map(|line| line.strip_prefix("test result: ")).unwrap_or_default();
        self.count.passed = figure(result, " passed") as u64;
        self.count.failed = figure(result, " failed") as u64;
        self.count.skipped = figure(result, " ignored") as u64;
        self.count.seconds = figure(result, "s");
        let failed = text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        self.failed.extend(failed.map(|test| format!("real-hosts: {test}")));
        if !succeeded && self.failed.is_empty() {
            self.count.failed = 1;
            self.failed.push("real-hosts: as a whole".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Count;

    #[test]
    fn the_end_of_the_tests_is_read() {
        let mut ran = Ran::default();
        let text = "test birth::a ... ok\ntest mesh::b ... FAILED\ntest result: FAILED. 1 passed; 1 failed; \
            0 ignored; 0 measured; 0 filtered out; finished in 23.10s\n";
        ran.read_cargo(text, false);
        assert_eq!(ran.count, Count { passed: 1, failed: 1, skipped: 0, seconds: 23.1 });
        assert_eq!(ran.failed, ["real-hosts: mesh::b"]);
        let mut ran = Ran::default();
        ran.read_cargo("", false);
        assert_eq!((ran.count.failed, ran.failed.len()), (1, 1));
    }

    #[test]
    fn the_tests_are_counted() {
        assert!(number().expect("the workspace") >= 11);
    }
}

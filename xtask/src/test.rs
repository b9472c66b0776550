//! `cargo xtask test`: runs all tests of the workspace, shows them as they come, and counts them by tier.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
};

use serde_json::Value;

use crate::{
    azure_clients::{self, Ran},
    cargo::{cargo, metadata},
    real_hosts,
};

/// The tiers, in the order of the table.
const TIERS: [(&str, &str); 7] = [
    ("unit", "each crate by itself"),
    ("rules", "the project's rules, read from its sources"),
    ("simulation", "the product on the twin"),
    ("cli", "the program, run as a process"),
    ("documentation", "examples in the documentation"),
    ("azure-clients", "the Azure CLI and the Azure SDKs for Python on a served twin"),
    ("real-hosts", "documents, commands and the SSH client on real hosts"),
];

/// What became of the tests of one tier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) seconds: f64,
}

/// What is read from cargo's output.
#[derive(Debug, Default)]
struct Tally {
    /// The package of each integration test, by the path of its source in the package.
    packages: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, Count>,
    tier: &'static str,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// Whether everything passed.
pub(crate) fn run() -> Result<bool, String> {
    let failed = |error: std::io::Error| format!("cargo test: {error}");
    let mut tally = Tally { packages: integration_tests(&metadata()?), ..Tally::default() };
    // One pipe for both streams: cargo names a test binary on one, the binary reports on the other.
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.env("CARGO_TERM_COLOR", "never").env("CARGO_TERM_QUIET", "false").env("INSTA_UPDATE", "no");
    command.stdout(writer.try_clone().map_err(failed)?).stderr(writer);
    let mut child = command.spawn().map_err(failed)?;
    // It holds the pipe's other end.
    drop(command);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.map_err(failed)?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait().map_err(failed)?;
    tally.add("azure-clients", azure_clients::run(), azure_clients::number()?);
    tally.add("real-hosts", real_hosts::run(), real_hosts::number()?);
    print!("{}", tally.table());
    if !status.success() {
        println!("\ncargo test failed");
    }
    Ok(status.success() && tally.failed.is_empty())
}

/// Whether this is a machine on which nothing may be left out.
#[expect(clippy::disallowed_methods, reason = "a chore of the project, not a part of the program")]
fn is_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// The packages of the integration tests, by the path of their source in the package.
fn integration_tests(metadata: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let directory = manifest.strip_suffix("Cargo.toml").unwrap_or_default();
        for target in package["targets"].as_array().into_iter().flatten().filter(|target| target["kind"][0] == "test") {
            let source = target["src_path"].as_str().and_then(|path| path.strip_prefix(directory));
            let name = package["name"].as_str().unwrap_or_default();
            found.insert(source.unwrap_or_default().to_owned(), name.to_owned());
        }
    }
    found
}

impl Tally {
    /// Counts a tier that needs things from outside. Where they cannot be had, it is skipped, but not in CI.
    fn add(&mut self, tier: &'static str, ran: Result<Ran, String>, number: u64) {
        let count = match ran {
            Ok(ran) => {
                self.failed.extend(ran.failed);
                ran.count
            }
            Err(reason) => {
                let reason = format!("{tier}: all of it ({reason})");
                if is_ci() {
                    self.failed.push(reason);
                    Count { failed: number, ..Count::default() }
                } else {
                    self.skipped.push(reason);
                    Count { skipped: number, ..Count::default() }
                }
            }
        };
        self.counts.insert(tier, count);
    }

    fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(binary) = line.strip_prefix("Running ") {
            self.tier = self.tier_of(binary.split(" (").next().unwrap_or_default());
        } else if line.starts_with("Doc-tests ") {
            self.tier = "documentation";
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let count = self.counts.entry(self.tier).or_default();
            count.passed += number(result, " passed") as u64;
            count.failed += number(result, " failed") as u64;
            count.skipped += number(result, " ignored") as u64;
            count.seconds += number(result, "s");
        } else if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            match outcome.strip_prefix("ignored") {
                Some(reason) => self.skipped.push(format!("{name}{reason}")),
                None if outcome == "FAILED" => self.failed.push(format!("{}: {name}", self.tier)),
                None => {}
            }
        }
    }

    fn tier_of(&self, source: &str) -> &'static str {
        match self.packages.get(source).map(String::as_str) {
            Some("testkit") if source.starts_with("tests/rules") => "rules",
            Some("rehearsal" | "testkit") => "simulation",
            Some("k0rdentctl") => "cli",
            _ => "unit",
        }
    }

    fn table(&self) -> String {
        let mut text =
            format!("\n{:<15}{:>7}{:>8}{:>9}{:>9}   what\n", "tier", "passed", "failed", "skipped", "seconds");
        let mut total = Count::default();
        let mut row = |name: &str, count: &Count, what: &str| {
            let Count { passed, failed, skipped, seconds } = count;
            text += &format!("{name:<15}{passed:>7}{failed:>8}{skipped:>9}{seconds:>9.1}   {what}\n");
        };
        for (name, what) in TIERS {
            let count = self.counts.get(name).cloned().unwrap_or_default();
            row(name, &count, what);
            total.passed += count.passed;
            total.failed += count.failed;
            total.skipped += count.skipped;
            total.seconds += count.seconds;
        }
        row("total", &total, "");
        text += &self.skipped.iter().map(|test| format!("skipped: {test}\n")).collect::<String>();
        text += &self.failed.iter().map(|test| format!("FAILED: {test}\n")).collect::<String>();
        text
    }
}

/// The number before `unit` in `ok. 3 passed; 0 failed; 1 ignored; ...; finished in 0.33s`.
pub(crate) fn number(result: &str, unit: &str) -> f64 {
    let part = result.split(';').find_map(|part| part.trim().strip_suffix(unit));
    part.and_then(|part| part.split_whitespace().last()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_by_tier() {
        let packages = [
            ("tests/first_road.rs", "rehearsal"),
            ("tests/rules/main.rs", "testkit"),
            ("tests/cli/main.rs", "k0rdentctl"),
        ];
        let packages = packages.map(|(source, package)| (source.to_owned(), package.to_owned()));
        let mut tally = Tally { packages: packages.into(), ..Tally::default() };
        let output = "     Running unittests src/lib.rs (target/debug/deps/engine-0123)
test plan::tests::a ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.33s
     Running tests/first_road.rs (target/debug/deps/first_road-0123)
test large ... FAILED
test azure ... ignored, needs an Azure account
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.00s
     Running tests/rules/main.rs (target/debug/deps/rules-0123)
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.50s
     Running tests/cli/main.rs (target/debug/deps/cli-0123)
test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
   Doc-tests engine
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(tally.counts["unit"], Count { passed: 12, failed: 0, skipped: 0, seconds: 0.33 });
        assert_eq!(tally.counts["simulation"], Count { passed: 1, failed: 1, skipped: 1, seconds: 2.0 });
        assert_eq!(tally.counts["rules"].passed, 7);
        assert_eq!(tally.counts["cli"].passed, 9);
        let table = tally.table();
        assert!(table.contains("total               29       1        1      3.8"), "{table}");
        assert!(table.contains("skipped: azure, needs an Azure account\nFAILED: simulation: large\n"), "{table}");
    }
}

//! The tier `azure-clients`: the Azure CLI and the Azure SDKs for Python, which nobody here wrote, on a served twin.
//!
//! They come from the package registry into virtual environments in `target/azure-clients`, as new as they are on that day,
//! and stay there: remove the directory for newer ones. Without Python or registry, the tests are skipped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fs_err as fs;

use crate::{
    cargo::{cargo, metadata, program},
    test::Count,
};

/// The sources of the tests, in the workspace.
const SOURCES: &str = "tests/azure-clients";
/// `test_{suite}.py` runs in an environment with what `{name}-requirements.txt` asks for: suite and name. Never more than
/// two Azure CLIs at once: each wants a core for itself.
const SUITES: [(&str, &str); 3] = [("cli_resources", "cli"), ("cli_machines", "cli"), ("sdk", "sdk")];

/// Whether everything passed.
pub(crate) fn alone() -> Result<bool, String> {
    let ran = run()?;
    ran.failed.iter().for_each(|test| println!("FAILED: {test}"));
    Ok(ran.failed.is_empty())
}

/// What became of the tests.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) count: Count,
    pub(crate) failed: Vec<String>,
}

/// How many tests there are.
pub(crate) fn number() -> Result<u64, String> {
    let sources = root()?.join(SOURCES);
    let texts =
        SUITES.map(|(suite, _)| fs::read_to_string(sources.join(format!("test_{suite}.py"))).unwrap_or_default());
    Ok(texts.iter().map(|text| text.matches("\n    def test_").count() as u64).sum())
}

/// Runs the tests, all suites at once; an error says why that is not possible.
pub(crate) fn run() -> Result<Ran, String> {
    let root = root()?;
    let target = PathBuf::from(metadata()?["target_directory"].as_str().unwrap_or_default());
    let directory = target.join("azure-clients");
    let failed = |error: std::io::Error| format!("azure-clients: {error}");
    fs::create_dir_all(&directory).map_err(failed)?;
    let built = cargo().args(["build", "--quiet", "--workspace", "--bin", "k0rdentctl"]).status().map_err(failed)?;
    if !built.success() {
        return Err("k0rdentctl does not build".to_owned());
    }
    let mut pythons = Vec::new();
    for (_, name) in SUITES {
        pythons.push(environment(&root.join(SOURCES), &directory, name)?);
    }
    let mut running = Vec::new();
    for ((suite, _), python) in SUITES.into_iter().zip(pythons) {
        let log = directory.join(format!("{suite}.log"));
        let output = fs::File::create(&log).map_err(failed)?.into_parts().0;
        let mut command = program(&python.to_string_lossy());
        command.args(["-B", "-m", "unittest", "-v", &format!("test_{suite}")]).current_dir(root.join(SOURCES));
        command
            .env("K0RDENTCTL", target.join("debug/k0rdentctl"))
            .env("AZURE_CLIENTS_DIRECTORY", directory.join("run"));
        command.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?).stderr(output);
        running.push((suite, log, command.spawn().map_err(failed)?));
    }
    let mut ran = Ran::default();
    for (suite, log, mut child) in running {
        let succeeded = child.wait().map_err(failed)?.success();
        let text = fs::read_to_string(log).map_err(failed)?;
        println!("\n     Running {SOURCES}/test_{suite}.py\n{text}");
        ran.read(suite, &text, succeeded);
    }
    Ok(ran)
}

pub(crate) fn root() -> Result<PathBuf, String> {
    let metadata = metadata()?;
    Ok(PathBuf::from(metadata["workspace_root"].as_str().unwrap_or_default()))
}

/// The Python of a virtual environment that has what a suite requires.
fn environment(sources: &Path, directory: &Path, name: &str) -> Result<PathBuf, String> {
    let requirements = sources.join(format!("{name}-requirements.txt"));
    let home = directory.join(name);
    let (python, stamp) = (home.join("bin/python"), home.join("installed.txt"));
    let wanted = fs::read_to_string(&requirements).map_err(|error| error.to_string())?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    println!("installing {} (a few minutes, once)", wanted.split_whitespace().collect::<Vec<_>>().join(", "));
    if home.exists() {
        fs::remove_dir_all(&home).map_err(|error| error.to_string())?;
    }
    quietly(program("python3").args(["-m", "venv"]).arg(&home))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    quietly(program(&python.to_string_lossy()).args(pip).arg(&requirements))?;
    fs::write(&stamp, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Runs a command; an error is the last line that it wrote.
pub(crate) fn quietly(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed").trim().to_owned())
}

impl Ran {
    /// Reads what Python's unittest says at the end. A suite that says nothing has failed as a whole.
    fn read(&mut self, suite: &str, text: &str, succeeded: bool) {
        let failures = text.lines().filter_map(|line| line.strip_prefix("ERROR: ").or(line.strip_prefix("FAIL: ")));
        let mut failed: Vec<String> = failures.map(|test| format!("azure-clients: {test}")).collect();
        if !succeeded && failed.is_empty() {
            failed.push(format!("azure-clients: test_{suite} as a whole"));
        }
        // "Ran 16 tests in 82.120s", "OK (skipped=1)"
        let words: Vec<&str> = text.lines().rfind(|line| line.starts_with("Ran ")).unwrap_or("").split(' ').collect();
        let number = words.get(1).and_then(|number| number.parse().ok()).unwrap_or(0_u64);
        let seconds = words.last().and_then(|word| word.strip_suffix('s')?.parse().ok()).unwrap_or(0.0_f64);
        let skipped =
            text.lines().rev().find_map(|line| line.split_once("skipped=")?.1.trim_end_matches(')').parse().ok());
        let skipped = skipped.unwrap_or(0);
        self.count.passed += number.saturating_sub(failed.len() as u64 + skipped);
        self.count.failed += failed.len() as u64;
        self.count.skipped += skipped;
        self.count.seconds = self.count.seconds.max(seconds);
        self.failed.extend(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_suite_is_read() {
        let mut ran = Ran::default();
        let good = "test_a (test_sdk.Login.test_a) ... ok\n\nRan 9 tests in 10.5s\n\nOK (skipped=1)\n";
        ran.read("sdk", good, true);
        assert_eq!(ran.count, Count { passed: 8, failed: 0, skipped: 1, seconds: 10.5 });
        let bad = "FAIL: test_b (test_cli.Groups.test_b)\nTraceback\n\nRan 16 tests in 82.1s\n\nFAILED (failures=1)\n";
        ran.read("cli", bad, false);
        assert_eq!(ran.count, Count { passed: 23, failed: 1, skipped: 1, seconds: 82.1 });
        ran.read("cli", "Segmentation fault\n", false);
        assert_eq!(
            ran.failed,
            ["azure-clients: test_b (test_cli.Groups.test_b)", "azure-clients: test_cli as a whole"]
        );
    }

    #[test]
    fn the_tests_are_counted() {
        assert!(number().expect("the workspace") >= 20);
    }
}

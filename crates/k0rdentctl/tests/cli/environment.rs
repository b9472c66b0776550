//! An empty directory with an empty environment, in which the program runs.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use engine::{Event, Holder, Journal, journal::Durability};
use tempfile::TempDir;
use time::macros::datetime;

/// A cluster with one controller and one worker.
pub(crate) const CONFIG: &str = "cluster:\n  workers:\n    count: 1\n";

/// The directory in which the program runs.
pub(crate) struct TestEnvironment {
    directory: TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

/// What the program left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestEnvironment {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory"), variables: Vec::new() }
    }

    /// With a configuration.
    pub(crate) fn with_config(text: &str) -> Self {
        let environment = Self::new();
        environment.write("k0rdent.yaml", text);
        environment
    }

    /// With an environment variable.
    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// With what a login needs; no login happens in these tests.
    pub(crate) fn with_credentials(self) -> Self {
        self.variable("AZURE_TENANT_ID", "tenant")
            .variable("AZURE_CLIENT_ID", "client")
            .variable("AZURE_CLIENT_SECRET", "hunter2")
            .variable("K0RDENT_OPERATOR_ADDRESS", "192.0.2.7")
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn home(&self) -> std::path::PathBuf {
        self.path().join(".k0rdent")
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs_err::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs_err::write(path, text).expect("a file");
    }

    /// Takes the journal, as a run would that began at the turn of an hour.
    pub(crate) fn take_journal(&self) -> Journal {
        let since = datetime!(2027-01-04 08:00 UTC);
        let holder = Holder { user: "ada".into(), host: "desk".into(), pid: 7, command: "deploy".into(), since };
        let journal = Journal::open_to_write(&self.home(), &holder, Durability::Process).expect("a journal");
        let cluster = Event::Settled { key: "cluster_id".into(), value: "k0rdent-abcd1234".into() };
        journal.append(since, Event::RunStarted { command: "deploy".into(), holder }).expect("an event");
        journal.append(since, cluster).expect("an event");
        journal
    }

    #[expect(clippy::disallowed_methods, reason = "these tests are about the program as a process")]
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k0rdentctl"));
        command.args(arguments).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.envs(self.variables.iter().copied());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    /// With more environment variables.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = self.command(arguments);
        let Output { status, stdout, stderr } =
            command.envs(variables.iter().copied()).output().expect("the program runs");
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("text");
            text.replace(&self.path().display().to_string(), "DIRECTORY")
        };
        Ran { code: status.code().expect("an exit code"), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// For snapshots: everything at once.
impl std::fmt::Display for Ran {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}--- errors\n{}--- exit code {}", self.stdout, self.stderr, self.code)
    }
}

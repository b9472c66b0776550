//! Rehearsals for tests.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use deploy::config;
use engine::Stop;
use rehearsal::{Report, Script, rehearse};
use tokio::sync::watch;

/// So many controllers and workers, in networks that are large enough.
pub(crate) fn configuration(controllers: u16, workers: u16) -> String {
    format!(
        "network:\n  subnet_prefix: 10.0.0.0/20\n  wireguard_network: 172.20.0.0/20\n  pod_cidr: 10.128.0.0/14\ncluster:\n  controllers: {{count: {controllers}, zones: [1, 2, 3]}}\n  workers: {{count: {workers}, zones: [1, 2, 3]}}\n"
    )
}

/// A proxy with a login, beside which there is no way out.
pub(crate) fn only_way(password: &str) -> twin::proxy::ForwardProxy {
    twin::proxy::ForwardProxy {
        host: "proxy.example".to_owned(),
        port: 3128,
        login: Some(("ada".to_owned(), password.to_owned())),
        is_only_way: true,
        address: [203, 0, 113, 80].into(),
    }
}

/// `SHOW=1` in the environment prints every message.
#[expect(clippy::disallowed_methods, reason = "a switch for people who look into a failing test")]
pub(crate) fn show(message: &engine::Message) {
    if std::env::var_os("SHOW").is_none() {
        return;
    }
    match message {
        engine::Message::Recorded(record) => match &record.event {
            engine::Event::Planned { .. } => {}
            event => println!("{} {event:?}", record.at),
        },
        engine::Message::Progress { step, waiting_for, evidence, elapsed } => {
            println!("    {} {elapsed:?} {waiting_for}: {evidence}", step.id);
        }
    }
}

/// Up, and down again.
pub(crate) async fn run(text: &str, seed: u64) -> Report {
    let loaded = config::load(text).expect("a good configuration");
    let home = tempfile::tempdir().expect("a temporary directory");
    let (_go_on, stop) = watch::channel(Stop::No);
    let script = Script {
        config_text: text,
        config: &loaded.config,
        home: home.path(),
        seed,
        faults: Vec::new(),
        listener: &show,
        stop,
    };
    rehearse(&script).await.expect("a rehearsal")
}

/// It succeeded, left nothing, was never throttled, and wasted no time.
pub(crate) fn check(report: &Report, nodes: usize, ratio: f64) {
    assert_eq!(report.failures, [] as [String; 0]);
    assert_eq!((report.outcome, report.nodes), ("succeeded", nodes));
    assert_eq!(report.leftovers, []);
    assert_eq!(report.requests.throttled, 0);
    assert!(report.critical_path_seconds > 60.0, "{report:?}");
    assert!((1.0..=ratio).contains(&report.overhead_ratio), "{} {:?}", report.overhead_ratio, report.critical_path);
}

/// An environment on a stage of its own.
pub(crate) struct Environment {
    /// The stage.
    pub(crate) stage: rehearsal::Stage,
    text: String,
    home: tempfile::TempDir,
}

impl Environment {
    /// An environment that does not exist yet.
    pub(crate) fn new(text: &str, seed: u64) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        Self { stage: rehearsal::Stage::new(seed), text: text.to_owned(), home }
    }

    /// Another configuration for the same environment.
    pub(crate) fn configure(&mut self, text: &str) {
        text.clone_into(&mut self.text);
    }

    /// The faults in force from now on.
    pub(crate) fn set_faults(&self, faults: &[twin::Fault]) {
        self.stage.twin.with(|world| world.faults.active = faults.to_vec());
    }

    /// Deploys.
    pub(crate) async fn deploy(&self) -> Result<deploy::session::Finished, deploy::session::SessionError> {
        self.deploy_until(deploy::task::Phase::K0rdent).await
    }

    /// Deploys up to and including a phase.
    pub(crate) async fn deploy_until(
        &self,
        phase: deploy::task::Phase,
    ) -> Result<deploy::session::Finished, deploy::session::SessionError> {
        self.deploy_heard(phase, &show).await
    }

    /// The same; the listener hears all that is said.
    pub(crate) async fn deploy_heard(
        &self,
        phase: deploy::task::Phase,
        listener: &(dyn Fn(&engine::Message) + Send + Sync),
    ) -> Result<deploy::session::Finished, deploy::session::SessionError> {
        let loaded = config::load(&self.text).expect("a good configuration");
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = deploy::session::Watching { stop, listener, faults: None };
        self.session(phase).deploy(&self.text, &loaded.config, watching).await
    }

    /// A session in this environment.
    pub(crate) fn session(&self, until: deploy::task::Phase) -> deploy::session::Session {
        deploy::session::Session::new(self.stage.settings(self.home.path(), until))
    }

    /// The environment's directory.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Resets.
    pub(crate) async fn reset(&self) -> Result<deploy::session::Finished, deploy::session::SessionError> {
        self.reset_as(&deploy::session::Teardown::default()).await
    }

    /// Resets in that manner.
    pub(crate) async fn reset_as(
        &self,
        teardown: &deploy::session::Teardown,
    ) -> Result<deploy::session::Finished, deploy::session::SessionError> {
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = deploy::session::Watching { stop, listener: &show, faults: None };
        self.session(deploy::task::Phase::K0rdent).reset(teardown, watching).await
    }

    /// Resets, and makes sure that nothing is left anywhere.
    pub(crate) async fn reset_to_nothing(&self) {
        self.reset().await.expect("a teardown");
        self.nothing_is_left();
    }

    /// Nothing is left anywhere.
    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.stage.twin.with(|world| twin::azure::resources(world)), [] as [serde_json::Value; 0]);
        let mut left: Vec<_> = fs_err::read_dir(self.home.path())
            .expect("the directory")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".gitignore", "README", "old_deployments"]);
    }

    /// How many lines of the world's ledger are of that kind.
    pub(crate) fn ledger(&self, which: impl Fn(&twin::Entry) -> bool) -> usize {
        self.stage.twin.with(|world| world.ledger.entries.iter().filter(|entry| which(entry)).count())
    }
}

impl Environment {
    /// The differences from what is recorded: name and subject.
    pub(crate) async fn check(&self) -> Vec<(&'static str, String)> {
        let drift = self.session(deploy::task::Phase::K0rdent).check().await.expect("a look at the world");
        drift.differences.into_iter().map(|difference| (difference.kind.name(), difference.subject)).collect()
    }
}

impl Environment {
    /// Somebody deletes a machine.
    pub(crate) fn delete(&self, machine: &str) {
        let action = twin::Action::DeleteMachine { machine: machine.into() };
        self.stage.twin.with(|world| action.perform(world)).expect("a deletion");
    }

    /// How many clusters were ever begun.
    pub(crate) fn clusters(&self) -> usize {
        self.ledger(|entry| entry.verb == "created" && entry.object.ends_with("k0s cluster"))
    }
}

/// What somebody was refused for.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, deploy::session::SessionError>) -> engine::Failure {
    match result {
        Err(deploy::session::SessionError::Failed(failures)) => failures.into_iter().next().expect("a failure"),
        other => panic!("not refused: {other:?}"),
    }
}

/// Azure itself takes a minute over some of it.
pub(crate) async fn a_while() {
    engine::pause(std::time::Duration::from_secs(300)).await;
}

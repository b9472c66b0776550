//! Journals of every format version that there ever was: each can be resumed. `WRITE_JOURNALS=1` in the environment
//! writes those of the current version anew (only ever for a new version: what is checked in stays as it is).

mod common;

use std::{path::Path, time::Duration};

use common::{Environment, configuration};
use deploy::task::Phase;

/// What belongs to an environment that somebody left behind.
const FILES: [&str; 3] = ["journal.sqlite", "keys.json", "k0rdent.yaml"];

/// The instants at which a deployment of 1+1 is in the middle of a phase, in world seconds.
const HALF_WAY: [(&str, u64); 5] =
    [("infrastructure", 5), ("machines", 30), ("mesh-and-k0s", 84), ("k0s", 100), ("k0rdent", 300)];

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journals/v1")
}

fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a directory");
    for file in FILES.iter().filter(|file| from.join(file).exists()) {
        fs_err::copy(from.join(file), to.join(file)).expect("a copy");
    }
}

async fn write(name: &str, leave: impl AsyncFnOnce(&Environment)) {
    let environment = Environment::new(&configuration(1, 1), 7);
    leave(&environment).await;
    copy(environment.home(), &directory().join(name));
}

/// Leaves the environments behind that the other test resumes.
#[expect(clippy::disallowed_methods, reason = "a test that writes its own data asks whether it should")]
#[tokio::test(start_paused = true)]
async fn journals_are_written_on_request() {
    if std::env::var_os("WRITE_JOURNALS").is_none() {
        return;
    }
    for (name, seconds) in HALF_WAY {
        write(name, async |environment: &Environment| {
            let deployment = environment.deploy();
            assert!(tokio::time::timeout(Duration::from_secs(seconds), deployment).await.is_err(), "{name} is over");
        })
        .await;
    }
    write("fresh", async |environment: &Environment| {
        environment.deploy_until(Phase::Prepare).await.expect("preparations");
    })
    .await;
    write("finished", async |environment: &Environment| {
        environment.deploy().await.expect("a deployment");
    })
    .await;
    write("half-reset", async |environment: &Environment| {
        environment.deploy().await.expect("a deployment");
        let teardown = environment.reset();
        assert!(tokio::time::timeout(Duration::from_secs(90), teardown).await.is_err(), "the teardown is over");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_journal_can_be_resumed() {
    let mut resumed = 0;
    for entry in fs_err::read_dir(directory()).expect("the journals").map(|entry| entry.expect("an entry")) {
        let environment = Environment::new(&configuration(1, 1), 11);
        copy(&entry.path(), environment.home());
        let name = entry.file_name();
        // A teardown that has begun is finished before anything new is built.
        if name == "half-reset" {
            assert!(
                environment
                    .deploy()
                    .await
                    .is_err_and(|error| error.to_string().contains("a teardown of this cluster has begun"))
            );
            environment.reset().await.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
        }
        // The world is another one: nothing of what the journal speaks of exists there, and a cluster is lost.
        let text = configuration(1, 1);
        let loaded = deploy::config::load(&text).expect("a good configuration");
        let mut settings = environment.stage.settings(environment.home(), Phase::K0rdent);
        settings.repair.start_anew = true;
        let (_go_on, stop) = tokio::sync::watch::channel(engine::Stop::No);
        let watching = deploy::session::Watching { stop, listener: &common::show, faults: None };
        let deployed = deploy::session::Session::new(settings).deploy(&text, &loaded.config, watching).await;
        deployed.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
        environment.reset_to_nothing().await;
        resumed += 1;
    }
    assert_eq!(resumed, HALF_WAY.len() + 3);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_an_environment_that_was_overtaken_is_noticed_before_it_does_anything() {
    let mut environment = Environment::new(&configuration(1, 1), 7);
    environment.deploy_until(Phase::Machines).await.expect("machines");
    let elsewhere = tempfile::tempdir().expect("a directory");
    copy(environment.home(), elsewhere.path());
    environment.configure(&configuration(1, 2));
    environment.deploy_until(Phase::Machines).await.expect("one more machine");
    let copied = deploy::session::Session::new(environment.stage.again(2).settings(elsewhere.path(), Phase::K0rdent));
    let text = configuration(1, 1);
    let loaded = deploy::config::load(&text).expect("a good configuration");
    let (_go_on, stop) = tokio::sync::watch::channel(engine::Stop::No);
    let watching = deploy::session::Watching { stop, listener: &common::show, faults: None };
    let changes = || environment.ledger(|entry| entry.kind == "change");
    let before = changes();
    let error = copied.deploy(&text, &loaded.config, watching).await.expect_err("a refusal");
    let deploy::session::SessionError::Overtaken(error) = error else { panic!("{error}") };
    assert_eq!((error.theirs, error.ours), (2, 1));
    let told = error.to_string();
    assert!(
        told.starts_with("another copy of this environment has gone on: its run 2 has made k0s-worker-2"),
        "{told}"
    );
    assert_eq!(changes(), before, "nothing was touched");
    // The one that went on goes on.
    environment.deploy_until(Phase::Machines).await.expect("nothing new");
    environment.reset_to_nothing().await;
}

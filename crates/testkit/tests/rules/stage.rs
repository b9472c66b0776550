//! A small cluster on the twin, for rules about what a deployment leaves behind.

use std::{path::Path, sync::Mutex};

use deploy::{
    config,
    session::{Session, Watching},
    task::Phase,
};
use engine::{Clock as _, Holder, Stop, SystemClock};
use rehearsal::Stage;

/// Two controllers, so that one of them joins the other, and a worker.
pub(crate) fn configuration() -> &'static str {
    "cluster:\n  controllers: {count: 2, zones: [1, 2]}\n  workers: {count: 1, zones: [3]}\n"
}

/// Somebody who runs a command.
pub(crate) fn holder() -> Holder {
    Holder { user: "ada".into(), host: "desk".into(), pid: 7, command: "deploy".into(), since: SystemClock.utc() }
}

/// Deploys a cluster into `home`; what the run told its readers comes back as text.
pub(crate) async fn deployed(home: &Path) -> (Stage, Session, String) {
    let stage = Stage::new(7);
    let session = Session::new(stage.settings(home, Phase::K0rdent));
    let config = config::load(configuration()).expect("a good configuration").config;
    let told = Mutex::new(String::new());
    let listener = |message: &engine::Message| {
        if let Ok(mut told) = told.lock() {
            *told += &format!("{message:?}\n");
        }
    };
    let (_go_on, stop) = tokio::sync::watch::channel(Stop::No);
    let watching = Watching { stop, listener: &listener, faults: None };
    session.deploy(configuration(), &config, watching).await.expect("a deployment");
    (stage, session, told.into_inner().unwrap_or_default())
}

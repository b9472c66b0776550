//! The files of an environment: whose they are, who may read them, and what becomes of what people change.

mod common;

use std::{os::unix::fs::PermissionsExt as _, process::Command, sync::Mutex};

use common::Environment;
use deploy::{
    config,
    kubernetes::{KubernetesError, NODE},
    session::{Session, Watching},
    task::Phase,
};
use engine::{Event, Message, Origin, Stop};
use tokio::sync::watch;

/// Deploys, and answers what is said about files.
async fn deploy(environment: &Environment, force: Option<&str>) -> Vec<(String, Origin)> {
    let said = Mutex::new(Vec::new());
    let listener = |message: &Message| {
        if let Message::Recorded(record) = message
            && let Event::Artifact { path, origin, .. } = &record.event
        {
            said.lock().expect("a list").push((path.clone(), *origin));
        }
    };
    let text = common::configuration(1, 1);
    let config = config::load(&text).expect("a configuration").config;
    let (_go_on, stop) = watch::channel(Stop::No);
    let mut settings = environment.stage.settings(environment.home(), Phase::K0s);
    settings.force_regenerate = force.map(str::to_owned);
    let watching = Watching { stop, listener: &listener, faults: None };
    Session::new(settings).deploy(&text, &config, watching).await.expect("a deployment");
    said.into_inner().expect("a list")
}

fn environment() -> Environment {
    Environment::new(&common::configuration(1, 1), 7)
}

/// What is said of the files whose paths have that part.
fn of(said: &[(String, Origin)], part: &str) -> Vec<Origin> {
    said.iter().filter(|(path, _)| path.contains(part)).map(|(_, origin)| *origin).collect()
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_changed_by_hand_is_made_again_with_a_word_and_a_copy() {
    let environment = environment();
    let said = deploy(&environment, None).await;
    assert!(said.iter().all(|(_, origin)| *origin == Origin::Generated), "{said:?}");
    let again = deploy(&environment, None).await;
    assert_eq!(again.len(), said.len(), "each file is named though no step of it runs: {again:?}");
    assert!(again.iter().all(|(_, origin)| *origin == Origin::Existing), "{again:?}");
    let file = environment.home().join("ssh/config");
    let made = fs_err::read_to_string(&file).expect("a file");
    fs_err::write(&file, "Host mine\n").expect("an edit");
    let secret = "cloud-init-yaml/k0s-worker-1-cloud-init.yaml";
    fs_err::write(environment.home().join(secret), b"\xff not even text").expect("an edit");
    let edited = deploy(&environment, None).await;
    assert_eq!(of(&edited, "ssh/config"), [Origin::Edited]);
    assert_eq!(of(&edited, secret), [Origin::Edited]);
    assert_eq!(fs_err::read_to_string(&file).expect("a file"), made);
    assert_eq!(fs_err::read_to_string(file.with_extension("bak")).expect("a copy"), "Host mine\n");
    let copy = environment.home().join(format!("{secret}.bak"));
    assert_eq!(fs_err::metadata(&copy).expect("a copy").permissions().mode() & 0o777, 0o600);
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn one_file_can_be_made_again_without_the_others() {
    let environment = environment();
    deploy(&environment, None).await;
    let said = deploy(&environment, Some("cloud-init-yaml/k0s-worker-1")).await;
    assert_eq!(of(&said, "k0s-worker-1-cloud-init"), [Origin::Regenerated]);
    assert_eq!(said.iter().filter(|(_, origin)| *origin != Origin::Existing).count(), 1, "{said:?}");
    let said = deploy(&environment, Some("")).await;
    assert!(said.iter().all(|(_, origin)| *origin == Origin::Regenerated), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_others_may_read_is_named_and_made_private() {
    let environment = environment();
    deploy(&environment, None).await;
    let mode = |path: &str, mode| {
        fs_err::set_permissions(environment.home().join(path), std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode("keys.json", 0o644);
    mode("wireguard", 0o755);
    let differences = environment.check().await;
    assert_eq!(differences, [("file-mode", "keys.json".to_owned()), ("file-mode", "wireguard".to_owned())]);
    let refused = environment.session(Phase::K0s).look().await.err().expect("a refusal").to_string();
    assert!(refused.contains("keys.json") && refused.contains("0644") && refused.contains("chmod 600"), "{refused}");
    deploy(&environment, None).await;
    assert_eq!(environment.check().await, []);
    environment.session(Phase::K0s).look().await.expect("a way in");
}

#[tokio::test(start_paused = true)]
async fn a_directory_keeps_itself_out_of_version_control() {
    let environment = environment();
    deploy(&environment, None).await;
    assert_eq!(fs_err::read_to_string(environment.home().join(".gitignore")).expect("a file"), "*\n");
    assert!(fs_err::read_to_string(environment.home().join("README")).expect("a file").contains("k0rdentctl"));
}

/// `. kubeconfig-env.sh` in every shell that this computer has, from another directory.
#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "real shells are asked")]
async fn every_shell_can_source_the_script() {
    let environment = environment();
    deploy(&environment, None).await;
    let script = environment.home().join("kubeconfig/kubeconfig-env.sh");
    let text = fs_err::read_to_string(&script).expect("a script");
    assert!(!text.contains("BASH_SOURCE") && !text.contains("alias"), "{text}");
    let mut asked = 0;
    for shell in ["sh", "dash", "bash", "zsh"] {
        let command =
            format!("set -eu; . '{}'; echo \"$KUBECONFIG\"; sh -c 'test -f \"$KUBECONFIG\"'", script.display());
        let Ok(output) = Command::new(shell).args(["-c", &command]).current_dir("/").output() else { continue };
        assert!(output.status.success(), "{shell}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).trim().ends_with("-kubeconfig"), "{shell}: {output:?}");
        asked += 1;
    }
    assert!(asked > 0, "there is no shell");
}

#[tokio::test(start_paused = true)]
async fn a_reset_removes_what_is_ours_and_nothing_else() {
    let environment = environment();
    deploy(&environment, None).await;
    let home = environment.home();
    let theirs = ["NOTES.md", "deployment-notes.md", "src/main.rs", "ssh/my-key", "kubeconfig/mine.yaml", "run-book/a"];
    for file in theirs {
        fs_err::create_dir_all(home.join(file).parent().expect("a parent")).expect("a directory");
        fs_err::write(home.join(file), "theirs").expect("a file");
    }
    environment.reset().await.expect("a teardown");
    for file in theirs {
        assert_eq!(fs_err::read_to_string(home.join(file)).expect(file), "theirs");
    }
    for file in ["keys.json", "journal.sqlite", "journal.lock", "ssh/config", "deployment-state.yaml"] {
        assert!(!home.join(file).exists(), "{file}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_environment_begins_among_the_files_of_others() {
    let environment = environment();
    for file in ["NOTES.md", "k0rdent.yaml"] {
        fs_err::write(environment.home().join(file), "theirs").expect("a file");
    }
    let error = environment.deploy().await.expect_err("somebody else's directory").to_string();
    assert!(error.contains("NOTES.md, k0rdent.yaml") && error.contains("--home"), "{error}");
    assert_eq!(fs_err::read_dir(environment.home()).expect("the directory").count(), 2, "nothing was touched");
    assert_eq!(environment.stage.twin.with(|world| world.ledger.entries.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_where_somebody_puts_away() {
    let environment = environment();
    deploy(&environment, None).await;
    let claimed = engine::Journal::claim(environment.home()).expect("a claim").expect("nobody else is there");
    let error = environment.deploy().await.expect_err("somebody is at work").to_string();
    assert!(error.contains("another run is active"), "{error}");
    drop(claimed);
    environment.deploy().await.expect("he has gone");
}

/// What nobody trusts is not asked again and again until the deadline.
#[tokio::test(start_paused = true)]
async fn a_kubeconfig_of_another_cluster_is_named_at_once() {
    let (environment, other) = (environment(), Environment::new(&common::configuration(1, 1), 8));
    for environment in [&environment, &other] {
        environment.deploy().await.expect("a deployment");
    }
    let kubeconfig = |environment: &Environment| {
        let files = fs_err::read_dir(environment.home().join("kubeconfig")).expect("a directory").flatten();
        let mut files = files.map(|file| file.path());
        files.find(|path| path.to_string_lossy().ends_with("-kubeconfig")).expect("a kubeconfig")
    };
    fs_err::copy(kubeconfig(&other), kubeconfig(&environment)).expect("a copy");
    let deployment = environment.session(Phase::K0rdent).look().await.expect("a deployment to look at");
    let before = tokio::time::Instant::now();
    let error = deployment.kubernetes().await.expect("a client").list(NODE, None).await.expect_err("no trust");
    assert!(matches!(error, KubernetesError::Certificates(_)) && !error.is_transient(), "{error}");
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    // The file is ours: the next deployment writes it again, and what somebody had put there stays beside it.
    let said = deploy(&environment, None).await;
    assert_eq!(of(&said, "-kubeconfig"), [Origin::Edited]);
    let deployment = environment.session(Phase::K0rdent).look().await.expect("a deployment to look at");
    deployment.kubernetes().await.expect("a client").list(NODE, None).await.expect("trust");
}

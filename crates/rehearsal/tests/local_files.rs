//! k0s and its images from files of this computer.

mod common;

use std::path::{Path, PathBuf};

use common::Environment;
use deploy::{session::SessionError, task::Phase};

const VERSION: &str = "v1.33.2+k0s.0";

fn file(directory: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs_err::write(&path, content).expect("a file");
    path
}

fn configuration(binary: &Path, bundle: &Path) -> String {
    let files = format!("{{binary: '{}', airgap_bundle: '{}'}}", binary.display(), bundle.display());
    format!("{}software: {{k0s: {files}}}\n", common::configuration(1, 2))
}

/// How many commands were run that contain `part`.
fn commands(environment: &Environment, part: &str) -> usize {
    environment.ledger(|entry| entry.actor == "ssh" && entry.object.contains(part))
}

#[tokio::test(start_paused = true)]
async fn they_are_uploaded_once_and_nothing_is_downloaded() {
    let files = tempfile::tempdir().expect("a directory");
    let binary = file(files.path(), "k0s", &twin::machine::stand_in_binary(VERSION, "amd64"));
    // More than fits into one packet, or one window of a channel.
    let bundle = file(files.path(), "bundle.tar", &b"images".repeat(1 << 19));
    let mut environment = Environment::new(&configuration(&binary, &bundle), 7);
    let finished = environment.deploy_until(Phase::K0s).await.expect("a deployment");
    assert_eq!(finished.status.phase, "k0s_deployed");
    let (binaries, bundles) =
        ("/dev/stdin /usr/local/bin/k0s.partial", "/dev/stdin /var/lib/k0s/airgap-bundle.partial");
    assert_eq!((commands(&environment, "curl"), commands(&environment, binaries)), (0, 3));
    assert_eq!(commands(&environment, bundles), 2, "a controller that runs no workloads needs no images");
    assert_eq!(environment.deploy_until(Phase::K0s).await.expect("the same again").steps_run, 0);
    // Other images: the binary is looked at again, and stays.
    let other = file(files.path(), "other.tar", b"other images");
    environment.configure(&configuration(&binary, &other));
    environment.deploy_until(Phase::K0s).await.expect("other images");
    assert_eq!((commands(&environment, binaries), commands(&environment, bundles)), (3, 4));
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_refused_before_anything_is_touched() {
    let files = tempfile::tempdir().expect("a directory");
    let binary = file(files.path(), "k0s", &twin::machine::stand_in_binary(VERSION, "amd64"));
    let bundle = file(files.path(), "bundle.tar", b"images");
    let (script, empty) = (file(files.path(), "k0s.sh", b"#!/bin/sh\n"), file(files.path(), "empty", b""));
    for (binary, bundle, key, why) in [
        (&files.path().join("nowhere"), &bundle, "software.k0s.binary", "No such file"),
        (&files.path().to_owned(), &bundle, "software.k0s.binary", "directory"),
        (&script, &bundle, "software.k0s.binary", "not a program"),
        (&binary, &empty, "software.k0s.airgap_bundle", "it is empty"),
    ] {
        let environment = Environment::new(&configuration(binary, bundle), 7);
        let refused = environment.deploy().await;
        let Err(SessionError::Failed(failures)) = refused else { panic!("{refused:?}") };
        let said = format!("{failures:?}");
        assert!(said.contains(key) && said.contains(why), "{said}");
        assert_eq!(environment.stage.twin.with(|world| twin::azure::resources(world)), [] as [serde_json::Value; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn another_release_or_architecture_is_named() {
    let files = tempfile::tempdir().expect("a directory");
    let bundle = file(files.path(), "bundle.tar", b"images");
    for (version, architecture, why) in [
        ("v1.32.1+k0s.0", "amd64", "is k0s v1.32.1+k0s.0, and v1.33.2+k0s.0 is wanted"),
        (VERSION, "arm64", "does not run on k0s-controller-1"),
    ] {
        let binary = file(files.path(), "k0s", &twin::machine::stand_in_binary(version, architecture));
        let refused = Environment::new(&configuration(&binary, &bundle), 7).deploy().await;
        let Err(SessionError::Failed(failures)) = refused else { panic!("{refused:?}") };
        assert!(format!("{failures:?}").contains(why), "{failures:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_needs_no_real_binary() {
    let files = tempfile::tempdir().expect("a directory");
    let binary = file(files.path(), "k0s", b"\x7fELF, and everything that is in a real one");
    let bundle = file(files.path(), "bundle.tar", b"images");
    common::check(&common::run(&configuration(&binary, &bundle), 7).await, 3, 1.05);
}

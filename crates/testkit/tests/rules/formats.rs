//! Rule 6: every file of ours carries the version of its format; a newer one is refused, and an unreadable one is an
//! error with its path, never an empty start.

use std::path::Path;

use deploy::{config, keys::ClusterKeys, topology::ClusterId};
use engine::{Journal, JournalError, Stop, journal::Durability};
use rehearsal::{Script, rehearse};
use serde_json::Value;

use crate::stage::{configuration, deployed, holder};

/// Where SQLite keeps `user_version` (SQLite documentation, "Database File Format").
const USER_VERSION: std::ops::Range<usize> = 60..64;

fn new_journal(home: &Path) -> Vec<u8> {
    drop(Journal::open_to_write(home, &holder(), Durability::Process).expect("a journal"));
    fs_err::read(Journal::file(home)).expect("the journal's file")
}

#[test]
fn a_newer_journal_is_refused_and_left_alone() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut content = new_journal(home.path());
    assert_eq!(content[USER_VERSION], engine::journal::FORMAT_VERSION.to_be_bytes());
    content[USER_VERSION].copy_from_slice(&99u32.to_be_bytes());
    fs_err::write(Journal::file(home.path()), &content).expect("a newer journal");
    let read = Journal::open_to_read(home.path()).err();
    let written = Journal::open_to_write(home.path(), &holder(), Durability::Process).err();
    for refused in [read, written] {
        assert!(matches!(&refused, Some(JournalError::Newer { found: 99, .. })), "{refused:?}");
        let message = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("journal.sqlite"), "{message}");
    }
    assert!(fs_err::read(Journal::file(home.path())).is_ok_and(|now| now == content), "the journal was changed");
}

#[test]
fn a_damaged_journal_is_an_error_with_its_path() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut content = new_journal(home.path());
    content[..16].copy_from_slice(b"no database here");
    fs_err::write(Journal::file(home.path()), &content).expect("a damaged journal");
    let read = Journal::open_to_read(home.path()).err();
    let written = Journal::open_to_write(home.path(), &holder(), Durability::Process).err();
    for refused in [read, written] {
        let message = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("journal.sqlite"), "{message:?}");
    }
    assert!(fs_err::read(Journal::file(home.path())).is_ok_and(|now| now == content), "the journal was changed");
}

#[test]
fn a_newer_or_damaged_key_file_is_refused_without_being_quoted() {
    let cluster = ClusterId::parse("k0rdent-abcd1234").expect("a cluster's name");
    let text = ClusterKeys::new(cluster.clone(), [7; 32]).to_file();
    assert!(ClusterKeys::from_file(&text, &cluster).is_ok());
    for bad in [text.replace("\"format_version\": 1", "\"format_version\": 99"), text.replace('{', "["), String::new()]
    {
        let refused = ClusterKeys::from_file(&bad, &cluster).err().expect("a refusal");
        assert!(!refused.contains("0707"), "{refused}");
    }
    let newer = text.replace("\"format_version\": 1", "\"format_version\": 99");
    assert_eq!(
        ClusterKeys::from_file(&newer, &cluster).err().as_deref(),
        Some("format 99 is newer than this program (1)")
    );
}

#[tokio::test(start_paused = true)]
async fn every_file_of_an_environment_carries_its_version() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (_stage, session, _) = deployed(home.path()).await;
    for file in ["keys.json", "deployment-state.yaml", "deployment-events.yaml"] {
        let text = fs_err::read_to_string(home.path().join(file)).expect("a file of ours");
        let first = text.lines().find(|line| line.contains("format_version")).unwrap_or_default();
        assert!(first.contains('1'), "{file}: {first:?}");
    }
    let file = home.path().join("keys.json");
    fs_err::write(&file, "{}").expect("a damaged key file");
    let refused = session.look().await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains(&file.display().to_string()), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn documents_for_programs_carry_their_version() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let config = config::load(configuration()).expect("a good configuration").config;
    let (_go_on, stop) = tokio::sync::watch::channel(Stop::No);
    let script = Script {
        config_text: configuration(),
        config: &config,
        home: home.path(),
        seed: 7,
        faults: Vec::new(),
        listener: &|_| {},
        stop,
    };
    let report = serde_json::to_value(rehearse(&script).await.expect("a report")).expect("JSON");
    let status = deploy::session::status_of(&home.path().join("nothing")).expect("a status");
    let endpoints = twin::serve::Endpoints {
        format_version: 1,
        arm: String::new(),
        authority: String::new(),
        internet: "https://127.0.0.1:3".into(),
        admin: String::new(),
        ca_file: "ca.pem".into(),
        ssh_port: 22,
        pid: 7,
        subscription_id: String::new(),
        tenant_id: String::new(),
        speed: 1.0,
        seed: 7,
        started_at: time::OffsetDateTime::UNIX_EPOCH,
    };
    for document in
        [report, serde_json::to_value(status).expect("JSON"), serde_json::to_value(endpoints).expect("JSON")]
    {
        assert_eq!(document["format_version"], Value::from(1), "{document}");
    }
}

//! Rules 4 and 5: secrets stay where they belong, and a machine is who it was made to be.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::Path};

use deploy::{
    keys::{ClusterKeys, OPERATOR, openssh_private},
    secret::Secret,
    ssh::{Connection, SshError},
};

use crate::{
    source::{Findings, Source, broken, closing, expect_none, root, sources, words},
    stage::deployed,
};

#[test]
fn a_secret_masks_itself() {
    let secret = Secret::new("hunter2");
    let shown = [format!("{secret}"), format!("{secret:?}"), serde_json::to_string(&secret).expect("JSON")];
    assert_eq!(shown, ["***", "***", "\"***\""]);
}

/// Calls and macros whose text people get to see, or the journal.
const MESSAGES: &[&str] = &[
    "format!(",
    "write!(",
    "writeln!(",
    "println!(",
    "eprintln!(",
    "panic!(",
    "Failure::new(",
    "Failure::refused(",
    "Done::seen(",
    "CommandError::new(",
    ".advise(",
    ".waiting(",
    ".intend(",
    ".note(",
    ".settle(",
    ".hint(",
];

/// Secrets shown inside a message. A text that becomes a `Secret` itself in the same function is no message.
pub(crate) fn exposes_in_messages(source: &Source) -> Findings {
    let mut exposed = words(&source.code, &[".expose()"]);
    exposed.retain(|(place, word)| {
        let is_length = source.code[place + word.len()..].starts_with(".len()");
        let function = source.function_at(*place).map_or(0..source.code.len(), |function| function.body.clone());
        let is_kept = source.code[function.clone()].contains("Secret::new(");
        let messages = words(&source.code[function.clone()], MESSAGES);
        let inside = messages.iter().any(|(message, word)| {
            let open = function.start + message + word.len() - 1;
            (open..closing(&source.code, open)).contains(place) && !(is_kept && word == "format!(")
        });
        inside && !is_length
    });
    exposed
}

/// Secrets written where others may read them.
pub(crate) fn writes_secrets_openly(source: &Source) -> Findings {
    let mut exposed = words(&source.code, &[".expose()"]);
    exposed.retain(|(place, _)| {
        let end = source.code[*place..].find(';').map_or(source.code.len(), |length| place + length);
        let start = source.code[..*place].rfind(';').unwrap_or_default();
        let writes = [".write(", ".artifact(", ".upload("].iter().any(|call| source.code[start..*place].contains(call));
        let rest = &source.literals[*place..end];
        writes && !rest.contains("Access::Secret") && !rest.contains("\"0600\"") && !rest.starts_with(".expose().len()")
    });
    exposed
}

#[test]
fn secrets_are_in_no_message_and_in_no_open_file() {
    expect_none(&broken(&sources(), &[], exposes_in_messages));
    expect_none(&broken(&sources(), &[], writes_secrets_openly));
}

/// Every secret of the cluster in a home, as it would look in a file.
fn secrets(home: &Path) -> Vec<String> {
    let text = fs_err::read_to_string(home.join("keys.json")).expect("the key file");
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let name = file["cluster_id"].as_str().expect("a name");
    let cluster = deploy::topology::ClusterId::parse(name).expect("a cluster's name");
    let keys = ClusterKeys::from_file(&text, &cluster).expect("keys");
    // The first lines of a private key are the same for all.
    let private = |key| openssh_private(&key).expose().lines().nth(3).expect("a long key").to_owned();
    let nodes = ["k0s-controller-1", "k0s-controller-2", "k0s-worker-1"];
    let kubeconfig =
        fs_err::read_to_string(home.join(format!("kubeconfig/{cluster}-kubeconfig"))).expect("a kubeconfig");
    // A long value is on the line after its key.
    let client_key = kubeconfig
        .split("client-key-data:")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().find(|word| word.len() > 9));
    let mut secrets = vec![file["seed"].as_str().expect("a seed").to_owned(), private(keys.ssh_user())];
    secrets.push(client_key.expect("the client's key").to_owned());
    secrets.extend(nodes.map(|node| private(keys.ssh_host(node))));
    secrets.extend(nodes.iter().chain([&OPERATOR]).map(|name| keys.wireguard(name).private.expose().to_owned()));
    secrets
}

/// Every file below a home; fails if a directory in it is open to others.
fn private_files(home: &Path) -> Vec<std::path::PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![home.to_owned()]);
    while let Some(directory) = open.pop() {
        let mode = fs_err::metadata(&directory).expect("a directory").permissions().mode();
        assert!(mode & 0o077 == 0 || directory == home, "{} is open to others: {mode:o}", directory.display());
        for entry in fs_err::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files
}

#[tokio::test(start_paused = true)]
async fn a_deployment_keeps_its_secrets_and_knows_its_machines() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (stage, session, told) = deployed(home.path()).await;
    let secrets = secrets(home.path());
    let mut holding = 0;
    for file in private_files(home.path()) {
        let content = String::from_utf8_lossy(&fs_err::read(&file).expect("a file")).into_owned();
        let mode = fs_err::metadata(&file).expect("a file").permissions().mode() & 0o777;
        let is_secret = secrets.iter().any(|secret| content.contains(secret.as_str()));
        assert!(!is_secret || mode == 0o600, "{} holds a secret and has mode {mode:o}", file.display());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_record = name.starts_with("journal") || name.starts_with("deployment-");
        assert!(!is_secret || !is_record, "{} tells a secret", file.display());
        holding += u32::from(is_secret);
    }
    assert_eq!(holding, 7, "files with secrets: seed, SSH key, kubeconfig, mesh, three cloud-init documents");
    let leaked: Vec<_> = secrets.iter().filter(|secret| told.contains(secret.as_str())).collect();
    assert!(leaked.is_empty(), "readers of the run were told {} secrets", leaked.len());

    let deployment = session.look().await.expect("a deployment");
    let address: Ipv4Addr = deployment.machine(0).address().expect("an address");
    let right = deployment.target(0, address);
    assert!(Connection::open(&stage.world, &right).await.is_ok());
    let mut wrong = right.clone();
    wrong.host_key = deployment.keys.ssh_host("k0s-worker-1").public_key().clone();
    assert!(matches!(Connection::open(&stage.world, &wrong).await, Err(SshError::HostKey { .. })));
    let mut stranger = right;
    stranger.identity = deployment.keys.ssh_host("stranger").into();
    assert!(matches!(Connection::open(&stage.world, &stranger).await, Err(SshError::Login { .. })));
}

/// Words by which programs stop checking who answers. In lower case.
const CARELESS: &[&str] = &[
    "stricthostkeychecking no",
    "stricthostkeychecking=no",
    "stricthostkeychecking accept-new",
    "stricthostkeychecking=accept-new",
    "userknownhostsfile=/dev/null",
    "userknownhostsfile /dev/null",
    "dangerous()",
    "danger_accept",
    "accept_invalid",
    "set_certificate_verifier",
    "noverif",
    "skip_verify",
    "insecure-skip-tls-verify",
    "insecure_skip_tls_verify",
    "--insecure",
    "curl -k",
];

/// Switches that turn the checking of host keys or certificates off.
pub(crate) fn trusts_anybody(source: &Source) -> Findings {
    let text = source.literals.to_ascii_lowercase();
    let mut found: Findings = CARELESS
        .iter()
        .flat_map(|careless| text.match_indices(careless).map(|(place, what)| (place, what.to_owned())))
        .collect();
    found.sort();
    found
}

#[test]
fn there_is_no_switch_that_turns_checking_off() {
    expect_none(&broken(&sources(), &[], trusts_anybody));
    let ssh = fs_err::read_to_string(root().join("crates/deploy/src/ssh.rs")).expect("the SSH client");
    assert!(ssh.contains("fn check_server_key"), "the SSH client looks at no host key");
}

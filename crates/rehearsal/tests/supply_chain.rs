//! Nothing runs on a machine that is not, byte for byte, what its release or the configuration says.

mod common;

use common::Environment;
use deploy::{
    session::{Finished, SessionError},
    task::Phase,
};
use sha2::{Digest as _, Sha256};
use twin::{Fault, FaultKind};

const VERSION: &str = "v1.33.2+k0s.0";

fn released() -> String {
    hex::encode(Sha256::digest(twin::machine::stand_in_binary(VERSION, "amd64")))
}

fn said(outcome: Result<Finished, SessionError>) -> String {
    let Err(SessionError::Failed(failures)) = outcome else { panic!("{outcome:?}") };
    failures.iter().map(|failure| format!("{} {:?}", failure.message, failure.advice)).collect()
}

/// The commands that were run on a machine and contain `part`.
fn commands(environment: &Environment, node: &str, part: &str) -> usize {
    environment.ledger(|entry| entry.actor == "ssh" && entry.object.contains(node) && entry.object.contains(part))
}

#[tokio::test(start_paused = true)]
async fn a_binary_that_is_not_the_released_one_is_refused_and_nothing_of_it_is_run() {
    let environment = Environment::new(&common::configuration(1, 1), 7);
    let tampered = Fault { name: FaultKind::TamperedDownload, target: Some("worker-1".to_owned()), times: None };
    environment.set_faults(&[tampered]);
    let said = said(environment.deploy_until(Phase::K0s).await);
    assert!(said.contains(&released()) && said.contains("sha256sums.txt says"), "{said}");
    assert!(said.matches("SHA-256").count() >= 1 && said.contains("nothing of it was run"), "{said}");
    assert_eq!(commands(&environment, "worker-1", "k0s version"), 0, "{said}");
    assert_eq!(commands(&environment, "worker-1", "k0s install"), 0, "{said}");
    environment.set_faults(&[]);
    environment.deploy_until(Phase::K0s).await.expect("what was released");
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn the_digest_that_was_verified_is_in_the_journal() {
    let environment = Environment::new(&common::configuration(1, 1), 7);
    environment.deploy_until(Phase::K0s).await.expect("a deployment");
    let (state, _) = environment.session(Phase::K0s).recorded().expect("records").expect("a journal");
    let recorded: Vec<_> = state.steps.values().filter_map(|step| step.output["sha256"].as_str()).collect();
    assert_eq!(recorded, [&released(), &released()]);
    // One list for all machines: the front, and the host that it sends us to.
    assert_eq!(environment.ledger(|entry| entry.actor == "internet"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_digest_of_the_configuration_is_what_counts() {
    let wrong = "a".repeat(64);
    let with = |more: &str| format!("{}software: {{k0s: {{{more}}}}}\n", common::configuration(1, 0));
    let refused = Environment::new(&with(&format!("sha256: {{amd64: '{wrong}'}}")), 7);
    let text = said(refused.deploy_until(Phase::K0s).await);
    assert!(
        text.contains(&wrong) && text.contains(&released()) && text.contains("software.k0s.sha256.amd64"),
        "{text}"
    );
    // An address of one's own: nobody else is asked.
    let url = "https://github.com/k0sproject/k0s/releases/download/v1.33.2%2Bk0s.0/k0s-v1.33.2%2Bk0s.0-amd64";
    let own = Environment::new(&with(&format!("download_url: '{url}', sha256: {{amd64: '{}'}}", released())), 7);
    own.deploy_until(Phase::K0s).await.expect("a deployment");
    assert_eq!(own.ledger(|entry| entry.actor == "internet"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_compared_with_the_configuration_before_it_leaves() {
    let files = tempfile::tempdir().expect("a directory");
    let binary = files.path().join("k0s");
    fs_err::write(&binary, twin::machine::stand_in_binary(VERSION, "amd64")).expect("a file");
    let with = |digest: &str| {
        let k0s = format!("{{binary: '{}', sha256: {{amd64: '{digest}'}}}}", binary.display());
        format!("{}software: {{k0s: {k0s}}}\n", common::configuration(1, 0))
    };
    let mut environment = Environment::new(&with(&"b".repeat(64)), 7);
    let text = said(environment.deploy_until(Phase::K0s).await);
    assert!(
        text.contains("was not uploaded") && text.contains(&released()) && text.contains(&"b".repeat(64)),
        "{text}"
    );
    assert_eq!(commands(&environment, "controller-1", "k0s.partial"), 0);
    environment.configure(&with(&released()));
    environment.deploy_until(Phase::K0s).await.expect("the file that is meant");
}

//! Networks from which Azure is reached through a proxy alone.

mod common;

use std::collections::BTreeSet;

use common::{Environment, configuration, only_way, refusal};
use deploy::{proxy::Proxy, secret::Secret};

/// An environment in a network with a proxy, beside which there is no way to Azure.
fn environment() -> Environment {
    let environment = Environment::new(&configuration(1, 1), 11);
    environment.stage.twin.with(|world| world.operator_proxy = Some(only_way("pass:word")));
    environment
}

fn proxy(address: &str) -> Proxy {
    Proxy::new("HTTPS_PROXY", &Secret::new(address), "").expect("a proxy")
}

#[tokio::test(start_paused = true)]
async fn a_cluster_lives_and_goes_through_a_proxy() {
    let mut environment = environment();
    let failure = refusal(environment.deploy().await);
    let refused = "cannot connect to login.microsoftonline.com:443: connection refused";
    assert!(failure.message.contains(refused), "{failure:?}");
    environment.stage.world.proxy = proxy("http://ada:pass%3Aword@proxy.example:3128");
    environment.deploy().await.expect("a deployment");
    environment.reset_to_nothing().await;

    let asked = asked(&environment, |entry| format!("{} {} {:?}", entry.verb, entry.object, entry.status));
    // Neither SSH nor the API of the cluster, which is behind it.
    let hosts =
        ["github.com", "login.microsoftonline.com", "management.azure.com", "release-assets.githubusercontent.com"];
    assert_eq!(asked, hosts.map(|host| format!("CONNECT {host}:443 Some(200)")));
    assert!(
        environment.ledger(|entry| entry.actor == "ssh") > 0
            && environment.ledger(|entry| entry.actor == "kubernetes") > 0
    );
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_is_named_before_anything_is_touched() {
    let mut environment = environment();
    environment.stage.world.proxy = proxy("http://ada:hunter2@proxy.example:3128");
    let failure = refusal(environment.deploy().await);
    assert!(
        failure.message.ends_with(
            "cannot connect to login.microsoftonline.com:443 through the proxy proxy.example:3128 (HTTPS_PROXY): \
             407 Proxy Authentication Required"
        ),
        "{failure:?}"
    );
    let advice = failure.advice.unwrap_or_default();
    assert!(advice.starts_with("Check the user and the password in HTTPS_PROXY"), "{advice}");
    assert_eq!(environment.ledger(|entry| entry.actor == "arm"), 0);
}

/// A configuration whose machines download through the proxy, with that password.
fn through(password: &str) -> String {
    let address = format!("'http://ada:{password}@proxy.example:3128'");
    configuration(3, 2) + &format!("proxy: {{http: {address}, https: {address}, no_proxy: [.corp]}}\n")
}

/// What was asked of the proxy, in those words, each once.
fn asked(environment: &Environment, words: impl Fn(&twin::Entry) -> String) -> Vec<String> {
    let asked: BTreeSet<String> = environment.stage.twin.with(|world| {
        let through = world.ledger.entries.iter().filter(|entry| entry.actor == "proxy");
        through.map(words).collect()
    });
    asked.into_iter().collect()
}

/// Everything that people get to read of an environment, and the world of its machines' commands.
fn told(environment: &Environment) -> String {
    let commands = environment.stage.twin.with(|world| {
        let entries = world.ledger.entries.iter();
        entries.map(|entry| entry.object.clone() + "\n").collect::<String>()
    });
    let files = ["journal.sqlite", "journal.sqlite-wal", "deployment-state.yaml", "deployment-events.yaml"];
    let files = files.map(|file| fs_err::read(environment.home().join(file)).unwrap_or_default());
    commands + &files.map(|file| String::from_utf8_lossy(&file).into_owned()).concat()
}

#[tokio::test(start_paused = true)]
async fn machines_without_a_way_out_say_which_key_is_missing() {
    let mut environment = Environment::new(&configuration(1, 1), 12);
    environment.stage.twin.with(|world| world.machines_proxy = Some(only_way("secret")));
    let failure = refusal_of(environment.deploy().await);
    assert!(failure.contains("E: Failed to fetch http://deb.debian.org/"), "{failure}");
    assert!(
        failure.contains("If machines reach the internet through a proxy, set proxy.http in the configuration."),
        "{failure}"
    );
    // The machines that are there already are told.
    let address = "'http://ada:secret@proxy.example:3128'";
    environment.configure(&(configuration(1, 1) + &format!("proxy: {{http: {address}}}\n")));
    let failure = refusal_of(environment.deploy().await);
    assert!(failure.contains("curl: (7) Failed to connect to github.com port 443"), "{failure}");
    assert!(failure.contains("If machines reach the internet through a proxy, set proxy.https"), "{failure}");
    environment.configure(&(configuration(1, 1) + &format!("proxy: {{http: {address}, https: {address}}}\n")));
    environment.deploy().await.expect("a deployment");
    environment.reset_to_nothing().await;
}

fn refusal_of(result: Result<deploy::session::Finished, deploy::session::SessionError>) -> String {
    match result {
        Err(deploy::session::SessionError::Failed(failures)) => failures
            .iter()
            .map(|failure| format!("{failure} {}\n", failure.advice.as_deref().unwrap_or_default()))
            .collect(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn machines_download_through_their_proxy_and_follow_a_new_password() {
    let mut environment = Environment::new(&through("hunter2"), 13);
    environment.stage.twin.with(|world| world.machines_proxy = Some(only_way("hunter2")));
    environment.deploy().await.expect("a deployment");
    let downloads = asked(&environment, |entry| format!("{} {:?}", entry.object, entry.status));
    assert_eq!(downloads, ["deb.debian.org Some(200)", "github.com Some(200)", "quay.io Some(200)"]);
    assert_eq!(environment.deploy().await.expect("nothing to do").steps_run, 0);
    assert_eq!(environment.check().await, []);

    let restarts = |environment: &Environment| {
        environment.ledger(|entry| entry.actor == "ssh" && entry.object.contains("sudo /usr/local/bin/k0s install "))
    };
    assert_eq!(restarts(&environment), 5);
    environment.stage.twin.with(|world| world.machines_proxy = Some(only_way("correct horse")));
    environment.configure(&through("correct%20horse"));
    environment.deploy().await.expect("k0s is started again with the new password");
    assert_eq!(restarts(&environment), 10, "each machine once");
    assert_eq!(environment.clusters(), 1);
    assert_eq!(environment.deploy().await.expect("nothing to do").steps_run, 0);

    environment.configure(&configuration(3, 2));
    let failure = refusal(environment.deploy().await);
    assert!(failure.message.starts_with("proxy cannot be taken away while the cluster exists"), "{failure:?}");
    let told = told(&environment);
    for secret in ["hunter2", "correct%20horse", "correct horse"] {
        assert!(!told.contains(secret), "{secret} is told");
    }
    environment.reset_to_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_machines_is_named_with_its_key() {
    let environment = Environment::new(&through("wrong"), 14);
    environment.stage.twin.with(|world| world.machines_proxy = Some(only_way("hunter2")));
    let failure = refusal_of(environment.deploy().await);
    let advice = "The machines download through proxy.http, http://ada:***@proxy.example:3128: check it.";
    assert!(failure.contains("407  Proxy Authentication Required") && failure.contains(advice), "{failure}");

    let mut environment = Environment::new(&through("hunter2"), 15);
    environment.stage.twin.with(|world| world.machines_proxy = Some(only_way("hunter2")));
    environment.configure(&through("hunter2").replace("https: 'http://ada:hunter2@", "https: 'http://ada:wrong@"));
    let failure = refusal_of(environment.deploy().await);
    let advice = advice.replace("proxy.http,", "proxy.https,");
    assert!(failure.contains("curl: (22) HTTP response code said error") && failure.contains(&advice), "{failure}");
}

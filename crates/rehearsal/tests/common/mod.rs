//! Rehearsals for tests.

use deploy::config;
use engine::Stop;
use rehearsal::{Report, Script, rehearse};
use tokio::sync::watch;

/// So many controllers and workers, in networks that are large enough.
pub fn configuration(controllers: u16, workers: u16) -> String {
    format!(
        "network:\n  subnet_prefix: 10.0.0.0/20\n  wireguard_network: 172.20.0.0/20\n  pod_cidr: 10.128.0.0/14\ncluster:\n  controllers: {{count: {controllers}, zones: [1, 2, 3]}}\n  workers: {{count: {workers}, zones: [1, 2, 3]}}\n"
    )
}

/// Up, and down again. `SHOW=1` in the environment prints every message.
pub async fn run(text: &str, seed: u64) -> Report {
    let loaded = config::load(text).expect("a good configuration");
    let home = tempfile::tempdir().expect("a temporary directory");
    let (_go_on, stop) = watch::channel(Stop::No);
    let listener = |message: &engine::Message| {
        if std::env::var_os("SHOW").is_some() {
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
    };
    let script = Script {
        config_text: text,
        config: &loaded.config,
        home: home.path(),
        seed,
        faults: Vec::new(),
        listener: &listener,
        stop,
    };
    rehearse(&script).await.expect("a rehearsal")
}

/// It succeeded, left nothing, was never throttled, and wasted no time.
pub fn check(report: &Report, nodes: usize, ratio: f64) {
    assert_eq!(report.failures, [] as [String; 0]);
    assert_eq!((report.outcome, report.nodes), ("succeeded", nodes));
    assert_eq!(report.leftovers, []);
    assert_eq!(report.requests.throttled, 0);
    assert!(report.critical_path_seconds > 60.0, "{report:?}");
    assert!((1.0..=ratio).contains(&report.overhead_ratio), "{} {:?}", report.overhead_ratio, report.critical_path);
}


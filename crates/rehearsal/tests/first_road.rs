//! The whole road on small clusters: up, and down to nothing.

use deploy::config;
use engine::Stop;
use rehearsal::{Report, Script, rehearse};
use tokio::sync::watch;

fn configuration(controllers: u16, workers: u16) -> String {
    format!("cluster:\n  controllers: {{count: {controllers}, zones: [1, 2, 3]}}\n  workers: {{count: {workers}, zones: [1, 2, 3]}}\n")
}

async fn run(text: &str, seed: u64) -> Report {
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

fn check(report: &Report, nodes: usize) {
    assert_eq!(report.failures, [] as [String; 0]);
    assert_eq!((report.outcome, report.nodes), ("succeeded", nodes));
    assert_eq!(report.leftovers, []);
    assert_eq!(report.requests.throttled, 0);
    assert!(report.critical_path_seconds > 60.0, "{report:?}");
    assert!((1.0..=1.05).contains(&report.overhead_ratio), "{} {:?}", report.overhead_ratio, report.critical_path);
}

#[tokio::test(start_paused = true)]
async fn one_controller_alone() {
    check(&run(&configuration(1, 0), 7).await, 1);
}

#[tokio::test(start_paused = true)]
async fn one_controller_and_one_worker() {
    check(&run(&configuration(1, 1), 7).await, 2);
}

#[tokio::test(start_paused = true)]
async fn three_controllers_and_two_workers() {
    check(&run(&configuration(3, 2), 7).await, 5);
}

//! Lives of clusters, drawn by seed; `cargo xtask simulate` plays more of them.

use testkit::simulation::campaign::{Options, run, scratch};

fn hold(from: u64, seeds: u64, is_plain: bool) {
    let scratch = scratch().expect("a directory");
    let options = Options { from, seeds, is_plain, threads: 2, directory: scratch.path().to_owned() };
    let summary = run(&options, |_| {});
    let reports: String = summary.failed.iter().map(|failed| failed.report(is_plain)).collect();
    assert!(summary.failed.is_empty(), "{reports}");
    assert_eq!((summary.seeds, summary.twice), (seeds, seeds / 10));
    if seeds >= 100 {
        assert!(summary.idle().is_empty(), "never struck: {:?}", summary.idle());
    }
}

#[test]
fn three_hundred_seeds_break_no_rule() {
    hold(0, 300, false);
}

#[test]
fn a_hundred_seeds_break_no_rule_without_tls() {
    hold(1000, 100, true);
}

/// A machine that never boots, and a run that begins a little later than it: Azure gives the machine up just after that run
/// would have lost its patience.
#[test]
fn a_machine_that_azure_gives_up_late_is_made_anew() {
    for seed in [6637, 9866] {
        hold(seed, 1, true);
    }
}

//! Clusters that press against Azure's limits.
mod common;

#[tokio::test(start_paused = true)]
async fn five_controllers_and_forty_five_workers() {
    let report = common::run(&common::configuration(5, 45), 7).await;
    common::check(&report, 50, 1.05);
}

#[tokio::test(start_paused = true)]
async fn three_controllers_and_four_hundred_and_ninety_seven_workers() {
    let report = common::run(&common::configuration(3, 497), 7).await;
    common::check(&report, 500, 1.10);
    assert!(report.nodes_ready_seconds.unwrap() <= 11.0 * 60.0, "{:?}", report.nodes_ready_seconds);
}

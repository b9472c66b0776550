//! The whole road on small clusters: up, and down to nothing.

mod common;

#[tokio::test(start_paused = true)]
async fn one_controller_alone() {
    common::check(&common::run(&common::configuration(1, 0), 7).await, 1, 1.05);
}

#[tokio::test(start_paused = true)]
async fn one_controller_and_one_worker() {
    common::check(&common::run(&common::configuration(1, 1), 7).await, 2, 1.05);
}

#[tokio::test(start_paused = true)]
async fn three_controllers_and_two_workers() {
    common::check(&common::run(&common::configuration(3, 2), 7).await, 5, 1.05);
}

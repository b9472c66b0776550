//! The product on the twin, in memory.
//!
//! The product does not know the twin and the twin does not know the product; somebody has to introduce them. This crate
//! does, for the `rehearse` command and for the tests: it puts the twin's network and clock behind the product's seam,
//! runs a deployment and its teardown, and reports what the world saw.

mod report;
mod stage;

pub use report::{Leftover, NodeTimeline, PhaseReport, Report, Requests};
pub use stage::{Stage, credentials};

use std::path::Path;

use deploy::{
    config::{Config, Provider},
    session::{Session, SessionError, Teardown, Watching},
    task::Phase,
};
use engine::{Message, Stop};
use tokio::sync::watch;

/// What to rehearse.
pub struct Script<'a> {
    /// The configuration's text.
    pub config_text: &'a str,
    /// The configuration.
    pub config: &'a Config,
    /// The directory of the environment: thrown away or kept by the caller.
    pub home: &'a Path,
    /// Decides every latency and every key.
    pub seed: u64,
    /// The faults in force from the beginning.
    pub faults: Vec<twin::Fault>,
    /// Sees every message of the deployment and of the teardown.
    pub listener: &'a (dyn Fn(&Message) + Send + Sync),
    /// Whether to go on.
    pub stop: watch::Receiver<Stop>,
}

/// A runtime whose clock jumps to the next thing that happens. What tokio leaves to chance, such as which of two ready
/// branches a library's `select!` takes first, follows the seed; without `--cfg tokio_unstable`, which the repository's own
/// builds have, two things that happen in the same millisecond may change places.
pub fn runtime(seed: u64) -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    #[cfg(not(tokio_unstable))]
    let _: u64 = seed;
    builder
}

/// Deploys and resets on a new world, on a [`runtime`] of the caller's.
pub async fn rehearse(script: &Script<'_>) -> Result<Report, SessionError> {
    let (stage, config) = Stage::new(script.seed).with_hosts_of(script.config);
    // What a later command reads is what this one was told.
    let config_text = match config.provider {
        Provider::Azure => script.config_text.to_owned(),
        Provider::Ssh => deploy::config::render(&config),
    };
    stage.twin.with(|world| world.faults.active.clone_from(&script.faults));
    let session = Session::new(stage.settings(script.home, Phase::K0rdent));
    let watching = || Watching { stop: script.stop.clone(), listener: script.listener, faults: None };

    let deployed = session.deploy(&config_text, &config, watching()).await;
    let mut report = Report::of_deployment(&stage, &session, &deployed)?;
    // A refused rehearsal has nothing to take down; a failed one shows that the teardown works from there.
    let torn_down = session.reset(&Teardown::default(), watching()).await;
    report.add_teardown(&stage, &torn_down);
    match (deployed, torn_down) {
        (Err(interrupted @ SessionError::Interrupted), _) | (_, Err(interrupted @ SessionError::Interrupted)) => {
            Err(interrupted)
        }
        _ => Ok(report),
    }
}

/// The faults that a seed draws for a rehearsal.
pub fn drawn_faults(seed: u64, config: &Config) -> Vec<twin::Fault> {
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{RngCore as _, SeedableRng as _},
    };
    use twin::FaultKind::{Capacity, OperationFailure, ServerError, SlowBoot, SshHang, SshRefused, Throttle};
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let nodes = u64::from(config.node_count()).max(1);
    let kinds = [Capacity, OperationFailure, ServerError, SlowBoot, SshHang, SshRefused, Throttle];
    let count = 1 + random.next_u64() % 3;
    (0..count)
        .map(|_| {
            let name = kinds[(random.next_u64() % kinds.len() as u64) as usize];
            let node = random.next_u64() % nodes;
            let controllers = u64::from(config.cluster.controllers.count);
            let target = if node < controllers {
                format!("k0s-controller-{}", node + 1)
            } else {
                format!("k0s-worker-{}", node - controllers + 1)
            };
            let target = if matches!(name, ServerError | Throttle) { None } else { Some(target) };
            twin::Fault { name, target, times: Some(1 + (random.next_u64() % 2) as u32) }
        })
        .collect()
}

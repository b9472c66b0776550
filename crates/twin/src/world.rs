//! The state of the world, its clock, and the agenda of what will happen.
//!
//! Everything that exists is data in [`World`], behind one lock. What takes time is an entry on the agenda: a closure
//! that changes the world when it is due. One task ([`Twin::drive`]) runs the agenda; whoever enters the world first
//! runs what is overdue, so nobody ever sees a state that should already have passed. Where a computer is too busy for the
//! world's speed, its clock waits for it.

use std::{
    collections::BinaryHeap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::{
    azure::Azure, faults::Faults, kube::Clusters, latency::Latency, ledger::Ledger, machine::Machines,
    proxy::ForwardProxy,
};

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides every latency and every drawn fault.
    pub seed: u64,
    /// World seconds per second of the runtime's clock.
    pub speed: f64,
    /// The calendar time at which the world starts.
    pub epoch: OffsetDateTime,
    /// How many times faster than usual things happen, while the calendar goes on as always.
    pub haste: f64,
    /// Machines get public addresses from 127.N.0.0/16 for this N, so that programs on this computer can reach them.
    pub loopback: Option<u8>,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, speed: 1.0, epoch: time::macros::datetime!(2027-01-04 08:00 UTC), haste: 1.0, loopback: None }
    }
}

/// Everything that exists, and everything that will happen.
pub struct World {
    /// How this world was made.
    pub options: Options,
    /// Seconds since the world began; moves only when somebody enters the world.
    pub now: Duration,
    /// What was asked and what changed.
    pub ledger: Ledger,
    /// What goes wrong.
    pub faults: Faults,
    /// Where clients come from since they have moved: another network, another address.
    pub client_moved_to: Option<IpAddr>,
    /// The proxy in the network where clients in memory are.
    pub operator_proxy: Option<ForwardProxy>,
    /// The proxy in the network where machines are.
    pub machines_proxy: Option<ForwardProxy>,
    /// Subscriptions and what they hold.
    pub azure: Azure,
    /// The virtual machines, from the inside.
    pub machines: Machines,
    /// The Kubernetes clusters that run on them.
    pub clusters: Clusters,
    agenda: BinaryHeap<Appointment>,
    appointments_made: u64,
}

type Happening = Box<dyn FnOnce(&mut World) + Send>;

struct Appointment {
    due: Duration,
    number: u64,
    happening: Happening,
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Appointment {}
impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Appointment {
    /// The earliest comes out of the heap first; among equals, the one made first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl World {
    /// Lets `happening` change the world after `delay` (world time).
    pub fn after(&mut self, delay: Duration, happening: impl FnOnce(&mut World) + Send + 'static) {
        self.appointments_made += 1;
        self.agenda.push(Appointment {
            due: self.now + delay,
            number: self.appointments_made,
            happening: Box::new(happening),
        });
    }

    /// How long `latency` takes for the thing called `key`: the same answer each time in the same world.
    pub fn latency(&self, latency: Latency, key: &str) -> Duration {
        self.hastened(latency.sample(&mut self.random(&format!("{latency:?}/{key}"))))
    }

    /// How long something takes here that usually takes so long.
    pub fn hastened(&self, usual: Duration) -> Duration {
        if self.options.haste == 1.0 { usual } else { usual.div_f64(self.options.haste) }
    }

    /// A random source of its own for each purpose, so that the order of events does not change what is drawn.
    pub fn random(&self, purpose: &str) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(self.options.seed.to_le_bytes());
        hash.update(purpose.as_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }

    /// The calendar time.
    pub fn utc(&self) -> OffsetDateTime {
        self.options.epoch + self.now
    }

    /// The calendar time as RFC 3339, whole seconds.
    pub fn timestamp(&self) -> String {
        let now = self.utc().replace_nanosecond(0).unwrap_or(self.options.epoch);
        now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
    }

    /// Lets happen what is due, for as long as a visitor can wait; how much of the time until `now` is not over then.
    fn run_until(&mut self, now: Duration) -> Duration {
        let mut began = None;
        while self.agenda.peek().is_some_and(|next| next.due <= now) {
            if began.get_or_insert_with(tokio::time::Instant::now).elapsed() > STINT {
                return now.saturating_sub(self.now);
            }
            if let Some(next) = self.agenda.pop() {
                self.now = self.now.max(next.due);
                (next.happening)(self);
            }
        }
        self.now = self.now.max(now);
        Duration::ZERO
    }
}

/// How long visitors wait, at most, for a world that lags behind its clock.
const STINT: Duration = Duration::from_millis(50);

/// A handle to a world; clones share it.
#[derive(Clone)]
pub struct Twin(Arc<Inner>);

struct Inner {
    world: Mutex<World>,
    agenda_changed: Notify,
    began: tokio::time::Instant,
    speed: f64,
    /// World time that a computer was too busy for, in nanoseconds: a served world then is slower than it should be,
    /// and still answers.
    lag: AtomicU64,
}

impl Twin {
    /// A new world. Somebody must run [`Twin::drive`] for things to happen by themselves.
    pub fn new(options: Options) -> Self {
        let speed = options.speed;
        let world = World {
            now: Duration::ZERO,
            ledger: Ledger::default(),
            faults: Faults::default(),
            client_moved_to: None,
            operator_proxy: None,
            machines_proxy: None,
            azure: Azure::new(&options),
            machines: Machines::default(),
            clusters: Clusters::default(),
            agenda: BinaryHeap::new(),
            appointments_made: 0,
            options,
        };
        Self(Arc::new(Inner {
            world: Mutex::new(world),
            agenda_changed: Notify::new(),
            began: tokio::time::Instant::now(),
            speed,
            lag: AtomicU64::new(0),
        }))
    }

    /// Enters the world as it is now. Never call it from inside `visit`: there is one lock.
    pub fn with<R>(&self, visit: impl FnOnce(&mut World) -> R) -> R {
        let (result, before, after) = {
            let mut world = self.0.world.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.now();
            let before = world.agenda.peek().map(|next| next.due);
            let lag = world.run_until(now);
            self.0.lag.fetch_add(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            let result = visit(&mut world);
            (result, before, world.agenda.peek().map(|next| next.due))
        };
        if before != after {
            self.0.agenda_changed.notify_one();
        }
        result
    }

    /// World time since the world began.
    pub fn now(&self) -> Duration {
        let lag = Duration::from_nanos(self.0.lag.load(Ordering::Relaxed));
        self.0.began.elapsed().mul_f64(self.0.speed).saturating_sub(lag)
    }

    /// Waits for `duration` of world time.
    #[expect(clippy::disallowed_methods, reason = "the one pause of the world")]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.div_f64(self.0.speed)).await;
    }

    /// Runs the agenda for ever.
    pub async fn drive(self) {
        loop {
            let due = self.with(|world| world.agenda.peek().map(|next| next.due));
            let changed = self.0.agenda_changed.notified();
            match due {
                None => changed.await,
                Some(due) => {
                    let wait = due.saturating_sub(self.now());
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = self.sleep(wait) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that happens again and again, far faster than any computer can have it happen.
    fn rush(world: &mut World) {
        world.after(Duration::from_millis(1), rush);
    }

    #[test]
    fn a_world_that_cannot_keep_pace_is_slower_and_lets_visitors_in() {
        let twin = Twin::new(Options { speed: 1e12, ..Options::default() });
        twin.with(|world| world.after(Duration::ZERO, rush));
        let times: Vec<_> = (0..5).map(|_| twin.with(|world| world.now)).collect();
        assert!(times.is_sorted() && times[0] < times[4], "{times:?}");
        // Its clock waits for it.
        assert_eq!(twin.with(|world| world.agenda.len()), 1);
    }
}

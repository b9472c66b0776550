//! How many requests Azure allows, obeyed before sending: who waits here is never told to go away there.
//!
//! Azure counts with token buckets. We keep the same buckets, a little emptier, and serve waiting callers by priority,
//! then by arrival. Nobody needs a task of its own for this: the first in the queue keeps the time for all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Method};
use tokio::{sync::Notify, time::Instant};

use crate::seam::{lock, pause};

/// Who goes first when requests have to wait: the lower number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(pub u8);

impl Priority {
    /// Looking, and what everything else stands on: resource group, network, rules.
    pub const FOUNDATION: Priority = Priority(0);
    /// Machines: they take longest, so whatever a machine needs that is ready makes it start.
    pub const VIRTUAL_MACHINE: Priority = Priority(20);
    /// Network interfaces.
    pub const NETWORK_INTERFACE: Priority = Priority(40);
    /// Public addresses.
    pub const PUBLIC_IP: Priority = Priority(60);
    /// What nobody waits for.
    pub const BACKGROUND: Priority = Priority(200);

    /// The same kind of thing for a worker: after the controllers.
    pub fn worker(self) -> Priority {
        Priority(self.0.saturating_add(1))
    }
}

/// The buckets that requests draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Reads of a subscription.
    Reads,
    /// Writes of a subscription.
    Writes,
    /// Deletions of a subscription.
    Deletes,
    /// Lists of Microsoft.Compute.
    ComputeList,
    /// Machines created.
    VirtualMachinePut,
    /// Machines deleted or deallocated.
    VirtualMachineDelete,
    /// Reads of Microsoft.Network.
    NetworkReads,
    /// Writes of Microsoft.Network.
    NetworkWrites,
}

const BUCKETS: usize = 8;

impl Bucket {
    /// Size, and tokens that come back per second (Azure documentation: ARM, Compute and Network throttling limits).
    fn limits(index: usize) -> (f64, f64) {
        match index {
            0 => (250.0, 25.0),
            1 | 2 => (200.0, 10.0),
            3 => (900.0, 5.0),
            4 | 5 => (1500.0, 500.0 / 60.0),
            6 => (10_000.0, 10_000.0 / 300.0),
            _ => (1000.0, 1000.0 / 300.0),
        }
    }
}

/// Tokens that stay in each bucket, for requests of others that share it.
const RESERVE: f64 = 2.0;

/// However long Azure asks us to wait, it is asked again after this long (guess: no limit of theirs lasts longer).
const LONGEST_CLOSURE: Duration = Duration::from_secs(60 * 60);

/// What rounding may take from a token.
const DUST: f64 = 1e-6;

/// The buckets that a request draws from.
pub(crate) fn charges(method: &Method, path: &str) -> Vec<Bucket> {
    let path = path.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let last_type = path.rfind("/providers/").map_or("", |start| &path[start + "/providers/".len()..]);
    let network = last_type.starts_with("microsoft.network/");
    let machines = last_type.starts_with("microsoft.compute/virtualmachines");
    let list = last_type.split('/').count() == 2 || last_type.ends_with("/usages") || last_type.ends_with("/skus");
    let mut charges = Vec::with_capacity(2);
    match *method {
        Method::GET | Method::HEAD => {
            charges.push(Bucket::Reads);
            if network {
                charges.push(Bucket::NetworkReads);
            } else if last_type.starts_with("microsoft.compute/") && list {
                charges.push(Bucket::ComputeList);
            }
        }
        Method::DELETE => {
            charges.push(Bucket::Deletes);
            if network {
                charges.push(Bucket::NetworkWrites);
            } else if machines {
                charges.push(Bucket::VirtualMachineDelete);
            }
        }
        _ => {
            charges.push(Bucket::Writes);
            if network {
                charges.push(Bucket::NetworkWrites);
            } else if machines && (path.ends_with("/deallocate") || path.ends_with("/simulateeviction")) {
                charges.push(Bucket::VirtualMachineDelete);
            } else if machines {
                charges.push(Bucket::VirtualMachinePut);
            }
        }
    }
    charges
}

#[derive(Clone, Copy)]
struct Level {
    tokens: f64,
    /// Azure said that nothing goes before this.
    closed_until: Option<Instant>,
}

struct Waiter {
    charges: Vec<Bucket>,
    granted: bool,
    wake: Arc<Notify>,
}

/// Place in the queue: priority, then arrival.
type Ticket = (Priority, u64);

struct State {
    levels: [Level; BUCKETS],
    filled_at: Instant,
    arrivals: u64,
    queue: BTreeMap<Ticket, Waiter>,
}

/// The allowance of one subscription.
pub struct Budget {
    state: Mutex<State>,
}

impl Default for Budget {
    fn default() -> Self {
        let levels = std::array::from_fn(|index| Level { tokens: Bucket::limits(index).0, closed_until: None });
        let state = State { levels, filled_at: Instant::now(), arrivals: 0, queue: BTreeMap::new() };
        Budget { state: Mutex::new(state) }
    }
}

impl Budget {
    /// Waits until a request that draws from these buckets may be sent.
    pub async fn acquire(&self, charges: Vec<Bucket>, priority: Priority) {
        let (ticket, wake) = self.enter(charges, priority);
        // Leaving the queue must also happen when the caller gives up.
        let _place = Place { budget: self, ticket };
        let mut entering = true;
        loop {
            let Err(next) = self.step(ticket, entering) else { return };
            entering = false;
            match next {
                Some(next) => tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = pause(next.saturating_duration_since(Instant::now())) => {}
                },
                None => wake.notified().await,
            }
        }
    }

    fn enter(&self, charges: Vec<Bucket>, priority: Priority) -> (Ticket, Arc<Notify>) {
        let mut state = lock(&self.state);
        let ticket = (priority, state.arrivals);
        state.arrivals += 1;
        let wake = Arc::new(Notify::new());
        state.queue.insert(ticket, Waiter { charges, granted: false, wake: wake.clone() });
        (ticket, wake)
    }

    /// Serves the queue. Ok if the ticket was served; else when to come back, if it is this caller who keeps the time.
    fn step(&self, ticket: Ticket, entering: bool) -> Result<(), Option<Instant>> {
        let mut state = lock(&self.state);
        let next = state.serve();
        if state.queue.get(&ticket).is_none_or(|waiter| waiter.granted) {
            return Ok(());
        }
        match state.first() {
            Some((first, _)) if first == ticket => Err(next),
            Some((_, first)) => {
                // A newcomer may be ready before the time that the first one waits for.
                if entering {
                    first.wake.notify_one();
                }
                Err(None)
            }
            None => Ok(()),
        }
    }

    /// Lowers our idea of what is left to what Azure says is left.
    pub fn observe(&self, headers: &HeaderMap) {
        let names = [
            ("x-ms-ratelimit-remaining-subscription-reads", Bucket::Reads),
            ("x-ms-ratelimit-remaining-subscription-writes", Bucket::Writes),
            ("x-ms-ratelimit-remaining-subscription-deletes", Bucket::Deletes),
        ];
        let mut state = lock(&self.state);
        for (name, bucket) in names {
            let left = headers.get(name).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
            if let Some(left) = left {
                let level = &mut state.levels[bucket as usize];
                level.tokens = level.tokens.min(f64::from(left));
            }
        }
    }

    /// Azure said 429: nothing goes to these buckets for this long.
    pub fn close(&self, charges: &[Bucket], wait: Duration) {
        let mut state = lock(&self.state);
        let until = Instant::now() + wait.min(LONGEST_CLOSURE);
        for bucket in charges {
            let level = &mut state.levels[*bucket as usize];
            level.closed_until = level.closed_until.max(Some(until));
        }
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        lock(&self.state).queue.values().filter(|waiter| !waiter.granted).count()
    }
}

impl State {
    /// The first of those that wait: it keeps the time for all.
    fn first(&self) -> Option<(Ticket, &Waiter)> {
        self.queue.iter().find(|(_, waiter)| !waiter.granted).map(|(ticket, waiter)| (*ticket, waiter))
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        for (index, level) in self.levels.iter_mut().enumerate() {
            let (size, per_second) = Bucket::limits(index);
            level.tokens = (level.tokens + seconds * per_second).min(size);
        }
    }

    /// Grants whatever can be granted, in order; a caller never overtakes one that waits for the same bucket. Returns
    /// when the next grant may be possible.
    fn serve(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.refill(now);
        let mut taken_by_earlier = [false; BUCKETS];
        let mut next: Option<Instant> = None;
        for waiter in self.queue.values_mut().filter(|waiter| !waiter.granted) {
            let indices = || waiter.charges.iter().map(|bucket| *bucket as usize);
            if indices().any(|index| taken_by_earlier[index]) {
                indices().for_each(|index| taken_by_earlier[index] = true);
                continue;
            }
            let ready = indices().map(|index| self.levels[index].ready_at(index, now)).max().unwrap_or(now);
            if ready <= now {
                indices().for_each(|index| self.levels[index].tokens -= 1.0);
                waiter.granted = true;
                waiter.wake.notify_one();
            } else {
                indices().for_each(|index| taken_by_earlier[index] = true);
                next = Some(next.map_or(ready, |next| next.min(ready)));
            }
        }
        next
    }

    fn leave(&mut self, ticket: Ticket) {
        self.queue.remove(&ticket);
        // The one who kept the time may be the one who left.
        if let Some((_, first)) = self.first() {
            first.wake.notify_one();
        }
    }
}

impl Level {
    /// When this bucket can give a token.
    fn ready_at(&self, index: usize, now: Instant) -> Instant {
        let missing = (1.0 + RESERVE - self.tokens).max(0.0);
        // Timers tick in milliseconds; rounding up makes sure that the token is there on waking.
        let millis = ((missing - DUST) / Bucket::limits(index).1 * 1000.0).ceil();
        let filled = if missing <= DUST { now } else { now + Duration::from_millis((millis as u64).max(1)) };
        self.closed_until.map_or(filled, |until| filled.max(until))
    }
}

struct Place<'budget> {
    budget: &'budget Budget,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.budget.state).leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream::FuturesUnordered};
    use http::HeaderValue;

    use super::*;

    /// Runs `acquire` for all, and returns who was served when, in milliseconds.
    async fn served(budget: &Budget, callers: &[(&'static str, Bucket, u8)]) -> Vec<(u128, &'static str)> {
        let start = Instant::now();
        let mut waiting: FuturesUnordered<_> = callers
            .iter()
            .map(|(name, bucket, priority)| async move {
                budget.acquire(vec![*bucket], Priority(*priority)).await;
                (start.elapsed().as_millis(), *name)
            })
            .collect();
        let mut order = Vec::new();
        while let Some(one) = waiting.next().await {
            order.push(one);
        }
        order
    }

    async fn drain(budget: &Budget, bucket: Bucket, count: usize) {
        for _ in 0..count {
            budget.acquire(vec![bucket], Priority(0)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_published_rate() {
        let budget = Budget::default();
        let start = Instant::now();
        drain(&budget, Bucket::Writes, 198).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        drain(&budget, Bucket::Writes, 50).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        drain(&budget, Bucket::Reads, 248 + 25).await;
        assert_eq!(start.elapsed(), Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn lower_numbers_go_first_then_the_first_come() {
        let budget = Budget::default();
        drain(&budget, Bucket::Writes, 198).await;
        let write = Bucket::Writes;
        let callers = [
            ("ip", write, 60),
            ("ip 2", write, 60),
            ("nic", write, 40),
            ("vm", write, 20),
            ("read", Bucket::Reads, 99),
        ];
        let order = served(&budget, &callers).await;
        assert_eq!(order, [(0, "read"), (100, "vm"), (200, "nic"), (300, "ip"), (400, "ip 2")]);
        assert_eq!(budget.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_does_not_stop_the_queue() {
        let budget = Budget::default();
        drain(&budget, Bucket::Writes, 198).await;
        let impatient =
            tokio::time::timeout(Duration::from_millis(50), budget.acquire(vec![Bucket::Writes], Priority(0)));
        let patient = async {
            budget.acquire(vec![Bucket::Writes], Priority(1)).await;
            Instant::now()
        };
        let start = Instant::now();
        let (impatient, patient) = futures::join!(impatient, patient);
        assert!(impatient.is_err());
        assert_eq!(patient - start, Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_bucket_does_not_hold_up_the_others() {
        let budget = Budget::default();
        drain(&budget, Bucket::Writes, 198).await;
        budget.close(&[Bucket::Reads], Duration::from_secs(60));
        let order = served(&budget, &[("read", Bucket::Reads, 1), ("write", Bucket::Writes, 2)]).await;
        assert_eq!(order, [(100, "write"), (60_000, "read")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_azure_says_counts() {
        let budget = Budget::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-ms-ratelimit-remaining-subscription-writes", HeaderValue::from_static("3"));
        budget.observe(&headers);
        let start = Instant::now();
        drain(&budget, Bucket::Writes, 2).await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        budget.close(&[Bucket::Writes], Duration::from_secs(30));
        drain(&budget, Bucket::Writes, 1).await;
        assert_eq!(start.elapsed(), Duration::from_millis(30_100));
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_are_cheap() {
        let budget = Budget::default();
        let start = Instant::now();
        let all = (0..1500).map(|_| budget.acquire(vec![Bucket::Writes], Priority(1)));
        futures::future::join_all(all).await;
        assert_eq!(start.elapsed(), Duration::from_millis(130_200));
    }

    #[test]
    fn requests_are_charged_where_azure_counts_them() {
        let group = "/subscriptions/s/resourceGroups/g/providers/";
        let check = |method: Method, path: &str, expected: &[Bucket]| {
            assert_eq!(charges(&method, &format!("{group}{path}")), expected, "{method} {path}");
        };
        check(Method::PUT, "Microsoft.Compute/virtualMachines/a", &[Bucket::Writes, Bucket::VirtualMachinePut]);
        check(Method::GET, "Microsoft.Compute/virtualMachines?x=1", &[Bucket::Reads, Bucket::ComputeList]);
        check(Method::GET, "Microsoft.Compute/virtualMachines/a", &[Bucket::Reads]);
        check(Method::DELETE, "Microsoft.Compute/virtualMachines/a", &[Bucket::Deletes, Bucket::VirtualMachineDelete]);
        check(Method::PUT, "Microsoft.Network/networkInterfaces/a", &[Bucket::Writes, Bucket::NetworkWrites]);
        check(Method::GET, "Microsoft.Network/networkInterfaces", &[Bucket::Reads, Bucket::NetworkReads]);
        assert_eq!(charges(&Method::PUT, "/subscriptions/s/resourcegroups/g"), [Bucket::Writes]);
    }
}

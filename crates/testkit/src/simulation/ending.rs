//! How commands come to their ends: by themselves, by death, by request, or beside a rival.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use deploy::{
    config::Config,
    session::{Finished, Session, SessionError, Teardown, Watching},
    task::Phase,
};
use engine::{
    Journal, JournalError, Stop,
    runner::{FaultInjector, Injection, SETTLE},
};
use rehearsal::Stage;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    invariants::{Violation, broken},
    play::unreadable,
    scenario::{Act, Command, Ending},
};

/// How long a run may take beyond its settling to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running command; `plan` finishes nothing.
pub(super) type Running<'a> = Pin<Box<dyn Future<Output = Result<Option<Finished>, SessionError>> + 'a>>;

/// How a command came to its end.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Ended {
    /// It did what it should.
    Finished(Option<Finished>),
    /// It said why not.
    Failed(SessionError),
    /// It died.
    Died,
}

impl Ended {
    fn of(result: Result<Option<Finished>, SessionError>) -> Self {
        result.map_or_else(Self::Failed, Self::Finished)
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Finished(_) => "it succeeded".to_owned(),
            Self::Failed(error) => error.to_string(),
            Self::Died => "it died".to_owned(),
        }
    }

    /// Whether it failed because an earlier teardown is still under way.
    pub(super) fn waits_for_deletion(&self) -> bool {
        let text = self.describe().to_lowercase();
        matches!(self, Self::Failed(_)) && ["being deleted", "beingdeleted"].iter().any(|word| text.contains(word))
    }

    /// It must have succeeded.
    pub(super) fn expect_success(&self, rule: &'static str) -> Result<(), Violation> {
        if matches!(self, Self::Finished(_)) { Ok(()) } else { broken(rule, self.describe()) }
    }
}

/// The death of a program at a point of its own.
pub(super) struct Death {
    ending: Ending,
    reached: Arc<Notify>,
}

impl Death {
    /// As the ending wants it.
    pub(super) fn new(ending: Ending) -> Self {
        Self { ending, reached: Arc::default() }
    }

    /// Stops the program at the point, if there is one.
    pub(super) fn injector(&self) -> Option<FaultInjector> {
        let Ending::CrashAt(deadly, times) = self.ending else { return None };
        let (left, reached) = (AtomicU32::new(times), Arc::clone(&self.reached));
        Some(Arc::new(move |point, _| {
            if point != deadly || left.fetch_sub(1, Ordering::Relaxed) != 1 {
                return Injection::None;
            }
            reached.notify_one();
            Injection::Hang
        }))
    }
}

/// What it takes to lead a command to its end.
pub(super) struct Direction<'a> {
    pub(super) stage: &'a Stage,
    pub(super) stop: &'a watch::Sender<Stop>,
    pub(super) death: &'a Death,
    pub(super) config: (&'a str, &'a Config),
    pub(super) rival: &'a dyn Fn() -> Session,
    pub(super) home: &'a Path,
}

impl Direction<'_> {
    /// Leads it there.
    pub(super) async fn lead(&self, act: &Act, mut running: Running<'_>) -> Result<Ended, Violation> {
        let ended = match act.ending {
            Ending::Natural => running.await,
            Ending::CrashAfterPolls(polls) => match (Polls { running, left: polls }).await {
                Some(result) => result,
                None => return Ok(Ended::Died),
            },
            Ending::CrashAt(..) => tokio::select! {
                biased;
                result = &mut running => result,
                () = self.death.reached.notified() => return Ok(self.kill(running)),
            },
            Ending::Crash(after) => match self.within(after, &mut running).await {
                Some(result) => result,
                None => return Ok(self.kill(running)),
            },
            Ending::Interrupt(after) => match self.within(after, &mut running).await {
                Some(result) => result,
                None => {
                    self.stop.send_replace(Stop::Gently);
                    settled(act, SETTLE + LAST_WORDS, running).await?
                }
            },
            Ending::InterruptTwice(after, then) => match self.within(after, &mut running).await {
                Some(result) => result,
                None => {
                    self.stop.send_replace(Stop::Gently);
                    match self.within(then, &mut running).await {
                        Some(result) => result,
                        None => {
                            self.stop.send_replace(Stop::Now);
                            // Whoever asks twice does not wait any longer than this.
                            match self.within(LAST_WORDS, &mut running).await {
                                Some(result) => result,
                                None => return Ok(self.kill(running)),
                            }
                        }
                    }
                }
            },
            Ending::Rival(after, command) => match self.within(after, &mut running).await {
                Some(result) => result,
                None => {
                    self.compete(command).await?;
                    running.await
                }
            },
            Ending::Unlocked(after) => match self.within(after, &mut running).await {
                Some(result) => result,
                None => {
                    let holder = self.stage.settings(self.home, Phase::K0rdent).holder;
                    Journal::fence(self.home, &holder).map_err(|error| unreadable(&error.into()))?;
                    return overtaken(running.await);
                }
            },
        };
        Ok(Ended::of(ended))
    }

    /// The result, if it comes within this time.
    async fn within(
        &self,
        patience: Duration,
        running: &mut Running<'_>,
    ) -> Option<Result<Option<Finished>, SessionError>> {
        tokio::time::timeout(patience, running).await.ok()
    }

    /// First its connections, so that nothing that it was about to say gets out; then itself.
    fn kill(&self, running: Running<'_>) -> Ended {
        self.stage.network.sever();
        drop(running);
        Ended::Died
    }

    /// Another run in the same environment is refused at once, and told who is there.
    async fn compete(&self, command: Command) -> Result<(), Violation> {
        let session = (self.rival)();
        let (_go_on, stop) = watch::channel(Stop::No);
        let watching = Watching { stop, listener: &|_| {}, faults: None };
        let began = Instant::now();
        let result = match command {
            Command::Reset => session.reset(&Teardown::default(), watching).await,
            _ => session.deploy(self.config.0, self.config.1, watching).await,
        };
        let waited = began.elapsed();
        match result {
            Err(SessionError::Journal(JournalError::Held { .. })) if waited.is_zero() => Ok(()),
            result => broken(
                "two runs at once exclude each other",
                format!("{command:?} after {waited:?}: {:?}", result.err()),
            ),
        }
    }
}

/// A run whose place was taken stops at the next thing that it would record, and so before the next that it would change.
fn overtaken(result: Result<Option<Finished>, SessionError>) -> Result<Ended, Violation> {
    match result {
        Err(SessionError::Journal(JournalError::LostLease { .. })) => Ok(Ended::Died),
        result => broken("who has lost the lease stops", Ended::of(result).describe()),
    }
}

/// A run that was asked to stop does so in time.
async fn settled(
    act: &Act,
    patience: Duration,
    running: Running<'_>,
) -> Result<Result<Option<Finished>, SessionError>, Violation> {
    match tokio::time::timeout(patience, running).await {
        Ok(result) => Ok(result),
        Err(_) => broken("who is asked to stop settles in time", format!("{:?} went on for {patience:?}", act.command)),
    }
}

/// A command that is given control so many times and no more.
struct Polls<'a> {
    running: Running<'a>,
    left: u32,
}

impl Future for Polls<'_> {
    type Output = Option<Result<Option<Finished>, SessionError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.running.as_mut().poll(context).map(Some)
    }
}

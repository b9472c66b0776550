//! The calendar, and the only pause there is.
//!
//! Durations are measured by tokio's clock, which tests and rehearsals make virtual; the calendar is injected.

use std::time::Duration;

use time::OffsetDateTime;

/// Tells the calendar time.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn utc(&self) -> OffsetDateTime;
}

/// The computer's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the computer for the time")]
    fn utc(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// Waits for `duration`. Everything that waits for a condition goes through a deadline above it; this is the interval
/// between two looks.
#[expect(clippy::disallowed_methods, reason = "the one pause")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

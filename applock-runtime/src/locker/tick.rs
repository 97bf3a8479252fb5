//! The identity of a scheduled run.

use std::time::{SystemTime, UNIX_EPOCH};

/// The identity of a scheduled run: a number that grows from one to the next, or the time at
/// which the scheduler fired it. See [`Lock::tick`](crate::Lock::tick).
///
/// A time counts in whole microseconds since 1970; an earlier one is 0. One lock has ticks of one
/// kind: numbers, or times.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use applock::Tick;
///
/// let fired = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
/// assert!(Tick::from(fired) > Tick::from(SystemTime::UNIX_EPOCH));
/// assert!(Tick::from(4712) > Tick::from(4711));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub(super) u64);

impl From<u64> for Tick {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<SystemTime> for Tick {
    fn from(fired_at: SystemTime) -> Self {
        let since = fired_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

//! The lease arithmetic: limits, margin, heartbeat interval, and when a lease ends.
//!
//! Rule R1: a lease counts from *before* its request left, and ends a margin before the
//! ttl. The store starts to count when the request arrives, which is later; so by its own
//! clock the holder is over before the store lets another owner in, whatever the network
//! did. The numbers are chosen together: a heartbeat each third of the ttl, and two full
//! attempts with the pause between them, must end before the lease does (`backoff` has the
//! test).
//!
//! Functions of lengths and moments. Only [`Sent::now`] reads a clock.

use std::time::{Duration, SystemTime};

use crate::clock::{Clock, Moment};
use crate::error::{Error, Result};

/// The ttl where none is given: that of the Python AppLocker.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(60);

/// For how long a holding is remembered after its end, unless it is said.
pub(crate) const DEFAULT_REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The shortest ttl: below it a busy machine's scheduling alone loses leases.
pub const MIN_TTL: Duration = Duration::from_millis(100);

/// The longest ttl (and other length): ten years. Longer ones overflow the stores'
/// arithmetic, and mean 'for ever' anyway.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long one command may take where nothing is set, and at the most.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// What stopping takes: the holder must be notified of the loss before another owner can
/// have the lock.
const STOPPING: Duration = Duration::from_millis(30);

/// The safety margin of a lease: 1 % for clocks that run at different rates, and the
/// time that stopping takes (5 % of a ttl below 600 ms, where 30 ms would leave no
/// room for two attempts).
pub(crate) fn margin(ttl: Duration) -> Duration {
    ttl / 100 + STOPPING.min(ttl / 20)
}

/// When a heartbeat is due after the last one was sent.
pub(crate) fn heartbeat_interval(ttl: Duration) -> Duration {
    ttl / 3
}

/// How long a heartbeat may take: two full attempts, and the pause between them, must
/// fit between one heartbeat and the lease's end.
pub(crate) fn heartbeat_timeout(ttl: Duration, command: Duration) -> Duration {
    (ttl / 4).min(command)
}

/// The end of a lease that was asked for at `sent` (rule R1).
pub(crate) fn valid_until(sent: Moment, ttl: Duration) -> Moment {
    sent + ttl.saturating_sub(margin(ttl))
}

/// A length of time from the user, checked.
pub(crate) fn check_length(what: &'static str, length: Duration) -> Result<Duration> {
    if length < MIN_TTL {
        return Err(Error::invalid(
            what,
            humantime::format_duration(length),
            format!(
                "it is shorter than {}, the least",
                humantime::format_duration(MIN_TTL)
            ),
            format!("write a longer one, such as {what} = \"60s\""),
        ));
    }
    if length > MAX_TTL {
        return Err(Error::invalid(
            what,
            format_args!("{} s", length.as_secs()),
            "it is longer than ten years, the most",
            format!("write a shorter one, such as {what} = \"60s\""),
        ));
    }
    // Stores count milliseconds; a part of one is rounded up, never down to nothing.
    let millis = length.as_nanos().div_ceil(1_000_000);
    Ok(Duration::from_millis(
        u64::try_from(millis).unwrap_or(u64::MAX),
    ))
}

/// When a request left, and how far the wall clock was ahead of the lease's clock then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Moment,
    pub(crate) lead: i64,
}

impl Sent {
    /// Reads both clocks. Called before the request is handed to the store.
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        let at = clock.now();
        Self {
            at,
            lead: wall_lead(clock, at),
        }
    }

    /// By how much the wall clock has run ahead since `earlier`, if it has jumped.
    pub(crate) fn wall_jump_since(self, earlier: Option<Self>) -> Option<Duration> {
        let ahead = self.lead.saturating_sub(earlier?.lead);
        (ahead > WALL_JUMP).then(|| Duration::from_nanos(ahead.unsigned_abs()))
    }
}

/// By how many nanoseconds the wall clock is ahead of a clock that shows `now`.
pub(super) fn wall_lead(clock: &dyn Clock, now: Moment) -> i64 {
    let nanos = |length: Duration| i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
    let wall = match clock.wall().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    };
    wall.saturating_sub(nanos(now.since_origin()))
}

/// Where the wall clock runs ahead by more than this between two heartbeats, the machine
/// may have stood still with all its other clocks: a paused or restored virtual machine.
/// (Or the wall clock was set; that costs one heartbeat.)
pub(super) const WALL_JUMP: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_and_parts_of_a_millisecond_round_up() {
        assert!(check_length("ttl", Duration::ZERO).is_err());
        assert!(check_length("ttl", Duration::from_millis(99)).is_err());
        assert!(check_length("ttl", Duration::MAX).is_err());
        let odd = Duration::from_micros(100_001);
        assert_eq!(
            check_length("ttl", odd).unwrap(),
            Duration::from_millis(101)
        );
    }
}

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

/// Stores expire keys on a whole millisecond: a try right at a lease's end could come too early.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// The shortest ttl: below it a busy machine's scheduling alone loses leases.
pub const MIN_TTL: Duration = Duration::from_millis(100);

/// The longest ttl (and other length): ten years. Longer ones overflow the stores'
/// arithmetic, and mean 'for ever' anyway.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The longest `every`: a lock is remembered for twice as long.
pub const MAX_EVERY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

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

/// How often a job is to run, checked.
pub(crate) fn check_every(every: Duration) -> Result<Duration> {
    if every > MAX_EVERY {
        return Err(Error::invalid(
            "every",
            format_args!("{} s", every.as_secs()),
            "it is longer than five years, the most",
            "write a shorter one, such as every = \"1d\"",
        ));
    }
    check_length("every", every)
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
        Self::at(clock.now(), clock)
    }

    /// The same where the lease's clock was just read. Reads the wall clock.
    pub(crate) fn at(at: Moment, clock: &dyn Clock) -> Self {
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

    #[test]
    fn the_shortest_and_the_longest_length_are_lengths() {
        for length in [MIN_TTL, MAX_TTL] {
            assert_eq!(check_length("ttl", length).unwrap(), length);
        }
        let tick = Duration::from_nanos(1);
        for length in [MIN_TTL - tick, MAX_TTL + tick] {
            assert!(check_length("ttl", length).is_err());
        }
        assert_eq!(MAX_TTL, Duration::from_secs(315_360_000));
        assert_eq!(DEFAULT_REMEMBER, Duration::from_secs(604_800));
    }

    #[test]
    fn a_job_runs_every_five_years_at_the_most_seldom() {
        for every in [MIN_TTL, MAX_EVERY] {
            assert_eq!(check_every(every).unwrap(), every);
        }
        let tick = Duration::from_nanos(1);
        for every in [MIN_TTL - tick, MAX_EVERY + tick] {
            assert!(check_every(every).is_err());
        }
        assert_eq!(MAX_EVERY, MAX_TTL / 2);
    }

    /// R1, in numbers.
    #[test]
    fn a_lease_counts_from_when_its_request_left_less_the_margin() {
        let seconds = Duration::from_secs;
        let millis = Duration::from_millis;
        assert_eq!(margin(seconds(60)), millis(600 + 30));
        assert_eq!(margin(millis(600)), millis(6 + 30));
        assert_eq!(margin(millis(100)), millis(1 + 5));
        let sent = Moment::from_origin(seconds(7));
        assert_eq!(valid_until(sent, seconds(60)), sent + millis(59_370));
        assert_eq!(heartbeat_interval(seconds(60)), seconds(20));
        assert_eq!(heartbeat_timeout(seconds(60), seconds(1)), seconds(1));
        assert_eq!(heartbeat_timeout(millis(400), seconds(1)), millis(100));
    }

    #[test]
    fn the_wall_clock_has_jumped_if_it_ran_ahead_by_more_than_a_second() {
        let at = Moment::from_origin(Duration::from_secs(7));
        let sent = |lead| Sent { at, lead };
        let earlier = Some(sent(-5));
        assert_eq!(sent(WALL_JUMP - 5).wall_jump_since(earlier), None);
        let jump = sent(WALL_JUMP - 4).wall_jump_since(earlier);
        assert_eq!(jump, Some(Duration::from_nanos(1_000_000_001)));
        // Set back by a person.
        assert_eq!(sent(-2 * WALL_JUMP).wall_jump_since(earlier), None);
        assert_eq!(sent(2 * WALL_JUMP).wall_jump_since(None), None);
    }

    #[test]
    fn the_lead_of_the_wall_clock_is_how_far_it_is_ahead() {
        let clock = crate::clock::ManualClock::new();
        let sent = Sent::now(&clock);
        assert_eq!((sent.at, sent.lead), (clock.now(), 0));
        clock.advance_wall(Duration::from_secs(2));
        assert_eq!(Sent::now(&clock).lead, 2_000_000_000);
        let later = clock.now() + Duration::from_secs(3);
        assert_eq!(wall_lead(&clock, later), -1_000_000_000);
    }

    /// A machine that has lost its time, and is set right later.
    #[test]
    fn a_wall_clock_before_1970_is_behind() {
        #[derive(Debug)]
        struct Unset;
        impl Clock for Unset {
            fn now(&self) -> Moment {
                Moment::from_origin(Duration::from_secs(3))
            }
            fn sleep_until(&self, _: Moment) -> crate::clock::Sleep {
                Box::pin(std::future::pending())
            }
            fn wall(&self) -> SystemTime {
                SystemTime::UNIX_EPOCH - Duration::from_secs(2)
            }
        }
        assert_eq!(Sent::now(&Unset).lead, -5_000_000_000);
    }
}

//! How long to pause between tries: jittered, so that a fleet does not act in step.
//!
//! Three paces. *Retries* of a heartbeat or a release are short beside a lease, for every
//! try that fits before its end may save it. *Polls* of a busy lock grow to a quarter of a
//! second. *Polls of a wait queue* whose waiters are notified are rare: seconds. The danger
//! in all three is the same: a store that comes back after a fault, and is struck down
//! again by all processes at once.

use std::time::Duration;

use crate::pause::growing;

/// After a failed heartbeat or release: the first pause, and the longest. Short beside
/// a lease, for every try that fits before its end may save it.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// Between two releases of an orphan: the longest pause. A late request holds the lock for so long.
const WATCH_LONGEST: Duration = Duration::from_secs(2);

/// Between two polls of a busy lock: the first pause, and the longest.
const POLL_FIRST: Duration = Duration::from_millis(20);
const POLL_LONGEST: Duration = Duration::from_millis(250);

/// The pause before the try after `failures` failed ones.
pub(crate) fn retry(failures: u32) -> Duration {
    growing(RETRY_FIRST, RETRY_LONGEST, failures)
}

/// The pause before an orphan that was released `times` before is released again: a late request
/// most often comes soon.
pub(crate) fn watch(times: u32) -> Duration {
    growing(RETRY_FIRST, WATCH_LONGEST, times)
}

/// The pause before a heartbeat is tried again: so short beside the ttl that two full
/// attempts fit before the lease ends.
pub(crate) fn heartbeat_retry(failures: u32, ttl: Duration) -> Duration {
    retry(failures).min(longest_heartbeat_pause(ttl))
}

/// See [`heartbeat_retry`].
pub(crate) fn longest_heartbeat_pause(ttl: Duration) -> Duration {
    ttl / 20
}

/// The pause before polling a lock again that was found busy `polls` times.
pub(crate) fn poll(polls: u32) -> Duration {
    growing(POLL_FIRST, POLL_LONGEST, polls)
}

/// Between two polls by a waiter that is notified of its grant: the shortest pause, and the
/// longest. A waiter with many ahead comes first only when all of them are gone; but a
/// notification that was lost holds up the waiters behind for as long.
const QUEUE_POLL_FIRST: Duration = Duration::from_secs(1);
const QUEUE_POLL_LONGEST: Duration = Duration::from_secs(10);

/// The pause before a queued waiter polls again, with so many ahead of it.
pub(crate) fn queue_poll(ahead: u64) -> Duration {
    let ahead = u32::try_from(ahead.max(1)).unwrap_or(u32::MAX);
    let full = QUEUE_POLL_FIRST
        .saturating_mul(ahead)
        .min(QUEUE_POLL_LONGEST);
    full.mul_f64(1.0 - fastrand::f64() / 4.0)
}

/// A heartbeat's interval, up to a tenth earlier, so that locks taken together do not
/// stay in step with those of other processes.
pub(crate) fn jittered_interval(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lease_time::{COMMAND_TIMEOUT, MAX_TTL, MIN_TTL, heartbeat_timeout, margin};

    #[test]
    fn pauses_grow_to_their_longest_and_differ() {
        for round in 0..100 {
            let pause = poll(round);
            assert!(
                pause >= POLL_FIRST / 2 && pause <= POLL_LONGEST,
                "{pause:?}"
            );
        }
        assert!(poll(30) >= POLL_LONGEST / 2);
        let different: std::collections::HashSet<_> = (0..50).map(|_| retry(3)).collect();
        assert!(different.len() > 10);
    }

    #[test]
    fn a_waiter_polls_by_how_many_stand_before_it_and_never_much_too_soon() {
        for (ahead, full) in [(0, 1), (1, 1), (4, 4), (10, 10), (11, 10), (u64::MAX, 10)] {
            let full = Duration::from_secs(full);
            for _ in 0..1_000 {
                let pause = queue_poll(ahead);
                assert!(pause > full * 7 / 10 && pause <= full, "{ahead}: {pause:?}");
            }
        }
        let interval = Duration::from_secs(20);
        for _ in 0..1_000 {
            let pause = jittered_interval(interval);
            assert!(pause >= interval * 9 / 10 && pause <= interval, "{pause:?}");
        }
    }

    #[test]
    fn two_attempts_fit_between_a_heartbeat_and_the_end_of_every_lease() {
        let mut ttl = MIN_TTL;
        while ttl < MAX_TTL {
            let attempts =
                2 * heartbeat_timeout(ttl, COMMAND_TIMEOUT) + longest_heartbeat_pause(ttl);
            assert!(
                crate::engine::lease_time::heartbeat_interval(ttl) + attempts + margin(ttl) < ttl,
                "{ttl:?}"
            );
            ttl = ttl * 101 / 100;
        }
    }
}

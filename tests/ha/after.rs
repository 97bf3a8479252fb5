//! How soon after what the servers did a locker follows. The bounds are ten times the goals
//! that a bench measures: for two busy cores.

use std::thread;
use std::time::{Duration, Instant};

use applock::{AppLocker, LockGuard, Loss};

use crate::support::steps::{LONG, assert_lost};
use crate::support::wait;

/// From the moment at which another server serves to the first answer from there.
pub(crate) const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// From the moment at which sentinels name another master to the last answer of the old one
/// that counts.
pub(crate) const STAYS: Duration = Duration::from_secs(2);

/// From the end of a holding to the grant of the next in the queue.
pub(crate) const NEXT: Duration = Duration::from_secs(3);

/// A lease that is kept over what the test does. Its own next heartbeat is 20 seconds away:
/// what comes sooner has a reason.
pub(crate) const KEPT: Duration = Duration::from_secs(60);

/// Asks until a server says that the lock is held, and never that it is not: when it did.
#[track_caller]
pub(crate) fn first_yes(guard: &LockGuard) -> Instant {
    wait::until("the lock is verified", LONG, || {
        let verified = guard.verify_blocking();
        assert!(!matches!(verified, Ok(false)), "{guard:?} is lost");
        verified.is_ok()
    });
    Instant::now()
}

/// Asks all the time, from now on, while the servers do something that makes others serve;
/// `seen` says when they do. The first yes must come soon after.
#[track_caller]
pub(crate) fn answers_soon_after<T>(guard: &LockGuard, seen: impl FnOnce() -> (T, Instant)) -> T {
    let (what, at, yes) = thread::scope(|scope| {
        let asking = scope.spawn(|| first_yes(guard));
        let (what, at) = seen();
        (what, at, asking.join().expect("it is verified"))
    });
    assert_soon("the first answer", at, yes, FIRST_ANSWER);
    what
}

#[track_caller]
pub(crate) fn assert_soon(what: &str, from: Instant, to: Instant, most: Duration) {
    let took = to.saturating_duration_since(from);
    assert!(took <= most, "{what} came after {took:?}");
}

/// Waits until the holder knows that another server does not know its lock: when it does.
#[track_caller]
pub(crate) fn until_taken(guard: &LockGuard) -> Instant {
    wait::until("the holder learns of its loss", LONG, || !guard.is_held());
    let at = Instant::now();
    assert_lost(guard, Loss::Taken);
    at
}

/// Nobody else gets it.
#[track_caller]
pub(crate) fn assert_excludes(other: &AppLocker, app: &str) {
    let mut tried = None;
    wait::until("another caller gets an answer", LONG, || {
        tried = other.lock(app).try_acquire_blocking().ok();
        tried.is_some()
    });
    assert!(tried.flatten().is_none(), "{app} was granted twice");
}

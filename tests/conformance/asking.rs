//! What the cases do and ask: each waits, if it must, for what has to come, and no longer
//! than a failure would take.

use std::time::{Duration, Instant};

use applock::{Error, Lock, LockGuard, LockInfo};

use crate::store::SOON;
use crate::support::wait;
pub(crate) use crate::support::wait::polled;

/// The first answer of a store that is not kept from answering. 'Unavailable' is none:
/// a short lease gives a command less time than a busy machine may need, and what was
/// not answered says neither yes nor no.
#[track_caller]
pub(crate) fn answered<T>(mut ask: impl FnMut() -> Result<T, Error>) -> T {
    let mut answer = None;
    wait::until("the store answers", SOON, || {
        answer = match ask() {
            Err(Error::Unavailable(_)) => None,
            came => Some(came),
        };
        answer.is_some()
    });
    answer.unwrap().unwrap()
}

/// Takes a free lock.
#[track_caller]
pub(crate) fn take(lock: &Lock) -> LockGuard {
    match lock.try_acquire_blocking() {
        // It may have been taken without an answer: it is free as soon as that is undone.
        Err(Error::Unavailable(_)) => take_soon(lock),
        taken => taken.unwrap().expect("the lock is free"),
    }
}

/// Takes a lock from whoever holds it. What was not answered may have been done: then there is nothing
/// left to take.
#[track_caller]
pub(crate) fn force_release(lock: &Lock) {
    let mut is_unanswered = false;
    let was_held = answered(|| {
        let answer = lock.force_release_blocking();
        is_unanswered |= matches!(answer, Err(Error::Unavailable(_)));
        answer
    });
    assert!(was_held || is_unanswered, "nobody holds the lock");
}

#[track_caller]
pub(crate) fn is_busy(lock: &Lock) -> bool {
    answered(|| lock.try_acquire_blocking()).is_none()
}

#[track_caller]
pub(crate) fn is_free(lock: &Lock) -> bool {
    answered(|| lock.info_blocking()).is_none()
}

/// How many wait in the queue of a lock that is held.
#[track_caller]
pub(crate) fn waiters(lock: &Lock) -> u64 {
    let holder = answered(|| lock.info_blocking()).expect("it is held");
    holder.waiters().expect("a store knows its waiters")
}

#[track_caller]
pub(crate) fn until_waiting(lock: &Lock, count: u64) {
    let what = format!("{count} wait in the queue");
    wait::until(&what, SOON, || waiters(lock) == count);
}

/// What a heartbeat finds: whether the lock is the guard's still.
#[track_caller]
pub(crate) fn verified(guard: &LockGuard) -> bool {
    answered(|| guard.verify_blocking())
}

/// Takes the lock as soon as it can be had.
#[track_caller]
pub(crate) fn take_soon(lock: &Lock) -> LockGuard {
    let mut taken = None;
    wait::until("the lock can be taken", SOON, || {
        taken = answered(|| lock.try_acquire_blocking());
        taken.is_some()
    });
    taken.unwrap()
}

/// The same for a lock whose heart has stopped: and not before the end that the last
/// refusal reported.
#[track_caller]
pub(crate) fn take_at_its_end(lock: &Lock) -> LockGuard {
    let mut end = Instant::now();
    let mut taken = None;
    wait::until("the lease ends", SOON, || {
        let asked = Instant::now();
        match lock.acquire_blocking() {
            Ok(guard) => taken = Some(guard),
            Err(Error::Busy(holder)) => end = asked + holder.remaining().unwrap() - ROUNDING,
            Err(Error::Unavailable(_)) => (),
            Err(error) => panic!("{error}"),
        }
        taken.is_some()
    });
    assert!(Instant::now() >= end, "taken before the lease ended");
    taken.unwrap()
}

/// Waits until a heartbeat that no caller asked for has moved the end of a held lock.
#[track_caller]
pub(crate) fn its_heart_beats(lock: &Lock) {
    let before = End::of(lock);
    wait::until("a heartbeat moves the lease's end", SOON, || {
        before.is_before(End::of(lock))
    });
}

/// With the store hanging: whatever this guard's locker asked before has been given up
/// when this returns, for its own question of the same time-out came last.
#[track_caller]
pub(crate) fn given_up(witness: &LockGuard) {
    let answer = witness.verify_blocking();
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
}

/// Waits until the guard reports that it is lost.
#[track_caller]
pub(crate) fn until_lost(guard: &LockGuard) {
    bounded("the guard reports that it is lost", guard.lost());
    assert!(!guard.is_held(), "lost, yet held");
}

/// Runs a future on this thread, but not for ever.
#[track_caller]
pub(crate) fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    runtime().block_on(async {
        tokio::time::timeout(SOON, future)
            .await
            .unwrap_or_else(|_| panic!("after {SOON:?} still not: {what}"))
    })
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// When a lease ends, as far as it can be known: what the store said was true at some
/// moment between the question and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) earliest: Instant,
    pub(crate) latest: Instant,
}

/// Stores tell milliseconds, rounded.
const ROUNDING: Duration = Duration::from_millis(3);

impl End {
    #[track_caller]
    pub(crate) fn of(lock: &Lock) -> Self {
        let asked = Instant::now();
        let holder = answered(|| lock.info_blocking()).expect("it is held");
        let answered = Instant::now();
        let left = holder.remaining().expect("it has an end");
        Self {
            earliest: asked + left - ROUNDING,
            latest: answered + left + ROUNDING,
        }
    }

    pub(crate) fn may_be(self, other: Self) -> bool {
        self.earliest <= other.latest && other.earliest <= self.latest
    }

    pub(crate) fn is_before(self, other: Self) -> bool {
        self.latest < other.earliest
    }
}

/// Whether two tell of the same acquisition.
pub(crate) fn same_holding(one: &LockInfo, other: &LockInfo) -> bool {
    let plain = |info: &LockInfo| info.owner_id().replace('-', "");
    plain(one) == plain(other) && one.fencing_token() == other.fencing_token()
}

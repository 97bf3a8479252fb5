//! 2.3: waits, and how they end.

use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use applock::{Error, Lock};
use tokio::task::JoinSet;

use crate::asking::{
    End, answered, bounded, given_up, is_busy, is_free, polled, take, take_soon, until_waiting,
    waiters,
};
use crate::store::{BRIEF, LONG, MemoryPlace, Place, RedisPlace, SOON};

/// A wait that is over before the test goes on.
const WAIT: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_busy<T>(outcome: Result<T, Error>) {
    match outcome {
        Err(Error::Busy(holder)) => assert!(holder.key().ends_with("app"), "{holder}"),
        Err(error) => panic!("not busy: {error}"),
        Ok(_) => panic!("two have the lock"),
    }
}

/// 26, 31: A lease that lasts longer does not lengthen it.
pub(crate) fn a_wait_ends_busy_when_it_is_over_and_not_before(place: &dyn Place) {
    let _guard = take(&place.locker().lock("app").ttl(LONG));
    let lock = place.locker().lock("app").wait(WAIT);
    let begun = Instant::now();
    assert_busy(lock.acquire_blocking());
    assert!(begun.elapsed() >= WAIT, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_busy(bounded("the wait ends", lock.acquire()));
    assert!(begun.elapsed() >= WAIT, "{:?}", begun.elapsed());
}

/// 31: A deadline of the caller's own.
pub(crate) fn a_wait_that_its_caller_cuts_short_is_over_and_leaves_no_place(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let other = place.locker().lock("app").wait_forever();
    bounded("it is cut short", async {
        let waiting = tokio::time::timeout(WAIT, other.acquire());
        assert!(waiting.await.is_err(), "two have the lock");
    });
    until_waiting(&other, 0);
    guard.release_blocking().unwrap();
    assert!(is_free(&other));
}

/// 28: There is no list of sleeps; the end of a wait is exact.
pub(crate) fn a_wait_is_as_long_as_its_lockers_clock_says_to_the_millisecond(place: &dyn Place) {
    let _guard = take(&place.locker().lock("app").ttl(LONG));
    let (locker, clock) = place.frozen();
    let lock = locker.lock("app").wait(Duration::from_millis(400));
    bounded("the wait ends", async {
        let mut waiting = pin!(lock.acquire());
        assert!(polled(waiting.as_mut()).await.is_pending());
        until_waiting(&lock, 1);
        clock.advance(Duration::from_millis(399));
        // Whatever that sets off has begun when the next question is answered.
        assert!(is_busy(&lock));
        assert!(polled(waiting.as_mut()).await.is_pending(), "ended early");
        clock.advance(Duration::from_millis(1));
        assert_busy(waiting.await);
    });
}

/// 29
pub(crate) fn a_release_ends_the_wait(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let before = guard.fencing_token();
    let lock = place.locker().lock("app").ttl(LONG).wait(SOON * 2);
    let next = bounded("it is served", async {
        let mut waiting = pin!(lock.acquire());
        assert!(polled(waiting.as_mut()).await.is_pending());
        until_waiting(&lock, 1);
        guard.release().await.unwrap();
        waiting.await.unwrap()
    });
    assert!(next.fencing_token() > before);
    // And for a waiter that blocks its thread.
    let waiting = thread::spawn({
        let lock = lock.clone();
        move || lock.acquire_blocking().unwrap()
    });
    until_waiting(&lock, 1);
    next.release_blocking().unwrap();
    let last = waiting.join().unwrap();
    assert!(last.is_held());
}

/// How long a hand-over takes: the median of some.
fn hand_over(place: &dyn Place) -> Duration {
    let locks = [(); 2].map(|()| place.locker().lock("app").ttl(LONG).wait(SOON));
    let mut guard = take(&locks[0]);
    let mut times = Vec::new();
    for round in 1..=21 {
        let lock = locks[round % 2].clone();
        let waiting = thread::spawn(move || {
            let guard = lock.acquire_blocking().unwrap();
            (guard, Instant::now())
        });
        until_waiting(&locks[0], 1);
        let begun = Instant::now();
        guard.release_blocking().unwrap();
        let (next, served) = waiting.join().unwrap();
        guard = next;
        times.push(served - begun);
    }
    times.sort();
    times[times.len() / 2]
}

/// 29, where the store notifies the waiter. (A directory does not: there the waiter polls.)
#[test]
fn a_release_is_known_to_the_next_within_milliseconds() {
    for place in [&RedisPlace::fresh() as &dyn Place, &MemoryPlace::fresh()] {
        let median = hand_over(place);
        assert!(median < Duration::from_millis(50), "{median:?}");
    }
}

/// 30
pub(crate) fn the_end_of_the_holders_lease_ends_the_wait(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let _guard = take(&frozen.lock("app").ttl(BRIEF));
    let lock = place.locker().lock("app").ttl(LONG).wait(SOON);
    let end = End::of(&lock);
    let next = lock.acquire_blocking().unwrap();
    assert!(
        Instant::now() >= end.earliest,
        "taken before the lease ended"
    );
    assert!(next.is_held());
}

/// 32
pub(crate) fn a_wait_that_is_never_begun_does_not_touch_the_store(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let _guard = take(&frozen.lock("app").ttl(LONG));
    let locker = place.locker();
    let lock = locker.lock("app").wait(SOON);
    let before = place.contents();
    drop(lock.acquire());
    drop(lock.run(async { unreachable!("it was never polled") }));
    bounded("it shuts down", locker.shutdown(SOON)).unwrap();
    let closed = lock.acquire_blocking().unwrap_err();
    assert!(matches!(closed, Error::Closed { .. }), "{closed}");
    assert_eq!(place.contents(), before);
}

/// 33: A length can't be negative, nor no number.
pub(crate) fn waits_of_extreme_lengths_are_taken_as_they_are_meant(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let locker = place.locker();
    let lock = locker.lock("app").ttl(LONG);
    assert_busy(
        lock.clone()
            .wait(Duration::from_nanos(1))
            .acquire_blocking(),
    );
    let endless = [
        Duration::MAX,
        Duration::from_millis(u64::MAX),
        Duration::from_secs(i32::MAX.unsigned_abs().into()),
    ];
    let mut waiting = Vec::new();
    for (count, length) in (1..).zip(endless) {
        let lock = lock.clone().wait(length);
        waiting.push(thread::spawn(move || {
            lock.acquire_blocking().unwrap().release_blocking()
        }));
        until_waiting(&lock_of(place), count);
    }
    guard.release_blocking().unwrap();
    for waited in waiting {
        waited.join().unwrap().unwrap();
    }
}

fn lock_of(place: &dyn Place) -> Lock {
    place.locker().lock("app")
}

/// 35
pub(crate) fn a_store_that_hangs_for_a_while_does_not_end_a_wait(place: &dyn Place) {
    let holder = place.impatient();
    let guard = take(&holder.lock("app").ttl(LONG));
    let locker = place.impatient();
    let witness = take(&locker.lock("witness").ttl(LONG));
    let lock = locker.lock("app").ttl(LONG).wait(SOON * 2);
    let waiting = thread::spawn({
        let lock = lock.clone();
        move || lock.acquire_blocking().unwrap()
    });
    until_waiting(&lock, 1);
    let stalled = place.stall();
    // Some questions of its locker go unanswered.
    for _ in 0..3 {
        given_up(&witness);
    }
    assert!(!waiting.is_finished());
    drop(stalled);
    answered(|| guard.verify_blocking());
    guard.release_blocking().unwrap();
    assert!(waiting.join().unwrap().is_held());
}

/// 35
pub(crate) fn a_wait_at_a_store_that_hangs_lasts_to_its_end_and_reports_why(place: &dyn Place) {
    let locker = place.impatient();
    take(&locker.lock("app").ttl(LONG))
        .release_blocking()
        .unwrap();
    let wait = Duration::from_secs(1);
    let stalled = place.stall();
    let begun = Instant::now();
    let outcome = locker.lock("app").ttl(LONG).wait(wait).acquire_blocking();
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    // A question that is not answered does not end it.
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    drop(stalled);
    take_soon(&lock_of(place).ttl(LONG))
        .release_blocking()
        .unwrap();
}

/// 36
pub(crate) fn a_wait_of_nothing_is_one_try(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG).wait(Duration::ZERO);
    let guard = answered(|| lock.acquire_blocking());
    assert_busy(lock_of(place).wait(Duration::ZERO).acquire_blocking());
    assert_eq!(waiters(&lock), 0);
    guard.release_blocking().unwrap();
    assert!(is_free(&lock));
}

/// 37
pub(crate) fn many_waiters_all_get_busy_when_their_time_is_over(place: &dyn Place) {
    const MANY: usize = 30;
    let _guard = take(&place.locker().lock("app").ttl(LONG));
    let (locker, clock) = place.frozen();
    let length = Duration::from_secs(5);
    bounded("all get their answer", async {
        let mut all = JoinSet::new();
        for _ in 0..MANY {
            let lock = locker.lock("app").wait(length);
            all.spawn(async move { lock.acquire().await });
        }
        // They have asked once they have been polled.
        tokio::task::yield_now().await;
        until_waiting(&lock_of(place), MANY as u64);
        clock.advance(length);
        // No more time passes: not one of them waits for another.
        while let Some(outcome) = all.join_next().await {
            assert_busy(outcome.unwrap());
        }
    });
}

//! 2.6: releasing, and whose lock it is.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use applock::{AppLocker, Ending, Error, LockGuard};

use crate::asking::{
    bounded, force_release, is_busy, is_free, polled, runtime, same_holding, take, take_soon,
    until_lost, verified,
};
use crate::store::{LONG, Place, RedisPlace, SHORT, SOON};
use crate::support::wait;

/// A holder whose lease has ended, and the one that came after it.
fn overtaken(place: &dyn Place) -> (LockGuard, LockGuard, AppLocker) {
    let (frozen, _clock) = place.frozen();
    let old = take(&frozen.lock("app").ttl(SHORT));
    let locker = place.locker();
    let new = take_soon(&locker.lock("app").ttl(LONG));
    (old, new, locker)
}

/// 68, 71, 72
pub(crate) fn a_release_after_the_end_says_so_and_leaves_the_next_holder_alone(place: &dyn Place) {
    let (old, new, locker) = overtaken(place);
    let answer = old.release_blocking();
    assert!(matches!(answer, Err(Error::NotHeld { .. })), "{answer:?}");
    assert!(verified(&new));
    let shown = locker.lock("app").info_blocking().unwrap().unwrap();
    assert!(same_holding(&shown, &new.info()));
    new.release_blocking().unwrap();
}

/// 71
pub(crate) fn a_release_after_the_end_frees_nothing_where_no_caller_came(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(SHORT);
    let guard = take(&lock);
    wait::until("the lease has run out", SOON, || is_free(&lock));
    let answer = guard.release_blocking();
    assert!(matches!(answer, Err(Error::NotHeld { .. })), "{answer:?}");
    let last = lock.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Expired);
}

/// 68, 72
pub(crate) fn dropping_a_guard_whose_lease_has_ended_leaves_the_next_holder_alone(
    place: &dyn Place,
) {
    let (old, new, _locker) = overtaken(place);
    let stale = place.locker().lock("app");
    drop(old);
    for _ in 0..10 {
        assert!(verified(&new));
        assert!(is_busy(&stale));
    }
}

/// 69
pub(crate) fn there_is_nothing_to_release_of_a_lock_that_was_never_taken(place: &dyn Place) {
    // A guard comes from an acquisition only; what can be asked without one says no.
    let lock = place.locker().lock("app");
    assert!(!lock.force_release_blocking().unwrap());
    assert!(!lock.force_release_if_stale_blocking(SHORT).unwrap());
    assert!(lock.last_holding_blocking().unwrap().is_none());
    assert!(is_free(&lock));
}

/// 70
pub(crate) fn a_second_release_never_frees_the_successors_lock(place: &dyn Place) {
    let first = place.locker();
    let old = take(&first.lock("app").ttl(LONG));
    // Released once already, over its guard's head, at half of that time. (Whether the
    // answer came in the other half is not the point.)
    let _ = first.shutdown_blocking(Duration::from_millis(200));
    let new = take_soon(&place.locker().lock("app").ttl(LONG));
    let answer = old.release_blocking();
    assert!(
        matches!(answer, Err(Error::Lost { .. } | Error::NotHeld { .. })),
        "{answer:?}"
    );
    assert!(verified(&new));
    assert!(is_busy(&place.locker().lock("app")));
}

/// 73
pub(crate) fn a_release_that_fails_is_reported_and_goes_on_in_the_background(place: &dyn Place) {
    let guard = take(&place.impatient().lock("app").ttl(LONG));
    let other = place.locker().lock("app");
    let stalled = place.stall();
    let asked = Instant::now();
    let answer = guard.release_blocking();
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(10));
    drop(stalled);
    // Long before the ttl.
    take_soon(&other).release_blocking().unwrap();
}

/// 74
pub(crate) fn a_release_touches_no_other_name(place: &dyn Place) {
    let locker = place.locker();
    let mine = take(&locker.lock("app").name("a").ttl(LONG));
    let other = take(&locker.lock("app").name("b").ttl(LONG));
    let whole = take(&place.locker().lock("app").ttl(LONG));
    other.release_blocking().unwrap();
    whole.release_blocking().unwrap();
    assert!(verified(&mine));
    assert!(is_busy(&place.locker().lock("app").name("a")));
}

/// 77
pub(crate) fn each_guard_knows_for_itself_whether_it_holds(place: &dyn Place) {
    let (old, new, _locker) = overtaken(place);
    assert!(!verified(&old));
    assert!(!old.is_held() && new.is_held());
    assert!(old.ensure_held().is_err() && new.ensure_held().is_ok());
    assert!(verified(&new));
}

/// 78: The other stores have no wire whose decoding could matter.
#[test]
fn the_version_of_the_wire_protocol_does_not_matter() {
    let place = RedisPlace::fresh();
    let url = format!("{}/?protocol=resp3", place.url());
    let three = place.builder().store(url).build().unwrap();
    let two = place.locker();
    for (ours, theirs) in [(&two, &three), (&three, &two)] {
        let guard = take(&ours.lock("app").ttl(LONG));
        assert!(verified(&guard));
        assert!(is_busy(&theirs.lock("app")));
        let shown = theirs.lock("app").info_blocking().unwrap().unwrap();
        assert!(same_holding(&shown, &guard.info()));
        assert_eq!(shown.acquired_at(), guard.info().acquired_at());
        guard.release_blocking().unwrap();
        let last = theirs.lock("app").last_holding_blocking().unwrap().unwrap();
        assert_eq!(last.ending, Ending::Released);
    }
}

/// 79
pub(crate) fn a_release_lets_in_one_waiter_and_no_second(place: &dyn Place) {
    const WAITERS: usize = 8;
    let inside = AtomicUsize::new(0);
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let watch = place.locker().lock("app");
    thread::scope(|scope| {
        let mut ends = Vec::new();
        for _ in 0..WAITERS {
            let lock = place.locker().lock("app").ttl(LONG).wait(SOON);
            let (end, ended) = std::sync::mpsc::channel::<()>();
            ends.push(end);
            let inside = &inside;
            scope.spawn(move || {
                let guard = lock.acquire_blocking().unwrap();
                inside.fetch_add(1, Ordering::SeqCst);
                // Until the test lets it go.
                let _ = ended.recv();
                inside.fetch_sub(1, Ordering::SeqCst);
                guard.release_blocking().unwrap();
            });
        }
        guard.release_blocking().unwrap();
        wait::until("one is inside", SOON, || inside.load(Ordering::SeqCst) > 0);
        for _ in 0..50 {
            assert!(is_busy(&watch));
            assert_eq!(inside.load(Ordering::SeqCst), 1);
        }
        drop(ends);
    });
    assert!(is_free(&watch));
}

/// 80
pub(crate) fn dropping_a_guard_does_not_wait_for_the_store(place: &dyn Place) {
    const GUARDS: u64 = 20;
    let locker = place.locker();
    let lock = |number: u64| locker.lock("app").name(number.to_string()).ttl(LONG);
    let guards: Vec<_> = (0..GUARDS).map(|number| take(&lock(number))).collect();
    let stalled = place.stall();
    let start = Instant::now();
    for guard in guards {
        drop(guard);
    }
    // To wait would take a command's whole second for each.
    assert!(start.elapsed() < Duration::from_secs(GUARDS / 2));
    drop(stalled);
    for number in 0..GUARDS {
        wait::until("it is released", SOON, || is_free(&lock(number)));
    }
}

/// 80
pub(crate) fn a_release_tells_what_the_store_said(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    take(&lock).release_blocking().unwrap();
    bounded("async, too", async {
        let guard = lock.acquire().await.unwrap();
        guard.release().await.unwrap();
    });
    let guard = take(&lock);
    force_release(&place.locker().lock("app"));
    let answer = guard.release_blocking();
    assert!(
        matches!(answer, Err(Error::NotHeld { .. } | Error::Lost { .. })),
        "{answer:?}"
    );
}

/// 81
pub(crate) fn a_release_while_a_heartbeat_hangs_ends_and_frees_the_lock(place: &dyn Place) {
    let guard = take(&place.impatient().lock("app").ttl(LONG));
    let other = place.locker().lock("app");
    let stalled = place.stall();
    runtime().block_on(async {
        let mut beat = pin!(guard.verify());
        let asked = polled(beat.as_mut()).await;
        assert!(asked.is_pending());
    });
    let answer = bounded("the release ends", guard.release());
    assert!(
        matches!(answer, Ok(()) | Err(Error::Unavailable(_))),
        "{answer:?}"
    );
    drop(stalled);
    take_soon(&other).release_blocking().unwrap();
}

/// 82
pub(crate) fn a_release_of_a_lost_lock_says_lost(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    force_release(&place.locker().lock("app"));
    assert!(!verified(&guard));
    until_lost(&guard);
    let answer = guard.release_blocking();
    assert!(matches!(answer, Err(Error::Lost { .. })), "{answer:?}");
    assert!(is_free(&place.locker().lock("app")));
}

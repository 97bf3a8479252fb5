//! 2.2: trying, without waiting.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use applock::Error;

use crate::asking::{End, is_busy, is_free, same_holding, take};
use crate::store::{KEPT, LONG, Place, RedisPlace, SOON};
use crate::support::wait;

/// 21
pub(crate) fn a_try_takes_a_free_lock_and_reports_a_held_one_as_busy_whatever_wait_says(
    place: &dyn Place,
) {
    let (ours, other) = (place.locker().lock("app"), place.locker().lock("app"));
    let guard = take(&ours.clone().wait(LONG));
    // A try that waited would never come back: the holder does not release.
    assert!(is_busy(&other.clone().wait(LONG)));
    assert!(is_busy(&other.wait_forever()));
    guard.release_blocking().unwrap();
}

/// 21, for the one store where a round trip can be counted.
#[test]
fn a_try_of_a_held_lock_is_one_round_trip() {
    let place = RedisPlace::fragile();
    let (frozen, _clock) = place.frozen();
    let other = place.locker().lock("app");
    let _guard = take(&frozen.lock("app").ttl(LONG));
    assert!(is_busy(&other));
    let before = place.scripts_run();
    for _ in 0..10 {
        assert!(is_busy(&other));
    }
    assert_eq!(place.scripts_run() - before, 10);
}

/// 22
pub(crate) fn of_many_callers_that_try_at_once_one_wins_and_the_others_get_busy(place: &dyn Place) {
    const RIVALS: usize = 16;
    let barrier = Barrier::new(RIVALS);
    let results: Vec<_> = thread::scope(|scope| {
        let rivals: Vec<_> = (0..RIVALS)
            .map(|_| {
                let lock = place.locker().lock("app").ttl(LONG);
                let barrier = &barrier;
                scope.spawn(move || {
                    // On a busy machine it may take a while, and the others must not wait in vain.
                    wait::until("the caller is connected", LONG, || {
                        lock.info_blocking().is_ok()
                    });
                    barrier.wait();
                    lock.try_acquire_blocking()
                })
            })
            .collect();
        rivals
            .into_iter()
            .map(|rival| rival.join().unwrap())
            .collect()
    });
    let won = results.iter().flatten().flatten().count();
    let busy = results.iter().flatten().filter(|won| won.is_none()).count();
    assert_eq!((won, busy), (1, RIVALS - 1), "{results:?}");
}

/// 23
pub(crate) fn a_failed_try_leaves_nothing_behind(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let _guard = take(&frozen.lock("app").ttl(LONG));
    let before = place.contents();
    for _ in 0..5 {
        assert!(is_busy(&place.locker().lock("app").ttl(KEPT)));
    }
    assert_eq!(place.contents(), before);
}

/// 23
pub(crate) fn after_failed_tries_the_lock_is_free_as_soon_as_its_holder_lets_go(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let other = place.locker().lock("app");
    for _ in 0..5 {
        assert!(is_busy(&other));
    }
    guard.release_blocking().unwrap();
    assert!(is_free(&other));
    // Nothing that the tries left behind takes it either.
    take(&other).release_blocking().unwrap();
}

/// 24
pub(crate) fn a_try_of_a_busy_lock_neither_extends_nor_shortens_its_lease(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(LONG);
    let _guard = take(&lock);
    let end = End::of(&lock);
    for ttl in [KEPT, LONG * 10] {
        let other = place.locker().lock("app").ttl(ttl);
        for _ in 0..10 {
            assert!(is_busy(&other));
        }
        assert!(End::of(&lock).may_be(end));
    }
}

/// 25
pub(crate) fn busy_names_the_holder_and_the_time_that_its_lease_has_left(place: &dyn Place) {
    let locker = place.builder().instance("the-holder").build().unwrap();
    let guard = take(&locker.lock("app").ttl(LONG));
    let error = place.locker().lock("app").acquire_blocking().unwrap_err();
    let holder = error.holder().expect("busy");
    assert!(same_holding(holder, &guard.info()));
    assert_eq!(holder.instance_id(), "the-holder");
    assert_eq!(holder.pid(), Some(std::process::id()));
    let left = holder.remaining().unwrap();
    assert!(left <= LONG && left > LONG - SOON, "{left:?}");
    assert!(holder.heartbeat_age().unwrap() < SOON);
    assert!(holder.held_for().unwrap() < SOON);
    let Error::Busy(_) = &error else {
        panic!("{error}");
    };
    let text = error.to_string();
    for part in ["app", "the-holder", "lease ends in"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(left > Duration::ZERO);
}

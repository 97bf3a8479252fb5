//! 2.7: releasing what another holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use applock::{Ending, Error, Loss};

use crate::asking::{
    bounded, force_release, is_busy, is_free, same_holding, take, take_soon, until_lost, verified,
};
use crate::store::{KEPT, LONG, Place, SHORT, SOON};
use crate::support::wait;

/// 83
pub(crate) fn force_release_frees_the_lock_of_any_holder(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let guard = take(&frozen.lock("app").ttl(LONG));
    let operator = place.locker().lock("app");
    force_release(&operator);
    assert!(is_free(&operator));
    let last = operator.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Forced);
    assert_eq!(last.fencing_token, guard.fencing_token());
    assert!(!operator.force_release_blocking().unwrap());
}

/// 83
pub(crate) fn force_release_lets_a_waiter_in(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let waiter = place.locker().lock("app").ttl(LONG).wait(SOON);
    let waiting = thread::spawn(move || waiter.acquire_blocking().unwrap());
    force_release(&place.locker().lock("app"));
    let next = waiting.join().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
}

/// 83
pub(crate) fn only_a_lock_whose_heart_has_stopped_is_stale(place: &dyn Place) {
    let operator = place.locker().lock("app");
    let guard = take(&place.locker().lock("app").ttl(LONG));
    for _ in 0..5 {
        assert!(verified(&guard));
        let stale = operator.force_release_if_stale_blocking(SOON);
        assert!(!stale.unwrap(), "its heart beats");
    }
    assert!(verified(&guard));
    guard.release_blocking().unwrap();

    let (frozen, _clock) = place.frozen();
    // Half of the ttl is the least: a heart beats each third of it.
    let silent = take(&frozen.lock("app").ttl(KEPT * 2));
    assert!(!operator.force_release_if_stale_blocking(SOON).unwrap());
    wait::until("it has been silent for long enough", SOON, || {
        operator.force_release_if_stale_blocking(SHORT).unwrap()
    });
    assert!(is_free(&operator));
    let last = operator.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Forced);
    let held = last.until.unwrap().duration_since(last.from).unwrap();
    assert!(held + Duration::from_millis(3) >= KEPT, "{held:?}");
    drop(silent);
}

/// 84
pub(crate) fn the_evicted_holder_learns_of_it_by_its_next_heartbeat(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(KEPT));
    force_release(&place.locker().lock("app"));
    until_lost(&guard);
    // By the answer 'not yours', not by the lease's end.
    assert!(matches!(
        guard.ensure_held(),
        Err(Error::Lost {
            reason: Loss::Taken,
            ..
        })
    ));
}

/// 84
pub(crate) fn a_holder_of_the_same_locker_learns_of_it_at_once(place: &dyn Place) {
    let locker = place.locker();
    let guard = take(&locker.lock("app").ttl(LONG));
    force_release(&locker.lock("app"));
    // Its next heartbeat would be forty seconds away.
    until_lost(&guard);
}

/// 85
pub(crate) fn the_evicted_holders_release_frees_nothing_of_the_next(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let old = take(&frozen.lock("app").ttl(LONG));
    let locker = place.locker();
    force_release(&locker.lock("app"));
    let new = take(&locker.lock("app").ttl(LONG));
    let answer = old.release_blocking();
    assert!(matches!(answer, Err(Error::NotHeld { .. })), "{answer:?}");
    assert!(verified(&new));
    assert!(is_busy(&place.locker().lock("app")));
}

/// 86
pub(crate) fn a_takeover_by_force_gives_the_lock_to_the_new_and_cancels_the_old(place: &dyn Place) {
    struct Ended<'a>(&'a AtomicBool);
    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let ended = AtomicBool::new(false);
    let lock = place.locker().lock("app").ttl(KEPT);
    let other = place.locker().lock("app").ttl(LONG);
    let (new, old) = bounded("the old body is cancelled", async {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let body = async {
            let _ended = Ended(&ended);
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        };
        let takeover = async {
            begins.await.unwrap();
            assert!(other.force_release().await.unwrap());
            other.try_acquire().await.unwrap().expect("it is free")
        };
        tokio::join!(takeover, lock.run(body))
    });
    assert!(matches!(old, Err(Error::Lost { .. })), "{old:?}");
    assert!(ended.load(Ordering::SeqCst));
    assert!(verified(&new));
    let shown = other.info_blocking().unwrap().unwrap();
    assert!(same_holding(&shown, &new.info()));
}

/// 86
pub(crate) fn a_lock_that_was_forced_is_taken_anew_with_a_larger_token(place: &dyn Place) {
    let mut before = 0;
    for _ in 0..5 {
        let (frozen, _clock) = place.frozen();
        let guard = take_soon(&frozen.lock("app").ttl(LONG));
        assert!(guard.fencing_token() > before);
        before = guard.fencing_token();
        force_release(&place.locker().lock("app"));
    }
}

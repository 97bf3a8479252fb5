//! 2.14: who holds it, and what callers learn of that.

use std::time::{Duration, Instant};

use applock::{Ending, Error};

use crate::asking::{
    bounded, force_release, is_busy, is_free, same_holding, take, take_soon, until_lost, verified,
};
use crate::store::{KEPT, LONG, Place, SOON};

/// 164
pub(crate) fn every_caller_sees_that_it_is_held_and_only_the_owner_holds_it(place: &dyn Place) {
    let (ours, other) = (place.locker(), place.locker());
    let guard = take(&ours.lock("app").ttl(LONG));
    for locker in [&ours, &other, &place.locker()] {
        let shown = locker.lock("app").info_blocking().unwrap().expect("held");
        assert!(same_holding(&shown, &guard.info()));
        assert!(is_busy(&locker.lock("app")));
    }
    assert!(guard.is_held() && verified(&guard));
    // Not even code of the same locker owns it by asking.
    let rival = ours.lock("app").try_acquire_blocking().unwrap();
    assert!(rival.is_none());
    assert!(applock::current().is_none());
}

/// 165
pub(crate) fn a_free_lock_has_no_holder_and_no_time_left(place: &dyn Place) {
    let lock = place.locker().lock("app");
    assert!(lock.info_blocking().unwrap().is_none());
    assert!(lock.last_holding_blocking().unwrap().is_none());
    let guard = take(&lock);
    // Every lock of ours has an end.
    let shown = lock.info_blocking().unwrap().unwrap();
    assert!(shown.remaining().unwrap() > Duration::ZERO);
    guard.release_blocking().unwrap();
    assert!(lock.info_blocking().unwrap().is_none());
}

/// 165
pub(crate) fn the_age_of_the_last_heartbeat_is_reported_and_a_heartbeat_resets_it(
    place: &dyn Place,
) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(LONG);
    let guard = take(&lock);
    let age = || {
        let shown = lock.info_blocking().unwrap().unwrap();
        shown.heartbeat_age().unwrap()
    };
    crate::support::wait::until("its heart was silent for a while", SOON, || {
        age() > Duration::from_millis(100)
    });
    let asked = Instant::now();
    assert!(verified(&guard));
    let rounding = Duration::from_millis(3);
    assert!(age() <= asked.elapsed() + rounding);
}

/// 167
pub(crate) fn an_observer_that_cannot_see_gets_an_error_and_never_free(place: &dyn Place) {
    let _guard = take(&place.locker().lock("app").ttl(LONG));
    let locker = place.locker();
    assert!(locker.lock("app").info_blocking().unwrap().is_some());
    place.ruin();
    for locker in [locker, place.locker()] {
        let lock = locker.lock("app");
        for error in [
            lock.info_blocking().unwrap_err(),
            lock.last_holding_blocking().unwrap_err(),
            lock.force_release_blocking().unwrap_err(),
            lock.force_release_if_stale_blocking(SOON).unwrap_err(),
        ] {
            assert!(
                matches!(error, Error::Unavailable(_) | Error::Misconfigured(_)),
                "{error:?}"
            );
        }
    }
}

/// 169
pub(crate) fn every_error_names_its_lock(place: &dyn Place) {
    let locker = place.locker();
    let guard = take(&locker.lock("the-app").name("the-name").ttl(LONG));
    let lock = place.locker().lock("the-app").name("the-name");
    let busy = lock.acquire_blocking().unwrap_err();
    force_release(&lock);
    assert!(!verified(&guard));
    let lost = guard.ensure_held().unwrap_err();
    let on_release = guard.release_blocking().unwrap_err();
    let (frozen, _clock) = place.frozen();
    let guard = take(&frozen.lock("the-app").name("the-name").ttl(LONG));
    force_release(&lock);
    let not_held = guard.release_blocking().unwrap_err();
    assert!(matches!(not_held, Error::NotHeld { .. }), "{not_held:?}");
    locker.shutdown_blocking(SOON).unwrap();
    let closed = locker.lock("the-app").name("the-name");
    let closed = closed.acquire_blocking().unwrap_err();
    for error in [busy, lost, on_release, not_held, closed] {
        let text = error.to_string();
        assert!(text.contains("the-app:the-name"), "{text}");
    }
}

/// 169
pub(crate) fn a_store_that_is_gone_is_named_with_the_lock(place: &dyn Place) {
    let lock = place.locker().lock("the-app").name("the-name");
    place.ruin();
    let text = lock.acquire_blocking().unwrap_err().to_string();
    assert!(text.contains("the-app:the-name"), "{text}");
    assert!(text.contains(&place.url()), "{text}");
}

/// 170: healthy means held by the lease; 64 has the clock that stands still.
pub(crate) fn a_holder_that_was_evicted_does_not_claim_to_hold(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(KEPT));
    assert!(guard.ensure_held().is_ok());
    force_release(&place.locker().lock("app"));
    let _next = take_soon(&place.locker().lock("app").ttl(LONG));
    until_lost(&guard);
    assert!(guard.ensure_held().is_err());
    assert!(!verified(&guard));
}

/// 171
pub(crate) fn code_can_tell_whether_it_runs_under_the_lock(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    assert!(applock::current().is_none());
    let inside = bounded(
        "it ran",
        lock.run(async {
            tokio::task::yield_now().await;
            applock::current().map(|guard| (guard.is_held(), guard.info().key().to_owned()))
        }),
    );
    let (held, key) = inside.unwrap().expect("under the lock");
    assert!(held && key.ends_with("app"));
    assert!(applock::current().is_none());
    let inside = lock.run_blocking(|| applock::current().is_some_and(|guard| guard.is_held()));
    assert!(inside.unwrap());
    assert!(applock::current().is_none());
}

/// 172
pub(crate) fn the_last_holder_and_how_it_ended_can_be_read(place: &dyn Place) {
    let locker = place.builder().instance("the-last").build().unwrap();
    let other = place.locker().lock("app");
    let guard = take(&locker.lock("app").ttl(LONG));
    let during = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!(during.ending, Ending::Held);
    assert_eq!(during.until, None);
    let token = guard.fencing_token();
    guard.release_blocking().unwrap();
    let after = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!(after.ending, Ending::Released);
    assert_eq!(after.fencing_token, token);
    assert_eq!(after.instance_id, "the-last");
    assert_eq!(after.pid, Some(std::process::id()));
    assert_eq!(after.from, during.from);
    assert!(after.until.unwrap() >= after.from);
    assert!(is_free(&other));
    // Transitions show in the token, which grows with each.
    let next = take(&other);
    assert!(next.fencing_token() > token);
}

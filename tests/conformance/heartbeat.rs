//! 2.4: the heartbeat, which keeps a lease, and what ends it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use applock::{Ending, Error, LockGuard, Loss};

use crate::asking::{
    End, bounded, force_release, is_busy, is_free, its_heart_beats, polled, runtime, same_holding,
    take, take_soon, until_lost, verified,
};
use crate::store::{KEPT, LONG, Place, SHORT, SOON};
use crate::support::wait;

#[track_caller]
fn assert_lost(guard: &LockGuard, expected: Loss) {
    match guard.ensure_held() {
        Err(Error::Lost { reason, .. }) => assert_eq!(reason, expected),
        other => panic!("{other:?}"),
    }
}

/// When the last heartbeat was sent that was answered; or a little earlier.
fn last_beat(guard: &LockGuard) -> Instant {
    let now = Instant::now();
    now - guard.info().heartbeat_age().unwrap()
}

/// 38
pub(crate) fn a_heartbeat_moves_the_leases_end(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(LONG);
    let guard = take(&lock);
    let before = End::of(&lock);
    // Time must pass at the store for its end to move.
    wait::until("the lease has run for a while", SOON, || {
        Instant::now() + LONG > before.latest + Duration::from_millis(50)
    });
    assert!(End::of(&lock).may_be(before), "it moves by itself");
    assert!(verified(&guard));
    wait::until("it is seen to have moved", SOON, || {
        before.is_before(End::of(&lock))
    });
}

/// 38, 46
pub(crate) fn a_lock_outlives_its_ttl_many_times_while_its_heart_beats(place: &dyn Place) {
    let timeless = place.timeless();
    let place = timeless.as_ref().map_or(place, |(place, _)| &**place);
    let guard = take(&place.locker().lock("app").ttl(KEPT));
    let other = place.locker().lock("app");
    wait::until("it is held for longer than three ttls", SOON, || {
        let held_for = guard.held_for();
        assert!(is_busy(&other), "after {held_for:?}");
        assert!(guard.is_held(), "after {held_for:?}");
        if let Some((_, clock)) = &timeless
            && guard.info().heartbeat_age().unwrap() < KEPT / 2
        {
            clock.advance(KEPT / 10);
        }
        held_for > KEPT * 3
    });
    guard.release_blocking().unwrap();
}

/// 39
pub(crate) fn many_heartbeats_in_a_row_all_keep_it(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    for _ in 0..50 {
        assert!(verified(&guard));
    }
    assert!(guard.is_held());
    guard.release_blocking().unwrap();
}

/// 40, 43
pub(crate) fn a_heartbeat_for_another_owners_lock_fails_and_changes_nothing(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let old = take(&frozen.lock("app").ttl(SHORT));
    let (other, _clock) = place.frozen();
    let lock = other.lock("app").ttl(LONG);
    let new = take_soon(&lock);
    let (before, end) = (lock.info_blocking().unwrap().unwrap(), End::of(&lock));
    assert!(!verified(&old));
    assert!(!old.is_held());
    let after = lock.info_blocking().unwrap().unwrap();
    assert!(same_holding(&after, &before) && same_holding(&after, &new.info()));
    assert!(End::of(&lock).may_be(end));
    assert!(verified(&new));
}

/// 41
pub(crate) fn a_heartbeat_after_the_release_fails(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let kept = Mutex::new(None);
    // The only way to a guard after its release: a handle of the body's own.
    let body = async { *kept.lock().unwrap() = applock::current() };
    bounded("it ran", lock.run(body)).unwrap();
    let kept: Arc<LockGuard> = kept.into_inner().unwrap().unwrap();
    assert!(!kept.is_held());
    assert!(!verified(&kept));
    assert!(matches!(kept.ensure_held(), Err(Error::NotHeld { .. })));
    assert!(is_free(&lock));
}

/// 42
pub(crate) fn a_heartbeat_after_the_end_fails_and_does_not_take_the_lock_again(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(SHORT);
    let guard = take(&lock);
    wait::until("the lease has run out", SOON, || is_free(&lock));
    assert!(!verified(&guard));
    assert!(!guard.is_held());
    assert_lost(&guard, Loss::Taken);
    assert!(is_free(&lock));
    let last = lock.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Expired);
}

/// 44
pub(crate) fn a_heartbeat_never_shortens_a_lease(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(LONG);
    let guard = take(&lock);
    let mut before = End::of(&lock);
    for _ in 0..10 {
        assert!(verified(&guard));
        let after = End::of(&lock);
        assert!(!after.is_before(before));
        before = after;
    }
}

/// 44
pub(crate) fn a_ttl_of_nothing_is_refused_before_it_reaches_the_store(place: &dyn Place) {
    let lock = place.locker().lock("app");
    let guard = take(&lock.clone().ttl(LONG));
    for attempt in [
        lock.clone().ttl(Duration::ZERO).acquire_blocking(),
        lock.clone().at_most(Duration::ZERO).acquire_blocking(),
    ] {
        assert!(matches!(attempt, Err(Error::Invalid(_))), "{attempt:?}");
    }
    assert!(verified(&guard));
}

/// 47
pub(crate) fn the_heartbeat_stops_at_release_drop_panic_and_cancellation(place: &dyn Place) {
    let other = place.locker().lock("app");
    // The ttl frees nothing in the time of this test: what is free was released.
    let lock = place.locker().lock("app").ttl(LONG);
    let ways: [(&str, &dyn Fn()); 5] = [
        ("release", &|| take(&lock).release_blocking().unwrap()),
        ("drop", &|| drop(take(&lock))),
        ("panic of a holder", &|| {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _guard = take(&lock);
                panic!("expected by this test");
            }));
        }),
        ("panic of a body", &|| {
            let body = async { panic!("expected by this test") };
            let run = || bounded("it panics", lock.run(body));
            let _ = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        }),
        ("cancellation", &|| {
            runtime().block_on(async {
                let (begun, begins) = tokio::sync::oneshot::channel();
                let body = async {
                    let _ = begun.send(());
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    _ = lock.run(body) => panic!("it never ends"),
                    begun = begins => begun.unwrap(),
                }
            });
        }),
    ];
    for (way, end) in ways {
        end();
        wait::until(way, SOON, || is_free(&other));
        // No late heartbeat takes it again, or bothers the next holder.
        let next = take_soon(&other);
        assert!(verified(&next), "after {way}");
        next.release_blocking().unwrap();
    }
}

/// 48, 95
pub(crate) fn a_cancelled_acquire_leaves_no_lock_and_no_heartbeat(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let other = place.locker().lock("app").ttl(LONG);
    runtime().block_on(async {
        for polls in 0..40_u32 {
            let mut taking = pin!(lock.acquire());
            // Dropped before its first poll, right after it, or a little later.
            for _ in 0..polls % 4 {
                let ready = polled(taking.as_mut()).await;
                if ready.is_ready() {
                    break;
                }
                thread::sleep(Duration::from_micros(u64::from(polls) * 20));
            }
        }
    });
    // Far earlier than the ttl.
    let guard = take_soon(&other);
    assert!(verified(&guard));
    guard.release_blocking().unwrap();
    // A grant that its caller has given up may come in between; it stays nowhere.
    wait::until("all that was granted is undone", SOON, || is_free(&other));
}

/// 49: 100 rounds of the line's 10 000, each with a heartbeat certainly on its way.
pub(crate) fn a_release_that_races_a_heartbeat_leaves_no_lock(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    runtime().block_on(async {
        for round in 0..100 {
            let guard = lock.acquire().await.unwrap();
            {
                let mut beat = pin!(guard.verify());
                let asked = polled(beat.as_mut()).await;
                assert!(asked.is_pending() || matches!(asked, Poll::Ready(Ok(true))));
            }
            guard.release().await.unwrap();
            let shown = lock.info().await.unwrap();
            assert!(shown.is_none(), "round {round}: {shown:?}");
        }
    });
}

/// 50
pub(crate) fn a_store_that_comes_back_within_the_lease_costs_no_holder_the_lock(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    assert!(verified(&guard));
    let stalled = place.stall();
    // The retries after it leave at once, perhaps before this thread goes on; its own late
    // answer counts for nothing.
    let asked = Instant::now();
    let failed = guard.verify_blocking();
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    assert!(guard.is_held());
    drop(stalled);
    // By itself, and not only when the next one is due: at a third of the ttl.
    wait::until("a heartbeat is tried and answered again", SOON, || {
        last_beat(&guard) > asked
    });
    assert!(guard.is_held());
    assert!(verified(&guard));
    guard.release_blocking().unwrap();
}

/// 51
pub(crate) fn after_a_loss_the_same_name_is_taken_again_and_its_heart_beats(place: &dyn Place) {
    let locker = place.locker();
    let lock = locker.lock("app").ttl(KEPT);
    let first = take(&lock);
    force_release(&place.locker().lock("app"));
    until_lost(&first);
    let second = take(&lock);
    its_heart_beats(&lock);
    assert!(second.is_held());
    assert!(!first.is_held());
    assert!(verified(&second));
}

/// 52
pub(crate) fn a_heartbeat_that_is_answered_not_yours_is_a_loss_at_once(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    place.forget(guard.info().key());
    // Two minutes of the lease are left; the answer alone ends it.
    assert!(guard.is_held());
    assert!(!verified(&guard));
    assert_lost(&guard, Loss::Taken);
    until_lost(&guard);
    assert!(!verified(&guard));
}

/// 52
pub(crate) fn a_lock_that_vanished_is_noticed_by_the_next_heartbeat(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(KEPT));
    place.forget(guard.info().key());
    until_lost(&guard);
    // It learned of that by the answer, and not by the lease's end.
    assert_lost(&guard, Loss::Taken);
}

/// 53, 64
pub(crate) fn without_any_answer_the_holder_learns_of_its_loss_before_its_lease_ends(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app").ttl(KEPT);
    let guard = take(&lock);
    let stalled = place.stall();
    let stopped = Instant::now();
    // What was confirmed was sent before the store stopped: no lease can end later.
    let deadline = stopped + KEPT;
    loop {
        let now = Instant::now();
        if !guard.is_held() {
            break;
        }
        assert!(now < deadline, "held without an answer of the store");
        thread::sleep(Duration::from_millis(1));
    }
    // The signal comes by itself, too, with the store hanging still.
    until_lost(&guard);
    assert_lost(&guard, Loss::Expired);
    drop(stalled);
}

/// 54
pub(crate) fn times_that_leave_no_room_for_a_second_heartbeat_are_refused(place: &dyn Place) {
    for timeout in [Duration::from_secs(2), Duration::ZERO, Duration::MAX] {
        let built = place.builder().command_timeout(timeout).build();
        assert!(matches!(built, Err(Error::Invalid(_))), "{timeout:?}");
    }
    let short = place.locker().lock("app").ttl(Duration::from_millis(99));
    assert!(matches!(short.acquire_blocking(), Err(Error::Invalid(_))));
    let short = place.builder().ttl(Duration::from_millis(99)).build();
    assert!(matches!(short, Err(Error::Invalid(_))));
}

/// 55: 200 of the line's 1 000.
pub(crate) fn hundreds_of_locks_of_one_process_are_all_kept(place: &dyn Place) {
    const LOCKS: usize = 200;
    let ttl = KEPT * 2;
    let locker = place.locker();
    let guards: Vec<LockGuard> = bounded("all are taken", async {
        let mut taking = tokio::task::JoinSet::new();
        for number in 0..LOCKS {
            let lock = locker.lock("app").name(number.to_string()).ttl(ttl);
            taking.spawn(async move { lock.acquire().await.unwrap() });
        }
        taking.join_all().await
    });
    let taken = Instant::now();
    wait::until("every heart has beaten", SOON, || {
        guards.iter().all(|guard| last_beat(guard) > taken)
    });
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    assert_eq!(lost, 0);
    let held = (0..LOCKS)
        .filter(|number| !is_free(&locker.lock("app").name(number.to_string())))
        .count();
    assert_eq!(held, LOCKS);
    drop(guards);
}

/// 56
pub(crate) fn an_answer_that_comes_after_the_end_does_not_revive_a_lost_guard(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(KEPT);
    let guard = take(&lock);
    let stalled = place.stall();
    until_lost(&guard);
    drop(stalled);
    // The heartbeats that hung are carried out now; one by one, the guard stays lost.
    let other = place.locker().lock("app").ttl(LONG);
    let next = take_soon(&other);
    for _ in 0..20 {
        assert!(verified(&next));
        assert!(!guard.is_held());
        assert!(!verified(&guard));
        assert_eq!(guard.remaining(), Duration::ZERO);
    }
    let shown = other.info_blocking().unwrap().unwrap();
    assert!(same_holding(&shown, &next.info()));
}

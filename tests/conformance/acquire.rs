//! 2.1: taking a lock.

use std::collections::HashSet;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use applock::clock::{Clock, ManualClock, Moment, Sleep};
use applock::{Ending, Error};
use tokio::task::JoinSet;

use crate::asking::{
    End, bounded, given_up, is_busy, is_free, polled, same_holding, take, take_at_its_end,
    take_soon, verified,
};
use crate::children::{Child, Part};
use crate::store::{KEPT, LONG, Place, RedisPlace, SHORT, SOON};
use crate::support::wait;

/// 1
pub(crate) fn a_fresh_lock_can_be_taken_is_shown_as_held_and_is_free_after_the_release(
    place: &dyn Place,
) {
    let (ours, others) = (place.locker().lock("app"), place.locker().lock("app"));
    assert!(is_free(&ours) && is_free(&others));
    let guard = take(&ours);
    assert!(guard.is_held());
    let shown = others.info_blocking().unwrap().expect("held");
    assert!(same_holding(&shown, &guard.info()));
    guard.release_blocking().unwrap();
    assert!(is_free(&ours) && is_free(&others));
    take(&others).release_blocking().unwrap();
}

/// 2
pub(crate) fn a_second_owner_is_refused_and_leaves_the_holders_state_and_lease_as_they_were(
    place: &dyn Place,
) {
    // Frozen, so that no heartbeat hides what the attempt does.
    let (frozen, _clock) = place.frozen();
    let _guard = take(&frozen.lock("app").ttl(LONG));
    let other = place.locker().lock("app").ttl(SHORT);
    let (before, end) = (other.info_blocking().unwrap().unwrap(), End::of(&other));
    for _ in 0..5 {
        let Err(Error::Busy(holder)) = other.acquire_blocking() else {
            panic!("two have the lock");
        };
        assert_eq!(holder.owner_id(), before.owner_id());
    }
    let after = other.info_blocking().unwrap().unwrap();
    assert_eq!(after.owner_id(), before.owner_id());
    assert_eq!(after.fencing_token(), before.fencing_token());
    assert_eq!(after.acquired_at(), before.acquired_at());
    assert_eq!(after.ttl(), before.ttl());
    assert!(after.heartbeat_age() >= before.heartbeat_age());
    assert!(End::of(&other).may_be(end));
}

/// 3
pub(crate) fn locks_of_different_names_never_block_each_other(place: &dyn Place) {
    let (one, other) = (place.locker(), place.locker());
    let app = take(&one.lock("app"));
    let _app_2 = take(&other.lock("app2"));
    let _name = take(&other.lock("app").name("a"));
    let _name_2 = take(&one.lock("app").name("b"));
    let key = format!("{}-whole", app.info().key());
    let _whole = take(&other.lock("app").key(key));
    assert!(is_busy(&other.lock("app")) && is_busy(&one.lock("app").name("a")));
}

/// 4
pub(crate) fn a_lock_is_taken_and_released_ten_times_in_a_row_with_a_competitor_refused_each_time(
    place: &dyn Place,
) {
    let (ours, rival) = (place.locker().lock("app"), place.locker().lock("app"));
    for _ in 0..10 {
        let guard = take(&ours);
        assert!(is_busy(&rival));
        guard.release_blocking().unwrap();
    }
}

/// 5
pub(crate) fn two_instances_take_turns(place: &dyn Place) {
    let (a, b) = (place.locker().lock("app"), place.locker().lock("app"));
    for _ in 0..3 {
        let held = take(&a);
        assert!(is_busy(&b) && is_busy(&a));
        held.release_blocking().unwrap();
        let held = take(&b);
        assert!(is_busy(&a) && is_busy(&b));
        held.release_blocking().unwrap();
    }
}

/// 6
pub(crate) fn of_a_hundred_callers_at_once_never_two_are_inside_and_all_come_to_an_end(
    place: &dyn Place,
) {
    let inside = Arc::new(AtomicBool::new(false));
    let entered = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..5 {
            let lock = place.locker().lock("app").ttl(LONG).wait(SOON);
            let (inside, entered) = (Arc::clone(&inside), Arc::clone(&entered));
            scope.spawn(move || {
                bounded("twenty were granted the lock", async {
                    let mut twenty = JoinSet::new();
                    for _ in 0..20 {
                        let lock = lock.clone();
                        let (inside, entered) = (Arc::clone(&inside), Arc::clone(&entered));
                        twenty.spawn(async move {
                            let guard = lock.acquire().await.unwrap();
                            assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                            tokio::task::yield_now().await;
                            entered.fetch_add(1, Ordering::SeqCst);
                            inside.store(false, Ordering::SeqCst);
                            guard.release().await.unwrap();
                        });
                    }
                    twenty.join_all().await
                });
            });
        }
    });
    assert_eq!(entered.load(Ordering::SeqCst), 100);
}

/// 7: Half the rounds of the line: a hand-over by polling takes its time.
pub(crate) fn counters_that_are_not_atomic_come_out_right_under_their_locks(place: &dyn Place) {
    const WORKERS: usize = 8;
    const ROUNDS: u64 = 25;
    let counters = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let locker = place.locker();
            let counters = &counters;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let which = (worker + round as usize) % 2;
                    let lock = locker.lock("counter").name(which.to_string());
                    let guard = lock.ttl(LONG).wait(SOON).acquire_blocking().unwrap();
                    // Read and written apart, with time between: two inside lose a count.
                    let read = counters[which].load(Ordering::SeqCst);
                    thread::yield_now();
                    black_box(read);
                    counters[which].store(read + 1, Ordering::SeqCst);
                    guard.release_blocking().unwrap();
                }
            });
        }
    });
    let sum: u64 = counters.iter().map(|one| one.load(Ordering::SeqCst)).sum();
    assert_eq!(sum, WORKERS as u64 * ROUNDS);
}

/// 8: 24 of the 125 processes of the line: two cores have enough to do with them.
pub(crate) fn of_many_processes_released_by_one_barrier_exactly_one_gets_the_lock(
    place: &dyn Place,
) {
    let mut racers: Vec<Child> = (0..24)
        .map(|_| Child::start(place, Part::Race, LONG))
        .collect();
    for racer in &mut racers {
        racer.hears("ready");
    }
    for racer in &mut racers {
        racer.say("go");
    }
    let results: Vec<String> = racers.iter_mut().map(Child::hear).collect();
    let won = results.iter().filter(|result| *result == "won").count();
    let busy = results.iter().filter(|result| *result == "busy").count();
    assert_eq!((won, busy), (1, racers.len() - 1), "{results:?}");
}

/// 9
pub(crate) fn processes_exclude_one_another(place: &dyn Place) {
    let ours = place.locker().lock("app").ttl(LONG);
    let mut child = Child::start(place, Part::Hold, LONG);
    let token: u64 = child.hear().strip_prefix("held ").unwrap().parse().unwrap();
    assert!(is_busy(&ours));
    let shown = ours.info_blocking().unwrap().unwrap();
    assert_eq!(shown.pid(), Some(child.pid()));
    child.say("release");
    child.hears("released");
    let guard = take(&ours);
    assert!(guard.fencing_token() > token);
}

/// 10
pub(crate) fn who_holds_it_is_stored_with_the_lock_and_can_be_read_back(place: &dyn Place) {
    let locker = place.builder().instance("worker-7").build().unwrap();
    let guard = take(&locker.lock("billing").name("tenant 7").ttl(LONG));
    let other = place.locker().lock("billing").name("tenant 7");
    let shown = other.info_blocking().unwrap().expect("held");
    let ours = guard.info();
    assert_eq!(shown.key(), ours.key());
    assert_eq!(shown.application(), Some("billing"));
    assert_eq!(shown.name(), Some("tenant 7"));
    assert_eq!(shown.instance_id(), "worker-7");
    assert_eq!(shown.pid(), Some(std::process::id()));
    assert_eq!(shown.host(), ours.host());
    assert!(!shown.host().is_empty());
    assert!(same_holding(&shown, &ours));
    assert_eq!(shown.fencing_token(), Some(guard.fencing_token()));
    assert_eq!(shown.acquired_at(), ours.acquired_at());
    assert_eq!(shown.ttl(), Some(LONG));
    assert!(!shown.is_foreign());
}

/// 11, the half of it that our interface has: owner ids are made, not given, and are the
/// 122 random bits of a UUID.
pub(crate) fn every_acquisition_has_an_owner_id_of_its_own(place: &dyn Place) {
    let lock = place.locker().lock("app");
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let guard = take(&lock);
        let owner = guard.info().owner_id().to_owned();
        assert!(
            owner.chars().filter(char::is_ascii_hexdigit).count() == 32,
            "{owner}"
        );
        assert!(seen.insert(owner), "an owner id came twice");
        guard.release_blocking().unwrap();
    }
}

/// 12
pub(crate) fn the_lease_in_the_store_is_the_one_that_was_asked_for_to_the_millisecond(
    place: &dyn Place,
) {
    let (frozen, _clock) = place.frozen();
    for ttl in [
        Duration::from_millis(12_345),
        Duration::from_secs_f64(7.5),
        Duration::from_secs(60),
    ] {
        let lock = frozen.lock("app").ttl(ttl);
        let asked = Instant::now();
        let guard = take(&lock);
        let answered = Instant::now();
        let shown = place.locker().lock("app").info_blocking().unwrap().unwrap();
        assert_eq!(shown.ttl(), Some(ttl));
        let end = End::of(&lock);
        let expected = End {
            earliest: asked + ttl,
            latest: answered + ttl,
        };
        assert!(end.may_be(expected), "{end:?} {expected:?}");
        guard.release_blocking().unwrap();
    }
}

/// 13
pub(crate) fn a_lock_that_expired_and_was_never_removed_can_be_taken(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let old = take(&frozen.lock("app").ttl(SHORT));
    let lock = place.locker().lock("app");
    let new = take_soon(&lock);
    assert!(new.fencing_token() > old.fencing_token());
    assert_ne!(new.info().owner_id(), old.info().owner_id());
}

/// A clock by which a whole lease passes between any two readings.
#[derive(Debug)]
struct Racing(ManualClock);

impl Clock for Racing {
    fn now(&self) -> Moment {
        self.0.advance(LONG);
        self.0.now()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        self.0.sleep_until(at)
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }
}

/// 14
pub(crate) fn an_acquire_whose_answer_comes_after_its_lease_has_ended_fails_and_cleans_up(
    place: &dyn Place,
) {
    let builder = place.builder().clock(Racing(ManualClock::new()));
    let lock = builder.build().unwrap().lock("app").ttl(LONG);
    let other = place.locker().lock("app").ttl(LONG);
    for _ in 0..5 {
        let answer = lock.try_acquire_blocking();
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        // The store's clock gives it its whole lease still: free is what was undone.
        take_soon(&other).release_blocking().unwrap();
    }
    let last = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Released);
}

/// 15
pub(crate) fn what_remains_of_a_lease_is_counted_from_before_the_request_less_a_margin(
    place: &dyn Place,
) {
    let (frozen, clock) = place.frozen();
    let ttl = Duration::from_secs(10);
    let before = clock.now();
    let guard = take(&frozen.lock("app").ttl(ttl));
    // 1 % for the drift of clocks, 30 ms for stopping.
    let full = ttl - Duration::from_millis(130);
    assert_eq!(clock.now(), before);
    assert_eq!(guard.remaining(), full);
    clock.advance(Duration::from_secs(2));
    assert_eq!(guard.remaining(), full - Duration::from_secs(2));
    // And never more than what the store has still.
    let asked = Instant::now();
    let (frozen, _clock) = place.frozen();
    let guard = take(&frozen.lock("app2").ttl(ttl));
    let end = End::of(&frozen.lock("app2"));
    assert!(asked + guard.remaining() < end.latest);
}

/// 16
pub(crate) fn a_crashed_holders_lock_can_be_had_once_its_lease_has_ended_and_not_before(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app");
    let mut child = Child::start(place, Part::Hold, KEPT);
    assert!(child.hear().starts_with("held "));
    assert!(is_busy(&lock));
    child.kill();
    drop(take_at_its_end(&lock));
}

/// 17
pub(crate) fn a_store_that_hangs_is_reported_as_unavailable_within_the_command_timeout(
    place: &dyn Place,
) {
    let locker = place.locker();
    take(&locker.lock("app")).release_blocking().unwrap();
    let stalled = place.stall();
    let asked = Instant::now();
    let answer = locker.lock("app").try_acquire_blocking();
    let took = asked.elapsed();
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    // The time-out is one second; the rest is for a machine that does other things too.
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(stalled);
    take_soon(&locker.lock("app")).release_blocking().unwrap();
}

/// 17
pub(crate) fn a_store_that_is_gone_is_an_error_and_never_busy(place: &dyn Place) {
    let locker = place.locker();
    take(&locker.lock("app")).release_blocking().unwrap();
    place.ruin();
    for lock in [locker.lock("app"), place.locker().lock("app")] {
        let asked = Instant::now();
        let answer = lock.try_acquire_blocking();
        assert!(asked.elapsed() < Duration::from_secs(10));
        assert!(
            matches!(answer, Err(Error::Unavailable(_) | Error::Misconfigured(_))),
            "{answer:?}"
        );
        assert!(lock.acquire_blocking().is_err());
    }
}

/// 18
pub(crate) fn garbage_at_the_key_is_reported_and_left_as_it_is(place: &dyn Place) {
    let locker = place.locker();
    let lock = locker.lock("app");
    let guard = take(&lock);
    let key = guard.info().key().to_owned();
    guard.release_blocking().unwrap();
    // A record to spoil must be there in every store.
    let (frozen, _clock) = place.frozen();
    let _held = take(&frozen.lock("app").ttl(LONG));
    place.spoil(&key);
    let before = place.contents();
    assert!(before.contains("garbage"));
    let answer = lock.acquire_blocking();
    match &answer {
        Err(Error::Busy(holder)) => assert!(holder.is_foreign()),
        Err(Error::Misconfigured(fault)) => assert!(!fault.remedy.is_empty()),
        other => panic!("{other:?}"),
    }
    let text = answer.unwrap_err().to_string();
    assert!(text.contains("app"), "{text}");
    assert!(!matches!(lock.try_acquire_blocking(), Ok(Some(_))));
    // To ask who holds it is no reason to panic either, nor to say that it is free.
    match lock.info_blocking() {
        Ok(Some(holder)) => assert!(holder.is_foreign()),
        Ok(None) => panic!("garbage is not 'free'"),
        Err(error) => assert!(matches!(error, Error::Misconfigured(_)), "{error}"),
    }
    assert!(matches!(lock.force_release_blocking(), Ok(false) | Err(_)));
    assert_eq!(place.contents(), before);
}

/// 19
#[test]
fn an_acquire_whose_script_the_server_forgot_takes_one_round_trip_more() {
    let place = RedisPlace::fragile();
    let lock = place.locker().lock("app").ttl(LONG);
    take(&lock).release_blocking().unwrap();
    for (forgotten, trips) in [(true, 2), (false, 1)] {
        if forgotten {
            place.with(|server| server.run::<()>("SCRIPT FLUSH"));
        }
        let before = place.scripts_run();
        let guard = take(&lock);
        assert_eq!(place.scripts_run() - before, trips);
        guard.release_blocking().unwrap();
    }
}

/// 20
pub(crate) fn an_acquire_whose_answer_was_lost_is_not_busy_by_itself_when_it_is_repeated(
    place: &dyn Place,
) {
    let locker = place.impatient();
    let other = place.locker().lock("app");
    take(&other).release_blocking().unwrap();
    let witness = take(&locker.lock("witness").ttl(LONG));
    // The lease is so long that only the same owner can have the lock within the wait.
    let lock = locker.lock("app").ttl(Duration::from_secs(600)).wait(SOON);
    let stalled = place.stall();
    let guard = bounded("the lock is taken", async {
        let mut taking = pin!(lock.acquire());
        assert!(polled(taking.as_mut()).await.is_pending());
        // The first try is given up, its request on its way still.
        given_up(&witness);
        drop(stalled);
        taking.await.unwrap()
    });
    assert!(verified(&guard));
    let shown = other.info_blocking().unwrap().unwrap();
    assert!(same_holding(&shown, &guard.info()));
    drop(guard);
    wait::until("it is released", SOON, || is_free(&other));
    let last = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Released);
}

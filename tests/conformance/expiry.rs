//! 2.5: how a lease ends by itself.

use std::time::{Duration, Instant, SystemTime};

use applock::clock::{Clock, ManualClock, Moment, Sleep};
use applock::{AppLocker, Ending, Error, Loss, MemoryStore};

use crate::asking::{End, answered, is_busy, is_free, take, take_soon, until_lost};
use crate::store::{LONG, Place, SHORT, SOON};
use crate::support::wait;

/// 59
pub(crate) fn a_lease_without_a_heartbeat_ends_after_its_ttl_not_earlier_and_not_much_later(
    place: &dyn Place,
) {
    let ttl = Duration::from_millis(300);
    let other = place.locker().lock("app");
    let (frozen, _clock) = place.frozen();
    assert!(is_free(&other));
    let asked = Instant::now();
    let _guard = take(&frozen.lock("app").ttl(ttl));
    let granted = Instant::now();
    // Judged by when the question was asked and when its answer came, so that a pause of
    // this test's own proves nothing.
    loop {
        let asking = Instant::now();
        if answered(|| other.try_acquire_blocking()).is_some() {
            assert!(asked.elapsed() >= ttl.mul_f64(0.95), "too early");
            break;
        }
        assert!(asking < granted + ttl + Duration::from_secs(1), "too late");
    }
}

/// 59
pub(crate) fn an_expired_lease_is_reported_as_expired(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let guard = take(&frozen.lock("app").ttl(SHORT));
    let other = place.locker().lock("app");
    wait::until("the lease has run out", SOON, || is_free(&other));
    let last = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Expired);
    assert_eq!(last.fencing_token, guard.fencing_token());
    let held = last.until.unwrap().duration_since(last.from).unwrap();
    let apart = held.abs_diff(SHORT);
    assert!(apart < Duration::from_millis(50), "{held:?}");
}

/// A clock that wakes no timer: however far it is moved, no heartbeat comes by itself.
#[derive(Clone, Debug)]
struct Silent(ManualClock);

impl Clock for Silent {
    fn now(&self) -> Moment {
        self.0.now()
    }

    fn sleep_until(&self, _at: Moment) -> Sleep {
        Box::pin(std::future::pending())
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }
}

/// 60: by a clock that stands still: at exactly the end, and one nanosecond before.
#[test]
fn at_exactly_its_end_a_lease_is_over_and_for_its_holder_a_margin_earlier() {
    let (theirs, ours) = (ManualClock::new(), ManualClock::new());
    let store = MemoryStore::with_clock(theirs.clone());
    let locker = |clock: &ManualClock| {
        let builder = AppLocker::builder().store(store.clone());
        builder.clock(Silent(clock.clone())).build().unwrap()
    };
    let (ttl, margin) = (Duration::from_secs(10), Duration::from_millis(130));
    let instant = Duration::from_nanos(1);
    let guard = take(&locker(&ours).lock("app").ttl(ttl));
    let other = locker(&theirs).lock("app");

    ours.advance(ttl - margin - instant);
    assert!(guard.ensure_held().is_ok());
    assert_eq!(guard.remaining(), instant);
    ours.advance(instant);
    assert!(guard.ensure_held().is_err());
    assert_eq!(guard.remaining(), Duration::ZERO);

    theirs.advance(ttl - instant);
    assert!(is_busy(&other) && !is_free(&other));
    theirs.advance(instant);
    assert!(is_free(&other));
    assert!(take(&other).fencing_token() > guard.fencing_token());
}

/// 62
pub(crate) fn leases_of_extreme_lengths_are_kept_or_refused_and_never_wrap(place: &dyn Place) {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let (frozen, _clock) = place.frozen();
    for ttl in [DAY, DAY * 365 * 10] {
        let lock = frozen.lock("app").ttl(ttl);
        let asked = Instant::now();
        let guard = take(&lock);
        let shown = lock.info_blocking().unwrap().unwrap();
        assert_eq!(shown.ttl(), Some(ttl));
        let expected = End {
            earliest: asked + ttl,
            latest: Instant::now() + ttl,
        };
        assert!(End::of(&lock).may_be(expected));
        guard.release_blocking().unwrap();
    }
    for ttl in [
        Duration::from_millis(1),
        DAY * 365 * 100,
        Duration::from_millis(i64::MAX as u64),
        Duration::from_millis(u64::MAX),
        Duration::MAX,
    ] {
        let lock = frozen.lock("app").ttl(ttl);
        let refused = lock.acquire_blocking();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        assert!(is_free(&lock));
    }
}

/// 63
pub(crate) fn a_part_of_a_millisecond_is_rounded_up_and_never_to_nothing(place: &dyn Place) {
    let lock = place.locker().lock("app");
    for ttl in [Duration::from_nanos(1), Duration::from_micros(999)] {
        assert!(lock.clone().ttl(ttl).acquire_blocking().is_err());
    }
    let (frozen, _clock) = place.frozen();
    let odd = Duration::from_millis(2_000) + Duration::from_nanos(1);
    let _guard = take(&frozen.lock("app").ttl(odd));
    let shown = lock.info_blocking().unwrap().unwrap();
    assert_eq!(shown.ttl(), Some(Duration::from_millis(2_001)));
}

/// 64, 170
pub(crate) fn the_holder_learns_from_its_own_clock_that_its_lease_has_ended(place: &dyn Place) {
    let (frozen, clock) = place.frozen();
    let guard = take(&frozen.lock("app").ttl(LONG));
    assert!(guard.ensure_held().is_ok());
    // As after a suspended machine: the store still counts it as held.
    clock.advance(LONG);
    assert!(matches!(
        guard.ensure_held(),
        Err(Error::Lost {
            reason: Loss::Expired,
            ..
        })
    ));
    until_lost(&guard);
    assert!(is_busy(&place.locker().lock("app")));
}

/// 65
pub(crate) fn what_remains_only_goes_down_between_heartbeats_and_ends_at_nothing(
    place: &dyn Place,
) {
    let (frozen, clock) = place.frozen();
    let ttl = Duration::from_secs(30);
    let guard = take(&frozen.lock("app").ttl(ttl));
    let mut before = guard.remaining();
    assert!(before < ttl);
    // Up to where the first heartbeat may be due: nine tenths of a third of the ttl.
    for _ in 0..8 {
        clock.advance(Duration::from_secs(1));
        let now = guard.remaining();
        assert_eq!(now, before - Duration::from_secs(1));
        before = now;
    }
    clock.advance(ttl * 2);
    assert_eq!(guard.remaining(), Duration::ZERO);
    until_lost(&guard);
    clock.advance(ttl);
    assert_eq!(guard.remaining(), Duration::ZERO);
}

/// 65
pub(crate) fn what_the_store_says_remains_goes_down_too(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = frozen.lock("app").ttl(LONG);
    let _guard = take(&lock);
    let remaining = || {
        let shown = lock.info_blocking().unwrap().unwrap();
        shown.remaining().unwrap()
    };
    let mut before = remaining();
    let first = before;
    assert!(first <= LONG);
    wait::until("some time has passed", SOON, || {
        let now = remaining();
        assert!(now <= before);
        before = now;
        now < first - Duration::from_millis(30)
    });
}

/// 66: 100 of the line's 10 000 names.
pub(crate) fn expired_locks_leave_no_garbage(place: &dyn Place) {
    let (frozen, _clock) = place.frozen();
    let lock = |number: usize| frozen.lock("app").name(number.to_string()).ttl(SHORT);
    let guards: Vec<_> = (0..100).map(|number| take(&lock(number))).collect();
    std::mem::forget(guards);
    for number in 0..100 {
        wait::until("it has run out", SOON, || is_free(&lock(number)));
    }
    let left = place.leftovers();
    assert_eq!(left.stays_for_ever, 0, "{left:?}");
    // A record of the last holding may stay for a week; it never hinders anyone.
    take_soon(&lock(0)).release_blocking().unwrap();
}

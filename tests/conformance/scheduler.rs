//! 2.16: jobs: `#[singleton]`, at least, at most.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use applock::{AppLocker, Ending, Error, LockGuard, singleton};

use crate::asking::{
    End, answered, bounded, is_busy, is_free, take, take_soon, until_lost, verified,
};
use crate::store::{KEPT, LONG, Place, SHORT, SOON};
use crate::support::wait;

#[singleton(app = "job", ttl = 120, locker = locker)]
async fn job(locker: &AppLocker, runs: &AtomicU32) -> Result<u32, Error> {
    Ok(runs.fetch_add(1, Ordering::SeqCst) + 1)
}

#[singleton(app = "job", ttl = 120, locker = locker)]
async fn silent_job(locker: &AppLocker, runs: &AtomicU32) {
    runs.fetch_add(1, Ordering::SeqCst);
}

#[singleton(app = "job", ttl = 120, locker = locker)]
fn blocking_job(locker: &AppLocker, runs: &AtomicU32) -> Option<u32> {
    Some(runs.fetch_add(1, Ordering::SeqCst) + 1)
}

#[singleton(app = "job", ttl = 120, at_least = "1s", locker = locker)]
async fn short_job(locker: &AppLocker, runs: &AtomicU32) {
    runs.fetch_add(1, Ordering::SeqCst);
}

/// 183
pub(crate) fn a_job_that_ends_early_keeps_its_lock_until_the_minimum(place: &dyn Place) {
    let least = Duration::from_millis(400);
    let other = place.locker().lock("app");
    let lock = place.locker().lock("app").ttl(LONG).at_least(least);
    let asked = Instant::now();
    let guard = take(&lock);
    let granted = Instant::now();
    guard.release_blocking().unwrap();
    loop {
        let asking = Instant::now();
        if answered(|| other.try_acquire_blocking()).is_some() {
            assert!(
                asked.elapsed() + Duration::from_millis(3) >= least,
                "too early"
            );
            break;
        }
        // Far from the ttl.
        assert!(
            asking < granted + least + Duration::from_secs(1),
            "too late"
        );
    }
}

/// 183
pub(crate) fn a_job_that_took_longer_than_the_minimum_frees_its_lock_at_once(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG).at_least(SHORT);
    let guard = take(&lock);
    wait::until("the minimum is over", SOON, || guard.held_for() > SHORT);
    guard.release_blocking().unwrap();
    assert!(is_free(&lock));
}

/// 172, 183
pub(crate) fn what_at_least_keeps_is_shown_as_held_and_is_never_stale(place: &dyn Place) {
    let least = Duration::from_millis(600);
    let job = |name: &str, least: Duration| {
        let lock = place.locker().lock("app").name(name).ttl(LONG);
        take(&lock.at_least(least))
    };
    let other = place.locker().lock("app").name("shown");
    let guard = job("shown", LONG);
    let token = guard.fencing_token();
    guard.release_blocking().unwrap();
    let shown = other.info_blocking().unwrap().expect("kept");
    assert_eq!(shown.fencing_token(), Some(token));
    assert!(shown.remaining().unwrap() <= LONG);
    let last = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!((last.ending, last.until), (Ending::Held, None));
    // Its heart beats no more, on purpose.
    let other = place.locker().lock("app").name("ends");
    job("ends", least).release_blocking().unwrap();
    wait::until("the minimum is over", SOON, || {
        let stale = Duration::from_millis(1);
        assert!(!other.force_release_if_stale_blocking(stale).unwrap());
        is_free(&other)
    });
    let last = other.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Released);
    let held = last.until.unwrap().duration_since(last.from).unwrap();
    assert!(held + Duration::from_millis(5) >= least, "{held:?}");
}

/// 184
pub(crate) fn lengths_that_make_no_sense_are_refused(place: &dyn Place) {
    let lock = place.locker().lock("app");
    for refused in [
        lock.clone().at_least(SHORT * 2).at_most(SHORT),
        lock.clone().at_most(Duration::ZERO),
        lock.clone().at_most(Duration::MAX),
        lock.clone().at_least(Duration::MAX),
        lock.clone().at_least(Duration::from_nanos(1)),
    ] {
        let refused = refused.acquire_blocking();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert!(is_free(&lock));
    let equal = lock.at_least(LONG).at_most(LONG);
    take(&equal).release_blocking().unwrap();
}

/// 185
pub(crate) fn a_body_does_not_run_while_the_lock_is_busy_and_its_caller_learns_of_it(
    place: &dyn Place,
) {
    let runs = AtomicU32::new(0);
    let locker = place.locker();
    let guard = take(&place.locker().lock("job").ttl(LONG));
    let refused = bounded("an answer", job(&locker, &runs));
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    bounded("an answer", silent_job(&locker, &runs));
    assert_eq!(blocking_job(&locker, &runs), None);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    guard.release_blocking().unwrap();
    assert_eq!(bounded("it ran", job(&locker, &runs)).unwrap(), 1);
    bounded("it ran", silent_job(&locker, &runs));
    assert_eq!(blocking_job(&locker, &runs), Some(3));
}

/// 186
pub(crate) fn two_schedulers_with_skewed_clocks_run_a_short_job_once(place: &dyn Place) {
    let runs = AtomicU32::new(0);
    let (one, other) = (place.locker(), place.locker());
    let start = Instant::now();
    bounded("it ran", short_job(&one, &runs));
    // The other's clock is a little behind: it comes when the body has long ended.
    for _ in 0..5 {
        bounded("it ended", short_job(&other, &runs));
    }
    let soon_enough = start.elapsed() < Duration::from_secs(1);
    assert!(!soon_enough || runs.load(Ordering::SeqCst) == 1);
    // In the next period it runs again, on whichever comes first.
    wait::until("the next period", SOON, || {
        bounded("it ended", short_job(&other, &runs));
        runs.load(Ordering::SeqCst) > 1
    });
    assert!(start.elapsed() + Duration::from_millis(3) >= Duration::from_secs(1));
}

/// 187
pub(crate) fn what_is_left_of_the_minimum_is_counted_when_the_lock_is_released(place: &dyn Place) {
    let (frozen, clock) = place.frozen();
    let least = Duration::from_secs(30);
    let lock = frozen.lock("app").ttl(LONG).at_least(least);
    let guard = take(&lock);
    clock.advance(Duration::from_secs(20));
    let asked = Instant::now();
    guard.release_blocking().unwrap();
    let expected = End {
        earliest: asked + least - Duration::from_secs(20),
        latest: Instant::now() + least - Duration::from_secs(20),
    };
    assert!(End::of(&lock).may_be(expected));
}

/// 188
pub(crate) fn what_a_body_returns_comes_through(place: &dyn Place) {
    #[singleton(app = "job", locker = locker)]
    async fn fails(locker: &AppLocker) -> Result<(), Box<dyn std::error::Error>> {
        Err("its own")?;
        Ok(())
    }
    #[singleton(app = "job", locker = locker)]
    async fn gives(locker: &AppLocker, early: bool) -> Option<String> {
        if early {
            return Some("early".to_owned());
        }
        Some("late".to_owned())
    }
    let locker = place.locker();
    let failed = bounded("it ran", fails(&locker)).unwrap_err();
    assert_eq!(failed.to_string(), "its own");
    assert_eq!(bounded("it ran", gives(&locker, true)).unwrap(), "early");
    assert_eq!(bounded("it ran", gives(&locker, false)).unwrap(), "late");
}

/// 189
pub(crate) fn a_body_that_fails_frees_its_lock(place: &dyn Place) {
    #[singleton(app = "job", ttl = 120, locker = locker)]
    async fn fails(locker: &AppLocker) -> Result<(), Error> {
        locker.lock("").info().await.map(drop)
    }
    let locker = place.locker();
    for _ in 0..2 {
        let failed = bounded("it ran", fails(&locker));
        assert!(matches!(failed, Err(Error::Invalid(_))), "{failed:?}");
        assert!(is_free(&place.locker().lock("job")));
    }
    let last = locker.lock("job").last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.ending, Ending::Error);
}

/// 190
pub(crate) fn a_late_finisher_does_not_free_the_lock_of_the_next_run(place: &dyn Place) {
    #[singleton(app = "job", ttl = "1500ms", on_lost = finish, locker = locker)]
    fn late(locker: &AppLocker, go: &dyn Fn()) -> Option<()> {
        go();
        Some(())
    }
    let (frozen, _clock) = place.frozen();
    let next = std::sync::Mutex::new(None);
    let second = place.locker().lock("job").ttl(LONG);
    let finished = late(&frozen, &|| {
        *next.lock().unwrap() = Some(take_soon(&second));
    });
    assert_eq!(finished, Some(()));
    let next: LockGuard = next.into_inner().unwrap().unwrap();
    assert!(verified(&next));
    assert!(is_busy(&place.locker().lock("job")));
}

/// 191; the shapes of functions are all in `trybuild/pass`.
pub(crate) fn methods_generics_and_names_from_arguments_run_under_their_own_locks(
    place: &dyn Place,
) {
    struct Service {
        locker: AppLocker,
    }
    impl Service {
        #[singleton(app = "service", name = "tenant-{tenant}", ttl = 120, locker = self.locker)]
        async fn serve<T: std::fmt::Display + Send>(&self, tenant: T) -> Result<String, Error> {
            let guard = applock::current().expect("under the lock");
            let other = self.locker.lock("service").name("tenant-8");
            assert!(other.info().await?.is_none());
            Ok(guard.info().name().unwrap_or_default().to_owned())
        }
    }
    let service = Service {
        locker: place.locker(),
    };
    let serve = service.serve(7);
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let name = bounded("it ran", is_send(serve)).unwrap();
    assert_eq!(name, "tenant-7");
    let _guard = take(&place.locker().lock("service").name("tenant-9").ttl(LONG));
    assert!(bounded("an answer", service.serve("9")).is_err());
    assert!(bounded("it ran", service.serve("10")).is_ok());
}

/// 192
pub(crate) fn lengths_come_from_the_attribute_the_locker_or_the_run_time(place: &dyn Place) {
    #[singleton(app = "job", locker = locker)]
    async fn default_ttl(locker: &AppLocker) -> Option<Duration> {
        applock::current()?.info().ttl()
    }
    #[singleton(app = "job", ttl = 90, locker = locker)]
    async fn seconds(locker: &AppLocker) -> Option<Duration> {
        applock::current()?.info().ttl()
    }
    #[singleton(app = "job", ttl = "5m", locker = locker)]
    async fn text(locker: &AppLocker) -> Option<Duration> {
        applock::current()?.info().ttl()
    }
    #[singleton(app = "job", ttl = ttl * 2, locker = locker)]
    async fn at_run_time(locker: &AppLocker, ttl: Duration) -> Option<Duration> {
        applock::current()?.info().ttl()
    }
    let locker = place.locker();
    let own = place
        .builder()
        .ttl(Duration::from_secs(77))
        .build()
        .unwrap();
    let seconds_of = |n| Some(Duration::from_secs(n));
    assert_eq!(bounded("it ran", default_ttl(&locker)), seconds_of(60));
    assert_eq!(bounded("it ran", default_ttl(&own)), seconds_of(77));
    assert_eq!(bounded("it ran", seconds(&own)), seconds_of(90));
    assert_eq!(bounded("it ran", text(&own)), seconds_of(300));
    let given = Duration::from_secs(50);
    assert_eq!(bounded("it ran", at_run_time(&own, given)), seconds_of(100));
}

/// 193
pub(crate) fn a_function_without_the_attribute_takes_no_lock(place: &dyn Place) {
    async fn plain(lock: &applock::Lock) -> bool {
        applock::current().is_none() && lock.info().await.unwrap().is_none()
    }
    let lock = place.locker().lock("job");
    assert!(bounded("it ran", plain(&lock)));
    // In a user's own tests the lock is one in memory, and always to be had.
    let runs = AtomicU32::new(0);
    let _busy = take(&lock);
    assert!(bounded("it ran", job(&AppLocker::in_memory(), &runs)).is_ok());
}

/// 194
pub(crate) fn a_loss_during_the_body_cancels_it_or_lets_it_finish_as_on_lost_says(
    place: &dyn Place,
) {
    #[singleton(app = "job", ttl = "3s", locker = locker)]
    async fn cancelled(locker: &AppLocker, operator: &applock::Lock) -> Result<(), Error> {
        assert!(operator.force_release().await?);
        pending().await
    }
    #[singleton(app = "job", ttl = "3s", on_lost = finish, locker = locker)]
    async fn finishes(locker: &AppLocker, operator: &applock::Lock) -> Result<bool, Error> {
        assert!(operator.force_release().await?);
        let guard = applock::current().expect("under the lock");
        guard.lost().await;
        tokio::task::yield_now().await;
        Ok(guard.is_held())
    }
    let locker = place.locker();
    let operator = place.locker().lock("job");
    let answer = bounded("it is cancelled", cancelled(&locker, &operator));
    assert!(matches!(answer, Err(Error::Lost { .. })), "{answer:?}");
    let answer = bounded("it finishes", finishes(&locker, &operator));
    assert!(!answer.unwrap());
}

/// 195, of what there is in place of a callback: every task that awaits the loss learns of it,
/// at once and whenever it asks, and those that await a lock that is released, too.
pub(crate) fn every_task_that_awaits_the_loss_learns_of_it_once(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(KEPT);
    for lost in [true, false] {
        let learned = AtomicU32::new(0);
        let kept = std::sync::Mutex::new(None);
        let outcome = bounded("all have learned of it", async {
            let body = async {
                let guard: Arc<LockGuard> = applock::current().expect("under the lock");
                *kept.lock().unwrap() = Some(Arc::clone(&guard));
                if lost {
                    assert!(place.locker().lock("app").force_release().await.unwrap());
                    pending::<()>().await;
                }
            };
            let awaits = || async {
                let guard = loop {
                    if let Some(guard) = kept.lock().unwrap().clone() {
                        break guard;
                    }
                    tokio::task::yield_now().await;
                };
                guard.lost().await;
                learned.fetch_add(1, Ordering::SeqCst);
            };
            tokio::join!(lock.run(body), awaits(), awaits(), awaits()).0
        });
        assert_eq!(outcome.is_err(), lost);
        assert_eq!(learned.load(Ordering::SeqCst), 3);
        let guard = kept.into_inner().unwrap().unwrap();
        until_lost(&guard);
    }
}

/// 196
pub(crate) fn a_leader_that_was_evicted_competes_again_and_leads_with_a_larger_token(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app").ttl(KEPT).wait_forever();
    let operator = place.locker().lock("app").ttl(LONG);
    bounded("it leads again", async {
        let mut before = 0;
        let mut terms = 0;
        while terms < 3 {
            let led: Result<(), Error> = lock
                .run(async {
                    let token = applock::current().expect("it leads").fencing_token();
                    assert!(token > before);
                    before = token;
                    terms += 1;
                    assert!(operator.force_release().await.unwrap());
                    pending().await
                })
                .await;
            assert!(matches!(led, Err(Error::Lost { .. })), "{led:?}");
        }
    });
}

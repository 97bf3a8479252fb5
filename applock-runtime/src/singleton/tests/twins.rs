//! What holds of an async body holds of a sync one, of a nested one, and of one whose guard
//! was handed elsewhere.

use std::sync::Arc;

use crate::clock::{Clock, Moment, Sleep};
use crate::error::Result;
use crate::locker::{Lock, LockGuard};

use super::*;

/// The machine sleeps whenever a caller is about to look at the clock: between the grant,
/// which the engine's thread makes, and the body's begin.
#[derive(Debug)]
struct SleepyClock(ManualClock);

impl Clock for SleepyClock {
    fn now(&self) -> Moment {
        if std::thread::current().name() != Some("applock") {
            self.0.advance(TTL * 2);
        }
        self.0.now()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        self.0.sleep_until(at)
    }

    fn wall(&self) -> std::time::SystemTime {
        self.0.wall()
    }
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !met() {
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(10), "still not: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn no_sync_body_is_begun_under_a_lease_that_is_over() {
    let clock = ManualClock::new();
    let locker = AppLocker::builder()
        .store(MemoryStore::with_clock(clock.clone()))
        .clock(SleepyClock(clock))
        .build()
        .unwrap();
    let lock = locker.lock("x").ttl(TTL);
    let ran = Cell::new(false);
    let outcome = lock.run_blocking(|| ran.set(true));
    assert!(matches!(outcome, Err(Error::Lost { .. })), "{outcome:?}");
    assert!(!ran.get());
    for finish in [false, true] {
        let call = call(LockOptions::app("x").ttl(TTL), &locker);
        let call = match finish {
            true => call.finish_when_lost(),
            false => call,
        };
        assert!(matches!(call.enter::<()>(), Err(Error::Lost { .. })));
    }
}

#[test]
fn no_nested_body_is_begun_under_a_lease_that_is_over() {
    let ran = Cell::new(0);
    for is_reentrant in [false, true] {
        let clock = ManualClock::new();
        let locker = locker_by(&clock);
        let lock = locker.lock("x").ttl(TTL);
        let nested = match is_reentrant {
            true => lock.clone().reentrant(),
            false => lock.clone(),
        };
        let is_lost = |outcome: Result<()>| assert!(matches!(outcome, Err(Error::Lost { .. })));
        let body = || {
            clock.advance(TTL);
            is_lost(nested.run_blocking(|| ran.set(ran.get() + 1)));
            is_lost(block_on(nested.run(async { ran.set(ran.get() + 1) })));
        };
        lock.run_blocking(body).unwrap();
        // The async one around them is cancelled afterwards; it is within one poll.
        let outcome = block_on(lock.run(async { body() }));
        outcome.unwrap();
    }
    assert_eq!(ran.get(), 0);
}

#[test]
fn no_nested_body_is_begun_whose_turn_comes_when_the_lease_is_over() {
    let clock = ManualClock::new();
    let locker = locker_by(&clock);
    let options = || LockOptions::app("x").ttl(TTL).wait_forever().reentrant();
    // Each of them would run to its end, were its lease lost in its midst.
    let finishing = || call(options(), &locker).finish_when_lost();
    let ran = Cell::new(false);
    let body = pin!(Some(async {
        let (go_on, received) = oneshot::channel();
        let first = pin!(Some(async { received.await.unwrap() }));
        let second = pin!(Some(async { ran.set(true) }));
        let mut first = pin!(finishing().run(first));
        let mut second = pin!(finishing().run(second));
        assert!(poll(first.as_mut()).is_pending(), "it has the turn");
        assert!(poll(second.as_mut()).is_pending(), "it waits for its own");
        clock.advance(TTL);
        go_on.send(()).unwrap();
        assert!(matches!(poll(first.as_mut()), Poll::Ready(Ok(()))));
        let outcome = poll(second.as_mut());
        assert!(matches!(outcome, Poll::Ready(Err(Error::Lost { .. }))));
    }));
    block_on(finishing().run(body)).unwrap();
    assert!(!ran.get());
}

/// Sync, or async and to be finished when its lease is lost: no lost lease cancels either.
#[test]
fn what_is_nested_in_a_body_of_any_kind_never_goes_on_after_it() {
    let locker = AppLocker::in_memory();
    let options = || LockOptions::app("x").reentrant();
    let ran = &Cell::new(0);
    type Around = fn(&Lock, &mut dyn FnMut()) -> Result<()>;
    let around: [Around; 2] = [
        |lock, body| lock.run_blocking(body),
        |lock, body| block_on(lock.run(async { body() })),
    ];
    for around in around {
        for finish in [false, true] {
            let (go_on, received) = oneshot::channel();
            let mut stray = Box::pin(Some(async move {
                let _ = received.await;
                ran.set(ran.get() + 1);
            }));
            let call = call(options(), &locker);
            let call = match finish {
                true => call.finish_when_lost(),
                false => call,
            };
            let mut stray = Box::pin(call.run(stray.as_mut()));
            around(&locker.lock("x"), &mut || {
                assert!(poll(stray.as_mut()).is_pending());
            })
            .unwrap();
            let other = locker.lock("x").acquire_blocking().unwrap();
            go_on.send(()).unwrap();
            assert!(matches!(block_on(stray), Err(Error::NotHeld { .. })));
            other.release_blocking().unwrap();
        }
    }
    assert_eq!(ran.get(), 0);
}

#[test]
fn a_nested_run_that_is_cancelled_leaves_the_lock_with_the_one_around_it() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x").reentrant();
    let run = lock.run(async {
        {
            let mut nested = pin!(lock.run(std::future::pending::<()>()));
            assert!(poll(nested.as_mut()).is_pending());
        }
        // Whatever it has sent to the engine comes before this.
        assert!(crate::current().unwrap().verify().await.unwrap());
        lock.run_blocking(|| ()).unwrap();
        assert!(crate::current().unwrap().is_held());
        let other = lock.info_blocking().unwrap();
        assert!(other.is_some(), "it is taken still");
    });
    block_on(run).unwrap();
}

#[test]
fn a_body_that_is_cancelled_gives_the_lock_back_though_its_guard_was_handed_elsewhere() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x");
    let handed: Cell<Option<Arc<LockGuard>>> = Cell::new(None);
    let begun = Cell::new(false);
    {
        let mut run = pin!(lock.run(async {
            handed.set(crate::current());
            begun.set(true);
            std::future::pending::<()>().await;
        }));
        until("the body runs", || {
            assert!(poll(run.as_mut()).is_pending());
            begun.get()
        });
    }
    let guard = handed.into_inner().unwrap();
    // In the background, and long before the ttl.
    until("the lock is free", || {
        lock.info_blocking().unwrap().is_none()
    });
    assert!(!guard.is_held());
    assert!(matches!(guard.ensure_held(), Err(Error::NotHeld { .. })));
}

#[test]
fn a_body_that_panics_gives_the_lock_back_though_its_guard_was_handed_elsewhere() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x");
    let handed: Cell<Option<Arc<LockGuard>>> = Cell::new(None);
    let ways: [&dyn Fn() -> Result<()>; 2] = [
        &|| {
            lock.run_blocking(|| {
                handed.set(crate::current());
                panic!("part of the test");
            })
        },
        &|| {
            block_on(lock.run(async {
                handed.set(crate::current());
                panic!("part of the test");
            }))
        },
    ];
    for way in ways {
        assert!(catch_unwind(AssertUnwindSafe(way)).is_err());
        assert!(!handed.take().unwrap().is_held());
        assert!(lock.info_blocking().unwrap().is_none());
    }
}

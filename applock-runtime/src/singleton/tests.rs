//! Bodies and their locks where the lock is over, or where the body has strayed.

mod twins;

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::blocking::block_on;
use crate::clock::ManualClock;
use crate::error::Error;
use crate::locker::{AppLocker, LockOptions};
use crate::store::memory::MemoryStore;

use super::Call;

const TTL: Duration = Duration::from_secs(9);

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A locker, and a store, that both go by this clock.
fn locker_by(clock: &ManualClock) -> AppLocker {
    AppLocker::builder()
        .store(MemoryStore::with_clock(clock.clone()))
        .clock(clock.clone())
        .build()
        .unwrap()
}

fn call(options: LockOptions, locker: &AppLocker) -> Call {
    Call::new(module_path!(), "body", options).locker(locker)
}

#[test]
#[expect(
    clippy::async_yields_async,
    reason = "the future that strays is what is tested"
)]
fn a_nested_body_that_outlives_the_one_around_it_does_not_run_without_the_lock() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x");
    let (go_on, received) = oneshot::channel();
    let ran = &Cell::new(false);
    let nested = lock.clone().reentrant();
    let inner = block_on(lock.run(async {
        let mut inner = Box::pin(nested.run(async move {
            received.await.unwrap();
            ran.set(true);
        }));
        assert!(poll(inner.as_mut()).is_pending());
        inner
    }))
    .unwrap();
    let _other = lock.acquire_blocking().unwrap();
    go_on.send(()).unwrap();
    assert!(matches!(block_on(inner), Err(Error::NotHeld { .. })));
    assert!(!ran.get());
}

#[test]
#[expect(
    clippy::async_yields_async,
    reason = "the future that strays is what is tested"
)]
fn a_nested_body_that_outlives_a_nested_one_around_it_does_not_run_beside_the_next() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x").reentrant();
    let (go_on, received) = oneshot::channel();
    let ran = &Cell::new(false);
    block_on(lock.run(async {
        let innermost = lock.run(async {
            let mut innermost = Box::pin(lock.run(async move {
                received.await.unwrap();
                ran.set(true);
            }));
            assert!(poll(innermost.as_mut()).is_pending());
            innermost
        });
        let stray = innermost.await.unwrap();
        // The turn is the next one's, though what was nested in the one before goes on.
        let next = lock.run(async {
            go_on.send(()).unwrap();
            assert!(matches!(stray.await, Err(Error::NotHeld { .. })));
        });
        next.await.unwrap();
        assert!(!ran.get());
    }))
    .unwrap();
}

#[test]
fn a_nested_run_that_is_dropped_gives_its_turn_back() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x").reentrant();
    let run = lock.run(async {
        {
            let mut first = pin!(lock.run(std::future::pending::<()>()));
            assert!(poll(first.as_mut()).is_pending());
            let waiting = lock.clone().wait_forever();
            let mut second = pin!(waiting.run(async {}));
            assert!(poll(second.as_mut()).is_pending());
            assert!(matches!(lock.run_blocking(|| ()), Err(Error::Busy(_))));
        }
        lock.run_blocking(|| ()).unwrap();
        lock.run(async {}).await.unwrap();
    });
    block_on(run).unwrap();
}

#[test]
fn a_sync_call_never_waits_for_a_turn_that_its_own_thread_has() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("x").reentrant().wait_forever();
    let run = lock.run(async {
        let mut first = pin!(lock.run(std::future::pending::<()>()));
        assert!(poll(first.as_mut()).is_pending());
        let error = lock.run_blocking(|| ()).unwrap_err();
        assert!(error.to_string().contains("has its turn"), "{error}");
    });
    block_on(run).unwrap();
}

#[test]
fn a_wait_for_a_turn_ends_in_time_by_the_lockers_clock_and_without_a_runtime() {
    let clock = ManualClock::new();
    let lock = locker_by(&clock).lock("x").ttl(TTL * 10).reentrant();
    let run = lock.run(async {
        let mut first = pin!(lock.run(std::future::pending::<()>()));
        assert!(poll(first.as_mut()).is_pending());
        let waits = lock.clone().wait(TTL);
        let mut second = pin!(waits.run(async {}));
        assert!(poll(second.as_mut()).is_pending());
        // The engine has been asked for its timer before it answers this.
        lock.info_blocking().unwrap();
        clock.advance(TTL / 2);
        lock.info_blocking().unwrap();
        assert!(poll(second.as_mut()).is_pending());
        clock.advance(TTL);
        let error = second.await.unwrap_err();
        assert!(error.to_string().contains("has its turn"), "{error}");
    });
    block_on(run).unwrap();
}

#[test]
fn no_body_is_begun_under_a_lease_that_is_over() {
    for finish in [false, true] {
        sleeps_before_the_body_begins(finish);
    }
}

fn sleeps_before_the_body_begins(finish: bool) {
    let clock = ManualClock::new();
    let locker = locker_by(&clock);
    let lock = locker.lock("x");
    let other = lock.acquire_blocking().unwrap();
    let before = other.fencing_token();
    let ran = Cell::new(false);
    let body = pin!(Some(async { ran.set(true) }));
    let call = call(LockOptions::app("x").ttl(TTL).wait_forever(), &locker);
    let call = if finish {
        call.finish_when_lost()
    } else {
        call
    };
    let mut run = pin!(call.run(body));
    assert!(poll(run.as_mut()).is_pending());
    other.release_blocking().unwrap();
    // Granted, while no task polls; and then the machine sleeps.
    let is_granted = || {
        let holder = lock.info_blocking().unwrap();
        holder.is_some_and(|holder| holder.fencing_token() > Some(before))
    };
    while !is_granted() {
        clock.advance(Duration::from_millis(50));
    }
    clock.advance(TTL * 2);
    assert!(matches!(block_on(run), Err(Error::Lost { .. })));
    assert!(!ran.get());
}

#[test]
fn a_lock_can_be_taken_while_a_threads_locals_are_destroyed() {
    struct AtTheEnd(AppLocker, std::sync::mpsc::Sender<bool>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            let taken = self.0.lock("x").run_blocking(|| ());
            let _ = self.1.send(taken.is_ok());
        }
    }
    thread_local! {
        static AT_THE_END: Cell<Option<AtTheEnd>> = const { Cell::new(None) };
    }
    let (tell, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let locker = AppLocker::in_memory();
        AT_THE_END.set(Some(AtTheEnd(locker.clone(), tell)));
        locker.lock("y").run_blocking(|| ()).unwrap();
    })
    .join()
    .unwrap();
    assert!(received.recv().unwrap());
}

#[test]
fn a_body_is_kept_back_while_a_jump_of_the_wall_clock_makes_its_lease_suspect() {
    let clock = ManualClock::new();
    let locker = locker_by(&clock);
    let steps = Cell::new(0);
    let body = pin!(Some(std::future::poll_fn(|context| {
        let ran = steps.get();
        steps.set(ran + 1);
        match ran {
            0 => {
                clock.advance_wall(Duration::from_secs(600));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            // A body that asks while the lease is suspect gets that answer.
            _ => Poll::Ready(crate::current().map(|guard| guard.is_held())),
        }
    })));
    let call = call(LockOptions::app("x").ttl(TTL), &locker);
    let outcome = block_on(call.run(body));
    assert_eq!(outcome.unwrap(), Some(true));
    assert_eq!(steps.get(), 2);
}

#[test]
fn a_body_whose_lease_runs_out_is_dropped_where_it_stands() {
    let clock = ManualClock::new();
    let locker = locker_by(&clock);
    let steps = Cell::new(0);
    let body = pin!(Some(std::future::poll_fn(|context| {
        steps.set(steps.get() + 1);
        clock.advance(TTL);
        context.waker().wake_by_ref();
        // Were it asked again, it would be done.
        if steps.get() == 1 {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })));
    let call = call(LockOptions::app("x").ttl(TTL), &locker);
    assert!(matches!(block_on(call.run(body)), Err(Error::Lost { .. })));
    assert_eq!(steps.get(), 1);
}

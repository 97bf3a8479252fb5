//! Promise: a machine that was suspended for longer than the ttl wakes up without the
//! lock: the guard is lost at its first check, the body does not go on under it, and a lock
//! that another holder has taken meanwhile stays that holder's (F15, R1, R4).

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::support::clock::SetClock;
use crate::support::lease;
use crate::support::log;
use crate::support::redis::RedisServer;
use crate::support::steps::{LONG, assert_lost, assert_verified, take, until_free};
use crate::support::wait;
use applock::{AppLocker, Error, LockGuard, Loss, singleton};
use tokio::sync::oneshot;

/// Nothing but the suspend ends it.
const TTL: Duration = Duration::from_secs(60);

const KEY: &str = "QUEUE:job";

/// A machine that can be suspended, with a lock, and the rest of the world.
struct Machine {
    server: RedisServer,
    clock: SetClock,
    locker: AppLocker,
}

impl Machine {
    fn new() -> Self {
        let server = RedisServer::start();
        let clock = SetClock::default();
        let builder = AppLocker::builder().store(server.url());
        let locker = builder.clock(clock.clone()).connect_blocking().unwrap();
        Self {
            server,
            clock,
            locker,
        }
    }

    /// Sleeps past the ttl; meanwhile it runs out at the server, and another takes it.
    fn suspend(&self) -> LockGuard {
        // What the time does to it there.
        let _: i64 = self.server.run("PEXPIRE QUEUE:job 1");
        let next = AppLocker::connect_blocking(self.server.url()).unwrap();
        let next = take(&next.lock("job").ttl(TTL));
        self.clock.sleep(TTL);
        next
    }
}

// F15
#[test]
fn the_guard_is_lost_at_its_first_check_after_waking() {
    let machine = Machine::new();
    let guard = take(&machine.locker.lock("job").ttl(TTL));
    assert!(guard.is_held());
    // The engine does not know yet, and no caller has asked the store.
    machine.clock.sleep(TTL);
    assert!(!guard.is_held());
    assert_lost(&guard, Loss::Expired);
    assert_eq!(guard.remaining(), Duration::ZERO);
    guard.lost_blocking();
    // Nothing brings it back, though the server would have it so.
    assert!(!guard.verify_blocking().unwrap());
    assert!(!guard.is_held());
}

// F15
#[test]
fn a_suspend_shorter_than_the_lease_costs_no_holder_the_lock() {
    let machine = Machine::new();
    let guard = take(&machine.locker.lock("job").ttl(TTL));
    let token = guard.fencing_token();
    machine.clock.sleep(TTL / 2);
    assert_verified(&guard);
    assert_eq!(machine.server.run::<u64>("HGET QUEUE:job token"), token);
    // Many of them, too, with a heartbeat in between.
    for _ in 0..4 {
        machine.clock.sleep(TTL / 2);
        assert_verified(&guard);
    }
    assert_eq!(guard.fencing_token(), token);
}

// F15
#[test]
fn the_lock_of_the_next_holder_is_not_touched_on_waking() {
    for explicit in [true, false] {
        let machine = Machine::new();
        let guard = take(&machine.locker.lock("job").ttl(TTL));
        let next = machine.suspend();
        assert_lost(&guard, Loss::Expired);
        assert!(next.fencing_token() > guard.fencing_token());
        if explicit {
            let error = guard.release_blocking().unwrap_err();
            assert!(matches!(
                error,
                Error::Lost {
                    reason: Loss::Expired,
                    ..
                }
            ));
        } else {
            drop(guard);
        }
        // The engine has done its part when it has nothing left to do.
        machine.locker.shutdown_blocking(LONG).unwrap();
        assert_verified(&next);
    }
}

/// A body that waits to be woken, and notes it if it goes on.
async fn waits(asleep: oneshot::Sender<()>, woken: oneshot::Receiver<()>, went_on: &AtomicBool) {
    asleep.send(()).unwrap();
    let mut woken = woken;
    poll_fn(|context| {
        // It goes on at the same poll that wakes it.
        if std::pin::Pin::new(&mut woken).poll(context).is_pending() {
            return Poll::Pending;
        }
        went_on.store(true, Ordering::SeqCst);
        Poll::Ready(())
    })
    .await;
}

// F15
#[tokio::test]
async fn an_async_body_is_cancelled_at_its_next_poll_and_does_not_go_on() {
    let machine = Machine::new();
    let (asleep, is_asleep) = oneshot::channel();
    let (wake, woken) = oneshot::channel();
    let went_on = Arc::new(AtomicBool::new(false));
    let body = {
        let went_on = Arc::clone(&went_on);
        async move { waits(asleep, woken, &went_on).await }
    };
    let running = tokio::spawn(machine.locker.lock("job").ttl(TTL).run(body));
    is_asleep.await.unwrap();
    let next = machine.suspend();
    wake.send(()).unwrap();
    let error = running.await.unwrap().unwrap_err();
    lease::assert_lost(&error, Loss::Expired);
    assert!(
        !went_on.load(Ordering::SeqCst),
        "it went on under a lost lock"
    );
    machine.locker.shutdown(LONG).await.unwrap();
    assert!(next.verify().await.unwrap());
}

#[singleton(app = "job", ttl = "60s", locker = locker)]
async fn job(
    locker: &AppLocker,
    asleep: oneshot::Sender<()>,
    woken: oneshot::Receiver<()>,
    went_on: &AtomicBool,
) -> Result<(), Error> {
    waits(asleep, woken, went_on).await;
    Ok(())
}

// F15
#[tokio::test]
async fn a_job_is_cancelled_on_waking_and_its_caller_learns_of_it() {
    log::keep();
    let machine = Machine::new();
    let (asleep, is_asleep) = oneshot::channel();
    let (wake, woken) = oneshot::channel();
    let went_on = AtomicBool::new(false);
    let sleeps = async {
        is_asleep.await.unwrap();
        let token: u64 = machine.server.run("HGET QUEUE:job token");
        let next = machine.suspend();
        wake.send(()).unwrap();
        (next, token)
    };
    let running = job(&machine.locker, asleep, woken, &went_on);
    // The machine sleeps first in each round, so the body meets it at its next poll.
    let ((next, token), outcome) = tokio::join!(sleeps, running);
    let error = outcome.unwrap_err();
    lease::assert_lost(&error, Loss::Expired);
    assert!(
        !went_on.load(Ordering::SeqCst),
        "it went on under a lost lock"
    );
    log::until(&["cancelled", "job", &token.to_string()]);
    assert!(next.verify().await.unwrap());
}

#[singleton(app = "job", ttl = "60s", locker = &machine.locker, guard = guard)]
fn sync_job(machine: &Machine) -> Result<LockGuard, Error> {
    let next = machine.suspend();
    // The first check before the next effect.
    assert_lost(&guard, Loss::Expired);
    Ok(next)
}

// F15
#[test]
fn a_sync_body_sees_it_at_its_first_check() {
    let machine = Machine::new();
    let next = sync_job(&machine).unwrap();
    machine.locker.shutdown_blocking(LONG).unwrap();
    assert_verified(&next);
}

// F15
#[test]
fn a_waiter_that_was_suspended_goes_on_waiting_or_learns_of_it() {
    let machine = Machine::new();
    let holder = AppLocker::connect_blocking(machine.server.url()).unwrap();
    let guard = take(&holder.lock("job").ttl(TTL));
    let waiting = std::thread::spawn({
        let lock = machine.locker.lock("job").ttl(TTL).wait_forever();
        move || lock.acquire_blocking()
    });
    machine.clock.sleep(TTL * 10);
    assert!(!waiting.is_finished());
    drop(guard);
    let guard = waiting.join().unwrap().unwrap();
    assert!(guard.is_held());
    assert_verified(&guard);
    drop(guard);
    until_free(&machine.server, KEY, LONG);
    wait::until("it can be had", LONG, || {
        matches!(
            machine.locker.lock("job").try_acquire_blocking(),
            Ok(Some(_))
        )
    });
}

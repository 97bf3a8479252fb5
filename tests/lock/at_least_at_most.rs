//! Promise: `at_least` keeps a lock so long, whatever becomes of the body; `at_most`
//! ends a holding whose body does not end by itself (F27, F28).

use std::time::{Duration, Instant};

use crate::support::lease::{KEPT, LIMIT, assert_lost};
use crate::support::panics::caught;
use crate::support::probe::Probe;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Error, LockGuard, Loss, singleton};
use tokio::sync::Notify;

/// Longer than the ttl of what it keeps.
const LEAST: Duration = Duration::from_secs(5);

/// What the server counts in.
const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Return,
    Error,
    Panic,
    Drop,
}

#[singleton(app = "least", ttl = "4s", at_least = "5s", locker = locker)]
async fn job(locker: &AppLocker, way: Way, begun: &Notify) -> anyhow::Result<()> {
    begun.notify_one();
    assert!(way != Way::Panic, "the body panics");
    anyhow::ensure!(way != Way::Error, "the body fails");
    if way == Way::Drop {
        wait::to_be_cancelled().await;
    }
    Ok(())
}

/// Ends a job in that way.
async fn end(locker: &AppLocker, way: Way) {
    let begun = Notify::new();
    let mut running = Box::pin(caught(job(locker, way, &begun)));
    if way == Way::Drop {
        tokio::select! {
            _ = &mut running => panic!("it ended by itself"),
            () = begun.notified() => return drop(running),
        }
    }
    let outcome = running.await;
    match way {
        Way::Return => outcome.unwrap().unwrap(),
        Way::Error => drop(outcome.unwrap().unwrap_err()),
        Way::Panic | Way::Drop => drop(outcome.unwrap_err()),
    }
}

fn is_kept_after(way: Way) {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    let start = Instant::now();
    pollster::block_on(end(&locker, way));
    // It stays taken, by the same holder, and for the rest of the time only.
    let mut left: i64 = 0;
    wait::until("it is given back", LIMIT, || {
        left = server.run("PTTL QUEUE:least");
        server
            .text("QUEUE:least")
            .is_some_and(|lock| lock["state"] == "kept")
    });
    assert!((1..=5_000).contains(&left), "{way:?}: {left} ms");
    let begun = Notify::new();
    let refused = pollster::block_on(job(&other, Way::Return, &begun));
    let refused = refused.unwrap_err().downcast::<Error>().unwrap();
    assert!(matches!(refused, Error::Busy(_)), "{refused}");
    wait::until("the lock is free", LIMIT, || {
        !server.run::<bool>("EXISTS QUEUE:least")
    });
    let kept = start.elapsed();
    assert!(kept >= LEAST - MILLISECOND, "{way:?}: {kept:?}");
    let next = other.lock("least").try_acquire_blocking();
    assert!(next.unwrap().is_some());
}

#[test]
fn at_least_keeps_the_lock_after_every_kind_of_early_end() {
    std::thread::scope(|scope| {
        for way in [Way::Return, Way::Error, Way::Panic, Way::Drop] {
            scope.spawn(move || is_kept_after(way));
        }
    });
}

fn is_kept_by_a_guard(app: &str, let_go: impl FnOnce(LockGuard)) {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker
        .lock(app)
        .ttl(Duration::from_secs(60))
        .at_least(LEAST);
    let start = Instant::now();
    let_go(lock.acquire_blocking().unwrap());
    wait::until("at_least is what is left", LIMIT, || {
        server.run::<i64>(&format!("PTTL QUEUE:{app}")) <= 5_000
    });
    assert!(lock.try_acquire_blocking().unwrap().is_none());
    wait::until("the lock is free", LIMIT, || {
        !server.run::<bool>(&format!("EXISTS QUEUE:{app}"))
    });
    let kept = start.elapsed();
    assert!(kept >= LEAST - MILLISECOND, "{app}: {kept:?}");
}

#[test]
fn at_least_keeps_the_lock_of_a_guard_that_is_released_or_dropped() {
    std::thread::scope(|scope| {
        let release = |guard: LockGuard| guard.release_blocking().unwrap();
        scope.spawn(move || is_kept_by_a_guard("released", release));
        scope.spawn(|| is_kept_by_a_guard("dropped", drop));
    });
}

#[test]
fn at_least_costs_nothing_where_the_body_took_longer() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let least = Duration::from_millis(300);
    let lock = locker.lock("longer").at_least(least);
    let guard = lock.acquire_blocking().unwrap();
    wait::until("at_least is over", LIMIT, || guard.held_for() > least);
    guard.release_blocking().unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:longer"));
}

#[singleton(app = "most", ttl = "4s", at_most = "6s", locker = locker)]
async fn hangs(locker: &AppLocker, probe: Probe) -> Result<(), Error> {
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

#[tokio::test]
async fn at_most_cancels_a_body_that_hangs_and_the_next_may_run() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let (probe, saw) = Probe::blind();
    let start = Instant::now();
    let error = hangs(&locker, probe).await.unwrap_err();
    let lasted = start.elapsed();
    assert_lost(&error, Loss::AtMost);
    assert!(saw.is_dropped());
    // Longer than the ttl: it was renewed until then, and not after.
    assert!(lasted >= Duration::from_millis(5_990), "{lasted:?}");
    assert!(lasted < Duration::from_secs(40), "{lasted:?}");
    wait::until("the lock is free", LIMIT, || {
        !server.run::<bool>("EXISTS QUEUE:most")
    });
    assert!(other.lock("most").try_acquire().await.unwrap().is_some());
}

#[test]
fn at_most_ends_a_guard_that_is_never_released_and_the_next_holder_is_left_alone() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("hung").ttl(KEPT).at_most(LEAST);
    let start = Instant::now();
    let hung = lock.acquire_blocking().unwrap();
    let theirs = other.lock("hung").wait(LIMIT);
    let next = theirs.acquire_blocking().unwrap();
    // The old holder knows that it has lost the lock.
    assert!(!hung.is_held());
    assert!(start.elapsed() >= LEAST - MILLISECOND);
    assert!(start.elapsed() < LEAST * 8);
    assert!(next.fencing_token() > hung.fencing_token());
    assert_lost(&hung.release_blocking().unwrap_err(), Loss::AtMost);
    assert!(next.verify_blocking().unwrap());
}

#[test]
fn at_most_bounds_the_lease_also_where_the_ttl_is_longer() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("short").at_most(Duration::from_secs(3));
    let guard = lock.acquire_blocking().unwrap();
    let left: i64 = server.run("PTTL QUEUE:short");
    assert!(left <= 3_000, "{left} ms");
    guard.lost_blocking();
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::AtMost);
}

#[test]
fn a_sync_body_over_its_time_learns_of_it_and_finishes() {
    #[singleton(app = "sync", at_most = "3s", locker = locker, guard = guard)]
    fn overdue(locker: &AppLocker) -> Result<Option<Error>, Error> {
        guard.lost_blocking();
        Ok(guard.ensure_held().err())
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert_lost(&overdue(&locker).unwrap().unwrap(), Loss::AtMost);
}

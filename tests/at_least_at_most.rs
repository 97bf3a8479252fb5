//! Promise: `at_least` keeps a lock so long, whatever becomes of the body; `at_most`
//! ends a holding whose body does not end by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use applock::{AppLocker, Error, Loss, singleton};
use support::panics::caught;
use support::probe::Probe;
use support::redis::RedisServer;
use support::{stall, wait};

/// A machine that stood still for longer proves nothing about times.
const STALL: Duration = Duration::from_millis(100);

const LEAST: Duration = Duration::from_millis(1_000);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Return,
    Error,
    Panic,
    Drop,
}

#[singleton(app = "least", ttl = "300ms", at_least = "1s", locker = locker)]
async fn job(locker: &AppLocker, way: Way, runs: &mut u32) -> anyhow::Result<()> {
    *runs += 1;
    assert!(way != Way::Panic, "the body panics");
    anyhow::ensure!(way != Way::Error, "the body fails");
    if way == Way::Drop {
        wait::to_be_cancelled().await;
    }
    Ok(())
}

// F27
#[test]
fn at_least_keeps_the_lock_after_every_kind_of_early_end() {
    for way in [Way::Return, Way::Error, Way::Panic, Way::Drop] {
        stall::retried_async(STALL, async || {
            let server = RedisServer::start();
            let locker = AppLocker::connect(server.url()).await.unwrap();
            let other = AppLocker::connect(server.url()).await.unwrap();
            let mut runs = 0;
            let start = Instant::now();
            let running = caught(job(&locker, way, &mut runs));
            let ended = tokio::time::timeout(Duration::from_millis(150), running).await;
            match way {
                Way::Return => ended.unwrap().unwrap().unwrap(),
                Way::Error => drop(ended.unwrap().unwrap().unwrap_err()),
                Way::Panic => drop(ended.unwrap().unwrap_err()),
                Way::Drop => assert!(ended.is_err()),
            }
            assert_eq!(runs, 1);
            // It stays taken, by the same holder, and for the rest of the time only.
            let left: i64 = server.run("PTTL QUEUE:least");
            assert!((1..=1_000).contains(&left), "{way:?}: {left} ms");
            assert!(server.run::<bool>("HEXISTS QUEUE:least owner"));
            let mut again = 0;
            let refused = job(&other, Way::Return, &mut again).await;
            let refused = refused.unwrap_err().downcast::<Error>().unwrap();
            assert!(matches!(refused, Error::Busy(_)), "{refused}");
            wait::until("the lock is free", Duration::from_secs(10), || {
                !server.run::<bool>("EXISTS QUEUE:least")
            });
            // Less a millisecond, which is what the server counts in.
            let kept = start.elapsed();
            assert!(
                kept >= LEAST - Duration::from_millis(1),
                "{way:?}: {kept:?}"
            );
            assert!(
                kept < LEAST + Duration::from_millis(900),
                "{way:?}: {kept:?}"
            );
            assert_eq!(again, 0);
            assert!(other.lock("least").try_acquire().await.unwrap().is_some());
        });
    }
}

#[test]
fn at_least_keeps_the_lock_of_a_guard_that_is_released_or_dropped() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        for app in ["released", "dropped"] {
            let lock = locker
                .lock(app)
                .ttl(Duration::from_secs(30))
                .at_least(LEAST);
            let start = Instant::now();
            let guard = lock.acquire_blocking().unwrap();
            if app == "released" {
                guard.release_blocking().unwrap();
            } else {
                drop(guard);
            }
            wait::until("the ttl is what is left", Duration::from_secs(10), || {
                server.run::<i64>(&format!("PTTL QUEUE:{app}")) <= 1_000
            });
            assert!(lock.try_acquire_blocking().unwrap().is_none());
            wait::until("the lock is free", Duration::from_secs(10), || {
                !server.run::<bool>(&format!("EXISTS QUEUE:{app}"))
            });
            let kept = start.elapsed();
            assert!(kept >= LEAST - Duration::from_millis(1), "{app}: {kept:?}");
        }
    });
}

#[test]
fn at_least_costs_nothing_where_the_body_took_longer() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let lock = locker
            .lock("longer")
            .ttl(Duration::from_millis(600))
            .at_least(Duration::from_millis(300));
        let guard = lock.acquire_blocking().unwrap();
        wait::until("at_least is over", Duration::from_secs(10), || {
            guard.held_for() > Duration::from_millis(400)
        });
        guard.release_blocking().unwrap();
        assert!(!server.run::<bool>("EXISTS QUEUE:longer"));
    });
}

#[singleton(app = "most", ttl = "300ms", at_most = "900ms", locker = locker)]
async fn hangs(locker: &AppLocker, probe: Probe) -> Result<(), Error> {
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

// F28
#[test]
fn at_most_cancels_a_body_that_hangs_and_the_next_may_run() {
    stall::retried_async(STALL, async || {
        let server = RedisServer::start();
        let locker = AppLocker::connect(server.url()).await.unwrap();
        let other = AppLocker::connect(server.url()).await.unwrap();
        let (probe, saw) = Probe::blind();
        let start = Instant::now();
        let error = hangs(&locker, probe).await.unwrap_err();
        let lasted = start.elapsed();
        assert!(
            matches!(
                error,
                Error::Lost {
                    reason: Loss::AtMost,
                    ..
                }
            ),
            "{error}"
        );
        assert!(saw.is_dropped());
        // Three times the ttl: it was renewed until then, and not after.
        assert!(lasted >= Duration::from_millis(890), "{lasted:?}");
        assert!(lasted < Duration::from_millis(1_500), "{lasted:?}");
        wait::until("the lock is free", Duration::from_secs(10), || {
            !server.run::<bool>("EXISTS QUEUE:most")
        });
        assert!(other.lock("most").try_acquire().await.unwrap().is_some());
    });
}

#[test]
fn at_most_ends_a_guard_that_nobody_lets_go_and_the_next_holder_is_left_alone() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        let ttl = Duration::from_millis(600);
        let lock = locker.lock("hung").ttl(ttl).at_most(LEAST);
        let hung = lock.acquire_blocking().unwrap();
        let start = Instant::now();
        let theirs = other.lock("hung").ttl(ttl);
        let mut next = None;
        wait::until("the next holder has it", Duration::from_secs(10), || {
            let was_held = hung.is_held();
            next = theirs.try_acquire_blocking().unwrap();
            assert!(next.is_none() || !hung.is_held() || !was_held);
            next.is_some()
        });
        let next = next.unwrap();
        assert!(start.elapsed() >= LEAST - Duration::from_millis(50));
        assert!(start.elapsed() < LEAST + ttl + Duration::from_millis(500));
        assert!(!hung.is_held());
        assert!(next.fencing_token() > hung.fencing_token());
        let error = hung.release_blocking().unwrap_err();
        assert!(
            matches!(
                error,
                Error::Lost {
                    reason: Loss::AtMost,
                    ..
                }
            ),
            "{error}"
        );
        assert!(next.verify_blocking().unwrap());
    });
}

#[test]
fn at_most_bounds_the_lease_also_where_the_ttl_is_longer() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("short").at_most(Duration::from_millis(500));
    let guard = lock.acquire_blocking().unwrap();
    let left: i64 = server.run("PTTL QUEUE:short");
    assert!(left <= 500, "{left} ms");
    guard.lost_blocking();
    let error = guard.ensure_held().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Lost {
                reason: Loss::AtMost,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_sync_body_over_its_time_is_told_and_finishes() {
    #[singleton(app = "sync", ttl = "300ms", at_most = "600ms", locker = locker, guard = guard)]
    fn overdue(locker: &AppLocker) -> Result<Option<Error>, Error> {
        guard.lost_blocking();
        Ok(guard.ensure_held().err())
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let told = overdue(&locker).unwrap().unwrap();
    assert!(matches!(told, Error::Lost { .. }), "{told}");
}

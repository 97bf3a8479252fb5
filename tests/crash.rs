//! Promise: a process that is killed while it holds a lock blocks nobody for longer
//! than the ttl, and whoever comes next has a larger fencing token.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use applock::AppLocker;
use support::child::{self, ChildProcess};
use support::redis::RedisServer;
use support::stall;
use support::wait;

const TTL: Duration = Duration::from_millis(1_000);

/// A machine that stood still for longer proves nothing about a second of grace.
const STALL: Duration = Duration::from_millis(150);

fn holds_until_killed(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let guard = locker.lock("crash").ttl(TTL).acquire_blocking().unwrap();
    child::say(guard.fencing_token());
    child::until_dismissed();
}

// F10
#[test]
fn the_lock_of_a_killed_process_is_free_within_its_ttl_and_the_next_token_is_larger() {
    if let Some(url) = child::part() {
        return holds_until_killed(&url);
    }
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let mut child = ChildProcess::start(
            "the_lock_of_a_killed_process_is_free_within_its_ttl_and_the_next_token_is_larger",
            &server.url(),
        );
        let token: u64 = child.says().parse().unwrap();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let lock = locker.lock("crash").ttl(TTL);
        let holder = lock.info_blocking().unwrap().unwrap();
        assert_eq!(holder.pid(), Some(child.id()));
        assert_eq!(holder.fencing_token(), Some(token));
        // It lives for longer than a ttl first: its heart beats.
        wait::until("two ttls are over", Duration::from_secs(20), || {
            assert!(lock.try_acquire_blocking().unwrap().is_none());
            let held_for = lock.info_blocking().unwrap().unwrap().held_for();
            held_for.unwrap() > TTL * 2
        });
        child.kill();
        let killed = Instant::now();
        let mut guard = None;
        wait::until("the lock is free", TTL + Duration::from_secs(1), || {
            guard = lock.try_acquire_blocking().unwrap();
            guard.is_some()
        });
        assert!(guard.unwrap().fencing_token() > token);
        assert!(killed.elapsed() < TTL + Duration::from_secs(1));
        let last = lock.last_holding_blocking().unwrap().unwrap();
        assert!(last.fencing_token > token);
    });
}

fn is_killed_in_its_body(url: &str) {
    #[applock::singleton(app = "crash-body", ttl = "1s", locker = locker)]
    async fn body(locker: &AppLocker) -> anyhow::Result<()> {
        child::say("in the body");
        std::future::pending().await
    }
    let locker = AppLocker::connect_blocking(url).unwrap();
    pollster::block_on(body(&locker)).unwrap();
}

#[test]
fn one_who_waits_for_a_killed_process_gets_the_lock() {
    if let Some(url) = child::part() {
        return is_killed_in_its_body(&url);
    }
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let mut child = ChildProcess::start(
            "one_who_waits_for_a_killed_process_gets_the_lock",
            &server.url(),
        );
        assert_eq!(child.says(), "in the body");
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let lock = locker.lock("crash-body").wait(Duration::from_secs(20));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let guard = lock.acquire_blocking().unwrap();
                (Instant::now(), guard)
            });
            child.kill();
            let killed = Instant::now();
            let (granted, _guard) = waiting.join().unwrap();
            let waited = granted.saturating_duration_since(killed);
            assert!(waited < TTL + Duration::from_secs(1), "{waited:?}");
        });
    });
}

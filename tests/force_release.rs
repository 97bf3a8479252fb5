//! Promise: a lock that was released by force is told to its holder at its next
//! heartbeat at the latest; stale means 'no heartbeat', and a holder whose heart beats
//! is never touched by `force_release_if_stale`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use applock::{AppLocker, Ending, Error, LockGuard, Loss};
use support::child::{self, ChildProcess};
use support::redis::RedisServer;
use support::{stall, wait};

/// A heartbeat is due each second.
const TTL: Duration = Duration::from_secs(3);

/// A machine that stood still for longer proves nothing about times.
const STALL: Duration = Duration::from_millis(150);

#[track_caller]
fn assert_taken_away(guard: &LockGuard) {
    let error = guard.ensure_held().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Lost {
                reason: Loss::Taken,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_holder_is_told_of_anothers_force_at_its_next_heartbeat_at_the_latest() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        let guard = locker.lock("forced").ttl(TTL).acquire_blocking().unwrap();
        assert!(other.lock("forced").force_release_blocking().unwrap());
        let forced = Instant::now();
        guard.lost_blocking();
        assert!(forced.elapsed() < TTL / 2, "{:?}", forced.elapsed());
        assert_taken_away(&guard);
        assert!(!other.lock("forced").force_release_blocking().unwrap());
        let last = other.lock("forced").last_holding_blocking();
        assert_eq!(last.unwrap().unwrap().ending, Ending::Forced);
    });
}

#[test]
fn a_holder_in_the_same_locker_is_told_at_once() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("forced").ttl(Duration::from_secs(60));
    let guard = lock.acquire_blocking().unwrap();
    let start = Instant::now();
    assert!(lock.force_release_blocking().unwrap());
    guard.lost_blocking();
    // Its next heartbeat would be due after 20 s.
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_taken_away(&guard);
    // The next one has it, and the evicted holder's release does not touch it.
    let next = lock.acquire_blocking().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    drop(guard);
    assert!(next.verify_blocking().unwrap());
}

fn forces(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    child::say(locker.lock("forced").force_release_blocking().unwrap());
}

#[test]
fn a_holder_is_told_of_another_processes_force() {
    if let Some(url) = child::part() {
        return forces(&url);
    }
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let guard = locker.lock("forced").ttl(TTL).acquire_blocking().unwrap();
        let child =
            ChildProcess::start("a_holder_is_told_of_another_processes_force", &server.url());
        assert_eq!(child.says(), "true");
        let forced = Instant::now();
        guard.lost_blocking();
        assert!(forced.elapsed() < TTL / 2, "{:?}", forced.elapsed());
        assert_taken_away(&guard);
        child.dismiss();
    });
}

// F6
#[test]
fn a_holder_whose_heart_beats_is_not_stale_however_long_it_holds() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        // A heartbeat each 200 ms, and three times as long without one is stale.
        let ttl = Duration::from_millis(600);
        let stale = Duration::from_millis(550);
        let guard = locker.lock("beats").ttl(ttl).acquire_blocking().unwrap();
        let lock = other.lock("beats");
        wait::until("it is held for longer", Duration::from_secs(20), || {
            assert!(!lock.force_release_if_stale_blocking(stale).unwrap());
            guard.held_for() > stale * 4
        });
        guard.ensure_held().unwrap();
        assert!(guard.verify_blocking().unwrap());
        guard.release_blocking().unwrap();
        assert!(!lock.force_release_if_stale_blocking(stale).unwrap());
    });
}

// F6
#[test]
fn a_stale_time_shorter_than_the_heartbeats_interval_does_not_kill_a_beating_heart() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        // A heartbeat each second: that long is every heart silent at a time.
        let guard = locker.lock("slow").ttl(TTL).acquire_blocking().unwrap();
        let lock = other.lock("slow");
        wait::until("three heartbeats", Duration::from_secs(20), || {
            for stale in [Duration::ZERO, Duration::from_millis(300)] {
                let killed = lock.force_release_if_stale_blocking(stale).unwrap();
                assert!(!killed, "killed after {:?}", guard.held_for());
            }
            guard.held_for() > TTL
        });
        guard.ensure_held().unwrap();
    });
}

#[test]
fn a_lock_that_at_least_keeps_is_not_stale() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("kept").ttl(Duration::from_millis(100));
    let least = lock.clone().at_least(Duration::from_secs(30));
    least
        .acquire_blocking()
        .unwrap()
        .release_blocking()
        .unwrap();
    assert!(
        !lock
            .force_release_if_stale_blocking(Duration::ZERO)
            .unwrap()
    );
    assert!(lock.try_acquire_blocking().unwrap().is_none());
    assert!(lock.force_release_blocking().unwrap());
    assert!(lock.try_acquire_blocking().unwrap().is_some());
}

/// Its heart may be silent for half of that before it counts as stopped.
const STOPPED_TTL: Duration = Duration::from_secs(4);

fn holds(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let lock = locker.lock("stopped").ttl(STOPPED_TTL);
    let guard = lock.acquire_blocking().unwrap();
    child::say(guard.fencing_token());
    child::until_dismissed();
    // Taken away, or run out while we stood still.
    assert!(!guard.verify_blocking().unwrap());
    assert!(matches!(guard.ensure_held(), Err(Error::Lost { .. })));
}

#[test]
fn a_holder_whose_heart_has_stopped_is_released_as_stale_and_learns_of_it() {
    if let Some(url) = child::part() {
        return holds(&url);
    }
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let lock = locker.lock("stopped");
        let child = ChildProcess::start(
            "a_holder_whose_heart_has_stopped_is_released_as_stale_and_learns_of_it",
            &server.url(),
        );
        let token: u64 = child.says().parse().unwrap();
        child.freeze();
        let stale = Duration::from_millis(2_500);
        // Stale only once the time has passed, by the server's clock, and long before the
        // ttl is over.
        wait::until("it is stale", Duration::from_secs(60), || {
            lock.force_release_if_stale_blocking(stale).unwrap()
        });
        let last = lock.last_holding_blocking().unwrap().unwrap();
        assert_eq!((last.fencing_token, last.ending), (token, Ending::Forced));
        let held_for = last.until.unwrap().duration_since(last.from).unwrap();
        assert!(held_for >= stale, "released after {held_for:?} already");
        let next = lock.acquire_blocking().unwrap();
        assert!(next.fencing_token() > token);
        child.thaw();
        child.dismiss();
        assert!(next.verify_blocking().unwrap());
    });
}

// F19
#[test]
fn a_foreign_lock_is_never_stale_and_only_the_hammer_frees_it() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("foreign");
    let () = server.run("SET QUEUE:foreign somebody PX 60000");
    assert!(
        !lock
            .force_release_if_stale_blocking(Duration::ZERO)
            .unwrap()
    );
    assert_eq!(server.run::<String>("GET QUEUE:foreign"), "somebody");
    assert!(lock.force_release_blocking().unwrap());
    assert!(!server.run::<bool>("EXISTS QUEUE:foreign"));
    // What is no lock at all is left alone even then.
    let () = server.run("RPUSH QUEUE:foreign one");
    let error = lock.force_release_blocking().unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains("list"), "{error}");
    assert_eq!(server.run::<i64>("LLEN QUEUE:foreign"), 1);
}

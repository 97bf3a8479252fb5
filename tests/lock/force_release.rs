//! Promise: a release by force is reported to the holder at its next
//! heartbeat at the latest; stale means 'no heartbeat', and a holder whose heart beats
//! is never touched by `force_release_if_stale` (F6).

use std::time::{Duration, Instant};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::{KEPT, LIMIT, assert_lost, view};
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Ending, Error, Loss};

/// A heartbeat is due every three seconds. That a loss is reported as `Taken` shows that a
/// heartbeat has found it: if none had, it would be `Expired`.
const TTL: Duration = Duration::from_secs(9);

#[test]
fn a_holder_learns_of_anothers_force_at_its_next_heartbeat_at_the_latest() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("forced").ttl(TTL).acquire_blocking().unwrap();
    assert!(other.lock("forced").force_release_blocking().unwrap());
    guard.lost_blocking();
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
    assert!(!other.lock("forced").force_release_blocking().unwrap());
    let last = other.lock("forced").last_holding_blocking();
    assert_eq!(last.unwrap().unwrap().ending, Ending::Forced);
}

#[test]
fn a_holder_in_the_same_locker_learns_of_it_at_once() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("forced").ttl(Duration::from_secs(180));
    let guard = lock.acquire_blocking().unwrap();
    let start = Instant::now();
    assert!(lock.force_release_blocking().unwrap());
    guard.lost_blocking();
    // Its next heartbeat would be due after 54 s at the least.
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
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
fn a_holder_learns_of_another_processes_force() {
    if let Some(url) = child::part() {
        return forces(&url);
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("forced").ttl(TTL).acquire_blocking().unwrap();
    let child = ChildProcess::start(
        child::name_of(a_holder_learns_of_another_processes_force),
        &server.url(),
    );
    assert_eq!(child.says(), "true");
    guard.lost_blocking();
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
    child.dismiss();
}

#[test]
fn a_holder_whose_heart_beats_is_not_stale_however_long_it_holds() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    // A heartbeat each second and a third; three times as long without one is stale.
    let stale = KEPT - Duration::from_millis(50);
    let guard = locker.lock("beats").ttl(KEPT).acquire_blocking().unwrap();
    let lock = other.lock("beats");
    wait::until("it is held for longer", LIMIT, || {
        assert!(!lock.force_release_if_stale_blocking(stale).unwrap());
        guard.held_for() > stale * 2
    });
    guard.ensure_held().unwrap();
    assert!(guard.verify_blocking().unwrap());
    guard.release_blocking().unwrap();
    assert!(!lock.force_release_if_stale_blocking(stale).unwrap());
}

#[test]
fn a_stale_time_shorter_than_the_heartbeats_interval_does_not_kill_a_beating_heart() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    // A heartbeat every four seconds: that long is every heart silent at a time.
    let ttl = Duration::from_secs(12);
    let guard = locker.lock("slow").ttl(ttl).acquire_blocking().unwrap();
    let lock = other.lock("slow");
    let stale = Duration::from_secs(2);
    let mut silent = 0;
    wait::until("a heart silent for longer", LIMIT, || {
        let seen = view(&server, "QUEUE:slow").expect("the lock is taken");
        for time in [Duration::ZERO, stale] {
            let killed = lock.force_release_if_stale_blocking(time).unwrap();
            assert!(!killed, "killed after {:?}", guard.held_for());
        }
        silent += u32::from(seen.ttl - seen.left > stale);
        silent > 20
    });
    guard.ensure_held().unwrap();
}

#[test]
fn a_lock_that_at_least_keeps_is_not_stale() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("kept").ttl(KEPT).wait(LIMIT);
    let least = lock.clone().at_least(Duration::from_secs(60));
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
const STOPPED_TTL: Duration = Duration::from_secs(10);

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
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("stopped");
    let child = ChildProcess::start(
        child::name_of(a_holder_whose_heart_has_stopped_is_released_as_stale_and_learns_of_it),
        &server.url(),
    );
    let token: u64 = child.says().parse().unwrap();
    child.freeze();
    let stale = STOPPED_TTL * 11 / 20;
    // Stale only once the time has passed, by the server's clock, and long before the
    // ttl is over.
    wait::until("it is stale", LIMIT, || {
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
}

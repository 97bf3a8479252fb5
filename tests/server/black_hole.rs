//! Promise: a network that swallows everything while its connections stay open costs no
//! holder a lock that can be kept, and makes none believe in one that can't (F2, F7).

use std::thread;
use std::time::{Duration, Instant};

use crate::support::proxy::{Call, Direction, Event, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::steps::{
    COMMAND, LONG, assert_lost, assert_unavailable, assert_verified, end_of, impatient, is_taken,
    last_yes, take, until_free,
};
use crate::support::wait;
use applock::{AppLocker, Error, Loss};

/// A lease that must be kept: the connection is found dead within a few time-outs, and
/// most of what is left then is for a busy machine.
const KEPT: Duration = Duration::from_secs(15);

/// A lease that is to end.
const SHORT: Duration = Duration::from_secs(3);

/// Many command time-outs, and little beside an operating system's.
const PROMPT: Duration = Duration::from_secs(5);

/// Cuts the connection of a holder in `direction`, and sees its lock kept over another.
fn is_kept(direction: Direction) {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = impatient(proxy.url());
    let guard = take(&locker.lock("job").ttl(KEPT));
    let token = guard.fencing_token();
    assert_verified(&guard);
    let rival = AppLocker::connect_blocking(server.url()).unwrap();
    let rival = rival.lock("job");
    let (dials, beats) = (proxy.dials(), proxy.count(Event::Answered(Call::Renew)));

    proxy.black_hole_old(direction);
    // A heartbeat at once. It fails, and the engine concludes nothing from that.
    assert_unavailable(guard.verify_blocking());
    wait::until("the engine dials anew", LONG, || {
        assert!(guard.is_held());
        assert!(rival.try_acquire_blocking().unwrap().is_none());
        proxy.dials() > dials
    });
    proxy.until(Event::Answered(Call::Renew), beats + 1);
    assert_verified(&guard);
    assert!(rival.try_acquire_blocking().unwrap().is_none());
    assert_eq!(guard.fencing_token(), token);
    assert_eq!(server.run::<u64>("HGET QUEUE:job token"), token);
    // What comes to life of the old connection changes nothing either.
    proxy.heal();
    assert_verified(&guard);
    drop(guard);
    until_free(&server, "QUEUE:job", LONG);
}

// F2
#[test]
fn a_connection_that_swallows_everything_is_dialled_anew_and_the_lock_is_kept() {
    is_kept(Direction::Both);
}

// F2
#[test]
fn a_connection_that_loses_the_answers_is_dialled_anew_and_the_lock_is_kept() {
    is_kept(Direction::ToClient);
}

// F2
#[test]
fn a_connection_that_loses_the_requests_is_dialled_anew_and_the_lock_is_kept() {
    is_kept(Direction::ToServer);
}

// F2
#[test]
fn the_heartbeat_alone_finds_a_dead_connection_in_time() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = impatient(proxy.url());
    let guard = take(&locker.lock("job").ttl(KEPT));
    proxy.black_hole_old(Direction::Both);
    // No caller asks: by itself, within the lease.
    proxy.until(Event::Answered(Call::Renew), 1);
    assert!(proxy.dials() > 1);
    assert!(guard.is_held());
    assert_verified(&guard);
}

/// The holder learns of its loss before the ttl is over at the server, if no request reaches it.
fn learns_in_time(direction: Direction) {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = impatient(proxy.url());
    let guard = take(&locker.lock("job").ttl(SHORT));
    proxy.black_hole(direction);
    // Sent, if at all, before the hole was there.
    let beats = proxy.count(Event::Executed(Call::Renew));
    let end = end_of(&server, "QUEUE:job");
    let last = last_yes(&guard, || ());
    assert!(last < end, "'held' {:?} too long", last.duration_since(end));
    assert_eq!(proxy.count(Event::Executed(Call::Renew)), beats);
    guard.lost_blocking();
    assert_lost(&guard, Loss::Expired);
    // Others get it when the ttl is over, and what comes to life then is not theirs.
    let rival = AppLocker::connect_blocking(server.url()).unwrap();
    let rival = take(&rival.lock("job").ttl(LONG));
    assert!(rival.fencing_token() > guard.fencing_token());
    proxy.heal();
    assert!(!guard.verify_blocking().unwrap());
    let error = guard.release_blocking().unwrap_err();
    assert!(matches!(
        error,
        Error::Lost {
            reason: Loss::Expired,
            ..
        }
    ));
    proxy.until(Event::Executed(Call::Release), 1);
    assert_verified(&rival);
}

// F1, F2
#[test]
fn a_holder_in_a_black_hole_learns_of_its_loss_before_its_ttl_is_over_at_the_server() {
    learns_in_time(Direction::Both);
}

// F1, F2
#[test]
fn a_holder_whose_requests_get_lost_learns_of_its_loss_before_its_ttl_is_over_at_the_server() {
    learns_in_time(Direction::ToServer);
}

// F2
#[test]
fn a_holder_that_gets_no_answers_learns_of_its_loss_while_the_server_still_keeps_its_lock() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = impatient(proxy.url());
    let guard = take(&locker.lock("job").ttl(SHORT));
    proxy.black_hole(Direction::ToClient);
    // The server gets the heartbeats: whatever it says, the guard may not say more.
    last_yes(&guard, || {
        let before = is_taken(&server, "QUEUE:job");
        assert!(before || !guard.is_held());
    });
    assert_lost(&guard, Loss::Expired);
    // And it gets the release.
    assert!(guard.release_blocking().is_err());
    until_free(&server, "QUEUE:job", LONG);
}

/// A caller that asks while nothing passes gets 'unavailable', soon, and never 'busy'.
fn is_unavailable(direction: Direction) {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = impatient(proxy.url());
    let lock = locker.lock("job").ttl(LONG);
    // The scripts are known, and the lock is free.
    drop(take(&lock));
    until_free(&server, "QUEUE:job", LONG);
    proxy.black_hole(direction);
    for _ in 0..4 {
        let start = Instant::now();
        assert_unavailable(lock.try_acquire_blocking());
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    }
    let start = Instant::now();
    assert_unavailable(lock.clone().wait(COMMAND * 3).acquire_blocking());
    assert!(start.elapsed() >= COMMAND * 3, "it was to try on");
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    // A caller that waits long enough gets it.
    let waiting = thread::spawn({
        let lock = lock.clone().wait(LONG);
        move || lock.acquire_blocking()
    });
    proxy.until_next(Event::Dialled, || ());
    proxy.heal();
    let guard = waiting.join().unwrap().unwrap();
    assert_verified(&guard);
    drop(guard);
    // And nothing of what was sent before is left behind.
    until_free(&server, "QUEUE:job", LONG / 2);
}

// F2, F7
#[test]
fn a_black_hole_is_unavailable_and_never_busy() {
    is_unavailable(Direction::Both);
}

// F2, F4, F7
#[test]
fn lost_answers_are_unavailable_and_no_caller_is_busy_by_itself() {
    is_unavailable(Direction::ToClient);
}

// F2, F4, F7
#[test]
fn lost_requests_are_unavailable_and_never_busy() {
    is_unavailable(Direction::ToServer);
}

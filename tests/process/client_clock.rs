//! Promise: what a client's wall clock shows, and how it is set, changes nothing of who
//! has a lock and for how long: no absolute time of a client goes to the store (F14, R1).

use std::time::{Duration, SystemTime};

use crate::support::clock::SetClock;
use crate::support::redis::RedisServer;
use crate::support::steps::{LONG, assert_verified, end_of, is_taken, last_yes, take, until_free};
use crate::support::wait;
use applock::AppLocker;

const KEY: &str = "QUEUE:job";

/// What clocks are off by: more and less than the ttls here.
const OFF: [i64; 4] = [10, -10, 600, -600];

const TTL: Duration = Duration::from_secs(30);

/// A lease that is to run out, without a heartbeat.
const SHORT: Duration = Duration::from_secs(3);

fn locker(server: &RedisServer, clock: &SetClock) -> AppLocker {
    let builder = AppLocker::builder().store(server.url());
    builder.clock(clock.clone()).build().unwrap()
}

fn ttl_at(server: &RedisServer) -> Duration {
    Duration::from_millis(server.run("PTTL QUEUE:job"))
}

// F14
#[test]
fn clients_whose_clocks_are_off_exclude_each_other_and_have_full_leases() {
    let server = RedisServer::start();
    let right = AppLocker::connect_blocking(server.url()).unwrap();
    let right = right.lock("job").ttl(TTL);
    let mut last = 0;
    for off in OFF {
        let wrong = locker(&server, &SetClock::off_by(off));
        let wrong = wrong.lock("job").ttl(TTL);
        for (one, other) in [(&wrong, &right), (&right, &wrong)] {
            let guard = take(one);
            assert!(other.try_acquire_blocking().unwrap().is_none());
            // The lease is the one that was asked for, and neither side thinks otherwise.
            assert_verified(&guard);
            let (at_server, here) = (ttl_at(&server), guard.remaining());
            assert!(at_server <= TTL && at_server > TTL / 2, "{at_server:?}");
            assert!(here < TTL && here > TTL / 2, "{here:?}");
            // Other callers learn what the server's clock says.
            let info = other.info_blocking().unwrap().unwrap();
            assert!(info.remaining().unwrap() <= TTL);
            assert!(info.held_for().unwrap() < TTL / 2);
            let since = info.acquired_at().unwrap();
            assert!(since <= SystemTime::now() + Duration::from_secs(1));
            assert!(guard.fencing_token() > last);
            last = guard.fencing_token();
            drop(guard);
            until_free(&server, KEY, LONG);
        }
    }
}

// F14
#[test]
fn a_lease_without_a_heartbeat_ends_at_its_time_whatever_the_walls_show() {
    for off in OFF {
        let server = RedisServer::start();
        let dead = locker(&server, &SetClock::off_by(off));
        let dead = take(&dead.lock("job").ttl(SHORT));
        let end = end_of(&server, KEY);
        server.freeze();
        let last = last_yes(&dead, || ());
        assert!(last < end, "off by {off} s: 'held' too long");
        assert!(
            SystemTime::now() > end - SHORT / 2,
            "off by {off} s: lost too early"
        );
        server.thaw();
    }
}

// F14
#[test]
fn a_wall_clock_that_is_set_while_a_lock_is_held_costs_no_holder_the_lock() {
    let server = RedisServer::start();
    let rival = AppLocker::connect_blocking(server.url()).unwrap();
    let rival = rival.lock("job").ttl(TTL);
    for off in OFF {
        let clock = SetClock::default();
        let holder = locker(&server, &clock);
        let guard = take(&holder.lock("job").ttl(TTL));
        let token = guard.fencing_token();
        clock.step(off);
        // A step forward may be a suspend: the guard may ask first. It is not lost.
        wait::until("the guard is held", LONG, || {
            assert!(rival.try_acquire_blocking().unwrap().is_none());
            guard.is_held()
        });
        assert_verified(&guard);
        clock.step(-off);
        assert_verified(&guard);
        assert_eq!(guard.fencing_token(), token);
        assert_eq!(server.run::<u64>("HGET QUEUE:job token"), token);
        let left = ttl_at(&server);
        assert!(left <= TTL && left > TTL / 2, "{off}: {left:?}");
        drop(guard);
        until_free(&server, KEY, LONG);
    }
}

// F14
#[test]
fn waiting_and_releasing_go_by_no_wall_clock() {
    let server = RedisServer::start();
    let clock = SetClock::default();
    let waiter = locker(&server, &clock).lock("job").ttl(TTL);
    let holder = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = take(&holder.lock("job").ttl(TTL));
    let waiting = std::thread::spawn({
        let waiter = waiter.clone();
        move || take(&waiter)
    });
    for off in OFF {
        clock.step(off);
        // Still waiting, and still kept out.
        assert!(waiter.try_acquire_blocking().unwrap().is_none());
        assert!(!waiting.is_finished());
    }
    drop(guard);
    let guard = waiting.join().unwrap();
    assert_verified(&guard);
    clock.step(-600);
    drop(guard);
    until_free(&server, KEY, LONG);
    assert!(!is_taken(&server, KEY));
}

//! Promise: a holding is remembered for as long as it is to be, and after that nothing of it is
//! left on Redis; the length is set at the function, the lock or the builder, and is shorter for
//! names that are made of arguments.

use std::time::Duration;

use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::clock::ManualClock;
use applock::{AppLocker, Error, Lock, MemoryStore, singleton};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn in_virtual_time() -> (AppLocker, ManualClock) {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let builder = AppLocker::builder().store(store).clock(clock.clone());
    (builder.build().unwrap(), clock)
}

fn held_once(lock: &Lock) {
    let guard = lock.acquire_blocking().unwrap();
    guard.release_blocking().unwrap();
}

fn is_remembered(lock: &Lock) -> bool {
    lock.last_holding_blocking().unwrap().is_some()
}

#[test]
fn a_holding_is_remembered_for_as_long_as_it_is_to_be_and_not_longer() {
    let (locker, clock) = in_virtual_time();
    let (short, long) = (
        locker.lock("short").remember(HOUR),
        locker.lock("long").remember(DAY),
    );
    held_once(&short);
    held_once(&long);
    clock.advance(HOUR - Duration::from_millis(1));
    assert!(is_remembered(&short) && is_remembered(&long));
    clock.advance(Duration::from_millis(1));
    assert!(!is_remembered(&short) && is_remembered(&long));
    // A lock that is held is not forgotten, however long that is.
    let guard = short.acquire_blocking().unwrap();
    clock.advance(Duration::from_secs(30));
    assert!(short.info_blocking().unwrap().is_some() && is_remembered(&short));
    guard.release_blocking().unwrap();
}

/// What is forgotten forbids nothing: a job that is due each month is remembered for two.
#[test]
fn a_run_is_remembered_for_twice_as_long_as_the_next_one_is_due() {
    let (locker, clock) = in_virtual_time();
    for lock in [locker.lock("a"), locker.lock("b").remember(HOUR)] {
        let lock = lock.every(DAY * 30);
        held_once(&lock);
        clock.advance(DAY * 26);
        let refused = lock.acquire_blocking().unwrap_err();
        assert!(matches!(refused, Error::AlreadyRan(_)), "{refused}");
        clock.advance(DAY * 34 - Duration::from_millis(1));
        assert!(is_remembered(&lock));
        clock.advance(Duration::from_millis(1));
        assert!(!is_remembered(&lock));
        // One that is to be remembered for longer is.
        let longer = lock.remember(DAY * 100);
        held_once(&longer);
        clock.advance(DAY * 99);
        assert!(is_remembered(&longer));
    }
}

/// On each kind of store, with a fence or a record that the next holding writes anew.
#[test]
fn a_tick_is_not_forgotten_through_a_holding_that_is_remembered_for_a_short_time() {
    let server = RedisServer::start();
    let home = tempfile::tempdir().unwrap();
    let directory = format!("dir:{}", home.path().display());
    let short = Duration::from_millis(300);
    for store in [server.url(), directory, "memory:".to_owned()] {
        let locker = AppLocker::connect_blocking(&store).unwrap();
        let (a, b) = (locker.lock("a"), locker.lock("b"));
        for (plain, due) in [(a.clone(), a.tick(7)), (b.clone(), b.every(HOUR))] {
            held_once(&due);
            // Given back, and forced; with a heartbeat between.
            let guard = plain.clone().remember(short).acquire_blocking().unwrap();
            assert!(guard.verify_blocking().unwrap());
            guard.release_blocking().unwrap();
            let guard = plain.clone().remember(short).acquire_blocking().unwrap();
            assert!(plain.force_release_blocking().unwrap());
            drop(guard);
            std::thread::sleep(short * 2);
            let refused = due.acquire_blocking().unwrap_err();
            assert!(
                matches!(refused, Error::AlreadyRan(_)),
                "{store}: {refused}"
            );
        }
    }
}

#[test]
fn a_directory_answers_nothing_of_what_is_no_longer_remembered() {
    let home = tempfile::tempdir().unwrap();
    let locker = AppLocker::connect_blocking(format!("dir:{}", home.path().display())).unwrap();
    let lock = locker.lock("short").remember(Duration::from_millis(300));
    held_once(&lock);
    wait::until("it is forgotten", LIMIT, || !is_remembered(&lock));
    held_once(&lock);
}

#[test]
fn nothing_is_left_on_redis_of_a_name_after_its_time() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("short").remember(Duration::from_millis(300));
    let first = lock.acquire_blocking().unwrap();
    let token = first.fencing_token();
    first.release_blocking().unwrap();
    wait::until("nothing is left", LIMIT, || {
        server.run::<i64>("DBSIZE") == 0
    });
    assert!(!is_remembered(&lock));
    let next = lock.acquire_blocking().unwrap();
    assert!(next.fencing_token() > token);
    // The fence of a lock that is held outlives the lease, however short it is to be remembered.
    let left: i64 = server.run("PTTL {QUEUE:short}:fence");
    assert!(left > 50_000, "{left} ms");
}

#[singleton(app = "plain", locker = locker)]
fn plain(locker: &AppLocker) -> Result<(), Error> {
    Ok(())
}

#[singleton(app = "orders", name = "order-{id}", locker = locker)]
fn of_arguments(locker: &AppLocker, id: u32) -> Result<(), Error> {
    Ok(())
}

#[singleton(app = "orders", name = "day-{id}", remember = "1d", locker = locker)]
fn says(locker: &AppLocker, id: u32) -> Result<(), Error> {
    Ok(())
}

/// For how long the fence is kept after a release, within some time for the test itself.
#[track_caller]
fn assert_remembered(server: &RedisServer, key: &str, length: Duration) {
    let left: u64 = server.run(&format!("PTTL {{{key}}}:fence"));
    let left = Duration::from_millis(left);
    assert!(
        left <= length && left + LIMIT > length,
        "{key}: {left:?}, not {length:?}"
    );
}

#[test]
fn the_function_the_lock_and_the_builder_say_for_how_long() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    plain(&locker).unwrap();
    of_arguments(&locker, 7).unwrap();
    says(&locker, 7).unwrap();
    held_once(&locker.lock("lock").remember(HOUR));
    assert_remembered(&server, "QUEUE:plain", WEEK);
    assert_remembered(&server, "QUEUE:orders:order-7", HOUR);
    assert_remembered(&server, "QUEUE:orders:day-7", DAY);
    assert_remembered(&server, "QUEUE:lock", HOUR);
    let locker = AppLocker::builder()
        .store(server.url())
        .remember(DAY)
        .build()
        .unwrap();
    plain(&locker).unwrap();
    assert_remembered(&server, "QUEUE:plain", DAY);
    let refused = locker.lock("lock").remember(Duration::ZERO);
    assert!(matches!(refused.acquire_blocking(), Err(Error::Invalid(_))));
}

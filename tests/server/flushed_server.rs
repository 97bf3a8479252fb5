//! Promise: a lock that vanished in a FLUSHALL is reported as lost at the next heartbeat,
//! and the next token is larger than any before; scripts that a SCRIPT FLUSH made the server
//! forget are taught again, and the lock is kept (F18).

use std::time::Duration;

use crate::support::lease::{KEPT, LIMIT, assert_lost_for_good, outlives_its_ttl};
use crate::support::redis::RedisServer;
use crate::support::refusal::runs;
use applock::{AppLocker, Loss};

#[test]
fn a_lock_that_vanished_is_reported_as_lost_at_the_next_heartbeat() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker
        .lock("flushed")
        .ttl(Duration::from_secs(9))
        .wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    let () = server.run("FLUSHALL");
    guard.lost_blocking();
    // By the store's own word, not because the lease ran out.
    assert_lost_for_good(&guard, Loss::Taken);
    assert!(runs(&locker));
}

#[test]
fn after_each_flush_the_next_token_is_larger_still() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("flushed");
    let mut last = 0;
    for _ in 0..5 {
        let guard = lock.acquire_blocking().unwrap();
        assert!(guard.fencing_token() > last);
        last = guard.fencing_token();
        let () = server.run("FLUSHALL");
    }
}

#[test]
fn scripts_that_the_server_forgot_are_taught_again_and_the_lock_is_kept() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("scripts").ttl(KEPT).wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    let () = server.run("SCRIPT FLUSH");
    assert!(guard.verify_blocking().unwrap());
    let () = server.run("SCRIPT FLUSH");
    assert!(runs(&locker));
    let () = server.run("SCRIPT FLUSH");
    // The heartbeat teaches its own.
    outlives_its_ttl(&server, "QUEUE:scripts");
    guard.ensure_held().unwrap();
    let () = server.run("SCRIPT FLUSH");
    guard.release_blocking().unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:scripts"));
}

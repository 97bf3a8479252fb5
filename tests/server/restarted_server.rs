//! Promise: over a restart of a server that keeps its data a lock is kept; a lock that a
//! restart forgot is reported as lost, and the next token is larger (F18).

use std::time::Duration;

use crate::support::fault::Fault;
use crate::support::lease::{LIMIT, assert_lost_for_good};
use crate::support::redis::RedisServer;
use crate::support::refusal::assert_unavailable;
use crate::support::wait;
use applock::{AppLocker, Loss};

#[test]
fn a_lock_is_kept_over_a_restart_with_its_data() {
    Fault {
        server: RedisServer::durable,
        begins: RedisServer::kill,
        reported: |_, error| assert_unavailable(error, &["QUEUE:job", "127.0.0.1"]),
        ends: RedisServer::restart,
    }
    .passes();
}

#[test]
fn a_lock_that_a_restart_forgot_is_reported_as_lost() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker
        .lock("restart")
        .ttl(Duration::from_secs(60))
        .wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    let token = guard.fencing_token();
    server.restart();
    wait::until("the loss is noticed", LIMIT, || {
        !guard.verify_blocking().unwrap_or(true)
    });
    assert_lost_for_good(&guard, Loss::Taken);
    assert!(lock.acquire_blocking().unwrap().fencing_token() > token);
}

#[test]
fn a_heartbeat_finds_out_by_itself() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker
        .lock("restart")
        .ttl(Duration::from_secs(9))
        .wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    server.restart();
    guard.lost_blocking();
    // By the store's own word, not because the lease ran out.
    assert_lost_for_good(&guard, Loss::Taken);
}

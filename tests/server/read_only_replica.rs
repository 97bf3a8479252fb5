//! Promise: a replica takes no locks: it is reported as unavailable, whether the lock is
//! free or held; and a master that becomes a replica for a while costs no lock, for nothing
//! that it says then is believed (F20).

use crate::support::fault::Fault;
use crate::support::lease::LIMIT;
use crate::support::ports::nowhere;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_unavailable, is_taken, refusal};
use crate::support::wait;
use applock::AppLocker;

/// The replica of a master that is not there.
fn demote(server: &mut RedisServer) {
    server.run(&format!("REPLICAOF 127.0.0.1 {}", nowhere()))
}

const READ_ONLY: Fault = Fault {
    server: RedisServer::start,
    begins: demote,
    reported: |server, error| {
        assert_unavailable(error, &["QUEUE:job", "read-only replica", "master"]);
        assert!(!is_taken(server));
    },
    ends: |server| server.run("REPLICAOF NO ONE"),
};

const MASTER_DOWN: Fault = Fault {
    server: || RedisServer::with(&["--replica-serve-stale-data", "no"]),
    reported: |_, error| assert_unavailable(error, &["QUEUE:job", "replica", "master"]),
    ..READ_ONLY
};

#[test]
fn a_lock_is_kept_if_its_server_is_the_master_again_in_time() {
    READ_ONLY.passes();
}

#[test]
fn a_holder_learns_of_its_loss_in_time_if_its_server_stays_a_replica() {
    READ_ONLY.lasts();
}

#[test]
fn a_lock_is_kept_over_a_replica_that_refuses_even_to_read() {
    MASTER_DOWN.passes();
}

#[test]
fn a_holder_learns_of_its_loss_in_time_if_its_server_refuses_even_to_read() {
    MASTER_DOWN.lasts();
}

#[test]
fn a_replica_is_unavailable_whether_the_lock_is_free_or_held() {
    let master = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start();
    let () = replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let at_master = AppLocker::connect_blocking(master.url()).unwrap();
    let _held = at_master.lock("held").acquire_blocking().unwrap();
    wait::until("the replica follows", LIMIT, || {
        replica.run("EXISTS QUEUE:held")
    });
    let locker = AppLocker::connect_blocking(replica.url()).unwrap();
    assert_unavailable(&refusal(&locker), &["read-only replica", "master"]);
    assert!(!is_taken(&replica));
    // Not 'busy' either: a replica may remember what is long over.
    let error = locker.lock("held").acquire_blocking().unwrap_err();
    assert_unavailable(&error, &["read-only replica"]);
}

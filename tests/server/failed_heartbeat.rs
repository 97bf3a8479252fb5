//! Promise: a heartbeat that fails is not a loss: it is tried again until the lease's own
//! end, over a connection that the server has cut, and over several in a row (F3).

use crate::support::fault::Fault;
use crate::support::lease::{KEPT, LIMIT, next_heartbeat};
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_denied, is_taken};
use applock::AppLocker;

/// Every heartbeat is refused, and so is every other step, while the server is well.
const REFUSED: Fault = Fault {
    server: RedisServer::start,
    begins: |server| server.run("ACL SETUSER default -evalsha -eval"),
    reported: |server, error| {
        assert_denied(error, &["QUEUE:job", "lacks a right"]);
        assert!(!is_taken(server));
    },
    ends: |server| server.run("ACL SETUSER default +evalsha +eval"),
};

#[test]
fn heartbeats_that_are_refused_for_a_while_cost_no_lock() {
    REFUSED.passes();
}

#[test]
fn heartbeats_that_are_refused_until_the_lease_ends_are_reported_in_time() {
    REFUSED.lasts();
}

#[test]
fn a_connection_that_the_server_cuts_again_and_again_costs_no_lock() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("cut").ttl(KEPT).wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    for _ in 0..3 {
        // The next heartbeat finds its connection cut.
        let () = server.run("CLIENT KILL TYPE normal SKIPME yes");
        next_heartbeat(&server, "QUEUE:cut");
    }
    guard.ensure_held().unwrap();
    guard.release_blocking().unwrap();
}

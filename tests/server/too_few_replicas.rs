//! Promise: a server that refuses to write for want of replicas (NOREPLICAS) is reported as
//! unavailable; a lock is kept if they are back in time, and reported as lost before its
//! lease is over if they are not (F20).

use crate::support::fault::Fault;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_unavailable, is_taken};

const NO_REPLICAS: Fault = Fault {
    server: RedisServer::start,
    begins: |server| server.run("CONFIG SET min-replicas-to-write 1"),
    reported: |server, error| {
        assert_unavailable(error, &["QUEUE:job", "replicas"]);
        assert!(!is_taken(server));
    },
    ends: |server| server.run("CONFIG SET min-replicas-to-write 0"),
};

#[test]
fn a_lock_is_kept_if_they_are_back_in_time() {
    NO_REPLICAS.passes();
}

#[test]
fn a_holder_learns_of_its_loss_in_time_if_they_are_not() {
    NO_REPLICAS.lasts();
}

//! Promise: a server whose clients are paused (CLIENT PAUSE, of all commands or of those
//! that write) costs no lock if the pause is shorter than the lease; if it is longer,
//! the holder learns of its loss in time, and what was sent meanwhile and is carried out at
//! the pause's end does no harm (F1, F4).

use crate::support::fault::Fault;
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::refusal::assert_unavailable;
use crate::support::wait;

const WRITES: Fault = Fault {
    server: RedisServer::start,
    begins: |server| server.run("CLIENT PAUSE 600000 WRITE"),
    reported: |_, error| assert_unavailable(error, &["QUEUE:job", "no answer in time"]),
    ends: |server| server.run("CLIENT UNPAUSE"),
};

/// No client can end this one: it is over after so many milliseconds.
const ALL: Fault = Fault {
    begins: |server| server.run("CLIENT PAUSE 7500 ALL"),
    ends: |server| wait::until("the pause is over", LIMIT, || server.answers()),
    ..WRITES
};

#[test]
fn a_lock_is_kept_over_a_pause_of_writes_that_is_shorter_than_its_lease() {
    WRITES.passes();
}

#[test]
fn a_lock_is_kept_over_a_pause_of_everything_that_is_shorter_than_its_lease() {
    ALL.passes();
}

#[test]
fn a_pause_of_writes_that_is_longer_than_the_lease_is_reported_in_time() {
    WRITES.lasts();
}

#[test]
fn a_pause_of_everything_that_is_longer_than_the_lease_is_reported_in_time() {
    ALL.lasts();
}

//! Promise: under a server that stands still (SIGSTOP) a holder learns of its loss before
//! its lease is over, with no answer from the server; a caller that asks learns that there
//! is no answer, and a request without an answer leaves no lock behind (F1, F4).

use std::time::{Duration, Instant, SystemTime};

use crate::support::fault::Fault;
use crate::support::lease::{LIMIT, assert_lost};
use crate::support::probe::Probe;
use crate::support::redis::RedisServer;
use crate::support::refusal::{QUICKLY, assert_unavailable, is_taken, refusal, runs};
use crate::support::wait;
use applock::{AppLocker, Error, Loss, singleton};

const FROZEN: Fault = Fault {
    server: RedisServer::start,
    begins: |server| server.freeze(),
    reported: |_, error| assert_unavailable(error, &["QUEUE:job", "no answer in time"]),
    ends: |server| server.thaw(),
};

#[test]
fn a_lock_is_kept_over_a_freeze_that_is_shorter_than_its_lease() {
    FROZEN.passes();
}

#[test]
fn a_guard_is_lost_before_the_ttl_is_over_and_for_good() {
    FROZEN.lasts();
}

#[singleton(app = "frozen-body", ttl = "6s", locker = locker, guard = guard)]
async fn frozen_body(
    locker: &AppLocker,
    server: &RedisServer,
    acquired_at: &mut Option<SystemTime>,
    probe: Probe,
) -> Result<(), Error> {
    *acquired_at = guard.info().acquired_at();
    server.freeze();
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

#[tokio::test]
async fn a_body_is_cancelled_when_its_lease_ends_and_not_before() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (probe, saw) = Probe::blind();
    let mut acquired_at = None;
    // The server is frozen still when this returns: no answer of its was needed.
    let outcome = frozen_body(&locker, &server, &mut acquired_at, probe).await;
    assert_lost(&outcome.unwrap_err(), Loss::Expired);
    let lived = saw.dropped_at().duration_since(acquired_at.unwrap());
    let lived = lived.unwrap_or_default();
    assert!(lived > Duration::from_secs(3), "cancelled after {lived:?}");
    // To the millisecond in virtual time, in the engine's own tests; this is a machine
    // that may stand still for a second.
    assert!(lived < Duration::from_secs(9), "cancelled after {lived:?}");
}

#[test]
fn what_was_asked_unheard_is_released_long_before_its_ttl() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert!(runs(&locker));
    server.freeze();
    assert_unavailable(&refusal(&locker), &["QUEUE:job", "no answer in time"]);
    server.thaw();
    // It is carried out now, and would hold the lock for 60 s.
    let thawed = Instant::now();
    wait::until("the lock can be had", LIMIT, || runs(&locker));
    wait::until("the lock is free", LIMIT, || !is_taken(&server));
    assert!(thawed.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_new_client_learns_that_there_is_no_answer() {
    let server = RedisServer::start();
    server.freeze();
    let start = Instant::now();
    let error = AppLocker::connect_blocking(server.url()).unwrap_err();
    assert!(start.elapsed() < QUICKLY, "{:?}", start.elapsed());
    assert_unavailable(&error, &["no answer in time"]);
    server.thaw();
    assert!(AppLocker::connect_blocking(server.url()).is_ok());
}

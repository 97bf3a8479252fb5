//! Promise: a release that comes after the holding was over deletes nothing of what the
//! next holder has by then, and says so (F5, R7).

use std::time::Duration;

use crate::support::lease::{LIMIT, assert_lost};
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, LockGuard, Loss};

/// Far longer than any test here: nothing is freed by its ttl.
const LONG: Duration = Duration::from_secs(60);

/// The next holder's, taken as soon as it can be had.
fn next(server: &RedisServer, app: &str) -> LockGuard {
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = other.lock(app).ttl(LONG).wait(LIMIT);
    lock.acquire_blocking().unwrap()
}

#[track_caller]
fn assert_untouched(server: &RedisServer, app: &str, next: &LockGuard) {
    let token: u64 = server.run(&format!("HGET QUEUE:{app} token"));
    assert_eq!(token, next.fencing_token());
    assert!(next.verify_blocking().unwrap());
}

#[test]
fn a_holder_that_does_not_know_yet_gets_not_held() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("theirs").ttl(LONG);
    let stale = lock.acquire_blocking().unwrap();
    let () = server.run("DEL QUEUE:theirs");
    let newer = next(&server, "theirs");
    assert!(newer.fencing_token() > stale.fencing_token());
    let error = stale.release_blocking().unwrap_err();
    assert!(matches!(error, Error::NotHeld { .. }), "{error}");
    assert_untouched(&server, "theirs", &newer);
}

#[test]
fn a_holder_whose_lease_ran_out_learns_that_it_was_lost() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    // at_most ends it, as it would end if its heart had stopped.
    let lock = locker.lock("expired").at_most(Duration::from_secs(2));
    for way in ["released", "dropped"] {
        let stale = lock.clone().wait(LIMIT).acquire_blocking().unwrap();
        let newer = next(&server, "expired");
        assert!(newer.fencing_token() > stale.fencing_token());
        if way == "released" {
            assert_lost(&stale.release_blocking().unwrap_err(), Loss::AtMost);
        } else {
            drop(stale);
            // Whatever it sent has been answered when these are.
            let other = locker.lock("other").acquire_blocking().unwrap();
            other.release_blocking().unwrap();
        }
        assert_untouched(&server, "expired", &newer);
        newer.release_blocking().unwrap();
    }
}

//! Promise: what happens to a lock is logged, each event once, with the lock's key, and
//! in the order in which it happened.
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use applock::{AppLocker, Error, singleton};
use support::redis::RedisServer;
use support::{log, wait};
use tracing::Level;

/// A lease whose end plays no part.
const LONG: Duration = Duration::from_secs(120);

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(30);

/// This and nothing else was logged of the lock: levels, and words of each line.
#[track_caller]
fn assert_logged(key: &str, expected: &[(Level, &[&str])]) {
    let lines = log::lines(&[key]);
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for ((level, line), (expected, words)) in lines.iter().zip(expected) {
        assert_eq!(level, expected, "{line}");
        for word in *words {
            assert!(line.contains(word), "{word:?} is missing: {line}");
        }
    }
}

/// 168
#[test]
fn an_acquisition_and_its_release_are_logged_once_each() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("plain").ttl(LONG);
    let guard = lock.acquire_blocking().unwrap();
    let token = format!("token={}", guard.fencing_token());
    let acquired: (Level, &[&str]) = (Level::DEBUG, &["acquired", &token]);
    assert_logged("QUEUE:plain", &[acquired]);
    // Heartbeats that are answered are no news, nor is a look.
    assert!(guard.verify_blocking().unwrap());
    assert!(lock.info_blocking().unwrap().is_some());
    assert!(lock.try_acquire_blocking().unwrap().is_none());
    guard.release_blocking().unwrap();
    let released: (Level, &[&str]) = (Level::DEBUG, &["released", &token, "held="]);
    assert_logged("QUEUE:plain", &[acquired, released]);
}

/// 168
#[test]
fn a_release_by_force_and_the_loss_that_follows_are_logged_once_each() {
    log::keep();
    let server = RedisServer::start();
    let holder = AppLocker::connect_blocking(server.url()).unwrap();
    let operator = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = holder.lock("forced").ttl(LONG).acquire_blocking().unwrap();
    assert!(operator.lock("forced").force_release_blocking().unwrap());
    for _ in 0..3 {
        assert!(!guard.verify_blocking().unwrap());
        assert!(!guard.is_held());
    }
    let token = format!("token={}", guard.fencing_token());
    log::until(&["the lock is lost", "QUEUE:forced"]);
    assert!(guard.release_blocking().is_err());
    assert_logged(
        "QUEUE:forced",
        &[
            (Level::DEBUG, &["acquired", &token]),
            (Level::WARN, &["released by force"]),
            (Level::WARN, &["the lock is lost", &token, "held="]),
        ],
    );
}

/// 168
#[test]
fn heartbeats_that_fail_are_logged_once_and_their_end_once() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("frozen").ttl(LONG).acquire_blocking().unwrap();
    let acquired: (Level, &[&str]) = (Level::DEBUG, &["acquired"]);
    let failed: (Level, &[&str]) = (Level::WARN, &["a heartbeat failed", "lease_ends_in="]);
    server.freeze();
    for _ in 0..2 {
        let error = guard.verify_blocking().unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
    }
    assert_logged("QUEUE:frozen", &[acquired, failed]);
    server.thaw();
    wait::until("it is answered again", SOON, || {
        guard.verify_blocking().is_ok_and(|held| held)
    });
    let again: (Level, &[&str]) = (Level::INFO, &["answered again"]);
    assert_logged("QUEUE:frozen", &[acquired, failed, again]);
}

/// 168, 185
#[test]
fn a_singleton_that_did_not_run_is_logged_once_with_its_function_and_its_holder() {
    #[singleton(app = "busy", locker = locker)]
    fn skipped(locker: &AppLocker, runs: &AtomicU32) {
        runs.fetch_add(1, Ordering::SeqCst);
    }
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let other = AppLocker::builder().store(server.url());
    let other = other.instance("the-holder").build().unwrap();
    let guard = other.lock("busy").ttl(LONG).acquire_blocking().unwrap();
    let runs = AtomicU32::new(0);
    skipped(&locker, &runs);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    guard.release_blocking().unwrap();
    assert_logged(
        "QUEUE:busy",
        &[
            (Level::DEBUG, &["acquired"]),
            (Level::INFO, &["not run", "skipped", "the-holder"]),
            (Level::DEBUG, &["released"]),
        ],
    );
}

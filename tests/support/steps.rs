//! The steps by which a test comes to its point, and the answers that it gets there. A machine
//! that stands still for a while may cost a step an answer, but not the test its verdict.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use applock::{AppLocker, Error, Lock, LockGuard, Loss, Result};

use super::redis::RedisServer;
use super::{lease, wait};

/// For what must happen, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(30);

/// A command time-out for what is to time out.
pub const COMMAND: Duration = Duration::from_millis(500);

/// A locker that soon takes silence for an answer.
pub fn impatient(url: impl AsRef<str>) -> AppLocker {
    let builder = AppLocker::builder().store(url.as_ref());
    let locker = builder.command_timeout(COMMAND).build().expect("a URL");
    wait::until("the locker connects", LONG, || {
        locker.lock("first use").info_blocking().is_ok()
    });
    locker
}

/// How it is refused: what a store says that has an answer.
#[track_caller]
pub fn refused<T: Debug>(attempt: impl Fn() -> Result<T>) -> Error {
    let mut refusal = None;
    wait::until("it has an answer", LONG, || {
        let error = attempt().expect_err("a refusal");
        let is_late = error.to_string().contains("no answer in time");
        refusal = Some(error);
        !is_late
    });
    refusal.expect("there was one")
}

/// Takes a lock that can be had.
#[track_caller]
pub fn take(lock: &Lock) -> LockGuard {
    let lock = lock.clone().wait(LONG);
    lock.acquire_blocking().expect("the lock can be had")
}

/// Gives a lock back. A master that forks for a replica may have no answer in time on a busy machine:
/// the release is sent again then, and who asks next waits for it.
#[track_caller]
pub fn give_back(guard: LockGuard) {
    match guard.release_blocking() {
        Ok(()) | Err(Error::Unavailable(_)) => (),
        Err(error) => panic!("{error}"),
    }
}

/// The server says that it is held, sooner or later, and never that it is not.
#[track_caller]
pub fn assert_verified(guard: &LockGuard) {
    wait::until("the lock is verified", LONG, || {
        let verified = guard.verify_blocking();
        assert!(!matches!(verified, Ok(false)), "{guard:?} is lost");
        verified.is_ok()
    });
    assert!(guard.is_held());
}

#[track_caller]
pub fn assert_unavailable(outcome: Result<impl Debug>) {
    assert!(
        matches!(outcome, Err(Error::Unavailable(_))),
        "not unavailable: {outcome:?}"
    );
}

#[track_caller]
pub fn assert_lost(guard: &LockGuard, expected: Loss) {
    lease::assert_lost(&guard.ensure_held().expect_err("a loss"), expected);
    assert!(!guard.is_held());
}

/// Waits until the holder knows that its lock is gone, as its heartbeat tells it.
#[track_caller]
pub fn until_reported_taken(guard: &LockGuard) {
    wait::until("the holder learns of its loss", LONG, || !guard.is_held());
    assert_lost(guard, Loss::Taken);
}

pub fn is_taken(server: &RedisServer, key: &str) -> bool {
    server.run(&format!("EXISTS {key}"))
}

/// When a key's time will be over at the server: not earlier than that.
pub fn end_of(server: &RedisServer, key: &str) -> SystemTime {
    let left = Duration::from_millis(server.run(&format!("PTTL {key}")));
    SystemTime::now() + left
}

#[track_caller]
pub fn until_free(server: &RedisServer, key: &str, within: Duration) {
    wait::until(&format!("{key} is free"), within, || !is_taken(server, key));
}

/// Asks until it says no: the last time that it said yes.
#[track_caller]
pub fn last_yes(guard: &LockGuard, each: impl FnMut()) -> SystemTime {
    lease::last_yes(guard, LONG, each)
}

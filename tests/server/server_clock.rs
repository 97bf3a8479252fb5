//! Promise: a server whose clock is set does what the guarantees say of it. Forward, and
//! leases end early, with a report to the holder and a larger token for the next; back, and a
//! dead holder's lock stays, for every caller to see, until an operator frees it.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::proxy::{Direction, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::steps::{
    LONG, assert_verified, impatient, is_taken, take, until_free, until_reported_taken,
};
use crate::support::wait;
use applock::{AppLocker, LockGuard};
use tempfile::TempDir;

const KEY: &str = "QUEUE:job";

const SOON: Duration = Duration::from_secs(20);

/// Shorter than the jump forward, and with a heartbeat well before its end.
const TTL: Duration = Duration::from_secs(10);

/// The failure on a machine without a compiler. Never a skip.
const MISSING: &str = "this test needs a C compiler, to set a server's clock.\n\
    Install it: apt-get install gcc libc6-dev | dnf install gcc";

/// A server whose wall clock can be set.
struct Clocked {
    server: RedisServer,
    directory: TempDir,
}

impl Clocked {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shim = directory.path().join("clock_shim.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&shim)
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/clock_shim.c"
            ))
            .status()
            .unwrap_or_else(|error| panic!("cc: {error}: {MISSING}"));
        assert!(built.success(), "{MISSING}");
        let offset = directory.path().join("offset");
        std::fs::write(&offset, "0").unwrap();
        let environment = [
            ("LD_PRELOAD", shim.to_str().unwrap()),
            ("CLOCK_SHIM", offset.to_str().unwrap()),
        ];
        let server = RedisServer::under(&[], &environment);
        let clocked = Self { server, directory };
        // A clock that can't be set would prove nothing.
        clocked.set(-1_000_000);
        clocked.set(0);
        clocked
    }

    /// So many seconds off from now on.
    fn set(&self, offset: i64) {
        // In one step, for the server may read it at any moment.
        let next = self.directory.path().join("next");
        std::fs::write(&next, offset.to_string()).unwrap();
        std::fs::rename(next, self.directory.path().join("offset")).unwrap();
        // A server may have read its clock already for what it does next.
        wait::until("the server's clock is set", SOON, || {
            let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let ours = i64::try_from(ours.as_secs()).unwrap();
            (self.seconds() - ours - offset).abs() < 3
        });
    }

    /// What the server's clock shows.
    fn seconds(&self) -> i64 {
        let time: Vec<i64> = self.server.run("TIME");
        time[0]
    }

    fn locker(&self) -> AppLocker {
        impatient(self.server.url())
    }
}

fn takes_anew(clocked: &Clocked, old: u64) -> LockGuard {
    let next = take(&clocked.locker().lock("job").ttl(LONG));
    assert!(next.fencing_token() > old);
    assert_verified(&next);
    next
}

#[test]
fn a_clock_that_jumps_forward_ends_leases_and_the_holder_learns_of_it() {
    let clocked = Clocked::start();
    let guard = take(&clocked.locker().lock("job").ttl(TTL));
    let (token, other) = (guard.fencing_token(), clocked.locker());
    clocked.set(11);
    // The server has forgotten it, and another can have it at once.
    assert!(!is_taken(&clocked.server, KEY));
    let next = take(&other.lock("job").ttl(LONG));
    assert!(next.fencing_token() > token);
    // At its next heartbeat, and not by its own clock.
    until_reported_taken(&guard);
    assert!(guard.release_blocking().is_err());
    assert_verified(&next);
}

#[test]
fn a_holder_learns_of_a_clock_that_jumps_forward_also_where_no_other_caller_comes() {
    let clocked = Clocked::start();
    let guard = take(&clocked.locker().lock("job").ttl(TTL));
    let token = guard.fencing_token();
    clocked.set(11);
    until_reported_taken(&guard);
    drop(takes_anew(&clocked, token));
}

#[test]
fn a_clock_that_jumps_back_costs_its_holder_nothing() {
    let clocked = Clocked::start();
    let guard = take(&clocked.locker().lock("job").ttl(TTL));
    let token = guard.fencing_token();
    clocked.set(-3_600);
    assert_verified(&guard);
    // Its heartbeat has given the lock its proper time again.
    let left: u64 = clocked.server.run("PTTL QUEUE:job");
    assert!(Duration::from_millis(left) <= TTL);
    let other = clocked.locker().lock("job");
    assert!(other.try_acquire_blocking().unwrap().is_none());
    assert_eq!(guard.fencing_token(), token);
    drop(guard);
    until_free(&clocked.server, KEY, LONG);
    // The clock is behind the last token; tokens grow all the same.
    let mut last = token;
    for _ in 0..3 {
        let next = takes_anew(&clocked, last);
        last = next.fencing_token();
        drop(next);
    }
}

#[test]
fn a_dead_holders_lock_stays_after_a_jump_back_for_all_to_see_until_it_is_freed() {
    let clocked = Clocked::start();
    // Dead for all that the server knows of it.
    let proxy = FaultProxy::before(&clocked.server);
    let dead = take(&impatient(proxy.url()).lock("job").ttl(TTL));
    let token = dead.fencing_token();
    proxy.black_hole(Direction::Both);
    clocked.set(-3_600);
    let lock = clocked.locker().lock("job").ttl(LONG);
    assert!(lock.try_acquire_blocking().unwrap().is_none());
    let info = lock.info_blocking().unwrap().unwrap();
    let (left, ttl) = (info.remaining().unwrap(), info.ttl().unwrap());
    assert_eq!(ttl, TTL);
    assert!(left > ttl, "{left:?} of {ttl:?}");
    assert!(left > Duration::from_secs(3_500), "{left:?}");
    assert!(lock.force_release_blocking().unwrap());
    drop(takes_anew(&clocked, token));
}

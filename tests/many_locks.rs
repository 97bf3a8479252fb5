//! Promise: ten thousand locks of one process share one thread and one connection, are
//! renewed in batches, and cost less than a KiB each (F25). A program of its own, with
//! one test: it counts what the whole process has.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::Duration;

use applock::{AppLocker, LockGuard};
use support::lease::LIMIT;
use support::redis::RedisServer;
use support::wait;

const LOCKS: u64 = 10_000;

/// A heartbeat every five seconds.
const TTL: Duration = Duration::from_secs(15);

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// What is in memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

fn acquire(locker: &AppLocker, locks: std::ops::Range<u64>) -> Vec<LockGuard> {
    locks
        .map(|which| {
            let lock = locker.lock("many").name(which.to_string()).ttl(TTL);
            lock.wait(LIMIT).acquire_blocking().unwrap()
        })
        .collect()
}

#[test]
fn they_share_a_thread_a_connection_and_their_heartbeats() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let mut guards = Vec::with_capacity(LOCKS as usize);
    guards.extend(acquire(&locker, 0..10));
    let (few, clients, memory) = (threads(), server.info("connected_clients"), resident());
    guards.extend(acquire(&locker, 10..LOCKS));
    let each = (resident() - memory) / LOCKS;

    // Each of them twice, on the average; each heartbeat sets the expiry of two keys.
    let (calls, expiries) = (server.calls("evalsha"), server.calls("pexpire"));
    wait::until("all are renewed", LIMIT, || {
        server.calls("pexpire") >= expiries + 4 * LOCKS
    });
    let renewals = (server.calls("pexpire") - expiries) / 2;
    let calls = server.calls("evalsha") - calls;
    // Those of about the same moment leave together, though the locks were taken one by
    // one.
    assert!(
        renewals >= 20 * calls,
        "{renewals} renewals in {calls} calls"
    );
    assert!(threads() <= few, "{} threads, and {few} before", threads());
    assert!(server.info("connected_clients") <= clients);
    assert!(guards.iter().all(LockGuard::is_held));
    assert!(each < 1024, "{each} bytes a lock");
}

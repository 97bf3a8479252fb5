//! Promise: a short ttl costs about three renewals a ttl, and no storm (F24).

use std::time::{Duration, Instant};

use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::AppLocker;

/// Enough to tell a rhythm from a storm: some three seconds.
const RENEWALS: u64 = 30;

#[test]
fn it_is_renewed_about_three_times_a_ttl_and_not_more() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker
        .lock("short")
        .ttl(Duration::from_millis(300))
        .wait(LIMIT);
    // The scripts are known from here on.
    lock.acquire_blocking().unwrap().release_blocking().unwrap();

    let start = Instant::now();
    let before = server.calls("evalsha");
    let mut guard = lock.acquire_blocking().unwrap();
    let mut acquired = 1;
    let mut sent = 0;
    wait::until("it was renewed often enough", LIMIT, || {
        // Lost on a machine that stands still for longer than its lease: the next one's
        // heartbeats are counted as well.
        if !guard.is_held() {
            guard = lock.acquire_blocking().unwrap();
            acquired += 1;
        }
        sent = server.calls("evalsha") - before;
        sent >= RENEWALS + 2 * acquired
    });
    // Read after the count: a machine that stands still makes the rhythm slower only.
    let ttls = start.elapsed().as_secs_f64() / 0.3;
    // All that was sent, with the acquires and the polls of a waiter.
    assert!(
        sent as f64 / ttls < 5.0,
        "{sent} commands in {ttls:.1} ttls"
    );
    // Scripts are sent whole only until the server knows them.
    assert!(server.calls("eval") <= 3);
}

//! Observing leases without a stopwatch: by the server's clock, and by checks whose time is
//! taken first, so that a machine that stands still makes no good lease look bad.

use std::time::{Duration, Instant, SystemTime};

use applock::{Error, LockGuard, Loss};

use super::redis::RedisServer;
use super::wait;

/// A lease that is to be kept: a heartbeat each second and a third, and two and a half
/// seconds more before one that is late costs it.
pub const KEPT: Duration = Duration::from_secs(4);

/// However long something may take that must come.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What the server sees of a lock at one moment.
pub struct View {
    pub at: Duration,
    pub left: Duration,
    pub ttl: Duration,
    pub token: u64,
}

/// The lock as it is now; `None` if it is free.
pub fn view(server: &RedisServer, key: &str) -> Option<View> {
    let script = "local t = redis.call('TIME'); local h = redis.call('HMGET', KEYS[1], \
        'ttl', 'token'); return {t[1] * 1000 + math.floor(t[2] / 1000), \
        redis.call('PTTL', KEYS[1]), tonumber(h[1] or -1), h[2] or '0'}";
    let (at, left, ttl, token): (u64, i64, i64, u64) = server
        .try_run(&["EVAL", script, "1", key])
        .expect("the server answers");
    let millis = |count: i64| u64::try_from(count).ok().map(Duration::from_millis);
    Some(View {
        at: Duration::from_millis(at),
        left: millis(left)?,
        ttl: millis(ttl)?,
        token,
    })
}

/// Watches until the lock was held by one holder for longer than its ttl, counted from
/// now by the server's clock. It must never be free, another's, or longer than its ttl.
#[track_caller]
pub fn outlives_its_ttl(server: &RedisServer, key: &str) {
    let first = view(server, key).expect("the lock is taken");
    let (mut last, mut beats) = (first.left, 0);
    wait::until("it outlives its ttl", LIMIT + first.ttl, || {
        let now = view(server, key).unwrap_or_else(|| panic!("{key} is free"));
        assert_eq!(now.token, first.token, "{key} has another holder");
        assert!(now.left <= now.ttl, "{:?} of {:?} left", now.left, now.ttl);
        beats += u32::from(now.left > last);
        last = now.left;
        now.at > first.at + first.ttl
    });
    // What went on for longer than a ttl was renewed meanwhile; and not all the time.
    assert!((1..=6).contains(&beats), "{beats} heartbeats in a ttl");
}

/// Waits until the lease's end was moved by its holder's heartbeat.
#[track_caller]
pub fn next_heartbeat(server: &RedisServer, key: &str) {
    let mut last = view(server, key).expect("the lock is taken");
    wait::until("a heartbeat", LIMIT, || {
        let now = view(server, key).unwrap_or_else(|| panic!("{key} is free"));
        assert_eq!(now.token, last.token, "{key} has another holder");
        let beat = now.left > last.left;
        last = now;
        beat
    });
}

/// When the guard said for the last time that the lock is held, taken before it was
/// asked; and when it had said that it is not, taken afterwards.
#[track_caller]
pub fn last_yes_and_first_no(guard: &LockGuard) -> (SystemTime, SystemTime) {
    let last_yes = last_yes(guard, LIMIT, || ());
    (last_yes, SystemTime::now())
}

/// Asks until it says no, no longer than that: when it said yes for the last time.
#[track_caller]
pub fn last_yes(guard: &LockGuard, within: Duration, mut each: impl FnMut()) -> SystemTime {
    let start = Instant::now();
    let mut last_yes = SystemTime::now();
    loop {
        // Before the guard is asked, so that a slow machine can't make it look bad.
        let asked = SystemTime::now();
        if !guard.is_held() {
            return last_yes;
        }
        last_yes = asked;
        assert!(start.elapsed() < within, "held for ever");
        each();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
pub fn assert_lost(error: &Error, expected: Loss) {
    match error {
        Error::Lost { key, reason, .. } => {
            assert_eq!(*reason, expected, "{error}");
            assert!(error.to_string().contains(&**key));
        }
        other => panic!("not a loss: {other}"),
    }
}

/// Nothing makes a lost guard held again.
#[track_caller]
pub fn assert_lost_for_good(guard: &LockGuard, expected: Loss) {
    assert!(!guard.is_held());
    assert_lost(&guard.ensure_held().expect_err("a loss"), expected);
    assert!(!guard.verify_blocking().expect("no I/O"));
    assert_eq!(guard.remaining(), Duration::ZERO);
    guard.lost_blocking();
    assert!(!guard.is_held());
}

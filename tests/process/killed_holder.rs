//! Promise: a process that is killed (SIGKILL) while it holds a lock blocks no caller for
//! longer than the ttl, also on a server with half a million other keys that expire: the
//! waiters have it within a second more, in order; and the next holder has a larger fencing
//! token (F10).

use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::lease::{KEPT, LIMIT, outlives_its_ttl, view};
use crate::support::queue::{
    KEY, Served, assert_in_order, children, granted_at, joined, lock, plays_waiters,
    served_blocking, served_in, until_queued,
};
use crate::support::redis::RedisServer;
use crate::support::stalls::Stalls;
use crate::support::wait;
use applock::{AppLocker, LockGuard};

/// How much later than the server frees the lock a caller may have it that tries all the
/// time: the machine may stand still meanwhile.
const LATER: Duration = Duration::from_secs(5);

/// Kills the holder. When its lock ends after that, by the server's clock.
fn killed(server: &RedisServer, key: &str, holder: &mut ChildProcess) -> Duration {
    holder.kill();
    let last = view(server, key).expect("its lock outlives it");
    last.at + last.left
}

/// Taken after the dead holder's lease, and soon after it.
#[track_caller]
fn assert_succeeds(next: &LockGuard, end: Duration) {
    let at = next.info().acquired_at().unwrap();
    let at = at.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(
        at + Duration::from_millis(2) >= end,
        "taken from the dead too early"
    );
    assert!(at < end + LATER, "taken {:?} after the end", at - end);
}

fn holds_until_killed(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let lock = locker.lock("crash").ttl(KEPT).wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    child::say(guard.fencing_token());
    child::until_dismissed();
}

#[test]
fn the_lock_of_a_killed_process_is_free_within_its_ttl_and_the_next_token_is_larger() {
    if let Some(url) = child::part() {
        return holds_until_killed(&url);
    }
    let server = RedisServer::start();
    let mut child = ChildProcess::start(
        child::name_of(
            the_lock_of_a_killed_process_is_free_within_its_ttl_and_the_next_token_is_larger,
        ),
        &server.url(),
    );
    let token: u64 = child.says().parse().unwrap();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("crash");
    let holder = lock.info_blocking().unwrap().unwrap();
    assert_eq!(holder.pid(), Some(child.id()));
    assert_eq!(holder.fencing_token(), Some(token));
    // It lives for longer than its ttl first: its heart beats.
    outlives_its_ttl(&server, "QUEUE:crash");
    let end = killed(&server, "QUEUE:crash", &mut child);
    let mut next = None;
    wait::until("the lock is free", LIMIT, || {
        next = lock.try_acquire_blocking().unwrap();
        next.is_some()
    });
    let next = next.unwrap();
    assert_succeeds(&next, end);
    assert!(next.fencing_token() > token);
    let last = lock.last_holding_blocking().unwrap().unwrap();
    assert_eq!(last.fencing_token, next.fencing_token());
}

fn is_killed_in_its_body(url: &str) {
    #[applock::singleton(app = "contested", ttl = "4s", locker = locker)]
    async fn body(locker: &AppLocker) -> anyhow::Result<()> {
        child::say("in the body");
        std::future::pending().await
    }
    let locker = AppLocker::connect_blocking(url).unwrap();
    pollster::block_on(body(&locker)).unwrap();
}

/// So many keys that expire, none of them soon.
fn fill(server: &RedisServer, keys: u32) {
    let script = "for i = ARGV[1], ARGV[1] + 49999 do redis.call('SET', 'other:' .. i, i, 'PX', 3600000 + i) end";
    for first in (0..keys).step_by(50_000) {
        let () = server
            .try_run(&["EVAL", script, "0", &first.to_string()])
            .unwrap();
    }
    assert_eq!(server.run::<u32>("DBSIZE"), keys);
}

/// The same for a waiter: the promise is a second.
#[track_caller]
fn assert_served_soon(token: u64, end: Duration, stood_still: Duration) {
    let at = granted_at(token);
    let late = at.saturating_sub(end);
    assert!(
        at + Duration::from_millis(2) >= end,
        "taken from the dead too early"
    );
    assert!(
        late < Duration::from_secs(1) + stood_still,
        "served {late:?} after the end"
    );
}

#[test]
fn waiters_for_a_killed_process_have_the_lock_soon_and_in_order_among_half_a_million_keys() {
    match child::part().as_deref().map(|part| part.split_once(' ')) {
        Some(Some(("hold", url))) => return is_killed_in_its_body(url),
        Some(Some((_, url))) => return plays_waiters(url, |_| ()),
        _ => (),
    }
    let server = RedisServer::start();
    fill(&server, 500_000);
    let name = child::name_of(
        waiters_for_a_killed_process_have_the_lock_soon_and_in_order_among_half_a_million_keys,
    );
    let mut holder = ChildProcess::start(name, &format!("hold {}", server.url()));
    assert_eq!(holder.says(), "in the body");
    let mut children = children(name, &format!("wait {}", server.url()), 3);
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let (mut came, mut threads) = (0, Vec::new());
    for _ in 0..2 {
        for child in &mut children {
            child.tell(&format!("pass {came}"));
            came += 1;
            until_queued(&server, came);
        }
        let lock = lock(&locker);
        threads.push(std::thread::spawn(move || served_blocking(&lock, came)));
        came += 1;
        until_queued(&server, came);
    }
    let stalls = Stalls::watch();
    let end = killed(&server, KEY, &mut holder);
    let mut served: Vec<Served> = children
        .iter()
        .flat_map(|child| [served_in(child), served_in(child)])
        .collect();
    served.extend(joined(threads));
    assert_in_order(&served, 0..came);
    let first = served.iter().map(|(_, token)| *token).min().unwrap();
    assert_served_soon(first, end, stalls.total() * 3);
}

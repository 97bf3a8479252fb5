//! Promise: on one Redis server fencing tokens only grow, whatever it forgets, and stay
//! exact whole numbers below 2⁵³ on every way that they take.
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Error, Lock, LockGuard, Loss};

/// A lease whose end plays no part.
const LONG: Duration = Duration::from_secs(120);

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(30);

const FENCE: &str = "{QUEUE:app}:fence";

fn lock(server: &RedisServer) -> Lock {
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    locker.lock("app").ttl(LONG)
}

/// Some acquisitions, one after the other; the token of the last.
#[track_caller]
fn several(lock: &Lock, mut last: u64) -> u64 {
    for _ in 0..5 {
        let guard = lock.acquire_blocking().unwrap();
        let token = guard.fencing_token();
        assert!(token > last, "{token} after {last}");
        assert!(token < 1 << 53, "{token}");
        last = token;
        guard.release_blocking().unwrap();
    }
    last
}

#[track_caller]
fn assert_taken_away(guard: &LockGuard) {
    wait::until("the holder learns of its loss", SOON, || !guard.is_held());
    match guard.ensure_held() {
        Err(Error::Lost { reason, .. }) => assert_eq!(reason, Loss::Taken),
        other => panic!("{other:?}"),
    }
}

/// 178
#[test]
fn tokens_grow_over_a_restart_that_forgets_everything() {
    let mut server = RedisServer::start();
    let before = several(&lock(&server), 0);
    server.restart();
    assert!(!server.run::<bool>(&format!("EXISTS {FENCE}")));
    several(&lock(&server), before);
}

/// 178
#[test]
fn tokens_grow_over_a_restart_that_forgets_nothing_and_the_lock_is_kept() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let ours = lock(&server);
    several(&ours, 0);
    let held = ours.acquire_blocking().unwrap();
    server.restart();
    let other = lock(&server);
    let refused = other.acquire_blocking().unwrap_err();
    let holder = refused.holder().expect("busy");
    assert_eq!(holder.fencing_token(), Some(held.fencing_token()));
    wait::until("the holder is connected again", SOON, || {
        held.verify_blocking().is_ok()
    });
    assert!(held.verify_blocking().unwrap());
    let token = held.fencing_token();
    held.release_blocking().unwrap();
    several(&other, token);
}

/// 89, 178
#[test]
fn after_a_flush_the_holder_learns_of_it_and_the_next_has_a_larger_token() {
    let server = RedisServer::start();
    let (ours, other) = (lock(&server).ttl(Duration::from_secs(3)), lock(&server));
    let flushed = ours.acquire_blocking().unwrap();
    let () = server.run("FLUSHALL");
    let next = other.acquire_blocking().unwrap();
    assert!(next.fencing_token() > flushed.fencing_token());
    assert_taken_away(&flushed);
    assert!(flushed.release_blocking().is_err());
    assert!(next.verify_blocking().unwrap());
    let token = next.fencing_token();
    next.release_blocking().unwrap();
    several(&ours, token);
}

/// 178
#[test]
fn tokens_grow_though_the_server_evicted_the_last_one() {
    let server = RedisServer::start();
    let lock = lock(&server);
    let before = several(&lock, 0);
    let () = server.run("CONFIG SET maxmemory-policy allkeys-random");
    let () = server.run("CONFIG SET maxmemory 1");
    wait::until("the fence is evicted", SOON, || {
        // It makes room, and has none for this even so.
        let refused = server.try_run::<()>(&["SET", "something", "else"]);
        assert!(refused.is_err());
        !server.run::<bool>(&format!("EXISTS {FENCE}"))
    });
    let () = server.run("CONFIG SET maxmemory 0");
    several(&lock, before);
}

/// 178
#[test]
fn tokens_grow_over_a_failover_that_lost_the_last_ones() {
    let master = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start();
    let ours = lock(&master);
    let replicated = several(&ours, 0).to_string();
    let () = replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let token_of =
        |server: &RedisServer| server.run::<Option<String>>(&format!("HGET {FENCE} token"));
    wait::until("the replica has the fence", SOON, || {
        token_of(&replica).as_deref() == Some(&*replicated)
    });
    let () = replica.run("REPLICAOF NO ONE");
    let last = several(&ours, replicated.parse().unwrap());
    assert_eq!(token_of(&replica), Some(replicated));
    drop(master);
    several(&lock(&replica), last);
}

/// 179
#[test]
fn the_largest_tokens_are_exact_in_every_protocol_and_every_answer() {
    const LARGEST: u64 = (1 << 53) - 1;
    for protocol in ["resp2", "resp3"] {
        let server = RedisServer::start();
        let url = format!("{}/?protocol={protocol}", server.url());
        let lock = AppLocker::connect_blocking(url).unwrap().lock("app");
        let () = server.run(&format!("HSET {FENCE} token {}", LARGEST - 3));
        for expected in LARGEST - 2..=LARGEST {
            let guard = lock.acquire_blocking().unwrap();
            assert_eq!(guard.fencing_token(), expected, "{protocol}");
            for stored in ["QUEUE:app", FENCE] {
                let digits: String = server.run(&format!("HGET {stored} token"));
                assert_eq!(digits, expected.to_string(), "{protocol}");
            }
            let shown = lock.info_blocking().unwrap().unwrap();
            assert_eq!(shown.fencing_token(), Some(expected), "{protocol}");
            let refused = lock.acquire_blocking().unwrap_err();
            let holder = refused.holder().expect("busy");
            assert_eq!(holder.fencing_token(), Some(expected), "{protocol}");
            assert!(guard.verify_blocking().unwrap());
            guard.release_blocking().unwrap();
            let last = lock.last_holding_blocking().unwrap().unwrap();
            assert_eq!(last.fencing_token, expected, "{protocol}");
        }
        let refused = lock.acquire_blocking();
        assert!(
            matches!(refused, Err(Error::Misconfigured(_))),
            "{refused:?}"
        );
    }
}

//! Promise: a server that evicts locks for want of memory is warned of, and a holder that
//! lost its lock that way learns of it; the next token is larger, though the counter went,
//! too. A server that does not evict costs no holder a lock (F18, F20).

use std::time::Duration;

use crate::support::log;
use crate::support::proxy::{Call, Event, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::steps::{
    LONG, assert_unavailable, assert_verified, impatient, is_taken, take, until_reported_taken,
};
use applock::Error;
use tracing::Level;

/// It goes on for long after the eviction: the holder learns of the loss by its heartbeat.
const TTL: Duration = Duration::from_secs(15);

const KEY: &str = "QUEUE:job";

fn used_memory(server: &RedisServer) -> u64 {
    let info: String = server.run("INFO memory");
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}

/// Fills the memory with what can't be evicted, until nothing that can is left.
fn evict(server: &RedisServer) {
    let limit = used_memory(server) + 1_000_000;
    let () = server.run(&format!("CONFIG SET maxmemory {limit}"));
    let block = "x".repeat(50_000);
    for round in 0..1_000 {
        let filled = server.try_run::<()>(&["SET", &format!("filling:{round}"), &block]);
        if filled.is_err() {
            // Nothing is left to evict.
            break;
        }
    }
    let info: String = server.run("INFO stats");
    assert!(!info.contains("evicted_keys:0\r"), "nothing was evicted");
    assert!(!is_taken(server, KEY));
    // There is room again for the next callers.
    let _: i64 = server.run("DEL filling:0 filling:1 filling:2 filling:3");
}

#[test]
fn an_evicted_lock_is_warned_of_reported_and_taken_anew_with_a_larger_token() {
    log::keep();
    let server = RedisServer::with(&["--maxmemory-policy", "volatile-lru"]);
    let locker = impatient(server.url());
    let guard = take(&locker.lock("job").ttl(TTL));
    let address = format!("127.0.0.1:{}", server.port());
    let warned = ["may evict locks", &address];
    let (level, line) = log::until(&warned);
    assert_eq!(level, Level::WARN);
    assert!(line.contains("policy=volatile-lru"), "{line}");
    for words in [
        "noeviction".to_owned(),
        format!("key={KEY}"),
        format!("token={}", guard.fencing_token()),
        format!("owner={}", guard.info().owner_id()),
    ] {
        assert!(line.contains(&words), "{words}: {line}");
    }
    assert_verified(&guard);

    evict(&server);
    assert!(
        !is_taken(&server, "{QUEUE:job}:fence"),
        "the counter was kept"
    );
    until_reported_taken(&guard);
    log::until(&["the lock is lost", KEY, &guard.fencing_token().to_string()]);
    let next = take(&locker.lock("job").ttl(TTL));
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(matches!(guard.release_blocking(), Err(Error::Lost { .. })));
    assert_verified(&next);
    // Once, whatever came after.
    assert_eq!(log::lines(&warned).len(), 1);
}

// F20
#[test]
fn a_server_without_eviction_that_is_out_of_memory_keeps_what_is_held() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = impatient(proxy.url());
    // Its next heartbeats come while the memory is full.
    let guard = take(&locker.lock("job").ttl(Duration::from_secs(6)));
    let token = guard.fencing_token();
    let () = server.run("CONFIG SET maxmemory 1");
    assert_unavailable(locker.lock("other").try_acquire_blocking());
    for _ in 0..2 {
        proxy.until_next(Event::Answered(Call::Renew), || ());
        assert!(guard.is_held());
    }
    assert_verified(&guard);
    assert_eq!(server.token("QUEUE:job"), token);
    drop(guard);
    crate::support::steps::until_free(&server, KEY, LONG);
}

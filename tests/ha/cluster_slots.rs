//! Promise: every key is sought where the servers seek it; locks of many slots are taken,
//! renewed and released together, over one connection to each node.

use std::time::Duration;

use applock::{AppLocker, Error, LockGuard};
use futures_util::future::join_all;

use crate::after::KEPT;
use crate::support::cluster::Cluster;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_misconfigured, refused_connection};
use crate::support::steps::{LONG, take};
use crate::support::wait;

/// More than have one slot.
const LOCKS: usize = 1_000;

/// How often the masters have sent a client elsewhere, or refused its keys.
fn redirections(cluster: &Cluster) -> u64 {
    let masters = cluster.nodes[..3].iter();
    masters
        .map(|node| node.errors("MOVED") + node.errors("CROSSSLOT"))
        .sum()
}

#[tokio::test]
async fn a_thousand_locks_of_as_many_slots_are_taken_kept_and_released_together() {
    let cluster = Cluster::start();
    let ours = AppLocker::connect(cluster.url()).await.unwrap();
    let theirs = AppLocker::connect(cluster.url()).await.unwrap();
    let before = redirections(&cluster);
    let ttl = Duration::from_secs(20);
    let locks = |locker: &AppLocker| -> Vec<_> {
        (0..LOCKS)
            .map(|number| locker.lock("many").name(number.to_string()).ttl(ttl))
            .collect()
    };
    // On a busy machine an answer may come too late.
    let our_locks = locks(&ours).into_iter().map(|lock| lock.wait(LONG));
    let our_locks: Vec<_> = our_locks.collect();
    let guards = join_all(our_locks.iter().map(|lock| lock.acquire())).await;
    let guards: Vec<LockGuard> = guards.into_iter().map(Result::unwrap).collect();
    let their_locks = locks(&theirs);
    let refused = join_all(their_locks.iter().map(async |lock| {
        loop {
            match lock.acquire().await {
                Err(Error::Unavailable(_)) => continue,
                outcome => break outcome,
            }
        }
    }));
    for outcome in refused.await {
        assert!(matches!(outcome, Err(Error::Busy(_))), "{outcome:?}");
    }
    // A heartbeat of each, by itself.
    let calls = || -> u64 { cluster.nodes[..3].iter().map(RedisServer::scripts).sum() };
    let first = calls();
    wait::until("all have beaten", KEPT, || calls() >= first + 900);
    assert!(guards.iter().all(LockGuard::is_held));
    for node in &cluster.nodes[..3] {
        // One of each locker; more for the map at the replicas only.
        assert!(node.connections() <= 2, "{}", node.connections());
    }
    let released = join_all(guards.into_iter().map(LockGuard::release)).await;
    let is_fine = |one: &Result<(), Error>| matches!(one, Ok(()) | Err(Error::Unavailable(_)));
    assert!(released.iter().all(is_fine), "{released:?}");
    for node in &cluster.nodes[..3] {
        // What got no answer in time is released all the same, or its ttl ends it.
        wait::until("no lock is left", LONG, || {
            node.run::<Vec<String>>("KEYS QUEUE:*").is_empty()
        });
    }
    assert_eq!(redirections(&cluster), before, "keys are sought elsewhere");
}

#[test]
fn strange_keys_are_sought_where_the_servers_seek_them() {
    let cluster = Cluster::start();
    let locker = AppLocker::connect_blocking(cluster.url()).unwrap();
    let before = redirections(&cluster);
    let keys = [
        "plain",
        "QUEUE:{eu}:jobs",
        "a{b",
        "{x}y{z}",
        "with space",
        "ünïcödé:🔒",
        "a%7Bb%7D",
        "0",
        "\"quoted\"",
    ];
    for key in keys {
        let guard = take(&locker.lock("unused").key(key).ttl(KEPT));
        let slot = usize::from(cluster.slot(key));
        let at = (0..3).find(|at| cluster.slots_of(*at).contains(&slot));
        let node = &cluster.nodes[at.unwrap()];
        assert!(node.try_run::<bool>(&["EXISTS", key]).unwrap(), "{key}");
        assert!(guard.verify_blocking().unwrap());
        guard.release_blocking().unwrap();
    }
    for number in 0..300 {
        let text = format!("{:x}", fastrand::u128(..));
        let lock = locker.lock(text).name(number.to_string());
        lock.acquire_blocking().unwrap().release_blocking().unwrap();
    }
    assert_eq!(redirections(&cluster), before);
    // The keys beside these would be in other slots.
    for key in ["a}b", "a{}b", "{}", "x{}{y}"] {
        let error = locker.lock("unused").key(key).try_acquire_blocking();
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
}

#[test]
fn a_url_of_the_wrong_kind_is_told_with_the_right_one() {
    let cluster = Cluster::start();
    let single = RedisServer::start();
    let error = refused_connection(&format!("redis+cluster://127.0.0.1:{}", single.port()));
    assert_misconfigured(&error, &["redis://"]);
    // Of a lock at another node: a cluster's node refuses no other.
    let locker = AppLocker::connect_blocking(cluster.nodes[0].url()).unwrap();
    let error = locker.lock(cluster.app(1, 0)).try_acquire_blocking();
    assert_misconfigured(&error.unwrap_err(), &["redis+cluster://"]);
}

//! Promise: while a body runs or a guard lives, its lock is kept: the same holding, never
//! free, never longer than its ttl.

use crate::support::lease::{KEPT, LIMIT, outlives_its_ttl};
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, singleton};

#[singleton(app = "long", ttl = "4s", locker = locker, guard = guard)]
async fn long_job(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
    let token = guard.fencing_token();
    tokio::task::yield_now().await;
    outlives_its_ttl(server, "QUEUE:long");
    assert_eq!(server.token("QUEUE:long"), token);
    assert!(guard.held_for() >= KEPT);
    guard.ensure_held()
}

#[tokio::test]
async fn an_async_body_keeps_its_lock_for_longer_than_its_ttl() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    long_job(&locker, &server).await.unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:long"));
}

#[singleton(app = "long-sync", ttl = "4s", locker = locker, guard = guard)]
fn long_sync_job(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
    outlives_its_ttl(server, "QUEUE:long-sync");
    guard.ensure_held()
}

#[test]
fn a_sync_body_keeps_its_lock_for_longer_than_its_ttl() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    long_sync_job(&locker, &server).unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:long-sync"));
}

#[test]
fn a_guard_keeps_its_lock_for_longer_than_its_ttl() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("guard").ttl(KEPT).wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    for _ in 0..3 {
        outlives_its_ttl(&server, "QUEUE:guard");
    }
    guard.ensure_held().unwrap();
    assert!(guard.held_for() >= KEPT * 3);
    guard.release_blocking().unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:guard"));
}

//! Promise: one lock has one holder, whichever function, process or locker asks; and
//! different locks don't know each other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, singleton};

/// What runs inside while `report` does.
enum Meanwhile<'a> {
    Nothing,
    Call(&'a AppLocker),
}

#[singleton(app = "billing", locker = locker)]
async fn report(locker: &AppLocker, meanwhile: Meanwhile<'_>) -> Result<Option<Error>, Error> {
    match meanwhile {
        Meanwhile::Nothing => Ok(None),
        // Another locker: as another process would.
        Meanwhile::Call(other) => Ok(invoice(other).await.err()),
    }
}

#[singleton(app = "billing", locker = locker)]
async fn invoice(locker: &AppLocker) -> Result<(), Error> {
    Ok(())
}

#[tokio::test]
async fn two_functions_of_one_app_exclude_one_another() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let refusal = report(&locker, Meanwhile::Call(&other)).await.unwrap();
    let refusal = refusal.expect("the other function ran meanwhile");
    let holder = refusal.holder().expect("busy");
    assert_eq!(holder.application(), Some("billing"));
    // One after the other they both run.
    assert!(report(&locker, Meanwhile::Nothing).await.is_ok());
    invoice(&other).await.unwrap();
}

#[singleton(app = "tenants", name = "{tenant}/{shard:02}", locker = locker)]
async fn for_tenant(
    locker: &AppLocker,
    tenant: &str,
    shard: u32,
    inside: impl AsyncFnOnce(),
) -> Result<String, Error> {
    inside().await;
    Ok(applock::current().unwrap().info().key().to_owned())
}

#[tokio::test]
async fn captures_in_the_name_keep_tenants_apart() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let key = for_tenant(&locker, "acme", 7, async || {
        for (tenant, shard) in [("acme", 8), ("other", 7), ("acme/07", 7), ("", 7)] {
            let free = for_tenant(&other, tenant, shard, async || ()).await;
            assert!(free.is_ok(), "{tenant}/{shard}: {free:?}");
        }
        let same = for_tenant(&other, "acme", 7, async || ()).await;
        assert!(matches!(same, Err(Error::Busy(_))), "{same:?}");
        assert!(server.run::<bool>("EXISTS QUEUE:tenants:acme/07"));
    });
    assert_eq!(key.await.unwrap(), "QUEUE:tenants:acme/07");
}

#[singleton(key = "jobs:{tenant}:lock", locker = locker)]
fn by_key(locker: &AppLocker, tenant: u32) -> Result<String, Error> {
    Ok(applock::current().unwrap().info().key().to_owned())
}

#[test]
fn a_key_of_ones_own_is_used_as_it_is() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert_eq!(by_key(&locker, 3).unwrap(), "jobs:3:lock");
    let _guard = locker
        .lock("")
        .key("jobs:4:lock")
        .acquire_blocking()
        .unwrap();
    let busy = by_key(&locker, 4).unwrap_err();
    assert_eq!(busy.holder().unwrap().key(), "jobs:4:lock");
}

static INSIDE: AtomicU32 = AtomicU32::new(0);
static RUNS: AtomicU32 = AtomicU32::new(0);

#[singleton(app = "crowd", ttl = 30, wait = "60s", locker = locker)]
async fn one_at_a_time(locker: &AppLocker) -> Result<u64, Error> {
    assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0, "two at once");
    tokio::time::sleep(Duration::from_millis(3)).await;
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    RUNS.fetch_add(1, Ordering::SeqCst);
    Ok(applock::current().unwrap().fencing_token())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_crowd_one_runs_at_a_time_and_each_is_granted_the_lock() {
    let server = RedisServer::start();
    let shared = AppLocker::connect(server.url()).await.unwrap();
    let mut tasks = Vec::new();
    for which in 0..24 {
        let locker = match which % 2 {
            0 => shared.clone(),
            _ => AppLocker::connect(server.url()).await.unwrap(),
        };
        tasks.push(tokio::spawn(async move { one_at_a_time(&locker).await }));
    }
    let mut tokens = std::collections::HashSet::new();
    for task in tasks {
        tokens.insert(task.await.unwrap().unwrap());
    }
    assert_eq!(RUNS.load(Ordering::SeqCst), 24);
    assert_eq!(tokens.len(), 24);
}

fn tries_once(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    match locker.lock("processes").acquire_blocking() {
        Ok(_guard) => child::say("ran"),
        Err(error) => child::say(error),
    }
}

#[test]
fn another_process_learns_who_holds_the_lock() {
    if let Some(url) = child::part() {
        return tries_once(&url);
    }
    let name = child::name_of(another_process_learns_who_holds_the_lock);
    let server = RedisServer::start();
    let locker = AppLocker::builder()
        .store(server.url())
        .instance("worker-7")
        .connect_blocking()
        .unwrap();
    let guard = locker.lock("processes").acquire_blocking().unwrap();
    let refused = ChildProcess::start(name, &server.url());
    let text = refused.says();
    for part in [
        "busy",
        "QUEUE:processes",
        &format!("pid {}", std::process::id()),
        "worker-7",
        "last heartbeat",
        &guard.fencing_token().to_string(),
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    refused.dismiss();
    guard.release_blocking().unwrap();
    let admitted = ChildProcess::start(name, &server.url());
    assert_eq!(admitted.says(), "ran");
    admitted.dismiss();
}

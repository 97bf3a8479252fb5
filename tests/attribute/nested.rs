//! Promise: a `reentrant` call of the same lock in the same task or thread runs under the
//! lock already held; all other attempts are refused.
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::future::Future as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, current, singleton};
use tokio::sync::Notify;

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(30);

fn token() -> u64 {
    current().expect("a guard").fencing_token()
}

fn is_taken(server: &RedisServer, app: &str) -> bool {
    server.run(&format!("EXISTS QUEUE:{app}"))
}

#[singleton(app = "nest", locker = locker)]
async fn outer(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
    let ours = token();
    assert_eq!(inner(locker).await?, ours);
    assert!(is_taken(server, "nest"), "the inner one did not release");
    assert_eq!(inner_sync(locker)?, ours);
    assert!(is_taken(server, "nest"));
    tokio::task::yield_now().await;
    assert_eq!(inner(locker).await?, ours);
    assert_eq!(
        locker
            .lock("nest")
            .reentrant()
            .run(async { token() })
            .await?,
        ours
    );
    assert_eq!(locker.lock("nest").reentrant().run_blocking(token)?, ours);
    assert!(is_taken(server, "nest"));
    assert_eq!(token(), ours);
    current().unwrap().ensure_held()
}

#[singleton(app = "nest", reentrant, locker = locker)]
async fn inner(locker: &AppLocker) -> Result<u64, Error> {
    tokio::task::yield_now().await;
    Ok(token())
}

#[singleton(app = "nest", reentrant, locker = locker)]
fn inner_sync(locker: &AppLocker) -> Result<u64, Error> {
    Ok(token())
}

#[singleton(app = "nest", locker = locker)]
fn outer_sync(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
    let ours = token();
    assert_eq!(inner_sync(locker)?, ours);
    assert!(is_taken(server, "nest"));
    assert_eq!(pollster::block_on(inner(locker))?, ours);
    assert!(is_taken(server, "nest"));
    Ok(())
}

/// 91: it is released at the outermost end, and not before (F26).
#[tokio::test]
async fn nested_singletons_of_the_same_lock_run_under_it() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    outer(&locker, &server).await.unwrap();
    assert!(!is_taken(&server, "nest"));
}

/// 91
#[test]
fn nested_singletons_of_a_plain_thread_run_under_its_lock() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    outer_sync(&locker, &server).unwrap();
    assert!(!is_taken(&server, "nest"));
}

#[singleton(app = "recursion", reentrant, locker = locker)]
async fn recursive(locker: &AppLocker, depth: u32) -> Result<u64, Error> {
    if depth == 0 {
        return Ok(token());
    }
    let found = Box::pin(recursive(locker, depth - 1)).await?;
    assert_eq!(found, token());
    Ok(found)
}

#[singleton(app = "recursion", reentrant, locker = locker)]
fn recursive_sync(locker: &AppLocker, depth: u32) -> Result<u64, Error> {
    if depth == 0 {
        return Ok(token());
    }
    let found = recursive_sync(locker, depth - 1)?;
    assert_eq!(found, token());
    Ok(found)
}

/// 94
#[tokio::test]
async fn a_function_may_call_itself() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let first = recursive(&locker, 10).await.unwrap();
    assert!(!is_taken(&server, "recursion"));
    let second = recursive_sync(&locker, 10).unwrap();
    assert!(second > first);
    assert!(!is_taken(&server, "recursion"));
}

#[singleton(app = "one", locker = locker)]
async fn one(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
    assert!(is_taken(server, "one") && !is_taken(server, "two"));
    two(locker, server).await?;
    assert!(is_taken(server, "one") && !is_taken(server, "two"));
    Ok(())
}

#[singleton(app = "two", locker = locker)]
async fn two(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
    assert!(is_taken(server, "one") && is_taken(server, "two"));
    // The outer lock again, from inside the inner one.
    let outer = locker
        .lock("one")
        .reentrant()
        .run(async { token() })
        .await?;
    assert_ne!(outer, token());
    assert!(is_taken(server, "one") && is_taken(server, "two"));
    Ok(())
}

/// 94: a lock that is held already is not waited for.
#[tokio::test]
async fn a_nested_call_does_not_wait_for_itself_however_long_it_may_wait() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let lock = locker.lock("nest").reentrant().wait_forever();
    let nested = lock.run(async {
        let inner = lock.run(async { token() }).await.unwrap();
        assert_eq!(inner, token());
        assert_eq!(lock.run_blocking(token).unwrap(), inner);
    });
    let ended = tokio::time::timeout(SOON, nested).await;
    ended.expect("it waits for itself").unwrap();
    assert!(!is_taken(&server, "nest"));
}

/// 92
#[tokio::test]
async fn different_locks_nest_and_are_released_in_reverse() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    one(&locker, &server).await.unwrap();
    assert!(!is_taken(&server, "one") && !is_taken(&server, "two"));
}

#[singleton(app = "asks", locker = locker)]
async fn asks_for_its_own_lock(locker: &AppLocker) -> Result<(), Error> {
    let lock = locker.lock("asks");
    assert!(lock.try_acquire().await?.is_none());
    assert!(lock.try_acquire_blocking()?.is_none());
    let busy = lock.acquire().await.unwrap_err();
    let holder = busy.holder().expect("busy");
    assert_eq!(holder.fencing_token(), Some(token()));
    assert_eq!(holder.pid(), Some(std::process::id()));
    Ok(())
}

/// 90
#[tokio::test]
async fn a_guard_of_ones_own_is_refused_for_a_lock_that_one_runs_under() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    asks_for_its_own_lock(&locker).await.unwrap();
}

#[singleton(app = "spawns", locker = locker)]
async fn spawns(locker: &AppLocker) -> Result<(), Error> {
    let theirs = locker.clone();
    let spawned = tokio::spawn(async move { spawned_job(&theirs).await });
    let error = spawned.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
    let theirs = locker.clone();
    let threaded = std::thread::spawn(move || spawned_sync_job(&theirs));
    let error = threaded.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
    Ok(())
}

#[singleton(app = "spawns", reentrant, locker = locker)]
async fn spawned_job(locker: &AppLocker) -> Result<(), Error> {
    panic!("it ran beside the holder")
}

#[singleton(app = "spawns", reentrant, locker = locker)]
fn spawned_sync_job(locker: &AppLocker) -> Result<(), Error> {
    panic!("it ran beside the holder")
}

/// 93
#[tokio::test]
async fn a_spawned_task_or_thread_is_not_nested() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    spawns(&locker).await.unwrap();
}

#[singleton(app = "moves", locker = locker)]
async fn moves(locker: &AppLocker, entered: &AtomicBool, go_on: &Notify) -> Result<(), Error> {
    let first = std::thread::current().id();
    entered.store(true, Ordering::SeqCst);
    go_on.notified().await;
    assert_ne!(
        std::thread::current().id(),
        first,
        "it went on where it was"
    );
    let lock = locker.lock("moves").reentrant();
    assert_eq!(lock.run(async { token() }).await?, token());
    assert_eq!(lock.run_blocking(token)?, token());
    Ok(())
}

/// 93: and the thread that it left is nothing to the lock any more.
#[test]
fn a_task_that_moved_to_another_thread_is_nested_there() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let entered = AtomicBool::new(false);
    let go_on = Notify::new();
    let mut future = Box::pin(moves(&locker, &entered, &go_on));
    crate::support::wait::until("the body is entered", SOON, || {
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        entered.load(Ordering::SeqCst)
    });
    let here = locker.lock("moves").reentrant().run_blocking(token);
    let here = here.unwrap_err();
    assert!(matches!(here, Error::Busy(_)), "{here}");
    go_on.notify_one();
    std::thread::scope(|scope| {
        let there = scope.spawn(|| pollster::block_on(future));
        there.join().unwrap().unwrap();
    });
    assert!(!is_taken(&server, "moves"));
}

#[tokio::test]
async fn the_same_lock_of_another_locker_is_not_nested() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let lock = locker.lock("nest");
    let inside = lock.run(async {
        // Another locker may mean another store, or another prefix.
        other.lock("nest").reentrant().run(async {}).await
    });
    let error = inside.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
}

#[tokio::test]
async fn a_nested_call_under_a_lost_lease_does_not_run() {
    #[singleton(app = "nest", ttl = 60, on_lost = finish, locker = locker)]
    async fn loses_it(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
        let () = server.run("DEL QUEUE:nest");
        assert!(!current().unwrap().verify().await?);
        let error = inner(locker).await.unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error}");
        let error = inner_sync(locker).unwrap_err();
        assert!(matches!(error, Error::Lost { .. }), "{error}");
        Ok(())
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    loses_it(&locker, &server).await.unwrap();
    assert!(!is_taken(&server, "nest"));
}

#[tokio::test]
async fn a_panic_in_a_nested_call_releases_at_the_outer_end_only() {
    #[singleton(app = "nest", locker = locker)]
    async fn catches(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
        let panicked = crate::support::panics::caught(panics(locker)).await;
        assert!(panicked.is_err());
        assert!(is_taken(server, "nest"));
        current().unwrap().ensure_held()
    }
    #[singleton(app = "nest", reentrant, locker = locker)]
    async fn panics(locker: &AppLocker) -> Result<(), Error> {
        panic!("the inner body panics")
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    catches(&locker, &server).await.unwrap();
    assert!(!is_taken(&server, "nest"));
}

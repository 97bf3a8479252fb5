//! Promise: a holder that lost its lease learns of it at its next heartbeat at the latest:
//! the guard is lost for good, the async body is cancelled, the caller gets an error, and
//! it is logged (R4).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::lease::{LIMIT, assert_lost, assert_lost_for_good};
use crate::support::probe::Probe;
use crate::support::redis::RedisServer;
use crate::support::{log, wait};
use applock::{AppLocker, Error, Loss, singleton};

/// A heartbeat is due every three seconds. That a loss is reported as `Taken` shows that a
/// heartbeat has found it: if none had, it would be `Expired`.
const TTL: Duration = Duration::from_secs(9);

#[singleton(app = "job", ttl = "9s", wait = "60s", locker = locker)]
async fn job(locker: &AppLocker, probe: Probe) -> Result<(), Error> {
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

/// Takes the lock away from a running `job`, and sees it cancelled.
fn cancelled_by(take_away: impl Fn(&RedisServer)) {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let (probe, saw) = Probe::blind();
    let running = std::thread::spawn(move || pollster::block_on(job(&locker, probe)));
    wait::until("the lock is taken", LIMIT, || {
        server.run("EXISTS QUEUE:job")
    });
    let token: u64 = server.run("HGET QUEUE:job token");
    assert!(!saw.is_dropped());
    take_away(&server);
    let error = running.join().unwrap().unwrap_err();
    assert!(
        saw.is_dropped(),
        "the body is gone before its caller gets the error"
    );
    assert_lost(&error, Loss::Taken);
    let logged = log::until(&["cancelled", "job", &token.to_string()]);
    assert_eq!(logged.0, tracing::Level::ERROR);
    log::until(&["the lock is lost", "QUEUE:job", &token.to_string()]);
}

#[test]
fn a_body_whose_lock_is_released_by_force_elsewhere_is_cancelled() {
    cancelled_by(|server| {
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        assert!(other.lock("job").force_release_blocking().unwrap());
    });
}

// F18
#[test]
fn a_body_whose_lock_vanishes_in_a_flush_is_cancelled() {
    cancelled_by(|server| server.run("FLUSHALL"));
}

#[test]
fn a_body_whose_lock_has_another_holder_by_now_is_cancelled() {
    cancelled_by(|server| {
        let () = server.run("DEL QUEUE:job");
        let () = server.run("SET QUEUE:job another-program");
    });
}

#[tokio::test]
async fn a_stale_guard_neither_renews_nor_releases_the_next_holding() {
    let server = RedisServer::start();
    let ours = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let stale = ours.lock("job").ttl(TTL).acquire().await.unwrap();
    let () = server.run("DEL QUEUE:job");
    let newer = other.lock("job").ttl(TTL).acquire().await.unwrap();
    stale.lost().await;
    assert_lost(&stale.release().await.unwrap_err(), Loss::Taken);
    assert!(newer.verify().await.unwrap());
}

#[singleton(app = "finish", ttl = "9s", on_lost = finish, locker = locker, guard = guard)]
async fn finishes(locker: &AppLocker, server: &RedisServer) -> Result<&'static str, Error> {
    let () = server.run("DEL QUEUE:finish");
    guard.lost().await;
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
    tokio::task::yield_now().await;
    Ok("finished")
}

#[tokio::test]
async fn a_body_with_on_lost_finish_ends_by_itself_and_its_result_is_returned() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    assert_eq!(finishes(&locker, &server).await.unwrap(), "finished");
}

#[singleton(app = "lost-in-sync", ttl = "9s", locker = locker, guard = guard)]
fn sync_job(locker: &AppLocker, server: &RedisServer) -> Result<&'static str, Error> {
    let () = server.run("DEL QUEUE:lost-in-sync");
    guard.lost_blocking();
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
    Ok("finished")
}

#[test]
fn a_sync_body_finishes_can_see_its_loss_and_its_result_is_returned() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert_eq!(sync_job(&locker, &server).unwrap(), "finished");
    log::until(&["the lock is lost", "QUEUE:lost-in-sync"]);
}

#[tokio::test]
async fn lost_resolves_for_all_that_await_it_and_at_once_afterwards() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let guard = locker.lock("waiters").ttl(TTL).acquire().await.unwrap();
    let resolved = AtomicBool::new(false);
    let first = async {
        guard.lost().await;
        resolved.store(true, Ordering::SeqCst);
    };
    let take_away = async {
        tokio::task::yield_now().await;
        assert!(!resolved.load(Ordering::SeqCst));
        let () = server.run("FLUSHALL");
    };
    tokio::join!(first, guard.lost(), take_away);
    guard.lost().await;
    assert_lost_for_good(&guard, Loss::Taken);
}

#[tokio::test]
async fn verify_finds_a_loss_before_the_heartbeat_does() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let lock = locker.lock("verify").ttl(Duration::from_secs(60));
    let guard = lock.acquire().await.unwrap();
    assert!(guard.verify().await.unwrap());
    let () = server.run("DEL QUEUE:verify");
    // By this machine's clock the lease counts still.
    assert!(guard.is_held());
    assert!(!guard.verify().await.unwrap());
    assert_lost_for_good(&guard, Loss::Taken);
}

#[tokio::test]
async fn a_scoped_run_that_lost_its_lease_is_cancelled() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (probe, saw) = Probe::blind();
    let lock = locker.lock("scoped").ttl(TTL);
    let outcome = lock.run(async {
        let _probe = probe;
        let () = server.run("DEL QUEUE:scoped");
        wait::to_be_cancelled().await;
    });
    assert_lost(&outcome.await.unwrap_err(), Loss::Taken);
    assert!(saw.is_dropped());
}

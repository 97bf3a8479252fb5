//! Promise: a holder that lost its lease learns of it: the guard turns lost for good,
//! the async body is cancelled, the caller is told, and it is logged.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use applock::{AppLocker, Error, LockGuard, Loss, singleton};
use support::log;
use support::probe::Probe;
use support::redis::RedisServer;
use support::stall;
use support::wait;

/// A heartbeat is due each second: the news of a loss can't take longer than that, and
/// the ttl alone would take three times as long.
const TTL: Duration = Duration::from_secs(3);
const NEXT_HEARTBEAT: Duration = Duration::from_millis(1_800);

/// A machine that stood still for longer proves nothing about a matter of milliseconds.
const STALL: Duration = Duration::from_millis(40);

#[track_caller]
fn assert_lost(error: &Error, expected: Loss) {
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
fn assert_lost_for_good(guard: &LockGuard, expected: Loss) {
    assert!(!guard.is_held());
    assert_lost(&guard.ensure_held().unwrap_err(), expected);
    assert!(!guard.verify_blocking().unwrap());
    assert_eq!(guard.remaining(), Duration::ZERO);
    guard.lost_blocking();
    assert!(!guard.is_held());
}

#[singleton(app = "job", ttl = "3s", locker = locker)]
async fn job(locker: &AppLocker, probe: Probe) -> Result<(), Error> {
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

fn until_taken(server: &RedisServer, key: &str) {
    wait::until("the lock is taken", Duration::from_secs(10), || {
        server.run(&format!("EXISTS {key}"))
    });
}

/// Takes the lock away from a running `job`, and sees it cancelled.
fn cancelled_by(take_away: impl Fn(&RedisServer)) {
    log::keep();
    stall::retried(STALL, || is_cancelled_by(&take_away));
}

fn is_cancelled_by(take_away: impl Fn(&RedisServer)) {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let (probe, saw) = Probe::blind();
    let running = std::thread::spawn(move || pollster::block_on(job(&locker, probe)));
    until_taken(&server, "QUEUE:job");
    let token: u64 = server.run("HGET QUEUE:job token");
    assert!(!saw.is_dropped());
    let start = Instant::now();
    take_away(&server);
    let error = running.join().unwrap().unwrap_err();
    assert!(start.elapsed() < NEXT_HEARTBEAT, "{:?}", start.elapsed());
    assert!(
        saw.is_dropped(),
        "the body is gone before its caller is told"
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
fn a_body_whose_lock_somebody_else_has_by_now_is_cancelled() {
    cancelled_by(|server| {
        let () = server.run("DEL QUEUE:job");
        let () = server.run("SET QUEUE:job somebody");
    });
}

#[test]
fn a_stale_guard_neither_renews_nor_releases_the_next_holding() {
    stall::retried_async(STALL, async || {
        let server = RedisServer::start();
        let ours = AppLocker::connect(server.url()).await.unwrap();
        let other = AppLocker::connect(server.url()).await.unwrap();
        let stale = ours.lock("job").ttl(TTL).acquire().await.unwrap();
        let () = server.run("DEL QUEUE:job");
        let newer = other.lock("job").ttl(TTL).acquire().await.unwrap();
        stale.lost().await;
        assert_lost(&stale.release().await.unwrap_err(), Loss::Taken);
        assert!(newer.verify().await.unwrap());
    });
}

// F18
#[tokio::test]
async fn after_a_flush_the_next_token_is_larger_still() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let lock = locker.lock("flushed").ttl(TTL);
    let mut last = 0;
    for _ in 0..5 {
        let guard = lock.acquire().await.unwrap();
        assert!(guard.fencing_token() > last);
        last = guard.fencing_token();
        let () = server.run("FLUSHALL");
    }
}

// F18
#[tokio::test]
async fn scripts_that_the_server_forgot_are_taught_again_and_the_lock_is_kept() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let guard = locker.lock("scripts").ttl(TTL).acquire().await.unwrap();
    let () = server.run("SCRIPT FLUSH");
    assert!(guard.verify().await.unwrap());
    let () = server.run("SCRIPT FLUSH");
    guard.release().await.unwrap();
    assert_eq!(server.run::<i64>("EXISTS QUEUE:scripts"), 0);
}

// F18
#[test]
fn a_lock_that_a_restart_forgot_is_told_as_lost() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("restart").ttl(Duration::from_secs(30));
    let guard = lock.acquire_blocking().unwrap();
    let token = guard.fencing_token();
    server.restart();
    wait::until("the loss is noticed", Duration::from_secs(10), || {
        !guard.verify_blocking().unwrap_or(true)
    });
    assert_lost_for_good(&guard, Loss::Taken);
    assert!(lock.acquire_blocking().unwrap().fencing_token() > token);
}

/// Asks the guard until it says no. Was its last yes before the ttl was over at the
/// server? Each look's time is taken before the guard is asked, so that a slow machine
/// can't make a good guard look bad.
fn last_yes_after_acquisition(guard: &LockGuard) -> Duration {
    let acquired_at = guard.info().acquired_at().unwrap();
    let start = Instant::now();
    let mut last_yes = SystemTime::now();
    loop {
        let look = SystemTime::now();
        if !guard.is_held() {
            return last_yes.duration_since(acquired_at).unwrap_or_default();
        }
        last_yes = look;
        assert!(start.elapsed() < Duration::from_secs(20), "held for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
}

// F1
#[test]
fn a_guard_of_a_frozen_server_turns_lost_before_the_ttl_is_over_and_for_good() {
    stall::retried(STALL, || {
        log::keep();
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let ttl = Duration::from_millis(1_500);
        let guard = locker.lock("frozen").ttl(ttl).acquire_blocking().unwrap();
        server.freeze();
        let last_yes = last_yes_after_acquisition(&guard);
        // The server may have counted one renewal that it never answered; none at all here,
        // since it was frozen before the first was due.
        assert!(
            last_yes < ttl,
            "said 'held' {last_yes:?} after it was taken"
        );
        assert!(last_yes > ttl / 2, "gave up after {last_yes:?} already");
        guard.lost_blocking();
        assert_lost(&guard.ensure_held().unwrap_err(), Loss::Expired);
        log::until(&["the lock is lost", "QUEUE:frozen"]);
        server.thaw();
        wait::until("the server answers again", Duration::from_secs(10), || {
            locker.lock("other").info_blocking().is_ok()
        });
        assert_lost_for_good(&guard, Loss::Expired);
        assert_lost(&guard.release_blocking().unwrap_err(), Loss::Expired);
        wait::until("the lock is free", Duration::from_secs(10), || {
            server.run::<i64>("EXISTS QUEUE:frozen") == 0
        });
    });
}

#[singleton(app = "frozen-body", ttl = "4s", locker = locker, guard = guard)]
async fn frozen_body(
    locker: &AppLocker,
    server: &RedisServer,
    acquired_at: &mut Option<SystemTime>,
    probe: Probe,
) -> Result<(), Error> {
    *acquired_at = guard.info().acquired_at();
    server.freeze();
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

// F1
#[test]
fn a_body_under_a_frozen_server_is_cancelled_before_the_ttl_is_over() {
    stall::retried_async(STALL, async || {
        let server = RedisServer::start();
        let locker = AppLocker::connect(server.url()).await.unwrap();
        let (probe, saw) = Probe::blind();
        let mut acquired_at = None;
        let outcome = frozen_body(&locker, &server, &mut acquired_at, probe).await;
        assert_lost(&outcome.unwrap_err(), Loss::Expired);
        let lived = saw.dropped_at().duration_since(acquired_at.unwrap());
        let lived = lived.unwrap_or_default();
        assert!(lived > Duration::from_secs(2), "cancelled after {lived:?}");
        // The margin is 70 ms.
        assert!(
            lived < Duration::from_secs(4),
            "cancelled only after {lived:?}"
        );
    });
}

#[singleton(app = "finish", ttl = "3s", on_lost = finish, locker = locker, guard = guard)]
async fn finishes(locker: &AppLocker, server: &RedisServer) -> Result<&'static str, Error> {
    let () = server.run("DEL QUEUE:finish");
    guard.lost().await;
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
    tokio::task::yield_now().await;
    Ok("finished")
}

#[test]
fn a_body_with_on_lost_finish_ends_by_itself_and_its_result_is_returned() {
    stall::retried_async(STALL, async || {
        let server = RedisServer::start();
        let locker = AppLocker::connect(server.url()).await.unwrap();
        assert_eq!(finishes(&locker, &server).await.unwrap(), "finished");
    });
}

#[singleton(app = "sync", ttl = "3s", locker = locker, guard = guard)]
fn sync_job(locker: &AppLocker, server: &RedisServer) -> Result<&'static str, Error> {
    let () = server.run("DEL QUEUE:sync");
    guard.lost_blocking();
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Taken);
    Ok("finished")
}

#[test]
fn a_sync_body_finishes_can_see_its_loss_and_its_result_is_returned() {
    stall::retried(STALL, || {
        log::keep();
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        assert_eq!(sync_job(&locker, &server).unwrap(), "finished");
        log::until(&["the lock is lost", "QUEUE:sync"]);
    });
}

#[test]
fn lost_resolves_for_everybody_who_waits_and_at_once_afterwards() {
    stall::retried_async(STALL, async || {
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
    });
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

#[test]
fn a_scoped_run_that_lost_its_lease_is_cancelled() {
    stall::retried_async(STALL, async || {
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
    });
}

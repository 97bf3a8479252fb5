//! Promise: a shutdown tells every holder to stop, releases all that the locker holds
//! within the time given, and takes no more locks; a drain lets what runs end first (F29).

use std::time::{Duration, Instant};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::probe::Probe;
use crate::support::redis::RedisServer;
use crate::support::{log, wait};
use applock::{AppLocker, Error, Loss, singleton};
use tokio::sync::oneshot;
use tracing::Level;

/// Long enough that half of it tells a shutdown that waits from one that does not.
const WITHIN: Duration = Duration::from_secs(30);

fn locks(server: &RedisServer) -> Vec<String> {
    server.run("KEYS QUEUE:*")
}

#[track_caller]
fn assert_shut_down(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Lost {
                reason: Loss::Shutdown,
                ..
            }
        ),
        "{error}"
    );
}

#[singleton(app = "body", locker = locker)]
async fn body(locker: &AppLocker, entered: oneshot::Sender<()>, probe: Probe) -> Result<(), Error> {
    entered.send(()).unwrap();
    wait::to_be_cancelled().await;
    drop(probe);
    Ok(())
}

#[tokio::test]
async fn a_shutdown_cancels_bodies_before_it_releases_their_locks() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (probe, saw) = Probe::new(&server, "QUEUE:body");
    let (entered, is_entered) = oneshot::channel();
    let running = {
        let locker = locker.clone();
        tokio::spawn(async move { body(&locker, entered, probe).await })
    };
    is_entered.await.unwrap();
    let start = Instant::now();
    locker.shutdown(WITHIN).await.unwrap();
    assert!(locks(&server).is_empty());
    // The body released by itself: the shutdown did not have to wait for half its time.
    assert!(start.elapsed() < WITHIN / 2, "{:?}", start.elapsed());
    assert!(saw.saw_the_lock_taken());
    assert_shut_down(&running.await.unwrap().unwrap_err());
}

#[test]
fn a_shutdown_releases_what_no_holder_has_released() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guards: Vec<_> = (0..50)
        .map(|n| locker.lock("kept").name(n.to_string()).acquire_blocking())
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(locks(&server).len(), 50);
    let within = Duration::from_secs(6);
    let start = Instant::now();
    // It would say so if they were not released in time.
    locker.shutdown_blocking(within).unwrap();
    assert!(locks(&server).is_empty());
    // Holders have half of the time to release by themselves.
    assert!(start.elapsed() >= within / 2, "{:?}", start.elapsed());
    for guard in guards {
        assert!(!guard.is_held());
        assert_shut_down(&guard.ensure_held().unwrap_err());
        assert_shut_down(&guard.release_blocking().unwrap_err());
    }
}

#[tokio::test]
async fn guards_are_lost_as_soon_as_the_shutdown_begins() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let guard = locker.lock("lost").acquire().await.unwrap();
    let holder = async {
        guard.lost().await;
        // Lost for the holder, and not yet released: the holder has time to stop.
        assert_eq!(locks(&server).len(), 1);
        drop(guard);
    };
    let start = Instant::now();
    let ((), outcome) = tokio::join!(holder, locker.shutdown(WITHIN));
    outcome.unwrap();
    assert!(locks(&server).is_empty());
    assert!(start.elapsed() < WITHIN / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn after_a_shutdown_nothing_is_taken_and_waiters_learn_of_it() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let theirs = other.lock("busy").acquire().await.unwrap();
    let waiting = {
        let lock = locker.lock("busy").wait_forever();
        tokio::spawn(async move { lock.acquire().await.map(drop) })
    };
    // It has polled at least once.
    let asked = || {
        server
            .run::<String>("INFO commandstats")
            .contains("evalsha")
    };
    wait::until("it waits", LIMIT, asked);
    locker.shutdown(WITHIN).await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    for _ in 0..3 {
        let error = locker.lock("free").acquire().await.unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{error}");
        assert!(error.to_string().contains("QUEUE:free"), "{error}");
    }
    let clone = locker.clone();
    let error = body(&clone, oneshot::channel().0, Probe::blind().0)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    // Others are not concerned.
    assert!(theirs.verify().await.unwrap());
    locker.shutdown(WITHIN).await.unwrap();
}

#[singleton(app = "drained", locker = locker)]
async fn drained(
    locker: &AppLocker,
    entered: oneshot::Sender<()>,
    end: oneshot::Receiver<()>,
) -> Result<u8, Error> {
    entered.send(()).unwrap();
    end.await.unwrap();
    Ok(1)
}

#[singleton(app = "undrained", locker = locker)]
fn refused(locker: &AppLocker) {
    panic!("it ran after the drain had begun");
}

#[tokio::test]
async fn a_drain_lets_a_body_end_and_refuses_waiting_calls_and_new_ones() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let other = AppLocker::connect(server.url()).await.unwrap();
    let _theirs = other.lock("busy").acquire().await.unwrap();
    let waiting = {
        let lock = locker.lock("busy").wait_forever();
        tokio::spawn(async move { lock.acquire().await.map(drop) })
    };
    let (entered, is_entered) = oneshot::channel();
    let (end, may_end) = oneshot::channel();
    let running = {
        let locker = locker.clone();
        tokio::spawn(async move { drained(&locker, entered, may_end).await })
    };
    is_entered.await.unwrap();
    let draining = {
        let locker = locker.clone();
        tokio::spawn(async move { locker.drain(WITHIN).await })
    };
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    // As long as it takes, and longer than a shutdown would leave it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    refused(&locker);
    assert_eq!(
        log::until(&["not run: closed", "QUEUE:undrained"]).0,
        Level::INFO
    );
    assert!(!draining.is_finished());
    end.send(()).unwrap();
    assert_eq!(running.await.unwrap().unwrap(), 1);
    draining.await.unwrap().unwrap();
    assert!(locks(&server).iter().all(|key| key == "QUEUE:busy"));
    assert!(
        log::lines(&["QUEUE:drained"])
            .iter()
            .all(|(level, _)| *level >= Level::INFO)
    );
}

#[tokio::test]
async fn what_outlasts_a_drain_is_cancelled_and_that_is_no_error_in_the_log() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (entered, is_entered) = oneshot::channel();
    let (_end, may_end) = oneshot::channel();
    let running = {
        let locker = locker.clone();
        tokio::spawn(async move { hangs(&locker, entered, may_end).await })
    };
    is_entered.await.unwrap();
    locker.drain(Duration::from_millis(200)).await.unwrap();
    assert_shut_down(&running.await.unwrap().unwrap_err());
    assert!(locks(&server).is_empty());
    assert_eq!(log::until(&["cancelled", "QUEUE:hangs"]).0, Level::INFO);
    assert!(
        log::lines(&["QUEUE:hangs"])
            .iter()
            .all(|(level, _)| *level >= Level::INFO)
    );
}

#[singleton(app = "hangs", locker = locker)]
async fn hangs(
    locker: &AppLocker,
    entered: oneshot::Sender<()>,
    end: oneshot::Receiver<()>,
) -> Result<(), Error> {
    entered.send(()).unwrap();
    end.await.unwrap();
    Ok(())
}

#[test]
fn a_shutdown_without_an_answering_server_ends_in_time_and_says_so() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let _guard = locker.lock("stuck").acquire_blocking().unwrap();
    server.freeze();
    let within = Duration::from_secs(1);
    let start = Instant::now();
    let error = locker.shutdown_blocking(within).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    // Its ttl is a minute.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    server.thaw();
}

fn holds_three(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let guards: Vec<_> = ["a", "b", "c"]
        .map(|name| locker.lock("child").name(name).acquire_blocking().unwrap())
        .into();
    child::say("holding");
    child::until_dismissed();
    locker.shutdown_blocking(Duration::from_secs(6)).unwrap();
    child::say("shut down");
    // The process ends with its guards still in hand.
    std::mem::forget(guards);
}

#[test]
fn a_process_that_shuts_down_before_it_ends_leaves_nothing_behind() {
    if let Some(url) = child::part() {
        return holds_three(&url);
    }
    let server = RedisServer::start();
    let child = ChildProcess::start(
        child::name_of(a_process_that_shuts_down_before_it_ends_leaves_nothing_behind),
        &server.url(),
    );
    assert_eq!(child.says(), "holding");
    assert_eq!(locks(&server).len(), 3);
    child.dismiss();
    assert!(locks(&server).is_empty());
}

fn ends_at_once(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let guard = locker.lock("child").acquire_blocking().unwrap();
    child::say("holding");
    child::until_dismissed();
    drop(guard);
    // The last handle of the locker waits for the release that is on its way.
    drop(locker);
    std::process::exit(0);
}

#[test]
fn a_process_that_drops_its_guard_and_its_locker_last_leaves_nothing_behind() {
    if let Some(url) = child::part() {
        ends_at_once(&url);
    }
    let server = RedisServer::start();
    for _ in 0..5 {
        let child = ChildProcess::start(
            child::name_of(
                a_process_that_drops_its_guard_and_its_locker_last_leaves_nothing_behind,
            ),
            &server.url(),
        );
        assert_eq!(child.says(), "holding");
        assert_eq!(locks(&server).len(), 1);
        child.dismiss();
        assert!(locks(&server).is_empty());
    }
}

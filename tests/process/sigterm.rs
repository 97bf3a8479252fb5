//! Promise: a process that is asked to end (SIGTERM) and calls `shutdown` releases what it
//! holds, long before any ttl; and it ends in time also if its server does not answer
//! (F29).

use std::time::{Duration, Instant};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Error, singleton};
use tokio::signal::unix::{SignalKind, signal};

#[singleton(app = "service", ttl = "10m", locker = locker)]
async fn serves(locker: &AppLocker) -> Result<(), Error> {
    child::say("serving");
    std::future::pending().await
}

/// What a service does: it serves until SIGTERM, and then shuts down.
async fn service(url: &str, within: Duration) -> Result<(), Error> {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    let locker = AppLocker::connect(url).await.unwrap();
    let lock = locker.lock("kept").ttl(Duration::from_secs(600));
    let _in_hand = lock.acquire().await.unwrap();
    let serving = {
        let locker = locker.clone();
        tokio::spawn(async move { serves(&locker).await })
    };
    asked.recv().await;
    let outcome = locker.shutdown(within).await;
    let ended = serving.await.unwrap().unwrap_err();
    assert!(matches!(ended, Error::Lost { .. }), "{ended}");
    child::say("shut down");
    outcome
}

fn run(url: &str, within: Duration) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(service(url, within))
}

#[test]
fn a_process_that_is_asked_to_end_leaves_its_locks_to_the_next() {
    if let Some(url) = child::part() {
        return run(&url, Duration::from_secs(10)).unwrap();
    }
    let server = RedisServer::start();
    let mut child = ChildProcess::start(
        child::name_of(a_process_that_is_asked_to_end_leaves_its_locks_to_the_next),
        &server.url(),
    );
    assert_eq!(child.says(), "serving");
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let service = locker.lock("service").wait(LIMIT);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| service.acquire_blocking().unwrap());
        child.terminate();
        assert!(waiting.join().unwrap().is_held());
    });
    assert_eq!(child.says(), "shut down");
    wait::until("the process ends", LIMIT, || child.has_ended());
    assert!(
        locker
            .lock("kept")
            .try_acquire_blocking()
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_process_ends_in_time_also_under_a_frozen_server() {
    if let Some(url) = child::part() {
        let error = run(&url, Duration::from_secs(2)).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        return;
    }
    let server = RedisServer::start();
    let mut child = ChildProcess::start(
        child::name_of(a_process_ends_in_time_also_under_a_frozen_server),
        &server.url(),
    );
    assert_eq!(child.says(), "serving");
    server.freeze();
    let asked = Instant::now();
    child.terminate();
    assert_eq!(child.says(), "shut down");
    wait::until("the process ends", LIMIT, || child.has_ended());
    // Two seconds were given; the ttl is ten minutes.
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    server.thaw();
}

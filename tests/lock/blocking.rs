//! Promise: every method that does I/O has a twin that blocks, and the twin works on
//! plain threads and inside every kind of tokio runtime.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::redis::RedisServer;
use applock::{AppLocker, Ending, Error, Loss, singleton};
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[singleton(app = "sync", locker = locker)]
fn sync_job(locker: &AppLocker) -> Result<u64, Error> {
    Ok(applock::current().unwrap().fencing_token())
}

/// All the twins, each by its effect.
fn all_twins(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let other = AppLocker::builder().store(url).connect_blocking().unwrap();
    let lock = locker.lock("twins").ttl(Duration::from_secs(30));
    let theirs = other.lock("twins").wait(Duration::from_secs(20));

    let guard = lock.acquire_blocking().unwrap();
    let token = guard.fencing_token();
    assert!(
        other
            .lock("twins")
            .try_acquire_blocking()
            .unwrap()
            .is_none()
    );
    assert!(guard.verify_blocking().unwrap());
    let info = theirs.info_blocking().unwrap().unwrap();
    assert_eq!(info.fencing_token(), Some(token));
    assert!(
        !theirs
            .force_release_if_stale_blocking(Duration::from_secs(25))
            .unwrap()
    );
    guard.release_blocking().unwrap();
    assert!(theirs.info_blocking().unwrap().is_none());
    let last = theirs.last_holding_blocking().unwrap().unwrap();
    assert_eq!((last.fencing_token, last.ending), (token, Ending::Released));

    assert_eq!(theirs.run_blocking(|| 7).unwrap(), 7);
    assert!(sync_job(&locker).unwrap() > 0);

    let guard = theirs.try_acquire_blocking().unwrap().unwrap();
    assert!(theirs.force_release_blocking().unwrap());
    guard.lost_blocking();
    assert!(matches!(
        guard.ensure_held(),
        Err(Error::Lost {
            reason: Loss::Taken,
            ..
        })
    ));
    locker.shutdown_blocking(Duration::from_secs(5)).unwrap();
    let closed = lock.acquire_blocking().unwrap_err();
    assert!(matches!(closed, Error::Closed { .. }), "{closed}");
}

#[test]
fn twins_work_on_a_plain_thread() {
    let server = RedisServer::start();
    all_twins(&server.url());
}

#[test]
fn twins_work_inside_a_current_thread_runtime() {
    let server = RedisServer::start();
    current_thread().block_on(async { all_twins(&server.url()) });
    let url = server.url();
    let task = async { tokio::spawn(async move { all_twins(&url) }).await };
    current_thread().block_on(task).unwrap();
}

#[test]
fn twins_work_inside_a_multi_thread_runtime() {
    let server = RedisServer::start();
    multi_thread().block_on(async { all_twins(&server.url()) });
    let url = server.url();
    let task = async { tokio::spawn(async move { all_twins(&url) }).await };
    multi_thread().block_on(task).unwrap();
    let url = server.url();
    let task = async { tokio::task::spawn_blocking(move || all_twins(&url)).await };
    multi_thread().block_on(task).unwrap();
}

#[test]
fn a_twin_waits_for_a_busy_lock_while_its_runtime_stands_still() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("wait").acquire_blocking().unwrap();
    let (asked, is_asked) = channel();
    let holder = std::thread::spawn(move || {
        is_asked.recv().unwrap();
        guard.release_blocking().unwrap();
    });
    current_thread().block_on(async {
        let lock = locker.lock("wait").wait(Duration::from_secs(30));
        asked.send(()).unwrap();
        lock.acquire_blocking().unwrap().release_blocking().unwrap();
    });
    holder.join().unwrap();
}

/// A task may block as often as it likes before it awaits again: tokio's budget for one
/// poll must not stop it.
#[test]
fn a_task_may_block_a_thousand_times_without_an_await() {
    let server = RedisServer::start();
    let url = server.url();
    for runtime in [current_thread(), multi_thread()] {
        let locker = AppLocker::connect_blocking(&url).unwrap();
        let (done, is_done) = channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                for _ in 0..1_000 {
                    sync_job(&locker).unwrap();
                }
                let lock = locker.lock("often");
                for _ in 0..200 {
                    let guard = lock.try_acquire_blocking().unwrap().unwrap();
                    assert!(guard.verify_blocking().unwrap());
                    assert!(lock.info_blocking().unwrap().is_some());
                    guard.release_blocking().unwrap();
                }
            });
            done.send(()).unwrap();
        });
        is_done
            .recv_timeout(Duration::from_secs(60))
            .expect("a task that blocks goes on");
    }
}

//! Promise: the library belongs to no async runtime: the one that first used a locker
//! may end, and any other executor, or none, works on with it (F9).

use crate::support::lease::{KEPT, LIMIT, outlives_its_ttl};
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Error, singleton};
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[singleton(app = "job", locker = locker)]
async fn job(locker: &AppLocker, server: &RedisServer) -> Result<u64, Error> {
    assert!(server.run::<bool>("EXISTS QUEUE:job"));
    Ok(applock::current().unwrap().fencing_token())
}

#[singleton(app = "job", locker = locker)]
fn sync_job(locker: &AppLocker, server: &RedisServer) -> Result<u64, Error> {
    assert!(server.run::<bool>("EXISTS QUEUE:job"));
    Ok(applock::current().unwrap().fencing_token())
}

#[test]
fn a_runtime_that_first_used_the_locker_may_end_and_its_guard_lives_on() {
    let server = RedisServer::start();
    let first = multi_thread();
    let locker = first.block_on(AppLocker::connect(server.url())).unwrap();
    let lock = locker.lock("guard").ttl(KEPT);
    let guard = first.block_on(lock.acquire()).unwrap();
    let token = guard.fencing_token();
    first.shutdown_timeout(LIMIT);

    // The heart beats on.
    outlives_its_ttl(&server, "QUEUE:guard");
    guard.ensure_held().unwrap();
    assert_eq!(server.run::<u64>("HGET QUEUE:guard token"), token);

    let second = current_thread();
    assert!(second.block_on(guard.verify()).unwrap());
    assert!(second.block_on(lock.try_acquire()).unwrap().is_none());
    let in_second = second.block_on(job(&locker, &server)).unwrap();
    drop(second);

    // And without any.
    let on_thread = std::thread::scope(|scope| {
        let job = scope.spawn(|| sync_job(&locker, &server).unwrap());
        job.join().unwrap()
    });
    assert!(on_thread > in_second);
    guard.release_blocking().unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:guard"));
}

#[test]
fn a_guard_taken_in_one_runtime_is_released_in_another() {
    let server = RedisServer::start();
    let first = current_thread();
    let locker = first.block_on(AppLocker::connect(server.url())).unwrap();
    let guard = first.block_on(locker.lock("moved").acquire()).unwrap();
    drop(first);
    multi_thread().block_on(guard.release()).unwrap();
    assert!(!server.run::<bool>("EXISTS QUEUE:moved"));
}

#[test]
fn each_runtime_of_many_uses_the_same_locker() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let mut last = 0;
    for _ in 0..10 {
        let token = current_thread().block_on(job(&locker, &server)).unwrap();
        assert!(token > last);
        last = multi_thread().block_on(job(&locker, &server)).unwrap();
        assert!(last > token);
    }
}

#[test]
fn other_executors_run_a_body_under_its_lock() {
    let server = RedisServer::start();
    let locker = pollster::block_on(AppLocker::connect(server.url())).unwrap();
    let one = pollster::block_on(job(&locker, &server)).unwrap();
    let two = futures_executor::block_on(job(&locker, &server)).unwrap();
    assert!(two > one);

    // Beside another task of the same thread, which goes on meanwhile.
    let mut pool = futures_executor::LocalPool::new();
    let three = pool.run_until(job(&locker, &server)).unwrap();
    assert!(three > two);
    assert!(!server.run::<bool>("EXISTS QUEUE:job"));
}

#[test]
fn other_executors_learn_of_a_loss() {
    #[singleton(app = "lost", ttl = "9s", locker = locker)]
    async fn is_lost(locker: &AppLocker, server: &RedisServer) -> Result<(), Error> {
        let () = server.run("DEL QUEUE:lost");
        wait::to_be_cancelled().await;
        Ok(())
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let error = futures_executor::block_on(is_lost(&locker, &server)).unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
}

#[test]
fn a_plain_program_without_any_runtime_runs_a_body() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert!(sync_job(&locker, &server).unwrap() > 0);
    assert!(!server.run::<bool>("EXISTS QUEUE:job"));
}

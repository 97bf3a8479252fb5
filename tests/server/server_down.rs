//! Promise: a server that is not there is reported as unavailable, at once, and never as
//! busy; a holder learns of its loss in time; and when the server is back it is used
//! again (F7).

use std::time::Duration;

use crate::support::fault::Fault;
use crate::support::lease::LIMIT;
use crate::support::ports::nowhere;
use crate::support::redis::RedisServer;
use crate::support::refusal::{
    PASSWORD, assert_unavailable, refusal, refused_connection, runs, unconnected,
};
use crate::support::wait;
use applock::{AppLocker, Result, singleton};

#[test]
fn nothing_listening_is_unavailable() {
    let port = nowhere();
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{port}");
    let error = refused_connection(&url);
    assert_unavailable(&error, &["refused", &port.to_string(), "start Redis"]);
}

#[test]
fn a_name_that_no_resolver_knows_is_unavailable() {
    let error = AppLocker::connect_blocking("redis://no-such-host.invalid:6379").unwrap_err();
    assert_unavailable(&error, &["no-such-host.invalid"]);
}

#[test]
fn a_server_that_was_killed_is_unavailable_each_time_and_used_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    assert!(runs(&locker));
    server.kill();
    for _ in 0..3 {
        assert_unavailable(&refusal(&locker), &["QUEUE:job", "127.0.0.1"]);
    }
    server.restart();
    wait::until("it is used again", LIMIT, || runs(&locker));
}

#[test]
fn a_waiter_gets_the_lock_when_the_server_is_back() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    server.kill();
    assert_unavailable(&refusal(&locker), &["QUEUE:job"]);
    let lock = locker.lock("job").wait(LIMIT);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.acquire_blocking());
        server.restart();
        assert!(waiting.join().unwrap().unwrap().is_held());
    });
}

#[test]
fn a_waiter_in_vain_learns_that_the_server_is_not_there() {
    let locker = unconnected(&format!("redis://127.0.0.1:{}", nowhere()));
    let lock = locker.lock("job").wait(Duration::from_secs(1));
    let error = lock.acquire_blocking().unwrap_err();
    assert_unavailable(&error, &["refused"]);
}

#[test]
fn a_holder_learns_of_its_loss_in_time() {
    Fault {
        server: RedisServer::start,
        begins: RedisServer::kill,
        reported: |_, error| assert_unavailable(error, &["127.0.0.1"]),
        ends: RedisServer::restart,
    }
    .lasts();
}

#[tokio::test]
async fn an_unavailable_server_is_never_passed_off_as_busy() {
    #[singleton(app = "job", locker = locker, on_busy = skip)]
    async fn skips(locker: &AppLocker) -> Result<()> {
        panic!("the body ran")
    }
    #[singleton(app = "job", locker = locker, on_busy = Ok(7))]
    async fn gives(locker: &AppLocker) -> anyhow::Result<u32> {
        panic!("the body ran")
    }
    let locker = unconnected(&format!("redis://127.0.0.1:{}", nowhere()));
    assert_unavailable(&skips(&locker).await.unwrap_err(), &["QUEUE:job"]);
    let error = gives(&locker).await.unwrap_err();
    assert_unavailable(error.downcast_ref().unwrap(), &["QUEUE:job"]);
    assert!(locker.lock("job").try_acquire().await.is_err());
}

#[tokio::test]
async fn who_prints_the_whole_chain_prints_no_cause_twice() {
    let server = RedisServer::with(&["--requirepass", "hunter2"]);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for url in [
        format!("redis://127.0.0.1:{}", nowhere()),
        format!("redis://127.0.0.1:{}/1000000", server.port()),
        format!("redis://:wrong@127.0.0.1:{}", server.port()),
        format!("dir:{}/locks", file.display()),
    ] {
        let error = AppLocker::connect(&url).await.unwrap_err();
        let causes: Vec<String> = anyhow::Error::from(error)
            .chain()
            .map(ToString::to_string)
            .collect();
        let (told, causes) = causes.split_first().unwrap();
        assert!(
            causes.iter().all(|cause| !told.contains(cause)),
            "{told}: {causes:?}"
        );
        assert!(
            !(told.contains("refused)") && causes.concat().contains("refused")),
            "{told}: {causes:?}"
        );
    }
}

//! Promise: a release that fails never replaces the body's own result; it is logged, and
//! the ttl frees the lock (F17, R9).

use std::time::Duration;

use crate::support::lease::{LIMIT, view};
use crate::support::redis::RedisServer;
use crate::support::{log, wait};
use applock::{AppLocker, Error, singleton};

#[singleton(app = "result", locker = locker)]
async fn kills_its_server(locker: &AppLocker, server: &mut RedisServer) -> Result<u32, Error> {
    server.kill();
    Ok(42)
}

#[singleton(app = "result", locker = locker)]
fn kills_its_server_sync(locker: &AppLocker, server: &mut RedisServer) -> Result<u32, Error> {
    server.kill();
    Ok(43)
}

#[test]
fn a_bodys_own_result_is_returned_though_its_server_is_gone() {
    log::keep();
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let outcome = pollster::block_on(kills_its_server(&locker, &mut server));
    assert_eq!(outcome.unwrap(), 42);
    log::until(&["\"kills_its_server\"", "its lock was not released"]);
    server.restart();
    wait::until("it is used again", LIMIT, || {
        locker.lock("other").acquire_blocking().is_ok()
    });
    let outcome = kills_its_server_sync(&locker, &mut server);
    assert_eq!(outcome.unwrap(), 43);
    log::until(&["\"kills_its_server_sync\"", "its lock was not released"]);
}

#[singleton(app = "refused", ttl = "4s", locker = locker)]
async fn loses_its_right(locker: &AppLocker, server: &RedisServer) -> Result<u32, Error> {
    let () = server.run("ACL SETUSER default -del");
    Ok(44)
}

#[test]
fn a_lock_whose_release_is_refused_is_freed_by_its_ttl() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let outcome = pollster::block_on(loses_its_right(&locker, &server));
    assert_eq!(outcome.unwrap(), 44);
    log::until(&["loses_its_right", "its lock was not released"]);
    // Its heart does not beat any more: by the server's clock it lives for what is left.
    let left = view(&server, "QUEUE:refused").map_or(Duration::ZERO, |view| view.left);
    let end = server.time() + left;
    wait::until("the lock is free", LIMIT, || {
        match view(&server, "QUEUE:refused") {
            Some(view) => assert!(view.at <= end, "it was renewed"),
            None => return true,
        }
        false
    });
    assert!(
        locker
            .lock("refused")
            .try_acquire_blocking()
            .unwrap()
            .is_some()
    );
}

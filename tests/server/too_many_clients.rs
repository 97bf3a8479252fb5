//! Promise: a server that takes no more clients (maxclients) is reported as unavailable to
//! new clients; a lock is kept over the connection that its holder has (F20).

use std::time::Duration;

use crate::support::lease::{KEPT, LIMIT};
use crate::support::redis::RedisServer;
use crate::support::refusal::{PASSWORD, assert_unavailable, runs};
use crate::support::wait;
use applock::AppLocker;
use redis::Connection;

fn ask(connection: &mut Connection, words: &[&str]) {
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.query::<redis::Value>(connection).unwrap();
}

#[test]
fn new_clients_learn_of_it_and_holders_keep_their_locks() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("held").ttl(KEPT).wait(LIMIT);
    let held = lock.acquire_blocking().unwrap();
    let mut place = server.connect().unwrap();
    ask(&mut place, &["CONFIG", "SET", "maxclients", "2"]);
    // Earlier ones of ours may have to go first.
    let mut error = None;
    wait::until("the server is full", LIMIT, || {
        error = AppLocker::connect_blocking(server.url()).err();
        error.is_some()
    });
    assert_unavailable(&error.unwrap(), &["127.0.0.1"]);
    wait::until("the lock outlives its ttl", LIMIT, || {
        held.ensure_held().unwrap();
        held.held_for() > KEPT + Duration::from_secs(1)
    });
    assert!(held.verify_blocking().unwrap());
    ask(&mut place, &["CONFIG", "SET", "maxclients", "100"]);
    wait::until("there is room again", LIMIT, || {
        AppLocker::connect_blocking(server.url()).is_ok_and(|other| runs(&other))
    });
    held.release_blocking().unwrap();
}

/// The server says so before it has read the login: that is no wrong password, and may mend itself.
#[test]
fn a_client_with_a_password_learns_of_it_too() {
    let server = RedisServer::with(&["--requirepass", PASSWORD]);
    let mut place = server.connect().unwrap();
    ask(&mut place, &["CONFIG", "SET", "maxclients", "1"]);
    for rest in ["", "?protocol=resp3"] {
        let url = format!("redis://:{PASSWORD}@127.0.0.1:{}{rest}", server.port());
        for _ in 0..10 {
            let error = AppLocker::connect_blocking(&*url).unwrap_err();
            // Its words may be lost where it hangs up before they are read.
            assert_unavailable(&error, &[]);
        }
        wait::until("its words are read", LIMIT, || {
            let error = AppLocker::connect_blocking(&*url).unwrap_err();
            error.to_string().contains("maxclients")
        });
    }
}

//! Promise: the rights that the README lists are enough, and each that is missing is
//! told as `Denied`, with no half-made lock left.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::time::Duration;

use applock::{AppLocker, Ending, Error, Result, singleton};
use support::redis::RedisServer;

const PASSWORD: &str = "s3cret-of-lk";

/// All that a user needs for `redis://`, for every call there is.
const COMMANDS: [&str; 11] = [
    "evalsha", "eval", "time", "type", "pttl", "pexpire", "hget", "hmget", "hgetall", "hset", "del",
];

/// The locks, and what stands beside each.
const KEYS: [&str; 2] = ["~QUEUE:*", "~{QUEUE:*}:fence"];

/// A server with a user that has these rights and no others, and its URL.
fn server_for(commands: &[&str], keys: &[&str]) -> (RedisServer, String) {
    let server = RedisServer::start();
    let commands: Vec<String> = commands.iter().map(|name| format!("+{name}")).collect();
    let password = format!(">{PASSWORD}");
    let mut words = vec![
        "ACL",
        "SETUSER",
        "lk",
        "on",
        &password,
        "resetchannels",
        "-@all",
    ];
    words.extend(commands.iter().map(String::as_str));
    words.extend(keys);
    let () = server.try_run(&words).unwrap();
    let url = format!("redis://lk:{PASSWORD}@127.0.0.1:{}", server.port());
    (server, url)
}

#[singleton(app = "job", locker = locker, ttl = "600ms")]
async fn job(locker: &AppLocker, ran: &mut bool) -> Result<u64> {
    *ran = true;
    Ok(applock::current().unwrap().fencing_token())
}

/// Everything that a lock can do, once each.
async fn everything(server: &RedisServer, url: &str) -> Result<()> {
    let locker = AppLocker::connect(url).await?;
    let other = AppLocker::connect(url).await?;
    let mut ran = false;
    job(&locker, &mut ran).await?;
    assert!(ran);
    let lock = locker.lock("all").name("x").ttl(Duration::from_secs(30));
    let guard = lock.acquire().await?;
    let theirs = other.lock("all").name("x");
    let busy = theirs.acquire().await.unwrap_err();
    assert_eq!(
        busy.holder().ok_or(busy.clone())?.fencing_token(),
        Some(guard.fencing_token())
    );
    assert!(guard.verify().await?);
    let () = server.run("SCRIPT FLUSH");
    assert!(guard.verify().await?);
    assert!(theirs.info().await?.is_some());
    assert!(
        !theirs
            .force_release_if_stale(Duration::from_secs(29))
            .await?
    );
    guard.release().await?;
    assert_eq!(
        theirs.last_holding().await?.unwrap().ending,
        Ending::Released
    );
    let guard = lock
        .clone()
        .at_least(Duration::from_secs(1))
        .acquire()
        .await?;
    guard.release().await?;
    assert!(theirs.info().await?.is_some());
    assert!(theirs.force_release().await?);
    assert_eq!(theirs.last_holding().await?.unwrap().ending, Ending::Forced);
    let waiting = theirs.wait(Duration::from_secs(10)).acquire().await?;
    locker.shutdown(Duration::from_secs(5)).await?;
    waiting.release().await
}

#[tokio::test]
async fn the_listed_rights_are_enough_for_everything() {
    let (server, url) = server_for(&COMMANDS, &KEYS);
    everything(&server, &url).await.unwrap();
    // Asked for beyond them, once after connecting, and never needed: a PING, and an INFO
    // that tells whether the server may evict locks.
    let log: Vec<std::collections::HashMap<String, redis::Value>> = server.run("ACL LOG");
    for entry in log {
        let object: String = redis::from_redis_value(entry["object"].clone()).unwrap();
        assert!(["ping", "info"].contains(&&*object), "{object} was refused");
    }
}

/// The step that first needs the right, without it.
async fn without(command: &str) -> Error {
    let rest: Vec<&str> = COMMANDS
        .into_iter()
        .filter(|name| *name != command)
        .collect();
    let (server, url) = server_for(&rest, &KEYS);
    let locker = AppLocker::connect(&url).await.unwrap();
    let admin = AppLocker::connect(server.url()).await.unwrap();
    match command {
        // To tell who holds a busy lock.
        "pttl" | "hgetall" => {
            let _held = admin.lock("job").acquire().await.unwrap();
            let mut ran = false;
            let error = job(&locker, &mut ran).await.unwrap_err();
            assert!(!ran);
            error
        }
        // To release; the lock waits for its ttl then.
        "del" => {
            let guard = locker.lock("job").acquire().await.unwrap();
            guard.release().await.unwrap_err()
        }
        "hmget" => {
            let _held = admin.lock("job").acquire().await.unwrap();
            locker.lock("job").force_release().await.unwrap_err()
        }
        _ => {
            let mut ran = false;
            let error = job(&locker, &mut ran).await.unwrap_err();
            assert!(!ran, "the body ran without {command}");
            assert!(
                !server.run::<bool>("EXISTS QUEUE:job"),
                "half a lock without {command}"
            );
            error
        }
    }
}

#[track_caller]
fn assert_denied(error: &Error, what: &str) {
    let shown = format!("{error} {error:?}");
    assert!(matches!(error, Error::Denied(_)), "{what}: {shown}");
    assert!(shown.contains("lacks a right"), "{what}: {shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn each_missing_command_is_told_as_denied_and_leaves_no_half_made_lock() {
    for command in COMMANDS {
        assert_denied(&without(command).await, command);
    }
}

#[tokio::test]
async fn a_missing_key_pattern_is_told_as_denied_and_leaves_no_half_made_lock() {
    for keys in [&KEYS[..1], &KEYS[1..], &["~other:*"]] {
        let (server, url) = server_for(&COMMANDS, keys);
        let locker = AppLocker::connect(url).await.unwrap();
        let mut ran = false;
        let error = job(&locker, &mut ran).await.unwrap_err();
        assert_denied(&error, &format!("{keys:?}"));
        assert!(!ran);
        assert_eq!(server.run::<i64>("DBSIZE"), 0);
    }
}

#[tokio::test]
async fn a_right_taken_away_later_is_told_and_given_again_is_used() {
    let (server, url) = server_for(&COMMANDS, &KEYS);
    let locker = AppLocker::connect(url).await.unwrap();
    let mut ran = false;
    job(&locker, &mut ran).await.unwrap();
    let () = server.run("ACL SETUSER lk -hset");
    ran = false;
    assert_denied(&job(&locker, &mut ran).await.unwrap_err(), "hset");
    assert!(!ran);
    assert!(!server.run::<bool>("EXISTS QUEUE:job"));
    let () = server.run("ACL SETUSER lk +hset");
    job(&locker, &mut ran).await.unwrap();
    assert!(ran);
}

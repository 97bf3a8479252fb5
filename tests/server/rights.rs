//! Promise: the rights that the README lists are enough, and each that is missing is
//! reported as `Denied`, with no half-made lock left.

use std::time::Duration;

use crate::support::redis::RedisServer;
use applock::{AppLocker, Ending, Error, Result, singleton};

const PASSWORD: &str = "s3cret-of-lk";

/// All that a user needs for `redis://`, for every call there is.
const COMMANDS: [&str; 23] = [
    "evalsha", "eval", "time", "type", "exists", "pttl", "pexpire", "getrange", "mget", "set",
    "setrange", "del", "hget", "hset", "hincrby", "hdel", "zadd", "zrange", "zrank", "zcard",
    "zrem", "zpopmin", "scan",
];

/// To be notified of a grant; without them waiters poll.
const TO_NOTIFY: [&str; 3] = ["+publish", "+subscribe", "&applock:*"];

/// The locks, and what stands beside each.
const KEYS: [&str; 2] = ["~QUEUE:*", "~{QUEUE:*}:*"];

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
    words.extend(TO_NOTIFY);
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
    assert_eq!(other.locks("*").await?.len(), 1);
    other.ping().await?;
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
    // Its run had ended before, and `at_least` kept the lock.
    assert_eq!(
        theirs.last_holding().await?.unwrap().ending,
        Ending::Released
    );
    let every = lock.clone().every(Duration::from_secs(3600));
    assert!(matches!(every.acquire().await, Err(Error::AlreadyRan(_))));
    let _held = lock.acquire().await?;
    assert!(theirs.force_release().await?);
    assert_eq!(theirs.last_holding().await?.unwrap().ending, Ending::Forced);
    lock.run(async {}).await?;
    assert!(lock.last_success().await?.is_some());
    lock.run(async {}).await?;
    let guard = lock.acquire().await?;
    let patient = theirs.clone().wait(Duration::from_secs(10));
    let waiting = tokio::spawn(async move { patient.acquire().await });
    until_queued(&theirs, 1).await?;
    // A waiter that gives up leaves the queue.
    let hasty = theirs.clone().wait(Duration::from_millis(50));
    assert!(matches!(hasty.acquire().await, Err(Error::Busy(_))));
    until_queued(&theirs, 1).await?;
    guard.release().await?;
    let waiting = waiting.await.unwrap()?;
    // The first heartbeat makes a full lease of what was handed over.
    assert!(waiting.verify().await?);
    locker.shutdown(Duration::from_secs(5)).await?;
    waiting.release().await
}

async fn until_queued(lock: &applock::Lock, count: u64) -> Result<()> {
    while lock.info().await?.and_then(|info| info.waiters()) != Some(count) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
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
        "pttl" => {
            let _held = admin.lock("job").acquire().await.unwrap();
            let mut ran = false;
            let error = job(&locker, &mut ran).await.unwrap_err();
            assert!(!ran);
            error
        }
        // To wait in the queue.
        "zadd" | "zrange" | "zrank" | "hset" => {
            let _held = admin.lock("job").acquire().await.unwrap();
            let patient = locker.lock("job").wait(Duration::from_secs(10));
            patient.acquire().await.unwrap_err()
        }
        // To say what stands there, and how many wait.
        "scan" => locker.locks("*").await.unwrap_err(),
        "type" | "zcard" => locker.lock("job").info().await.unwrap_err(),
        // To leave the queue, or to be the next: a holding that is not ours any more.
        "zrem" => {
            let guard = locker.lock("job").acquire().await.unwrap();
            let () = server.run("DEL QUEUE:job");
            guard.release().await.unwrap_err()
        }
        // To count the waiters of each process.
        "hincrby" => {
            let _held = admin.lock("job").acquire().await.unwrap();
            let patient = locker.lock("job").wait(Duration::from_secs(10));
            patient.acquire().await.unwrap_err()
        }
        "zpopmin" | "hget" | "hdel" => {
            // Free, with a waiter in the queue.
            let () = server.run("ZADD {QUEUE:job}:queue 1 waiter");
            locker.lock("job").acquire().await.unwrap_err()
        }
        // To send heartbeats.
        "mget" | "pexpire" => {
            let guard = locker.lock("job").acquire().await.unwrap();
            guard.verify().await.unwrap_err()
        }
        // To release; the lock waits for its ttl then.
        "del" | "setrange" => {
            let guard = locker.lock("job").acquire().await.unwrap();
            guard.release().await.unwrap_err()
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

/// A waiter that was notified of its grant holds the lock, whatever fails after that.
#[tokio::test]
async fn a_hand_over_that_fails_half_way_does_not_free_the_lock_for_others() {
    let rest: Vec<&str> = COMMANDS
        .into_iter()
        .filter(|name| *name != "hdel")
        .collect();
    let (server, url) = server_for(&rest, &KEYS);
    let locker = AppLocker::connect(&url).await.unwrap();
    let admin = AppLocker::connect(server.url()).await.unwrap();
    let holding = locker.lock("job").acquire().await.unwrap();
    let patient = admin.lock("job").wait_forever();
    let waiting = tokio::spawn(async move { patient.acquire().await });
    until_queued(&admin.lock("job"), 1).await.unwrap();
    while server
        .run::<Vec<String>>("PUBSUB CHANNELS applock:*")
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = holding.release().await;
    let next = waiting.await.unwrap().unwrap();
    let lock = server.text("QUEUE:job").unwrap();
    assert_eq!(lock["owner"], next.info().owner_id());
    assert!(next.verify().await.unwrap());
    next.release().await.unwrap();
}

#[track_caller]
fn assert_denied(error: &Error, what: &str) {
    let shown = format!("{error} {error:?}");
    assert!(matches!(error, Error::Denied(_)), "{what}: {shown}");
    assert!(shown.contains("lacks a right"), "{what}: {shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn each_missing_command_is_reported_as_denied_and_leaves_no_half_made_lock() {
    for command in COMMANDS {
        assert_denied(&without(command).await, command);
    }
}

/// That is told; how it ended is not known then.
#[tokio::test]
async fn a_holding_that_can_not_be_marked_as_released_is_released() {
    let rest: Vec<&str> = COMMANDS
        .into_iter()
        .filter(|name| *name != "setrange")
        .collect();
    let (server, url) = server_for(&rest, &KEYS);
    let lock = AppLocker::connect(&url).await.unwrap().lock("job");
    let told = lock.acquire().await.unwrap().release().await.unwrap_err();
    assert_denied(&told, "setrange");
    assert!(!server.run::<bool>("EXISTS QUEUE:job"));
    let last = lock.last_holding().await.unwrap().unwrap();
    assert_eq!(last.ending, Ending::Expired);
}

#[tokio::test]
async fn a_missing_key_pattern_is_reported_as_denied_and_leaves_no_half_made_lock() {
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
async fn a_right_taken_away_later_is_reported_and_given_again_is_used() {
    let (server, url) = server_for(&COMMANDS, &KEYS);
    let locker = AppLocker::connect(url).await.unwrap();
    let mut ran = false;
    job(&locker, &mut ran).await.unwrap();
    let () = server.run("ACL SETUSER lk -set");
    ran = false;
    assert_denied(&job(&locker, &mut ran).await.unwrap_err(), "set");
    assert!(!ran);
    assert!(!server.run::<bool>("EXISTS QUEUE:job"));
    let () = server.run("ACL SETUSER lk +set");
    job(&locker, &mut ran).await.unwrap();
    assert!(ran);
}

/// Who lists and looks needs no right to write.
const TO_READ: [&str; 8] = [
    "evalsha", "eval", "time", "type", "pttl", "getrange", "zcard", "scan",
];

#[tokio::test]
async fn a_user_that_can_only_read_lists_locks_and_waits_until_one_is_free() {
    let (server, url) = server_for(&TO_READ, &KEYS);
    let admin = AppLocker::connect(server.url()).await.unwrap();
    let held = admin.lock("job").acquire().await.unwrap();
    let () = server.run("SET QUEUE:foreign 1");
    let reader = AppLocker::connect(url).await.unwrap();
    let all = reader.locks("*").await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].owner_id(), held.info().owner_id());
    let lock = reader.lock("job");
    assert!(!lock.until_free_within(Duration::ZERO).await.unwrap());
    assert!(lock.last_holding().await.unwrap().is_some());
    held.release().await.unwrap();
    lock.until_free().await.unwrap();
    assert_denied(&lock.acquire().await.unwrap_err(), "a reader");
}

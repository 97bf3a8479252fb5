//! Promise: what a person on call must know is logged, once each, with the lock's key,
//! owner and token as fields; each run that ended is one line at `info`, and each one that did
//! not begin; locks taken by hand are silent there.
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::support::{log, wait};
use applock::{AppLocker, LockGuard, singleton};
use tracing::Level;

const TTL: Duration = Duration::from_secs(30);

fn hold(server: &RedisServer, app: &str) -> (AppLocker, LockGuard) {
    log::keep();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock(app).ttl(TTL).acquire_blocking().unwrap();
    (locker, guard)
}

/// The fields of a lock's event, as the log has them.
fn fields(guard: &LockGuard) -> [String; 3] {
    let info = guard.info();
    [
        format!("key={} ", info.key()),
        format!("owner={} ", info.owner_id().replace('-', "")),
        format!("token={} ", guard.fencing_token()),
    ]
}

/// Exactly one event with these words and the lock's fields, at this level. The owner id is
/// what no other test's lock has.
#[track_caller]
fn assert_logged_once(level: Level, words: &str, fields: &[String; 3]) {
    let [key, owner, token] = fields;
    let (logged, line) = log::until(&[words, owner]);
    assert_eq!(logged, level, "{line}");
    assert!(line.contains(key) && line.contains(token), "{line}");
    assert_eq!(log::lines(&[words, owner]).len(), 1, "{line}");
}

/// 168
#[test]
fn a_released_lock_is_an_event_for_debugging_only() {
    let server = RedisServer::start();
    let (locker, guard) = hold(&server, "let-go");
    let fields = fields(&guard);
    guard.release_blocking().unwrap();
    assert_logged_once(Level::DEBUG, "message=released ", &fields);
    for _ in 0..20 {
        let lock = locker.lock("let-go").ttl(TTL);
        lock.acquire_blocking().unwrap().release_blocking().unwrap();
        assert!(lock.info_blocking().unwrap().is_none());
    }
    let loud: Vec<_> = log::lines(&["QUEUE:let-go"])
        .into_iter()
        .filter(|(level, _)| *level <= Level::INFO)
        .collect();
    assert!(loud.is_empty(), "{loud:?}");
}

/// 168
#[test]
fn a_lost_lease_is_a_warning() {
    let server = RedisServer::start();
    let (_locker, guard) = hold(&server, "lost");
    let () = server.run("DEL QUEUE:lost");
    assert!(!guard.verify_blocking().unwrap());
    assert!(!guard.verify_blocking().unwrap());
    assert_logged_once(Level::WARN, "the lock is lost", &fields(&guard));
}

/// 168
#[test]
fn a_forced_release_is_a_warning_where_it_was_done_and_where_it_was_suffered() {
    let server = RedisServer::start();
    let (_locker, guard) = hold(&server, "evicted-by-hand");
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    assert!(
        other
            .lock("evicted-by-hand")
            .force_release_blocking()
            .unwrap()
    );
    assert_logged_once(Level::WARN, "message=released by force", &fields(&guard));
    assert!(!guard.verify_blocking().unwrap());
    assert_logged_once(Level::WARN, "the lock is lost", &fields(&guard));
}

/// 168
#[test]
fn failed_heartbeats_are_one_warning_and_one_word_when_they_are_answered_again() {
    let server = RedisServer::start();
    let (_locker, guard) = hold(&server, "beats");
    server.freeze();
    // Each of them fails.
    for _ in 0..2 {
        assert!(guard.verify_blocking().is_err());
    }
    server.thaw();
    wait::until("it is answered again", TTL, || {
        guard.verify_blocking().unwrap_or(false)
    });
    let fields = fields(&guard);
    assert_logged_once(Level::WARN, "a heartbeat failed", &fields);
    assert_logged_once(Level::INFO, "the lock was kept", &fields);
}

#[test]
fn a_redial_is_a_warning_that_names_the_lock_it_was_noticed_by() {
    let server = RedisServer::start();
    let (_locker, guard) = hold(&server, "redial");
    // What was sent with the first acquire (a question for the server's settings) is answered
    // by now, so that the heartbeat is what meets the dead connection.
    assert!(guard.verify_blocking().unwrap());
    let () = server.run("CLIENT KILL TYPE normal SKIPME yes");
    assert!(guard.verify_blocking().unwrap());
    assert_logged_once(Level::WARN, "dialling anew", &fields(&guard));
    let address = format!("127.0.0.1:{}", server.port());
    assert_eq!(
        log::until(&["connected to Redis again", &address]).0,
        Level::INFO
    );
    assert_eq!(log::lines(&["dialling anew", &address]).len(), 1);
}

#[test]
fn a_server_that_may_evict_locks_is_warned_of_once() {
    let server = RedisServer::with(&["--maxmemory-policy", "volatile-lru"]);
    let (locker, guard) = hold(&server, "evicted");
    assert_logged_once(Level::WARN, "may evict locks", &fields(&guard));
    let more = locker.lock("more").ttl(TTL).acquire_blocking().unwrap();
    assert!(more.verify_blocking().unwrap());
    let address = format!("127.0.0.1:{}", server.port());
    assert_eq!(log::lines(&["may evict locks", &address]).len(), 1);
}

static ENTERED: AtomicBool = AtomicBool::new(false);

#[singleton(app = "ending", name = "{how}", locker = locker)]
async fn ends(locker: &AppLocker, how: &str) -> anyhow::Result<u8> {
    match how {
        "error" => anyhow::bail!("no"),
        "panicked" => panic!("purposely"),
        "cancelled" => {
            ENTERED.store(true, Ordering::SeqCst);
            std::future::pending().await
        }
        "lost" => {
            locker.lock("ending").name("lost").force_release().await?;
            applock::current().unwrap().verify().await?;
            std::future::pending().await
        }
        _ => Ok(1),
    }
}

#[singleton(app = "ending-sync", name = "{how}", locker = locker)]
fn ends_sync(locker: &AppLocker, how: &str) {
    assert_ne!(how, "panicked", "purposely");
}

#[tokio::test]
async fn each_run_that_has_ended_is_one_event_with_its_outcome_and_lengths() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let outcomes = ["returned", "error", "panicked", "cancelled", "lost"];
    for how in outcomes {
        let locker = locker.clone();
        let run = tokio::spawn(async move { ends(&locker, how).await.map(drop) });
        if how == "cancelled" {
            while !ENTERED.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            run.abort();
        }
        drop(run.await);
    }
    for how in ["returned", "panicked"] {
        let locker = locker.clone();
        drop(tokio::task::spawn_blocking(move || ends_sync(&locker, how)).await);
    }
    let events = |app: &str, how: &str| {
        let (level, line) = log::until(&["message=ended: ", &format!("key=QUEUE:{app}:{how} ")]);
        assert_eq!(level, Level::INFO, "{line}");
        for field in [
            format!("outcome=\"{how}\" "),
            format!("app={app} "),
            format!("name={how} "),
            "function=\"ends".to_owned(),
            "token=".to_owned(),
        ] {
            assert!(line.contains(&field), "{field:?} in {line}");
        }
        for length in ["waited_ms=", "held_ms="] {
            let (_, rest) = line.split_once(length).expect(length);
            let number = rest.split(' ').next().unwrap();
            number.parse::<u64>().expect(&line);
        }
        assert_eq!(
            log::lines(&["message=ended: ", &format!("key=QUEUE:{app}:{how} ")]).len(),
            1
        );
    };
    for how in outcomes {
        events("ending", how);
    }
    for how in ["returned", "panicked"] {
        events("ending-sync", how);
    }
}

#[test]
fn a_run_that_did_not_begin_tells_why_in_fields() {
    #[singleton(app = "fields", name = "eu", locker = locker)]
    fn skipped(locker: &AppLocker) {
        panic!("it ran beside the holder");
    }
    let server = RedisServer::start();
    log::keep();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("fields").name("eu").acquire_blocking().unwrap();
    skipped(&locker);
    let (level, line) = log::until(&["not run: busy", "QUEUE:fields:eu"]);
    assert_eq!(level, Level::INFO, "{line}");
    let host = guard.info().host().to_owned();
    for field in [
        "key=QUEUE:fields:eu ".to_owned(),
        "app=fields ".to_owned(),
        "name=eu ".to_owned(),
        "function=\"skipped\" ".to_owned(),
        "reason=\"busy\" ".to_owned(),
        format!("holder={host} (pid {}", std::process::id()),
        "held_since=20".to_owned(),
    ] {
        assert!(line.contains(&field), "{field:?} in {line}");
    }
    locker.shutdown_blocking(TTL).unwrap();
    skipped(&locker);
    let (_, line) = log::until(&["not run: closed", "QUEUE:fields:eu"]);
    assert!(
        line.contains("reason=\"closed\" ") && !line.contains("holder="),
        "{line}"
    );
}

/// 168: all of them, in the order in which they happened.
#[test]
fn the_log_of_a_lock_tells_its_story_in_order() {
    #[singleton(app = "story", locker = locker)]
    fn skipped(locker: &AppLocker) {
        panic!("it ran beside the holder");
    }
    let server = RedisServer::start();
    let (locker, guard) = hold(&server, "story");
    let other = AppLocker::connect_blocking(server.url()).unwrap();
    skipped(&other);
    guard.release_blocking().unwrap();
    let guard = locker.lock("story").ttl(TTL).acquire_blocking().unwrap();
    assert!(other.lock("story").force_release_blocking().unwrap());
    assert!(!guard.verify_blocking().unwrap());
    log::until(&["the lock is lost", "QUEUE:story"]);
    assert!(guard.release_blocking().is_err());
    let expected = [
        (Level::DEBUG, "acquired"),
        (Level::INFO, "not run"),
        (Level::DEBUG, "released"),
        (Level::DEBUG, "acquired"),
        (Level::WARN, "released by force"),
        (Level::WARN, "the lock is lost"),
    ];
    let mut lines = log::lines(&["QUEUE:story"]);
    // A machine that stands still may have a heartbeat fail meanwhile.
    lines.retain(|(_, line)| !line.contains("heartbeat failed") && !line.contains("was kept"));
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for ((level, line), (expected, words)) in lines.iter().zip(expected) {
        assert_eq!(*level, expected, "{line}");
        assert!(line.contains(&format!("message={words}")), "{line}");
    }
}

#[singleton(app = "marked", locker = locker)]
async fn marked(locker: &AppLocker) {
    applock::current().unwrap().mark_failed();
    // Nested, and a run of its own for the log.
    locker
        .lock("marked")
        .reentrant()
        .run(async {})
        .await
        .unwrap();
}

#[singleton(app = "marked-sync", locker = locker)]
fn marked_sync(locker: &AppLocker) {
    applock::current().unwrap().mark_failed();
}

#[tokio::test]
async fn a_run_that_says_that_it_failed_is_logged_as_failed() {
    log::keep();
    let locker = AppLocker::in_memory();
    marked(&locker).await;
    tokio::task::spawn_blocking(move || marked_sync(&locker))
        .await
        .unwrap();
    for key in ["marked", "marked-sync"] {
        let key = format!("key=QUEUE:{key} ");
        log::until(&["message=ended: error", &key, "outcome=\"error\" "]);
    }
    log::until(&["message=ended: returned", "key=QUEUE:marked ", "Lock::run"]);
}

#[singleton(app = "shared", every = "1h", on_busy = skip, locker = locker)]
async fn each_hour(locker: &AppLocker) {}

#[singleton(app = "shared", every = "1d", on_busy = skip, locker = locker)]
async fn each_day(locker: &AppLocker) {}

/// The hourly job keeps the daily one from ever running, and `skip` tells nobody.
#[tokio::test]
async fn a_job_that_another_function_has_run_instead_is_a_warning() {
    log::keep();
    let locker = AppLocker::in_memory();
    each_hour(&locker).await;
    each_hour(&locker).await;
    each_day(&locker).await;
    let (level, own) = log::until(&["not run: already ran", "function=\"each_hour\""]);
    assert_eq!(level, Level::INFO, "{own}");
    assert!(!own.contains("another function"), "{own}");
    let (level, other) = log::until(&["not run: already ran", "function=\"each_day\""]);
    assert_eq!(level, Level::WARN, "{other}");
    for part in [
        "events::each_hour from ",
        "another function",
        "`name = \"…\"`",
    ] {
        assert!(other.contains(part), "{part}: {other}");
    }
}

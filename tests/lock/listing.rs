//! Promise: `locks` lists who holds what, each lock once and no other key; `until_free` ends when
//! nobody holds the lock, and takes nothing.

use std::time::{Duration, Instant};

use applock::{AppLocker, Error, LockInfo};
use futures_util::future::join_all;

use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;

/// A server, and a locker of each store.
fn stores(directory: &tempfile::TempDir) -> (RedisServer, [AppLocker; 3]) {
    let server = RedisServer::start();
    // Each test its own, for they run in one process.
    let [dir, memory] =
        ["dir", "memory"].map(|kind| format!("{kind}:{}", directory.path().display()));
    let urls = [server.url(), dir, memory];
    let lockers = urls.map(|url| AppLocker::builder().store(url).build().unwrap());
    (server, lockers)
}

fn keys(holders: &[LockInfo]) -> Vec<&str> {
    holders.iter().map(LockInfo::key).collect()
}

#[tokio::test]
async fn each_lock_that_is_held_is_listed_once_with_its_holder_and_its_waiters() {
    let home = tempfile::tempdir().unwrap();
    let (_server, lockers) = stores(&home);
    for locker in lockers {
        assert_eq!(locker.locks("*").await.unwrap(), []);
        let reports = locker.lock("reports").acquire().await.unwrap();
        let _tenant = locker.lock("billing").name("t*").acquire().await.unwrap();
        let _legacy = locker.lock("x").key("legacy").acquire().await.unwrap();
        let given_back = locker.lock("given back").acquire().await.unwrap();
        given_back.release().await.unwrap();
        let kept = locker.lock("kept").at_least(Duration::from_secs(60));
        kept.acquire().await.unwrap().release().await.unwrap();
        let patient = locker.lock("reports").wait_forever();
        let waiting = tokio::spawn(async move { patient.acquire().await });
        let all = loop {
            let all = locker.locks("*").await.unwrap();
            if all.last().and_then(LockInfo::waiters) == Some(1) {
                break all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let expected = ["QUEUE:billing:t*", "QUEUE:kept", "QUEUE:reports"];
        assert_eq!(keys(&all), expected, "{}", locker.store());
        assert_eq!(all[2].owner_id(), reports.info().owner_id());
        assert_eq!(all[2].fencing_token(), Some(reports.fencing_token()));
        assert!(all[1].ended_at().is_some() && all[0].ended_at().is_none());
        for (pattern, found) in [
            ("QUEUE:*", &expected[..]),
            ("QUEUE:[a-b]*", &expected[..1]),
            ("QUEUE:?????", &[]),
            ("QUEUE:????", &expected[1..2]),
            ("*:*:*", &expected[..1]),
            ("QUEUE:billing:t\\*", &expected[..1]),
            ("QUEUE:reports", &expected[2..]),
            ("QUEUE:none", &[]),
            ("legacy", &["legacy"]),
            ("legacy*", &[]),
        ] {
            let listed = locker.locks(pattern).await.unwrap();
            assert_eq!(keys(&listed), found, "{pattern} {}", locker.store());
        }
        assert!(matches!(locker.locks("a[").await, Err(Error::Invalid(_))));
        waiting.abort();
    }
}

#[tokio::test]
async fn what_another_program_wrote_is_told_as_foreign_and_no_key_beside_a_lock_is_listed() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let _held = locker.lock("a").acquire().await.unwrap();
    let () = server.run("SET QUEUE:b 1");
    let () = server.run("SET QUEUE:python x");
    let () = server.run("SET QUEUE:python:INFO {}");
    let () = server.run("LPUSH QUEUE:list x");
    let () = server.run("SET other 1");
    // A holder may be called that, too.
    let _info = locker.lock("a").name("INFO").acquire().await.unwrap();
    let all = locker.locks("*").await.unwrap();
    let foreign: Vec<bool> = all.iter().map(LockInfo::is_foreign).collect();
    let expected = [
        "QUEUE:a",
        "QUEUE:a:INFO",
        "QUEUE:b",
        "QUEUE:list",
        "QUEUE:python",
    ];
    assert_eq!(keys(&all), expected);
    assert_eq!(foreign, [false, false, true, true, true]);
    // The fences lie beside the locks under this prefix.
    let bare = AppLocker::builder().store(server.url()).key_prefix("");
    let all = bare.connect().await.unwrap().locks("*").await.unwrap();
    assert_eq!(keys(&all), [&expected[..], &["other"]].concat());
}

#[tokio::test]
async fn many_locks_among_many_other_keys_are_listed_without_keys_and_in_short_steps() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let fill = "for n = 1, 20000 do redis.call('SET', 'other' .. n, '') end";
    let () = server.try_run(&["EVAL", fill, "0"]).unwrap();
    let lock = |number: usize| locker.lock("many").name(format!("{number:03}"));
    let taken = join_all((0..300).map(|number| async move { lock(number).acquire().await })).await;
    let guards: Vec<_> = taken.into_iter().map(Result::unwrap).collect();
    let all = locker.locks("*").await.unwrap();
    assert_eq!(all.len(), guards.len());
    assert!(all.windows(2).all(|two| two[0].key() < two[1].key()));
    assert_eq!(server.calls("keys"), 0);
    assert!(server.calls("scan") > 20, "{}", server.calls("scan"));
}

#[tokio::test]
async fn a_record_that_can_not_be_read_is_no_list_and_a_copy_of_one_is_no_lock() {
    let home = tempfile::tempdir().unwrap();
    let url = format!("dir:{}", home.path().display());
    let locker = AppLocker::connect(url).await.unwrap();
    let _held = locker.lock("a").acquire().await.unwrap();
    let record = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "lock"))
        .unwrap();
    let copy = home.path().join(format!("copy.{}.lock", "0".repeat(32)));
    std::fs::copy(&record, &copy).unwrap();
    assert_eq!(keys(&locker.locks("*").await.unwrap()), ["QUEUE:a"]);
    std::fs::write(&copy, "damaged").unwrap();
    let error = locker.locks("*").await.unwrap_err();
    assert!(error.to_string().contains("copy."), "{error}");
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
}

#[tokio::test]
async fn a_listing_of_a_server_that_is_away_is_an_error() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    server.kill();
    let error = locker.locks("*").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn until_free_ends_at_the_release_and_takes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (_server, lockers) = stores(&home);
    for locker in lockers {
        let lock = locker.lock("reports");
        lock.until_free().await.unwrap();
        let guard = lock.acquire().await.unwrap();
        let token = guard.fencing_token();
        let begun = Instant::now();
        let short = Duration::from_millis(100);
        assert!(!lock.until_free_within(short).await.unwrap());
        assert!(begun.elapsed() >= short);
        assert!(!lock.until_free_within(Duration::ZERO).await.unwrap());
        let watched = lock.clone();
        let free = tokio::spawn(async move { watched.until_free().await });
        tokio::task::yield_now().await;
        guard.release().await.unwrap();
        let ended = tokio::time::timeout(LIMIT, free).await;
        ended.expect("it ends").unwrap().unwrap();
        assert!(lock.info().await.unwrap().is_none());
        let last = lock.last_holding().await.unwrap().unwrap();
        assert_eq!(last.fencing_token, token, "it was taken");
    }
}

#[tokio::test]
async fn until_free_outlives_a_store_that_is_away_and_tells_of_it_when_its_time_is_over() {
    let mut server = RedisServer::durable();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let _held = locker.lock("reports").acquire().await.unwrap();
    let lock = AppLocker::connect(server.url())
        .await
        .unwrap()
        .lock("reports");
    server.kill();
    let short = Duration::from_millis(200);
    let error = lock.until_free_within(short).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let watched = lock.clone();
    let free = tokio::spawn(async move { watched.until_free().await });
    tokio::time::sleep(short).await;
    server.restart();
    assert!(lock.info().await.unwrap().is_some());
    assert!(lock.force_release().await.unwrap());
    let ended = tokio::time::timeout(LIMIT, free).await;
    ended.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn code_that_waits_for_its_own_lock_to_be_free_is_refused_at_once() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("reports");
    let inside = lock.run(async { lock.until_free().await }).await.unwrap();
    assert!(matches!(inside, Err(Error::Busy(_))), "{inside:?}");
}

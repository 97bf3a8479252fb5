//! Promise: what can't be used is refused with an error that names the value and the
//! remedy, and nothing half-made stays behind.

use std::path::Path;
use std::time::Duration;

use crate::support::redis::RedisServer;
use applock::{AppLocker, Builder, Error, InvalidInput, Result, singleton};

/// An `Invalid` that says what it is about, shows the value, and what to write.
#[track_caller]
fn invalid(error: Error, what: &str, value: &str) -> InvalidInput {
    let text = error.to_string();
    let Error::Invalid(input) = error else {
        panic!("not an invalid input: {text}")
    };
    assert_eq!(input.what, what, "{text}");
    assert!(input.value.contains(value), "{value:?} is missing: {text}");
    assert!(
        !input.reason.is_empty() && !input.remedy.is_empty(),
        "{text}"
    );
    for part in [input.what, &input.value, &input.reason, &input.remedy] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(text.len() < 600, "too long to read: {text}");
    *input
}

const HUGE: usize = 65_536;

#[singleton(app = "named", name = "{name}", locker = locker)]
async fn named(locker: &AppLocker, name: &str, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

#[singleton(app = "named", name = "{name}", locker = locker)]
fn named_sync(locker: &AppLocker, name: &str, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

#[tokio::test]
async fn empty_and_oversized_names_are_refused_and_nothing_is_written() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let huge = "x".repeat(HUGE);
    let bytes = HUGE.to_string();
    for (lock, what) in [
        (locker.lock(""), "app"),
        (locker.lock("app").name(""), "name"),
        (locker.lock("app").key(""), "key"),
        (locker.lock(&*huge), "app"),
        (locker.lock("app").name(&*huge), "name"),
        (locker.lock("app").key(&*huge), "key"),
    ] {
        let value = || invalid(lock.acquire_blocking().unwrap_err(), what, "\"");
        let error = value();
        assert!(
            error.reason.contains("empty") || error.reason.contains(&bytes),
            "{error}"
        );
        invalid(lock.try_acquire().await.unwrap_err(), what, "\"");
        invalid(lock.run(async {}).await.unwrap_err(), what, "\"");
        invalid(lock.info().await.unwrap_err(), what, "\"");
        invalid(lock.last_holding().await.unwrap_err(), what, "\"");
        invalid(lock.force_release().await.unwrap_err(), what, "\"");
        let stale = lock.force_release_if_stale(Duration::from_secs(30)).await;
        invalid(stale.unwrap_err(), what, "\"");
    }
    for name in ["", &*huge] {
        let mut ran = false;
        let error = named(&locker, name, &mut ran).await.unwrap_err();
        invalid(error, "name", "\"");
        invalid(
            named_sync(&locker, name, &mut ran).unwrap_err(),
            "name",
            "\"",
        );
        assert!(!ran);
    }
    assert_eq!(server.run::<i64>("DBSIZE"), 0);
    // The longest is accepted.
    let longest = locker.lock("app").name("x".repeat(HUGE - 1));
    longest.acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_key_or_prefix_that_keeps_another_locks_tokens_is_refused() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    for key in ["{QUEUE:reports}:fence", "waiters:jobs{eu}"] {
        let error = locker.lock("").key(key).acquire().await.unwrap_err();
        invalid(error, "key", key);
    }
    // The lock `x` of this prefix would be the fence of the key `{t}x`.
    let error = builder(&server).key_prefix("fence:{t}").build();
    invalid(error.unwrap_err(), "key_prefix", "fence:{t}");
    // The prefix alone does no harm, but with this application it does.
    let locker = builder(&server).key_prefix("{t}:").build().unwrap();
    let error = locker.lock("fence").acquire().await.unwrap_err();
    invalid(error, "app", "{t}:fence");
    assert_eq!(server.run::<i64>("DBSIZE"), 0);
    drop(locker.lock("reports").acquire().await.unwrap());
}

#[tokio::test]
async fn a_key_or_prefix_whose_side_keys_would_be_in_another_slot_is_refused() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    for key in ["a}b", "a{}b", "{}", "x{}{y}"] {
        let error = locker.lock("").key(key).acquire().await.unwrap_err();
        assert!(invalid(error, "key", key).remedy.contains("jobs{eu}"));
    }
    let error = builder(&server).key_prefix("staging}").build();
    invalid(error.unwrap_err(), "key_prefix", "staging}");
    assert_eq!(server.run::<i64>("DBSIZE"), 0);
    // Names are escaped, so they may hold any brace.
    drop(locker.lock("a}b").name("{}").acquire().await.unwrap());
}

#[singleton(app = "timed", ttl = ttl, locker = locker)]
async fn timed(locker: &AppLocker, ttl: Duration, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

// F23
#[tokio::test]
async fn ttls_of_nothing_too_little_and_too_much_are_refused_and_nothing_is_written() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let years = Duration::from_secs(11 * 365 * 24 * 3600);
    for (length, shown) in [
        (Duration::ZERO, "0s"),
        (Duration::from_nanos(1), "1ns"),
        (Duration::from_millis(99), "99ms"),
        (years, &*years.as_secs().to_string()),
        (Duration::from_secs(u64::MAX), &*u64::MAX.to_string()),
        (Duration::MAX, &*u64::MAX.to_string()),
    ] {
        let lock = || locker.lock("timed");
        let mut ran = false;
        let error = timed(&locker, length, &mut ran).await.unwrap_err();
        invalid(error, "ttl", shown);
        assert!(!ran);
        let error = lock().ttl(length).acquire_blocking().unwrap_err();
        invalid(error, "ttl", shown);
        let error = lock().at_most(length).acquire().await.unwrap_err();
        invalid(error, "at_most", shown);
        if !length.is_zero() {
            let error = lock().at_least(length).acquire().await.unwrap_err();
            invalid(error, "at_least", shown);
        }
        let error = builder(&server).ttl(length).build().unwrap_err();
        invalid(error, "ttl", shown);
    }
    let lock = locker.lock("timed").at_most(Duration::from_secs(1));
    let error = lock.at_least(Duration::from_secs(2)).acquire().await;
    let error = invalid(error.unwrap_err(), "at_least", "2s");
    assert!(error.reason.contains("1s"), "{error}");
    assert_eq!(server.run::<i64>("DBSIZE"), 0);
    // The least is accepted, and an overflowing wait is one for ever.
    let least = locker.lock("timed").ttl(Duration::from_millis(100));
    let least = least.wait(Duration::MAX);
    // On a busy machine the lease may be over before its release.
    let mut released = Ok(());
    for _ in 0..50 {
        released = least.acquire().await.unwrap().release().await;
        if released.is_ok() {
            break;
        }
    }
    released.unwrap();
}

fn builder(server: &RedisServer) -> Builder {
    AppLocker::builder().store(server.url())
}

#[test]
fn a_builders_values_are_checked() {
    let server = RedisServer::start();
    let refused = |builder: Builder, what, value: &str| {
        invalid(builder.clone().build().unwrap_err(), what, value);
        invalid(builder.connect_blocking().unwrap_err(), what, value)
    };
    refused(builder(&server).instance(""), "instance", "\"\"");
    refused(
        builder(&server).instance("i".repeat(257)),
        "instance",
        "iii",
    );
    refused(
        builder(&server).key_prefix("p".repeat(2_000)),
        "key_prefix",
        "ppp",
    );
    for (length, shown) in [(0, "0s"), (4, "4ms"), (1_001, "1s 1ms")] {
        let length = Duration::from_millis(length);
        let error = refused(
            builder(&server).command_timeout(length),
            "command_timeout",
            shown,
        );
        assert!(error.reason.contains("1 s"), "{error}");
    }
}

#[tokio::test]
async fn a_bad_url_is_refused_by_its_part_and_never_shows_the_password() {
    for (url, value, reason) in [
        ("", "", "no scheme"),
        ("localhost:6379", "***", "no scheme"),
        ("redis", "***", "no scheme"),
        ("mysql://u:hunter2@host", "mysql", "\"mysql\" is not known"),
        ("https://u:hunter2@host", "https", "no store speaks"),
        ("redis://", "redis://", "host"),
        ("redis://u:hunter2@", "redis://***@", "host"),
        ("redis://:hunter2@h:99999", "***@h:99999", "port"),
        ("redis://:hunter2@h:0", "***@h:0", "port 0"),
        ("redis://:hunter2@h:6379/db", "@h:6379/***", "no database"),
        ("redis://:hunter2@h/-1", "@h/***", "no database"),
        (
            "redis://:hunter2@h?tls=1",
            "@h?***",
            "number 1 is not known",
        ),
        ("redis://hunter2@h:x", "***@h:***", "port"),
        ("redis+cluster://:hunter2@h/3", "***@h/3", "number 0"),
        ("redis+sentinel://:hunter2@h", "***@h", "which master"),
        ("dir:", "dir:", "no directory"),
        ("dir:///tmp/a\0b", "dir:", "NUL"),
        ("dir:locks", "dir:locks", "not absolute"),
        ("dir:~/locks", "dir:~/locks", "not absolute"),
        ("dir:$HOME/locks", "dir:$HOME/locks", "not absolute"),
        ("dir:../locks", "dir:../locks", "not absolute"),
    ] {
        let error = AppLocker::connect(url).await.unwrap_err();
        let error = invalid(error, "url", value);
        assert!(error.reason.contains(reason), "{url:?}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        invalid(AppLocker::connect_blocking(url).unwrap_err(), "url", value);
        invalid(
            AppLocker::builder().store(url).build().unwrap_err(),
            "url",
            value,
        );
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn tls_that_is_not_built_in_is_said() {
    let error = AppLocker::connect_blocking("rediss://localhost").unwrap_err();
    assert!(invalid(error, "url", "rediss://").remedy.contains("`tls`"));
}

fn entries(path: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_directory_that_can_not_be_is_named_and_nothing_half_made_stays_behind() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "mine").unwrap();
    let at = |rest: &str| home.path().join(rest).display().to_string();
    let long = "x".repeat(300);
    for path in [
        at("file"),
        at("file/locks"),
        at(&format!("new/deeper/{long}")),
        "/proc/locks-of-a-test".to_owned(),
        "/proc/self/locks".to_owned(),
        "/sys/kernel/locks-of-a-test".to_owned(),
    ] {
        let error = AppLocker::connect(format!("dir:{path}")).await.unwrap_err();
        let text = error.to_string();
        let is_refusal = matches!(error, Error::Misconfigured(_) | Error::Denied(_));
        assert!(is_refusal, "{error:?}");
        assert!(text.contains(&path[..path.len().min(60)]), "{text}");
    }
    assert_eq!(entries(home.path()), ["file"]);
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "mine");
}

#[tokio::test]
async fn a_directory_that_can_not_be_is_reported_the_same_on_first_use() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "mine").unwrap();
    let file = home.path().join("file").display().to_string();
    for path in [&*file, &*format!("{file}/locks"), "/proc/locks-of-a-test"] {
        let url = format!("dir:{path}");
        let at_once = AppLocker::connect(&url).await.unwrap_err();
        let locker = AppLocker::builder().store(&url).build().unwrap();
        let mut ran = false;
        let later = named(&locker, "x", &mut ran).await.unwrap_err();
        assert!(!ran, "{path}");
        let (at_once, later) = (at_once.to_string(), later.to_string());
        let (_, reason) = at_once.split_once(path).unwrap();
        assert!(later.contains(reason), "{at_once} | {later}");
    }
    assert_eq!(entries(home.path()), ["file"]);
}

#[tokio::test]
async fn a_stale_time_that_overflows_is_refused() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let guard = locker.lock("held").acquire().await.unwrap();
    let error = locker
        .lock("held")
        .force_release_if_stale(Duration::MAX)
        .await;
    invalid(error.unwrap_err(), "stale_after", &u64::MAX.to_string());
    assert!(guard.verify().await.unwrap());
}

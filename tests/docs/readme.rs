//! What the README says under 'Rights' is enough for all that the library does on
//! Redis, and none of it can be left out. And a fleet can move over from a plain
//! `SET NX` lock as docs/MIGRATING.md says.

use std::time::Duration;

use crate::support::redis::RedisServer;
use anyhow::Context as _;
use applock::{AppLocker, Error, singleton};

/// The words of the README's `ACL SETUSER`.
fn rights() -> Vec<&'static str> {
    include_str!("../../README.md")
        .lines()
        .find(|line| line.starts_with("ACL SETUSER applock "))
        .expect("the README has the line")
        .split(' ')
        .collect()
}

/// All that is done on Redis. Every answer is looked at, so that a right that is
/// missing can't hide.
async fn everything(server: &RedisServer) -> Result<(), Error> {
    // So that EVAL is needed, and a refused command leaves nothing for the next round.
    server.run::<()>("FLUSHALL");
    server.run::<()>("SCRIPT FLUSH");
    server.run::<()>("CONFIG RESETSTAT");
    let url = format!("redis://applock:PASSWORD@127.0.0.1:{}", server.port());
    let locker = AppLocker::connect(url).await?;
    let lock = locker.lock("rights").ttl(Duration::from_secs(5));

    let guard = lock.acquire().await?;
    assert!(guard.verify().await?);
    assert!(lock.try_acquire().await?.is_none());
    assert!(lock.info().await?.is_some());
    assert_eq!(locker.locks("*").await?.len(), 1);
    assert!(lock.last_holding().await?.is_some());
    guard.release().await?;

    let kept = lock.clone().at_least(Duration::from_secs(5));
    kept.acquire().await?.release().await?;
    assert!(!lock.force_release_if_stale(Duration::from_secs(3)).await?);
    assert!(lock.force_release().await?);
    assert!(lock.info().await?.is_none());

    let named = lock.name("tenant-{7}");
    let guard = named.acquire().await?;
    let next = named.clone().wait(Duration::from_secs(10));
    let waiting = tokio::spawn(async move { next.acquire().await });
    // Until it has asked a second time: then it has a place.
    while server.calls("zrank") == 0 {
        if waiting.is_finished() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let waiters = named.info().await?.and_then(|info| info.waiters());
    assert!(waiters == Some(1) || waiting.is_finished(), "{waiters:?}");
    let outcome = guard.release().await;
    let next = waiting.await.expect("no panic")?;
    outcome?;
    assert!(next.verify().await?);
    let key = next.info().key().to_owned();
    next.release().await?;
    // A free lock with a waiter in its queue of which nothing is known: it is skipped.
    server.run::<()>(&format!("ZADD {{{key}}}:queue 1 gone"));
    // Gone, unknown to its holder.
    let guard = named.acquire().await?;
    server.run::<()>(&format!("DEL {}", guard.info().key()));
    match guard.release().await {
        Err(Error::NotHeld { .. }) => Ok(()),
        other => other,
    }
}

/// Without these, waiters poll instead.
const OPTIONAL: [&str; 2] = ["+publish", "+subscribe"];

#[tokio::test]
async fn the_rights_that_the_readme_lists_are_enough() {
    let server = RedisServer::start();
    server.try_run::<()>(&rights()).expect("Redis takes them");
    everything(&server).await.expect("they are enough");
}

#[tokio::test]
async fn none_of_the_rights_that_the_readme_lists_can_be_left_out() {
    let server = RedisServer::start();
    let all = rights();
    let needed = |word: &&&str| word.starts_with(['+', '~']) && !OPTIONAL.contains(*word);
    for left_out in all.iter().filter(needed) {
        let mut fewer = vec!["ACL", "SETUSER", "applock", "reset"];
        fewer.extend(all[3..].iter().filter(|word| *word != left_out));
        server.try_run::<()>(&fewer).expect("Redis takes them");
        let outcome = everything(&server).await;
        assert!(
            matches!(&outcome, Err(Error::Denied(fault)) if fault.remedy.contains("'Rights'")),
            "without {left_out}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn old_instances_with_a_plain_lock_and_new_ones_exclude_one_another() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.expect("a server");
    let lock = locker.lock("reports");
    let plain = "SET QUEUE:reports another-program NX EX 60";

    assert_eq!(server.run::<String>(plain), "OK");
    let Err(Error::Busy(holder)) = lock.acquire().await else {
        panic!("a plain lock does not count");
    };
    assert!(holder.is_foreign());
    assert!(
        !lock
            .force_release_if_stale(Duration::ZERO)
            .await
            .expect("an answer")
    );
    assert_eq!(server.run::<String>("GET QUEUE:reports"), "another-program");
    server.run::<()>("DEL QUEUE:reports");

    let guard = lock.acquire().await.expect("it is free");
    assert_eq!(server.run::<Option<String>>(plain), None);
    let text = server
        .text("QUEUE:reports")
        .expect("a lock for people to read");
    assert_eq!(text["owner"], guard.info().owner_id());
    // An old instance that does not check whose it is.
    server.run::<()>("DEL QUEUE:reports");
    assert!(!guard.verify().await.expect("an answer"));
    assert!(matches!(guard.release().await, Err(Error::Lost { .. })));

    server.run::<()>(plain);
    assert!(lock.force_release().await.expect("an answer"));
}

#[singleton(app = "told-apart", locker = locker, on_busy = error)]
async fn job(locker: &AppLocker) -> anyhow::Result<()> {
    anyhow::bail!("it failed by itself")
}

/// What the README's `match` tells apart.
async fn kind(locker: &AppLocker) -> &'static str {
    let outcome = job(locker).await.context("while the report was due");
    let error = outcome.unwrap_err();
    match error.downcast_ref::<Error>() {
        Some(Error::Busy(_)) => "busy",
        Some(_) => "refused",
        None => "failed",
    }
}

#[tokio::test]
async fn behind_anyhow_and_a_context_a_caller_tells_busy_from_failure() {
    let locker = AppLocker::in_memory();
    assert_eq!(kind(&locker).await, "failed");
    let guard = locker.lock("told-apart").acquire().await.unwrap();
    assert_eq!(kind(&locker).await, "busy");
    guard.release().await.unwrap();
    locker.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(kind(&locker).await, "refused");
}

//! What the README says under 'Rights' is enough for all that the library does on
//! Redis, and none of it can be left out.

mod support;

use std::time::Duration;

use applock::{AppLocker, Error};
use support::redis::RedisServer;

/// The words of the README's `ACL SETUSER`.
fn rights() -> Vec<&'static str> {
    include_str!("../README.md")
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
    let url = format!("redis://applock:PASSWORD@127.0.0.1:{}", server.port());
    let locker = AppLocker::connect(url).await?;
    let lock = locker.lock("rights").ttl(Duration::from_secs(5));

    let guard = lock.acquire().await?;
    assert!(guard.verify().await?);
    assert!(lock.try_acquire().await?.is_none());
    assert!(lock.info().await?.is_some());
    assert!(lock.last_holding().await?.is_some());
    guard.release().await?;

    let kept = lock.clone().at_least(Duration::from_secs(5));
    kept.acquire().await?.release().await?;
    assert!(!lock.force_release_if_stale(Duration::from_secs(3)).await?);
    assert!(lock.force_release().await?);
    assert!(lock.info().await?.is_none());

    let named = lock.name("tenant-{7}");
    named.acquire().await?.release().await
}

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
    for left_out in all.iter().filter(|word| word.starts_with(['+', '~'])) {
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

//! Promise: the probes that `docs/PROBES.md` shows answer as it says. They stand here as they stand
//! there.

use std::time::Duration;

use applock::AppLocker;

/// `GET /live`: 200 or 500.
fn live(locker: &AppLocker) -> u16 {
    if locker.health().is_alive { 200 } else { 500 }
}

/// `GET /ready`: 200 or 503, and why.
async fn ready(locker: &AppLocker) -> (u16, String) {
    match locker.ping().await {
        Ok(()) => (200, "ready".to_owned()),
        Err(error) => (503, error.to_string()),
    }
}

#[tokio::test]
async fn the_probes_answer_as_the_page_says() {
    let store = applock::MemoryStore::new();
    let builder = AppLocker::builder().store(store.clone());
    let locker = builder.build().unwrap();
    assert_eq!((live(&locker), ready(&locker).await.0), (200, 200));
    // A store that is away is no reason to kill a process.
    store.fail_with(applock::Outage::Unreachable);
    let (code, why) = ready(&locker).await;
    assert_eq!((live(&locker), code), (200, 503));
    assert!(why.starts_with("unavailable"), "{why}");
    store.recover();
    assert_eq!(ready(&locker).await, (200, "ready".to_owned()));
    locker.drain(Duration::from_secs(1)).await.unwrap();
    let (code, why) = ready(&locker).await;
    assert_eq!((live(&locker), code), (200, 503));
    assert!(why.starts_with("closed"), "{why}");
}

#[test]
fn the_page_shows_these_probes() {
    let here = include_str!("probes.rs");
    let page = include_str!("../../docs/PROBES.md");
    let blocks = page.split("```rust\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 1);
    assert!(here.contains(blocks[0]), "{}", blocks[0]);
}

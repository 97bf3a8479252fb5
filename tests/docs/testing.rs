//! Promise: the tests that `docs/TESTING.md` shows pass. They stand here as they stand there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use applock::clock::ManualClock;
use applock::{AppLocker, Error, MemoryStore, Outage, singleton};

async fn next_invoice() {
    tokio::task::yield_now().await;
}

#[singleton(app = "invoices", ttl = 60)]
async fn send_invoices(sent: &AtomicU64) -> Result<(), Error> {
    loop {
        sent.fetch_add(1, Ordering::SeqCst);
        next_invoice().await;
    }
}

#[tokio::test]
async fn each_test_has_a_locker_of_its_own() {
    let locker = AppLocker::in_memory();
    let sent = AtomicU64::new(0);
    let short = Duration::from_millis(50);
    let run = locker.scope(send_invoices(&sent));
    assert!(tokio::time::timeout(short, run).await.is_err());
    assert!(sent.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn another_instance_holds_the_lock() {
    let store = MemoryStore::new();
    let ours = AppLocker::builder().store(store.clone()).build().unwrap();
    let theirs = AppLocker::builder()
        .store(store)
        .instance("server-2")
        .build()
        .unwrap();
    let _held = theirs.lock("invoices").acquire().await.unwrap();
    let sent = AtomicU64::new(0);
    match ours.scope(send_invoices(&sent)).await {
        Err(Error::Busy(holder)) => assert_eq!(holder.instance_id(), "server-2"),
        other => panic!("{other:?}"),
    }
    assert_eq!(sent.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_lease_is_lost_in_virtual_time() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let builder = AppLocker::builder()
        .store(store.clone())
        .clock(clock.clone());
    let locker = builder.build().unwrap();
    let sent = AtomicU64::new(0);
    let run = locker.scope(send_invoices(&sent));
    let meanwhile = async {
        while sent.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // An hour passes in no time, and its heartbeats keep the lock.
        clock.run_for(Duration::from_secs(3600));
        assert!(locker.health().smallest_margin > Some(Duration::ZERO));
        // No heartbeat is answered for a ttl: the body is cancelled.
        store.fail_with(Outage::Unreachable);
        clock.run_for(Duration::from_secs(60));
    };
    let (lost, ()) = tokio::join!(run, meanwhile);
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
}

#[tokio::test]
async fn the_store_is_away_and_comes_back_in_time() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let builder = AppLocker::builder()
        .store(store.clone())
        .clock(clock.clone());
    let locker = builder.build().unwrap();
    let lock = locker.lock("invoices").ttl(Duration::from_secs(60));
    let guard = lock.acquire().await.unwrap();
    store.fail_with(Outage::Unreachable);
    clock.run_for(Duration::from_secs(30));
    let refused = locker.lock("other").acquire().await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    // A failed heartbeat is repeated, and is no loss.
    assert!(guard.is_held());
    store.recover();
    clock.run_for(Duration::from_secs(3600));
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_no_lock_behind() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let [ours, theirs] = [(), ()].map(|()| {
        let builder = AppLocker::builder().store(store.clone());
        builder.clock(clock.clone()).build().unwrap()
    });
    store.fail_with(Outage::AnswersLost);
    let unknown = ours.lock("invoices").acquire().await;
    assert!(matches!(unknown, Err(Error::Unavailable(_))), "{unknown:?}");
    store.recover();
    // It was taken; what nobody holds is given back.
    assert!(
        theirs
            .lock("invoices")
            .last_holding()
            .await
            .unwrap()
            .is_some()
    );
    clock.run_for(Duration::from_secs(5));
    let taken = theirs.lock("invoices").acquire().await.unwrap();
    drop(taken);
    store.fail_with(Outage::Denied);
    let denied = ours.locks("*").await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
}

#[test]
fn the_guide_shows_these_tests() {
    let here = include_str!("testing.rs");
    let page = include_str!("../../docs/TESTING.md");
    let blocks = page.split("```rust\n").skip(1);
    let blocks: Vec<&str> = blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        assert!(here.contains(block), "{block}");
    }
}

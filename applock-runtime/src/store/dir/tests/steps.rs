//! The steps of the store, as the engine calls them.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::super::file_names::Files;
use super::super::lock_file::LockFile;
use super::super::{CLEANUP_EVERY, THREADS};
use super::*;
use crate::info::Ending;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn opened() -> (tempfile::TempDir, Home) {
    let directory = scratch();
    let home = Home::at(&directory.path().join("locks"));
    home.store().open(LONG).await.unwrap();
    (directory, home)
}

fn lock_file(home: &Home, key: &Key) -> LockFile {
    let directory = &home.store.directory;
    LockFile::try_take(directory, &Files::of(directory.path(), &key.lock).lock_file)
        .unwrap()
        .unwrap()
}

/// Every thread of the store is done.
async fn quiet(home: &Home) {
    while home.store.threads.available_permits() < THREADS {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lock_is_taken_kept_alive_released_and_remembered() {
    let (_directory, home) = opened().await;
    let key = Key::of("QUEUE:", "reports", Some("eu")).unwrap();
    assert!(home.inspect(&key).await.last.is_none());
    let token = home.acquire(&key, 1).await.unwrap();
    let holder = home.acquire(&key, 2).await.unwrap_err();
    assert_eq!(holder.fencing_token(), Some(token));
    assert_eq!(
        (holder.application(), holder.name()),
        (Some("reports"), Some("eu"))
    );
    home.advance(TTL / 2);
    assert!(home.renew(&key, 1).await);
    assert!(!home.renew(&key, 2).await);
    home.advance(TTL / 2);
    assert!(!home.release(&key, 2, None).await);
    assert_eq!(home.acquire(&key, 1).await, Ok(token));
    assert!(home.release(&key, 1, None).await);
    assert!(!home.release(&key, 1, None).await);
    let seen = home.inspect(&key).await;
    assert!(seen.holder.is_none());
    let last = seen.last.unwrap();
    assert_eq!((last.ending, last.fencing_token), (Ending::Released, token));
    assert!(home.acquire(&key, 2).await.unwrap() > token);
}

#[tokio::test]
async fn an_expired_lease_is_neither_renewed_nor_released_and_then_free() {
    let (_directory, home) = opened().await;
    let key = key("a");
    let token = home.acquire(&key, 1).await.unwrap();
    home.advance(TTL);
    let path = Files::of(home.store.directory.path(), &key.lock).record;
    let before = fs::read(&path).unwrap();
    assert!(!home.renew(&key, 1).await);
    assert!(!home.release(&key, 1, None).await);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        home.inspect(&key).await.last.unwrap().ending,
        Ending::Expired
    );
    assert!(home.acquire(&key, 2).await.unwrap() > token);
}

#[tokio::test]
async fn at_least_and_force_work_through_the_store() {
    let (_directory, home) = opened().await;
    let key = key("a");
    home.acquire(&key, 1).await.unwrap();
    assert!(home.release(&key, 1, Some(TTL * 2)).await);
    assert!(home.acquire(&key, 2).await.is_err());
    home.advance(TTL * 2);
    home.acquire(&key, 2).await.unwrap();
    let force = |stale| {
        home.store()
            .force_release(key.clone(), stale, By::of_a_test(), LONG)
    };
    assert!(!force(Some(TTL / 2)).await.unwrap());
    home.advance(TTL / 2);
    assert!(force(Some(TTL / 2)).await.unwrap());
    assert!(!force(None).await.unwrap());
    assert!(!home.renew(&key, 2).await);
    assert_eq!(
        home.inspect(&key).await.last.unwrap().ending,
        Ending::Forced
    );
    home.acquire(&key, 3).await.unwrap();
    assert!(force(None).await.unwrap());
}

#[tokio::test]
async fn each_of_a_batch_has_its_own_outcome() {
    let (_directory, home) = opened().await;
    let keys = ["free", "busy", "damaged", "last"].map(key);
    home.acquire(&keys[1], 9).await.unwrap();
    let path = |key: &Key| Files::of(home.store.directory.path(), &key.lock).record;
    fs::write(path(&keys[2]), "4711").unwrap();
    let batch = keys.iter().map(|key| ask(key, 1)).collect();
    let outcomes = home.store().acquire(batch, LONG).await;
    assert!(matches!(outcomes[0], Ok(Acquired::Granted { .. })));
    assert!(matches!(outcomes[1], Ok(Acquired::Busy(_))));
    assert_eq!(kind(&outcomes[2]), Some(StoreErrorKind::Misconfigured));
    assert!(matches!(outcomes[3], Ok(Acquired::Granted { .. })));
    assert_eq!(fs::read(path(&keys[2])).unwrap(), b"4711");
    let renew = |key: &Key| Renew {
        token: 1,
        remember: std::time::Duration::from_secs(3_600),
        key: key.clone(),
        owner: Uuid::from_u128(1),
        ttl: TTL,
    };
    let outcomes = home
        .store()
        .renew(keys.iter().map(renew).collect(), LONG)
        .await;
    let answers: Vec<Option<bool>> = outcomes.into_iter().map(Result::ok).collect();
    assert_eq!(answers, [Some(true), Some(false), None, Some(true)]);
    let foreign = home.store().inspect(keys[2].clone(), LONG).await;
    assert_eq!(kind(&foreign), Some(StoreErrorKind::Misconfigured));
}

#[tokio::test]
async fn tokens_used_up_are_an_error_that_changes_nothing() {
    let (_directory, home) = opened().await;
    let key = key("a");
    home.acquire(&key, 1).await.unwrap();
    home.release(&key, 1, None).await;
    let files = Files::of(home.store.directory.path(), &key.lock);
    home.advance(DAY * 365 * 400);
    let before = fs::read(&files.record).unwrap();
    let error = home.try_acquire(&key, 2, LONG).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Misconfigured);
    assert!(
        error.what.contains(&format!("{:?}", files.record)),
        "{}",
        error.what
    );
    assert_eq!(fs::read(&files.record).unwrap(), before);
}

#[tokio::test]
async fn a_lock_file_that_stays_taken_is_told_in_time_and_nothing_was_done() {
    let (_directory, home) = opened().await;
    let key = key("a");
    let taken = lock_file(&home, &key);
    let asked = Instant::now();
    let outcome = home.try_acquire(&key, 1, SHORT).await;
    assert!(asked.elapsed() < LONG / 2);
    assert_eq!(kind(&outcome), Some(StoreErrorKind::NotDone));
    assert!(
        home.inspect(&key).await.last.is_none(),
        "reading needs no lock file"
    );
    drop(taken);
    home.acquire(&key, 2).await.unwrap();
    let _taken = lock_file(&home, &key);
    assert!(
        home.acquire(&key, 1).await.is_err(),
        "busy needs no lock file"
    );
}

#[tokio::test]
async fn a_lock_file_that_stays_taken_costs_the_rest_of_a_batch_nothing() {
    let (_directory, home) = opened().await;
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for name in &names {
        home.acquire(&key(name), 1).await.unwrap();
    }
    let _taken = lock_file(&home, &key(&names[0]));
    let renew = |name: &String| Renew {
        token: 1,
        remember: std::time::Duration::from_secs(3_600),
        key: key(name),
        owner: Uuid::from_u128(1),
        ttl: TTL,
    };
    let batch = names.iter().map(renew).collect();
    let outcomes = home.store().renew(batch, Duration::from_secs(1)).await;
    for (name, outcome) in names.iter().zip(outcomes) {
        assert_eq!(outcome.is_ok(), *name != names[0], "{outcome:?}");
    }
}

#[tokio::test]
async fn an_acquisition_given_up_is_never_carried_out_afterwards() {
    let (_directory, home) = opened().await;
    let key = key("a");
    for _ in 0..20 {
        let taken = lock_file(&home, &key);
        let given_up = tokio::time::timeout(SHORT / 8, home.try_acquire(&key, 1, LONG)).await;
        assert!(given_up.is_err());
        drop(taken);
        // It may get the lock file now, and must not write.
        quiet(&home).await;
        assert!(home.inspect(&key).await.last.is_none());
    }
}

#[tokio::test]
async fn threads_that_all_want_one_lock_get_it_one_by_one_with_growing_tokens() {
    let (_directory, home) = opened().await;
    let (inside, tokens) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (inside, tokens) = (&inside, &tokens);
            let path = home.store.directory.path();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                let (home, key) = (Home::at(path), key("a"));
                runtime.block_on(async {
                    let mut taken = 0;
                    while taken < 15 {
                        let owner = Uuid::new_v4().as_u128();
                        let Ok(token) = home.acquire(&key, owner).await else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                        tokens.lock().unwrap().push(token);
                        std::thread::yield_now();
                        assert!(inside.swap(false, Ordering::SeqCst));
                        assert!(home.release(&key, owner, None).await);
                        taken += 1;
                    }
                });
            });
        }
    });
    let tokens = tokens.into_inner().unwrap();
    assert_eq!(tokens.len(), 8 * 15);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[tokio::test]
async fn names_of_every_kind_are_locks_of_their_own() {
    let (_directory, home) = opened().await;
    let long = "k".repeat(65_535);
    let names = [
        "a",
        "A",
        "a.",
        "a ",
        "a\n",
        "a\0",
        "/",
        "//",
        "..",
        "../../etc/passwd",
        "%",
        "%2F",
        "ı",
        "İ",
        "🦀",
        &long,
        &long[1..],
    ];
    for (owner, name) in names.iter().enumerate() {
        home.acquire(&key(name), owner as u128).await.unwrap();
    }
    for (owner, name) in names.iter().enumerate() {
        let holder = home.acquire(&key(name), 99).await.unwrap_err();
        assert_eq!(
            holder.owner_id(),
            Uuid::from_u128(owner as u128).simple().to_string()
        );
        assert_eq!(holder.key(), *name);
        assert!(home.release(&key(name), owner as u128, None).await);
    }
}

#[tokio::test]
async fn a_bad_directory_is_refused_by_every_step_and_nothing_is_created() {
    let directory = scratch();
    let file = directory.path().join("file");
    fs::write(&file, "mine").unwrap();
    let home = Home::at(&file.join("locks"));
    let opened = home.store().open(LONG).await;
    assert_eq!(kind(&opened), Some(StoreErrorKind::Misconfigured));
    let acquired = home.try_acquire(&key("a"), 1, LONG).await;
    assert_eq!(kind(&acquired), Some(StoreErrorKind::Misconfigured));
    let inspected = home.store().inspect(key("a"), LONG).await;
    assert_eq!(kind(&inspected), Some(StoreErrorKind::Misconfigured));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(
        *home.store.describe(),
        format!("dir:{}", file.join("locks").display())
    );
}

#[tokio::test]
async fn a_directory_deleted_while_locks_are_held_is_an_error_until_it_is_back() {
    let (directory, home) = opened().await;
    let key = key("a");
    home.acquire(&key, 1).await.unwrap();
    fs::remove_dir_all(directory.path().join("locks")).unwrap();
    let outcome = home.try_acquire(&key, 2, LONG).await;
    assert_eq!(kind(&outcome), Some(StoreErrorKind::Misconfigured));
    assert!(outcome.unwrap_err().remedy.contains("create it again"));
    home.store().open(LONG).await.unwrap();
    assert!(!home.renew(&key, 1).await);
    home.acquire(&key, 2).await.unwrap();
}

#[tokio::test]
async fn the_unused_is_cleaned_up_at_open_and_now_and_then() {
    let (_directory, home) = opened().await;
    let exists = |name: &str| Files::of(home.store.directory.path(), name).record.exists();
    home.acquire(&key("old"), 1).await.unwrap();
    home.advance(DAY * 8);
    home.acquire(&key("held"), 1).await.unwrap();
    home.store().open(LONG).await.unwrap();
    assert!(!exists("old") && exists("held"));

    home.acquire(&key("old"), 1).await.unwrap();
    home.advance(DAY * 8);
    // A cleanup stops after a tenth of a second, which a busy machine may need for one file.
    for round in 0..50 {
        home.store
            .created
            .store(CLEANUP_EVERY - 1, Ordering::Relaxed);
        let new = format!("new{round}");
        home.acquire(&key(&new), 1).await.unwrap();
        quiet(&home).await;
        assert!(exists(&new));
        if !exists("old") {
            return;
        }
    }
    panic!("it is there still");
}

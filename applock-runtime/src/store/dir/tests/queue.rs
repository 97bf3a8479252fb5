//! Standing in line, by the steps of the store as the engines call them.

use std::fs;

use tokio::sync::mpsc::unbounded_channel;

use super::super::latch::Latch;
use super::*;
use crate::clock::ManualClock;
use crate::locker::AppLocker;
use crate::store::{CLAIM, QueuePosition};

const SILENT: Duration = Duration::from_secs(4);

/// Two engines on one directory.
struct Two {
    one: Home,
    other: Home,
    key: Key,
    _directory: tempfile::TempDir,
}

async fn two() -> Two {
    let directory = scratch();
    let one = Home::at(directory.path());
    let other = Home {
        store: Arc::new(DirStore::with_clock(
            directory.path().to_owned(),
            Arc::clone(&one.store.clock),
        )),
        ahead: Arc::clone(&one.ahead),
    };
    one.store().open(LONG).await.unwrap();
    Two {
        one,
        other,
        key: key("a"),
        _directory: directory,
    }
}

impl Home {
    async fn wait(&self, key: &Key, owner: u128) -> StoreResult<Acquired> {
        let wish = Acquire {
            line: Some(unbounded_channel().0),
            ticket: None,
            ..ask(key, owner)
        };
        self.store().acquire(vec![wish], LONG).await.pop().unwrap()
    }

    /// Its place in line.
    async fn queue(&self, key: &Key, owner: u128) -> QueuePosition {
        match self.wait(key, owner).await {
            Ok(Acquired::Queued(place)) => place,
            other => panic!("{other:?}"),
        }
    }

    async fn takes(&self, key: &Key, owner: u128) {
        match self.wait(key, owner).await {
            Ok(Acquired::Granted { .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    async fn force(&self, key: &Key) -> bool {
        let store = self.store();
        store.force_release(key.clone(), None, LONG).await.unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.place.path()).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Two {
    fn line(&self) -> std::path::PathBuf {
        self.one.store.place.files(&self.key.lock).line
    }

    /// Who has it, for one who will not wait.
    async fn tried(&self, owner: u128) -> Option<u128> {
        let info = self.other.acquire(&self.key, owner).await.err()?;
        Some(Uuid::parse_str(info.owner_id()).unwrap().as_u128())
    }
}

#[tokio::test]
async fn the_order_of_coming_holds_across_engines_and_nobody_jumps_the_line() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    for (place, (home, owner)) in [(other, 2), (one, 3), (other, 4)].into_iter().enumerate() {
        let queued = home.queue(key, owner).await;
        assert!(queued.is_new && !queued.is_notified);
        assert_eq!(queued.ahead, place as u64);
        assert_eq!(queued.holder.waiters(), Some(place as u64 + 1));
        assert!(!home.queue(key, owner).await.is_new);
    }
    for (home, holder, next, then) in [(one, 1, other, 2), (other, 2, one, 3), (one, 3, other, 4)] {
        assert_eq!(two.tried(9).await, Some(holder));
        assert!(home.release(key, holder, None).await);
        assert_eq!(two.tried(9).await, Some(then), "it is the next");
        assert!(one.inspect(key).await.holder.is_none());
        if then != 4 {
            let place = other.queue(key, 4).await;
            assert_eq!(
                place.holder.waiters(),
                Some(5 - u64::try_from(then).unwrap())
            );
        }
        next.takes(key, then).await;
    }
    assert_eq!(two.tried(9).await, Some(4));
    assert!(other.release(key, 4, None).await);
    assert_eq!(two.tried(9).await, None);
}

#[tokio::test]
async fn whoever_leaves_leaves_nothing_behind() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let before = two.one.names();
    for owner in [2, 3] {
        two.other.queue(&two.key, owner).await;
    }
    assert!(!two.other.release(&two.key, 2, None).await);
    assert_eq!(two.other.queue(&two.key, 3).await.ahead, 0);
    assert!(!two.other.release(&two.key, 3, None).await);
    assert!(!two.other.release(&two.key, 3, None).await);
    assert_eq!(two.one.names(), before);
    two.other.queue(&two.key, 4).await;
    two.one.release(&two.key, 1, None).await;
    two.other.takes(&two.key, 4).await;
    assert_eq!(two.one.names(), before);
}

#[tokio::test]
async fn one_who_comes_to_hold_what_it_left_hands_it_on() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    two.one.queue(&two.key, 2).await;
    two.other.queue(&two.key, 3).await;
    two.one.release(&two.key, 1, None).await;
    // Its asking is carried out, and it gives up before it hears of that.
    two.one.takes(&two.key, 2).await;
    assert!(two.one.release(&two.key, 2, None).await);
    assert_eq!(two.tried(9).await, Some(3));
}

#[tokio::test]
async fn every_way_in_which_a_lock_becomes_free_serves_the_line() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    other.queue(key, 2).await;
    one.queue(key, 3).await;
    one.advance(TTL / 2);
    other.queue(key, 2).await;
    one.queue(key, 3).await;
    one.advance(TTL / 2);
    other.takes(key, 2).await;
    other.queue(key, 4).await;
    one.queue(key, 3).await;
    let keep = Duration::from_secs(2);
    assert!(other.release(key, 2, Some(keep)).await);
    assert_eq!(two.tried(9).await, Some(2), "at_least keeps it");
    one.advance(keep);
    assert_eq!(two.tried(9).await, Some(3));
    one.takes(key, 3).await;
    assert!(one.force(key).await);
    assert_eq!(two.tried(9).await, Some(4));
    other.takes(key, 4).await;
}

#[tokio::test]
async fn a_silent_engine_is_passed_over_and_one_who_asks_keeps_the_places_of_all() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    for (home, owner) in [(one, 2), (other, 3), (other, 4)] {
        home.queue(key, owner).await;
    }
    one.advance(SILENT);
    other.queue(key, 3).await;
    one.release(key, 1, None).await;
    other.takes(key, 3).await;
    other.release(key, 3, None).await;
    assert_eq!(two.tried(9).await, Some(4), "it has not asked itself");
    one.queue(key, 5).await;
    assert_eq!(two.tried(9).await, Some(2), "it is back");
}

#[tokio::test]
async fn one_who_never_takes_its_turn_does_not_keep_the_lock_from_others() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    one.queue(key, 2).await;
    one.queue(key, 3).await;
    one.release(key, 1, None).await;
    let mut waited = Duration::ZERO;
    while two.tried(9).await == Some(2) {
        // Its engine asks for another: it is alive, and has lost this one.
        one.queue(key, 3).await;
        one.advance(CLAIM / 4);
        waited += CLAIM / 4;
        assert!(waited <= CLAIM);
    }
    assert_eq!(waited, CLAIM);
    assert_eq!(two.tried(9).await, Some(3));
    other.queue(key, 4).await;
    one.takes(key, 3).await;
}

#[tokio::test]
async fn whoever_took_the_lock_and_died_before_it_left_the_line_is_out_of_it() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    two.one.queue(&two.key, 2).await;
    two.one.release(&two.key, 1, None).await;
    let before = fs::read(two.line()).unwrap();
    two.one.takes(&two.key, 2).await;
    fs::write(two.line(), before).unwrap();
    two.one.release(&two.key, 2, None).await;
    assert_eq!(two.tried(9).await, None);
    assert!(!two.line().exists());
}

#[tokio::test]
async fn the_dead_are_forgotten() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    for owner in [2, 3] {
        two.other.queue(&two.key, owner).await;
    }
    let waiters = || async {
        let holder = two.one.inspect(&two.key).await.holder;
        holder.unwrap().waiters()
    };
    assert_eq!(waiters().await, Some(2));
    for _ in 0..3 {
        two.one.advance(TTL / 2);
        assert!(two.one.renew(&two.key, 1).await);
    }
    assert_eq!(waiters().await, Some(0));
    assert!(two.one.release(&two.key, 1, None).await);
    assert!(two.line().exists());
    assert_eq!(two.tried(9).await, None);
    assert!(!two.line().exists());
}

#[tokio::test]
async fn whoever_waits_for_a_lock_that_is_held_does_not_hinder_its_holder() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    two.other.queue(&two.key, 2).await;
    let files = two.one.store.place.files(&two.key.lock);
    let before = fs::read(&files.line).unwrap();
    let shut = Latch::try_take(&two.one.store.place, &files.latch)
        .unwrap()
        .unwrap();
    two.other.queue(&two.key, 2).await;
    assert_eq!(fs::read(&files.line).unwrap(), before);
    drop(shut);
    two.one.advance(Duration::from_secs(1));
    two.other.queue(&two.key, 2).await;
    assert_ne!(fs::read(&files.line).unwrap(), before, "it is alive");
}

#[tokio::test]
async fn a_damaged_line_is_begun_anew_and_stands_in_no_locks_way() {
    for damage in ["", "4711", "applock line 1\nsum\n"] {
        let two = two().await;
        two.one.acquire(&two.key, 1).await.unwrap();
        two.other.queue(&two.key, 2).await;
        fs::write(two.line(), damage).unwrap();
        let seen = two.one.inspect(&two.key).await.holder.unwrap();
        assert_eq!(seen.waiters(), Some(0));
        assert!(!two.one.release(&two.key, 7, None).await);
        assert!(two.other.queue(&two.key, 2).await.is_new);
        fs::write(two.line(), damage).unwrap();
        assert!(two.one.release(&two.key, 1, None).await);
        assert_eq!(two.tried(9).await, None);
        assert!(!two.line().exists());
    }
}

#[tokio::test]
async fn what_is_no_file_in_a_lines_place_stops_only_those_who_would_wait() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    fs::create_dir(two.line()).unwrap();
    let outcome = two.other.wait(&two.key, 2).await;
    assert_eq!(kind(&outcome), Some(StoreErrorKind::Misconfigured));
    let what = outcome.unwrap_err().what;
    assert!(what.contains(&format!("{:?}", two.line())), "{what}");
    assert_eq!(two.tried(9).await, Some(1));
    assert!(two.one.release(&two.key, 1, None).await);
    assert_eq!(two.tried(9).await, None);
}

#[tokio::test]
async fn the_line_of_a_newer_version_is_never_jumped_nor_changed() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let newer = "applock line 2\nwho knows\n";
    fs::write(two.line(), newer).unwrap();
    assert!(two.one.renew(&two.key, 1).await);
    assert!(two.one.release(&two.key, 1, None).await);
    let outcome = two.other.try_acquire(&two.key, 9, LONG).await;
    assert_eq!(kind(&outcome), Some(StoreErrorKind::Misconfigured));
    assert_eq!(fs::read_to_string(two.line()).unwrap(), newer);
}

#[tokio::test]
async fn a_wait_given_up_before_it_stood_in_line_never_stands_there() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let files = two.one.store.place.files(&two.key.lock);
    for _ in 0..20 {
        let shut = Latch::try_take(&two.one.store.place, &files.latch).unwrap();
        let given_up = tokio::time::timeout(SHORT / 8, two.other.wait(&two.key, 2)).await;
        assert!(given_up.is_err());
        drop(shut);
        while two.other.store.threads.available_permits() < super::super::THREADS {
            tokio::task::yield_now().await;
        }
        assert!(!two.line().exists());
    }
}

#[tokio::test]
async fn those_of_one_engine_stand_in_the_order_in_which_it_asked_for_them() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let shut = Latch::try_take(
        &two.one.store.place,
        &two.one.store.place.files(&two.key.lock).latch,
    );
    let asks = (2..30).map(|owner| two.other.wait(&two.key, owner));
    let asks = futures_util::future::join_all(asks);
    tokio::pin!(asks);
    // All of them have found the latch shut before any of them stands in line.
    assert!(tokio::time::timeout(SHORT, &mut asks).await.is_err());
    drop(shut);
    asks.await;
    for owner in 2..30 {
        let ahead = two.other.queue(&two.key, owner).await.ahead;
        assert_eq!(u128::from(ahead), owner - 2);
    }
}

#[tokio::test]
async fn a_release_lets_the_next_of_its_own_process_ask_at_once() {
    let directory = scratch();
    let url = format!("dir:{}", directory.path().display());
    // A clock that stands: nobody's next look ever comes.
    let clock = ManualClock::new();
    let locker = AppLocker::builder().store(url).clock(clock);
    let locker = locker.connect().await.unwrap();
    let lock = locker.lock("a").wait_forever();
    let mut holder = lock.acquire().await.unwrap();
    for _ in 0..10 {
        let next = tokio::spawn({
            let lock = lock.clone();
            async move { lock.acquire().await.unwrap() }
        });
        while lock.info().await.unwrap().unwrap().waiters() != Some(1) {
            tokio::task::yield_now().await;
        }
        holder.release().await.unwrap();
        holder = tokio::time::timeout(LONG, next).await.unwrap().unwrap();
    }
}

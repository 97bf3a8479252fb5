//! The wait queue, by the steps of the store as the engines call them.

use std::fs;

use tokio::sync::mpsc::unbounded_channel;

use super::super::file_names::Files;
use super::super::lock_file::LockFile;
use super::*;
use crate::clock::ManualClock;
use crate::info::Ending;
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
    let other = one.another_engine();
    one.store().open(LONG).await.unwrap();
    Two {
        one,
        other,
        key: key("a"),
        _directory: directory,
    }
}

impl Home {
    /// Another engine on the same directory, by the same clock.
    fn another_engine(&self) -> Self {
        let path = self.store.directory.path().to_owned();
        Self {
            store: Arc::new(DirStore::with_clock(path, Arc::clone(&self.store.clock))),
            ahead: Arc::clone(&self.ahead),
        }
    }

    async fn wait(&self, key: &Key, owner: u128) -> StoreResult<Acquired> {
        let request = Acquire {
            notifications: Some(unbounded_channel().0),
            ticket: None,
            ..ask(key, owner)
        };
        self.store()
            .acquire(vec![request], LONG)
            .await
            .pop()
            .unwrap()
    }

    /// Its position in the queue.
    async fn queue(&self, key: &Key, owner: u128) -> QueuePosition {
        match self.wait(key, owner).await {
            Ok(Acquired::Queued(position)) => position,
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
        store
            .force_release(key.clone(), None, By::of_a_test(), LONG)
            .await
            .unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.directory.path()).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Two {
    fn queue_file(&self) -> std::path::PathBuf {
        Files::of(self.one.store.directory.path(), &self.key.lock).queue
    }

    /// The holder, for a request that does not wait.
    async fn tried(&self, owner: u128) -> Option<u128> {
        let info = self.other.acquire(&self.key, owner).await.err()?;
        Some(Uuid::parse_str(info.owner_id()).unwrap().as_u128())
    }
}

#[tokio::test]
async fn the_order_of_coming_holds_across_engines_and_no_try_jumps_the_queue() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    for (ahead, (home, owner)) in (0..).zip([(other, 2), (one, 3), (other, 4)]) {
        let queued = home.queue(key, owner).await;
        assert!(queued.is_new && !queued.is_notified);
        assert_eq!(queued.ahead, ahead);
        assert_eq!(queued.holder.waiters(), Some(ahead + 1));
        assert!(!home.queue(key, owner).await.is_new);
    }
    for (home, holder, next, then) in [(one, 1, other, 2), (other, 2, one, 3), (one, 3, other, 4)] {
        assert_eq!(two.tried(9).await, Some(holder));
        assert!(home.release(key, holder, None).await);
        assert_eq!(
            two.tried(9).await,
            Some(then),
            "it has the lock for a claim"
        );
        let claimed = one.inspect(key).await.holder.unwrap();
        assert!(claimed.remaining() <= Some(CLAIM));
        if then != 4 {
            let position = other.queue(key, 4).await;
            let waiters = 4 - u64::try_from(then).unwrap();
            assert_eq!(position.holder.waiters(), Some(waiters));
        }
        next.takes(key, then).await;
        let confirmed = one.inspect(key).await.holder.unwrap();
        assert!(confirmed.remaining() > Some(CLAIM));
    }
    assert_eq!(two.tried(9).await, Some(4));
    assert!(other.release(key, 4, None).await);
    assert_eq!(two.tried(9).await, None);
}

#[tokio::test]
async fn a_waiter_that_leaves_leaves_nothing_behind() {
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
async fn a_waiter_that_is_granted_what_it_gave_up_hands_it_on() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    two.one.queue(&two.key, 2).await;
    two.one.advance(Duration::from_millis(1));
    two.other.queue(&two.key, 3).await;
    two.one.release(&two.key, 1, None).await;
    // The grant is carried out, and the waiter gives up before it hears of that.
    two.one.takes(&two.key, 2).await;
    assert!(two.one.release(&two.key, 2, None).await);
    assert_eq!(two.tried(9).await, Some(3));
}

#[tokio::test]
async fn every_way_in_which_a_lock_becomes_free_serves_the_waiters() {
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
async fn a_silent_engine_loses_its_places_and_its_waiters_come_back_by_their_polls() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    other.acquire(key, 1).await.unwrap();
    for (home, owner) in [(one, 2), (other, 3), (other, 4)] {
        home.queue(key, owner).await;
    }
    one.advance(SILENT);
    other.queue(key, 3).await;
    other.release(key, 1, None).await;
    other.takes(key, 3).await;
    other.release(key, 3, None).await;
    assert_eq!(two.tried(9).await, Some(4), "it has not polled itself");
    assert!(one.queue(key, 2).await.is_new);
    other.release(key, 4, None).await;
    assert_eq!(two.tried(9).await, Some(2), "it is back");
}

#[tokio::test]
async fn a_claim_that_is_never_confirmed_does_not_keep_the_lock_from_others() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    one.queue(key, 2).await;
    one.queue(key, 3).await;
    one.release(key, 1, None).await;
    let mut waited = Duration::ZERO;
    while two.tried(9).await == Some(2) {
        // Its engine polls for another waiter: it is alive, and has lost this grant.
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
async fn a_crash_between_the_two_files_leaves_no_holder_in_the_queue() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    two.one.queue(&two.key, 2).await;
    let before = fs::read(two.queue_file()).unwrap();
    two.one.release(&two.key, 1, None).await;
    fs::write(two.queue_file(), before).unwrap();
    two.one.takes(&two.key, 2).await;
    two.one.release(&two.key, 2, None).await;
    assert_eq!(two.tried(9).await, None);
    assert!(!two.queue_file().exists());
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
    assert!(two.queue_file().exists());
    assert!(two.one.release(&two.key, 1, None).await);
    assert!(!two.queue_file().exists());
    assert_eq!(two.tried(9).await, None);
}

/// Nothing is written for a waiter that does not get the lock.
#[tokio::test]
async fn the_last_holding_is_the_true_one_where_the_waiter_has_died() {
    for by_force in [false, true] {
        let two = two().await;
        let token = two.one.acquire(&two.key, 1).await.unwrap();
        two.other.queue(&two.key, 2).await;
        two.one.advance(SILENT);
        if by_force {
            assert!(two.one.force(&two.key).await);
        } else {
            assert!(two.one.release(&two.key, 1, None).await);
        }
        let seen = two.one.inspect(&two.key).await;
        assert!(seen.holder.is_none());
        let last = seen.last.unwrap();
        assert_eq!(last.fencing_token, token);
        let ending = match by_force {
            true => Ending::Forced,
            false => Ending::Released,
        };
        assert_eq!(last.ending, ending);
    }
}

#[tokio::test]
async fn a_waiter_that_polls_does_not_hinder_the_holder() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    two.other.queue(&two.key, 2).await;
    let files = Files::of(two.one.store.directory.path(), &two.key.lock);
    let before = fs::read(&files.queue).unwrap();
    let taken = LockFile::try_take(&two.one.store.directory, &files.lock_file)
        .unwrap()
        .unwrap();
    two.other.queue(&two.key, 2).await;
    assert_eq!(fs::read(&files.queue).unwrap(), before);
    drop(taken);
    two.one.advance(Duration::from_secs(1));
    two.other.queue(&two.key, 2).await;
    assert_ne!(fs::read(&files.queue).unwrap(), before, "it is alive");
}

#[tokio::test]
async fn a_damaged_queue_is_begun_anew_and_stands_in_no_locks_way() {
    for damage in ["", "4711", "applock-queue 4\n{}\n"] {
        let two = two().await;
        two.one.acquire(&two.key, 1).await.unwrap();
        two.other.queue(&two.key, 2).await;
        fs::write(two.queue_file(), damage).unwrap();
        let seen = two.one.inspect(&two.key).await.holder.unwrap();
        assert_eq!(seen.waiters(), Some(0));
        assert!(!two.one.release(&two.key, 7, None).await);
        assert!(two.other.queue(&two.key, 2).await.is_new);
        fs::write(two.queue_file(), damage).unwrap();
        assert!(two.one.release(&two.key, 1, None).await);
        assert_eq!(two.tried(9).await, None);
        assert!(!two.queue_file().exists());
    }
}

/// A queue that was written and could not be read again would be begun anew at each poll.
#[tokio::test]
async fn a_queue_never_grows_beyond_what_is_read_and_the_rest_waits_without_a_place() {
    let two = two().await;
    // The longest key; each of its characters takes six in the file, for each process.
    let key = key(&"\u{1}".repeat(65_535));
    two.one.acquire(&key, 1).await.unwrap();
    let engines: Vec<Home> = (0..16).map(|_| two.one.another_engine()).collect();
    let mut queued = 0;
    for (owner, engine) in (2..).zip(&engines) {
        match engine.wait(&key, owner).await.unwrap() {
            Acquired::Queued(position) => {
                assert_eq!(position.ahead, queued);
                queued += 1;
            }
            Acquired::Busy(holder) => assert_eq!(holder.waiters(), Some(queued)),
            other => panic!("{other:?}"),
        }
    }
    assert!(queued > 1 && queued < 16, "{queued}");
    let holder = two.one.inspect(&key).await.holder.unwrap();
    assert_eq!(holder.waiters(), Some(queued));
    // One leaves: there is room for one more.
    assert!(!engines[0].release(&key, 2, None).await);
    let late = engines[15].queue(&key, 17).await;
    assert_eq!(late.ahead, queued - 1);
}

#[tokio::test]
async fn what_is_no_file_in_a_queues_place_stops_waiters_only() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    fs::create_dir(two.queue_file()).unwrap();
    let outcome = two.other.wait(&two.key, 2).await;
    assert_eq!(kind(&outcome), Some(StoreErrorKind::Misconfigured));
    let what = outcome.unwrap_err().what;
    assert!(what.contains(&format!("{:?}", two.queue_file())), "{what}");
    assert_eq!(two.tried(9).await, Some(1));
    assert!(two.one.release(&two.key, 1, None).await);
    assert_eq!(two.tried(9).await, None);
}

#[tokio::test]
async fn the_queue_of_a_newer_version_is_never_jumped_nor_changed_and_hides_no_holder() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let newer = "applock-queue 5\nwho knows\n";
    fs::write(two.queue_file(), newer).unwrap();
    assert!(two.one.renew(&two.key, 1).await);
    let held = two.other.inspect(&two.key).await.holder.unwrap();
    assert_eq!(
        (held.pid(), held.waiters()),
        (Some(std::process::id()), None)
    );
    assert!(two.one.release(&two.key, 1, None).await);
    let free = two.other.inspect(&two.key).await;
    assert!(free.holder.is_none());
    assert_eq!(free.last.unwrap().ending, Ending::Released);
    let outcome = two.other.try_acquire(&two.key, 9, LONG).await;
    assert_eq!(kind(&outcome), Some(StoreErrorKind::Misconfigured));
    assert_eq!(fs::read_to_string(two.queue_file()).unwrap(), newer);
}

#[tokio::test]
async fn a_wait_given_up_before_it_stood_in_the_queue_never_stands_there() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let files = Files::of(two.one.store.directory.path(), &two.key.lock);
    for _ in 0..20 {
        let taken = LockFile::try_take(&two.one.store.directory, &files.lock_file).unwrap();
        let given_up = tokio::time::timeout(SHORT / 8, two.other.wait(&two.key, 2)).await;
        assert!(given_up.is_err());
        drop(taken);
        while two.other.store.threads.available_permits() < super::super::THREADS {
            tokio::task::yield_now().await;
        }
        assert!(!two.queue_file().exists());
    }
}

#[tokio::test]
async fn the_waiters_of_one_engine_stand_in_the_order_of_their_asking() {
    let two = two().await;
    two.one.acquire(&two.key, 1).await.unwrap();
    let taken = LockFile::try_take(
        &two.one.store.directory,
        &Files::of(two.one.store.directory.path(), &two.key.lock).lock_file,
    );
    let asks = (2..30).map(|owner| two.other.wait(&two.key, owner));
    let asks = futures_util::future::join_all(asks);
    tokio::pin!(asks);
    // All of them have found the lock file taken before any of them stands in the queue.
    assert!(tokio::time::timeout(SHORT, &mut asks).await.is_err());
    drop(taken);
    asks.await;
    for owner in 2..30 {
        let ahead = two.other.queue(&two.key, owner).await.ahead;
        assert_eq!(u128::from(ahead), owner - 2);
    }
}

#[tokio::test]
async fn a_release_tells_the_next_waiter_of_its_own_process_by_its_answer() {
    let directory = scratch();
    let url = format!("dir:{}", directory.path().display());
    // A clock that stands: no next poll ever comes.
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

impl Home {
    fn traffic(&self) -> usize {
        self.store.directory.traffic.load(Ordering::Relaxed)
    }

    /// Many requests of one moment, of owners from that number on.
    async fn queue_many(&self, key: &Key, owners: std::ops::Range<u128>) {
        let request = |owner| Acquire {
            notifications: Some(unbounded_channel().0),
            ..ask(key, owner)
        };
        let batch = owners.map(request).collect();
        for outcome in self.store().acquire(batch, LONG).await {
            assert!(matches!(outcome, Ok(Acquired::Queued(_))), "{outcome:?}");
        }
    }
}

/// While the lock is taken a step reads when its own process polled, and not when others did; but
/// a file that takes another one's place says it of all.
#[tokio::test]
async fn a_file_that_is_replaced_says_still_when_each_process_polled() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    other.queue(key, 2).await;
    one.queue(key, 3).await;
    one.advance(SILENT);
    other.queue(key, 2).await;
    // A writer has died in the middle of a line.
    let mut torn = fs::read(two.queue_file()).unwrap();
    torn.extend_from_slice(b"{\"joins\":[17");
    fs::write(two.queue_file(), &torn).unwrap();
    one.queue(key, 4).await;
    assert!(!fs::read(two.queue_file()).unwrap().starts_with(&torn));
    assert!(one.release(key, 1, None).await);
    other.takes(key, 2).await;
}

#[tokio::test]
async fn a_process_that_stood_still_for_long_forgets_nobody_who_polled_meanwhile() {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    other.queue(key, 2).await;
    one.queue(key, 3).await;
    for _ in 0..4 {
        one.advance(TTL / 3);
        assert!(other.renew(key, 1).await);
        assert!(!other.queue(key, 2).await.is_new);
    }
    // Longer than a queue lives in which nobody polls.
    assert_eq!(one.queue(key, 3).await.ahead, 1);
    assert!(!other.queue(key, 2).await.is_new);
}

/// The bytes that each kind of step reads and writes, with so many waiters of two engines.
async fn traffic_with(waiters: u128) -> Vec<usize> {
    let two = two().await;
    let (one, other, key) = (&two.one, &two.other, &two.key);
    one.acquire(key, 1).await.unwrap();
    other.queue_many(key, 10_000..10_000 + waiters).await;
    one.queue(key, 20_000).await;
    // From here on each has read the queue once.
    other.queue(key, 10_000).await;
    let mut steps = Vec::new();
    let mut last = one.traffic() + other.traffic();
    let mut done = || {
        let now = one.traffic() + other.traffic();
        steps.push(now - std::mem::replace(&mut last, now));
    };
    other.queue(key, 30_000).await;
    done();
    one.queue(key, 20_000).await;
    done();
    other.queue(key, 10_000).await;
    done();
    one.advance(Duration::from_secs(1));
    other.queue(key, 10_000).await;
    done();
    assert!(one.release(key, 1, None).await);
    done();
    other.takes(key, 10_000).await;
    done();
    assert!(!other.release(key, 30_000, None).await);
    done();
    assert!(other.renew(key, 10_000).await);
    done();
    steps
}

#[tokio::test]
async fn what_a_step_reads_and_writes_does_not_grow_with_the_queue() {
    let (few, many) = (traffic_with(10).await, traffic_with(2_000).await);
    for (few, many) in few.iter().zip(&many) {
        assert!(*few > 0 && *many <= few + 64, "{few} and {many}");
    }
}

/// Together with the files that are replaced because most waiters have left.
#[tokio::test]
async fn what_a_waiter_costs_does_not_grow_with_the_queue() {
    let two = two().await;
    let (one, key) = (&two.one, &two.key);
    const WAITERS: u128 = 400;
    one.acquire(key, 1).await.unwrap();
    for owner in 2..=WAITERS {
        one.queue(key, owner).await;
    }
    for holder in 1..WAITERS {
        assert!(one.release(key, holder, None).await);
        one.takes(key, holder + 1).await;
    }
    let each = one.traffic() / usize::try_from(WAITERS).unwrap();
    assert!(each < 12 << 10, "{each} bytes each");
    // Those that come at the same moment share what is read, and add a line each.
    let before = one.traffic();
    one.queue_many(key, 10_000..11_000).await;
    let each = (one.traffic() - before) / 1_000;
    assert!(each < 512, "{each} bytes each");
}

#[tokio::test]
async fn requests_of_one_moment_share_one_step_and_each_has_its_answer() {
    let two = two().await;
    let request = |owner, key: &Key, waits: bool| Acquire {
        notifications: waits.then(|| unbounded_channel().0),
        ..ask(key, owner)
    };
    let free = key("free");
    let batch = vec![
        request(1, &two.key, true),
        request(2, &free, false),
        request(3, &two.key, false),
        request(4, &two.key, true),
        request(5, &free, true),
        request(1, &two.key, true),
        request(6, &two.key, true),
    ];
    let outcomes = two.one.store().acquire(batch, LONG).await;
    let answers: Vec<String> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            Acquired::Granted { .. } => "granted".to_owned(),
            Acquired::Busy(_) => "busy".to_owned(),
            Acquired::Queued(position) => format!("after {}", position.ahead),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        "granted", "granted", "busy", "after 0", "after 0", "granted", "after 1",
    ];
    assert_eq!(answers, expected);
    let end = |owner, key: &Key| Release {
        outcome: crate::protocol::Outcome::Released,
        token: None,
        remember: std::time::Duration::from_secs(3_600),
        key: key.clone(),
        owner: Uuid::from_u128(owner),
        keep: None,
    };
    // The waiter that is granted the lock gives it up in the same moment.
    let batch = vec![
        end(1, &two.key),
        end(2, &free),
        end(4, &two.key),
        end(9, &free),
    ];
    let outcomes = two.one.store().release(batch, LONG).await;
    let seen: Vec<(bool, Option<u128>)> = outcomes
        .into_iter()
        .map(Result::unwrap)
        .map(|answer| (answer.ended, answer.next.map(|next| next.owner.as_u128())))
        .collect();
    let expected = [
        (true, Some(4)),
        (true, Some(5)),
        (true, Some(6)),
        (false, None),
    ];
    assert_eq!(seen, expected);
    assert_eq!(two.tried(9).await, Some(6));
}

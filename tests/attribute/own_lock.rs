//! Promise: a call of a lock by code that holds it is refused at once, and told why; with
//! `reentrant` it runs under that lock, one at a time. Code that only runs on the holder's
//! thread is not called by it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, current, singleton};
use futures_util::future::join_all;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::task::{LocalSet, yield_now};

const ALL: u64 = 20;

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(30);

/// An account whose balance is lost where two change it at once.
#[derive(Clone)]
struct Ledger {
    locker: AppLocker,
    balance: Arc<Mutex<u64>>,
    posted: Arc<Mutex<Vec<u64>>>,
}

impl Ledger {
    fn new(locker: &AppLocker) -> Self {
        Self {
            locker: locker.clone(),
            balance: Arc::default(),
            posted: Arc::default(),
        }
    }

    async fn add(&self, item: u64) {
        let balance = *self.balance.lock().unwrap();
        yield_now().await;
        *self.balance.lock().unwrap() = balance + 1;
        self.posted.lock().unwrap().push(item);
    }

    fn balance(&self) -> u64 {
        *self.balance.lock().unwrap()
    }
}

#[singleton(app = "ledger", wait = forever, locker = ledger.locker)]
async fn post(ledger: &Ledger, item: u64) -> Result<(), Error> {
    ledger.add(item).await;
    Ok(())
}

#[singleton(app = "ledger", wait = forever, reentrant, locker = ledger.locker)]
async fn post_under_it(ledger: &Ledger, item: u64) -> Result<(), Error> {
    ledger.add(item).await;
    Ok(())
}

/// 'This very call holds it', and the remedy.
#[track_caller]
fn assert_refused(outcome: Result<(), Error>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("by this very call") && text.contains("`reentrant`"),
        "{text}"
    );
}

/// Busy as for any other caller.
#[track_caller]
fn assert_busy(outcome: Result<(), Error>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Busy(_)), "{error}");
    assert!(!error.to_string().contains("this very call"), "{error}");
}

async fn locker() -> (RedisServer, AppLocker) {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    (server, locker)
}

/// Runs under the lock of the ledger, and not for ever.
async fn under_it<T>(ledger: &Ledger, body: impl Future<Output = T>) -> T {
    let run = ledger.locker.lock("ledger").run(body);
    let ended = tokio::time::timeout(SOON, run).await;
    ended.expect("a call waits for itself").unwrap()
}

#[tokio::test]
async fn siblings_are_each_refused_at_once_however_long_they_may_wait() {
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    under_it(ledger, async {
        let joined = join_all((0..ALL).map(|item| post(ledger, item))).await;
        assert_eq!(joined.len() as u64, ALL);
        joined.into_iter().for_each(assert_refused);
        let (one, two) = tokio::join!(post(ledger, 1), post(ledger, 2));
        assert_refused(one);
        assert_refused(two);
        let mut unordered: FuturesUnordered<_> = (0..ALL).map(|item| post(ledger, item)).collect();
        while let Some(outcome) = unordered.next().await {
            assert_refused(outcome);
        }
        let calls = stream::iter(0..ALL).map(|item| post(ledger, item));
        let mut buffered = pin!(calls.buffer_unordered(5));
        while let Some(outcome) = buffered.next().await {
            assert_refused(outcome);
        }
        tokio::select! {
            outcome = post(ledger, 1) => assert_refused(outcome),
            outcome = post(ledger, 2) => assert_refused(outcome),
        }
    })
    .await;
    assert_eq!(ledger.balance(), 0);
}

#[tokio::test]
async fn reentrant_siblings_run_one_at_a_time_and_keep_every_update() {
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    let expected = &mut 0;
    under_it(ledger, async {
        for outcome in join_all((0..ALL).map(|item| post_under_it(ledger, item))).await {
            outcome.unwrap();
        }
        *expected += ALL;
        // In the order in which they asked.
        assert_eq!(*ledger.posted.lock().unwrap(), Vec::from_iter(0..ALL));
        let (one, two) = tokio::join!(post_under_it(ledger, 1), post_under_it(ledger, 2));
        one.and(two).unwrap();
        *expected += 2;
        let mut unordered: FuturesUnordered<_> =
            (0..ALL).map(|item| post_under_it(ledger, item)).collect();
        while let Some(outcome) = unordered.next().await {
            outcome.unwrap();
        }
        *expected += ALL;
        let calls = stream::iter(0..ALL).map(|item| post_under_it(ledger, item));
        let mut buffered = pin!(calls.buffer_unordered(5));
        while let Some(outcome) = buffered.next().await {
            outcome.unwrap();
        }
        *expected += ALL;
        // The one that is dropped as it waits takes no turn with it.
        tokio::select! {
            biased;
            outcome = post_under_it(ledger, 1) => outcome.unwrap(),
            outcome = post_under_it(ledger, 2) => outcome.unwrap(),
        }
        *expected += 1;
        post_under_it(ledger, 3).await.unwrap();
        *expected += 1;
    })
    .await;
    assert_eq!(ledger.balance(), *expected);
}

#[tokio::test]
async fn what_a_reentrant_call_calls_goes_before_its_siblings() {
    #[singleton(app = "ledger", wait = forever, reentrant, locker = ledger.locker)]
    async fn twice(ledger: &Ledger, item: u64) -> Result<(), Error> {
        let (first, second) =
            tokio::join!(post_under_it(ledger, item), post_under_it(ledger, item + 1));
        first.and(second)
    }
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    under_it(ledger, async {
        let (one, two, three) = tokio::join!(
            twice(ledger, 10),
            post_under_it(ledger, 20),
            twice(ledger, 30)
        );
        one.and(two).and(three).unwrap();
    })
    .await;
    assert_eq!(*ledger.posted.lock().unwrap(), [10, 11, 20, 30, 31]);
    assert_eq!(ledger.balance(), 5);
}

#[tokio::test]
async fn a_sibling_waits_for_its_turn_for_as_long_as_it_says() {
    #[singleton(app = "ledger", reentrant, locker = ledger.locker)]
    async fn at_once(ledger: &Ledger) -> Result<(), Error> {
        ledger.add(1).await;
        Ok(())
    }
    #[singleton(app = "ledger", wait = "100ms", reentrant, locker = ledger.locker)]
    async fn soon(ledger: &Ledger) -> Result<(), Error> {
        ledger.add(2).await;
        Ok(())
    }
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    under_it(ledger, async {
        let outcomes = join_all((0..ALL).map(|_| at_once(ledger))).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let error = outcomes.into_iter().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("has its turn"), "{error}");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let holds = locker.lock("ledger").reentrant();
        let holder = holds.run(async { ended.await.unwrap() });
        let waits = async {
            let asked = Instant::now();
            let error = soon(ledger).await.unwrap_err();
            assert!(error.to_string().contains("has its turn"), "{error}");
            assert!(asked.elapsed() >= Duration::from_millis(100));
            end.send(()).unwrap();
        };
        tokio::join!(holder, waits).0.unwrap();
    })
    .await;
    assert_eq!(ledger.balance(), 1);
}

/// What a stranger finds on the holder's thread: no guard, and a lock that is held.
async fn as_a_stranger(ledger: Ledger) -> Result<(), Error> {
    assert!(current().is_none(), "a stranger has the holder's guard");
    assert!(ledger.locker.lock("ledger").try_acquire().await?.is_none());
    let lock = ledger.locker.lock("ledger").reentrant();
    assert_busy(lock.run(ledger.add(1)).await);
    assert_busy(lock.run_blocking(|| ()));
    lock.acquire().await.map(drop)
}

#[test]
fn a_task_of_a_runtime_that_a_sync_body_drives_is_a_stranger() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let ledger = Ledger::new(&locker);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let stranger = runtime.spawn(as_a_stranger(ledger.clone()));
    let lock = locker.lock("ledger");
    lock.run_blocking(|| {
        runtime.block_on(async {
            assert_busy(stranger.await.unwrap());
            // What the body itself does there is its own.
            assert!(current().is_some());
            assert_refused(post(&ledger, 1).await);
            post_under_it(&ledger, 2).await.unwrap();
        });
    })
    .unwrap();
    assert_eq!(ledger.balance(), 1);
}

#[tokio::test]
async fn a_task_of_a_local_set_that_an_async_body_drives_is_a_stranger() {
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    let tasks = LocalSet::new();
    let stranger = tasks.spawn_local(as_a_stranger(ledger.clone()));
    under_it(
        ledger,
        tasks.run_until(async {
            assert_busy(stranger.await.unwrap());
            assert!(current().is_some());
            assert_refused(post(ledger, 1).await);
            post_under_it(ledger, 2).await.unwrap();
        }),
    )
    .await;
    assert_eq!(ledger.balance(), 1);
}

#[singleton(app = "ledger", wait = forever, locker = ledger.locker)]
fn post_sync(ledger: &Ledger) -> Result<(), Error> {
    *ledger.balance.lock().unwrap() += 1;
    Ok(())
}

/// Nobody can tell it from a call. It would run in the middle of the body, or wait for it on the
/// thread that the body needs.
#[test]
fn work_that_the_holders_thread_steals_is_refused() {
    type Job<'a> = Box<dyn FnOnce() + 'a>;
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let ledger = &Ledger::new(&locker);
    let outcome = &Mutex::new(None);
    // As a worker of a pool, which takes the next job while it waits for another.
    let mut jobs: VecDeque<Job<'_>> = VecDeque::new();
    jobs.push_back(Box::new(|| {
        *outcome.lock().unwrap() = Some(post_sync(ledger));
    }));
    let lock = locker.lock("ledger");
    lock.run_blocking(|| {
        while let Some(stolen) = jobs.pop_front() {
            stolen();
        }
    })
    .unwrap();
    assert_refused(outcome.lock().unwrap().take().unwrap());
    assert_eq!(ledger.balance(), 0);
}

#[tokio::test]
async fn an_acquire_by_hand_under_the_same_lock_is_refused_at_once_and_told_why() {
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    under_it(ledger, async {
        let lock = locker.lock("ledger").wait_forever();
        assert_refused(lock.acquire().await.map(drop));
        assert_refused(lock.acquire_blocking().map(drop));
        assert!(lock.try_acquire().await.unwrap().is_none());
        // A guard of one's own is never had twice.
        assert_refused(lock.clone().reentrant().acquire().await.map(drop));
        let holder = lock.acquire().await.unwrap_err();
        assert_eq!(
            holder.holder().unwrap().fencing_token(),
            current().map(|guard| guard.fencing_token())
        );
    })
    .await;
}

#[tokio::test]
async fn functions_under_their_own_lock_are_refused_by_their_return_type() {
    #[singleton(app = "ledger", wait = forever, locker = ledger.locker)]
    async fn silent(ledger: &Ledger) {
        ledger.add(1).await;
    }
    #[singleton(app = "ledger", wait = forever, on_busy = 7, locker = ledger.locker)]
    fn given(ledger: &Ledger) -> u64 {
        ledger.balance()
    }
    let (_server, locker) = locker().await;
    let ledger = &Ledger::new(&locker);
    under_it(ledger, async {
        silent(ledger).await;
        assert_eq!(given(ledger), 7);
        assert_refused(post_sync(ledger));
    })
    .await;
    assert_eq!(ledger.balance(), 0);
}

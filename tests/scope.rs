//! Promise: `scope` is the default locker of the code inside, and of no other, on any executor.
//!
//! A program of its own: it sets the process's default.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::future::Future as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use applock::{AppLocker, Error, LockInfo, MemoryStore, singleton};
use futures_util::future::join_all;
use tokio::sync::Barrier;

/// However long something may take that must come.
const LIMIT: Duration = Duration::from_secs(60);

/// Of the process there is one default.
static DEFAULT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[singleton(app = "job")]
async fn meet(barrier: &Barrier) -> Result<String, Error> {
    barrier.wait().await;
    Ok(instance())
}

#[singleton(app = "job")]
async fn who() -> Result<String, Error> {
    tokio::task::yield_now().await;
    Ok(instance())
}

#[singleton(app = "job")]
fn who_blocking() -> Result<String, Error> {
    Ok(instance())
}

#[singleton(app = "job", locker = locker)]
async fn whose(locker: &AppLocker) -> Result<String, Error> {
    Ok(instance())
}

/// Of the locker that the caller runs under.
fn instance() -> String {
    let info: LockInfo = applock::current().unwrap().info();
    info.instance_id().to_owned()
}

fn locker(name: &str) -> AppLocker {
    let builder = AppLocker::builder()
        .store(MemoryStore::new())
        .instance(name);
    builder.build().unwrap()
}

#[tokio::test]
async fn calls_of_one_function_do_not_meet_where_each_has_a_scope() {
    let _alone = DEFAULT.lock().await;
    applock::init(locker("process"));
    let lockers = ["a", "b", "c", "d", "e"].map(locker);
    let barrier = Arc::new(Barrier::new(lockers.len()));
    // All are inside at the same time, on one thread.
    let met = join_all(lockers.iter().map(|locker| locker.scope(meet(&barrier))));
    let met = tokio::time::timeout(LIMIT, met).await.expect("they meet");
    let met: Vec<String> = met.into_iter().map(Result::unwrap).collect();
    assert_eq!(met, ["a", "b", "c", "d", "e"]);
    assert_eq!(who().await.unwrap(), "process");
    // The same with a thread each.
    let spawned = lockers.map(|locker| {
        let barrier = Arc::clone(&barrier);
        tokio::spawn(async move { locker.scope(meet(&barrier)).await })
    });
    for (at, met) in join_all(spawned).await.into_iter().enumerate() {
        assert_eq!(met.unwrap().unwrap(), ["a", "b", "c", "d", "e"][at]);
    }
}

#[tokio::test]
async fn the_innermost_scope_counts_and_a_functions_own_locker_beats_it() {
    let _alone = DEFAULT.lock().await;
    applock::init(locker("process"));
    let (outer, inner, own) = (locker("outer"), locker("inner"), locker("own"));
    let said = outer.scope(async {
        let before = who().await.unwrap();
        let inside = inner.scope(who()).await.unwrap();
        let blocking = inner.scope_blocking(who_blocking).unwrap();
        let own = whose(&own).await.unwrap();
        [before, inside, blocking, own, who().await.unwrap()]
    });
    assert_eq!(said.await, ["outer", "inner", "inner", "own", "outer"]);
    // Not the tasks that it spawns; and it ends with a panic.
    let spawned = outer.scope(async { tokio::spawn(who()).await.unwrap().unwrap() });
    assert_eq!(spawned.await, "process");
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        outer.scope_blocking(|| panic!("as it is meant to"))
    }));
    assert!(panicked.is_err());
    assert_eq!(who().await.unwrap(), "process");
}

/// Calls the function when it is dropped.
struct CallsAtItsEnd(Arc<std::sync::Mutex<String>>);

impl Drop for CallsAtItsEnd {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = who_blocking().unwrap();
    }
}

#[test]
fn what_is_dropped_inside_is_inside_and_any_executor_will_do() {
    let _alone = DEFAULT.blocking_lock();
    applock::init(locker("process"));
    let scoped = locker("scoped");
    for is_cancelled in [false, true] {
        let said = Arc::new(std::sync::Mutex::default());
        let end = CallsAtItsEnd(Arc::clone(&said));
        let mut future = Box::pin(scoped.scope(async move {
            let _end = end;
            if is_cancelled {
                std::future::pending::<()>().await;
            }
        }));
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending();
        assert_eq!(polled, is_cancelled);
        drop(future);
        assert_eq!(*said.lock().unwrap(), "scoped");
    }
    assert_eq!(pollster::block_on(scoped.scope(who())).unwrap(), "scoped");
    assert_eq!(scoped.scope_blocking(who_blocking).unwrap(), "scoped");
    // The process's default is meant, in a scope too.
    scoped.scope_blocking(|| applock::shutdown_blocking(Duration::from_secs(1)).unwrap());
    assert!(scoped.scope_blocking(who_blocking).is_ok());
    assert!(matches!(who_blocking(), Err(Error::Closed { .. })));
}

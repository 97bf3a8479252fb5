//! The store of one process, for tests: everything in one table, by the clock that
//! it was given.

mod lock;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::lock::{Lock, Now};
use super::{
    Acquire, Acquired, Inspection, Release, Released, Renew, Store, StoreFuture, StoreResult,
};
use crate::clock::{Clock, SystemClock};
use crate::key::Key;

/// A store that lives in this process's memory: it excludes the tasks and threads of
/// one process only, and forgets everything with it. For tests.
///
/// Clones are the same store: give one to each of two lockers, and they exclude one
/// another as two servers would.
///
/// ```
/// use applock::{AppLocker, MemoryStore};
///
/// let store = MemoryStore::new();
/// let one = AppLocker::builder().store(store.clone()).build()?;
/// let other = AppLocker::builder().store(store).build()?;
/// let _guard = one.lock("reports").acquire_blocking()?;
/// assert!(other.lock("reports").try_acquire_blocking()?.is_none());
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    locks: Mutex<Locks>,
}

type Locks = HashMap<Arc<str>, Lock>;

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store that goes by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemClock)
    }

    /// An empty store that goes by `clock`: give the same one to the
    /// [builder](crate::Builder::clock).
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: Arc::new(clock),
                locks: Mutex::default(),
            }),
        }
    }

    fn now(&self) -> Now {
        Now {
            at: self.shared.clock.now(),
            wall: self.shared.clock.wall(),
        }
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.shared
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `step` on every element of the batch, all at one moment.
    fn each<Q, A>(
        &self,
        batch: Vec<Q>,
        step: impl Fn(&mut Locks, Now, Q) -> StoreResult<A>,
    ) -> StoreFuture<Vec<StoreResult<A>>>
    where
        A: Send + 'static,
    {
        let mut locks = self.locks();
        // Only now: what comes later to the table is later by the clock.
        let now = self.now();
        let answers: Vec<_> = batch
            .into_iter()
            .map(|question| step(&mut locks, now, question))
            .collect();
        Box::pin(ready(answers))
    }
}

impl Store for MemoryStore {
    fn open(self: Arc<Self>, _within: Duration) -> StoreFuture<StoreResult<()>> {
        Box::pin(ready(Ok(())))
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        _within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        self.each(batch, |locks, now, wish| {
            let lock = locks.entry(Arc::clone(&wish.key.lock)).or_default();
            lock.acquire(now, wish)
        })
    }

    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        _within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        self.each(batch, |locks, now, beat| {
            let lock = locks.get_mut(&beat.key.lock);
            Ok(lock.is_some_and(|lock| lock.renew(now, &beat)))
        })
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        _within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        self.each(batch, |locks, now, end| {
            let lock = locks.get_mut(&end.key.lock);
            Ok(lock.is_some_and(|lock| lock.release(now, &end)).into())
        })
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        _within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        let locks = self.locks();
        let found = locks.get(&key.lock).map(|lock| lock.inspect(self.now()));
        Box::pin(ready(Ok(found.unwrap_or_default())))
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        _within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        let mut locks = self.locks();
        let lock = locks.get_mut(&key.lock);
        let forced = lock.is_some_and(|lock| lock.force_release(self.now(), stale));
        Box::pin(ready(Ok(forced)))
    }

    fn describe(&self) -> Arc<str> {
        "memory:".into()
    }
}

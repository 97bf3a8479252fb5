//! The store of one process, for tests: everything in one table, by the clock that
//! it was given.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::view::{self, Shown, Who, nanos};
use super::{
    Acquire, Acquired, By, Inspection, Notification, Notifications, Release, Released, Renew,
    Store, StoreError, StoreErrorKind, StoreFuture, StoreResult,
};
use crate::clock::{Clock, SystemClock};
use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::protocol::{
    Granted, LockState, Notify, Process, Reach, Releaser, Requester, StoreTime, Timing, Waiter,
    WhenBusy,
};

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
    outage: Mutex<Option<Outage>>,
}

/// How a [`MemoryStore`] fails, for tests: see [`MemoryStore::fail_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outage {
    /// It can't be reached, and nothing is carried out. As a server that is down.
    Unreachable,
    /// What it is asked to do is done, and the answers are lost. As a connection that breaks at the wrong
    /// moment: nobody knows whether the lock was taken.
    AnswersLost,
    /// It refuses: as a server by which a right was taken away.
    Denied,
}

impl Outage {
    fn error(self) -> StoreError {
        let (kind, what) = match self {
            Self::Unreachable => (StoreErrorKind::NotDone, "the store can't be reached"),
            Self::AnswersLost => (StoreErrorKind::Unknown, "the store's answer was lost"),
            Self::Denied => (StoreErrorKind::Denied, "the store refuses this"),
        };
        StoreError::new(kind, what, "end it with MemoryStore::recover")
    }
}

/// Of each lock that has a holder, has waiters, or is remembered.
#[derive(Default)]
struct Locks {
    states: HashMap<Arc<str>, LockState<Party, By>>,
    /// How many there are when forgotten ones are dropped: as many again as the last time were
    /// left, so that a step costs the same however many there are.
    drop_at: usize,
}

impl Locks {
    /// The fewest that are looked through.
    const FEW: usize = 64;

    fn entry(&mut self, key: &Arc<str>, now: StoreTime) -> &mut LockState<Party, By> {
        if self.states.len() >= self.drop_at.max(Self::FEW) {
            self.states.retain(|_, lock| is_in_use(lock, now));
            self.drop_at = 2 * self.states.len();
        }
        self.states.entry(Arc::clone(key)).or_default()
    }
}

/// Whether a lock is remembered, or an engine that still runs waits for it. The waiters of an
/// engine that has ended leave the queue of a lock only when that is offered to them, which may
/// never happen.
fn is_in_use(lock: &LockState<Party, By>, now: StoreTime) -> bool {
    let waits = |waiter: &Waiter<Party>| {
        let channel = waiter.who.notifications.as_ref();
        channel.is_some_and(|channel| !channel.is_closed())
    };
    lock.remembered(now).is_some() || lock.queue.waiters.values().any(waits)
}

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
                outage: Mutex::default(),
            }),
        }
    }

    /// From now on every command fails so, of every locker over this store, until
    /// [`recover`](Self::recover). The locks stay as they are, and their leases run out.
    ///
    /// ```
    /// use applock::{AppLocker, Error, MemoryStore, Outage};
    ///
    /// let store = MemoryStore::new();
    /// let locker = AppLocker::builder().store(store.clone()).build()?;
    /// store.fail_with(Outage::Unreachable);
    /// assert!(matches!(locker.lock("reports").acquire_blocking(), Err(Error::Unavailable(_))));
    /// store.recover();
    /// locker.lock("reports").acquire_blocking()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn fail_with(&self, outage: Outage) {
        *self.outage() = Some(outage);
    }

    /// Ends an outage.
    pub fn recover(&self) {
        *self.outage() = None;
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        let outage = self.shared.outage.lock();
        outage.unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one command out, unless the store fails.
    fn answer<A>(&self, step: impl FnOnce() -> StoreResult<A>) -> StoreResult<A> {
        let outage = *self.outage();
        match outage {
            None => step(),
            Some(Outage::AnswersLost) => {
                drop(step());
                Err(Outage::AnswersLost.error())
            }
            Some(outage) => Err(outage.error()),
        }
    }

    fn now(&self) -> StoreTime {
        let at = self.shared.clock.now().nanos();
        StoreTime {
            // Never zero microseconds, which would be no time.
            at: at.saturating_add(1_000),
            micros: view::micros(self.shared.clock.wall()),
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
        step: impl Fn(&mut Locks, StoreTime, Q) -> StoreResult<A>,
    ) -> StoreFuture<Vec<StoreResult<A>>>
    where
        A: Send + 'static,
    {
        let mut locks = self.locks();
        // Only now: what comes later to the table is later by the clock.
        let now = self.now();
        let answers: Vec<_> = batch
            .into_iter()
            .map(|question| self.answer(|| step(&mut locks, now, question)))
            .collect();
        Box::pin(ready(answers))
    }
}

impl Store for MemoryStore {
    fn open(self: Arc<Self>, _within: Duration) -> StoreFuture<StoreResult<()>> {
        Box::pin(ready(self.answer(|| Ok(()))))
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        _within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        self.each(batch, |locks, now, request| {
            let lock = locks.entry(&request.key.lock, now);
            acquire(lock, now, request)
        })
    }

    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        _within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        self.each(batch, |locks, now, beat| {
            let lock = locks.states.get_mut(&beat.key.lock);
            let owner = beat.owner.as_u128();
            Ok(lock.is_some_and(|lock| lock.renew(owner, nanos(beat.ttl), now)))
        })
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        _within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        self.each(batch, |locks, now, end| {
            let ended = locks.states.get_mut(&end.key.lock).map(|lock| {
                let releaser = Releaser {
                    owner: end.owner.as_u128(),
                    outcome: end.outcome,
                    keep: end.keep.map_or(0, nanos),
                    own: None,
                };
                lock.release(releaser, now, &TIMING, &mut Channels)
            });
            Ok(ended.is_some_and(|answer| answer.ended).into())
        })
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        _within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        let locks = self.locks();
        let found = locks.states.get(&key.lock);
        let inspection = found.map(|lock| view::inspection(lock, self.now()));
        Box::pin(ready(self.answer(|| Ok(inspection.unwrap_or_default()))))
    }

    fn list(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        _within: Duration,
    ) -> StoreFuture<StoreResult<Vec<LockInfo>>> {
        let locks = self.locks();
        let now = self.now();
        let meant = locks.states.iter().filter(|(key, _)| pattern.fits(key));
        let mut holders: Vec<LockInfo> = meant
            .filter_map(|(_, lock)| view::inspection(lock, now).holder)
            .collect();
        holders.sort_by(|one, other| one.key().cmp(other.key()));
        Box::pin(ready(self.answer(|| Ok(holders))))
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        by: Arc<By>,
        _within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        let mut locks = self.locks();
        let now = self.now();
        let lock = locks.states.get_mut(&key.lock);
        let stale = stale.map(nanos);
        let forced = self.answer(|| {
            Ok(lock.is_some_and(|lock| {
                lock.force_release(stale, (*by).clone(), now, &TIMING, &mut Channels)
            }))
        });
        Box::pin(ready(forced))
    }

    fn describe(&self) -> Arc<str> {
        "memory:".into()
    }
}

/// This store knows that an engine has ended by its channel, and needs no silence for it: a
/// queue is never forgotten.
const TIMING: Timing = Timing {
    queue_life: u64::MAX,
    ..Timing::NANOS
};

/// A holder or a waiter, and how its engine is notified.
#[derive(Clone, Debug)]
struct Party {
    who: Who,
    notifications: Option<Notifications>,
}

impl Shown for Party {
    fn who(&self) -> &Who {
        &self.who
    }
}

/// Grants go through the channels of the waiters' engines.
struct Channels;

impl Notify<Party> for Channels {
    fn reach(&mut self, waiter: &Waiter<Party>, grant: &Granted) -> Reach {
        let notification =
            Notification::Granted(Key::of_lock(&waiter.who.who.key), view::grant(grant));
        let sent = waiter.who.notifications.as_ref();
        match sent.is_some_and(|channel| channel.send(notification).is_ok()) {
            true => Reach::Notified,
            // Its engine has ended.
            false => Reach::Unreachable,
        }
    }
}

/// An engine: its requests share one identity.
fn process(request: &Acquire) -> Process {
    Arc::as_ptr(&request.identity).addr() as Process
}

fn acquire(
    lock: &mut LockState<Party, By>,
    now: StoreTime,
    request: Acquire,
) -> StoreResult<Acquired> {
    let when_busy = match request.notifications {
        None => WhenBusy::Refuse,
        Some(_) => WhenBusy::Wait {
            ticket: request.ticket,
            listens: true,
        },
    };
    let requester = Requester {
        owner: request.owner.as_u128(),
        process: process(&request),
        ttl: nanos(request.ttl),
        remember: nanos(request.remember),
        due: request.due,
        who: Party {
            who: Who::of(&request),
            notifications: request.notifications,
        },
    };
    let decision = lock
        .acquire(requester, when_busy, now, &TIMING, &mut Channels)
        .map_err(|_| {
            StoreError::new(
                StoreErrorKind::Misconfigured,
                "the lock's fencing tokens are used up",
                "set this machine's clock right",
            )
        })?;
    view::acquired(lock, decision, true, now)
}

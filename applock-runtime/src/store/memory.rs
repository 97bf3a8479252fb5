//! The store of one process, for tests: everything in one table, by the clock that
//! it was given.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, Moment, SystemClock};
use crate::info::{Ending, LastHolding, LockInfo, Record};
use crate::key::Key;

use super::{
    Acquire, Acquired, Answer, Identity, Inspection, MAX_TOKEN, Outcome, OwnerId, Release,
    Released, Renew, Store, StoreError, StoreErrorKind, is_stale, next_token,
};

/// A store that lives in this process's memory: it excludes the tasks and threads of
/// one process only, and forgets everything with it. For tests.
///
/// Clones are the same store: give one to each of two lockers, and they exclude one
/// another as two servers would.
///
/// ```
/// use applock_runtime::{AppLocker, MemoryStore};
///
/// let store = MemoryStore::new();
/// let one = AppLocker::builder().store(store.clone()).build()?;
/// let other = AppLocker::builder().store(store).build()?;
/// let _guard = one.lock("reports").acquire_blocking()?;
/// assert!(other.lock("reports").try_acquire_blocking()?.is_none());
/// # Ok::<(), applock_runtime::Error>(())
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    locks: Mutex<HashMap<Arc<str>, Entry>>,
}

struct Entry {
    key: Key,
    owner: OwnerId,
    identity: Arc<Identity>,
    token: u64,
    since: Moment,
    since_wall: SystemTime,
    beat: Moment,
    ttl: Duration,
    until: Moment,
    until_wall: SystemTime,
    ended: Option<(Ending, SystemTime)>,
}

impl Entry {
    fn is_held(&self, now: Moment) -> bool {
        let by_force = matches!(self.ended, Some((Ending::Forced, _)));
        !by_force && now < self.until
    }

    /// Held by that owner, who has not given it back.
    fn is_beating(&self, owner: &OwnerId, now: Moment) -> bool {
        self.owner == *owner && self.ended.is_none() && self.is_held(now)
    }

    fn info(&self, now: Moment) -> LockInfo {
        Record {
            key: self.key.lock.clone(),
            app: self.key.app.as_deref().map(str::to_owned),
            name: self.key.name.as_deref().map(str::to_owned),
            owner: self.owner.simple().to_string(),
            instance: self.identity.instance.clone(),
            host: self.identity.host.clone(),
            pid: Some(self.identity.pid),
            token: Some(self.token),
            acquired_at: Some(self.since_wall),
            held_for: Some(now - self.since),
            heartbeat_age: Some(now - self.beat),
            remaining: Some(self.until - now),
            ttl: Some(self.ttl),
            waiters: Some(0),
            foreign: None,
        }
        .into()
    }

    fn last(&self, now: Moment) -> LastHolding {
        let (ending, until) = match self.ended {
            // At_least keeps it.
            Some((Ending::Released, _)) if self.is_held(now) => (Ending::Held, None),
            Some((ending, at)) => (ending, Some(at)),
            None if now < self.until => (Ending::Held, None),
            None => (Ending::Expired, Some(self.until_wall)),
        };
        LastHolding {
            key: self.key.lock.clone(),
            owner_id: self.owner.simple().to_string(),
            instance_id: self.identity.instance.clone(),
            host: self.identity.host.clone(),
            pid: Some(self.identity.pid),
            fencing_token: self.token,
            from: self.since_wall,
            until,
            ending,
        }
    }
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
            }),
        }
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.shared
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `step` on every element of the batch, all at one moment.
    fn each<Q, A>(
        &self,
        batch: Vec<Q>,
        mut step: impl FnMut(&mut HashMap<Arc<str>, Entry>, Moment, Q) -> A,
    ) -> Answer<Vec<A>>
    where
        A: Send + 'static,
    {
        let now = self.shared.clock.now();
        let mut locks = self.locks();
        let answers: Vec<A> = batch
            .into_iter()
            .map(|question| step(&mut locks, now, question))
            .collect();
        Box::pin(ready(answers))
    }

    fn take(
        &self,
        locks: &mut HashMap<Arc<str>, Entry>,
        now: Moment,
        wish: Acquire,
    ) -> Outcome<Acquired> {
        let wall = self.shared.clock.wall();
        let mut last = 0;
        if let Some(entry) = locks.get_mut(&wish.key.lock) {
            if entry.is_held(now) {
                if entry.owner != wish.owner || entry.ended.is_some() {
                    return Ok(Acquired::Busy(entry.info(now)));
                }
                entry.beat = now;
                entry.until = now + wish.ttl;
                entry.until_wall = wall + wish.ttl;
                return Ok(Acquired::Granted {
                    token: entry.token,
                    at: entry.since_wall,
                });
            }
            last = entry.token;
        }
        let micros = wall
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
        let token = next_token(last, micros);
        if token > MAX_TOKEN {
            return Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("the fencing token {token} is past {MAX_TOKEN}"),
                "set this machine's clock right",
            ));
        }
        let entry = Entry {
            owner: wish.owner,
            identity: wish.identity,
            token,
            since: now,
            since_wall: wall,
            beat: now,
            ttl: wish.ttl,
            until: now + wish.ttl,
            until_wall: wall + wish.ttl,
            ended: None,
            key: wish.key,
        };
        locks.insert(entry.key.lock.clone(), entry);
        Ok(Acquired::Granted { token, at: wall })
    }
}

impl Store for MemoryStore {
    fn open(self: Arc<Self>, _within: Duration) -> Answer<Outcome<()>> {
        Box::pin(ready(Ok(())))
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        _within: Duration,
    ) -> Answer<Vec<Outcome<Acquired>>> {
        self.each(batch, |locks, now, wish| self.take(locks, now, wish))
    }

    fn renew(self: Arc<Self>, batch: Vec<Renew>, _within: Duration) -> Answer<Vec<Outcome<bool>>> {
        let wall = self.shared.clock.wall();
        self.each(batch, |locks, now, beat| {
            Ok(match locks.get_mut(&beat.key.lock) {
                Some(entry) if entry.is_beating(&beat.owner, now) => {
                    entry.beat = now;
                    entry.until = now + beat.ttl;
                    entry.until_wall = wall + beat.ttl;
                    true
                }
                _ => false,
            })
        })
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        _within: Duration,
    ) -> Answer<Vec<Outcome<Released>>> {
        let wall = self.shared.clock.wall();
        self.each(batch, |locks, now, end| {
            Ok(Released::from(match locks.get_mut(&end.key.lock) {
                Some(entry) if entry.is_beating(&end.owner, now) => {
                    let keep = end.keep.unwrap_or(Duration::ZERO);
                    entry.until = now + keep;
                    entry.ttl = keep;
                    entry.beat = now;
                    entry.ended = Some((Ending::Released, wall + keep));
                    true
                }
                _ => false,
            }))
        })
    }

    fn inspect(self: Arc<Self>, key: Key, _within: Duration) -> Answer<Outcome<Inspection>> {
        let now = self.shared.clock.now();
        let inspection = self
            .locks()
            .get(&key.lock)
            .map(|entry| Inspection {
                holder: entry.is_held(now).then(|| entry.info(now)),
                last: Some(entry.last(now)),
            })
            .unwrap_or_default();
        Box::pin(ready(Ok(inspection)))
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        _within: Duration,
    ) -> Answer<Outcome<bool>> {
        let now = self.shared.clock.now();
        let wall = self.shared.clock.wall();
        let forced = match self.locks().get_mut(&key.lock) {
            Some(entry)
                if entry.is_held(now)
                    && stale.is_none_or(|asked| {
                        entry.ended.is_none() && is_stale(now - entry.beat, asked, entry.ttl)
                    }) =>
            {
                entry.ended = Some((Ending::Forced, wall));
                entry.until = now;
                true
            }
            _ => false,
        };
        Box::pin(ready(Ok(forced)))
    }

    fn describe(&self) -> Arc<str> {
        "memory:".into()
    }
}

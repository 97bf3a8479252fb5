//! The store of one process, for tests: everything in one table, by the clock that
//! it was given.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, Moment, SystemClock};
use crate::info::{Ending, LastHolding, LockInfo, Record};
use crate::key::Key;

use super::{
    Acquire, Acquired, Answer, CLAIM, Grant, Identity, Inspection, MAX_TOKEN, Notice, Outcome,
    OwnerId, Place, Release, Released, Renew, Store, StoreError, StoreErrorKind, is_stale,
    next_token,
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
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    locks: HashMap<Arc<str>, Entry>,
    /// Those who wait for each, in the order in which they came.
    lines: HashMap<Arc<str>, VecDeque<Acquire>>,
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

    fn renew(&mut self, now: Moment, wall: SystemTime, ttl: Duration) {
        self.beat = now;
        self.until = now + ttl;
        self.until_wall = wall + ttl;
    }

    fn granted(&self) -> Acquired {
        Acquired::Granted {
            token: self.token,
            at: self.since_wall,
        }
    }

    fn info(&self, now: Moment, waiters: u64) -> LockInfo {
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
            waiters: Some(waiters),
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
                table: Mutex::default(),
            }),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `step` on every element of the batch, all at one moment.
    fn each<Q, A>(
        &self,
        batch: Vec<Q>,
        mut step: impl FnMut(&mut Table, Moment, Q) -> A,
    ) -> Answer<Vec<A>>
    where
        A: Send + 'static,
    {
        let now = self.shared.clock.now();
        let mut table = self.table();
        let answers: Vec<A> = batch
            .into_iter()
            .map(|question| step(&mut table, now, question))
            .collect();
        Box::pin(ready(answers))
    }

    fn take(&self, table: &mut Table, now: Moment, wish: &Acquire) -> Outcome<Acquired> {
        let wall = self.shared.clock.wall();
        if let Some(entry) = table.held(&wish.key, now)
            && entry.is_beating(&wish.owner, now)
        {
            entry.renew(now, wall, wish.ttl);
            return Ok(entry.granted());
        }
        let is_new = wish.line.is_some() && table.join(wish);
        if table.held(&wish.key, now).is_none() {
            table.serve(&wish.key, now, wall, Some(&wish.owner))?;
            if table.held(&wish.key, now).is_none() {
                // Nobody waits for it who is alive.
                table.write(wish, now, wall, wish.ttl)?;
            }
        }
        let waiters = table.waiters(&wish.key);
        let ahead = table.ahead(wish);
        let Some(entry) = table.held(&wish.key, now) else {
            return Err(StoreError::new(
                StoreErrorKind::NotDone,
                "the lock has just ended",
                "",
            ));
        };
        if entry.owner == wish.owner && entry.ended.is_none() {
            return Ok(entry.granted());
        }
        let holder = entry.info(now, waiters);
        Ok(match ahead {
            Some(ahead) => Acquired::Queued(Place {
                holder,
                ahead,
                at: micros(now),
                is_new,
                is_told: true,
            }),
            None => Acquired::Busy(holder),
        })
    }
}

/// The store's clock in microseconds.
fn micros(now: Moment) -> u64 {
    now.nanos() / 1_000
}

impl Table {
    fn held(&mut self, key: &Key, now: Moment) -> Option<&mut Entry> {
        self.locks
            .get_mut(&key.lock)
            .filter(|entry| entry.is_held(now))
    }

    fn waiters(&self, key: &Key) -> u64 {
        self.lines
            .get(&key.lock)
            .map_or(0, |line| line.len() as u64)
    }

    fn ahead(&self, wish: &Acquire) -> Option<u64> {
        let line = self.lines.get(&wish.key.lock)?;
        let at = line.iter().position(|other| other.owner == wish.owner)?;
        Some(at as u64)
    }

    /// Stands at the end of the line, or stays where it stands. `true`: it is new there.
    fn join(&mut self, wish: &Acquire) -> bool {
        let line = self.lines.entry(Arc::clone(&wish.key.lock)).or_default();
        let is_new = line.iter().all(|other| other.owner != wish.owner);
        if is_new {
            line.push_back(wish.clone());
        }
        is_new
    }

    fn leave(&mut self, key: &Key, owner: &OwnerId) {
        if let Some(line) = self.lines.get_mut(&key.lock) {
            line.retain(|other| other.owner != *owner);
            if line.is_empty() {
                self.lines.remove(&key.lock);
            }
        }
    }

    /// Hands a free lock to the first in line whose engine is alive. `asker` asks for
    /// itself: it gets a full lease, and hears of it in the answer.
    fn serve(
        &mut self,
        key: &Key,
        now: Moment,
        wall: SystemTime,
        asker: Option<&OwnerId>,
    ) -> Outcome<()> {
        while let Some(first) = self
            .lines
            .get(&key.lock)
            .and_then(|line| line.front().cloned())
        {
            self.leave(key, &first.owner);
            if asker == Some(&first.owner) {
                self.write(&first, now, wall, first.ttl)?;
                return Ok(());
            }
            let Some(notices) = first.line.as_ref().filter(|told| !told.is_closed()) else {
                continue;
            };
            let claim = first.ttl.min(CLAIM);
            let grant = Grant {
                owner: first.owner,
                token: self.write(&first, now, wall, claim)?,
                at: wall,
                micros: micros(now),
                claim,
            };
            if notices.send(Notice::Granted(grant)).is_ok() {
                return Ok(());
            }
            // It ended just now: as if it had never been given.
            if let Some(entry) = self.locks.get_mut(&key.lock) {
                entry.until = now;
            }
        }
        Ok(())
    }

    /// Writes a lock that is free; answers its token.
    fn write(
        &mut self,
        wish: &Acquire,
        now: Moment,
        wall: SystemTime,
        term: Duration,
    ) -> Outcome<u64> {
        let last = self
            .locks
            .get(&wish.key.lock)
            .map_or(0, |entry| entry.token);
        let clock = wall
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0));
        let token = next_token(last, clock);
        if token > MAX_TOKEN {
            return Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("the fencing token {token} is past {MAX_TOKEN}"),
                "set this machine's clock right",
            ));
        }
        let entry = Entry {
            key: wish.key.clone(),
            owner: wish.owner,
            identity: Arc::clone(&wish.identity),
            token,
            since: now,
            since_wall: wall,
            beat: now,
            ttl: wish.ttl,
            until: now + term,
            until_wall: wall + term,
            ended: None,
        };
        self.locks.insert(Arc::clone(&wish.key.lock), entry);
        Ok(token)
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
        self.each(batch, |table, now, wish| self.take(table, now, &wish))
    }

    fn renew(self: Arc<Self>, batch: Vec<Renew>, _within: Duration) -> Answer<Vec<Outcome<bool>>> {
        let wall = self.shared.clock.wall();
        self.each(batch, |table, now, beat| {
            Ok(match table.locks.get_mut(&beat.key.lock) {
                Some(entry) if entry.is_beating(&beat.owner, now) => {
                    entry.renew(now, wall, beat.ttl);
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
        self.each(batch, |table, now, end| {
            let ended = match table.locks.get_mut(&end.key.lock) {
                Some(entry) if entry.is_beating(&end.owner, now) => {
                    let keep = end.keep.unwrap_or(Duration::ZERO);
                    entry.until = now + keep;
                    entry.ttl = keep;
                    entry.beat = now;
                    entry.ended = Some((Ending::Released, wall + keep));
                    if keep.is_zero() {
                        // Whatever is wrong with the line: the lock is free.
                        let _ = table.serve(&end.key, now, wall, None);
                    }
                    true
                }
                _ => {
                    table.leave(&end.key, &end.owner);
                    false
                }
            };
            Ok(Released::from(ended))
        })
    }

    fn inspect(self: Arc<Self>, key: Key, _within: Duration) -> Answer<Outcome<Inspection>> {
        let now = self.shared.clock.now();
        let table = self.table();
        let waiters = table.waiters(&key);
        let inspection = table
            .locks
            .get(&key.lock)
            .map(|entry| Inspection {
                holder: entry.is_held(now).then(|| entry.info(now, waiters)),
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
        let mut table = self.table();
        let forced = match table.locks.get_mut(&key.lock) {
            Some(entry)
                if entry.is_held(now)
                    && stale.is_none_or(|asked| {
                        entry.ended.is_none() && is_stale(now - entry.beat, asked, entry.ttl)
                    }) =>
            {
                entry.ended = Some((Ending::Forced, wall));
                entry.until = now;
                let _ = table.serve(&key, now, wall, None);
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

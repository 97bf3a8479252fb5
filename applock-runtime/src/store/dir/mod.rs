//! The embedded store, `dir:PATH`: a directory that the processes of one machine
//! share, without a server.
//!
//! | file | what lives there |
//! |---|---|
//! | `lease.rs` | every decision, as functions without I/O |
//! | `line.rs` | who waits, whose turn it is, and the text of that file, without I/O |
//! | `record.rs` | the text of a record file |
//! | `text.rs` | the lines that both texts are made of |
//! | `names.rs` | the names of the files |
//! | `place.rs` | the directory: reading and writing a record |
//! | `steps.rs` | the steps in which that line matters |
//! | `latch.rs` | the critical section, by OS file locks |
//! | `patience.rs` | blocking threads, time limits, and what is known after them |
//! | `prepare.rs` | creating a directory and trying it out |
//! | `sweep.rs` | removing what nobody needs any more |
//! | `time.rs` | one steady time for all processes of the machine |
//! | `fault.rs` | errors that name the path and the way out |
//!
//! What it promises: at most one holder for each key among the processes of one
//! machine that use the same directory, also when they crash, are killed or stopped
//! at any point, when the machine loses power, and when the wall clock jumps.
//! Leases run out while the machine is suspended, and are over after a restart.
//!
//! In which order: whoever waits stands in line, across processes, and a lock that is free
//! is taken by the first of them whose process asked lately. That is a courtesy: a line
//! that is damaged or lost is begun anew, and never stands in a lock's way.
//!
//! What it asks of the disk: an acquisition waits for two syncs (the record, the
//! directory), a release for one, a heartbeat, a refusal and waiting for none; so a disk that
//! is slow for a while delays new holders and takes no lease from an old one.
//!
//! What breaks it: deleting records by hand while locks are held; a network file
//! system (refused on Linux); a copy of a running virtual machine.
//!
//! Who shares it: a directory created here has mode 0700. For several users, create
//! it beforehand with a common group and mode 2770; files get the same rights. A
//! sticky directory such as `/tmp` itself does not work for several users.

mod fault;
mod latch;
mod lease;
mod line;
mod names;
mod patience;
mod place;
mod prepare;
mod record;
mod steps;
mod sweep;
#[cfg(test)]
mod tests;
mod text;
mod time;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use self::latch::{Latch, shut};
use self::names::Files;
use self::patience::{Attempt, Leave, Stop, carry_out};
use self::place::{Directory, Manner};
use self::record::Holding;
use self::time::Now;
use super::{
    Acquire, Acquired, Inspection, Release, Released, Renew, Store, StoreError, StoreErrorKind,
    StoreFuture, StoreResult,
};
use crate::key::Key;

/// How many blocking threads one store uses at most, so that a disk that hangs does
/// not take all 512 of the runtime's.
const THREADS: usize = 32;

/// How long a sweep may take: unnoticed beside the start of a process.
const SWEEP: Duration = Duration::from_millis(100);

/// After how many new records a process that runs on sweeps again.
const SWEEP_EVERY: u32 = 1_000;

/// Locks in a directory.
pub(crate) struct DirStore {
    /// One store, one engine: so it is known whose waiters ask still.
    id: Uuid,
    place: Directory,
    url: Arc<str>,
    threads: Arc<Semaphore>,
    clock: Arc<dyn Fn() -> Now + Send + Sync>,
    created: AtomicU32,
    /// How many locks were asked for.
    asked: AtomicU64,
    /// Whether the directory was created and tried out: by `open`, or by the first step
    /// of a locker that connects on first use. One that is missing afterwards was
    /// deleted, which is an error.
    prepared: Mutex<bool>,
}

impl DirStore {
    /// The store in the directory `path`. Touches no file yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::with_clock(path, Arc::new(time::now))
    }

    fn with_clock(path: PathBuf, clock: Arc<dyn Fn() -> Now + Send + Sync>) -> Self {
        let place = Directory::new(&path);
        Self {
            id: Uuid::new_v4(),
            url: format!("dir:{}", place.path().display()).into(),
            place,
            threads: Arc::new(Semaphore::new(THREADS)),
            clock,
            created: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            prepared: Mutex::new(false),
        }
    }

    fn prepare_once(&self) -> StoreResult<()> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            prepare::prepare(&self.place)?;
            *prepared = true;
        }
        Ok(())
    }

    /// Goes inside, where one is alone with a key, and looks what is there.
    fn inside(&self, key: &Key) -> Attempt<Inside> {
        let files = self.place.files(&key.lock);
        let Some(latch) = Latch::try_take(&self.place, &files.latch)? else {
            return Err(Stop::Shut(shut(&files.latch)));
        };
        let found = self.place.read(&files, &key.lock)?;
        // Only now: however long the latch took, the lease counts from here, later
        // than the asking, from which the holder counts it (rule R1).
        let now = (self.clock)();
        Ok(Inside {
            _latch: latch,
            files,
            found,
            now,
        })
    }

    /// One step under the key's latch: what `decide` makes of the record that it
    /// finds is put in its place. `false`: there is nothing to change.
    fn change(
        &self,
        key: &Key,
        manner: Manner,
        leave: &Leave<'_>,
        decide: impl FnOnce(Option<Holding>, &Now) -> Option<Holding>,
    ) -> Attempt<bool> {
        let Inside {
            _latch,
            files,
            found,
            now,
        } = self.inside(key)?;
        let Some(holding) = decide(found, &now) else {
            return Ok(false);
        };
        self.place.write(&files, &holding, manner, leave)?;
        Ok(true)
    }

    fn renew_one(&self, ask: &Renew, leave: &Leave<'_>) -> Attempt<bool> {
        self.change(&ask.key, Manner::Heartbeat, leave, |found, now| {
            lease::renew(found, ask, now)
        })
    }

    fn sweep(&self) {
        sweep::sweep(&self.place, || (self.clock)(), SWEEP);
    }

    /// Sweeps beside the work, now and then, in a process that never opens anew.
    fn sweep_if_due(self: Arc<Self>) {
        if self.created.load(Ordering::Relaxed) < SWEEP_EVERY {
            return;
        }
        let Ok(permit) = Arc::clone(&self.threads).try_acquire_owned() else {
            return;
        };
        self.created.store(0, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            self.sweep();
        });
    }

    fn each<Q, T>(
        self: Arc<Self>,
        batch: Vec<Q>,
        within: Duration,
        step: fn(&Self, &Q, &Leave<'_>) -> Attempt<T>,
    ) -> StoreFuture<Vec<StoreResult<T>>>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        Box::pin(async move {
            let store = Arc::clone(&self);
            let threads = Arc::clone(&self.threads);
            let outcomes = carry_out(threads, batch, within, move |ask, leave| {
                store.prepare_once()?;
                step(&store, ask, leave)
            })
            .await;
            self.sweep_if_due();
            outcomes
        })
    }

    fn once<Q, T>(
        self: Arc<Self>,
        ask: Q,
        within: Duration,
        step: fn(&Self, &Q, &Leave<'_>) -> Attempt<T>,
    ) -> StoreFuture<StoreResult<T>>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let outcomes = self.each(vec![ask], within, step);
        Box::pin(async move {
            outcomes.await.pop().unwrap_or_else(|| {
                // One question has one answer; there is nothing to tell otherwise.
                Err(StoreError::new(StoreErrorKind::Unknown, "no answer", ""))
            })
        })
    }
}

/// Being alone with one key, and what was found there.
struct Inside {
    _latch: Latch,
    files: Files,
    found: Option<Holding>,
    now: Now,
}

impl Store for DirStore {
    fn open(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<()>> {
        self.once((), within, |store, (), _| {
            // Always anew: whoever connects wants to know how it is now.
            prepare::prepare(&store.place)?;
            store.sweep();
            Ok(())
        })
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        let number = |ask| (self.asked.fetch_add(1, Ordering::Relaxed), ask);
        let batch = batch.into_iter().map(number).collect();
        self.each(batch, within, Self::acquire_one)
    }

    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        self.each(batch, within, Self::renew_one)
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        let ended = self.each(batch, within, Self::release_one);
        Box::pin(async move {
            let answers = ended.await.into_iter();
            answers.map(|ended| ended.map(Released::from)).collect()
        })
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        self.once(key, within, |store, key, _| Ok(store.inspect_one(key)?))
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        self.once((key, stale), within, |store, (key, stale), leave| {
            store.change(key, Manner::Whole, leave, |found, now| {
                lease::force_release(found, *stale, now)
            })
        })
    }

    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.url)
    }
}

impl fmt::Debug for DirStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirStore")
            .field("path", &self.place.path())
            .finish_non_exhaustive()
    }
}

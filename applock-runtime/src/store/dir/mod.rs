//! The embedded store, `dir:PATH`: a directory that the processes of one machine
//! share, without a server.
//!
//! | file | what lives there |
//! |---|---|
//! | `lease.rs` | every decision, as functions without I/O |
//! | `record.rs` | the text of a record file |
//! | `names.rs` | the names of the files |
//! | `place.rs` | the directory: reading and writing a record |
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
//! What it asks of the disk: an acquisition waits for two syncs (the record, the
//! directory), a release for one, a heartbeat and a refusal for none; so a disk that
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
mod names;
mod patience;
mod place;
mod prepare;
mod record;
mod sweep;
#[cfg(test)]
mod tests;
mod time;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::latch::{Latch, shut};
use self::lease::Decision;
use self::patience::{Attempt, Leave, Stop, carry_out};
use self::place::{Manner, Place};
use self::record::Holding;
use self::time::{Now, system_time};
use super::{
    Acquire, Acquired, Answer, Inspection, Outcome, Release, Released, Renew, Store, StoreError,
    StoreErrorKind,
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
    place: Place,
    url: Arc<str>,
    threads: Arc<Semaphore>,
    clock: Arc<dyn Fn() -> Now + Send + Sync>,
    created: AtomicU32,
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
        let place = Place::new(&path);
        Self {
            url: format!("dir:{}", place.path().display()).into(),
            place,
            threads: Arc::new(Semaphore::new(THREADS)),
            clock,
            created: AtomicU32::new(0),
            prepared: Mutex::new(false),
        }
    }

    fn prepare_once(&self) -> Outcome<()> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            prepare::prepare(&self.place)?;
            *prepared = true;
        }
        Ok(())
    }

    /// One step under the key's latch: what `decide` makes of the record that it
    /// finds is put in its place.
    fn change<T>(
        &self,
        key: &Key,
        manner: Manner,
        leave: &Leave<'_>,
        decide: impl FnOnce(Option<Holding>, &Now) -> Outcome<(Option<Holding>, T)>,
    ) -> Attempt<T> {
        let files = self.place.files(&key.lock);
        let Some(_latch) = Latch::try_take(&self.place, &files.latch)? else {
            return Err(Stop::Shut(shut(&files.latch)));
        };
        let found = self.place.read(&files, &key.lock)?;
        let is_new = found.is_none();
        // Only now: however long the latch took, the lease counts from here, later
        // than the asking, from which the holder counts it (rule R1).
        let now = (self.clock)();
        let (holding, answer) = decide(found, &now)?;
        if let Some(holding) = holding {
            self.place.write(&files, &holding, manner, leave)?;
            if is_new {
                self.created.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(answer)
    }

    fn acquire_one(&self, ask: &Acquire, leave: &Leave<'_>) -> Attempt<Acquired> {
        // Busy needs no latch: many who knock do not hinder the one who works.
        let files = self.place.files(&ask.key.lock);
        if let Some(found) = self.place.read(&files, &ask.key.lock)? {
            let now = (self.clock)();
            if lease::is_busy(&found, ask, &now) {
                return Ok(Acquired::Busy(lease::info(&found, &now)));
            }
        }
        self.change(
            &ask.key,
            Manner::Durable,
            leave,
            |found, now| match lease::acquire(found, ask, now) {
                Ok(Decision::Busy(info)) => Ok((None, Acquired::Busy(info))),
                Ok(Decision::Take(holding)) => {
                    let granted = Acquired::Granted {
                        token: holding.token,
                        at: system_time(holding.taken_ms),
                    };
                    Ok((Some(*holding), granted))
                }
                Err(lease::TokensUsedUp) => Err(fault::tokens_used_up(&files.record)),
            },
        )
    }

    fn renew_one(&self, ask: &Renew, leave: &Leave<'_>) -> Attempt<bool> {
        self.change(&ask.key, Manner::Heartbeat, leave, |found, now| {
            Ok(done(lease::renew(found, ask, now)))
        })
    }

    fn release_one(&self, ask: &Release, leave: &Leave<'_>) -> Attempt<bool> {
        self.change(&ask.key, Manner::Whole, leave, |found, now| {
            Ok(done(lease::release(found, ask, now)))
        })
    }

    fn inspect_one(&self, key: &Key) -> Outcome<Inspection> {
        let found = self.place.read(&self.place.files(&key.lock), &key.lock)?;
        Ok(lease::inspect(found.as_ref(), &(self.clock)()))
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
    ) -> Answer<Vec<Outcome<T>>>
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
    ) -> Answer<Outcome<T>>
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

/// The record to write, and whether there is one.
fn done(holding: Option<Holding>) -> (Option<Holding>, bool) {
    let changed = holding.is_some();
    (holding, changed)
}

impl Store for DirStore {
    fn open(self: Arc<Self>, within: Duration) -> Answer<Outcome<()>> {
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
    ) -> Answer<Vec<Outcome<Acquired>>> {
        self.each(batch, within, Self::acquire_one)
    }

    fn renew(self: Arc<Self>, batch: Vec<Renew>, within: Duration) -> Answer<Vec<Outcome<bool>>> {
        self.each(batch, within, Self::renew_one)
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> Answer<Vec<Outcome<Released>>> {
        let ended = self.each(batch, within, Self::release_one);
        Box::pin(async move {
            let answers = ended.await.into_iter();
            answers.map(|ended| ended.map(Released::from)).collect()
        })
    }

    fn inspect(self: Arc<Self>, key: Key, within: Duration) -> Answer<Outcome<Inspection>> {
        self.once(key, within, |store, key, _| Ok(store.inspect_one(key)?))
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        within: Duration,
    ) -> Answer<Outcome<bool>> {
        self.once((key, stale), within, |store, (key, stale), leave| {
            store.change(key, Manner::Whole, leave, |found, now| {
                Ok(done(lease::force_release(found, *stale, now)))
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

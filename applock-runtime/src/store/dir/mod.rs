//! The embedded store, `dir:PATH`: a directory that the processes of one machine
//! share, without a server.
//!
//! An adapter of [`crate::protocol`]: each step reads the state of a lock from its files, has
//! the protocol decide, and writes what has changed. No decision about a lock stands here.
//!
//! | file | what lives there |
//! |---|---|
//! | `mod.rs` | the steps: read, decide, write |
//! | `codec.rs` | the text of a record |
//! | `queue_file.rs` | the wait queue's file: a journal |
//! | `file_names.rs` | the names of the files |
//! | `directory.rs` | the directory: reading and writing a file |
//! | `lock_file.rs` | the critical section, by OS file locks |
//! | `threads.rs` | blocking threads, time limits, and what is known after them |
//! | `open.rs` | creating a directory and trying it out |
//! | `cleanup.rs` | removing files that are out of use |
//! | `boot_clock.rs` | one steady time for all processes of the machine |
//! | `error.rs` | errors that name the path and the way out |
//!
//! What it promises: at most one holder for each key among the processes of one
//! machine that use the same directory, also when they crash, are killed or stopped
//! at any point, when the machine loses power, and when the wall clock jumps.
//! Leases run out while the machine is suspended, and are over after a restart.
//!
//! In which order: waiters stand in a queue, across processes. No process can be notified
//! here: a lock that is released goes to the first waiter whose process polled lately, and
//! that waiter finds its grant by its next poll, within the claim. The queue is a courtesy: one
//! that is damaged or lost is begun anew, and never stands in a lock's way.
//!
//! What it asks of the disk: a grant waits for two syncs (the record, the directory), a
//! release without a waiter waits for one, a heartbeat, a refusal and waiting for none; so a disk that
//! is slow for a while delays new holders and takes no lease from an old one.
//!
//! What breaks it: deleting records by hand while locks are held; a network file
//! system (refused on Linux); a copy of a running virtual machine.
//!
//! Who shares it: a directory created here has mode 0700. For several users, create
//! it beforehand with a common group and mode 2770; files get the same rights. A
//! sticky directory such as `/tmp` itself does not work for several users.

mod boot_clock;
mod cleanup;
mod codec;
mod directory;
mod error;
mod file_names;
mod lock_file;
mod open;
mod queue_file;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use self::boot_clock::BootTime;
use self::cleanup::Cleanup;
use self::codec::{RecordFile, store_time};
use self::directory::{Directory, Durability};
use self::file_names::Files;
use self::lock_file::{LockFile, still_taken};
use self::queue_file::{Changes, MAX_WAITERS, Plan, Polls, QueueFile};
use self::threads::{CommitPermit, StepResult, Stop, carry_out};
use super::view::{self, Who, nanos};
use super::{
    Acquire, Acquired, By, Inspection, Release, Released, Renew, Store, StoreError, StoreErrorKind,
    StoreFuture, StoreResult,
};
use crate::blocking::on_a_thread;
use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::protocol::{
    Granted, Holding, LockState, Notify, Phase, Reach, Releaser, Requester, StoreTime, Timing,
    WaitQueue, Waiter, WhenBusy,
};

/// How many blocking threads one store uses at most, while a disk hangs.
const THREADS: usize = 32;

/// How long a cleanup may take: unnoticed beside the start of a process.
const CLEANUP: Duration = Duration::from_millis(100);

/// After how many new records a process that runs on cleans up again.
const CLEANUP_EVERY: u32 = 1_000;

/// How long a listing may take: of a directory with very many files.
const LISTING: Duration = Duration::from_secs(30);

/// How often it is written down that a process polls, while the lock is taken.
const REFRESH: Duration = Duration::from_millis(300);

/// Locks in a directory.
pub(crate) struct DirStore {
    /// One store, one engine: so it is known whose waiters poll still.
    id: Uuid,
    directory: Directory,
    url: Arc<str>,
    threads: Arc<Semaphore>,
    clock: Arc<dyn Fn() -> BootTime + Send + Sync>,
    created: AtomicU32,
    cleanup: Mutex<Cleanup>,
    /// The queues in which waiters of this engine stand, as they were last read or written.
    queues: Mutex<HashMap<Arc<str>, Arc<QueueFile>>>,
    /// The last ticket that was given to a request of this engine.
    ticket: AtomicU64,
    /// Whether the directory was created and tried out: by `open`, or by the first step
    /// of a locker that connects on first use. One that is missing afterwards was
    /// deleted, which is an error.
    is_open: Mutex<bool>,
}

/// No process can be notified here, and all of them say so: this is never asked.
struct NobodyListens;

impl Notify<Who> for NobodyListens {
    fn reach(&mut self, _waiter: &Waiter<Who>, _grant: &Granted) -> Reach {
        Reach::Unreachable
    }
}

/// A lock as its files have it.
struct Found {
    files: Files,
    newest: Option<Holding<Who, By>>,
    success: Option<Holding<Who, By>>,
    written: Written,
    now: BootTime,
}

/// What stands in the file of the wait queue.
enum Written {
    Queue(Arc<QueueFile>, Polls),
    /// Nothing that can be used: the next writer begins anew.
    Damaged,
    /// It was not read, or is another version's, and is left alone.
    Untouched,
}

/// What a step needs of the wait queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// While the lock is taken, of the processes only its own.
    Queue,
    QueueAndPolls,
    /// A holder lets go, or a lock is looked at: also where the queue can't be read.
    QueueIfReadable,
    /// A heartbeat changes the record alone.
    Nothing,
}

impl Found {
    fn at(&self) -> StoreTime {
        store_time(&self.now)
    }

    /// What the protocol goes by.
    fn state(&self) -> LockState<Who, By> {
        let mut queue = match &self.written {
            Written::Queue(file, polls) => file.queue(polls),
            Written::Damaged | Written::Untouched => WaitQueue::default(),
        };
        if let Some(newest) = &self.newest {
            // A crash between the two files: the holder waits no more.
            queue.leave(newest.owner);
        }
        LockState {
            newest: self.newest.clone(),
            success: self.success.clone(),
            queue,
        }
    }

    /// How many stand in the file of the queue.
    fn waiters(&self) -> usize {
        match &self.written {
            Written::Queue(file, _) => file.queue.len(),
            Written::Damaged | Written::Untouched => 0,
        }
    }

    /// Whether that request stands there.
    fn has(&self, ask: &Acquire) -> bool {
        match &self.written {
            Written::Queue(file, _) => file.queue.stands(ask.owner.as_u128()),
            Written::Damaged | Written::Untouched => false,
        }
    }

    /// Whether a request will stand in the queue that does not stand there yet: it has to be
    /// written in any case.
    fn will_join(&self, ask: &Acquire) -> bool {
        ask.notifications.is_some() && !self.has(ask) && self.waiters() < MAX_WAITERS
    }

    /// What a decision changes in the queue. `None`: that is left alone.
    fn changes(&self, decided: &LockState<Who, By>) -> Option<Changes> {
        match &self.written {
            Written::Queue(file, polls) => Some(file.changes(polls, &decided.queue)),
            Written::Damaged => Some(QueueFile::default().changes(&Polls::new(), &decided.queue)),
            Written::Untouched => None,
        }
    }

    /// How a decision changes the file of the queue.
    fn plan(&self, decided: &LockState<Who, By>) -> Plan {
        let (changes, boot) = (self.changes(decided), self.now.boot());
        match (&self.written, &changes) {
            (Written::Queue(file, _), Some(changes)) => file.plan(changes, &decided.queue, boot),
            (Written::Damaged, _) if decided.queue.is_empty() => Plan::Remove,
            (Written::Damaged, Some(changes)) => {
                QueueFile::default().plan(changes, &decided.queue, boot)
            }
            (Written::Untouched, _) | (_, None) => Plan::Nothing,
        }
    }

    /// Whether a decision changes nothing but the time at which a process last polled, by less
    /// than [`REFRESH`].
    fn is_negligible(&self, decided: &LockState<Who, By>) -> bool {
        let changes = self.changes(decided);
        decided.newest == self.newest
            && changes.is_none_or(|changes| changes.is_less_than(nanos(REFRESH)))
    }
}

/// A lock file that is taken, and the lock as its files have it.
struct Inside {
    _lock_file: LockFile,
    found: Found,
}

impl DirStore {
    /// The store in the directory `path`. Touches no file yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::with_clock(path, Arc::new(boot_clock::now))
    }

    fn with_clock(path: PathBuf, clock: Arc<dyn Fn() -> BootTime + Send + Sync>) -> Self {
        let directory = Directory::new(&path);
        Self {
            id: Uuid::new_v4(),
            url: format!("dir:{}", directory.path().display()).into(),
            directory,
            threads: Arc::new(Semaphore::new(THREADS)),
            clock,
            created: AtomicU32::new(0),
            cleanup: Mutex::default(),
            queues: Mutex::default(),
            ticket: AtomicU64::new(0),
            is_open: Mutex::new(false),
        }
    }

    fn open_once(&self) -> StoreResult<()> {
        let mut is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_open {
            open::open(&self.directory)?;
            *is_open = true;
        }
        Ok(())
    }

    /// Reads a lock. Needs no lock file: each file is only ever replaced whole.
    fn read(&self, key: &Key, needs: Needs) -> StoreResult<Found> {
        let files = Files::of(self.directory.path(), &key.lock);
        let record = self.directory.read(&files, &key.lock)?;
        // Only now: however long it took to get here, the lease counts from here, later than the
        // asking, from which the holder counts it (rule R1).
        let now = (self.clock)();
        let (newest, success) = match record {
            Some(record) => {
                let (newest, success) = record.into_holdings(&now);
                (Some(newest), success)
            }
            None => (None, None),
        };
        let written = match needs {
            Needs::Nothing => Written::Untouched,
            _ => match self.read_queue(key, &files, newest.as_ref(), needs, &now) {
                Ok(Some((file, polls))) => Written::Queue(file, polls),
                Ok(None) => Written::Damaged,
                Err(_) if needs == Needs::QueueIfReadable => Written::Untouched,
                Err(error) => return Err(error),
            },
        };
        Ok(Found {
            files,
            newest,
            success,
            written,
            now,
        })
    }

    /// Reads the queue: what was added to it since it was read before, and when the processes
    /// polled. While another owner has the lock nobody asks that of other processes.
    fn read_queue(
        &self,
        key: &Key,
        files: &Files,
        newest: Option<&Holding<Who, By>>,
        needs: Needs,
        now: &BootTime,
    ) -> StoreResult<Option<(Arc<QueueFile>, Polls)>> {
        let at = store_time(now);
        let is_taken = newest.is_some_and(|newest| newest.is_taken(at));
        let own = self.id.as_u128();
        let poll_of = |file: &QueueFile| {
            let suffices = needs == Needs::Queue && is_taken && file.has_waiter_of(own);
            suffices.then_some(own)
        };
        let known = self.queues().get(&key.lock).cloned();
        let read = self.directory.read_queue(files, now, known, poll_of);
        match &read {
            Ok(Some((file, _))) => self.remember(key, file),
            Ok(None) | Err(_) => drop(self.queues().remove(&key.lock)),
        }
        read
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<QueueFile>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a queue while a waiter of this engine stands in it: it will be read again soon.
    fn remember(&self, key: &Key, file: &Arc<QueueFile>) {
        let mut queues = self.queues();
        if file.has_waiter_of(self.id.as_u128()) {
            queues.insert(Arc::clone(&key.lock), Arc::clone(file));
        } else {
            queues.remove(&key.lock);
        }
    }

    /// Takes the lock file of a key, and reads the lock.
    fn inside(&self, key: &Key, needs: Needs) -> StepResult<Inside> {
        let files = Files::of(self.directory.path(), &key.lock);
        match LockFile::try_take(&self.directory, &files.lock_file)? {
            Some(lock_file) => Ok(Inside {
                _lock_file: lock_file,
                found: self.read(key, needs)?,
            }),
            None => Err(Stop::Taken(still_taken(&files.lock_file))),
        }
    }

    /// Writes what a decision has changed: first the record, then the queue. A crash between the two
    /// leaves the new holder in the queue, from which the next reader takes it.
    fn commit(
        &self,
        key: &Key,
        found: &Found,
        plan: Plan,
        decided: LockState<Who, By>,
        permit: &CommitPermit<'_>,
    ) -> StoreResult<()> {
        let newest = decided.newest.as_ref();
        let durability = newest.and_then(|new| durability(found.newest.as_ref(), new));
        if let Some((newest, durability)) = newest.zip(durability) {
            let record = RecordFile {
                holding: newest.clone(),
                success: decided.success.clone(),
                boot: found.now.boot(),
            };
            self.directory
                .write(&found.files, &record, durability, permit)?;
            if found.newest.is_none() {
                self.created.fetch_add(1, Ordering::Relaxed);
            }
        }
        match (
            self.directory.write_queue(&found.files, plan, permit),
            durability,
        ) {
            (Ok(None), _) => Ok(()),
            (Ok(Some(mut file)), _) => {
                file.queue = decided.queue;
                self.remember(key, &Arc::new(file));
                Ok(())
            }
            (Err(error), None) => {
                self.queues().remove(&key.lock);
                Err(error)
            }
            (Err(_), Some(_)) => {
                // The step is carried out, whatever becomes of the queue: its next writer takes
                // the holder out of it.
                self.queues().remove(&key.lock);
                Ok(())
            }
        }
    }

    /// The requests of a batch that are about one lock: they share what is read and written.
    fn acquire_some(
        &self,
        asks: &[(u64, Acquire)],
        permit: &CommitPermit<'_>,
    ) -> StepResult<Vec<StoreResult<Acquired>>> {
        let Some((_, Acquire { key, .. })) = asks.first() else {
            return Ok(Vec::new());
        };
        // Polls must not keep the holder from the lock file: one that would change nothing but the
        // time of a recent poll is answered without it.
        let outside = self.read(key, Needs::Queue)?;
        if !asks.iter().any(|(_, ask)| outside.will_join(ask)) {
            let (decided, answers) = self.decide_acquires(&outside, asks, true);
            if outside.is_negligible(&decided) {
                return Ok(answers);
            }
        }
        let Inside {
            _lock_file,
            mut found,
        } = self.inside(key, Needs::Queue)?;
        let (mut decided, mut answers) = self.decide_acquires(&found, asks, true);
        let mut plan = found.plan(&decided);
        if matches!(plan, Plan::Replace { .. }) {
            // It says of all processes when they polled.
            found = self.read(key, Needs::QueueAndPolls)?;
            (decided, answers) = self.decide_acquires(&found, asks, true);
            plan = found.plan(&decided);
        }
        if plan.is_too_long() {
            // They do without a place: a queue that is too long would be lost to all its waiters.
            (decided, answers) = self.decide_acquires(&found, asks, false);
            plan = found.plan(&decided);
        }
        self.commit(key, &found, plan, decided, permit)?;
        Ok(answers)
    }

    /// `has_room`: whether requests that do not stand in the queue may join it.
    fn decide_acquires(
        &self,
        found: &Found,
        asks: &[(u64, Acquire)],
        has_room: bool,
    ) -> (LockState<Who, By>, Vec<StoreResult<Acquired>>) {
        let now = found.at();
        let mut state = found.state();
        let mut decide = |(ticket, ask): &(u64, Acquire)| {
            let when_busy = when_busy(&state.queue, has_room, *ticket, ask);
            let requester = Requester {
                owner: ask.owner.as_u128(),
                process: self.id.as_u128(),
                ttl: nanos(ask.ttl),
                remember: nanos(ask.remember),
                due: ask.due,
                who: Who::of(ask),
            };
            let decision = state
                .acquire(
                    requester,
                    when_busy,
                    now,
                    &Timing::NANOS,
                    &mut NobodyListens,
                )
                .map_err(|_| error::tokens_used_up(&found.files.record))?;
            view::acquired(&state, decision, false, now)
        };
        let answers = asks.iter().map(&mut decide).collect();
        (state, answers)
    }

    fn renew_one(&self, ask: &Renew, permit: &CommitPermit<'_>) -> StepResult<bool> {
        self.step(&ask.key, Needs::Nothing, permit, |state, now| {
            state.renew(ask.owner.as_u128(), nanos(ask.ttl), now)
        })
    }

    /// The releases of a batch that are about one lock.
    fn release_some(
        &self,
        asks: &[Release],
        permit: &CommitPermit<'_>,
    ) -> StepResult<Vec<StoreResult<Released>>> {
        let Some(first) = asks.first() else {
            return Ok(Vec::new());
        };
        let own = Some(self.id.as_u128());
        self.step(&first.key, Needs::QueueIfReadable, permit, |state, now| {
            let mut release = |ask: &Release| {
                let releaser = Releaser {
                    owner: ask.owner.as_u128(),
                    outcome: ask.outcome,
                    keep: ask.keep.map_or(0, nanos),
                    own,
                };
                let answer = state.release(releaser, now, &Timing::NANOS, &mut NobodyListens);
                Ok(Released {
                    ended: answer.ended,
                    next: answer.granted.as_ref().map(view::grant),
                })
            };
            asks.iter().map(&mut release).collect()
        })
    }

    fn force_release_one(
        &self,
        (key, stale, by): &(Key, Option<Duration>, Arc<By>),
        permit: &CommitPermit<'_>,
    ) -> StepResult<bool> {
        let stale = stale.map(nanos);
        self.step(key, Needs::QueueIfReadable, permit, |state, now| {
            state.force_release(
                stale,
                (**by).clone(),
                now,
                &Timing::NANOS,
                &mut NobodyListens,
            )
        })
    }

    /// One step alone with a key: read, decide, write what has changed.
    fn step<T>(
        &self,
        key: &Key,
        needs: Needs,
        permit: &CommitPermit<'_>,
        decide: impl FnOnce(&mut LockState<Who, By>, StoreTime) -> T,
    ) -> StepResult<T> {
        let Inside { _lock_file, found } = self.inside(key, needs)?;
        let mut decided = found.state();
        let answer = decide(&mut decided, found.at());
        let plan = found.plan(&decided);
        self.commit(key, &found, plan, decided, permit)?;
        Ok(answer)
    }

    fn inspect_one(&self, key: &Key) -> StoreResult<Inspection> {
        // The record alone says who holds the lock: a queue that can't be read hides no holder.
        let found = self.read(key, Needs::QueueIfReadable)?;
        let (state, now) = (found.state(), found.at());
        let is_known = !matches!(found.written, Written::Untouched);
        let waiters = is_known.then(|| state.waiters(now) as u64);
        Ok(view::inspection_with(&state, waiters, now))
    }

    /// Who holds the locks of which the directory has a record. One that can't be read is an error,
    /// for nobody knows whether it is one of those that are asked for.
    fn list_some(&self, pattern: &Pattern) -> StoreResult<Vec<LockInfo>> {
        let mut holders = Vec::new();
        for files in self.directory.records()? {
            let Some(found) = self.directory.read_any(&files)? else {
                continue;
            };
            let key = &found.holding.who.key;
            // A copy that was made by hand is no lock.
            let is_lock = Files::of(self.directory.path(), key) == files;
            if is_lock && pattern.fits(key) {
                holders.extend(self.inspect_one(&Key::of_lock(key))?.holder);
            }
        }
        holders.sort_by(|one, other| one.key().cmp(other.key()));
        Ok(holders)
    }

    /// A ticket for a request that comes in now. The requests of one engine race for the lock file
    /// on several threads; by their tickets they stand in the order in which they came in.
    fn next_ticket(&self) -> u64 {
        let now = (self.clock)().up_ns / 1_000;
        let next = |last: u64| now.max(last.saturating_add(1));
        let last = self
            .ticket
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            });
        next(last.unwrap_or_default())
    }

    fn clean_up(&self) {
        // One at a time: another one does the same work.
        if let Ok(mut cleanup) = self.cleanup.try_lock() {
            cleanup.run(&self.directory, || (self.clock)(), CLEANUP);
        }
    }

    /// Cleans up beside the work, now and then, in a process that never opens anew.
    fn clean_up_if_due(self: Arc<Self>) {
        if self.created.load(Ordering::Relaxed) < CLEANUP_EVERY {
            return;
        }
        let Ok(permit) = Arc::clone(&self.threads).try_acquire_owned() else {
            return;
        };
        self.created.store(0, Ordering::Relaxed);
        // Without a thread for it there is another time.
        tokio::spawn(on_a_thread(move || {
            let _permit = permit;
            self.clean_up();
        }));
    }

    fn each<Q, T>(
        self: Arc<Self>,
        batch: Vec<Q>,
        within: Duration,
        step: fn(&Self, &Q, &CommitPermit<'_>) -> StepResult<T>,
    ) -> StoreFuture<Vec<StoreResult<T>>>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        Box::pin(async move {
            let store = Arc::clone(&self);
            let threads = Arc::clone(&self.threads);
            let outcomes = carry_out(threads, batch, within, move |ask, permit| {
                store.open_once()?;
                step(&store, ask, permit)
            })
            .await;
            self.clean_up_if_due();
            outcomes
        })
    }

    /// The same, with one step for all that are about one lock.
    fn each_lock<Q, T>(
        self: Arc<Self>,
        batch: Vec<Q>,
        within: Duration,
        key: fn(&Q) -> &Key,
        step: StepForSome<Q, T>,
    ) -> StoreFuture<Vec<StoreResult<T>>>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let mut answers: Vec<StoreResult<T>> = batch.iter().map(|_| Err(no_answer())).collect();
        let mut known: HashMap<Arc<str>, usize> = HashMap::new();
        let mut places: Vec<Vec<usize>> = Vec::new();
        let mut groups: Vec<Vec<Q>> = Vec::new();
        for (place, ask) in batch.into_iter().enumerate() {
            let group = *known
                .entry(Arc::clone(&key(&ask).lock))
                .or_insert(groups.len());
            if group == groups.len() {
                places.push(Vec::new());
                groups.push(Vec::new());
            }
            if let (Some(places), Some(asks)) = (places.get_mut(group), groups.get_mut(group)) {
                places.push(place);
                asks.push(ask);
            }
        }
        let outcomes = self.each(groups, within, step);
        Box::pin(async move {
            for (places, outcome) in places.into_iter().zip(outcomes.await) {
                let outcomes = match outcome {
                    Ok(outcomes) => outcomes,
                    Err(error) => places.iter().map(|_| Err(error.clone())).collect(),
                };
                for (place, outcome) in places.into_iter().zip(outcomes) {
                    if let Some(answer) = answers.get_mut(place) {
                        *answer = outcome;
                    }
                }
            }
            answers
        })
    }

    fn once<Q, T>(
        self: Arc<Self>,
        ask: Q,
        within: Duration,
        step: fn(&Self, &Q, &CommitPermit<'_>) -> StepResult<T>,
    ) -> StoreFuture<StoreResult<T>>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let outcomes = self.each(vec![ask], within, step);
        Box::pin(async move {
            // A batch of one has one answer.
            outcomes.await.pop().unwrap_or_else(|| Err(no_answer()))
        })
    }
}

/// One step for all that are about one lock, each with its own answer.
type StepForSome<Q, T> =
    fn(&DirStore, &Vec<Q>, &CommitPermit<'_>) -> StepResult<Vec<StoreResult<T>>>;

fn no_answer() -> StoreError {
    StoreError::new(StoreErrorKind::Unknown, "no answer", "")
}

/// What becomes of a request that finds the lock taken: one that waits stands in the queue, unless
/// that is full.
fn when_busy(queue: &WaitQueue<Who>, has_room: bool, ticket: u64, ask: &Acquire) -> WhenBusy {
    let has_room = has_room && queue.len() < MAX_WAITERS;
    if ask.notifications.is_some() && (has_room || queue.stands(ask.owner.as_u128())) {
        WhenBusy::Wait {
            ticket: Some(ask.ticket.unwrap_or(ticket)),
            listens: false,
        }
    } else {
        WhenBusy::Refuse
    }
}

/// How a record has to be written, if it has changed.
fn durability(old: Option<&Holding<Who, By>>, new: &Holding<Who, By>) -> Option<Durability> {
    let beats = |phase| matches!(phase, Phase::Held | Phase::Claimed);
    match old {
        Some(old) if old == new => None,
        // A new token: it must not be given out again.
        Some(old) if old.token != new.token => Some(Durability::Durable),
        None => Some(Durability::Durable),
        Some(old) if beats(old.phase) && beats(new.phase) => Some(Durability::Heartbeat),
        Some(_) => Some(Durability::Whole),
    }
}

impl Store for DirStore {
    fn open(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<()>> {
        self.once((), within, |store, (), _| {
            // Always anew: a caller that connects wants to know how it is now.
            open::open(&store.directory)?;
            store.clean_up();
            Ok(())
        })
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        let stamp = |ask| (self.next_ticket(), ask);
        let batch = batch.into_iter().map(stamp).collect();
        self.each_lock(
            batch,
            within,
            |(_, ask)| &ask.key,
            |store, asks, permit| store.acquire_some(asks, permit),
        )
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
        self.each_lock(
            batch,
            within,
            |ask| &ask.key,
            |store, asks, permit| store.release_some(asks, permit),
        )
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        self.once(key, within, |store, key, _| Ok(store.inspect_one(key)?))
    }

    fn list(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        within: Duration,
    ) -> StoreFuture<StoreResult<Vec<LockInfo>>> {
        self.once(pattern, within.max(LISTING), |store, pattern, _| {
            Ok(store.list_some(pattern)?)
        })
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        by: Arc<By>,
        within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        self.once((key, stale, by), within, Self::force_release_one)
    }

    fn forked(&self) -> Option<Arc<dyn Store>> {
        // The waiters of the parent are not the child's: it needs an id of its own.
        let path = self.directory.path().to_owned();
        Some(Arc::new(Self::with_clock(path, Arc::clone(&self.clock))))
    }

    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.url)
    }
}

impl fmt::Debug for DirStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirStore")
            .field("path", &self.directory.path())
            .finish_non_exhaustive()
    }
}

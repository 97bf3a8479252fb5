//! The handle of an engine, and its thread.
//!
//! A locker owns one handle. The thread starts with the first command, and ends when the
//! last handle and the last holding are gone: a guard that outlives its locker keeps its
//! lock. The handle only sends commands and awaits their answers; it has no state of a
//! lock.
//!
//! The dangers: a thread that dies, and callers that wait for it forever (each wait ends in
//! an error then, and the next command starts a new thread); a call on the thread itself, by
//! a log subscriber, which would wait for itself (refused at once); a process that was forked
//! off, in which the thread is not (it gets an engine of its own); and a program that ends before
//! the releases it has just asked for have left (the last handle waits a moment).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, SystemTime};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;

use crate::clock::{Driven, Moment};
use crate::error::Result;
use crate::health::Health;
use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::store::{Identity, Inspection, OwnerId, Question, Said, StoreError, StoreErrorKind};

use super::core::Parts;
use super::event_loop;
use super::farewell::FAREWELL;
use super::mailbox::{
    AcquireRequest, Command, Gone, Held, Mailbox, enter_engine, refuse_on_engine, stopped,
};
use super::unfinished::Unfinished;

/// The handle of an engine; its thread starts on first use, and ends when the last
/// handle and the last holding are gone.
pub(crate) struct Engine {
    /// Of the process that it was made in, or first used in.
    process: u32,
    /// The engine of a process that was forked off, in that process: of its parent's threads
    /// none lives there, and of its parent's locks it holds none.
    forked: OnceLock<Box<Engine>>,
    parts: Arc<Parts>,
    running: Mutex<Option<EngineThread>>,
    unfinished: Arc<Unfinished>,
    /// What its owner ids begin with, what the first goes on with, and how many it has given.
    instance: u64,
    first_owner: u64,
    owners: AtomicU64,
}

/// The thread that runs, and how to reach it.
struct EngineThread {
    mailbox: Mailbox,
    thread: ThreadId,
}

/// How long a drain whose time is over may still take: as a shutdown that is given so long.
const AFTER_A_DRAIN: Duration = Duration::from_secs(1);

/// How long a probe waits for the thread: one that takes longer sends no heartbeats in time.
const PROBE: Duration = Duration::from_millis(250);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.parts.store.describe())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let (random, first_owner) = OwnerId::new_v4().as_u64_pair();
        let instance = u64::from_str_radix(&parts.identity.instance, 16).unwrap_or(random);
        Self {
            process: std::process::id(),
            forked: OnceLock::new(),
            parts: Arc::new(parts),
            running: Mutex::new(None),
            unfinished: Arc::default(),
            instance,
            first_owner,
            owners: AtomicU64::new(0),
        }
    }

    /// An engine whose work the caller drives, on a runtime of its own, instead of a
    /// thread.
    #[cfg(test)]
    pub(crate) fn driven_by_caller(parts: Parts) -> (Self, impl Future<Output = ()> + Send) {
        let engine = Self::new(parts);
        let (mailbox, commands) = mpsc::unbounded_channel();
        let work = event_loop::run(
            Arc::clone(&engine.parts),
            commands,
            Arc::clone(&engine.unfinished),
        );
        let running = EngineThread {
            mailbox,
            thread: std::thread::current().id(),
        };
        *engine.running.lock().unwrap() = Some(running);
        (engine, work)
    }

    /// How many acquisitions have not come to their end.
    #[cfg(test)]
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.count()
    }

    /// The engine of this very process. It touches nothing of its parent's that another thread
    /// may have locked at the moment of the fork.
    pub(crate) fn here(&self) -> &Self {
        if self.process == std::process::id() {
            return self;
        }
        let forked = || Box::new(Self::new(self.parts.forked()));
        self.forked.get_or_init(forked).here()
    }

    /// The present moment of the clock that leases are judged by.
    pub(crate) fn now(&self) -> Moment {
        self.parts.clock.now()
    }

    /// What the wall clock shows, for people.
    pub(crate) fn wall(&self) -> SystemTime {
        self.parts.clock.wall()
    }

    /// Of [`here`](Self::here).
    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.parts.identity
    }

    /// An owner id for one acquisition (rule R6): the id of this process, or where the instance has
    /// a name of its own a random number, and a second one that was drawn for this engine, with the
    /// count of its ids mixed in. No system call.
    pub(crate) fn new_owner(&self) -> OwnerId {
        /// Odd, so that no two counts give the same id: 2^64 divided by the golden ratio.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let count = self.owners.fetch_add(1, Ordering::Relaxed);
        let own = self.first_owner.wrapping_add(STEP.wrapping_mul(count));
        OwnerId::from_u64_pair(self.instance, own)
    }

    pub(crate) fn store(&self) -> Arc<str> {
        self.parts.store.describe()
    }

    /// The mailbox of the thread, which is started if there is none (any more).
    fn mailbox(&self, lock: Option<&Key>) -> Result<Mailbox> {
        refuse_on_engine(&self.store(), lock)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running
            .as_ref()
            .filter(|running| !running.mailbox.is_closed())
        {
            return Ok(running.mailbox.clone());
        }
        let (mailbox, commands) = mpsc::unbounded_channel();
        let parts = Arc::clone(&self.parts);
        let unfinished = Arc::clone(&self.unfinished);
        let failed = |error: std::io::Error| {
            StoreError::new(
                StoreErrorKind::NotDone,
                format!("the lock engine's thread can't be started ({error})"),
                "see whether this process may have more threads and open files",
            )
            .caused_by(error)
            .into_error(
                self.parts.store.describe(),
                lock.map(|key| key.lock.clone()),
            )
        };
        let (started, built) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("applock".to_owned())
            .spawn(move || {
                enter_engine();
                // Made here, for it must not be dropped inside another runtime.
                match runtime() {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        let work = event_loop::run(parts, commands, unfinished);
                        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
                        // Not waiting for blocking work that hangs (a file system, a
                        // resolver), also after a panic.
                        runtime.shutdown_background();
                        if let Err(panic) = ended {
                            resume_unwind(panic);
                        }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            })
            .map_err(failed)?;
        match built.recv() {
            Ok(outcome) => outcome.map_err(failed)?,
            Err(_) => return Err(stopped(&self.store(), lock)),
        }
        let weak = mailbox.downgrade();
        self.parts.clock.attach(Driven::new(move || {
            let (reply, settled) = std::sync::mpsc::sync_channel(1);
            weak.upgrade()?.send(Command::Settle(reply)).ok()?;
            Some(settled)
        }));
        *running = Some(EngineThread {
            mailbox: mailbox.clone(),
            thread: thread.thread().id(),
        });
        Ok(mailbox)
    }

    /// Sends a command, and awaits its answer. Safe to cancel: what an answer carries
    /// cleans up after itself.
    async fn ask<T>(
        &self,
        lock: Option<&Key>,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        self.here().ask_this(lock, command).await
    }

    async fn ask_this<T>(
        &self,
        lock: Option<&Key>,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let mailbox = self.mailbox(lock)?;
        let (reply, answer) = oneshot::channel();
        let stopped = || stopped(&self.store(), lock);
        if let Err(unsent) = mailbox.send(command(reply)) {
            if let Command::Acquire { .. } = unsent.0 {
                self.unfinished.done();
            }
            return Err(stopped());
        }
        // Waiting keeps no engine alive that has nothing else to do: the handle does.
        drop(mailbox);
        unconstrained(answer).await.map_err(|_| stopped())?
    }

    /// Reaches the store.
    pub(crate) async fn open(&self) -> Result<()> {
        self.ask(None, Command::Open).await
    }

    /// Takes a lock. Safe to cancel: dropping the future gives up, and if the lock was, or
    /// is still being, taken, the engine releases it (rule R6).
    ///
    /// The deadline counts from here, in the caller's thread, and not from when the engine
    /// gets to the command.
    ///
    /// Of [`here`](Self::here).
    pub(crate) async fn acquire(&self, request: AcquireRequest) -> Result<Held> {
        let mailbox = self.mailbox(Some(&request.key))?.downgrade();
        let key = request.key.clone();
        let deadline = request.deadline(&*self.parts.clock);
        let mut gone = Gone {
            owner: request.owner,
            mailbox: mailbox.clone(),
            answered: false,
            process: self.process,
        };
        let outcome = self.ask_this(Some(&key), |reply| {
            self.unfinished.add();
            Command::Acquire {
                request,
                deadline,
                reply,
                mailbox,
            }
        });
        let outcome = outcome.await;
        gone.answered = true;
        outcome
    }

    /// Sleeps on the engine's timers, by its clock. Safe to cancel.
    pub(crate) async fn sleep(&self, length: Duration) -> Result<()> {
        self.ask(None, |reply| Command::Sleep(length, reply)).await
    }

    /// Who holds a lock, and who held it last.
    pub(crate) async fn inspect(&self, key: Key) -> Result<Inspection> {
        let lock = key.clone();
        self.ask(Some(&lock), |reply| Command::Inspect(key, reply))
            .await
    }

    /// Who holds which of those locks.
    pub(crate) async fn list(&self, pattern: Pattern) -> Result<Vec<LockInfo>> {
        let pattern = Arc::new(pattern);
        self.ask(None, |reply| Command::List(pattern, reply)).await
    }

    /// What each server of the store says to a command.
    pub(crate) async fn ask_each(&self, question: Question) -> Result<Vec<Said>> {
        self.ask(None, |reply| Command::AskEach(question, reply))
            .await
    }

    /// From now on the keys of those locks that change are sent there, as far as the store tells of
    /// changes.
    pub(crate) fn hear(&self, pattern: Pattern, heard: Sender<String>) -> Result<()> {
        let here = self.here();
        let sent = here
            .mailbox(None)?
            .send(Command::Hear(Arc::new(pattern), heard));
        sent.map_err(|_| stopped(&here.store(), None))
    }

    /// How the engine is: no I/O. Blocks until the thread answers, which takes some microseconds, and
    /// for [`PROBE`] at the most; a thread that does not answer stands still.
    pub(crate) fn health(&self) -> Health {
        let here = self.here();
        if refuse_on_engine(&here.store(), None).is_err() {
            // It would wait for itself; but it is alive.
            return Health::IDLE;
        }
        let running = here.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mailbox = running.as_ref().map(|running| running.mailbox.clone());
        drop(running);
        let Some(mailbox) = mailbox.filter(|mailbox| !mailbox.is_closed()) else {
            return Health::IDLE;
        };
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let sent = mailbox.send(Command::Health(reply));
        drop(mailbox);
        match sent.map(|()| answer.recv_timeout(PROBE)) {
            Ok(Ok(health)) => health,
            Ok(Err(RecvTimeoutError::Disconnected)) | Err(_) => Health::IDLE,
            Ok(Err(RecvTimeoutError::Timeout)) => Health {
                is_alive: false,
                ..Health::IDLE
            },
        }
    }

    /// Takes a lock from its holder, if its last heartbeat is older than `stale`. The reason may be
    /// empty.
    pub(crate) async fn force(
        &self,
        key: Key,
        stale: Option<Duration>,
        reason: String,
    ) -> Result<bool> {
        let lock = key.clone();
        let command = |reply| Command::Force(key, stale, reason, reply);
        self.ask(Some(&lock), command).await
    }

    /// Gives back all locks, within the time given.
    pub(crate) async fn shutdown(&self, within: Duration) -> Result<()> {
        self.close(Duration::ZERO, within).await
    }

    /// Takes no more locks, and gives back those that are held after so long at the latest.
    pub(crate) async fn drain(&self, within: Duration) -> Result<()> {
        self.close(within, AFTER_A_DRAIN).await
    }

    async fn close(&self, bodies: Duration, within: Duration) -> Result<()> {
        self.ask(None, |reply| Command::Close {
            bodies,
            within,
            reply,
        })
        .await
    }
}

/// The thread's own runtime. Where no file can be opened any more, tokio panics in place of an
/// error (what it keeps for signals, in a program that has that feature on).
fn runtime() -> std::io::Result<Runtime> {
    let build = || Builder::new_current_thread().enable_all().build();
    catch_unwind(build).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(std::io::Error::other(
            text.unwrap_or("tokio panicked").to_owned(),
        ))
    })
}

impl Drop for Engine {
    fn drop(&mut self) {
        let running = self
            .running
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if self.process != std::process::id() {
            // The parent's: neither its thread nor its connections must learn of this end.
            std::mem::forget((running, Arc::clone(&self.parts)));
        } else if let Some(running) = running {
            let on_engine = std::thread::current().id() == running.thread;
            // Only what is being released is waited for; a guard that is kept has a mailbox
            // of its own, and its lock goes on being renewed.
            let kept = running.mailbox.strong_count() > 1;
            drop(running);
            if !on_engine && !kept {
                self.unfinished.wait(FAREWELL);
            }
        }
    }
}

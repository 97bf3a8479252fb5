//! The background thread of one locker: heartbeats, releases, waiting acquires, and
//! the lease arithmetic.
//!
//! Rule R2: everything that keeps a lock alive runs here, never on the caller's
//! runtime. The engine speaks to a [`Store`] and to nothing above it.

mod actor;
mod ending;
mod holding;
pub(crate) mod lease;
mod line;
mod pace;
#[cfg(test)]
mod tests;
mod wish;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;

use crate::clock::{Clock, Moment};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::store::{Acquire, Identity, Inspection, OwnerId, Store, StoreError, StoreErrorKind};

pub(crate) use lease::{Lease, Standing};

/// What the engine is asked to do.
enum Command {
    Open(oneshot::Sender<Result<()>>),
    Acquire(Wish),
    /// The caller of this acquire, which may wait for long, has gone.
    Forget(OwnerId),
    Verify(Arc<Lease>, oneshot::Sender<Result<bool>>),
    /// A heartbeat at once, and no answer: the lease is suspect.
    Doubt(OwnerId),
    Release(Arc<Lease>, Option<oneshot::Sender<Result<()>>>),
    Inspect(Key, oneshot::Sender<Result<Inspection>>),
    Force(Key, Option<Duration>, oneshot::Sender<Result<bool>>),
    Shutdown(Duration, oneshot::Sender<Result<()>>),
}

// Answers are awaited unconstrained: inside a tokio task that somebody else's `block_on`
// blocks, the task's cooperative budget is never given anew.

type Mailbox = mpsc::UnboundedSender<Command>;

/// Of a wish: that somebody once waited keeps no engine alive.
type WeakMailbox = mpsc::WeakUnboundedSender<Command>;

/// How long an acquire waits for a busy lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Busy is an answer, at once.
    None,
    /// Until this moment.
    Until(Moment),
    Forever,
}

/// The wish to hold a lock.
struct Wish {
    acquire: Acquire,
    patience: Patience,
    at_least: Option<Duration>,
    at_most: Option<Duration>,
    reply: oneshot::Sender<Result<Held>>,
    /// Goes into the holding, so that the engine lives as long as anything is held.
    mailbox: WeakMailbox,
}

/// What an acquire asks for, apart from who asks.
pub(crate) struct Want {
    pub(crate) acquire: Acquire,
    pub(crate) wait: Wait,
    pub(crate) at_least: Option<Duration>,
    pub(crate) at_most: Option<Duration>,
}

/// How long to wait for a busy lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Wait {
    #[default]
    Not,
    For(Duration),
    Forever,
}

/// A lock that is held: dropping it lets go, in the background (rule R6).
pub(crate) struct Held {
    lease: Arc<Lease>,
    /// Whether somebody has let go already.
    ended: AtomicBool,
    mailbox: Mailbox,
    store: Arc<str>,
    /// How long it took from the wish to the lock, in nanoseconds.
    waited: u64,
}

impl Held {
    fn new(lease: Arc<Lease>, mailbox: Mailbox, store: Arc<str>, waited: Duration) -> Self {
        Self {
            lease,
            ended: AtomicBool::new(false),
            mailbox,
            store,
            waited: u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// How long it took from the wish to the lock, by the engine's clock.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited)
    }

    fn stopped(&self) -> Error {
        stopped(&self.store, Some(&self.lease.key))
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// What is known of the lease; a suspect one is verified, in the background.
    pub(crate) fn standing(&self) -> Standing {
        let standing = self.lease.standing();
        if standing == Standing::Suspect && self.lease.asks_first() {
            // An engine that has stopped has ended the lease.
            let _ = self.mailbox.send(Command::Doubt(self.lease.owner));
        }
        standing
    }

    /// What is told of a lease that is suspect.
    pub(crate) fn doubt(&self) -> Error {
        StoreError::new(
            StoreErrorKind::Unknown,
            "this machine's wall clock has jumped ahead, as after a pause of a virtual machine, \
             and the store has not confirmed the lock since",
            "a heartbeat is on its way: ask again, or await verify()",
        )
        .into_error(
            Arc::clone(&self.store),
            Some(Arc::clone(&self.lease.key.lock)),
        )
    }

    /// Asks the store whether the lock is ours still, with a heartbeat.
    pub(crate) async fn verify(&self) -> Result<bool> {
        let (reply, answer) = oneshot::channel();
        let lease = Arc::clone(&self.lease);
        self.mailbox
            .send(Command::Verify(lease, reply))
            .map_err(|_| self.stopped())?;
        unconstrained(answer).await.map_err(|_| self.stopped())?
    }

    /// Lets go, and waits for the store's answer.
    pub(crate) async fn release(self) -> Result<()> {
        self.end().await
    }

    /// Lets go though others may still look at the lease, and waits for the answer.
    pub(crate) async fn end(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.ended.swap(true, Ordering::AcqRel) {
            return Err(Error::NotHeld {
                key: Arc::clone(&self.lease.key.lock),
            });
        }
        self.mailbox
            .send(Command::Release(Arc::clone(&self.lease), Some(reply)))
            .map_err(|_| self.stopped())?;
        unconstrained(answer).await.map_err(|_| self.stopped())?
    }

    /// Lets go in the background, once.
    pub(crate) fn let_go(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            // An engine that has stopped has ended the lease; the ttl frees the lock.
            let _ = self
                .mailbox
                .send(Command::Release(Arc::clone(&self.lease), None));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn stopped(store: &Arc<str>, lock: Option<&Key>) -> Error {
    StoreError::new(
        StoreErrorKind::Unknown,
        "the locker's background thread has stopped",
        "a clock, a waker or a log subscriber that it called has panicked; see stderr",
    )
    .into_error(Arc::clone(store), lock.map(|key| Arc::clone(&key.lock)))
}

/// Counts the acquisitions, from the wish to the end, so that the last handle of a
/// locker can wait for their releases.
#[derive(Default)]
struct Unfinished {
    count: AtomicUsize,
    /// Whether the last handle waits: nobody else has to be woken.
    waited_for: Mutex<bool>,
    none: Condvar,
}

impl Unfinished {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn done(&self) {
        let less = |count: usize| count.checked_sub(1);
        let before = self
            .count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if before == Ok(1) && *self.waited_for() {
            self.none.notify_all();
        }
    }

    fn waited_for(&self) -> MutexGuard<'_, bool> {
        // Poison changes nothing about a flag.
        self.waited_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, longest: Duration) {
        let mut waited_for = self.waited_for();
        *waited_for = true;
        let unfinished = |_: &mut bool| self.count.load(Ordering::SeqCst) > 0;
        drop(
            self.none
                .wait_timeout_while(waited_for, longest, unfinished),
        );
    }
}

/// Tells the engine when the future of an acquire that waits is dropped: whoever stands
/// in line has nothing else to wake it.
struct Gone {
    owner: OwnerId,
    mailbox: WeakMailbox,
    answered: bool,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if !self.answered
            && let Some(mailbox) = self.mailbox.upgrade()
        {
            // An engine that has stopped has forgotten it.
            let _ = mailbox.send(Command::Forget(self.owner));
        }
    }
}

/// What an engine works with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Arc<Identity>,
    /// The longest that any command may take.
    pub(crate) command_timeout: Duration,
}

/// The handle of an engine; its thread starts on first use, and ends when the last
/// handle and the last holding are gone.
pub(crate) struct Engine {
    parts: Arc<Parts>,
    running: Mutex<Option<Running>>,
    unfinished: Arc<Unfinished>,
}

struct Running {
    mailbox: Mailbox,
    thread: ThreadId,
}

/// How long the last handle waits for releases that are on their way: a round trip
/// or two, so that a program that ends right after it let go leaves nothing behind.
const FAREWELL: Duration = Duration::from_millis(500);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.parts.store.describe())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            running: Mutex::new(None),
            unfinished: Arc::default(),
        }
    }

    /// An engine whose work the caller drives, on a runtime of its own, instead of a
    /// thread.
    #[cfg(test)]
    pub(crate) fn driven_by_caller(parts: Parts) -> (Self, impl Future<Output = ()> + Send) {
        let engine = Self::new(parts);
        let (mailbox, commands) = mpsc::unbounded_channel();
        let work = actor::run(
            Arc::clone(&engine.parts),
            commands,
            Arc::clone(&engine.unfinished),
        );
        let running = Running {
            mailbox,
            thread: std::thread::current().id(),
        };
        *engine.running.lock().unwrap() = Some(running);
        (engine, work)
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.parts.identity
    }

    pub(crate) fn store(&self) -> Arc<str> {
        self.parts.store.describe()
    }

    fn mailbox(&self, lock: Option<&Key>) -> Result<Mailbox> {
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
        let (tell, built) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("applock".to_owned())
            .spawn(move || {
                // Made here, for it must not be dropped inside another runtime.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        let _ = tell.send(Ok(()));
                        let work = actor::run(parts, commands, unfinished);
                        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
                        // Not waiting for blocking work that hangs (a file system, a
                        // resolver), also after a panic.
                        runtime.shutdown_background();
                        if let Err(panic) = ended {
                            resume_unwind(panic);
                        }
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            })
            .map_err(failed)?;
        match built.recv() {
            Ok(outcome) => outcome.map_err(failed)?,
            Err(_) => return Err(stopped(&self.store(), lock)),
        }
        *running = Some(Running {
            mailbox: mailbox.clone(),
            thread: thread.thread().id(),
        });
        Ok(mailbox)
    }

    async fn ask<T>(
        &self,
        lock: Option<&Key>,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let mailbox = self.mailbox(lock)?;
        let (reply, answer) = oneshot::channel();
        let stopped = || stopped(&self.store(), lock);
        if let Err(unsent) = mailbox.send(command(reply)) {
            if let Command::Acquire(_) = unsent.0 {
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

    /// Takes a lock. Dropping the future gives up; if the lock was, or is still being,
    /// taken, the engine releases it (rule R6).
    pub(crate) async fn acquire(&self, want: Want) -> Result<Held> {
        let mailbox = self.mailbox(Some(&want.acquire.key))?.downgrade();
        let key = want.acquire.key.clone();
        let patience = match want.wait {
            Wait::Not | Wait::For(Duration::ZERO) => Patience::None,
            Wait::For(length) => Patience::Until(self.parts.clock.now() + length),
            Wait::Forever => Patience::Forever,
        };
        let mut gone = (patience != Patience::None).then(|| Gone {
            owner: want.acquire.owner,
            mailbox: mailbox.clone(),
            answered: false,
        });
        let outcome = self.ask(Some(&key), |reply| {
            self.unfinished.add();
            Command::Acquire(Wish {
                acquire: want.acquire,
                patience,
                at_least: want.at_least,
                at_most: want.at_most,
                reply,
                mailbox,
            })
        });
        let outcome = outcome.await;
        if let Some(gone) = &mut gone {
            gone.answered = true;
        }
        outcome
    }

    pub(crate) async fn inspect(&self, key: Key) -> Result<Inspection> {
        let lock = key.clone();
        self.ask(Some(&lock), |reply| Command::Inspect(key, reply))
            .await
    }

    pub(crate) async fn force(&self, key: Key, stale: Option<Duration>) -> Result<bool> {
        let lock = key.clone();
        self.ask(Some(&lock), |reply| Command::Force(key, stale, reply))
            .await
    }

    pub(crate) async fn shutdown(&self, within: Duration) -> Result<()> {
        self.ask(None, |reply| Command::Shutdown(within, reply))
            .await
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let running = self
            .running
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(running) = running {
            let on_engine = std::thread::current().id() == running.thread;
            // Only what is being released is waited for; a guard that is kept has a
            // mailbox of its own, and goes on being renewed.
            let kept = running.mailbox.strong_count() > 1;
            drop(running);
            if !on_engine && !kept {
                self.unfinished.wait(FAREWELL);
            }
        }
    }
}

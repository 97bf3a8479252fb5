//! How callers reach the engine: its commands, and the handle of a held lock.
//!
//! A [`Held`] is what an acquire is answered with. It owns the duty to release: dropped at
//! any moment, also inside an answer that no caller receives, it sends the release (rule
//! R6). A `Gone` does the same for an acquire that is not answered yet. Both send, and
//! never wait: they run in destructors, on any thread. The mailbox is unbounded for that
//! reason; callers that await an answer are what bounds it.
//!
//! Nothing here decides anything about a lock but one: that it is released once.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::unconstrained;

use crate::clock::{Clock, Moment};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::protocol::{Due, Outcome};
use crate::store::{Identity, Inspection, OwnerId, Question, Said, StoreError, StoreErrorKind};

use super::farewell::{Leaving, leave};
use super::lease::{Lease, Validity};

/// What the engine is asked to do.
pub(super) enum Command {
    Open(oneshot::Sender<Result<()>>),
    Acquire {
        request: AcquireRequest,
        /// Until when the caller waits; `None` for an acquire that does not wait, and for
        /// one that waits forever.
        deadline: Option<Moment>,
        reply: oneshot::Sender<Result<Held>>,
        /// Goes into the holding, so that the engine lives as long as anything is held.
        mailbox: WeakMailbox,
    },
    /// The caller of this acquire has gone; its thread waits for what that leaves.
    Forget(OwnerId, Leaving),
    Verify(Arc<Lease>, oneshot::Sender<Result<bool>>),
    /// The lease is suspect: send a heartbeat at once. There is no answer; the lease shows
    /// it.
    Suspect(OwnerId),
    /// With the caller that waits for the answer, and its thread, whose end waits.
    Release(
        Arc<Lease>,
        Option<oneshot::Sender<Result<()>>>,
        Option<Leaving>,
    ),
    /// Answered after so long, for a caller without timers of its own.
    Sleep(Duration, oneshot::Sender<Result<()>>),
    Inspect(Key, oneshot::Sender<Result<Inspection>>),
    List(Arc<Pattern>, oneshot::Sender<Result<Vec<LockInfo>>>),
    AskEach(Question, oneshot::Sender<Result<Vec<Said>>>),
    /// From now on the keys of locks that change are sent there, as far as the store tells of them.
    Hear(Arc<Pattern>, std::sync::mpsc::Sender<String>),
    /// The caller waits for a moment, on a plain thread or not.
    Health(std::sync::mpsc::SyncSender<Health>),
    /// Answered when nothing is left to do at this moment: a test's clock waits for it.
    Settle(std::sync::mpsc::SyncSender<()>),
    Force(Key, Option<Duration>, String, oneshot::Sender<Result<bool>>),
    /// No more locks: bodies go on for so long, and within so long after that all is released.
    Close {
        bodies: Duration,
        within: Duration,
        reply: oneshot::Sender<Result<()>>,
    },
}

// Answers are awaited unconstrained: inside a tokio task that another `block_on`
// blocks, the task's cooperative budget is never given anew.

pub(super) type Mailbox = mpsc::UnboundedSender<Command>;

/// For an acquire: a waiting caller keeps no engine alive; only a held lock does.
pub(super) type WeakMailbox = mpsc::WeakUnboundedSender<Command>;

/// One acquire, as `Lock` asks the engine for it. The entry keeps it until the lock is
/// granted or the caller has its refusal; each try makes a fresh request to the store of it.
#[derive(Clone, Debug)]
pub(crate) struct AcquireRequest {
    pub(crate) key: Key,
    /// Unique to this acquire, and the same for all of its tries: a store that carries out
    /// two of them has still granted one lock (rule R6).
    pub(crate) owner: OwnerId,
    pub(crate) ttl: Duration,
    pub(crate) identity: Arc<Identity>,
    pub(crate) wait: Wait,
    /// For how long the holding is remembered after its end.
    pub(crate) remember: Duration,
    /// What an earlier run forbids.
    pub(crate) due: Option<Due>,
    pub(crate) at_least: Option<Duration>,
    pub(crate) at_most: Option<Duration>,
}

impl AcquireRequest {
    /// Whether a busy lock is waited for at all. If not, 'busy' is the answer.
    pub(super) fn waits(&self) -> bool {
        !matches!(self.wait, Wait::Not | Wait::For(Duration::ZERO))
    }

    /// When the caller has waited for long enough. Reads the clock only for a wait that
    /// ends.
    pub(super) fn deadline(&self, clock: &dyn Clock) -> Option<Moment> {
        match self.wait {
            Wait::For(length) if self.waits() => Some(clock.now() + length),
            Wait::Not | Wait::For(_) | Wait::Forever => None,
        }
    }
}

/// How long to wait for a busy lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Wait {
    #[default]
    Not,
    For(Duration),
    Forever,
}

/// A lock that is held. Dropping it lets go, in the background (rule R6).
///
/// It keeps the engine alive by its mailbox: a lock that is held must go on being renewed,
/// also after the locker has gone.
pub(crate) struct Held {
    lease: Arc<Lease>,
    /// Whether it was let go already: by its guard, its run, or its drop.
    ended: AtomicBool,
    mailbox: Mailbox,
    store: Arc<str>,
    /// How long it took from the request to the grant, in nanoseconds.
    waited: u64,
}

impl Held {
    pub(super) fn new(
        lease: Arc<Lease>,
        mailbox: Mailbox,
        store: Arc<str>,
        waited: Duration,
    ) -> Self {
        Self {
            lease,
            ended: AtomicBool::new(false),
            mailbox,
            store,
            waited: u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// How long it took from the request to the grant, by the engine's clock.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited)
    }

    fn stopped(&self) -> Error {
        stopped(&self.store, Some(&self.lease.key))
    }

    fn not_held(&self) -> Error {
        Error::NotHeld {
            key: Arc::clone(&self.lease.key.lock),
        }
    }

    fn refuse_on_engine(&self) -> Result<()> {
        refuse_on_engine(&self.store, Some(&self.lease.key))
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// What is known of the lease. A suspect one is verified in the background; the first
    /// reader sends for the heartbeat.
    pub(crate) fn validity(&self) -> Validity {
        if self.lease.is_of_another_process() {
            return Validity::Over;
        }
        let validity = self.lease.validity();
        if validity == Validity::Suspect && self.lease.asks_first() {
            // An engine that has stopped has ended the lease.
            let _ = self.mailbox.send(Command::Suspect(self.lease.owner));
        }
        validity
    }

    /// The error for a holder that asks while its lease is suspect.
    pub(crate) fn suspect_error(&self) -> Error {
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

    /// Asks the store whether the lock is still this owner's, by a heartbeat.
    pub(crate) async fn verify(&self) -> Result<bool> {
        if self.lease.is_of_another_process() {
            return Ok(false);
        }
        self.refuse_on_engine()?;
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

    /// Lets go while others may still read the lease, and waits for the answer.
    pub(crate) async fn end(&self) -> Result<()> {
        if self.lease.is_of_another_process() {
            return Err(self.not_held());
        }
        if let Err(error) = self.refuse_on_engine() {
            // The caller hears no answer; the lock is given back all the same.
            self.let_go();
            return Err(error);
        }
        let (reply, answer) = oneshot::channel();
        if self.ended.swap(true, Ordering::AcqRel) {
            return Err(self.not_held());
        }
        self.send_release(Some(reply))?;
        unconstrained(answer).await.map_err(|_| self.stopped())?
    }

    /// Lets go in the background, once. Never blocks: it runs in destructors.
    pub(crate) fn let_go(&self) {
        let is_ended = self.ended.load(Ordering::Acquire);
        if !is_ended
            && !self.lease.is_of_another_process()
            && !self.ended.swap(true, Ordering::AcqRel)
        {
            // An engine that has stopped has ended the lease; the ttl frees the lock.
            let _ = self.send_release(None);
        }
    }

    /// The release is this thread's to see to, also where a caller waits for the answer: that
    /// future may be dropped.
    fn send_release(&self, reply: Option<oneshot::Sender<Result<()>>>) -> Result<()> {
        let send = |leaving| {
            let release = Command::Release(Arc::clone(&self.lease), reply, leaving);
            self.mailbox.send(release).map_err(|_| self.stopped())
        };
        match ON_ENGINE.get() {
            // It would wait for itself.
            true => send(None),
            false => leave(self.lease.process, |leaving| send(Some(leaving))),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if std::thread::panicking() && self.lease.noted_outcome() == Outcome::Released {
            self.lease.set_outcome(Outcome::Panicked);
        }
        self.let_go();
        if !*self.ended.get_mut() {
            // A copy that a fork has made: the thread at the mailbox's other end is the parent's,
            // and must not be woken.
            std::mem::forget(self.mailbox.clone());
        }
    }
}

/// The error for a caller whose engine has no thread any more.
pub(super) fn stopped(store: &Arc<str>, lock: Option<&Key>) -> Error {
    StoreError::new(
        StoreErrorKind::Unknown,
        "the locker's background thread has stopped",
        "a clock, a waker or a log subscriber that it called has panicked; see stderr",
    )
    .into_error(Arc::clone(store), lock.map(|key| Arc::clone(&key.lock)))
}

thread_local! {
    /// Whether this is an engine's thread.
    static ON_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread that calls it as an engine's.
pub(super) fn enter_engine() {
    ON_ENGINE.set(true);
}

/// An engine's thread must not wait for an engine: for itself it would wait forever, and with
/// it every caller, whatever its time limit; for another one its own locks would miss their
/// heartbeats (rule R2). The caller's code that runs there is a log subscriber, a waker or a
/// clock.
pub(super) fn refuse_on_engine(store: &Arc<str>, lock: Option<&Key>) -> Result<()> {
    if !ON_ENGINE.get() {
        return Ok(());
    }
    Err(StoreError::new(
        StoreErrorKind::Misconfigured,
        "this call was made on a locker's own background thread, which would wait for itself",
        "a log subscriber, a waker or a clock that uses a lock has to do so on another thread",
    )
    .into_error(Arc::clone(store), lock.map(|key| Arc::clone(&key.lock))))
}

/// Tells the engine that the future of an acquire was dropped. A waiter may sleep for seconds
/// until it polls: until then it would stand in the wait queue, and be granted the lock. What
/// does not wait may have taken it already.
pub(super) struct Gone {
    pub(super) owner: OwnerId,
    pub(super) mailbox: WeakMailbox,
    pub(super) answered: bool,
    /// The process that asked.
    pub(super) process: u32,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if !self.answered
            && self.process == std::process::id()
            && let Some(mailbox) = self.mailbox.upgrade()
        {
            // An engine that has stopped has forgotten it.
            leave(self.process, |leaving| {
                drop(mailbox.send(Command::Forget(self.owner, leaving)))
            });
        }
    }
}

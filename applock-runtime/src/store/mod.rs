//! The trait that every kind of store keeps to, and the questions it answers.
//!
//! A store decides who holds a lock, each step atomic (rule R3). It knows nothing
//! of guards, heartbeats or waiting: those live in the engine.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::error::{Error, FaultKind, StoreFault};
use crate::info::{LastHolding, LockInfo};
use crate::key::Key;

pub(crate) mod dir;
pub(crate) mod memory;
pub(crate) mod redis;
pub(crate) mod url;

/// What a store's methods return: a future that the engine drives on its own
/// thread, inside its tokio runtime.
pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Three outcomes (rule R9): yes, no, or an error, which is never read as no.
pub(crate) type Outcome<T> = Result<T, StoreError>;

/// A place where locks live.
///
/// Steps come in batches, so that what is due together travels together; answers
/// come in the order of the questions. `within` is the longest that the caller
/// will wait for the answer: after it the outcome is `Unknown`.
pub(crate) trait Store: Send + Sync + fmt::Debug + 'static {
    /// Reaches the store and checks that it can be used.
    fn open(self: Arc<Self>, within: Duration) -> Answer<Outcome<()>>;

    /// Takes locks that are free, or that the same owner id already holds. A lock that
    /// others wait for is theirs first; a wish with a [`line`](Acquire::line) stands in
    /// line then, and keeps its place when it asks again.
    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        within: Duration,
    ) -> Answer<Vec<Outcome<Acquired>>>;

    /// Sets leases back to their full ttl. `false`: not held by that owner (any
    /// more), and nothing was changed.
    fn renew(self: Arc<Self>, batch: Vec<Renew>, within: Duration) -> Answer<Vec<Outcome<bool>>>;

    /// Ends holdings, and hands each lock to the first who waits for it. An owner that
    /// stands in line leaves it.
    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> Answer<Vec<Outcome<Released>>>;

    /// Who holds the lock, and who held it last. Changes nothing.
    fn inspect(self: Arc<Self>, key: Key, within: Duration) -> Answer<Outcome<Inspection>>;

    /// Ends whatever holding there is, if no heartbeat came for `stale` and for half of
    /// its ttl, for a heart beats each third (always, if `stale` is `None`). `false`:
    /// there was none, its heart beats, or it was given back and is kept by `at_least`.
    /// The lock goes to the first who waits for it.
    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        within: Duration,
    ) -> Answer<Outcome<bool>>;

    /// The store as a URL without its password, for messages.
    fn describe(&self) -> Arc<str>;
}

/// Unique to one acquisition (rule R6).
pub(crate) type OwnerId = uuid::Uuid;

/// Who we are: written beside every lock that we take.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) instance: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
}

/// The wish to take one lock.
#[derive(Clone, Debug)]
pub(crate) struct Acquire {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    pub(crate) ttl: Duration,
    /// The same for all of a batch: they come from one engine.
    pub(crate) identity: Arc<Identity>,
    /// If it is busy, stand in line, and tell of the grant here. `None`: busy is an
    /// answer.
    pub(crate) line: Option<Notices>,
    /// The place that it had in line: if the store has lost it, it gets it back.
    pub(crate) ticket: Option<u64>,
}

/// The answer to an [`Acquire`].
#[derive(Clone, Debug)]
pub(crate) enum Acquired {
    /// It is ours, with this fencing token, since this time of the store's clock.
    Granted { token: u64, at: SystemTime },
    /// Somebody else holds it, or is the next to.
    Busy(LockInfo),
    /// Somebody else holds it, and the wish stands in line.
    Queued(Place),
}

/// A place in the line of those who wait for a lock.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) holder: LockInfo,
    /// How many stand before it.
    pub(crate) ahead: u64,
    /// When the store looked, in microseconds of its own clock.
    pub(crate) at: u64,
    /// It did not stand in line before.
    pub(crate) is_new: bool,
    /// What its place goes by, where the store may lose a line and told it this time.
    pub(crate) ticket: Option<u64>,
    /// Whether a grant will be told. If not, only asking again finds it.
    pub(crate) is_told: bool,
}

/// Where a store tells of what happens to those of one engine who stand in line.
pub(crate) type Notices = mpsc::UnboundedSender<Notice>;

/// What a store tells unasked. Only ever a hint: what is not told is found by asking
/// again.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// One who stood in line has the lock.
    Granted(Grant),
    /// From now on grants are told, or are not told any more: ask again.
    Ask,
}

/// A lock that was handed to one who stood in line.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) owner: OwnerId,
    pub(crate) token: u64,
    /// Since when it is held, by the store's clock.
    pub(crate) at: SystemTime,
    /// The same in microseconds, of the clock that [`Place::at`] goes by.
    pub(crate) micros: u64,
    /// The lease it begins with: the first heartbeat makes it a full one.
    pub(crate) claim: Duration,
}

/// How long a lock that was handed over stays with one who does not confirm it.
pub(crate) const CLAIM: Duration = Duration::from_secs(3);

/// One heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Renew {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    /// For the log.
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
}

/// The end of one holding.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    /// For the log; unknown of an acquire that was never answered.
    pub(crate) token: Option<u64>,
    /// Keep the lock taken for so long still (`at_least`), without a heartbeat.
    pub(crate) keep: Option<Duration>,
}

/// The answer to a [`Release`].
#[derive(Clone, Debug)]
pub(crate) struct Released {
    /// `false`: not held by that owner (any more).
    pub(crate) ended: bool,
    /// The lock went to a waiter of the same engine, who is told here and nowhere else.
    pub(crate) next: Option<Grant>,
}

impl From<bool> for Released {
    fn from(ended: bool) -> Self {
        Self { ended, next: None }
    }
}

/// What stands at a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) holder: Option<LockInfo>,
    pub(crate) last: Option<LastHolding>,
}

/// Whether a holding counts as stale whose last heartbeat is `age` ago.
///
/// Where less than half of the ttl was asked for, half of it counts: a heart beats each
/// third of the ttl, and a shorter silence is none.
pub(crate) fn is_stale(age: Duration, asked: Duration, ttl: Duration) -> bool {
    age >= asked.max(ttl / 2)
}

/// The fencing token after `last`, at `micros` of the store's clock (rule R8: it
/// only grows, also where the counter or the clock was lost).
pub(crate) fn next_token(last: u64, micros: u64) -> u64 {
    last.saturating_add(1).max(micros)
}

/// The largest integer that survives a double, and with it Lua and JSON.
pub(crate) const MAX_TOKEN: u64 = (1 << 53) - 1;

/// An answer that is neither yes nor no.
#[derive(Clone, Debug)]
pub(crate) struct StoreError {
    pub(crate) kind: StoreErrorKind,
    pub(crate) what: Arc<str>,
    pub(crate) remedy: &'static str,
    pub(crate) source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Found out at no cost of time (a connection that had died meanwhile): worth one
    /// more try at once.
    pub(crate) worth_another: bool,
}

/// What an error lets us conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreErrorKind {
    /// The step was certainly not carried out.
    NotDone,
    /// The step may have been carried out, or may still be.
    Unknown,
    /// Not carried out, and refused until a person mends it: password, rights.
    Denied,
    /// Not carried out, and not possible until a person mends it: a damaged or
    /// foreign file, a database that does not exist.
    Misconfigured,
}

impl StoreError {
    pub(crate) fn new(
        kind: StoreErrorKind,
        what: impl Into<Arc<str>>,
        remedy: &'static str,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            remedy,
            source: None,
            worth_another: false,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.kind, StoreErrorKind::NotDone | StoreErrorKind::Unknown)
    }

    /// What the user is told.
    pub(crate) fn into_error(self, store: Arc<str>, lock: Option<Arc<str>>) -> Error {
        let kind = match self.kind {
            StoreErrorKind::NotDone | StoreErrorKind::Unknown => FaultKind::Unavailable,
            StoreErrorKind::Denied => FaultKind::Denied,
            StoreErrorKind::Misconfigured => FaultKind::Misconfigured,
        };
        let fault = Box::new(StoreFault {
            kind,
            lock,
            store,
            what: self.what,
            remedy: self.remedy,
            source: self.source,
        });
        match kind {
            FaultKind::Unavailable => Error::Unavailable(fault),
            FaultKind::Denied => Error::Denied(fault),
            FaultKind::Misconfigured => Error::Misconfigured(fault),
        }
    }
}

//! The trait that every kind of store keeps to, and the questions it answers.
//!
//! A store decides who holds a lock, each step atomic (rule R3). It knows nothing
//! of guards, heartbeats or waiting: those live in the engine.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::watch;

use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;

pub(crate) mod dir;
mod error;
pub(crate) mod memory;
pub(crate) mod redis;
mod request;
pub(crate) mod url;
pub(crate) mod view;

pub(crate) use error::{StoreError, StoreErrorKind};
#[cfg(test)]
pub(crate) use request::CLAIM;
pub(crate) use request::{
    Acquire, Acquired, By, Grant, Identity, Inspection, Notification, Notifications, OwnerId,
    QueuePosition, Release, Released, Renew, random_id,
};

/// What a store's methods return: a future that the engine drives on its own
/// thread, inside its tokio runtime.
pub(crate) type StoreFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Three outcomes (rule R9): yes, no, or an error, which is never read as no.
pub(crate) type StoreResult<T> = Result<T, StoreError>;

/// A command for each server that has locks.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) words: Vec<String>,
    /// The servers that are not asked, as messages show them.
    pub(crate) except: Vec<String>,
}

/// What one server has answered to a person's question.
#[derive(Debug)]
pub(crate) struct Said {
    /// The server, as messages show it.
    pub(crate) server: Arc<str>,
    pub(crate) took: Duration,
    /// It has said something, be it an error. If not, no answer came in time, or no connection.
    pub(crate) is_answered: bool,
    pub(crate) answer: StoreResult<serde_json::Value>,
}

/// A place where locks live.
///
/// Steps come in batches, so that what is due together travels together; answers
/// come in the order of the questions. `within` is the longest that the caller
/// will wait for the answer: after it the outcome is `Unknown`.
pub(crate) trait Store: Send + Sync + fmt::Debug + 'static {
    /// Reaches the store and checks that it can be used.
    fn open(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<()>>;

    /// Where the lock lives: the answers to a batch of one place may wait for one another, those of
    /// different places (nodes of a cluster, of which one may be frozen) never do. No I/O.
    fn place(&self, key: &Key) -> u64 {
        let _ = key;
        0
    }

    /// From now on that engine is told when another server comes to serve locks
    /// ([`Notification::Moved`]). It says whether that matters to it: only while it has locks or
    /// waiters does the store have to look out for it. Called once, in the engine's runtime, before
    /// any step. `false`: no other server ever comes.
    fn watch(&self, notifications: &Notifications, needed: watch::Receiver<bool>) -> bool {
        let _ = (notifications, needed);
        false
    }

    /// Takes locks that are free, or that the same owner id already holds. A lock with
    /// waiters goes to the first of them: a request with [`Acquire::notifications`] then
    /// joins the queue, and keeps its place when it polls.
    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>>;

    /// Sets leases back to their full ttl. `false`: not held by that owner (any
    /// more), and nothing was changed.
    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>>;

    /// Ends holdings, and hands each lock to its first waiter. An owner that waits in the
    /// queue leaves it.
    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>>;

    /// The holder of the lock, and its last holding. Changes nothing.
    fn inspect(self: Arc<Self>, key: Key, within: Duration)
    -> StoreFuture<StoreResult<Inspection>>;

    /// Who holds which of those locks, by their keys. Changes nothing. Each command of it may take
    /// `within`; all of them take as long as there are keys.
    fn list(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        within: Duration,
    ) -> StoreFuture<StoreResult<Vec<LockInfo>>>;

    /// Sends a command to each server that has locks, for a person who looks after it. A store
    /// without servers has nothing to say.
    fn ask_each(
        self: Arc<Self>,
        question: Question,
        within: Duration,
    ) -> StoreFuture<StoreResult<Vec<Said>>> {
        let _ = (question, within);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Sends the keys of those locks that change there, for as long as that is listened to and the
    /// engine lives, as far as the servers tell of changes. They are hints: what is not heard is no
    /// sign that nothing has changed.
    fn hear(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        heard: Sender<String>,
        within: Duration,
    ) -> StoreFuture<()> {
        let _ = (pattern, heard, within);
        Box::pin(std::future::ready(()))
    }

    /// Ends whatever holding there is, if no heartbeat came for `stale` and for half of
    /// its ttl, for a heart beats each third (always, if `stale` is `None`). `by`: who does it, and why. `false`:
    /// there was none, its heart beats, or it was given back and is kept by `at_least`.
    /// The lock goes to its first waiter.
    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        by: Arc<By>,
        within: Duration,
    ) -> StoreFuture<StoreResult<bool>>;

    /// The same store for a process that was forked off: without connections and numbers that
    /// it would share with its parent. `None`: there is nothing of that kind.
    fn forked(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// The store as a URL without its password, for messages.
    fn describe(&self) -> Arc<str>;
}

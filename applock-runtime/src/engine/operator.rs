//! What an operator asks, or a careful holder: open, inspect, list, verify, release by force.
//!
//! None of these is a step of an entry: open, inspect and force-release go to the store
//! beside the entries, and answer their caller by themselves. Only `verify` concerns a
//! holding of this process, and it is a heartbeat. An inspection may be repeated after a
//! dead connection, because it changes nothing. A force-release may not: the second one
//! could strike the next holder.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use tracing::field;

use crate::error::Result;
use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::shown::shown;
use crate::store::{By, Inspection, Question, Said, Store, StoreResult};

use super::core::{Actor, Completion};
use super::health::is_answer;
use super::lease::Lease;
use super::state::EntryState;

impl Actor {
    /// Reaches the store, and checks that it can be used.
    pub(super) fn open(&mut self, reply: oneshot::Sender<Result<()>>) {
        let opened = Arc::clone(&self.parts.store).open(self.parts.command_timeout);
        let store = self.parts.store.describe();
        self.spawn(async move {
            let outcome = opened.await;
            let is_answered = is_answer(&outcome);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, None)));
            Completion::Asked(is_answered)
        });
    }

    /// Wakes a caller after so long. The sleep ends with its caller.
    pub(super) fn sleep_for(&mut self, length: Duration, mut reply: oneshot::Sender<Result<()>>) {
        let sleep = self.parts.clock.sleep_until(self.now() + length);
        self.spawn(async move {
            select(sleep, pin!(reply.closed())).await;
            let _ = reply.send(Ok(()));
            Completion::Nothing
        });
    }

    /// Who holds the lock, and who held it last.
    pub(super) fn inspect(&mut self, key: Key, reply: oneshot::Sender<Result<Inspection>>) {
        let store = self.parts.store.describe();
        let lock = Arc::clone(&key.lock);
        let timeout = self.parts.command_timeout;
        let reader = Arc::clone(&self.parts.store);
        self.spawn(async move {
            let outcome = read(&reader, &key, timeout).await;
            let is_answered = is_answer(&outcome);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, Some(lock))));
            Completion::Asked(is_answered)
        });
    }

    /// Who holds which of those locks. It may take long, and ends with its caller.
    pub(super) fn list(
        &mut self,
        pattern: Arc<Pattern>,
        mut reply: oneshot::Sender<Result<Vec<LockInfo>>>,
    ) {
        let store = self.parts.store.describe();
        let timeout = self.parts.command_timeout;
        let reader = Arc::clone(&self.parts.store);
        self.spawn(async move {
            let listing = async {
                let list = || Arc::clone(&reader).list(Arc::clone(&pattern), timeout);
                match list().await {
                    Err(error) if error.worth_another => list().await,
                    outcome => outcome,
                }
            };
            let listed = match select(pin!(listing), pin!(reply.closed())).await {
                Either::Left((outcome, _)) => Some(outcome),
                Either::Right(_) => None,
            };
            let Some(outcome) = listed else {
                return Completion::Nothing;
            };
            let is_answered = is_answer(&outcome);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, None)));
            Completion::Asked(is_answered)
        });
    }

    /// What each server says to a command of a person's.
    pub(super) fn ask_each(
        &mut self,
        question: Question,
        reply: oneshot::Sender<Result<Vec<Said>>>,
    ) {
        let store = self.parts.store.describe();
        let asked = Arc::clone(&self.parts.store).ask_each(question, self.parts.command_timeout);
        self.spawn(async move {
            let outcome = asked.await;
            let is_answered = is_answer(&outcome);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, None)));
            Completion::Asked(is_answered)
        });
    }

    /// Has the keys of changed locks sent there. Keeps the engine alive no longer than others do.
    pub(super) fn hear(&mut self, pattern: Arc<Pattern>, heard: Sender<String>) {
        let store = Arc::clone(&self.parts.store);
        tokio::spawn(store.hear(pattern, heard, self.parts.command_timeout));
    }

    /// Takes a lock from its holder, if the last heartbeat is older than `stale` (always,
    /// if that is `None`), for the reason given. The holder finds out by its next heartbeat; if it is of this
    /// process, one leaves at once.
    pub(super) fn force(
        &mut self,
        key: Key,
        stale: Option<Duration>,
        reason: String,
        reply: oneshot::Sender<Result<bool>>,
    ) {
        let store = self.parts.store.describe();
        let lock = Arc::clone(&key.lock);
        let timeout = self.parts.command_timeout;
        let target = Arc::clone(&self.parts.store);
        let by = Arc::new(By {
            identity: Arc::clone(&self.parts.identity),
            reason,
        });
        self.spawn(async move {
            // Read the lock first, which may be repeated: the force-release itself may not,
            // or it could strike the next holder.
            let outcome = match read(&target, &key, timeout).await {
                Ok(Inspection { holder: None, .. }) => Ok(false),
                Ok(Inspection {
                    holder: Some(holder),
                    ..
                }) => {
                    let forced = target
                        .force_release(key, stale, Arc::clone(&by), timeout)
                        .await;
                    if matches!(forced, Ok(true)) {
                        tracing::warn!(
                            key = %shown(&lock), owner = %shown(holder.owner_id()), token = holder.fencing_token(),
                            reason = (!by.reason.is_empty()).then(|| field::display(shown(&by.reason))),
                            "released by force; it was {holder}"
                        );
                    }
                    forced
                }
                Err(error) => Err(error),
            };
            let forced = Arc::clone(&lock);
            let is_answered = is_answer(&outcome);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, Some(lock))));
            Completion::Forced(forced, is_answered)
        });
    }

    /// Asks the store whether the lock is still this owner's: by a heartbeat, which answers
    /// it and extends the lease in one.
    pub(super) fn verify(&mut self, lease: &Arc<Lease>, reply: oneshot::Sender<Result<bool>>) {
        let owner = lease.owner;
        match self.state(owner) {
            Some(EntryState::Holding(holding)) if holding.lease.is_valid() => {
                holding.asked.push(reply);
                if !holding.in_flight {
                    self.heartbeat(owner);
                    self.arm_holding(owner);
                }
            }
            _ => drop(reply.send(Ok(false))),
        }
    }
}

/// Reads a lock; once more if the connection had died meanwhile.
async fn read(store: &Arc<dyn Store>, key: &Key, timeout: Duration) -> StoreResult<Inspection> {
    match Arc::clone(store).inspect(key.clone(), timeout).await {
        Err(error) if error.worth_another => Arc::clone(store).inspect(key.clone(), timeout).await,
        outcome => outcome,
    }
}

//! What an operator asks: to open, to inspect, to verify, to release by force.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::Result;
use crate::key::Key;
use crate::store::{Inspection, Store, StoreResult};

use super::core::{Actor, Completion};
use super::lease::Lease;
use super::state::EntryState;

impl Actor {
    pub(super) fn open(&mut self, reply: oneshot::Sender<Result<()>>) {
        let opened = Arc::clone(&self.parts.store).open(self.parts.command_timeout);
        let store = self.parts.store.describe();
        self.spawn(async move {
            let outcome = opened.await.map_err(|error| error.into_error(store, None));
            let _ = reply.send(outcome);
            Completion::Nothing
        });
    }

    pub(super) fn inspect(&mut self, key: Key, reply: oneshot::Sender<Result<Inspection>>) {
        let store = self.parts.store.describe();
        let lock = Arc::clone(&key.lock);
        let timeout = self.parts.command_timeout;
        let reader = Arc::clone(&self.parts.store);
        self.spawn(async move {
            let outcome = read(&reader, &key, timeout).await;
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, Some(lock))));
            Completion::Nothing
        });
    }

    pub(super) fn force(
        &mut self,
        key: Key,
        stale: Option<Duration>,
        reply: oneshot::Sender<Result<bool>>,
    ) {
        let store = self.parts.store.describe();
        let lock = Arc::clone(&key.lock);
        let timeout = self.parts.command_timeout;
        let target = Arc::clone(&self.parts.store);
        self.spawn(async move {
            // A look first, which may be repeated: the blow itself may not, or it could
            // fall on the next holder.
            let outcome = match read(&target, &key, timeout).await {
                Ok(Inspection { holder: None, .. }) => Ok(false),
                Ok(Inspection {
                    holder: Some(holder),
                    ..
                }) => {
                    let forced = target.force_release(key, stale, timeout).await;
                    if matches!(forced, Ok(true)) {
                        tracing::warn!(
                            key = %lock, owner = %holder.owner_id(), token = holder.fencing_token(),
                            "released by force; it was {holder}"
                        );
                    }
                    forced
                }
                Err(error) => Err(error),
            };
            let forced = Arc::clone(&lock);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, Some(lock))));
            Completion::Forced(forced)
        });
    }

    /// Asks the store whether the lock is ours still, by a heartbeat.
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

/// Looks at a lock; once more where the connection had died meanwhile.
async fn read(store: &Arc<dyn Store>, key: &Key, timeout: Duration) -> StoreResult<Inspection> {
    match Arc::clone(store).inspect(key.clone(), timeout).await {
        Err(error) if error.worth_another => Arc::clone(store).inspect(key.clone(), timeout).await,
        outcome => outcome,
    }
}

//! Holdings: the heartbeat, and the loss that no answer is needed for (rule R4).

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Loss, Result};
use crate::store::{OwnerId, StoreResult};

use super::backoff;
use super::core::Actor;
use super::lease::{Lease, Validity};
use super::lease_time::{Sent, heartbeat_interval, valid_until};
use super::state::{EntryState, ReleasingEntry};

impl Actor {
    /// Its next heartbeat is due, or its lease has run out.
    pub(super) fn holding_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        if !holding.in_flight && now >= holding.due && holding.wants_heartbeat() {
            self.heartbeat(owner);
        }
        self.arm_holding(owner);
    }

    /// Sends a heartbeat now, or as soon as the one in flight is answered.
    pub(super) fn heartbeat(&mut self, owner: OwnerId) {
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        if holding.in_flight {
            holding.again = true;
            return;
        }
        holding.in_flight = true;
        holding.again = false;
        holding.asking.append(&mut holding.asked);
        self.queue_renewal(owner);
    }

    /// The holdings of one key in this process.
    pub(super) fn heartbeat_for(&mut self, key: &Arc<str>) {
        for owner in self.owners() {
            if let Some(EntryState::Holding(holding)) = self.state(owner)
                && holding.lease.key.lock == *key
            {
                self.heartbeat(owner);
            }
        }
    }

    /// Arms the timer: the next heartbeat or the lease's end, whichever comes first.
    /// Tells, once, when the lease is over.
    pub(super) fn arm_holding(&mut self, owner: OwnerId) {
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        let lease = &holding.lease;
        let validity = lease.validity();
        if validity == Validity::Over {
            if !holding.loss_logged {
                holding.loss_logged = true;
                if let Some(loss) = lease.loss().filter(|loss| *loss != Loss::Shutdown) {
                    tracing::warn!(
                        key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
                        held = ?lease.held_for(), "the lock is lost: {loss}"
                    );
                }
            }
            // It stays until its holder lets go: only then may it be cleaned up (R5).
            self.wake(owner, None);
            return;
        }
        let end = lease.valid_until();
        let next = if !holding.in_flight && holding.wants_heartbeat_if(validity) {
            holding.due.min(end)
        } else {
            end
        };
        self.wake(owner, Some(next));
    }

    pub(super) fn renewed(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<bool>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        holding.in_flight = false;
        let lease = Arc::clone(&holding.lease);
        let mut asking = std::mem::take(&mut holding.asking);
        let verdict = match outcome {
            Ok(true) => {
                if holding.failures > 0 {
                    tracing::info!(
                        key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
                        "the heartbeat is answered again; the lock was kept"
                    );
                }
                holding.failures = 0;
                holding.term = lease.ttl;
                holding.due = sent.at + backoff::jittered_interval(heartbeat_interval(lease.ttl));
                Ok(lease.extend(sent, valid_until(sent.at, lease.ttl)))
            }
            Ok(false) => {
                lease.lose(Loss::Taken);
                Ok(false)
            }
            Err(error) => {
                // One failure is no loss: tries go on until the lease's own deadline.
                if holding.failures == 0 && lease.is_valid() {
                    tracing::warn!(
                        key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
                        reason = %error.what, lease_ends_in = ?lease.remaining(),
                        "a heartbeat failed; trying on until the lease ends"
                    );
                }
                holding.due = if error.worth_another && holding.failures == 0 {
                    // A dead connection was found: whoever asks is answered by the next.
                    holding.asked.append(&mut asking);
                    now
                } else {
                    now + backoff::heartbeat_retry(holding.failures, holding.term)
                };
                holding.failures += 1;
                Err(error)
            }
        };
        for reply in asking {
            let answer = match &verdict {
                Ok(held) => Ok(*held),
                Err(_) if !lease.is_valid() => Ok(false),
                Err(error) => Err(error
                    .clone()
                    .into_error(Arc::clone(&store), Some(Arc::clone(&lease.key.lock)))),
            };
            // Whoever stopped asking does not mind.
            let _ = reply.send(answer);
        }
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        if holding.release.is_some() || !lease.is_valid() {
            // Nothing is left to ask about.
            for reply in holding.asked.drain(..) {
                let _ = reply.send(Ok(false));
            }
        }
        if let Some(reply) = holding.release.take() {
            let unknown = holding.unknown;
            self.end(owner, ReleasingEntry::held(lease, reply, now, unknown));
        } else if (holding.again || !holding.asked.is_empty()) && lease.is_valid() {
            self.heartbeat(owner);
            self.arm_holding(owner);
        } else if holding.due <= now {
            self.holding_due(owner, now);
        } else {
            self.arm_holding(owner);
        }
    }

    /// Its holder lets go.
    pub(super) fn release(
        &mut self,
        lease: &Arc<Lease>,
        reply: Option<oneshot::Sender<Result<()>>>,
    ) {
        lease.release();
        let owner = lease.owner;
        let now = self.now();
        match self.state(owner) {
            Some(EntryState::Holding(holding)) if holding.in_flight => {
                // A release never overtakes a heartbeat in flight. Of two (a shutdown may
                // be the second) the first one's caller is told.
                holding.release.get_or_insert(reply);
                self.wake(owner, None);
            }
            Some(EntryState::Holding(holding)) => {
                let unknown = holding.unknown;
                self.end(
                    owner,
                    ReleasingEntry::held(Arc::clone(lease), reply, now, unknown),
                );
            }
            _ => {
                // Ended already, by a shutdown.
                if let Some(reply) = reply {
                    let key = Arc::clone(&lease.key.lock);
                    let gone = lease.lost_error().unwrap_or(Error::NotHeld { key });
                    let _ = reply.send(Err(gone));
                }
            }
        }
    }
}

//! Holding: the heartbeat, the loss of a lease, and the holder's release.
//!
//! A holding sends a heartbeat each third of its ttl, so that two full attempts fit before
//! the lease ends. A 'yes' moves the end of the lease forward, judged from when the
//! heartbeat left (rule R1). A 'no' is a loss at once: the store has said that another
//! owner has the lock. An error is neither (rule R9): heartbeats go on, faster, until the
//! lease's own end, and at that moment the lock is lost with no answer from anyone (rule
//! R4). A lease that is over stays over, also if a 'yes' comes late. The holder is notified
//! in every case, and the entry stays until its holder lets go: only then may the lock be
//! given back (rule R5).
//!
//! A release never overtakes a heartbeat in flight. Were it to, the heartbeat could arrive
//! behind it; the store would answer 'no', which here would read as a loss.
//!
//! The dangers this file guards against: a holder that works on with a lock that is
//! another's, and a lock lost for one dropped packet.
//!
//! Nothing here talks to the store: a heartbeat is put into the outbox, and `send` sends
//! it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Loss, Result};
use crate::key::Key;
use crate::measures;
use crate::shown::millis;
use crate::store::{OwnerId, StoreResult};

use super::backoff;
use super::core::Actor;
use super::lease::Lease;
use super::lease_time::{Sent, heartbeat_interval, valid_until};
use super::state::{EntryState, ReleasingEntry};

impl Actor {
    /// The timer has fired: the next heartbeat is due, or the lease has run out.
    pub(super) fn holding_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        if !holding.in_flight && now >= holding.due && holding.wants_heartbeat(now) {
            self.heartbeat(owner);
        }
        self.arm_holding(owner);
    }

    /// Sends a heartbeat now, or as soon as the one in flight is answered. All callers of
    /// `verify` that have come until now are answered by it; one in flight would not do,
    /// for it left before they asked.
    pub(super) fn heartbeat(&mut self, owner: OwnerId) {
        let now = self.now();
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        if holding.in_flight {
            holding.again = true;
            return;
        }
        if !holding.lease.is_valid_at(now) {
            // Neither for an operator nor for a caller of `verify`: a heartbeat would lengthen, at
            // the store, the lease of a holder that has been told that it is over.
            for reply in holding.asking.drain(..).chain(holding.asked.drain(..)) {
                let _ = reply.send(Ok(false));
            }
            return;
        }
        holding.in_flight = true;
        holding.again = false;
        holding.asking.append(&mut holding.asked);
        self.queue_renewal(owner);
    }

    /// A heartbeat for each holding of `key` in this process.
    pub(super) fn heartbeat_for(&mut self, key: &Arc<str>) {
        for owner in self.owners() {
            if let Some(EntryState::Holding(holding)) = self.state(owner)
                && holding.lease.key.lock == *key
            {
                self.heartbeat(owner);
            }
        }
    }

    /// A heartbeat for each holding of such a lock: another server has come to serve it, and may not
    /// know of what was granted or renewed last (rule R4: its holder learns of it now, not a third
    /// of a ttl later).
    pub(super) fn heartbeat_where(&mut self, is_meant: &dyn Fn(&Key) -> bool) {
        for owner in self.owners() {
            if let Some(EntryState::Holding(holding)) = self.state(owner)
                && is_meant(&holding.lease.key)
            {
                self.heartbeat(owner);
                self.arm_holding(owner);
            }
        }
    }

    /// Arms the entry's timer: the next heartbeat or the lease's end, whichever comes
    /// first. Logs, once, that the lease is over. The end is armed even while a heartbeat
    /// is in flight: an answer that never comes must not delay the loss (rule R4).
    pub(super) fn arm_holding(&mut self, owner: OwnerId) {
        let now = self.now();
        let Some(row) = self.entries.get_mut(&owner) else {
            return;
        };
        let EntryState::Holding(holding) = &mut row.state else {
            return;
        };
        let lease = &holding.lease;
        if !lease.is_valid_at(now) {
            if !holding.loss_logged {
                holding.loss_logged = true;
                holding.measure_end();
                let lease = &holding.lease;
                if let Some(loss) = lease.loss().filter(|loss| *loss != Loss::Shutdown) {
                    tracing::warn!(
                        key = %lease.key, owner = %owner.simple(), token = lease.token,
                        held_ms = millis(lease.held_for()), "the lock is lost: {loss}"
                    );
                }
            }
            // It stays until its holder lets go: only then may it be cleaned up (R5).
            row.set_timer(&mut self.timers, owner, None);
            return;
        }
        let end = lease.valid_until();
        let next = if !holding.in_flight && holding.wants_heartbeat(now) {
            holding.due.min(end)
        } else {
            end
        };
        row.set_timer(&mut self.timers, owner, Some(next));
    }

    /// The store has answered a heartbeat that left at `sent`. What waited for that answer
    /// comes next, in this order: callers of `verify`, the release of a holder that let go
    /// meanwhile, another heartbeat.
    pub(super) fn renewed(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<bool>) {
        let now = self.now();
        let entry = self.entries.get_mut(&owner).map(|entry| &mut entry.state);
        let Some(EntryState::Holding(holding)) = entry else {
            return;
        };
        holding.in_flight = false;
        let lease = Arc::clone(&holding.lease);
        let mut asking = std::mem::take(&mut holding.asking);
        let verdict = match outcome {
            Ok(true) => {
                if holding.failures > 0 {
                    tracing::info!(
                        key = %lease.key, owner = %owner.simple(), token = lease.token,
                        "the heartbeat is answered again; the lock was kept"
                    );
                }
                holding.failures = 0;
                holding.term = lease.ttl;
                holding.due = sent.at + backoff::jittered_interval(heartbeat_interval(lease.ttl));
                Ok(lease.extend(now, sent, valid_until(sent.at, lease.ttl)))
            }
            Ok(false) => {
                lease.lose(Loss::Taken);
                Ok(false)
            }
            Err(error) => {
                // One failure is no loss: heartbeats go on until the lease's own end.
                measures::heartbeat_failed();
                if holding.failures == 0 && lease.is_valid() {
                    tracing::warn!(
                        key = %lease.key, owner = %owner.simple(), token = lease.token,
                        reason = %error.what, lease_ends_in_ms = millis(lease.remaining()),
                        "a heartbeat failed; trying on until the lease ends"
                    );
                }
                holding.due = if error.worth_another && holding.failures == 0 {
                    // A dead connection was found: callers of `verify` are answered by the
                    // next heartbeat.
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
                Err(error) => Err(error.clone().into_error(
                    self.parts.store.describe(),
                    Some(Arc::clone(&lease.key.lock)),
                )),
            };
            // A caller may have stopped waiting.
            let _ = reply.send(answer);
        }
        if holding.release.is_some() || !lease.is_valid_at(now) {
            // The lock is released or lost: there is nothing left to ask the store.
            for reply in holding.asked.drain(..) {
                let _ = reply.send(Ok(false));
            }
        }
        if let Some(reply) = holding.release.take() {
            let unknown = holding.unknown;
            self.end(owner, ReleasingEntry::held(lease, reply, now, unknown));
        } else if (holding.again || !holding.asked.is_empty()) && lease.is_valid_at(now) {
            self.heartbeat(owner);
            self.arm_holding(owner);
        } else {
            // One that is due already leaves in this round.
            self.arm_holding(owner);
        }
    }

    /// The holder lets go, or a shutdown does it for the holder. The lease ends here,
    /// before the request leaves: from now on it reads as over.
    pub(super) fn release(
        &mut self,
        lease: &Arc<Lease>,
        reply: Option<oneshot::Sender<Result<()>>>,
    ) {
        let owner = lease.owner;
        let now = self.now();
        lease.release(now);
        if let Some(EntryState::Holding(holding)) = self.state(owner) {
            holding.measure_end();
        }
        match self.state(owner) {
            Some(EntryState::Holding(holding)) if holding.in_flight => {
                // A release never overtakes a heartbeat in flight. If there are two
                // releases (a shutdown may be the second), the caller of the first is
                // answered.
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

//! Sending: what the outbox holds leaves for the store, in batches.
//!
//! A step puts an owner id into the outbox; the loop flushes it once all that was due has
//! been done, so that steps of one moment share a request. The request is built here, from
//! the entry as it is now. The moment is taken *before* the batch is handed to the store
//! (rule R1): a lease that were judged from later would outlast the store's.
//!
//! Heartbeats are coalesced on top of that: where one leaves, those that are due soon leave
//! with it. Locks that were taken one by one come to share a few requests, which keeps the
//! store's load flat. They never leave late for it, only early.
//!
//! Nothing here decides whether a step is due, nor what its answer means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::protocol::Outcome;
use crate::store::{OwnerId, Release, Renew};

use super::core::{Actor, Completion, Outbox, Parts};
use super::lease_time::{Sent, heartbeat_timeout, margin};
use super::state::EntryState;

/// By how much a heartbeat may leave early at most, to travel with others.
const EARLIEST: Duration = Duration::from_secs(2);

impl Actor {
    /// Adds the heartbeats that are due soon to those that leave now.
    pub(super) fn coalesce(&mut self, now: Moment) {
        if self.outbox.renewals.is_empty() {
            return;
        }
        let leaving = std::mem::take(&mut self.outbox.renewals);
        let earliness = leaving.iter().filter_map(|owner| match self.state(*owner) {
            Some(EntryState::Holding(holding)) => Some(holding.earliness()),
            _ => None,
        });
        let earliness = earliness.max().unwrap_or_default().min(EARLIEST);
        self.outbox.renewals = leaving;
        let soon: Vec<OwnerId> = self
            .timers
            .range(..=(now + earliness, OwnerId::max()))
            .map(|(_, owner)| *owner)
            .collect();
        for owner in soon {
            if let Some(EntryState::Holding(holding)) = self.state(owner)
                && holding.may_leave_at(now)
            {
                self.heartbeat(owner);
                self.arm_holding(owner);
            }
        }
    }

    /// Sends what is in the outbox. `true`: something left.
    pub(super) fn flush(&mut self) -> bool {
        let outbox = std::mem::take(&mut self.outbox);
        let Outbox {
            acquires,
            renewals,
            releases,
        } = outbox;
        let any = !(acquires.is_empty() && renewals.is_empty() && releases.is_empty());
        if !acquires.is_empty() {
            self.send_acquires(acquires);
        }
        if !renewals.is_empty() {
            self.send_renewals(renewals);
        }
        if !releases.is_empty() {
            self.send_releases(releases);
        }
        any
    }

    /// The acquires of this moment, of waiters and of callers that do not wait. They leave
    /// in the order of the outbox, so waiters are queued in the order of their arrival.
    fn send_acquires(&mut self, owners: Vec<OwnerId>) {
        // The lease is judged from here: before the request leaves (rule R1).
        let sent = Sent::now(&*self.parts.clock);
        let mut batches = Batches::new();
        let mut timeout = Duration::ZERO;
        for owner in owners {
            let entry = self.entries.get(&owner).map(|entry| &entry.state);
            if let Some(EntryState::Acquiring(acquiring)) = entry {
                let ttl = acquiring.request.ttl;
                // An answer that comes after the lease's end is of no use.
                timeout = timeout.max(ttl - margin(ttl));
                let place = self.parts.store.place(&acquiring.request.key);
                batches.add(place, owner, acquiring.store_request(&self.notifications));
            }
        }
        let timeout = timeout.min(self.parts.command_timeout);
        for (asked, batch) in batches.all() {
            let answer = Arc::clone(&self.parts.store).acquire(batch, timeout);
            self.spawn(async move { Completion::Acquired(asked, sent, answer.await) });
        }
    }

    /// The heartbeats of this moment.
    fn send_renewals(&mut self, owners: Vec<OwnerId>) {
        let sent = Sent::now(&*self.parts.clock);
        // One batch for each time-out: a short lease must not wait as long for its answer
        // as a long one, nor a long one give up as early.
        let mut batches = Batches::new();
        let Parts {
            store,
            command_timeout,
            ..
        } = &*Arc::clone(&self.parts);
        for owner in owners {
            if let Some(EntryState::Holding(holding)) = self.state(owner) {
                let lease = &holding.lease;
                let timeout = heartbeat_timeout(holding.term, *command_timeout);
                let renew = Renew {
                    key: lease.key.clone(),
                    owner,
                    token: lease.token,
                    ttl: lease.ttl,
                    remember: lease.remember,
                };
                batches.add((timeout, store.place(&lease.key)), owner, renew);
            }
        }
        for ((timeout, _), (asked, batch)) in batches.0 {
            let answer = Arc::clone(&self.parts.store).renew(batch, timeout);
            self.spawn(async move { Completion::Renewed(asked, sent, answer.await) });
        }
    }

    /// The releases of this moment. One with no lease is of an orphan, or of a place in the
    /// queue.
    fn send_releases(&mut self, owners: Vec<OwnerId>) {
        let sent = Sent::now(&*self.parts.clock);
        let mut batches = Batches::new();
        let parts = Arc::clone(&self.parts);
        for owner in owners {
            if let Some(EntryState::Releasing(releasing)) = self.state(owner) {
                let release = Release {
                    key: releasing.key.clone(),
                    owner,
                    token: releasing.lease.as_ref().map(|lease| lease.token),
                    remember: releasing.remember,
                    outcome: match &releasing.lease {
                        Some(lease) => lease.outcome(),
                        // Granted to a caller that has gone: no code ran under it.
                        None => Outcome::Unused,
                    },
                    keep: releasing.lease.as_ref().and_then(|lease| lease.keep()),
                };
                batches.add(parts.store.place(&releasing.key), owner, release);
            }
        }
        for (asked, batch) in batches.all() {
            let answer = Arc::clone(&parts.store).release(batch, parts.command_timeout);
            self.spawn(async move { Completion::Released(asked, sent, answer.await) });
        }
    }
}

/// Requests of one moment, and whose they are, apart where they must not wait for one another: a
/// node of a cluster that is frozen must not keep the answers of the others back.
struct Batches<K, Q>(BTreeMap<K, (Vec<OwnerId>, Vec<Q>)>);

impl<K: Ord, Q> Batches<K, Q> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, apart: K, owner: OwnerId, request: Q) {
        let (owners, batch) = self.0.entry(apart).or_default();
        owners.push(owner);
        batch.push(request);
    }

    fn all(self) -> impl Iterator<Item = (Vec<OwnerId>, Vec<Q>)> {
        self.0.into_values()
    }
}

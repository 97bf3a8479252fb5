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

use super::core::{Actor, InFlight};
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
        let mut any = false;
        if !self.outbox.acquires.is_empty() {
            let owners = std::mem::take(&mut self.outbox.acquires);
            self.send_acquires(owners);
            any = true;
        }
        if !self.outbox.renewals.is_empty() {
            let owners = std::mem::take(&mut self.outbox.renewals);
            self.send_renewals(owners);
            any = true;
        }
        if !self.outbox.releases.is_empty() {
            let owners = std::mem::take(&mut self.outbox.releases);
            self.send_releases(owners);
            any = true;
        }
        any
    }

    /// The acquires of this moment, of waiters and of callers that do not wait. They leave
    /// in the order of the outbox, so waiters are queued in the order of their arrival.
    fn send_acquires(&mut self, mut owners: Vec<OwnerId>) {
        // The lease is judged from here: before the request leaves (rule R1).
        let sent = Sent::at(self.now(), &*self.parts.clock);
        let mut batch = Vec::with_capacity(owners.len());
        let mut timeout = Duration::ZERO;
        // An entry may have gone since.
        owners.retain(|owner| {
            let entry = self.entries.get(owner).map(|entry| &entry.state);
            let Some(EntryState::Acquiring(acquiring)) = entry else {
                return false;
            };
            let ttl = acquiring.request.ttl;
            // An answer that comes after the lease's end is of no use.
            timeout = timeout.max(ttl - margin(ttl));
            batch.push(acquiring.store_request(&self.notifications));
            true
        });
        let timeout = timeout.min(self.parts.command_timeout);
        let parts = Arc::clone(&self.parts);
        for (owners, batch) in apart(owners, batch, |it| parts.store.place(&it.key)) {
            let answer = Arc::clone(&parts.store).acquire(batch, timeout);
            self.start(InFlight::Acquire(owners, sent, answer));
        }
    }

    /// The heartbeats of this moment.
    fn send_renewals(&mut self, owners: Vec<OwnerId>) {
        let sent = Sent::at(self.now(), &*self.parts.clock);
        // One batch for each time-out: a short lease must not wait as long for its answer
        // as a long one, nor a long one give up as early.
        let mut batches: BTreeMap<(Duration, u64), (Vec<OwnerId>, Vec<Renew>)> = BTreeMap::new();
        let parts = Arc::clone(&self.parts);
        // Most often one batch has them all.
        let count = owners.len();
        for owner in owners {
            if let Some(EntryState::Holding(holding)) = self.state(owner) {
                let lease = &holding.lease;
                let timeout = heartbeat_timeout(holding.term, parts.command_timeout);
                let (asked, batch) = batches
                    .entry((timeout, parts.store.place(&lease.key)))
                    .or_insert_with(|| (Vec::with_capacity(count), Vec::with_capacity(count)));
                batch.push(Renew {
                    key: lease.key.clone(),
                    owner,
                    token: lease.token,
                    ttl: lease.ttl,
                    remember: lease.remember,
                });
                asked.push(owner);
            }
        }
        for ((timeout, _), (asked, batch)) in batches {
            let answer = Arc::clone(&self.parts.store).renew(batch, timeout);
            self.start(InFlight::Renew(asked, sent, answer));
        }
    }

    /// The releases of this moment. One with no lease is of an orphan, or of a place in the
    /// queue.
    fn send_releases(&mut self, mut owners: Vec<OwnerId>) {
        let sent = Sent::at(self.now(), &*self.parts.clock);
        let mut batch = Vec::with_capacity(owners.len());
        owners.retain(|owner| {
            let entry = self.entries.get(owner).map(|entry| &entry.state);
            let Some(EntryState::Releasing(releasing)) = entry else {
                return false;
            };
            batch.push(Release {
                key: releasing.key.clone(),
                owner: *owner,
                token: releasing.lease.as_ref().map(|lease| lease.token),
                remember: releasing.remember,
                outcome: match &releasing.lease {
                    Some(lease) => lease.outcome(),
                    // Granted to a caller that has gone: no code ran under it.
                    None => Outcome::Unused,
                },
                keep: releasing.lease.as_ref().and_then(|lease| lease.keep()),
            });
            true
        });
        let parts = Arc::clone(&self.parts);
        for (owners, batch) in apart(owners, batch, |it| parts.store.place(&it.key)) {
            let answer = Arc::clone(&parts.store).release(batch, parts.command_timeout);
            self.start(InFlight::Release(owners, sent, answer));
        }
    }
}

/// Requests of one moment, and whose they are, apart by the places of their locks, for answers of
/// one batch wait for one another: a node of a cluster that is frozen must not keep those of the
/// others back. Most often there is one place.
fn apart<Q>(
    owners: Vec<OwnerId>,
    batch: Vec<Q>,
    place: impl Fn(&Q) -> u64,
) -> impl Iterator<Item = (Vec<OwnerId>, Vec<Q>)> {
    let first = batch.first().map(&place);
    let mut several: BTreeMap<u64, (Vec<OwnerId>, Vec<Q>)> = BTreeMap::new();
    let one = if batch.iter().all(|it| Some(place(it)) == first) {
        Some((owners, batch))
    } else {
        for (owner, request) in owners.into_iter().zip(batch) {
            let (owners, batch) = several.entry(place(&request)).or_default();
            owners.push(owner);
            batch.push(request);
        }
        None
    };
    one.into_iter().chain(several.into_values())
}

//! The waiters of this process, lock by lock, in the order of their arrival.
//!
//! The order among processes is the store's (its wait queue), and a store that can notify
//! sends each grant to its waiter. A notification is only ever a hint: it may be lost, and
//! some stores send none. So one waiter of each lock, the first to arrive, polls the store
//! for all of them; were all of them to poll, a thousand waiters would be a thousand
//! requests a second. When the first leaves, the next one polls in its place: a lock with
//! waiters always has one that polls, so no lost notification can stall it for long.
//!
//! No I/O, no clock and no timer here: only who polls, and when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::clock::Moment;
use crate::store::OwnerId;

/// The waiters of one engine.
#[derive(Default)]
pub(super) struct Waiters {
    by_key: HashMap<Arc<str>, KeyWaiters>,
    /// How many have arrived so far: the number of the latest arrival.
    arrivals: u64,
}

/// The waiters of one lock.
#[derive(Default)]
struct KeyWaiters {
    by_arrival: BTreeMap<u64, OwnerId>,
    /// When the first one polls next. `None` while its request is in flight.
    next_poll: Option<Moment>,
    /// The store does not push grants of this lock: only polling finds one.
    needs_polling: bool,
}

impl Waiters {
    /// Adds a waiter behind all others of its lock, and returns its arrival number.
    pub(super) fn enter(&mut self, key: &Arc<str>, owner: OwnerId) -> u64 {
        self.arrivals += 1;
        let waiters = self.by_key.entry(Arc::clone(key)).or_default();
        waiters.by_arrival.insert(self.arrivals, owner);
        self.arrivals
    }

    /// Removes a waiter. If it was the first, the next one polls at `poll_at`; that one
    /// is returned, for its timer has to be armed anew.
    pub(super) fn leave(
        &mut self,
        key: &Arc<str>,
        arrival: u64,
        poll_at: Moment,
    ) -> Option<OwnerId> {
        let waiters = self.by_key.get_mut(key)?;
        let was_first = waiters.is_first(arrival);
        waiters.by_arrival.remove(&arrival);
        match waiters.by_arrival.first_key_value() {
            None => {
                self.by_key.remove(key);
                None
            }
            Some((_, next)) => was_first.then(|| {
                waiters.next_poll = Some(poll_at);
                *next
            }),
        }
    }

    /// Whether it is the first waiter of its lock here: the one that polls.
    pub(super) fn is_first(&self, key: &Arc<str>, arrival: u64) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|waiters| waiters.is_first(arrival))
    }

    /// When this waiter is to poll, if it is the first.
    pub(super) fn next_poll(&self, key: &Arc<str>, arrival: u64) -> Option<Moment> {
        let waiters = self.by_key.get(key)?;
        waiters.next_poll.filter(|_| waiters.is_first(arrival))
    }

    /// Sets when the first waiter polls. Does nothing for a waiter that is not the first.
    pub(super) fn set_next_poll(&mut self, key: &Arc<str>, arrival: u64, at: Option<Moment>) {
        if let Some(waiters) = self.by_key.get_mut(key)
            && waiters.is_first(arrival)
        {
            waiters.next_poll = at;
        }
    }

    /// Notes whether the store notifies waiters of this lock of their grants.
    pub(super) fn set_notified(&mut self, key: &Arc<str>, is_notified: bool) {
        if let Some(waiters) = self.by_key.get_mut(key) {
            waiters.needs_polling = !is_notified;
        }
    }

    /// Whether the lock has waiters here that the store does not notify.
    pub(super) fn needs_polling(&self, key: &Arc<str>) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|waiters| waiters.needs_polling)
    }

    /// Lets the first waiter of a lock poll at `at`, and returns it.
    pub(super) fn poll_at(&mut self, key: &Arc<str>, at: Moment) -> Option<OwnerId> {
        let waiters = self.by_key.get_mut(key)?;
        waiters.next_poll = Some(at);
        waiters
            .by_arrival
            .first_key_value()
            .map(|(_, first)| *first)
    }

    /// The waiters of a lock, in the order of their arrival.
    pub(super) fn of(&self, key: &Arc<str>) -> Vec<OwnerId> {
        self.by_key
            .get(key)
            .map(|waiters| waiters.by_arrival.values().copied().collect())
            .unwrap_or_default()
    }

    /// The locks that have waiters here.
    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        self.by_key.keys().cloned().collect()
    }
}

impl KeyWaiters {
    fn is_first(&self, arrival: u64) -> bool {
        self.by_arrival
            .first_key_value()
            .is_some_and(|(first, _)| *first == arrival)
    }
}

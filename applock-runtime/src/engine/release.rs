//! Releasing: a release is repeated until the store has answered, or the ttl has freed the
//! lock.
//!
//! A releasing entry is one of three things. *A held lock* that its holder lets go: the
//! caller gets the first answer, good or bad, and after an error the engine goes on trying
//! without it, because the next waiter should not have to wait for the ttl. *A place in the
//! wait queue* of a waiter that has given up: one answer ends it; if the waiter was granted
//! the lock meanwhile, the store hands that on. *An orphan*: an acquire of unknown outcome
//! (rule R6). The lock may be held for a caller that is gone, or may come to be held by a
//! request that is still on its way, so an orphan is released for [`ORPHAN_WATCH`] also if
//! the store has nothing to release yet.
//!
//! A held lock may become an orphan: if an earlier try of its acquire may still arrive, it
//! could take the lock anew after the release. The holder is answered, and the entry
//! watches on.
//!
//! A release that was answered may be lost all the same, with the server that has answered it. So
//! it is remembered for a while, and sent again where another server comes to serve the lock.
//!
//! The dangers this file guards against: a lock that stays taken, with no holder, until its ttl
//! ends; and a holder that is answered 'not held' only because the answer to its first try was
//! lost.
//!
//! Nothing here ends a lease: it is over before an entry gets here (see `hold`).

use std::sync::Arc;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::shown::{millis, shown};
use crate::store::{OwnerId, Released, StoreErrorKind, StoreResult};

use super::backoff;
use super::core::Actor;
use super::lease_time::Sent;
use super::state::{EntryState, ORPHAN_WATCH};

impl Actor {
    /// The timer has fired: the next try is due, or there is nothing left to try for.
    pub(super) fn releasing_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        if releasing.in_flight {
            return;
        }
        if releasing.watch.is_some_and(|watch| now >= watch) {
            self.retire(owner);
        } else if now >= releasing.until {
            tracing::debug!(
                key = %releasing.key, owner = %owner.simple(),
                "a release was given up: the ttl has freed the lock"
            );
            self.finish(owner, Ok(()));
        } else {
            releasing.in_flight = true;
            self.queue_release(owner);
        }
    }

    /// The store has answered a release that left at `sent`. The answer may also name the
    /// waiter of this process that has the lock next.
    pub(super) fn released(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<Released>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let outcome = match outcome {
            Ok(Released { ended, next }) => {
                if let Some(grant) = next
                    && let Some(EntryState::Releasing(releasing)) = self.state(owner)
                {
                    let key = releasing.key.clone();
                    self.handed_over(&key, grant, sent);
                }
                Ok(ended)
            }
            Err(error) => Err(error),
        };
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        releasing.in_flight = false;
        if !std::mem::take(&mut releasing.left_before) && outcome.is_ok() {
            releasing.has_moved = false;
        }
        let key = Arc::clone(&releasing.key.lock);
        let unheard = outcome.is_err() || releasing.unknown;
        if unheard || self.waiters.needs_polling(&key) {
            // A waiter of this process may have the lock now, and would not be notified: it
            // polls.
            self.poll_for(&key);
        }
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        match outcome {
            Ok(ended) if releasing.any_answer_ends_it && !releasing.unknown => {
                if ended && releasing.was_answered {
                    tracing::debug!(
                        key = %shown(&key), owner = %owner.simple(),
                        "released once more: the server that serves now did not know of it"
                    );
                }
                self.retire(owner);
            }
            // Orphan: the store had something to release, or has nothing to release yet.
            // Keep releasing until no earlier acquire can arrive.
            Ok(_) if releasing.lease.is_none() => {
                let pause = backoff::watch(releasing.failures);
                releasing.failures += 1;
                // What is known to be held is released: no thread waits for the rest.
                self.left.remove(&owner);
                let watch = self.watch(owner, now + ORPHAN_WATCH);
                self.wake(owner, Some(watch.min(now + pause)));
            }
            Ok(true) => {
                if let Some(lease) = &releasing.lease {
                    tracing::debug!(
                        key = %shown(&key), owner = %owner.simple(), token = lease.token,
                        held_ms = millis(lease.held_for()), "released"
                    );
                }
                self.finish(owner, Ok(()));
            }
            // An earlier try was carried out, and its answer was lost: that one was the
            // 'yes'.
            Ok(false) if releasing.unknown => self.finish(owner, Ok(())),
            Ok(false) => self.finish(owner, Err(Error::NotHeld { key })),
            Err(error) => {
                releasing.unknown |= error.kind == StoreErrorKind::Unknown;
                let again = error.worth_another && releasing.failures == 0;
                releasing.failures += 1;
                if again {
                    releasing.in_flight = true;
                    self.queue_release(owner);
                    return;
                }
                let passing = error.is_passing();
                // One that was answered is most likely known to all servers.
                if releasing.failures <= 2 && !releasing.was_answered {
                    tracing::warn!(
                        key = %shown(&key), owner = %owner.simple(),
                        token = releasing.lease.as_ref().map(|lease| lease.token),
                        reason = %error.what,
                        "a release failed; if no later try succeeds, the ttl frees the lock"
                    );
                }
                let failure = error.into_error(store, Some(key));
                if passing {
                    let (pause, until) = (backoff::retry(releasing.failures), releasing.end());
                    releasing.answer(Err(failure));
                    self.try_again(owner, now + pause, until);
                } else {
                    self.finish(owner, Err(failure));
                }
            }
        }
    }

    /// Another server has come to serve such locks, and may lack what was written last: releases
    /// that were answered lately leave once more, and none of the others ends before it is answered
    /// from there.
    /// After the polls of waiters, so that it knows whom to hand a lock to.
    pub(super) fn release_where(&mut self, is_meant: &dyn Fn(&Key) -> bool) {
        let now = self.now();
        for entry in self.entries.values_mut() {
            if let EntryState::Releasing(releasing) = &mut entry.state
                && is_meant(&releasing.key)
            {
                releasing.has_moved = true;
                releasing.left_before = releasing.in_flight;
            }
        }
        for (owner, answered) in self.remembered.take(is_meant, now) {
            // A late grant to it may be given back at this moment.
            if !self.entries.contains_key(&owner) {
                self.release_again(owner, *answered);
            }
        }
    }

    /// Releases it again and again until `end`, or until what was set before: a request that is
    /// late may take the lock.
    fn watch(&mut self, owner: OwnerId, end: Moment) -> Moment {
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return end;
        };
        let is_new = releasing.watch.is_none();
        let watch = *releasing.watch.get_or_insert(end);
        self.watching += usize::from(is_new);
        watch
    }

    /// Another try of a release that nobody waits for, by a store that has failed. One at a time
    /// tries on, for all: thousands may have been left behind by callers that tried in vain, and
    /// each would be a request twice a second. The others wait for the store's next answer.
    fn try_again(&mut self, owner: OwnerId, at: Moment, until: Moment) {
        let probe = self.probe.filter(|probe| self.entries.contains_key(probe));
        if probe.is_none_or(|probe| probe == owner) {
            self.probe = Some(owner);
            self.wake(owner, Some(until.min(at)));
        } else {
            self.parked.push(owner);
            self.wake(owner, Some(until));
        }
    }

    /// The store has answered something: the releases that waited for that leave now.
    pub(super) fn unpark(&mut self) {
        self.probe = None;
        for owner in std::mem::take(&mut self.parked) {
            if let Some(EntryState::Releasing(releasing)) = self.state(owner)
                && !releasing.in_flight
            {
                releasing.in_flight = true;
                self.queue_release(owner);
            }
        }
    }

    /// The one that tried for the others has come to its end: the next one tries.
    pub(super) fn next_probe(&mut self) {
        let now = self.now();
        self.probe = None;
        while let Some(owner) = self.parked.pop() {
            if let Some(EntryState::Releasing(releasing)) = self.state(owner) {
                let until = releasing.end();
                self.try_again(owner, now, until);
                return;
            }
        }
    }

    /// Answers the caller. The entry goes, unless an earlier try of its acquire may still
    /// arrive.
    fn finish(&mut self, owner: OwnerId, outcome: Result<()>) {
        let now = self.now();
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        releasing.answer(outcome);
        match releasing.late_acquire_until.take().filter(|end| *end > now) {
            // Released; but an earlier try of its acquire may take the lock anew: it is an
            // orphan now.
            Some(end) => {
                releasing.lease = None;
                releasing.until = releasing.until.max(end);
                releasing.failures = 0;
                self.left.remove(&owner);
                self.watch(owner, end);
                self.wake(owner, Some(end.min(now + backoff::watch(0))));
            }
            None => self.retire(owner),
        }
    }
}

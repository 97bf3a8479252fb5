//! Endings: releases, repeated until the store has answered or the ttl has done it.
//!
//! Also the clean-up after an acquire whose outcome nobody knows (rule R6): the lock
//! may have been taken, or may be taken still by a command that is on its way.

use std::sync::Arc;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::store::{OwnerId, Released, StoreErrorKind, StoreResult};

use super::backoff;
use super::core::Actor;
use super::lease_time::Sent;
use super::state::{EntryState, ORPHAN_WATCH};

impl Actor {
    /// Its next try has come.
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
                key = %releasing.key.lock, owner = %owner.simple(),
                "a release was given up: the ttl has freed the lock"
            );
            self.finish(owner, Ok(()));
        } else {
            releasing.in_flight = true;
            self.queue_release(owner);
        }
    }

    pub(super) fn released(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<Released>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let outcome = match outcome {
            Ok(Released { ended, next }) => {
                if let Some(grant) = next {
                    self.handed_over(grant, sent);
                }
                Ok(ended)
            }
            Err(error) => Err(error),
        };
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        releasing.in_flight = false;
        let key = Arc::clone(&releasing.key.lock);
        let unheard = outcome.is_err() || releasing.unknown;
        if unheard || self.waiters.needs_polling(&key) {
            // One of us may be the next, and would not hear of it.
            self.poll_for(&key);
        }
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        match outcome {
            Ok(_) if releasing.is_queue_place && !releasing.unknown => self.retire(owner),
            // An orphan: gone, or not there, or not there yet; and of several tries another
            // may come.
            Ok(_) if releasing.lease.is_none() => {
                let watch = *releasing.watch.get_or_insert(now + ORPHAN_WATCH);
                let pause = backoff::retry(releasing.failures);
                releasing.failures += 1;
                self.wake(owner, Some(watch.min(now + pause)));
            }
            Ok(true) => {
                if let Some(lease) = &releasing.lease {
                    tracing::debug!(
                        key = %key, owner = %owner.simple(), token = lease.token,
                        held = ?lease.held_for(), "released"
                    );
                }
                self.finish(owner, Ok(()));
            }
            // The first answer was lost, and it was the one that said yes.
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
                if releasing.failures <= 2 {
                    tracing::warn!(
                        key = %key, owner = %owner.simple(),
                        token = releasing.lease.as_ref().map(|lease| lease.token),
                        reason = %error.what,
                        "a release failed; if no later try succeeds, the ttl frees the lock"
                    );
                }
                let failure = error.into_error(store, Some(key));
                if passing {
                    let pause = backoff::retry(releasing.failures);
                    releasing.answer(Err(failure));
                    let next = releasing.until.min(now + pause);
                    self.wake(owner, Some(next));
                } else {
                    self.finish(owner, Err(failure));
                }
            }
        }
    }

    fn finish(&mut self, owner: OwnerId, outcome: Result<()>) {
        let now = self.now();
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        releasing.answer(outcome);
        let Some(EntryState::Releasing(releasing)) = self.state(owner) else {
            return;
        };
        match releasing.late_acquire_until.take().filter(|end| *end > now) {
            // Released; but an earlier try of its acquire may take it once more.
            Some(end) => {
                releasing.lease = None;
                releasing.watch = Some(end);
                releasing.until = end;
                releasing.failures = 0;
                self.wake(owner, Some(end.min(now + backoff::retry(0))));
            }
            None => self.retire(owner),
        }
    }
}

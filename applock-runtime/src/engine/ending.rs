//! Endings: releases, repeated until the store has answered or the ttl has done it.
//!
//! Also the clean-up after an acquire whose outcome nobody knows (rule R6): the lock
//! may have been taken, or may be taken still by a command that is on its way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::store::{Acquire, Outcome, OwnerId, StoreErrorKind};

use super::actor::{Actor, State};
use super::lease::Lease;
use super::pace;

/// How long a command may come to life after its connection was given up: a release
/// that found nothing is repeated until then.
const GHOST_WATCH: Duration = Duration::from_secs(2);

/// A holding, or the ghost of one, on its way out.
pub(super) struct Ending {
    pub(super) key: Key,
    /// `None` for a ghost.
    pub(super) lease: Option<Arc<Lease>>,
    reply: Option<oneshot::Sender<Result<()>>>,
    /// What its holder is told rather than 'released'.
    lost: Option<Error>,
    in_flight: bool,
    failures: u32,
    /// A release of it may have been carried out unheard.
    unknown: bool,
    /// By then the ttl has freed it.
    until: Moment,
    /// A ghost that was not there is looked for until then.
    watch: Option<Moment>,
}

impl Ending {
    /// Of a lock that its holder lets go.
    pub(super) fn of(
        lease: Arc<Lease>,
        reply: Option<oneshot::Sender<Result<()>>>,
        now: Moment,
    ) -> Self {
        Self {
            key: lease.key.clone(),
            lost: lease.lost_error(),
            until: now + lease.ttl,
            lease: Some(lease),
            reply,
            in_flight: true,
            failures: 0,
            unknown: false,
            watch: None,
        }
    }

    /// Of an acquire that may have been carried out unheard.
    pub(super) fn ghost(acquire: &Acquire, now: Moment) -> Self {
        Self {
            key: acquire.key.clone(),
            lease: None,
            reply: None,
            lost: None,
            in_flight: true,
            failures: 0,
            unknown: false,
            until: now + acquire.ttl + GHOST_WATCH,
            watch: None,
        }
    }

    fn tell(&mut self, outcome: Result<()>) {
        if let Some(reply) = self.reply.take() {
            let outcome = match self.lost.take() {
                Some(lost) => Err(lost),
                None => outcome,
            };
            // Whoever stopped waiting does not mind.
            let _ = reply.send(outcome);
        }
    }
}

impl Actor {
    pub(super) fn end(&mut self, owner: OwnerId, ending: Ending) {
        self.put(owner, State::Ending(ending));
        self.queue_release(owner);
    }

    /// Its next try has come.
    pub(super) fn ending_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(State::Ending(ending)) = self.state(owner) else {
            return;
        };
        if ending.in_flight {
            return;
        }
        if now >= ending.until {
            tracing::debug!(key = %ending.key.lock, "a release was given up: the ttl has freed the lock");
            self.finish(owner, Ok(()));
        } else {
            ending.in_flight = true;
            self.queue_release(owner);
        }
    }

    pub(super) fn released(&mut self, owner: OwnerId, outcome: Outcome<bool>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let Some(State::Ending(ending)) = self.state(owner) else {
            return;
        };
        ending.in_flight = false;
        let key = Arc::clone(&ending.key.lock);
        match outcome {
            Ok(true) => {
                match &ending.lease {
                    Some(lease) => tracing::debug!(
                        key = %key, owner = %owner.simple(), token = lease.token,
                        held = ?lease.held_for(), "released"
                    ),
                    None => tracing::debug!(
                        key = %key, owner = %owner.simple(),
                        "released what an acquire without an answer had taken"
                    ),
                }
                self.finish(owner, Ok(()));
            }
            Ok(false) if ending.lease.is_none() => {
                // Not there, or not there yet.
                let watch = *ending.watch.get_or_insert(now + GHOST_WATCH);
                if now >= watch {
                    self.finish(owner, Ok(()));
                } else {
                    let pause = pace::retry(ending.failures);
                    ending.failures += 1;
                    self.wake(owner, Some(watch.min(now + pause)));
                }
            }
            // The first answer was lost, and it was the one that said yes.
            Ok(false) if ending.unknown => self.finish(owner, Ok(())),
            Ok(false) => self.finish(owner, Err(Error::NotHeld { key })),
            Err(error) => {
                ending.unknown |= error.kind == StoreErrorKind::Unknown;
                let again = error.worth_another && ending.failures == 0;
                ending.failures += 1;
                if again {
                    ending.in_flight = true;
                    self.queue_release(owner);
                    return;
                }
                let passing = error.is_passing();
                if ending.failures <= 2 {
                    tracing::warn!(
                        key = %key, owner = %owner.simple(), reason = %error.what,
                        "a release failed; if no later try succeeds, the ttl frees the lock"
                    );
                }
                let told = error.into_error(store, Some(key));
                if passing {
                    let pause = pace::retry(ending.failures);
                    ending.tell(Err(told));
                    let next = ending.until.min(now + pause);
                    self.wake(owner, Some(next));
                } else {
                    self.finish(owner, Err(told));
                }
            }
        }
    }

    fn finish(&mut self, owner: OwnerId, outcome: Result<()>) {
        if let Some(State::Ending(mut ending)) = self.remove(owner) {
            ending.tell(outcome);
            if ending.lease.is_some() {
                self.unfinished.done();
            }
        }
    }
}

//! Shutdown: holders are notified, then their locks are released, then the callers are
//! answered.
//!
//! The time given is split in two. At once, waiting acquires are refused and holders are
//! notified of the loss, so that their bodies can stop. At half of the time, what is still
//! held is released for them. At the end the callers get 'done', or how many locks are left
//! to their ttl. Orphans that are only watched are not waited for: nothing is known to be
//! held.
//!
//! The dangers: a shutdown that hangs because a body does not stop or the store does not
//! answer, and one that gives a lock away under a body that had no chance to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Loss, Result};
use crate::store::{StoreError, StoreErrorKind};

use super::core::{Actor, Closing};
use super::state::EntryState;

impl Actor {
    /// Begins a shutdown, or joins the one under way. No acquire is accepted from now on,
    /// the waiting ones are refused, and each holder is notified; the entries stay, for
    /// their releases.
    pub(super) fn shutdown(&mut self, within: Duration, reply: oneshot::Sender<Result<()>>) {
        let now = self.now();
        if let Some(closing) = &mut self.closing {
            // The more hurried of two counts; one that was answered already does not.
            if closing.replies.is_empty() {
                closing.deadline = now + within;
            }
            closing.deadline = closing.deadline.min(now + within);
            closing.grace = closing.grace.min(now + within / 2);
            closing.replies.push(reply);
            return;
        }
        self.closing = Some(Closing {
            grace: now + within / 2,
            deadline: now + within,
            has_released: false,
            replies: vec![reply],
        });
        for owner in self.owners() {
            match self.state(owner) {
                Some(EntryState::Acquiring(acquiring)) => {
                    let key = Arc::clone(&acquiring.request.key.lock);
                    acquiring.answer(Err(Error::Closed { key }));
                    self.acquiring_due(owner, now);
                }
                Some(EntryState::Holding(holding)) if holding.lease.lose(Loss::Shutdown) => {
                    tracing::info!(
                        key = %holding.lease.key, owner = %owner.simple(),
                        token = holding.lease.token,
                        "shutting down: the holder is told to stop"
                    );
                }
                _ => (),
            }
        }
    }

    /// Carries a shutdown on: the release of what is still held, and the answer.
    pub(super) fn close(&mut self) {
        let now = self.now();
        let Some(closing) = &mut self.closing else {
            return;
        };
        if now >= closing.grace && !std::mem::replace(&mut closing.has_released, true) {
            for owner in self.owners() {
                if let Some(EntryState::Holding(holding)) = self.state(owner) {
                    let lease = Arc::clone(&holding.lease);
                    self.release(&lease, None);
                }
            }
        }
        let left = self.entries.len() - self.watching;
        let Some(closing) = &mut self.closing else {
            return;
        };
        if left == 0 || now >= closing.deadline {
            for reply in closing.replies.drain(..) {
                let outcome = if left == 0 {
                    Ok(())
                } else {
                    Err(StoreError::new(
                        StoreErrorKind::Unknown,
                        format!("{left} lock(s) could not be released in the time given"),
                        "their ttl frees them",
                    )
                    .into_error(self.parts.store.describe(), None))
                };
                let _ = reply.send(outcome);
            }
        }
    }
}

impl Closing {
    /// When a shutdown goes on by itself.
    pub(super) fn next(&self, now: Moment) -> Option<Moment> {
        // Once all callers are answered there is nothing left to wait for.
        (!self.replies.is_empty()).then_some(if now < self.grace {
            self.grace.min(self.deadline)
        } else {
            self.deadline
        })
    }
}

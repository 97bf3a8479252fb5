//! Shutdown and drain: holders are notified, then their locks are released, then the callers
//! are answered.
//!
//! At once, waiting acquires are refused, and so is each new one. A drain then lets bodies go
//! on for the time given; a shutdown does not. Then holders are notified of the loss, so that
//! their bodies can stop. At half of the time that is left, what is still held is released for
//! them. At the end the callers get 'done', or how many locks are left to their ttl. All get it
//! as soon as nothing is held. Orphans that are only watched are not waited for: nothing is
//! known to be held.
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
    /// Begins a shutdown (`bodies` is nothing) or a drain, or joins the one under way. No
    /// acquire is accepted from now on, and the waiting ones are refused; the entries stay, for
    /// their releases.
    pub(super) fn begin_closing(
        &mut self,
        bodies: Duration,
        within: Duration,
        reply: oneshot::Sender<Result<()>>,
    ) {
        let now = self.now();
        let notice = now + bodies;
        let (grace, deadline) = (notice + within / 2, notice + within);
        if let Some(closing) = &mut self.closing {
            // The more hurried of two counts; one that was answered already does not.
            if closing.replies.is_empty() {
                closing.deadline = deadline;
            }
            closing.notice = closing.notice.map(|earlier| earlier.min(notice));
            closing.deadline = closing.deadline.min(deadline);
            closing.grace = closing.grace.min(grace);
            closing.replies.push(reply);
            return;
        }
        self.closing = Some(Closing {
            notice: Some(notice),
            grace,
            deadline,
            has_released: false,
            replies: vec![reply],
        });
        for owner in self.owners() {
            if let Some(EntryState::Acquiring(acquiring)) = self.state(owner) {
                let key = Arc::clone(&acquiring.request.key.lock);
                acquiring.answer(Err(Error::Closed { key }));
                self.acquiring_due(owner, now);
            }
        }
    }

    /// Bodies have had their time: each holder is notified.
    fn notify_holders(&mut self) {
        for owner in self.owners() {
            if let Some(EntryState::Holding(holding)) = self.state(owner)
                && holding.lease.lose(Loss::Shutdown)
            {
                tracing::info!(
                    key = %holding.lease.key, owner = %owner.simple(),
                    token = holding.lease.token,
                    "shutting down: the holder is told to stop"
                );
            }
        }
    }

    /// Carries a shutdown on: the notice, the release of what is still held, and the answer.
    pub(super) fn close(&mut self) {
        let now = self.now();
        let Some(closing) = &mut self.closing else {
            return;
        };
        let is_over = now >= closing.grace && !std::mem::replace(&mut closing.has_released, true);
        if closing.notice.take_if(|notice| now >= *notice).is_some() {
            self.notify_holders();
        }
        if is_over {
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
            let mut entries = self.entries.values();
            debug_assert!(
                left > 0 || entries.all(|entry| entry.state.is_watch()),
                "counted as it is"
            );
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
        let phases = [self.notice, Some(self.grace).filter(|grace| now < *grace)];
        let next = phases
            .into_iter()
            .flatten()
            .fold(self.deadline, Moment::min);
        (!self.replies.is_empty()).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_shutdown_goes_on_at_its_notice_its_grace_and_its_deadline_while_a_caller_waits() {
        let mut closing = Closing {
            notice: Some(at(10)),
            grace: at(20),
            deadline: at(30),
            has_released: false,
            replies: vec![oneshot::channel().0],
        };
        assert_eq!(closing.next(at(0)), Some(at(10)));
        closing.notice = None;
        assert_eq!(closing.next(at(10)), Some(at(20)));
        assert_eq!(closing.next(at(19)), Some(at(20)));
        assert_eq!(closing.next(at(20)), Some(at(30)));
        assert_eq!(closing.next(at(21)), Some(at(30)));
        closing.replies.clear();
        assert_eq!(closing.next(at(21)), None);
    }
}

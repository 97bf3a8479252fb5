//! Acquires: from the wish to the grant, the refusal, or the clean-up after a wish
//! that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::info::LockInfo;
use crate::store::{Acquire, Acquired, Outcome, OwnerId, StoreError, StoreErrorKind};

use super::actor::{Actor, State};
use super::ending::Ending;
use super::holding::Holding;
use super::lease::{Lease, Sent, Terms, valid_until};
use super::{Held, Patience, WeakMailbox, Wish, pace};

/// A wish that is in flight or waits for its next try.
pub(super) struct Waiting {
    pub(super) acquire: Acquire,
    patience: Patience,
    at_least: Option<Duration>,
    at_most: Option<Duration>,
    /// `None` once the caller was told.
    reply: Option<oneshot::Sender<Result<Held>>>,
    mailbox: WeakMailbox,
    in_flight: bool,
    looks: u32,
    failures: u32,
    /// The one try at once after a dead connection was made.
    again: bool,
    /// When a try last failed that may have been carried out unheard, or may be still.
    unknown: Option<Moment>,
    last: Option<Error>,
}

impl Waiting {
    pub(super) fn tell(&mut self, outcome: Result<Held>) {
        if let Some(reply) = self.reply.take() {
            // A Held that nobody receives releases itself (rule R6).
            drop(reply.send(outcome));
        }
    }

    fn is_given_up(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl Actor {
    pub(super) fn wish(&mut self, wish: Wish) {
        let owner = wish.acquire.owner;
        self.put(
            owner,
            State::Wish(Waiting {
                acquire: wish.acquire,
                patience: wish.patience,
                at_least: wish.at_least,
                at_most: wish.at_most,
                reply: Some(wish.reply),
                mailbox: wish.mailbox,
                in_flight: true,
                looks: 0,
                failures: 0,
                again: false,
                unknown: None,
                last: None,
            }),
        );
        self.queue_acquire(owner);
    }

    /// Its next try or its deadline has come.
    pub(super) fn wish_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        if waiting.in_flight {
            return;
        }
        let late = matches!(waiting.patience, Patience::Until(deadline) if now >= deadline);
        if waiting.is_given_up() || late {
            self.give_up(owner);
        } else {
            waiting.in_flight = true;
            self.queue_acquire(owner);
        }
    }

    pub(super) fn acquired(&mut self, owner: OwnerId, sent: Sent, outcome: Outcome<Acquired>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        waiting.in_flight = false;
        let ttl = waiting.acquire.ttl;
        let key = Arc::clone(&waiting.acquire.key.lock);
        let pause = match outcome {
            Ok(Acquired::Granted { token, at }) => {
                let mut until = valid_until(sent.at, ttl);
                let cap = waiting.at_most.map(|most| sent.at + most);
                if let Some(cap) = cap {
                    until = until.min(cap);
                }
                if now < until {
                    let terms = Terms {
                        key: waiting.acquire.key.clone(),
                        owner,
                        token,
                        ttl,
                        acquired_at: at,
                        at_least: waiting.at_least,
                        cap,
                        identity: Arc::clone(&waiting.acquire.identity),
                    };
                    self.grant(owner, terms, sent, until);
                    return;
                }
                // Ours at the store, but of no use any more: nobody may be told that it
                // is held.
                waiting.unknown = Some(now);
                let late = StoreError::new(
                    StoreErrorKind::Unknown,
                    "the answer came after the lease had ended",
                    "use a longer ttl, or a faster way to the store",
                );
                waiting.last = Some(late.into_error(store, Some(key)));
                pace::retry(waiting.failures)
            }
            Ok(Acquired::Busy(info)) => {
                let pause = look_again(&info, waiting.looks);
                waiting.looks += 1;
                waiting.failures = 0;
                waiting.last = Some(Error::Busy(info));
                pause
            }
            Err(error) => {
                if error.kind == StoreErrorKind::Unknown {
                    waiting.unknown = Some(now);
                }
                if error.worth_another && !waiting.again {
                    waiting.again = true;
                    waiting.in_flight = true;
                    self.queue_acquire(owner);
                    return;
                }
                waiting.failures += 1;
                let passing = error.is_passing();
                let pause = pace::retry(waiting.failures);
                waiting.last = Some(error.into_error(store, Some(key)));
                if !passing {
                    self.give_up(owner);
                    return;
                }
                pause
            }
        };
        waiting_on(self, owner, now, pause);
    }

    /// Tells the caller what the last try said, and cleans up after tries that may have
    /// been carried out unheard.
    fn give_up(&mut self, owner: OwnerId) {
        let Some(State::Wish(mut waiting)) = self.remove(owner) else {
            return;
        };
        let key = Arc::clone(&waiting.acquire.key.lock);
        let last = waiting.last.take().unwrap_or(Error::Closed { key });
        waiting.tell(Err(last));
        if waiting.unknown.is_some() {
            let ghost = Ending::ghost(&waiting.acquire, self.now());
            self.end(owner, ghost);
        } else {
            self.unfinished.done();
        }
    }

    fn grant(&mut self, owner: OwnerId, terms: Terms, sent: Sent, until: Moment) {
        let Some(State::Wish(mut waiting)) = self.remove(owner) else {
            return;
        };
        let Some(mailbox) = waiting.mailbox.upgrade() else {
            // No handle is left, so nobody waits for it.
            let ghost = Ending::ghost(&waiting.acquire, self.now());
            self.end(owner, ghost);
            return;
        };
        let clock = Arc::clone(&self.parts.clock);
        let lease = Arc::new(Lease::new(terms, clock, sent, until));
        tracing::debug!(
            key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
            looks = waiting.looks, "acquired"
        );
        self.put(
            owner,
            State::Holding(Holding::new(Arc::clone(&lease), sent.at, waiting.unknown)),
        );
        self.rest(owner);
        let held = Held::new(lease, mailbox, self.parts.store.describe());
        waiting.tell(Ok(held));
    }
}

/// Arms the next try, or gives up if there is to be none.
fn waiting_on(actor: &mut Actor, owner: OwnerId, now: Moment, pause: Duration) {
    let Some(State::Wish(waiting)) = actor.state(owner) else {
        return;
    };
    let next = match waiting.patience {
        _ if waiting.is_given_up() => None,
        Patience::None => None,
        Patience::Until(deadline) if now >= deadline => None,
        Patience::Until(deadline) => Some(deadline.min(now + pause)),
        Patience::Forever => Some(now + pause),
    };
    match next {
        Some(at) => actor.wake(owner, Some(at)),
        None => actor.give_up(owner),
    }
}

/// When to look at a busy lock again: no later than its lease's end.
fn look_again(info: &LockInfo, looks: u32) -> Duration {
    let pause = pace::poll(looks);
    match info.remaining() {
        Some(left) => pause.min(left + Duration::from_millis(1)),
        None => pause,
    }
}

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
use super::lease::{Lease, Terms, valid_until};
use super::{Held, Mailbox, Patience, Wish, pace};

/// A wish that is in flight or waits for its next try.
pub(super) struct Waiting {
    pub(super) acquire: Acquire,
    patience: Patience,
    at_least: Option<Duration>,
    at_most: Option<Duration>,
    /// `None` once the caller was told.
    reply: Option<oneshot::Sender<Result<Held>>>,
    mailbox: Mailbox,
    in_flight: bool,
    looks: u32,
    failures: u32,
    /// The one try at once after a dead connection was made.
    again: bool,
    /// A try of it may have been carried out unheard.
    unknown: bool,
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
                unknown: false,
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

    pub(super) fn acquired(&mut self, owner: OwnerId, sent: Moment, outcome: Outcome<Acquired>) {
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
                let mut until = valid_until(sent, ttl);
                let cap = waiting.at_most.map(|most| sent + most);
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
                waiting.unknown = true;
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
                waiting.unknown |= error.kind == StoreErrorKind::Unknown;
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
        let Some(State::Wish(waiting)) = self.remove(owner) else {
            return;
        };
        let Waiting {
            acquire,
            reply,
            mailbox,
            unknown,
            last,
            ..
        } = waiting;
        // Before the answer: see `grant`.
        drop(mailbox);
        if let Some(reply) = reply {
            let key = Arc::clone(&acquire.key.lock);
            // Whoever stopped waiting does not mind.
            drop(reply.send(Err(last.unwrap_or(Error::Closed { key }))));
        }
        if unknown {
            let ghost = Ending::ghost(&acquire, self.now());
            self.end(owner, ghost);
        }
    }

    fn grant(&mut self, owner: OwnerId, terms: Terms, sent: Moment, until: Moment) {
        let Some(State::Wish(waiting)) = self.remove(owner) else {
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
            State::Holding(Holding::new(Arc::clone(&lease), sent)),
        );
        self.rest(owner);
        let Waiting { reply, mailbox, .. } = waiting;
        // The mailbox moves: a copy that outlived the answer would look to the locker's
        // last handle as if somebody still held something, and it would not wait.
        let held = Held::new(lease, mailbox, Arc::clone(&self.unfinished));
        if let Some(reply) = reply {
            // A Held that nobody receives releases itself (rule R6).
            drop(reply.send(Ok(held)));
        }
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

//! Acquires: from the wish to the grant, the refusal, or the clean-up after a wish
//! that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::error::Error;
use crate::store::{
    Acquired, Grant, OwnerId, QueuePosition, StoreError, StoreErrorKind, StoreResult,
};

use super::backoff;
use super::core::Actor;
use super::lease::{Lease, Terms};
use super::lease_time::{Sent, valid_until};
use super::mailbox::{Held, Patience, Wish};
use super::state::{Ending, Holding, State, Waiting};

impl Actor {
    pub(super) fn wish(&mut self, wish: Wish) {
        let mut acquire = wish.acquire;
        let owner = acquire.owner;
        let waits = wish.patience != Patience::None;
        let turn = waits.then(|| self.lines.enter(&acquire.key.lock, owner));
        acquire.line = waits.then(|| self.notices.clone());
        let since = self.now();
        self.put(
            owner,
            State::Wish(Box::new(Waiting {
                acquire,
                patience: wish.patience,
                at_least: wish.at_least,
                at_most: wish.at_most,
                reply: Some(wish.reply),
                mailbox: wish.mailbox,
                since,
                turn,
                in_flight: true,
                looks: 0,
                failures: 0,
                again: false,
                retry: None,
                queued: None,
                told: None,
                unknown: None,
                last: None,
            })),
        );
        self.queue_acquire(owner);
    }

    /// Asks (again), unless a question is in flight.
    fn knock(&mut self, owner: OwnerId) {
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        if waiting.in_flight {
            return;
        }
        waiting.in_flight = true;
        waiting.retry = None;
        let line = waiting
            .turn
            .map(|turn| (turn, Arc::clone(&waiting.acquire.key.lock)));
        if let Some((turn, key)) = line {
            self.lines.set_knock(&key, turn, None);
        }
        self.queue_acquire(owner);
        self.rest_wish(owner);
    }

    /// The first of this process who waits for a lock asks now.
    pub(super) fn knock_for(&mut self, key: &Arc<str>) {
        let now = self.now();
        if let Some(first) = self.lines.knock_at(key, now) {
            self.rest_wish(first);
        }
    }

    /// Grants are told from now on, or are not any more: what was not told is asked for.
    pub(super) fn knock_for_all(&mut self) {
        for key in self.lines.keys() {
            self.knock_for(&key);
        }
    }

    /// Arms its timer: the end of its patience, or its next question.
    fn rest_wish(&mut self, owner: OwnerId) {
        let Some(State::Wish(waiting)) = self.entries.get(&owner).map(|entry| &entry.state) else {
            return;
        };
        let next = if waiting.in_flight {
            // Whoever was answered once need not hear this answer.
            waiting.deadline().filter(|_| waiting.last.is_some())
        } else {
            let key = &waiting.acquire.key.lock;
            let knock = waiting.turn.and_then(|turn| self.lines.knock(key, turn));
            let times = [waiting.deadline(), waiting.retry, knock];
            times.into_iter().flatten().min()
        };
        self.wake(owner, next);
    }

    /// Its next question or the end of its patience has come.
    pub(super) fn wish_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        let late = waiting.is_late(now);
        if waiting.in_flight {
            if late && let Some(last) = waiting.last.take() {
                waiting.tell(Err(last));
            }
        } else if late || waiting.is_given_up() {
            self.give_up(owner);
        } else {
            self.knock(owner);
        }
    }

    /// Its caller waits no more.
    pub(super) fn forget(&mut self, owner: OwnerId) {
        if let Some(State::Wish(waiting)) = self.state(owner)
            && !waiting.in_flight
        {
            self.give_up(owner);
        }
    }

    pub(super) fn acquired(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<Acquired>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        waiting.in_flight = false;
        let told = waiting.told.take();
        let key = Arc::clone(&waiting.acquire.key.lock);
        let pause = match outcome {
            Ok(Acquired::Granted { token, at }) => {
                let grant = Grant {
                    owner,
                    token,
                    at,
                    micros: 0,
                    claim: waiting.acquire.ttl,
                };
                if self.grant(&grant, sent) {
                    return;
                }
                let Some(State::Wish(waiting)) = self.state(owner) else {
                    return;
                };
                // Ours at the store, but of no use any more: nobody may be told that it
                // is held.
                waiting.unknown = Some(now);
                let late = StoreError::new(
                    StoreErrorKind::Unknown,
                    "the answer came after the lease had ended",
                    "use a longer ttl, or a faster way to the store",
                );
                waiting.last = Some(late.into_error(store, Some(key)));
                backoff::retry(waiting.failures)
            }
            Ok(Acquired::Queued(place)) => {
                self.queued(owner, sent, place);
                if let Some(grant) = told {
                    self.told(grant);
                }
                return;
            }
            Ok(Acquired::Busy(info)) => {
                let poll = backoff::poll(waiting.looks);
                let pause = info.remaining().map_or(poll, |left| poll.min(left + TICK));
                waiting.looks += 1;
                waiting.failures = 0;
                waiting.last = Some(Error::Busy(info));
                pause
            }
            Err(error) => {
                if error.kind == StoreErrorKind::Unknown {
                    waiting.unknown = Some(now);
                }
                if let Some(grant) = told {
                    self.told(grant);
                    return;
                }
                if error.worth_another && !waiting.again {
                    waiting.again = true;
                    self.knock(owner);
                    return;
                }
                waiting.failures += 1;
                let passing = error.is_passing();
                let pause = backoff::retry(waiting.failures);
                waiting.last = Some(error.into_error(store, Some(key)));
                if !passing {
                    self.give_up(owner);
                    return;
                }
                pause
            }
        };
        self.try_later(owner, now, pause);
    }

    /// Arms the next try, or gives up if there is to be none.
    fn try_later(&mut self, owner: OwnerId, now: Moment, pause: Duration) {
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        if waiting.is_given_up() || waiting.is_late(now) || waiting.patience == Patience::None {
            self.give_up(owner);
        } else {
            waiting.retry = Some(now + pause);
            self.rest_wish(owner);
        }
    }

    /// It stands in line.
    fn queued(&mut self, owner: OwnerId, sent: Sent, place: QueuePosition) {
        let now = self.now();
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return;
        };
        let before = waiting.queued.replace((sent, place.at));
        waiting.acquire.ticket = place.ticket.or(waiting.acquire.ticket);
        let knock = now + until_knock(&place, waiting.looks);
        waiting.looks += 1;
        waiting.failures = 0;
        waiting.again = false;
        let key = Arc::clone(&waiting.acquire.key.lock);
        let turn = waiting.turn;
        let holder = OwnerId::try_parse(place.holder.owner_id()).ok();
        waiting.last = Some(Error::Busy(place.holder));
        if waiting.is_given_up() || waiting.is_late(now) {
            self.give_up(owner);
            return;
        }
        self.lines.set_told(&key, place.is_notified);
        if let Some(turn) = turn {
            self.lines.set_knock(&key, turn, Some(knock));
        }
        self.rest_wish(owner);
        if place.is_new && before.is_some() {
            // The store has lost the line: those behind ask in their old order.
            for other in self.lines.of(&key) {
                if other != owner {
                    self.knock(other);
                }
            }
        } else if let Some(holder) = holder.filter(|holder| *holder != owner)
            && let Some(State::Wish(theirs)) = self.state(holder)
            && theirs.retry.is_none()
        {
            // One of us has it and does not know it yet: the grant is on its way, or lost.
            theirs.retry = Some(now + ON_ITS_WAY);
            self.rest_wish(holder);
        }
    }

    /// A lock was handed to one who stands in line. When that was is known by the store's
    /// clock only: the lease is judged from the last answered question, and what has passed
    /// at the store since (rule R1).
    pub(super) fn told(&mut self, grant: Grant) {
        let owner = grant.owner;
        let now = self.now();
        let Some(State::Wish(waiting)) = self.state(owner) else {
            // It has left: its release hands the lock on.
            return;
        };
        if waiting.in_flight {
            waiting.told = Some(grant);
            return;
        }
        let from = waiting.queued.and_then(|(sent, at)| {
            let passed = Duration::from_micros(grant.micros.checked_sub(at)?);
            let at = sent.at + passed.saturating_sub(passed / 100);
            // In the future: the store's clock has jumped.
            (at <= now).then_some(Sent { at, ..sent })
        });
        if !from.is_some_and(|from| self.grant(&grant, from)) {
            // A hint that can't be judged, or came late: the answer is the lease then.
            self.knock(owner);
        }
    }

    /// A release of this process was answered so: the lease is judged from its sending.
    pub(super) fn handed(&mut self, grant: Grant, sent: Sent) {
        let Some(State::Wish(waiting)) = self.state(grant.owner) else {
            return;
        };
        if waiting.in_flight {
            waiting.told = Some(grant);
        } else if !self.grant(&grant, sent) {
            self.knock(grant.owner);
        }
    }

    /// Tells the caller what the last try said, and cleans up: a place in line, or what
    /// may have been carried out unheard.
    fn give_up(&mut self, owner: OwnerId) {
        let Some(State::Wish(mut waiting)) = self.remove(owner) else {
            return;
        };
        self.leave_line(&waiting);
        let key = Arc::clone(&waiting.acquire.key.lock);
        let last = waiting.last.take().unwrap_or(Error::Closed { key });
        waiting.tell(Err(last));
        let now = self.now();
        if waiting.unknown.is_some() {
            self.end(owner, Ending::ghost(&waiting.acquire, now));
        } else if waiting.queued.is_some() {
            self.end(owner, Ending::place(&waiting.acquire, now));
        } else {
            self.unfinished.done();
        }
    }

    fn leave_line(&mut self, waiting: &Waiting) {
        let Some(turn) = waiting.turn else {
            return;
        };
        let key = &waiting.acquire.key.lock;
        let pause = if self.lines.is_untold(key) {
            backoff::poll(0)
        } else {
            backoff::knock(0)
        };
        let knock = self.now() + pause;
        if let Some(next) = self.lines.leave(key, turn, knock) {
            self.rest_wish(next);
        }
    }

    /// Makes a holding of the wish, judged from `sent`. `false`: the lease would be over.
    fn grant(&mut self, grant: &Grant, sent: Sent) -> bool {
        let owner = grant.owner;
        let now = self.now();
        let Some(State::Wish(waiting)) = self.state(owner) else {
            return false;
        };
        let cap = waiting.at_most.map(|most| sent.at + most);
        let until = valid_until(sent.at, grant.claim);
        let until = cap.map_or(until, |cap| until.min(cap));
        if now >= until {
            return false;
        }
        let Some(State::Wish(mut waiting)) = self.remove(owner) else {
            return false;
        };
        self.leave_line(&waiting);
        let Some(mailbox) = waiting.mailbox.upgrade() else {
            // No handle is left, so nobody waits for it.
            let ghost = Ending::ghost(&waiting.acquire, now);
            self.end(owner, ghost);
            return true;
        };
        let clock = Arc::clone(&self.parts.clock);
        let terms = Terms {
            key: waiting.acquire.key.clone(),
            owner,
            token: grant.token,
            ttl: waiting.acquire.ttl,
            acquired_at: grant.at,
            at_least: waiting.at_least,
            cap,
            identity: Arc::clone(&waiting.acquire.identity),
        };
        let lease = Arc::new(Lease::new(terms, clock, sent, until));
        let waited = now.saturating_since(waiting.since);
        tracing::debug!(
            key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
            looks = waiting.looks, ?waited, "acquired"
        );
        let holding = if waiting.queued.is_some() && grant.micros > 0 {
            Holding::claimed(
                Arc::clone(&lease),
                sent.at,
                grant.claim,
                now,
                waiting.unknown,
            )
        } else {
            Holding::new(Arc::clone(&lease), sent.at, waiting.unknown)
        };
        self.put(owner, State::Holding(holding));
        self.rest(owner);
        let held = Held::new(lease, mailbox, self.parts.store.describe(), waited);
        waiting.tell(Ok(held));
        true
    }
}

/// Keys expire on a whole millisecond.
const TICK: Duration = Duration::from_millis(1);

/// How long a grant may be on its way after another answer has shown it.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// When one who stands in line asks again: when the holder's lease ends as far as is
/// known, and now and then, for a grant that was lost and a holder that died.
fn until_knock(place: &QueuePosition, looks: u32) -> Duration {
    let pause = if !place.is_notified {
        backoff::poll(looks) * u32::try_from(place.ahead.clamp(1, 4)).unwrap_or(4)
    } else if place.holder.is_foreign() {
        // It knows nothing of those who wait.
        backoff::poll(looks)
    } else {
        backoff::knock(place.ahead)
    };
    match place.holder.remaining() {
        Some(left) => pause.min(left + TICK),
        None => pause,
    }
}

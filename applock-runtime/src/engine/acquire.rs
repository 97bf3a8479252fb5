//! Acquires: from the request to the grant, the refusal, or the clean-up after an acquire
//! that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::store::{
    Acquired, Grant, OwnerId, QueuePosition, StoreError, StoreErrorKind, StoreResult,
};

use super::backoff;
use super::core::Actor;
use super::lease::{Lease, Terms};
use super::lease_time::{Sent, valid_until};
use super::mailbox::{AcquireRequest, Held, WeakMailbox};
use super::state::{AcquiringEntry, EntryState, HoldingEntry, ReleasingEntry};

impl Actor {
    pub(super) fn start_acquire(
        &mut self,
        request: AcquireRequest,
        deadline: Option<Moment>,
        reply: oneshot::Sender<Result<Held>>,
        mailbox: WeakMailbox,
    ) {
        let owner = request.owner;
        let arrival = request
            .waits()
            .then(|| self.waiters.enter(&request.key.lock, owner));
        let since = self.now();
        self.put(
            owner,
            EntryState::Acquiring(Box::new(AcquiringEntry {
                request,
                deadline,
                ticket: None,
                reply: Some(reply),
                mailbox,
                since,
                arrival,
                in_flight: true,
                polls: 0,
                failures: 0,
                again: false,
                retry: None,
                queued: None,
                notified: None,
                unknown: None,
                last: None,
            })),
        );
        self.queue_acquire(owner);
    }

    /// Asks (again), unless a question is in flight.
    fn poll_now(&mut self, owner: OwnerId) {
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        if acquiring.in_flight {
            return;
        }
        acquiring.in_flight = true;
        acquiring.retry = None;
        let place = acquiring
            .arrival
            .map(|arrival| (arrival, Arc::clone(&acquiring.request.key.lock)));
        if let Some((arrival, key)) = place {
            self.waiters.set_next_poll(&key, arrival, None);
        }
        self.queue_acquire(owner);
        self.arm_acquiring(owner);
    }

    /// The first of this process who waits for a lock asks now.
    pub(super) fn poll_for(&mut self, key: &Arc<str>) {
        let now = self.now();
        if let Some(first) = self.waiters.poll_at(key, now) {
            self.arm_acquiring(first);
        }
    }

    /// Grants are told from now on, or are not any more: what was not told is asked for.
    pub(super) fn poll_all(&mut self) {
        for key in self.waiters.keys() {
            self.poll_for(&key);
        }
    }

    /// Arms its timer: the end of its patience, or its next question.
    fn arm_acquiring(&mut self, owner: OwnerId) {
        let Some(EntryState::Acquiring(acquiring)) =
            self.entries.get(&owner).map(|entry| &entry.state)
        else {
            return;
        };
        let next = if acquiring.in_flight {
            // Whoever was answered once need not hear this answer.
            acquiring.deadline.filter(|_| acquiring.last.is_some())
        } else {
            let key = &acquiring.request.key.lock;
            let queue_poll = acquiring
                .arrival
                .and_then(|arrival| self.waiters.next_poll(key, arrival));
            let times = [acquiring.deadline, acquiring.retry, queue_poll];
            times.into_iter().flatten().min()
        };
        self.wake(owner, next);
    }

    /// Its next question or the end of its patience has come.
    pub(super) fn acquiring_due(&mut self, owner: OwnerId, now: Moment) {
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        let late = acquiring.is_late(now);
        if acquiring.in_flight {
            if late && let Some(last) = acquiring.last.take() {
                acquiring.answer(Err(last));
            }
        } else if late || acquiring.is_given_up() {
            self.give_up(owner);
        } else {
            self.poll_now(owner);
        }
    }

    /// Its caller waits no more.
    pub(super) fn forget(&mut self, owner: OwnerId) {
        if let Some(EntryState::Acquiring(acquiring)) = self.state(owner)
            && !acquiring.in_flight
        {
            self.give_up(owner);
        }
    }

    pub(super) fn acquired(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<Acquired>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        acquiring.in_flight = false;
        let notified = acquiring.notified.take();
        let key = Arc::clone(&acquiring.request.key.lock);
        let pause = match outcome {
            Ok(Acquired::Granted { token, at }) => {
                let grant = Grant {
                    owner,
                    token,
                    at,
                    micros: 0,
                    claim: acquiring.request.ttl,
                };
                if self.grant(&grant, sent) {
                    return;
                }
                let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
                    return;
                };
                // Ours at the store, but of no use any more: nobody may be told that it
                // is held.
                acquiring.unknown = Some(now);
                let late = StoreError::new(
                    StoreErrorKind::Unknown,
                    "the answer came after the lease had ended",
                    "use a longer ttl, or a faster way to the store",
                );
                acquiring.last = Some(late.into_error(store, Some(key)));
                backoff::retry(acquiring.failures)
            }
            Ok(Acquired::Queued(place)) => {
                self.queued(owner, sent, place);
                if let Some(grant) = notified {
                    self.notified(grant);
                }
                return;
            }
            Ok(Acquired::Busy(info)) => {
                let poll = backoff::poll(acquiring.polls);
                let pause = info.remaining().map_or(poll, |left| poll.min(left + TICK));
                acquiring.polls += 1;
                acquiring.failures = 0;
                acquiring.last = Some(Error::Busy(info));
                pause
            }
            Err(error) => {
                if error.kind == StoreErrorKind::Unknown {
                    acquiring.unknown = Some(now);
                }
                if let Some(grant) = notified {
                    self.notified(grant);
                    return;
                }
                if error.worth_another && !acquiring.again {
                    acquiring.again = true;
                    self.poll_now(owner);
                    return;
                }
                acquiring.failures += 1;
                let passing = error.is_passing();
                let pause = backoff::retry(acquiring.failures);
                acquiring.last = Some(error.into_error(store, Some(key)));
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
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        if acquiring.is_given_up() || acquiring.is_late(now) || !acquiring.request.waits() {
            self.give_up(owner);
        } else {
            acquiring.retry = Some(now + pause);
            self.arm_acquiring(owner);
        }
    }

    /// It stands in line.
    fn queued(&mut self, owner: OwnerId, sent: Sent, place: QueuePosition) {
        let now = self.now();
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        let before = acquiring.queued.replace((sent, place.at));
        acquiring.ticket = place.ticket.or(acquiring.ticket);
        let poll_at = now + until_poll(&place, acquiring.polls);
        acquiring.polls += 1;
        acquiring.failures = 0;
        acquiring.again = false;
        let key = Arc::clone(&acquiring.request.key.lock);
        let arrival = acquiring.arrival;
        let holder = OwnerId::try_parse(place.holder.owner_id()).ok();
        acquiring.last = Some(Error::Busy(place.holder));
        if acquiring.is_given_up() || acquiring.is_late(now) {
            self.give_up(owner);
            return;
        }
        self.waiters.set_notified(&key, place.is_notified);
        if let Some(arrival) = arrival {
            self.waiters.set_next_poll(&key, arrival, Some(poll_at));
        }
        self.arm_acquiring(owner);
        if place.is_new && before.is_some() {
            // The store has lost the line: those behind ask in their old order.
            for other in self.waiters.of(&key) {
                if other != owner {
                    self.poll_now(other);
                }
            }
        } else if let Some(holder) = holder.filter(|holder| *holder != owner)
            && let Some(EntryState::Acquiring(theirs)) = self.state(holder)
            && theirs.retry.is_none()
        {
            // One of us has it and does not know it yet: the grant is on its way, or lost.
            theirs.retry = Some(now + ON_ITS_WAY);
            self.arm_acquiring(holder);
        }
    }

    /// A lock was handed to one who stands in line. When that was is known by the store's
    /// clock only: the lease is judged from the last answered question, and what has passed
    /// at the store since (rule R1).
    pub(super) fn notified(&mut self, grant: Grant) {
        let owner = grant.owner;
        let now = self.now();
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            // It has left: its release hands the lock on.
            return;
        };
        if acquiring.in_flight {
            acquiring.notified = Some(grant);
            return;
        }
        let from = acquiring.queued.and_then(|(sent, at)| {
            let passed = Duration::from_micros(grant.micros.checked_sub(at)?);
            let at = sent.at + passed.saturating_sub(passed / 100);
            // In the future: the store's clock has jumped.
            (at <= now).then_some(Sent { at, ..sent })
        });
        if !from.is_some_and(|from| self.grant(&grant, from)) {
            // A hint that can't be judged, or came late: the answer is the lease then.
            self.poll_now(owner);
        }
    }

    /// A release of this process was answered so: the lease is judged from its sending.
    pub(super) fn handed_over(&mut self, grant: Grant, sent: Sent) {
        let Some(EntryState::Acquiring(acquiring)) = self.state(grant.owner) else {
            return;
        };
        if acquiring.in_flight {
            acquiring.notified = Some(grant);
        } else if !self.grant(&grant, sent) {
            self.poll_now(grant.owner);
        }
    }

    /// Tells the caller what the last try said, and cleans up: a place in line, or what
    /// may have been carried out unheard.
    fn give_up(&mut self, owner: OwnerId) {
        let Some(EntryState::Acquiring(mut acquiring)) = self.remove(owner) else {
            return;
        };
        self.leave_queue(&acquiring);
        let key = Arc::clone(&acquiring.request.key.lock);
        let last = acquiring.last.take().unwrap_or(Error::Closed { key });
        acquiring.answer(Err(last));
        let now = self.now();
        if acquiring.unknown.is_some() {
            self.end(owner, ReleasingEntry::orphan(&acquiring.request, now));
        } else if acquiring.queued.is_some() {
            self.end(owner, ReleasingEntry::queued(&acquiring.request, now));
        } else {
            self.unfinished.done();
        }
    }

    fn leave_queue(&mut self, acquiring: &AcquiringEntry) {
        let Some(arrival) = acquiring.arrival else {
            return;
        };
        let key = &acquiring.request.key.lock;
        let pause = if self.waiters.needs_polling(key) {
            backoff::poll(0)
        } else {
            backoff::queue_poll(0)
        };
        let poll_at = self.now() + pause;
        if let Some(next) = self.waiters.leave(key, arrival, poll_at) {
            self.arm_acquiring(next);
        }
    }

    /// Makes a holding of the acquire, judged from `sent`. `false`: the lease would be over.
    fn grant(&mut self, grant: &Grant, sent: Sent) -> bool {
        let owner = grant.owner;
        let now = self.now();
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return false;
        };
        let cap = acquiring.request.at_most.map(|most| sent.at + most);
        let until = valid_until(sent.at, grant.claim);
        let until = cap.map_or(until, |cap| until.min(cap));
        if now >= until {
            return false;
        }
        let Some(EntryState::Acquiring(mut acquiring)) = self.remove(owner) else {
            return false;
        };
        self.leave_queue(&acquiring);
        let Some(mailbox) = acquiring.mailbox.upgrade() else {
            // No handle is left, so nobody waits for it.
            let orphan = ReleasingEntry::orphan(&acquiring.request, now);
            self.end(owner, orphan);
            return true;
        };
        let clock = Arc::clone(&self.parts.clock);
        let terms = Terms {
            key: acquiring.request.key.clone(),
            owner,
            token: grant.token,
            ttl: acquiring.request.ttl,
            acquired_at: grant.at,
            at_least: acquiring.request.at_least,
            cap,
            identity: Arc::clone(&acquiring.request.identity),
        };
        let lease = Arc::new(Lease::new(terms, clock, sent, until));
        let waited = now.saturating_since(acquiring.since);
        tracing::debug!(
            key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
            polls = acquiring.polls, ?waited, "acquired"
        );
        let holding = if acquiring.queued.is_some() && grant.micros > 0 {
            HoldingEntry::claimed(
                Arc::clone(&lease),
                sent.at,
                grant.claim,
                now,
                acquiring.unknown,
            )
        } else {
            HoldingEntry::new(Arc::clone(&lease), sent.at, acquiring.unknown)
        };
        self.put(owner, EntryState::Holding(holding));
        self.arm_holding(owner);
        let held = Held::new(lease, mailbox, self.parts.store.describe(), waited);
        acquiring.answer(Ok(held));
        true
    }
}

/// Keys expire on a whole millisecond.
const TICK: Duration = Duration::from_millis(1);

/// How long a grant may be on its way after another answer has shown it.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// When one who stands in line asks again: when the holder's lease ends as far as is
/// known, and now and then, for a grant that was lost and a holder that died.
fn until_poll(place: &QueuePosition, polls: u32) -> Duration {
    let pause = if !place.is_notified {
        backoff::poll(polls) * u32::try_from(place.ahead.clamp(1, 4)).unwrap_or(4)
    } else if place.holder.is_foreign() {
        // It knows nothing of those who wait.
        backoff::poll(polls)
    } else {
        backoff::queue_poll(place.ahead)
    };
    match place.holder.remaining() {
        Some(left) => pause.min(left + TICK),
        None => pause,
    }
}

//! Acquiring: from the request to the grant, the refusal, or the clean-up.
//!
//! An acquiring entry asks the store for its lock, and has one request in flight at a time.
//! The store's answer is one of four. *Granted*: the entry becomes a holding, unless the
//! lease would be over already, for it is judged from before the request left (rule R1).
//! *Busy*: the caller of an acquire that does not wait is refused; a waiting one tries
//! again after a pause. *Queued*: the store keeps the waiter in its wait queue and may
//! notify it of its grant; the first waiter of each lock polls meanwhile, because a
//! notification may be lost. *An error*: it is unknown whether the store has carried the
//! request out. The entry tries again with the same owner id, which takes the lock once
//! however often it arrives.
//!
//! An entry gives up when its caller has gone, its deadline has passed, or an error is
//! final. Then nothing of it may stay behind (rule R6): a waiter is taken off the store's
//! queue, and a request whose outcome is unknown leaves an *orphan*, a lock that may be
//! held for a caller that is not there. Both become releasing entries.
//!
//! The dangers this file guards against: a lock granted to a caller that has gone, and kept
//! until its ttl ends; a lease that is believed longer than the store keeps it; and a
//! waiter that sleeps on after its grant was lost.
//!
//! Nothing here decides who gets a lock: that is the store's. Nothing here keeps one alive:
//! that is `hold`'s.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::info::LastHolding;
use crate::key::Key;
use crate::protocol::Tick;
use crate::shown::millis;
use crate::store::{
    Acquired, Grant, OwnerId, QueuePosition, StoreError, StoreErrorKind, StoreResult,
};

use super::backoff;
use super::core::Actor;
use super::lease::{Lease, Terms};
use super::lease_time::{Sent, TICK, valid_until};
use super::mailbox::{AcquireRequest, Held, WeakMailbox};
use super::state::{AcquiringEntry, EntryState, HoldingEntry, ReleasingEntry};

impl Actor {
    /// A new entry, whose first request leaves with the next batch. One that waits arrives
    /// behind the other waiters of this process at once: were it to arrive with the store's
    /// answer, two answers could change the order.
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
                in_trouble: false,
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

    /// Sends a request (again), unless one is in flight: of two at once, the answer of the
    /// older one could overwrite that of the younger one.
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

    /// The first waiter of this process for `key` polls now: the lock may be free, or may
    /// be granted to a waiter here that was not notified.
    pub(super) fn poll_for(&mut self, key: &Arc<str>) {
        let now = self.now();
        if let Some(first) = self.waiters.poll_at(key, now) {
            self.arm_acquiring(first);
        }
    }

    /// The store notifies waiters from now on, or does not any more. A grant of before may
    /// have gone unnotified, so the first waiter of each lock polls.
    pub(super) fn poll_all(&mut self) {
        for key in self.waiters.keys() {
            self.poll_for(&key);
        }
    }

    /// Another server has come to serve such locks. All their waiters ask there, in the order of
    /// their arrival: it knows them, if at all, by the channel on which they heard the old one, and
    /// would pass over those that it does not reach.
    pub(super) fn poll_where(&mut self, is_meant: &dyn Fn(&Key) -> bool) {
        for lock in self.waiters.keys() {
            if is_meant(&Key::of_lock(&lock)) {
                for waiter in self.waiters.of(&lock) {
                    self.poll_now(waiter);
                }
            }
        }
    }

    /// Arms the entry's timer: its deadline, its next try, or its next poll of the wait
    /// queue, whichever comes first.
    fn arm_acquiring(&mut self, owner: OwnerId) {
        let Some(EntryState::Acquiring(acquiring)) =
            self.entries.get(&owner).map(|entry| &entry.state)
        else {
            return;
        };
        let next = if acquiring.in_flight {
            // A waiter that has had one answer may time out while the next request is in
            // flight. One that has had none waits for it, so that there is something to
            // tell the caller.
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

    /// The timer has fired: the deadline has passed, or the next request is due.
    ///
    /// With a request in flight the caller is answered, and the entry stays: a grant that
    /// comes with the answer still has to be given back.
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

    /// The caller has dropped its future. With a request in flight the entry waits for the
    /// answer, which shows what has to be cleaned up.
    pub(super) fn forget(&mut self, owner: OwnerId) {
        if let Some(EntryState::Acquiring(acquiring)) = self.state(owner)
            && !acquiring.in_flight
        {
            self.give_up(owner);
        }
    }

    /// The store has answered a request that left at `sent`.
    ///
    /// A notification that came while the request was in flight is acted upon here, after
    /// the answer: the answer may say more (a full lease instead of a claim), and carries
    /// the pair of times that the notification is judged by.
    pub(super) fn acquired(&mut self, owner: OwnerId, sent: Sent, outcome: StoreResult<Acquired>) {
        let now = self.now();
        let store = self.parts.store.describe();
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        acquiring.in_flight = false;
        let notified = acquiring.notified.take();
        if outcome.is_ok() && std::mem::take(&mut acquiring.in_trouble) {
            tracing::info!(
                key = %acquiring.request.key, owner = %owner.simple(), "the store answers again"
            );
        }
        let key = Arc::clone(&acquiring.request.key.lock);
        let pause = match outcome {
            Ok(Acquired::Granted { token, at }) => {
                let granted = Granted {
                    token,
                    at,
                    lease: acquiring.request.ttl,
                    is_claim: false,
                };
                if self.grant(owner, granted, sent) {
                    return;
                }
                let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
                    return;
                };
                // Granted at the store, but too late to be of use: no caller may be handed it,
                // and it has to be given back.
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
                    self.notified(&Key::of_lock(&key), grant);
                }
                return;
            }
            Ok(Acquired::AlreadyRan(run)) => return self.already_ran(owner, run),
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
                    self.notified(&Key::of_lock(&key), grant);
                    return;
                }
                if error.worth_another && !acquiring.again {
                    acquiring.again = true;
                    self.poll_now(owner);
                    return;
                }
                acquiring.failures += 1;
                let passing = error.is_passing();
                // Nobody hears of it otherwise: the caller may wait for ever.
                if passing && acquiring.request.waits() && !acquiring.in_trouble {
                    acquiring.in_trouble = true;
                    tracing::warn!(
                        key = %acquiring.request.key, owner = %owner.simple(),
                        reason = %error.what,
                        remedy = (!error.remedy.is_empty()).then_some(error.remedy),
                        "waiting for a store that fails; trying on"
                    );
                }
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

    /// An earlier run forbids it, and will as long as a caller can wait for: that is the answer.
    /// What has forbidden one of those that wait here may forbid the others: they poll.
    fn already_ran(&mut self, owner: OwnerId, mut run: LastHolding) {
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return;
        };
        if let Some(due) = acquiring.request.due
            && let Tick::Gap(gap) = due.tick
        {
            run.next_at = run.from.checked_add(Duration::from_micros(gap));
        }
        acquiring.last = Some(Error::AlreadyRan(Box::new(run)));
        let stood = acquiring.queued.take().is_some();
        let key = Arc::clone(&acquiring.request.key.lock);
        self.give_up(owner);
        if stood {
            for other in self.waiters.of(&key) {
                self.poll_now(other);
            }
        }
    }

    /// Arms the next try after `pause`, or gives up if there is to be none: the caller has
    /// gone, its deadline has passed, or it does not wait.
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

    /// The store has put the waiter into its wait queue, or has found it there.
    ///
    /// The request's moment and the store's time at that moment are kept as a pair: a later
    /// notification carries only the store's time, and this pair translates it (see
    /// [`notified`](Self::notified)).
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
        let is_first = arrival.is_some_and(|arrival| self.waiters.is_first(&key, arrival));
        if place.is_new && before.is_some() && is_first {
            // The store has lost its wait queue (a restart, an eviction), or this process was out
            // of its reach. The other waiters of this process ask again now, in the order of their
            // arrival, and so take their old places. They are not the first, and ask no others.
            for other in self.waiters.of(&key) {
                if other != owner {
                    self.poll_now(other);
                }
            }
        } else if let Some(holder) = holder.filter(|holder| *holder != owner)
            && let Some(EntryState::Acquiring(theirs)) = self.state(holder)
            && theirs.retry.is_none()
        {
            // A waiter of this very process has the lock, and does not know it yet: its
            // notification is on its way, or lost. It asks by itself if nothing comes.
            theirs.retry = Some(now + ON_ITS_WAY);
            self.arm_acquiring(holder);
        }
    }

    /// The store notifies a waiter of its grant. When the grant was made is known by the
    /// store's clock alone, so the lease is judged from the last answered request: its
    /// moment, plus what has passed at the store since, less 1 % for clocks that run at
    /// different rates (rule R1).
    ///
    /// A notification is a hint, and never believed where it cannot be judged: a waiter
    /// that was never queued, a store's clock that was set, a claim that is over. The
    /// waiter polls then, and the store's answer is the lease.
    pub(super) fn notified(&mut self, key: &Key, grant: Grant) {
        let owner = grant.owner;
        let now = self.now();
        let acquiring = match self.state(owner) {
            Some(EntryState::Acquiring(acquiring)) => acquiring,
            // It holds the lock by a poll's answer; or it has left the queue, and its release,
            // which is on its way, hands the lock on.
            Some(_) => return,
            // Nobody waits for it here: the claim would keep the lock from the next waiter.
            None => return self.give_back(key, &grant),
        };
        if acquiring.in_flight {
            acquiring.notified = Some(grant);
            return;
        }
        if grant.needs_proof {
            self.poll_now(owner);
            return;
        }
        let from = acquiring.queued.and_then(|(sent, at)| {
            // A claim is never longer than the full lease: this is no grant of the store's.
            if grant.claim > acquiring.request.ttl {
                return None;
            }
            let passed = Duration::from_micros(grant.micros.checked_sub(at)?);
            let at = sent.at + passed.saturating_sub(passed / 100);
            // A moment in the future: the store's clock has jumped.
            (at <= now).then_some(Sent { at, ..sent })
        });
        if !from.is_some_and(|from| self.grant(owner, Granted::unasked(&grant), from)) {
            // A hint that can't be judged, or came late: the answer is the lease then.
            self.poll_now(owner);
        }
    }

    /// A release of this process has handed the lock to a waiter of this process, and the
    /// answer says so. The grant was made after that release left, so the lease is judged
    /// from there (rule R1), with no need of the store's clock.
    pub(super) fn handed_over(&mut self, key: &Key, grant: Grant, sent: Sent) {
        let acquiring = match self.state(grant.owner) {
            Some(EntryState::Acquiring(acquiring)) => acquiring,
            Some(_) => return,
            None => return self.give_back(key, &grant),
        };
        if acquiring.in_flight {
            acquiring.notified = Some(grant);
        } else if grant.needs_proof || !self.grant(grant.owner, Granted::unasked(&grant), sent) {
            self.poll_now(grant.owner);
        }
    }

    /// Releases a lock that was granted to an owner that this engine does not know (any more).
    fn give_back(&mut self, key: &Key, grant: &Grant) {
        tracing::debug!(
            %key, owner = %grant.owner.simple(), token = grant.token,
            "granted to a waiter that has gone; given back"
        );
        let now = self.now();
        self.unfinished.add();
        self.end(
            grant.owner,
            ReleasingEntry::granted_to_none(key, grant.claim, now),
        );
    }

    /// Ends an acquire that has no grant. The caller gets what the last try said. What may
    /// have stayed at the store is cleaned up: an orphan, if the outcome of some try is
    /// unknown, or the place in the wait queue.
    fn give_up(&mut self, owner: OwnerId) {
        let Some(EntryState::Acquiring(mut acquiring)) = self.remove(owner) else {
            return;
        };
        self.leave_queue(&acquiring, false);
        let key = Arc::clone(&acquiring.request.key.lock);
        let last = acquiring.last.take().unwrap_or(Error::Closed { key });
        acquiring.answer(Err(last));
        let now = self.now();
        if acquiring.unknown.is_some() {
            self.end(owner, ReleasingEntry::orphan(&acquiring.request, now));
        } else if acquiring.queued.is_some() {
            self.end(owner, ReleasingEntry::queued(&acquiring.request, now));
        } else {
            self.count_off(owner);
        }
    }

    /// Leaves the waiters of this process. If it was the first, the next one polls in its
    /// place: at once, if a poll of a waiter that stood in the queue was `granted` the lock. The
    /// store may have lost the queue then, and with it all who wait here.
    fn leave_queue(&mut self, acquiring: &AcquiringEntry, granted_by_poll: bool) {
        let Some(arrival) = acquiring.arrival else {
            return;
        };
        let key = &acquiring.request.key.lock;
        let pause = if granted_by_poll && acquiring.queued.is_some() {
            Duration::ZERO
        } else if self.waiters.needs_polling(key) {
            backoff::poll(0)
        } else {
            backoff::queue_poll(0)
        };
        let poll_at = self.now() + pause;
        if let Some(next) = self.waiters.leave(key, arrival, poll_at) {
            self.arm_acquiring(next);
        }
    }

    /// Makes a holding of the acquire, whose lease is judged from `sent`. `false`: the
    /// lease would be over already, and nothing was changed; a caller must never be handed
    /// a lock that may be another's.
    ///
    /// The caller's answer is sent last. If the caller has gone meanwhile, the handle in it
    /// is dropped, and releases the lock (rule R6).
    fn grant(&mut self, owner: OwnerId, granted: Granted, sent: Sent) -> bool {
        let now = self.now();
        let (clock, process) = (Arc::clone(&self.parts.clock), self.process);
        let Some(EntryState::Acquiring(acquiring)) = self.state(owner) else {
            return false;
        };
        let cap = acquiring.request.at_most.map(|most| sent.at + most);
        let until = valid_until(sent.at, granted.lease);
        let until = cap.map_or(until, |cap| until.min(cap));
        if now >= until {
            return false;
        }
        let Some(mailbox) = acquiring.mailbox.upgrade() else {
            // No handle of the engine is left, so no caller waits for the lock, here or behind it.
            if let Some(EntryState::Acquiring(acquiring)) = self.remove(owner) {
                self.leave_queue(&acquiring, false);
                self.end(owner, ReleasingEntry::orphan(&acquiring.request, now));
            }
            return true;
        };
        let terms = Terms {
            key: acquiring.request.key.clone(),
            owner,
            token: granted.token,
            ttl: acquiring.request.ttl,
            remember: acquiring.request.remember,
            acquired_at: granted.at,
            since: now,
            at_least: acquiring.request.at_least,
            cap,
            identity: Arc::clone(&acquiring.request.identity),
            process,
        };
        let lease = Arc::new(Lease::new(terms, clock, sent, until));
        let waited = now.saturating_since(acquiring.since);
        tracing::debug!(
            key = %lease.key, owner = %owner.simple(), token = lease.token,
            polls = acquiring.polls, waited_ms = millis(waited), "acquired"
        );
        let held = Arc::clone(&lease);
        let holding = if granted.is_claim {
            HoldingEntry::claimed(held, sent.at, granted.lease, now, acquiring.unknown)
        } else {
            HoldingEntry::new(held, sent.at, acquiring.unknown)
        };
        let before = self.put(owner, EntryState::Holding(holding));
        self.arm_holding(owner);
        if let Some(EntryState::Acquiring(mut acquiring)) = before {
            self.leave_queue(&acquiring, !granted.is_claim);
            let held = Held::new(lease, mailbox, self.parts.store.describe(), waited);
            acquiring.answer(Ok(held));
        }
        true
    }
}

/// What an entry is granted.
struct Granted {
    token: u64,
    /// Since when, by the store's clock.
    at: SystemTime,
    lease: Duration,
    /// The store has given it unasked, for a moment only: the first heartbeat makes the lease a
    /// full one. That follows from how the grant came, and from nothing that the waiter knows.
    is_claim: bool,
}

impl Granted {
    /// By a notification, or by the answer to another's release.
    fn unasked(grant: &Grant) -> Self {
        Self {
            token: grant.token,
            at: grant.at,
            lease: grant.claim,
            is_claim: true,
        }
    }
}

/// How long a notification may take after another waiter's answer has shown its grant.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// When a queued waiter polls next: at the end of the holder's lease as far as it is known,
/// and every so often, for a notification that was lost and a holder that died. A waiter
/// far back polls less often, for the ones ahead have to go first; a holder that is no
/// AppLock process never notifies anyone, so its waiters poll as for a busy lock.
fn until_poll(place: &QueuePosition, polls: u32) -> Duration {
    let pause = if !place.is_notified {
        backoff::poll(polls) * u32::try_from(place.ahead.clamp(1, 4)).unwrap_or(4)
    } else if place.holder.is_foreign() {
        // It knows nothing of waiters, and notifies none.
        backoff::poll(polls)
    } else {
        backoff::queue_poll(place.ahead)
    };
    match place.holder.remaining() {
        Some(left) => pause.min(left + TICK),
        None => pause,
    }
}

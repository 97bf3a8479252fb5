//! What an entry of the engine is: acquiring, holding, or releasing.
//!
//! Data, and questions that it answers about itself. What happens to an entry is in
//! `acquire`, `hold` and `release`; nothing here has a timer, a table or a store. The
//! fields are those that a step has to remember for the next one: what is in flight, what
//! failed, who waits for an answer. The danger: a field that is not reset at the change of
//! state. So each state has a struct of its own, and a change makes a new one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::measures;
use crate::store::{Acquire, Grant, Notifications};

use super::backoff;
use super::lease::{Lease, Validity};
use super::lease_time::{DEFAULT_REMEMBER, Sent, heartbeat_interval};
use super::mailbox::{AcquireRequest, Held, WeakMailbox};

/// One acquisition, from the request to its end. See the [engine's page](super) for the
/// ways from one to the other.
pub(super) enum EntryState {
    // Two of the three are boxed: most entries are held locks, and those are small.
    Acquiring(Box<AcquiringEntry>),
    Holding(HoldingEntry),
    Releasing(Box<ReleasingEntry>),
}

impl EntryState {
    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::Holding(_))
    }

    /// Whether nothing is known to be held, and only a late request is watched for. A
    /// shutdown does not wait for that.
    pub(super) fn is_watch(&self) -> bool {
        matches!(self, Self::Releasing(releasing) if releasing.watch.is_some())
    }
}

/// An acquire that is in flight, stands in the wait queue, or waits for its next try.
pub(super) struct AcquiringEntry {
    pub(super) request: AcquireRequest,
    /// When the caller stops waiting; `None`: it does not wait, or waits forever.
    pub(super) deadline: Option<Moment>,
    /// Its place in the store's wait queue: a store that has lost the queue gives it back.
    pub(super) ticket: Option<u64>,
    /// `None` once the caller is answered.
    pub(super) reply: Option<oneshot::Sender<Result<Held>>>,
    pub(super) mailbox: WeakMailbox,
    pub(super) since: Moment,
    /// Its arrival number among the waiters of this process. `None`: it does not wait.
    pub(super) arrival: Option<u64>,
    pub(super) in_flight: bool,
    /// How many answers were 'busy' or 'queued': the pause before the next try grows with
    /// it.
    pub(super) polls: u32,
    pub(super) failures: u32,
    /// A try of a waiting caller has failed, a person was told of it, and the store has not
    /// answered since.
    pub(super) in_trouble: bool,
    /// The one try at once after a dead connection was made.
    pub(super) again: bool,
    /// When it tries again, whether it is the first waiter or not.
    pub(super) retry: Option<Moment>,
    /// It stands in the wait queue: when the request left that was answered so, and the
    /// store's own time of that answer. Together they translate the store's time into this
    /// process's.
    pub(super) queued: Option<(Sent, u64)>,
    /// A grant whose notification came while a request was in flight: the answer comes
    /// first.
    pub(super) notified: Option<Grant>,
    /// When a try last failed that may have been carried out unheard, or may be still.
    pub(super) unknown: Option<Moment>,
    /// What the caller gets if the deadline comes before any other answer.
    pub(super) last: Option<Error>,
}

impl AcquiringEntry {
    pub(super) fn answer(&mut self, outcome: Result<Held>) {
        if let Some(reply) = self.reply.take() {
            // A Held that no caller receives releases itself (rule R6).
            drop(reply.send(outcome));
        }
    }

    /// Whether the caller was answered, or has gone.
    pub(super) fn is_given_up(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// The request for the next try.
    pub(super) fn store_request(&self, notifications: &Notifications) -> Acquire {
        let request = &self.request;
        Acquire {
            key: request.key.clone(),
            owner: request.owner,
            ttl: request.ttl,
            remember: request.remember,
            due: request.due,
            identity: Arc::clone(&request.identity),
            notifications: request.waits().then(|| notifications.clone()),
            ticket: self.ticket,
        }
    }

    /// Whether the caller's deadline has passed.
    pub(super) fn is_late(&self, now: Moment) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// A held lock, kept by heartbeats.
pub(super) struct HoldingEntry {
    pub(super) lease: Arc<Lease>,
    /// What a heartbeat has to keep: the ttl; until the first one is answered, the shorter
    /// claim of a lock that was handed over.
    pub(super) term: Duration,
    /// When the next heartbeat is due.
    pub(super) due: Moment,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
    /// A loss is logged once.
    pub(super) loss_logged: bool,
    /// Its end has been counted.
    is_measured: bool,
    /// Callers of `verify` that the heartbeat in flight answers.
    pub(super) asking: Vec<oneshot::Sender<Result<bool>>>,
    /// Callers of `verify` that came while a heartbeat was in flight: it left before they
    /// asked, so the next one answers them.
    pub(super) asked: Vec<oneshot::Sender<Result<bool>>>,
    /// When an earlier try of its acquire failed that may come to life still.
    pub(super) unknown: Option<Moment>,
    /// Another heartbeat is wanted as soon as this one is answered.
    pub(super) again: bool,
    /// The holder let go while a heartbeat was in flight: the release leaves after its
    /// answer.
    pub(super) release: Option<Option<oneshot::Sender<Result<()>>>>,
}

/// A lock that was handed over is confirmed after so long, if it is still held: shorter
/// work needs no heartbeat at all.
const CONFIRM: Duration = Duration::from_millis(50);

impl HoldingEntry {
    pub(super) fn new(lease: Arc<Lease>, sent: Moment, unknown: Option<Moment>) -> Self {
        Self {
            term: lease.ttl,
            due: sent + backoff::jittered_interval(heartbeat_interval(lease.ttl)),
            lease,
            in_flight: false,
            failures: 0,
            loss_logged: false,
            is_measured: false,
            asking: Vec::new(),
            asked: Vec::new(),
            unknown,
            again: false,
            release: None,
        }
    }

    /// A lock that was handed over. The store has set a short claim, in case the waiter is
    /// dead; the first heartbeat confirms it, and makes the lease a full one.
    pub(super) fn claimed(
        lease: Arc<Lease>,
        sent: Moment,
        claim: Duration,
        now: Moment,
        unknown: Option<Moment>,
    ) -> Self {
        Self {
            term: claim,
            due: (now + CONFIRM).min(sent + backoff::jittered_interval(heartbeat_interval(claim))),
            ..Self::new(lease, sent, unknown)
        }
    }

    /// Counts its end, once: the holder has let go, or has lost the lease.
    pub(super) fn measure_end(&mut self) {
        if measures::ENABLED && !std::mem::replace(&mut self.is_measured, true) {
            let lease = &self.lease;
            measures::ended(lease.key.app(), lease.held_for(), lease.loss());
        }
    }

    /// Whether a heartbeat has anything to gain. A lease that reaches the cap of `at_most`
    /// cannot be moved further; a suspect one has to be confirmed nevertheless.
    pub(super) fn wants_heartbeat(&self, now: Moment) -> bool {
        if self.lease.is_capped() {
            self.lease.validity_at(now) == Validity::Suspect
        } else {
            self.lease.is_valid_at(now)
        }
    }

    /// How much too early a heartbeat may leave to travel with others: a tenth of its
    /// interval.
    pub(super) fn earliness(&self) -> Duration {
        heartbeat_interval(self.term) / 10
    }

    /// Whether the next heartbeat may leave now, with others. One that failed keeps its
    /// pause: it must not be drawn into a storm.
    pub(super) fn may_leave_at(&self, now: Moment) -> bool {
        let soon = now + self.earliness();
        !self.in_flight && self.failures == 0 && soon >= self.due && self.wants_heartbeat(now)
    }
}

/// How long a request may still arrive after its connection was given up: an orphan is
/// released again and again until then.
///
/// Longer than the kernel goes on sending what a connection has not acknowledged
/// (`TCP_USER_TIMEOUT`, four seconds).
pub(super) const ORPHAN_WATCH: Duration = Duration::from_secs(5);

/// A held lock, a place in the wait queue, or an orphan, on its way out.
pub(super) struct ReleasingEntry {
    pub(super) key: Key,
    /// For how long its holding is remembered.
    pub(super) remember: Duration,
    /// `None` for an orphan.
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) reply: Option<oneshot::Sender<Result<()>>>,
    /// The loss that the holder gets as its answer instead of 'released'.
    pub(super) lost: Option<Error>,
    /// One answer ends it, whatever it is: it is nothing but a place in the wait queue, or a
    /// release that was answered before.
    pub(super) any_answer_ends_it: bool,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
    /// An earlier release of it may have been carried out, and its answer lost.
    pub(super) unknown: bool,
    /// The ttl has freed the lock by then: no try is needed any more.
    pub(super) until: Moment,
    /// An orphan that the store does not know (yet) is released again until then.
    pub(super) watch: Option<Moment>,
    /// Until then an earlier try of its acquire may still arrive, and take the lock anew.
    pub(super) late_acquire_until: Option<Moment>,
    /// It was answered before, by a server that another one has replaced.
    pub(super) was_answered: bool,
    /// Another server has come to serve the lock, and has not answered yet.
    pub(super) has_moved: bool,
    /// The request in flight left before that.
    pub(super) left_before: bool,
}

impl ReleasingEntry {
    /// A release that leaves now, for the first time, and that nobody waits for.
    fn new(key: Key, remember: Duration, until: Moment) -> Self {
        Self {
            key,
            remember,
            lease: None,
            reply: None,
            lost: None,
            any_answer_ends_it: false,
            in_flight: true,
            failures: 0,
            unknown: false,
            until,
            watch: None,
            late_acquire_until: None,
            was_answered: false,
            has_moved: false,
            left_before: false,
        }
    }

    /// A held lock that its holder lets go.
    pub(super) fn held(
        lease: Arc<Lease>,
        reply: Option<oneshot::Sender<Result<()>>>,
        now: Moment,
        unknown: Option<Moment>,
    ) -> Self {
        let entry = Self::new(lease.key.clone(), lease.remember, now + lease.ttl);
        Self {
            lost: lease.lost_error(),
            lease: Some(lease),
            reply,
            late_acquire_until: unknown.map(|at| at + ORPHAN_WATCH).filter(|end| *end > now),
            ..entry
        }
    }

    /// An acquire whose outcome is unknown.
    pub(super) fn orphan(request: &AcquireRequest, now: Moment) -> Self {
        let until = now + request.ttl + ORPHAN_WATCH;
        Self::new(request.key.clone(), request.remember, until)
    }

    /// A lock that was granted to an owner that no entry is of.
    pub(super) fn granted_to_none(key: &Key, claim: Duration, now: Moment) -> Self {
        Self {
            any_answer_ends_it: true,
            ..Self::new(key.clone(), DEFAULT_REMEMBER, now + claim)
        }
    }

    /// A waiter that leaves the wait queue. If it was granted the lock meanwhile, the store
    /// hands that on.
    pub(super) fn queued(request: &AcquireRequest, now: Moment) -> Self {
        Self {
            any_answer_ends_it: true,
            ..Self::orphan(request, now)
        }
    }

    /// When nothing is tried any more.
    pub(super) fn end(&self) -> Moment {
        self.watch.map_or(self.until, |watch| watch.min(self.until))
    }

    /// The same release once more: another server serves the lock, and may lack what the one
    /// before it has answered.
    pub(super) fn again(self) -> Self {
        Self {
            lease: self.lease,
            any_answer_ends_it: true,
            was_answered: true,
            ..Self::new(self.key, self.remember, self.until)
        }
    }

    pub(super) fn answer(&mut self, outcome: Result<()>) {
        if let Some(reply) = self.reply.take() {
            let outcome = match self.lost.take() {
                Some(lost) => Err(lost),
                None => outcome,
            };
            // A caller that stopped waiting does not mind.
            let _ = reply.send(outcome);
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::super::lease::tests::lease;
    use super::*;
    use crate::clock::ManualClock;
    use crate::measures::told::Told;

    #[test]
    fn the_end_of_a_holding_is_counted_once() {
        let clock = ManualClock::new();
        let lease = Arc::new(lease(&clock, Duration::from_secs(10)));
        let now = crate::clock::Clock::now(&clock);
        let mut holding = HoldingEntry::new(lease, now, None);
        let told = Told::default();
        metrics::with_local_recorder(&told, || holding.measure_end());
        assert_eq!(told.take(), ["applock_held_seconds"]);
        metrics::with_local_recorder(&told, || holding.measure_end());
        assert!(told.take().is_empty());
    }
}

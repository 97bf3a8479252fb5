//! What an entry of the engine is: an acquire, a holding, or a release.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::store::{Acquire, Grant, Notifications};

use super::backoff;
use super::lease::{Lease, Validity};
use super::lease_time::{Sent, heartbeat_interval};
use super::mailbox::{AcquireRequest, Held, WeakMailbox};

/// One acquisition, from the request to its end.
pub(super) enum EntryState {
    // The others are in boxes: most are held, and that is small.
    Acquiring(Box<AcquiringEntry>),
    Holding(HoldingEntry),
    Releasing(Box<ReleasingEntry>),
}

/// An acquire that is in flight, stands in the wait queue, or waits for its next try.
pub(super) struct AcquiringEntry {
    pub(super) request: AcquireRequest,
    /// When the caller stops waiting; `None`: it does not wait, or waits forever.
    pub(super) deadline: Option<Moment>,
    /// Its place in the store's wait queue: a store that has lost the queue gives it back.
    pub(super) ticket: Option<u64>,
    /// `None` once the caller was told.
    pub(super) reply: Option<oneshot::Sender<Result<Held>>>,
    pub(super) mailbox: WeakMailbox,
    pub(super) since: Moment,
    /// Its arrival among those of this process who wait.
    pub(super) arrival: Option<u64>,
    pub(super) in_flight: bool,
    pub(super) polls: u32,
    pub(super) failures: u32,
    /// The one try at once after a dead connection was made.
    pub(super) again: bool,
    /// When it asks again, whether it is the first in line or not.
    pub(super) retry: Option<Moment>,
    /// It stands in line: when the request left that was answered so, and when the store
    /// answered, by its own clock.
    pub(super) queued: Option<(Sent, u64)>,
    /// A grant that was told while a question was in flight.
    pub(super) notified: Option<Grant>,
    /// When a try last failed that may have been carried out unheard, or may be still.
    pub(super) unknown: Option<Moment>,
    pub(super) last: Option<Error>,
}

impl AcquiringEntry {
    pub(super) fn answer(&mut self, outcome: Result<Held>) {
        if let Some(reply) = self.reply.take() {
            // A Held that nobody receives releases itself (rule R6).
            drop(reply.send(outcome));
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// The request for the next try.
    pub(super) fn store_request(&self, notices: &Notifications) -> Acquire {
        let request = &self.request;
        Acquire {
            key: request.key.clone(),
            owner: request.owner,
            ttl: request.ttl,
            identity: Arc::clone(&request.identity),
            line: request.waits().then(|| notices.clone()),
            ticket: self.ticket,
        }
    }

    pub(super) fn is_late(&self, now: Moment) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// A lock that is held, and whose heart is kept beating.
pub(super) struct HoldingEntry {
    pub(super) lease: Arc<Lease>,
    /// What a heartbeat has to keep: the ttl, or until the first one the claim of a lock
    /// that was handed over.
    pub(super) term: Duration,
    /// When the next heartbeat is due.
    pub(super) due: Moment,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
    pub(super) loss_logged: bool,
    /// Who asked the store, and is answered by the heartbeat in flight.
    pub(super) asking: Vec<oneshot::Sender<Result<bool>>>,
    /// Who asked while a heartbeat was in flight: answered by the next one.
    pub(super) asked: Vec<oneshot::Sender<Result<bool>>>,
    /// When an earlier try of its acquire failed that may come to life still.
    pub(super) unknown: Option<Moment>,
    /// Another heartbeat is wanted as soon as this one is answered.
    pub(super) again: bool,
    /// Its holder let go while a heartbeat was in flight.
    pub(super) release: Option<Option<oneshot::Sender<Result<()>>>>,
}

/// A lock that was handed over is confirmed after so long, if it is held still: a shorter
/// work spares the command.
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
            asking: Vec::new(),
            asked: Vec::new(),
            unknown,
            again: false,
            release: None,
        }
    }

    /// A lock that was handed over, and has to be confirmed.
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

    /// Whether there is anything to ask the store for. Where the lease reaches the cap of
    /// `at_most` nothing more can be gained, unless it has to be confirmed.
    pub(super) fn wants_heartbeat(&self) -> bool {
        self.wants_heartbeat_if(self.lease.validity())
    }

    pub(super) fn wants_heartbeat_if(&self, validity: Validity) -> bool {
        match validity {
            Validity::Valid => !self.lease.is_capped(),
            Validity::Suspect => true,
            Validity::Over => false,
        }
    }

    /// How much too early a heartbeat may leave with others: a tenth of its interval.
    pub(super) fn earliness(&self) -> Duration {
        heartbeat_interval(self.term) / 10
    }

    /// Whether the next heartbeat may leave now with others. One that failed keeps its
    /// pause.
    pub(super) fn may_leave_at(&self, now: Moment) -> bool {
        let soon = now + self.earliness();
        !self.in_flight && self.failures == 0 && soon >= self.due && self.wants_heartbeat()
    }
}

/// How long a command may come to life after its connection was given up: a release
/// that found nothing is repeated until then.
///
/// Longer than the kernel goes on sending what a connection has not acknowledged
/// (`TCP_USER_TIMEOUT`, four seconds).
pub(super) const ORPHAN_WATCH: Duration = Duration::from_secs(5);

/// A holding, or the orphan of one, on its way out.
pub(super) struct ReleasingEntry {
    pub(super) key: Key,
    /// `None` for an orphan.
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) reply: Option<oneshot::Sender<Result<()>>>,
    /// What its holder is told rather than 'released'.
    pub(super) lost: Option<Error>,
    /// Nothing but a place in line: whatever the answer, it is over.
    pub(super) is_queue_place: bool,
    pub(super) in_flight: bool,
    pub(super) failures: u32,
    /// A release of it may have been carried out unheard.
    pub(super) unknown: bool,
    /// By then the ttl has freed it.
    pub(super) until: Moment,
    /// An orphan that was not there is released again until then.
    pub(super) watch: Option<Moment>,
    /// Until when an earlier try of its acquire may come to life, after its release.
    pub(super) late_acquire_until: Option<Moment>,
}

impl ReleasingEntry {
    /// Of a lock that its holder lets go.
    pub(super) fn held(
        lease: Arc<Lease>,
        reply: Option<oneshot::Sender<Result<()>>>,
        now: Moment,
        unknown: Option<Moment>,
    ) -> Self {
        Self {
            key: lease.key.clone(),
            lost: lease.lost_error(),
            is_queue_place: false,
            until: now + lease.ttl,
            lease: Some(lease),
            reply,
            in_flight: true,
            failures: 0,
            unknown: false,
            watch: None,
            late_acquire_until: unknown.map(|at| at + ORPHAN_WATCH).filter(|end| *end > now),
        }
    }

    /// Of an acquire that may have been carried out unheard.
    pub(super) fn orphan(request: &AcquireRequest, now: Moment) -> Self {
        Self {
            key: request.key.clone(),
            lease: None,
            reply: None,
            lost: None,
            is_queue_place: false,
            in_flight: true,
            failures: 0,
            unknown: false,
            until: now + request.ttl + ORPHAN_WATCH,
            watch: None,
            late_acquire_until: None,
        }
    }

    /// Of one who leaves the line. If it was granted the lock meanwhile, that goes on.
    pub(super) fn queued(request: &AcquireRequest, now: Moment) -> Self {
        Self {
            is_queue_place: true,
            ..Self::orphan(request, now)
        }
    }

    /// Only watched for what may come to life: nothing that is known to be held.
    pub(super) fn is_watch(&self) -> bool {
        self.watch.is_some()
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

//! What the engine asks of a store, and what a store answers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::info::{LastHolding, LockInfo};
use crate::key::Key;
use crate::protocol::{Due, Outcome};

use super::error::StoreError;

/// Unique to one acquisition (rule R6).
pub(crate) type OwnerId = uuid::Uuid;

/// Who we are: written beside every lock that we take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) instance: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
}

/// Who ends a holding by force, and why. No holder's or waiter's identity has a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) identity: Arc<Identity>,
    /// In a person's words; may be empty.
    pub(crate) reason: String,
}

#[cfg(test)]
impl By {
    pub(crate) fn of_a_test() -> Arc<Self> {
        Arc::new(Self {
            identity: Arc::new(Identity {
                instance: "ops".to_owned(),
                host: "db9".to_owned(),
                pid: 7,
            }),
            reason: "db3 is \"off\"".to_owned(),
        })
    }
}

/// The ids that were made for this process, and before a fork for the process it was forked off.
static INSTANCES: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// 16 random digits.
pub(crate) fn random_id() -> String {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    format!("{:016x}", high ^ low)
}

impl Identity {
    /// An id that is unique to this process: one for all its lockers.
    pub(crate) fn instance_of_this_process() -> String {
        let pid = std::process::id();
        let mut known = INSTANCES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, id)) = known.iter().find(|(of, _)| *of == pid) {
            return id.clone();
        }
        // Short, for owner ids begin with it.
        let id = random_id();
        known.push((pid, id.clone()));
        id
    }

    /// The same for a process that was forked off. A name that a person gave stays.
    pub(crate) fn forked(&self) -> Self {
        let known = INSTANCES.lock().unwrap_or_else(PoisonError::into_inner);
        let is_name = known.iter().all(|(_, id)| *id != self.instance);
        drop(known);
        Self {
            instance: match is_name {
                true => self.instance.clone(),
                false => Self::instance_of_this_process(),
            },
            host: self.host.clone(),
            pid: std::process::id(),
        }
    }
}

/// A request to take one lock.
#[derive(Clone, Debug)]
pub(crate) struct Acquire {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    pub(crate) ttl: Duration,
    /// For how long the holding is remembered after its end.
    pub(crate) remember: Duration,
    /// What an earlier run forbids.
    pub(crate) due: Option<Due>,
    /// The same for all of a batch: they come from one engine.
    pub(crate) identity: Arc<Identity>,
    /// If the lock is busy, the request waits in the store's queue, and the store notifies
    /// the engine of its grant here. `None`: busy is an answer.
    pub(crate) notifications: Option<Notifications>,
    /// The place that the waiter had in the queue: a store that has lost the queue gives it
    /// back.
    pub(crate) ticket: Option<u64>,
}

/// The answer to an [`Acquire`].
#[derive(Clone, Debug)]
pub(crate) enum Acquired {
    /// The caller holds it, with this fencing token, since this time of the store's clock.
    Granted { token: u64, at: SystemTime },
    /// Another owner holds it, or a waiter is before the caller.
    Busy(LockInfo),
    /// Another owner holds it, and the request waits in the queue.
    Queued(QueuePosition),
    /// An earlier run forbids it, whether the lock is free or not.
    AlreadyRan(LastHolding),
}

/// A waiter's place in the wait queue of a lock.
#[derive(Clone, Debug)]
pub(crate) struct QueuePosition {
    pub(crate) holder: LockInfo,
    /// How many waiters are before it.
    pub(crate) ahead: u64,
    /// When the store answered, in microseconds of its own clock.
    pub(crate) at: u64,
    /// This request has joined the queue; a poll finds the waiter there.
    pub(crate) is_new: bool,
    /// What its place goes by: a store that has lost its queue, or has dropped the waiter, gives
    /// it the place back. `None`: the one that the request brought.
    pub(crate) ticket: Option<u64>,
    /// Whether the store will notify the waiter of its grant. If not, only a poll finds it.
    pub(crate) is_notified: bool,
}

/// Where a store notifies one engine of what happens to its waiters.
pub(crate) type Notifications = mpsc::UnboundedSender<Notification>;

/// What a store says unasked. Only ever a hint: a poll finds what a lost notification said.
#[derive(Clone)]
pub(crate) enum Notification {
    /// A waiter was granted that lock.
    Granted(Key, Grant),
    /// Grants are notified from now on, or no longer: each waiter has to poll, for a grant
    /// in between may have reached nobody.
    Poll,
    /// Another server serves those locks from now on, and may lack what was written last: each
    /// holder has to ask whether it holds its lock still, each waiter has to poll, and each late
    /// release has to be sent again.
    Moved(HasMoved),
}

/// Whether a lock is one of those that another server serves.
pub(crate) type HasMoved = Arc<dyn Fn(&Key) -> bool + Send + Sync>;

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(key, grant) => f.debug_tuple("Granted").field(key).field(grant).finish(),
            Self::Poll => f.write_str("Poll"),
            Self::Moved(_) => f.write_str("Moved"),
        }
    }
}

/// A lock that was handed to a waiter.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) owner: OwnerId,
    pub(crate) token: u64,
    /// Since when it is held, by the store's clock.
    pub(crate) at: SystemTime,
    /// The same in microseconds, of the clock that [`QueuePosition::at`] goes by.
    pub(crate) micros: u64,
    /// The lease it begins with: the first heartbeat makes it a full one.
    pub(crate) claim: Duration,
    /// The store does not know whether the server that granted it is the one that it spoke to before,
    /// or whether the grant would outlast the loss of that server: the waiter has to ask, and has the
    /// lock by the answer only.
    pub(crate) needs_proof: bool,
}

/// One heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Renew {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    /// For the log.
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
    /// For how long the holding is remembered after its end.
    pub(crate) remember: Duration,
}

/// The end of one holding.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    /// For the log; unknown of an acquire that was never answered.
    pub(crate) token: Option<u64>,
    /// For how long the holding is remembered after its end.
    pub(crate) remember: Duration,
    /// How the run under it has ended.
    pub(crate) outcome: Outcome,
    /// Keep the lock taken for so long still (`at_least`), without a heartbeat.
    pub(crate) keep: Option<Duration>,
}

/// The answer to a [`Release`].
#[derive(Clone, Debug)]
pub(crate) struct Released {
    /// `false`: not held by that owner (any more).
    pub(crate) ended: bool,
    /// The lock went to a waiter of the same engine. This answer is its only notification.
    pub(crate) next: Option<Grant>,
}

impl From<bool> for Released {
    fn from(ended: bool) -> Self {
        Self { ended, next: None }
    }
}

/// What stands at a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) holder: Option<LockInfo>,
    pub(crate) last: Option<LastHolding>,
    /// The newest that ended well: `last`, or one before it.
    pub(crate) success: Option<LastHolding>,
    /// Something else stands where the store keeps the two, so that nothing is known of them: not
    /// 'none' (rule R9). What it is, for a person.
    pub(crate) unreadable: Option<StoreError>,
}

/// The lease of a waiter that was granted a lock and has not confirmed it.
#[cfg(test)]
pub(crate) const CLAIM: Duration = Duration::from_nanos(crate::protocol::Timing::NANOS.claim);

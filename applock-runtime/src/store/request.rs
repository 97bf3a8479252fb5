//! What the engine asks of a store, and what a store answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::info::{LastHolding, LockInfo};
use crate::key::Key;

/// Unique to one acquisition (rule R6).
pub(crate) type OwnerId = uuid::Uuid;

/// Who we are: written beside every lock that we take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) instance: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
}

/// The wish to take one lock.
#[derive(Clone, Debug)]
pub(crate) struct Acquire {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    pub(crate) ttl: Duration,
    /// The same for all of a batch: they come from one engine.
    pub(crate) identity: Arc<Identity>,
    /// If it is busy, stand in line, and tell of the grant here. `None`: busy is an
    /// answer.
    pub(crate) line: Option<Notifications>,
    /// The place that it had in line: if the store has lost it, it gets it back.
    pub(crate) ticket: Option<u64>,
}

/// The answer to an [`Acquire`].
#[derive(Clone, Debug)]
pub(crate) enum Acquired {
    /// It is ours, with this fencing token, since this time of the store's clock.
    Granted { token: u64, at: SystemTime },
    /// Somebody else holds it, or is the next to.
    Busy(LockInfo),
    /// Somebody else holds it, and the wish stands in line.
    Queued(QueuePosition),
}

/// A place in the line of those who wait for a lock.
#[derive(Clone, Debug)]
pub(crate) struct QueuePosition {
    pub(crate) holder: LockInfo,
    /// How many stand before it.
    pub(crate) ahead: u64,
    /// When the store looked, in microseconds of its own clock.
    pub(crate) at: u64,
    /// It did not stand in line before.
    pub(crate) is_new: bool,
    /// What its place goes by, where the store may lose a line and told it this time.
    pub(crate) ticket: Option<u64>,
    /// Whether a grant will be told. If not, only asking again finds it.
    pub(crate) is_notified: bool,
}

/// Where a store tells of what happens to those of one engine who stand in line.
pub(crate) type Notifications = mpsc::UnboundedSender<Notification>;

/// What a store tells unasked. Only ever a hint: what is not told is found by asking
/// again.
#[derive(Clone, Debug)]
pub(crate) enum Notification {
    /// One who stood in line has the lock.
    Granted(Grant),
    /// From now on grants are told, or are not told any more: ask again.
    Poll,
}

/// A lock that was handed to one who stood in line.
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
}

/// One heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Renew {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    /// For the log.
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
}

/// The end of one holding.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    /// For the log; unknown of an acquire that was never answered.
    pub(crate) token: Option<u64>,
    /// Keep the lock taken for so long still (`at_least`), without a heartbeat.
    pub(crate) keep: Option<Duration>,
}

/// The answer to a [`Release`].
#[derive(Clone, Debug)]
pub(crate) struct Released {
    /// `false`: not held by that owner (any more).
    pub(crate) ended: bool,
    /// The lock went to a waiter of the same engine, who is told here and nowhere else.
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
}

/// The lease of a waiter that was granted a lock and has not confirmed it.
#[cfg(test)]
pub(crate) const CLAIM: Duration = Duration::from_nanos(crate::protocol::Timing::NANOS.claim);

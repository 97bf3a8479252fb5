//! What the protocol is asked, and what it answers.

use super::timing::StoreTime;

/// Unique to one acquisition (rule R6): 128 random bits.
pub(crate) type Owner = u128;

/// A process that waits, or rather an engine in it: what is notified, falls silent, and dies.
pub(crate) type Process = u128;

/// A request to take the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Requester<W> {
    pub(crate) owner: Owner,
    pub(crate) process: Process,
    pub(crate) ttl: u64,
    /// For how long the holding is remembered after its end.
    pub(crate) remember: u64,
    pub(crate) who: W,
}

/// What becomes of a request that can't be granted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenBusy {
    /// It is refused.
    Refuse,
    /// It waits in the queue.
    Wait {
        /// The ticket of a place that it had, if the store has lost that.
        ticket: Option<u64>,
        /// Whether its process can be notified.
        listens: bool,
    },
}

/// The answer to an acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is the requester's, with a full lease: [`LockState::newest`](super::LockState).
    Granted,
    /// Another has it: [`LockState::newest`](super::LockState).
    Busy,
    /// Another has it, and the request stands in the queue.
    Queued {
        /// How many stand before it.
        ahead: usize,
        /// What its place goes by.
        ticket: u64,
        /// Whether it did not stand there before.
        is_new: bool,
    },
}

/// A grant that a waiter did not ask for at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Granted {
    pub(crate) owner: Owner,
    pub(crate) token: u64,
    pub(crate) acquired: StoreTime,
    /// The lease that it begins with.
    pub(crate) claim: u64,
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `false`: not held by that owner (any more), and nothing was released (rule R7).
    pub(crate) ended: bool,
    /// The lock went to a waiter of the releasing process: this answer is its only
    /// notification.
    pub(crate) granted: Option<Granted>,
}

/// The fencing tokens of this lock are used up: the next would not survive a double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokensUsedUp;

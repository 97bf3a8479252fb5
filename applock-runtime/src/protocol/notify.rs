//! How a store reaches a waiter with its grant.

use super::request::Granted;
use super::wait_queue::Waiter;

/// Reaches the process of a waiter. It is asked before the grant is committed: what it
/// answers decides whether there is one.
pub(crate) trait Notify<W> {
    /// Tries to tell `waiter` of `grant`.
    fn reach(&mut self, waiter: &Waiter<W>, grant: &Granted) -> Reach;
}

/// What came of it.
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "subscriptions that break are answered so: the Redis scripts', and the model's"
    )
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The process was notified, or may have been: the lock is the waiter's.
    Notified,
    /// Its subscription may be on its way back, as after a restart of the store: the lock is
    /// kept for the waiter so long, and found by its next poll.
    MayReturn {
        /// In the unit of the [`Timing`](super::Timing).
        within: u64,
    },
    /// No client subscribes to its channel now, or its process has ended.
    Unreachable,
}

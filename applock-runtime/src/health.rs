//! How a locker is, as far as it knows without asking anybody: what a probe reads.

use std::time::Duration;

/// How a locker is, without any I/O: see [`AppLocker::health`](crate::AppLocker::health).
///
/// ```
/// # let locker = applock::AppLocker::in_memory();
/// let _guard = locker.lock("reports").acquire_blocking()?;
/// let health = locker.health();
/// assert!(health.is_alive && health.is_ready());
/// assert_eq!((health.held, health.waiting), (1, 0));
/// assert!(health.smallest_margin.is_some());
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether the locker's background thread answers, or is not needed yet. `false`: it stands
    /// still (a clock, a log subscriber or a waker that blocks it, no CPU time), and no heartbeat
    /// leaves.
    pub is_alive: bool,
    /// Whether the store has answered the last command; that it refused a right is an answer.
    /// `None`: none was sent yet.
    pub store_is_up: Option<bool>,
    /// How long ago the store last answered. While a lock is held that is a third of its ttl at the
    /// most; a locker without a lock asks nothing.
    pub last_answer_age: Option<Duration>,
    /// How many locks are held; one that was lost counts until its holder lets go.
    pub held: usize,
    /// How many calls ask for a lock or wait for one.
    pub waiting: usize,
    /// How long until the first of the held leases ends if no heartbeat is answered: two thirds of
    /// the ttl or more while all is well. Zero: one is over. `None`: nothing is held.
    pub smallest_margin: Option<Duration>,
    /// Whether a drain or a shutdown has begun: no more locks are taken.
    pub is_closed: bool,
}

impl Health {
    /// Of a locker whose thread was not needed yet.
    pub(crate) const IDLE: Self = Self {
        is_alive: true,
        store_is_up: None,
        last_answer_age: None,
        held: 0,
        waiting: 0,
        smallest_margin: None,
        is_closed: false,
    };

    /// Whether a call for a lock has a chance: the thread is alive, the store did not fail last, and
    /// no drain has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_alive && self.store_is_up != Some(false) && !self.is_closed
    }
}

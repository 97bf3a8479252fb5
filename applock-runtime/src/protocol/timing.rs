//! The store's time, and the protocol's constants.

/// One reading of the store's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct StoreTime {
    /// By this leases run and silences are measured: a clock that does not jump, where the
    /// store has one. In the unit of the [`Timing`].
    pub(crate) at: u64,
    /// Microseconds since 1970 by the store's wall clock: what fencing tokens and tickets
    /// are made of.
    pub(crate) micros: u64,
}

/// How long the protocol waits for what. All lengths in one unit, the caller's choice, which
/// is also that of [`StoreTime::at`] and of every ttl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Timing {
    /// The longest lease of a waiter that was granted a lock unasked, until its first
    /// heartbeat confirms it.
    pub(crate) claim: u64,
    /// A process that can't be notified, and has not polled for longer, is out of reach.
    pub(crate) silence: u64,
    /// A queue that no waiter has polled for so long is forgotten.
    pub(crate) queue_life: u64,
    /// How long a store that has just restarted keeps a lock for a waiter whose subscription
    /// may be on its way back.
    pub(crate) grace: u64,
}

impl Timing {
    /// In milliseconds: what the scripts of the Redis store go by.
    pub(crate) const MILLIS: Self = Self {
        claim: 3_000,
        silence: 3_000,
        queue_life: 45_000,
        grace: 500,
    };

    /// The same in nanoseconds.
    pub(crate) const NANOS: Self = Self::MILLIS.times(1_000_000);

    const fn times(self, units: u64) -> Self {
        Self {
            claim: self.claim * units,
            silence: self.silence * units,
            queue_life: self.queue_life * units,
            grace: self.grace * units,
        }
    }
}

/// The largest fencing token: the largest integer that survives a double, and with it Lua
/// and JSON.
pub(crate) const MAX_TOKEN: u64 = (1 << 53) - 1;

//! What applock and the keeper tell each other: a line of JSON each, over a socket.

use applock_runtime::LockGuard;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToKeeper {
    /// The lock is held.
    Start(Start),
    /// The lease counts until then, by [`now`].
    Lease(u64),
    /// To the command's group.
    Signal(i32),
    /// The terminal's Ctrl-Z.
    Pause,
    Continue,
    /// The lock is not ours any more.
    Lost,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) token: u64,
    pub(super) key: String,
    pub(super) owner: String,
    pub(super) lease_end: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromKeeper {
    Started {
        pid: i32,
    },
    NotStarted {
        code: u8,
        text: String,
    },
    /// The command, and what it has left behind.
    Ended {
        code: u8,
        /// The keeper has seen the end of the lease.
        is_lost: bool,
        /// Some processes did not die by KILL.
        survivors: bool,
    },
}

/// Nanoseconds of a clock that both processes see, and that counts suspend where there is one.
pub(super) fn now() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let rest = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// When the lease ends, by that clock. R1: the clock is read first, so it is never too late.
pub(super) fn lease_end(guard: &LockGuard) -> u64 {
    let now = now();
    let left = u64::try_from(guard.remaining().as_nanos()).unwrap_or(u64::MAX);
    now.saturating_add(left)
}

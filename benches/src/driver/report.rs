//! The report of a driver, and the clock that all drivers share.

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// From held to released in ns of `CLOCK_MONOTONIC`, and the number of the worker.
pub(crate) type Section = (u64, u64, u32);

/// The one line of JSON at a driver's end. Scripts leave out a part.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// The library.
    pub(crate) peer: String,
    /// Of a script's library. The bench knows those of the crates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Acquire and release, so often.
    pub(crate) cycles: u64,
    /// A quarter of the cycles of one caller took no longer, in µs.
    pub(crate) quarter: f64,
    /// In so much time.
    pub(crate) seconds: f64,
    /// Of all workers, in any order.
    pub(crate) sections: Vec<Section>,
    /// Processor time of this process while it held, or while one caller went through its cycles.
    pub(crate) cpu_seconds: f64,
    /// By how much its memory grew until it held.
    pub(crate) bytes: u64,
    /// Why the library can't do this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unsupported: Option<String>,
}

impl Report {
    /// Prints it.
    pub(crate) fn tell(mut self, peer: &str) -> Result<()> {
        peer.clone_into(&mut self.peer);
        super::say(&serde_json::to_string(&self)?)
    }
}

/// `CLOCK_MONOTONIC` in ns, the same in every process of the machine.
pub(crate) fn monotonic() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The processor time of this process in seconds.
pub(super) fn processor_time() -> f64 {
    nanoseconds(ClockId::ProcessCPUTime) as f64 / 1e9
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

//! On which cores the server and a driver run: the same one, or one each. Left to the
//! kernel, a run has now the one and now the other, and its figures with it.

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::support::redis::RedisServer;

/// Where the two run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Both on the first core.
    OneCore,
    /// The server on the first core, the driver on the last.
    TwoCores,
}

/// Pins the server and this thread, and with it the drivers that it starts, until it is
/// dropped.
pub(crate) struct Pinned {
    server: Pid,
    before: CpuSet,
}

impl Pinned {
    /// Pins both. An error where the placement needs more cores than there are.
    pub(crate) fn to(placement: Placement, server: &RedisServer) -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core));
        let first = cores.next().context("no core")?;
        let driver = match placement {
            Placement::OneCore => first,
            Placement::TwoCores => cores.next_back().context("there is but one core")?,
        };
        let pid = i32::try_from(server.info("process_id"))?;
        let server = Pid::from_raw(pid).context("the server has no process id")?;
        // Restores what it has changed if the second step fails.
        let pinned = Self { server, before };
        sched_setaffinity(Some(server), &only(first))?;
        sched_setaffinity(None, &only(driver))?;
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for process in [None, Some(self.server)] {
            if let Err(error) = sched_setaffinity(process, &self.before) {
                eprintln!("  still pinned: {error}");
            }
        }
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

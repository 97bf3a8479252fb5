//! The measurements. Each is a file; what they share is here.

mod counts;
mod crowd;
mod cycle;
mod hand_over;
mod held;
mod herd;
mod race;
mod replay;
mod scale;
mod server;

use anyhow::Result;

use crate::commands::Commands;
use crate::options;
use crate::peers::{Contestant, Role};
use crate::plot::Curve;
use crate::report::{Goal, Table};
use crate::support::redis::RedisServer;

/// The names of what others are compared with, and of ours.
const BASELINE: &str = "by hand";
const LIMIT: &str = "limit, by hand";
const OURS: &str = "applock";

/// What became of the contestant of this name.
fn by_name<'a, T>(
    bench: &Bench,
    outcomes: &'a [race::Outcome<T>],
    name: &str,
) -> Option<&'a race::Outcome<T>> {
    outcomes
        .iter()
        .find(|one| bench.contestants[one.who].name == name)
}

/// What the measurements are done with.
pub(crate) struct Bench {
    /// Used by the bench alone.
    pub(crate) server: RedisServer,
    /// What was sent to it.
    pub(crate) commands: Commands,
    /// What is measured.
    pub(crate) contestants: Vec<Contestant>,
    /// How long, and how often.
    pub(crate) plan: Plan,
}

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Where nobody waits.
    pub(crate) turns: Turns,
    /// From one process to another.
    pub(crate) hand_overs: Turns,
    /// In a crowd.
    pub(crate) crowd_turns: Turns,
    /// Seconds of uncontended cycles in a round.
    pub(crate) cycles: f64,
    /// Seconds of contention in a round.
    pub(crate) slice: f64,
    /// Numbers of workers in one process.
    pub(crate) crowds: &'static [u32],
    /// Those of them that the peers are spared.
    pub(crate) ours_alone: &'static [u32],
    /// Locks held at a time.
    pub(crate) held: u32,
    /// Seconds for which they are held.
    pub(crate) held_for: f64,
    /// Waiters for one lock.
    pub(crate) herd: u32,
    /// Numbers of locks held, of applock alone.
    pub(crate) held_scale: &'static [u32],
    /// Numbers of waiters for one lock, of applock alone.
    pub(crate) waiters_scale: &'static [u32],
}

impl Plan {
    /// What the command line asks for.
    pub(crate) fn of(options: &options::Bench) -> Self {
        let full = Self {
            turns: Turns { ours: 9, peers: 9 },
            hand_overs: Turns { ours: 9, peers: 2 },
            crowd_turns: Turns { ours: 3, peers: 1 },
            cycles: 0.15,
            slice: 1.0,
            crowds: &[2, 4, 8, 16, 32, 64, 128],
            ours_alone: &[4, 32],
            held: 10_000,
            held_for: 10.0,
            herd: 1_000,
            held_scale: &[100, 1_000, 10_000, 100_000],
            waiters_scale: &[10, 100, 1_000, 10_000],
        };
        let quick = Self {
            turns: Turns { ours: 3, peers: 1 },
            hand_overs: Turns { ours: 2, peers: 1 },
            crowd_turns: Turns { ours: 1, peers: 1 },
            cycles: 0.1,
            slice: 0.5,
            crowds: &[2, 16, 128],
            ours_alone: &[],
            held: 2_000,
            held_for: 4.0,
            herd: 200,
            held_scale: &[100, 1_000],
            waiters_scale: &[10, 100],
        };
        let mut plan = if options.quick { quick } else { full };
        if let Some(seconds) = options.seconds {
            plan.slice = seconds;
        }
        plan
    }
}

/// How many rounds there are, and of how many of them one is a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    ours: usize,
    peers: usize,
}

impl Turns {
    /// One round of all.
    pub(crate) const ONE: Self = Self { ours: 1, peers: 1 };

    fn of(self, who: &Contestant) -> usize {
        match who.role {
            Role::Peer => self.peers,
            _ => self.ours,
        }
    }
}

/// What one measurement found.
#[derive(Default)]
pub(crate) struct Found {
    /// For all to see.
    pub(crate) tables: Vec<Table>,
    /// Beside what was aimed at.
    pub(crate) goals: Vec<Goal>,
    /// To be drawn.
    pub(crate) curves: Vec<Curve>,
}

/// One of the measurements.
pub(crate) struct Measurement {
    /// For `--only`.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) what: &'static str,
    /// How.
    pub(crate) run: fn(&mut Bench) -> Result<Found>,
}

/// All of them, in order.
pub(crate) const ALL: &[Measurement] = &[
    Measurement {
        name: "cycle",
        what: "acquire and release, one caller; by hand, and annotated",
        run: cycle::one_caller,
    },
    Measurement {
        name: "keys",
        what: "acquire and release, 64 callers on 64 keys",
        run: cycle::many_keys,
    },
    Measurement {
        name: "server",
        what: "run time of the server's main thread by cycle",
        run: server::run,
    },
    Measurement {
        name: "counts",
        what: "system calls and allocations by cycle, where strace and valgrind are installed",
        run: counts::run,
    },
    Measurement {
        name: "hand-over",
        what: "from the release in one process to held in another",
        run: hand_over::run,
    },
    Measurement {
        name: "crowd",
        what: "2 to 128 workers of one process on one lock",
        run: crowd::one_process,
    },
    Measurement {
        name: "processes",
        what: "8 processes of 2 workers, 16 of 8, on one lock",
        run: crowd::processes,
    },
    Measurement {
        name: "herd",
        what: "a thousand waiters, one release",
        run: herd::run,
    },
    Measurement {
        name: "held",
        what: "10,000 locks held",
        run: held::run,
    },
    Measurement {
        name: "locks",
        what: "applock with 100 to 100,000 locks held",
        run: scale::locks,
    },
    Measurement {
        name: "waiters",
        what: "applock with 10 to 10,000 waiters, in one process and in many",
        run: scale::waiters,
    },
    Measurement {
        name: "bytes",
        what: "bytes in Redis of a lock held, and of a name after its last use",
        run: scale::bytes,
    },
];

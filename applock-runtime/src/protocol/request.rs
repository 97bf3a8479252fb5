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
    /// For how long the holding is remembered after its end, at least.
    pub(crate) remember: u64,
    /// What an earlier run forbids. `None`: nothing.
    pub(crate) due: Option<Due>,
    pub(crate) who: W,
}

/// A request that is to run once per tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Due {
    pub(crate) tick: Tick,
    /// A run that ended badly does not count: another request may take its tick up.
    pub(crate) retry_failed: bool,
}

/// What a tick goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tick {
    /// Refused if the last run that counts began less than so many microseconds ago, by the
    /// store's wall clock: jobs are scheduled by such a clock, and it goes on where a machine
    /// is started anew.
    Gap(u64),
    /// Refused unless larger than that of the last run that began with one.
    Number(u64),
}

impl Due {
    /// The shortest time between the beginnings of two runs that are due so often: nine tenths of
    /// it, in microseconds. The last tenth is for schedulers whose clocks differ, and for days
    /// of 23 hours.
    pub(crate) fn gap(every: u64) -> Tick {
        Tick::Gap(every - every / 10)
    }
}

/// How a run has ended, as its holder says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It was given back by hand, and nothing was said of it.
    #[default]
    Released,
    /// It ended well.
    Ok,
    /// It ended with an error.
    Error,
    /// It panicked.
    Panicked,
    /// It was cancelled.
    Cancelled,
    /// Its lease was lost, and it was told to stop.
    Lost,
    /// No code ran under it: its caller had gone, or its grant came too late. It is no run.
    Unused,
}

impl Outcome {
    /// All of them, with their names in a store.
    pub(crate) const NAMES: [(Self, &'static str); 7] = [
        (Self::Released, "released"),
        (Self::Ok, "ok"),
        (Self::Error, "error"),
        (Self::Panicked, "panicked"),
        (Self::Cancelled, "cancelled"),
        (Self::Lost, "lost"),
        (Self::Unused, "unused"),
    ];

    /// Its name in a store.
    pub(crate) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(outcome, _)| *outcome == self);
        named.map_or("released", |(_, name)| name)
    }

    /// That of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(_, known)| *known == name);
        named.map(|(outcome, _)| *outcome)
    }

    /// Whether nothing is known against it.
    pub(crate) fn is_fine(self) -> bool {
        matches!(self, Self::Released | Self::Ok)
    }
}

/// A request to give the lock back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Releaser {
    pub(crate) owner: Owner,
    pub(crate) outcome: Outcome,
    /// Keep the lock taken for so long still; zero: it is free at once.
    pub(crate) keep: u64,
    /// The process that releases. A waiter of it is notified by the answer.
    pub(crate) own: Option<Process>,
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
    /// An earlier run forbids it; the request stands in no queue (any more).
    AlreadyRan(Before),
}

/// Which run forbids a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// [`LockState::newest`](super::LockState).
    Newest,
    /// [`LockState::success`](super::LockState).
    Success,
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

//! What may happen in a run, how often, and what is wrong with it on purpose.

use crate::protocol::{Due, Tick, Timing};
use crate::state::{Death, Owner};
use crate::{COUNTS_FOR, LIFE, TTL};

/// A length that never passes.
pub const NEVER: u8 = u8::MAX;

/// The protocol's lengths, in ticks. Those that are [`NEVER`] cost no states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The lease of a waiter that was granted the lock unasked.
    pub claim: u8,
    /// A process that only polls, and has not for longer, is out of reach.
    pub silence: u8,
    /// A queue that no waiter has polled for so long is forgotten.
    pub queue_life: u8,
    /// For how long a server that has restarted keeps the lock for a waiter whose
    /// subscription may be on its way back.
    pub grace: u8,
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            claim: TTL - 1,
            silence: NEVER,
            queue_life: NEVER,
            grace: 1,
        }
    }
}

impl Lengths {
    pub(crate) fn of_the_protocol(&self) -> Timing {
        Timing {
            claim: self.claim.into(),
            silence: self.silence.into(),
            queue_life: self.queue_life.into(),
            grace: self.grace.into(),
        }
    }
}

/// The bounds of a check. Everything is on and right where it is not said otherwise.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many acquisitions are under way at most at the same time.
    pub clients: usize,
    /// How many acquisitions there are in all.
    pub acquisitions: usize,
    /// How many acquires are sent once more at most.
    pub retries: u8,
    /// How many heartbeats are sent at most.
    pub renewals: u8,
    /// How many writes are sent at most.
    pub writes: u8,
    /// How often the lock's record is lost at most.
    pub evictions: u8,
    /// How often the replica becomes the master at most.
    pub failovers: u8,
    /// Whether an acquire or a heartbeat counts only once the replica has it (`replicas`): then a
    /// failover loses none that did. What a master answers after another was promoted is such an
    /// answer that does not count: it has no replica any more.
    pub acknowledged: bool,
    /// How often the server's clock steps back at most.
    pub steps_back: u8,
    /// Whether the server's clock may run faster, by [`DRIFT`](crate::DRIFT).
    pub drift: bool,
    /// Whether the resource refuses a token that is older than one it saw.
    pub fencing: bool,
    /// How tokens are drawn.
    pub tokens: Tokens,
    /// Which processes wait, and what may happen to them.
    pub queue: Queue,
    /// For how many ticks a lock that a holder gives back stays taken (`at_least`).
    pub keep: u8,
    /// For how many ticks a request, or its answer, may be on its way and still arrive.
    pub life: u8,
    /// Where the acquisitions are to run once per tick.
    pub ticks: Option<Ticks>,
    /// The protocol's lengths.
    pub timing: Lengths,
    /// A fault that is put in to see that a property notices it.
    pub fault: Option<Fault>,
}

/// Which ticks the acquisitions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// How many acquisitions, in the order of asking, are for the first tick; all others are for
    /// the second.
    pub first: u8,
    /// Whether the tick goes by the time between two runs (`every`), and not by its number
    /// (`tick`). That time is longer than a check: there is one tick.
    pub every: bool,
    /// Whether a run that failed does not count.
    pub retry_failed: bool,
}

impl Ticks {
    /// All for the same tick, of which the first run counts.
    pub fn one() -> Self {
        Self {
            first: Owner::MAX,
            every: false,
            retry_failed: false,
        }
    }

    /// The tick of an acquisition.
    pub(crate) fn of(&self, owner: Owner) -> u8 {
        match owner < self.first {
            true => 1,
            false => 2,
        }
    }

    /// What its requests bring.
    pub(crate) fn due(&self, owner: Owner) -> Due {
        let tick = match self.every {
            true => Tick::Gap(u64::MAX),
            false => Tick::Number(self.of(owner).into()),
        };
        let retry_failed = self.retry_failed;
        Due { tick, retry_failed }
    }
}

/// How the server draws a fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// The last one plus one: the protocol, by a clock that stands at zero.
    Counter,
    /// The larger of that and the clock (rule R8).
    Hybrid,
}

/// The bounds of what concerns the wait queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// How many processes there are: the acquisitions are theirs in turn. Where there is
    /// none, nobody waits.
    pub processes: u8,
    /// How many of them, the last ones, have no subscription and only poll.
    pub polling: u8,
    /// How many of the acquisitions do not wait.
    pub tries: u8,
    /// How many waiters stop waiting at most.
    pub leaves: u8,
    /// How many polls are sent at most, beside those that confirm a grant.
    pub polls: u8,
    /// How many processes die at most.
    pub crashes: u8,
    /// What the server finds of a process that has died.
    pub death: Death,
    /// How often the subscription of a process that lives breaks at most.
    pub breaks: u8,
    /// How often the server restarts at most: it keeps what it knows, and loses all
    /// subscriptions.
    pub restarts: u8,
    /// How many holdings an operator ends at most.
    pub forced: u8,
    /// How often an operator ends a holding at most if it is stale.
    pub stale: u8,
    /// For how many ticks no heartbeat came then.
    pub asked: u8,
    /// How often the server's clock jumps forward at most, by [`JUMP`](crate::JUMP), while
    /// nobody holds.
    pub jumps: u8,
    /// From when a lease counts that a waiter was notified of.
    pub judged: Judged,
}

/// From when a lease counts that a waiter was notified of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Judged {
    /// From the sending of the last answered request, plus the time that passed at the
    /// server between that one and the grant, less what its clock may have run ahead.
    #[default]
    ServerTime,
    /// From the sending of the last answered request.
    ExchangeAlone,
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A lease counts from when the answer arrived (against R1).
    JudgedFromArrival,
    /// A lease counts for the whole ttl (against R1: no margin).
    NoMargin,
    /// A heartbeat that is answered brings a lost lease back (against R4).
    LostComesBack,
    /// A release ends any holding (against R3 and R7).
    ReleaseByAnyOwner,
    /// A heartbeat renews any holding (against R3).
    RenewByAnyOwner,
    /// A lock that `at_least` keeps is free.
    KeptIsFree,
    /// A forced release does not look whether the holding is stale.
    StaleInAnyCase,
    /// An owner id belongs to a client, not to an acquisition (against R6).
    OwnerIdReused,
    /// An acquire without an answer counts as refused (against R6 and R9).
    UnknownReadAsNo,
    /// The first release of an orphaned acquire that is answered is the last (against R6).
    OrphanReleasedOnce,
    /// What no replica has acknowledged counts all the same.
    UnacknowledgedCounts,
    /// Heartbeats go on for a lock that no client awaits any more (against R6).
    HeartbeatForNobody,
    /// A grant by a notification counts from when that arrived (against R1).
    GrantJudgedFromArrival,
    /// The server's time since the last exchange is added to when its answer arrived,
    /// not to when its request left (against R1).
    ExchangeJudgedFromItsAnswer,
    /// The server's time since the last exchange counts in full (against R1: no margin).
    ElapsedTakenInFull,
    /// A grant that seems to come from the future is believed (against R1).
    FutureBelieved,
    /// A claim counts for the whole ttl at the client (against R1).
    ClaimTakenForALease,
    /// A claim does not run out (against R6).
    ClaimWithoutExpiry,
    /// A waiter that leaves after it was granted the lock keeps it (against R6).
    LeaveKeepsClaim,
    /// A release leaves the lock free for the next poll: it does not see the queue.
    ReleaseGrantsNothing,
    /// A waiter that comes gets the smallest ticket: last come, first served.
    LastComeFirst,
    /// An acquire that does not wait does not see the queue.
    TryJumpsTheQueue,
    /// A poll leaves the queue, and joins it at its end.
    BackWithEachPoll,
    /// A waiter that was granted the lock, and did not hear of it, is offered it again before
    /// any other.
    OfferedAgain,
    /// The waiters bring no tickets.
    NoTicket,
    /// The waiters rely on notifications.
    NobodyPolls,
    /// Only the waiter at the queue's head polls.
    OnlyTheHeadPolls,
    /// A waiter is not judged again when the lock is offered to it.
    JudgedOnce,
    /// A grant under which no code ran counts as a run.
    UnusedCounts,
    /// A run that failed counts also for those that would take its tick up.
    FailedCounts,
}

impl Setup {
    /// The lock as it is, for so many clients, with nothing but its own steps: no writes,
    /// and a server that forgets nothing.
    pub fn plain(clients: usize) -> Self {
        Self {
            clients,
            acquisitions: clients,
            retries: 1,
            renewals: 1,
            writes: 0,
            evictions: 0,
            failovers: 0,
            acknowledged: false,
            steps_back: 0,
            drift: true,
            fencing: true,
            tokens: Tokens::Hybrid,
            queue: Queue::default(),
            keep: 0,
            life: LIFE,
            ticks: None,
            timing: Lengths::default(),
            fault: None,
        }
    }

    /// So many waiters, each in a process of its own; one of them polls once more than it
    /// has to, and nothing goes wrong but on the network.
    pub fn queue(waiters: u8) -> Self {
        Self {
            retries: 0,
            drift: false,
            life: TTL - 1,
            queue: Queue {
                processes: waiters,
                polls: 1,
                leaves: 1,
                ..Queue::default()
            },
            ..Self::plain(usize::from(waiters))
        }
    }

    /// Whose process an acquisition is.
    pub(crate) fn process(&self, owner: Owner) -> u8 {
        owner % self.queue.processes.max(1)
    }

    /// Whether a run of a tick may be forgotten: by a replica that did not know of it.
    pub(crate) fn forgets_runs(&self) -> bool {
        self.failovers > 0 && !self.acknowledged
    }

    /// Whether the server may forget a lock before its ttl: then two clients can believe that
    /// they hold it, and only the fencing tokens keep the resource safe.
    pub fn forgets(&self) -> bool {
        // A lease that no heartbeat has set for so long counts no more at its client.
        let ends_early = self.queue.stale > 0 && self.queue.asked < COUNTS_FOR;
        let loses_writes = self.failovers > 0 && !self.acknowledged;
        loses_writes || self.evictions > 0 || self.queue.forced > 0 || ends_early
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

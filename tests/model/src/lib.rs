//! The protocol of the lock, checked exhaustively with `stateright`.
//!
//! The server's half is the product's own type: `LockState` of `applock-runtime/src/protocol`,
//! included here by its path. The client's half, the network and the resource are modelled: a
//! few clients, one server with a replica, one resource that takes fenced writes, and a
//! network that delivers late, out of order, or never. The checker visits every order in which
//! things can happen, within the bounds of a [`Setup`], and either finds a state in which a
//! promise is broken, with a way there, or has shown that there is none.
//!
//! | what happens | [`Action`] | rule of `docs/ARCHITECTURE.md` |
//! |---|---|---|
//! | a client asks, with a fresh owner id | `Ask` | R6 |
//! | ... asks once more, with the same one | `Retry` | R6: answered 'yours' |
//! | ... stops waiting for the answer | `GiveUp` | R6: a release by the owner id; R9: unknown is no 'no' |
//! | an acquire arrives, perhaps after that: the orphan | `Deliver(Acquire)` | R3, R6; R8 for its token |
//! | the answer arrives, perhaps late | `Deliver(Acquired)` | R1: judged from before the request left |
//! | a heartbeat, its arrival, its answers | `Renew`, `Deliver(Renew, Renewed, NotYours)` | R1, R3, R4: lost is lost for good |
//! | the holder releases; its release, repeated until it is answered, arrives | `LetGo`, `Deliver(Release)` | R5, R6, R7 |
//! | a write under the lock is sent, and arrives | `Write`, `Deliver(Write)` | R8: the resource refuses older tokens |
//! | time passes: leases end at the clients, and expire at the server | `Tick` | R1, R4 |
//! | the server's clock runs faster | `RunAhead` | the margin of R1 |
//! | replicas acknowledge a write, or do not in time ([`Setup::acknowledged`]); then a grant that was not asked for is a hint, and a poll follows | `Deliver`, `Unacknowledged` | beyond R1 |
//! | the lock's record is lost: eviction, a clock that jumps forward | `Evict` | beyond R1: see [`Setup::forgets`] |
//! | the replica catches up; it becomes the master | `Replicate`, `Failover` | R8: the counter may be lost |
//! | the server's wall clock steps back | `StepBack` | R8: the counter must survive then |
//!
//! # The wait queue
//!
//! It is there where a [`Queue`] has processes: their acquisitions wait.
//!
//! | what happens | [`Action`] |
//! |---|---|
//! | a client asks, and stands in the queue if the lock is busy | `Wait`, `Deliver(Acquire, Queued)` |
//! | the first waiter of a process polls, with the ticket that it knows | `Poll` |
//! | a request that does not wait finds waiters | `Ask`, as above |
//! | a release grants the lock to the first waiter that can be reached, as a claim | `Deliver(Release)` |
//! | ... the waiter hears of it by a notification, or by the release's answer: late, or never | `Deliver(Granted)` |
//! | a waiter leaves; what it was granted meanwhile goes to the next (R6) | `GiveUp`, `Deliver(Release)` |
//! | a heartbeat, or a poll, makes a full lease of a claim; if neither comes it runs out | `Deliver(Renew, Acquire)`, `Tick` |
//! | a process dies (see [`Death`]); its subscription breaks, and is mended | `Crash`, `Break`, `Mend` |
//! | the server restarts, with its data and without the subscriptions | `Restart` |
//! | an operator ends the holding, in any case or if it is stale | `Force`, `ForceStale` |
//! | a holder gives the lock back, and `at_least` keeps it ([`Setup::keep`]) | `LetGo`, `Deliver(Release)` |
//! | the server's clock jumps forward | `Jump` |
//!
//! How a process can be reached is its [`Channel`]. The protocol asks for it as it asks a store:
//! open, or dead unnoticed, is 'notified'; broken, or dead, is 'unreachable' or 'gone'; after a
//! restart it is 'may return'. A process without a subscription is granted the lock by its polls.
//! The lengths (claim, silence, dead after, queue life, grace) are small numbers of ticks:
//! [`Lengths`].
//!
//! # Once per tick
//!
//! It is there where [`Ticks`] says so: the acquisitions are for one tick, or for two.
//!
//! | what happens | [`Action`] |
//! |---|---|
//! | a request is refused for a run that counts; one that waits leaves the queue | `Deliver(Acquire, AlreadyRan)` |
//! | a waiter is judged again when the lock is offered to it | `Deliver(Release)` |
//! | a run begins: its client hears of the grant, in time | `Deliver(Acquired, Granted)` |
//! | it ends well; it fails, or is lost | `LetGo`; `Fail` |
//! | a grant under which no code ran is given back, and does not count | `GiveUp`, `Deliver(Release)` |
//!
//! Runs are counted at the clients: a tick has one at most, through crashes, forced releases, lost
//! records, and failovers where replicas acknowledge; with `retry_failed` none begins after one that
//! ended well.
//!
//! # No waiter waits in vain
//!
//! That no waiter waits in vain is checked of every single state, by playing the rest with
//! everything on its way lost, and every notification to come (`calm.rs`): the timers alone
//! have to bring each waiter its grant. So the bounds on what is sent do not weaken it.
//!
//! # What is held against an account of the model's own
//!
//! The properties do not believe what the protocol writes down. The model counts for itself
//! which waiter joined the queue when ([`Arrivals`]), since when no heartbeat came, and for how
//! long `at_least` keeps the lock; and after each step of the server it compares ([`Wrong`]):
//!
//! - only the holder is answered 'yours', 'renewed' or 'released', the first two with a full lease;
//! - a request of another leaves a holding as it was, and no lease is longer than it may be;
//! - a forced release that asks for staleness ends what is stale, and nothing else;
//! - a grant does not go past a waiter that came earlier, is written for no waiter that can't
//!   hear of it, and is made at once where a waiter can be reached;
//! - a waiter keeps its place until its process is dead or its queue forgotten, and no longer;
//! - a request is refused for an earlier run if that counts, and only then.
//!
//! # What is simplified
//!
//! - Time is counted in ticks: a ttl is [`TTL`] of them, and a lease counts for
//!   [`COUNTS_FOR`], one tick of margin less. The server's clock stands still, and all that it
//!   knows moves into the past; tickets are numbered anew in their order. So a state is the
//!   same at any hour, and the number of states is finite.
//! - Clients that do nothing are all alike, so a client is known by its acquisition:
//!   [`Setup::clients`] of them are under way at most at the same time.
//! - A request or its answer is delivered within [`Setup::life`] ticks or never: [`LIFE`], three
//!   in the widest check, and two where a queue is checked (one for three waiters of which one
//!   polls again). Writes are delivered at any time. Loss is a delivery that
//!   does not happen. 'Queued' is heard within its tick or never.
//! - 'Busy' changes nothing at a client, so it is not sent. The answer to a release is heard at
//!   once: a release whose answer was lost is one that is sent again.
//! - The wall clock, of which tokens and tickets are made, moves on between two grants, and
//!   is always ahead of the tickets.
//! - A grant that was not asked for is judged by the lag of `Stage::Waiting`: how long the last
//!   answered request took to the server at most. What is taken off the server's time for the rate
//!   of its clock (1 %) is exactly what that may have run ahead, here.
//! - A waiter that never heard of its ticket, and has lost its place, comes back at the end: the
//!   order is not promised to it; nor to one that comes back where the wall clock stands still
//!   ([`Tokens::Counter`]), for another may have got its ticket meanwhile.
//!
//! # How much that is
//!
//! 57 checks visit all that can be reached within their bounds: 14.2 million states by 62 million
//! steps, in two minutes and a quarter of CPU time. Eight are without a queue (three clients, 5 million
//! states; the widest has writes, heartbeats and a failover, 2.8 million), and 27 with one: three
//! waiters for order, lost notifications, a dead process, a broken subscription, siblings and a
//! request that does not wait; two for a heartbeat and a poll together with one of the other things
//! that go wrong. 22 are of ticks: three clients or three waiters, with one thing that goes wrong
//! (2.3 million states). Others look for what must be found: each [`Fault`], and what a lease can't promise.
//!
//! # What is left out
//!
//! - Without a queue: more than three acquisitions, two writes, a heartbeat and a retry.
//! - With a queue: messages that are on their way for more than two ticks; more than three waiters,
//!   or two where more than the network goes wrong; of each of these more than one: a waiter that
//!   leaves, a poll beside those that a grant causes, a confirmation of a grant that was not
//!   believed, a fault. Two different faults meet only where a test says so.
//! - Of ticks: more than two; acquisitions without one beside others with one; the end of the time
//!   between two runs (`every`): it is longer than a check. The wall clock, by which it goes, stands
//!   still but for the grants.
//! - The largest token; a wall clock that steps back while requests wait, other than one that stands
//!   still; ttls that differ; the time between two polls (a poll may come at any time).
//! - R2 (nothing starves the heartbeat) is about threads: here a heartbeat may be left out for ever,
//!   and nothing but the lease is lost by it. R10 is about configuration.
//! - Holdings that are no longer remembered: here the store remembers for ever.
//! - The Redis scripts. They are held against the same type by random steps
//!   (`applock-runtime/src/simulation/scripts.rs`).

mod arrivals;
mod calm;
mod client;
pub mod properties;
#[allow(
    dead_code,
    unused_imports,
    unfulfilled_lint_expectations,
    reason = "the product's own module; the runtime uses more of it, and other parts not at all"
)]
#[path = "../../../applock-runtime/src/protocol/mod.rs"]
mod protocol;
mod server;
mod setup;
mod state;
mod steps;
mod waiting;

pub use arrivals::{Arrivals, Place};
pub use server::Server;
pub use setup::{Fault, Judged, Lengths, NEVER, Queue, Setup, Ticks, Tokens};
pub use state::{By, Channel, Death, Message, Owner, Resource, Runs, Spent, Stage, State, Wrong};
pub use steps::Action;

/// How many ticks the server keeps a lock after an acquire or a heartbeat arrived.
pub const TTL: u8 = 3;

/// How many ticks a lease counts from when its request left: the ttl less the margin.
pub const COUNTS_FOR: u8 = TTL - 1;

/// By how many ticks the server's clock may run ahead of a client's during one ttl: what
/// the margin is for.
pub const DRIFT: u8 = TTL - COUNTS_FOR;

/// For how many ticks a request, or its answer, may be on its way and still arrive.
pub const LIFE: u8 = TTL + 1;

/// By how many ticks the server's clock jumps forward, where it does.
pub const JUMP: u8 = 2;

/// How many polls are sent at most because a grant was not believed. The next one is lost.
pub const CONFIRMATIONS: u8 = 1;

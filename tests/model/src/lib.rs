//! The protocol of the lock as a state machine, checked exhaustively with `stateright`.
//!
//! What is checked is the design, not the code: a few clients, one server with a replica,
//! one resource that takes fenced writes, and a network that delivers late, out of order,
//! or never. The checker visits every order in which things can happen, within the bounds
//! of a [`Setup`], and either finds a state in which a promise is broken, with a way
//! there, or has shown that there is none.
//!
//! | what happens | [`Action`] | rule of `docs/ARCHITECTURE.md` |
//! |---|---|---|
//! | a client asks, with a fresh owner id | `Ask` | R6 |
//! | ... asks once more, with the same one | `Retry` | R6: answered 'yours' |
//! | ... stops waiting for the answer | `GiveUp` | R6: a release by the owner id; R9: unknown is no 'no' |
//! | an acquire arrives, perhaps after that: the ghost | `Deliver(Acquire)` | R3, R6; R8 for its token |
//! | the answer arrives, perhaps late | `Deliver(Granted)` | R1: judged from before the request left |
//! | a heartbeat, its arrival, its answers | `Renew`, `Deliver(Renew, Renewed, NotYours)` | R1, R3, R4: lost is lost for good |
//! | the holder lets go; its release, repeated until it is answered, arrives | `LetGo`, `Deliver(Release)` | R5, R6, R7 |
//! | a write under the lock is sent, and arrives | `Write`, `Deliver(Write)` | R8: the resource refuses older tokens |
//! | time passes: leases end at the clients, and expire at the server | `Tick` | R1, R4 |
//! | the server's clock runs faster | `RunAhead` | the margin of R1 |
//! | the key vanishes: eviction, a forced release, a clock that jumps forward | `Evict` | beyond R1: see [`Setup::forgets`] |
//! | the replica catches up; it becomes the master | `Replicate`, `Failover` | R8: the counter may be lost |
//! | the server's clock steps back | `StepBack` | R8: the counter must survive then |
//!
//! R2 (nothing starves the heartbeat) is about threads: here a heartbeat may be left out
//! for ever, and nothing but the lease is lost by it. R10 is about configuration.
//!
//! # What is simplified
//!
//! - Time is counted in ticks: a ttl is [`TTL`] of them, and a lease counts for
//!   [`COUNTS_FOR`], one tick of margin less. Only ages and remaining times are in a state,
//!   so it is the same at any hour, and the number of states is finite.
//! - Clients that do nothing are all alike, so a client is known by its acquisition:
//!   [`Setup::clients`] of them are under way at most at the same time.
//! - A request or its answer is delivered within [`LIFE`] ticks or never; writes to the
//!   resource are delivered at any time. Loss is a delivery that does not happen.
//! - 'You stand in line' has no age: it is heard at any time after it was sent, or never.
//! - 'Busy' changes nothing at a client, so it is not sent. The answer to a release is
//!   heard at once: a release whose answer was lost is one that is sent again.
//! - The server's clock, from which tokens are made, moves on between two grants.
//!
//! # The wait queue
//!
//! It is there where a [`Queue`] has processes: their acquisitions wait.
//!
//! | what happens | [`Action`] |
//! |---|---|
//! | a client asks, and stands in line if the lock is busy | `Wait`, `Deliver(Acquire, Queued)` |
//! | the first waiter of a process asks again, and keeps its place | `Knock` |
//! | one that does not wait finds a line | `Ask`, as above |
//! | a release hands the lock to the first who can be told, with a claim | `Deliver(Release)` |
//! | ... by a message, or in the release's answer: late, or never | `Deliver(Handed)` |
//! | a waiter leaves, and what it was granted meanwhile is passed on (R6) | `GiveUp`, `Deliver(Release)` |
//! | a heartbeat, or a knock, makes a claim a full lease; if neither comes it runs out | `Deliver(Renew, Acquire)`, `Tick` |
//! | a process dies, with its machine or without; its subscription breaks, and is mended | `Crash`, `Break`, `Mend` |
//! | the lock is taken from its holder; the server's clock jumps forward | `Force`, `Jump` |
//!
//! A grant that was pushed is judged by `Phase::Waiting`'s lag: how long the last answered
//! request took to the server at most. Time that passes there and here alike does not
//! change it; a clock that jumps does. What is taken off the server's time for the rate of
//! its clock (1 %) is exactly what that may have run ahead, here.
//!
//! A waiter that was handed the lock keeps its place until it is heard of, and is passed
//! over meanwhile. An expiry tells nobody, and hands nothing over: the next knock does.
//!
//! That nobody waits in vain is checked of every single state, by playing the rest with
//! everything on its way lost, and every push to come (`calm.rs`): the timers alone have to
//! bring each waiter its turn. So the bounds on what is sent do not weaken it.
//!
//! Left out: a waiter without a subscription that polls (one whose pushes are all lost), the
//! removal of those that stay unreachable, and the times between two knocks: a knock may come
//! at any time.

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
pub use setup::{Fault, Judged, Lengths, NEVER, Queue, Setup, Tokens};
pub use state::{By, Channel, Death, Message, Owner, Resource, Spent, Stage, State};
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

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
//! - 'Busy' changes nothing at a client, so it is not sent. The answer to a release is
//!   heard at once: a release whose answer was lost is one that is sent again.
//! - The server's clock, from which tokens are made, moves on between two grants.
//!
//! # Where a wait queue goes
//!
//! The lock comes free in one place, [`Server::free`]: a hand-over to the head of a queue
//! belongs there, its message to the waiter beside `Granted` in [`Message`], and a claim
//! that nobody confirms into [`Server::tick`]. A waiter is one more [`Phase`]. The
//! properties in [`properties`] hold for it as they stand; 'in order' would be a new one.

mod calm;
mod client;
mod line;
pub mod properties;
mod protocol;
mod server;
mod setup;
mod state;
mod turns;
mod waiting;

pub use line::{Line, Waiter};
pub use protocol::Action;
pub use server::{Holder, Server};
pub use setup::{Fault, Judged, Queue, Setup, Tokens};
pub use state::{By, Channel, Message, Owner, Phase, Resource, Spent, State};
pub use turns::Turns;

/// How many ticks the server keeps a lock after an acquire or a heartbeat arrived.
pub const TTL: u8 = 3;

/// How many ticks a lease counts from when its request left: the ttl less the margin.
pub const COUNTS_FOR: u8 = TTL - 1;

/// By how many ticks the server's clock may run ahead of a client's during one ttl: what
/// the margin is for.
pub const DRIFT: u8 = TTL - COUNTS_FOR;

/// For how many ticks a request, or its answer, may be on its way and still arrive.
pub const LIFE: u8 = TTL + 1;

/// How many ticks the server keeps a lock that it handed to a waiter, until it hears of it.
pub const CLAIM: u8 = TTL - 1;

/// For how many ticks an asker lets the unreachable ones ahead of it have a free lock.
pub const GRACE: u8 = 1;

/// By how many ticks the server's clock jumps forward, where it does.
pub const JUMP: u8 = 2;

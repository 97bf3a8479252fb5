//! The protocol: every decision about a lock, once.
//!
//! Who gets a lock, for how long, what a heartbeat, a release or a release by force does to
//! it, when a holder counts as stale, and in which order the waiters come: all of it is a
//! function of a [`LockState`], a request, and the store's time. There is no I/O here, no
//! clock, no store, and nothing but `std`, so that the same code can be
//!
//! | by | used as |
//! |---|---|
//! | the memory store | the state itself, in a table |
//! | the directory store | load a state, decide, write what has changed |
//! | the Redis store | what its scripts, the same decisions in Lua, are held against, step by random step |
//! | the model (`tests/model`) | the type whose every state that is reachable within bounds is visited |
//!
//! # The life of a lock
//!
//! ```text
//!              acquire                     release, force_release
//!   free ─────────────────▶ Held ──────────────────────────────▶ free, or straight to the
//!    ▲                       ▲ │ renew                            first waiter that can be
//!    │ the lease runs out    └─┘                                  reached: Claimed
//!    ├──────────────────────  Held, Claimed, Kept
//!    │                        renew, acquire
//!    └───────────────────── Claimed ─────────▶ Held
//!                           release with `keep`: Kept, until the lease's end
//! ```
//!
//! - A lock is *taken* while its newest [`Holding`] has not ended and its lease has not run
//!   out. That a lease ran out is never written: it follows from the time.
//! - A waiter stands in the [`WaitQueue`]. A lock that becomes free is offered to the waiters in
//!   their order, and nothing is written for a waiter that does not get it: the protocol asks
//!   [`Notify`] first, and commits the grant after.
//! - A grant that the waiter did not ask for at that moment is a *claim*: a short lease
//!   ([`Timing::claim`]), so that a waiter that can't hear of it costs the others no more than that.
//!   The holder's first heartbeat confirms it, and makes a full lease of it.
//! - A request may be *once per tick* ([`Due`]): an earlier run forbids it, whether the lock is
//!   taken or free. It is judged when it asks, and, if it waits, again when the lock is offered to
//!   it: one that is forbidden by then leaves the queue, and is told by its next poll. A run counts
//!   from its grant on; how it ended ([`Outcome`]) is for requests that would take a failed run's
//!   tick up, and for people. A holding that has no tick is remembered no less long than the last
//!   one that had: what forbids a tick is in what the store remembers.
//! - A request that does not wait never takes what a waiter that can be reached is waiting for.
//!
//! Times are plain numbers in a unit that the caller chooses ([`Timing`]).

mod lock_state;
mod notify;
mod request;
#[cfg(test)]
mod tests;
mod timing;
mod wait_queue;

pub(crate) use lock_state::{Begun, Holding, LockState, Phase};
pub(crate) use notify::{Notify, Reach};
pub(crate) use request::{
    Before, Decision, Due, Granted, Outcome, Process, Releaser, Requester, Tick, WhenBusy,
};
pub(crate) use timing::{MAX_TOKEN, StoreTime, Timing};
pub(crate) use wait_queue::{WaitQueue, Waiter};

//! The background thread of one locker: heartbeats, releases, waiting acquires, and
//! the lease arithmetic.
//!
//! Rule R2: everything that keeps a lock alive runs here, never on the caller's
//! runtime. The engine speaks to a [`Store`](crate::store::Store) and to nothing above it.

mod acquire;
mod backoff;
mod core;
mod event_loop;
mod handle;
mod hold;
mod lease;
pub(crate) mod lease_time;
mod mailbox;
mod operator;
mod release;
mod send;
mod shutdown;
mod state;
#[cfg(test)]
mod tests;
mod unfinished;
mod waiters;
mod wall_clock;

pub(crate) use self::core::Parts;
pub(crate) use handle::Engine;
pub(crate) use lease::{Lease, Validity};
pub(crate) use mailbox::{AcquireRequest, Held, Wait};

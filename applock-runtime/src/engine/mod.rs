//! The engine: the background thread of one locker, which keeps its locks.
//!
//! Rule R2: everything that keeps a lock alive runs here, on a thread and a runtime of its
//! own, and never on the caller's. A caller whose runtime is blocked, or busy, or gone,
//! loses no lock for that. The engine speaks to a [`Store`](crate::store::Store) and to
//! nothing above it; the store decides who holds a lock, the engine what this process may
//! believe.
//!
//! # Entries
//!
//! The engine is one actor with one table. A row is an *entry*: one acquire, by its owner
//! id, from the request to the end. An entry is in one of three states.
//!
//! ```text
//!            granted              let go, or shutdown
//! acquiring ─────────▶ holding ───────────────────────▶ releasing ──▶ gone
//!     │                                                     ▲
//!     ├── given up: a place in the wait queue, or an orphan ┘
//!     └── refused, and nothing stayed at the store ─────────────────▶ gone
//! ```
//!
//! - *Acquiring* (`acquire`): a request is in flight, or the waiter stands in the store's
//!   wait queue, or the next try is due later. Ends with a grant, a refusal, the deadline,
//!   or with the caller that goes away.
//! - *Holding* (`hold`): the store has granted the lock. A heartbeat goes out each third
//!   of the ttl. The [`Lease`] says from moment to moment whether the lock counts as held:
//!   guard and engine share that one atomic, and no answer is needed for it to end.
//! - *Releasing* (`release`): the release is repeated until the store has answered or the
//!   ttl has freed the lock; and once more where another server comes to serve the lock, which
//!   may not know of it (`remembered`). Also the way of an *orphan*: an acquire of unknown outcome,
//!   which may have taken the lock for a caller that is gone.
//!
//! # Events
//!
//! An entry moves when one of four things happens; `event_loop` takes them in this order,
//! and then sends what they have put into the outbox.
//!
//! | event | where from | for example |
//! |---|---|---|
//! | command | a [`Lock`](crate::Lock), a guard (`mailbox`) | acquire, release, verify, shut down |
//! | completion | the store's answer to a batch (`send`) | granted, queued, renewed, not yours |
//! | notification | the store, unasked | a waiter has been granted its lock; another server serves |
//! | timer | one an entry (`core`), one a shutdown, one for the wall clock | heartbeat due, lease over, next poll |
//!
//! Entries take one step at a time: an entry has one request in flight at most, so no
//! release overtakes a heartbeat, and no answer can be taken for that of another request.
//! Steps that are due together travel together: a thousand locks cost a few requests each
//! third of a ttl.
//!
//! # Rules
//!
//! - A lease is judged from before its request left, less a margin for clocks that differ
//!   (R1: `lease_time`). A notification carries the store's time only, and is translated
//!   by the last answered request, or is not believed.
//! - A lease that is over stays over: no late answer brings it back (R4: `lease`).
//! - An error is neither yes nor no (R9). A heartbeat that fails is tried again until the
//!   lease's own end; an acquire that fails may have taken the lock, and is cleaned up
//!   (R6).
//! - The lock is given back once its holder has let go, and not before: a body that still
//!   runs keeps its lock taken, also after the loss (R5). Only a shutdown does not wait
//!   forever.
//! - Where the wall clock jumps ahead, the machine may have stood still with all its
//!   clocks: each lease is *suspect* until the store confirms it (`wall_clock`).
//!
//! # What never happens
//!
//! - Two requests of one owner id in flight at once.
//! - A caller that is given a lock whose lease is over.
//! - A lock that is lost without its holder being notified; also if the thread panics.
//! - An acquire that leaves a lock behind at the store and never releases it, as long as
//!   the process lives.
//! - A wait for an answer: the loop never blocks, and each request has a time limit.
//!
//! # Files
//!
//! Each imports from those before it, and none in a circle: `lease_time`, `lease`;
//! `backoff`, `unfinished`, `farewell`, `waiters`; `mailbox` (commands, and the handle of a held lock);
//! `state` (the three entries); `remembered`; `core` (the table, its timers and its outbox); `acquire`,
//! `hold`, `release`, `send`, `shutdown`, `health`, `operator`, `wall_clock` (what happens);
//! `event_loop` (when); `handle` (the thread).

mod acquire;
mod backoff;
mod core;
mod event_loop;
mod farewell;
mod handle;
mod health;
mod hold;
mod lease;
pub(crate) mod lease_time;
mod mailbox;
mod operator;
mod release;
mod remembered;
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

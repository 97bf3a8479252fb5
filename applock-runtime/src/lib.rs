//! What a function under applock's `#[singleton]` runs on: stores, leases, heartbeat.
//!
//! Use it through the `applock` crate, which also has the attribute.
//!
//! The floors, from the top: `singleton` → `locker` → `engine` → `store` → `protocol`. Nothing
//! imports upward.

mod blocking;
pub mod clock;
mod engine;
mod error;
mod health;
mod info;
mod key;
mod locker;
mod measures;
mod pattern;
mod pause;
mod protocol;
#[cfg(feature = "serde")]
mod serialize;
mod shown;
#[cfg(test)]
mod simulation;
mod singleton;
mod store;

pub use error::{Error, ErrorKind, InvalidInput, Loss, Result, StoreFault};
pub use health::Health;
pub use info::{Ending, LastHolding, LockInfo};
pub use locker::current::current;
pub use locker::{AppLocker, Builder, Lock, LockGuard, StoreSource, Tick, URL_VARIABLE};
pub use singleton::{Refusal, drain, drain_blocking, init, shutdown, shutdown_blocking};
pub use store::memory::{MemoryStore, Outage};

/// What expanded code calls. Not part of the public interface: any version may change
/// it.
#[doc(hidden)]
pub mod __private {
    pub use crate::engine::lease_time::{MAX_EVERY, MAX_TTL, MIN_TTL};
    pub use crate::key::escaped;
    pub use crate::locker::LockOptions;
    pub use crate::locker::current::current_guard;
    pub use crate::locker::servers::{
        ServerAnswer, ask_each_server, force_release_for, hear_changes, keys_of,
    };
    pub use crate::shown::{shown_in_quotes, shown_text};
    pub use crate::singleton::{
        AutorefDispatch, BlockingRun, Call, CarriesError, CarriesNothing, Refusal, RefuseWithError,
        Returned, Returns, Run, Skip, call_once, finished,
    };
}

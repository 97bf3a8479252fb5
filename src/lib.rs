//! One attribute on a function, and it runs on one instance at a time across every
//! server.
//!
//! A facade: everything here is re-exported from `applock-runtime` and
//! `applock-macros`.

pub use applock_macros::singleton;
pub use applock_runtime::{
    AppLocker, Builder, Ending, Error, InvalidInput, LastHolding, Lock, LockGuard, LockInfo, Loss,
    MemoryStore, Refusal, Result, StoreFault, StoreSource, URL_VARIABLE, clock, current, init,
};

#[doc(hidden)]
pub use applock_runtime::__private;

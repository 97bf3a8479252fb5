//! The public face of a lock: a store and its defaults (`shared`), how that is made
//! (`builder`), a key and how to take it (`lock`), the proof of holding (`guard`), and what is held
//! and by which process (`observe`).
//!
//! Nothing here runs a body: that is done one floor up, in `singleton`.
//!
//! The files, from the top: `builder`, `observe` → `lock` → `current` (the bodies that this thread runs) →
//! `shared`, `options`, `guard`, `tick`.

mod builder;
pub(crate) mod current;
mod guard;
mod lock;
mod observe;
mod options;
pub(crate) mod servers;
mod shared;
mod tick;

pub use builder::{Builder, StoreSource, URL_VARIABLE};
pub use guard::LockGuard;
pub use lock::Lock;
pub use options::LockOptions;
pub use shared::AppLocker;
pub use tick::Tick;

//! What a function under `#[singleton]` runs on. Use it through the `applock` crate.

pub mod clock;
mod error;
mod info;
mod key;
mod store;

pub use error::{Error, InvalidInput, Loss, Result, StoreFault};
pub use info::{Ending, LastHolding, LockInfo};

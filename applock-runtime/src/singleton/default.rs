//! The process's default locker: that of every `#[singleton]` without one of its own.

use std::sync::{PoisonError, RwLock};

use crate::error::Result;
use crate::locker::AppLocker;

static DEFAULT: RwLock<Option<AppLocker>> = RwLock::new(None);

/// Sets the process's default locker: that of every `#[singleton]` without a `locker`
/// of its own. A later call replaces it for later calls. No I/O.
///
/// The default is never dropped. A thread that ends, `main` too, waits up to half a second for
/// the releases that it has left behind (a future that was dropped), so a program that returns
/// from `main` leaves nothing behind. One that ends in another way does best to call
/// [`shutdown`](AppLocker::shutdown) first.
///
/// Without it, the first use makes one from `APPLOCK_URL`, or for
/// `redis://127.0.0.1:6379`.
///
/// ```
/// applock::init(applock::AppLocker::in_memory());
/// ```
pub fn init(locker: AppLocker) {
    let before = DEFAULT
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(locker);
    // Outside of the lock: the last handle of a locker waits for its releases.
    drop(before);
}

pub(super) fn default_locker() -> Result<AppLocker> {
    if let Some(locker) = &*DEFAULT.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(locker.clone());
    }
    let made = AppLocker::from_env()?;
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    Ok(default.get_or_insert(made).clone())
}

//! The process's default locker: that of every `#[singleton]` without one of its own.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::blocking::block_on;
use crate::error::Result;
use crate::locker::AppLocker;

use super::scope;

static DEFAULT: RwLock<Option<AppLocker>> = RwLock::new(None);

/// Sets the process's default locker: that of every `#[singleton]` without a `locker`
/// of its own. A later call replaces it for later calls. No I/O. Tests that run at the same time
/// rather give each its own: [`AppLocker::scope`].
///
/// The default is never dropped. A thread that ends, `main` too, waits up to half a second for
/// the releases that it has left behind (a future that was dropped), so a program that returns
/// from `main` leaves nothing behind. One that ends in another way does best to call
/// [`shutdown`] first.
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

/// [`AppLocker::shutdown`] of the process's default locker: its bodies are cancelled, its locks
/// released, and every further call that uses it is refused, also if there was none until now.
///
/// # Errors
///
/// As [`AppLocker::shutdown`]. Where there can be no default locker (a bad `APPLOCK_URL`)
/// nothing is held, and nothing is an error.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// # applock::init(applock::AppLocker::in_memory());
/// applock::shutdown(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
pub async fn shutdown(within: Duration) -> Result<()> {
    match process_default() {
        Ok(locker) => locker.shutdown(within).await,
        Err(_) => Ok(()),
    }
}

/// [`shutdown`] for plain threads: blocks.
///
/// # Errors
///
/// As [`shutdown`].
///
/// ```
/// # use std::time::Duration;
/// # applock::init(applock::AppLocker::in_memory());
/// applock::shutdown_blocking(Duration::from_secs(5))?;
/// # Ok::<(), applock::Error>(())
/// ```
pub fn shutdown_blocking(within: Duration) -> Result<()> {
    block_on(shutdown(within))
}

/// [`AppLocker::drain`] of the process's default locker: what runs may end, and every further
/// call that uses it is refused, also if there was none until now.
///
/// # Errors
///
/// As [`shutdown`].
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// # applock::init(applock::AppLocker::in_memory());
/// applock::drain(Duration::from_secs(25)).await?;
/// # Ok(())
/// # }
/// ```
pub async fn drain(within: Duration) -> Result<()> {
    match process_default() {
        Ok(locker) => locker.drain(within).await,
        Err(_) => Ok(()),
    }
}

/// [`drain`] for plain threads: blocks.
///
/// # Errors
///
/// As [`shutdown`].
///
/// ```
/// # use std::time::Duration;
/// # applock::init(applock::AppLocker::in_memory());
/// applock::drain_blocking(Duration::from_secs(25))?;
/// # Ok::<(), applock::Error>(())
/// ```
pub fn drain_blocking(within: Duration) -> Result<()> {
    block_on(drain(within))
}

/// The default of the code that asks: that of its scope, or the process's.
pub(super) fn default_locker() -> Result<AppLocker> {
    scope::innermost().map_or_else(process_default, Ok)
}

fn process_default() -> Result<AppLocker> {
    if let Some(locker) = &*DEFAULT.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(locker.clone());
    }
    let made = AppLocker::from_env()?;
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    Ok(default.get_or_insert(made).clone())
}

//! What a body's run begins with, async and sync: whether this code is under that lock
//! already, and if not, how the lock is taken.

use std::sync::Arc;

use crate::error::Result;
use crate::locker::Lock;

use super::current::{self, Running};
use super::log::Function;

/// One run of a body: under which lock, and for which function.
pub(crate) struct Invocation {
    pub(crate) lock: Lock,
    pub(crate) function: Function,
    pub(crate) finish_when_lost: bool,
}

/// How a body gets to its lock.
pub(crate) enum Start {
    /// The body around it holds that very lock: it runs under that one.
    Nested(Arc<Running>),
    /// The lock is yet to be taken.
    Take(Lock),
}

impl Start {
    /// An error where the lock has no valid key, or where the body around this code held the
    /// lock and has lost it: a lost lock is never taken anew underneath.
    pub(crate) fn of(lock: Lock) -> Result<Self> {
        let key = lock.resolve()?;
        let Some(running) = current::find(lock.locker(), &key) else {
            return Ok(Self::Take(lock));
        };
        running.guard.ensure_held()?;
        Ok(Self::Nested(running))
    }
}

/// Takes the lock for a body. The machine may have slept since the lock was granted: no body
/// is begun under a lease that is over.
pub(crate) async fn take(lock: Lock) -> Result<Arc<Running>> {
    let guard = lock.acquire().await?;
    guard.ensure_held()?;
    Ok(Arc::new(Running::new(lock.locker().clone(), guard)))
}

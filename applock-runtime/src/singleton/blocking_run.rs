//! A sync body under its lock: the lock is taken before the body, and released after it.

use std::sync::Arc;

use crate::blocking::block_on;
use crate::error::Result;

use super::current::{self, Entered, Running};
use super::log::Function;
use super::start::{Invocation, Start, take};

/// While it lives, the code on this thread runs under the lock. Expanded code keeps it in a
/// variable beside the body, not in a closure around it, so that the body borrows, returns
/// and panics as it would without a lock; dropping it, on each of these ways out, releases
/// the lock. To make it and to drop it blocks.
#[must_use = "a blocking run that is dropped at once releases its lock at once"]
pub struct BlockingRun {
    entered: Option<Entered>,
    /// `None` under the lock that the caller holds already.
    to_release: Option<(Arc<Running>, Function)>,
}

impl BlockingRun {
    pub(crate) fn enter(invocation: Invocation) -> Result<Self> {
        let function = invocation.function;
        Self::try_enter(invocation).inspect_err(|error| function.refused(error))
    }

    fn try_enter(invocation: Invocation) -> Result<Self> {
        let Invocation { lock, function, .. } = invocation;
        Ok(match Start::of(lock)? {
            Start::Nested(running) => Self {
                entered: Some(current::enter(running)),
                to_release: None,
            },
            Start::Take(lock) => {
                let running = block_on(take(lock))?;
                Self {
                    entered: Some(current::enter(Arc::clone(&running))),
                    to_release: Some((running, function)),
                }
            }
        })
    }
}

impl Drop for BlockingRun {
    fn drop(&mut self) {
        drop(self.entered.take());
        if let Some((running, function)) = self.to_release.take()
            && let Err(error) = block_on(running.guard.end())
        {
            function.release_failed(&error);
        }
    }
}

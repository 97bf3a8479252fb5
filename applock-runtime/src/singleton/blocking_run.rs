//! A sync body under its lock: the lock is taken before the body, and released after it.

use std::sync::Arc;

use crate::blocking::block_on;
use crate::error::Result;
use crate::key::Function;
use crate::locker::current::{self, Entered};

use super::log::Outcome;
use super::start::{Begun, Invocation, begin};

/// While it lives, the code on this thread runs under the lock. Expanded code keeps it in a
/// variable beside the body, not in a closure around it, so that the body borrows, returns
/// and panics as it would without a lock; dropping it, on each of these ways out, releases
/// the lock. To make it and to drop it blocks.
#[must_use = "a blocking run that is dropped at once releases its lock at once"]
pub struct BlockingRun {
    entered: Option<Entered>,
    begun: Begun,
    function: Function,
    outcome: Outcome,
    /// This thread unwound already when the body began.
    is_unwinding: bool,
}

impl BlockingRun {
    /// For a body that returns an `R`.
    pub(crate) fn enter<R>(invocation: Invocation) -> Result<Self> {
        Self::begin(invocation, Outcome::unseen::<R>())
    }

    fn begin(invocation: Invocation, outcome: Outcome) -> Result<Self> {
        let Invocation { lock, function, .. } = invocation;
        let begun = block_on(begin(lock, function, false))?;
        Ok(Self {
            entered: Some(current::enter(Arc::clone(&begun.running))),
            begun,
            function,
            outcome,
            is_unwinding: std::thread::panicking(),
        })
    }

    /// The body has returned this value.
    #[doc(hidden)]
    pub fn returned<T>(&mut self, value: &T) {
        self.outcome = Outcome::of(value);
    }
}

impl Drop for BlockingRun {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_unwinding {
            self.outcome = Outcome::Panicked;
        }
        let is_nested = self.begun.turn.is_some();
        let running = &self.begun.running;
        if !is_nested {
            self.outcome = self.outcome.as_said(running.guard.said());
        }
        self.function.ended(running, self.outcome);
        if !is_nested {
            running.guard.run_ended(self.outcome.for_the_store());
        }
        self.entered = None;
        let Begun { running, turn } = &mut self.begun;
        running.end();
        // Nested: the lock is that of the run around it.
        if turn.take().is_none()
            && let Err(error) = block_on(running.guard.end())
        {
            self.function.release_failed(&error);
        }
    }
}

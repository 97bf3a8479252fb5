//! One call of a `#[singleton]` function, as the macro builds it.

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;
use crate::key::Function;
use crate::locker::{AppLocker, Lock, LockOptions};

use super::blocking_run::BlockingRun;
use super::default::default_locker;
use super::run::{Machine, Run};
use super::start::Invocation;

/// One call of a `#[singleton]` function. The locker comes last: the expressions of the
/// other arguments are evaluated before it is looked for.
#[doc(hidden)]
#[must_use]
pub struct Call {
    options: LockOptions,
    function: Function,
    finish_when_lost: bool,
    /// `None`: the process's default.
    locker: Option<AppLocker>,
}

#[doc(hidden)]
impl Call {
    pub fn new(module: &'static str, name: &'static str, options: LockOptions) -> Self {
        Self {
            options,
            function: Function { module, name },
            finish_when_lost: false,
            locker: None,
        }
    }

    pub fn finish_when_lost(mut self) -> Self {
        self.finish_when_lost = true;
        self
    }

    pub fn locker(mut self, locker: &AppLocker) -> Self {
        self.locker = Some(locker.clone());
        self
    }

    /// Async: drives a body that its owner has pinned.
    pub fn run<F: Future>(self, body: Pin<&mut Option<F>>) -> Run<'_, F> {
        Run::new(Machine::new(self.invocation()), body)
    }

    /// Sync: takes the lock; dropping the blocking run releases it. Both block.
    /// `R`: what the body returns.
    pub fn enter<R>(self) -> Result<BlockingRun> {
        BlockingRun::enter::<R>(self.invocation())
    }

    fn invocation(self) -> Invocation {
        let locker = self.locker.map_or_else(default_locker, Ok);
        Invocation {
            lock: locker.map(|locker| Lock::new(locker, self.options.function(self.function))),
            function: self.function,
            finish_when_lost: self.finish_when_lost,
        }
    }
}

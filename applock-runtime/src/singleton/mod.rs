//! What expanded code calls: run a body under a lock, and turn a refusal into the
//! function's return type.

mod current;
mod log;
mod refusal;
mod run;
mod scoped;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::error::Result;
use crate::locker::{AppLocker, LockGuard};

pub use current::current;
use log::Function;
pub use refusal::{
    Refusal, RefuseWithError, Returns, Skip, TellByError, TellNothing, Teller, call_once,
};
use run::Order;
pub use run::{Frame, Run};

static DEFAULT: RwLock<Option<AppLocker>> = RwLock::new(None);

/// Sets the process's default locker: that of every `#[singleton]` without a `locker`
/// of its own. A later call replaces it for later calls. No I/O.
///
/// The default is never dropped, so at the end of `main` nobody waits for releases that
/// are on their way: keep a clone, and [`shutdown`](AppLocker::shutdown) it.
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

fn default_locker() -> Result<AppLocker> {
    if let Some(locker) = &*DEFAULT.read().unwrap_or_else(PoisonError::into_inner) {
        return Ok(locker.clone());
    }
    let made = AppLocker::from_env()?;
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    Ok(default.get_or_insert(made).clone())
}

/// One call of a `#[singleton]` function, as the macro builds it.
#[doc(hidden)]
#[must_use]
pub struct Call {
    target: Target,
    function: Function,
    ttl: Option<Duration>,
    wait: Wait,
    at_least: Option<Duration>,
    at_most: Option<Duration>,
    finish_when_lost: bool,
    locker: Option<AppLocker>,
}

enum Target {
    App(&'static str, Option<Cow<'static, str>>),
    Key(Cow<'static, str>),
}

enum Wait {
    Not,
    For(Duration),
    Forever,
}

#[doc(hidden)]
impl Call {
    fn new(target: Target) -> Self {
        Self {
            target,
            function: Function::default(),
            ttl: None,
            wait: Wait::Not,
            at_least: None,
            at_most: None,
            finish_when_lost: false,
            locker: None,
        }
    }

    pub fn app(app: &'static str) -> Self {
        Self::new(Target::App(app, None))
    }

    pub fn key(key: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Target::Key(key.into()))
    }

    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        if let Target::App(_, known) = &mut self.target {
            *known = Some(name.into());
        }
        self
    }

    pub fn function(mut self, module: &'static str, name: &'static str) -> Self {
        self.function = Function { module, name };
        self
    }

    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    pub fn wait(mut self, longest: Duration) -> Self {
        self.wait = Wait::For(longest);
        self
    }

    pub fn wait_forever(mut self) -> Self {
        self.wait = Wait::Forever;
        self
    }

    pub fn at_least(mut self, length: Duration) -> Self {
        self.at_least = Some(length);
        self
    }

    pub fn at_most(mut self, length: Duration) -> Self {
        self.at_most = Some(length);
        self
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
        Run::new(self.order(), body)
    }

    /// Sync: takes the lock; the frame releases it. Blocks.
    pub fn enter(self) -> Result<Frame> {
        Frame::enter(self.order()?)
    }

    fn order(self) -> Result<Order> {
        let locker = match self.locker {
            Some(locker) => locker,
            None => default_locker().inspect_err(|error| self.function.refused(error))?,
        };
        let mut lock = match self.target {
            Target::App(app, None) => locker.lock(app),
            Target::App(app, Some(name)) => locker.lock(app).name(name),
            Target::Key(key) => locker.lock(String::new()).key(key),
        };
        if let Some(ttl) = self.ttl {
            lock = lock.ttl(ttl);
        }
        lock = match self.wait {
            Wait::Not => lock,
            Wait::For(longest) => lock.wait(longest),
            Wait::Forever => lock.wait_forever(),
        };
        if let Some(length) = self.at_least {
            lock = lock.at_least(length);
        }
        if let Some(length) = self.at_most {
            lock = lock.at_most(length);
        }
        Ok(Order {
            lock,
            function: self.function,
            finish_when_lost: self.finish_when_lost,
        })
    }
}

/// The guard of the innermost singleton that this code runs under, which expanded code
/// knows to be there.
#[doc(hidden)]
#[must_use]
pub fn current_guard() -> Arc<LockGuard> {
    #[expect(
        clippy::expect_used,
        reason = "expanded code calls it inside a body only"
    )]
    current().expect("a #[singleton] body runs under its guard")
}

//! Which lock, and how to take it: what a [`Lock`](crate::Lock) has beside its locker.
//!
//! It stands alone because a `#[singleton]` function says it before its locker is known.

use std::time::Duration;

use crate::engine::Wait;
use crate::engine::lease_time::check_every;
use crate::error::{Error, Result};
use crate::key::{Function, Key};
use crate::protocol::{self, Due};

use super::tick::Tick;

/// Which lock, and how to take it. Each method is that of the same name on
/// [`Lock`](crate::Lock). Nothing is checked before the lock is taken.
#[derive(Clone, Debug)]
#[must_use]
pub struct LockOptions {
    target: Target,
    pub(super) ttl: Option<Duration>,
    pub(super) wait: Wait,
    pub(super) remember: Option<Duration>,
    pub(super) at_least: Option<Duration>,
    pub(super) at_most: Option<Duration>,
    pub(super) reentrant: bool,
    pub(super) every: Option<Duration>,
    pub(super) tick: Option<Tick>,
    pub(super) retry_failed: bool,
    function: Option<Function>,
}

#[derive(Clone, Debug)]
enum Target {
    App { app: String, name: Option<String> },
    Key(String),
}

impl LockOptions {
    fn of(target: Target) -> Self {
        Self {
            target,
            ttl: None,
            wait: Wait::Not,
            remember: None,
            at_least: None,
            at_most: None,
            reentrant: false,
            every: None,
            tick: None,
            retry_failed: false,
            function: None,
        }
    }

    /// The lock of an application.
    pub fn app(app: impl Into<String>) -> Self {
        let app = app.into();
        Self::of(Target::App { app, name: None })
    }

    /// The lock at this key of the store.
    pub fn whole_key(key: impl Into<String>) -> Self {
        Self::of(Target::Key(key.into()))
    }

    pub(super) fn key(self, key: String) -> Self {
        let target = Target::Key(key);
        Self { target, ..self }
    }

    /// A lock inside the application.
    pub fn name(self, name: impl Into<String>) -> Self {
        let (Target::App { app, .. } | Target::Key(app)) = self.target;
        let name = Some(name.into());
        Self {
            target: Target::App { app, name },
            ..self
        }
    }

    /// The lease's length.
    pub fn ttl(self, ttl: Duration) -> Self {
        let ttl = Some(ttl);
        Self { ttl, ..self }
    }

    /// How long to wait for a busy lock.
    pub fn wait(self, longest: Duration) -> Self {
        let wait = Wait::For(longest);
        Self { wait, ..self }
    }

    /// Wait for as long as it takes.
    pub fn wait_forever(self) -> Self {
        let wait = Wait::Forever;
        Self { wait, ..self }
    }

    /// For how long the store remembers a holding.
    pub fn remember(self, length: Duration) -> Self {
        let remember = Some(length);
        Self { remember, ..self }
    }

    /// How long the lock stays taken at the least.
    pub fn at_least(self, length: Duration) -> Self {
        let at_least = Some(length);
        Self { at_least, ..self }
    }

    /// When the heartbeat stops.
    pub fn at_most(self, length: Duration) -> Self {
        let at_most = Some(length);
        Self { at_most, ..self }
    }

    /// Run under the lock that the caller holds already.
    pub fn reentrant(self) -> Self {
        let reentrant = true;
        Self { reentrant, ..self }
    }

    /// Not again before the next one is due.
    pub fn every(self, length: Duration) -> Self {
        let every = Some(length);
        Self { every, ..self }
    }

    /// Once for this tick, and not for an older one.
    pub fn tick(self, tick: impl Into<Tick>) -> Self {
        let tick = Some(tick.into());
        Self { tick, ..self }
    }

    /// A run that failed does not count.
    pub fn retry_failed(self) -> Self {
        let retry_failed = true;
        Self {
            retry_failed,
            ..self
        }
    }

    /// What an earlier run forbids.
    pub(super) fn due(&self) -> Result<Option<Due>> {
        let retry_failed = self.retry_failed;
        let tick = match (self.every, self.tick) {
            (Some(every), Some(_)) => {
                return Err(Error::invalid(
                    "every",
                    humantime::format_duration(every),
                    "it stands beside a tick",
                    "leave one of the two out: a tick says by itself when the next run is due",
                ));
            }
            (Some(every), None) => Due::gap(micros(check_every(every)?)),
            (None, Some(Tick(number))) => protocol::Tick::Number(number),
            (None, None) if retry_failed => {
                return Err(Error::invalid(
                    "retry",
                    "failed",
                    "there is no tick that another run could take up",
                    "say how often it is to run (every), or give its tick",
                ));
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(Due { tick, retry_failed }))
    }

    /// Which function takes it.
    pub(crate) fn function(self, function: Function) -> Self {
        let function = Some(function);
        Self { function, ..self }
    }

    pub(super) fn resolve(&self, prefix: &str) -> Result<Key> {
        let key = match &self.target {
            Target::App { app, name } => Key::of(prefix, app, name.as_deref()),
            Target::Key(key) => Key::whole(key),
        };
        key.map(|key| key.taken_by(self.function))
    }
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

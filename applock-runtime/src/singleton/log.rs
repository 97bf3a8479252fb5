//! What is logged of a singleton: that it did not run, and why; that a run has ended, and how.
//! Once each, with the function's name, and what one would search or add up as a field.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use crate::error::{Error, Loss};
use crate::key::{Function, Key};
use crate::locker::Lock;
use crate::locker::current::Running;
use crate::measures;
use crate::protocol;
use crate::shown::{millis, shown};

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its body has come to its end, and has returned no `Err`.
    Returned,
    /// The body of sync code has come to its end, and may have returned an `Err`: its value is not
    /// seen, for it is a `Result` of a closure, or the function is `#[track_caller]`.
    Unknown,
    /// Its body has returned an `Err`.
    Error,
    Panicked,
    /// Its future was dropped.
    Cancelled,
    /// Its body was cancelled, for the lease was lost.
    Lost,
}

impl Outcome {
    /// What the store is told.
    pub(crate) fn for_the_store(self) -> protocol::Outcome {
        match self {
            Self::Returned => protocol::Outcome::Ok,
            Self::Unknown => protocol::Outcome::Released,
            Self::Error => protocol::Outcome::Error,
            Self::Panicked => protocol::Outcome::Panicked,
            Self::Cancelled => protocol::Outcome::Cancelled,
            Self::Lost => protocol::Outcome::Lost,
        }
    }

    /// The same with what the body has said: that it failed it knows better than the value that it
    /// returned, and that it went well better than nobody.
    pub(crate) fn as_said(self, said: Option<protocol::Outcome>) -> Self {
        match (self, said) {
            (Self::Returned | Self::Unknown, Some(protocol::Outcome::Error)) => Self::Error,
            (Self::Unknown, Some(protocol::Outcome::Ok)) => Self::Returned,
            (other, _) => other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Returned | Self::Unknown => "returned",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }

    /// Of sync code that returns a `T`, as long as its value was not seen.
    pub(crate) fn unseen<T>() -> Self {
        match is_result::<T>() {
            true => Self::Unknown,
            false => Self::Returned,
        }
    }

    /// As a dashboard has it.
    fn label(self) -> &'static str {
        match self {
            Self::Returned => "ok",
            other => other.name(),
        }
    }

    /// Of a body that has returned this value.
    ///
    /// Its type is known to the compiler alone, and a bound on it would be one on every annotated
    /// function. But each value can be asked which variant it is, and each type for its name. Both
    /// are good enough for a word in the log and at the store, and for no more.
    pub(crate) fn of<T>(value: &T) -> Self {
        let variant = |hash: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            hash(&mut hasher);
            hasher.finish()
        };
        let is_result = is_result::<T>();
        let error = discriminant(&Err::<(), ()>(()));
        let is_error = is_result
            && variant(&|hasher| discriminant(value).hash(hasher))
                == variant(&|hasher| error.hash(hasher));
        match is_error {
            true => Self::Error,
            false => Self::Returned,
        }
    }
}

fn is_result<T>() -> bool {
    std::any::type_name::<T>().starts_with("core::result::Result<")
}

/// One event at the level that is known only when it comes.
macro_rules! event {
    ($level:expr, $($event:tt)*) => {
        match $level {
            Level::Info => tracing::info!($($event)*),
            Level::Warn => tracing::warn!($($event)*),
            Level::Error => tracing::error!($($event)*),
        }
    };
}

enum Level {
    Info,
    Warn,
    Error,
}

impl Function {
    /// The body did not run. `lock`: unless there is no locker.
    pub(crate) fn refused(self, lock: Option<&Lock>, error: &Error) {
        let Self { module, name } = self;
        let key = lock.and_then(|lock| lock.resolve().ok());
        let key = key.as_ref();
        let holder = error.holder().filter(|holder| !holder.is_foreign());
        let other = other_function(key, error);
        let level = match error {
            Error::AlreadyRan(_) if other => Level::Warn,
            Error::Busy(holder) if holder.is_foreign() || holder.is_of_this_call() => Level::Warn,
            // Another instance is at it, or this one is about to end.
            Error::Busy(_) | Error::AlreadyRan(_) | Error::Closed { .. } => Level::Info,
            _ => Level::Error,
        };
        event!(
            level,
            key = key.map(display),
            app = key.and_then(|key| key.app()).map(|app| display(shown(app))),
            name = key
                .and_then(|key| key.name())
                .map(|name| display(shown(name))),
            function = name,
            module,
            reason = reason(error),
            holder = holder.map(|holder| display(holder.holder())),
            held_since = holder
                .and_then(|holder| holder.acquired_at())
                .map(|at| display(humantime::format_rfc3339_seconds(at))),
            "not run: {error}{}",
            match other {
                true =>
                    "; that is another function, whose runs count as well: give each job a \
                         name of its own (`name = \"…\"`)",
                false => "",
            }
        );
    }

    /// A run has ended; its lock is released after this.
    pub(crate) fn ended(self, running: &Running, outcome: Outcome) {
        let Self { module, name } = self;
        let (lease, key) = (running.guard.lease(), &running.key);
        // What is nested is a part of a run: it may end well, and the run not.
        if measures::ENABLED && running.around.is_none() {
            let now = running.locker.engine().wall();
            measures::ran(key.app(), outcome.label(), now);
        }
        tracing::info!(
            %key,
            app = key.app().map(|app| display(shown(app))),
            name = key.name().map(|name| display(shown(name))),
            owner = %lease.owner.simple(),
            token = lease.token,
            function = name,
            module,
            outcome = outcome.name(),
            waited_ms = millis(running.guard.waited()),
            held_ms = millis(lease.held_for()),
            "ended: {}", outcome.name()
        );
    }

    /// The body was cancelled.
    pub(crate) fn lost(self, error: &Error) {
        let Self { module, name } = self;
        let level = match is_planned(error) {
            true => Level::Info,
            false => Level::Error,
        };
        event!(
            level,
            module,
            function = name,
            reason = reason(error),
            "cancelled: {error}"
        );
    }

    /// The body has ended, and its result stands.
    pub(crate) fn release_failed(self, error: &Error) {
        if is_planned(error) {
            // The shutdown has released it.
            return;
        }
        let Self { module, name } = self;
        tracing::warn!(
            module,
            function = name,
            reason = reason(error),
            "the function has ended, but its lock was not released: {error}"
        );
    }
}

/// Whether what has run already is another function under the same lock: of a job that runs each
/// hour and one that runs each day the second would never run.
fn other_function(key: Option<&Key>, error: &Error) -> bool {
    let Error::AlreadyRan(run) = error else {
        return false;
    };
    let ours = key.and_then(|key| key.function);
    ours.zip(run.function.as_deref())
        .is_some_and(|(ours, theirs)| ours.to_string() != theirs)
}

/// A shutdown, which is no fault.
fn is_planned(error: &Error) -> bool {
    matches!(
        error,
        Error::Lost {
            reason: Loss::Shutdown,
            ..
        }
    )
}

/// The word by which a log is searched.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Busy(_) => "busy",
        Error::AlreadyRan(_) => "already ran",
        Error::Lost { .. } => "lost",
        Error::NotHeld { .. } => "not held",
        Error::Unavailable(_) => "unavailable",
        Error::Denied(_) => "denied",
        Error::Misconfigured(_) => "misconfigured",
        Error::Invalid(_) => "invalid",
        Error::Closed { .. } => "closed",
    }
}

//! The one error type. Every message says what happened, to which lock, and what
//! to do next; none ever carries a password.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::info::{LastHolding, LockInfo};
use crate::shown::{message, shown};

/// What this crate's functions return.
///
/// ```
/// fn is_free(lock: &applock::Lock) -> applock::Result<bool> {
///     Ok(lock.info_blocking()?.is_none())
/// }
/// # assert!(is_free(&applock::AppLocker::in_memory().lock("reports")).unwrap());
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lock was not taken, or is held no longer.
///
/// ```
/// use applock::{AppLocker, Error};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// let locker = AppLocker::in_memory();
/// let _guard = locker.lock("reports").acquire().await?;
/// match locker.lock("reports").acquire().await {
///     Err(Error::Busy(holder)) => println!("{holder}"),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another holder has the lock: who, and since when.
    #[error("busy: {0}")]
    Busy(LockInfo),

    /// This tick has had its run ([`every`](crate::Lock::every), [`tick`](crate::Lock::tick)): who
    /// ran it, when, and how it ended; it may go on still.
    #[error("{}", .0.already_ran())]
    AlreadyRan(Box<LastHolding>),

    /// The lease ended while the work was going on: whatever the work did after
    /// that may have overlapped with another holder.
    #[error(
        "lost: the lock {:?} (token {token}) is ours no longer: {reason}. What ran under it was told to stop",
        shown(.key)
    )]
    #[non_exhaustive]
    Lost {
        /// The lock's key.
        key: Arc<str>,
        /// The fencing token of the acquisition that was lost.
        token: u64,
        /// How it was lost.
        reason: Loss,
    },

    /// A release or a check of a lock that this guard does not hold (any more).
    /// Nothing was deleted.
    #[error(
        "not held: the lock {:?} was not held by this guard any more, so nothing was released",
        shown(.key)
    )]
    #[non_exhaustive]
    NotHeld {
        /// The lock's key.
        key: Arc<str>,
    },

    /// The store could not be reached, or its answer is not known. Nothing ran.
    /// Trying again later is safe.
    #[error(transparent)]
    Unavailable(Box<StoreFault>),

    /// The store refused us: a wrong password, or a right that is missing. Trying
    /// again does not help until that is mended.
    #[error(transparent)]
    Denied(Box<StoreFault>),

    /// The store answered, and what stands there can't be used: a damaged file, a
    /// database that does not exist. Trying again does not help until a person has
    /// looked at it.
    #[error(transparent)]
    Misconfigured(Box<StoreFault>),

    /// What was asked for can't be done as it was written: a bad name, duration,
    /// URL or directory.
    #[error(transparent)]
    Invalid(Box<InvalidInput>),

    /// [`AppLocker::shutdown`](crate::AppLocker::shutdown) or
    /// [`drain`](crate::AppLocker::drain) was called; this locker takes no more locks.
    #[error("closed: the locker was shut down, so the lock {:?} was not taken", shown(.key))]
    #[non_exhaustive]
    Closed {
        /// The lock's key.
        key: Arc<str>,
    },
}

/// Which [`Error`] it is, without what it carries: for labels, for logs, and for programs that read
/// its [`name`](Self::name).
///
/// ```
/// # use applock::{AppLocker, ErrorKind};
/// # let locker = AppLocker::in_memory();
/// let _guard = locker.lock("reports").acquire_blocking()?;
/// let refused = locker.lock("reports").acquire_blocking().unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Busy);
/// assert_eq!(refused.kind().to_string(), "busy");
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::Busy`]
    Busy,
    /// [`Error::Lost`]
    Lost,
    /// [`Error::NotHeld`]
    NotHeld,
    /// [`Error::Unavailable`]
    Unavailable,
    /// [`Error::Denied`]
    Denied,
    /// [`Error::Misconfigured`]
    Misconfigured,
    /// [`Error::Invalid`]
    Invalid,
    /// [`Error::Closed`]
    Closed,
    /// [`Error::AlreadyRan`]
    AlreadyRan,
}

impl ErrorKind {
    /// One word, which never changes: `busy`, `lost`, `not_held`, `unavailable`, `denied`,
    /// `misconfigured`, `invalid`, `closed`, `already_ran`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Lost => "lost",
            Self::NotHeld => "not_held",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Misconfigured => "misconfigured",
            Self::Invalid => "invalid",
            Self::Closed => "closed",
            Self::AlreadyRan => "already_ran",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a lease was lost.
///
/// ```
/// # use applock::{AppLocker, Error, Loss};
/// # let locker = AppLocker::in_memory();
/// let guard = locker.lock("reports").acquire_blocking()?;
/// locker.lock("reports").force_release_blocking()?;
/// guard.lost_blocking();
/// assert!(matches!(guard.ensure_held(), Err(Error::Lost { reason: Loss::Taken, .. })));
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// No renewal was confirmed before the lease ran out.
    Expired,
    /// The store answered that another holder has the lock, or none: it was
    /// released by force, expired, or was forgotten by the store.
    Taken,
    /// The time given by `at_most` is over.
    AtMost,
    /// The locker was shut down, or the time of a drain was over.
    Shutdown,
    /// The locker's background thread has stopped: a clock, a waker or a log subscriber
    /// that it called has panicked.
    Stopped,
}

impl Loss {
    /// One word, which never changes: `expired`, `taken`, `at_most`, `shutdown`, `stopped`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Taken => "taken",
            Self::AtMost => "at_most",
            Self::Shutdown => "shutdown",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "no heartbeat was confirmed before the lease ran out",
            Self::Taken => "the store says that it is not ours (released by force, or forgotten)",
            Self::AtMost => "the time given by at_most is over",
            Self::Shutdown => "the locker was shut down",
            Self::Stopped => "the locker's background thread has stopped",
        })
    }
}

/// What went wrong at a store, with which lock, and what to do about it.
///
/// ```
/// # use applock::{AppLocker, Error};
/// // Nothing listens on port 1.
/// let locker = AppLocker::builder().store("redis://127.0.0.1:1").build()?;
/// match locker.lock("reports").acquire_blocking() {
///     Err(Error::Unavailable(fault)) => {
///         assert_eq!(fault.lock.as_deref(), Some("QUEUE:reports"));
///         println!("{}: {}; {}", fault.store, fault.what, fault.remedy);
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct StoreFault {
    pub(crate) kind: FaultKind,
    /// The lock that was asked for, if the fault met one.
    pub lock: Option<Arc<str>>,
    /// The store, as a URL without its password.
    pub store: Arc<str>,
    /// What happened.
    pub what: Arc<str>,
    /// What to do about it.
    pub remedy: &'static str,
    pub(crate) source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// Which variant of [`Error`] carries a [`StoreFault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Unavailable,
    Denied,
    Misconfigured,
}

impl StoreFault {
    fn message(&self) -> String {
        let kind = match self.kind {
            FaultKind::Unavailable => "unavailable",
            FaultKind::Denied => "denied",
            FaultKind::Misconfigured => "misconfigured",
        };
        let lock = match &self.lock {
            Some(lock) => format!("the lock {:?} at ", shown(lock)),
            None => String::new(),
        };
        let remedy = if self.remedy.is_empty() { "" } else { "; " };
        format!(
            "{kind}: {lock}{}: {}{remedy}{}",
            shown(&self.store),
            self.what,
            self.remedy
        )
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

/// A cause that the message tells is no source: who prints the whole chain, as `anyhow` does,
/// would print it twice.
impl StdError for StoreFault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref()?;
        let is_told = self.what.contains(&message(source.to_string()).to_string());
        (!is_told).then_some(source)
    }
}

/// An input that can't be used: what it is, where it stands, and what to write
/// instead.
///
/// ```
/// # use applock::{AppLocker, Error};
/// match AppLocker::builder().store("redis://localhost/first").build() {
///     Err(Error::Invalid(input)) => {
///         assert_eq!(input.what, "url");
///         println!("{}: {}; {}", input.value, input.reason, input.remedy);
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value}: {reason}; {remedy}")]
#[non_exhaustive]
pub struct InvalidInput {
    /// Which input: `ttl`, `app`, `url` and so on.
    pub what: &'static str,
    /// The value that was given, without passwords, on one line, shortened if it is long.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub remedy: String,
}

impl Error {
    pub(crate) fn invalid(
        what: &'static str,
        value: impl fmt::Display,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Invalid(Box::new(InvalidInput {
            what,
            value: shown(value).to_string(),
            reason: reason.into(),
            remedy: remedy.into(),
        }))
    }

    /// Which error it is, without what it carries.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy(_) => ErrorKind::Busy,
            Self::Lost { .. } => ErrorKind::Lost,
            Self::NotHeld { .. } => ErrorKind::NotHeld,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Denied(_) => ErrorKind::Denied,
            Self::Misconfigured(_) => ErrorKind::Misconfigured,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Closed { .. } => ErrorKind::Closed,
            Self::AlreadyRan(_) => ErrorKind::AlreadyRan,
        }
    }

    /// Who holds the lock, if this is [`Error::Busy`].
    ///
    /// ```
    /// # use applock::AppLocker;
    /// # let locker = AppLocker::in_memory();
    /// # let _guard = locker.lock("reports").acquire_blocking()?;
    /// let error = locker.lock("reports").acquire_blocking().unwrap_err();
    /// assert_eq!(error.holder().map(|holder| holder.pid()), Some(Some(std::process::id())));
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn holder(&self) -> Option<&LockInfo> {
        match self {
            Self::Busy(info) => Some(info),
            _ => None,
        }
    }
}

/// As it would be derived, with text from outside as people are shown it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(holder) => f.debug_tuple("Busy").field(holder).finish(),
            Self::AlreadyRan(run) => f.debug_tuple("AlreadyRan").field(run).finish(),
            Self::Lost { key, token, reason } => f
                .debug_struct("Lost")
                .field("key", &shown(key))
                .field("token", token)
                .field("reason", reason)
                .finish(),
            Self::NotHeld { key } => f.debug_struct("NotHeld").field("key", &shown(key)).finish(),
            Self::Unavailable(fault) => f.debug_tuple("Unavailable").field(fault).finish(),
            Self::Denied(fault) => f.debug_tuple("Denied").field(fault).finish(),
            Self::Misconfigured(fault) => f.debug_tuple("Misconfigured").field(fault).finish(),
            Self::Invalid(input) => f.debug_tuple("Invalid").field(input).finish(),
            Self::Closed { key } => f.debug_struct("Closed").field("key", &shown(key)).finish(),
        }
    }
}

impl fmt::Debug for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFault")
            .field("kind", &self.kind)
            .field("lock", &self.lock.as_ref().map(shown))
            .field("store", &shown(&self.store))
            .field("what", &self.what)
            .field("remedy", &self.remedy)
            .field("source", &self.source)
            .finish()
    }
}

/// For functions that return `std::io::Result`: busy becomes
/// [`WouldBlock`](io::ErrorKind::WouldBlock), 'already ran'
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists), and this error is the source.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Busy(_) => io::ErrorKind::WouldBlock,
            Error::AlreadyRan(_) => io::ErrorKind::AlreadyExists,
            Error::Denied(_) => io::ErrorKind::PermissionDenied,
            Error::Invalid(_) => io::ErrorKind::InvalidInput,
            Error::Lost { .. } => io::ErrorKind::Interrupted,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_beside_what_a_function_returns() {
        assert!(size_of::<Error>() <= 40, "{}", size_of::<Error>());
    }

    #[test]
    fn an_io_error_keeps_the_refusal_as_its_source() {
        let error = io::Error::from(Error::NotHeld { key: "k".into() });
        assert!(error.get_ref().is_some_and(|source| source.is::<Error>()));
    }
}

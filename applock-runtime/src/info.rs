//! Who holds a lock, since when, and who held it last: what people read.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::shown::shown;

/// Who holds a lock, since when, and for how long still, as the store answered.
///
/// A snapshot: it does not change afterwards. All times are by the store's clock.
/// Its `Display` is one line for people: text that others wrote is shortened and escaped there.
/// The methods give it as it stands in the store.
///
/// ```
/// # use applock::AppLocker;
/// # let locker = AppLocker::in_memory();
/// let guard = locker.lock("reports").acquire_blocking()?;
/// let info = locker.lock("reports").info_blocking()?.expect("the lock is held");
/// assert_eq!(info.application(), Some("reports"));
/// assert_eq!(info.fencing_token(), Some(guard.fencing_token()));
/// assert_eq!((info.key(), info.name()), ("QUEUE:reports", None));
/// assert_eq!(info.owner_id(), guard.info().owner_id());
/// assert_eq!(info.instance_id(), locker.instance_id());
/// assert_eq!((info.host(), info.pid()), (guard.info().host(), Some(std::process::id())));
/// assert!(info.acquired_at().is_some() && info.held_for() >= info.heartbeat_age());
/// assert!(info.remaining() <= info.ttl() && !info.is_foreign());
/// assert_eq!(info.waiters(), Some(0));
/// println!("{info}");
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo(
    Arc<Record>,
    /// Why the caller that holds the lock itself was refused.
    Option<&'static str>,
);

/// What a store knows of a holder.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) key: Arc<str>,
    pub(crate) app: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) owner: String,
    pub(crate) instance: String,
    pub(crate) host: String,
    pub(crate) pid: Option<u32>,
    pub(crate) token: Option<u64>,
    pub(crate) acquired_at: Option<SystemTime>,
    pub(crate) held_for: Option<Duration>,
    pub(crate) heartbeat_age: Option<Duration>,
    pub(crate) remaining: Option<Duration>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) waiters: Option<u64>,
    /// Its holder has given it back, and `at_least` keeps it: the heartbeat was that release.
    pub(crate) is_kept: bool,
    /// Why this is no lock of ours, if it is none.
    pub(crate) foreign: Option<String>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &shown(&self.key))
            .field("app", &self.app.as_ref().map(shown))
            .field("name", &self.name.as_ref().map(shown))
            .field("function", &self.function.as_ref().map(shown))
            .field("owner", &shown(&self.owner))
            .field("instance", &shown(&self.instance))
            .field("host", &shown(&self.host))
            .field("pid", &self.pid)
            .field("token", &self.token)
            .field("acquired_at", &self.acquired_at)
            .field("held_for", &self.held_for)
            .field("heartbeat_age", &self.heartbeat_age)
            .field("remaining", &self.remaining)
            .field("ttl", &self.ttl)
            .field("waiters", &self.waiters)
            .field("is_kept", &self.is_kept)
            .field("foreign", &self.foreign.as_ref().map(shown))
            .finish()
    }
}

impl Record {
    /// Something that is not ours stands at the key: it counts as held.
    pub(crate) fn foreign(
        key: Arc<str>,
        what: impl Into<String>,
        remaining: Option<Duration>,
    ) -> Self {
        Self {
            key,
            remaining,
            foreign: Some(what.into()),
            ..Self::default()
        }
    }
}

impl From<Record> for LockInfo {
    fn from(record: Record) -> Self {
        Self(Arc::new(record), None)
    }
}

impl LockInfo {
    /// The lock's key in the store.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The application (`app = "…"`); `None` where the whole key was given.
    #[must_use]
    pub fn application(&self) -> Option<&str> {
        self.0.app.as_deref()
    }

    /// The name inside the application (`name = "…"`), if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// The function that holds it, with its module, if it is a `#[singleton]`.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.0.function.as_deref()
    }

    /// When the run of the holder ended, by the store's clock, if `at_least` keeps the lock
    /// since; it is kept for [`remaining`](Self::remaining).
    #[must_use]
    pub fn ended_at(&self) -> Option<SystemTime> {
        let Record {
            held_for,
            heartbeat_age,
            acquired_at,
            ..
        } = &*self.0;
        let held = held_for.zip(*heartbeat_age).filter(|_| self.0.is_kept);
        let held = held.map(|(held, since)| held.saturating_sub(since));
        acquired_at
            .zip(held)
            .and_then(|(at, held)| at.checked_add(held))
    }

    /// The owner id: unique to this acquisition. Empty for a foreign holder.
    #[must_use]
    pub fn owner_id(&self) -> &str {
        &self.0.owner
    }

    /// The instance id: the name given to the builder, or one unique to the
    /// holder's process. Empty for a foreign holder, unless it is a Python AppLocker,
    /// which says it (`owner`).
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.0.instance
    }

    /// The holder's host name. Empty for a foreign holder that does not say it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The holder's process id on its host.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// The fencing token of the holder's acquisition.
    #[must_use]
    pub fn fencing_token(&self) -> Option<u64> {
        self.0.token
    }

    /// When it was acquired, by the store's clock, to the millisecond. Of a Python AppLocker
    /// by its host's clock.
    #[must_use]
    pub fn acquired_at(&self) -> Option<SystemTime> {
        self.0.acquired_at
    }

    /// How long it had been held when this was read.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        self.0.held_for
    }

    /// How long ago the last heartbeat (or the acquisition) was.
    #[must_use]
    pub fn heartbeat_age(&self) -> Option<Duration> {
        self.0.heartbeat_age
    }

    /// How long until the lease ends, if no further heartbeat comes. `None` where
    /// a foreign holder has set no expiry.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining
    }

    /// The lease's length.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.0.ttl
    }

    /// How many waiters stood in the queue when this was read. `None` in what a guard
    /// tells of itself, which asks no store, and where a directory's queue can't be read.
    #[must_use]
    pub fn waiters(&self) -> Option<u64> {
        self.0.waiters
    }

    /// Whether the key holds something that this library did not write, such as
    /// another program's plain lock. It counts as held, and is never changed.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.0.foreign.is_some()
    }
}

impl LockInfo {
    /// The holder is the code that asked, which was refused for this reason.
    pub(crate) fn of_this_call(self, why: &'static str) -> Self {
        Self(self.0, Some(why))
    }

    /// The holder in few words: where it is, and what it is.
    pub(crate) fn holder(&self) -> String {
        let record = &*self.0;
        let mut holder = shown(&record.host).to_string();
        if let Some(pid) = record.pid {
            holder.push_str(&format!(" (pid {pid}"));
            if !is_generated(&record.instance) {
                holder.push_str(&format!(", instance {}", shown(&record.instance)));
            }
            if let Some(function) = &record.function {
                holder.push_str(&format!(", function {}", shown(function)));
            }
            holder.push(')');
        }
        holder
    }

    pub(crate) fn is_of_this_call(&self) -> bool {
        self.1.is_some()
    }

    /// A foreign holder, with what it says of itself.
    pub(crate) fn that_says(self, words: OwnWords) -> Self {
        let mut record = Arc::unwrap_or_clone(self.0);
        record.instance = words.instance;
        record.host = words.host;
        record.pid = words.pid;
        record.acquired_at = words.acquired_at;
        Self(Arc::new(record), self.1)
    }
}

/// What a foreign holder says of itself.
pub(crate) struct OwnWords {
    pub(crate) instance: String,
    pub(crate) host: String,
    pub(crate) pid: Option<u32>,
    /// By its own clock.
    pub(crate) acquired_at: Option<SystemTime>,
}

/// Whether an instance id says nothing to a person: it was drawn, and not given.
fn is_generated(instance: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    instance.is_empty() || instance.len() == 16 && instance.bytes().all(is_digit)
}

/// For people: whole milliseconds below ten seconds, whole seconds above.
pub(crate) fn legible(length: Duration) -> impl fmt::Display {
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(if millis < 10_000 {
        Duration::from_millis(millis)
    } else {
        Duration::from_secs(length.as_secs())
    })
}

impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &*self.0;
        if let Some(what) = &record.foreign {
            let key = shown(&record.key);
            write!(f, "{key:?} is held by someone else: {}", shown(what))?;
            if !record.instance.is_empty() {
                write!(f, "; it says that it is {}", shown(&record.instance))?;
            }
            if !record.host.is_empty() {
                write!(f, " on {}", shown(&record.host))?;
            }
            if let Some(pid) = record.pid {
                write!(f, " (pid {pid})")?;
            }
            if let Some(at) = record.acquired_at {
                let at = humantime::format_rfc3339_seconds(at);
                write!(f, ", since {at} by its own clock")?;
            }
            return match record.remaining {
                Some(left) => write!(f, "; it expires in {}", legible(left)),
                None => write!(f, "; it has no expiry, so it stays until it is deleted"),
            };
        }
        let key = shown(&record.key);
        let holder = self.holder();
        let left = record.remaining.unwrap_or_default();
        if let Some((ended, kept)) = self.ended_at().zip(record.heartbeat_age) {
            let until = ended.checked_add(kept + left).unwrap_or(ended);
            write!(
                f,
                "{key:?} is kept until {}, for {} still (at_least); its run on {holder} ended at {}",
                humantime::format_rfc3339_seconds(until),
                legible(left),
                humantime::format_rfc3339_seconds(ended),
            )?;
            return match self.1 {
                Some(why) => write!(f, "; {why}"),
                None => Ok(()),
            };
        }
        write!(f, "{key:?} is held by {holder}")?;
        if let Some(at) = record.acquired_at {
            write!(f, " since {}", humantime::format_rfc3339_seconds(at))?;
        }
        if let Some(held) = record.held_for {
            write!(f, ", for {}", legible(held))?;
        }
        if let Some(age) = record.heartbeat_age {
            write!(f, "; last heartbeat {} ago", legible(age))?;
        }
        if let Some(left) = record.remaining {
            write!(f, ", lease ends in {}", legible(left))?;
        }
        if let Some(token) = record.token {
            write!(f, "; fencing token {token}")?;
        }
        if let Some(waiters) = record.waiters.filter(|waiters| *waiters > 0) {
            write!(f, "; {waiters} waiting for it")?;
        }
        if let Some(why) = self.1 {
            write!(f, "; {why}")?;
        }
        Ok(())
    }
}

/// The newest holding of a lock, be it over or not: the answer to 'did last
/// night's run finish?'.
///
/// ```
/// # use applock::{AppLocker, Ending};
/// # let locker = AppLocker::in_memory();
/// locker.lock("reports").acquire_blocking()?.release_blocking()?;
/// let last = locker.lock("reports").last_holding_blocking()?.expect("it was held");
/// assert_eq!(last.ending, Ending::Released);
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastHolding {
    /// The lock's key.
    pub key: Arc<str>,
    /// The function that held it, with its module, if it was a `#[singleton]`.
    pub function: Option<String>,
    /// The owner id of that acquisition.
    pub owner_id: String,
    /// The holder's instance id.
    pub instance_id: String,
    /// The holder's host name.
    pub host: String,
    /// The holder's process id.
    pub pid: Option<u32>,
    /// The fencing token of that acquisition.
    pub fencing_token: u64,
    /// When it was acquired, by the store's clock.
    pub from: SystemTime,
    /// When it ended, by the store's clock, to a few milliseconds; `None` while it goes on.
    pub until: Option<SystemTime>,
    /// How it ended.
    pub ending: Ending,
    /// Who released it by force, in few words, and why, where a reason was given.
    pub forced_by: Option<String>,
    /// When the next run may begin, by the store's clock: in an
    /// [`Error::AlreadyRan`](crate::Error::AlreadyRan) of [`every`](crate::Lock::every).
    pub next_at: Option<SystemTime>,
}

/// Who did something to a lock, in few words.
pub(crate) struct Operator<'a> {
    pub(crate) instance: &'a str,
    pub(crate) host: &'a str,
    pub(crate) pid: Option<u32>,
    /// Why, in the operator's words; may be empty.
    pub(crate) reason: &'a str,
}

impl fmt::Display for Operator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(self.host))?;
        match self.pid {
            Some(pid) if is_generated(self.instance) => write!(f, " (pid {pid})")?,
            Some(pid) => write!(f, " (pid {pid}, instance {})", shown(self.instance))?,
            None => (),
        }
        match self.reason {
            "" => Ok(()),
            reason => write!(f, ": {}", shown(reason)),
        }
    }
}

/// How a holding ended.
///
/// ```
/// # use applock::{AppLocker, Ending};
/// # let locker = AppLocker::in_memory();
/// let _guard = locker.lock("reports").acquire_blocking()?;
/// locker.lock("reports").force_release_blocking()?;
/// let last = locker.lock("reports").last_holding_blocking()?.expect("it was held");
/// assert_eq!(last.ending, Ending::Forced);
/// assert_eq!(last.ending.to_string(), "released by force");
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// It goes on.
    Held,
    /// Its holder released it by hand, and did not say how the work went
    /// ([`mark_ok`](crate::LockGuard::mark_ok), [`mark_failed`](crate::LockGuard::mark_failed)).
    Released,
    /// The run under it ended well.
    Ok,
    /// The run under it returned an `Err`, or its holder said that it failed.
    Error,
    /// The run under it panicked.
    Panicked,
    /// The run under it was cancelled: its future was dropped.
    Cancelled,
    /// Its holder lost the lease, or was shut down, and let go.
    Lost,
    /// Nothing ran under it: its caller had gone, or the grant came too late.
    Unused,
    /// Its lease ran out: the holder crashed, hung, or was cut off.
    Expired,
    /// It was released by force.
    Forced,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "still held",
            Self::Released => "released",
            Self::Ok => "ended well",
            Self::Error => "ended with an error",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Unused => "not used",
            Self::Expired => "expired",
            Self::Forced => "released by force",
        })
    }
}

impl fmt::Debug for LastHolding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastHolding")
            .field("key", &shown(&self.key))
            .field("function", &self.function.as_ref().map(shown))
            .field("owner_id", &shown(&self.owner_id))
            .field("instance_id", &shown(&self.instance_id))
            .field("host", &shown(&self.host))
            .field("pid", &self.pid)
            .field("fencing_token", &self.fencing_token)
            .field("from", &self.from)
            .field("until", &self.until)
            .field("ending", &self.ending)
            .field("forced_by", &self.forced_by.as_ref().map(shown))
            .field("next_at", &self.next_at)
            .finish()
    }
}

impl fmt::Display for LastHolding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} was last held by ", shown(&self.key))?;
        self.fmt_run(f)?;
        write!(f, "; fencing token {}", self.fencing_token)
    }
}

impl LastHolding {
    /// Who, from when until when, and how it ended.
    fn fmt_run(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(&self.host))?;
        if !is_generated(&self.instance_id) {
            write!(f, " (instance {})", shown(&self.instance_id))?;
        }
        if let Some(function) = &self.function {
            write!(f, ", function {}", shown(function))?;
        }
        write!(f, " from {}", humantime::format_rfc3339_seconds(self.from))?;
        if let Some(until) = self.until {
            write!(f, " until {}", humantime::format_rfc3339_seconds(until))?;
        }
        write!(f, ": {}", self.ending)?;
        match &self.forced_by {
            Some(by) => write!(f, " by {}", shown(by)),
            None => Ok(()),
        }
    }

    /// The text of [`Error::AlreadyRan`](crate::Error::AlreadyRan).
    pub(crate) fn already_ran(&self) -> impl fmt::Display + '_ {
        AlreadyRan(self)
    }
}

struct AlreadyRan<'a>(&'a LastHolding);

impl fmt::Display for AlreadyRan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(run) = self;
        write!(
            f,
            "already ran: the last run of {:?} was on ",
            shown(&run.key)
        )?;
        run.fmt_run(f)?;
        match run.next_at {
            Some(at) => write!(
                f,
                "; the next may begin at {}",
                humantime::format_rfc3339_seconds(at)
            ),
            None => f.write_str("; the next needs a later tick"),
        }
    }
}

//! How an AppLocker is made: its constructors, its builder, and the store that it runs on.

use std::env::VarError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::blocking::block_on;
use crate::clock::{Clock, SystemClock};
use crate::engine::lease_time::{COMMAND_TIMEOUT, DEFAULT_REMEMBER, DEFAULT_TTL, check_length};
use crate::engine::{Engine, Parts};
use crate::error::{Error, Result};
use crate::key::{DEFAULT_PREFIX, check_prefix};
use crate::measures;
use crate::shown::shown;
use crate::store::memory::MemoryStore;
use crate::store::{Identity, Store, url};

use super::shared::AppLocker;

/// The environment variable that names the default store.
///
/// ```
/// assert_eq!(applock::URL_VARIABLE, "APPLOCK_URL");
/// ```
pub const URL_VARIABLE: &str = "APPLOCK_URL";

/// The environment variable that names this instance.
const INSTANCE_VARIABLE: &str = "APPLOCK_INSTANCE";

/// Where the default store is, if the environment does not say.
const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

impl AppLocker {
    /// Connects to the store that `url` names: `redis://`, `rediss://` (feature
    /// `tls`), `redis+sentinel://`, `redis+cluster://`, `dir:PATH` or `memory:`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad URL, naming the bad part; [`Error::Unavailable`],
    /// [`Error::Denied`] or [`Error::Misconfigured`] if the store can't be used. Does
    /// I/O, up to the command time-out (1 second). Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// let locker = applock::AppLocker::connect("memory:").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder().store(url.as_ref()).connect().await
    }

    /// [`connect`](Self::connect) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// ```
    /// let locker = applock::AppLocker::connect_blocking("memory:")?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn connect_blocking(url: impl AsRef<str>) -> Result<Self> {
        block_on(Self::connect(url))
    }

    /// The locker of the store that the environment variable `APPLOCK_URL` names, or
    /// `redis://127.0.0.1:6379`. Connects on first use.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad URL. No I/O, but for the files that the URL names for TLS.
    ///
    /// ```
    /// let locker = applock::AppLocker::from_env()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn from_env() -> Result<Self> {
        Self::builder().build()
    }

    /// A locker whose locks live in this process's memory only: for tests. Each call
    /// makes a store of its own.
    ///
    /// ```
    /// let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert!(guard.is_held());
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn in_memory() -> Self {
        Builder::default().assemble(Arc::new(MemoryStore::new()))
    }

    /// A locker with its own defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use applock::AppLocker;
    ///
    /// let locker = AppLocker::builder()
    ///     .store("memory:")
    ///     .ttl(Duration::from_secs(30))
    ///     .key_prefix("staging:")
    ///     .instance("worker-7")
    ///     .build()?;
    /// assert_eq!(locker.instance_id(), "worker-7");
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Where a locker's locks live: a URL, or a [`MemoryStore`] shared by several lockers.
///
/// ```
/// # use applock::{AppLocker, MemoryStore, StoreSource};
/// let source: StoreSource = MemoryStore::new().into();
/// let one = AppLocker::builder().store(source.clone()).build()?;
/// let other = AppLocker::builder().store(source).build()?;
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StoreSource(Source);

#[derive(Clone)]
enum Source {
    Url(String),
    Memory(MemoryStore),
}

/// Danger: a URL holds a password, and a builder is printed as readily as anything.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(given) => f
                .debug_tuple("Url")
                .field(&shown(url::masked(given)))
                .finish(),
            Self::Memory(store) => f.debug_tuple("Memory").field(store).finish(),
        }
    }
}

impl From<&str> for StoreSource {
    fn from(url: &str) -> Self {
        Self(Source::Url(url.to_owned()))
    }
}

impl From<String> for StoreSource {
    fn from(url: String) -> Self {
        Self(Source::Url(url))
    }
}

impl From<&String> for StoreSource {
    fn from(url: &String) -> Self {
        Self(Source::Url(url.clone()))
    }
}

impl From<MemoryStore> for StoreSource {
    fn from(store: MemoryStore) -> Self {
        Self(Source::Memory(store))
    }
}

/// Makes an [`AppLocker`] with its own defaults; see [`AppLocker::builder`].
///
/// ```
/// # use applock::AppLocker;
/// let locker = AppLocker::builder().store("memory:").instance("worker-7").build()?;
/// # Ok::<(), applock::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until build() or connect()"]
pub struct Builder {
    store: Option<StoreSource>,
    ttl: Duration,
    remember: Duration,
    prefix: String,
    instance: Option<String>,
    command_timeout: Duration,
    replicas: url::AskedReplicas,
    clock: Arc<dyn Clock>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: None,
            ttl: DEFAULT_TTL,
            remember: DEFAULT_REMEMBER,
            prefix: DEFAULT_PREFIX.to_owned(),
            instance: None,
            command_timeout: COMMAND_TIMEOUT,
            replicas: url::AskedReplicas::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// The shortest command time-out: below it every hiccup of a network is a failure.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(5);

/// The longest instance name, in bytes: it is written beside every lock.
const LONGEST_INSTANCE: usize = 256;

impl Builder {
    /// The store: a URL (`redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`, `dir:`,
    /// `memory:`), or a [`MemoryStore`]. Without it, the one that `APPLOCK_URL` names, or
    /// `redis://127.0.0.1:6379`.
    ///
    /// ```
    /// # use applock::AppLocker;
    /// let builder = AppLocker::builder().store("redis://127.0.0.1:6379");
    /// ```
    pub fn store(mut self, store: impl Into<StoreSource>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// The ttl of locks that set none: 60 seconds unless set, from 100
    /// milliseconds to ten years.
    ///
    /// ```
    /// # use {applock::AppLocker, std::time::Duration};
    /// let builder = AppLocker::builder().ttl(Duration::from_secs(30));
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// For how long the store remembers holdings of locks that do not say: a week unless set,
    /// from 100 milliseconds to ten years. See [`Lock::remember`](crate::Lock::remember).
    ///
    /// ```
    /// # use {applock::AppLocker, std::time::Duration};
    /// let builder = AppLocker::builder().remember(Duration::from_secs(24 * 3600));
    /// ```
    pub fn remember(mut self, length: Duration) -> Self {
        self.remember = length;
        self
    }

    /// What stands before an application's name in a key: `QUEUE:` unless
    /// set. A `}` in it needs a hash tag, as in `{staging}:`.
    ///
    /// ```
    /// # use applock::AppLocker;
    /// let locker = AppLocker::builder().store("memory:").key_prefix("staging:").build()?;
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert_eq!(guard.info().key(), "staging:reports");
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The name by which other processes see this instance. Without it, the one that the
    /// environment variable `APPLOCK_INSTANCE` gives, or an id that is unique to the process,
    /// which messages leave out.
    ///
    /// ```
    /// # use applock::AppLocker;
    /// let builder = AppLocker::builder().instance("worker-7");
    /// ```
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// The longest that any one command to the store may take: 1 second unless
    /// set, and at the most. Heartbeats use a quarter of the ttl where that is
    /// less, so that two attempts fit before a lease ends.
    ///
    /// ```
    /// # use {applock::AppLocker, std::time::Duration};
    /// let builder = AppLocker::builder().command_timeout(Duration::from_millis(300));
    /// ```
    pub fn command_timeout(mut self, longest: Duration) -> Self {
        self.command_timeout = longest;
        self
    }

    /// How many replicas have to have each acquire, hand-over and heartbeat before it counts: none
    /// unless set, or as the URL's `?replicas=` says. For Redis, whose replication is asynchronous: a
    /// master that dies takes with it what its replicas have not got, and the replica that is promoted
    /// grants the lock again. If too few replicas have an acquire, it is undone, and its caller gets
    /// [`Error::Unavailable`]; if too few have a heartbeat, it has failed, and is repeated until the
    /// lease ends.
    ///
    /// It protects fully only if it is the number of *all* replicas of a master that may be
    /// promoted. Each acquire and each batch of heartbeats costs a `WAIT`, for which the Redis user
    /// needs the right.
    ///
    /// ```
    /// # use applock::AppLocker;
    /// let builder = AppLocker::builder().store("redis://127.0.0.1:6379").replicas(1);
    /// ```
    pub fn replicas(mut self, count: u32) -> Self {
        self.replicas.count = Some(count);
        self
    }

    /// How long replicas may take to acknowledge a write, with [`replicas`](Self::replicas): 250
    /// milliseconds unless set, from 1 to 800 milliseconds.
    ///
    /// ```
    /// # use {applock::AppLocker, std::time::Duration};
    /// let builder = AppLocker::builder().replicas(1).replica_timeout(Duration::from_millis(100));
    /// ```
    pub fn replica_timeout(mut self, longest: Duration) -> Self {
        self.replicas.timeout = Some(longest);
        self
    }

    /// The clock by which leases are judged, for tests:
    /// a [`ManualClock`](crate::clock::ManualClock), the same one that the
    /// [`MemoryStore`] has.
    ///
    /// ```
    /// use applock::{AppLocker, MemoryStore, clock::ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let locker = AppLocker::builder()
    ///     .store(MemoryStore::with_clock(clock.clone()))
    ///     .clock(clock)
    ///     .build()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the locker; it connects on first use.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the value that can't be used. Does no I/O, but that it reads
    /// the files that a `rediss://` URL names (`?ca=`, `?cert=`, `?key=`), and blocks for that.
    ///
    /// ```
    /// # use {applock::{AppLocker, Error}, std::time::Duration};
    /// let error = AppLocker::builder().ttl(Duration::ZERO).build().unwrap_err();
    /// assert!(matches!(error, Error::Invalid(_)));
    /// ```
    pub fn build(self) -> Result<AppLocker> {
        let ttl = check_length("ttl", self.ttl)?;
        let remember = check_length("remember", self.remember)?;
        check_prefix(&self.prefix)?;
        if self.command_timeout < SHORTEST_TIMEOUT || self.command_timeout > COMMAND_TIMEOUT {
            return Err(Error::invalid(
                "command_timeout",
                humantime::format_duration(self.command_timeout),
                "a command may take from 5 ms to 1 s, so that a heartbeat that fails can be repeated before the lease ends",
                "write one between these, or leave it out",
            ));
        }
        let instance = match self.instance.clone() {
            Some(name) => Some(check_instance("instance", name)?),
            None => from_env(INSTANCE_VARIABLE, "write one such as worker-7, or unset it")?
                .map(|name| check_instance(INSTANCE_VARIABLE, name))
                .transpose()?,
        };
        let asked = url::Asked {
            replicas: self.replicas,
            instance: instance.as_deref(),
        };
        let store: Arc<dyn Store> = match self.store.clone().map(|source| source.0) {
            Some(Source::Url(url)) => url::open(&url, asked)?,
            Some(Source::Memory(store)) => {
                url::check_replicas(self.replicas)?;
                Arc::new(store)
            }
            None => url::open(&url_from_env()?, asked).map_err(of_the_environment)?,
        };
        Ok(Self {
            ttl,
            remember,
            instance,
            ..self
        }
        .assemble(store))
    }

    /// Makes the locker and connects.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build) and [`AppLocker::connect`]. Does I/O, up to the
    /// command time-out. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// let locker = applock::AppLocker::builder().store("memory:").connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(self) -> Result<AppLocker> {
        let locker = self.build()?;
        locker.engine().open().await?;
        Ok(locker)
    }

    /// [`connect`](Self::connect) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// ```
    /// let locker = applock::AppLocker::builder().store("memory:").connect_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn connect_blocking(self) -> Result<AppLocker> {
        block_on(self.connect())
    }

    fn assemble(self, store: Arc<dyn Store>) -> AppLocker {
        let identity = Identity {
            instance: self
                .instance
                .unwrap_or_else(Identity::instance_of_this_process),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
        };
        measures::describe();
        let engine = Engine::new(Parts {
            store,
            clock: self.clock,
            identity: Arc::new(identity),
            command_timeout: self.command_timeout,
        });
        AppLocker::new(engine, self.ttl, self.remember, self.prefix)
    }
}

/// What is wrong with the URL is wrong with the variable.
fn of_the_environment(error: Error) -> Error {
    match error {
        Error::Invalid(mut input) => {
            input.what = URL_VARIABLE;
            Error::Invalid(input)
        }
        other => other,
    }
}

fn check_instance(what: &'static str, name: String) -> Result<String> {
    if (1..=LONGEST_INSTANCE).contains(&name.len()) {
        return Ok(name);
    }
    Err(Error::invalid(
        what,
        format_args!("{name:?}"),
        format!("a name has from 1 to {LONGEST_INSTANCE} bytes"),
        "write one such as \"worker-7\", or leave it out",
    ))
}

/// A variable of the environment.
fn from_env(variable: &'static str, remedy: &str) -> Result<Option<String>> {
    match std::env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Error::invalid(
            variable,
            "(not Unicode)",
            "it can't be read as text",
            remedy,
        )),
    }
}

fn url_from_env() -> Result<String> {
    match from_env(URL_VARIABLE, "write redis://host:6379")? {
        Some(url) if url.trim().is_empty() => Err(Error::invalid(
            URL_VARIABLE,
            format_args!("{url:?}"),
            "it is empty, and names no store",
            "write redis://host:6379, or unset it",
        )),
        Some(url) => Ok(url),
        None => Ok(DEFAULT_URL.to_owned()),
    }
}

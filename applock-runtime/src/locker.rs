//! AppLocker: a store, the defaults of its locks, and who we are.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use uuid::Uuid;

use crate::blocking::block_on;
use crate::clock::{Clock, SystemClock};
use crate::engine::lease_time::{COMMAND_TIMEOUT, DEFAULT_TTL, check_length};
use crate::engine::{Engine, Parts};
use crate::error::{Error, Result};
use crate::key::{DEFAULT_PREFIX, check_prefix};
use crate::lock::Lock;
use crate::store::memory::MemoryStore;
use crate::store::{Identity, Store, url};

/// The environment variable that names the default store.
///
/// ```
/// assert_eq!(applock::URL_VARIABLE, "APPLOCK_URL");
/// ```
pub const URL_VARIABLE: &str = "APPLOCK_URL";

/// Where the default store is, if the environment does not say.
const DEFAULT_URL: &str = "redis://127.0.0.1:6379";

/// A store and what goes with it: the way to every [`Lock`].
///
/// Cheap to clone; clones share one connection and one background thread, which is
/// started on first use, keeps the locks alive, and belongs to no async runtime.
/// When the last clone is dropped it waits up to half a second for releases that are
/// still on their way.
///
/// ```
/// use applock::AppLocker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("applock-doc-{}", std::process::id()));
/// # let url = format!("dir:{}", directory.display());
/// // redis://127.0.0.1:6379, dir:/var/lock/app, memory:
/// let locker = AppLocker::connect(&url).await?;
/// if let Some(guard) = locker.lock("reports").try_acquire().await? {
///     println!("nobody else runs this now; fencing token {}", guard.fencing_token());
///     guard.release().await?;
/// }
/// # drop(locker); std::fs::remove_dir_all(directory).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AppLocker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    ttl: Duration,
    prefix: String,
}

impl AppLocker {
    /// Connects to the store that `url` names: `redis://`, `rediss://` (feature
    /// `tls`), `dir:PATH` or `memory:`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad URL, told by its part; [`Error::Unavailable`],
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
    /// [`Error::Invalid`] for a bad URL. No I/O.
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

    /// The lock of an application. Refine it with [`Lock::name`], [`Lock::key`],
    /// [`Lock::ttl`] and so on. No I/O; a name that can't be used is told when the
    /// lock is taken.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("billing").name("tenant-7");
    /// ```
    pub fn lock(&self, app: impl Into<String>) -> Lock {
        Lock::new(self.clone(), app.into())
    }

    /// The instance id that stands in the information about our locks.
    ///
    /// ```
    /// assert!(!applock::AppLocker::in_memory().instance_id().is_empty());
    /// ```
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.inner.engine.identity().instance
    }

    /// The store, as a URL without its password.
    ///
    /// ```
    /// let locker = applock::AppLocker::in_memory();
    /// assert_eq!(locker.store(), "memory:");
    /// ```
    #[must_use]
    pub fn store(&self) -> String {
        self.inner.engine.store().to_string()
    }

    /// Tells every holder to stop, releases all that this locker holds, and takes no
    /// more locks: for the end of a process, on `SIGTERM`.
    ///
    /// Async bodies are cancelled, and guards turn lost, at once; a lock is released
    /// when its guard is dropped, and at half of `within` at the latest. Returns when
    /// all are released, after `within` at the latest. Waiting acquires get
    /// [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if some could not be released in time; their ttl frees
    /// them. Does I/O. If the future is dropped, the shutdown goes on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.shutdown(Duration::from_secs(5)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self, within: Duration) -> Result<()> {
        self.inner.engine.shutdown(within).await
    }

    /// [`shutdown`](Self::shutdown) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.shutdown_blocking(Duration::from_secs(5))?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn shutdown_blocking(&self, within: Duration) -> Result<()> {
        block_on(self.shutdown(within))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn default_ttl(&self) -> Duration {
        self.inner.ttl
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Whether both are clones of one locker.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
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

#[derive(Clone, Debug)]
enum Source {
    Url(String),
    Memory(MemoryStore),
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
    prefix: String,
    instance: Option<String>,
    command_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: None,
            ttl: DEFAULT_TTL,
            prefix: DEFAULT_PREFIX.to_owned(),
            instance: None,
            command_timeout: COMMAND_TIMEOUT,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The shortest command time-out: below it every hiccup of a network is a failure.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(5);

/// The longest instance name, in bytes: it is written beside every lock.
const LONGEST_INSTANCE: usize = 256;

impl Builder {
    /// The store: a URL (`redis://`, `rediss://`, `dir:`, `memory:`), or a
    /// [`MemoryStore`]. Without it, the one that `APPLOCK_URL` names, or
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

    /// The ttl of locks that set none: 60 seconds unless told otherwise, 100
    /// milliseconds at the least.
    ///
    /// ```
    /// # use {applock::AppLocker, std::time::Duration};
    /// let builder = AppLocker::builder().ttl(Duration::from_secs(30));
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What stands before an application's name in a key: `QUEUE:` unless told
    /// otherwise.
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

    /// The name by which others see this instance, in place of an id that is unique to
    /// the process.
    ///
    /// ```
    /// # use applock::AppLocker;
    /// let builder = AppLocker::builder().instance("worker-7");
    /// ```
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// The longest that any one command to the store may take: 1 second unless told
    /// otherwise, and at the most. Heartbeats use a quarter of the ttl where that is
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
    /// [`Error::Invalid`] that names the value that can't be used. No I/O.
    ///
    /// ```
    /// # use {applock::{AppLocker, Error}, std::time::Duration};
    /// let error = AppLocker::builder().ttl(Duration::ZERO).build().unwrap_err();
    /// assert!(matches!(error, Error::Invalid(_)));
    /// ```
    pub fn build(self) -> Result<AppLocker> {
        let ttl = check_length("ttl", self.ttl)?;
        check_prefix(&self.prefix)?;
        if self.command_timeout < SHORTEST_TIMEOUT || self.command_timeout > COMMAND_TIMEOUT {
            return Err(Error::invalid(
                "command_timeout",
                humantime::format_duration(self.command_timeout),
                "a command may take from 5 ms to 1 s, so that a heartbeat that fails can be repeated before the lease ends",
                "write one between these, or leave it out",
            ));
        }
        if let Some(name) = &self.instance
            && (name.is_empty() || name.len() > LONGEST_INSTANCE)
        {
            return Err(Error::invalid(
                "instance",
                format_args!("{name:?}"),
                format!("a name has from 1 to {LONGEST_INSTANCE} bytes"),
                "write one such as \"worker-7\", or leave it out",
            ));
        }
        let source = match &self.store {
            Some(source) => source.clone(),
            None => url_from_env()?.into(),
        };
        let store: Arc<dyn Store> = match source.0 {
            Source::Url(url) => url::open(&url)?,
            Source::Memory(store) => Arc::new(store),
        };
        Ok(Self { ttl, ..self }.assemble(store))
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
            instance: self.instance.unwrap_or_else(|| process_id().to_owned()),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
        };
        AppLocker {
            inner: Arc::new(Inner {
                engine: Engine::new(Parts {
                    store,
                    clock: self.clock,
                    identity: Arc::new(identity),
                    command_timeout: self.command_timeout,
                }),
                ttl: self.ttl,
                prefix: self.prefix,
            }),
        }
    }
}

fn url_from_env() -> Result<String> {
    match std::env::var(URL_VARIABLE) {
        Ok(url) => Ok(url),
        Err(std::env::VarError::NotPresent) => Ok(DEFAULT_URL.to_owned()),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::invalid(
            URL_VARIABLE,
            "(not Unicode)",
            "it can't be read as text",
            "write redis://host:6379",
        )),
    }
}

/// Unique to this process: one for all its lockers.
fn process_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| Uuid::new_v4().simple().to_string())
}

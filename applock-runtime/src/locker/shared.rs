//! AppLocker: a store, the defaults of its locks, and the name of this instance. Its clones
//! share one engine. How one is made is in `builder.rs`.

use std::sync::Arc;
use std::time::Duration;

use crate::blocking::block_on;
use crate::engine::Engine;
use crate::error::Result;

/// A store and what goes with it: the way to every [`Lock`](crate::Lock).
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
///     println!("no other instance runs this now; fencing token {}", guard.fencing_token());
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
    remember: Duration,
    prefix: String,
}

impl AppLocker {
    pub(super) fn new(engine: Engine, ttl: Duration, remember: Duration, prefix: String) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                ttl,
                remember,
                prefix,
            }),
        }
    }

    /// The instance id that [`LockInfo`](crate::LockInfo) shows of this locker's holdings.
    ///
    /// ```
    /// assert!(!applock::AppLocker::in_memory().instance_id().is_empty());
    /// ```
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.inner.engine.here().identity().instance
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
    /// Async bodies are cancelled, and guards turn lost, at once ([`drain`](Self::drain) lets
    /// them end); a lock is released
    /// when its guard is dropped, and at half of `within` at the latest. Returns when
    /// all are released, after `within` at the latest. Waiting acquires get
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`](crate::Error::Unavailable) if some could not be released in time; their ttl frees
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

    /// Lets what runs under this locker's locks end, and takes no more locks: for the planned
    /// end of a process, on `SIGTERM`.
    ///
    /// New acquires and waiting ones get [`Error::Closed`](crate::Error::Closed) at once.
    /// Bodies and guards go on, with their heartbeat, for as long as `within` at the most; what
    /// is held then is ended as by a [`shutdown`](Self::shutdown) of one second. Returns as soon
    /// as nothing is held any more.
    ///
    /// Choose `within` a few seconds below what the process is given to end: of the 30 seconds
    /// of Kubernetes, 25.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown). If the future is dropped, the drain goes on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.drain(Duration::from_secs(25)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drain(&self, within: Duration) -> Result<()> {
        self.inner.engine.drain(within).await
    }

    /// [`drain`](Self::drain) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.drain_blocking(Duration::from_secs(25))?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn drain_blocking(&self, within: Duration) -> Result<()> {
        block_on(self.drain(within))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn default_ttl(&self) -> Duration {
        self.inner.ttl
    }

    pub(crate) fn default_remember(&self) -> Duration {
        self.inner.remember
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Whether both are clones of one locker.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

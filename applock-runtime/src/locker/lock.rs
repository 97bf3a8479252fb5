//! Lock: which key, and how to take it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::blocking::block_on;
use crate::engine::lease_time::{MAX_TTL, check_length};
use crate::engine::{AcquireRequest, Validity, Wait};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{LastHolding, LockInfo};
use crate::key::Key;
use crate::measures;
use crate::store::Inspection;

use super::current::{self, NOT_REENTRANT};
use super::guard::LockGuard;
use super::options::LockOptions;
use super::shared::AppLocker;
use super::tick::Tick;

/// One lock of an [`AppLocker`]: a key, and how to take it. Holds nothing by itself;
/// every successful acquire gives a [`LockGuard`] of its own.
///
/// Not reentrant: to acquire a lock again while it is held, in the same task too, is
/// busy. Code that runs under the lock itself ([`run`](Self::run), `#[singleton]`) gets that
/// answer at once, whatever [`wait`](Self::wait) says, for it would wait for itself; see
/// [`reentrant`](Self::reentrant).
///
/// ```
/// use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// # let locker = applock::AppLocker::in_memory();
/// let lock = locker
///     .lock("billing")
///     .name("tenant-7")
///     .ttl(Duration::from_secs(30))
///     .wait(Duration::from_secs(10));
/// let guard = lock.acquire().await?;
/// // … the work …
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a lock is not taken until acquire(), try_acquire() or run()"]
pub struct Lock {
    locker: AppLocker,
    options: LockOptions,
    /// The key that the options make, once it was asked for.
    resolved: OnceLock<Key>,
}

impl AppLocker {
    /// The lock of an application. Refine it with [`Lock::name`], [`Lock::key`],
    /// [`Lock::ttl`] and so on. No I/O; a name that can't be used is an
    /// [`Error::Invalid`] when the lock is taken.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("billing").name("tenant-7");
    /// ```
    pub fn lock(&self, app: impl Into<String>) -> Lock {
        Lock::new(self.clone(), LockOptions::app(app))
    }
}

impl Lock {
    pub(crate) fn new(locker: AppLocker, options: LockOptions) -> Self {
        Self {
            locker,
            options,
            resolved: OnceLock::new(),
        }
    }

    /// A lock inside the application: `QUEUE:{app}:{name}`. Replaces a key set before.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("billing").name("tenant-7").acquire_blocking()?;
    /// assert_eq!(guard.info().key(), "QUEUE:billing:tenant-7");
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options = self.options.name(name);
        self.resolved = OnceLock::new();
        self
    }

    /// The whole key, in place of the one made of application and name.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("billing").key("legacy-billing-lock").acquire_blocking()?;
    /// assert_eq!(guard.info().key(), "legacy-billing-lock");
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.options = self.options.key(key.into());
        self.resolved = OnceLock::new();
        self
    }

    /// The lease's length: how soon the lock of a crashed holder is free. From 100
    /// milliseconds to ten years; the locker's default (60 seconds) unless set. The
    /// heartbeat keeps a lock for as long as its guard lives, so a ttl need not cover
    /// the work.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").ttl(Duration::from_secs(5)).acquire_blocking()?;
    /// assert!(guard.remaining() <= Duration::from_secs(5));
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options = self.options.ttl(ttl);
        self
    }

    /// How long [`acquire`](Self::acquire) waits while the lock is held.
    /// Zero is one try. Not at all unless set. The first try is always answered, up to
    /// the command time-out (1 second) later.
    ///
    /// Waiters are served first come, first served, over all tasks, threads, processes and
    /// servers: the store keeps a queue. A release hands the lock to the first waiter that
    /// is alive.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// # let _guard = locker.lock("reports").acquire_blocking()?;
    /// let busy = locker.lock("reports").wait(Duration::from_millis(50)).acquire_blocking();
    /// assert!(busy.is_err());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn wait(mut self, longest: Duration) -> Self {
        self.options = self.options.wait(longest);
        self
    }

    /// [`acquire`](Self::acquire) waits for as long as it takes, also while the store
    /// can't be reached.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("leader").wait_forever().acquire_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn wait_forever(mut self) -> Self {
        self.options = self.options.wait_forever();
        self
    }

    /// For how long the store remembers a holding after its end, which is what
    /// [`last_holding`](Self::last_holding) answers from. The locker's default (a week) unless
    /// set; from 100 milliseconds to ten years. Until then a name takes memory at the store
    /// (some 350 bytes on Redis): short is good where names are many. Fencing tokens grow all
    /// the same: they do not need what is remembered.
    ///
    /// A directory keeps what it remembers for an hour at least. Where the last run with
    /// [`every`](Self::every) or [`tick`](Self::tick) is to be remembered for longer, so is a later holding
    /// without them: its tick must not run again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let hour = Duration::from_secs(3600);
    /// let lock = locker.lock("orders").name("order-4711").remember(hour);
    /// lock.acquire_blocking()?.release_blocking()?;
    /// assert!(lock.last_holding_blocking()?.is_some());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn remember(mut self, length: Duration) -> Self {
        self.options = self.options.remember(length);
        self
    }

    /// Keeps the lock taken for at least so long after it was acquired, also when its
    /// guard is released earlier: so that a short job does not run once on each server
    /// whose clock is a little off. (ShedLock's `lockAtLeastFor`.) It does not outlive
    /// a crash of the holder by more than the ttl.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("reports").at_least(Duration::from_secs(30));
    /// lock.acquire_blocking()?.release_blocking()?;
    /// assert!(lock.try_acquire_blocking()?.is_none());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn at_least(mut self, length: Duration) -> Self {
        self.options = self.options.at_least(length);
        self
    }

    /// Stops the heartbeat so long after the lock was acquired: the guard turns lost
    /// then, and another caller can have the lock one ttl later at the latest, so that work
    /// that hangs does not hold it for ever. A ttl longer than this is cut to it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").at_most(Duration::from_secs(3600)).acquire_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn at_most(mut self, length: Duration) -> Self {
        self.options = self.options.at_most(length);
        self
    }

    /// Lets [`run`](Self::run) and [`run_blocking`](Self::run_blocking) run under the lock that
    /// the code which calls them holds already, by a `run` or `#[singleton]` of its own, in
    /// place of the refusal. It is released at the end of the outermost one.
    ///
    /// Of several such calls in one body (`join!`) one runs at a time; the others wait for
    /// their turn, in order, as [`wait`](Self::wait) says, or are
    /// [`Error::Busy`](crate::Error::Busy). `run_blocking` never waits for its turn: it would
    /// block the call that has it.
    ///
    /// AppLock knows a call by the holder by its tokio task, and outside of tasks by its
    /// thread. Sync code that merely runs on the holder's thread, such as work that rayon has
    /// stolen, can't be told from a call: that is why `reentrant` is off unless asked for.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("reports");
    /// lock.run(async {
    ///     assert!(lock.run(async {}).await.is_err());
    ///     lock.clone().reentrant().run(async {}).await
    /// }).await??;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reentrant(mut self) -> Self {
        self.options = self.options.reentrant();
        self
    }

    /// Once per tick: not again before the next run is due. Refused
    /// ([`Error::AlreadyRan`](crate::Error::AlreadyRan)), whether the lock is free or not, if the last
    /// run began less than nine tenths of `length` ago, by the store's clock. For a job that is
    /// scheduled on every server: their clocks may differ by a tenth of the length, and a short
    /// job still runs once, not once on each server.
    ///
    /// A run counts from when it began, however it ended; see
    /// [`retry_failed`](Self::retry_failed). All runs of the lock count, of whichever function: two
    /// jobs need a [`name`](Self::name) each. Who [waits](Self::wait) is judged when it asks, and
    /// again when it would get the lock.
    ///
    /// From 100 milliseconds to five years. The store then [remembers](Self::remember) the lock for
    /// twice the length at least.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("reports").every(Duration::from_secs(3600));
    /// lock.acquire_blocking()?.release_blocking()?;
    /// match lock.acquire_blocking() {
    ///     Err(applock::Error::AlreadyRan(run)) => println!("{run}"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn every(mut self, length: Duration) -> Self {
        self.options = self.options.every(length);
        self
    }

    /// Once per tick, where the scheduler says which one it is: by a number that grows, or by the
    /// time at which it fired. Refused ([`Error::AlreadyRan`](crate::Error::AlreadyRan)), whether the
    /// lock is free or not, unless the tick is larger than that of the last run that began. So a
    /// process that comes late does not run an old tick.
    ///
    /// Ticks are compared for as long as the last run that had one is [remembered](Self::remember). A
    /// later holding without a tick is remembered for at least as long. Not together
    /// with [`every`](Self::every).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("reports");
    /// lock.clone().tick(7).acquire_blocking()?.release_blocking()?;
    /// assert!(lock.clone().tick(7).acquire_blocking().is_err());
    /// assert!(lock.tick(8).acquire_blocking().is_ok());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn tick(mut self, tick: impl Into<Tick>) -> Self {
        self.options = self.options.tick(tick);
        self
    }

    /// With [`every`](Self::every) or [`tick`](Self::tick): a run that ended in an error, a panic, a
    /// cancellation or a loss does not count, nor one whose process has crashed. Another server, or
    /// the next try, may take its tick up. Nothing runs again by itself: each call runs once at most.
    /// So where a job fails everywhere it runs once on each server that is asked in that tick, with
    /// [`wait`](Self::wait) one right after the other. Code that calls again in a loop has to pause.
    ///
    /// How a run went is known of [`run`](Self::run) and of `#[singleton]`; of a guard in one's own
    /// hand by [`LockGuard::mark_failed`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("reports").every(Duration::from_secs(3600)).retry_failed();
    /// lock.run_blocking(|| Err::<(), _>("no disk"))?.unwrap_err();
    /// lock.run_blocking(|| Ok::<_, ()>(()))?.unwrap();
    /// assert!(lock.acquire_blocking().is_err());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn retry_failed(mut self) -> Self {
        self.options = self.options.retry_failed();
        self
    }

    /// Takes the lock if it is free; `None` if it is held, or if its tick has had its run
    /// ([`every`](Self::every), [`tick`](Self::tick)). Never waits for
    /// a holder, whatever [`wait`](Self::wait) says.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Denied`], [`Error::Misconfigured`] if the store
    /// can't answer, [`Error::Invalid`] for a bad name or length, [`Error::Closed`]
    /// after a shutdown. One round trip, up to the command time-out (1 second).
    /// Cancellation safe: a lock taken for a dropped future is released.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// match locker.lock("reports").try_acquire().await? {
    ///     Some(guard) => println!("ours, with token {}", guard.fencing_token()),
    ///     None => println!("another instance is at it"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        match self.take(Wait::Not).await {
            Ok(guard) => Ok(Some(guard)),
            Err(Error::Busy(_) | Error::AlreadyRan(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// [`try_acquire`](Self::try_acquire) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").try_acquire_blocking()?.expect("it is free");
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn try_acquire_blocking(&self) -> Result<Option<LockGuard>> {
        block_on(self.try_acquire())
    }

    /// Takes the lock, waiting for it as [`wait`](Self::wait) says.
    ///
    /// While it waits, it also outlives passing failures of the store.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] with the holder if it is held still when the wait is over;
    /// [`Error::AlreadyRan`] with the last run if its tick has had one
    /// ([`every`](Self::every), [`tick`](Self::tick)); otherwise as [`try_acquire`](Self::try_acquire). Does I/O. Cancellation safe: a
    /// lock taken for a dropped future is released.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire().await?;
    /// guard.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire(&self) -> Result<LockGuard> {
        self.take(self.options.wait).await
    }

    /// [`acquire`](Self::acquire) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// guard.release_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn acquire_blocking(&self) -> Result<LockGuard> {
        block_on(self.acquire())
    }

    /// The holder of the lock; `None` if it is free.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire): a store that can't answer is an error,
    /// never 'free'. One round trip. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.lock("reports").info().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn info(&self) -> Result<Option<LockInfo>> {
        Ok(self.locker.engine().inspect(self.resolve()?).await?.holder)
    }

    /// [`info`](Self::info) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.lock("reports").info_blocking()?.is_none());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn info_blocking(&self) -> Result<Option<LockInfo>> {
        block_on(self.info())
    }

    /// The newest holding, be it over or not: who, from when until when, and how it
    /// ended. `None` if there was none, or if it is no longer
    /// [remembered](Self::remember).
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info), and [`Error::Misconfigured`] if what stands where the store
    /// remembers it can't be read. One round trip. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.lock("reports").last_holding().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn last_holding(&self) -> Result<Option<LastHolding>> {
        Ok(self.past().await?.last)
    }

    /// [`last_holding`](Self::last_holding) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`last_holding`](Self::last_holding).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.lock("reports").last_holding_blocking()?.is_none());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn last_holding_blocking(&self) -> Result<Option<LastHolding>> {
        block_on(self.last_holding())
    }

    /// The newest holding that [ended well](crate::Ending::Ok): 'when did it last succeed?'. That of
    /// [`last_holding`](Self::last_holding), or one before it. `None` if there was none, or if
    /// the lock is no longer [remembered](Self::remember).
    ///
    /// Whether a run ended well is known of [`run`](Self::run) and of `#[singleton]`; of a guard in
    /// one's own hand by [`LockGuard::mark_ok`].
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info). One round trip. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let lock = locker.lock("reports");
    /// lock.run(async { Ok::<_, ()>(()) }).await?.unwrap();
    /// lock.run(async { Err::<(), _>("no disk") }).await?.unwrap_err();
    /// assert_eq!(lock.last_holding().await?.unwrap().ending, applock::Ending::Error);
    /// assert_eq!(lock.last_success().await?.unwrap().ending, applock::Ending::Ok);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn last_success(&self) -> Result<Option<LastHolding>> {
        Ok(self.past().await?.success)
    }

    /// [`last_success`](Self::last_success) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`last_success`](Self::last_success).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.lock("reports").last_success_blocking()?.is_none());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn last_success_blocking(&self) -> Result<Option<LastHolding>> {
        block_on(self.last_success())
    }

    /// Releases the lock if its holder's heart has stopped: no heartbeat for
    /// `stale_after`, and for at least half of the holder's ttl. A holder whose heart
    /// beats is never touched, however long it has held, nor a lock that
    /// [`at_least`](Self::at_least) keeps. `true` if the lock was released. 30 seconds is
    /// a good choice where the ttl is a minute.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info). One round trip, in one step at the store. Cancellation
    /// safe.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let _guard = locker.lock("reports").acquire().await?;
    /// let stale = Duration::from_secs(30);
    /// assert!(!locker.lock("reports").force_release_if_stale(stale).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn force_release_if_stale(&self, stale_after: Duration) -> Result<bool> {
        if stale_after > MAX_TTL {
            return Err(Error::invalid(
                "stale_after",
                format_args!("{} s", stale_after.as_secs()),
                "it is longer than ten years, the most",
                "write one such as 30 s",
            ));
        }
        let key = self.resolve()?;
        let engine = self.locker.engine();
        engine.force(key, Some(stale_after), String::new()).await
    }

    /// [`force_release_if_stale`](Self::force_release_if_stale) for plain threads:
    /// blocks.
    ///
    /// # Errors
    ///
    /// As [`force_release_if_stale`](Self::force_release_if_stale).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.lock("reports").force_release_if_stale_blocking(Duration::from_secs(30))?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn force_release_if_stale_blocking(&self, stale_after: Duration) -> Result<bool> {
        block_on(self.force_release_if_stale(stale_after))
    }

    /// Releases the lock, whichever holder has it: the hammer, for people on call. The
    /// evicted holder learns it from its next heartbeat at the latest, and its body is
    /// cancelled then; what it does until then can overlap with the next holder. `true` if
    /// there was a holder.
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info), and [`Error::Misconfigured`] if what stands at the key
    /// is no lock at all. One round trip. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire().await?;
    /// assert!(locker.lock("reports").force_release().await?);
    /// guard.lost().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn force_release(&self) -> Result<bool> {
        let key = self.resolve()?;
        let engine = self.locker.engine();
        engine.force(key, None, String::new()).await
    }

    /// [`force_release`](Self::force_release) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`force_release`](Self::force_release).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(!locker.lock("reports").force_release_blocking()?);
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn force_release_blocking(&self) -> Result<bool> {
        block_on(self.force_release())
    }

    /// What the store remembers.
    async fn past(&self) -> Result<Inspection> {
        let key = self.resolve()?;
        let lock = Arc::clone(&key.lock);
        let engine = self.locker.engine();
        let found = engine.inspect(key).await?;
        match found.unreadable {
            Some(what) => Err(what.into_error(engine.here().store(), Some(lock))),
            None => Ok(found),
        }
    }

    pub(crate) fn locker(&self) -> &AppLocker {
        &self.locker
    }

    pub(crate) fn is_reentrant(&self) -> bool {
        self.options.reentrant
    }

    pub(crate) fn waits(&self) -> Wait {
        self.options.wait
    }

    pub(crate) fn resolve(&self) -> Result<Key> {
        if let Some(key) = self.resolved.get() {
            return Ok(key.clone());
        }
        let key = self.options.resolve(self.locker.prefix())?;
        Ok(self.resolved.get_or_init(|| key).clone())
    }

    /// Takes the lock as this says, but for `wait`.
    pub(crate) async fn take(&self, wait: Wait) -> Result<LockGuard> {
        let options = &self.options;
        let mut ttl = check_length("ttl", options.ttl.unwrap_or(self.locker.default_ttl()))?;
        let remember = options.remember.unwrap_or(self.locker.default_remember());
        let remember = check_length("remember", remember)?;
        let due = options.due()?;
        // What is forgotten forbids nothing.
        let twice = options.every.map(|every| every.saturating_mul(2));
        let remember = twice.map_or(remember, |twice| remember.max(twice));
        let at_least = options
            .at_least
            .filter(|length| !length.is_zero())
            .map(|length| check_length("at_least", length))
            .transpose()?;
        let at_most = options
            .at_most
            .map(|length| check_length("at_most", length))
            .transpose()?;
        if let Some(most) = at_most {
            if let Some(least) = at_least.filter(|least| *least > most) {
                return Err(Error::invalid(
                    "at_least",
                    humantime::format_duration(least),
                    format!(
                        "it is longer than at_most ({})",
                        humantime::format_duration(most)
                    ),
                    "make at_most the longer one",
                ));
            }
            ttl = ttl.min(most);
        }
        let wait = match wait {
            // Beyond that it is for ever: no clock would see its end.
            Wait::For(length) if length > MAX_TTL => Wait::Forever,
            other => other,
        };
        let key = self.resolve()?;
        // It would wait for the code that it is called by, maybe for ever. Under a lease that
        // is over that code holds nothing that could be waited for.
        if let Some(around) = current::find(&self.locker, &key)
            && around.guard.validity() != Validity::Over
        {
            measures::Call::begin(key.app()).answered(Err(ErrorKind::Busy));
            return Err(around.busy(NOT_REENTRANT));
        }
        let measured = measures::ENABLED.then(|| key.clone());
        let call = measures::Call::begin(measured.as_ref().and_then(Key::app));
        let engine = self.locker.engine().here();
        let held = engine
            .acquire(AcquireRequest {
                key,
                owner: engine.new_owner(),
                ttl,
                remember,
                due,
                identity: Arc::clone(engine.identity()),
                wait,
                at_least,
                at_most,
            })
            .await;
        call.answered(match &held {
            Ok(held) => Ok(held.waited()),
            Err(error) => Err(error.kind()),
        });
        Ok(LockGuard::new(held?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_asked_for_its_key_and_is_refined_then_has_another() {
        let locker = AppLocker::in_memory();
        let key = |lock: &Lock| lock.resolve().unwrap().lock.to_string();
        let lock = locker.lock("billing");
        assert_eq!(key(&lock), "QUEUE:billing");
        let named = lock.clone().name("tenant-7");
        assert_eq!(key(&named), "QUEUE:billing:tenant-7");
        assert_eq!(key(&named.key("legacy")), "legacy");
        assert_eq!(key(&lock), "QUEUE:billing");
    }
}

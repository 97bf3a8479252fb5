//! To be seen: which locks are held, when one is free, and how the locker is.

use std::sync::Arc;
use std::time::Duration;

use crate::blocking::block_on;
use crate::engine::lease_time::{MIN_TTL, TICK};
use crate::engine::{AcquireRequest, Validity, Wait};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::info::LockInfo;
use crate::key::{Key, PING};
use crate::pattern::Wanted;
use crate::pause::growing;

use super::current::{self, NOT_REENTRANT};
use super::lock::Lock;
use super::shared::AppLocker;

impl AppLocker {
    /// Who holds what: the holder of each lock whose key `pattern` fits, sorted by key. How many
    /// wait for each is [`LockInfo::waiters`].
    ///
    /// The pattern is a glob for the whole key: `*` stands for any text, `?` for one character,
    /// `[a-c]` for one of these, `[^a-c]` for any other; a `\` takes the next one as it is. Only
    /// locks under the locker's [`key_prefix`](crate::Builder::key_prefix) are listed, so `*` lists
    /// them all. A pattern without any of these is a key, under the prefix or not.
    ///
    /// What another program has written at such a key counts as held, as for an acquire
    /// ([`LockInfo::is_foreign`]).
    ///
    /// It is no snapshot: a lock that is taken or released meanwhile may be in it or not.
    /// Redis is read with `SCAN`, a cluster at each of its masters: the server looks at 500 keys at
    /// a time, whether they are locks or not.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a pattern that can't be read; otherwise as
    /// [`Lock::info`](crate::Lock::info): where one node can't be asked, or one record not be read,
    /// there is no list. Does I/O, as long as there are keys; each command may take the command
    /// time-out. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let _guard = locker.lock("reports").acquire().await?;
    /// for holder in locker.locks("QUEUE:re*").await? {
    ///     println!("{holder}");
    /// }
    /// assert_eq!(locker.locks("*").await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn locks(&self, pattern: impl AsRef<str>) -> Result<Vec<LockInfo>> {
        match Wanted::of(self.prefix(), pattern.as_ref())? {
            Wanted::One(key) => Ok(Vec::from_iter(self.engine().inspect(key).await?.holder)),
            Wanted::Some(pattern) => self.engine().list(pattern).await,
            Wanted::None => Ok(Vec::new()),
        }
    }

    /// Whether locks can be taken: takes one that is nobody's (`applock-ping:INSTANCE`, under the
    /// locker's prefix) and releases it, so it asks for each right that this needs, and for a server
    /// that takes writes. For a readiness probe; `docs/PROBES.md` in the repository says what
    /// belongs into which.
    ///
    /// On a cluster it asks one of the masters. Metrics count it as no acquire.
    ///
    /// # Errors
    ///
    /// Why not: [`Error::Unavailable`], [`Error::Denied`], [`Error::Misconfigured`]; and
    /// [`Error::Closed`] after a drain or a shutdown has begun. Two round trips, each up to the
    /// command time-out (1 second). Cancellation safe: the lock is released.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.ping().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ping(&self) -> Result<()> {
        let engine = self.engine().here();
        let key = Key::of(self.prefix(), PING, Some(self.instance_id()))?;
        let taken = engine
            .acquire(AcquireRequest {
                key,
                owner: engine.new_owner(),
                ttl: PING_TTL,
                remember: MIN_TTL,
                identity: Arc::clone(engine.identity()),
                wait: Wait::Not,
                at_least: None,
                at_most: None,
                due: None,
            })
            .await;
        match taken {
            Ok(held) => held.release().await,
            // A process of the same name does the same at this moment: the store has answered.
            Err(Error::Busy(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// [`ping`](Self::ping) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`ping`](Self::ping).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.ping_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn ping_blocking(&self) -> Result<()> {
        block_on(self.ping())
    }

    /// How this locker is, as far as it knows: no I/O, and nothing is sent to the store. For a
    /// liveness probe: it asks the locker's background thread, which answers within microseconds,
    /// and waits a quarter of a second for it at the most. Starts no thread.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.health().is_alive);
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        self.engine().health()
    }

    /// [`locks`](Self::locks) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`locks`](Self::locks).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.locks_blocking("*")?.is_empty());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn locks_blocking(&self, pattern: impl AsRef<str>) -> Result<Vec<LockInfo>> {
        block_on(self.locks(pattern))
    }
}

/// Its lease, should its release be lost: no longer than a probe takes to come again.
const PING_TTL: Duration = Duration::from_secs(5);

/// Between two looks at a lock that is held: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Lock {
    /// Waits until nobody holds the lock, and takes nothing: it may be held again by the time the
    /// caller sees it. Who has to be the next one to hold it wants
    /// [`acquire`](Self::acquire) with [`wait`](Self::wait).
    ///
    /// It looks every 20 milliseconds at first, then ever more seldom, every second at the last,
    /// and at the end of the holder's lease: so it notices a release a second late at the most. It
    /// stands in no queue, so a lock that is handed from waiter to waiter never looks free.
    /// Waits for as long as it takes; [`until_free_within`](Self::until_free_within) has a limit
    /// (so has any timeout around this).
    ///
    /// # Errors
    ///
    /// As [`info`](Self::info), but it outlives passing failures of the store; and
    /// [`Error::Busy`] at once where the code that calls it holds the lock, for it would wait for
    /// itself. Does I/O. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.lock("migration").until_free().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn until_free(&self) -> Result<()> {
        self.look_until_free(None).await.map(|_| ())
    }

    /// [`until_free`](Self::until_free) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`until_free`](Self::until_free).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.lock("migration").until_free_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn until_free_blocking(&self) -> Result<()> {
        block_on(self.until_free())
    }

    /// [`until_free`](Self::until_free) for `longest` at the most: `false` if the lock is held
    /// still. It looks once at least. Needs no runtime with timers.
    ///
    /// # Errors
    ///
    /// As [`until_free`](Self::until_free); and as [`info`](Self::info) where the store could not
    /// be asked when the time was over.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let _guard = locker.lock("migration").acquire().await?;
    /// let longest = Duration::from_millis(50);
    /// assert!(!locker.lock("migration").until_free_within(longest).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn until_free_within(&self, longest: Duration) -> Result<bool> {
        self.look_until_free(Some(longest)).await
    }

    /// [`until_free_within`](Self::until_free_within) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`until_free_within`](Self::until_free_within).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// assert!(locker.lock("migration").until_free_within_blocking(Duration::from_secs(1))?);
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn until_free_within_blocking(&self, longest: Duration) -> Result<bool> {
        block_on(self.until_free_within(longest))
    }

    async fn look_until_free(&self, longest: Option<Duration>) -> Result<bool> {
        let key = self.resolve()?;
        if let Some(around) = current::find(self.locker(), &key)
            && around.guard.validity() != Validity::Over
        {
            return Err(around.busy(NOT_REENTRANT));
        }
        let engine = self.locker().engine();
        let end = longest.map(|longest| engine.now() + longest);
        let mut looks: u32 = 0;
        loop {
            let outcome = match engine.inspect(key.clone()).await {
                Ok(found) => match found.holder {
                    None => return Ok(true),
                    Some(holder) => Ok(holder.remaining()),
                },
                Err(error @ Error::Unavailable(_)) => Err(error),
                Err(error) => return Err(error),
            };
            let left = end.map(|end| end - engine.now());
            if left.is_some_and(|left| left.is_zero()) {
                return outcome.map(|_| false);
            }
            let mut next = growing(FIRST_PAUSE, LONGEST_PAUSE, looks);
            if let Ok(Some(remaining)) = outcome {
                next = next.min(remaining + TICK);
            }
            engine
                .sleep(left.map_or(next, |left| next.min(left)))
                .await?;
            looks = looks.saturating_add(1);
        }
    }
}

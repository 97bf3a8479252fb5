//! To be seen: which locks are held, and when one is free.

use std::time::Duration;

use crate::blocking::block_on;
use crate::engine::Validity;
use crate::error::{Error, Result};
use crate::info::LockInfo;
use crate::pattern::Wanted;

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

/// Between two looks at a lock that is held: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Stores expire keys on a whole millisecond: a look right at the end could come too early.
const TICK: Duration = Duration::from_millis(1);

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
        let mut pause = FIRST_PAUSE;
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
            // Half of it is random, so that many do not look in step.
            let mut next = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            if let Ok(Some(remaining)) = outcome {
                next = next.min(remaining + TICK);
            }
            engine
                .sleep(left.map_or(next, |left| next.min(left)))
                .await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

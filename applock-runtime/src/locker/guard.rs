//! LockGuard: the proof of holding, and the way to let go.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::blocking::block_on;
use crate::engine::{Held, Lease, Validity};
use crate::error::{Error, Result};
use crate::info::LockInfo;
use crate::protocol::Outcome;

/// A lock that is held. Its heartbeat goes on, in the background, until it is
/// released, dropped or lost.
///
/// Dropping it releases in the background; [`release`](Self::release) also waits for
/// the store's answer, and returns it.
///
/// A lease can end under its holder: the network fails for longer than the ttl,
/// a person releases the lock by force, the machine sleeps. The guard then turns lost, for
/// good; if the lease ran out, it does so before another caller can have the lock.
///
/// ```
/// # fn write_report() {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// # let locker = applock::AppLocker::in_memory();
/// let guard = locker.lock("reports").acquire().await?;
/// guard.ensure_held()?; // before each effect
/// write_report();
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a guard that is dropped at once releases its lock at once"]
pub struct LockGuard {
    lease: Arc<Lease>,
    held: Held,
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", &self.lease.key.lock)
            .field("fencing_token", &self.lease.token)
            .field("held", &(self.held.validity() != Validity::Over))
            .finish_non_exhaustive()
    }
}

impl LockGuard {
    pub(crate) fn new(held: Held) -> Self {
        // From here on somebody has it.
        held.lease().set_outcome(Outcome::Released);
        Self {
            lease: Arc::clone(held.lease()),
            held,
        }
    }

    /// Whether the lease still counts, by this machine's clock. It needs no answer from the
    /// store. No I/O; reads the clocks.
    ///
    /// Where the wall clock has jumped ahead by more than a second since the last
    /// heartbeat, as after a pause of a virtual machine whose other clocks were paused
    /// with it, the answer is `false` until a heartbeat, sent at once, is answered.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert!(guard.is_held());
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.validity() == Validity::Valid
    }

    /// How long it took to get the lock, from the call to the guard: a round trip, or the
    /// wait in the queue. No I/O.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// println!("waited for {:?}", guard.waited());
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.held.waited()
    }

    /// [`is_held`](Self::is_held) as a `Result`, to put before each effect.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the lease is over; [`Error::Unavailable`] after a jump of the
    /// wall clock, until a heartbeat is answered: see [`is_held`](Self::is_held). No I/O.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// # let guard = locker.lock("reports").acquire_blocking()?;
    /// guard.ensure_held()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn ensure_held(&self) -> Result<()> {
        match self.held.validity() {
            Validity::Valid => Ok(()),
            Validity::Suspect => Err(self.held.suspect_error()),
            Validity::Over => Err(self.lease.lost_error().unwrap_or_else(|| Error::NotHeld {
                key: Arc::clone(&self.lease.key.lock),
            })),
        }
    }

    /// Asks the store, with a heartbeat, whether this guard still holds the lock. `false`:
    /// it does not, and has turned lost.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and the like if the store can't answer; the guard is
    /// held still then, until its lease ends. One round trip. Cancellation safe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire().await?;
    /// assert!(guard.verify().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn verify(&self) -> Result<bool> {
        self.held.verify().await
    }

    /// [`verify`](Self::verify) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert!(guard.verify_blocking()?);
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn verify_blocking(&self) -> Result<bool> {
        block_on(self.verify())
    }

    /// The fencing token: larger than that of every earlier acquisition of this lock.
    /// Pass it to what the lock protects, and let that refuse older tokens (Kleppmann,
    /// 'How to do distributed locking', 2016). Below 2⁵³. No I/O.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let first = locker.lock("reports").acquire_blocking()?;
    /// let token = first.fencing_token();
    /// first.release_blocking()?;
    /// assert!(locker.lock("reports").acquire_blocking()?.fencing_token() > token);
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.lease.token
    }

    /// How long ago the lock was acquired, by this machine's clock. No I/O.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert!(guard.held_for() < Duration::from_secs(60));
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn held_for(&self) -> Duration {
        self.lease.held_for()
    }

    /// How long the lease lasts if no further heartbeat is answered, less a safety
    /// margin; zero once it is over. No I/O.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert!(guard.remaining() < Duration::from_secs(60));
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.held.validity() {
            Validity::Over => Duration::ZERO,
            _ => self.lease.remaining(),
        }
    }

    /// What other processes see of this holding, from this process's own memory. No I/O.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// assert_eq!(guard.info().pid(), Some(std::process::id()));
    /// # Ok::<(), applock::Error>(())
    /// ```
    #[must_use]
    pub fn info(&self) -> LockInfo {
        self.lease.info()
    }

    /// Completes when the lease is over. No I/O. Cancellation safe; works on every
    /// executor.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// # async fn work() {}
    /// let guard = locker.lock("reports").acquire().await?;
    /// tokio::select! {
    ///     () = work() => println!("done"),
    ///     () = guard.lost() => println!("stop everything"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lost(&self) {
        if self.held.validity() != Validity::Over {
            self.lease.over().await;
        }
    }

    /// [`lost`](Self::lost) for plain threads: blocks until the lease is over.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// locker.lock("reports").force_release_blocking()?;
    /// guard.lost_blocking();
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn lost_blocking(&self) {
        block_on(self.lost());
    }

    /// Releases the lock, and waits for the store's answer. With
    /// [`at_least`](crate::Lock::at_least) the lock stays taken until that is over.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the lease was lost before, [`Error::NotHeld`] if the store
    /// says that the lock was not this guard's any more: what another holder has is never deleted.
    /// [`Error::Unavailable`] if the store does not answer; the engine goes on trying
    /// then, and the ttl frees the lock at the latest. One round trip. If the future is
    /// dropped, the release goes on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.lock("reports").acquire().await?.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn release(self) -> Result<()> {
        self.held.release().await
    }

    /// [`release`](Self::release) for plain threads: blocks.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// locker.lock("reports").acquire_blocking()?.release_blocking()?;
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn release_blocking(self) -> Result<()> {
        block_on(self.release())
    }

    /// Says that the work under this guard went well: what
    /// [`last_holding`](crate::Lock::last_holding) and
    /// [`last_success`](crate::Lock::last_success) tell once it is released. The last word counts. No
    /// I/O.
    ///
    /// Of a guard in one's own hand. How the body of a `#[singleton]` ended is known without it, and
    /// stands, unless the body has said that it failed.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// guard.mark_ok();
    /// guard.release_blocking()?;
    /// assert!(locker.lock("reports").last_success_blocking()?.is_some());
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn mark_ok(&self) {
        self.lease.set_outcome(Outcome::Ok);
    }

    /// Says that the work under this guard failed: see [`mark_ok`](Self::mark_ok), and
    /// [`retry_failed`](crate::Lock::retry_failed). No I/O.
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let guard = locker.lock("reports").acquire_blocking()?;
    /// guard.mark_failed();
    /// guard.release_blocking()?;
    /// let last = locker.lock("reports").last_holding_blocking()?.expect("it was held");
    /// assert_eq!(last.ending, applock::Ending::Error);
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn mark_failed(&self) {
        self.lease.set_outcome(Outcome::Error);
    }

    /// How a run under it has ended.
    pub(crate) fn run_ended(&self, outcome: Outcome) {
        self.lease.set_outcome(outcome);
    }

    /// What the body has said of its run, if it did: [`mark_ok`](Self::mark_ok),
    /// [`mark_failed`](Self::mark_failed).
    pub(crate) fn said(&self) -> Option<Outcome> {
        let noted = self.lease.noted_outcome();
        matches!(noted, Outcome::Ok | Outcome::Error).then_some(noted)
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// What is known of the lease, for the code that drives a body under it.
    pub(crate) fn validity(&self) -> Validity {
        self.held.validity()
    }

    /// Releases in the background, while other references to the guard may remain.
    pub(crate) fn let_go(&self) {
        self.held.let_go();
    }

    /// Releases, and waits for it, while other references to the guard may remain.
    pub(crate) async fn end(&self) -> Result<()> {
        self.held.end().await
    }
}

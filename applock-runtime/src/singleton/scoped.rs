//! `Lock::run`: a body under a lock that was named by hand, in place of an attribute.

use std::future::Future;

use crate::error::Result;
use crate::key::Function;
use crate::locker::Lock;

use super::blocking_run::BlockingRun;
use super::run::{Machine, Run};
use super::start::Invocation;

impl Lock {
    /// Runs a future under the lock, and releases the lock when it has ended: on
    /// return, panic or cancellation, after the future is gone. If the lease is lost,
    /// the future is dropped and [`Error::Lost`](crate::Error::Lost) returned.
    ///
    /// Inside it [`current`](crate::current) gives the guard. Where the lock is held
    /// already by the [`run`](Self::run) or `#[singleton]` that this code runs under, it is
    /// [`Error::Busy`](crate::Error::Busy) at once, whatever [`wait`](Self::wait) says; a
    /// [`reentrant`](Self::reentrant) one runs under that lock.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`Error::Lost`](crate::Error::Lost). Does I/O. Cancellation safe:
    /// the future is dropped first, then the lock released in the background.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> applock::Result<()> {
    /// # let locker = applock::AppLocker::in_memory();
    /// let sum = locker.lock("reports").run(async { 1 + 1 }).await?;
    /// assert_eq!(sum, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output>> + use<F> {
        let lock = self.clone();
        async move {
            let body = std::pin::pin!(Some(future));
            Run::new(Machine::new(invocation(lock)), body).await
        }
    }

    /// Runs a closure under the lock, on this thread: [`run`](Self::run) for plain
    /// threads. Blocks. A closure can't be cancelled: if the lease is lost it runs to
    /// its end, its result is returned, and the loss is logged; ask
    /// [`LockGuard::ensure_held`](crate::LockGuard::ensure_held) before each effect.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// ```
    /// # let locker = applock::AppLocker::in_memory();
    /// let sum = locker.lock("reports").run_blocking(|| 1 + 1)?;
    /// assert_eq!(sum, 2);
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn run_blocking<T>(&self, body: impl FnOnce() -> T) -> Result<T> {
        let mut run = BlockingRun::enter::<T>(invocation(self.clone()))?;
        let value = body();
        run.returned(&value);
        drop(run);
        Ok(value)
    }
}

fn invocation(lock: Lock) -> Invocation {
    Invocation {
        lock: Ok(lock),
        function: Function {
            module: module_path!(),
            name: "Lock::run",
        },
        finish_when_lost: false,
    }
}

//! `AppLocker::scope`: a default locker for the code inside, in place of the process's.
//!
//! The future is wrapped, and the locker stands on a stack of the thread while the future is polled
//! or dropped, and only then: so it follows a task from thread to thread, on any executor, and other
//! tasks of the thread never see it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::locker::AppLocker;

thread_local! {
    /// The lockers of the scopes that this thread is inside of, the innermost last.
    static SCOPES: RefCell<Vec<AppLocker>> = const { RefCell::new(Vec::new()) };
}

/// The locker of the innermost scope.
pub(super) fn innermost() -> Option<AppLocker> {
    let last = SCOPES.try_with(|scopes| scopes.borrow().last().cloned());
    last.ok().flatten()
}

/// While it lives, this thread is inside of a scope.
struct Entered {
    is_on_stack: bool,
}

fn enter(locker: &AppLocker) -> Entered {
    let pushed = SCOPES.try_with(|scopes| scopes.borrow_mut().push(locker.clone()));
    Entered {
        // A thread whose locals are gone already runs no test.
        is_on_stack: pushed.is_ok(),
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.is_on_stack {
            // Dropped outside of the borrow: it may be the last handle of a locker.
            let popped = SCOPES.try_with(|scopes| scopes.borrow_mut().pop());
            drop(popped);
        }
    }
}

/// A future inside of a scope.
struct InScope<'a, F> {
    locker: AppLocker,
    future: Pin<&'a mut Option<F>>,
}

impl<F: Future> Future for InScope<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _entered = enter(&this.locker);
        match this.future.as_mut().as_pin_mut() {
            Some(future) => {
                let polled = future.poll(context);
                if polled.is_ready() {
                    this.future.set(None);
                }
                polled
            }
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for InScope<'_, F> {
    fn drop(&mut self) {
        let _entered = enter(&self.locker);
        self.future.set(None);
    }
}

impl AppLocker {
    /// Makes this the default locker of a future: of every `#[singleton]` without a `locker` that it
    /// calls, in place of the process's ([`init`](crate::init)). So tests of one annotated function
    /// can run at the same time, each with a locker of its own.
    ///
    /// It works on any executor. It does not reach into tasks and threads that the future
    /// spawns; scope those, too. Of scopes inside one another the innermost counts. A function's own
    /// `locker = …` beats it. No I/O. Cancellation safe.
    ///
    /// ```
    /// use applock::{AppLocker, Error, singleton};
    ///
    /// #[singleton(app = "reports")]
    /// async fn nightly_report() -> Result<(), Error> {
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let locker = AppLocker::in_memory();
    /// locker.scope(nightly_report()).await?;
    /// assert!(locker.lock("reports").last_holding().await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let locker = self.clone();
        async move {
            let mut future = pin!(Some(future));
            let future = future.as_mut();
            InScope { locker, future }.await
        }
    }

    /// [`scope`](Self::scope) for plain threads: makes this the default locker of what the closure
    /// calls, on this thread.
    ///
    /// ```
    /// use applock::{AppLocker, Error, singleton};
    ///
    /// #[singleton(app = "reports")]
    /// fn nightly_report() -> Result<(), Error> {
    ///     Ok(())
    /// }
    ///
    /// let locker = AppLocker::in_memory();
    /// locker.scope_blocking(nightly_report)?;
    /// assert!(locker.lock("reports").last_holding_blocking()?.is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn scope_blocking<T>(&self, body: impl FnOnce() -> T) -> T {
        let _entered = enter(self);
        body()
    }
}

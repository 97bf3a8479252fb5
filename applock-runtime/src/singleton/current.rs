//! Which singletons this code runs under: a stack for each thread, put up around every
//! poll of an async body, so that it follows a task from thread to thread.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use tracing::Span;
use tracing::span::EnteredSpan;

use crate::key::Key;
use crate::locker::{AppLocker, LockGuard};

/// A body that runs under a lock.
pub(crate) struct Running {
    pub(crate) locker: AppLocker,
    pub(crate) key: Key,
    pub(crate) guard: Arc<LockGuard>,
    span: Span,
}

impl Running {
    pub(crate) fn new(locker: AppLocker, guard: LockGuard) -> Self {
        let lease = guard.lease();
        let span = tracing::info_span!(
            "applock", key = %lease.key, owner = %lease.owner.simple(),
            token = lease.token, waited = ?guard.waited()
        );
        Self {
            locker,
            key: lease.key.clone(),
            guard: Arc::new(guard),
            span,
        }
    }
}

thread_local! {
    static STACK: RefCell<Vec<Arc<Running>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, the code on this thread runs under a lock, and inside its span.
pub(crate) struct Entered {
    _span: EnteredSpan,
    /// It belongs to its thread's stack.
    thread_bound: PhantomData<*const ()>,
}

pub(crate) fn enter(running: Arc<Running>) -> Entered {
    let span = running.span.clone().entered();
    // A thread whose locals are gone already runs no bodies.
    let _ = STACK.try_with(|stack| stack.borrow_mut().push(running));
    Entered {
        _span: span,
        thread_bound: PhantomData,
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let popped = STACK.try_with(|stack| stack.borrow_mut().pop());
        // Outside of the borrow: it may be the last handle of a guard.
        drop(popped);
    }
}

/// The innermost body under that very lock.
pub(crate) fn find(locker: &AppLocker, key: &Key) -> Option<Arc<Running>> {
    STACK
        .try_with(|stack| {
            stack
                .borrow()
                .iter()
                .rev()
                .find(|running| running.key.lock == key.lock && running.locker.is(locker))
                .cloned()
        })
        .ok()
        .flatten()
}

/// The guard of the innermost `#[singleton]` or [`Lock::run`](crate::Lock::run) that
/// this code runs under, if any. No I/O.
///
/// It follows a task from thread to thread, but not into tasks and threads that the
/// body spawns: hand them the guard.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> applock::Result<()> {
/// # let locker = applock::AppLocker::in_memory();
/// assert!(applock::current().is_none());
/// locker.lock("reports").run(async {
///     let guard = applock::current().expect("we run under a lock");
///     assert!(guard.is_held());
/// }).await?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn current() -> Option<Arc<LockGuard>> {
    STACK
        .try_with(|stack| {
            stack
                .borrow()
                .last()
                .map(|running| Arc::clone(&running.guard))
        })
        .ok()
        .flatten()
}

/// The guard of the innermost singleton that this code runs under, which expanded code
/// knows to be there.
#[doc(hidden)]
#[must_use]
pub fn current_guard() -> Arc<LockGuard> {
    #[expect(
        clippy::expect_used,
        reason = "expanded code calls it inside a body only"
    )]
    current().expect("a #[singleton] body runs under its guard")
}

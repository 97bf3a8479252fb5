//! Which singletons this code runs under: a stack for each thread, put up around every
//! poll of an async body, so that it follows a task from thread to thread.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, take};
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
            "applock", key = %lease.key.lock, owner = %lease.owner.simple(),
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

type Stack = RefCell<Vec<Arc<Running>>>;

thread_local! {
    static STACK: Stack = const { RefCell::new(Vec::new()) };
    /// For the bodies that run while the thread's locals are being destroyed. It has no
    /// destructor itself, so it is there still.
    static LAST_STACK: ManuallyDrop<Stack> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// Reads or changes the stack of this thread. `None`: it has none any more (on a system whose
/// thread locals all go at once).
fn on_stack<T>(step: impl Fn(&Stack) -> T) -> Option<T> {
    let last = |_| LAST_STACK.try_with(|stack| step(stack));
    STACK.try_with(&step).or_else(last).ok()
}

/// While it lives, the code on this thread runs under a lock, and inside its span.
pub(crate) struct Entered {
    _span: EnteredSpan,
    /// It belongs to its thread's stack.
    thread_bound: PhantomData<*const ()>,
}

pub(crate) fn enter(running: Arc<Running>) -> Entered {
    let span = running.span.clone().entered();
    on_stack(|stack| stack.borrow_mut().push(Arc::clone(&running)));
    Entered {
        _span: span,
        thread_bound: PhantomData,
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let popped = on_stack(|stack| {
            let mut stack = stack.borrow_mut();
            let popped = stack.pop();
            if stack.is_empty() && STACK.try_with(|_| ()).is_err() {
                // Nothing would free it later.
                drop(take(&mut *stack));
            }
            popped
        });
        // Outside of the borrow: it may be the last handle of a guard.
        drop(popped);
    }
}

/// The innermost body under that very lock.
pub(crate) fn find(locker: &AppLocker, key: &Key) -> Option<Arc<Running>> {
    on_stack(|stack| {
        stack
            .borrow()
            .iter()
            .rev()
            .find(|running| running.key.lock == key.lock && running.locker.is(locker))
            .cloned()
    })
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
    on_stack(|stack| {
        stack
            .borrow()
            .last()
            .map(|running| Arc::clone(&running.guard))
    })
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

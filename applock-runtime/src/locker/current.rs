//! Which bodies this code runs under: a stack for each thread, put up around every poll of an
//! async body, so that it follows a task from thread to thread.
//!
//! The thread alone does not say whose code runs: a body may drive a runtime or a `LocalSet`,
//! which polls other tasks on this very thread. So each entry of the stack has its tokio task,
//! and counts for that task's code only. Outside of tokio nobody can tell.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, take};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task;
use tracing::span::EnteredSpan;
use tracing::subscriber::NoSubscriber;
use tracing::{Span, dispatcher};

use crate::error::Error;
use crate::key::Key;
use crate::shown::millis;

use super::guard::LockGuard;
use super::shared::AppLocker;

/// A body that runs under a lock.
pub(crate) struct Running {
    pub(crate) locker: AppLocker,
    pub(crate) key: Key,
    pub(crate) guard: Arc<LockGuard>,
    span: Span,
    /// The run under whose lock this one runs, if that is not its own.
    pub(crate) around: Option<Arc<Running>>,
    /// One nested run at a time; closed when the body has ended.
    pub(crate) turns: Semaphore,
}

impl Running {
    pub(crate) fn new(locker: AppLocker, guard: LockGuard) -> Self {
        let lease = guard.lease();
        // Without a subscriber a span is no more than a line for users of `log`, which says
        // nothing that the line at the end of the run does not say.
        let is_wanted = !dispatcher::get_default(|log| log.is::<NoSubscriber>());
        let span = match is_wanted {
            true => tracing::info_span!(
                "applock", key = %lease.key, owner = %lease.owner.simple(),
                token = lease.token, waited_ms = millis(guard.waited())
            ),
            false => Span::none(),
        };
        Self {
            locker,
            key: lease.key.clone(),
            guard: Arc::new(guard),
            span,
            around: None,
            turns: Semaphore::new(1),
        }
    }

    pub(crate) fn nested(around: Arc<Self>) -> Self {
        Self {
            locker: around.locker.clone(),
            key: around.key.clone(),
            guard: Arc::clone(&around.guard),
            span: around.span.clone(),
            around: Some(around),
            turns: Semaphore::new(1),
        }
    }

    /// The body is gone: what was nested in it, and has strayed, never goes on.
    pub(crate) fn end(&self) {
        self.turns.close();
    }

    /// Whether this body, or one around it, has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.turns.is_closed() || self.around.as_ref().is_some_and(|it| it.has_ended())
    }

    /// The refusal of a call that this body makes, and why it is refused.
    pub(crate) fn busy(&self, why: &'static str) -> Error {
        Error::Busy(self.guard.info().of_this_call(why))
    }
}

/// Why a call under its own lock is refused.
pub(crate) const NOT_REENTRANT: &str = "it is held by this very call, which would wait for itself; \
    a call runs under a lock that it holds already only if it says `reentrant` (an argument of \
    `#[singleton]`; `Lock::reentrant()` and then `run` by hand)";

/// Bodies, each with its tokio task, the innermost last.
type Stack = RefCell<Vec<(Arc<Running>, Option<task::Id>)>>;

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
    let task = task::try_id();
    on_stack(|stack| stack.borrow_mut().push((Arc::clone(&running), task)));
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

/// The innermost body of this task, on this thread, of which that is true.
fn innermost(is_meant: impl Fn(&Running) -> bool) -> Option<Arc<Running>> {
    on_stack(|stack| {
        let stack = stack.borrow();
        if stack.is_empty() {
            return None;
        }
        let here = task::try_id();
        let mut ours = stack.iter().rev().filter(|(_, task)| *task == here);
        ours.find(|(running, _)| is_meant(running))
            .map(|(running, _)| Arc::clone(running))
    })
    .flatten()
}

/// The innermost body under that very lock.
pub(crate) fn find(locker: &AppLocker, key: &Key) -> Option<Arc<Running>> {
    innermost(|running| running.key.lock == key.lock && running.locker.is(locker))
}

/// The guard of the innermost `#[singleton]` or [`Lock::run`](crate::Lock::run) that
/// this code runs under, if any. No I/O.
///
/// It follows a task from thread to thread, but not into tasks and threads that the
/// body spawns (hand them the guard), nor into other tasks of a tokio runtime or a `LocalSet`
/// that the body itself drives.
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
    innermost(|_| true).map(|running| Arc::clone(&running.guard))
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

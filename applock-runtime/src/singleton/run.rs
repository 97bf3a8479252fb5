//! An async body under its lock. The body always ends before the lock does (rule R5).
//!
//! [`Run`] goes through three steps: *take* the lock, or the turn under the lock that this code
//! runs under already; *drive* the body while the lease is valid; *release* the lock. A nested
//! body has no third: its lock is that of the run around it.
//!
//! Each annotated function makes a `Run` of its own, which its user compiles. So what is generic
//! here is only how a body is polled and dropped, and where its value lies; the steps are in
//! [`Machine`], which is compiled once and sees the body as a `dyn` [`Body`] for one poll. (For
//! one poll only: a `dyn` that was kept would hide whether the body is `Send`.)

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::engine::Validity;
use crate::error::{Error, Result};
use crate::key::Function;
use crate::locker::current::{self, Running};

use super::log::Outcome;
use super::start::{Begun, Invocation, Turn, begin, not_held};

type Step<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a body has panicked with.
type Panic = Box<dyn Any + Send>;

/// A body under a lock. `Err`: it did not run, or was cancelled because the lease was
/// lost.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Run<'a, F: Future> {
    /// `None` as soon as it has ended: dropped in place, before the lock is released.
    body: Pin<&'a mut Option<F>>,
    /// In a box: the caller's future stays small.
    state: Box<State<F::Output>>,
}

struct State<T> {
    machine: Machine,
    /// What the body has returned, until the lock is released.
    value: Option<T>,
}

impl<'a, F: Future> Run<'a, F> {
    pub(super) fn new(machine: Machine, body: Pin<&'a mut Option<F>>) -> Self {
        let value = None;
        let state = Box::new(State { machine, value });
        Self { body, state }
    }
}

// The body is pinned by its owner, the rest does not mind being moved.
impl<F: Future> Unpin for Run<'_, F> {}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let State { machine, value } = &mut *this.state;
        let body = &mut this.body;
        match machine.poll(&mut Slots { body, value }, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(error)) => Poll::Ready(Err(error)),
            Poll::Ready(None) => match value.take() {
                Some(value) => Poll::Ready(Ok(value)),
                None => polled_again(),
            },
        }
    }
}

impl<F: Future> Drop for Run<'_, F> {
    fn drop(&mut self) {
        let State { machine, value } = &mut *self.state;
        let body = &mut self.body;
        machine.abandon(&mut Slots { body, value });
    }
}

/// A body, as the machine sees it.
trait Body {
    /// Ready: it has ended, and its value is kept.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// How it has ended: it has a value.
    fn outcome(&self) -> Outcome;

    /// Drops it where it stands, if it is there still.
    fn end(&mut self);
}

/// Where a body and its value lie.
struct Slots<'s, 'a, F: Future> {
    body: &'s mut Pin<&'a mut Option<F>>,
    value: &'s mut Option<F::Output>,
}

impl<F: Future> Body for Slots<'_, '_, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(body) = self.body.as_mut().as_pin_mut()
            && let Poll::Ready(value) = body.poll(context)
        {
            *self.value = Some(value);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn outcome(&self) -> Outcome {
        self.value.as_ref().map_or(Outcome::Returned, Outcome::of)
    }

    fn end(&mut self) {
        self.body.set(None);
    }
}

/// The steps of a run, whatever its body is.
pub(super) struct Machine {
    progress: Progress,
    function: Function,
    finish_when_lost: bool,
}

enum Progress {
    /// The lock is asked for, or the turn under the lock of the run around this one.
    Taking(Step<Result<Begun>>),
    /// The body runs under the lock.
    Driving(Driving),
    /// The body is gone, and the store is asked to free the lock.
    Releasing(Step<Result<()>>, Option<Panic>),
    Over,
}

impl Machine {
    pub(super) fn new(invocation: Invocation) -> Self {
        let Invocation {
            lock,
            function,
            finish_when_lost,
        } = invocation;
        Self {
            progress: Progress::Taking(Box::pin(begin(lock, function, true))),
            function,
            finish_when_lost,
        }
    }

    /// Ready: the run is over, and the body has a value, unless there is an error: then it did
    /// not run, or was cancelled.
    fn poll(&mut self, body: &mut dyn Body, context: &mut Context<'_>) -> Poll<Option<Error>> {
        loop {
            let next = match &mut self.progress {
                Progress::Taking(taken) => match ready!(taken.as_mut().poll(context)) {
                    Ok(begun) => Progress::Driving(Driving::new(begun)),
                    Err(error) => {
                        body.end();
                        self.progress = Progress::Over;
                        return Poll::Ready(Some(error));
                    }
                },
                Progress::Driving(driving) => {
                    match driving.validity(context) {
                        Validity::Suspect if !self.finish_when_lost => return Poll::Pending,
                        Validity::Over if !self.finish_when_lost || driving.is_stray() => {
                            let error = driving.lost_error();
                            self.function.lost(&error);
                            driving.cancel(body, self.function, Outcome::Lost);
                            self.progress = Progress::Over;
                            return Poll::Ready(Some(error));
                        }
                        _ => (),
                    }
                    let panic = match driving.poll_body(body, context) {
                        Ok(polled) => {
                            ready!(polled);
                            None
                        }
                        Err(panic) => Some(panic),
                    };
                    let outcome = match panic {
                        None => body.outcome(),
                        Some(_) => Outcome::Panicked,
                    };
                    driving.end(body, self.function, outcome);
                    if driving.is_nested() {
                        self.progress = Progress::Over;
                        return done(panic);
                    }
                    let guard = Arc::clone(&driving.running.guard);
                    Progress::Releasing(Box::pin(async move { guard.end().await }), panic)
                }
                Progress::Releasing(released, panic) => {
                    if let Err(error) = ready!(released.as_mut().poll(context)) {
                        // The body's own result is never replaced (rule R9).
                        self.function.release_failed(&error);
                    }
                    let panic = panic.take();
                    self.progress = Progress::Over;
                    return done(panic);
                }
                Progress::Over => polled_again(),
            };
            self.progress = next;
        }
    }

    /// The run is dropped: the body first, and then the lock.
    fn abandon(&mut self, body: &mut dyn Body) {
        match &mut self.progress {
            Progress::Driving(driving) => driving.cancel(body, self.function, Outcome::Cancelled),
            _ => body.end(),
        }
    }
}

/// The lock is released: the body's value or its panic is the caller's.
fn done(panic: Option<Panic>) -> Poll<Option<Error>> {
    match panic {
        None => Poll::Ready(None),
        Some(panic) => resume_unwind(panic),
    }
}

/// Polled again after it was done: as the standard library's futures do.
#[expect(clippy::panic, reason = "a caller's bug, documented by Future::poll")]
fn polled_again() -> ! {
    panic!("`Run` polled after it was done")
}

/// The body runs under the lock.
struct Driving {
    running: Arc<Running>,
    lost: Step<()>,
    /// Its turn under the run around it, where the lock is that one's, and that one's to
    /// release.
    turn: Option<Turn>,
}

impl Driving {
    fn new(begun: Begun) -> Self {
        let Begun { running, turn } = begun;
        let lease = Arc::clone(running.guard.lease());
        Self {
            running,
            lost: Box::pin(async move { lease.over().await }),
            turn,
        }
    }

    fn is_nested(&self) -> bool {
        self.running.around.is_some()
    }

    /// What is known of the lease. The task is woken when that changes.
    ///
    /// By the clock as well as by the engine's word: after a suspended machine wakes, the
    /// timer may come later than this poll, and the body must not go on before.
    fn validity(&mut self, context: &mut Context<'_>) -> Validity {
        let guard = &self.running.guard;
        match guard.validity() {
            Validity::Over => Validity::Over,
            _ if self.is_stray() => Validity::Over,
            _ if self.lost.as_mut().poll(context).is_ready() => Validity::Over,
            Validity::Valid => Validity::Valid,
            // It may have been confirmed before this task could be woken for it.
            Validity::Suspect => guard.validity(),
        }
    }

    /// A nested body that is polled after a body around it has ended. It never goes on: that
    /// one's lock was released, or that one's turn is another body's now.
    fn is_stray(&self) -> bool {
        let around = self.running.around.as_ref();
        around.is_some_and(|around| around.has_ended())
    }

    /// Why the body is cancelled.
    fn lost_error(&self) -> Error {
        let guard = &self.running.guard;
        guard.ensure_held().err().unwrap_or_else(|| not_held(guard))
    }

    /// Polls the body, as code that runs under the lock.
    fn poll_body(&self, body: &mut dyn Body, context: &mut Context<'_>) -> Result<Poll<()>, Panic> {
        let entered = current::enter(Arc::clone(&self.running));
        // The body is not looked at after a panic: it is dropped, the lock released, and
        // the panic goes on.
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll(context)));
        drop(entered);
        polled
    }

    /// Drops the body where it stands, as code that runs under the lock, and gives its turn to
    /// the next nested run.
    fn end(&mut self, body: &mut dyn Body, function: Function, outcome: Outcome) {
        let entered = current::enter(Arc::clone(&self.running));
        body.end();
        let is_nested = self.is_nested();
        let outcome = match is_nested {
            true => outcome,
            false => outcome.as_said(self.running.guard.said()),
        };
        function.ended(&self.running, outcome);
        drop(entered);
        if !is_nested {
            self.running.guard.run_ended(outcome.for_the_store());
        }
        self.running.end();
        self.turn = None;
    }

    /// Drops the body, and then lets go of the lock in the background.
    fn cancel(&mut self, body: &mut dyn Body, function: Function, outcome: Outcome) {
        self.end(body, function, outcome);
        if !self.is_nested() {
            // Not by dropping alone: the body may have put a handle of it elsewhere.
            self.running.guard.let_go();
        }
    }
}

//! An async body under its lock. The body always ends before the lock does (rule R5).
//!
//! [`Run`] goes through four steps: *start* (is this code under that lock already?), *take*
//! the lock, *drive* the body while the lease is valid, *release* the lock. A nested body has
//! no second and no fourth: its lock is the one around it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::engine::Validity;
use crate::error::{Error, Result};

use super::current::{self, Running};
use super::log::Function;
use super::start::{Invocation, Start, take};

type Step<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A body under a lock. `Err`: it did not run, or was cancelled because the lease was
/// lost.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Run<'a, F: Future> {
    /// `None` as soon as it has ended: dropped in place, before the lock is released.
    body: Pin<&'a mut Option<F>>,
    /// In a box: the caller's future stays small.
    progress: Box<Progress<F::Output>>,
}

enum Progress<T> {
    /// `None` once it has been started.
    Starting(Option<Result<Invocation>>),
    Taking(Taking),
    Driving(Driving),
    Releasing(Releasing<T>),
    Over,
}

/// What follows a step.
enum Next<T> {
    Step(Progress<T>),
    /// The run's own result.
    Done(Result<T>),
}

impl<'a, F: Future> Run<'a, F> {
    pub(crate) fn new(invocation: Result<Invocation>, body: Pin<&'a mut Option<F>>) -> Self {
        Self {
            body,
            progress: Box::new(Progress::Starting(Some(invocation))),
        }
    }
}

// The body is pinned by its owner, the rest does not mind being moved.
impl<F: Future> Unpin for Run<'_, F> {}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let next = match &mut *this.progress {
                Progress::Starting(invocation) => start(invocation),
                Progress::Taking(taking) => ready!(taking.poll(context)),
                Progress::Driving(driving) => ready!(driving.poll(&mut this.body, context)),
                Progress::Releasing(releasing) => ready!(releasing.poll(context)),
                // Polled again after it was done: as the standard library's futures do.
                #[expect(clippy::panic, reason = "a caller's bug, documented by Future::poll")]
                Progress::Over => panic!("`Run` polled after it was done"),
            };
            match next {
                Next::Step(progress) => *this.progress = progress,
                Next::Done(result) => {
                    this.body.set(None);
                    *this.progress = Progress::Over;
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<F: Future> Drop for Run<'_, F> {
    fn drop(&mut self) {
        match &*self.progress {
            Progress::Driving(driving) => driving.cancel(&mut self.body),
            _ => self.body.set(None),
        }
    }
}

/// The first step: whether this code runs under that very lock already.
fn start<T>(invocation: &mut Option<Result<Invocation>>) -> Next<T> {
    let Some(invocation) = invocation.take() else {
        return Next::Step(Progress::Over);
    };
    let Invocation {
        lock,
        function,
        finish_when_lost,
    } = match invocation {
        Ok(invocation) => invocation,
        // Logged where the locker was looked for.
        Err(error) => return Next::Done(Err(error)),
    };
    match Start::of(lock) {
        Ok(Start::Take(lock)) => Next::Step(Progress::Taking(Taking {
            taken: Box::pin(take(lock)),
            function,
            finish_when_lost,
        })),
        Ok(Start::Nested(running)) => Next::Step(Progress::Driving(Driving {
            lost: lost(&running),
            running,
            nested: true,
            function,
            finish_when_lost,
        })),
        Err(error) => {
            function.refused(&error);
            Next::Done(Err(error))
        }
    }
}

/// The second step: the lock is asked for.
struct Taking {
    taken: Step<Result<Arc<Running>>>,
    function: Function,
    finish_when_lost: bool,
}

impl Taking {
    fn poll<T>(&mut self, context: &mut Context<'_>) -> Poll<Next<T>> {
        Poll::Ready(match ready!(self.taken.as_mut().poll(context)) {
            Ok(running) => Next::Step(Progress::Driving(Driving {
                lost: lost(&running),
                running,
                nested: false,
                function: self.function,
                finish_when_lost: self.finish_when_lost,
            })),
            Err(error) => {
                self.function.refused(&error);
                Next::Done(Err(error))
            }
        })
    }
}

/// The third step: the body runs under the lock.
struct Driving {
    running: Arc<Running>,
    lost: Step<()>,
    /// Under the lock that the caller holds already; it is the caller's to release.
    nested: bool,
    function: Function,
    finish_when_lost: bool,
}

impl Driving {
    fn poll<F: Future>(
        &mut self,
        body: &mut Pin<&mut Option<F>>,
        context: &mut Context<'_>,
    ) -> Poll<Next<F::Output>> {
        match self.validity(context) {
            Validity::Suspect if !self.finish_when_lost => return Poll::Pending,
            Validity::Over if !self.may_finish() => {
                return Poll::Ready(Next::Done(Err(self.lose(body))));
            }
            _ => (),
        }
        let ended = match poll_body(body, &self.running, context) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => BodyEnd::Value(value),
            Err(panic) => BodyEnd::Panic(panic),
        };
        drop_body(body, &self.running);
        if self.nested {
            return Poll::Ready(Next::Done(Ok(ended.into_value())));
        }
        let guard = Arc::clone(&self.running.guard);
        Poll::Ready(Next::Step(Progress::Releasing(Releasing {
            released: Box::pin(async move { guard.end().await }),
            ended: Some(ended),
            function: self.function,
        })))
    }

    /// What is known of the lease. The task is woken when that changes.
    ///
    /// By the clock as well as by the engine's word: after a suspended machine wakes, the
    /// timer may come later than this poll, and the body must not go on before.
    fn validity(&mut self, context: &mut Context<'_>) -> Validity {
        let guard = &self.running.guard;
        match guard.validity() {
            Validity::Over => Validity::Over,
            _ if self.lost.as_mut().poll(context).is_ready() => Validity::Over,
            Validity::Valid => Validity::Valid,
            // It may have been confirmed before this task could be woken for it.
            Validity::Suspect => guard.validity(),
        }
    }

    /// Whether the body goes on though the lease is over.
    ///
    /// A nested body that is polled after the body around it has ended does not: there the
    /// lock was released, and not lost.
    fn may_finish(&self) -> bool {
        let was_released = self.nested && self.running.guard.lease().loss().is_none();
        self.finish_when_lost && !was_released
    }

    /// Cancels the body because its lease is over; the error says why it is.
    fn lose<F>(&self, body: &mut Pin<&mut Option<F>>) -> Error {
        let running = &self.running;
        let error = running.guard.ensure_held().err().unwrap_or(Error::NotHeld {
            key: Arc::clone(&running.key.lock),
        });
        self.function.lost(&error);
        self.cancel(body);
        error
    }

    /// Drops the body, and then lets go of the lock in the background.
    fn cancel<F>(&self, body: &mut Pin<&mut Option<F>>) {
        drop_body(body, &self.running);
        if !self.nested {
            // Not by dropping alone: the body may have put a handle of it elsewhere.
            self.running.guard.let_go();
        }
    }
}

/// How a body has ended.
enum BodyEnd<T> {
    Value(T),
    Panic(Box<dyn Any + Send>),
}

impl<T> BodyEnd<T> {
    fn into_value(self) -> T {
        match self {
            Self::Value(value) => value,
            Self::Panic(panic) => resume_unwind(panic),
        }
    }
}

/// The last step: the body is gone, and the store is asked to free the lock.
struct Releasing<T> {
    released: Step<Result<()>>,
    /// `None` once it has been given to the caller.
    ended: Option<BodyEnd<T>>,
    function: Function,
}

impl<T> Releasing<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Next<T>> {
        if let Err(error) = ready!(self.released.as_mut().poll(context)) {
            // The body's own result is never replaced (rule R9).
            self.function.release_failed(&error);
        }
        Poll::Ready(match self.ended.take() {
            Some(ended) => Next::Done(Ok(ended.into_value())),
            None => Next::Step(Progress::Over),
        })
    }
}

/// Completes when the lease is over.
fn lost(running: &Running) -> Step<()> {
    let lease = Arc::clone(running.guard.lease());
    Box::pin(async move { lease.over().await })
}

fn poll_body<F: Future>(
    body: &mut Pin<&mut Option<F>>,
    running: &Arc<Running>,
    context: &mut Context<'_>,
) -> Result<Poll<F::Output>, Box<dyn Any + Send>> {
    let entered = current::enter(Arc::clone(running));
    // The body is not looked at after a panic: it is dropped, the lock released, and
    // the panic goes on.
    let polled = catch_unwind(AssertUnwindSafe(|| match body.as_mut().as_pin_mut() {
        Some(body) => body.poll(context),
        None => Poll::Pending,
    }));
    drop(entered);
    polled
}

/// Drops the body where it stands, as code that runs under the lock.
fn drop_body<F>(body: &mut Pin<&mut Option<F>>, running: &Arc<Running>) {
    let entered = current::enter(Arc::clone(running));
    body.set(None);
    drop(entered);
}

//! Driving a body under a lock, async and sync: the body always ends before the lock
//! does (rule R5).

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::blocking::block_on;
use crate::engine::Validity;
use crate::error::{Error, Result};
use crate::locker::{Lock, LockGuard};

use super::current::{self, Entered, Running};
use super::log::Function;

/// What a call asks for.
pub(crate) struct Order {
    pub(crate) lock: Lock,
    pub(crate) function: Function,
    pub(crate) finish_when_lost: bool,
}

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
    Start(Result<Order>),
    Taking(Step<Result<LockGuard>>, Order),
    Running {
        running: Arc<Running>,
        lost: Step<()>,
        order: Order,
    },
    /// Under the lock that the caller holds already.
    Nested {
        running: Arc<Running>,
        lost: Step<()>,
        order: Order,
    },
    Releasing(Step<Result<()>>, Option<Ended<T>>, Order),
    Over,
}

enum Ended<T> {
    Value(T),
    Panic(Box<dyn Any + Send>),
}

impl<'a, F: Future> Run<'a, F> {
    pub(crate) fn new(order: Result<Order>, body: Pin<&'a mut Option<F>>) -> Self {
        Self {
            body,
            progress: Box::new(Progress::Start(order)),
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
            match &mut *this.progress {
                Progress::Start(_) => {
                    let Progress::Start(order) =
                        std::mem::replace(&mut *this.progress, Progress::Over)
                    else {
                        continue;
                    };
                    *this.progress = match order.and_then(start) {
                        Ok(Started::Nested(running, order)) => {
                            let lease = Arc::clone(running.guard.lease());
                            Progress::Nested {
                                running,
                                lost: Box::pin(async move { lease.over().await }),
                                order,
                            }
                        }
                        Ok(Started::Take(order)) => {
                            let lock = order.lock.clone();
                            let taking = Box::pin(async move { lock.acquire().await });
                            Progress::Taking(taking, order)
                        }
                        Err(error) => {
                            this.body.set(None);
                            return Poll::Ready(Err(error));
                        }
                    };
                }
                Progress::Taking(taking, order) => match ready!(taking.as_mut().poll(context)) {
                    Ok(guard) => {
                        // The machine may have slept since: nothing is begun under a
                        // lease that is over.
                        if let Err(error) = guard.ensure_held() {
                            order.function.refused(&error);
                            this.body.set(None);
                            *this.progress = Progress::Over;
                            return Poll::Ready(Err(error));
                        }
                        let lease = Arc::clone(guard.lease());
                        let locker = order.lock.locker().clone();
                        let running = Arc::new(Running::new(locker, guard));
                        let Progress::Taking(_, order) =
                            std::mem::replace(&mut *this.progress, Progress::Over)
                        else {
                            continue;
                        };
                        *this.progress = Progress::Running {
                            running,
                            lost: Box::pin(async move { lease.over().await }),
                            order,
                        };
                    }
                    Err(error) => {
                        order.function.refused(&error);
                        this.body.set(None);
                        *this.progress = Progress::Over;
                        return Poll::Ready(Err(error));
                    }
                },
                Progress::Running {
                    running,
                    lost,
                    order,
                } => {
                    let validity = look(running, lost, context);
                    if validity == Validity::Suspect && !order.finish_when_lost {
                        return Poll::Pending;
                    }
                    if validity == Validity::Over && !order.finish_when_lost {
                        let guard = Arc::clone(&running.guard);
                        let error = why_over(running);
                        order.function.lost(&error);
                        drop_body(&mut this.body, running);
                        *this.progress = Progress::Over;
                        guard.let_go();
                        return Poll::Ready(Err(error));
                    }
                    let polled = poll_body(&mut this.body, running, context);
                    let ended = match polled {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(value)) => Ended::Value(value),
                        Err(panic) => Ended::Panic(panic),
                    };
                    drop_body(&mut this.body, running);
                    let guard = Arc::clone(&running.guard);
                    let releasing = Box::pin(async move { guard.end().await });
                    let Progress::Running { order, .. } =
                        std::mem::replace(&mut *this.progress, Progress::Over)
                    else {
                        continue;
                    };
                    *this.progress = Progress::Releasing(releasing, Some(ended), order);
                }
                Progress::Nested {
                    running,
                    lost,
                    order,
                } => {
                    // Polled after the body around it has ended, there is no lock left to
                    // run under, whatever was said about a lost one.
                    let validity = look(running, lost, context);
                    if validity == Validity::Suspect && !order.finish_when_lost {
                        return Poll::Pending;
                    }
                    let over = validity == Validity::Over;
                    if over && (!order.finish_when_lost || running.guard.lease().loss().is_none()) {
                        let error = why_over(running);
                        order.function.lost(&error);
                        drop_body(&mut this.body, running);
                        *this.progress = Progress::Over;
                        return Poll::Ready(Err(error));
                    }
                    let polled = poll_body(&mut this.body, running, context);
                    return match polled {
                        Ok(Poll::Pending) => Poll::Pending,
                        Ok(Poll::Ready(value)) => {
                            this.body.set(None);
                            *this.progress = Progress::Over;
                            Poll::Ready(Ok(value))
                        }
                        Err(panic) => {
                            *this.progress = Progress::Over;
                            resume_unwind(panic)
                        }
                    };
                }
                Progress::Releasing(releasing, ended, order) => {
                    let outcome = ready!(releasing.as_mut().poll(context));
                    if let Err(error) = outcome {
                        // The body's own result is never replaced (rule R9).
                        order.function.release_failed(&error);
                    }
                    let ended = ended.take();
                    *this.progress = Progress::Over;
                    match ended {
                        Some(Ended::Value(value)) => return Poll::Ready(Ok(value)),
                        Some(Ended::Panic(panic)) => resume_unwind(panic),
                        None => (),
                    }
                }
                // Polled again after it was done: as the standard library's futures do.
                #[expect(clippy::panic, reason = "a caller's bug, documented by Future::poll")]
                Progress::Over => panic!("`Run` polled after it was done"),
            }
        }
    }
}

impl<F: Future> Drop for Run<'_, F> {
    fn drop(&mut self) {
        match &*self.progress {
            Progress::Nested { running, .. } => {
                let running = Arc::clone(running);
                drop_body(&mut self.body, &running);
            }
            Progress::Running { running, .. } => {
                let running = Arc::clone(running);
                drop_body(&mut self.body, &running);
                // Not by dropping alone: the body may have put a handle of it elsewhere.
                running.guard.let_go();
            }
            _ => self.body.set(None),
        }
    }
}

/// What is known of the lease. The task is woken when that changes.
///
/// By the clock as well as by the engine's word: after a suspended machine wakes, the
/// timer may come later than this poll, and the body must not go on before.
fn look(running: &Running, lost: &mut Step<()>, context: &mut Context<'_>) -> Validity {
    match running.guard.validity() {
        Validity::Over => Validity::Over,
        _ if lost.as_mut().poll(context).is_ready() => Validity::Over,
        Validity::Valid => Validity::Valid,
        // It may have been confirmed before this task could be woken for it.
        Validity::Suspect => running.guard.validity(),
    }
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

fn why_over(running: &Running) -> Error {
    running.guard.ensure_held().err().unwrap_or(Error::NotHeld {
        key: Arc::clone(&running.key.lock),
    })
}

enum Started {
    Nested(Arc<Running>, Order),
    Take(Order),
}

/// Whether this code runs under that very lock already.
fn start(order: Order) -> Result<Started> {
    let key = match order.lock.resolve() {
        Ok(key) => key,
        Err(error) => {
            order.function.refused(&error);
            return Err(error);
        }
    };
    match current::find(order.lock.locker(), &key) {
        Some(running) => match running.guard.ensure_held() {
            Ok(()) => Ok(Started::Nested(running, order)),
            Err(error) => {
                order.function.refused(&error);
                Err(error)
            }
        },
        None => Ok(Started::Take(order)),
    }
}

/// A sync body's lock: taken before the body, released when this is dropped, after it.
/// Both block.
#[must_use = "a frame that is dropped at once releases its lock at once"]
pub struct Frame {
    entered: Option<Entered>,
    /// `None` under the lock that the caller holds already.
    running: Option<(Arc<Running>, Function)>,
}

impl Frame {
    pub(crate) fn enter(order: Order) -> Result<Self> {
        match start(order)? {
            Started::Nested(running, _) => Ok(Self {
                entered: Some(current::enter(running)),
                running: None,
            }),
            Started::Take(order) => {
                let taken = block_on(order.lock.acquire())
                    .and_then(|guard| guard.ensure_held().map(|()| guard));
                let guard = match taken {
                    Ok(guard) => guard,
                    Err(error) => {
                        order.function.refused(&error);
                        return Err(error);
                    }
                };
                let locker = order.lock.locker().clone();
                let running = Arc::new(Running::new(locker, guard));
                Ok(Self {
                    entered: Some(current::enter(Arc::clone(&running))),
                    running: Some((running, order.function)),
                })
            }
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        drop(self.entered.take());
        if let Some((running, function)) = self.running.take()
            && let Err(error) = block_on(running.guard.end())
        {
            function.release_failed(&error);
        }
    }
}

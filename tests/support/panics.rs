//! Catching a panic at the very await that it comes out of.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What the future panicked with.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    caught_and(future, || ()).await.map_err(|(panic, ())| panic)
}

/// The same, and what `check` finds while the future that panicked is still there.
pub async fn caught_and<F: Future, T>(
    future: F,
    check: impl FnOnce() -> T,
) -> Result<F::Output, (Box<dyn Any + Send>, T)> {
    let mut future = pin!(future);
    let mut check = Some(check);
    poll_fn(|context| {
        let poll = AssertUnwindSafe(|| future.as_mut().poll(context));
        match catch_unwind(poll) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => {
                let found = check.take().expect("one panic")();
                Poll::Ready(Err((panic, found)))
            }
        }
    })
    .await
}

//! Blocking a thread until a future has ended: what every `_blocking` twin does.

use std::future::Future;

/// Works inside and outside an async runtime.
///
/// Inside a tokio task the future must not draw on the task's cooperative budget: once
/// that is spent, tokio's own primitives answer 'not yet' until the task yields, which
/// a blocked one never does.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(tokio::task::unconstrained(future))
}

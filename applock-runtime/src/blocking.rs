//! Blocking a thread until a future has ended: what every `_blocking` twin does. And the other way
//! round: a future of work that blocks.
//!
//! Our own few lines, for a general `block_on` parks the thread, and would take the
//! wake-up of another one that the same thread is inside of.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::oneshot;

/// Works inside and outside an async runtime, inside another `block_on`, and while the
/// thread's locals are being destroyed.
///
/// Inside a tokio task the future must not draw on the task's cooperative budget: once
/// that is spent, tokio's own primitives answer 'not yet' until the task yields, which
/// a blocked one never does.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(tokio::task::unconstrained(future));
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        signal.wait();
    }
}

/// Does work that blocks (files, the names of hosts) on a thread of its own. Dropping the future does
/// not end the work. An error: no thread could be started, or the work panicked.
///
/// Danger: not on tokio's blocking pool. In a program that has tokio's feature `parking_lot` on (`full`
/// has it), the pool's idle threads stand in a table of the whole process, by the addresses of their
/// stacks. In a process that is forked off they stand there still, the next threads have these same
/// stacks, and wake-ups are lost.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("applock-blocking".to_owned())
        .spawn(move || {
            // Who asked may have given up.
            let _ = tell.send(work());
        })?;
    told.await
        .map_err(|_| io::Error::other("the thread panicked"))
}

#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut woken = self
            .changed
            .wait_while(woken, |woken| !*woken)
            .unwrap_or_else(PoisonError::into_inner);
        *woken = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::thread;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_call_inside_another_does_not_take_its_wake_up() {
        let (tell_outer, outer) = oneshot::channel();
        let (tell_inner, inner) = oneshot::channel();
        let mut outer = pin!(outer);
        let mut inner = Some(inner);
        // The outer future's event comes while the thread is blocked in the inner call.
        let events = thread::spawn(move || {
            tell_outer.send(()).unwrap();
            tell_inner.send(()).unwrap();
        });
        block_on(poll_fn(|context| {
            let polled = outer.as_mut().poll(context);
            if let Some(inner) = inner.take() {
                block_on(inner).unwrap();
            }
            polled.map(Result::unwrap)
        }));
        events.join().unwrap();
    }
}

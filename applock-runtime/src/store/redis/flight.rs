//! Work that is done once for all that want it at the same moment: one task does it, and a
//! caller that comes meanwhile gets its outcome (the 'single flight' of Go's `singleflight` package).
//!
//! A task of its own does it, so that a caller that gives up does not stop what others wait for.
//! If the task is dropped (the engine's runtime has ended), the next call begins anew.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

#[derive(Debug)]
pub(super) struct Flight<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    is_on: bool,
    waiting: Vec<oneshot::Sender<T>>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                is_on: false,
                waiting: Vec::new(),
            }),
        }
    }
}

impl<T: Clone + Send + 'static> Flight<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the work, unless it is under way. `true`: it was begun.
    pub(super) fn start<F>(self: &Arc<Self>, work: F) -> bool
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.join(None, work)
    }

    /// The same, by a caller that waits for the outcome. In one step, so that the work under way can't
    /// end between.
    fn join<F>(self: &Arc<Self>, tell: Option<oneshot::Sender<T>>, work: F) -> bool
    where
        F: Future<Output = T> + Send + 'static,
    {
        {
            let mut state = self.state();
            state.waiting.extend(tell);
            if std::mem::replace(&mut state.is_on, true) {
                return false;
            }
        }
        let mut flight = Landing(Some(Arc::clone(self)));
        tokio::spawn(async move {
            let outcome = work.await;
            // In one step: a caller either hears of this outcome, or begins anew.
            let waiting = flight.land();
            for tell in waiting {
                // A caller that has given up has dropped its receiver.
                let _ = tell.send(outcome.clone());
            }
        });
        true
    }

    /// What the work comes to, begun now or under way. `None`: it was dropped.
    pub(super) async fn outcome<F>(self: &Arc<Self>, work: F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        self.join(Some(tell), work);
        told.await.ok()
    }
}

/// The end of the work, foreseen or not. `None`: it has ended.
struct Landing<T: Clone + Send + 'static>(Option<Arc<Flight<T>>>);

impl<T: Clone + Send + 'static> Landing<T> {
    /// Ends the work, and gives those that wait for its outcome.
    fn land(&mut self) -> Vec<oneshot::Sender<T>> {
        let Some(flight) = self.0.take() else {
            return Vec::new();
        };
        let mut state = flight.state();
        state.is_on = false;
        std::mem::take(&mut state.waiting)
    }
}

impl<T: Clone + Send + 'static> Drop for Landing<T> {
    fn drop(&mut self) {
        // Those that wait for it get nothing.
        self.land();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;

    use super::*;

    fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    }

    /// On two threads, so that callers come at the very moment at which the work ends.
    #[test]
    fn a_caller_that_comes_as_the_work_ends_gets_an_outcome() {
        let flight: Arc<Flight<()>> = Arc::default();
        let ended = AtomicUsize::new(0);
        let call = || async {
            let mut without = 0;
            for _ in 0..20_000 {
                without += usize::from(flight.outcome(async {}).await.is_none());
            }
            // The other one may wait for a task of this thread.
            ended.fetch_add(1, Ordering::SeqCst);
            while ended.load(Ordering::SeqCst) < 2 {
                yield_now().await;
            }
            without
        };
        std::thread::scope(|scope| {
            let callers = [(); 2].map(|()| scope.spawn(|| on_a_runtime(call())));
            for caller in callers {
                assert_eq!(caller.join().unwrap(), 0);
            }
        });
    }

    #[test]
    fn a_caller_of_work_that_was_dropped_gets_none_and_the_next_begins_anew() {
        let flight: Arc<Flight<u8>> = Arc::default();
        let (tell, told) = oneshot::channel();
        flight.state().waiting.push(tell);
        on_a_runtime(async {
            assert!(flight.start(std::future::pending()));
            yield_now().await;
        });
        assert!(told.blocking_recv().is_err());
        assert_eq!(on_a_runtime(flight.outcome(async { 1 })), Some(1));
    }
}

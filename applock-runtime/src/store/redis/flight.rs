//! Work that is done once for all that want it at the same moment: one task does it, and a
//! caller that comes meanwhile gets its outcome (the 'single flight' of Go's `singleflight` package).
//!
//! A task of its own does it, so that a caller that gives up does not stop what others wait for.
//! If the task is dropped (the engine's runtime has ended), the next call begins anew.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub(super) struct Flight<T> {
    state: Mutex<State<T>>,
}

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
        if std::mem::replace(&mut self.state().is_on, true) {
            return false;
        }
        let flight = Landing(Arc::clone(self));
        tokio::spawn(async move {
            let outcome = work.await;
            let waiting = std::mem::take(&mut flight.0.state().waiting);
            // From here on a caller begins anew.
            drop(flight);
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
        self.state().waiting.push(tell);
        self.start(work);
        told.await.ok()
    }
}

/// The end of the work, foreseen or not.
struct Landing<T: Clone + Send + 'static>(Arc<Flight<T>>);

impl<T: Clone + Send + 'static> Drop for Landing<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_on = false;
        state.waiting.clear();
    }
}

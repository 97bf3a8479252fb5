//! How many acquisitions have not come to their end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts the acquisitions, from the request to the end, so that the last handle of a
/// locker can wait for their releases.
#[derive(Default)]
pub(super) struct Unfinished {
    count: AtomicUsize,
    /// Whether the last handle waits: nobody else has to be woken.
    waited_for: Mutex<bool>,
    none: Condvar,
}

impl Unfinished {
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn done(&self) {
        let less = |count: usize| count.checked_sub(1);
        let before = self
            .count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if before == Ok(1) && *self.waited_for() {
            self.none.notify_all();
        }
    }

    fn waited_for(&self) -> MutexGuard<'_, bool> {
        // Poison changes nothing about a flag.
        self.waited_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self, longest: Duration) {
        let mut waited_for = self.waited_for();
        *waited_for = true;
        let unfinished = |_: &mut bool| self.count.load(Ordering::SeqCst) > 0;
        drop(
            self.none
                .wait_timeout_while(waited_for, longest, unfinished),
        );
    }
}

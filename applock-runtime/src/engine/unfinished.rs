//! How many acquisitions have not come to their end: what the last handle waits for.
//!
//! An acquisition is counted from the command to the end of its entry, also across a panic
//! of the thread. One that is counted twice, or never counted off, would make a program
//! hang for a moment at its end; so each entry that goes is counted off in one place
//! (`core`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts the acquisitions, from the request to the end, so that the last handle of a
/// locker can wait for their releases.
#[derive(Default)]
pub(super) struct Unfinished {
    count: AtomicUsize,
    /// Whether the last handle waits: only then is there a thread to wake.
    waited_for: Mutex<bool>,
    none: Condvar,
}

impl Unfinished {
    /// An acquire is sent.
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// An acquisition has ended. More ends than beginnings change nothing.
    pub(super) fn done(&self) {
        let less = |count: usize| count.checked_sub(1);
        let before = self
            .count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        if before == Ok(1) && *self.waited_for() {
            self.none.notify_all();
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn waited_for(&self) -> MutexGuard<'_, bool> {
        // Poison changes nothing about a flag.
        self.waited_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is none, for `longest` at the most.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_waits_for_so_long_at_the_most_and_not_for_nothing() {
        let unfinished = Unfinished::default();
        let start = Instant::now();
        // More ends than beginnings change nothing.
        unfinished.done();
        unfinished.wait(LONG);
        assert!(start.elapsed() < LONG / 2);
        unfinished.add();
        let short = Duration::from_millis(20);
        let start = Instant::now();
        unfinished.wait(short);
        assert!(start.elapsed() >= short);
    }

    #[test]
    fn the_last_end_wakes_the_thread_that_waits() {
        let unfinished = Arc::new(Unfinished::default());
        unfinished.add();
        let start = Instant::now();
        let waiting = {
            let unfinished = Arc::clone(&unfinished);
            std::thread::spawn(move || unfinished.wait(LONG))
        };
        // It gives the flag free only by sleeping.
        while !*unfinished.waited_for() {
            std::thread::yield_now();
        }
        unfinished.done();
        waiting.join().unwrap();
        assert_eq!(unfinished.count(), 0);
        assert!(start.elapsed() < LONG / 2);
    }
}

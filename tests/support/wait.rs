//! Waiting for something to become true, with a limit that says what never came.

use std::time::{Duration, Instant};

/// Polls `met` until it is true. Panics after `longest`, naming what was waited for.
#[track_caller]
pub fn until(what: &str, longest: Duration, mut met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !met() {
        assert!(
            start.elapsed() < longest,
            "after {longest:?} still not: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

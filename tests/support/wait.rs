//! Waiting for something to become true, with a limit that says what never came.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// One check counts for no more than this towards the limit: a machine that stood still
/// for a minute gave the test no minute's time.
const LONGEST_CHECK: Duration = Duration::from_secs(3);

/// Polls `met` until it is true. Panics after `longest`, naming what was waited for.
#[track_caller]
pub fn until(what: &str, longest: Duration, mut met: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    let mut last = Instant::now();
    while !met() {
        assert!(waited < longest, "after {longest:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
        let now = Instant::now();
        waited += (now - last).min(LONGEST_CHECK);
        last = now;
    }
}

/// Polls once: what a future asks is on its way then.
pub async fn polled<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// How long a body waits to be cancelled before its test has failed.
const CANCELLED: Duration = Duration::from_secs(100);

/// What a body awaits that is to be cancelled. Never ready; panics if that does not happen.
pub async fn to_be_cancelled() {
    let (wake, woken) = tokio::sync::oneshot::channel::<()>();
    let (cancelled, is_cancelled) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        // Ends as soon as the body is gone.
        let _ = is_cancelled.recv_timeout(CANCELLED);
        drop(wake);
    });
    woken.await.ok();
    drop(cancelled);
    panic!("not cancelled within {CANCELLED:?}");
}

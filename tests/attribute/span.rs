//! Promise: what a body logs is inside a span that names the lock it runs under, and tells
//! how long it waited for it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use applock::{AppLocker, Lock, current, singleton};
use tracing::subscriber::DefaultGuard;

/// The lines that this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn keep() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The one line with these words.
    #[track_caller]
    fn line(&self, words: &str) -> String {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(words)).collect();
        let [line] = lines[..] else {
            panic!("{words:?} in {lines:?} of {text}");
        };
        line.to_owned()
    }
}

/// The line is inside this lock's span, and no other.
#[track_caller]
fn assert_inside(line: &str, key: &str) {
    let span = format!("applock{{key={key} owner=");
    assert!(line.contains(&span), "{line}");
    assert!(
        line.contains(" token=") && line.contains(" waited_ms="),
        "{line}"
    );
    assert_eq!(line.matches("applock{").count(), 1, "{line}");
}

#[singleton(app = "spanned", locker = *locker)]
async fn annotated(locker: &AppLocker) -> applock::Result<u64> {
    tokio::task::yield_now().await;
    tracing::info!("at work");
    Ok(current().expect("a guard").fencing_token())
}

#[tokio::test]
async fn what_an_annotated_function_logs_names_its_lock() {
    let (log, _kept) = Log::keep();
    let locker = AppLocker::in_memory();
    let token = annotated(&locker).await.unwrap();
    tracing::info!("afterwards");
    let line = log.line("at work");
    assert_inside(&line, "QUEUE:spanned");
    assert!(line.contains(&format!(" token={token} ")), "{line}");
    assert!(!log.line("afterwards").contains("applock{"));
}

#[tokio::test]
async fn bodies_that_take_turns_on_one_thread_stay_in_their_own_spans() {
    let (log, _kept) = Log::keep();
    let locker = AppLocker::in_memory();
    let body = |name: &'static str| {
        let lock = locker.lock(name);
        async move {
            let work = async {
                for step in 0..3 {
                    tracing::info!("{name} in step {step}");
                    tokio::task::yield_now().await;
                }
            };
            lock.run(work).await.unwrap();
        }
    };
    tokio::join!(body("one"), body("two"));
    for name in ["one", "two"] {
        for step in 0..3 {
            let line = log.line(&format!("{name} in step {step}"));
            assert_inside(&line, &format!("QUEUE:{name}"));
        }
    }
}

#[test]
fn a_blocking_body_is_inside_its_span_and_a_nested_one_in_the_same() {
    let (log, _kept) = Log::keep();
    let locker = AppLocker::in_memory();
    let lock = locker.lock("plain").reentrant();
    let outer = || {
        tracing::info!("outside");
        lock.run_blocking(|| tracing::info!("inside")).unwrap();
    };
    lock.run_blocking(outer).unwrap();
    assert_inside(&log.line("outside"), "QUEUE:plain");
    assert!(log.line("inside").contains("applock{key=QUEUE:plain "));
}

async fn until_a_waiter_is_queued(lock: &Lock) {
    while lock.info().await.unwrap().unwrap().waiters() != Some(1) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_wait_in_the_queue_is_reported() {
    let locker = AppLocker::in_memory();
    let lock = locker.lock("wanted").wait_forever();
    let holder = lock.acquire().await.unwrap();
    let asked = Instant::now();
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await.unwrap() }
    });
    until_a_waiter_is_queued(&lock).await;
    let stood = Instant::now();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let in_line = stood.elapsed();
    holder.release().await.unwrap();
    let waited = waiting.await.unwrap().waited();
    assert!(waited >= in_line, "{waited:?} of {in_line:?}");
    assert!(waited <= asked.elapsed(), "{waited:?}");
}

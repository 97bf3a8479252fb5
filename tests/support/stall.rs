//! Tests whose verdict is about time, on machines that now and then stand still.
//!
//! A lease that runs out while the whole machine is stopped proves nothing. So such an
//! attempt is repeated, but only if it failed *and* the machine was seen to stand still
//! meanwhile; what fails on a machine that runs has failed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ATTEMPTS: u32 = 20;

/// Runs `attempt`, and once more for each time that it panicked while this machine let
/// nobody run for `longest`.
pub fn retried<T>(longest: Duration, mut attempt: impl FnMut() -> T) -> T {
    for _ in 1..ATTEMPTS {
        let watch = Watch::start();
        let outcome = catch_unwind(AssertUnwindSafe(&mut attempt));
        let worst = watch.worst();
        match outcome {
            Ok(value) => return value,
            Err(panic) if worst < longest => resume_unwind(panic),
            Err(_) => eprintln!("the machine stood still for {worst:?}: once more"),
        }
    }
    attempt()
}

/// The same for a future, on a runtime of its own.
pub fn retried_async<T>(longest: Duration, mut attempt: impl AsyncFnMut() -> T) -> T {
    retried(longest, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(attempt())
    })
}

/// Measures how long a thread that only wants to run has to wait for it.
struct Watch {
    over: Arc<AtomicBool>,
    worst: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let worst = Arc::new(AtomicU64::new(0));
        let (stop, gap) = (Arc::clone(&over), Arc::clone(&worst));
        let thread = std::thread::spawn(move || {
            let mut last = Instant::now();
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
                let now = Instant::now();
                let step = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
                gap.fetch_max(step, Ordering::SeqCst);
                last = now;
            }
        });
        Self {
            over,
            worst,
            thread,
        }
    }

    fn worst(self) -> Duration {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watch");
        Duration::from_nanos(self.worst.load(Ordering::SeqCst))
    }
}

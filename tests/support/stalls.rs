//! How long the machine stood still, as a thread sees it that does nothing but sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two checks; what a check is late by no more than this is not counted.
const STEP: Duration = Duration::from_millis(5);

/// Watches until it is dropped.
pub struct Stalls {
    total: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Stalls {
    pub fn watch() -> Self {
        let stalls = Self {
            total: Arc::default(),
            over: Arc::default(),
        };
        let (total, over) = (Arc::clone(&stalls.total), Arc::clone(&stalls.over));
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                let before = Instant::now();
                std::thread::sleep(STEP);
                let late = before.elapsed().saturating_sub(STEP * 2).as_micros();
                total.fetch_add(u64::try_from(late).expect("no centuries"), Ordering::SeqCst);
            }
        });
        stalls
    }

    /// All of it since it began.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.total.load(Ordering::SeqCst))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

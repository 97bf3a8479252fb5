//! A machine that stands still proves nothing about leases.
//!
//! Where the whole process gets no time for a good part of a second (a virtual machine
//! that is paused, two cores with the work of thirty), leases end and commands time out
//! as they should. A watchman notices it, and the case is run again, in a new place. A
//! case that fails while the machine runs well has failed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter than what any heartbeat of the suite can spare.
const STANDSTILL: Duration = Duration::from_millis(150);

const ATTEMPTS: u32 = 5;

static STANDSTILLS: LazyLock<Mutex<Vec<(Instant, Duration)>>> = LazyLock::new(|| {
    thread::spawn(watch);
    Mutex::default()
});

fn watch() {
    let mut before = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(10));
        let now = Instant::now();
        if now - before > STANDSTILL {
            STANDSTILLS.lock().unwrap().push((now, now - before));
        }
        before = now;
    }
}

/// Runs a case; and again, if it failed while the machine stood still.
pub(crate) fn run(case: impl Fn()) {
    for attempt in 1.. {
        drop(STANDSTILLS.lock().unwrap());
        let start = Instant::now();
        let Err(panic) = catch_unwind(AssertUnwindSafe(&case)) else {
            return;
        };
        // Let the watchman wake from a standstill that goes on to this very moment.
        thread::sleep(Duration::from_millis(30));
        let longest = STANDSTILLS
            .lock()
            .unwrap()
            .iter()
            .filter(|(end, _)| *end >= start)
            .map(|(_, length)| *length)
            .max();
        match longest {
            Some(length) if attempt < ATTEMPTS => {
                eprintln!("the machine stood still for {length:?}: once more");
            }
            _ => resume_unwind(panic),
        }
    }
}

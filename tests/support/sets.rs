//! Sets of servers that belong together are many processes each: only a few sets run at once
//! in one program, so that their timers see a machine that is not overloaded.

use std::sync::{Condvar, Mutex, PoisonError};

/// On two cores, where each set is idle most of the time.
const AT_ONCE: usize = 4;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run one set. Waits for it.
#[derive(Debug)]
pub struct Permit(());

impl Permit {
    pub fn get() -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = ENDED
            .wait_while(running, |running| *running >= AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

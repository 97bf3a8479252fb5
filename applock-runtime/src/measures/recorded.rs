//! The metrics themselves: their names, and what is told of all engines together.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::error::Loss;

pub(super) const ACQUIRE: &str = "applock_acquire_total";
pub(super) const WAIT: &str = "applock_wait_seconds";
pub(super) const HELD_FOR: &str = "applock_held_seconds";
pub(super) const HELD: &str = "applock_held";
pub(super) const LOST: &str = "applock_lost_total";
pub(super) const HEARTBEAT_FAILURES: &str = "applock_heartbeat_failures_total";
pub(super) const STORE_UP: &str = "applock_store_up";
pub(super) const MARGIN: &str = "applock_lease_margin_seconds";
pub(super) const LAST_RUN: &str = "applock_last_run_timestamp_seconds";

/// What stands for the application of a lock whose whole key was given.
const NO_APP: &str = "(key)";

/// The outcomes of an acquire. A dashboard shows zero for those that did not happen.
const OUTCOMES: [&str; 8] = [
    "acquired",
    "already_ran",
    "busy",
    "unavailable",
    "denied",
    "misconfigured",
    "closed",
    "cancelled",
];

/// How runs end. (And `returned`, of sync code whose value can't be seen.)
const ENDS: [&str; 5] = ["ok", "error", "panicked", "cancelled", "lost"];

const LOSSES: [Loss; 5] = [
    Loss::Expired,
    Loss::Taken,
    Loss::AtMost,
    Loss::Shutdown,
    Loss::Stopped,
];

/// What one engine tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Reading {
    pub(super) held: usize,
    pub(super) is_up: Option<bool>,
    pub(super) margin: Option<Duration>,
}

/// Of each engine of this process what it last told.
static ENGINES: Mutex<BTreeMap<u64, Reading>> = Mutex::new(BTreeMap::new());

/// The applications whose counters begin at zero already.
static APPS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// The process that came first; those that it forks off are others.
static FIRST: AtomicU32 = AtomicU32::new(0);

/// Danger: a process that was forked off while another thread had it would wait for ever. So only
/// the first process waits. In another, what is not told now is told with the next change.
fn unless_dead<T>(shared: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    if FIRST.load(Ordering::Relaxed) == 0 {
        let ours = std::process::id();
        let _ = FIRST.compare_exchange(0, ours, Ordering::Relaxed, Ordering::Relaxed);
    }
    match shared.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        // A change that is not told may be the last one for long: that nothing is held any more.
        Err(TryLockError::WouldBlock) if FIRST.load(Ordering::Relaxed) == std::process::id() => {
            Some(shared.lock().unwrap_or_else(PoisonError::into_inner))
        }
        Err(TryLockError::WouldBlock) => None,
    }
}

pub(super) fn app(app: Option<&str>) -> String {
    app.unwrap_or(NO_APP).to_owned()
}

pub(super) fn describe() {
    describe_counter!(ACQUIRE, "Calls for a lock, by how they ended");
    describe_histogram!(
        WAIT,
        Unit::Seconds,
        "From the call for a lock to its grant, of those that got it"
    );
    describe_histogram!(
        HELD_FOR,
        Unit::Seconds,
        "From the grant to the release or the loss"
    );
    describe_gauge!(HELD, "Locks that this process holds");
    describe_counter!(LOST, "Leases that ended under their holder");
    describe_counter!(
        HEARTBEAT_FAILURES,
        "Heartbeats without an answer; one is no loss yet"
    );
    describe_gauge!(
        STORE_UP,
        "1 if the store has answered the last command; 0 before the first"
    );
    describe_gauge!(
        MARGIN,
        Unit::Seconds,
        "Until the first lease ends if no heartbeat is answered; 0 while none is held"
    );
    describe_gauge!(
        LAST_RUN,
        Unit::Seconds,
        "When a run last ended here, since 1970; 0 if none has"
    );
    counter!(HEARTBEAT_FAILURES).increment(0);
    gauge!(HELD).increment(0.0);
    gauge!(STORE_UP).increment(0.0);
    gauge!(MARGIN).increment(0.0);
    drop((histogram!(WAIT), histogram!(HELD_FOR)));
}

/// The counters of an application begin at zero: an increase from nothing is none.
pub(super) fn begin(name: Option<&str>) {
    let name = name.unwrap_or(NO_APP);
    let Some(mut known) = unless_dead(&APPS) else {
        return;
    };
    if known.contains(name) {
        return;
    }
    known.insert(name.to_owned());
    drop(known);
    for outcome in OUTCOMES {
        counter!(ACQUIRE, "app" => name.to_owned(), "outcome" => outcome).increment(0);
    }
    for loss in LOSSES {
        counter!(LOST, "app" => name.to_owned(), "reason" => loss.name()).increment(0);
    }
    for outcome in ENDS {
        gauge!(LAST_RUN, "app" => name.to_owned(), "outcome" => outcome).increment(0.0);
    }
}

/// The process's gauges: of all its engines together.
pub(super) fn publish(engine: u64, reading: Option<Reading>) -> bool {
    let Some(mut engines) = unless_dead(&ENGINES) else {
        return false;
    };
    match reading {
        Some(reading) => drop(engines.insert(engine, reading)),
        None => drop(engines.remove(&engine)),
    }
    let held: usize = engines.values().map(|reading| reading.held).sum();
    let up = engines.values().filter_map(|reading| reading.is_up).min();
    let margin = engines.values().filter_map(|reading| reading.margin).min();
    // Under the mutex: of two engines the later one's sum is told last.
    gauge!(HELD).set(u32::try_from(held).map_or(f64::INFINITY, f64::from));
    gauge!(STORE_UP).set(f64::from(u8::from(up.unwrap_or(false))));
    gauge!(MARGIN).set(margin.unwrap_or_default().as_secs_f64());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lockers of a process change at the same moment, and none of them for long after that.
    #[test]
    fn a_change_that_meets_that_of_another_engine_is_told_after_it() {
        let other = ENGINES.lock().unwrap();
        let (asks, asked) = std::sync::mpsc::channel();
        let told = std::thread::spawn(move || {
            asks.send(()).unwrap();
            publish(u64::MAX, Some(Reading::default())) && publish(u64::MAX, None)
        });
        asked.recv().unwrap();
        // It most likely asks by then; if not, it is told all the same.
        std::thread::sleep(Duration::from_millis(50));
        drop(other);
        assert!(told.join().unwrap());
    }
}

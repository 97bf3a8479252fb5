//! What one acquire and release costs, in counts that do not depend on the machine's speed:
//! commands, bytes, allocations, system calls. Each bound is the number that was counted
//! when it was written; a change that raises one has to say why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod allocations;
mod clock;
mod server;
#[cfg(target_os = "linux")]
mod system_calls;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use applock::{AppLocker, Lock};

/// Long enough that no heartbeat falls within a count.
const TTL: Duration = Duration::from_secs(600);

/// Cycles before the first count: connections are made and scripts loaded by then.
const WARM_UP: u32 = 20;

/// One test counts at a time: the allocator that counts is the whole process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test's future on this thread alone.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// The lock that the tests take, after its first cycles.
async fn warm(url: &str) -> Lock {
    let locker = AppLocker::connect(url).await.expect("a server");
    let lock = locker.lock("counted").ttl(TTL);
    cycles(&lock, WARM_UP).await;
    lock
}

/// Acquires and releases so often.
async fn cycles(lock: &Lock, count: u32) {
    for _ in 0..count {
        let guard = lock.acquire().await.expect("the lock is free");
        guard.release().await.expect("the lock is ours");
    }
}

/// The smallest of several rounds: what else runs in the process or on the server can only
/// add to a count.
fn smallest(rounds: impl IntoIterator<Item = f64>) -> f64 {
    rounds.into_iter().fold(f64::INFINITY, f64::min)
}

//! Promise: where a lock is wanted by many workers all the time, each of them gets its share,
//! and no waiter starves (F13).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::child;
use crate::support::lease::LIMIT;
use crate::support::queue::{
    WaitQueue, lock, lockers, until_nothing_is_left_of_the_queue, until_queued,
};
use crate::support::wait;
use applock::AppLocker;

const WORKERS: usize = 128;

/// So many grants for each of them, when all goes as it should.
const GRANTS: u64 = 25;

/// Works as long as `more` says so; `grants` counts what it got.
async fn works(locker: AppLocker, grants: &AtomicU64, more: impl Fn() -> bool) {
    let lock = lock(&locker).wait(LIMIT * 2);
    while more() {
        let guard = lock.acquire().await.unwrap();
        grants.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        guard.release().await.unwrap();
    }
}

/// All shares the same: 1. One has everything: 1 / their number. (R. Jain, D.-M. Chiu,
/// W. Hawe, 1984: A quantitative measure of fairness.)
fn jains_index(grants: &[u64]) -> f64 {
    let grants: Vec<f64> = grants.iter().map(|count| *count as f64).collect();
    let sum: f64 = grants.iter().sum();
    let squares: f64 = grants.iter().map(|count| count * count).sum();
    sum * sum / (grants.len() as f64 * squares)
}

#[track_caller]
fn assert_fair(grants: &[u64]) {
    assert_eq!(grants.len(), WORKERS);
    let mean = grants.iter().sum::<u64>() / grants.len() as u64;
    let index = jains_index(grants);
    assert!(index >= 0.99, "{index}: {grants:?}");
    let least = *grants.iter().min().unwrap();
    assert!(
        least >= mean / 2,
        "{least} where the mean is {mean}: {grants:?}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn the_tasks_of_a_few_lockers_all_get_their_share() {
    // All of them are in the queue when it begins.
    let mut queue = WaitQueue::start();
    let grants: Arc<Vec<AtomicU64>> = Arc::new((0..WORKERS).map(|_| AtomicU64::new(0)).collect());
    let runtime = runtime();
    let lockers = lockers(&queue.server.url(), 4);
    let tasks: Vec<_> = (0..WORKERS)
        .map(|which| {
            let (locker, grants) = (lockers[which % lockers.len()].clone(), Arc::clone(&grants));
            runtime.spawn(async move {
                let taken = || grants.iter().map(|one| one.load(Ordering::SeqCst)).sum();
                let more = || -> bool { u64::lt(&taken(), &(GRANTS * WORKERS as u64)) };
                works(locker, &grants[which], more).await;
            })
        })
        .collect();
    until_queued(&queue.server, WORKERS);
    queue.holder_releases();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    until_nothing_is_left_of_the_queue(&queue.server);
    let grants: Vec<u64> = grants
        .iter()
        .map(|one| one.load(Ordering::SeqCst))
        .collect();
    assert_fair(&grants);
}

/// In a child: a part of the workers, until the parent says stop.
fn works_in_a_crowd(url: &str, workers: usize) {
    let grants: Arc<Vec<AtomicU64>> = Arc::new((0..workers).map(|_| AtomicU64::new(0)).collect());
    let over = Arc::new(AtomicU64::new(0));
    let runtime = runtime();
    let locker = AppLocker::connect_blocking(url).unwrap();
    child::say("ready");
    let tasks: Vec<_> = (0..workers)
        .map(|which| {
            let (locker, grants, over) = (locker.clone(), Arc::clone(&grants), Arc::clone(&over));
            runtime.spawn(async move {
                let more = || over.load(Ordering::SeqCst) == 0;
                works(locker, &grants[which], more).await;
            })
        })
        .collect();
    child::hear();
    over.store(1, Ordering::SeqCst);
    child::say("over");
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let grants: Vec<String> = grants
        .iter()
        .map(|one| one.load(Ordering::SeqCst).to_string())
        .collect();
    child::say(grants.join(" "));
}

#[test]
fn the_workers_of_several_processes_all_get_their_share() {
    const PROCESSES: usize = 4;
    if let Some(url) = child::part() {
        return works_in_a_crowd(&url, WORKERS / PROCESSES);
    }
    let mut queue = WaitQueue::start();
    let name = child::name_of(the_workers_of_several_processes_all_get_their_share);
    let mut children = crate::support::queue::children(name, &queue.server.url(), PROCESSES);
    until_queued(&queue.server, WORKERS);
    let begun = queue.server.calls("evalsha");
    queue.holder_releases();
    // An acquire and a release each.
    wait::until("all had many grants", LIMIT * 2, || {
        queue.server.calls("evalsha") > begun + 2 * GRANTS * WORKERS as u64
    });
    // No worker goes on while the others are being stopped: this process holds the lock.
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let guard = lock(&here).acquire_blocking().unwrap();
    for child in &mut children {
        child.tell("stop");
        assert_eq!(child.says(), "over");
    }
    guard.release_blocking().unwrap();
    let grants: Vec<u64> = children
        .iter()
        .flat_map(|child| {
            let said = child.says();
            let counts: Vec<u64> = said
                .split(' ')
                .map(|count| count.parse().unwrap())
                .collect();
            counts
        })
        .collect();
    assert_fair(&grants);
    for child in children {
        child.dismiss();
    }
}

//! Promise: where a lock is wanted by many all the time, each of them gets its share, and
//! nobody starves (F13).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::child;
use crate::support::lease::LIMIT;
use crate::support::line::{Line, lock, lockers, until_in_line, until_nothing_is_left_of_the_line};
use crate::support::wait;
use applock::AppLocker;

const WORKERS: usize = 128;

/// So many turns for each of them, when all goes as it should.
const TURNS: u64 = 25;

/// Works as long as `more` says so; `turns` counts what it got.
async fn works(locker: AppLocker, turns: &AtomicU64, more: impl Fn() -> bool) {
    let lock = lock(&locker).wait(LIMIT * 2);
    while more() {
        let guard = lock.acquire().await.unwrap();
        turns.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        guard.release().await.unwrap();
    }
}

/// All shares the same: 1. One has everything: 1 / their number. (R. Jain, D.-M. Chiu,
/// W. Hawe, 1984: A quantitative measure of fairness.)
fn jains_index(turns: &[u64]) -> f64 {
    let turns: Vec<f64> = turns.iter().map(|count| *count as f64).collect();
    let sum: f64 = turns.iter().sum();
    let squares: f64 = turns.iter().map(|count| count * count).sum();
    sum * sum / (turns.len() as f64 * squares)
}

#[track_caller]
fn assert_fair(turns: &[u64]) {
    assert_eq!(turns.len(), WORKERS);
    let mean = turns.iter().sum::<u64>() / turns.len() as u64;
    let index = jains_index(turns);
    assert!(index >= 0.99, "{index}: {turns:?}");
    let least = *turns.iter().min().unwrap();
    assert!(
        least >= mean / 2,
        "{least} where the mean is {mean}: {turns:?}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn the_tasks_of_a_few_lockers_all_get_their_share() {
    // All of them stand in line when it begins.
    let mut line = Line::start();
    let turns: Arc<Vec<AtomicU64>> = Arc::new((0..WORKERS).map(|_| AtomicU64::new(0)).collect());
    let runtime = runtime();
    let lockers = lockers(&line.server.url(), 4);
    let tasks: Vec<_> = (0..WORKERS)
        .map(|which| {
            let (locker, turns) = (lockers[which % lockers.len()].clone(), Arc::clone(&turns));
            runtime.spawn(async move {
                let taken = || turns.iter().map(|one| one.load(Ordering::SeqCst)).sum();
                let more = || -> bool { u64::lt(&taken(), &(TURNS * WORKERS as u64)) };
                works(locker, &turns[which], more).await;
            })
        })
        .collect();
    until_in_line(&line.server, WORKERS);
    line.opens();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    until_nothing_is_left_of_the_line(&line.server);
    let turns: Vec<u64> = turns.iter().map(|one| one.load(Ordering::SeqCst)).collect();
    assert_fair(&turns);
}

/// In a child: a part of the workers, until it is told to stop.
fn works_in_a_crowd(url: &str, workers: usize) {
    let turns: Arc<Vec<AtomicU64>> = Arc::new((0..workers).map(|_| AtomicU64::new(0)).collect());
    let over = Arc::new(AtomicU64::new(0));
    let runtime = runtime();
    let locker = AppLocker::connect_blocking(url).unwrap();
    child::say("ready");
    let tasks: Vec<_> = (0..workers)
        .map(|which| {
            let (locker, turns, over) = (locker.clone(), Arc::clone(&turns), Arc::clone(&over));
            runtime.spawn(async move {
                let more = || over.load(Ordering::SeqCst) == 0;
                works(locker, &turns[which], more).await;
            })
        })
        .collect();
    child::hear();
    over.store(1, Ordering::SeqCst);
    child::say("over");
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let turns: Vec<String> = turns
        .iter()
        .map(|one| one.load(Ordering::SeqCst).to_string())
        .collect();
    child::say(turns.join(" "));
}

#[test]
fn the_workers_of_several_processes_all_get_their_share() {
    const PROCESSES: usize = 4;
    if let Some(url) = child::part() {
        return works_in_a_crowd(&url, WORKERS / PROCESSES);
    }
    let mut line = Line::start();
    let name = child::name_of(the_workers_of_several_processes_all_get_their_share);
    let mut children = crate::support::line::children(name, &line.server.url(), PROCESSES);
    until_in_line(&line.server, WORKERS);
    let begun = line.server.calls("evalsha");
    line.opens();
    // An acquire and a release each.
    wait::until("all had many turns", LIMIT * 2, || {
        line.server.calls("evalsha") > begun + 2 * TURNS * WORKERS as u64
    });
    // None goes on while the others are told: we have it.
    let here = AppLocker::connect_blocking(line.server.url()).unwrap();
    let guard = lock(&here).acquire_blocking().unwrap();
    for child in &mut children {
        child.tell("stop");
        assert_eq!(child.says(), "over");
    }
    guard.release_blocking().unwrap();
    let turns: Vec<u64> = children
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
    assert_fair(&turns);
    for child in children {
        child.dismiss();
    }
}

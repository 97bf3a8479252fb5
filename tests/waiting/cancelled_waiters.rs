//! Promise: a waiter that gives up leaves the queue, and leaves nothing behind; and a grant
//! that crosses such a cancellation goes on to the next waiter (R6).

use std::thread;
use std::time::{Duration, Instant};

use crate::support::lease::LIMIT;
use crate::support::proxy::{Direction, FaultProxy};
use crate::support::queue::{
    CLAIM, KEY, WaitQueue, assert_in_order, granted_at, holder, joined, lock, lockers,
    queue_length, served, until_nothing_is_left_of_the_queue, until_queued,
};
use crate::support::redis::RedisServer;
use crate::support::steps::assert_verified;
use crate::support::wait::{self, polled};
use applock::{AppLocker, Error, Lock};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// The lock is free, and at once.
#[track_caller]
fn assert_free(server: &RedisServer, lock: &Lock) {
    let guard = lock.try_acquire_blocking().unwrap();
    guard.expect("the lock is free").release_blocking().unwrap();
    assert!(!server.run::<bool>(&format!("EXISTS {KEY}")));
}

#[test]
fn ten_thousand_cancelled_waits_leave_nothing_at_the_server() {
    const ROUNDS: usize = 20;
    const WAITS: usize = 500;
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 2);
    let locks = [lock(&lockers[0]), lock(&lockers[1]).wait_forever()];
    runtime().block_on(async {
        for round in 0..ROUNDS {
            let mut waiting = Vec::new();
            for number in 0..WAITS {
                let lock = locks[number % 2].clone();
                let mut wait = Box::pin(async move { lock.acquire().await });
                assert!(polled(wait.as_mut()).await.is_pending());
                // Half of the rounds are given up while they are being asked for, the
                // others when all of them are in the queue.
                if round % 2 == 0 {
                    waiting.push(wait);
                }
            }
            if round % 2 == 0 {
                wait::until("they are in the queue", LIMIT, || {
                    queue_length(&queue.server) >= WAITS
                });
            }
        }
    });
    until_queued(&queue.server, 0);
    until_nothing_is_left_of_the_queue(&queue.server);
    assert_verified(queue.holder());
    queue.holder_releases();
    // Not granted to any of them.
    assert!(!queue.server.run::<bool>(&format!("EXISTS {KEY}")));
    for lock in &locks {
        assert_free(&queue.server, lock);
    }
}

#[test]
fn waits_that_are_over_leave_the_queue() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 2);
    runtime().block_on(async {
        let waits: Vec<_> = (0..200_u64)
            .map(|number| {
                let wait = Duration::from_millis(1 + 5 * number);
                let lock = lock(&lockers[number as usize % 2]).wait(wait);
                tokio::spawn(async move { (Instant::now(), wait, lock.acquire().await) })
            })
            .collect();
        for waited in waits {
            let (begun, wait, outcome) = waited.await.unwrap();
            assert!(begun.elapsed() >= wait, "busy before its wait was over");
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Busy(_)), "{error}");
            let token = error.holder().unwrap().fencing_token();
            assert_eq!(token, Some(queue.holder().fencing_token()));
        }
    });
    until_queued(&queue.server, 0);
    until_nothing_is_left_of_the_queue(&queue.server);
    queue.holder_releases();
    assert_free(&queue.server, &lock(&lockers[0]));
}

#[test]
fn waiters_behind_one_that_gave_up_are_served_in_order() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 3);
    let runtime = runtime();
    let _inside = runtime.enter();
    let (mut patient, mut kept) = (Vec::new(), Vec::new());
    for round in 0..12 {
        let lock = lock(&lockers[round % 3]);
        let task = queue.enqueue(|number| tokio::spawn(served(lock, number)));
        // One of two, the first and the last among them.
        if round % 2 == 0 || round == 11 {
            task.abort();
            until_queued(&queue.server, kept.len());
        } else {
            patient.push(task);
            kept.push(round);
        }
    }
    queue.holder_releases();
    let all: Vec<_> = patient
        .into_iter()
        .map(|task| runtime.block_on(task).unwrap())
        .collect();
    assert_in_order(&all, kept);
    until_nothing_is_left_of_the_queue(&queue.server);
}

/// The first in the queue is not notified of its grant, and gives up.
#[test]
fn a_grant_that_crosses_a_cancellation_goes_on_to_the_next() {
    let mut queue = WaitQueue::start();
    let proxy = FaultProxy::before(&queue.server);
    let deaf = AppLocker::connect_blocking(proxy.url()).unwrap();
    let locker = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let runtime = runtime();
    let mut first = Box::pin({
        let lock = lock(&deaf);
        async move { lock.acquire().await }
    });
    queue.enqueue(|_| {
        let begun = runtime.block_on(polled(first.as_mut()));
        assert!(begun.is_pending());
    });
    let next = queue.thread(&locker);
    let others = [(); 2].map(|()| queue.thread(&locker));
    proxy.black_hole(Direction::ToClient);
    let before = queue.holder().fencing_token();
    queue.holder_releases();
    let (_, granted) = holder(&queue.server);
    let granted = granted.expect("the first has it");
    assert!(granted > before);
    drop(first);
    let (number, token) = next.join().unwrap();
    // Well before the claim of the first would have run out.
    let after = granted_at(token) - granted_at(granted);
    assert!(after < CLAIM, "only when the claim was over: {after:?}");
    let mut all = vec![(number, token)];
    all.extend(joined(others.into()));
    assert_in_order(&all, 1..4);
    proxy.heal();
    until_nothing_is_left_of_the_queue(&queue.server);
}

/// They cross in every way there is.
#[test]
fn no_grant_is_lost_however_releases_and_cancellations_cross() {
    const ROUNDS: u32 = 150;
    let server = RedisServer::start();
    let lockers = lockers(&server.url(), 3);
    let patient = lock(&lockers[2]);
    let runtime = runtime();
    let mut slow = 0;
    runtime.block_on(async {
        for round in 0..ROUNDS {
            // The holder is in the process of the waiter that gives up, or in another.
            let guard = lock(&lockers[round as usize % 2]).acquire().await.unwrap();
            let impatient = lock(&lockers[0]);
            let leaving = tokio::spawn(async move { impatient.acquire().await });
            until_queued(&server, 1);
            let next = (round % 3 != 0).then(|| {
                let waiting = tokio::spawn(served(patient.clone(), 0));
                until_queued(&server, 2);
                waiting
            });
            let begun = server.time();
            let released = tokio::spawn(guard.release());
            for _ in 0..fastrand::u32(0..400) {
                tokio::task::yield_now().await;
            }
            leaving.abort();
            released.await.unwrap().unwrap();
            // Where it was granted the lock and knew it, its guard goes with it.
            drop(leaving.await);
            let (_, token) = match next {
                Some(next) => next.await.unwrap(),
                None => served(patient.clone(), 0).await,
            };
            slow += u32::from(granted_at(token) > begun + CLAIM * 2 / 3);
        }
    });
    assert!(slow < ROUNDS / 10, "{slow} were left to a claim's end");
    until_nothing_is_left_of_the_queue(&server);
    assert_free(&server, &patient);
}

#[test]
fn a_locker_that_shuts_down_takes_its_waiters_out_of_the_queue() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 2);
    let closing: Vec<_> = (0..3)
        .map(|_| {
            queue.enqueue(|_| {
                let lock = lock(&lockers[0]);
                thread::spawn(move || lock.acquire_blocking().map(drop))
            })
        })
        .collect();
    let patient = queue.thread(&lockers[1]);
    lockers[0].shutdown_blocking(LIMIT).unwrap();
    for waiting in closing {
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{error}");
    }
    until_queued(&queue.server, 1);
    queue.holder_releases();
    patient.join().unwrap();
    until_nothing_is_left_of_the_queue(&queue.server);
    assert_free(&queue.server, &lock(&lockers[1]));
}

#[test]
fn a_locker_that_is_dropped_leaves_no_waiter_in_the_queue() {
    let queue = WaitQueue::start();
    let locker = AppLocker::connect_blocking(queue.server.url()).unwrap();
    runtime().block_on(async {
        let waits: Vec<_> = (0..10)
            .map(|_| {
                let lock = lock(&locker);
                tokio::spawn(async move { lock.acquire().await.map(drop) })
            })
            .collect();
        until_queued(&queue.server, waits.len());
        drop(locker);
        // The runtime goes, and the waits with it.
    });
    until_queued(&queue.server, 0);
    until_nothing_is_left_of_the_queue(&queue.server);
    assert_verified(queue.holder());
}

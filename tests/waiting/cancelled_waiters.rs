//! Promise: whoever gives up waiting leaves the line and nothing else behind; and a grant
//! that crosses such a leave goes on to the next (R6).

use std::thread;
use std::time::{Duration, Instant};

use crate::support::lease::LIMIT;
use crate::support::line::{
    CLAIM, KEY, Line, assert_in_order, granted_at, holder, in_line, joined, lock, lockers, served,
    until_in_line, until_nothing_is_left_of_the_line,
};
use crate::support::proxy::{Direction, FaultProxy};
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
    let mut line = Line::start();
    let lockers = lockers(&line.server.url(), 2);
    let locks = [lock(&lockers[0]), lock(&lockers[1]).wait_forever()];
    runtime().block_on(async {
        for round in 0..ROUNDS {
            let mut waiting = Vec::new();
            for number in 0..WAITS {
                let lock = locks[number % 2].clone();
                let mut wait = Box::pin(async move { lock.acquire().await });
                assert!(polled(wait.as_mut()).await.is_pending());
                // Half of the rounds are given up while they are being asked for, the
                // others when all of them stand in line.
                if round % 2 == 0 {
                    waiting.push(wait);
                }
            }
            if round % 2 == 0 {
                wait::until("they stand in line", LIMIT, || {
                    in_line(&line.server) >= WAITS
                });
            }
        }
    });
    until_in_line(&line.server, 0);
    until_nothing_is_left_of_the_line(&line.server);
    assert_verified(line.holder());
    line.opens();
    // Not granted to any of them.
    assert!(!line.server.run::<bool>(&format!("EXISTS {KEY}")));
    for lock in &locks {
        assert_free(&line.server, lock);
    }
}

#[test]
fn waits_that_are_over_leave_the_line() {
    let mut line = Line::start();
    let lockers = lockers(&line.server.url(), 2);
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
            assert!(begun.elapsed() >= wait, "told before its wait was over");
            let told = outcome.unwrap_err();
            assert!(matches!(told, Error::Busy(_)), "{told}");
            let token = told.holder().unwrap().fencing_token();
            assert_eq!(token, Some(line.holder().fencing_token()));
        }
    });
    until_in_line(&line.server, 0);
    until_nothing_is_left_of_the_line(&line.server);
    line.opens();
    assert_free(&line.server, &lock(&lockers[0]));
}

#[test]
fn those_behind_who_gave_up_are_served_in_order() {
    let mut line = Line::start();
    let lockers = lockers(&line.server.url(), 3);
    let runtime = runtime();
    let _inside = runtime.enter();
    let (mut patient, mut kept) = (Vec::new(), Vec::new());
    for round in 0..12 {
        let lock = lock(&lockers[round % 3]);
        let task = line.comes(|number| tokio::spawn(served(lock, number)));
        // One of two, the first and the last among them.
        if round % 2 == 0 || round == 11 {
            task.abort();
            until_in_line(&line.server, kept.len());
        } else {
            patient.push(task);
            kept.push(round);
        }
    }
    line.opens();
    let all: Vec<_> = patient
        .into_iter()
        .map(|task| runtime.block_on(task).unwrap())
        .collect();
    assert_in_order(&all, kept);
    until_nothing_is_left_of_the_line(&line.server);
}

/// The first in line does not hear that it was granted the lock, and gives up.
#[test]
fn a_grant_that_crosses_a_leave_goes_on_to_the_next() {
    let mut line = Line::start();
    let proxy = FaultProxy::before(&line.server);
    let deaf = AppLocker::connect_blocking(proxy.url()).unwrap();
    let locker = AppLocker::connect_blocking(line.server.url()).unwrap();
    let runtime = runtime();
    let mut first = Box::pin({
        let lock = lock(&deaf);
        async move { lock.acquire().await }
    });
    line.comes(|_| {
        let begun = runtime.block_on(polled(first.as_mut()));
        assert!(begun.is_pending());
    });
    let next = line.thread(&locker);
    let others = [(); 2].map(|()| line.thread(&locker));
    proxy.black_hole(Direction::ToClient);
    let opened = line.holder().fencing_token();
    line.opens();
    let (_, granted) = holder(&line.server);
    let granted = granted.expect("the first has it");
    assert!(granted > opened);
    drop(first);
    let (number, token) = next.join().unwrap();
    // Well before the claim of the first would have run out.
    let after = granted_at(token) - granted_at(granted);
    assert!(after < CLAIM, "only when the claim was over: {after:?}");
    let mut all = vec![(number, token)];
    all.extend(joined(others.into()));
    assert_in_order(&all, 1..4);
    proxy.heal();
    until_nothing_is_left_of_the_line(&line.server);
}

/// They cross in every way there is.
#[test]
fn no_grant_is_lost_however_releases_and_leaves_cross() {
    const ROUNDS: u32 = 150;
    let server = RedisServer::start();
    let lockers = lockers(&server.url(), 3);
    let patient = lock(&lockers[2]);
    let runtime = runtime();
    let mut slow = 0;
    runtime.block_on(async {
        for round in 0..ROUNDS {
            // The holder is in the process of the one who leaves, or in another.
            let guard = lock(&lockers[round as usize % 2]).acquire().await.unwrap();
            let impatient = lock(&lockers[0]);
            let leaving = tokio::spawn(async move { impatient.acquire().await });
            until_in_line(&server, 1);
            let next = (round % 3 != 0).then(|| {
                let waiting = tokio::spawn(served(patient.clone(), 0));
                until_in_line(&server, 2);
                waiting
            });
            let opened = server.time();
            let released = tokio::spawn(guard.release());
            for _ in 0..fastrand::u32(0..400) {
                tokio::task::yield_now().await;
            }
            leaving.abort();
            released.await.unwrap().unwrap();
            // Where it was granted the lock and had been told, its guard goes with it.
            drop(leaving.await);
            let (_, token) = match next {
                Some(next) => next.await.unwrap(),
                None => served(patient.clone(), 0).await,
            };
            slow += u32::from(granted_at(token) > opened + CLAIM * 2 / 3);
        }
    });
    assert!(slow < ROUNDS / 10, "{slow} were left to a claim's end");
    until_nothing_is_left_of_the_line(&server);
    assert_free(&server, &patient);
}

#[test]
fn a_locker_that_shuts_down_takes_its_waiters_out_of_the_line() {
    let mut line = Line::start();
    let lockers = lockers(&line.server.url(), 2);
    let closing: Vec<_> = (0..3)
        .map(|_| {
            line.comes(|_| {
                let lock = lock(&lockers[0]);
                thread::spawn(move || lock.acquire_blocking().map(drop))
            })
        })
        .collect();
    let patient = line.thread(&lockers[1]);
    lockers[0].shutdown_blocking(LIMIT).unwrap();
    for waiting in closing {
        let told = waiting.join().unwrap().unwrap_err();
        assert!(matches!(told, Error::Closed { .. }), "{told}");
    }
    until_in_line(&line.server, 1);
    line.opens();
    patient.join().unwrap();
    until_nothing_is_left_of_the_line(&line.server);
    assert_free(&line.server, &lock(&lockers[1]));
}

#[test]
fn a_locker_that_is_dropped_leaves_nobody_in_line() {
    let line = Line::start();
    let locker = AppLocker::connect_blocking(line.server.url()).unwrap();
    runtime().block_on(async {
        let waits: Vec<_> = (0..10)
            .map(|_| {
                let lock = lock(&locker);
                tokio::spawn(async move { lock.acquire().await.map(drop) })
            })
            .collect();
        until_in_line(&line.server, waits.len());
        drop(locker);
        // The runtime goes, and the waits with it.
    });
    until_in_line(&line.server, 0);
    until_nothing_is_left_of_the_line(&line.server);
    assert_verified(line.holder());
}

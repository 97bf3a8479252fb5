//! Promise: waiters are served in the order of coming, whether they are tasks, threads,
//! functions, other lockers or other processes; and no caller jumps the queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::child;
use crate::support::lease::{LIMIT, assert_lost};
use crate::support::queue::{
    KEY, Served, WaitQueue, assert_in_order, children, granted_at, joined, lock, lockers,
    plays_waiters, queue_length, served, served_in, until_nothing_is_left_of_the_queue,
    until_queued,
};
use crate::support::redis::RedisServer;
use crate::support::steps::take;
use crate::support::wait::{self, polled};
use applock::{AppLocker, Error, Loss, singleton};

#[tokio::test]
async fn tasks_are_served_in_the_order_in_which_they_asked() {
    let mut queue = WaitQueue::start();
    let locker = AppLocker::connect(queue.server.url()).await.unwrap();
    let mut asked = Vec::new();
    // Nothing but the order of asking keeps them apart.
    for number in 0..100 {
        let mut waiting = Box::pin(served(lock(&locker), number));
        assert!(polled(waiting.as_mut()).await.is_pending());
        asked.push(waiting);
    }
    until_queued(&queue.server, asked.len());
    queue.holder_releases();
    let mut all = Vec::new();
    for waiting in asked.into_iter().map(tokio::spawn).collect::<Vec<_>>() {
        all.push(waiting.await.unwrap());
    }
    assert_in_order(&all, 0..100);
    until_nothing_is_left_of_the_queue(&queue.server);
}

#[test]
fn threads_of_several_lockers_are_served_in_the_order_in_which_they_came() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 3);
    // Mixed: each locker comes behind another one, and behind itself.
    let order = [0, 1, 2, 2, 1, 0, 0, 0, 2, 1, 2, 0];
    let threads = order.map(|who: usize| queue.thread(&lockers[who]));
    queue.holder_releases();
    assert_in_order(&joined(threads.into()), 0..order.len());
    until_nothing_is_left_of_the_queue(&queue.server);
}

#[test]
fn processes_are_served_in_the_order_in_which_they_came() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let url = queue.server.url();
    let name = child::name_of(processes_are_served_in_the_order_in_which_they_came);
    let mut children = children(name, &url, 3);
    let here = AppLocker::connect_blocking(&url).unwrap();
    let (mut threads, rounds) = (Vec::new(), 3);
    for _ in 0..rounds {
        for child in &mut children {
            queue.child(child);
        }
        threads.push(queue.thread(&here));
    }
    queue.holder_releases();
    let mut all = joined(threads);
    for child in &children {
        all.extend((0..rounds).map(|_| served_in(child)));
    }
    assert_in_order(&all, 0..queue.len());
    for child in children {
        child.dismiss();
    }
}

#[singleton(app = "contested", ttl = 300, wait = "60s", locker = locker)]
async fn job(locker: &AppLocker) -> Result<u64, Error> {
    Ok(applock::current().unwrap().fencing_token())
}

#[singleton(app = "contested", ttl = 300, wait = "60s", locker = locker)]
fn sync_job(locker: &AppLocker) -> Result<u64, Error> {
    Ok(applock::current().unwrap().fencing_token())
}

#[test]
fn functions_wait_in_the_same_queue_as_guards_and_waits_without_end() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 2);
    let mut threads = Vec::new();
    for locker in lockers.iter().cycle().take(4) {
        threads.push(queue.enqueue(|number| {
            let locker = locker.clone();
            thread::spawn(move || (number, pollster::block_on(job(&locker)).unwrap()))
        }));
        threads.push(queue.thread(locker));
        threads.push(queue.enqueue(|number| {
            let locker = locker.clone();
            thread::spawn(move || (number, sync_job(&locker).unwrap()))
        }));
        threads.push(queue.enqueue(|number| {
            let lock = lock(locker).wait_forever();
            thread::spawn(move || {
                let token = lock.run_blocking(|| applock::current().unwrap().fencing_token());
                (number, token.unwrap())
            })
        }));
    }
    queue.holder_releases();
    assert_in_order(&joined(threads), 0..queue.len());
}

#[test]
fn queues_of_different_locks_do_not_know_each_other() {
    let mut queue = WaitQueue::start();
    let locker = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let waiting = queue.thread(&locker);
    let other = take(&locker.lock("contested").name("another"));
    take(&locker.lock("contested2")).release_blocking().unwrap();
    other.release_blocking().unwrap();
    assert_eq!(queue_length(&queue.server), 1);
    queue.holder_releases();
    waiting.join().unwrap();
}

#[test]
fn a_holder_that_comes_again_waits_behind_all_waiters() {
    const ROUNDS: usize = 10;
    let mut queue = WaitQueue::start();
    let (tell, served) = channel();
    let mut threads = Vec::new();
    for locker in lockers(&queue.server.url(), 3) {
        threads.push(queue.enqueue(|number| {
            let (lock, tell) = (lock(&locker), tell.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    let guard = lock.acquire_blocking().unwrap();
                    tell.send((number, guard.fencing_token(), guard)).unwrap();
                }
            })
        }));
    }
    queue.holder_releases();
    drop(tell);
    let mut last = 0;
    for (grant, (number, token, guard)) in served.into_iter().enumerate() {
        assert_eq!(number, grant % 3, "not the first in the queue");
        assert!(token > last);
        last = token;
        // No waiter is served until all the others are in the queue again.
        let others = 3.min(3 * ROUNDS - 1 - grant);
        until_queued(&queue.server, others);
        guard.release_blocking().unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_try_never_jumps_the_queue() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 3);
    let threads: Vec<_> = (0..30)
        .map(|who| queue.thread(&lockers[who % lockers.len()]))
        .collect();
    let over = AtomicBool::new(false);
    let tries = |locker: &AppLocker| {
        let lock = locker.lock("contested");
        let mut won = Vec::new();
        // Once more when all were served, so that it is seen to win at all.
        loop {
            let last = over.load(Ordering::SeqCst);
            let guards = [
                lock.try_acquire_blocking().unwrap(),
                lock.acquire_blocking().ok(),
                lock.clone().wait(Duration::ZERO).acquire_blocking().ok(),
            ];
            won.extend(guards.iter().flatten().map(|guard| guard.fencing_token()));
            drop(guards);
            if last && !won.is_empty() {
                return won;
            }
        }
    };
    let won = thread::scope(|scope| {
        let trying: Vec<_> = [
            &lockers[0],
            &AppLocker::builder()
                .store(queue.server.url())
                .build()
                .unwrap(),
        ]
        .map(|locker| {
            let locker = locker.clone();
            scope.spawn(move || tries(&locker))
        })
        .into();
        queue.holder_releases();
        let all = joined(threads);
        over.store(true, Ordering::SeqCst);
        assert_in_order(&all, 0..30);
        let last = all.iter().map(|(_, token)| *token).max().unwrap();
        let won = trying.into_iter().flat_map(|tries| tries.join().unwrap());
        won.filter(|token| *token < last).count()
    });
    assert_eq!(won, 0, "served before the waiters in the queue");
}

#[test]
fn a_try_of_a_lock_that_fell_free_finds_it_with_the_first_in_the_queue() {
    let mut queue = WaitQueue::start();
    let first = AppLocker::builder()
        .store(queue.server.url())
        .instance("the-first")
        .connect_blocking()
        .unwrap();
    let (go, gone) = channel::<()>();
    let waiting = queue.enqueue(|_| {
        let lock = lock(&first);
        thread::spawn(move || {
            let guard = lock.acquire_blocking().unwrap();
            gone.recv().ok();
            guard.release_blocking()
        })
    });
    let rival = AppLocker::connect_blocking(queue.server.url()).unwrap();
    // No release hands it over: it is just gone, as after a flush.
    assert!(queue.server.run::<bool>(&format!("DEL {KEY}")));
    let busy = rival.lock("contested").acquire_blocking().unwrap_err();
    let holder = busy.holder().expect("busy");
    assert_eq!(holder.instance_id(), "the-first");
    drop(go);
    waiting.join().unwrap().unwrap();
    let verified = queue.holder().verify_blocking();
    assert!(!verified.unwrap());
}

#[test]
fn a_waiter_that_polls_keeps_its_place() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 3);
    let threads: Vec<_> = [0, 1, 2, 0, 1, 2]
        .map(|who: usize| queue.thread(&lockers[who]))
        .into();
    // The first waiter of each locker polls about once a second; the others do not.
    let before = queue.server.calls("evalsha");
    wait::until("all have polled", LIMIT, || {
        queue.server.calls("evalsha") >= before + 9
    });
    // And when the scripts are to be taught anew.
    let () = queue.server.run("SCRIPT FLUSH");
    wait::until("they have taught them anew", LIMIT, || {
        queue.server.calls("eval") > 0
    });
    assert_eq!(queue_length(&queue.server), 6);
    queue.holder_releases();
    assert_in_order(&joined(threads), 0..6);
}

#[test]
fn a_forced_release_hands_the_lock_to_the_first_in_the_queue() {
    let mut queue = WaitQueue::start();
    let lockers = lockers(&queue.server.url(), 2);
    let threads: Vec<_> = [1, 0, 1, 0]
        .map(|who: usize| queue.thread(&lockers[who]))
        .into();
    assert!(
        lockers[0]
            .lock("contested")
            .force_release_blocking()
            .unwrap()
    );
    assert_in_order(&joined(threads), 0..4);
    assert!(!queue.holder().verify_blocking().unwrap());
    assert_lost(&queue.holder().ensure_held().unwrap_err(), Loss::Taken);
}

#[test]
fn a_stale_holders_lock_goes_to_the_first_in_the_queue() {
    let server = RedisServer::start();
    // Its heart does not beat: no time passes for it.
    let locker = AppLocker::builder()
        .store(server.url())
        .clock(applock::clock::ManualClock::new())
        .connect_blocking()
        .unwrap();
    let ttl = Duration::from_secs(60);
    let guard = take(&locker.lock("contested").ttl(ttl));
    let lockers = lockers(&server.url(), 2);
    let mut threads = Vec::new();
    for (number, locker) in lockers.iter().cycle().take(4).enumerate() {
        let lock = lock(locker);
        threads.push(thread::spawn(move || {
            crate::support::queue::served_blocking(&lock, number)
        }));
        until_queued(&server, number + 1);
    }
    // As if half its ttl had gone by since its last heartbeat.
    let () = server.run(&format!("PEXPIRE {KEY} 20000"));
    let stale = Duration::from_secs(30);
    let rival = AppLocker::connect_blocking(server.url()).unwrap();
    let rival = rival.lock("contested");
    assert!(rival.force_release_if_stale_blocking(stale).unwrap());
    let all: Vec<Served> = joined(threads);
    assert_in_order(&all, 0..4);
    assert!(!guard.verify_blocking().unwrap());
}

#[test]
fn what_at_least_keeps_goes_to_the_first_in_the_queue_when_it_ends() {
    let least = Duration::from_secs(2);
    let server = RedisServer::start();
    let lockers = lockers(&server.url(), 3);
    let guard = take(&lock(&lockers[0]).at_least(least));
    let begun = granted_at(guard.fencing_token());
    guard.release_blocking().unwrap();
    let mut threads = Vec::new();
    for (number, locker) in lockers.iter().enumerate() {
        let lock = lock(locker);
        threads.push(thread::spawn(move || {
            crate::support::queue::served_blocking(&lock, number)
        }));
        wait::until("it is in the queue, or was served", LIMIT, || {
            queue_length(&server) > number || server.time() > begun + least
        });
    }
    let all = joined(threads);
    let first = all.iter().map(|(_, token)| *token).min().unwrap();
    assert!(granted_at(first) + Duration::from_millis(5) >= begun + least);
    assert_in_order(&all, 0..3);
}

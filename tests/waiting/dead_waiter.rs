//! Promise: a waiter that dies in the queue costs the others nothing; a waiter that is
//! stopped when it is granted the lock loses it soon, and does not take itself for the holder
//! when it goes on (F11).
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::lease::{LIMIT, view};
use crate::support::queue::{
    CLAIM, KEY, WaitQueue, assert_in_order, assert_the_queue_expires, children, granted_at, holder,
    joined, lock, plays_waiters, queue_length, served_in, until_all_subscribed,
    until_nothing_is_left_of_the_queue, until_queued, until_subscriptions,
};
use crate::support::redis::RedisServer;
use crate::support::steps::assert_verified;
use crate::support::wait;
use applock::{AppLocker, Ending};

/// What a busy machine may add to the time of a claim.
const LATER: Duration = Duration::from_secs(10);

/// Of `all` subscribed processes these die; the server knows by now that they are gone.
fn killed(server: &RedisServer, all: usize, dead: &mut [&mut ChildProcess]) {
    until_all_subscribed(server, all);
    for child in dead.iter_mut() {
        child.kill();
    }
    until_subscriptions(server, all - dead.len());
}

/// 145, 146
#[test]
fn waiters_that_were_killed_are_skipped_and_the_others_served_in_order() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let name = child::name_of(waiters_that_were_killed_are_skipped_and_the_others_served_in_order);
    let mut children = children(name, &queue.server.url(), 5);
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    for child in &mut children {
        queue.child_that_stays(child);
    }
    let last = queue.thread(&here);
    // The first, one in the middle, and the last but one.
    let [first, second, third, fourth, fifth] = &mut children[..] else {
        unreachable!("there are five");
    };
    killed(&queue.server, 6, &mut [first, third, fifth]);
    // No waiter is served early for that.
    assert_verified(queue.holder());
    queue.holder_releases();
    // The release itself has skipped the dead: no time passes before the next has it.
    assert_eq!(holder(&queue.server).0, Some(second.id()));
    let mut served = vec![served_in(second)];
    second.tell("go 1");
    assert_eq!(second.says(), "1 done");
    assert_eq!(holder(&queue.server).0, Some(fourth.id()));
    served.push(served_in(fourth));
    fourth.tell("go 3");
    assert_eq!(fourth.says(), "3 done");
    served.push(last.join().unwrap());
    assert_in_order(&served, [1, 3, 5]);
    // Nothing of the dead stays for good.
    assert_the_queue_expires(&queue.server);
}

/// 146
#[test]
fn a_queue_of_dead_waiters_keeps_no_caller_from_the_lock() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let name = child::name_of(a_queue_of_dead_waiters_keeps_no_caller_from_the_lock);
    let mut children = children(name, &queue.server.url(), 3);
    for child in &mut children {
        queue.child(child);
        queue.child(child);
    }
    let mut dead: Vec<_> = children.iter_mut().collect();
    killed(&queue.server, 3, &mut dead);
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let lock = here.lock("contested");
    queue.holder_releases();
    // A try wins as soon as it is clear that they are not coming back.
    let mut guard = None;
    wait::until("a try wins", LIMIT, || {
        guard = lock.try_acquire_blocking().unwrap();
        guard.is_some()
    });
    let guard = guard.unwrap();
    let waiting = {
        let lock = crate::support::queue::lock(&here);
        thread::spawn(move || lock.acquire_blocking().unwrap().release_blocking())
    };
    assert_verified(&guard);
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap();
    // Nothing of the dead stays for good.
    assert_the_queue_expires(&queue.server);
}

/// F38: a claim for one of its waiters is enough to find out that a process stands still.
#[test]
fn a_stopped_process_costs_one_claim_however_many_wait_in_it() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let name = child::name_of(a_stopped_process_costs_one_claim_however_many_wait_in_it);
    let mut children = children(name, &queue.server.url(), 1);
    let stopped = &mut children[0];
    for _ in 0..5 {
        queue.child(stopped);
    }
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let behind = queue.thread(&here);
    until_all_subscribed(&queue.server, 2);
    stopped.freeze();
    queue.holder_releases();
    let granted = view(&queue.server, KEY).expect("it was granted");
    let served = behind.join().unwrap();
    let waited = granted_at(served.1) - granted_at(granted.token);
    assert!(
        waited < 2 * CLAIM,
        "{waited:?}, and five claims are {:?}",
        5 * CLAIM
    );
    stopped.thaw();
}

/// 148
#[test]
fn a_stopped_waiter_that_is_granted_the_lock_loses_it_soon_and_is_served_later() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let name =
        child::name_of(a_stopped_waiter_that_is_granted_the_lock_loses_it_soon_and_is_served_later);
    let mut children = children(name, &queue.server.url(), 1);
    let stopped = &mut children[0];
    queue.child_that_stays(stopped);
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let (tell, next) = channel();
    let waiting = queue.enqueue(|_| {
        let lock = lock(&here);
        thread::spawn(move || tell.send(lock.acquire_blocking().unwrap()))
    });
    let behind = queue.thread(&here);
    until_all_subscribed(&queue.server, 2);
    stopped.freeze();
    queue.holder_releases();
    // It is granted to the waiter that can't know, and not for its whole ttl.
    let granted = view(&queue.server, KEY).expect("it was granted");
    assert_eq!(
        holder(&queue.server),
        (Some(stopped.id()), Some(granted.token))
    );
    assert!(granted.left <= CLAIM, "{:?} left", granted.left);

    let next = next.recv_timeout(LIMIT).expect("the next is served");
    waiting.join().unwrap().unwrap();
    let waited = granted_at(next.fencing_token()) - granted_at(granted.token);
    assert!(
        waited + Duration::from_millis(5) >= CLAIM,
        "{waited:?} only"
    );
    assert!(waited < CLAIM + LATER, "{waited:?}");

    // It goes on, and is not the holder: it waits in the queue again, in its old place.
    stopped.thaw();
    until_queued(&queue.server, 2);
    assert_verified(&next);
    next.release_blocking().unwrap();
    let late = served_in(stopped);
    stopped.tell("go 0");
    assert_eq!(stopped.says(), "0 done");
    let behind = behind.join().unwrap();
    assert_in_order(&[late, behind], [0, 2]);
    until_nothing_is_left_of_the_queue(&queue.server);
}

#[test]
fn a_waiter_that_is_killed_when_it_is_granted_the_lock_loses_it_soon() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let name = child::name_of(a_waiter_that_is_killed_when_it_is_granted_the_lock_loses_it_soon);
    let mut children = children(name, &queue.server.url(), 3);
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    for child in &mut children {
        queue.child(child);
    }
    let threads = [(); 2].map(|()| queue.thread(&here));
    until_all_subscribed(&queue.server, 4);
    children[0].freeze();
    queue.holder_releases();
    let granted = view(&queue.server, KEY).expect("it was granted");
    assert_eq!(holder(&queue.server).0, Some(children[0].id()));
    children[0].kill();
    let mut served = vec![served_in(&children[1]), served_in(&children[2])];
    served.extend(joined(threads.into()));
    assert_in_order(&served, 1..5);
    let waited = granted_at(served[0].1) - granted_at(granted.token);
    assert!(waited < CLAIM + LATER, "{waited:?}");
    until_nothing_is_left_of_the_queue(&queue.server);
}

#[test]
fn a_waiter_that_stood_still_before_its_grant_keeps_its_place() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let mut queue = WaitQueue::start();
    let name = child::name_of(a_waiter_that_stood_still_before_its_grant_keeps_its_place);
    let mut children = children(name, &queue.server.url(), 1);
    let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let mut threads = vec![queue.thread(&here)];
    queue.child(&mut children[0]);
    threads.push(queue.thread(&here));
    children[0].freeze();
    // The others poll about once a second; it does not.
    let before = queue.server.calls("evalsha");
    wait::until("the others have polled", LIMIT, || {
        queue.server.calls("evalsha") >= before + 3
    });
    assert_eq!(queue_length(&queue.server), 3);
    children[0].thaw();
    queue.holder_releases();
    let mut served = joined(threads);
    served.push(served_in(&children[0]));
    assert_in_order(&served, 0..3);
}

/// What the last holding tells after its end, where the only waiter has died: on the server
/// nothing is written for a waiter that does not get the lock.
#[test]
fn the_last_holding_is_the_true_one_where_the_waiter_has_died() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let name = child::name_of(the_last_holding_is_the_true_one_where_the_waiter_has_died);
    for by_force in [false, true] {
        let mut queue = WaitQueue::start();
        let mut children = children(name, &queue.server.url(), 1);
        let here = AppLocker::connect_blocking(queue.server.url()).unwrap();
        for child in &mut children {
            queue.child_that_stays(child);
        }
        let [waiter] = &mut children[..] else {
            unreachable!("there is one");
        };
        killed(&queue.server, 1, &mut [waiter]);
        let held = lock(&here).info_blocking().unwrap().unwrap();
        let ending = if by_force {
            assert!(lock(&here).force_release_blocking().unwrap());
            Ending::Forced
        } else {
            queue.holder_releases();
            Ending::Released
        };
        assert!(lock(&here).info_blocking().unwrap().is_none());
        let last = lock(&here).last_holding_blocking().unwrap().unwrap();
        assert_eq!(last.ending, ending);
        assert_eq!(last.owner_id, held.owner_id());
        assert_eq!(Some(last.fencing_token), held.fencing_token());
    }
}

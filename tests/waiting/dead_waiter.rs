//! Promise: one who dies in line costs the others nothing; one who stands still when its
//! turn comes loses it soon, and does not take itself for the holder when it goes on
//! (F11).
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::lease::{LIMIT, look};
use crate::support::line::{
    CLAIM, KEY, Line, assert_in_order, assert_the_line_expires, children, granted_at, holder,
    in_line, joined, lock, plays_in_line, told, until_all_hear, until_in_line, until_listeners,
    until_nothing_is_left_of_the_line,
};
use crate::support::redis::RedisServer;
use crate::support::steps::assert_verified;
use crate::support::wait;
use applock::{AppLocker, Ending};

/// What a busy machine may add to the time of a claim.
const LATER: Duration = Duration::from_secs(10);

/// Of `all` that listen these die; the server knows by now that they are gone.
fn killed(server: &RedisServer, all: usize, dead: &mut [&mut ChildProcess]) {
    until_all_hear(server, all);
    for child in dead.iter_mut() {
        child.kill();
    }
    until_listeners(server, all - dead.len());
}

/// 145, 146
#[test]
fn waiters_that_were_killed_are_skipped_and_the_others_served_in_order() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let mut line = Line::start();
    let name = child::name_of(waiters_that_were_killed_are_skipped_and_the_others_served_in_order);
    let mut children = children(name, &line.server.url(), 5);
    let here = AppLocker::connect_blocking(line.server.url()).unwrap();
    for child in &mut children {
        line.child_that_stays(child);
    }
    let last = line.thread(&here);
    // The first, one in the middle, and the last but one.
    let [first, second, third, fourth, fifth] = &mut children[..] else {
        unreachable!("there are five");
    };
    killed(&line.server, 6, &mut [first, third, fifth]);
    // Nobody is served early for that.
    assert_verified(line.holder());
    line.opens();
    // The release itself has skipped the dead: no time passes before the next has it.
    assert_eq!(holder(&line.server).0, Some(second.id()));
    let mut served = vec![told(second)];
    second.tell("go 1");
    assert_eq!(second.says(), "1 done");
    assert_eq!(holder(&line.server).0, Some(fourth.id()));
    served.push(told(fourth));
    fourth.tell("go 3");
    assert_eq!(fourth.says(), "3 done");
    served.push(last.join().unwrap());
    assert_in_order(&served, [1, 3, 5]);
    // The dead keep their places for a while, should they have been cut off only.
    assert_the_line_expires(&line.server);
}

/// 146
#[test]
fn a_line_of_dead_waiters_keeps_nobody_from_the_lock() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let mut line = Line::start();
    let name = child::name_of(a_line_of_dead_waiters_keeps_nobody_from_the_lock);
    let mut children = children(name, &line.server.url(), 3);
    for child in &mut children {
        line.child(child);
        line.child(child);
    }
    let mut dead: Vec<_> = children.iter_mut().collect();
    killed(&line.server, 3, &mut dead);
    let here = AppLocker::connect_blocking(line.server.url()).unwrap();
    let lock = here.lock("line");
    line.opens();
    // Who tries is let in as soon as it is clear that they are not coming back.
    let mut guard = None;
    wait::until("a try wins", LIMIT, || {
        guard = lock.try_acquire_blocking().unwrap();
        guard.is_some()
    });
    let guard = guard.unwrap();
    let waiting = {
        let lock = crate::support::line::lock(&here);
        thread::spawn(move || lock.acquire_blocking().unwrap().release_blocking())
    };
    assert_verified(&guard);
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap();
    // The dead keep their places for a while, should they have been cut off only.
    assert_the_line_expires(&line.server);
}

/// 148
#[test]
fn a_stopped_waiter_that_is_granted_the_lock_loses_it_soon_and_is_served_later() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let mut line = Line::start();
    let name =
        child::name_of(a_stopped_waiter_that_is_granted_the_lock_loses_it_soon_and_is_served_later);
    let mut children = children(name, &line.server.url(), 1);
    let stopped = &mut children[0];
    line.child_that_stays(stopped);
    let here = AppLocker::connect_blocking(line.server.url()).unwrap();
    let (tell, next) = channel();
    let waiting = line.comes(|_| {
        let lock = lock(&here);
        thread::spawn(move || tell.send(lock.acquire_blocking().unwrap()))
    });
    let behind = line.thread(&here);
    until_all_hear(&line.server, 2);
    stopped.freeze();
    line.opens();
    // It is granted to the one that can't know, and not for its whole ttl.
    let granted = look(&line.server, KEY).expect("it was granted");
    assert_eq!(
        holder(&line.server),
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

    // It goes on, and is not the holder: it stands in line again, in its old place.
    stopped.thaw();
    until_in_line(&line.server, 2);
    assert_verified(&next);
    next.release_blocking().unwrap();
    let late = told(stopped);
    stopped.tell("go 0");
    assert_eq!(stopped.says(), "0 done");
    let behind = behind.join().unwrap();
    assert_in_order(&[late, behind], [0, 2]);
    until_nothing_is_left_of_the_line(&line.server);
}

#[test]
fn a_waiter_that_is_killed_when_its_turn_has_come_loses_it_soon() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let mut line = Line::start();
    let name = child::name_of(a_waiter_that_is_killed_when_its_turn_has_come_loses_it_soon);
    let mut children = children(name, &line.server.url(), 3);
    let here = AppLocker::connect_blocking(line.server.url()).unwrap();
    for child in &mut children {
        line.child(child);
    }
    let threads = [(); 2].map(|()| line.thread(&here));
    until_all_hear(&line.server, 4);
    children[0].freeze();
    line.opens();
    let granted = look(&line.server, KEY).expect("it was granted");
    assert_eq!(holder(&line.server).0, Some(children[0].id()));
    children[0].kill();
    let mut served = vec![told(&children[1]), told(&children[2])];
    served.extend(joined(threads.into()));
    assert_in_order(&served, 1..5);
    let waited = granted_at(served[0].1) - granted_at(granted.token);
    assert!(waited < CLAIM + LATER, "{waited:?}");
    until_nothing_is_left_of_the_line(&line.server);
}

#[test]
fn a_waiter_that_stood_still_before_its_turn_keeps_its_place() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let mut line = Line::start();
    let name = child::name_of(a_waiter_that_stood_still_before_its_turn_keeps_its_place);
    let mut children = children(name, &line.server.url(), 1);
    let here = AppLocker::connect_blocking(line.server.url()).unwrap();
    let mut threads = vec![line.thread(&here)];
    line.child(&mut children[0]);
    threads.push(line.thread(&here));
    children[0].freeze();
    // The others ask again about once a second; it does not.
    let before = line.server.calls("evalsha");
    wait::until("the others have asked again", LIMIT, || {
        line.server.calls("evalsha") >= before + 3
    });
    assert_eq!(in_line(&line.server), 3);
    children[0].thaw();
    line.opens();
    let mut served = joined(threads);
    served.push(told(&children[0]));
    assert_in_order(&served, 0..3);
}

/// What the last holding tells after its end, where the only waiter has died: on the server
/// nothing is written for a waiter that does not get the lock.
#[test]
fn the_last_holding_is_the_true_one_where_the_waiter_has_died() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let name = child::name_of(the_last_holding_is_the_true_one_where_the_waiter_has_died);
    for by_force in [false, true] {
        let mut line = Line::start();
        let mut children = children(name, &line.server.url(), 1);
        let here = AppLocker::connect_blocking(line.server.url()).unwrap();
        for child in &mut children {
            line.child_that_stays(child);
        }
        let [waiter] = &mut children[..] else {
            unreachable!("there is one");
        };
        killed(&line.server, 1, &mut [waiter]);
        let held = lock(&here).info_blocking().unwrap().unwrap();
        let ending = if by_force {
            assert!(lock(&here).force_release_blocking().unwrap());
            Ending::Forced
        } else {
            line.opens();
            Ending::Released
        };
        assert!(lock(&here).info_blocking().unwrap().is_none());
        let last = lock(&here).last_holding_blocking().unwrap().unwrap();
        assert_eq!(last.ending, ending);
        assert_eq!(last.owner_id, held.owner_id());
        assert_eq!(Some(last.fencing_token), held.fencing_token());
    }
}

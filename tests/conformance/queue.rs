//! 2.12: waiters, and the order in which they are served.

use std::pin::pin;
use std::sync::Arc;
use std::sync::Barrier;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use applock::{Error, Lock};

use crate::asking::{
    bounded, force_release, is_free, polled, take, take_soon, until_lost, until_waiting, verified,
    waiters,
};
use crate::children::{Child, Part};
use crate::store::{LONG, Place, SOON};
use crate::support::wait;

/// A waiter that is served within this was not left to the time after which a lost
/// notification, or a grant that was not confirmed, is made good.
const PROMPT: Duration = Duration::from_millis(900);

fn patient(place: &dyn Place) -> Lock {
    place.locker().lock("app").ttl(LONG).wait(SOON * 2)
}

/// Waits in a thread, and releases at once: its token.
fn in_thread(lock: &Lock) -> JoinHandle<u64> {
    let lock = lock.clone();
    thread::spawn(move || {
        let guard = lock.acquire_blocking().unwrap();
        let token = guard.fencing_token();
        guard.release_blocking().unwrap();
        token
    })
}

#[track_caller]
fn assert_rising(tokens: &[u64]) {
    let rising = tokens.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(rising, "not in the order of their coming: {tokens:?}");
}

/// 144
pub(crate) fn waiters_are_served_in_the_order_in_which_they_came(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let locks = [(); 3].map(|()| patient(place));
    // Each stands before another, behind another, and behind itself.
    let waiting: Vec<_> = (1..)
        .zip([0, 1, 2, 2, 0, 1, 1, 0])
        .map(|(count, who): (u64, usize)| {
            let thread = in_thread(&locks[who]);
            until_waiting(&locks[0], count);
            thread
        })
        .collect();
    guard.release_blocking().unwrap();
    let tokens: Vec<u64> = waiting.into_iter().map(|one| one.join().unwrap()).collect();
    assert_rising(&tokens);
    assert!(is_free(&locks[0]));
}

/// 25: And how many wait.
pub(crate) fn the_number_of_waiters_is_reported_with_the_holder(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    assert_eq!(guard.info().waiters(), None, "it knows only of itself");
    let lock = patient(place);
    assert_eq!(waiters(&lock), 0);
    let busy = |lock: &Lock| match lock.clone().wait(Duration::ZERO).acquire_blocking() {
        Err(Error::Busy(holder)) => holder,
        other => panic!("{other:?}"),
    };
    assert_eq!(busy(&lock).waiters(), Some(0));
    assert!(!busy(&lock).to_string().contains("waiting"));
    let waiting = [1, 2, 3].map(|count| {
        let thread = in_thread(&patient(place));
        until_waiting(&lock, count);
        thread
    });
    let holder = busy(&lock);
    assert_eq!(holder.waiters(), Some(3));
    assert!(holder.to_string().contains("3 waiting"), "{holder}");
    assert_eq!(holder.fencing_token(), Some(guard.fencing_token()));
    guard.release_blocking().unwrap();
    for one in waiting {
        one.join().unwrap();
    }
}

/// 83: For the waiters.
pub(crate) fn a_forced_release_serves_the_waiters_in_order(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let waiting = [1, 2].map(|count| {
        let lock = patient(place);
        let thread = in_thread(&lock);
        until_waiting(&lock, count);
        thread
    });
    let hammer = place.locker().lock("app");
    force_release(&hammer);
    let tokens = waiting.map(|one| one.join().unwrap());
    assert_rising(&[guard.fencing_token(), tokens[0], tokens[1]]);
    assert!(!verified(&guard));
    until_lost(&guard);
}

/// 21, 22: Nor where others wait.
pub(crate) fn a_try_never_comes_before_the_waiters(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let lock = patient(place);
    let waiting: Vec<_> = (1..=6)
        .map(|count| {
            let thread = in_thread(&lock);
            until_waiting(&lock, count);
            thread
        })
        .collect();
    let rival = place.locker().lock("app").ttl(LONG);
    let trying = thread::spawn(move || take_soon(&rival).fencing_token());
    guard.release_blocking().unwrap();
    let tokens: Vec<u64> = waiting.into_iter().map(|one| one.join().unwrap()).collect();
    assert_rising(&tokens);
    assert!(trying.join().unwrap() > tokens[5], "a try jumped the queue");
}

/// 96
pub(crate) fn a_waiter_that_gives_up_leaves_the_queue_and_the_next_is_served(place: &dyn Place) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let lock = patient(place);
    bounded("the next is served", async {
        let mut first = Box::pin(lock.acquire());
        assert!(polled(first.as_mut()).await.is_pending());
        until_waiting(&lock, 1);
        let other = patient(place);
        let mut next = pin!(other.acquire());
        assert!(polled(next.as_mut()).await.is_pending());
        until_waiting(&lock, 2);
        let mut last = Box::pin(lock.acquire());
        assert!(polled(last.as_mut()).await.is_pending());
        until_waiting(&lock, 3);
        drop(first);
        drop(last);
        until_waiting(&lock, 1);
        guard.release().await.unwrap();
        next.await.unwrap().release().await.unwrap();
    });
    assert!(is_free(&lock));
}

/// 97
pub(crate) fn a_waiter_dropped_as_it_is_granted_the_lock_does_not_keep_it(place: &dyn Place) {
    const ROUNDS: usize = 60;
    let (holder, lock, next) = (patient(place), patient(place), patient(place));
    let mut late = 0;
    bounded("all rounds are over", async {
        for round in 0..ROUNDS {
            let guard = holder.acquire().await.unwrap();
            let mut waiting = Box::pin(lock.acquire());
            assert!(polled(waiting.as_mut()).await.is_pending());
            until_waiting(&holder, 1);
            let releasing = tokio::spawn(guard.release());
            for _ in 0..fastrand::usize(0..round + 1) {
                tokio::task::yield_now().await;
            }
            drop(waiting);
            releasing.await.unwrap().unwrap();
            let asked = Instant::now();
            next.acquire().await.unwrap().release().await.unwrap();
            late += usize::from(asked.elapsed() > PROMPT);
        }
    });
    assert!(
        late < ROUNDS / 4,
        "{late} grants were left to their claims' end"
    );
    assert!(is_free(&lock));
}

/// 150
pub(crate) fn a_release_at_the_moment_of_asking_is_not_missed(place: &dyn Place) {
    const ROUNDS: usize = 60;
    let (holder, lock) = (patient(place), patient(place));
    let both = Arc::new(Barrier::new(2));
    let mut late = 0;
    for _ in 0..ROUNDS {
        let guard = take(&holder);
        let asking = thread::spawn({
            let (both, lock) = (Arc::clone(&both), lock.clone());
            move || {
                both.wait();
                let asked = Instant::now();
                lock.acquire_blocking().unwrap().release_blocking().unwrap();
                asked.elapsed()
            }
        });
        both.wait();
        guard.release_blocking().unwrap();
        late += usize::from(asking.join().unwrap() > PROMPT);
    }
    assert!(late < ROUNDS / 4, "{late} releases were missed");
}

/// 147
pub(crate) fn waiting_leaves_nothing_behind(place: &dyn Place) {
    let lock = patient(place);
    take(&lock).release_blocking().unwrap();
    let records = || place.contents().lines().count();
    let before = records();
    for round in 0..10 {
        let guard = take(&lock);
        let waiting = in_thread(&patient(place));
        until_waiting(&lock, 1);
        let giving_up = patient(place).wait(Duration::from_millis(round));
        assert!(matches!(giving_up.acquire_blocking(), Err(Error::Busy(_))));
        guard.release_blocking().unwrap();
        waiting.join().unwrap();
    }
    wait::until("nothing is left of the queues", SOON, || {
        let left = place.leftovers();
        left.locks == 0 && left.stays_for_ever == 0 && records() == before
    });
}

/// 144, 145, 146
pub(crate) fn processes_that_die_in_the_queue_are_skipped_and_the_others_served_in_order(
    place: &dyn Place,
) {
    let guard = take(&place.locker().lock("app").ttl(LONG));
    let lock = patient(place);
    let mut children: Vec<Child> = (1..=4)
        .map(|count| {
            let mut child = Child::start(place, Part::Wait, LONG);
            child.hears("ready");
            child.say("wait");
            until_waiting(&lock, count);
            child
        })
        .collect();
    let last = in_thread(&lock);
    until_waiting(&lock, 5);
    // The first, and one in the middle.
    children[0].kill();
    children[2].kill();
    // No waiter is served for that before the holder releases.
    assert!(verified(&guard));
    guard.release_blocking().unwrap();
    let mut tokens = Vec::new();
    for at in [1, 3] {
        let said = children[at].hear();
        let token = said.strip_prefix("held ").unwrap();
        tokens.push(token.parse().unwrap());
        children[at].say("release");
        children[at].hears("released");
    }
    tokens.push(last.join().unwrap());
    assert_rising(&tokens);
}

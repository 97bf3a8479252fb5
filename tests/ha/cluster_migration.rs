//! Promise: while a lock's slot moves to another node the lock is kept, heartbeats go on, a
//! caller waits for no longer than the move takes, and a move that does not end is named.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use applock::{AppLocker, LockGuard};
use futures_util::future::join_all;

use crate::after::{FIRST_ANSWER, KEPT, NEXT, assert_excludes, assert_soon, first_yes};
use crate::support::cluster::{Cluster, SOON};
use crate::support::lease::LIMIT;
use crate::support::queue::{length_of, subscriptions};
use crate::support::refusal::{QUICKLY, assert_unavailable};
use crate::support::steps::{COMMAND, assert_verified, impatient, is_taken, refused, take};
use crate::support::wait;

/// A lock at the first master: its app, its key, its slot.
fn place(cluster: &Cluster) -> (String, String, u16) {
    let app = cluster.app(0, 0);
    let key = format!("QUEUE:{app}");
    let slot = cluster.slot(&key);
    (app, key, slot)
}

#[test]
fn a_lock_that_is_held_moves_with_its_slot_and_every_heartbeat_is_answered() {
    let cluster = Cluster::start();
    let (app, key, slot) = place(&cluster);
    let holder = impatient(cluster.url());
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    let verified = || assert!(guard.verify_blocking().expect("an answer"));
    let migration = cluster.migrate(slot, 0, 1);
    verified();
    // Both keys that a heartbeat needs, and then what there is besides.
    migration.move_keys(&[key.clone(), format!("{{{key}}}:fence")]);
    verified();
    migration.move_all();
    verified();
    migration.finish();
    verified();
    assert!(is_taken(&cluster.nodes[1], &key));
    assert_excludes(&impatient(cluster.url()), &app);
    let before = cluster.nodes[0].scripts();
    for _ in 0..5 {
        verified();
    }
    assert_eq!(cluster.nodes[0].scripts(), before, "the old node is asked");
    guard.release_blocking().unwrap();
    drop(take(&holder.lock(&*app)));
}

#[test]
fn no_caller_is_refused_while_a_slot_with_a_thousand_keys_moves() {
    let cluster = Cluster::start();
    let (app, key, slot) = place(&cluster);
    for number in 0..1_000 {
        let () = cluster.nodes[0].run(&format!("SET {{{key}}}:{number} x"));
    }
    let (end, done) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let (end, done, app) = (&end, &done, &*app);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let locker = impatient(cluster.url());
                scope.spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        let lock = locker.lock(app).wait(LIMIT);
                        let guard = lock.acquire_blocking().expect("it can be had");
                        guard.release_blocking().expect("it was held");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let until_more = |what: &str| {
            let before = done.load(Ordering::Relaxed);
            wait::until(what, SOON, || done.load(Ordering::Relaxed) > before + 10);
        };
        until_more("they take turns");
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            cluster.move_slot(slot, from, to);
            until_more("they take turns at the new node");
        }
        end.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().expect("no refusal");
        }
    });
}

#[test]
fn a_caller_that_does_not_wait_comes_through_a_short_move() {
    let cluster = Cluster::start();
    let (app, _, slot) = place(&cluster);
    let locker = impatient(cluster.url());
    let refusals = || cluster.nodes[0].errors("TRYAGAIN") + cluster.nodes[1].errors("TRYAGAIN");
    let mut nodes = [0, 1];
    loop {
        let held = take(&locker.lock(&*app).ttl(KEPT));
        let before = refusals();
        let migration = cluster.migrate(slot, nodes[0], nodes[1]);
        let (released, took) = thread::scope(|scope| {
            let begun = Instant::now();
            let releasing = scope.spawn(|| held.release_blocking());
            // It is refused at first, as no waiter's key is there, and asks again: Redis before 7
            // refuses it at the other node.
            wait::until("its release is refused", SOON, || refusals() > before + 1);
            migration.move_all();
            migration.finish();
            let took = begun.elapsed();
            (releasing.join().unwrap(), took)
        });
        match released {
            Ok(()) => break,
            // On a busy machine the move may take as long as the caller's time-out.
            Err(error) => assert!(took > COMMAND / 2, "after {took:?}: {error}"),
        }
        let () = cluster.nodes[nodes[1]].run(&format!("DEL QUEUE:{app}"));
        nodes.reverse();
    }
    let guard = take(&locker.lock(&*app));
    assert_verified(&guard);
}

#[test]
fn a_move_that_does_not_end_is_told_with_its_slot_and_costs_no_holder_its_lock() {
    let cluster = Cluster::start();
    let (app, key, slot) = place(&cluster);
    let holder = impatient(cluster.url());
    let other = impatient(cluster.url());
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    let migration = cluster.migrate(slot, 0, 1);
    let error = refused(|| {
        let begun = Instant::now();
        let refused = other.lock(&*app).try_acquire_blocking();
        assert!(begun.elapsed() < QUICKLY, "{:?}", begun.elapsed());
        refused
    });
    assert_unavailable(&error, &[&slot.to_string(), "redis-cli --cluster fix"]);
    assert_verified(&guard);
    // Half of it is there.
    migration.move_keys(std::slice::from_ref(&key));
    assert!(!matches!(guard.verify_blocking(), Ok(false)));
    wait::until("the slot is told", SOON, || {
        let error = other.lock(&*app).try_acquire_blocking().unwrap_err();
        assert_unavailable(&error, &[]);
        error.to_string().contains(&slot.to_string())
    });
    migration.move_all();
    migration.finish();
    first_yes(&guard);
    assert_excludes(&other, &app);
}

#[test]
fn two_nodes_that_send_to_each_other_are_told_with_the_slot_and_both_nodes() {
    let cluster = Cluster::start();
    let (app, _, slot) = place(&cluster);
    let locker = impatient(cluster.url());
    let addresses = [0, 1].map(|at| format!("127.0.0.1:{}", cluster.nodes[at].port()));
    wait::until("both are named", SOON, || {
        for (at, other) in [(0, 1), (1, 0)] {
            let words = format!("CLUSTER SETSLOT {slot} NODE {}", cluster.id(other));
            let () = cluster.nodes[at].run(&words);
        }
        let begun = Instant::now();
        let error = locker.lock(&*app).try_acquire_blocking().unwrap_err();
        assert!(begun.elapsed() < QUICKLY, "{:?}", begun.elapsed());
        assert_unavailable(&error, &[]);
        let told = error.to_string();
        let [one, other] = &addresses;
        [(one, other), (other, one)]
            .iter()
            .any(|(from, to)| told.contains(&format!("({slot}): {from} names {to}")))
    });
}

/// They share their calls, of which a node that has a part of the keys takes none.
#[tokio::test]
async fn of_several_locks_in_a_slot_whose_move_was_broken_off_each_has_its_heartbeat() {
    let cluster = Cluster::start();
    let slot = cluster.slot("{eu}");
    let from = (0..3).find(|at| cluster.slots_of(*at).contains(&usize::from(slot)));
    let from = from.expect("every slot has a master");
    let to = (from + 1) % 3;
    let holder = AppLocker::connect(cluster.url()).await.unwrap();
    let keys: Vec<String> = (0..8).map(|number| format!("job-{number}{{eu}}")).collect();
    let take = |key: &String| {
        let lock = holder.lock("job").key(key.clone()).ttl(KEPT);
        async move { lock.acquire().await.expect("it is free") }
    };
    let guards = join_all(keys.iter().map(take)).await;
    let migration = cluster.migrate(slot, from, to);
    for key in &keys[..4] {
        migration.move_keys(&[key.clone(), format!("fence:{key}")]);
    }
    for _ in 0..3 {
        for verified in join_all(guards.iter().map(LockGuard::verify)).await {
            assert!(verified.expect("an answer"));
        }
    }
    migration.move_all();
    migration.finish();
    for released in join_all(guards.into_iter().map(LockGuard::release)).await {
        released.expect("it was held");
    }
}

#[test]
fn a_user_that_may_not_follow_a_slot_that_moves_is_told_which_right_is_missing() {
    let cluster = Cluster::start();
    let (app, _, slot) = place(&cluster);
    for node in &cluster.nodes {
        let () = node.run("ACL SETUSER lk on >pw ~* &* +@all -asking");
    }
    let locker = impatient(cluster.url().replace("://", "://lk:pw@"));
    drop(take(&locker.lock(&*app)));
    let migration = cluster.migrate(slot, 0, 1);
    migration.move_all();
    let error = refused(|| locker.lock(&*app).try_acquire_blocking());
    assert_unavailable(&error, &["+asking"]);
    migration.finish();
    drop(take(&locker.lock(&*app)));
}

#[test]
fn who_waits_is_served_after_the_move() {
    let cluster = Cluster::start();
    let (app, key, slot) = place(&cluster);
    let holder = impatient(cluster.url());
    let waiter = impatient(cluster.url());
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lock = waiter.lock(&*app).ttl(KEPT).wait(LIMIT);
            (lock.acquire_blocking().unwrap(), Instant::now())
        });
        wait::until("it waits", SOON, || length_of(&cluster.nodes[0], &key) == 1);
        cluster.move_slot(slot, 0, 1);
        first_yes(&guard);
        wait::until("it waits at the new node", SOON, || {
            length_of(&cluster.nodes[1], &key) == 1 && subscriptions(&cluster.nodes[1]) == 1
        });
        let released = Instant::now();
        guard.release_blocking().unwrap();
        let (next, served) = waiting.join().unwrap();
        assert_soon("the grant", released, served, NEXT);
        assert_verified(&next);
        assert!(is_taken(&cluster.nodes[1], &key));
    });
}

#[test]
fn who_waits_is_handed_the_lock_in_the_middle_of_a_move() {
    let cluster = Cluster::start();
    let (app, key, slot) = place(&cluster);
    let holder = impatient(cluster.url());
    let waiter = impatient(cluster.url());
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lock = waiter.lock(&*app).ttl(KEPT).wait(LIMIT);
            lock.acquire_blocking().unwrap()
        });
        wait::until("it waits", SOON, || length_of(&cluster.nodes[0], &key) == 1);
        let migration = cluster.migrate(slot, 0, 1);
        let token = guard.fencing_token();
        guard.release_blocking().expect("all keys are there");
        assert!(cluster.nodes[0].token(&key) > token, "it is handed over");
        migration.move_all();
        migration.finish();
        let next = waiting.join().unwrap();
        assert_verified(&next);
        assert!(is_taken(&cluster.nodes[1], &key));
    });
}

#[test]
fn eight_callers_at_once_are_each_answered_where_a_moving_slot_says_ask() {
    let cluster = Cluster::start();
    let app = cluster.app(0, 0);
    let tag = format!("QUEUE:{app}");
    let slot = cluster.slot(&tag);
    let locker = impatient(cluster.url());
    // Eight locks of one slot.
    let guards: Vec<_> = (0..8)
        .map(|number| {
            let lock = locker.lock("unused").key(format!("{{{tag}}}{number}"));
            take(&lock.ttl(KEPT))
        })
        .collect();
    let migration = cluster.migrate(slot, 0, 1);
    migration.move_all();
    let begun = Instant::now();
    thread::scope(|scope| {
        for guard in &guards {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert!(guard.verify_blocking().expect("an answer"));
                }
            });
        }
    });
    assert!(cluster.nodes[0].errors("ASK") >= 8);
    assert_soon("400 answers", begun, Instant::now(), 10 * FIRST_ANSWER);
    migration.finish();
    for guard in guards {
        assert_verified(&guard);
        guard.release_blocking().unwrap();
    }
}

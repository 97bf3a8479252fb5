//! Promise: waiters in a cluster cost one subscription at each node at which one waits, the dead
//! are skipped at once, and the order of coming holds over a failover.

use std::thread;
use std::time::Instant;

use crate::after::{KEPT, NEXT, assert_soon, first_yes};
use crate::support::child::{self, ChildProcess};
use crate::support::cluster::{Cluster, SOON, Takes};
use crate::support::lease::LIMIT;
use crate::support::queue::{
    Served, assert_in_order, joined, length_of, served_blocking, subscriptions,
};
use crate::support::redis::RedisServer;
use crate::support::steps::{give_back, impatient, take};
use crate::support::wait;
use applock::{AppLocker, Lock};

fn waiting(lock: &Lock, number: usize) -> thread::JoinHandle<Served> {
    let lock = lock.clone();
    thread::spawn(move || served_blocking(&lock, number))
}

fn until_length(server: &RedisServer, key: &str, count: usize) {
    wait::until("the waiter is in the queue", SOON, || {
        length_of(server, key) == count
    });
}

fn until_subscribed(server: &RedisServer, count: usize) {
    wait::until("the waiters' processes have subscribed", SOON, || {
        subscriptions(server) == count
    });
}

/// So many processes have subscribed at the node, and its queue says so: they are notified.
fn until_all_are_known(node: &RedisServer, key: &str, count: usize) {
    until_subscribed(node, count);
    wait::until("the queue knows that they have subscribed", SOON, || {
        let run: String = node.run("INFO server");
        let run = run.lines().find_map(|line| line.strip_prefix("run_id:"));
        let run = run.expect("a run id").to_owned();
        let fields: Vec<String> = node.run(&format!("HGETALL {{{key}}}:waiters"));
        let of_a_process = fields.chunks(2).filter(|pair| pair[0].starts_with('@'));
        of_a_process.filter(|pair| pair[1].ends_with(&run)).count() == count
    });
}

#[test]
fn there_is_one_subscription_at_each_node_at_which_a_caller_waits() {
    let cluster = Cluster::start();
    let holder = impatient(cluster.url());
    let waiter = impatient(cluster.url());
    let apps: Vec<String> = [(0, 0), (0, 1), (1, 0)]
        .map(|(master, number)| cluster.app(master, number))
        .into();
    let guards: Vec<_> = apps
        .iter()
        .map(|app| take(&holder.lock(&**app).ttl(KEPT)))
        .collect();
    let threads: Vec<_> = apps
        .iter()
        .enumerate()
        .map(|(number, app)| waiting(&waiter.lock(&**app).wait(LIMIT), number))
        .collect();
    until_subscribed(&cluster.nodes[0], 1);
    until_subscribed(&cluster.nodes[1], 1);
    for app in &apps {
        let at = usize::from(*app == apps[2]);
        until_length(&cluster.nodes[at], &format!("QUEUE:{app}"), 1);
    }
    let others = &cluster.nodes[2..];
    assert!(others.iter().all(|node| subscriptions(node) == 0));
    let released = Instant::now();
    for guard in guards {
        guard.release_blocking().unwrap();
    }
    assert_eq!(joined(threads).len(), 3);
    assert_soon("the grants", released, Instant::now(), NEXT);
    assert_eq!(subscriptions(&cluster.nodes[0]), 1, "one, still");
}

/// Waits for the lock, and is killed.
fn waits(part: &str) {
    let (url, app) = part.split_once(' ').expect("a URL and an app");
    let locker = impatient(url);
    child::say("ready");
    let _ = locker.lock(app).ttl(KEPT).wait(LIMIT).acquire_blocking();
}

#[test]
fn a_waiter_that_died_is_skipped_at_once() {
    if let Some(part) = child::part() {
        return waits(&part);
    }
    let cluster = Cluster::start();
    let app = cluster.app(2, 0);
    let (node, key) = (&cluster.nodes[2], format!("QUEUE:{app}"));
    let guard = take(&impatient(cluster.url()).lock(&*app).ttl(KEPT));
    let name = child::name_of(a_waiter_that_died_is_skipped_at_once);
    let mut dead: Vec<_> = (0..2)
        .map(|_| {
            let child = ChildProcess::start(name, &format!("{} {app}", cluster.url()));
            assert_eq!(child.says(), "ready");
            child
        })
        .collect();
    until_length(node, &key, 2);
    let waiter = impatient(cluster.url());
    let thread = waiting(&waiter.lock(&*app).wait(LIMIT), 0);
    until_length(node, &key, 3);
    until_all_are_known(node, &key, 3);
    for child in &mut dead {
        child.kill();
    }
    until_subscribed(node, 1);
    let released = Instant::now();
    guard.release_blocking().unwrap();
    thread.join().unwrap();
    // Not a claim of 3 seconds for each of them.
    assert_soon("the grant", released, Instant::now(), NEXT);
}

#[test]
fn waiters_keep_their_order_over_a_failover() {
    let cluster = Cluster::start();
    let app = cluster.app(0, 0);
    let key = format!("QUEUE:{app}");
    let guard = take(&impatient(cluster.url()).lock(&*app).ttl(KEPT));
    let lockers: Vec<AppLocker> = (0..3).map(|_| impatient(cluster.url())).collect();
    let mut threads = Vec::new();
    for (number, who) in [0, 1, 2, 2, 1, 0, 0, 1].into_iter().enumerate() {
        let lock = lockers[who].lock(&*app).wait(LIMIT);
        threads.push(waiting(&lock, number));
        until_length(&cluster.nodes[0], &key, number + 1);
    }
    cluster.promote(3, Takes::Over);
    first_yes(&guard);
    until_all_are_known(&cluster.nodes[3], &key, 3);
    assert_eq!(length_of(&cluster.nodes[3], &key), 8);
    give_back(guard);
    assert_in_order(&joined(threads), 0..8);

    // And over one that lost the queue.
    let app = cluster.app(1, 0);
    let key = format!("QUEUE:{app}");
    drop(take(&lockers[0].lock(&*app)));
    let guard = take(&lockers[0].lock(&*app).ttl(KEPT));
    wait::until("the replica has the lock", SOON, || {
        cluster.nodes[4].info("master_repl_offset") >= cluster.nodes[1].info("master_repl_offset")
    });
    cluster.nodes[1].part_from_replicas();
    let mut threads = Vec::new();
    for (number, who) in [2, 0, 1, 1, 0].into_iter().enumerate() {
        let lock = lockers[who].lock(&*app).wait(LIMIT);
        threads.push(waiting(&lock, number));
        until_length(&cluster.nodes[1], &key, number + 1);
    }
    cluster.promote(4, Takes::Power);
    first_yes(&guard);
    until_all_are_known(&cluster.nodes[4], &key, 3);
    until_length(&cluster.nodes[4], &key, 5);
    give_back(guard);
    assert_in_order(&joined(threads), 0..5);
}

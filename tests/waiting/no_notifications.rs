//! Promise: notifications are hints. Where none may be sent or received, where they get lost,
//! and where the server is restarted under its waiters, every waiter is served still, in
//! order where the queue survived; and one warning says that it is slower (F21).
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::child::{self, ChildProcess};
use crate::support::log;
use crate::support::proxy::FaultProxy;
use crate::support::queue::{
    KEY, Served, WaitQueue, assert_in_order, joined, lock, lockers, plays_waiters, queue_length,
    served_in, until_all_subscribed, until_nothing_is_left_of_the_queue, until_queued,
    until_subscriptions,
};
use crate::support::redis::RedisServer;
use crate::support::steps::{LONG, assert_lost, assert_verified};
use crate::support::wait;
use applock::{AppLocker, Loss};
use tracing::Level;

const PASSWORD: &str = "s3cret-of-lk";

/// The URL for a user that has all rights but these.
fn but_for(server: &RedisServer, rights: &[&str]) -> String {
    let password = format!(">{PASSWORD}");
    let mut words = vec!["ACL", "SETUSER", "lk", "on", &password, "~*", "&*", "+@all"];
    words.extend(rights);
    let () = server.try_run(&words).unwrap();
    format!("redis://lk:{PASSWORD}@127.0.0.1:{}", server.port())
}

/// What a child says when it is asked for its warnings: each of them, and `that is all`.
fn tells_its_warnings(asked: &str) {
    assert_eq!(asked, "warnings");
    for (level, line) in log::lines(&[]) {
        // A machine that stands still may have a heartbeat fail.
        if level <= Level::WARN && !line.contains("heartbeat") {
            child::say(line);
        }
    }
    child::say("that is all");
}

fn warnings(child: &mut ChildProcess) -> Vec<String> {
    child.tell("warnings");
    let all = std::iter::from_fn(|| Some(child.says()).filter(|line| line != "that is all"));
    all.collect()
}

/// Two processes of a user without these rights, three waiters each.
fn all_are_served_in_order_without(test: &str, rights: &[&str]) {
    if let Some(url) = child::part() {
        log::keep();
        return plays_waiters(&url, tells_its_warnings);
    }
    let server = RedisServer::start();
    let url = but_for(&server, rights);
    let mut queue = WaitQueue::at(server, &url);
    let mut children = crate::support::queue::children(test, &url, 2);
    for _ in 0..3 {
        for child in &mut children {
            queue.child(child);
        }
    }
    queue.holder_releases();
    let mut served: Vec<Served> = Vec::new();
    for child in &children {
        served.extend([(); 3].map(|()| served_in(child)));
    }
    assert_in_order(&served, 0..6);
    // A second round warns of nothing more.
    let here = AppLocker::connect_blocking(&url).unwrap();
    let guard = lock(&here).acquire_blocking().unwrap();
    for child in &mut children {
        child.tell("pass 7");
    }
    until_queued(&queue.server, 2);
    guard.release_blocking().unwrap();
    for child in &mut children {
        assert_eq!(served_in(child).0, 7);
        let warnings = warnings(child);
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        let warning = &warnings[0];
        assert!(warning.contains("SUBSCRIBE") || warning.contains("PUBLISH"));
        assert!(!warning.contains(PASSWORD), "{warning}");
    }
    until_nothing_is_left_of_the_queue(&queue.server);
}

#[test]
fn all_are_served_in_order_without_the_right_to_subscribe() {
    all_are_served_in_order_without(
        child::name_of(all_are_served_in_order_without_the_right_to_subscribe),
        &["-subscribe"],
    );
}

#[test]
fn all_are_served_in_order_without_the_right_to_publish() {
    all_are_served_in_order_without(
        child::name_of(all_are_served_in_order_without_the_right_to_publish),
        &["-publish"],
    );
}

#[test]
fn all_are_served_in_order_without_the_right_to_subscribe_or_publish() {
    all_are_served_in_order_without(
        child::name_of(all_are_served_in_order_without_the_right_to_subscribe_or_publish),
        &["-subscribe", "-publish"],
    );
}

#[test]
fn all_are_served_in_order_where_no_channel_is_allowed() {
    all_are_served_in_order_without(
        child::name_of(all_are_served_in_order_where_no_channel_is_allowed),
        &["resetchannels"],
    );
}

/// Some of them are notified, and some are not: they wait in one queue.
#[test]
fn waiters_with_and_without_a_subscription_wait_in_one_queue() {
    let server = RedisServer::start();
    let url = but_for(&server, &["-subscribe"]);
    let polling = lockers(&url, 2);
    let notified = lockers(&server.url(), 2);
    let mut queue = WaitQueue::at(server, &url);
    let order = [&polling[0], &notified[0], &polling[1], &notified[1]];
    let threads: Vec<_> = order
        .into_iter()
        .cycle()
        .take(8)
        .map(|locker| queue.thread(locker))
        .collect();
    queue.holder_releases();
    assert_in_order(&joined(threads), 0..8);
}

/// The queue, and the threads of three lockers in it, two each.
fn six_at(server: RedisServer) -> (WaitQueue, Vec<AppLocker>, Vec<thread::JoinHandle<Served>>) {
    let url = server.url();
    let mut queue = WaitQueue::at(server, &url);
    let lockers = lockers(&url, 3);
    let threads = [0, 1, 2, 2, 1, 0].map(|who: usize| queue.thread(&lockers[who]));
    until_all_subscribed(&queue.server, 3);
    (queue, lockers, threads.into())
}

/// 117
#[test]
fn a_subscription_that_is_cut_is_made_again_and_the_order_kept() {
    let (mut queue, _lockers, threads) = six_at(RedisServer::start());
    for _ in 0..3 {
        let cut: usize = queue.server.run("CLIENT KILL TYPE pubsub");
        assert_eq!(cut, 3);
        until_subscriptions(&queue.server, 3);
    }
    assert_eq!(queue_length(&queue.server), 6);
    queue.holder_releases();
    assert_in_order(&joined(threads), 0..6);
}

/// 117
#[test]
fn subscriptions_that_are_cut_again_and_again_cost_no_waiter_the_lock() {
    let (mut queue, lockers, mut threads) = six_at(RedisServer::start());
    let over = AtomicBool::new(false);
    let url = queue.server.url();
    let cuts = || {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", "pubsub"]);
        let mut cut: u32 = 0;
        while !over.load(Ordering::SeqCst) {
            cut += kill.query::<u32>(&mut connection).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        cut
    };
    thread::scope(|scope| {
        let cutting = scope.spawn(cuts);
        // Others come while it goes on.
        threads.extend(lockers.iter().map(|locker| queue.thread(locker)));
        queue.holder_releases();
        let served = joined(threads);
        over.store(true, Ordering::SeqCst);
        assert_eq!(served.len(), 9);
        assert!(cutting.join().unwrap() >= 3);
    });
    until_nothing_is_left_of_the_queue(&queue.server);
}

/// The server can't know that its notifications get lost: the connection is open.
#[test]
fn a_subscription_that_gets_no_more_notifications_costs_its_waiters_neither_lock_nor_place() {
    let mut queue = WaitQueue::start();
    let proxy = FaultProxy::before(&queue.server);
    let deaf = AppLocker::connect_blocking(proxy.url()).unwrap();
    let other = AppLocker::connect_blocking(queue.server.url()).unwrap();
    let threads: Vec<_> = [&deaf, &other, &other]
        .map(|locker| queue.thread(locker))
        .into();
    until_all_subscribed(&queue.server, 2);
    proxy.mute_notifications();
    queue.holder_releases();
    assert_in_order(&joined(threads), 0..3);
    until_nothing_is_left_of_the_queue(&queue.server);
}

/// 116
#[test]
fn a_queue_that_survives_the_servers_restart_is_served_in_order() {
    let (mut queue, _lockers, threads) = six_at(RedisServer::durable());
    queue.server.restart();
    assert_eq!(queue_length(&queue.server), 6, "it was kept on the disk");
    until_subscriptions(&queue.server, 3);
    assert_verified(queue.holder());
    queue.holder_releases();
    assert_in_order(&joined(threads), 0..6);
    until_nothing_is_left_of_the_queue(&queue.server);
}

/// 116
#[test]
fn a_queue_that_the_servers_restart_forgot_forms_anew_and_all_are_served() {
    let (mut queue, lockers, threads) = six_at(RedisServer::start());
    queue.server.restart();
    // The lock is free; the waiters share it out among themselves.
    wait::until("the holder learns of its loss", LONG, || {
        queue.holder().verify_blocking().is_ok_and(|held| !held)
    });
    assert_lost(queue.holder(), Loss::Taken);
    let served = joined(threads);
    let tokens: HashSet<u64> = served.iter().map(|(_, token)| *token).collect();
    assert_eq!(tokens.len(), 6, "{served:?}");
    let before = queue.holder().fencing_token();
    assert!(tokens.iter().all(|token| *token > before));
    until_nothing_is_left_of_the_queue(&queue.server);
    let again = lock(&lockers[0]).acquire_blocking().unwrap();
    again.release_blocking().unwrap();
    assert!(!queue.server.run::<bool>(&format!("EXISTS {KEY}")));
}

/// 116: the server is away for longer than any command may take.
#[test]
fn waiters_outlast_a_server_that_is_away_for_a_while() {
    let (mut queue, _lockers, threads) = six_at(RedisServer::durable());
    queue.server.kill();
    thread::sleep(Duration::from_millis(2_500));
    queue.server.restart();
    queue.holder_releases();
    let served = joined(threads);
    assert_eq!(served.len(), 6);
    until_nothing_is_left_of_the_queue(&queue.server);
}

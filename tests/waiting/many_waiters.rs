//! Promise: however many wait, a release wakes one of them, with one message; what a
//! hand-over costs the server does not grow with the queue; and all waiters of a process
//! share one subscription (F12).
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::queue::{
    Served, TTL, WaitQueue, assert_in_order, lock, lockers, plays_waiters, queue_length,
    subscriptions, until_all_subscribed, until_queued, until_subscriptions,
};
use crate::support::redis::RedisServer;
use crate::support::steps::{LONG, take};
use crate::support::wait::{self, polled};
use applock::AppLocker;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// All commands that the server has carried out, those in scripts among them.
fn commands(server: &RedisServer) -> u64 {
    let info: String = server.run("INFO commandstats");
    info.lines()
        .filter(|line| !line.starts_with("cmdstat_info"))
        .filter_map(|line| {
            line.split_once(":calls=")?
                .1
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

/// A queue of tasks of several lockers, each of which keeps the lock until it may go on.
struct Crowd {
    queue: WaitQueue,
    tasks: Vec<JoinHandle<Served>>,
    inside: Arc<AtomicUsize>,
    may_go: Arc<Semaphore>,
    runtime: Runtime,
    lockers: Vec<AppLocker>,
}

impl Crowd {
    fn of(count: usize) -> Self {
        let queue = WaitQueue::start();
        let mut crowd = Self {
            tasks: Vec::new(),
            inside: Arc::default(),
            may_go: Arc::new(Semaphore::new(0)),
            runtime: runtime(),
            lockers: lockers(&queue.server.url(), 4),
            queue,
        };
        // One locker after the other, each as a whole.
        for locker in 0..4 {
            for number in locker * count / 4..(locker + 1) * count / 4 {
                crowd.one(number, locker);
            }
            until_queued(&crowd.queue.server, crowd.tasks.len());
        }
        until_all_subscribed(&crowd.queue.server, 4);
        crowd
    }

    fn one(&mut self, number: usize, locker: usize) {
        let lock = lock(&self.lockers[locker]).wait(LIMIT * 2);
        let (inside, may_go) = (Arc::clone(&self.inside), Arc::clone(&self.may_go));
        let mut waiting = Box::pin(async move {
            let guard = lock.acquire().await.expect("it is granted the lock");
            inside.fetch_add(1, Ordering::SeqCst);
            may_go.acquire().await.unwrap().forget();
            let token = guard.fencing_token();
            guard.release().await.expect("it was held");
            (number, token)
        });
        // It has asked before the next one does.
        assert!(self.runtime.block_on(polled(waiting.as_mut())).is_pending());
        self.tasks.push(self.runtime.spawn(waiting));
    }

    fn until_inside(&self, count: usize) {
        let inside = || self.inside.load(Ordering::SeqCst);
        wait::until("the next is served", LIMIT, || inside() >= count);
        assert_eq!(inside(), count);
    }

    /// Lets all that are left go through as fast as they can.
    fn drain(&mut self) -> Vec<Served> {
        self.may_go.add_permits(self.tasks.len());
        let all = std::mem::take(&mut self.tasks);
        let join = async {
            let mut served = Vec::new();
            for task in all {
                served.push(task.await.unwrap());
            }
            served
        };
        self.runtime.block_on(join)
    }
}

/// 151
#[test]
fn a_release_to_a_thousand_waiters_wakes_one_with_one_message() {
    const WAITERS: usize = 1_000;
    let mut crowd = Crowd::of(WAITERS);
    let server = |crowd: &Crowd| crowd.queue.server.calls("publish");
    let published = server(&crowd);
    crowd.queue.holder_releases();
    crowd.until_inside(1);
    assert_eq!(server(&crowd), published + 1, "one message");
    assert_eq!(queue_length(&crowd.queue.server), WAITERS - 1);
    // Ten more, each by a release in the process of the next waiter, or in another.
    for next in 2..=11 {
        crowd.may_go.add_permits(1);
        crowd.until_inside(next);
    }
    assert_eq!(queue_length(&crowd.queue.server), WAITERS - 11);
    assert!(server(&crowd) <= published + 11, "one message each at most");
    let served = crowd.drain();
    assert_in_order(&served, 0..WAITERS);
}

/// 151
#[test]
fn what_a_hand_over_costs_does_not_grow_with_the_queue() {
    let cost = |waiters: usize| {
        let mut crowd = Crowd::of(waiters);
        let scripts = crowd.queue.server.calls("evalsha");
        let before = commands(&crowd.queue.server);
        crowd.queue.holder_releases();
        let served = crowd.drain();
        assert_eq!(served.len(), waiters);
        let each = |count: u64| count as f64 / waiters as f64;
        (
            each(crowd.queue.server.calls("evalsha") - scripts),
            each(commands(&crowd.queue.server) - before),
        )
    };
    let (few_scripts, few) = cost(60);
    let (many_scripts, many) = cost(1_000);
    // A release each, and now and then a poll.
    assert!(many_scripts < 1.5, "{many_scripts} scripts a hand-over");
    assert!(few_scripts < 2.0, "{few_scripts} scripts a hand-over");
    assert!(
        many < few * 1.5,
        "{few} commands each for 60, {many} for 1,000"
    );
}

/// 149
#[test]
fn all_waiters_of_a_process_share_one_subscription() {
    if let Some(url) = child::part() {
        return plays_waiters(&url, |_| ());
    }
    let name = child::name_of(all_waiters_of_a_process_share_one_subscription);
    let mut queue = WaitQueue::start();
    let url = queue.server.url();
    assert_eq!(subscriptions(&queue.server), 0, "there is no waiter");
    let mut child = ChildProcess::start(name, &url);
    assert_eq!(child.says(), "ready");
    for _ in 0..5 {
        queue.child(&mut child);
    }
    until_subscriptions(&queue.server, 1);
    let locker = AppLocker::connect_blocking(&url).unwrap();
    // For many locks, too.
    let others = AppLocker::connect_blocking(&url).unwrap();
    let held: Vec<_> = (0..20)
        .map(|n| take(&others.lock("other").name(n.to_string()).ttl(TTL)))
        .collect();
    let runtime = runtime();
    let tasks: Vec<_> = (0..200)
        .map(|n: u32| {
            let lock = locker.lock("other").name((n % 20).to_string());
            let lock = lock.ttl(TTL).wait(LIMIT);
            runtime.spawn(async move { lock.acquire().await.map(drop) })
        })
        .collect();
    for n in 0..20 {
        let length = format!("ZCARD {{QUEUE:other:{n}}}:queue");
        wait::until("ten wait in each queue", LONG, || {
            queue.server.run::<u32>(&length) == 10
        });
    }
    until_subscriptions(&queue.server, 2);
    let clients: u64 = queue.server.info("connected_clients");
    // The child, the holders, the locker, subscriptions of two of them, and our question.
    assert!(clients <= 4 + 2 + 2, "{clients} connections");
    drop(held);
    for task in tasks {
        runtime.block_on(task).unwrap().unwrap();
    }
    assert!(subscriptions(&queue.server) <= 2);
}

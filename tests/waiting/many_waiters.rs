//! Promise: however many wait, a release wakes one of them, with one message; what a
//! hand-over costs the server does not grow with the line; and all who wait in a process
//! share one connection that listens (F12).
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::line::{
    Line, Served, TTL, assert_in_order, in_line, listeners, lock, lockers, plays_in_line,
    until_all_hear, until_in_line, until_listeners,
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

/// A line of tasks of several lockers, each of which keeps the lock until it may go on.
struct Crowd {
    line: Line,
    tasks: Vec<JoinHandle<Served>>,
    inside: Arc<AtomicUsize>,
    may_go: Arc<Semaphore>,
    runtime: Runtime,
    lockers: Vec<AppLocker>,
}

impl Crowd {
    fn of(count: usize) -> Self {
        let line = Line::start();
        let mut crowd = Self {
            tasks: Vec::new(),
            inside: Arc::default(),
            may_go: Arc::new(Semaphore::new(0)),
            runtime: runtime(),
            lockers: lockers(&line.server.url(), 4),
            line,
        };
        // In turns, each as a whole.
        for turn in 0..4 {
            for number in turn * count / 4..(turn + 1) * count / 4 {
                crowd.one(number, turn);
            }
            until_in_line(&crowd.line.server, crowd.tasks.len());
        }
        until_all_hear(&crowd.line.server, 4);
        crowd
    }

    fn one(&mut self, number: usize, turn: usize) {
        let lock = lock(&self.lockers[turn]).wait(LIMIT * 2);
        let (inside, may_go) = (Arc::clone(&self.inside), Arc::clone(&self.may_go));
        let mut waiting = Box::pin(async move {
            let guard = lock.acquire().await.expect("its turn comes");
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
    let server = |crowd: &Crowd| crowd.line.server.calls("publish");
    let published = server(&crowd);
    crowd.line.opens();
    crowd.until_inside(1);
    assert_eq!(server(&crowd), published + 1, "one message");
    assert_eq!(in_line(&crowd.line.server), WAITERS - 1);
    // Ten more, each by a release in the process of who waits next, or in another.
    for next in 2..=11 {
        crowd.may_go.add_permits(1);
        crowd.until_inside(next);
    }
    assert_eq!(in_line(&crowd.line.server), WAITERS - 11);
    assert!(server(&crowd) <= published + 11, "one message each at most");
    let served = crowd.drain();
    assert_in_order(&served, 0..WAITERS);
}

/// 151
#[test]
fn what_a_hand_over_costs_does_not_grow_with_the_line() {
    let cost = |waiters: usize| {
        let mut crowd = Crowd::of(waiters);
        let scripts = crowd.line.server.calls("evalsha");
        let before = commands(&crowd.line.server);
        crowd.line.opens();
        let served = crowd.drain();
        assert_eq!(served.len(), waiters);
        let each = |count: u64| count as f64 / waiters as f64;
        (
            each(crowd.line.server.calls("evalsha") - scripts),
            each(commands(&crowd.line.server) - before),
        )
    };
    let (few_scripts, few) = cost(60);
    let (many_scripts, many) = cost(1_000);
    // A release each, and now and then somebody who asks again.
    assert!(many_scripts < 1.5, "{many_scripts} scripts a hand-over");
    assert!(few_scripts < 2.0, "{few_scripts} scripts a hand-over");
    assert!(
        many < few * 1.5,
        "{few} commands each for 60, {many} for 1,000"
    );
}

/// 149
#[test]
fn all_who_wait_in_a_process_share_one_connection_that_listens() {
    if let Some(url) = child::part() {
        return plays_in_line(&url, |_| ());
    }
    let name = child::name_of(all_who_wait_in_a_process_share_one_connection_that_listens);
    let mut line = Line::start();
    let url = line.server.url();
    assert_eq!(listeners(&line.server), 0, "nobody waits");
    let mut child = ChildProcess::start(name, &url);
    assert_eq!(child.says(), "ready");
    for _ in 0..5 {
        line.child(&mut child);
    }
    until_listeners(&line.server, 1);
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
        let queue = format!("ZCARD {{QUEUE:other:{n}}}:queue");
        wait::until("ten stand in each line", LONG, || {
            line.server.run::<u32>(&queue) == 10
        });
    }
    until_listeners(&line.server, 2);
    let clients: u64 = line.server.info("connected_clients");
    // The child, the holders, the locker, one to listen for two of them, and our question.
    assert!(clients <= 4 + 2 + 2, "{clients} connections");
    drop(held);
    for task in tasks {
        runtime.block_on(task).unwrap().unwrap();
    }
    assert!(listeners(&line.server) <= 2);
}

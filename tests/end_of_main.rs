//! Promise: a process whose `main` returns leaves no lock behind, also if what held it was
//! dropped at the last moment, and though the process's default locker is never dropped (F37).
//!
//! A program with a `main` of its own, and no test runner: it runs itself as the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use applock::{AppLocker, Error, LockGuard, URL_VARIABLE, singleton};
use support::child::{self, ChildProcess};
use support::lease::LIMIT;
use support::redis::RedisServer;
use support::wait;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// With the mistake, a lock is left behind in one run of two, or in almost each.
const RUNS: usize = 20;

/// A kind of end: its name, and what the process does.
const ENDS: [(&str, fn()); 6] = [
    ("select!, many threads", || many().block_on(until_asked())),
    ("select!, one thread", || one().block_on(until_asked())),
    ("spawned, many threads", || many().block_on(spawned())),
    ("spawned, one thread", || one().block_on(spawned())),
    ("an acquire in flight", || one().block_on(in_flight())),
    ("in a thread local", in_a_thread_local),
];

/// Ends after which no code of the holder runs: the README tells of each.
const UNNOTICED: [(&str, fn()); 4] = [
    ("process::exit", || one().block_on(exits())),
    ("a static", || drop(IN_A_STATIC.set(held()))),
    ("mem::forget", || std::mem::forget(held())),
    ("a thread that runs still", in_a_thread),
];

static IN_A_STATIC: OnceLock<LockGuard> = OnceLock::new();

fn main() {
    if let Some(end) = child::part() {
        let mut ends = ENDS.iter().chain(&UNNOTICED);
        let (_, run) = ends.find(|(name, _)| *name == end).unwrap();
        return run();
    }
    if std::env::args().any(|argument| argument == "--list") {
        return println!("main: test");
    }
    let runs = std::env::var("RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    a_main_that_returns_leaves_no_lock_behind(runs);
    what_no_code_runs_after_leaves_its_lock_to_the_ttl_as_the_readme_says();
    a_main_that_returns_ends_soon_though_its_server_is_silent();
}

fn a_main_that_returns_leaves_no_lock_behind(runs: usize) {
    let server = RedisServer::start();
    let left = ENDS.map(|(end, _)| {
        let left = (0..runs).filter(|_| is_left_behind(&server, end)).count();
        println!("{end}: {left} of {runs} left behind");
        left
    });
    assert_eq!(left.iter().sum::<usize>(), 0, "{left:?}");
}

fn what_no_code_runs_after_leaves_its_lock_to_the_ttl_as_the_readme_says() {
    let server = RedisServer::start();
    for (end, _) in UNNOTICED {
        assert!(is_left_behind(&server, end), "{end}");
        let word = end.trim_start_matches("a ");
        for page in [include_str!("../README.md"), include_str!("../src/lib.rs")] {
            assert!(page.contains(word.split(' ').next().unwrap()), "{end}");
        }
    }
}

fn is_left_behind(server: &RedisServer, end: &str) -> bool {
    end_of(server, end, || ());
    let left = server.run::<Vec<String>>("KEYS QUEUE:*");
    if !left.is_empty() {
        let () = server.run("FLUSHALL");
    }
    !left.is_empty()
}

/// Starts the process, has it end, and tells how long that took.
fn end_of(server: &RedisServer, end: &str, before: impl FnOnce()) -> Duration {
    let environment = [(URL_VARIABLE, server.url())];
    let environment = environment
        .each_ref()
        .map(|(name, url)| (*name, url.as_str()));
    let mut child = ChildProcess::with("main", end, &environment);
    assert_eq!(child.says(), "holding");
    before();
    let asked = Instant::now();
    child.terminate();
    wait::until("the process ends", LIMIT, || child.has_ended());
    asked.elapsed()
}

fn a_main_that_returns_ends_soon_though_its_server_is_silent() {
    let server = RedisServer::start();
    let took = end_of(&server, "select!, one thread", || server.freeze());
    // It waits for half a second; a ttl is a minute.
    assert!(took < Duration::from_secs(20), "{took:?}");
    server.thaw();
}

fn many() -> tokio::runtime::Runtime {
    let threads = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    threads.unwrap()
}

fn one() -> tokio::runtime::Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[singleton(app = "job")]
async fn job() -> Result<(), Error> {
    child::say("holding");
    std::future::pending().await
}

async fn until_asked() {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        outcome = job() => outcome.unwrap(),
        _ = asked.recv() => (),
    }
}

async fn spawned() {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    tokio::spawn(job());
    asked.recv().await;
}

/// Its future is dropped while the request is on its way.
async fn in_flight() {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    // The connection is there.
    let lock = AppLocker::from_env().unwrap().lock("other");
    lock.acquire().await.unwrap().release().await.unwrap();
    child::say("holding");
    asked.recv().await;
    tokio::select! {
        biased;
        // On a busy machine the answer may come within that one poll: the guard goes as well.
        _ = lock.acquire() => (),
        () = std::future::ready(()) => (),
    }
    // Its locker outlives it, as the default does.
    std::mem::forget(lock.clone());
}

async fn exits() {
    let mut asked = signal(SignalKind::terminate()).unwrap();
    tokio::spawn(job());
    asked.recv().await;
    std::process::exit(0)
}

/// A guard, once the process is asked to end.
fn held() -> LockGuard {
    one().block_on(async {
        let mut asked = signal(SignalKind::terminate()).unwrap();
        let lock = AppLocker::from_env().unwrap().lock("held");
        let guard = lock.acquire().await.unwrap();
        child::say("holding");
        asked.recv().await;
        guard
    })
}

fn in_a_thread() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _guard = held();
        tell.send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    told.recv().unwrap();
}

/// The guard goes when the locals of the main thread go.
fn in_a_thread_local() {
    thread_local! {
        static GUARD: std::cell::Cell<Option<applock::LockGuard>> =
            const { std::cell::Cell::new(None) };
    }
    let locker = AppLocker::from_env().unwrap();
    one().block_on(async {
        let mut asked = signal(SignalKind::terminate()).unwrap();
        GUARD.set(Some(locker.lock("local").acquire().await.unwrap()));
        child::say("holding");
        asked.recv().await;
    });
    std::mem::forget(locker);
}

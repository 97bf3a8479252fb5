//! Promise: a process that is forked off holds nothing of its parent's, and has an engine of
//! its own; the parent's locks are as they were.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use applock::{AppLocker, Error, LockGuard};

use crate::support::child::{self, ChildProcess};
use crate::support::redis::RedisServer;

const TTL: Duration = Duration::from_secs(20);

/// Runs `part` in a process that is forked off, and waits for its end.
fn in_a_fork(part: impl FnOnce()) {
    if let fork::Fork::Parent(pid) = fork::fork().unwrap() {
        // The parent of both has a time limit, and the child ends itself.
        assert_eq!(fork::waitpid(pid).unwrap(), 0, "the child's status");
        return;
    }
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(25));
        std::process::exit(9);
    });
    let outcome = catch_unwind(AssertUnwindSafe(part));
    std::process::exit(i32::from(outcome.is_err()));
}

fn take(locker: &AppLocker, name: &str) -> LockGuard {
    let lock = locker.lock(name).ttl(TTL);
    lock.acquire_blocking().unwrap()
}

/// What the child finds, before the parent has gone on.
fn check_in_the_child(locker: &AppLocker, guards: [LockGuard; 3], parent: u32, instance: &str) {
    let [held, dropped, released] = guards;
    for guard in [&held, &dropped, &released] {
        assert!(!guard.is_held());
        assert!(matches!(guard.ensure_held(), Err(Error::NotHeld { .. })));
        assert_eq!(guard.remaining(), Duration::ZERO);
        guard.lost_blocking();
    }
    assert!(!held.verify_blocking().unwrap());
    let outcome = released.release_blocking();
    assert!(matches!(outcome, Err(Error::NotHeld { .. })));
    drop(dropped);
    for name in ["held", "dropped", "released"] {
        let outcome = locker.lock(name).acquire_blocking();
        let Err(Error::Busy(holder)) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(holder.pid(), Some(parent));
    }
    // Its own: it is alive, and has another name.
    let own = take(locker, "own");
    assert_eq!(own.info().pid(), Some(std::process::id()));
    assert_ne!(locker.instance_id(), instance);
    assert_eq!(own.info().instance_id(), locker.instance_id());
    assert!(own.is_held() && own.verify_blocking().unwrap());
    let waiting = locker.lock("own").ttl(TTL).wait(Duration::from_secs(20));
    let next = std::thread::spawn(move || waiting.acquire_blocking());
    let waiters = || {
        locker
            .lock("own")
            .info_blocking()
            .unwrap()
            .unwrap()
            .waiters()
    };
    while waiters() != Some(1) {
        assert!(!next.is_finished(), "{:?}", next.join());
        std::thread::sleep(Duration::from_millis(5));
    }
    own.release_blocking().unwrap();
    let next = next.join().unwrap().unwrap();
    // A child of the child holds nothing either.
    in_a_fork(|| {
        assert!(!next.is_held());
        assert!(locker.lock("own").try_acquire_blocking().unwrap().is_none());
        take(locker, "another").release_blocking().unwrap();
    });
    assert!(next.verify_blocking().unwrap());
    next.release_blocking().unwrap();
    drop(held);
}

/// None of tokio's blocking pool: with tokio's feature `parking_lot`, which is on in these tests,
/// its idle threads make wake-ups of a child's pool go to nobody (3 of 100 children found it out).
fn no_thread_sleeps_in_a_pool() {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return;
    };
    for thread in threads {
        let name = thread.unwrap().path().join("comm");
        // It may have ended.
        let name = std::fs::read_to_string(name).unwrap_or_default();
        assert!(!name.starts_with("tokio"), "{name}");
    }
}

fn check(url: &str) {
    let locker = AppLocker::connect_blocking(url).unwrap();
    let guards = ["held", "dropped", "released"].map(|name| take(&locker, name));
    no_thread_sleeps_in_a_pool();
    let (parent, instance) = (std::process::id(), locker.instance_id().to_owned());
    let copies = std::cell::Cell::new(Some(guards));
    let used = std::cell::Cell::new(Some(locker.clone()));
    in_a_fork(|| {
        let locker = used.take().unwrap();
        check_in_the_child(&locker, copies.take().unwrap(), parent, &instance);
    });
    for guard in copies.take().unwrap() {
        assert!(guard.is_held() && guard.verify_blocking().unwrap());
        guard.release_blocking().unwrap();
    }
    assert_eq!(locker.instance_id(), instance);
    // What the child held it has released; in memory it held its own copy.
    take(&locker, "own").release_blocking().unwrap();
}

#[test]
fn a_forked_process_has_an_engine_of_its_own_and_holds_nothing_of_its_parents() {
    if let Some(url) = child::part() {
        check(&url);
        return child::say("all is well");
    }
    let server = RedisServer::start();
    let home = tempfile::tempdir().unwrap();
    let directory = format!("dir:{}", home.path().display());
    let test =
        child::name_of(a_forked_process_has_an_engine_of_its_own_and_holds_nothing_of_its_parents);
    let by_name = server.url().replace("127.0.0.1", "localhost");
    for url in ["memory:", &directory, &server.url(), &by_name] {
        let child = ChildProcess::start(test, url);
        assert_eq!(child.says(), "all is well", "{url}");
        child.dismiss();
    }
}

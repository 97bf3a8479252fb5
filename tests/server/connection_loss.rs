//! Promise: a connection that breaks, wherever it breaks, costs no holder a lock whose lease
//! has not run out, leaves no lock behind, and is replaced (F3, F4, F7, F18).
//!
//! The numbers are those of the list of behaviours that lock libraries are tested for,
//! section 2.10.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::child::{self, ChildProcess};
use crate::support::ports::nowhere;
use crate::support::proxy::{Call, Direction, Event, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::steps::{
    LONG, assert_lost, assert_unavailable, assert_verified, end_of, impatient, is_taken, last_yes,
    take, until_free, until_reported_taken,
};
use crate::support::wait;
use applock::{AppLocker, Error, LockGuard, Loss};

const KEY: &str = "QUEUE:job";

/// A lease that must be kept over a fault of a second or two.
const KEPT: Duration = Duration::from_secs(15);

/// A lease that is to end under the fault.
const SHORT: Duration = Duration::from_secs(3);

/// Far from what a ttl could have done.
const TTL: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(15);

/// A server, a proxy before it, and a locker that knows both.
struct Scene {
    server: RedisServer,
    proxy: FaultProxy,
    locker: AppLocker,
}

impl Scene {
    fn new() -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let locker = impatient(proxy.url());
        Self {
            server,
            proxy,
            locker,
        }
    }

    /// A holder of a lock whose heartbeat has been answered once.
    fn holder(&self, ttl: Duration) -> LockGuard {
        let guard = take(&self.locker.lock("job").ttl(ttl));
        assert_verified(&guard);
        guard
    }

    fn kill_connections(&self) {
        let _: i64 = self.server.run("CLIENT KILL TYPE normal");
    }

    #[track_caller]
    fn assert_kept(&self, guard: &LockGuard) {
        assert_verified(guard);
        let token: u64 = self.server.token("QUEUE:job");
        assert_eq!(token, guard.fencing_token());
    }

    /// The guard is lost while the server is away, before its ttl is over there.
    #[track_caller]
    fn assert_lost_in_time(&self, guard: &LockGuard, end: SystemTime) {
        let last = last_yes(guard, || ());
        assert!(last < end, "'held' {:?} too long", last.duration_since(end));
        assert_lost(guard, Loss::Expired);
    }
}

/// 108
#[test]
fn a_connection_killed_while_a_lock_is_held_costs_nothing() {
    let scene = Scene::new();
    let guard = scene.holder(KEPT);
    for _ in 0..3 {
        scene
            .proxy
            .until_next(Event::Closed, || scene.kill_connections());
        scene.assert_kept(&guard);
    }
}

/// 109
#[test]
fn a_connection_killed_during_an_acquire_ends_in_a_lock_that_is_held() {
    let scene = Scene::new();
    let () = scene.server.run("CLIENT PAUSE 60000 WRITE");
    let waiting = thread::spawn({
        let lock = scene.locker.lock("job").ttl(TTL);
        move || take(&lock)
    });
    scene.proxy.until(Event::Forwarded(Call::Acquire), 1);
    scene
        .proxy
        .until_next(Event::Closed, || scene.kill_connections());
    let () = scene.server.run("CLIENT UNPAUSE");
    let guard = waiting.join().unwrap();
    scene.assert_kept(&guard);
    drop(guard);
    until_free(&scene.server, KEY, SOON);
}

/// 109
#[test]
fn a_connection_killed_during_an_acquire_that_is_given_up_leaves_no_lock() {
    let scene = Scene::new();
    let lock = scene.locker.lock("job").ttl(TTL);
    let () = scene.server.run("CLIENT PAUSE 60000 WRITE");
    let trying = thread::spawn(move || lock.try_acquire_blocking());
    scene.proxy.until(Event::Forwarded(Call::Acquire), 1);
    scene
        .proxy
        .until_next(Event::Closed, || scene.kill_connections());
    // Repeated at once over another connection, and paused there, too.
    assert_unavailable(trying.join().unwrap());
    let () = scene.server.run("CLIENT UNPAUSE");
    // What the server kept of it comes to life now.
    scene.proxy.until(Event::Executed(Call::Release), 1);
    until_free(&scene.server, KEY, SOON);
}

/// 110
#[test]
fn a_connection_killed_during_a_release_frees_the_lock_all_the_same() {
    let scene = Scene::new();
    let guard = scene.holder(TTL);
    let () = scene.server.run("CLIENT PAUSE 60000 WRITE");
    let releasing = thread::spawn(move || guard.release_blocking());
    scene.proxy.until(Event::Forwarded(Call::Release), 1);
    scene
        .proxy
        .until_next(Event::Closed, || scene.kill_connections());
    let () = scene.server.run("CLIENT UNPAUSE");
    let outcome = releasing.join().unwrap();
    assert!(matches!(outcome, Ok(()) | Err(Error::Unavailable(_))));
    until_free(&scene.server, KEY, SOON);
}

/// 110
#[test]
fn a_release_that_finds_its_own_work_done_counts_as_a_success() {
    let scene = Scene::new();
    let patient = AppLocker::connect_blocking(scene.proxy.url()).unwrap();
    let guard = take(&patient.lock("job").ttl(TTL));
    scene.proxy.reset_for_reply(Call::Release);
    guard.release_blocking().unwrap();
    assert!(!is_taken(&scene.server, KEY));
}

/// 111
#[test]
fn a_server_that_stalls_for_less_than_the_lease_costs_no_holder_the_lock() {
    let scene = Scene::new();
    let guard = scene.holder(KEPT);
    scene.server.freeze();
    assert_unavailable(guard.verify_blocking());
    assert_unavailable(guard.verify_blocking());
    assert!(guard.is_held());
    scene.server.thaw();
    scene.assert_kept(&guard);
}

/// 111
#[test]
fn a_server_that_stalls_for_longer_than_the_lease_is_not_waited_for() {
    let scene = Scene::new();
    let guard = scene.holder(SHORT);
    let end = end_of(&scene.server, KEY);
    scene.server.freeze();
    // A heartbeat in between may have moved the server's end, but never the guard's.
    scene.assert_lost_in_time(&guard, end + SHORT / 3);
    assert!(scene.locker.lock("job").info_blocking().is_err());
    scene.server.thaw();
    wait::until("the server answers", LONG, || {
        scene.locker.lock("job").info_blocking().is_ok()
    });
    // No answer that comes now revives it.
    assert_lost(&guard, Loss::Expired);
    drop(guard);
    until_free(&scene.server, KEY, SOON);
}

/// A pause that is shorter than the lease.
fn a_short_pause(kind: &str) {
    let scene = Scene::new();
    let guard = scene.holder(KEPT);
    let () = scene.server.run(&format!("CLIENT PAUSE 2500 {kind}"));
    assert_unavailable(guard.verify_blocking());
    assert!(guard.is_held());
    scene.assert_kept(&guard);
}

/// 112
#[test]
fn a_pause_of_all_clients_shorter_than_the_lease_costs_no_holder_the_lock() {
    a_short_pause("ALL");
}

/// 112
#[test]
fn a_pause_of_all_writes_shorter_than_the_lease_costs_no_holder_the_lock() {
    a_short_pause("WRITE");
}

/// A pause that is longer than the lease.
fn a_long_pause(kind: &str) {
    let scene = Scene::new();
    let guard = scene.holder(SHORT);
    let end = end_of(&scene.server, KEY);
    let () = scene.server.run(&format!("CLIENT PAUSE 6000 {kind}"));
    scene.assert_lost_in_time(&guard, end + SHORT / 3);
    drop(guard);
    // The heartbeats that the server kept run when the pause is over; so does the release.
    let next = take(&scene.locker.lock("job").ttl(KEPT));
    scene.assert_kept(&next);
}

/// 112
#[test]
fn a_pause_of_all_clients_longer_than_the_lease_is_a_loss_in_time() {
    a_long_pause("ALL");
}

/// 112
#[test]
fn a_pause_of_all_writes_longer_than_the_lease_is_a_loss_in_time() {
    a_long_pause("WRITE");
}

/// 113
#[test]
fn answers_that_get_lost_for_less_than_the_lease_cost_no_holder_the_lock() {
    let scene = Scene::new();
    let guard = scene.holder(KEPT);
    scene.proxy.black_hole(Direction::ToClient);
    assert_unavailable(guard.verify_blocking());
    assert_unavailable(guard.verify_blocking());
    assert!(guard.is_held());
    scene.proxy.heal();
    scene.assert_kept(&guard);
}

/// 113
#[test]
fn what_the_server_did_while_its_answers_got_lost_is_undone() {
    let scene = Scene::new();
    let lock = scene.locker.lock("job").ttl(TTL);
    drop(take(&lock));
    until_free(&scene.server, KEY, LONG);
    let held = scene.locker.lock("held").ttl(SHORT);
    let held = take(&held);
    let acquire = Event::Executed(Call::Acquire);
    let before = scene.proxy.count(acquire);
    scene.proxy.black_hole(Direction::ToClient);
    assert_unavailable(lock.try_acquire_blocking());
    scene.proxy.until(acquire, before + 1);
    until_free(&scene.server, KEY, SOON);
    // A holder learns of its loss, though the server gets its heartbeats.
    last_yes(&held, || {
        let before = is_taken(&scene.server, "QUEUE:held");
        assert!(before || !held.is_held());
    });
    assert_lost(&held, Loss::Expired);
    drop(held);
    until_free(&scene.server, "QUEUE:held", SOON);
}

/// 114
#[test]
fn a_server_that_is_down_at_the_start_is_reported_at_once_with_its_cause() {
    /// The causes that come with the first answer: far below any retrying.
    const PROMPT: Duration = Duration::from_secs(5);
    let start = Instant::now();
    let url = format!("redis://127.0.0.1:{}", nowhere());
    let error = AppLocker::connect_blocking(&url).unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("connection refused"), "{error}");
    let server = RedisServer::with(&["--requirepass", "right"]);
    let connecting = Instant::now();
    let url = format!("redis://:wrong@127.0.0.1:{}", server.port());
    let error = AppLocker::connect_blocking(&url).unwrap_err();
    assert!(matches!(error, Error::Denied(_)), "{error}");
    assert!(connecting.elapsed() < PROMPT, "{:?}", connecting.elapsed());
    assert!(start.elapsed() < 3 * PROMPT, "{:?}", start.elapsed());
}

/// 115
#[test]
fn a_server_that_restarts_empty_is_a_loss_at_the_next_heartbeat_and_works_again() {
    let mut server = RedisServer::start();
    let locker = impatient(server.url());
    let guard = take(&locker.lock("job").ttl(Duration::from_secs(9)));
    let token = guard.fencing_token();
    server.restart();
    until_reported_taken(&guard);
    assert!(matches!(
        guard.release_blocking(),
        Err(Error::Lost {
            reason: Loss::Taken,
            ..
        })
    ));
    let next = take(&locker.lock("job").ttl(KEPT));
    assert!(next.fencing_token() > token);
    assert_verified(&next);
}

/// 118
#[test]
fn a_connection_that_the_server_closed_for_idleness_is_replaced_unnoticed() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = AppLocker::connect_blocking(proxy.url()).unwrap();
    let lock = locker.lock("job").ttl(TTL);
    let () = server.run("CONFIG SET timeout 1");
    let idle = || proxy.until_next(Event::Closed, || ());
    idle();
    let guard = lock.try_acquire_blocking().unwrap().expect("it is free");
    idle();
    assert!(guard.verify_blocking().unwrap());
    idle();
    assert!(lock.info_blocking().unwrap().is_some());
    idle();
    guard.release_blocking().unwrap();
    idle();
    assert!(lock.info_blocking().unwrap().is_none());
}

/// 119
#[test]
fn the_first_command_after_an_outage_does_not_hear_of_the_outage() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("job").ttl(TTL);
    for round in 0..3 {
        server.kill();
        for _ in 0..=round {
            assert_unavailable(lock.try_acquire_blocking());
        }
        server.restart();
        let guard = lock.try_acquire_blocking().unwrap();
        guard.expect("it is free").release_blocking().unwrap();
    }
}

/// 120
#[test]
fn a_broken_connection_does_not_poison_the_next() {
    const BREAKS: u64 = 20;
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locker = AppLocker::connect_blocking(proxy.url()).unwrap();
    let guard = take(&locker.lock("held").ttl(TTL));
    let dials = proxy.dials();
    for round in 0..BREAKS {
        proxy.until_next(Event::Closed, || proxy.reset());
        // Several at once meet the broken connection; one dial serves them all.
        thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let lock = locker.lock("job").name(name).ttl(TTL);
                scope.spawn(move || {
                    let taken = lock.try_acquire_blocking().unwrap();
                    taken.expect("it is free").release_blocking().unwrap();
                });
            }
        });
        assert_eq!(proxy.dials(), dials + round + 1);
    }
    assert_verified(&guard);
    assert_eq!(proxy.dials(), dials + BREAKS);
}

/// 121
#[test]
fn a_server_that_takes_no_more_clients_is_unavailable_and_held_locks_are_kept() {
    let scene = Scene::new();
    let guard = scene.holder(KEPT);
    // Another client has the only place.
    let mut other = scene.server.connect().unwrap();
    let mut run = |words: &str| {
        let mut command = redis::Cmd::new();
        command.arg(words.split(' ').collect::<Vec<_>>());
        command.query::<redis::Value>(&mut other).unwrap()
    };
    run("CONFIG SET maxclients 1");
    scene
        .proxy
        .until_next(Event::Closed, || run("CLIENT KILL TYPE normal"));
    assert_unavailable(scene.locker.lock("other").try_acquire_blocking());
    assert!(guard.is_held());
    run("CONFIG SET maxclients 100");
    scene.assert_kept(&guard);
}

/// What this process has open: file descriptors and threads.
fn open() -> (usize, usize) {
    let count = |directory: &str| std::fs::read_dir(directory).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[track_caller]
fn until_open(before: (usize, usize)) {
    wait::until(&format!("only {before:?} are open"), LONG, || {
        open() == before
    });
}

/// Alone in its process, so that all that is open there is its own.
fn takes_and_fails_many_times(port: u16) {
    let proxy = FaultProxy::to(port);
    let locker = AppLocker::connect_blocking(format!("redis://127.0.0.1:{port}")).unwrap();
    let behind = impatient(proxy.url());
    let lock = locker.lock("job").ttl(TTL);
    let failing = behind.lock("failing").ttl(TTL);
    let held = take(&behind.lock("held").ttl(TTL));
    take(&lock).release_blocking().unwrap();
    child::say("ready");
    let before = open();
    for _ in 0..10 {
        for _ in 0..1_000 {
            // Whether it was answered matters to the next round only.
            let _ = take(&lock).release_blocking();
        }
        child::say("a thousand taken");
    }
    until_open(before);
    for _ in 0..500 {
        let busy = locker.lock("held").try_acquire_blocking();
        assert!(busy.unwrap().is_none());
    }
    until_open(before);
    // Every connection ends as soon as it is made.
    proxy.refuse(true);
    proxy.reset();
    for _ in 0..10 {
        // Many at once: each dial that fails is followed by a pause.
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| assert_unavailable(failing.try_acquire_blocking()));
            }
        });
    }
    assert!(proxy.dials() > 10);
    proxy.refuse(false);
    assert_verified(&held);
    until_open(before);
    child::say("done");
    child::until_dismissed();
}

/// 122
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_locks_and_a_thousand_failures_leave_nothing_open() {
    if let Some(port) = child::part() {
        return takes_and_fails_many_times(port.parse().unwrap());
    }
    let server = RedisServer::start();
    let clients = || server.run::<String>("CLIENT LIST").lines().count();
    let child = ChildProcess::start(
        child::name_of(ten_thousand_locks_and_a_thousand_failures_leave_nothing_open),
        &server.port().to_string(),
    );
    assert_eq!(child.says(), "ready");
    // Two lockers, and the test's own.
    wait::until("three connections", LONG, || clients() == 3);
    while child.says() != "done" {}
    wait::until("three connections", LONG, || clients() == 3);
    child.dismiss();
}

//! Promise: with `replicas = n` nothing counts that fewer than n replicas have: no acquire, no
//! hand-over, no heartbeat. What was not acknowledged is undone, and leaves nothing behind.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::after::KEPT;
use crate::support::cluster::{Cluster, Takes};
use crate::support::lease::{LIMIT, assert_lost, last_yes_and_first_no};
use crate::support::queue::length_of;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_denied, assert_misconfigured, assert_unavailable};
use crate::support::sentinel::{SOON, SentinelSet};
use crate::support::steps::{
    LONG, assert_verified, impatient, is_taken, refused, take, until_free,
};
use crate::support::wait;
use applock::{AppLocker, LockGuard, Loss};

const APP: &str = "job";
const KEY: &str = "QUEUE:job";

/// A master and its replicas, without anything that would promote one.
struct Servers {
    master: RedisServer,
    replicas: Vec<RedisServer>,
}

impl Servers {
    fn start(replicas: usize) -> Self {
        let master = RedisServer::reserved(&["--repl-diskless-sync-delay", "0"]);
        let replicas: Vec<_> = (0..replicas).map(|_| RedisServer::reserved(&[])).collect();
        for replica in &replicas {
            let () = replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
            wait::until("the replica has the data", SOON, || replica.is_in_sync());
        }
        let servers = Self { master, replicas };
        wait::until("the master counts them", SOON, || {
            let info: String = servers.master.run("INFO replication");
            info.matches("state=online").count() == servers.replicas.len()
        });
        servers
    }

    /// A locker that asks for so many replicas.
    fn locker(&self, replicas: u32) -> AppLocker {
        let builder = AppLocker::builder().store(self.master.url());
        let locker = builder.replicas(replicas).build().unwrap();
        wait::until("the locker connects", LONG, || {
            locker.lock("first use").info_blocking().is_ok()
        });
        locker
    }

    fn freeze(&self) {
        self.replicas.iter().for_each(RedisServer::freeze);
    }

    fn thaw(&self) {
        self.replicas.iter().for_each(RedisServer::thaw);
    }

    /// All replicas have this very holding.
    #[track_caller]
    fn assert_have(&self, guard: &LockGuard) {
        for replica in &self.replicas {
            assert_eq!(replica.token(KEY), guard.fencing_token());
        }
    }
}

#[track_caller]
fn until_waiting(servers: &Servers) {
    wait::until("it waits", SOON, || length_of(&servers.master, KEY) == 1);
}

#[test]
fn what_is_granted_is_at_all_replicas_by_then() {
    let servers = Servers::start(2);
    let locker = servers.locker(2);
    for _ in 0..50 {
        let guard = take(&locker.lock(APP).ttl(KEPT));
        servers.assert_have(&guard);
        guard.release_blocking().unwrap();
    }
    // So it says in a URL, too.
    let url = format!("{}?replicas=2&replica_timeout=200ms", servers.master.url());
    let guard = take(&impatient(url).lock(APP).ttl(KEPT));
    servers.assert_have(&guard);
}

#[test]
fn an_acquire_that_too_few_have_is_undone_and_leaves_nothing_behind() {
    let mut servers = Servers::start(2);
    let locker = servers.locker(2);
    let content = servers.locker(1);
    servers.replicas[0].freeze();
    let too_few = || {
        let lock = locker.lock(APP).ttl(KEPT);
        let is_undone = || until_free(&servers.master, KEY, LONG);
        let error = refused(|| {
            is_undone();
            lock.try_acquire_blocking()
        });
        assert_unavailable(&error, &["of 2 replicas"]);
        let error = refused(|| {
            is_undone();
            lock.acquire_blocking()
        });
        assert_unavailable(&error, &["of 2 replicas"]);
        is_undone();
    };
    too_few();
    // One that asks for fewer is served.
    let guard = take(&content.lock(APP).ttl(KEPT));
    assert_eq!(servers.replicas[1].token(KEY), guard.fencing_token());
    guard.release_blocking().unwrap();
    // A replica that is not there is not counted out.
    servers.replicas[0].kill();
    too_few();
}

#[test]
fn a_caller_that_waits_gets_the_lock_when_the_replicas_are_back() {
    let servers = Servers::start(1);
    let locker = servers.locker(1);
    servers.freeze();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| locker.lock(APP).ttl(KEPT).wait(LIMIT).acquire_blocking());
        // It was written, and not acknowledged, several times.
        let writes = servers.master.scripts();
        wait::until("it tries on", SOON, || {
            assert!(!waiting.is_finished(), "granted without its replica");
            servers.master.scripts() > writes + 3
        });
        servers.thaw();
        let guard = waiting.join().unwrap().expect("it is granted");
        servers.assert_have(&guard);
        assert_verified(&guard);
    });
}

#[test]
fn silent_replicas_are_waited_for_by_all_calls_together() {
    let servers = Servers::start(1);
    let builder = AppLocker::builder().store(servers.master.url()).replicas(1);
    let builder = builder.replica_timeout(Duration::from_millis(100));
    let locker = builder.build().unwrap();
    let held = take(&locker.lock("held").ttl(KEPT));
    servers.freeze();
    thread::scope(|scope| {
        // One after the other they would take two seconds, and each may take one.
        for number in 0..20 {
            let lock = locker.lock(APP).name(number.to_string()).ttl(KEPT);
            scope.spawn(move || {
                let error = refused(|| lock.try_acquire_blocking());
                assert_unavailable(&error, &["0 of 1"]);
            });
            // Not in one batch.
            thread::sleep(Duration::from_millis(10));
        }
        let error = refused(|| held.verify_blocking());
        assert_unavailable(&error, &["0 of 1"]);
    });
    assert!(held.is_held());
    servers.thaw();
    assert_verified(&held);
}

#[test]
fn a_lock_is_kept_if_the_replicas_are_back_in_time() {
    let servers = Servers::start(1);
    let locker = servers.locker(1);
    let guard = take(&locker.lock(APP).ttl(KEPT));
    servers.freeze();
    let error = refused(|| guard.verify_blocking());
    assert_unavailable(&error, &["0 of 1", "replica"]);
    assert!(guard.is_held(), "one failed heartbeat is no loss");
    servers.thaw();
    assert_verified(&guard);
    servers.assert_have(&guard);
    guard.release_blocking().unwrap();
}

#[test]
fn a_holder_learns_of_its_loss_in_time_if_they_are_not() {
    let servers = Servers::start(1);
    let locker = servers.locker(1);
    let ttl = Duration::from_secs(3);
    let guard = take(&locker.lock(APP).ttl(ttl));
    servers.freeze();
    let begun = SystemTime::now();
    let (last_yes, first_no) = last_yes_and_first_no(&guard);
    assert!(last_yes < begun + ttl, "held after its ttl");
    assert!(first_no > begun + ttl / 3, "given up early");
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Expired);
}

#[test]
fn a_hand_over_counts_once_the_replicas_have_it() {
    let servers = Servers::start(1);
    let (holder, waiter) = (servers.locker(1), servers.locker(1));
    for _ in 0..5 {
        let guard = take(&holder.lock(APP).ttl(KEPT));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let lock = waiter.lock(APP).ttl(KEPT).wait(LIMIT);
                let next = lock.acquire_blocking().expect("it is handed the lock");
                servers.assert_have(&next);
                next.release_blocking().unwrap();
            });
            until_waiting(&servers);
            guard.release_blocking().unwrap();
            waiting.join().unwrap();
        });
    }
    let guard = take(&holder.lock(APP).ttl(KEPT));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lock = waiter.lock(APP).ttl(KEPT).wait(LIMIT);
            lock.acquire_blocking()
        });
        until_waiting(&servers);
        servers.freeze();
        // A release needs no replica.
        guard.release_blocking().unwrap();
        let writes = servers.master.scripts();
        wait::until("the next asks", SOON, || {
            assert!(!waiting.is_finished(), "granted without its replica");
            servers.master.scripts() > writes + 2
        });
        servers.thaw();
        let next = waiting.join().unwrap().expect("it is granted");
        servers.assert_have(&next);
    });
}

#[test]
fn a_server_that_can_not_wait_for_replicas_is_told_before_anything_is_written() {
    let server = RedisServer::with(&["--rename-command", "WAIT", ""]);
    let builder = AppLocker::builder().store(server.url()).replicas(1);
    let locker = builder.build().unwrap();
    let error = refused(|| locker.lock(APP).try_acquire_blocking());
    assert_misconfigured(&error, &["WAIT"]);
    assert_eq!(server.run::<i64>("DBSIZE"), 0);

    let server = RedisServer::start();
    let () = server.run("ACL SETUSER lk on >pw ~* &* +@all -wait");
    let url = format!("redis://lk:pw@127.0.0.1:{}?replicas=1", server.port());
    let locker = AppLocker::builder().store(url).build().unwrap();
    let error = refused(|| locker.lock(APP).try_acquire_blocking());
    assert_denied(&error, &["wait"]);
    assert_eq!(server.run::<i64>("DBSIZE"), 0);
}

/// The one address that a hosted cluster has may lead to any node.
#[test]
fn a_url_that_names_a_replica_of_a_cluster_leads_to_the_masters() {
    let cluster = Cluster::start();
    let url = format!("{}?replicas=1", cluster.url_of([4]));
    let locker = AppLocker::connect_blocking(url).expect("a replica tells the map");
    drop(take(&locker.lock(APP)));
    // And where one server is meant, the replica is told for what it is.
    let servers = Servers::start(1);
    let url = format!(
        "redis://127.0.0.1:{}?replicas=1",
        servers.replicas[0].port()
    );
    let error = AppLocker::builder().store(url).build().unwrap();
    let error = refused(|| error.lock(APP).try_acquire_blocking());
    assert_unavailable(&error, &["read-only replica"]);
}

#[test]
fn a_master_that_is_made_a_replica_while_it_waits_has_granted_nothing() {
    let servers = Servers::start(1);
    let builder = AppLocker::builder().store(servers.master.url());
    let builder = builder.replicas(1);
    let locker = builder
        .replica_timeout(Duration::from_millis(800))
        .build()
        .unwrap();
    drop(take(&locker.lock("another")));
    servers.freeze();
    thread::scope(|scope| {
        let asking = scope.spawn(|| locker.lock(APP).ttl(KEPT).try_acquire_blocking());
        wait::until("the master has said yes", SOON, || {
            is_taken(&servers.master, KEY)
        });
        // It says UNBLOCKED to the WAIT, or hangs up.
        let () = servers.master.run("REPLICAOF 127.0.0.1 1");
        let outcome = asking.join().unwrap();
        assert_unavailable(&outcome.expect_err("nobody has it"), &[]);
    });
}

#[test]
fn over_a_planned_failover_of_sentinel_no_lock_is_granted_twice() {
    let set = SentinelSet::start();
    let builder = AppLocker::builder().store(set.url()).replicas(2);
    let locker = builder.build().unwrap();
    let mut guards = Vec::new();
    let at = thread::scope(|scope| {
        let mut failing = None;
        let mut after = None;
        for number in 0.. {
            // Some are granted before, however slow the machine is.
            if guards.len() > 10 && failing.is_none() {
                failing = Some(scope.spawn(|| set.fail_over()));
            }
            if failing.as_ref().is_some_and(|it| it.is_finished()) {
                let end = after.get_or_insert_with(|| Instant::now() + Duration::from_secs(3));
                if Instant::now() > *end {
                    break;
                }
            }
            let lock = locker.lock("double").name(number.to_string()).ttl(KEPT);
            guards.extend(lock.acquire_blocking().ok());
            thread::sleep(Duration::from_millis(5));
        }
        let failing = failing.expect("it has begun");
        failing.join().expect("a failover").1
    });
    println!("{} until {at:?}", guards.len());
    let newcomer = impatient(set.url());
    for guard in &guards {
        let name = guard.info().name().unwrap_or_default().to_owned();
        let again = newcomer.lock("double").name(&name).try_acquire_blocking();
        let again = again.expect("the new master answers");
        assert!(again.is_none(), "lock {name} was granted twice");
        assert!(guard.is_held(), "lock {name} is lost");
    }
}

#[test]
fn a_cut_off_master_of_a_cluster_grants_nothing() {
    let cluster = Cluster::start();
    let locker = impatient(format!("{}?replicas=1", cluster.url()));
    let (app, another) = (cluster.app(0, 0), cluster.app(0, 1));
    let guard = take(&locker.lock(&*another).ttl(KEPT));
    cluster.nodes[0].part_from_replicas();
    let error = refused(|| locker.lock(&*app).try_acquire_blocking());
    assert_unavailable(&error, &["0 of 1"]);
    cluster.promote(3, Takes::Power);
    // The old one becomes the replica of the new.
    let next = take(&locker.lock(&*app).ttl(KEPT));
    assert!(is_taken(&cluster.nodes[3], &format!("QUEUE:{app}")));
    assert_verified(&guard);
    assert!(next.is_held());
}

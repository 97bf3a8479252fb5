//! Promise: when an address moves to another server, a holder whose lock that server does
//! not know learns of its loss, and the next holder has a larger token; a lock that was
//! replicated is kept. A replica that can't write is never believed (F18, F20).
//!
//! A failover here is what a client sees of one: the address leads to the promoted
//! replica, and old connections are reset. An old master that goes on answering clients that
//! still reach it is not ruled out by any of this: `docs/GUARANTEES.md` says what to do
//! about it.

use std::time::Duration;

use crate::support::proxy::{Event, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::steps::{
    LONG, assert_unavailable, assert_verified, impatient, is_taken, take, until_reported_taken,
};
use crate::support::wait;
use applock::AppLocker;

const KEY: &str = "QUEUE:job";

/// A lease that must be kept while a server is replaced.
const KEPT: Duration = Duration::from_secs(30);

/// A heartbeat comes early in it, and its own end late.
const TTL: Duration = Duration::from_secs(12);

/// A master, its replica, and an address that leads to one of them.
struct Pair {
    master: RedisServer,
    replica: RedisServer,
    address: FaultProxy,
    locker: AppLocker,
}

impl Pair {
    fn start() -> Self {
        let master = RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
        let replica = RedisServer::start();
        let () = replica.run(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
        wait::until("the replica follows", LONG, || {
            let info: String = replica.run("INFO replication");
            info.contains("master_link_status:up")
        });
        let address = FaultProxy::before(&master);
        let locker = impatient(address.url());
        Self {
            master,
            replica,
            address,
            locker,
        }
    }

    /// The replica gets no more from the master.
    fn promote(&self) {
        let () = self.replica.run("REPLICAOF NO ONE");
    }

    /// The address leads to that server, and no old connection goes on.
    fn move_to(&self, server: &RedisServer) {
        self.address.lead_to(server);
        self.address
            .until_next(Event::Closed, || self.address.reset());
    }

    fn until_replicated(&self) {
        wait::until("the lock is replicated", LONG, || {
            is_taken(&self.replica, KEY)
        });
    }
}

/// What the lock protects: refuses a holder that was overtaken.
#[derive(Default)]
struct Resource {
    newest: u64,
}

impl Resource {
    fn write(&mut self, token: u64) -> bool {
        let accepted = token >= self.newest;
        self.newest = self.newest.max(token);
        accepted
    }
}

#[test]
fn a_lock_that_a_failover_lost_is_reported_as_lost_and_the_next_token_is_larger() {
    let pair = Pair::start();
    // Its write never reaches the replica.
    pair.promote();
    let mut resource = Resource::default();
    let guard = take(&pair.locker.lock("job").ttl(TTL));
    assert!(resource.write(guard.fencing_token()));
    assert!(!is_taken(&pair.replica, KEY));
    pair.move_to(&pair.replica);
    // Another gets it from the new master, while the old holder does not know yet.
    let other = AppLocker::connect_blocking(pair.replica.url()).unwrap();
    let next = take(&other.lock("job").ttl(KEPT));
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(resource.write(next.fencing_token()));
    assert!(!resource.write(guard.fencing_token()));
    until_reported_taken(&guard);
    assert!(guard.release_blocking().is_err());
    assert_verified(&next);
}

#[test]
fn a_lock_that_was_replicated_is_kept_over_a_failover() {
    let pair = Pair::start();
    let guard = take(&pair.locker.lock("job").ttl(KEPT));
    let token = guard.fencing_token();
    pair.until_replicated();
    pair.promote();
    pair.move_to(&pair.replica);
    assert_verified(&guard);
    assert_eq!(pair.replica.run::<u64>("HGET QUEUE:job token"), token);
    let other = AppLocker::connect_blocking(pair.replica.url()).unwrap();
    assert!(other.lock("job").try_acquire_blocking().unwrap().is_none());
    // The old master knows nothing of it any more: only the new one is asked.
    let _: i64 = pair.master.run("DEL QUEUE:job");
    assert_verified(&guard);
    drop(guard);
    let next = take(&other.lock("job").ttl(KEPT));
    assert!(next.fencing_token() > token);
}

/// An address that leads to a replica that is still one.
fn is_not_believed(replicated: bool) {
    let pair = Pair::start();
    if !replicated {
        // It follows another master, and lacks the lock.
        let () = pair.replica.run("REPLICAOF 127.0.0.1 1");
    }
    let guard = take(&pair.locker.lock("job").ttl(KEPT));
    let token = guard.fencing_token();
    if replicated {
        pair.until_replicated();
    }
    assert_eq!(is_taken(&pair.replica, KEY), replicated);
    pair.move_to(&pair.replica);
    let dials = pair.address.dials();
    wait::until("it is dialled again and again", LONG, || {
        // Never 'not held', and never 'busy'.
        assert_unavailable(guard.verify_blocking());
        assert_unavailable(pair.locker.lock("job").try_acquire_blocking());
        assert!(guard.is_held());
        pair.address.dials() > dials + 2
    });
    // Whether a connection is open just now or not.
    pair.address.lead_to(&pair.master);
    pair.address.reset();
    wait::until("the master is found", LONG, || {
        guard.verify_blocking().unwrap_or(false)
    });
    assert!(guard.is_held());
    assert_eq!(guard.fencing_token(), token);
    assert_eq!(pair.master.run::<u64>("HGET QUEUE:job token"), token);
}

// F20
#[test]
fn a_replica_that_knows_the_lock_is_dialled_until_a_master_is_there() {
    is_not_believed(true);
}

// F20
#[test]
fn a_replica_that_lacks_the_lock_never_says_that_it_is_not_held() {
    is_not_believed(false);
}

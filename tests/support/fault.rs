//! What every fault of a server has in common: a lock that is held is kept if the fault
//! passes, its holder learns of its loss in time if it does not, a caller that asks meanwhile
//! gets an error that says what it is, and afterwards all works again, with the same lockers.

use std::time::{Duration, SystemTime};

use applock::{AppLocker, Error, LockGuard, Loss};

use super::lease::{LIMIT, assert_lost, assert_lost_for_good, last_yes_and_first_no};
use super::redis::RedisServer;
use super::refusal::{is_taken, refusal, runs};
use super::{log, wait};

/// Of a lock that is kept: a heartbeat after four seconds, and eight to heal the fault.
const LONG: Duration = Duration::from_secs(12);

/// Of a lock that is to be lost.
const SHORT: Duration = Duration::from_secs(2);

/// A way to break a server, and to mend it.
pub struct Fault {
    pub server: fn() -> RedisServer,
    pub begins: fn(&mut RedisServer),
    /// Checks the error that a caller gets that asks for a lock meanwhile.
    pub reported: fn(&RedisServer, &Error),
    pub ends: fn(&mut RedisServer),
}

/// A holder, and another caller.
struct Pair {
    server: RedisServer,
    holder: AppLocker,
    guard: LockGuard,
    other: AppLocker,
    token: u64,
}

impl Fault {
    /// It ends before the lease does.
    #[track_caller]
    pub fn passes(&self) {
        let mut pair = Pair::new((self.server)(), LONG);
        (self.begins)(&mut pair.server);
        (self.reported)(&pair.server, &refusal(&pair.other));
        pair.logged("a heartbeat failed");
        assert!(pair.guard.is_held(), "one failed heartbeat is no loss");
        (self.ends)(&mut pair.server);
        pair.logged("the lock was kept");
        pair.guard.ensure_held().expect("it was kept");
        let token: u64 = pair.server.run("HGET QUEUE:held token");
        assert_eq!(token, pair.token);
        wait::until("others are served again", LIMIT, || runs(&pair.other));
        wait::until("nothing half-made is left", LIMIT, || {
            !is_taken(&pair.server)
        });
        assert!(pair.guard.is_held());
        pair.guard.release_blocking().expect("it was held");
        assert!(!pair.server.run::<bool>("EXISTS QUEUE:held"));
        wait::until("its holder works on", LIMIT, || runs(&pair.holder));
    }

    /// It lasts for longer than the lease.
    #[track_caller]
    pub fn lasts(&self) {
        let mut pair = Pair::new((self.server)(), SHORT);
        (self.begins)(&mut pair.server);
        // No heartbeat that left later can be confirmed.
        let begun = SystemTime::now();
        let (last_yes, first_no) = last_yes_and_first_no(&pair.guard);
        assert!(last_yes < begun + SHORT, "held after its ttl");
        let acquired = pair.guard.info().acquired_at().expect("the server's time");
        assert!(first_no > acquired + SHORT / 2, "given up early");
        pair.guard.lost_blocking();
        let lost = pair.guard.ensure_held().expect_err("it is lost");
        assert_lost(&lost, Loss::Expired);
        pair.logged("the lock is lost");
        (self.ends)(&mut pair.server);
        let lock = pair.other.lock("held").ttl(LONG).wait(LIMIT);
        let next = lock.acquire_blocking().expect("the lock is free");
        assert!(next.fencing_token() > pair.token);
        assert_lost_for_good(&pair.guard, Loss::Expired);
        let error = pair.guard.release_blocking().expect_err("it is lost");
        assert_lost(&error, Loss::Expired);
        assert!(next.verify_blocking().expect("the server answers"));
        wait::until("its holder works on", LIMIT, || runs(&pair.holder));
    }
}

impl Pair {
    fn new(server: RedisServer, ttl: Duration) -> Self {
        log::keep();
        let connect = || AppLocker::connect_blocking(server.url()).expect("a locker");
        let (holder, other) = (connect(), connect());
        wait::until("a first run", LIMIT, || runs(&other));
        let lock = holder.lock("held").ttl(ttl).wait(LIMIT);
        let guard = lock.acquire_blocking().expect("a free lock");
        Self {
            token: guard.fencing_token(),
            server,
            holder,
            guard,
            other,
        }
    }

    /// Waits until these words are logged of this very holding.
    #[track_caller]
    fn logged(&self, words: &str) {
        // All faults of a program log side by side, each of a lock of this name.
        let owner = self.guard.info().owner_id().replace('-', "");
        log::until(&["QUEUE:held", &format!("owner={owner} "), words]);
    }
}

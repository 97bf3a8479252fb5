//! Another server comes to serve: what was answered by the one before it may be lost.

use super::*;
use crate::engine::remembered::{LONGEST, MOST};
use crate::store::Notification;

/// A stage whose store has several servers.
struct Servers {
    stage: Stage,
    notifications: Notifications,
    needed: watch::Receiver<bool>,
}

impl Servers {
    fn start() -> Self {
        let (tell, watched) = channel();
        let stage = Stage::over(Some(tell));
        stage.catch_up();
        let (notifications, needed) = watched.recv_timeout(SOON).unwrap();
        Self {
            stage,
            notifications,
            needed,
        }
    }

    /// Another server serves the lock from now on.
    fn switch(&self, lock: &'static str) {
        let moved = Notification::Moved(Arc::new(move |key| *key.lock == *lock));
        assert!(self.notifications.send(moved).is_ok());
    }

    /// Takes a lock, and gives it back.
    fn take_and_release(&self, lock: &str) -> OwnerId {
        let held = self.stage.hold(lock);
        let owner = held.lease().owner;
        let releasing = release(held);
        self.answer_release(owner, Ok(true));
        releasing.join().unwrap().unwrap();
        owner
    }

    fn answer_release(&self, owner: OwnerId, answer: StoreResult<bool>) {
        let (batch, reply) = self.stage.release();
        assert_eq!(batch[0].owner, owner);
        reply.send(vec![answer]).unwrap();
        self.stage.catch_up();
    }

    /// The store is told whether it has to look out for another server.
    #[track_caller]
    fn until_needed(&self, needed: bool) {
        self.stage
            .until("the store is told", || *self.needed.borrow() == needed);
    }
}

#[test]
fn an_answered_release_is_sent_again_to_a_server_that_may_not_know_of_it() {
    let servers = Servers::start();
    let (one, other) = (
        servers.take_and_release("one"),
        servers.take_and_release("other"),
    );
    servers.switch("one");
    servers.answer_release(one, Ok(true));
    servers.stage.nothing();
    // That answer may be lost as well.
    servers.switch("one");
    servers.answer_release(one, Ok(false));
    servers.switch("other");
    servers.answer_release(other, Ok(false));
    servers.stage.nothing();
}

#[test]
fn one_that_fails_there_is_tried_again() {
    let servers = Servers::start();
    let owner = servers.take_and_release("k");
    servers.switch("k");
    servers.answer_release(owner, unknown());
    servers.stage.clock.advance(Duration::from_secs(1));
    servers.answer_release(owner, Ok(false));
    servers.stage.clock.advance(Duration::from_secs(1));
    servers.stage.nothing();
}

#[test]
fn an_answer_that_left_before_the_switch_does_not_count_for_the_server_after_it() {
    let servers = Servers::start();
    let held = servers.stage.hold("k");
    let owner = held.lease().owner;
    let releasing = release(held);
    let (_, reply) = servers.stage.release();
    servers.switch("k");
    servers.stage.catch_up();
    reply.send(vec![Ok(true)]).unwrap();
    releasing.join().unwrap().unwrap();
    servers.answer_release(owner, Ok(true));
    servers.stage.nothing();
}

#[test]
fn an_orphan_is_watched_until_the_server_after_the_switch_has_answered() {
    let servers = Servers::start();
    let request = servers.stage.request("k");
    let owner = request.owner;
    let taking = servers.stage.take(request);
    let (_, reply) = servers.stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    assert!(taking.join().unwrap().is_err());
    servers.answer_release(owner, Ok(false));
    servers.switch("k");
    servers.stage.catch_up();
    // In one step past the watch.
    servers.stage.clock.advance(ORPHAN_WATCH);
    servers.answer_release(owner, Ok(true));
    servers.stage.nothing();
}

#[test]
fn a_release_is_forgotten_when_the_ttl_has_freed_the_lock() {
    let servers = Servers::start();
    servers.until_needed(false);
    servers.take_and_release("k");
    servers.until_needed(true);
    servers.stage.clock.advance(TTL);
    servers.until_needed(false);
    servers.switch("k");
    servers.stage.nothing();
}

#[test]
fn a_release_of_a_long_lease_is_forgotten_when_a_failover_would_be_known() {
    let servers = Servers::start();
    let request = AcquireRequest {
        ttl: 10 * LONGEST,
        ..servers.stage.request("k")
    };
    let held = servers.stage.held(request);
    let owner = held.lease().owner;
    servers.until_needed(true);
    let releasing = release(held);
    servers.answer_release(owner, Ok(true));
    releasing.join().unwrap().unwrap();
    servers
        .stage
        .clock
        .advance(LONGEST - Duration::from_secs(1));
    servers.until_needed(true);
    servers.switch("k");
    servers.answer_release(owner, Ok(false));
    servers.stage.clock.advance(LONGEST);
    servers.until_needed(false);
    servers.switch("k");
    servers.stage.nothing();
}

#[test]
fn only_so_many_releases_are_remembered_the_latest() {
    let servers = Servers::start();
    let owners: Vec<_> = (0..MOST + 3)
        .map(|_| servers.take_and_release("k"))
        .collect();
    servers.switch("k");
    let (batch, _reply) = servers.stage.release();
    let again: Vec<_> = batch.iter().map(|release| release.owner).collect();
    assert_eq!(again, owners[3..]);
}

#[test]
fn nothing_is_remembered_where_no_other_server_ever_comes() {
    let (tell, watched) = channel();
    drop(watched);
    let stage = Stage::over(Some(tell));
    let held = stage.hold("k");
    let releasing = release(held);
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
    releasing.join().unwrap().unwrap();
    stage.clock.advance(TTL);
    stage.nothing();
}

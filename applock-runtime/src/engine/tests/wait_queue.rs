//! Waiters in the store's wait queue: how they are notified, which grants they accept,
//! and how they leave.

use std::time::Instant;

use super::*;
use crate::store::{CLAIM, Notification, Notifications, QueuePosition};

/// The server's clock when the tests begin, in microseconds.
const SERVER: u64 = 1_800_000_000_000_000;

/// When a lock that was handed over is confirmed.
const CONFIRM: Duration = Duration::from_millis(50);

/// A caller in the wait queue.
pub(super) struct QueuedCall {
    pub(super) owner: OwnerId,
    pub(super) taking: AcquireThread,
    pub(super) notifications: Notifications,
}

impl QueuedCall {
    /// The store notifies it of its grant, `passed` after its request.
    pub(super) fn notified(&self, passed: Duration) {
        let notice = Notification::Granted(key(), grant(self.owner, passed));
        self.notifications.send(notice).unwrap();
    }

    pub(super) fn held(self) -> Held {
        let start = Instant::now();
        while !self.taking.is_finished() {
            assert!(start.elapsed() < SOON, "it is never notified");
            std::thread::yield_now();
        }
        self.taking.join().unwrap().unwrap()
    }
}

pub(super) fn key() -> Key {
    Key::of_lock("k")
}

pub(super) fn grant(owner: OwnerId, passed: Duration) -> Grant {
    Grant {
        owner,
        token: 7,
        at: SystemTime::UNIX_EPOCH,
        micros: SERVER + u64::try_from(passed.as_micros()).unwrap(),
        claim: CLAIM,
        needs_proof: false,
    }
}

fn holder() -> crate::LockInfo {
    Record {
        is_kept: false,
        foreign: None,
        ..Record::foreign("k".into(), "x", Some(Duration::from_secs(600)))
    }
    .into()
}

/// Queued, when the server has seen `passed` go by.
pub(super) fn queue_answer(ahead: u64, passed: Duration) -> StoreResult<Acquired> {
    Ok(Acquired::Queued(QueuePosition {
        holder: holder(),
        ahead,
        at: SERVER + u64::try_from(passed.as_micros()).unwrap(),
        is_new: passed.is_zero(),
        ticket: passed.is_zero().then_some(SERVER),
        is_notified: true,
    }))
}

impl Stage {
    fn waiting(&self, wait: Wait) -> AcquireRequest {
        AcquireRequest {
            wait,
            ..self.request("k")
        }
    }

    /// A caller asks for the lock, and is queued.
    pub(super) fn queued(&self, wait: Wait, ahead: u64) -> QueuedCall {
        let request = self.waiting(wait);
        let owner = request.owner;
        let taking = self.take(request);
        let (mut batch, reply) = self.acquire();
        reply
            .send(vec![queue_answer(ahead, Duration::ZERO)])
            .unwrap();
        self.catch_up();
        let notifications = batch.remove(0).notifications.expect("the caller waits");
        QueuedCall {
            owner,
            taking,
            notifications,
        }
    }

    /// The next question is that owner's, with the ticket of its place.
    pub(super) fn poll(&self, owner: OwnerId) -> oneshot::Sender<Vec<StoreResult<Acquired>>> {
        let (batch, reply) = self.acquire();
        assert_eq!((batch.len(), batch[0].owner), (1, owner));
        assert_eq!(batch[0].ticket, Some(SERVER));
        reply
    }
}

#[test]
fn a_grant_is_judged_from_the_last_question_and_what_passed_at_the_store() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    // Earlier than its next poll, whose answer would come first.
    let passed = Duration::from_millis(600);
    stage.clock.advance(Duration::from_millis(650));
    first.notified(passed);
    let held = first.held();
    // Clocks may differ by 1 %; the 50 ms that the message took are gone as well.
    let gone = Duration::from_millis(50) + passed / 100;
    let whole = CLAIM - margin(CLAIM);
    assert_eq!(held.lease().remaining(), whole - gone);
    assert_eq!(held.lease().token, 7);
}

#[test]
fn a_grant_that_comes_too_late_is_asked_for_and_not_believed() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 5);
    let passed = Duration::from_millis(100);
    stage.clock.advance(passed + CLAIM);
    first.notified(passed);
    let reply = stage.poll(first.owner);
    assert!(!first.taking.is_finished());
    reply.send(vec![granted()]).unwrap();
    let held = first.held();
    assert_eq!(held.lease().remaining(), TTL - margin(TTL));
    assert_eq!(held.lease().token, 1);
}

#[test]
fn a_grant_of_a_server_whose_clock_has_jumped_is_asked_for() {
    let hour = Duration::from_secs(3600);
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    first.notified(hour);
    let reply = stage.poll(first.owner);
    reply.send(vec![granted()]).unwrap();
    drop(first.held());

    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    let back = Notification::Granted(
        key(),
        Grant {
            micros: SERVER - 1,
            ..grant(first.owner, Duration::ZERO)
        },
    );
    first.notifications.send(back).unwrap();
    stage.poll(first.owner);
    assert!(!first.taking.is_finished());
}

#[test]
fn what_was_handed_over_is_confirmed_soon_and_is_a_full_lease_then() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    first.notified(Duration::ZERO);
    let held = first.held();
    stage.nothing();
    stage.clock.advance(CONFIRM);
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    stage.until("the lease is whole", || {
        held.lease().remaining() == TTL - margin(TTL)
    });
    stage.nothing();
}

#[test]
fn a_claim_that_is_not_confirmed_ends_with_no_answer_from_anyone() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    first.notified(Duration::ZERO);
    let held = first.held();
    stage.clock.advance(CONFIRM);
    let (_, _silent) = stage.renew();
    stage.clock.advance(CLAIM - margin(CLAIM) - CONFIRM);
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Expired));
}

#[test]
fn a_section_that_is_over_soon_spares_the_heartbeat() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    let owner = first.owner;
    first.notified(Duration::ZERO);
    drop(first.held());
    let (batch, _) = stage.release();
    assert_eq!(batch[0].owner, owner);
}

#[test]
fn a_grant_that_crosses_a_question_counts_whatever_the_answer() {
    let answers = [queue_answer(0, Duration::from_secs(1)), unknown()];
    for answer in answers {
        let stage = Stage::new();
        let first = stage.queued(Wait::Forever, 0);
        stage.clock.advance(Duration::from_secs(1));
        let reply = stage.poll(first.owner);
        stage.clock.advance(Duration::from_millis(200));
        first.notified(Duration::from_millis(1100));
        stage.catch_up();
        assert!(!first.taking.is_finished(), "the answer may say more");
        reply.send(vec![answer]).unwrap();
        let held = first.held();
        assert_eq!(held.lease().token, 7);
        assert!(held.lease().remaining() > CLAIM - Duration::from_millis(200));
    }
}

#[test]
fn a_release_that_hands_the_lock_to_a_waiter_of_this_engine_notifies_it_by_its_answer() {
    let stage = Stage::new();
    let holder = stage.hold("k");
    let first = stage.queued(Wait::Forever, 0);
    let second = stage.queued(Wait::Forever, 1);
    *stage.next.lock().unwrap() = Some(grant(first.owner, Duration::ZERO));
    drop(holder);
    let (_, reply) = stage.release();
    let late = Duration::from_millis(300);
    stage.clock.advance(late);
    reply.send(vec![Ok(true)]).unwrap();
    let held = first.held();
    // From the sending of the release, whatever the clock of the server says.
    assert_eq!(held.lease().remaining(), CLAIM - margin(CLAIM) - late);
    assert!(!second.taking.is_finished());
}

#[test]
fn only_the_first_waiter_of_an_engine_polls_and_then_the_next() {
    let stage = Stage::new();
    let first = stage.queued(Wait::For(Duration::from_secs(3)), 0);
    let second = stage.queued(Wait::Forever, 1);
    let mut passed = Duration::ZERO;
    for _ in 0..2 {
        stage.clock.advance(Duration::from_secs(1));
        passed += Duration::from_secs(1);
        let reply = stage.poll(first.owner);
        reply.send(vec![queue_answer(0, passed)]).unwrap();
        stage.catch_up();
        stage.nothing();
    }
    // Its deadline has passed: it leaves, and the waiter behind it polls from now on.
    stage.clock.advance(Duration::from_secs(1));
    let (batch, reply) = stage.release();
    assert_eq!(batch[0].owner, first.owner);
    assert!(matches!(first.taking.join().unwrap(), Err(Error::Busy(_))));
    reply.send(vec![Ok(false)]).unwrap();
    stage.catch_up();
    stage.nothing();
    stage.clock.advance(Duration::from_secs(1));
    stage.poll(second.owner);
}

#[test]
fn a_waiter_is_answered_at_its_deadline_though_a_request_is_in_flight() {
    let stage = Stage::new();
    let first = stage.queued(Wait::For(Duration::from_millis(1100)), 0);
    let owner = first.owner;
    stage.clock.advance(Duration::from_secs(1));
    let reply = stage.poll(owner);
    stage.clock.advance(Duration::from_millis(100));
    assert!(matches!(first.taking.join().unwrap(), Err(Error::Busy(_))));
    // The grant comes after all: its caller has gone, so the lock is released.
    reply.send(vec![granted()]).unwrap();
    let (batch, _) = stage.release();
    assert_eq!(batch[0].owner, owner);
}

#[test]
fn a_waiter_that_is_dropped_leaves_the_queue_at_once_and_a_late_grant_is_given_back() {
    let stage = Stage::new();
    let request = stage.waiting(Wait::Forever);
    let owner = request.owner;
    let mut taking = Box::pin(stage.engine.acquire(request));
    let mut context = Context::from_waker(Waker::noop());
    assert!(taking.as_mut().poll(&mut context).is_pending());
    let (batch, reply) = stage.acquire();
    let notifications = batch[0].notifications.clone().unwrap();
    reply.send(vec![queue_answer(3, Duration::ZERO)]).unwrap();
    stage.catch_up();
    stage.nothing();
    drop(taking);
    let (batch, reply) = stage.release();
    assert_eq!(batch[0].owner, owner);
    // The release that is on its way passes the lock on.
    let crossing = Notification::Granted(key(), grant(owner, Duration::ZERO));
    notifications.send(crossing.clone()).unwrap();
    stage.catch_up();
    stage.nothing();
    reply.send(vec![Ok(true)]).unwrap();
    stage.catch_up();
    // One that comes when nobody is left who waits for it would keep the lock for its claim (F39).
    notifications.send(crossing).unwrap();
    let (batch, reply) = stage.release();
    assert_eq!((batch[0].owner, &batch[0].key.lock), (owner, &key().lock));
    reply.send(vec![Ok(false)]).unwrap();
    stage.catch_up();
    stage.clock.advance(TTL);
    stage.nothing();
}

#[test]
fn a_waiter_whose_request_was_not_answered_leaves_more_than_once() {
    let stage = Stage::new();
    let first = stage.queued(Wait::For(Duration::from_secs(2)), 0);
    stage.clock.advance(Duration::from_secs(1));
    let reply = stage.poll(first.owner);
    reply.send(vec![unknown()]).unwrap();
    stage.catch_up();
    stage.clock.advance(Duration::from_secs(1));
    assert!(first.taking.join().unwrap().is_err());
    // The request may arrive after the first of these, and queue the waiter again.
    for _ in 0..2 {
        let (batch, reply) = stage.release();
        assert_eq!(batch[0].owner, first.owner);
        reply.send(vec![Ok(false)]).unwrap();
        stage.catch_up();
        stage.clock.advance(Duration::from_millis(500));
    }
}

#[test]
fn where_the_store_begins_to_notify_the_first_waiter_polls_once() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 40);
    first.notifications.send(Notification::Poll).unwrap();
    let reply = stage.poll(first.owner);
    reply
        .send(vec![queue_answer(40, Duration::from_secs(1))])
        .unwrap();
    stage.catch_up();
    stage.nothing();
}

#[test]
fn a_wait_queue_that_the_store_has_lost_is_made_anew_in_its_order() {
    let stage = Stage::new();
    let owners = [
        stage.queued(Wait::Forever, 0).owner,
        stage.queued(Wait::Forever, 1).owner,
        stage.queued(Wait::Forever, 2).owner,
    ];
    stage.clock.advance(Duration::from_secs(1));
    let reply = stage.poll(owners[0]);
    reply.send(vec![queue_answer(0, Duration::ZERO)]).unwrap();
    let (batch, reply) = stage.acquire();
    let asked: Vec<OwnerId> = batch.iter().map(|acquire| acquire.owner).collect();
    assert_eq!(asked, owners[1..]);
    // They are new in the queue as well, and ask no others.
    let places = [1, 2].map(|ahead| queue_answer(ahead, Duration::ZERO));
    reply.send(places.into()).unwrap();
    stage.nothing();
}

//! What follows from an answer, where a slip would go unnoticed for long.

use super::wait_queue::{grant, key, queue_answer};
use super::*;
use crate::store::{CLAIM, Notification, QueuePosition};

/// A waiter's request that no caller waits for any more, and its answer's way.
fn given_up(stage: &Stage) -> (OwnerId, oneshot::Sender<Vec<StoreResult<Acquired>>>) {
    let request = waiting(stage);
    let owner = request.owner;
    let mut taking = Box::pin(stage.engine.acquire(request));
    let mut context = Context::from_waker(Waker::noop());
    assert!(taking.as_mut().poll(&mut context).is_pending());
    let (_, reply) = stage.acquire();
    drop(taking);
    stage.catch_up();
    (owner, reply)
}

fn waiting(stage: &Stage) -> AcquireRequest {
    AcquireRequest {
        wait: Wait::Forever,
        ..stage.request("k")
    }
}

const fn millis(length: u64) -> Duration {
    Duration::from_millis(length)
}

/// Who holds the lock that others wait for.
fn held_by(owner: OwnerId, left: Option<Duration>) -> crate::LockInfo {
    Record {
        foreign: None,
        owner: owner.simple().to_string(),
        ..Record::foreign("k".into(), "x", left)
    }
    .into()
}

/// The answer to a waiter that stands in the queue.
fn place(
    answer: StoreResult<Acquired>,
    change: impl FnOnce(&mut QueuePosition),
) -> StoreResult<Acquired> {
    match answer {
        Ok(Acquired::Queued(mut place)) => {
            change(&mut place);
            Ok(Acquired::Queued(place))
        }
        other => other,
    }
}

#[test]
fn polls_of_a_busy_lock_grow_rarer() {
    let stage = Stage::new();
    let _taking = stage.take(waiting(&stage));
    for _ in 0..6 {
        let (_, reply) = stage.acquire();
        let holder = held_by(OwnerId::new_v4(), None);
        reply.send(vec![Ok(Acquired::Busy(holder))]).unwrap();
        stage.catch_up();
        stage.clock.advance(millis(250));
    }
    let (_, reply) = stage.acquire();
    let holder = held_by(OwnerId::new_v4(), None);
    reply.send(vec![Ok(Acquired::Busy(holder))]).unwrap();
    stage.catch_up();
    // From half of the longest pause to the whole of it.
    stage.clock.advance(millis(124));
    stage.nothing();
    stage.clock.advance(millis(126));
    stage.acquire();
}

#[test]
fn tries_at_a_store_that_fails_grow_rarer() {
    let stage = Stage::new();
    let _taking = stage.take(waiting(&stage));
    for _ in 0..6 {
        let (_, reply) = stage.acquire();
        reply.send(vec![unknown()]).unwrap();
        stage.catch_up();
        stage.clock.advance(millis(500));
    }
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    stage.catch_up();
    stage.clock.advance(millis(249));
    stage.nothing();
    stage.clock.advance(millis(251));
    stage.acquire();
}

#[test]
fn a_busy_lock_is_asked_for_right_after_its_holders_end_and_not_before() {
    let left = millis(5);
    let answers: [fn(Duration) -> StoreResult<Acquired>; 2] = [
        |left| Ok(Acquired::Busy(held_by(OwnerId::new_v4(), Some(left)))),
        |left| {
            place(queue_answer(0, Duration::ZERO), |place| {
                place.holder = held_by(OwnerId::new_v4(), Some(left));
            })
        },
    ];
    for answer in answers {
        let stage = Stage::new();
        let _taking = stage.take(waiting(&stage));
        let (_, reply) = stage.acquire();
        reply.send(vec![answer(left)]).unwrap();
        stage.catch_up();
        stage.clock.advance(left);
        stage.nothing();
        stage.clock.advance(millis(1));
        stage.acquire();
    }
}

#[test]
fn a_waiter_that_is_notified_polls_seldom_and_one_that_is_not_the_oftener_the_nearer_it_is() {
    // How far back; after how many polls; from when to when it polls next.
    for (is_notified, ahead, polls, earliest, latest) in [
        (true, 0, 0, 750, 1_000),
        (true, 4, 3, 3_000, 4_000),
        (false, 1, 0, 10, 20),
        (false, 1, 7, 125, 250),
        (false, 3, 7, 375, 750),
        (false, 90, 7, 500, 1_000),
    ] {
        let stage = Stage::new();
        let _taking = stage.take(waiting(&stage));
        for poll in 0..=polls {
            let (_, reply) = stage.acquire();
            let passed = millis(poll * 10_000);
            let answer = place(queue_answer(ahead, passed), |place| {
                place.is_notified = is_notified;
            });
            reply.send(vec![answer]).unwrap();
            stage.catch_up();
            if poll < polls {
                stage.clock.advance(millis(10_000));
            }
        }
        stage.clock.advance(millis(earliest - 1));
        stage.nothing();
        stage.clock.advance(millis(latest - earliest + 1));
        stage.acquire();
    }
}

#[test]
fn what_a_caller_that_has_gone_may_have_is_given_back_with_the_answer() {
    for answer in [queue_answer(3, Duration::ZERO), unknown(), granted()] {
        let stage = Stage::new();
        let (owner, reply) = given_up(&stage);
        reply.send(vec![answer]).unwrap();
        // The clock stands still.
        let (batch, _reply) = stage.release();
        assert_eq!(batch[0].owner, owner);
    }
}

#[test]
fn a_waiter_of_this_process_that_has_the_lock_unheard_asks_soon() {
    let stage = Stage::new();
    let first = stage.queued(Wait::Forever, 0);
    let second = stage.queued(Wait::Forever, 1);
    stage.clock.advance(Duration::from_secs(1));
    let reply = stage.poll(first.owner);
    let answer = place(queue_answer(0, Duration::from_secs(1)), |place| {
        place.holder = held_by(second.owner, Some(Duration::from_secs(600)));
    });
    reply.send(vec![answer]).unwrap();
    stage.catch_up();
    stage.clock.advance(millis(9));
    stage.nothing();
    stage.clock.advance(millis(1));
    let reply = stage.poll(second.owner);
    reply.send(vec![granted()]).unwrap();
    drop(second.held());
}

#[test]
fn a_grant_is_believed_whose_claim_is_no_longer_than_the_lease() {
    for (ttl, is_believed) in [
        (CLAIM, true),
        (CLAIM + millis(1), true),
        (CLAIM - millis(1), false),
    ] {
        let stage = Stage::new();
        let request = AcquireRequest {
            ttl,
            ..waiting(&stage)
        };
        let owner = request.owner;
        let taking = stage.take(request);
        let (mut batch, reply) = stage.acquire();
        reply.send(vec![queue_answer(0, Duration::ZERO)]).unwrap();
        stage.catch_up();
        let notice = Notification::Granted(key(), grant(owner, Duration::ZERO));
        let notifications = batch.remove(0).notifications.unwrap();
        notifications.send(notice).unwrap();
        if is_believed {
            let held = taking.join().unwrap().unwrap();
            assert_eq!(held.lease().remaining(), CLAIM - margin(CLAIM));
        } else {
            stage.poll(owner);
        }
    }
}

#[test]
fn a_lock_that_was_handed_over_too_long_ago_is_asked_for() {
    let stage = Stage::new();
    let holder = stage.hold("k");
    let first = stage.queued(Wait::Forever, 0);
    let _second = stage.queued(Wait::Forever, 1);
    stage.clock.advance(Duration::from_secs(1));
    let poll = stage.poll(first.owner);
    poll.send(vec![queue_answer(9, Duration::from_secs(1))])
        .unwrap();
    stage.catch_up();
    *stage.next.lock().unwrap() = Some(grant(first.owner, Duration::ZERO));
    drop(holder);
    let (_, reply) = stage.release();
    stage.clock.advance(CLAIM);
    reply.send(vec![Ok(true)]).unwrap();
    // Of the two that wait, the one that was granted it.
    stage.poll(first.owner);
}

/// The store may have lost its queue, and given the lock to who asked first (F38). One that was
/// notified stood in the queue: the others do as well.
#[test]
fn the_next_waiter_polls_at_once_after_one_that_was_granted_the_lock_by_a_poll() {
    for by_poll in [true, false] {
        let stage = Stage::new();
        let first = stage.queued(Wait::Forever, 0);
        let second = stage.queued(Wait::Forever, 1);
        if by_poll {
            stage.clock.advance(Duration::from_secs(1));
            stage.poll(first.owner).send(vec![granted()]).unwrap();
            stage.poll(second.owner);
        } else {
            first.notified(Duration::ZERO);
            let _held = first.held();
            stage.nothing();
        }
    }
}

#[test]
fn a_shutdown_does_not_wait_for_an_orphan_that_is_only_watched() {
    let stage = Stage::new();
    let taking = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    assert!(taking.join().unwrap().is_err());
    let (_, reply) = stage.release();
    // The store may know of something to release: that is waited for.
    let closing = stage.shutdown(Duration::from_secs(60));
    stage.catch_up();
    assert!(!closing.is_finished());
    reply.send(vec![Ok(false)]).unwrap();
    // Nothing is held, as far as is known. The clock stands still.
    stage.until("the shutdown is over", || closing.is_finished());
    closing.join().unwrap().unwrap();
}

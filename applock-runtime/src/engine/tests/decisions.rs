//! What follows from an answer, where a slip would go unnoticed for long.

use super::wait_queue::{grant, key, queue_answer};
use super::*;
use crate::info::{Ending, LastHolding};
use crate::protocol::{Due, Tick};
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

/// Another server may lack what was granted, renewed or queued last.
#[test]
fn where_another_server_serves_some_locks_their_holders_and_all_their_waiters_ask_it() {
    let stage = Stage::new();
    let _held = [stage.hold("moved"), stage.hold("stays")];
    let first = stage.queued(Wait::Forever, 0);
    let second = stage.queued(Wait::Forever, 1);
    let moved = |is_meant: fn(&Key) -> bool| {
        let notice = Notification::Moved(Arc::new(is_meant));
        first.notifications.send(notice).unwrap();
    };
    moved(|key| &*key.lock == "another");
    stage.nothing();
    moved(|key| &*key.lock != "stays");
    let (mut acquires, mut renewals) = (Vec::new(), Vec::new());
    let mut replies = Vec::new();
    for _ in 0..2 {
        match stage.next() {
            Asked::Acquire(batch, reply) => {
                acquires.extend(batch.iter().map(|acquire| acquire.owner));
                replies.push(reply);
            }
            Asked::Renew(batch, reply) => {
                renewals.extend(batch.iter().map(|renew| renew.key.lock.to_string()));
                reply.send(vec![Ok(true)]).unwrap();
            }
            Asked::Release(..) => panic!("nothing is released"),
        }
    }
    assert_eq!(acquires, [first.owner, second.owner]);
    assert_eq!(renewals, ["moved"]);
    stage.nothing();
}

/// The end of a lease is armed while the heartbeat that asks the other server is in flight, too.
#[test]
fn a_lease_whose_server_has_moved_and_is_silent_ends_on_time() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let waiter = stage.queued(Wait::Forever, 0);
    let notice = Notification::Moved(Arc::new(|_| true));
    waiter.notifications.send(notice).unwrap();
    let _silent = (stage.next(), stage.next());
    stage.clock.advance(TTL - margin(TTL));
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Expired));
}

#[test]
fn a_run_that_forbids_a_waiters_is_its_answer_and_the_other_waiters_ask_at_once() {
    const GAP: Duration = Duration::from_secs(60);
    let gap = u64::try_from(GAP.as_micros()).unwrap();
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    for (tick, next_at) in [(Tick::Gap(gap), Some(from + GAP)), (Tick::Number(7), None)] {
        let stage = Stage::new();
        let due = |request| AcquireRequest {
            due: Some(Due {
                tick,
                retry_failed: false,
            }),
            ..request
        };
        let requests = [due(waiting(&stage)), due(waiting(&stage))];
        let owners = [requests[0].owner, requests[1].owner];
        let mut waiters = requests.map(|request| {
            let taking = stage.take(request);
            let (_, reply) = stage.acquire();
            reply.send(vec![queue_answer(0, Duration::ZERO)]).unwrap();
            stage.catch_up();
            Some(taking)
        });
        stage.clock.advance(Duration::from_secs(1));
        let reply = stage.poll(owners[0]);
        let run = ran_at(from);
        reply.send(vec![Ok(Acquired::AlreadyRan(run))]).unwrap();
        let Err(Error::AlreadyRan(run)) = waiters[0].take().unwrap().join().unwrap() else {
            panic!("it is refused because of that run");
        };
        assert_eq!((run.from, run.next_at), (from, next_at));
        // The store has it in its queue no more, so there is nothing to release. The clock stands
        // still.
        let reply = stage.poll(owners[1]);
        reply.send(vec![queue_answer(0, Duration::ZERO)]).unwrap();
        stage.nothing();
        assert!(!waiters[1].as_ref().unwrap().is_finished());
    }
}

/// It has stood in no queue, so what forbids it says nothing of those that wait.
#[test]
fn a_run_that_forbids_a_newcomers_wakes_no_waiter() {
    let stage = Stage::new();
    let _first = stage.queued(Wait::Forever, 0);
    let _second = stage.queued(Wait::Forever, 1);
    let taking = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    let run = ran_at(SystemTime::UNIX_EPOCH);
    reply.send(vec![Ok(Acquired::AlreadyRan(run))]).unwrap();
    assert!(matches!(taking.join().unwrap(), Err(Error::AlreadyRan(_))));
    stage.nothing();
}

fn ran_at(from: SystemTime) -> LastHolding {
    LastHolding {
        key: "k".into(),
        function: None,
        owner_id: "o".into(),
        instance_id: "i".into(),
        host: "h".into(),
        pid: None,
        fencing_token: 3,
        from,
        until: None,
        ending: Ending::Ok,
        forced_by: None,
        next_at: None,
    }
}

/// One heartbeat has left for an operator. The timer of the next one fires before it is answered,
/// and its answer counts as the next one.
#[test]
fn a_heartbeat_that_becomes_due_while_one_is_in_flight_is_not_sent_twice() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 6);
    let key = Key::whole("k").unwrap();
    assert!(block_on(stage.engine.force(key, None, String::new())).unwrap());
    let (_, reply) = stage.renew();
    stage.clock.advance(TTL / 6);
    stage.nothing();
    reply.send(vec![Ok(true)]).unwrap();
    stage.nothing();
    assert!(held.lease().is_valid());
}

#[test]
fn a_verify_whose_heartbeat_fails_after_the_lease_says_that_it_is_over() {
    let stage = Stage::new();
    let held = Arc::new(stage.hold("k"));
    let asking = verify(&held);
    let (_, reply) = stage.renew();
    stage.clock.advance(TTL);
    is_notified(&held);
    reply.send(vec![unknown()]).unwrap();
    assert!(!asking.join().unwrap().unwrap());
}

#[test]
fn a_verify_that_came_during_a_heartbeat_is_answered_if_that_one_finds_the_loss() {
    let stage = Stage::new();
    let held = Arc::new(stage.hold("k"));
    stage.clock.advance(TTL / 3);
    let (_, reply) = stage.renew();
    let asking = verify(&held);
    stage.nothing();
    reply.send(vec![Ok(false)]).unwrap();
    stage.until("it is answered", || asking.is_finished());
    assert!(!asking.join().unwrap().unwrap());
    stage.nothing();
}

/// The release may have handed the lock to a waiter here that hears nothing of it.
#[test]
fn the_first_waiter_polls_at_once_after_a_release_that_may_have_granted_it_the_lock_unheard() {
    // The answer to the release, whether waiters are notified, and whether one polls.
    for (answer, is_notified, polls) in [
        (unknown(), true, true),
        (Ok(true), false, true),
        (Ok(true), true, false),
    ] {
        let stage = Stage::new();
        let holder = stage.hold("k");
        let request = waiting(&stage);
        let owner = request.owner;
        let _taking = stage.take(request);
        let (_, reply) = stage.acquire();
        let queued = place(queue_answer(0, Duration::ZERO), |place| {
            place.is_notified = is_notified;
        });
        reply.send(vec![queued]).unwrap();
        stage.catch_up();
        drop(holder);
        let (_, reply) = stage.release();
        reply.send(vec![answer]).unwrap();
        if polls {
            stage.poll(owner);
        }
        stage.nothing();
    }
}

/// Its answer was lost, so who has the lock since then is not known either.
#[test]
fn the_first_waiter_polls_after_a_release_that_was_repeated() {
    let stage = Stage::new();
    let holder = stage.hold("k");
    let first = stage.queued(Wait::Forever, 0);
    drop(holder);
    let (_, reply) = stage.release();
    reply.send(vec![dead()]).unwrap();
    let mut again = None;
    for _ in 0..2 {
        match stage.next() {
            Asked::Acquire(batch, reply) => {
                assert_eq!(batch[0].owner, first.owner);
                let still = queue_answer(0, Duration::from_micros(1));
                reply.send(vec![still]).unwrap();
            }
            Asked::Release(_, reply) => again = Some(reply),
            Asked::Renew(..) => panic!("nothing is held"),
        }
    }
    stage.nothing();
    again.unwrap().send(vec![Ok(false)]).unwrap();
    stage.poll(first.owner);
}

#[test]
fn a_release_over_a_connection_that_dies_twice_is_reported_and_not_sent_again_at_once() {
    let stage = Stage::new();
    let releasing = release(stage.hold("k"));
    for _ in 0..2 {
        let (_, reply) = stage.release();
        reply.send(vec![dead()]).unwrap();
    }
    assert!(matches!(
        releasing.join().unwrap(),
        Err(Error::Unavailable(_))
    ));
    stage.nothing();
    stage.clock.advance(millis(500));
    stage.release();
}

#[test]
fn an_orphan_that_is_watched_is_released_ever_more_rarely() {
    let stage = Stage::new();
    let taking = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    assert!(taking.join().unwrap().is_err());
    for longest in [50, 100, 200, 400] {
        let (_, reply) = stage.release();
        reply.send(vec![Ok(false)]).unwrap();
        stage.catch_up();
        stage.clock.advance(millis(longest));
    }
    let (_, reply) = stage.release();
    reply.send(vec![Ok(false)]).unwrap();
    stage.catch_up();
    stage.clock.advance(millis(399));
    stage.nothing();
    stage.clock.advance(millis(401));
    stage.release();
}

#[test]
fn when_the_orphan_that_tries_for_the_others_is_given_up_the_next_one_tries() {
    let stage = Stage::new();
    let short = AcquireRequest {
        ttl: Duration::from_secs(1),
        ..stage.request("short")
    };
    for request in [short, stage.request("long")] {
        let trying = stage.take(request);
        let (_, reply) = stage.acquire();
        reply.send(vec![unknown()]).unwrap();
        assert!(trying.join().unwrap().is_err());
        let (_, reply) = stage.release();
        reply.send(vec![unknown()]).unwrap();
        stage.catch_up();
    }
    // The first one tries for both, until its ttl has freed what it may have taken.
    stage.clock.advance(millis(500));
    let (batch, reply) = stage.release();
    assert_eq!(&*batch[0].key.lock, "short");
    stage.clock.advance(Duration::from_secs(1) + ORPHAN_WATCH);
    reply.send(vec![unknown()]).unwrap();
    let (batch, _reply) = stage.release();
    assert_eq!(&*batch[0].key.lock, "long");
}

//! What the engine counts and times by its table: locks, orphans, callers, and how long an answer
//! may take.

use super::wait_queue::{grant, key, queue_answer};
use super::*;
use crate::engine::farewell::FAREWELL;
use crate::engine::lease_time::MIN_TTL;
use crate::store::{CLAIM, Notification};

/// A caller in vain, whose orphan the store does not know: only a late request is watched for.
fn orphan(stage: &Stage) {
    let trying = stage.take(stage.request("orphan"));
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    assert!(trying.join().unwrap().is_err());
    let (_, reply) = stage.release();
    reply.send(vec![Ok(false)]).unwrap();
    stage.catch_up();
}

fn let_go(stage: &Stage, held: Held) {
    drop(held);
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
    stage.catch_up();
}

#[test]
fn a_shutdown_waits_for_no_watched_orphan_whatever_else_came_and_went() {
    let stage = Stage::new();
    orphan(&stage);
    let_go(&stage, stage.hold("k"));
    let closing = stage.shutdown(Duration::from_secs(60));
    stage.until("the shutdown is over", || closing.is_finished());
    closing.join().unwrap().unwrap();
}

#[test]
fn a_shutdown_waits_for_a_holder_also_after_an_orphan_was_watched_to_its_end() {
    let stage = Stage::new();
    orphan(&stage);
    stage.clock.advance(ORPHAN_WATCH);
    stage.nothing();
    assert_eq!(stage.engine.unfinished(), 0);
    let held = stage.hold("k");
    let closing = stage.shutdown(Duration::from_secs(60));
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Shutdown));
    stage.catch_up();
    assert!(!closing.is_finished());
    let_go(&stage, held);
    closing.join().unwrap().unwrap();
}

#[test]
fn an_acquisition_counts_from_its_request_to_its_end() {
    let stage = Stage::new();
    let trying = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    assert_eq!(stage.engine.unfinished(), 1);
    assert_eq!(stage.engine.health().held, 0);
    reply.send(vec![granted()]).unwrap();
    let held = trying.join().unwrap().unwrap();
    stage.catch_up();
    assert_eq!(stage.engine.unfinished(), 1);
    assert_eq!(stage.engine.health().held, 1);
    let_go(&stage, held);
    assert_eq!(stage.engine.unfinished(), 0);
    assert_eq!(stage.engine.health().held, 0);
    // A waiter that leaves before its answer, and a grant to nobody.
    let waiter = stage.queued(Wait::For(Duration::from_secs(1)), 0);
    let notifications = waiter.notifications.clone();
    stage.clock.advance(Duration::from_secs(1));
    assert!(waiter.taking.join().unwrap().is_err());
    for _ in 0..2 {
        let (_, reply) = stage.release();
        assert_eq!(stage.engine.unfinished(), 1);
        reply.send(vec![Ok(false)]).unwrap();
        stage.catch_up();
        assert_eq!(stage.engine.unfinished(), 0);
        let unknown = grant(OwnerId::new_v4(), Duration::ZERO);
        let notice = Notification::Granted(key(), unknown);
        notifications.send(notice).unwrap();
    }
}

#[test]
fn a_grant_to_nobody_is_given_back_until_the_store_has_answered() {
    let stage = Stage::new();
    let waiter = stage.queued(Wait::Forever, 0);
    let nobody = OwnerId::new_v4();
    let notice = Notification::Granted(key(), grant(nobody, Duration::ZERO));
    waiter.notifications.send(notice).unwrap();
    let (_, reply) = stage.release();
    reply.send(vec![unknown()]).unwrap();
    // The waiter here polls: it may have the lock by that.
    stage
        .poll(waiter.owner)
        .send(vec![queue_answer(0, Duration::from_micros(1))])
        .unwrap();
    stage.catch_up();
    stage.clock.advance(Duration::from_millis(100));
    let (batch, reply) = stage.release();
    assert_eq!(batch[0].owner, nobody);
    reply.send(vec![Ok(true)]).unwrap();
    stage.catch_up();
}

/// The end of `main` may be such an end.
#[test]
fn a_thread_that_has_let_go_waits_a_moment_for_the_release_at_its_end() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let start = std::time::Instant::now();
    let thread = std::thread::spawn(move || drop(held));
    let (_, _silent) = stage.release();
    thread.join().unwrap();
    assert!(start.elapsed() >= FAREWELL);
}

#[test]
fn the_wall_clock_is_checked_each_second_however_many_locks_are_taken() {
    let second = Duration::from_secs(1);
    let stage = Stage::new();
    let _first = stage.hold("a");
    stage.clock.advance(second);
    stage.catch_up();
    stage.clock.advance(second / 2);
    stage.clock.advance_wall(Duration::from_secs(600));
    let _second = stage.hold("b");
    stage.nothing();
    stage.clock.advance(second / 2);
    let (batch, _) = stage.renew();
    assert_eq!(&*batch[0].key.lock, "a");
}

/// An answer that comes after the lease's end is of no use, and two heartbeats have to fit.
#[test]
fn a_request_has_as_long_as_its_lease_leaves_and_no_longer_than_a_command() {
    let stage = Stage::new();
    let command = Duration::from_secs(1);
    let waited = || *stage.timeout.lock().unwrap();
    let short = AcquireRequest {
        ttl: MIN_TTL,
        ..stage.request("short")
    };
    let held = stage.held(short);
    assert_eq!(waited(), (MIN_TTL - margin(MIN_TTL)).min(command));
    assert!(waited() < command);
    stage.clock.advance(MIN_TTL / 3);
    let (_, reply) = stage.renew();
    assert_eq!(waited(), MIN_TTL / 4);
    reply.send(vec![Ok(true)]).unwrap();
    stage.catch_up();
    let_go(&stage, held);
    assert_eq!(waited(), command);
    let held = stage.hold("long");
    assert_eq!(waited(), command);
    stage.clock.advance(TTL / 3);
    let (_, reply) = stage.renew();
    assert_eq!(waited(), command);
    reply.send(vec![Ok(true)]).unwrap();
    stage.catch_up();
    let_go(&stage, held);

    // A claim is shorter than the lease that it is to become.
    let waiter = stage.queued(Wait::Forever, 0);
    waiter.notified(Duration::ZERO);
    let _held = waiter.held();
    stage.clock.advance(Duration::from_millis(50));
    let (_, _reply) = stage.renew();
    assert_eq!(waited(), CLAIM / 4);
    assert!(waited() < command);
}

/// A third of a ttl, less up to a tenth of it, is when each is due. So of twenty some are due in
/// the next tenth of that time, and none before.
#[test]
fn heartbeats_leave_early_with_another_one_and_not_alone() {
    let stage = Stage::new();
    let asked = Arc::new(stage.hold("asked"));
    let _others: Vec<Held> = (0..20).map(|n| stage.hold(&n.to_string())).collect();
    let interval = TTL / 3;
    stage
        .clock
        .advance(interval - interval / 10 - Duration::from_millis(1));
    stage.nothing();
    let asking = verify(&asked);
    let (batch, reply) = stage.renew();
    assert!(batch.len() > 1, "the others travel with it");
    reply
        .send(batch.iter().map(|_| Ok(true)).collect())
        .unwrap();
    assert!(asking.join().unwrap().unwrap());
}

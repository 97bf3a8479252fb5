//! What is not meant to happen: late commands, overlapping shutdowns, a panic on the
//! engine's thread.

use std::task::Wake;

use super::*;

#[test]
fn an_earlier_try_that_comes_to_life_after_the_release_is_released_too() {
    let stage = Stage::new();
    let request = AcquireRequest {
        wait: Wait::Forever,
        ..stage.request("k")
    };
    let owner = request.owner;
    let taking = stage.take(request);
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    stage.catch_up();
    stage.clock.advance(Duration::from_millis(100));
    let (_, reply) = stage.acquire();
    reply.send(vec![granted()]).unwrap();
    let releasing = release(taking.join().unwrap().unwrap());
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
    // Its holder is not kept waiting for what may come.
    releasing.join().unwrap().unwrap();
    stage.nothing();
    stage.clock.advance(Duration::from_millis(100));
    let (batch, reply) = stage.release();
    assert_eq!(batch[0].owner, owner);
    reply.send(vec![Ok(true)]).unwrap();
    stage.catch_up();
    // There may be two of them.
    stage.clock.advance(Duration::from_secs(1));
    let (_, reply) = stage.release();
    reply.send(vec![Ok(false)]).unwrap();
    stage.catch_up();
    stage.clock.advance(Duration::from_secs(10));
    stage.nothing();
}

#[test]
fn a_forced_holder_of_this_process_is_notified_though_a_heartbeat_is_in_flight() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, before) = stage.renew();
    let key = Key::whole("k").unwrap();
    assert!(block_on(stage.engine.force(key, None, String::new())).unwrap());
    stage.catch_up();
    // It was carried out before the blow.
    before.send(vec![Ok(true)]).unwrap();
    let (_, after) = stage.renew();
    after.send(vec![Ok(false)]).unwrap();
    is_notified(&held);
}

#[test]
fn a_shutdown_does_not_take_the_answer_of_a_release_under_way() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, heartbeat) = stage.renew();
    let releasing = release(held);
    stage.nothing();
    let closing = stage.shutdown(Duration::from_secs(4));
    stage.nothing();
    stage.catch_up();
    stage.clock.advance(Duration::from_secs(2));
    stage.catch_up();
    heartbeat.send(vec![Ok(true)]).unwrap();
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
    releasing.join().unwrap().unwrap();
    closing.join().unwrap().unwrap();
}

#[test]
fn of_two_shutdowns_the_more_hurried_counts() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let first = stage.shutdown(Duration::from_secs(60));
    is_notified(&held);
    let second = stage.shutdown(Duration::from_secs(2));
    stage.nothing();
    stage.catch_up();
    stage.clock.advance(Duration::from_secs(1));
    let (_, silent) = stage.release();
    stage.clock.advance(Duration::from_secs(1));
    assert!(matches!(second.join().unwrap(), Err(Error::Unavailable(_))));
    assert!(first.join().unwrap().is_err());
    // One that failed does not spoil the next.
    let third = stage.shutdown(Duration::from_secs(30));
    stage.nothing();
    stage.catch_up();
    assert!(!third.is_finished());
    silent.send(vec![Ok(true)]).unwrap();
    third.join().unwrap().unwrap();
}

#[test]
fn a_panic_on_the_engines_thread_ends_every_lease_and_is_reported() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics: part of the test");
        }
    }
    let stage = Stage::new();
    let held = stage.hold("k");
    let mut asking = Box::pin(stage.engine.acquire(stage.request("x")));
    let waker = Waker::from(Arc::new(Bad));
    let polled = asking.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let (_, reply) = stage.acquire();
    reply.send(vec![granted()]).unwrap();
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Stopped));
    assert!(matches!(
        block_on(held.verify()),
        Err(Error::Unavailable(_))
    ));
    assert!(matches!(
        block_on(held.release()),
        Err(Error::Unavailable(_))
    ));
    // The next lock gets an engine of its own.
    drop(asking);
    drop(stage.hold("other"));
}

//! What the engine does not do: heartbeats for a lease that is over, requests for callers that
//! have gone, polls that nobody needs.

use super::*;

/// A body that hangs past `at_most`, and an operator of its own process who asks whether the lock
/// is stale: a heartbeat would make it none (F40).
#[test]
fn no_heartbeat_leaves_for_a_lease_that_is_over_whoever_asks() {
    let stage = Stage::new();
    let held = Arc::new(stage.held(AcquireRequest {
        at_most: Some(TTL),
        ..stage.request("k")
    }));
    stage.clock.advance(TTL);
    stage.catch_up();
    assert!(!held.lease().is_valid());
    // Drains what left in time.
    while stage.asked.try_recv().is_ok() {}
    let key = Key::whole("k").unwrap();
    for stale in [Some(TTL), None] {
        block_on(stage.engine.force(key.clone(), stale, String::new())).unwrap();
        stage.nothing();
    }
    assert!(!verify(&held).join().unwrap().unwrap());
    stage.nothing();
}

/// Callers that tried in vain have left many orphans: one at a time asks a silent store, and all
/// go with its first answer (F41).
#[test]
fn orphans_of_a_silent_store_wait_for_its_next_answer() {
    const ORPHANS: usize = 50;
    let stage = Stage::new();
    for number in 0..ORPHANS {
        let trying = stage.take(stage.request(&number.to_string()));
        let (_, reply) = stage.acquire();
        reply.send(vec![unknown()]).unwrap();
        assert!(trying.join().unwrap().is_err());
        let (batch, reply) = stage.release();
        reply
            .send(batch.iter().map(|_| unknown()).collect())
            .unwrap();
    }
    stage.catch_up();
    // The longest pause between two tries.
    for _ in 0..5 {
        stage.clock.advance(Duration::from_millis(500));
        let (batch, reply) = stage.release();
        assert_eq!(batch.len(), 1, "the others wait");
        reply.send(vec![unknown()]).unwrap();
        stage.nothing();
    }
    stage.clock.advance(Duration::from_millis(500));
    let (_, reply) = stage.release();
    reply.send(vec![Ok(false)]).unwrap();
    let (batch, _reply) = stage.release();
    assert_eq!(batch.len(), ORPHANS - 1);
}

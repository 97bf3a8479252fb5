//! A wall clock that jumps ahead, as after a pause of a virtual machine whose other
//! clocks were paused with it.

use crate::engine::Validity;

use super::*;

const JUMP: Duration = Duration::from_secs(600);

#[test]
fn a_lease_is_suspect_after_a_jump_until_the_store_has_confirmed_it() {
    let stage = Stage::new();
    let held = stage.hold("k");
    assert_eq!(held.validity(), Validity::Valid);
    stage.clock.advance_wall(JUMP);
    // The question itself sends the heartbeat, once, however often it is asked.
    assert_eq!(held.validity(), Validity::Suspect);
    assert_eq!(held.validity(), Validity::Suspect);
    assert!(held.lease().is_valid(), "nothing is lost yet");
    let (_, reply) = stage.renew();
    assert_eq!(held.validity(), Validity::Suspect);
    reply.send(vec![Ok(true)]).unwrap();
    stage.until("confirmed", || held.validity() == Validity::Valid);
    stage.nothing();
}

#[test]
fn a_lease_that_another_process_took_during_the_pause_is_lost_and_was_never_held_again() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance_wall(JUMP);
    assert_eq!(held.validity(), Validity::Suspect);
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(false)]).unwrap();
    is_notified(&held);
    assert_eq!(held.validity(), Validity::Over);
    assert_eq!(held.lease().loss(), Some(Loss::Taken));
}

#[test]
fn a_heartbeat_that_left_before_the_jump_confirms_nothing() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, before) = stage.renew();
    stage.clock.advance_wall(JUMP);
    assert_eq!(held.validity(), Validity::Suspect);
    before.send(vec![Ok(true)]).unwrap();
    let (_, after) = stage.renew();
    assert_eq!(held.validity(), Validity::Suspect);
    after.send(vec![Ok(true)]).unwrap();
    stage.until("confirmed", || held.validity() == Validity::Valid);
}

#[test]
fn the_engine_asks_by_itself_within_a_second_of_waking() {
    let stage = Stage::new();
    let _held = [stage.hold("a"), stage.hold("b")];
    stage.clock.advance_wall(JUMP);
    stage.nothing();
    stage.clock.advance(Duration::from_secs(1));
    let (batch, reply) = stage.renew();
    assert_eq!(batch.len(), 2);
    reply.send(vec![Ok(true), Ok(true)]).unwrap();
    stage.catch_up();
    // One jump is one question.
    stage.clock.advance(Duration::from_secs(1));
    stage.nothing();
}

#[test]
fn without_an_answer_a_suspect_lease_ends_when_it_would_have_ended() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance_wall(JUMP);
    assert_eq!(held.validity(), Validity::Suspect);
    let (_, _silent) = stage.renew();
    stage.clock.advance(TTL - margin(TTL));
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Expired));
}

#[test]
fn a_wall_clock_that_is_slewed_or_steps_back_costs_nothing() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance_wall(Duration::from_millis(999));
    assert_eq!(held.validity(), Validity::Valid);
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(held.validity(), Validity::Valid);
    stage.nothing();
}

#[test]
fn an_acquire_answered_after_a_jump_is_not_held_before_it_is_confirmed() {
    let stage = Stage::new();
    let taking = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    stage.clock.advance_wall(JUMP);
    reply.send(vec![granted()]).unwrap();
    let held = taking.join().unwrap().unwrap();
    assert_eq!(held.validity(), Validity::Suspect);
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    stage.until("confirmed", || held.validity() == Validity::Valid);
}

#[test]
fn a_suspect_lease_is_asked_after_until_it_is_confirmed_also_where_at_most_caps_it() {
    let stage = Stage::new();
    let request = AcquireRequest {
        at_most: Some(TTL / 2),
        ..stage.request("k")
    };
    let held = stage.held(request);
    stage.clock.advance_wall(JUMP);
    assert_eq!(held.validity(), Validity::Suspect);
    for failure in [dead(), unknown()] {
        let (_, reply) = stage.renew();
        reply.send(vec![failure]).unwrap();
        stage.catch_up();
        stage.clock.advance(Duration::from_millis(500));
    }
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    stage.until("confirmed", || held.validity() == Validity::Valid);
    stage.catch_up();
    stage.clock.advance(TTL / 10);
    stage.nothing();
}

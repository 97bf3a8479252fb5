//! What a person is told of a failing store and of a lost lock: once, and when it is over.

use std::fmt::{Debug, Write as _};
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::*;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what the engine of any test logs.
struct Keep;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Keep {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_engine = metadata.target().starts_with("applock_runtime::engine");
        is_engine && metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Keep).unwrap());
}

/// How many lines about that acquisition have those words in them.
fn told(owner: OwnerId, words: &str) -> usize {
    let owner = owner.simple().to_string();
    let lines = LINES.lock().unwrap();
    let about = |line: &&String| line.contains(&owner) && line.contains(words);
    lines.iter().filter(about).count()
}

#[test]
fn a_caller_that_waits_for_a_store_that_fails_is_told_once_each_time_it_begins() {
    const FAILS: &str = "waiting for a store that fails";
    const ANSWERS: &str = "the store answers again";
    keep();
    let stage = Stage::new();
    let request = AcquireRequest {
        wait: Wait::Forever,
        ..stage.request("k")
    };
    let owner = request.owner;
    let _taking = stage.take(request);
    let answers = [false, false, false, true, true, false, true];
    let told_of = [(1, 0), (1, 0), (1, 0), (1, 1), (1, 1), (2, 1), (2, 2)];
    for (is_answered, (fails, again)) in answers.into_iter().zip(told_of) {
        let (_, reply) = stage.acquire();
        let busy = Ok(Acquired::Busy(
            Record::foreign("k".into(), "x", None).into(),
        ));
        let answer = if is_answered { busy } else { unknown() };
        reply.send(vec![answer]).unwrap();
        stage.catch_up();
        assert_eq!((told(owner, FAILS), told(owner, ANSWERS)), (fails, again));
        stage.clock.advance(Duration::from_secs(1));
    }
}

/// Its caller has the error itself.
#[test]
fn a_caller_that_does_not_wait_or_whose_error_is_final_is_told_by_its_answer_alone() {
    keep();
    let denied = || Err(StoreError::new(StoreErrorKind::Denied, "no right", ""));
    for (wait, answer) in [(Wait::Not, unknown()), (Wait::Forever, denied())] {
        let stage = Stage::new();
        let request = AcquireRequest {
            wait,
            ..stage.request("k")
        };
        let owner = request.owner;
        let taking = stage.take(request);
        let (_, reply) = stage.acquire();
        reply.send(vec![answer]).unwrap();
        assert!(taking.join().unwrap().is_err());
        stage.catch_up();
        assert_eq!(told(owner, "waiting for a store that fails"), 0);
    }
}

#[test]
fn heartbeats_that_fail_are_told_once_and_that_they_are_answered_again() {
    const FAILED: &str = "a heartbeat failed";
    const AGAIN: &str = "the heartbeat is answered again";
    keep();
    let stage = Stage::new();
    let held = stage.hold("k");
    let owner = held.lease().owner;
    stage.clock.advance(TTL / 3);
    let answers = [true, false, false, true, true];
    let told_of = [(0, 0), (1, 0), (1, 0), (1, 1), (1, 1)];
    for (is_answered, (failed, again)) in answers.into_iter().zip(told_of) {
        let (_, reply) = stage.renew();
        let answer = if is_answered { Ok(true) } else { unknown() };
        reply.send(vec![answer]).unwrap();
        stage.catch_up();
        assert_eq!((told(owner, FAILED), told(owner, AGAIN)), (failed, again));
        let pause = if is_answered { TTL / 3 } else { RETRY };
        stage.clock.advance(pause);
    }
}

/// No pause between two tries of a heartbeat or a release is longer.
const RETRY: Duration = Duration::from_millis(500);

#[test]
fn a_heartbeat_that_fails_after_the_end_of_its_lease_is_no_news() {
    keep();
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, reply) = stage.renew();
    stage.clock.advance(TTL);
    is_notified(&held);
    reply.send(vec![unknown()]).unwrap();
    stage.catch_up();
    assert_eq!(told(held.lease().owner, "a heartbeat failed"), 0);
}

#[test]
fn a_lock_that_is_lost_is_told_once_and_one_that_a_shutdown_ends_is_not() {
    const LOST: &str = "the lock is lost";
    keep();
    let stage = Stage::new();
    let held = Arc::new(stage.hold("k"));
    let owner = held.lease().owner;
    stage.clock.advance(TTL);
    stage.catch_up();
    assert_eq!(told(owner, LOST), 1);
    // Whatever is asked of it after that.
    let key = Key::whole("k").unwrap();
    block_on(stage.engine.force(key, None, String::new())).unwrap();
    assert!(!verify(&held).join().unwrap().unwrap());
    stage.catch_up();
    assert_eq!(told(owner, LOST), 1);

    let stage = Stage::new();
    let held = stage.hold("k");
    let owner = held.lease().owner;
    let _closing = stage.shutdown(Duration::from_secs(60));
    is_notified(&held);
    stage.clock.advance(TTL);
    stage.catch_up();
    assert_eq!(told(owner, LOST), 0);
}

#[test]
fn a_release_that_fails_is_told_twice_at_most() {
    keep();
    let stage = Stage::new();
    let held = stage.hold("k");
    let owner = held.lease().owner;
    let releasing = release(held);
    for told_of in [1, 2, 2, 2] {
        let (_, reply) = stage.release();
        reply.send(vec![unknown()]).unwrap();
        stage.catch_up();
        assert_eq!(told(owner, "a release failed"), told_of);
        stage.clock.advance(RETRY);
    }
    assert!(releasing.join().unwrap().is_err());
}

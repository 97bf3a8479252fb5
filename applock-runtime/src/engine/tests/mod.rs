//! The engine against a store whose every answer the test gives, by a clock that the
//! test moves: nothing here sleeps.

mod decisions;
mod log;
#[cfg(feature = "metrics")]
mod measured;
mod moved;
mod quiet;
mod table;
mod unforeseen;
mod wait_queue;
mod wall_clock;

use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};

use crate::blocking::block_on;
use crate::clock::{Clock, ManualClock};
use crate::error::{Error, Loss};
use crate::info::{LockInfo, Record};
use crate::key::Key;
use crate::pattern::Pattern;
use crate::store::{
    Acquire, Acquired, By, Grant, Identity, Inspection, Notifications, OwnerId, Release, Released,
    Renew, Store, StoreError, StoreErrorKind, StoreFuture, StoreResult,
};

use super::lease_time::margin;
use super::state::ORPHAN_WATCH;
use super::{AcquireRequest, Engine, Held, Parts, Wait};

/// Its third is a whole number, so that sums of it are exact.
const TTL: Duration = Duration::from_secs(9);

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(10);

/// What the engine asked, and where the answer goes.
enum Asked {
    Acquire(Vec<Acquire>, oneshot::Sender<Vec<StoreResult<Acquired>>>),
    Renew(Vec<Renew>, oneshot::Sender<Vec<StoreResult<bool>>>),
    Release(Vec<Release>, oneshot::Sender<Vec<StoreResult<bool>>>),
}

#[derive(Debug)]
struct Puppet {
    asked: Sender<Asked>,
    /// Whom the next release hands the lock to.
    next: Arc<Mutex<Option<Grant>>>,
    /// Where it has several servers: what the engine watches it by.
    watched: Option<Sender<(Notifications, watch::Receiver<bool>)>>,
    /// How long the last request had.
    timeout: Arc<Mutex<Duration>>,
}

impl Puppet {
    /// Asks when it is polled, and not before: as a store that is a future does.
    fn ask<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(oneshot::Sender<T>) -> Asked + Send + 'static,
    ) -> StoreFuture<T> {
        let (reply, answer) = oneshot::channel();
        let (asked, last) = (self.asked.clone(), Arc::clone(&self.timeout));
        Box::pin(async move {
            *last.lock().unwrap() = timeout;
            asked.send(question(reply)).unwrap();
            match answer.await {
                Ok(answer) => answer,
                // The test let it go: no answer ever comes.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Acquire(batch, _) => write!(f, "Acquire({})", batch.len()),
            Self::Renew(batch, _) => write!(f, "Renew({})", batch.len()),
            Self::Release(batch, _) => write!(f, "Release({})", batch.len()),
        }
    }
}

impl Store for Puppet {
    fn watch(&self, notifications: &Notifications, needed: watch::Receiver<bool>) -> bool {
        let watched = (notifications.clone(), needed);
        self.watched
            .as_ref()
            .is_some_and(|to| to.send(watched).is_ok())
    }
    fn open(self: Arc<Self>, _: Duration) -> StoreFuture<StoreResult<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        timeout: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        self.ask(timeout, |reply| Asked::Acquire(batch, reply))
    }
    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        timeout: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        self.ask(timeout, |reply| Asked::Renew(batch, reply))
    }
    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        timeout: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        let outcomes = self.ask(timeout, |reply| Asked::Release(batch, reply));
        Box::pin(async move {
            let outcomes = outcomes.await.into_iter();
            let mut next = self.next.lock().unwrap().take();
            let released = outcomes.map(|ended| {
                ended.map(|ended| Released {
                    ended,
                    next: next.take(),
                })
            });
            released.collect()
        })
    }
    fn inspect(self: Arc<Self>, _: Key, _: Duration) -> StoreFuture<StoreResult<Inspection>> {
        Box::pin(std::future::ready(Ok(Inspection {
            holder: Some(Record::foreign("k".into(), "x", None).into()),
            ..Inspection::default()
        })))
    }
    fn list(
        self: Arc<Self>,
        _: Arc<Pattern>,
        _: Duration,
    ) -> StoreFuture<StoreResult<Vec<LockInfo>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    fn force_release(
        self: Arc<Self>,
        _: Key,
        _: Option<Duration>,
        _: Arc<By>,
        _: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        Box::pin(std::future::ready(Ok(true)))
    }
    fn describe(&self) -> Arc<str> {
        "puppet:".into()
    }
}

struct Stage {
    engine: Arc<Engine>,
    clock: ManualClock,
    asked: Receiver<Asked>,
    next: Arc<Mutex<Option<Grant>>>,
    timeout: Arc<Mutex<Duration>>,
}

/// A call that runs on a thread of its own.
type CallThread<T> = std::thread::JoinHandle<crate::Result<T>>;
type AcquireThread = CallThread<Held>;

/// Begins a call. Its command is in the engine's mailbox when this returns, before any that
/// the test sends later; its thread waits for the answer.
fn begin<T: Send + 'static>(
    call: impl Future<Output = crate::Result<T>> + Send + 'static,
) -> CallThread<T> {
    let mut call = Box::pin(call);
    let mut context = Context::from_waker(Waker::noop());
    let polled = call.as_mut().poll(&mut context);
    std::thread::spawn(move || match polled {
        Poll::Ready(answer) => answer,
        Poll::Pending => block_on(call),
    })
}

fn release(held: Held) -> CallThread<()> {
    begin(held.release())
}

fn verify(held: &Arc<Held>) -> CallThread<bool> {
    let held = Arc::clone(held);
    begin(async move { held.verify().await })
}

impl Stage {
    fn new() -> Self {
        Self::over(None)
    }

    fn over(watched: Option<Sender<(Notifications, watch::Receiver<bool>)>>) -> Self {
        Self::with(watched, |parts| (Engine::new(parts), ())).0
    }

    /// With the engine's work, for the test to poll.
    #[cfg(feature = "metrics")]
    fn driven() -> (Self, impl Future<Output = ()> + Send) {
        Self::with(None, Engine::driven_by_caller)
    }

    fn with<T>(
        watched: Option<Sender<(Notifications, watch::Receiver<bool>)>>,
        engine: impl FnOnce(Parts) -> (Engine, T),
    ) -> (Self, T) {
        let (tell, asked) = channel();
        let next = Arc::default();
        let timeout = Arc::default();
        let clock = ManualClock::new();
        let (engine, work) = engine(Parts {
            store: Arc::new(Puppet {
                asked: tell,
                next: Arc::clone(&next),
                watched,
                timeout: Arc::clone(&timeout),
            }),
            clock: Arc::new(clock.clone()),
            identity: Arc::new(Identity {
                instance: "i".into(),
                host: "h".into(),
                pid: 1,
            }),
            command_timeout: Duration::from_secs(1),
        });
        let stage = Self {
            engine: Arc::new(engine),
            clock,
            asked,
            next,
            timeout,
        };
        (stage, work)
    }

    fn request(&self, key: &str) -> AcquireRequest {
        AcquireRequest {
            due: None,
            key: Key::whole(key).unwrap(),
            owner: OwnerId::new_v4(),
            ttl: TTL,
            remember: Duration::from_secs(3_600),
            identity: Arc::clone(self.engine.identity()),
            wait: Wait::Not,
            at_least: None,
            at_most: None,
        }
    }

    fn take(&self, request: AcquireRequest) -> AcquireThread {
        let engine = Arc::clone(&self.engine);
        begin(async move { engine.acquire(request).await })
    }

    fn shutdown(&self, within: Duration) -> CallThread<()> {
        let engine = Arc::clone(&self.engine);
        begin(async move { engine.shutdown(within).await })
    }

    fn next(&self) -> Asked {
        self.asked
            .recv_timeout(SOON)
            .expect("the engine asks something")
    }

    /// All that has come to the engine so far is done, and it has asked nothing.
    fn nothing(&self) {
        self.catch_up();
        if let Ok(asked) = self.asked.try_recv() {
            panic!("nothing should be asked here, but {asked:?}");
        }
    }

    fn acquire(&self) -> (Vec<Acquire>, oneshot::Sender<Vec<StoreResult<Acquired>>>) {
        match self.next() {
            Asked::Acquire(batch, reply) => (batch, reply),
            other => panic!("{other:?} instead of an acquire"),
        }
    }

    fn renew(&self) -> (Vec<Renew>, oneshot::Sender<Vec<StoreResult<bool>>>) {
        match self.next() {
            Asked::Renew(batch, reply) => (batch, reply),
            other => panic!("{other:?} instead of a heartbeat"),
        }
    }

    fn release(&self) -> (Vec<Release>, oneshot::Sender<Vec<StoreResult<bool>>>) {
        match self.next() {
            Asked::Release(batch, reply) => (batch, reply),
            other => panic!("{other:?} instead of a release"),
        }
    }

    /// Takes a lock that the store grants at once.
    fn held(&self, request: AcquireRequest) -> Held {
        let taking = self.take(request);
        let (_, reply) = self.acquire();
        reply.send(vec![granted()]).unwrap();
        taking.join().unwrap().unwrap()
    }

    fn hold(&self, key: &str) -> Held {
        self.held(self.request(key))
    }

    /// Waits until the engine has acted on every command, answer and timer so far, and has
    /// asked what follows: it answers questions in the same loop, the first one after what
    /// came before it, and the second one in a later round.
    fn catch_up(&self) {
        for _ in 0..2 {
            let key = Key::whole("catch-up").unwrap();
            block_on(self.engine.inspect(key)).unwrap();
        }
    }

    /// Waits until the engine has acted on an answer.
    fn until(&self, what: &str, met: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !met() {
            assert!(start.elapsed() < SOON, "still not: {what}");
            std::thread::yield_now();
        }
    }
}

/// Waits until a holder is notified that its lease is over: it is woken, and does not poll.
fn is_notified(held: &Held) {
    let lease = Arc::clone(held.lease());
    let (notify, notified) = channel();
    std::thread::spawn(move || {
        block_on(lease.over());
        notify.send(())
    });
    notified
        .recv_timeout(SOON)
        .expect("the holder is notified that its lease is over");
}

fn granted() -> StoreResult<Acquired> {
    Ok(Acquired::Granted {
        token: 1,
        at: SystemTime::UNIX_EPOCH,
    })
}

fn unknown<T>() -> StoreResult<T> {
    Err(StoreError::new(StoreErrorKind::Unknown, "no answer", ""))
}

fn dead<T>() -> StoreResult<T> {
    unknown().map_err(|error| StoreError {
        worth_another: true,
        ..error
    })
}

#[test]
fn a_lease_is_judged_from_before_its_request_left() {
    let stage = Stage::new();
    let taking = stage.take(stage.request("k"));
    let (_, reply) = stage.acquire();
    stage.clock.advance(Duration::from_secs(6));
    reply.send(vec![granted()]).unwrap();
    let held = taking.join().unwrap().unwrap();
    assert_eq!(
        held.lease().remaining(),
        TTL - margin(TTL) - Duration::from_secs(6)
    );
}

#[test]
fn an_acquire_answered_after_its_lease_is_refused_and_cleaned_up() {
    let stage = Stage::new();
    let request = stage.request("k");
    let owner = request.owner;
    let taking = stage.take(request);
    let (_, reply) = stage.acquire();
    stage.clock.advance(TTL);
    reply.send(vec![granted()]).unwrap();
    assert!(matches!(taking.join().unwrap(), Err(Error::Unavailable(_))));
    let (batch, _) = stage.release();
    assert_eq!(batch[0].owner, owner);
}

#[test]
fn failed_heartbeats_are_repeated_and_the_lock_is_kept() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    for _ in 0..5 {
        let (_, reply) = stage.renew();
        reply.send(vec![unknown()]).unwrap();
        stage.catch_up();
        stage.clock.advance(Duration::from_millis(500));
        assert!(held.lease().is_valid());
    }
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    stage.until("the lease is whole again", || {
        held.lease().remaining() > TTL / 2
    });
}

#[test]
fn a_lease_ends_with_no_answer_from_anyone() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, silent) = stage.renew();
    stage.clock.advance(TTL - margin(TTL) - TTL / 3);
    // The engine's own timer wakes it: no caller has read the clock.
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Expired));
    // The answer comes after all, and changes nothing.
    silent.send(vec![Ok(true)]).unwrap();
    stage.nothing();
    assert!(!held.lease().is_valid());
}

#[test]
fn a_heartbeat_answered_not_yours_is_a_loss_at_once() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(false)]).unwrap();
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Taken));
    assert!(matches!(
        held.lease().lost_error(),
        Some(Error::Lost { token: 1, .. })
    ));
}

#[test]
fn a_release_never_overtakes_a_heartbeat_in_flight() {
    let stage = Stage::new();
    let held = stage.hold("k");
    stage.clock.advance(TTL / 3);
    let (_, heartbeat) = stage.renew();
    let releasing = release(held);
    stage.nothing();
    heartbeat.send(vec![Ok(true)]).unwrap();
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
    releasing.join().unwrap().unwrap();
    stage.clock.advance(TTL);
    stage.nothing();
}

#[test]
fn an_acquire_whose_caller_has_gone_is_released() {
    let stage = Stage::new();
    let request = stage.request("k");
    let owner = request.owner;
    let mut taking = Box::pin(stage.engine.acquire(request));
    let mut context = Context::from_waker(Waker::noop());
    assert!(taking.as_mut().poll(&mut context).is_pending());
    let (_, reply) = stage.acquire();
    drop(taking);
    reply.send(vec![granted()]).unwrap();
    let (batch, _) = stage.release();
    assert_eq!(batch[0].owner, owner);
}

#[test]
fn an_acquire_without_an_answer_is_cleaned_up_also_if_it_comes_to_life_late() {
    let stage = Stage::new();
    let request = stage.request("k");
    let owner = request.owner;
    let taking = stage.take(request);
    let (_, reply) = stage.acquire();
    reply.send(vec![unknown()]).unwrap();
    assert!(matches!(taking.join().unwrap(), Err(Error::Unavailable(_))));
    // Not there yet, and not there yet, and there.
    for (number, answer) in [Ok(false), Ok(false), Ok(true)].into_iter().enumerate() {
        if number > 0 {
            stage.clock.advance(Duration::from_millis(500));
        }
        let (batch, reply) = stage.release();
        assert_eq!(batch[0].owner, owner);
        reply.send(vec![answer]).unwrap();
        stage.catch_up();
    }
    // In one step past the watch: at a moment before its end one more release is due.
    stage.clock.advance(ORPHAN_WATCH);
    stage.nothing();
}

#[test]
fn a_dead_connection_is_worth_another_try_with_the_same_owner_id() {
    let stage = Stage::new();
    let request = stage.request("k");
    let owner = request.owner;
    let taking = stage.take(request);
    let (_, reply) = stage.acquire();
    reply.send(vec![dead()]).unwrap();
    let (batch, reply) = stage.acquire();
    assert_eq!(batch[0].owner, owner);
    reply.send(vec![granted()]).unwrap();
    taking.join().unwrap().unwrap();
}

#[test]
fn a_release_whose_answer_was_lost_counts_when_the_lock_is_gone() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let releasing = release(held);
    let (_, reply) = stage.release();
    reply.send(vec![dead()]).unwrap();
    let (_, reply) = stage.release();
    reply.send(vec![Ok(false)]).unwrap();
    releasing.join().unwrap().unwrap();
}

#[test]
fn a_release_of_what_is_not_ours_says_so() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let releasing = release(held);
    let (_, reply) = stage.release();
    reply.send(vec![Ok(false)]).unwrap();
    assert!(matches!(
        releasing.join().unwrap(),
        Err(Error::NotHeld { .. })
    ));
}

#[test]
fn a_release_without_an_answer_is_reported_at_once_and_repeated() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let releasing = release(held);
    let (_, reply) = stage.release();
    reply.send(vec![unknown()]).unwrap();
    assert!(matches!(
        releasing.join().unwrap(),
        Err(Error::Unavailable(_))
    ));
    stage.clock.advance(Duration::from_secs(1));
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
}

#[test]
fn heartbeats_due_together_travel_together() {
    let stage = Stage::new();
    let _held: Vec<Held> = ["a", "b", "c"].map(|key| stage.hold(key)).into();
    stage.clock.advance(TTL / 3);
    let (batch, _) = stage.renew();
    assert_eq!(batch.len(), 3);
}

#[test]
fn heartbeats_due_soon_travel_with_one_that_is_due() {
    let stage = Stage::new();
    let _one = stage.hold("a");
    stage.clock.advance(TTL / 36);
    let _other = stage.hold("b");
    let _late = {
        stage.clock.advance(TTL / 9);
        stage.hold("c")
    };
    stage.clock.advance(TTL / 3 - TTL / 36 - TTL / 9);
    let (batch, _) = stage.renew();
    assert_eq!(batch.len(), 2);
}

#[test]
fn a_heartbeat_that_failed_keeps_its_pause_whatever_else_leaves() {
    let stage = Stage::new();
    let (failing, other) = (Arc::new(stage.hold("a")), Arc::new(stage.hold("b")));
    let asking = verify(&failing);
    let (_, reply) = stage.renew();
    reply.send(vec![unknown()]).unwrap();
    assert!(asking.join().unwrap().is_err());
    let asking = verify(&other);
    let (batch, reply) = stage.renew();
    assert_eq!(batch.len(), 1, "the other one alone");
    reply.send(vec![Ok(true)]).unwrap();
    assert!(asking.join().unwrap().unwrap());
}

#[test]
fn three_heartbeats_a_ttl_and_no_storm() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let mut beats = 0;
    for _ in 0..500 {
        stage.clock.advance(TTL / 100);
        stage.catch_up();
        if let Ok(Asked::Renew(_, reply)) = stage.asked.try_recv() {
            beats += 1;
            reply.send(vec![Ok(true)]).unwrap();
            stage.catch_up();
        }
    }
    assert!(
        (14..=18).contains(&beats),
        "{beats} heartbeats in five ttls"
    );
    assert!(held.lease().is_valid());
}

#[test]
fn at_most_ends_the_heartbeat_and_then_the_lease() {
    let stage = Stage::new();
    let most = TTL * 3 / 2;
    let request = AcquireRequest {
        at_most: Some(most),
        ..stage.request("k")
    };
    let held = stage.held(request);
    stage.clock.advance(TTL / 3);
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    stage.until("renewed", || held.lease().remaining() > TTL / 2);
    stage.clock.advance(TTL / 3);
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    // It reaches the cap now: no heartbeat can move it further.
    stage.until("capped", || held.lease().is_capped());
    stage.catch_up();
    stage.clock.advance(TTL / 3);
    stage.nothing();
    assert!(held.lease().is_valid());
    stage.clock.advance(most - TTL);
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::AtMost));
}

#[test]
fn a_busy_lock_is_looked_at_again_until_the_wait_is_over() {
    let stage = Stage::new();
    let wait = Duration::from_secs(1);
    let request = AcquireRequest {
        wait: Wait::For(wait),
        ..stage.request("k")
    };
    let busy = || {
        let mut record = Record::foreign("k".into(), "x", Some(TTL));
        record.foreign = None;
        Ok(Acquired::Busy(record.into()))
    };
    let taking = stage.take(request);
    for _ in 0..3 {
        let (_, reply) = stage.acquire();
        reply.send(vec![busy()]).unwrap();
        // Not in a hot loop, but by the clock.
        stage.nothing();
        stage.clock.advance(Duration::from_millis(250));
    }
    let (_, reply) = stage.acquire();
    reply.send(vec![busy()]).unwrap();
    stage.catch_up();
    stage.clock.advance(wait);
    assert!(matches!(taking.join().unwrap(), Err(Error::Busy(_))));
    stage.nothing();
}

#[test]
fn a_waiting_acquire_outlives_passing_failures() {
    let stage = Stage::new();
    let request = AcquireRequest {
        wait: Wait::Forever,
        ..stage.request("k")
    };
    let taking = stage.take(request);
    for _ in 0..5 {
        let (_, reply) = stage.acquire();
        reply.send(vec![unknown()]).unwrap();
        stage.catch_up();
        stage.clock.advance(Duration::from_secs(1));
    }
    let (_, reply) = stage.acquire();
    reply.send(vec![granted()]).unwrap();
    taking.join().unwrap().unwrap();
}

#[test]
fn verify_asks_the_store_anew_also_while_a_heartbeat_is_in_flight() {
    let stage = Stage::new();
    let held = Arc::new(stage.hold("k"));
    stage.clock.advance(TTL / 3);
    let (_, first) = stage.renew();
    let asking = verify(&held);
    // The one in flight left before the question.
    stage.nothing();
    first.send(vec![Ok(true)]).unwrap();
    let (_, second) = stage.renew();
    second.send(vec![Ok(false)]).unwrap();
    assert!(!asking.join().unwrap().unwrap());
    assert!(!held.lease().is_valid());
}

#[test]
fn a_shutdown_tells_the_holder_first_and_releases_second() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let closing = stage.shutdown(Duration::from_secs(4));
    is_notified(&held);
    assert_eq!(held.lease().loss(), Some(Loss::Shutdown));
    stage.nothing();
    stage.catch_up();
    // Its holder does not let go: at half of the time it is done for it.
    stage.clock.advance(Duration::from_secs(2));
    let (_, reply) = stage.release();
    reply.send(vec![Ok(true)]).unwrap();
    closing.join().unwrap().unwrap();
    let refused = block_on(stage.engine.acquire(stage.request("other")));
    assert!(matches!(refused, Err(Error::Closed { .. })));
    drop(held);
    stage.nothing();
}

#[test]
fn a_drain_tells_the_holder_when_its_time_is_over_and_a_shutdown_hurries_it() {
    for hurried in [false, true] {
        let stage = Stage::new();
        let held = stage.hold("k");
        let begin = |closing: Pin<&mut dyn Future<Output = Result<(), Error>>>| {
            let polled = closing.poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            stage.catch_up();
        };
        let second = Duration::from_secs(1);
        let mut drain = pin!(stage.engine.drain(second));
        begin(drain.as_mut());
        assert!(held.lease().is_valid());
        let refused = block_on(stage.engine.acquire(stage.request("other")));
        assert!(matches!(refused, Err(Error::Closed { .. })));
        let mut shutdown = pin!(stage.engine.shutdown(second));
        if hurried {
            begin(shutdown.as_mut());
        } else {
            stage.clock.advance(second);
        }
        is_notified(&held);
        assert_eq!(held.lease().loss(), Some(Loss::Shutdown));
        drop(held);
        let (_, reply) = stage.release();
        reply.send(vec![Ok(true)]).unwrap();
        block_on(drain).unwrap();
        if hurried {
            block_on(shutdown).unwrap();
        }
    }
}

#[test]
fn a_shutdown_returns_in_time_though_the_store_is_silent() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let closing = stage.shutdown(Duration::from_secs(4));
    is_notified(&held);
    drop(held);
    let (_, _silent) = stage.release();
    stage.catch_up();
    stage.clock.advance(Duration::from_secs(4));
    assert!(matches!(
        closing.join().unwrap(),
        Err(Error::Unavailable(_))
    ));
}

#[test]
fn the_clock_of_the_stage_is_the_engines() {
    let stage = Stage::new();
    let held = stage.hold("k");
    let before = stage.clock.now();
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.clock.now() - before, Duration::from_secs(1));
    assert_eq!(held.lease().held_for(), Duration::from_secs(1));
}

#[test]
fn a_verify_over_a_dead_connection_is_answered_by_the_next_heartbeat() {
    let stage = Stage::new();
    let held = Arc::new(stage.hold("k"));
    let asking = verify(&held);
    let (_, reply) = stage.renew();
    reply.send(vec![dead()]).unwrap();
    let (_, reply) = stage.renew();
    reply.send(vec![Ok(true)]).unwrap();
    assert!(asking.join().unwrap().unwrap());
}

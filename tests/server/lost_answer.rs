//! Promise: an answer that got lost orphans nothing. A lock whose acquire got no answer goes
//! to its caller, or it is free again long before its ttl; a release that got no answer has
//! released it, and nothing else (F4, R6, R7).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use crate::support::proxy::{Call, Event, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::steps::{
    LONG, assert_unavailable, assert_verified, impatient, is_taken, take, until_free,
};
use crate::support::wait;
use applock::{AppLocker, Lock, LockGuard};

/// The ttl would free it only after this.
const TTL: Duration = Duration::from_secs(60);

/// In which a lock that was taken without an answer must be free.
const SOON: Duration = Duration::from_secs(15);

const KEY: &str = "QUEUE:job";

/// A server that knows the scripts, and a lock on it behind a proxy.
struct Scene {
    server: RedisServer,
    proxy: FaultProxy,
    locker: AppLocker,
    /// The token of the last acquisition before the test.
    token: u64,
}

impl Scene {
    fn new() -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let locker = impatient(proxy.url());
        let before = take(&locker.lock("job"));
        let token = before.fencing_token();
        drop(before);
        until_free(&server, KEY, LONG);
        Self {
            server,
            proxy,
            locker,
            token,
        }
    }

    fn lock(&self) -> Lock {
        self.locker.lock("job").ttl(TTL)
    }

    fn last_token(&self) -> u64 {
        self.server.run("HGET {QUEUE:job}:fence token")
    }

    /// It was taken at the server, and no caller knew; now it is free.
    #[track_caller]
    fn assert_no_orphan(&self) {
        assert!(self.last_token() > self.token, "it was never taken");
        until_free(&self.server, KEY, SOON);
    }

    /// Another caller, which does not go through the proxy, takes it.
    #[track_caller]
    fn next_holder(&self) -> LockGuard {
        let next = AppLocker::connect_blocking(self.server.url()).unwrap();
        take(&next.lock("job").ttl(TTL))
    }
}

// F4
#[test]
fn a_lock_taken_by_an_acquire_whose_answer_was_lost_is_freed() {
    let scene = Scene::new();
    scene.proxy.lose_reply(Call::Acquire);
    assert_unavailable(scene.lock().try_acquire_blocking());
    scene.assert_no_orphan();
}

// F4
#[test]
fn a_lock_taken_by_acquires_that_met_a_reset_each_time_is_freed() {
    let scene = Scene::new();
    // The second is for the one try at once over a new connection.
    scene.proxy.reset_for_reply(Call::Acquire);
    scene.proxy.reset_for_reply(Call::Acquire);
    assert_unavailable(scene.lock().try_acquire_blocking());
    scene.assert_no_orphan();
}

/// Waits for a lock whose first answer goes astray, and gets it: the same holding.
fn recognises_its_own(lose: impl Fn(&FaultProxy)) {
    let scene = Scene::new();
    let executed = scene.proxy.count(Event::Executed(Call::Acquire));
    lose(&scene.proxy);
    let waiting = thread::spawn({
        let lock = scene.lock();
        move || take(&lock)
    });
    scene
        .proxy
        .until(Event::Executed(Call::Acquire), executed + 1);
    let taken: u64 = scene.server.run("HGET QUEUE:job token");
    let guard = waiting.join().unwrap();
    assert!(scene.proxy.count(Event::Executed(Call::Acquire)) > executed + 1);
    assert_eq!(guard.fencing_token(), taken);
    assert_eq!(scene.last_token(), taken);
    assert_verified(&guard);
    drop(guard);
    until_free(&scene.server, KEY, LONG);
}

// F4
#[test]
fn a_waiter_recognises_what_it_took_without_an_answer() {
    recognises_its_own(|proxy| proxy.lose_reply(Call::Acquire));
}

// F4
#[test]
fn a_caller_that_met_a_reset_instead_of_its_answer_recognises_what_it_took() {
    recognises_its_own(|proxy| proxy.reset_for_reply(Call::Acquire));
}

/// Starts to acquire, and gives up as soon as `event` has passed.
fn acquire_and_drop(scene: &Scene, event: Event) {
    let lock = scene.lock();
    let mut acquiring: Pin<Box<dyn Future<Output = _>>> = Box::pin(lock.acquire());
    scene.proxy.until_next(event, || {
        let mut context = Context::from_waker(Waker::noop());
        assert!(acquiring.as_mut().poll(&mut context).is_pending());
    });
    drop(acquiring);
}

// F4
#[test]
fn a_future_dropped_after_the_server_has_acted_leaves_no_lock() {
    let scene = Scene::new();
    scene.proxy.lose_reply(Call::Acquire);
    acquire_and_drop(&scene, Event::Executed(Call::Acquire));
    scene.assert_no_orphan();
}

// F4
#[test]
fn a_future_dropped_while_its_request_is_on_its_way_leaves_no_lock() {
    let scene = Scene::new();
    scene.proxy.hold(Call::Acquire);
    acquire_and_drop(&scene, Event::Sent(Call::Acquire));
    scene
        .proxy
        .until_next(Event::Executed(Call::Acquire), || scene.proxy.let_go());
    scene.assert_no_orphan();
}

// F4
#[test]
fn a_request_that_arrives_after_its_caller_has_given_it_up_leaves_no_lock() {
    let scene = Scene::new();
    scene.proxy.hold(Call::Acquire);
    let released = Event::Answered(Call::Release);
    let before = scene.proxy.count(released);
    assert_unavailable(scene.lock().try_acquire_blocking());
    // The clean-up has come first, by another connection, and found nothing.
    scene.proxy.until(released, before + 1);
    assert_eq!(scene.last_token(), scene.token);
    scene
        .proxy
        .until_next(Event::Executed(Call::Acquire), || scene.proxy.let_go());
    scene.assert_no_orphan();
}

// F4
#[test]
fn a_request_that_arrives_after_its_repetition_was_released_leaves_no_lock() {
    let scene = Scene::new();
    scene.proxy.hold(Call::Acquire);
    let guard = take(&scene.lock());
    let token = guard.fencing_token();
    drop(guard);
    until_free(&scene.server, KEY, LONG);
    scene
        .proxy
        .until_next(Event::Executed(Call::Acquire), || scene.proxy.let_go());
    assert!(scene.last_token() > token, "it did not come to life");
    scene.assert_no_orphan();
}

// F4
#[test]
fn a_request_that_arrives_while_its_repetition_is_held_changes_nothing() {
    let scene = Scene::new();
    scene.proxy.hold(Call::Acquire);
    let guard = take(&scene.lock());
    scene
        .proxy
        .until_next(Event::Executed(Call::Acquire), || scene.proxy.let_go());
    assert_eq!(scene.last_token(), guard.fencing_token());
    assert_verified(&guard);
    assert_eq!(
        scene.server.run::<u64>("HGET QUEUE:job token"),
        guard.fencing_token()
    );
}

// F4, R7
#[test]
fn a_release_whose_answer_was_lost_never_ends_the_next_holding() {
    let scene = Scene::new();
    let guard = take(&scene.lock());
    scene.proxy.lose_reply(Call::Release);
    let answered = scene.proxy.count(Event::Answered(Call::Release));
    // The caller learns what is known: nothing.
    assert_unavailable(guard.release_blocking());
    let next = scene.next_holder();
    // It is repeated, until it is answered.
    scene
        .proxy
        .until(Event::Answered(Call::Release), answered + 1);
    assert_verified(&next);
}

// F4, R7
#[test]
fn a_release_that_met_a_reset_instead_of_its_answer_counts_as_released() {
    let scene = Scene::new();
    let patient = AppLocker::connect_blocking(scene.proxy.url()).unwrap();
    let guard = take(&patient.lock("job").ttl(TTL));
    let executed = scene.proxy.count(Event::Executed(Call::Release));
    scene.proxy.reset_for_reply(Call::Release);
    // Not 'not held': it was this release that did it.
    guard.release_blocking().unwrap();
    assert_eq!(
        scene.proxy.count(Event::Executed(Call::Release)),
        executed + 2
    );
    assert!(!is_taken(&scene.server, KEY));
    assert_verified(&scene.next_holder());
}

// F4, R7
#[test]
fn a_release_that_arrives_late_never_ends_the_next_holding() {
    let scene = Scene::new();
    let guard = take(&scene.lock());
    scene.proxy.hold(Call::Release);
    drop(guard);
    // It is repeated over another connection, which frees the lock.
    until_free(&scene.server, KEY, SOON);
    let next = scene.next_holder();
    scene
        .proxy
        .until_next(Event::Executed(Call::Release), || scene.proxy.let_go());
    assert_verified(&next);
}

/// Keeps a lock whose heartbeat's answer goes astray.
fn is_kept(lose: impl Fn(&FaultProxy)) {
    let scene = Scene::new();
    let guard = take(&scene.lock());
    let token = guard.fencing_token();
    assert_verified(&guard);
    let executed = Event::Executed(Call::Renew);
    let answered = Event::Answered(Call::Renew);
    let before = scene.proxy.count(answered);
    lose(&scene.proxy);
    let verified = scene.proxy.until_next(executed, || guard.verify_blocking());
    // The server has said yes; the caller may get that it is not known.
    assert!(!matches!(verified, Ok(false)));
    assert!(guard.is_held());
    // It is repeated without a caller's asking.
    scene.proxy.until(answered, before + 1);
    assert_verified(&guard);
    assert_eq!(scene.server.run::<u64>("HGET QUEUE:job token"), token);
}

// F3, F4
#[test]
fn a_heartbeat_whose_answer_was_lost_is_repeated_and_the_lock_is_kept() {
    is_kept(|proxy| proxy.lose_reply(Call::Renew));
}

// F3, F4
#[test]
fn a_heartbeat_that_met_a_reset_instead_of_its_answer_is_repeated_and_the_lock_is_kept() {
    is_kept(|proxy| proxy.reset_for_reply(Call::Renew));
}

// F4
#[test]
fn an_answer_that_comes_late_grants_the_lock_and_later_still_leaves_none() {
    let scene = Scene::new();
    scene.proxy.delay(Duration::from_millis(40));
    let guard = take(&scene.lock());
    assert_verified(&guard);
    drop(guard);
    until_free(&scene.server, KEY, LONG);
    // Longer than a command may take.
    scene.proxy.delay(Duration::from_secs(2));
    assert_unavailable(scene.lock().try_acquire_blocking());
    scene.proxy.delay(Duration::ZERO);
    until_free(&scene.server, KEY, SOON);
    wait::until("it can be had", SOON, || {
        matches!(scene.lock().try_acquire_blocking(), Ok(Some(_)))
    });
}

//! 2.9: cancellation, panic, drop, and the end of processes.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use applock::{AppLocker, Error, LockGuard, Loss};
use rustix::process::Signal;

use crate::asking::{
    bounded, force_release, given_up, is_busy, is_free, its_heart_beats, polled, runtime, take,
    take_at_its_end, take_soon, until_lost, verified,
};
use crate::children::{Child, Part, micros_now};
use crate::store::{BRIEF, KEPT, LONG, Place, SHORT, SOON};
use crate::support::wait;

/// 95
pub(crate) fn an_acquire_dropped_while_its_request_is_on_its_way_leaves_no_lock(place: &dyn Place) {
    let locker = place.impatient();
    let lock = locker.lock("app").ttl(LONG);
    let other = place.locker().lock("app");
    take(&other).release_blocking().unwrap();
    let witness = take(&locker.lock("witness").ttl(LONG));
    let stalled = place.stall();
    runtime().block_on(async {
        let mut taking = pin!(lock.acquire());
        let asked = polled(taking.as_mut()).await;
        assert!(asked.is_pending());
    });
    // The request has left, and was given up, too.
    given_up(&witness);
    drop(stalled);
    // Nor does a late copy of it come to life and stay: it was sent before all of these,
    // over another connection.
    for _ in 0..10 {
        take_soon(&other).release_blocking().unwrap();
    }
}

/// 98
pub(crate) fn a_panic_under_the_lock_goes_on_and_the_lock_is_free_when_it_arrives(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app").ttl(LONG);
    let other = place.locker().lock("app");
    let words = |panic: Box<dyn std::any::Any + Send>| *panic.downcast::<&'static str>().unwrap();
    let run = AssertUnwindSafe(|| bounded("it panics", lock.run(async { panic!("async") })));
    let panic = catch_unwind(run)
        .map(|result: Result<(), Error>| result)
        .unwrap_err();
    assert_eq!(words(panic), "async");
    assert!(is_free(&other));
    let run = AssertUnwindSafe(|| lock.run_blocking(|| panic!("sync")));
    let panic = catch_unwind(run)
        .map(|result: Result<(), Error>| result)
        .unwrap_err();
    assert_eq!(words(panic), "sync");
    assert!(is_free(&other));
}

/// 98, the second half: a process that aborts.
pub(crate) fn a_process_that_aborts_leaves_the_lock_to_its_ttl(place: &dyn Place) {
    let lock = place.locker().lock("app");
    let mut child = Child::start(place, Part::Hold, BRIEF);
    assert!(child.hear().starts_with("held "));
    child.signal(Signal::ABORT);
    assert!(!child.wait().success());
    take_soon(&lock).release_blocking().unwrap();
}

/// 99
pub(crate) fn a_bodys_error_comes_back_and_the_lock_is_free(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let other = place.locker().lock("app");
    let result = bounded("it ran", lock.run(async { Err::<(), _>("its own") }));
    assert_eq!(result.unwrap(), Err("its own"));
    assert!(is_free(&other));
    let result = lock.run_blocking(|| Err::<(), _>("its own"));
    assert_eq!(result.unwrap(), Err("its own"));
    assert!(is_free(&other));
}

/// 99
pub(crate) fn a_bodys_result_is_kept_when_the_release_fails(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let vanish = || {
        let guard = applock::current().expect("under the lock");
        place.forget(guard.info().key());
    };
    let result = bounded(
        "it ran",
        lock.run(async {
            vanish();
            Err::<(), _>("its own")
        }),
    );
    assert_eq!(result.unwrap(), Err("its own"));
    let result = lock.run_blocking(|| {
        vanish();
        Ok::<_, ()>("its own")
    });
    assert_eq!(result.unwrap(), Ok("its own"));
}

/// 100: A guard that is leaked beats on: `at_most` is the cap.
pub(crate) fn a_leaked_guards_lock_is_freed_by_at_most(place: &dyn Place) {
    let cap = Duration::from_millis(400);
    let lock = place.locker().lock("app").ttl(SHORT).at_most(cap);
    std::mem::forget(take(&lock));
    drop(take_soon(&place.locker().lock("app").ttl(LONG)));
}

/// 100
pub(crate) fn at_most_tells_its_holder_before_another_can_have_the_lock(place: &dyn Place) {
    let cap = Duration::from_millis(400);
    let locker = place.locker();
    let guard = take(&locker.lock("app").ttl(SHORT).at_most(cap));
    let next = take_soon(&place.locker().lock("app").ttl(LONG));
    assert!(!guard.is_held(), "two hold it");
    assert!(matches!(
        guard.ensure_held(),
        Err(Error::Lost {
            reason: Loss::AtMost | Loss::Expired,
            ..
        })
    ));
    assert!(verified(&next));
}

/// 101
pub(crate) fn a_lock_outlives_the_runtime_that_took_it_and_can_be_dropped_without_one(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app").ttl(KEPT);
    let other = place.locker().lock("app");
    let first = runtime();
    let guard = first.block_on(lock.acquire()).unwrap();
    first.shutdown_timeout(Duration::from_secs(5));
    its_heart_beats(&other);
    assert!(guard.is_held());
    assert!(is_busy(&other));
    // No reactor is running here.
    drop(guard);
    wait::until("it is released", SOON, || is_free(&other));
    let second = runtime();
    let guard = second.block_on(lock.acquire()).unwrap();
    second.block_on(guard.release()).unwrap();
}

/// 101
pub(crate) fn a_runtime_that_ends_with_a_guard_inside_releases_it(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let other = place.locker().lock("app");
    let ending = runtime();
    let task = lock.clone();
    ending.spawn(async move {
        let _guard = task.acquire().await.unwrap();
        pending::<()>().await;
    });
    ending.block_on(async {
        while other.info().await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    });
    drop(ending);
    wait::until("it is released", SOON, || is_free(&other));
}

/// 102
pub(crate) fn a_killed_process_leaves_a_lock_that_its_ttl_frees_with_a_larger_token(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app").ttl(LONG);
    let mut child = Child::start(place, Part::Hold, KEPT);
    let token: u64 = child.hear().strip_prefix("held ").unwrap().parse().unwrap();
    assert!(is_busy(&lock));
    child.kill();
    let guard = take_at_its_end(&lock);
    assert!(guard.fencing_token() > token);
}

/// 102
pub(crate) fn a_process_that_shuts_down_on_sigterm_leaves_its_lock_free_at_once(place: &dyn Place) {
    let lock = place.locker().lock("app");
    let mut child = Child::start(place, Part::Serve, LONG);
    assert!(child.hear().starts_with("held "));
    assert!(is_busy(&lock));
    child.signal(Signal::TERM);
    child.hears("shut down");
    // The ttl would take two minutes.
    assert!(is_free(&lock));
}

/// 103
pub(crate) fn a_process_that_was_stopped_past_its_lease_makes_no_effect_that_it_checks(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app").ttl(LONG);
    let mut child = Child::start(place, Part::Work, KEPT);
    assert!(child.hear().starts_with("held "));
    assert!(child.hear().starts_with("did "));
    child.signal(Signal::STOP);
    let guard = take_soon(&lock);
    let taken = micros_now();
    child.signal(Signal::CONT);
    let mut late = 0;
    loop {
        let said = child.hear();
        if said.starts_with("refused: lost") {
            break;
        }
        let at: u128 = said.strip_prefix("did ").unwrap().parse().unwrap();
        late += u32::from(at > taken);
    }
    // It may have been stopped between its check and its effect, once; only a fencing
    // token can help against that.
    assert!(late <= 1, "{late} effects without the lock");
    assert!(verified(&guard));
}

/// 104: A fork that goes on running our code needs `unsafe`; what can be had is a process
/// that the holder starts, and that outlives it.
pub(crate) fn a_process_started_by_the_holder_keeps_nothing_when_the_holder_dies(
    place: &dyn Place,
) {
    let lock = place.locker().lock("app");
    let mut child = Child::start(place, Part::Parent, BRIEF);
    assert!(child.hear().starts_with("held "));
    let grandchild: i32 = child.hear().parse().unwrap();
    child.kill();
    let freed = take_soon(&lock);
    let grandchild = rustix::process::Pid::from_raw(grandchild).unwrap();
    rustix::process::kill_process(grandchild, Signal::KILL).expect("it outlived the holder");
    freed.release_blocking().unwrap();
}

/// 105
pub(crate) fn a_release_whose_future_is_dropped_goes_on(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let other = place.locker().lock("app");
    for _ in 0..20 {
        let guard = take_soon(&lock);
        runtime().block_on(async {
            let mut releasing = pin!(guard.release());
            let asked = polled(releasing.as_mut()).await;
            assert!(asked.is_pending() || matches!(asked, Poll::Ready(Ok(()))));
        });
        wait::until("it is released", SOON, || is_free(&other));
    }
}

/// 105
pub(crate) fn a_body_cancelled_while_the_store_hangs_ends_released(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let other = place.locker().lock("app");
    let stalled = runtime().block_on(async {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let body = async {
            begun.send(()).unwrap();
            pending::<()>().await;
        };
        let stall = async {
            begins.await.unwrap();
            place.stall()
        };
        tokio::select! {
            _ = lock.run(body) => panic!("it never ends"),
            stalled = stall => stalled,
        }
    });
    // The body was dropped with the store hanging.
    drop(stalled);
    take_soon(&other).release_blocking().unwrap();
}

/// 106
pub(crate) fn after_a_shutdown_waiters_get_closed_and_holders_lost(place: &dyn Place) {
    let locker = place.locker();
    let guard = take(&locker.lock("held").ttl(LONG));
    let _other = take(&place.locker().lock("app").ttl(LONG));
    let waiter = locker.lock("app").wait_forever();
    let waiting = thread::spawn(move || waiter.acquire_blocking());
    let body = locker.lock("body").ttl(LONG);
    let begun = Arc::new(AtomicBool::new(false));
    let running = thread::spawn({
        let begun = Arc::clone(&begun);
        move || {
            bounded(
                "the body is cancelled",
                body.run(async {
                    begun.store(true, Ordering::SeqCst);
                    pending::<()>().await;
                }),
            )
        }
    });
    wait::until("the body runs", SOON, || begun.load(Ordering::SeqCst));
    let closing = thread::spawn({
        let locker = locker.clone();
        move || locker.shutdown_blocking(SOON)
    });
    until_lost(&guard);
    assert!(matches!(
        guard.ensure_held(),
        Err(Error::Lost {
            reason: Loss::Shutdown,
            ..
        })
    ));
    drop(guard);
    closing.join().unwrap().unwrap();
    let waited = waiting.join().unwrap();
    assert!(matches!(waited, Err(Error::Closed { .. })), "{waited:?}");
    let ran = running.join().unwrap();
    assert!(matches!(ran, Err(Error::Lost { .. })), "{ran:?}");
    let later = locker.lock("later").acquire_blocking();
    assert!(matches!(later, Err(Error::Closed { .. })), "{later:?}");
    for name in ["held", "body"] {
        assert!(is_free(&place.locker().lock(name)), "{name}");
    }
}

/// 107: There are no callbacks: what a user can hang on a loss is a future or a thread.
pub(crate) fn a_task_that_awaits_the_loss_and_panics_or_blocks_stops_neither_heartbeat_nor_signal(
    place: &dyn Place,
) {
    let locker = place.locker();
    let bystander = take(&locker.lock("bystander").ttl(KEPT));
    let guard: Arc<LockGuard> = Arc::new(take(&locker.lock("app").ttl(LONG)));
    let panics = thread::spawn({
        let guard = Arc::clone(&guard);
        move || {
            guard.lost_blocking();
            panic!("expected by this test");
        }
    });
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let blocks = thread::spawn({
        let guard = Arc::clone(&guard);
        move || {
            runtime().block_on(async {
                guard.lost().await;
                // On its executor's only thread.
                let _ = ended.recv();
            });
        }
    });
    force_release(&locker.lock("app"));
    until_lost(&guard);
    assert!(panics.join().is_err());
    its_heart_beats(&place.locker().lock("bystander"));
    assert!(bystander.is_held());
    drop(end);
    blocks.join().unwrap();
}

/// 101
pub(crate) fn a_guard_outlives_its_locker(place: &dyn Place) {
    let locker: AppLocker = place.locker();
    let guard = take(&locker.lock("app").ttl(KEPT));
    drop(locker);
    let other = place.locker().lock("app");
    its_heart_beats(&other);
    assert!(guard.is_held() && is_busy(&other));
    drop(guard);
    wait::until("it is released", SOON, || is_free(&other));
}

//! Promise: code that runs under a singleton finds its guard, on whichever thread it
//! goes on; other code finds none.
//!
//! The numbers beside the tests are lines of the list that `tests/conformance` goes by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, current, singleton};
use tokio::sync::Notify;

#[singleton(app = "inside", locker = locker, guard = mine)]
async fn inside(locker: &AppLocker) -> Result<u64, Error> {
    let token = current().expect("inside").fencing_token();
    assert_eq!(token, mine.fencing_token());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(current().expect("after an await").fencing_token(), token);
    assert!(current().expect("inside").is_held());
    Ok(token)
}

#[singleton(app = "inside", locker = locker, guard = mine)]
fn inside_sync(locker: &AppLocker) -> Result<u64, Error> {
    let token = current().expect("inside").fencing_token();
    assert_eq!(token, mine.fencing_token());
    assert_eq!(mine.info().key(), "QUEUE:inside");
    Ok(token)
}

#[tokio::test]
async fn there_is_a_guard_inside_and_none_outside() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    assert!(current().is_none());
    assert!(inside(&locker).await.unwrap() > 0);
    assert!(current().is_none());
    assert!(inside_sync(&locker).unwrap() > 0);
    assert!(current().is_none());
    let guard = locker.lock("inside").acquire().await.unwrap();
    // A guard in the hand is not a singleton that code runs under.
    assert!(current().is_none());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn another_task_of_the_same_thread_does_not_see_the_guard() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let entered = Notify::new();
    let go_on = Notify::new();
    let lock = locker.lock("task");
    let holder = lock.run(async {
        entered.notify_one();
        go_on.notified().await;
        assert!(current().is_some());
        let spawned = tokio::spawn(async { current().is_none() });
        assert!(
            spawned.await.unwrap(),
            "a spawned task is not under the lock"
        );
        let thread = std::thread::spawn(|| current().is_none());
        assert!(
            thread.join().unwrap(),
            "another thread is not under the lock"
        );
    });
    let bystander = async {
        entered.notified().await;
        assert!(current().is_none());
        go_on.notify_one();
    };
    let (held, ()) = tokio::join!(holder, bystander);
    held.unwrap();
}

#[singleton(app = "moves", locker = locker, guard = mine)]
async fn moves(locker: &AppLocker, entered: &AtomicBool, go_on: &Notify) -> Result<bool, Error> {
    let first = std::thread::current().id();
    entered.store(true, Ordering::SeqCst);
    go_on.notified().await;
    let guard = current().expect("after an await on another thread");
    assert_eq!(guard.fencing_token(), mine.fencing_token());
    Ok(std::thread::current().id() != first)
}

/// 93
#[test]
fn the_guard_follows_its_task_to_another_thread() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let entered = AtomicBool::new(false);
    let go_on = Notify::new();
    let mut future = Box::pin(moves(&locker, &entered, &go_on));
    crate::support::wait::until("the body is entered", Duration::from_secs(20), || {
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(future.as_mut().poll(&mut context), Poll::Pending));
        entered.load(Ordering::SeqCst)
    });
    assert!(current().is_none(), "between two polls");
    go_on.notify_one();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            assert!(current().is_none());
            let moved = pollster::block_on(future).unwrap();
            assert!(current().is_none());
            moved
        });
        assert!(second.join().unwrap(), "it went on where it was");
    });
}

#[tokio::test]
async fn a_panic_leaves_no_guard_behind() {
    #[singleton(app = "panics", locker = locker)]
    async fn panics(locker: &AppLocker) -> Result<(), Error> {
        panic!("the body panics")
    }
    #[singleton(app = "panics", locker = locker)]
    fn panics_sync(locker: &AppLocker) -> Result<(), Error> {
        panic!("the body panics")
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    assert!(
        crate::support::panics::caught(panics(&locker))
            .await
            .is_err()
    );
    assert!(current().is_none());
    let caught = std::panic::AssertUnwindSafe(|| panics_sync(&locker));
    assert!(std::panic::catch_unwind(caught).is_err());
    assert!(current().is_none());
}

/// 92
#[tokio::test]
async fn the_innermost_guard_is_the_one_that_is_found() {
    #[singleton(app = "outer", locker = locker, guard = outer)]
    async fn outer(locker: &AppLocker) -> Result<(), Error> {
        assert_eq!(current().unwrap().info().key(), "QUEUE:outer");
        inner(locker, outer.fencing_token()).await?;
        assert_eq!(current().unwrap().info().key(), "QUEUE:outer");
        Ok(())
    }
    #[singleton(app = "inner", locker = locker)]
    async fn inner(locker: &AppLocker, outer: u64) -> Result<(), Error> {
        tokio::task::yield_now().await;
        assert_eq!(current().unwrap().info().key(), "QUEUE:inner");
        assert_ne!(current().unwrap().fencing_token(), outer);
        Ok(())
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    outer(&locker).await.unwrap();
}

#[tokio::test]
async fn a_guard_kept_after_the_body_is_released_and_says_so() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let lock = locker.lock("kept");
    let kept = lock.run(async { current().unwrap() }).await.unwrap();
    assert_eq!(server.run::<i64>("EXISTS QUEUE:kept"), 0);
    assert!(!kept.is_held());
    assert!(matches!(kept.ensure_held(), Err(Error::NotHeld { .. })));
    assert!(!kept.verify().await.unwrap());
}

/// Uses singletons while the thread's locals are being destroyed: those that were made before
/// it, the library's own among them, are gone by then.
struct AtTheEnd(AppLocker, std::sync::mpsc::Sender<[u64; 2]>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        assert!(current().is_none());
        let outer = inside_sync(&self.0).unwrap();
        let again = outer_sync(&self.0).unwrap();
        assert!(current().is_none());
        self.1.send([outer, again]).unwrap();
    }
}

#[singleton(app = "inside", name = "outer", locker = locker, guard = mine)]
fn outer_sync(locker: &AppLocker) -> Result<u64, Error> {
    assert_eq!(mine.info().name(), Some("outer"));
    let inner = inside_sync(locker)?;
    assert_eq!(
        current().expect("inside").fencing_token(),
        mine.fencing_token()
    );
    Ok(inner)
}

/// A panic in such a destructor would abort the process.
#[test]
fn the_guard_is_there_in_a_destructor_of_a_thread_local() {
    thread_local! {
        static END: std::cell::RefCell<Option<AtTheEnd>> = const { std::cell::RefCell::new(None) };
    }
    if crate::support::child::part().is_none() {
        let test =
            crate::support::child::name_of(the_guard_is_there_in_a_destructor_of_a_thread_local);
        let child = crate::support::child::ChildProcess::start(test, "at the end");
        assert_eq!(child.says(), "all is well");
        return child.dismiss();
    }
    let (said, says) = std::sync::mpsc::channel();
    let locker = AppLocker::in_memory();
    let thread = std::thread::spawn(move || {
        // Made before the library's own, and gone after it.
        END.with_borrow_mut(|end| *end = Some(AtTheEnd(locker.clone(), said)));
        inside_sync(&locker).unwrap();
    });
    let [first, second] = says.recv().unwrap();
    thread.join().unwrap();
    assert!(first < second);
    crate::support::child::say("all is well");
}

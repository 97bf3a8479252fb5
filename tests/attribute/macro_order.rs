//! Rule R5: the body ends before the lock does, and its arguments are part of it.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use applock::{AppLocker, singleton};

/// Notes, when it is dropped, whether the lock was still held.
struct Probe {
    name: &'static str,
    locker: AppLocker,
    notes: Notes,
}

type Notes = Arc<Mutex<Vec<(&'static str, bool)>>>;

impl Drop for Probe {
    fn drop(&mut self) {
        let locker = self.locker.clone();
        // On a thread of its own, for `_blocking` waits and we may be inside a task.
        let held = std::thread::spawn(move || locker.lock("order").info_blocking())
            .join()
            .is_ok_and(|info| matches!(info, Ok(Some(_))));
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push((self.name, held));
    }
}

struct Case {
    locker: AppLocker,
    notes: Notes,
}

impl Case {
    fn new() -> Self {
        Self {
            locker: AppLocker::in_memory(),
            notes: Notes::default(),
        }
    }

    fn probe(&self, name: &'static str) -> Probe {
        Probe {
            name,
            locker: self.locker.clone(),
            notes: Arc::clone(&self.notes),
        }
    }

    /// Every probe was dropped under the lock, in this order, and the lock is free.
    #[track_caller]
    fn check(&self, order: &[&'static str]) {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let expected: Vec<_> = order.iter().map(|&name| (name, true)).collect();
        assert_eq!(*notes, expected);
        let locker = self.locker.clone();
        let after = std::thread::spawn(move || locker.lock("order").info_blocking()).join();
        assert!(after.unwrap().unwrap().is_none(), "the lock is still held");
    }
}

#[derive(Clone, Copy)]
enum End {
    Return,
    Early,
    Panic,
    Never,
}

#[singleton(app = "order", locker = one.locker)]
async fn in_async(one: Probe, _: Probe, mut used: Probe, (left, _): (Probe, u8), end: End) {
    let _local = Probe {
        name: "local",
        locker: one.locker.clone(),
        notes: one.notes.clone(),
    };
    tokio::task::yield_now().await;
    used.name = "used";
    match end {
        End::Return => {}
        End::Early => return,
        End::Panic => std::panic::panic_any("on purpose"),
        End::Never => pending().await,
    }
    drop(left);
}

#[singleton(app = "order", locker = one.locker)]
fn in_sync(one: Probe, _: Probe, mut used: Probe, (left, _): (Probe, u8), end: End) {
    let _local = Probe {
        name: "local",
        locker: one.locker.clone(),
        notes: one.notes.clone(),
    };
    used.name = "used";
    match end {
        End::Early => return,
        End::Panic => std::panic::panic_any("on purpose"),
        End::Return | End::Never => {}
    }
    drop(left);
}

impl Probe {
    #[singleton(app = "order", locker = self.locker)]
    async fn owned(self, _other: Self) -> Option<u8> {
        Some(1)
    }

    #[singleton(app = "order", locker = self.locker)]
    fn sync_owned(self: Box<Self>, _other: Self) -> Option<u8> {
        Some(1)
    }

    #[singleton(app = "order", locker = self.locker)]
    fn sync_used(self, _other: Self) -> Option<&'static str> {
        let Self { name, .. } = &self;
        Some(name)
    }
}

const RETURN: [&str; 5] = ["left", "local", "used", "one", "unnamed"];
const OTHERWISE: [&str; 5] = ["local", "left", "used", "one", "unnamed"];

fn arguments(case: &Case) -> (Probe, Probe, Probe, (Probe, u8)) {
    (
        case.probe("one"),
        case.probe("unnamed"),
        case.probe("used"),
        (case.probe("left"), 0),
    )
}

#[tokio::test]
async fn an_async_body_ends_before_its_lock_however_it_ends() {
    for (end, order) in [(End::Return, RETURN), (End::Early, OTHERWISE)] {
        let case = Case::new();
        let (one, unnamed, used, left) = arguments(&case);
        in_async(one, unnamed, used, left, end).await;
        case.check(&order);
    }
}

#[tokio::test]
async fn a_panic_in_an_async_body_reaches_the_caller_after_the_release() {
    let case = Case::new();
    let (one, unnamed, used, left) = arguments(&case);
    let panicked = tokio::spawn(in_async(one, unnamed, used, left, End::Panic)).await;
    assert!(panicked.unwrap_err().is_panic());
    case.check(&OTHERWISE);
}

#[tokio::test]
async fn a_dropped_future_drops_its_arguments_under_the_lock() {
    let case = Case::new();
    let (one, unnamed, used, left) = arguments(&case);
    let mut future = Box::pin(in_async(one, unnamed, used, left, End::Never));
    loop {
        let slice = tokio::time::timeout(Duration::from_millis(20), &mut future).await;
        assert!(slice.is_err());
        if case.locker.lock("order").info().await.unwrap().is_some() {
            break;
        }
    }
    tokio::time::timeout(Duration::from_millis(20), &mut future)
        .await
        .unwrap_err();
    drop(future);
    // The release itself goes on in the background.
    while case.locker.lock("order").info().await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    case.check(&OTHERWISE);
}

#[test]
fn a_sync_body_ends_before_its_lock_however_it_ends() {
    for (end, order) in [(End::Return, RETURN), (End::Early, OTHERWISE)] {
        let case = Case::new();
        let (one, unnamed, used, left) = arguments(&case);
        in_sync(one, unnamed, used, left, end);
        case.check(&order);
    }
}

#[test]
fn a_panic_in_a_sync_body_reaches_the_caller_after_the_release() {
    let case = Case::new();
    let (one, unnamed, used, left) = arguments(&case);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        in_sync(one, unnamed, used, left, End::Panic);
    }));
    assert!(panicked.is_err());
    case.check(&OTHERWISE);
}

#[tokio::test]
async fn an_owned_self_is_dropped_under_the_lock() {
    let case = Case::new();
    case.probe("self").owned(case.probe("other")).await.unwrap();
    case.check(&["other", "self"]);
}

#[test]
fn an_owned_self_is_dropped_under_the_lock_in_sync_methods() {
    let case = Case::new();
    Box::new(case.probe("self"))
        .sync_owned(case.probe("other"))
        .unwrap();
    case.check(&["other", "self"]);
    let case = Case::new();
    assert_eq!(
        case.probe("self").sync_used(case.probe("other")),
        Some("self")
    );
    case.check(&["other", "self"]);
}

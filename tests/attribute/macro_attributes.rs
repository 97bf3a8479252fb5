//! Attributes that rewrite functions as ours does, above and below it.

use applock::{AppLocker, Error, singleton};
use std::panic::Location;
use std::sync::LazyLock;

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

/// The lock is held by the code that runs here.
async fn is_held(app: &str) -> bool {
    applock::current().is_some_and(|guard| guard.is_held())
        && LOCKER.lock(app).info().await.unwrap().is_some()
}

#[tokio::test]
#[singleton(app = "tokio-test-above", locker = LOCKER)]
async fn tokio_test_above_locks_the_whole_runtime() {
    assert!(is_held("tokio-test-above").await);
}

#[singleton(app = "tokio-test-below", locker = LOCKER)]
#[tokio::test]
async fn tokio_test_below_locks_the_async_body() -> Result<(), Error> {
    assert!(is_held("tokio-test-below").await);
    Ok(())
}

#[test]
#[singleton(app = "test-above", locker = LOCKER)]
fn test_above() {
    assert!(applock::current().is_some());
}

#[singleton(app = "test-below", locker = LOCKER)]
#[test]
fn test_below() {
    assert!(applock::current().is_some());
}

#[tokio::main(flavor = "current_thread")]
#[singleton(app = "main-above", locker = LOCKER)]
async fn main_above() -> Option<bool> {
    Some(is_held("main-above").await)
}

#[singleton(app = "main-below", locker = LOCKER)]
#[tokio::main(flavor = "current_thread")]
async fn main_below() -> Option<bool> {
    Some(is_held("main-below").await)
}

#[test]
fn tokio_main_works_above_and_below() {
    assert_eq!(main_above(), Some(true));
    assert_eq!(main_below(), Some(true));
}

#[async_trait::async_trait]
trait Job {
    async fn run(&self, tenant: u32) -> Result<bool, Error>;

    #[singleton(app = "default", locker = LOCKER, on_busy = false)]
    async fn by_default(&self) -> bool {
        is_held("default").await
    }
}

struct Mine;

#[async_trait::async_trait]
impl Job for Mine {
    #[singleton(key = "tenant-{tenant}", locker = LOCKER)]
    async fn run(&self, tenant: u32) -> Result<bool, Error> {
        let here = LOCKER.lock("unused").key(format!("tenant-{tenant}"));
        Ok(here.info().await?.is_some())
    }
}

#[tokio::test]
async fn async_trait_runs_under_the_lock() {
    assert!(Mine.run(1).await.unwrap());
    assert!(Mine.by_default().await);
    let _guard = LOCKER
        .lock("unused")
        .key("tenant-2")
        .acquire()
        .await
        .unwrap();
    assert!(matches!(Mine.run(2).await, Err(Error::Busy(_))));
}

#[singleton(app = "tracks", locker = LOCKER)]
#[track_caller]
fn tracks(is_early: bool) -> Result<&'static Location<'static>, Error> {
    if is_early {
        return Ok(Location::caller());
    }
    Ok(Location::caller())
}

#[test]
fn track_caller_tells_of_the_caller() {
    for is_early in [true, false] {
        let (here, told) = (Location::caller(), tracks(is_early).unwrap());
        assert_eq!((here.file(), here.line()), (told.file(), told.line()));
    }
}

//! Promise: the return type decides how a busy lock is reported, and the body does not run.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::redis::RedisServer;
use ::anyhow::Context as _;
use applock::{AppLocker, Error, LockGuard, Refusal, singleton};

static RUNS: AtomicU32 = AtomicU32::new(0);

fn runs() {
    RUNS.fetch_add(1, Ordering::SeqCst);
}

#[singleton(app = "busy", locker = locker)]
async fn result(locker: &AppLocker) -> Result<u32, Error> {
    runs();
    Ok(1)
}

#[singleton(app = "busy", locker = locker)]
async fn anyhow(locker: &AppLocker) -> anyhow::Result<u32> {
    runs();
    Ok(1)
}

#[singleton(app = "busy", locker = locker)]
fn io(locker: &AppLocker) -> io::Result<u32> {
    runs();
    Ok(1)
}

#[singleton(app = "busy", locker = locker)]
async fn option(locker: &AppLocker) -> Option<u32> {
    runs();
    Some(1)
}

#[singleton(app = "busy", locker = locker)]
async fn unit(locker: &AppLocker) {
    runs();
}

#[singleton(app = "busy", locker = locker, on_busy = skip)]
async fn skip(locker: &AppLocker) -> anyhow::Result<()> {
    runs();
    anyhow::bail!("it ran")
}

#[singleton(app = "busy", locker = locker, on_busy = error)]
fn error(locker: &AppLocker) -> anyhow::Result<()> {
    runs();
    Ok(())
}

#[singleton(app = "busy", locker = locker, on_busy = default)]
async fn expression(locker: &AppLocker, default: u32) -> u32 {
    runs();
    1
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    Skipped(String),
}

impl Refusal for Outcome {
    fn refused(error: Error) -> Self {
        Self::Skipped(error.to_string())
    }
}

#[singleton(app = "busy", locker = locker)]
async fn own(locker: &AppLocker) -> Outcome {
    runs();
    Outcome::Done
}

/// The error names the holder, by whatever type it is carried.
#[track_caller]
fn assert_names(error: &Error, holder: &LockGuard) {
    let info = error
        .holder()
        .unwrap_or_else(|| panic!("not busy: {error}"));
    assert_eq!(info.fencing_token(), Some(holder.fencing_token()));
    assert_eq!(info.pid(), Some(std::process::id()));
    assert!(info.held_for().is_some() && info.heartbeat_age().is_some());
}

#[tokio::test]
async fn each_return_type_reports_a_busy_lock_in_its_own_way() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let holder = locker.lock("busy").acquire().await.unwrap();

    assert_names(&result(&locker).await.unwrap_err(), &holder);
    let refused = anyhow(&locker).await.unwrap_err();
    assert_names(refused.downcast_ref().unwrap(), &holder);
    let refused = Err::<(), _>(refused).context("the night").unwrap_err();
    assert_names(refused.downcast_ref().unwrap(), &holder);
    let refused = io(&locker).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    assert_names(refused.get_ref().unwrap().downcast_ref().unwrap(), &holder);
    assert_eq!(option(&locker).await, None);
    unit(&locker).await;
    skip(&locker).await.unwrap();
    let refused = error(&locker).unwrap_err();
    assert_names(refused.downcast_ref().unwrap(), &holder);
    assert_eq!(expression(&locker, 7).await, 7);
    match own(&locker).await {
        Outcome::Skipped(text) => assert!(text.contains("QUEUE:busy"), "{text}"),
        Outcome::Done => panic!("it ran"),
    }
    assert_eq!(RUNS.load(Ordering::SeqCst), 0);

    holder.release().await.unwrap();
    assert_eq!(result(&locker).await.unwrap(), 1);
    assert_eq!(anyhow(&locker).await.unwrap(), 1);
    assert_eq!(io(&locker).unwrap(), 1);
    assert_eq!(option(&locker).await, Some(1));
    unit(&locker).await;
    skip(&locker).await.unwrap_err();
    error(&locker).unwrap();
    assert_eq!(expression(&locker, 7).await, 1);
    assert_eq!(own(&locker).await, Outcome::Done);
    assert_eq!(RUNS.load(Ordering::SeqCst), 9);
}

#[tokio::test]
async fn a_refusal_that_no_type_tells_is_logged() {
    #[singleton(app = "logged", locker = locker)]
    async fn silent(locker: &AppLocker) {
        panic!("it ran")
    }
    crate::support::log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let _holder = locker.lock("logged").acquire().await.unwrap();
    silent(&locker).await;
    let (level, _) = crate::support::log::until(&["silent", "not run", "QUEUE:logged"]);
    assert_eq!(level, tracing::Level::INFO);

    let url = format!("redis://127.0.0.1:{}", crate::support::ports::nowhere());
    let nowhere = AppLocker::builder().store(url).build().unwrap();
    silent(&nowhere).await;
    let (level, _) = crate::support::log::until(&["silent", "not run", "unavailable"]);
    assert_eq!(level, tracing::Level::ERROR);
}

//! What a caller gets that asks for a lock when there is none to be had.

use std::error::Error as _;
use std::mem::discriminant;
use std::time::{Duration, Instant};

use applock::{AppLocker, Error, Result, singleton};

use super::redis::RedisServer;
use super::steps;

/// A password that no message may show.
pub const PASSWORD: &str = "hunter2-of-redis";

/// However long it takes to say no. A command has a second; a client that hides a dead
/// server behind its own retries takes nine.
pub const QUICKLY: Duration = Duration::from_secs(8);

#[singleton(app = "job", locker = locker)]
pub async fn job(locker: &AppLocker, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

#[singleton(app = "job", locker = locker)]
pub fn sync_job(locker: &AppLocker, ran: &mut bool) -> Result<()> {
    *ran = true;
    Ok(())
}

/// Whether the lock of the jobs is taken.
pub fn is_taken(server: &RedisServer) -> bool {
    steps::is_taken(server, "QUEUE:job")
}

/// Whether a job can be run.
pub fn runs(locker: &AppLocker) -> bool {
    let mut ran = false;
    let outcome = sync_job(locker, &mut ran);
    assert_eq!(ran, outcome.is_ok(), "{outcome:?}");
    ran
}

/// The error that an async and a sync function get; neither ran, both quickly.
#[track_caller]
pub fn refusal(locker: &AppLocker) -> Error {
    let mut ran = false;
    let start = Instant::now();
    let error = pollster::block_on(job(locker, &mut ran)).expect_err("a refusal");
    assert!(start.elapsed() < QUICKLY, "{:?}: {error}", start.elapsed());
    let start = Instant::now();
    let same = sync_job(locker, &mut ran).expect_err("a refusal");
    assert!(start.elapsed() < QUICKLY, "{:?}: {same}", start.elapsed());
    assert!(!ran, "the body ran");
    assert_eq!(
        discriminant(&error),
        discriminant(&same),
        "{error} | {same}"
    );
    error
}

/// The error that connecting gets, quickly; a locker that connects on first use gets the
/// same then.
#[track_caller]
pub fn refused_connection(url: &str) -> Error {
    let start = Instant::now();
    let error = AppLocker::connect_blocking(url).expect_err("a refusal");
    assert!(start.elapsed() < QUICKLY, "{:?}: {error}", start.elapsed());
    let later = refusal(&unconnected(url));
    assert_eq!(
        discriminant(&error),
        discriminant(&later),
        "{error} | {later}"
    );
    error
}

/// A locker that connects on first use.
pub fn unconnected(url: &str) -> AppLocker {
    let builder = AppLocker::builder().store(url);
    builder.build().expect("a locker, without I/O")
}

/// Says these words, and never the password, not even in its sources.
#[track_caller]
pub fn assert_says(error: &Error, words: &[&str]) {
    let mut all = format!("{error} {error:?}");
    for word in words {
        assert!(
            error.to_string().contains(word),
            "{word:?} is missing: {error}"
        );
    }
    let mut source = error.source();
    while let Some(inner) = source {
        all.push_str(&format!(" {inner} {inner:?}"));
        source = inner.source();
    }
    assert!(!all.contains(PASSWORD), "{all}");
}

#[track_caller]
pub fn assert_unavailable(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert_says(error, words);
}

#[track_caller]
pub fn assert_denied(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Denied(_)), "{error}");
    assert_says(error, words);
}

#[track_caller]
pub fn assert_misconfigured(error: &Error, words: &[&str]) {
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert_says(error, words);
}

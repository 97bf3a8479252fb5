//! Promise: a log subscriber that uses a locker from inside an event of the locker's own
//! background thread gets an error at once, and costs nobody else a lock or a call.

use std::sync::Mutex;
use std::time::Duration;

use applock::{AppLocker, Error, LockGuard, Result};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::child::{self, ChildProcess};

/// What the subscriber uses at the next event of the background thread.
static INSIDE: Mutex<Option<Inside>> = Mutex::new(None);

struct Inside {
    locker: AppLocker,
    to_drop: LockGuard,
    to_release: LockGuard,
    to_verify: LockGuard,
}

impl Inside {
    fn use_it(self) {
        let refused = |error: Error| {
            assert!(matches!(error, Error::Misconfigured(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains("log subscriber"), "{text}");
        };
        let lock = self.locker.lock("other").wait(Duration::from_millis(10));
        refused(lock.acquire_blocking().unwrap_err());
        refused(lock.try_acquire_blocking().unwrap_err());
        refused(lock.info_blocking().unwrap_err());
        refused(lock.force_release_blocking().unwrap_err());
        refused(self.locker.shutdown_blocking(Duration::ZERO).unwrap_err());
        // A future that is driven here would wait as well.
        refused(pollster::block_on(lock.acquire()).unwrap_err());
        refused(self.to_verify.verify_blocking().unwrap_err());
        refused(self.to_release.release_blocking().unwrap_err());
        drop(self.to_drop);
    }
}

struct AsksItself;

impl Subscriber for AsksItself {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("applock")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        if std::thread::current().name() == Some("applock") {
            let inside = INSIDE.lock().unwrap().take();
            if let Some(inside) = inside {
                inside.use_it();
                child::say("the subscriber is through");
            }
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn in_the_child() -> Result<()> {
    tracing::subscriber::set_global_default(AsksItself).unwrap();
    let locker = AppLocker::in_memory();
    let take = |name: &str| locker.lock(name).acquire_blocking();
    let guard = take("logged")?;
    *INSIDE.lock().unwrap() = Some(Inside {
        locker: locker.clone(),
        to_drop: take("dropped")?,
        to_release: take("released")?,
        to_verify: take("verified")?,
    });
    // This is an event.
    guard.release_blocking()?;
    for name in ["dropped", "released", "verified"] {
        // Each was given back, in the background.
        let lock = locker.lock(name).wait(Duration::from_secs(20));
        lock.acquire_blocking()?.release_blocking()?;
    }
    child::say("and all is well");
    Ok(())
}

#[test]
fn a_subscriber_that_asks_its_own_locker_is_refused_and_the_locker_goes_on() {
    if child::part().is_some() {
        return in_the_child().unwrap();
    }
    let test =
        child::name_of(a_subscriber_that_asks_its_own_locker_is_refused_and_the_locker_goes_on);
    let child = ChildProcess::start(test, "subscriber");
    assert_eq!(child.says(), "the subscriber is through");
    assert_eq!(child.says(), "and all is well");
    child.dismiss();
}

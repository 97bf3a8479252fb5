//! What a caller gets when the body did not run, for each `on_busy` and return type.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use applock::{AppLocker, Error, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

/// A name that every store refuses: the error is not 'busy' then.
fn refused() -> String {
    "x".repeat(70_000)
}

#[derive(Debug, PartialEq)]
enum Mine {
    Instead,
}

static EVALUATED: AtomicU32 = AtomicU32::new(0);

fn instead() -> u32 {
    EVALUATED.fetch_add(1, Ordering::Relaxed);
    0
}

macro_rules! functions {
    ($($(#[$attribute:meta])* $function:ident $arguments:tt -> $out:ty $body:block)*) => {
        mod waiting {
            use super::*;
            $($(#[$attribute])* pub(super) async fn $function $arguments -> $out $body)*
        }
        mod blocking {
            use super::*;
            $($(#[$attribute])* pub(super) fn $function $arguments -> $out $body)*
        }
    };
}

functions! {
    #[singleton(app = "refusal", name = "{name}", locker = LOCKER)]
    unit(name: &str) -> () {
        panic!("it ran")
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER)]
    option(name: &str) -> Option<u32> {
        Some(1)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER)]
    result(name: &str) -> Result<u32, Error> {
        Ok(1)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER)]
    alias(name: &str) -> anyhow::Result<u32> {
        Ok(1)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = error)]
    by_error(name: &str) -> std::io::Result<u32> {
        Ok(1)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = skip)]
    skip(name: &str) -> Result<Option<u32>, Error> {
        Ok(Some(1))
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = skip)]
    skip_foreign(name: &str) -> Result<(), Mine> {
        Err(Mine::Instead)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = instead())]
    value(name: &str) -> u32 {
        1
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = Ok(0))]
    value_or_error(name: &str) -> anyhow::Result<u32> {
        Ok(1)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = Err(Mine::Instead))]
    foreign(name: &str) -> Result<u32, Mine> {
        Ok(1)
    }

    #[singleton(app = "refusal", name = "{name}", locker = LOCKER, on_busy = vec![0].into_iter())]
    opaque(name: &str) -> impl Iterator<Item = u32> {
        vec![1].into_iter()
    }
}

#[tokio::test]
async fn busy_is_reported_as_the_return_type_can_async() {
    let _guard = LOCKER
        .lock("refusal")
        .name("async")
        .acquire()
        .await
        .unwrap();
    let name = "async";
    waiting::unit(name).await;
    assert_eq!(waiting::option(name).await, None);
    assert!(matches!(waiting::result(name).await, Err(Error::Busy(_))));
    let error = waiting::alias(name).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::Busy(_))));
    let error = waiting::by_error(name).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(waiting::skip(name).await.unwrap(), None);
    assert_eq!(waiting::skip_foreign(name).await, Ok(()));
    assert_eq!(waiting::value(name).await, 0);
    assert_eq!(waiting::value_or_error(name).await.unwrap(), 0);
    assert_eq!(waiting::foreign(name).await, Err(Mine::Instead));
    assert_eq!(waiting::opaque(name).await.next(), Some(0));
}

#[test]
fn busy_is_reported_as_the_return_type_can_sync() {
    let _guard = LOCKER
        .lock("refusal")
        .name("sync")
        .acquire_blocking()
        .unwrap();
    // The lock that this thread holds by hand is no singleton that it runs under.
    let name = "sync";
    blocking::unit(name);
    assert_eq!(blocking::option(name), None);
    assert!(matches!(blocking::result(name), Err(Error::Busy(_))));
    let error = blocking::alias(name).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::Busy(_))));
    let error = blocking::by_error(name).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(blocking::skip(name).unwrap(), None);
    assert_eq!(blocking::skip_foreign(name), Ok(()));
    assert_eq!(blocking::value(name), 0);
    assert_eq!(blocking::value_or_error(name).unwrap(), 0);
    assert_eq!(blocking::foreign(name), Err(Mine::Instead));
    assert_eq!(blocking::opaque(name).next(), Some(0));
}

#[tokio::test]
async fn what_is_not_busy_is_an_error_where_the_type_can_carry_one() {
    let name = &refused();
    waiting::unit(name).await;
    assert_eq!(waiting::option(name).await, None);
    assert!(matches!(
        waiting::result(name).await,
        Err(Error::Invalid(_))
    ));
    assert!(matches!(waiting::skip(name).await, Err(Error::Invalid(_))));
    assert_eq!(waiting::skip_foreign(name).await, Ok(()));
    let error = waiting::value_or_error(name).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::Invalid(_))));
    assert_eq!(waiting::foreign(name).await, Err(Mine::Instead));
    assert!(matches!(blocking::skip(name), Err(Error::Invalid(_))));
    assert_eq!(blocking::value(name), 0);
}

#[singleton(app = "generic", name = "{name}", locker = LOCKER, on_busy = fallback)]
fn generic<T, E>(name: &str, value: T, fallback: Result<T, E>) -> Result<T, E> {
    Ok(value)
}

#[singleton(app = "generic", name = "{name}", locker = LOCKER, on_busy = fallback)]
fn bounded<T, E: From<Error>>(name: &str, value: T, fallback: Result<T, E>) -> Result<T, E> {
    Ok(value)
}

#[test]
fn a_generic_error_gives_the_value_unless_its_bounds_say_that_it_can_carry_ours() {
    let name = &refused();
    assert_eq!(generic(name, 1, Err(Mine::Instead)), Err(Mine::Instead));
    assert_eq!(generic(name, 1, Ok::<_, Error>(2)).unwrap(), 2);
    assert!(matches!(bounded(name, 1, Ok(2)), Err(Error::Invalid(_))));
    assert_eq!(generic("free", 1, Err(Mine::Instead)), Ok(1));
}

#[singleton(app = "evaluated", locker = LOCKER, on_busy = instead())]
fn free() -> u32 {
    1
}

#[test]
fn the_value_is_computed_only_when_it_is_needed() {
    let before = EVALUATED.load(Ordering::Relaxed);
    assert_eq!(free(), 1);
    let guard = LOCKER.lock("evaluated").acquire_blocking().unwrap();
    assert_eq!(free(), 0);
    drop(guard);
    assert!(EVALUATED.load(Ordering::Relaxed) > before);
}

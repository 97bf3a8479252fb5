//! Every form of `on_busy`, on types that can and can't carry an error.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[derive(Debug, PartialEq)]
enum Mine {
    Busy,
}

type Alias = Result<u32, applock::Error>;

#[singleton(app = "a", locker = LOCKER, on_busy = error)]
fn by_error() -> Alias {
    Ok(1)
}

#[singleton(app = "b", locker = LOCKER, on_busy = skip)]
async fn skip_unit() {}

#[singleton(app = "c", locker = LOCKER, on_busy = skip)]
fn skip_option() -> Option<u32> {
    Some(1)
}

#[singleton(app = "d", locker = LOCKER, on_busy = skip)]
async fn skip_result() -> anyhow::Result<()> {
    Ok(())
}

#[singleton(app = "e", locker = LOCKER, on_busy = skip)]
fn skip_foreign_error() -> Result<Option<u32>, Mine> {
    Ok(Some(1))
}

#[singleton(app = "f", locker = LOCKER, on_busy = 0)]
async fn number() -> u32 {
    1
}

#[singleton(app = "g", locker = LOCKER, on_busy = Err(Mine::Busy))]
fn foreign_error() -> Result<u32, Mine> {
    Ok(1)
}

#[singleton(app = "h", locker = LOCKER, on_busy = Ok(0))]
async fn alias() -> Alias {
    Ok(1)
}

#[singleton(app = "i", locker = LOCKER, on_busy = return Ok(T::default()))]
fn generic<T: Default, E>(value: T) -> Result<T, E> {
    Ok(value)
}

#[singleton(app = "j", locker = LOCKER, on_busy = panic!("busy, {n}"))]
async fn panics(n: u32) -> u32 {
    n
}

#[singleton(app = "k", locker = LOCKER, on_busy = number().await)]
async fn awaits() -> u32 {
    1
}

#[singleton(app = "l", locker = LOCKER, on_busy = (skip))]
fn variable(skip: u32, text: &str) -> u32 {
    1 + u32::from(text.is_empty())
}

#[singleton(app = "m", locker = LOCKER, on_busy = Box::new(0))]
fn coerced() -> Box<dyn std::fmt::Debug> {
    Box::new("x")
}

#[singleton(app = "n", locker = LOCKER)]
async fn by_own_trait() -> Outcome {
    Outcome(true)
}

struct Outcome(bool);

impl applock::Refusal for Outcome {
    fn refused(_: applock::Error) -> Self {
        Self(false)
    }
}

#[tokio::main]
async fn main() {
    assert_eq!(by_error().unwrap(), 1);
    skip_unit().await;
    assert_eq!(skip_option(), Some(1));
    skip_result().await.unwrap();
    assert_eq!(skip_foreign_error(), Ok(Some(1)));
    assert_eq!(number().await, 1);
    assert_eq!(foreign_error(), Ok(1));
    assert_eq!(alias().await.unwrap(), 1);
    assert_eq!(generic::<_, Mine>(1), Ok(1));
    assert_eq!(panics(2).await, 2);
    assert_eq!(awaits().await, 1);
    assert_eq!(variable(0, "x"), 1);
    assert_eq!(format!("{:?}", coerced()), "\"x\"");
    assert!(by_own_trait().await.0);
}

//! `Option`, `()` written out, and results with an empty value.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

type Maybe<T> = Option<T>;
type Nothing = ();

#[singleton(app = "a", locker = LOCKER)]
async fn option(n: u32) -> Option<u32> {
    let n = n.checked_sub(1)?;
    Some(n)
}

#[singleton(app = "b", locker = LOCKER)]
fn alias(n: u32) -> Maybe<u32> {
    n.checked_sub(1)
}

#[singleton(app = "c", locker = LOCKER)]
async fn unit() -> () {}

#[singleton(app = "d", locker = LOCKER)]
fn unit_alias() -> Nothing {}

#[tokio::main]
async fn main() {
    assert_eq!(option(1).await, Some(0));
    assert_eq!(option(0).await, None);
    assert_eq!(alias(1), Some(0));
    unit().await;
    unit_alias();
}

//! An `async fn`.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "reports", locker = LOCKER)]
async fn unit() {
    tokio::task::yield_now().await;
}

#[singleton(app = "reports", ttl = 60, locker = LOCKER)]
async fn value(items: Vec<u8>) -> Option<usize> {
    unit().await;
    Some(items.len())
}

#[tokio::main]
async fn main() {
    unit().await;
    assert_eq!(value(vec![1, 2]).await, Some(2));
}

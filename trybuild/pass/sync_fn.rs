//! A plain `fn`, with no async runtime anywhere.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "reports", locker = LOCKER)]
fn unit() {}

#[singleton(app = "reports", locker = LOCKER)]
fn value(mut items: Vec<u8>) -> Option<usize> {
    items.push(3);
    Some(items.len())
}

fn main() {
    unit();
    assert_eq!(value(vec![1, 2]), Some(3));
}

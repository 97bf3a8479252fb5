//! Attributes on arguments.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", locker = LOCKER)]
async fn compiled(
    #[cfg(all())] here: u32,
    #[cfg(any())] absent: NoSuchType,
    #[allow(unused_variables)] unused: u32,
    #[expect(unused_variables)] expected: u32,
    #[cfg(all())] _: u32,
) -> Option<u32> {
    Some(here)
}

#[singleton(app = "b", locker = LOCKER)]
fn compiled_sync(
    #[cfg(any())] here: NoSuchType,
    #[cfg(all())] mut here: u32,
    #[cfg(any())] _: NoSuchType,
    #[expect(unused_variables)] expected: u32,
) -> Option<u32> {
    here += 1;
    Some(here)
}

#[tokio::main]
async fn main() {
    assert_eq!(compiled(1, 2, 3, 4).await, Some(1));
    assert_eq!(compiled_sync(1, 2), Some(2));
}

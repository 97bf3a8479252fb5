//! Attributes that `macro_rules!` has written.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

macro_rules! job {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($arg:ident: $ty:ty) -> $out:ty $body:block, $app:literal, $ttl:expr, $busy:expr, $krate:path) => {
        $(#[$meta])*
        #[singleton(app = $app, ttl = $ttl, on_busy = $busy, locker = LOCKER, crate = $krate)]
        $vis fn $name($arg: $ty) -> $out $body
    };
}

job! {
    /// Kept.
    pub(crate) fn job(n: u32) -> Option<u32> {
        Some(n)
    }, "jobs", 30, None, ::applock
}

macro_rules! locked {
    ($app:literal => $item:item) => {
        #[singleton(app = $app, locker = LOCKER)]
        $item
    };
}

locked!("items" => async fn item(n: u32) -> Option<u32> { Some(n) });

#[tokio::main]
async fn main() {
    assert_eq!(job(1), Some(1));
    assert_eq!(item(1).await, Some(1));
}

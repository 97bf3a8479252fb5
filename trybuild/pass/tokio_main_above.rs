//! `#[tokio::main]` above ours: the lock goes around the whole runtime.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[tokio::main]
#[singleton(app = "a", locker = LOCKER)]
async fn main() -> anyhow::Result<()> {
    tokio::task::yield_now().await;
    Ok(())
}

//! `#[tokio::main]` below ours: the async function is what runs under the lock.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", locker = LOCKER, on_lost = cancel)]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tokio::task::yield_now().await;
    Ok(())
}

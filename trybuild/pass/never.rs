//! Functions that never return, and bodies that never do.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", locker = LOCKER, on_busy = panic!("busy"))]
fn never(panic: bool) -> ! {
    if panic {
        std::panic::panic_any(1_u32);
    }
    std::process::exit(0)
}

#[singleton(app = "b", locker = LOCKER, on_busy = std::process::exit(3))]
async fn never_async() -> ! {
    loop {
        tokio::task::yield_now().await;
    }
}

#[singleton(app = "c", locker = LOCKER)]
async fn leader() {
    loop {
        std::future::pending::<()>().await;
    }
}

#[singleton(app = "d", locker = LOCKER)]
fn not_yet() -> Option<u32> {
    panic!("not yet")
}

#[singleton(app = "e", locker = LOCKER)]
async fn not_yet_async(_n: u32) -> anyhow::Result<u32> {
    panic!("not yet")
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    drop((never_async(), leader(), not_yet_async(1)));
    assert!(std::panic::catch_unwind(not_yet).is_err());
    assert!(std::panic::catch_unwind(|| never(true)).is_err());
    never(false)
}

//! `return` from loops, closures and nested blocks.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", locker = LOCKER)]
async fn search(items: &[u32], wanted: u32) -> Option<usize> {
    for (at, &item) in items.iter().enumerate() {
        let halved = move || {
            if item == 0 {
                return 0;
            }
            item / 2
        };
        if halved() == wanted {
            return Some(at);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[singleton(app = "b", locker = LOCKER)]
fn sync_search(items: &[u32], wanted: u32) -> Result<usize, applock::Error> {
    let mut at = 0;
    loop {
        if items[at] == wanted {
            return Ok(at);
        }
        at += 1;
    }
}

#[singleton(app = "c", locker = LOCKER)]
fn nothing(stop: bool) {
    if stop {
        return;
    }
    assert!(!stop);
}

#[singleton(app = "d", locker = LOCKER)]
async fn every_way_returns(n: u32) -> Result<u32, applock::Error> {
    match n {
        0 => return Ok(1),
        _ => return Ok(2),
    }
}

#[tokio::main]
async fn main() {
    assert_eq!(search(&[1, 4, 5], 2).await, Some(1));
    assert_eq!(search(&[0], 2).await, None);
    assert_eq!(sync_search(&[1, 4], 4).unwrap(), 1);
    nothing(true);
    nothing(false);
    assert_eq!(every_way_returns(0).await.unwrap(), 1);
}

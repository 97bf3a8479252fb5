//! Const parameters, which a name may capture as well.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", name = "shard-{N}", locker = LOCKER)]
async fn shard<const N: usize>(bytes: [u8; N]) -> Option<usize> {
    tokio::task::yield_now().await;
    Some(bytes.len() + N)
}

#[singleton(app = "b", locker = LOCKER)]
fn sync_shard<const N: usize>() -> Option<[u8; N]> {
    Some([1; N])
}

#[tokio::main]
async fn main() {
    assert_eq!(shard([0; 3]).await, Some(6));
    assert_eq!(sync_shard::<2>(), Some([1, 1]));
}

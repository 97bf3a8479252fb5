//! All arguments at once, in any order, with and without a trailing comma.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::time::Duration;

#[singleton(
    guard = held,
    crate = ::applock,
    at_most = "1h",
    at_least = "100ms",
    locker = LOCKER,
    on_lost = finish,
    on_busy = error,
    reentrant,
    wait = "10s",
    ttl = "1h 30m",
    name = "tenant-{tenant:04}-{tenant:?}-{{literal}}",
    app = "billing",
)]
async fn everything(tenant: u32) -> Result<bool, applock::Error> {
    held.ensure_held()?;
    let _ = tenant;
    Ok(held.is_held())
}

#[singleton(app = "billing", locker = LOCKER, on_lost = finish, wait = forever, at_most = 3600, reentrant)]
fn sync_everything() {}

const TTL: Duration = Duration::from_secs(5);

struct Settings {
    ttl: Duration,
    locker: AppLocker,
}

impl Settings {
    #[singleton(
        key = "{{tag}}:{self}:{id:>width$}",
        ttl = self.ttl,
        wait = TTL * 2,
        at_least = Duration::from_millis(100 + u64::from(id)),
        at_most = { TTL + TTL },
        locker = self.locker
    )]
    async fn computed(&self, id: u32, width: usize) -> Option<u32> {
        Some(1)
    }

    #[singleton(key = "plain", ttl = 1u64, wait = 0, locker = &*LOCKER)]
    fn plain(&self) -> Option<u32> {
        Some(2)
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("settings")
    }
}

#[tokio::main]
async fn main() {
    assert!(everything(1).await.unwrap());
    sync_everything();
    let settings = Settings { ttl: TTL, locker: AppLocker::in_memory() };
    assert_eq!(settings.computed(1, 2).await, Some(1));
    assert_eq!(settings.plain(), Some(2));
}

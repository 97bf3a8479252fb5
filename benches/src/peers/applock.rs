//! `applock` itself, its guard in the hand.

use std::time::Duration;

use anyhow::Result;
use applock::{AppLocker, Lock, LockGuard};

use crate::driver::Peer;

/// See the module.
#[derive(Clone)]
pub(crate) struct AppLock {
    locker: AppLocker,
    ttl: Duration,
}

impl Peer for AppLock {
    const NAME: &'static str = "applock";
    const CRATE: Option<&'static str> = Some("applock");
    type Lock = Lock;
    type Held = LockGuard;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let locker = AppLocker::connect(url).await?;
        Ok(Self { locker, ttl })
    }

    fn lock(&self, key: &str) -> Result<Lock> {
        Ok(self.locker.lock(key).ttl(self.ttl).wait_forever())
    }

    async fn acquire(lock: &Lock) -> Result<LockGuard> {
        Ok(lock.acquire().await?)
    }

    async fn release(held: LockGuard) -> Result<()> {
        Ok(held.release().await?)
    }
}

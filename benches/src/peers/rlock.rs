//! `rlock`: asks again every 100 ms, and renews at half of the ttl.

use std::time::Duration;

use anyhow::Result;
use rlock::AcquireOptions;
use rlock::async_lock::{RLock as Manager, RLockGuard};

use crate::driver::Peer;

/// See the module.
#[derive(Clone)]
pub(crate) struct RLock {
    manager: Manager,
    options: AcquireOptions,
}

/// The lock of one key.
#[derive(Clone)]
pub(crate) struct Key {
    on: RLock,
    key: String,
}

impl Peer for RLock {
    const NAME: &'static str = "rlock";
    const CRATE: Option<&'static str> = Some("rlock");
    type Lock = Key;
    type Held = RLockGuard;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let manager = Manager::new(url).await?;
        let options = AcquireOptions::builder().ttl(ttl).build()?;
        Ok(Self { manager, options })
    }

    fn lock(&self, key: &str) -> Result<Key> {
        let (on, key) = (self.clone(), key.to_owned());
        Ok(Key { on, key })
    }

    async fn acquire(lock: &Key) -> Result<RLockGuard> {
        let Key { on, key } = lock;
        let options = on.options.clone();
        Ok(on.manager.acquire_mutex_with_options(key, options).await?)
    }

    async fn release(mut held: RLockGuard) -> Result<()> {
        Ok(held.release().await?)
    }
}

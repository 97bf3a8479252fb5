//! `rslock`: asks again at random, up to 200 ms later. Its locks are renewed in `using`.

use std::time::Duration;

use anyhow::Result;
use rslock::{LockGuard, LockManager};

use crate::driver::Peer;

/// See the module.
#[derive(Clone)]
pub(crate) struct RsLock {
    manager: LockManager,
    ttl: Duration,
}

/// The lock of one key.
#[derive(Clone)]
pub(crate) struct Key {
    on: RsLock,
    key: String,
}

impl Peer for RsLock {
    const NAME: &'static str = "rslock";
    const CRATE: Option<&'static str> = Some("rslock");
    type Lock = Key;
    type Held = LockGuard;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let manager = LockManager::new(vec![url]);
        Ok(Self { manager, ttl })
    }

    fn lock(&self, key: &str) -> Result<Key> {
        let (on, key) = (self.clone(), key.to_owned());
        Ok(Key { on, key })
    }

    async fn acquire(lock: &Key) -> Result<LockGuard> {
        let Key { on, key } = lock;
        Ok(on.manager.acquire(key.as_str(), on.ttl).await?)
    }

    async fn release(held: LockGuard) -> Result<()> {
        held.release().await;
        Ok(())
    }

    async fn hold(lock: &Key, taken: impl FnOnce()) -> Result<()> {
        let Key { on, key } = lock;
        let body = async || {
            taken();
            std::future::pending().await
        };
        Ok(on.manager.using(key.as_bytes(), on.ttl, body).await?)
    }
}

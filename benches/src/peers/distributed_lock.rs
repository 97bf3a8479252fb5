//! `distributed-lock`: nobody can wait for it, `acquire(None)` fails at once where the
//! lock is taken. It renews at a third of the ttl, and once right after it was taken.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_redis::{RedisDistributedLock, RedisLockHandle, RedisLockProvider};

use crate::driver::Peer;
use crate::options::Mode;

/// See the module.
#[derive(Clone)]
pub(crate) struct DistributedLock {
    provider: Arc<RedisLockProvider>,
}

impl Peer for DistributedLock {
    const NAME: &'static str = "distributed-lock";
    const CRATE: Option<&'static str> = Some("distributed-lock-redis");
    type Lock = Arc<RedisDistributedLock>;
    type Held = RedisLockHandle;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let provider = RedisLockProvider::builder()
            .url(url)
            .expiry(ttl)
            .extension_cadence(ttl / 3)
            .min_validity(ttl * 9 / 10)
            .build()
            .await?;
        let provider = Arc::new(provider);
        Ok(Self { provider })
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        matches!(mode, Mode::Workers { .. })
            .then_some("its acquire fails at once where the lock is taken, also without a time-out")
    }

    fn lock(&self, key: &str) -> Result<Self::Lock> {
        Ok(Arc::new(self.provider.create_lock(key)))
    }

    async fn acquire(lock: &Self::Lock) -> Result<RedisLockHandle> {
        Ok(lock.acquire(None).await?)
    }

    async fn release(held: RedisLockHandle) -> Result<()> {
        Ok(held.release().await?)
    }
}

//! `nadis`: wakes all waiters of a lock by PUBLISH. Each wait dials a connection of its
//! own. It renews at a third of the ttl.

use std::time::Duration;

use anyhow::Result;
use nadis::{CompatibilityProfile, DistributedLock, LockGuard, RedisClient, RedisConfig};

use crate::driver::Peer;

/// See the module.
#[derive(Clone)]
pub(crate) struct Nadis {
    locks: DistributedLock,
}

/// The lock of one key.
#[derive(Clone)]
pub(crate) struct Key {
    on: Nadis,
    key: String,
}

impl Peer for Nadis {
    const NAME: &'static str = "nadis";
    const CRATE: Option<&'static str> = Some("nadis");
    type Lock = Key;
    type Held = LockGuard;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let mut config = RedisConfig::new(url, "bench", CompatibilityProfile::RustV2);
        config.lock.lease_ms = u64::try_from(ttl.as_millis())?;
        let locks = DistributedLock::new(RedisClient::connect(config).await?);
        Ok(Self { locks })
    }

    fn lock(&self, key: &str) -> Result<Key> {
        let (on, key) = (self.clone(), key.to_owned());
        Ok(Key { on, key })
    }

    async fn acquire(lock: &Key) -> Result<LockGuard> {
        Ok(lock.on.locks.lock(&lock.key, None).await?)
    }

    async fn release(held: LockGuard) -> Result<()> {
        Ok(held.unlock().await?)
    }
}

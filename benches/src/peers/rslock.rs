//! `rslock`: asks again at random, up to 200 ms later. Its locks are renewed in `using`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rslock::{LockGuard, LockManager};
use tokio::sync::oneshot;

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

    async fn keep(lock: &Key) -> Result<()> {
        let Key { on, key } = lock.clone();
        let (taken, is_taken) = oneshot::channel::<()>();
        tokio::task::spawn_local(async move {
            let body = async || {
                // Nobody hears it where the bench has ended.
                let _ = taken.send(());
                std::future::pending::<()>().await;
            };
            on.manager.using(key.as_bytes(), on.ttl, body).await
        });
        is_taken.await.context("it was not taken")
    }
}

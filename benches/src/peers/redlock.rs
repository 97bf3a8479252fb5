//! `redlock`: blocks its thread, asks again at random, up to 200 ms later, and dials a
//! connection for each command. It has no renewal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::driver::Peer;
use crate::options::Mode;

/// See the module.
#[derive(Clone)]
pub(crate) struct RedLock {
    locks: Arc<redlock::RedLock>,
    ttl: Duration,
}

/// The lock of one key.
#[derive(Clone)]
pub(crate) struct Key {
    on: RedLock,
    key: String,
}

/// What a release has to name.
pub(crate) struct Held {
    lock: Key,
    value: Vec<u8>,
}

impl Peer for RedLock {
    const NAME: &'static str = "redlock";
    const CRATE: Option<&'static str> = Some("redlock");
    const BLOCKS: bool = true;
    type Lock = Key;
    type Held = Held;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let locks = Arc::new(redlock::RedLock::new(vec![url]));
        Ok(Self { locks, ttl })
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        matches!(mode, Mode::Hold { .. }).then_some("it can't renew a lock")
    }

    fn lock(&self, key: &str) -> Result<Key> {
        let (on, key) = (self.clone(), key.to_owned());
        Ok(Key { on, key })
    }

    async fn acquire(lock: &Key) -> Result<Held> {
        let ttl = usize::try_from(lock.on.ttl.as_millis())?;
        loop {
            let taken = lock.on.locks.lock(lock.key.as_bytes(), ttl);
            if let Some(taken) = taken.context("redlock's lock")? {
                let (lock, value) = (lock.clone(), taken.val);
                return Ok(Held { lock, value });
            }
        }
    }

    async fn release(held: Held) -> Result<()> {
        let Held { lock, value } = held;
        lock.on.locks.unlock(&redlock::Lock {
            resource: lock.key.into_bytes(),
            val: value,
            validity_time: 0,
            lock_manager: &lock.on.locks,
        });
        Ok(())
    }
}

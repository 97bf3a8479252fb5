//! The baseline: a lock written by hand, with nothing but its key.
//!
//! `SET key id NX PX ttl`, and a script that compares and deletes, through the same redis
//! crate that `applock` uses, over one multiplexed connection. It has no heartbeat, no
//! fencing token, no information about the holder, and nobody can wait for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo as _, Script};

use crate::driver::Peer;
use crate::options::Mode;

/// See the module.
#[derive(Clone)]
pub(crate) struct ByHand {
    connection: MultiplexedConnection,
    release: Script,
    ttl: Duration,
}

/// The lock of one key.
#[derive(Clone)]
pub(crate) struct Key {
    on: ByHand,
    key: String,
}

/// The proof of holding it.
pub(crate) struct Held {
    lock: Key,
    id: u64,
}

/// Why it is not there where callers wait.
pub(super) fn refuses(mode: &Mode) -> Option<&'static str> {
    let can = matches!(mode, Mode::Cycle | Mode::Once | Mode::Many { .. });
    (!can).then_some("nobody can wait for it, and nothing renews it")
}

/// As the baseline has it.
async fn connection(url: &str) -> Result<MultiplexedConnection> {
    let settings = TcpSettings::default().set_nodelay(true);
    let info = url.into_connection_info()?.set_tcp_settings(settings);
    Ok(Client::open(info)?
        .get_multiplexed_async_connection()
        .await?)
}

impl Peer for ByHand {
    const NAME: &'static str = "by hand";
    const CRATE: Option<&'static str> = None;
    type Lock = Key;
    type Held = Held;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let connection = connection(url).await?;
        let release = Script::new(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then \
             return redis.call('DEL', KEYS[1]) else return 0 end",
        );
        Ok(Self {
            connection,
            release,
            ttl,
        })
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        refuses(mode)
    }

    fn lock(&self, key: &str) -> Result<Key> {
        let (on, key) = (self.clone(), key.to_owned());
        Ok(Key { on, key })
    }

    async fn acquire(lock: &Key) -> Result<Held> {
        let lock = lock.clone();
        let id = fastrand::u64(..);
        let taken: Option<String> = redis::cmd("SET")
            .arg(&lock.key)
            .arg(id)
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(lock.on.ttl.as_millis())?)
            .query_async(&mut lock.on.connection.clone())
            .await?;
        ensure!(taken.is_some(), "the lock was not free");
        Ok(Held { lock, id })
    }

    async fn release(mut held: Held) -> Result<()> {
        let on = &mut held.lock.on;
        let mut script = on.release.key(&held.lock.key);
        let deleted: u8 = script.arg(held.id).invoke_async(&mut on.connection).await?;
        ensure!(deleted == 1, "the lock was gone");
        Ok(())
    }
}

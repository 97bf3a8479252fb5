//! The limit of a hand-over: a wait queue by hand, with nothing but the queue.
//!
//! One script lets the lock go: it takes the first waiter from a list, writes it as the
//! holder, and publishes on the waiter's channel. The waiter's thread blocks on its
//! subscription, so no runtime and no other thread is in between. It has no heartbeat, no
//! fencing token and no information about the holder, and a waiter that dies blocks all
//! others until the lock expires.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, IntoConnectionInfo as _, Script, Value, cmd};

use crate::driver::Peer;
use crate::options::Mode;

thread_local! {
    /// Each worker has a thread of its own.
    static CALLER: RefCell<Option<Caller>> = const { RefCell::new(None) };
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Limit {
    url: Arc<str>,
    ttl: Duration,
}

/// The lock of one key.
#[derive(Clone)]
pub(crate) struct Key {
    on: Limit,
    key: Arc<str>,
}

/// What one thread needs: a connection for its scripts, one that hears its channel.
struct Caller {
    channel: String,
    commands: Connection,
    arrivals: Connection,
    acquire: Script,
    release: Script,
}

impl Caller {
    fn connect(url: &str) -> Result<Self> {
        let settings = TcpSettings::default().set_nodelay(true);
        let client = Client::open(url.into_connection_info()?.set_tcp_settings(settings))?;
        let channel = format!("limit-{}", fastrand::u64(..));
        let mut arrivals = client.get_connection()?;
        let subscribe = cmd("SUBSCRIBE").arg(&channel).get_packed_command();
        arrivals.send_packed_command(&subscribe)?;
        arrivals.recv_response()?;
        Ok(Self {
            channel,
            commands: client.get_connection()?,
            arrivals,
            acquire: Script::new(
                "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
                 redis.call('RPUSH', KEYS[2], ARGV[1]) return 0",
            ),
            release: Script::new(
                "local next = redis.call('LPOP', KEYS[2]) \
                 if next then redis.call('SET', KEYS[1], next, 'PX', ARGV[1]) \
                 redis.call('PUBLISH', next, '') \
                 else redis.call('DEL', KEYS[1]) end return 1",
            ),
        })
    }

    fn acquire(&mut self, lock: &Key) -> Result<()> {
        let mut script = self.acquire.prepare_invoke();
        script.key(&*lock.key).key(lock.queue()).arg(&self.channel);
        let taken: bool = script.arg(lock.ttl()).invoke(&mut self.commands)?;
        if !taken {
            let arrival = self.arrivals.recv_response()?;
            anyhow::ensure!(
                matches!(arrival, Value::Array(_) | Value::Push { .. }),
                "no message: {arrival:?}"
            );
        }
        Ok(())
    }

    fn release(&mut self, lock: &Key) -> Result<()> {
        let mut script = self.release.prepare_invoke();
        script.key(&*lock.key).key(lock.queue()).arg(lock.ttl());
        Ok(script.invoke(&mut self.commands)?)
    }
}

impl Key {
    fn queue(&self) -> String {
        format!("{}:queue", self.key)
    }

    fn ttl(&self) -> u64 {
        u64::try_from(self.on.ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes it. Blocks until it is held.
    pub(super) fn acquire(&self) -> Result<()> {
        self.call(Caller::acquire)
    }

    /// Lets it go.
    pub(super) fn release(&self) -> Result<()> {
        self.call(Caller::release)
    }

    /// Does this with what the thread has.
    fn call(&self, what: impl FnOnce(&mut Caller, &Self) -> Result<()>) -> Result<()> {
        CALLER.with_borrow_mut(|caller| {
            if caller.is_none() {
                *caller = Some(Caller::connect(&self.on.url)?);
            }
            what(caller.as_mut().context("just connected")?, self)
        })
    }
}

impl Peer for Limit {
    const NAME: &'static str = "limit, by hand";
    const CRATE: Option<&'static str> = None;
    const BLOCKS: bool = true;
    type Lock = Key;
    type Held = Key;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let url = url.into();
        Ok(Self { url, ttl })
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        let can = matches!(mode, Mode::Workers { .. });
        (!can).then_some("it is the limit of a hand-over alone")
    }

    fn lock(&self, key: &str) -> Result<Key> {
        let (on, key) = (self.clone(), key.into());
        Ok(Key { on, key })
    }

    async fn acquire(lock: &Key) -> Result<Key> {
        lock.acquire()?;
        Ok(lock.clone())
    }

    async fn release(held: Key) -> Result<()> {
        held.release()
    }
}

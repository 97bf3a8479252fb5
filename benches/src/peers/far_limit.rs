//! The limit of a hand-over asked for from another thread: what two changes of threads cost on each
//! side, which the engine's own thread makes. That thread, too, blocks on its subscription.

use std::cell::RefCell;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::limit::{Key, Limit};
use crate::driver::Peer;
use crate::options::Mode;

/// What the thread is asked to do, and whom it tells.
struct Command {
    what: fn(&Key) -> Result<()>,
    lock: Key,
    answer: Sender<Result<()>>,
}

thread_local! {
    /// Each worker has a thread of its own, and that another one.
    static THREAD: RefCell<Option<Sender<Command>>> = const { RefCell::new(None) };
}

/// See the module.
#[derive(Clone)]
pub(crate) struct FarLimit(Limit);

impl Peer for FarLimit {
    const NAME: &'static str = "limit, other thread";
    const CRATE: Option<&'static str> = None;
    const BLOCKS: bool = true;
    type Lock = Key;
    type Held = Key;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        Ok(Self(Limit::connect(url, ttl).await?))
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        Limit::refuses(mode)
    }

    fn lock(&self, key: &str) -> Result<Key> {
        self.0.lock(key)
    }

    async fn acquire(lock: &Key) -> Result<Key> {
        ask(lock, Key::acquire)?;
        Ok(lock.clone())
    }

    async fn release(held: Key) -> Result<()> {
        ask(&held, Key::release)
    }
}

fn ask(lock: &Key, what: fn(&Key) -> Result<()>) -> Result<()> {
    let (answer, answered) = channel();
    let lock = lock.clone();
    THREAD.with_borrow_mut(|thread| {
        let thread = thread.get_or_insert_with(start);
        let command = Command { what, lock, answer };
        thread.send(command).ok().context("the thread has ended")
    })?;
    answered.recv()?
}

fn start() -> Sender<Command> {
    let (thread, commands) = channel::<Command>();
    std::thread::spawn(move || {
        for Command { what, lock, answer } in commands {
            // The worker may have ended.
            let _ = answer.send(what(&lock));
        }
    });
    thread
}

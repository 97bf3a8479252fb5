//! The baseline driven from another thread: what the hop alone costs that the engine's
//! own thread makes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use super::by_hand::{self, ByHand};
use crate::driver::Peer;
use crate::options::Mode;

type Lock = <ByHand as Peer>::Lock;
type Held = <ByHand as Peer>::Held;

/// What the thread is asked to do.
enum Command {
    /// Take it.
    Acquire(Lock, oneshot::Sender<Result<Held>>),
    /// Let it go.
    Release(Held, oneshot::Sender<Result<()>>),
}

/// See the module.
#[derive(Clone)]
pub(crate) struct OtherThread {
    by_hand: ByHand,
    thread: mpsc::UnboundedSender<Command>,
}

/// With the way to the thread.
#[derive(Clone)]
pub(crate) struct Far<T> {
    near: T,
    thread: mpsc::UnboundedSender<Command>,
}

impl Peer for OtherThread {
    const NAME: &'static str = "by hand, other thread";
    const CRATE: Option<&'static str> = None;
    type Lock = Far<Lock>;
    type Held = Far<Held>;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let (thread, commands) = mpsc::unbounded_channel();
        let (answer, answered) = oneshot::channel();
        let url = url.to_owned();
        std::thread::spawn(move || serve(&url, ttl, commands, answer));
        let by_hand = answered.await??;
        Ok(Self { by_hand, thread })
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        by_hand::refuses(mode)
    }

    fn lock(&self, key: &str) -> Result<Far<Lock>> {
        let near = self.by_hand.lock(key)?;
        let thread = self.thread.clone();
        Ok(Far { near, thread })
    }

    async fn acquire(lock: &Far<Lock>) -> Result<Far<Held>> {
        let thread = lock.thread.clone();
        let near = ask(&thread, |answer| {
            Command::Acquire(lock.near.clone(), answer)
        })
        .await?;
        Ok(Far { near, thread })
    }

    async fn release(held: Far<Held>) -> Result<()> {
        ask(&held.thread, |answer| Command::Release(held.near, answer)).await
    }
}

async fn ask<T>(
    thread: &mpsc::UnboundedSender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    thread
        .send(command(answer))
        .ok()
        .context("the thread has ended")?;
    answered.await?
}

/// What the thread does: it owns the connection, and carries out all commands at the same time.
fn serve(
    url: &str,
    ttl: Duration,
    mut commands: mpsc::UnboundedReceiver<Command>,
    answer: oneshot::Sender<Result<ByHand>>,
) {
    let served = crate::driver::block_on(async {
        // The caller has gone: there is nothing to answer.
        let _ = answer.send(ByHand::connect(url, ttl).await);
        while let Some(command) = commands.recv().await {
            tokio::task::spawn_local(async {
                match command {
                    Command::Acquire(lock, answer) => {
                        let _ = answer.send(ByHand::acquire(&lock).await);
                    }
                    Command::Release(held, answer) => {
                        let _ = answer.send(ByHand::release(held).await);
                    }
                }
            });
        }
        Ok(())
    });
    if let Err(error) = served {
        eprintln!("{error:#}");
    }
}

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
enum Wish {
    /// Take it.
    Acquire(Lock, oneshot::Sender<Result<Held>>),
    /// Let it go.
    Release(Held, oneshot::Sender<Result<()>>),
}

/// See the module.
#[derive(Clone)]
pub(crate) struct OtherThread {
    by_hand: ByHand,
    thread: mpsc::UnboundedSender<Wish>,
}

/// With the way to the thread.
#[derive(Clone)]
pub(crate) struct Far<T> {
    near: T,
    thread: mpsc::UnboundedSender<Wish>,
}

impl Peer for OtherThread {
    const NAME: &'static str = "by hand, other thread";
    const CRATE: Option<&'static str> = None;
    type Lock = Far<Lock>;
    type Held = Far<Held>;

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let (thread, wishes) = mpsc::unbounded_channel();
        let (tell, told) = oneshot::channel();
        let url = url.to_owned();
        std::thread::spawn(move || serve(&url, ttl, wishes, tell));
        let by_hand = told.await??;
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
        let near = ask(&thread, |tell| Wish::Acquire(lock.near.clone(), tell)).await?;
        Ok(Far { near, thread })
    }

    async fn release(held: Far<Held>) -> Result<()> {
        ask(&held.thread, |tell| Wish::Release(held.near, tell)).await
    }
}

async fn ask<T>(
    thread: &mpsc::UnboundedSender<Wish>,
    wish: impl FnOnce(oneshot::Sender<Result<T>>) -> Wish,
) -> Result<T> {
    let (tell, told) = oneshot::channel();
    thread
        .send(wish(tell))
        .ok()
        .context("the thread has ended")?;
    told.await?
}

/// What the thread does: it owns the connection, and serves all wishes at a time.
fn serve(
    url: &str,
    ttl: Duration,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
    tell: oneshot::Sender<Result<ByHand>>,
) {
    let served = crate::driver::block_on(async {
        // Nobody asks any more: nothing is left to be told.
        let _ = tell.send(ByHand::connect(url, ttl).await);
        while let Some(wish) = wishes.recv().await {
            tokio::task::spawn_local(async {
                match wish {
                    Wish::Acquire(lock, tell) => {
                        let _ = tell.send(ByHand::acquire(&lock).await);
                    }
                    Wish::Release(held, tell) => {
                        let _ = tell.send(ByHand::release(held).await);
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

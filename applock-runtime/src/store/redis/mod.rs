//! The distributed store: Redis (6.2 or later) or Valkey, a single server, the master that
//! sentinels name, or a cluster.
//!
//! An adapter of the protocol. Every decision about a lock is made on the server, by a script
//! that is the same decision as in [`crate::protocol`] in Lua; one step is one script and one
//! round trip (rule R3). This side writes the request, reads the answer, and judges what an
//! error lets us conclude. It keeps no state of a lock, so nothing here can disagree with the
//! server.
//!
//! | file | what lives there |
//! |---|---|
//! | `scripts/` | the decisions, in Lua; `queue.lua` stands before those that change a lock |
//! | [`requests`] | each request as a script's keys and arguments |
//! | [`script`] | how a script call is written and travels: by hash, or with its text |
//! | [`reply`] | the scripts' answers, read |
//! | [`steps`] | batches, cut into calls by slot; a call's way to the node that serves its slot |
//! | [`topology`] | which node serves a slot: a single server's |
//! | [`sentinel`] | the same of a master that sentinels name |
//! | [`cluster`], [`slots`] | the same of a cluster; its hash slots and its map |
//! | [`flight`] | work that is done once for all that want it |
//! | [`node`] | one server: its connection and its subscription |
//! | [`connection`] | the one connection for commands to a server, supervised |
//! | [`acknowledge`] | writes that count only once replicas have them |
//! | [`subscription`] | the connection that hears of a server's grants |
//! | [`hosts`], [`address`] | URLs of several hosts; where a server is |
//! | [`error`] | what an error lets us conclude (rule R9) |
//! | [`asking`] | what an operator asks of each server by itself |
//! | [`listing`] | which locks there are |
//! | [`changes`] | which of them change |
//! | [`eviction`] | a warning where the server may evict locks |
//! | this file | the store's methods |
//!
//! Who waits for a lock, how long, and what to do after an error is the engine's, not this
//! store's.
//!
//! # How a step travels
//!
//! 1. The engine gives a batch of requests of one kind: those that were due together.
//! 2. The batch is cut into calls of at most 32 locks (100 heartbeats), which are sent at once,
//!    over the one connection, and answered in order.
//! 3. Each call is one script. Its answer has one part for each lock.
//! 4. A request that has to wait is answered with its place in the queue. From then on the engine
//!    polls with it, and a message may tell of the grant sooner.
//!
//! # The dangers
//!
//! - *An answer that is lost.* The script may have run. Every such error is `Unknown`, never a
//!   no; and each script may run twice for one request: an owner id that holds the lock already is
//!   granted it again with the same token (rule R6).
//! - *A script that fails half-way.* It is not rolled back. What can fail comes before the write
//!   that counts.
//! - *One lock that spoils a batch.* A script answers for each lock by itself. Only a right that is
//!   missing refuses the call as a whole; then the locks are tried one by one.
//! - *A server that is not there.* Every command has a deadline of ours, and none is queued for
//!   later: a caller that has given up must not be granted a lock.

pub(crate) mod acknowledge;
mod address;
mod asking;
mod changes;
mod cluster;
mod connection;
mod dial;
mod error;
mod eviction;
mod flight;
pub(crate) mod hosts;
mod listing;
mod node;
pub(crate) mod reply;
pub(crate) mod requests;
pub(crate) mod script;
mod sentinel;
mod slots;
mod steps;
mod subscription;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::info::LockInfo;
use crate::key::Key;
use crate::pattern::Pattern;

pub(crate) use address::Address;
use cluster::Cluster;
use connection::About;
#[cfg(test)]
pub(crate) use dial::Dialled;
pub(crate) use dial::{Connector, Dialer};
use node::Node;
use script::ScriptCall;
use sentinel::Sentinels;
#[cfg(test)]
pub(crate) use slots::slot;
use topology::{Single, Topology};

use super::{
    Acquire, Acquired, By, Inspection, Notifications, Question, Release, Released, Renew, Said,
    Store, StoreError, StoreFuture, StoreResult,
};

/// Redis, as one locker sees it.
pub(crate) struct RedisStore {
    /// Which server serves which lock.
    topology: Arc<dyn Topology>,
    /// The URL without its password: what messages and logs show.
    shown: Arc<str>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// The master that sentinels name `name`. `servers` dials servers, `sentinels` the sentinels at
    /// `given`; `shown` is the URL without its passwords.
    pub(crate) fn behind_sentinels(
        servers: Arc<dyn Connector>,
        sentinels: Arc<dyn Connector>,
        given: Vec<Address>,
        name: Arc<str>,
        shown: Arc<str>,
    ) -> Self {
        let named = Sentinels::new(servers, sentinels, given, name, Arc::clone(&shown));
        Self {
            topology: Arc::new(named),
            shown,
        }
    }

    /// One server, over connections that `connector` makes: those of a simulated network, in a
    /// test.
    pub(crate) fn over(connector: Arc<dyn Connector>, shown: Arc<str>) -> Self {
        Self {
            topology: Arc::new(Single::new(connector, Arc::clone(&shown))),
            shown,
        }
    }

    /// The cluster that the nodes at `given` are of; `shown` is the URL without its password.
    pub(crate) fn of_cluster(
        connector: Arc<dyn Connector>,
        given: Vec<Address>,
        shown: Arc<str>,
    ) -> Self {
        Self {
            topology: Arc::new(Cluster::new(connector, given, Arc::clone(&shown))),
            shown,
        }
    }

    /// Asks who a foreign holder says that it is: the Python AppLocker writes that into a key of
    /// its own. One more round trip, and only where a key is not ours. For people: without an
    /// answer, or with one that says nothing, the holder stays unnamed.
    async fn name_foreign(&self, key: &Key, holder: &mut LockInfo, within: Duration) {
        let info = Key::of_lock(&requests::python_info(key));
        let Some(node) = self.topology.known(self.topology.slot(&info)) else {
            return;
        };
        let command = requests::read_python_info(key);
        let about = About::of(key);
        let said = node.connection.send(&command, about, within).await;
        if let Some(words) = said.ok().as_ref().and_then(reply::python_info) {
            *holder = holder.clone().that_says(words);
        }
    }

    /// One call about one lock.
    async fn ask(
        &self,
        key: &Key,
        call: impl Fn(&Node) -> ScriptCall,
        within: Duration,
    ) -> StoreResult<redis::Value> {
        let slot = self.topology.slot(key);
        let answered = self.step(slot, About::of(key), call, within).await?;
        Ok(answered.value)
    }
}

impl Store for RedisStore {
    fn open(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<()>> {
        Box::pin(async move {
            let begun = Instant::now();
            let node = match self.topology.known(0) {
                Some(node) => node,
                None => Arc::clone(&self.topology).find(0, within).await?,
            };
            let left = within.saturating_sub(begun.elapsed());
            let named = |failed| error::naming(&node.address, failed);
            node.connection.open(left).await.map_err(named)?;
            // A login without a password succeeds on a server that asks for one: a command
            // shows it.
            let ping = redis::cmd("PING");
            let about = About::default();
            match node.connection.send(&ping, about, left).await {
                Ok(_) => Ok(()),
                // The user lacks the right to PING: the server has answered, and that is enough.
                Err(failed) if is_about_ping(&failed.error) => Ok(()),
                Err(failed) => Err(named(failed.error)),
            }
        })
    }

    fn place(&self, key: &Key) -> u64 {
        self.topology.place(key)
    }

    fn watch(&self, notifications: &Notifications, needed: watch::Receiver<bool>) -> bool {
        Arc::clone(&self.topology).watch(notifications, needed)
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        Box::pin(async move {
            let begun = Instant::now();
            let mut answers = self.carry_out(&batch, within).await;
            let left = within.saturating_sub(begun.elapsed());
            self.name_foreign_holders(&batch, &mut answers, left).await;
            answers
        })
    }

    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        Box::pin(async move { self.carry_out(&batch, within).await })
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        Box::pin(async move { self.carry_out(&batch, within).await })
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        Box::pin(async move {
            let begun = Instant::now();
            let call = |_: &Node| requests::inspect(&key);
            let answer = self.ask(&key, call, within).await?;
            let mut inspection = reply::inspection(&key, &answer)?;
            if let Some(holder) = inspection.holder.as_mut().filter(|it| it.is_foreign()) {
                let left = within.saturating_sub(begun.elapsed());
                self.name_foreign(&key, holder, left).await;
            }
            Ok(inspection)
        })
    }

    fn list(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        within: Duration,
    ) -> StoreFuture<StoreResult<Vec<LockInfo>>> {
        Box::pin(async move { self.holders(&pattern, within).await })
    }

    fn ask_each(
        self: Arc<Self>,
        question: Question,
        within: Duration,
    ) -> StoreFuture<StoreResult<Vec<Said>>> {
        Box::pin(async move { Self::ask_each(self, &question, within).await })
    }

    fn hear(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        heard: Sender<String>,
        within: Duration,
    ) -> StoreFuture<()> {
        Box::pin(self.hear_changes(pattern, heard, within))
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        by: Arc<By>,
        within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        Box::pin(async move {
            let begun = Instant::now();
            let call = |_: &Node| requests::force_release(&key, stale, &by);
            let mut answer = self.ask(&key, call, within).await?;
            if reply::is_plain(&answer) {
                // Nothing was done yet.
                let info = Key::of_lock(&requests::python_info(&key));
                let is_beside = self.topology.slot(&info) == self.topology.slot(&key);
                let call = |_: &Node| requests::force_release_plain(&key, is_beside, &by);
                let left = within.saturating_sub(begun.elapsed());
                answer = self.ask(&key, call, left).await?;
            }
            reply::forced(&answer)
        })
    }

    fn forked(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self {
            topology: self.topology.forked(),
            shown: Arc::clone(&self.shown),
        }))
    }

    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.shown)
    }
}

/// The user lacks the right to PING, which is a right to nothing that a lock needs.
fn is_about_ping(error: &StoreError) -> bool {
    error.kind == super::StoreErrorKind::Denied && error.what.to_lowercase().contains("'ping'")
}

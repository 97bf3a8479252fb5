//! The distributed store: one Redis (6.2 or later) or Valkey server.
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
//! | [`connection`] | the one connection for commands, supervised |
//! | [`subscription`] | the connection that hears of grants |
//! | [`error`] | what an error lets us conclude (rule R9) |
//! | [`eviction`] | a warning where the server may evict locks |
//! | this file | the store's methods: batches, cut into calls |
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

mod connection;
mod error;
mod eviction;
pub(crate) mod reply;
pub(crate) mod requests;
pub(crate) mod script;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{ConnectionInfo, Value};
use tokio::time::Instant;

use crate::info::LockInfo;
use crate::key::Key;

pub(crate) use connection::Connector;
use connection::{About, Connection, Dialer};
use script::ScriptCall;
use subscription::Subscriber;

use super::{
    Acquire, Acquired, Identity, Inspection, QueuePosition, Release, Released, Renew, Store,
    StoreError, StoreFuture, StoreResult,
};

/// The most renewals in one script call. The server does nothing else meanwhile (about 3 µs
/// each), and a long script would delay every other client.
const RENEWALS_A_CALL: usize = 100;

/// The most acquires or releases in one script call (about 10 µs each).
const LOCKS_A_CALL: usize = 32;

/// One Redis server, as one locker sees it.
pub(crate) struct RedisStore {
    /// Every command travels here.
    connection: Arc<Connection>,
    /// Messages come here, on a connection of its own: one that has subscribed takes no commands.
    subscriber: Arc<Subscriber>,
    /// Whether the server's eviction policy was checked.
    eviction_checked: AtomicBool,
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
    /// `shown` is the URL without its password.
    pub(crate) fn new(info: ConnectionInfo, shown: Arc<str>) -> Result<Self, redis::RedisError> {
        Ok(Self::over(Arc::new(Dialer::new(info)?), shown))
    }

    /// Over connections that `connector` makes: those of a simulated network, in a test.
    pub(crate) fn over(connector: Arc<dyn Connector>, shown: Arc<str>) -> Self {
        Self {
            connection: Arc::new(Connection::new(connector, Arc::clone(&shown))),
            subscriber: Arc::default(),
            eviction_checked: AtomicBool::new(false),
            shown,
        }
    }

    /// Runs a script by its hash. Where the server does not know it (a new server, a flush, a
    /// failover), sends it again with its text. A server that does not know a script has
    /// carried out nothing of it, so the second try is safe; both share one deadline.
    async fn run(
        &self,
        call: ScriptCall,
        about: About<'_>,
        within: Duration,
    ) -> StoreResult<Value> {
        let started = Instant::now();
        let failed = match self.connection.send(call.by_hash(), about, within).await {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        // It has restarted, was flushed, or is another.
        if !failed.is_unknown_script {
            return Err(failed.into());
        }
        let left = within.saturating_sub(started.elapsed());
        self.connection
            .send(&call.by_text(), about, left)
            .await
            .map_err(Into::into)
    }

    /// Checks the server's eviction policy, once, after the first lock was granted. A task of
    /// its own, so that no caller waits for it.
    fn check_eviction(&self, request: &Acquire, token: u64) {
        if !self.eviction_checked.swap(true, Ordering::Relaxed) {
            let first_lock = eviction::FirstLock {
                key: Arc::clone(&request.key.lock),
                owner: request.owner,
                token,
            };
            tokio::spawn(eviction::warn_if_locks_can_be_evicted(
                Arc::clone(&self.connection),
                Arc::clone(&self.shown),
                first_lock,
            ));
        }
    }

    /// Takes locks in one call. The first request that has to wait opens the subscription: a
    /// process without waiters needs no second connection.
    async fn acquire_some(
        self: &Arc<Self>,
        requests: &[Acquire],
        within: Duration,
    ) -> Vec<StoreResult<Acquired>> {
        let Some(first) = requests.first() else {
            return Vec::new();
        };
        let run = self.subscriber.subscribed_at();
        let call = requests::acquire(requests, self.subscriber.channel(), run.as_deref());
        let about = About {
            key: Some(&first.key.lock),
            owner: Some(first.owner),
            token: None,
        };
        let begun = Instant::now();
        let answers = self.run_for_each(call, requests.len(), about, within).await;
        let read = |(request, answer): (&Acquire, StoreResult<Value>)| {
            let acquired = reply::acquired(&request.key, &answer?, run.is_some())?;
            match (&acquired, &request.notifications) {
                (Acquired::Granted { token, .. }, _) => self.check_eviction(request, *token),
                (Acquired::Queued(_), Some(notifications)) => {
                    self.subscriber.start(&self.connection, notifications);
                }
                _ => (),
            }
            Ok(acquired)
        };
        let mut answers: Vec<StoreResult<Acquired>> =
            requests.iter().zip(answers).map(read).collect();
        let foreign = requests.iter().zip(&mut answers).filter_map(|each| {
            let (
                request,
                Ok(Acquired::Busy(holder) | Acquired::Queued(QueuePosition { holder, .. })),
            ) = each
            else {
                return None;
            };
            holder.is_foreign().then_some((&request.key, holder))
        });
        let left = within.saturating_sub(begun.elapsed());
        join_all(foreign.map(|(key, holder)| self.name_foreign(key, holder, left))).await;
        answers
    }

    /// Asks who a foreign holder says that it is: the Python AppLocker writes that into a key of
    /// its own. One more round trip, and only where a key is not ours. For people: without an
    /// answer, or with one that says nothing, the holder stays unnamed.
    async fn name_foreign(&self, key: &Key, holder: &mut LockInfo, within: Duration) {
        let command = requests::read_python_info(key);
        let said = self.connection.send(&command, About::of(key), within).await;
        if let Some(words) = said.ok().as_ref().and_then(reply::python_info) {
            *holder = holder.clone().that_says(words);
        }
    }

    /// Ends holdings in one call. The channel tells the script which waiters are of this
    /// process: the answer notifies them, and no message is published.
    async fn release_some(
        self: &Arc<Self>,
        ends: &[Release],
        within: Duration,
    ) -> Vec<StoreResult<Released>> {
        let Some(first) = ends.first() else {
            return Vec::new();
        };
        let call = requests::release(ends, self.subscriber.channel());
        let about = About {
            key: Some(&first.key.lock),
            owner: Some(first.owner),
            token: first.token,
        };
        self.run_for_each(call, ends.len(), about, within)
            .await
            .into_iter()
            .map(|answer| reply::released(&answer?))
            .collect()
    }

    /// Runs a script that answers for each of `count` locks. An error of the call is the error of
    /// every lock in it; an answer of the wrong length says nothing of any.
    async fn run_for_each(
        &self,
        call: ScriptCall,
        count: usize,
        about: About<'_>,
        within: Duration,
    ) -> Vec<StoreResult<Value>> {
        match self.run(call, about, within).await {
            // A script answers for a single lock without a list.
            Ok(answer) if count == 1 => vec![reply::done(answer)],
            Ok(Value::Array(answers)) if answers.len() == count => {
                answers.into_iter().map(reply::done).collect()
            }
            Ok(other) => vec![Err(reply::unreadable(&other)); count],
            Err(error) => vec![Err(error); count],
        }
    }

    /// Sends heartbeats in one call.
    async fn renew_some(&self, beats: &[Renew], within: Duration) -> Vec<StoreResult<bool>> {
        let call = requests::renew(beats);
        let about = beats.first().map_or_else(About::default, |beat| About {
            key: Some(&beat.key.lock),
            owner: Some(beat.owner),
            token: Some(beat.token),
        });
        let answer = self.run(call, about, within).await;
        match answer.and_then(|answer| reply::flags(&answer, beats.len())) {
            Ok(flags) => flags.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); beats.len()],
        }
    }
}

impl RedisStore {
    /// Carries a batch out, in calls of at most `a_call`, which travel at the same time. Several
    /// locks share a call only at a server that has said that it is a single one.
    async fn in_calls<'a, Q, A, F>(
        &self,
        batch: &'a [Q],
        a_call: usize,
        call: impl Fn(&'a [Q]) -> F,
    ) -> Vec<StoreResult<A>>
    where
        F: Future<Output = Vec<StoreResult<A>>>,
    {
        let a_call = if self.connection.is_single() {
            a_call
        } else {
            1
        };
        if batch.len() <= a_call {
            return self.whole_or_one_by_one(batch, &call).await;
        }
        let calls = batch
            .chunks(a_call)
            .map(|some| self.whole_or_one_by_one(some, &call));
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Carries one call out. Where the server has refused it as a whole, before it did anything of
    /// it, its locks one by one: for the key that the user may not touch the other locks must not
    /// suffer, and a cluster's node takes no call for keys of several slots.
    async fn whole_or_one_by_one<'a, Q, A, F>(
        &self,
        some: &'a [Q],
        call: &impl Fn(&'a [Q]) -> F,
    ) -> Vec<StoreResult<A>>
    where
        F: Future<Output = Vec<StoreResult<A>>>,
    {
        let outcomes = call(some).await;
        let is_cross_slot = |outcome: &StoreResult<A>| {
            outcome
                .as_ref()
                .is_err_and(|error| &*error.what == error::CROSS_SLOT)
        };
        let is_denied = |outcome: &StoreResult<A>| {
            outcome
                .as_ref()
                .is_err_and(|error| error.kind == super::StoreErrorKind::Denied)
        };
        let crosses = outcomes.iter().all(is_cross_slot);
        if some.len() > 1 && (crosses || outcomes.iter().all(is_denied)) {
            if crosses {
                self.connection.note_cluster();
            }
            let one_by_one = some.chunks(1).map(call);
            return join_all(one_by_one).await.into_iter().flatten().collect();
        }
        outcomes
    }
}

impl Store for RedisStore {
    fn open(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<()>> {
        Box::pin(async move {
            self.connection.open(within).await?;
            // A login without a password succeeds on a server that asks for one: a command
            // shows it.
            let ping = redis::cmd("PING");
            match self.connection.send(&ping, About::default(), within).await {
                Ok(_) => Ok(()),
                // The user lacks the right to PING: the server has answered, and that is enough.
                Err(failed) if is_about_ping(&failed.error) => Ok(()),
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn acquire(
        self: Arc<Self>,
        batch: Vec<Acquire>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Acquired>>> {
        Box::pin(async move {
            let call = |requests| self.acquire_some(requests, within);
            self.in_calls(&batch, LOCKS_A_CALL, call).await
        })
    }

    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        Box::pin(async move {
            let call = |beats| self.renew_some(beats, within);
            self.in_calls(&batch, RENEWALS_A_CALL, call).await
        })
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        Box::pin(async move {
            let call = |ends| self.release_some(ends, within);
            self.in_calls(&batch, LOCKS_A_CALL, call).await
        })
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        Box::pin(async move {
            let begun = Instant::now();
            let answer = self
                .run(requests::inspect(&key), About::of(&key), within)
                .await?;
            let mut inspection = reply::inspection(&key, &answer)?;
            if let Some(holder) = inspection.holder.as_mut().filter(|it| it.is_foreign()) {
                let left = within.saturating_sub(begun.elapsed());
                self.name_foreign(&key, holder, left).await;
            }
            Ok(inspection)
        })
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        by: Arc<Identity>,
        within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        Box::pin(async move {
            let begun = Instant::now();
            let call = requests::force_release(&key, stale, &by);
            let mut answer = self.run(call, About::of(&key), within).await?;
            if reply::is_plain(&answer) {
                // Nothing was done yet.
                let call = requests::force_release_plain(&key, &by);
                let left = within.saturating_sub(begun.elapsed());
                answer = self.run(call, About::of(&key), left).await?;
            }
            reply::forced(&answer)
        })
    }

    fn forked(&self) -> Option<Arc<dyn Store>> {
        let connector = self.connection.connector();
        Some(Arc::new(Self::over(connector, Arc::clone(&self.shown))))
    }

    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.shown)
    }
}

/// The user lacks the right to PING, which is a right to nothing that a lock needs.
fn is_about_ping(error: &StoreError) -> bool {
    error.kind == super::StoreErrorKind::Denied && error.what.to_lowercase().contains("'ping'")
}

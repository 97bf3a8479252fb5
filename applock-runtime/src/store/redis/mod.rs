//! The distributed store: one Redis (6.2 or later) or Valkey server.
//!
//! Each step is one script, one round trip (rule R3); the scripts stand beside this
//! file, and say what they take and answer.

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
use redis::{ConnectionInfo, ErrorKind, ServerErrorKind, Value};

use crate::key::Key;

pub(crate) use connection::Connector;
use connection::{About, Connection, Dialer};
use script::ScriptCall;
use subscription::Subscriber;

use super::{
    Acquire, Acquired, Inspection, Release, Released, Renew, Store, StoreError, StoreFuture,
    StoreResult,
};

/// So many renewals travel in one script call at most: the server does nothing else
/// meanwhile (about 3 µs each).
const RENEWALS_A_CALL: usize = 100;

/// And so many acquires or releases (about 10 µs each).
const LOCKS_A_CALL: usize = 32;

/// One Redis server.
pub(crate) struct RedisStore {
    connection: Arc<Connection>,
    subscriber: Arc<Subscriber>,
    /// Whether the server's settings were looked at.
    advised: AtomicBool,
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

    /// Over connections that `connector` makes.
    pub(crate) fn over(connector: Arc<dyn Connector>, shown: Arc<str>) -> Self {
        Self {
            connection: Arc::new(Connection::new(connector, Arc::clone(&shown))),
            subscriber: Arc::default(),
            advised: AtomicBool::new(false),
            shown,
        }
    }

    /// Runs a script: by its hash, and where the server does not know it (a new one, a
    /// flush, a failover) with its text, which teaches it.
    async fn run(
        &self,
        call: ScriptCall,
        about: About<'_>,
        within: Duration,
    ) -> StoreResult<Value> {
        let started = tokio::time::Instant::now();
        let failed = match self.connection.send(call.by_hash(), about, within).await {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if !is_unknown_script(&failed.error) {
            return Err(failed.into());
        }
        let left = within.saturating_sub(started.elapsed());
        self.connection
            .send(&call.by_text(), about, left)
            .await
            .map_err(Into::into)
    }

    /// Looks at the server's settings, once, when the first lock was taken and while
    /// nobody waits for it.
    fn advise(&self, wish: &Acquire, token: u64) {
        if !self.advised.swap(true, Ordering::Relaxed) {
            let taken = eviction::FirstLock {
                key: Arc::clone(&wish.key.lock),
                owner: wish.owner,
                token,
            };
            tokio::spawn(eviction::on_eviction(
                Arc::clone(&self.connection),
                Arc::clone(&self.shown),
                taken,
            ));
        }
    }

    /// Takes some locks in one call.
    async fn acquire_some(
        self: &Arc<Self>,
        wishes: &[Acquire],
        within: Duration,
    ) -> Vec<StoreResult<Acquired>> {
        let Some(first) = wishes.first() else {
            return Vec::new();
        };
        let run = self.subscriber.listens_at();
        let call = requests::acquire(wishes, self.subscriber.channel(), run.as_deref());
        let about = About {
            key: Some(&first.key.lock),
            owner: Some(first.owner),
            token: None,
        };
        let answers = self.run_for_each(call, wishes.len(), about, within).await;
        let read = |(wish, answer): (&Acquire, StoreResult<Value>)| {
            let acquired = reply::acquired(&wish.key, &answer?, run.is_some())?;
            match (&acquired, &wish.line) {
                (Acquired::Granted { token, .. }, _) => self.advise(wish, *token),
                (Acquired::Queued(_), Some(notices)) => {
                    self.subscriber.start(&self.connection, notices);
                }
                _ => (),
            }
            Ok(acquired)
        };
        wishes.iter().zip(answers).map(read).collect()
    }

    /// Ends some holdings in one call.
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

    /// Runs a script that answers for each of `count` locks.
    async fn run_for_each(
        &self,
        call: ScriptCall,
        count: usize,
        about: About<'_>,
        within: Duration,
    ) -> Vec<StoreResult<Value>> {
        match self.run(call, about, within).await {
            Ok(Value::Array(answers)) if answers.len() == count => {
                answers.into_iter().map(reply::done).collect()
            }
            Ok(other) => vec![Err(reply::unreadable(&other)); count],
            Err(error) => vec![Err(error); count],
        }
    }

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

/// Carries a batch out, so many in a call.
async fn in_calls<'a, Q, A, F>(
    batch: &'a [Q],
    a_call: usize,
    call: impl Fn(&'a [Q]) -> F,
) -> Vec<StoreResult<A>>
where
    F: Future<Output = Vec<StoreResult<A>>>,
{
    if batch.len() <= a_call {
        return whole_or_one_by_one(batch, &call).await;
    }
    let calls = batch
        .chunks(a_call)
        .map(|some| whole_or_one_by_one(some, &call));
    join_all(calls).await.into_iter().flatten().collect()
}

/// One key that is refused (a right withdrawn) refuses the whole call, before anything
/// of it is done: the others must not suffer for it.
async fn whole_or_one_by_one<'a, Q, A, F>(
    some: &'a [Q],
    call: &impl Fn(&'a [Q]) -> F,
) -> Vec<StoreResult<A>>
where
    F: Future<Output = Vec<StoreResult<A>>>,
{
    let outcomes = call(some).await;
    let refused = |outcome: &StoreResult<A>| {
        outcome
            .as_ref()
            .is_err_and(|error| error.kind == super::StoreErrorKind::Denied)
    };
    if some.len() > 1 && outcomes.iter().all(refused) {
        let one_by_one = some.chunks(1).map(call);
        return join_all(one_by_one).await.into_iter().flatten().collect();
    }
    outcomes
}

impl Store for RedisStore {
    fn open(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<()>> {
        Box::pin(async move {
            self.connection.open(within).await?;
            // Logging in does not show everything: without a password it succeeds.
            let ping = redis::cmd("PING");
            match self.connection.send(&ping, About::default(), within).await {
                Ok(_) => Ok(()),
                // The right to PING is not needed for anything else.
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
            let call = |wishes| self.acquire_some(wishes, within);
            in_calls(&batch, LOCKS_A_CALL, call).await
        })
    }

    fn renew(
        self: Arc<Self>,
        batch: Vec<Renew>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<bool>>> {
        Box::pin(async move {
            let call = |beats| self.renew_some(beats, within);
            in_calls(&batch, RENEWALS_A_CALL, call).await
        })
    }

    fn release(
        self: Arc<Self>,
        batch: Vec<Release>,
        within: Duration,
    ) -> StoreFuture<Vec<StoreResult<Released>>> {
        Box::pin(async move {
            let call = |ends| self.release_some(ends, within);
            in_calls(&batch, LOCKS_A_CALL, call).await
        })
    }

    fn inspect(
        self: Arc<Self>,
        key: Key,
        within: Duration,
    ) -> StoreFuture<StoreResult<Inspection>> {
        Box::pin(async move {
            let answer = self
                .run(requests::inspect(&key), About::of(&key), within)
                .await?;
            reply::inspection(&key, &answer)
        })
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        within: Duration,
    ) -> StoreFuture<StoreResult<bool>> {
        Box::pin(async move {
            let answer = self
                .run(
                    requests::force_release(&key, stale),
                    About::of(&key),
                    within,
                )
                .await?;
            reply::forced(&answer)
        })
    }

    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.shown)
    }
}

fn is_unknown_script(error: &StoreError) -> bool {
    error
        .source
        .as_ref()
        .and_then(|source| source.downcast_ref::<redis::RedisError>())
        .is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

fn is_about_ping(error: &StoreError) -> bool {
    error.kind == super::StoreErrorKind::Denied && error.what.to_lowercase().contains("'ping'")
}

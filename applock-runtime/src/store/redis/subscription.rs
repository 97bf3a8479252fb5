//! The one subscription of a store: what it hears of grants is passed on to the engine.
//!
//! Dialled when the first waiter stands in the wait queue, on a connection of its own, and kept.
//! Each process has one channel with a random name, for all of its locks. Every request of a
//! waiter tells the server whether its process listens there, and at which run of the server.
//!
//! Here: subscribing, staying subscribed, and reading messages. Not here: what a grant means. A
//! message is only ever a hint: while the subscription is down the engine polls, and nothing is
//! lost but time.
//!
//! # The dangers
//!
//! - *A process that says it listens, and does not.* A grant to it would cost all others a claim.
//!   So it says so only after it has subscribed, and no more once the connection is gone; a
//!   silent connection is tested by a PING.
//! - *A server that has restarted.* The subscription went with it, and PUBLISH reaches no
//!   process. The run id tells the script why, and the waiters get a moment to come back.
//! - *A message of another server.* A cluster's nodes pass on what others publish, and so does a
//!   replica. Then the server that granted has counted nobody who listens there, and keeps the
//!   lock for a shorter time than the message says, by another clock. So where there are several
//!   servers a grant needs proof: the waiter asks, and has the lock by the answer.
//! - *A right that is missing.* Without SUBSCRIBE or PUBLISH waiting still works, by polling; one
//!   warning says so.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::RedisResult;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::pause::{growing, jittered};
use crate::store::{
    Notification, Notifications, StoreError, StoreErrorKind, StoreResult, random_id,
};

use super::connection::{About, Connection};
use super::error::classify;
use super::reply;

/// Between two attempts to subscribe: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause where the right is missing: a person may grant it at any time.
const WITHOUT_RIGHT: Duration = Duration::from_secs(30);

/// The longest that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often a PING tests that the connection is still there.
const PING: Duration = Duration::from_secs(5);

/// For how long a server that was retired is heard: longer than the moment that the scripts give
/// a waiter they have reached by another server's channel.
const AFTER_RETIRED: Duration = Duration::from_secs(1);

/// So many failed attempts in a row are worth a warning.
const WARN_AFTER: u32 = 4;

/// In place of a run id that the user may not ask for.
const UNKNOWN: &str = "1";

/// A subscription that ends sooner than this has failed: something hangs up on it.
const GOOD_AFTER: Duration = PING;

/// The subscription of one store.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// The channel of this process: random, so that no other process listens there.
    channel: String,
    /// The run id of the server where it is subscribed, if it is.
    subscribed_at: Mutex<Option<Arc<str>>>,
    attempts: Mutex<Attempts>,
}

/// What is known of the tries to subscribe.
#[derive(Debug, Default)]
struct Attempts {
    /// The engine that is notified while a subscription lasts, or is tried for.
    notified: Option<Notifications>,
    /// Failed ones in a row.
    failures: u32,
    /// A person was told of them.
    warned: bool,
    /// The earliest time of the next.
    not_before: Option<Instant>,
}

impl Default for Subscriber {
    fn default() -> Self {
        Self {
            // Short, for every request brings it.
            channel: format!("applock:{}", random_id()),
            subscribed_at: Mutex::default(),
            attempts: Mutex::default(),
        }
    }
}

impl Subscriber {
    /// The channel of this process: by it the scripts tell processes apart.
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// The run id of the server where the process is subscribed, or [`UNKNOWN`]; `None` while it
    /// is not subscribed.
    pub(super) fn subscribed_at(&self) -> Option<Arc<str>> {
        self.run().clone()
    }

    fn run(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.subscribed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen for that engine, unless that is done already, or is not due yet. Called
    /// with each answer that a waiter stands in the queue: so a process of which nobody waits
    /// dials no second connection, and dials none anew.
    pub(super) fn start(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        notifications: &Notifications,
    ) {
        let mut attempts = self.attempts();
        let is_ours = |engine: &Notifications| engine.same_channel(notifications);
        let is_early = attempts.not_before.is_some_and(|at| Instant::now() < at);
        if is_early || attempts.notified.as_ref().is_some_and(is_ours) {
            return;
        }
        attempts.notified = Some(notifications.clone());
        *self.run() = None;
        tokio::spawn(Arc::clone(self).listen(Arc::clone(connection), notifications.clone()));
    }

    /// Subscribes, and passes grants on for as long as that lasts. When it has ended, the waiters
    /// of this process poll, and the first one that is answered begins anew.
    async fn listen(self: Arc<Self>, connection: Arc<Connection>, notifications: Notifications) {
        let failed = match timeout(TIMEOUT, self.subscribe(&connection)).await {
            Ok(Ok((sink, stream, run))) => {
                let since = Instant::now();
                if std::mem::take(&mut self.attempts().warned) {
                    tracing::info!(store = %connection.shown(), "listening for released locks again");
                }
                self.set_subscribed_at(Some(run), &notifications);
                hear(sink, stream, &notifications, &connection).await;
                if notifications.is_closed() {
                    // The engine has ended; another one may listen by now.
                    return;
                }
                (since.elapsed() < GOOD_AFTER).then(|| {
                    StoreError::new(
                        StoreErrorKind::NotDone,
                        "the connection was closed soon after it was made",
                        "see whether a proxy stands before the server that allows no SUBSCRIBE",
                    )
                })
            }
            Ok(Err(failed)) => Some(failed),
            Err(_) => Some(StoreError::late(StoreErrorKind::NotDone)),
        };
        self.pause(&connection, failed);
        self.set_subscribed_at(None, &notifications);
    }

    /// Notes how a subscription ended, and until when there is to be no other.
    fn pause(&self, connection: &Connection, failed: Option<StoreError>) {
        let mut attempts = self.attempts();
        attempts.notified = None;
        let Some(failed) = failed else {
            attempts.failures = 0;
            attempts.not_before = None;
            return;
        };
        attempts.failures = attempts.failures.saturating_add(1);
        let denied = !failed.is_passing();
        let pause = if denied {
            jittered(WITHOUT_RIGHT)
        } else {
            growing(FIRST_PAUSE, LONGEST_PAUSE, attempts.failures)
        };
        attempts.not_before = Some(Instant::now() + pause);
        let is_news = denied || attempts.failures >= WARN_AFTER;
        if is_news && !std::mem::replace(&mut attempts.warned, true) {
            drop(attempts);
            tracing::warn!(
                store = %connection.shown(), reason = %failed.what,
                "can't listen for released locks, so waiters poll, and waiting takes longer. \
                 Grant the user SUBSCRIBE and PUBLISH on channels \
                 that begin with applock:"
            );
        }
    }

    /// Notes whether the process is subscribed, and has the engine poll: grants from before a
    /// subscription began, or since it broke, were not heard.
    fn set_subscribed_at(&self, run: Option<Arc<str>>, notifications: &Notifications) {
        *self.run() = run;
        // An engine that has ended has dropped its receiver.
        let _ = notifications.send(Notification::Poll);
    }

    /// Subscribes once, and checks the right to publish.
    async fn subscribe(
        &self,
        connection: &Arc<Connection>,
    ) -> StoreResult<(PubSubSink, PubSubStream, Arc<str>)> {
        let subscribing = async {
            let mut subscription: PubSub = connection.subscription().await?;
            subscription.subscribe(&self.channel).await?;
            RedisResult::Ok(subscription.split())
        };
        let (sink, stream) = subscribing.await.map_err(|error| classify(error).error)?;
        // A user without the right to publish can't notify a waiter, and this process's peers
        // log in as the same user: no message would come, so it must poll.
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg("");
        match connection.send(&publish, About::default(), TIMEOUT).await {
            Err(failed) if !failed.error.is_passing() => Err(failed.error),
            _ => Ok((sink, stream, run_id(connection).await)),
        }
    }
}

/// The server's run id. [`UNKNOWN`] if the user may not ask for it: nothing else needs that right.
async fn run_id(connection: &Arc<Connection>) -> Arc<str> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let answer = connection.send(&info, About::default(), TIMEOUT).await.ok();
    answer
        .and_then(|value| redis::from_redis_value::<String>(value).ok())
        .and_then(|text| {
            let run = reply::info_field(&text, "run_id")?;
            (run.len() > 1 && run.bytes().all(|byte| byte.is_ascii_alphanumeric()))
                .then(|| run.into())
        })
        .unwrap_or_else(|| UNKNOWN.into())
}

/// Passes grants on, until the connection is gone, its server is retired, or the engine has ended.
///
/// Danger: a waiter that has not asked at its slot's new node yet is notified by the channel of
/// the old one, which a cluster carries there, and has half a second to come. So a retired server
/// is heard for a while longer. Its grants are hints to ask, as those of all where there are several.
async fn hear(
    mut sink: PubSubSink,
    mut stream: PubSubStream,
    notifications: &Notifications,
    connection: &Connection,
) {
    let mut pings = interval(PING);
    pings.tick().await;
    let needs_proof = connection.replicas().is_some() || !connection.is_the_only_server();
    let mut retired = pin!(async {
        connection.until_retired().await;
        sleep(AFTER_RETIRED).await;
    });
    loop {
        let message = {
            let mut heard = pin!(stream.next());
            let mut over = pin!(notifications.closed());
            poll_fn(|context| {
                if let Poll::Ready(message) = heard.as_mut().poll(context) {
                    return Poll::Ready(message.map(Some));
                }
                if over.as_mut().poll(context).is_ready()
                    || retired.as_mut().poll(context).is_ready()
                {
                    return Poll::Ready(None);
                }
                pings.poll_tick(context).map(|_| Some(None))
            })
            .await
        };
        match message {
            None => return,
            Some(Some(message)) => {
                let text: Option<String> = message.get_payload().ok();
                if let Some((key, mut grant)) = text.as_deref().and_then(reply::grant) {
                    grant.needs_proof = needs_proof;
                    let _ = notifications.send(Notification::Granted(key, grant));
                }
            }
            Some(None) => match timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => (),
                _ => return,
            },
        }
    }
}

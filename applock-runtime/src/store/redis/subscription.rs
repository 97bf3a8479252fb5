//! The one subscription of a process: what it hears is passed on to the engine.
//!
//! Dialled when the first waiter stands in line, on a connection of its own, and kept. It
//! is only ever a hint: while it is down the engine asks, and nothing is lost but time.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::RedisResult;
use redis::aio::{PubSub, PubSubSink, PubSubStream};
use tokio::time::{interval, sleep, timeout};
use uuid::Uuid;

use crate::store::{Notification, Notifications, StoreError, StoreErrorKind, StoreResult};

use super::connection::{About, Connection};
use super::error::classify;
use super::reply;

/// Between two attempts to subscribe: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where the right is missing, it is tried again so often, for a person may grant it.
const WITHOUT_RIGHT: Duration = Duration::from_secs(30);

/// The longest that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often a silent subscription is asked whether it is still there.
const PING: Duration = Duration::from_secs(5);

/// So many failed attempts in a row are worth a warning.
const TOLD_AFTER: u32 = 4;

/// Instead of a run id that may not be asked for.
const UNKNOWN: &str = "1";

/// The subscription of one store.
#[derive(Debug)]
pub(super) struct Subscriber {
    channel: String,
    /// The run id of the server where it listens, if it does.
    listens: Mutex<Option<Arc<str>>>,
    /// Whom it tells; of another engine than before, it starts anew.
    told: Mutex<Option<Notifications>>,
}

impl Default for Subscriber {
    fn default() -> Self {
        Self {
            channel: format!("applock:{}", Uuid::new_v4().simple()),
            listens: Mutex::default(),
            told: Mutex::default(),
        }
    }
}

impl Subscriber {
    /// The channel of this process.
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// Where what is published there is heard: the run id of that server, or [`UNKNOWN`].
    pub(super) fn listens_at(&self) -> Option<Arc<str>> {
        self.run().clone()
    }

    fn run(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.listens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen, unless that has been done.
    pub(super) fn start(self: &Arc<Self>, connection: &Arc<Connection>, notices: &Notifications) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref().is_some_and(|told| told.same_channel(notices)) {
            return;
        }
        *told = Some(notices.clone());
        *self.run() = None;
        tokio::spawn(Arc::clone(self).listen(Arc::clone(connection), notices.clone()));
    }

    async fn listen(self: Arc<Self>, connection: Arc<Connection>, notices: Notifications) {
        let mut failures = 0;
        let mut warned = false;
        while !notices.is_closed() {
            let failed = match timeout(TIMEOUT, self.subscribe(&connection)).await {
                Ok(Ok((sink, stream, run))) => {
                    if warned {
                        tracing::info!(store = %connection.shown(), "listening for released locks again");
                    }
                    (failures, warned) = (0, false);
                    self.tell(Some(run), &notices);
                    hear(sink, stream, &notices).await;
                    self.tell(None, &notices);
                    continue;
                }
                Ok(Err(failed)) => failed,
                Err(_) => StoreError::new(
                    StoreErrorKind::NotDone,
                    "no answer in time",
                    "see whether the server is overloaded or the network is cut",
                ),
            };
            failures += 1;
            let denied = !failed.is_passing();
            if !warned && (denied || failures >= TOLD_AFTER) {
                warned = true;
                tracing::warn!(
                    store = %connection.shown(), reason = %failed.what,
                    "can't listen for released locks, so whoever waits asks again and again; \
                     waiting takes longer. Grant the user SUBSCRIBE and PUBLISH on channels \
                     that begin with applock:"
                );
            }
            let pause = if denied {
                WITHOUT_RIGHT
            } else {
                FIRST_PAUSE
                    .saturating_mul(1 << failures.min(8))
                    .min(LONGEST_PAUSE)
            };
            sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
        }
    }

    fn tell(&self, run: Option<Arc<str>>, notices: &Notifications) {
        *self.run() = run;
        // An engine that has ended does not mind.
        let _ = notices.send(Notification::Poll);
    }

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
        // Whoever may not publish can't hand a lock over, and neither can its peers, who
        // log in as the same user.
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg("");
        match connection.send(&publish, About::default(), TIMEOUT).await {
            Err(failed) if !failed.error.is_passing() => Err(failed.error),
            _ => Ok((sink, stream, run_id(connection).await)),
        }
    }
}

/// Which run of the server this is; the right to ask is not needed for anything else.
async fn run_id(connection: &Arc<Connection>) -> Arc<str> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let told = connection.send(&info, About::default(), TIMEOUT).await.ok();
    told.and_then(|value| redis::from_redis_value::<String>(value).ok())
        .and_then(|text| {
            let run = text.lines().find_map(|line| line.strip_prefix("run_id:"))?;
            let run = run.trim();
            (run.len() > 1 && run.bytes().all(|byte| byte.is_ascii_alphanumeric()))
                .then(|| run.into())
        })
        .unwrap_or_else(|| UNKNOWN.into())
}

/// Passes on what is heard, until the connection is gone.
async fn hear(mut sink: PubSubSink, mut stream: PubSubStream, notices: &Notifications) {
    let mut pings = interval(PING);
    pings.tick().await;
    loop {
        let message = {
            let mut heard = pin!(stream.next());
            let mut over = pin!(notices.closed());
            poll_fn(|context| {
                if let Poll::Ready(message) = heard.as_mut().poll(context) {
                    return Poll::Ready(message.map(Some));
                }
                if over.as_mut().poll(context).is_ready() {
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
                if let Some(grant) = text.as_deref().and_then(reply::grant) {
                    let _ = notices.send(Notification::Granted(grant));
                }
            }
            Some(None) => match timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => (),
                _ => return,
            },
        }
    }
}

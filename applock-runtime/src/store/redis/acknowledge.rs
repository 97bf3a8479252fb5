//! Writes that count only once replicas have them: `replicas = n`.
//!
//! Replication is asynchronous. A master that dies right after its 'yes' takes the write with it,
//! and the replica that is promoted grants the lock again. Where the user asks for it, a `WAIT` is
//! sent behind acquires and heartbeats, and one that fewer than `n` replicas have acknowledged does
//! not count: an acquire is undone, a heartbeat has failed. Redis says of `WAIT` what it is worth: it
//! makes a loss unlikely, not impossible, unless `n` are all replicas that may be promoted.
//!
//! `WAIT` blocks its connection, and covers all that the connection has written before. So there is
//! one of them in flight, and all calls that leave meanwhile share the next one: where the replicas
//! are silent a call waits for two of them at the most, however many calls there are.
//!
//! # The dangers
//!
//! - *A `WAIT` on another connection than the write's*: a new connection has written nothing, and is
//!   told at once that all replicas have that. Here it goes over the very connection.
//! - *A `WAIT` before the write.* A caller that joins has sent its call already. So a call must never
//!   wait for room in the connection, or for the runtime's budget: `MOST_UNSENT` in `dial.rs`, and
//!   `unconstrained` in `connection.rs`.
//! - *Counting the replicas that are there.* While one is gone, the rest would be enough. The number
//!   is the user's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use redis::aio::MultiplexedConnection;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use crate::shown::message;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How many replicas have to have a write, and how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) count: u32,
    pub(crate) timeout: Duration,
}

impl Replicas {
    /// How long it may take unless told otherwise.
    pub(crate) const TIMEOUT: Duration = Duration::from_millis(250);

    /// The longest: what comes after a command's own time-out is of no use.
    pub(crate) const LONGEST: Duration = Duration::from_millis(800);

    /// No server has so many.
    pub(crate) const MOST: u32 = 100;
}

/// The server looks at its time-outs each tenth of a second.
const SERVER_TICK: Duration = Duration::from_millis(100);

/// Less than what a caller has left: a call that was answered is no sign of a dead connection, though
/// its acknowledgement is late.
const EARLIER: Duration = Duration::from_millis(10);

type Wait = Shared<Pin<Box<dyn Future<Output = StoreResult<()>> + Send>>>;

/// The acknowledgements that are asked for over one connection, one after the other.
#[derive(Default)]
pub(super) struct Acknowledgements {
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// The number of the connection.
    epoch: u64,
    /// The last `WAIT`: in flight, answered, or the one that has not left.
    last: Option<Wait>,
    /// The one that has not left, and when the last of its callers gives up. It leaves when the one
    /// before it is answered, for that blocks the connection.
    next: Option<(Wait, Instant)>,
}

impl std::fmt::Debug for Acknowledgements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acknowledgements")
    }
}

impl Acknowledgements {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether enough replicas have what the caller has sent over that connection before this. The
    /// connection's number is `epoch`; the answer comes before `deadline`.
    pub(super) async fn of_what_was_sent(
        self: &Arc<Self>,
        connection: MultiplexedConnection,
        epoch: u64,
        wanted: Replicas,
        deadline: Instant,
    ) -> StoreResult<()> {
        let wait = self.join(connection, epoch, wanted, deadline);
        let until = deadline.checked_sub(EARLIER).unwrap_or(deadline);
        match timeout_at(until, wait).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::late(StoreErrorKind::Unknown)),
        }
    }

    /// The `WAIT` that covers what was sent till now.
    fn join(
        self: &Arc<Self>,
        mut connection: MultiplexedConnection,
        epoch: u64,
        wanted: Replicas,
        deadline: Instant,
    ) -> Wait {
        let mut asked = self.asked();
        if asked.epoch != epoch {
            *asked = Asked {
                epoch,
                ..Asked::default()
            };
        }
        if let Some((wait, until)) = &mut asked.next {
            *until = deadline.max(*until);
            return wait.clone();
        }
        let this = Arc::clone(self);
        let before = asked.last.take();
        let asking = async move {
            if let Some(before) = before {
                // Whatever it says, its answer is about earlier calls.
                let _ = before.await;
            }
            // All calls of this moment are sent first.
            yield_now().await;
            // A caller that sends from here on joins the next.
            let until = this.leave(epoch).unwrap_or(deadline);
            let left = until.saturating_duration_since(Instant::now());
            let longest = wanted.timeout.min(left.saturating_sub(SERVER_TICK));
            ask(
                &mut connection,
                wanted.count,
                longest.max(Duration::from_millis(1)),
            )
            .await
        };
        let wait: Wait = asking.boxed().shared();
        asked.last = Some(wait.clone());
        asked.next = Some((wait.clone(), deadline));
        wait
    }

    /// The one that was to leave does: when the last of its callers gives up.
    fn leave(&self, epoch: u64) -> Option<Instant> {
        let mut asked = self.asked();
        if asked.epoch != epoch {
            // Another connection has others.
            return None;
        }
        asked.next.take().map(|(_, until)| until)
    }
}

/// Asks the server how many replicas have what this connection has written.
async fn ask(
    connection: &mut MultiplexedConnection,
    count: u32,
    longest: Duration,
) -> StoreResult<()> {
    let mut command = redis::cmd("WAIT");
    let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    command.arg(count).arg(millis.max(1));
    let answer = timeout(
        longest + SERVER_TICK * 2,
        command.query_async::<i64>(connection),
    );
    let remedy = "see whether the replicas are up; what was granted is given back";
    match answer.await {
        Ok(Ok(acknowledged)) if acknowledged >= i64::from(count) => Ok(()),
        Ok(Ok(acknowledged)) => Err(StoreError::new(
            StoreErrorKind::Unknown,
            format!("the write is on {acknowledged} of {count} replicas"),
            remedy,
        )),
        // Also `UNBLOCKED`, behind a yes of a master that is demoted at this moment.
        Ok(Err(error)) => Err(StoreError::new(
            StoreErrorKind::Unknown,
            format!(
                "the server does not say on how many replicas the write is ({})",
                message(&error.to_string())
            ),
            remedy,
        )),
        Err(_) => Err(StoreError::late(StoreErrorKind::Unknown)),
    }
}

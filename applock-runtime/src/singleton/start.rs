//! What a body's run begins with, async and sync: whether this code is under that lock
//! already, and if not, how the lock is taken.
//!
//! Code that runs under a lock would wait for itself if it asked for that lock, so a nested run
//! is refused at once, unless it is `reentrant`: then it runs under the lock of the run around
//! it. The danger there is siblings: `join!` makes many calls in one body, and their bodies
//! would run at once under one lock. So a run gives one *turn* to one nested run at a time, in
//! the order in which they came. Only the innermost run can be asked for a turn, by its own code:
//! what a nested run calls is nested in that one, and goes before its siblings.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use tokio::sync::SemaphorePermit;

use crate::engine::Wait;
use crate::error::{Error, Result};
use crate::key::Function;
use crate::locker::current::{self, NOT_REENTRANT, Running};
use crate::locker::{Lock, LockGuard};
use crate::protocol::Outcome;

/// One run of a body: under which lock, and for which function.
pub(crate) struct Invocation {
    /// An error where there is no locker.
    pub(crate) lock: Result<Lock>,
    pub(crate) function: Function,
    pub(crate) finish_when_lost: bool,
}

/// A body may begin.
pub(crate) struct Begun {
    pub(crate) running: Arc<Running>,
    /// Under the lock of the run around it.
    pub(crate) turn: Option<Turn>,
}

/// The right to run under the lock of another run: of one nested run at a time. Dropped, it
/// goes to the next that waits.
pub(crate) struct Turn(Arc<Running>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.turns.add_permits(1);
    }
}

/// Another nested run has the turn, and this one does not wait.
const TAKEN: &str = "this very call runs under it, and another reentrant call has its turn; with \
                     `wait` an async one waits for its own";

/// Takes the lock for a body, or the turn under the lock that this code runs under.
///
/// `may_wait`: a nested run of sync code never waits for its turn, for it would block the one
/// that has it, which is of the same task or thread.
///
/// The machine may have slept since the lock was granted, and the turn may have come late: no
/// body is begun under a lease that is over, and a lost lock is never taken anew underneath.
pub(crate) async fn begin(lock: Result<Lock>, function: Function, may_wait: bool) -> Result<Begun> {
    let lock = lock.inspect_err(|error| function.refused(None, error))?;
    let begun = begin_under(&lock, may_wait).await;
    begun.inspect_err(|error| function.refused(Some(&lock), error))
}

async fn begin_under(lock: &Lock, may_wait: bool) -> Result<Begun> {
    let Some(around) = current::find(lock.locker(), &lock.resolve()?) else {
        let guard = lock.acquire().await?;
        // Until the body has ended otherwise: its future may be dropped.
        guard.run_ended(Outcome::Unused);
        guard.ensure_held()?;
        guard.run_ended(Outcome::Cancelled);
        let running = Running::new(lock.locker().clone(), guard);
        return Ok(Begun {
            running: Arc::new(running),
            turn: None,
        });
    };
    around.guard.ensure_held()?;
    if !lock.is_reentrant() {
        return Err(around.busy(NOT_REENTRANT));
    }
    let wait = if may_wait { lock.waits() } else { Wait::Not };
    let turn = turn(around, wait).await?;
    let around = &turn.0;
    if around.has_ended() {
        return Err(not_held(&around.guard));
    }
    around.guard.ensure_held()?;
    Ok(Begun {
        running: Arc::new(Running::nested(Arc::clone(around))),
        turn: Some(turn),
    })
}

async fn turn(around: Arc<Running>, wait: Wait) -> Result<Turn> {
    let free = around.turns.try_acquire().map(SemaphorePermit::forget);
    match wait {
        _ if free.is_ok() => Ok(Turn(around)),
        Wait::Not => Err(around.busy(TAKEN)),
        Wait::Forever => next_turn(&around).await,
        Wait::For(longest) => {
            // The caller may have no runtime with timers: the engine has.
            let over = pin!(around.locker.engine().sleep(longest));
            match select(pin!(next_turn(&around)), over).await {
                Either::Left((turn, _)) => turn,
                Either::Right((slept, _)) => {
                    slept?;
                    Err(around.busy(TAKEN))
                }
            }
        }
    }
}

async fn next_turn(around: &Arc<Running>) -> Result<Turn> {
    match around.turns.acquire().await {
        Ok(permit) => {
            permit.forget();
            Ok(Turn(Arc::clone(around)))
        }
        Err(_) => Err(not_held(&around.guard)),
    }
}

/// The error for a nested run that has outlived the run around it.
pub(super) fn not_held(guard: &LockGuard) -> Error {
    Error::NotHeld {
        key: Arc::clone(&guard.lease().key.lock),
    }
}

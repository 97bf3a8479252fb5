//! How long a step may take, and what is known of it when it takes longer.
//!
//! File work happens on threads of tokio's blocking pool and cannot be interrupted
//! there: a disk may hang. So each step asks for leave at the one moment that
//! counts, just before the rename that carries it out. Whoever stopped waiting has
//! taken that leave away, and then the step certainly was not carried out, and
//! never will be; only between leave and answer is the outcome unknown.
//!
//! Leave is asked for while the latch is held. A release that comes after an
//! acquisition was given up therefore either finds it carried out, or knows that it
//! never will be (rule R6): there are no ghosts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::store::{Outcome, StoreError, StoreErrorKind};

/// The part of the allowed time that a step spends at most on waiting for others,
/// so that it gives up itself, and can say so, before its caller does.
const SHARE: (u32, u32) = (7, 8);

/// No caller waits longer; it keeps the arithmetic from overflowing.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The limits of one step.
pub(super) struct Patience<'a> {
    deadline: Instant,
    leave: &'a dyn Fn() -> bool,
}

impl<'a> Patience<'a> {
    pub(super) fn new(deadline: Instant, leave: &'a dyn Fn() -> bool) -> Self {
        Self { deadline, leave }
    }

    /// How long the step may still wait for others.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Leave to carry the step out. From here on its outcome is unknown until it
    /// has answered.
    pub(super) fn leave(&self) -> Outcome<()> {
        if (self.leave)() {
            Ok(())
        } else {
            Err(StoreError::new(
                StoreErrorKind::NotDone,
                "the step was given up before it was carried out",
                "",
            ))
        }
    }
}

/// What is known of a batch.
struct Progress<T> {
    done: Vec<Outcome<T>>,
    under_way: bool,
    given_up: bool,
}

struct Shared<T>(Mutex<Progress<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Progress<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the leave away when the caller stops waiting, also by dropping the future.
struct GiveUp<T>(Arc<Shared<T>>);

impl<T> Drop for GiveUp<T> {
    fn drop(&mut self) {
        self.0.lock().given_up = true;
    }
}

/// Carries out `step` for each item of a batch, one after the other, on a blocking
/// thread; answers after `within` at the latest.
pub(super) async fn carry_out<Q, T, F>(
    threads: Arc<Semaphore>,
    batch: Vec<Q>,
    within: Duration,
    step: F,
) -> Vec<Outcome<T>>
where
    Q: Send + 'static,
    T: Send + 'static,
    F: Fn(Q, &Patience<'_>) -> Outcome<T> + Send + 'static,
{
    let count = batch.len();
    let within = within.min(LONGEST);
    let deadline = Instant::now() + within / SHARE.1 * SHARE.0;
    let shared = Arc::new(Shared(Mutex::new(Progress {
        done: Vec::with_capacity(count),
        under_way: false,
        given_up: false,
    })));
    let watched = GiveUp(Arc::clone(&shared));
    let work = async move {
        // A closed semaphore is the only error, and ours is never closed.
        let permit = threads.acquire_owned().await.ok();
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            for question in batch {
                if shared.lock().given_up {
                    return;
                }
                let leave = || {
                    let mut progress = shared.lock();
                    progress.under_way = !progress.given_up;
                    progress.under_way
                };
                let outcome = step(question, &Patience::new(deadline, &leave));
                let mut progress = shared.lock();
                progress.done.push(outcome);
                progress.under_way = false;
            }
        });
        // A panic in a step shows below, as answers that never came.
        work.await.is_ok()
    };
    let came = tokio::time::timeout(within, work).await;
    let mut progress = watched.0.lock();
    progress.given_up = true;
    let mut outcomes = std::mem::take(&mut progress.done);
    if outcomes.len() < count && progress.under_way {
        outcomes.push(Err(unanswered(
            StoreErrorKind::Unknown,
            within,
            came.is_ok(),
        )));
    }
    outcomes.resize_with(count, || {
        Err(unanswered(StoreErrorKind::NotDone, within, came.is_ok()))
    });
    outcomes
}

fn unanswered(kind: StoreErrorKind, within: Duration, ended: bool) -> StoreError {
    if ended {
        return StoreError::new(
            kind,
            "the step ended without an answer",
            "this is a defect of applock: please report it with the panic message above",
        );
    }
    StoreError::new(
        kind,
        format!("the lock directory gave no answer within {within:?}"),
        "see whether its disk hangs or is overloaded",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(30);

    fn threads() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(2))
    }

    fn kinds(outcomes: &[Outcome<u32>]) -> Vec<Result<u32, StoreErrorKind>> {
        let kind = |outcome: &Outcome<u32>| outcome.as_ref().copied().map_err(|error| error.kind);
        outcomes.iter().map(kind).collect()
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_questions() {
        let outcomes = carry_out(threads(), vec![3, 1, 2], LONG, |n, _| Ok(n * 10)).await;
        assert_eq!(kinds(&outcomes), [Ok(30), Ok(10), Ok(20)]);
        assert!(
            carry_out(threads(), Vec::<u32>::new(), LONG, |n, _| Ok(n))
                .await
                .is_empty()
        );
        let endless = carry_out(threads(), vec![1], Duration::MAX, |n, _| Ok(n)).await;
        assert_eq!(kinds(&endless), [Ok(1)]);
    }

    #[tokio::test]
    async fn what_was_answered_before_the_time_ran_out_is_kept() {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let outcomes = carry_out(threads(), vec![1, 2, 3], SHORT, move |n, _| {
            if n == 2 {
                let _ = wait.lock().unwrap().recv();
            }
            Ok(n)
        })
        .await;
        drop(go);
        assert_eq!(
            kinds(&outcomes),
            [
                Ok(1),
                Err(StoreErrorKind::NotDone),
                Err(StoreErrorKind::NotDone)
            ]
        );
    }

    #[tokio::test]
    async fn only_a_step_that_had_leave_is_unknown() {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let outcomes = carry_out(threads(), vec![1, 2], SHORT, move |n, patience| {
            patience.leave()?;
            let _ = wait.lock().unwrap().recv();
            Ok(n)
        })
        .await;
        drop(go);
        assert_eq!(
            kinds(&outcomes),
            [Err(StoreErrorKind::Unknown), Err(StoreErrorKind::NotDone)]
        );
    }

    #[tokio::test]
    async fn a_step_that_was_given_up_gets_no_leave_afterwards() {
        for by_dropping in [false, true] {
            let (started, starts) = tokio::sync::oneshot::channel();
            let started = Mutex::new(Some(started));
            let (go, wait) = mpsc::channel::<()>();
            let wait = Mutex::new(wait);
            let (told, tells) = mpsc::channel();
            let within = if by_dropping { LONG } else { SHORT };
            let work = carry_out(threads(), vec![1], within, move |n, patience| {
                let _ = started.lock().unwrap().take().unwrap().send(());
                let _ = wait.lock().unwrap().recv();
                let leave = patience.leave().map_err(|error| error.kind);
                told.send(leave).unwrap();
                Ok(n)
            });
            if by_dropping {
                tokio::select! {
                    biased;
                    _ = work => unreachable!(),
                    _ = starts => {}
                }
            } else {
                assert_eq!(kinds(&work.await), [Err(StoreErrorKind::NotDone)]);
            }
            go.send(()).unwrap();
            assert_eq!(tells.recv().unwrap(), Err(StoreErrorKind::NotDone));
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_step_is_an_error_of_the_rest_and_no_more() {
        let outcomes = carry_out(threads(), vec![1, 2, 3], LONG, |n, _| {
            assert_ne!(n, 2, "on purpose");
            Ok(n)
        })
        .await;
        assert_eq!(
            kinds(&outcomes),
            [
                Ok(1),
                Err(StoreErrorKind::NotDone),
                Err(StoreErrorKind::NotDone)
            ]
        );
    }

    #[tokio::test]
    async fn a_disk_that_hangs_takes_no_more_than_its_share_of_threads() {
        let threads = threads();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..5 {
            let wait = Arc::clone(&wait);
            let outcomes = carry_out(Arc::clone(&threads), vec![1], SHORT, move |n, _| {
                let _ = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
                Ok(n)
            })
            .await;
            assert_eq!(kinds(&outcomes), [Err(StoreErrorKind::NotDone)]);
        }
        assert_eq!(threads.available_permits(), 0);
        drop(go);
        let after = carry_out(threads, vec![1], LONG, |n, _| Ok(n)).await;
        assert_eq!(kinds(&after), [Ok(1)]);
    }
}

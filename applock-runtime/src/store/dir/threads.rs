//! How long a step may take, and what is known of it when it takes longer.
//!
//! File work happens on threads of its own and cannot be interrupted there: a disk may
//! hang. So each step asks for a *commit permit* at the one moment that
//! counts, just before the rename that carries it out. A caller that stopped waiting has
//! taken that permit away, and then the step certainly was not carried out, and
//! never will be; only between permit and answer is the outcome unknown.
//!
//! The permit is asked for while the lock file is held. A release that comes after an
//! acquisition was given up therefore either finds it carried out, or knows that it
//! never will be (rule R6): there are no orphans.
//!
//! Waiting for a lock file takes no thread, and in a batch no time of the others: a step
//! that finds its lock file taken is tried again after all the others.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;

use crate::blocking::on_a_thread;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// The first pause between two attempts at a lock file: a critical section without a
/// sync of the disk takes some tens of microseconds. (The runtime's timer makes a
/// millisecond of it.)
const FIRST_PAUSE: Duration = Duration::from_micros(100);

/// The longest: a critical section with a sync of a slow disk.
const LAST_PAUSE: Duration = Duration::from_millis(10);

/// One attempt at a step.
pub(super) type StepResult<T> = Result<T, Stop>;

/// Why an attempt came to no answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// That is the answer.
    Fault(StoreError),
    /// Its lock file is taken: try again, and if the time runs out, answer this.
    Taken(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Fault(error)
    }
}

/// The permit to carry a step out. It is given until the caller stops waiting.
pub(super) struct CommitPermit<'a>(pub(super) &'a dyn Fn() -> bool);

impl CommitPermit<'_> {
    /// Asks for it. From here on the step's outcome is unknown until it has
    /// answered.
    pub(super) fn ask(&self) -> StoreResult<()> {
        if (self.0)() {
            return Ok(());
        }
        let what = "the step was given up before it was carried out";
        Err(StoreError::new(StoreErrorKind::NotDone, what, ""))
    }
}

/// What is known of a batch.
struct BatchProgress<T> {
    answers: Vec<Known<T>>,
    /// Which one has its permit.
    under_way: Option<usize>,
    given_up: bool,
}

/// What is known of one item.
enum Known<T> {
    Open,
    Taken(StoreError),
    Came(StoreResult<T>),
}

struct SharedBatch<T>(Mutex<BatchProgress<T>>);

impl<T> SharedBatch<T> {
    fn lock(&self) -> MutexGuard<'_, BatchProgress<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries each of `batch` once; returns those whose lock file was taken.
    fn pass<Q>(
        &self,
        batch: Vec<(usize, Q)>,
        step: &impl Fn(&Q, &CommitPermit<'_>) -> StepResult<T>,
    ) -> Vec<(usize, Q)> {
        let mut left = Vec::new();
        for (index, question) in batch {
            if self.lock().given_up {
                return Vec::new();
            }
            let permit = || {
                let mut progress = self.lock();
                if !progress.given_up {
                    progress.under_way = Some(index);
                }
                !progress.given_up
            };
            let answer = match step(&question, &CommitPermit(&permit)) {
                Ok(answer) => Known::Came(Ok(answer)),
                Err(Stop::Fault(error)) => Known::Came(Err(error)),
                Err(Stop::Taken(error)) => {
                    left.push((index, question));
                    Known::Taken(error)
                }
            };
            let mut progress = self.lock();
            progress.under_way = None;
            if let Some(known) = progress.answers.get_mut(index) {
                *known = answer;
            }
        }
        left
    }
}

/// Takes the permit away when the caller stops waiting, also by dropping the future.
struct GiveUp<T>(Arc<SharedBatch<T>>);

impl<T> Drop for GiveUp<T> {
    fn drop(&mut self) {
        self.0.lock().given_up = true;
    }
}

/// Carries out `step` for each item of a batch on a blocking thread; answers after
/// `within` at the latest, in the order of the questions.
pub(super) async fn carry_out<Q, T, F>(
    threads: Arc<Semaphore>,
    batch: Vec<Q>,
    within: Duration,
    step: F,
) -> Vec<StoreResult<T>>
where
    Q: Send + 'static,
    T: Send + 'static,
    F: Fn(&Q, &CommitPermit<'_>) -> StepResult<T> + Send + Sync + 'static,
{
    let shared = Arc::new(SharedBatch(Mutex::new(BatchProgress {
        answers: batch.iter().map(|_| Known::Open).collect(),
        under_way: None,
        given_up: false,
    })));
    let watched = GiveUp(Arc::clone(&shared));
    let work = async move {
        let step = Arc::new(step);
        let mut left: Vec<(usize, Q)> = batch.into_iter().enumerate().collect();
        let mut pause = FIRST_PAUSE;
        loop {
            // A closed semaphore is the only error, and ours is never closed.
            let permit = Arc::clone(&threads).acquire_owned().await.ok();
            let (shared, step) = (Arc::clone(&shared), Arc::clone(&step));
            let pass = on_a_thread(move || {
                let _permit = permit;
                shared.pass(left, &*step)
            });
            left = pass.await?;
            if left.is_empty() {
                return io::Result::Ok(());
            }
            // Jitter, so that steps that collided once do not collide again.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    };
    let ended = tokio::time::timeout(within, work).await;
    let mut progress = watched.0.lock();
    progress.given_up = true;
    let under_way = progress.under_way;
    let answers = std::mem::take(&mut progress.answers);
    let conclude = |(index, answer)| match answer {
        Known::Came(outcome) => outcome,
        Known::Taken(error) if under_way != Some(index) => Err(error),
        Known::Taken(_) | Known::Open => {
            let kind = if under_way == Some(index) {
                StoreErrorKind::Unknown
            } else {
                StoreErrorKind::NotDone
            };
            Err(unanswered(kind, within, &ended))
        }
    };
    answers.into_iter().enumerate().map(conclude).collect()
}

/// Why there is no answer: what became of the work.
fn unanswered(
    kind: StoreErrorKind,
    within: Duration,
    ended: &Result<io::Result<()>, Elapsed>,
) -> StoreError {
    match ended {
        Err(_) => StoreError::new(
            kind,
            format!("the lock directory gave no answer within {within:?}"),
            "see whether its disk hangs or is overloaded",
        ),
        Ok(Err(error)) => StoreError::new(
            kind,
            format!("no answer came from the thread that reads the lock directory ({error})"),
            "see whether this process may have more threads; a panic is a defect of applock: please \
             report it with its message",
        ),
        Ok(Ok(())) => StoreError::new(
            kind,
            "the step ended without an answer",
            "this is a defect of applock: please report it",
        ),
    }
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

    fn kinds(outcomes: &[StoreResult<u32>]) -> Vec<Result<u32, StoreErrorKind>> {
        let kind =
            |outcome: &StoreResult<u32>| outcome.as_ref().copied().map_err(|error| error.kind);
        outcomes.iter().map(kind).collect()
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_questions() {
        let outcomes = carry_out(threads(), vec![3, 1, 2], LONG, |&n, _| Ok(n * 10)).await;
        assert_eq!(kinds(&outcomes), [Ok(30), Ok(10), Ok(20)]);
        assert!(
            carry_out(threads(), Vec::<u32>::new(), LONG, |&n, _| Ok(n))
                .await
                .is_empty()
        );
        let endless = carry_out(threads(), vec![1], Duration::MAX, |&n, _| Ok(n)).await;
        assert_eq!(kinds(&endless), [Ok(1)]);
    }

    #[tokio::test]
    async fn what_was_answered_before_the_time_ran_out_is_kept() {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let outcomes = carry_out(threads(), vec![1, 2, 3], SHORT, move |&n, _| {
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
    async fn only_a_step_that_had_its_permit_is_unknown() {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let outcomes = carry_out(threads(), vec![1, 2], SHORT, move |&n, permit| {
            permit.ask()?;
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
    async fn a_step_that_was_given_up_gets_no_permit_afterwards() {
        for by_dropping in [false, true] {
            let (started, starts) = tokio::sync::oneshot::channel();
            let started = Mutex::new(Some(started));
            let (go, wait) = mpsc::channel::<()>();
            let wait = Mutex::new(wait);
            let (answer, answers) = mpsc::channel();
            let within = if by_dropping { LONG } else { SHORT };
            let work = carry_out(threads(), vec![1], within, move |&n, permit| {
                let _ = started.lock().unwrap().take().unwrap().send(());
                let _ = wait.lock().unwrap().recv();
                let permit = permit.ask().map_err(|error| error.kind);
                answer.send(permit).unwrap();
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
            assert_eq!(answers.recv().unwrap(), Err(StoreErrorKind::NotDone));
        }
    }

    fn taken() -> Stop {
        Stop::Taken(StoreError::new(StoreErrorKind::NotDone, "taken", ""))
    }

    #[tokio::test]
    async fn a_taken_lock_file_delays_none_of_the_others_and_is_tried_until_it_is_free() {
        let tries = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&tries);
        let outcomes = carry_out(threads(), vec![1, 2, 3], LONG, move |&n, _| {
            let mut tries = tries.lock().unwrap();
            tries.push(n);
            if n == 1 && tries.len() < 10 {
                Err(taken())
            } else {
                Ok(n)
            }
        })
        .await;
        assert_eq!(kinds(&outcomes), [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn waiting_for_a_lock_file_takes_no_thread_and_ends_in_time() {
        let threads = Arc::new(Semaphore::new(1));
        // Long enough that each of them has tried, however busy the machine is.
        let within = Duration::from_secs(2);
        let waiting: Vec<_> = (0..20)
            .map(|_| carry_out(Arc::clone(&threads), vec![1], within, |_, _| Err(taken())))
            .collect();
        let other = carry_out(Arc::clone(&threads), vec![7], LONG, |&n, _| Ok(n));
        let (waited, other) = tokio::join!(futures_util::future::join_all(waiting), other);
        assert_eq!(kinds(&other), [Ok(7)]);
        for mut outcomes in waited {
            let outcome: StoreResult<u32> = outcomes.pop().unwrap();
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind, &*error.what),
                (StoreErrorKind::NotDone, "taken")
            );
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_step_is_an_error_of_the_rest_and_no_more() {
        let outcomes = carry_out(threads(), vec![1, 2, 3], LONG, |&n, _| {
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
            let outcomes = carry_out(Arc::clone(&threads), vec![1], SHORT, move |&n, _| {
                let _ = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
                Ok(n)
            })
            .await;
            assert_eq!(kinds(&outcomes), [Err(StoreErrorKind::NotDone)]);
        }
        assert_eq!(threads.available_permits(), 0);
        drop(go);
        let after = carry_out(threads, vec![1], LONG, |&n, _| Ok(n)).await;
        assert_eq!(kinds(&after), [Ok(1)]);
    }
}

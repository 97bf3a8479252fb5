//! Feature `metrics`: what a dashboard counts, on the facade of the crate `metrics`.
//!
//! All names, labels and descriptions stand here; the places where the log events are feed it.
//! Without the feature each function here is empty, and costs nothing.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `applock_acquire_total` | counter | `app`, `outcome` |
//! | `applock_wait_seconds` | histogram | |
//! | `applock_held_seconds` | histogram | |
//! | `applock_held` | gauge | |
//! | `applock_lost_total` | counter | `app`, `reason` |
//! | `applock_heartbeat_failures_total` | counter | |
//! | `applock_store_up` | gauge | |
//! | `applock_lease_margin_seconds` | gauge | |
//! | `applock_last_run_timestamp_seconds` | gauge | `app`, `outcome` |
//!
//! Danger: labels without end. No name and no key is ever a label: tenants, orders and days are made
//! into names. An application is one; a lock with a whole `key` has `(key)`.

#![cfg_attr(
    not(feature = "metrics"),
    allow(unused_variables, reason = "empty then")
)]

use std::time::{Duration, SystemTime};

use crate::clock::Moment;
use crate::error::{ErrorKind, Loss};
#[cfg(feature = "metrics")]
use crate::key::PING;

/// How often the smallest margin is looked for: it goes through all leases.
#[cfg(feature = "metrics")]
const MARGIN_EVERY: Duration = Duration::from_secs(1);

#[cfg(feature = "metrics")]
mod recorded;
#[cfg(all(test, feature = "metrics"))]
pub(crate) mod told;

/// What is only read to be counted need not be read otherwise.
pub(crate) const ENABLED: bool = cfg!(feature = "metrics");

/// Describes all metrics, so that a dashboard shows zero: at the start of a locker. The recorder has
/// to be installed by then.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    recorded::describe();
}

/// A call for a lock, of that application. Dropped without an answer, it was cancelled.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    #[cfg(feature = "metrics")]
    app: Option<&'a str>,
    #[cfg(feature = "metrics")]
    is_answered: bool,
    #[cfg(not(feature = "metrics"))]
    nothing: std::marker::PhantomData<&'a str>,
}

impl<'a> Call<'a> {
    pub(crate) fn begin(app: Option<&'a str>) -> Self {
        #[cfg(feature = "metrics")]
        recorded::begin(app);
        Self {
            #[cfg(feature = "metrics")]
            app,
            #[cfg(feature = "metrics")]
            is_answered: false,
            #[cfg(not(feature = "metrics"))]
            nothing: std::marker::PhantomData,
        }
    }

    /// `Ok`: the lock was granted, after so long.
    pub(crate) fn answered(mut self, outcome: Result<Duration, ErrorKind>) {
        #[cfg(feature = "metrics")]
        {
            self.is_answered = true;
            if let Ok(waited) = outcome {
                metrics::histogram!(recorded::WAIT).record(waited);
            }
            self.count(outcome.map_or_else(ErrorKind::name, |_| "acquired"));
        }
        #[cfg(not(feature = "metrics"))]
        let _ = &mut self;
    }

    #[cfg(feature = "metrics")]
    fn count(&self, outcome: &'static str) {
        let app = recorded::app(self.app);
        metrics::counter!(recorded::ACQUIRE, "app" => app, "outcome" => outcome).increment(1);
    }
}

#[cfg(feature = "metrics")]
impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.count("cancelled");
        }
    }
}

/// A lock is held no longer, after so long: given back, or lost.
pub(crate) fn ended(app: Option<&str>, held: Duration, loss: Option<Loss>) {
    #[cfg(feature = "metrics")]
    if app != Some(PING) {
        metrics::histogram!(recorded::HELD_FOR).record(held);
        if let Some(loss) = loss {
            let app = recorded::app(app);
            metrics::counter!(recorded::LOST, "app" => app, "reason" => loss.name()).increment(1);
        }
    }
}

/// A heartbeat has got no answer.
pub(crate) fn heartbeat_failed() {
    #[cfg(feature = "metrics")]
    metrics::counter!(recorded::HEARTBEAT_FAILURES).increment(1);
}

/// A run has ended so, at that time.
pub(crate) fn ran(app: Option<&str>, outcome: &'static str, at: SystemTime) {
    #[cfg(feature = "metrics")]
    {
        let app = recorded::app(app);
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        metrics::gauge!(recorded::LAST_RUN, "app" => app, "outcome" => outcome)
            .set(since.unwrap_or_default().as_secs_f64());
    }
}

/// The gauges of one engine.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    #[cfg(feature = "metrics")]
    told: Option<(recorded::Reading, Moment)>,
    #[cfg(feature = "metrics")]
    id: Option<u64>,
}

impl Gauges {
    /// Tells what has changed. `margin` is asked for once a second, and when the first lock is taken
    /// or the last one let go.
    pub(crate) fn tell(
        &mut self,
        now: Moment,
        held: usize,
        is_up: Option<bool>,
        margin: impl FnOnce() -> Option<Duration>,
    ) {
        #[cfg(feature = "metrics")]
        {
            use std::sync::atomic::{AtomicU64, Ordering};
            static IDS: AtomicU64 = AtomicU64::new(0);
            let known = self.told;
            let is_due = known.is_none_or(|(told, at)| {
                (told.held == 0) != (held == 0) || held > 0 && now - at >= MARGIN_EVERY
            });
            let (margin, at) = match known {
                Some((told, at)) if !is_due => (told.margin, at),
                _ => (margin(), now),
            };
            let reading = recorded::Reading {
                held,
                is_up,
                margin,
            };
            if known.is_some_and(|(told, _)| told == reading) {
                self.told = Some((reading, at));
                return;
            }
            let id = *self
                .id
                .get_or_insert_with(|| IDS.fetch_add(1, Ordering::Relaxed));
            if recorded::publish(id, Some(reading)) {
                self.told = Some((reading, at));
            }
        }
    }
}

#[cfg(feature = "metrics")]
impl Drop for Gauges {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            recorded::publish(id, None);
        }
    }
}

//! Time as a parameter: the one clock by which leases are judged.
//!
//! Nothing else in this crate reads a clock. Tests drive a [`ManualClock`].

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

/// A point in time on a [`Clock`], counted from that clock's origin.
///
/// Moments of two clocks cannot be compared with one another.
///
/// ```
/// use std::time::Duration;
/// use applock::clock::Moment;
///
/// let start = Moment::from_origin(Duration::from_secs(5));
/// assert_eq!(start + Duration::from_secs(1) - start, Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `since` after the clock's origin, in whole nanoseconds.
    /// What lies further off than 584 years is capped there.
    #[must_use]
    pub const fn from_origin(since: Duration) -> Self {
        let nanos = since.as_nanos();
        if nanos > u64::MAX as u128 {
            Self(u64::MAX)
        } else {
            Self(nanos as u64)
        }
    }

    /// How long after the clock's origin this moment lies.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) const fn nanos(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, length: Duration) -> Self {
        Self::from_origin(self.since_origin().saturating_add(length))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, length: Duration) -> Self {
        Self::from_origin(self.since_origin().saturating_sub(length))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

/// A future that a [`Clock`] wakes.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The source of time for leases: monotonic, and running on while the machine is
/// suspended.
///
/// ```
/// use applock::clock::{Clock, SystemClock};
///
/// let before = SystemClock.now();
/// assert!(SystemClock.now() >= before);
/// ```
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The present moment. Never goes backward. Does no I/O.
    fn now(&self) -> Moment;

    /// Completes once `now()` has reached `at`. Polled on the engine's own thread,
    /// inside its tokio runtime.
    fn sleep_until(&self, at: Moment) -> Sleep;

    /// The wall clock: for showing to people, and never for judging how long a lease
    /// lasts. Where it runs ahead of `now()` by more than a second, the machine may have
    /// stood still (a paused virtual machine): leases are verified with the store then.
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// An engine goes by this clock from now on. For [`ManualClock::run_for`].
    #[doc(hidden)]
    fn attach(&self, engine: Driven) {
        drop(engine);
    }
}

/// An engine that goes by a clock, as the clock sees it.
#[doc(hidden)]
#[derive(Clone)]
pub struct Driven(Arc<dyn Fn() -> Option<Receiver<()>> + Send + Sync>);

impl Driven {
    /// `settle` asks the engine to answer when it has nothing left to do at this moment. `None`: it
    /// has ended.
    pub(crate) fn new(settle: impl Fn() -> Option<Receiver<()>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(settle))
    }
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driven")
    }
}

/// The machine's clock.
///
/// On Linux the larger of `CLOCK_BOOTTIME` and `CLOCK_MONOTONIC`, so that a
/// suspended machine's leases run out while it sleeps (`clock_gettime(2)`). On
/// macOS `CLOCK_MONOTONIC`, which counts sleep there; elsewhere the standard
/// library's [`std::time::Instant`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::from_origin(uptime())
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        Box::pin(async move {
            loop {
                let left = at.saturating_since(SystemClock.now());
                if left.is_zero() {
                    return;
                }
                // tokio's clock stands still while the machine is suspended: in slices,
                // so that after waking it is late by one of them, not by the whole sleep.
                tokio::time::sleep(left.min(SLICE)).await;
            }
        })
    }
}

/// See [`SystemClock::sleep_until`]: one wake-up a second at the most.
const SLICE: Duration = Duration::from_secs(1);

#[cfg(unix)]
fn uptime() -> Duration {
    use rustix::time::{ClockId, Timespec, clock_gettime};
    fn duration(at: Timespec) -> Duration {
        let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(at.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }
    let monotonic = duration(clock_gettime(ClockId::Monotonic));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        monotonic.max(duration(clock_gettime(ClockId::Boottime)))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        monotonic
    }
}

#[cfg(not(unix))]
fn uptime() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}

/// A clock that stands still until a test moves it.
///
/// Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use applock::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now() - before, Duration::from_secs(60));
/// ```
#[derive(Clone, Default)]
pub struct ManualClock {
    state: Arc<Mutex<Manual>>,
}

struct Manual {
    now: Moment,
    /// How far the wall clock has run ahead.
    ahead: Duration,
    sleepers: Vec<(Moment, Waker)>,
    /// The engines that go by it.
    engines: Vec<Driven>,
}

/// How long an engine may take to do what is due: it was stopped, or a debugger holds it.
const SETTLED: Duration = Duration::from_secs(10);

/// Where a [`ManualClock`] starts: away from zero, so that a test may ask for a
/// moment before the start.
const MANUAL_START: Duration = Duration::from_secs(1_000_000);

impl Default for Manual {
    fn default() -> Self {
        Self {
            now: Moment::from_origin(MANUAL_START),
            ahead: Duration::ZERO,
            sleepers: Vec::new(),
            engines: Vec::new(),
        }
    }
}

impl ManualClock {
    /// A clock that shows an arbitrary time and does not move.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward at once, as a machine that was suspended finds it, and wakes every
    /// sleeper whose moment has come. Does not wait for them to act: no heartbeat leaves in
    /// between. See [`run_for`](Self::run_for).
    pub fn advance(&self, by: Duration) {
        let to = self.now() + by;
        self.set(to);
    }

    /// Lets time pass: moves the clock forward from each moment at which something is due to the
    /// next, and lets every locker that goes by it do what is due. Returns when all have acted,
    /// and have nothing left to do at the last moment. So heartbeats leave when they would, and
    /// what becomes of a lease can be asked right after.
    ///
    /// With a [`MemoryStore`](crate::MemoryStore) the store's answers are included; those of a server take
    /// real time. Code that is woken, such as a body whose lease is lost, runs on its own threads
    /// and tasks: await that. Blocks, for as long as the lockers work. Not to be called on
    /// a locker's own thread.
    ///
    /// ```
    /// use std::time::Duration;
    /// use applock::clock::ManualClock;
    /// use applock::{AppLocker, MemoryStore};
    ///
    /// let clock = ManualClock::new();
    /// let store = MemoryStore::with_clock(clock.clone());
    /// let locker = AppLocker::builder().store(store).clock(clock.clone()).build()?;
    /// let guard = locker.lock("reports").ttl(Duration::from_secs(60)).acquire_blocking()?;
    /// clock.run_for(Duration::from_secs(3600));
    /// assert!(guard.is_held(), "its heartbeats have kept it");
    /// clock.advance(Duration::from_secs(60));
    /// assert!(!guard.is_held(), "no heartbeat could leave");
    /// # Ok::<(), applock::Error>(())
    /// ```
    pub fn run_for(&self, by: Duration) {
        let end = self.now() + by;
        loop {
            self.settle();
            let state = self.lock();
            let due = state.sleepers.iter().map(|(at, _)| *at);
            let next = due.filter(|at| *at <= end).min();
            let is_over = next.is_none() && state.now >= end;
            drop(state);
            if is_over {
                return;
            }
            self.set(next.unwrap_or(end));
        }
    }

    /// Waits until every engine has done what is due.
    fn settle(&self) {
        let engines = self.lock().engines.clone();
        let mut ended = Vec::new();
        for engine in engines {
            match engine.0() {
                // One that does not answer in time is left alone: a test would hang.
                Some(settled) => drop(settled.recv_timeout(SETTLED)),
                None => ended.push(engine),
            }
        }
        let has_ended = |one: &Driven| ended.iter().any(|other| Arc::ptr_eq(&one.0, &other.0));
        self.lock().engines.retain(|engine| !has_ended(engine));
    }

    /// Wakes every sleeper whose moment has come then. Never goes back.
    fn set(&self, to: Moment) {
        let mut state = self.lock();
        state.now = state.now.max(to);
        let now = state.now;
        let mut due = Vec::new();
        state.sleepers.retain(|(at, waker)| {
            let keep = *at > now;
            if !keep {
                due.push(waker.clone());
            }
            keep
        });
        drop(state);
        for waker in due {
            waker.wake();
        }
    }

    /// Moves the wall clock alone forward, as it goes on while a virtual machine is
    /// paused, or is set by a person. Wakes no timer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use applock::clock::{Clock, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let (now, wall) = (clock.now(), clock.wall());
    /// clock.advance_wall(Duration::from_secs(60));
    /// assert_eq!(clock.now(), now);
    /// assert_eq!(clock.wall(), wall + Duration::from_secs(60));
    /// ```
    pub fn advance_wall(&self, by: Duration) {
        let mut state = self.lock();
        state.ahead = state.ahead.saturating_add(by);
    }

    fn lock(&self) -> MutexGuard<'_, Manual> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.lock().now
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        Box::pin(ManualSleep {
            clock: self.clone(),
            at,
        })
    }

    fn attach(&self, engine: Driven) {
        self.lock().engines.push(engine);
    }

    fn wall(&self) -> SystemTime {
        let state = self.lock();
        let since = state.now.since_origin().saturating_add(state.ahead);
        // Beyond what the platform can tell there is no time to show.
        SystemTime::UNIX_EPOCH
            .checked_add(since)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

struct ManualSleep {
    clock: ManualClock,
    at: Moment,
}

impl Future for ManualSleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.lock();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        // One entry a waker: a sleep that is polled again and again (or made anew
        // at every turn of a loop) must not fill the list.
        let at = self.at;
        match state
            .sleepers
            .iter_mut()
            .find(|(_, waker)| waker.will_wake(context.waker()))
        {
            Some((known, _)) => *known = (*known).min(at),
            None => state.sleepers.push((at, context.waker().clone())),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_backward() {
        let mut last = SystemClock.now();
        for _ in 0..1_000 {
            let now = SystemClock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn a_moment_far_off_is_capped_and_never_wraps() {
        let far = Moment::from_origin(Duration::MAX);
        assert_eq!(far + Duration::from_secs(1), far);
        assert_eq!(
            Moment::from_origin(Duration::ZERO) - Duration::from_secs(1),
            Moment::from_origin(Duration::ZERO)
        );
    }

    #[test]
    fn a_manual_sleep_ends_when_its_moment_is_reached_and_not_before() {
        let clock = ManualClock::new();
        let mut sleep = clock.sleep_until(clock.now() + Duration::from_secs(2));
        let mut context = Context::from_waker(Waker::noop());
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        clock.advance(Duration::from_millis(1_999));
        assert!(sleep.as_mut().poll(&mut context).is_pending());
        clock.advance(Duration::from_millis(1));
        assert!(sleep.as_mut().poll(&mut context).is_ready());
    }
}

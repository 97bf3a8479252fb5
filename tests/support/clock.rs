//! A machine's clocks that a test can set: the one by which leases are judged, forward;
//! the one on the wall, both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use applock::clock::{Clock, Moment, Sleep, SystemClock};

/// Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct SetClock {
    /// In nanoseconds.
    slept: Arc<AtomicU64>,
    /// In milliseconds.
    wall: Arc<AtomicI64>,
}

impl SetClock {
    /// A clock that is this many seconds off what the wall really shows.
    pub fn off_by(seconds: i64) -> Self {
        let clock = Self::default();
        clock.step(seconds);
        clock
    }

    /// The wall clock is set: so many seconds further, or back.
    pub fn step(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }

    /// The machine has been suspended for so long: no timer is woken by it, and every clock
    /// that counts suspend has gone on.
    pub fn sleep(&self, length: Duration) {
        let nanos = u64::try_from(length.as_nanos()).expect("less than centuries");
        self.slept.fetch_add(nanos, Ordering::SeqCst);
        let millis = i64::try_from(length.as_millis()).expect("less than centuries");
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }

    fn slept(&self) -> Duration {
        Duration::from_nanos(self.slept.load(Ordering::SeqCst))
    }
}

impl Clock for SetClock {
    fn now(&self) -> Moment {
        SystemClock.now() + self.slept()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        let clock = self.clone();
        Box::pin(async move {
            // In slices, as the real one: a timer stands still while the machine sleeps.
            while clock.now() < at {
                let left = at - clock.now();
                tokio::time::sleep(left.min(Duration::from_millis(200))).await;
            }
        })
    }

    fn wall(&self) -> SystemTime {
        let wall = self.wall.load(Ordering::SeqCst);
        let off = Duration::from_millis(wall.unsigned_abs());
        let now = SystemTime::now();
        if wall < 0 { now - off } else { now + off }
    }
}

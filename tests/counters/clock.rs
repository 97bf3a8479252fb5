//! Reads of the clock by which leases are judged, and of the wall clock beside it: each costs
//! what a look at the kernel's clocks costs, and the engine's own clock is two of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use applock::AppLocker;
use applock::clock::{Clock, Moment, Sleep, SystemClock};

use super::{TTL, WARM_UP, alone, block_on, cycles, smallest, support};

/// Many short rounds: on a busy machine the engine wakes for nothing more often, but not in each.
/// All on one core: on two the engine often looks before what has woken it is there, by how fast they
/// are.
const CYCLES: u32 = 20;
const ROUNDS: usize = 70;

/// Two for each of the two requests: when the caller's command and when the store's answer came
/// (4), and each time once more before the engine sleeps (4). The fraction is for a round of the
/// loop in which nothing has come. With the feature `metrics` two more: how long a lock was waited
/// for, and held.
const READS: f64 = if cfg!(feature = "metrics") { 10.5 } else { 8.5 };

/// One for each request that leaves, and what is read once a second while a lock is held.
const WALL_READS: f64 = 2.1;

#[derive(Clone, Debug, Default)]
struct CountingClock {
    reads: Arc<AtomicU64>,
    wall_reads: Arc<AtomicU64>,
}

impl CountingClock {
    fn counted(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.reads), read(&self.wall_reads))
    }
}

impl Clock for CountingClock {
    fn now(&self) -> Moment {
        self.reads.fetch_add(1, Ordering::Relaxed);
        SystemClock.now()
    }

    fn wall(&self) -> SystemTime {
        self.wall_reads.fetch_add(1, Ordering::Relaxed);
        SystemClock.wall()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        SystemClock.sleep_until(at)
    }
}

/// This thread, and what it starts from now on.
#[cfg(target_os = "linux")]
fn on_one_core() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).expect("the cores that we may use");
    let core = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core));
    let mut one = CpuSet::new();
    one.set(core.expect("a core"));
    sched_setaffinity(None, &one).expect("one of them");
}

#[test]
fn a_cycle_reads_the_clocks_no_more_than_it_did() {
    let _alone = alone();
    #[cfg(target_os = "linux")]
    on_one_core();
    let server = support::redis::RedisServer::start();
    let clock = CountingClock::default();
    block_on(async {
        let builder = AppLocker::builder().store(server.url());
        let locker = builder.clock(clock.clone()).connect().await.unwrap();
        let lock = locker.lock("counted").ttl(TTL);
        cycles(&lock, WARM_UP).await;
        let (mut reads, mut wall_reads) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = clock.counted();
            cycles(&lock, CYCLES).await;
            let after = clock.counted();
            let a_cycle = |count: u64| count as f64 / f64::from(CYCLES);
            reads.push(a_cycle(after.0 - before.0));
            wall_reads.push(a_cycle(after.1 - before.1));
        }
        let (reads, wall_reads) = (smallest(reads), smallest(wall_reads));
        assert!(reads > 0.0 && wall_reads > 0.0, "nothing was counted");
        assert!(
            reads <= READS && wall_reads <= WALL_READS,
            "{reads} reads of the clock a cycle, and {wall_reads} of the wall clock"
        );
    });
}

//! Allocations of the whole process: of the caller's thread and of the engine's.

use std::alloc::System;

use applock::singleton;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use super::{WARM_UP, alone, block_on, cycles, smallest, support, warm};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CYCLES: u32 = 200;
const ROUNDS: usize = 7;

/// Nine are the redis crate's: for each of the two requests a future in a box, the text on the
/// wire and the channel for its answer (3), two for the end of what it has read, and the text
/// of the token. For each request ours are the batch, its future and the node of the list of
/// what is under way, the caller's channel, and what was answered (2): twelve.
/// And of the lock the row in the table, the acquire, the lease, and the release.
/// The fraction is for what grows once in a long while, such as a table of timers.
const GUARD: f64 = 25.1;

/// The same and nine for the call itself: its names, its key (2), the run, its steps (3) and
/// the guard that its body sees (2). With the feature `metrics` four more, for labels.
const ANNOTATED: f64 = if cfg!(feature = "metrics") {
    38.1
} else {
    34.1
};

#[test]
fn a_cycle_allocates_no_more_than_it_did() {
    let _alone = alone();
    let server = support::redis::RedisServer::start();
    block_on(async {
        let lock = warm(&server.url()).await;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let region = Region::new(COUNTED);
            cycles(&lock, CYCLES).await;
            rounds.push(a_cycle(&region));
        }
        let counted = smallest(rounds);
        assert!(counted > 0.0, "nothing was counted");
        assert!(counted <= GUARD, "{counted} allocations a cycle");
    });
}

#[singleton(app = "counted", ttl = 600)]
async fn annotated() -> Result<(), applock::Error> {
    Ok(())
}

#[test]
fn an_annotated_call_allocates_no_more_than_it_did() {
    let _alone = alone();
    let server = support::redis::RedisServer::start();
    block_on(async {
        let locker = applock::AppLocker::connect(&server.url()).await.unwrap();
        applock::init(locker);
        for _ in 0..WARM_UP {
            annotated().await.unwrap();
        }
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let region = Region::new(COUNTED);
            for _ in 0..CYCLES {
                annotated().await.unwrap();
            }
            rounds.push(a_cycle(&region));
        }
        let counted = smallest(rounds);
        assert!(counted > 0.0, "nothing was counted");
        assert!(counted <= ANNOTATED, "{counted} allocations a call");
    });
}

/// A block that grows is counted again.
fn a_cycle(region: &Region<'_, System>) -> f64 {
    let counted = region.change();
    (counted.allocations + counted.reallocations) as f64 / f64::from(CYCLES)
}

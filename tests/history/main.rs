//! Promise: whatever is killed, frozen and restarted, what processes do to a lock on a
//! server that keeps its data is what a lock allows: one holder at a time, no refusal
//! while it is free, and no release of what is another's; and no increment is lost of a
//! counter that refuses old fencing tokens. The same over failovers of a cluster and of
//! sentinels (`failovers.rs`), where replicas acknowledge what is written.
//!
//! Workers in several processes tell all that they do, while faults befall them and the
//! server, or servers; then the history is judged (`verdict.rs`) by a checker of our own
//! (`checker.rs`), which is tested on histories that are broken on purpose
//! (`purposely.rs`).
//!
//! APPLOCK_SEED=N        the same faults in the same order, and the same workers
//! APPLOCK_HISTORY_SECONDS=N  for longer than a minute; `scripts/soak` does so
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod failovers;
mod faults;
mod purposely;
mod record;
mod resource;
mod servers;
mod spec;
mod tally;
mod verdict;
mod worker;

use std::time::{Duration, Instant};

use applock::AppLocker;

use faults::World;
use servers::Servers;
use spec::Terms;
use support::child;
use support::redis::RedisServer;
use tally::Tally;

const PROCESSES: usize = 3;
const KEYS: usize = 4;
const TTL: Duration = Duration::from_secs(1);

/// Of a command.
const TIME_OUT: Duration = Duration::from_millis(500);

/// The history is judged, and forgotten, so often.
const STRETCH: Duration = Duration::from_secs(60);

/// How soon a lock must be free when all is well again and no worker wants it: the lease of
/// one that was killed, and what a busy machine may take.
const FREE_WITHIN: Duration = Duration::from_secs(15);

fn lock_of(key: usize) -> String {
    format!("history-{key}")
}

fn from_environment(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

#[test]
fn what_killed_and_frozen_processes_do_to_a_lock_is_what_a_lock_allows() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let seconds = from_environment("APPLOCK_HISTORY_SECONDS").unwrap_or(STRETCH.as_secs());
    let (tally, world) = run(
        Servers::One(RedisServer::durable()),
        child::name_of(what_killed_and_frozen_processes_do_to_a_lock_is_what_a_lock_allows),
        seconds,
    );
    // A tenth of what a small machine does.
    tally.assert_that_much_happened(&[
        ("acquired", seconds * 4),
        ("busy", seconds),
        ("unknown", 1 + seconds / 10),
        ("released", seconds * 4),
        ("lost", 1),
        ("written", seconds * 4),
    ]);
    world.dismiss();
}

/// Workers take locks of these servers for so long, and longer until each kind of fault has
/// befallen them. Panics if what they did is not what a lock allows.
fn run(servers: Servers, test: &'static str, seconds: u64) -> (Tally, World) {
    let seed = from_environment("APPLOCK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("APPLOCK_SEED={seed}, for {seconds} s");
    let mut world = World::new(servers, test, KEYS, seed);
    let watcher = AppLocker::connect_blocking(world.url()).unwrap();
    let mut tally = Tally::new(KEYS, seed);
    let time_out = world.longest_try();
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let stretch_end = end.min(Instant::now() + STRETCH);
        while Instant::now() < stretch_end || !world.is_even() {
            world.suffer();
        }
        let (record, switches) = world.pause();
        all_are_free(&watcher);
        let terms = Terms { time_out, switches };
        tally.judge(record.into_attempts(), &world.resource.counters(), &terms);
        if Instant::now() >= end {
            break;
        }
        world.go_on();
    }
    println!("{tally}\nfaults: {:?}", world.befell);
    assert_eq!(
        world.befell.len(),
        world.servers.kinds().len(),
        "not every kind of fault"
    );
    (tally, world)
}

/// All is well, and the workers stand still: every lock can be had. Nothing that was
/// held, or on its way, is left afterwards.
fn all_are_free(watcher: &AppLocker) {
    for key in 0..KEYS {
        let lock = watcher.lock(lock_of(key)).ttl(TTL).wait(FREE_WITHIN);
        let guard = lock
            .acquire_blocking()
            .unwrap_or_else(|error| panic!("after {FREE_WITHIN:?} of peace: {error}"));
        guard.release_blocking().unwrap();
    }
}

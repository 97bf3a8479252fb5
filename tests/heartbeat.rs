//! Promise: while a body runs, its lock is kept, whatever the body does to its
//! executor, and by no more commands than that takes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use applock::{AppLocker, Error, singleton};
use support::log;
use support::redis::RedisServer;
use support::stall;

const TTL: Duration = Duration::from_millis(600);

/// A heartbeat is due each third of a ttl; half of what is left then is for a busy
/// machine.
const LOW: i64 = 200;

/// A machine that stood still for longer than this is no proof against a heartbeat.
const STALL: Duration = Duration::from_millis(100);

/// Looks at the key during five ttls: it is there, never near its end, and the same
/// holding all the time.
fn watch_for_five_ttls(server: &RedisServer, key: &str, mut rest: impl FnMut()) -> u32 {
    let token: String = server.run(&format!("HGET {key} token"));
    let start = Instant::now();
    let mut looks = 0;
    while start.elapsed() < TTL * 5 {
        let left: i64 = server.run(&format!("PTTL {key}"));
        assert!(
            left > LOW,
            "only {left} ms left after {:?}",
            start.elapsed()
        );
        assert!(left <= 600, "{left} ms is more than the ttl");
        assert_eq!(server.run::<String>(&format!("HGET {key} token")), token);
        looks += 1;
        rest();
    }
    looks
}

#[singleton(app = "long", ttl = "600ms", locker = locker, guard = guard)]
async fn long_job(locker: &AppLocker, server: &RedisServer) -> Result<u32, Error> {
    let token = guard.fencing_token();
    let mut looks = 0;
    let start = Instant::now();
    while start.elapsed() < TTL * 5 {
        let left: i64 = server.run("PTTL QUEUE:long");
        assert!(left > LOW && left <= 600, "{left} ms left");
        assert_eq!(server.run::<u64>("HGET QUEUE:long token"), token);
        guard.ensure_held()?;
        looks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(looks)
}

#[test]
fn an_async_body_keeps_its_lock_over_five_ttls() {
    stall::retried_async(STALL, async || {
        let server = RedisServer::start();
        let locker = AppLocker::connect(server.url()).await.unwrap();
        assert!(long_job(&locker, &server).await.unwrap() > 20);
        assert_eq!(server.run::<i64>("EXISTS QUEUE:long"), 0);
    });
}

#[singleton(app = "long-sync", ttl = "600ms", locker = locker)]
fn long_sync_job(locker: &AppLocker, server: &RedisServer) -> Result<u32, Error> {
    Ok(watch_for_five_ttls(server, "QUEUE:long-sync", || {
        std::thread::sleep(Duration::from_millis(5));
    }))
}

#[test]
fn a_sync_body_keeps_its_lock_over_five_ttls() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        assert!(long_sync_job(&locker, &server).unwrap() > 20);
        assert_eq!(server.run::<i64>("EXISTS QUEUE:long-sync"), 0);
    });
}

#[test]
fn a_guard_keeps_its_lock_over_five_ttls() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let guard = locker.lock("guard").ttl(TTL).acquire_blocking().unwrap();
        watch_for_five_ttls(&server, "QUEUE:guard", || {
            std::thread::sleep(Duration::from_millis(5));
        });
        guard.ensure_held().unwrap();
        assert!(guard.held_for() >= TTL * 5);
        guard.release_blocking().unwrap();
    });
}

fn calls(server: &RedisServer, command: &str) -> u32 {
    let info: String = server.run("INFO commandstats");
    info.lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")))
        .map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

// F24
#[test]
fn a_short_ttl_costs_about_three_renewals_a_ttl_and_no_storm() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let lock = locker.lock("short").ttl(Duration::from_millis(300));
        let guard = lock.acquire_blocking().unwrap();
        let start = Instant::now();
        let before = calls(&server, "evalsha");
        std::thread::sleep(Duration::from_secs(3));
        let renewals = f64::from(calls(&server, "evalsha") - before);
        let ttls = start.elapsed().as_secs_f64() / 0.3;
        assert!(guard.is_held());
        let each = renewals / ttls;
        assert!(
            (2.0..=5.0).contains(&each),
            "{renewals} renewals in {ttls:.1} ttls"
        );
        // Scripts are sent whole only until the server knows them.
        assert!(calls(&server, "eval") <= 3);
    });
}

/// Somebody who tries to take the lock all the time, and must never get it.
#[derive(Default)]
struct Rival {
    called_off: AtomicBool,
    gone: AtomicBool,
    tries: AtomicU32,
}

impl Rival {
    /// From when the lock is taken until it is called off.
    fn run(&self, server: &RedisServer, app: &str) {
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        support::wait::until("the lock is taken", Duration::from_secs(10), || {
            server.run(&format!("EXISTS QUEUE:{app}"))
        });
        let mut taken = 0;
        while !self.called_off.load(Ordering::SeqCst) {
            if other.lock(app).try_acquire_blocking().unwrap().is_some() {
                taken += 1;
            }
            self.tries.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(3));
        }
        self.gone.store(true, Ordering::SeqCst);
        assert_eq!(taken, 0, "the lock was taken from under its holder");
    }

    /// Called by the holder, before it lets go.
    fn call_off(&self) {
        self.called_off.store(true, Ordering::SeqCst);
        support::wait::until("the rival is gone", Duration::from_secs(10), || {
            self.gone.load(Ordering::SeqCst)
        });
        assert!(self.tries.load(Ordering::SeqCst) > 20);
    }
}

/// Three ttls of 400 ms.
const THREE_TTLS: Duration = Duration::from_millis(3 * 400);

#[singleton(app = "sleepy", ttl = "400ms", locker = locker, guard = guard)]
async fn sleeps_on_its_executor(locker: &AppLocker, rival: &Rival) -> Result<(), Error> {
    // Never awaits: the only thread of the runtime is blocked.
    std::thread::sleep(THREE_TTLS);
    guard.ensure_held()?;
    rival.call_off();
    guard.ensure_held()
}

// F8
#[test]
fn an_executor_blocked_for_three_ttls_keeps_the_lock() {
    stall::retried(STALL, || {
        let server = RedisServer::start();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let rival = Rival::default();
        std::thread::scope(|scope| {
            scope.spawn(|| rival.run(&server, "sleepy"));
            runtime.block_on(async {
                let locker = AppLocker::connect(server.url()).await.unwrap();
                let outcome = sleeps_on_its_executor(&locker, &rival).await;
                rival.called_off.store(true, Ordering::SeqCst);
                outcome.unwrap();
            });
        });
    });
}

#[singleton(app = "busy", ttl = "400ms", locker = locker, guard = guard)]
async fn computes(locker: &AppLocker, rival: &Rival) -> Result<u64, Error> {
    let start = Instant::now();
    let mut sum = 0_u64;
    while start.elapsed() < THREE_TTLS {
        sum = sum.wrapping_mul(31).wrapping_add(1);
    }
    guard.ensure_held()?;
    rival.call_off();
    guard.ensure_held()?;
    Ok(sum)
}

#[test]
fn a_body_that_computes_for_three_ttls_keeps_the_lock() {
    stall::retried_async(STALL, async || {
        let server = RedisServer::start();
        let locker = AppLocker::connect(server.url()).await.unwrap();
        let rival = Rival::default();
        let (server, rival) = (&server, &rival);
        std::thread::scope(|scope| {
            scope.spawn(|| rival.run(server, "busy"));
            let outcome = pollster::block_on(computes(&locker, rival));
            rival.called_off.store(true, Ordering::SeqCst);
            outcome.unwrap();
        });
    });
}

// F3
#[test]
fn a_failed_heartbeat_is_not_a_loss() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("hiccup").ttl(Duration::from_secs(3));
    let guard = lock.acquire_blocking().unwrap();
    let token: u64 = server.run("HGET QUEUE:hiccup token");
    server.freeze();
    log::until(&["QUEUE:hiccup", "a heartbeat failed"]);
    assert!(guard.is_held());
    server.thaw();
    log::until(&["QUEUE:hiccup", "the lock was kept"]);
    assert!(guard.is_held());
    assert!(guard.verify_blocking().unwrap());
    assert!(guard.remaining() > Duration::from_secs(1));
    assert_eq!(server.run::<u64>("HGET QUEUE:hiccup token"), token);
    guard.release_blocking().unwrap();
}

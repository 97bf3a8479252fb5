//! Promise: the heart beats on while a body blocks the only thread of its executor, or
//! computes without a pause, for longer than the ttl (F8).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::support::lease::{LIMIT, outlives_its_ttl};
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::{AppLocker, Error, singleton};

/// A rival that tries to take the lock all the time, and must never get it.
struct Rival {
    called_off: AtomicBool,
    tries: AtomicU32,
}

impl Rival {
    /// Beside `body`, from when the lock is taken until it is called off.
    fn beside<T>(server: &RedisServer, app: &str, body: impl FnOnce(&Self) -> T) -> T {
        let rival = Self {
            called_off: AtomicBool::new(false),
            tries: AtomicU32::new(0),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| rival.run(server, app));
            let outcome = body(&rival);
            rival.call_off();
            outcome
        })
    }

    fn run(&self, server: &RedisServer, app: &str) {
        let other = AppLocker::connect_blocking(server.url()).unwrap();
        wait::until("the lock is taken", LIMIT, || {
            self.is_off() || server.run(&format!("EXISTS QUEUE:{app}"))
        });
        while !self.is_off() {
            let taken = other.lock(app).try_acquire_blocking();
            // Called off meanwhile, it may have found the lock released.
            let robbed = matches!(taken, Ok(Some(_))) && !self.is_off();
            assert!(!robbed, "taken from under its holder");
            self.tries.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn is_off(&self) -> bool {
        self.called_off.load(Ordering::SeqCst)
    }

    /// The holder says so before it releases.
    fn call_off(&self) {
        self.called_off.store(true, Ordering::SeqCst);
    }
}

#[singleton(app = "sleepy", ttl = "4s", locker = locker, guard = guard)]
async fn blocks_its_executor(
    locker: &AppLocker,
    server: &RedisServer,
    rival: &Rival,
) -> Result<(), Error> {
    // Never awaits: the only thread of the runtime is blocked.
    outlives_its_ttl(server, "QUEUE:sleepy");
    guard.ensure_held()?;
    assert!(rival.tries.load(Ordering::SeqCst) > 20);
    rival.call_off();
    guard.ensure_held()
}

#[test]
fn an_executor_blocked_for_longer_than_the_ttl_keeps_the_lock() {
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    Rival::beside(&server, "sleepy", |rival| {
        runtime.block_on(async {
            let locker = AppLocker::connect(server.url()).await.unwrap();
            blocks_its_executor(&locker, &server, rival).await.unwrap();
        });
    });
}

#[singleton(app = "busy", ttl = "4s", locker = locker, guard = guard)]
async fn computes(locker: &AppLocker, over: &AtomicBool) -> Result<u64, Error> {
    let mut sum = 0_u64;
    while !over.load(Ordering::Relaxed) {
        sum = sum.wrapping_mul(31).wrapping_add(1);
    }
    guard.ensure_held()?;
    Ok(sum)
}

#[test]
fn a_body_that_computes_for_longer_than_the_ttl_keeps_the_lock() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let computing = scope.spawn(|| pollster::block_on(computes(&locker, &over)));
        wait::until("the lock is taken", LIMIT, || {
            server.run("EXISTS QUEUE:busy")
        });
        outlives_its_ttl(&server, "QUEUE:busy");
        over.store(true, Ordering::Relaxed);
        computing.join().unwrap().unwrap();
    });
}

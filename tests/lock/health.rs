//! Promise: `ping` says whether locks can be taken, and `health` how the locker is, with no I/O.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use applock::clock::{Clock, ManualClock, Moment, Sleep, SystemClock};
use applock::{AppLocker, Error, MemoryStore};

use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::wait;

#[tokio::test]
async fn a_ping_takes_a_lock_of_its_own_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let server = RedisServer::start();
    let dir = format!("dir:{}", home.path().display());
    for url in [server.url(), dir, "memory:ping".to_owned()] {
        let locker = AppLocker::builder()
            .store(url)
            .instance("w")
            .build()
            .unwrap();
        let _held = locker.lock("reports").acquire().await.unwrap();
        for _ in 0..3 {
            locker.ping().await.unwrap();
        }
        let left = locker.locks("*").await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    wait::until("what the ping left is forgotten", LIMIT, || {
        server
            .run::<Vec<String>>("KEYS *")
            .iter()
            .all(|key| !key.contains("applock-ping"))
    });
}

#[tokio::test]
async fn a_ping_fails_where_no_lock_could_be_taken() {
    let mut server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let () = server.run("ACL SETUSER default -set");
    let denied = locker.ping().await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    let () = server.run("ACL SETUSER default +set");
    let () = server.run("CONFIG SET maxmemory 1");
    let full = locker.ping().await;
    assert!(matches!(full, Err(Error::Unavailable(_))), "{full:?}");
    let () = server.run("CONFIG SET maxmemory 0");
    locker.ping().await.unwrap();
    server.freeze();
    let begun = Instant::now();
    let frozen = locker.ping().await;
    assert!(matches!(frozen, Err(Error::Unavailable(_))), "{frozen:?}");
    assert!(begun.elapsed() < LIMIT);
    server.thaw();
    server.kill();
    assert!(locker.ping().await.is_err());
    let locker = AppLocker::in_memory();
    locker.drain(Duration::from_secs(1)).await.unwrap();
    let closed = locker.ping().await;
    assert!(matches!(closed, Err(Error::Closed { .. })), "{closed:?}");
}

#[tokio::test]
async fn health_tells_of_the_store_without_asking_it() {
    let mut server = RedisServer::start();
    let locker = AppLocker::builder().store(server.url()).build().unwrap();
    let health = locker.health();
    assert!(health.is_alive && health.is_ready());
    assert_eq!((health.store_is_up, health.last_answer_age), (None, None));
    let ttl = Duration::from_secs(60);
    let guard = locker.lock("a").ttl(ttl).acquire().await.unwrap();
    let patient = locker.lock("a").wait_forever();
    let waiting = tokio::spawn(async move { patient.acquire().await });
    tokio::task::yield_now().await;
    let commands = server.info("total_commands_processed");
    wait::until("it waits", LIMIT, || locker.health().waiting == 1);
    let health = locker.health();
    assert_eq!((health.held, health.store_is_up), (1, Some(true)));
    assert!(health.smallest_margin.unwrap() <= ttl);
    assert!(health.last_answer_age.unwrap() <= LIMIT);
    // Those of the waiter that polls, and of INFO itself.
    assert!(server.info("total_commands_processed") < commands + 20);
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    wait::until("nobody waits", LIMIT, || locker.health().waiting == 0);
    wait::until("its place is free", LIMIT, || {
        server.run::<u32>("EXISTS {QUEUE:a}:queue") == 0
    });
    let commands = server.info("total_commands_processed");
    for _ in 0..200 {
        assert!(locker.health().is_ready());
    }
    // A heartbeat is due in twenty seconds.
    assert!(server.info("total_commands_processed") < commands + 100);
    server.kill();
    assert!(locker.lock("b").acquire().await.is_err());
    let health = locker.health();
    assert_eq!((health.is_alive, health.store_is_up), (true, Some(false)));
    assert!(!health.is_ready() && health.held == 1);
    drop(guard);
    let _ = locker.drain(Duration::ZERO).await;
    assert!(locker.health().is_closed);
}

#[tokio::test]
async fn the_smallest_margin_shrinks_as_time_passes_and_is_none_when_nothing_is_held() {
    let clock = ManualClock::new();
    let store = MemoryStore::with_clock(clock.clone());
    let locker = AppLocker::builder()
        .store(store)
        .clock(clock.clone())
        .build()
        .unwrap();
    let long = locker
        .lock("long")
        .ttl(Duration::from_secs(600))
        .acquire()
        .await
        .unwrap();
    let short = locker
        .lock("short")
        .ttl(Duration::from_secs(60))
        .acquire()
        .await
        .unwrap();
    let before = locker.health().smallest_margin.unwrap();
    assert_eq!(before, short.remaining());
    clock.advance(Duration::from_secs(5));
    assert_eq!(
        locker.health().smallest_margin.unwrap(),
        before - Duration::from_secs(5)
    );
    short.release().await.unwrap();
    assert_eq!(locker.health().smallest_margin.unwrap(), long.remaining());
    long.release().await.unwrap();
    let health = locker.health();
    assert_eq!((health.held, health.smallest_margin), (0, None));
}

/// A clock that can hold the engine's thread up.
#[derive(Debug, Default)]
struct Stuck {
    is_meant: AtomicBool,
    go_on: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, Clone)]
struct StuckClock(Arc<Stuck>);

impl Clock for StuckClock {
    fn now(&self) -> Moment {
        let is_engine = std::thread::current().name() == Some("applock");
        if is_engine && self.0.is_meant.load(Ordering::SeqCst) {
            let go_on = self.0.go_on.lock().unwrap();
            drop(self.0.changed.wait_while(go_on, |go_on| !*go_on).unwrap());
        }
        SystemClock.now()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        SystemClock.sleep_until(at)
    }

    fn wall(&self) -> SystemTime {
        SystemClock.wall()
    }
}

#[tokio::test]
async fn a_thread_that_stands_still_is_told_and_never_waited_for() {
    let stuck = Arc::new(Stuck::default());
    let builder = AppLocker::builder().store("memory:health");
    let locker = builder
        .clock(StuckClock(Arc::clone(&stuck)))
        .build()
        .unwrap();
    let _held = locker.lock("a").acquire().await.unwrap();
    stuck.is_meant.store(true, Ordering::SeqCst);
    wait::until("it stands still", LIMIT, || !locker.health().is_alive);
    assert!(!locker.health().is_ready());
    *stuck.go_on.lock().unwrap() = true;
    stuck.changed.notify_all();
    wait::until("it goes on", LIMIT, || locker.health().is_alive);
    assert_eq!(locker.health().held, 1);
}

//! Promise: with the feature `metrics` a dashboard sees how calls for locks end, how long locks are
//! held, and trouble before it costs one; at zero from the start, and never a name or a key.
//!
//! A program of its own, and one test: the recorder is the process's.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use applock::{AppLocker, Error, singleton};
use metrics_exporter_prometheus::PrometheusBuilder;
use support::lease::LIMIT;
use support::ports::ReservedPort;
use support::redis::RedisServer;
use support::wait;

const METRICS: [(&str, &str); 9] = [
    ("applock_acquire_total", "counter"),
    ("applock_wait_seconds", "summary"),
    ("applock_held_seconds", "summary"),
    ("applock_held", "gauge"),
    ("applock_lost_total", "counter"),
    ("applock_heartbeat_failures_total", "counter"),
    ("applock_store_up", "gauge"),
    ("applock_lease_margin_seconds", "gauge"),
    ("applock_last_run_timestamp_seconds", "gauge"),
];

/// What an exporter serves: each line's name with its labels, and its value.
struct Scrape {
    text: String,
    values: BTreeMap<String, f64>,
}

fn scrape(port: u16) -> Scrape {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("applock_"));
    let values = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    Scrape {
        values: values.collect(),
        text,
    }
}

impl Scrape {
    #[track_caller]
    fn value(&self, name: &str) -> f64 {
        let value = self.values.get(name);
        *value.unwrap_or_else(|| panic!("{name} is not told:\n{}", self.text))
    }

    #[track_caller]
    fn acquires(&self, app: &str, outcome: &str) -> f64 {
        self.value(&format!(
            "applock_acquire_total{{app=\"{app}\",outcome=\"{outcome}\"}}"
        ))
    }

    #[track_caller]
    fn losses(&self, app: &str, reason: &str) -> f64 {
        self.value(&format!(
            "applock_lost_total{{app=\"{app}\",reason=\"{reason}\"}}"
        ))
    }

    #[track_caller]
    fn last_run(&self, app: &str, outcome: &str) -> f64 {
        self.value(&format!(
            "applock_last_run_timestamp_seconds{{app=\"{app}\",outcome=\"{outcome}\"}}"
        ))
    }
}

fn until(port: u16, what: &str, is_met: impl Fn(&Scrape) -> bool) -> Scrape {
    wait::until(what, LIMIT, || is_met(&scrape(port)));
    scrape(port)
}

#[singleton(app = "runs", name = "tenant-7", locker = locker)]
async fn run(locker: &AppLocker, how: &str) -> Result<(), Error> {
    match how {
        "ok" => Ok(()),
        "error" => applock::current()
            .unwrap()
            .ensure_held()
            .and(Err(refused(locker).await)),
        "panicked" => panic!("as it is meant to"),
        _ => std::future::pending().await,
    }
}

async fn refused(locker: &AppLocker) -> Error {
    let lock = locker.lock("runs").name("tenant-7");
    lock.acquire().await.unwrap_err()
}

/// Its parts end well, and it fails.
#[singleton(app = "parts", locker = locker)]
async fn fails_in_the_end(locker: &AppLocker) {
    let part = locker.lock("parts").reentrant();
    part.run(async {}).await.unwrap();
    applock::current().unwrap().mark_failed();
}

#[singleton(app = "load", name = "{at}", ttl = "2s", locker = locker)]
async fn under_load(locker: &AppLocker, at: u32) -> Result<(), Error> {
    tokio::task::yield_now().await;
    match at % 4 {
        0 => panic!("as it is meant to"),
        1 => std::future::pending().await,
        2 => {
            let lock = locker.lock("load").name(at.to_string());
            // On a busy machine there may be no answer in time.
            while lock.force_release().await.is_err() {}
            std::future::pending().await
        }
        _ => Ok(()),
    }
}

/// Runs that end, panic, are cancelled and are lost, many at a time: all are counted, and in the end
/// none is held.
async fn a_load_of_runs(locker: &AppLocker, port: u16) {
    const RUNS: u32 = 200;
    let runs = (0..RUNS).map(|at| {
        let locker = locker.clone();
        tokio::spawn(async move {
            let limit = match at % 4 {
                1 => Duration::from_millis(100),
                _ => LIMIT,
            };
            loop {
                let ended = tokio::time::timeout(limit, under_load(&locker, at)).await;
                // On a busy machine the store may have no answer in time: it is not begun, and not counted.
                if !matches!(ended, Ok(Err(Error::Unavailable(_)))) {
                    return ended;
                }
            }
        })
    });
    for (at, run) in Vec::from_iter(runs).into_iter().enumerate() {
        match (at % 4, run.await) {
            (0, ended) => assert!(ended.unwrap_err().is_panic()),
            (1, ended) => assert!(ended.unwrap().is_err()),
            (2, ended) => assert!(matches!(ended.unwrap().unwrap(), Err(Error::Lost { .. }))),
            (_, ended) => ended.unwrap().unwrap().unwrap(),
        }
    }
    let now = until(port, "the load is given back", |now| {
        now.value("applock_held") == 0.0
    });
    let outcomes = ["acquired", "cancelled"];
    let calls: f64 = outcomes
        .map(|outcome| now.acquires("load", outcome))
        .iter()
        .sum();
    assert_eq!(calls, f64::from(RUNS));
    assert_eq!(now.losses("load", "taken"), f64::from(RUNS / 4));
    let series = now.values.keys().filter(|name| name.contains("load"));
    assert_eq!(series.count(), 8 + 5 + 5, "{}", now.text);
}

async fn each_outcome_of_a_run(locker: &AppLocker) {
    run(locker, "ok").await.unwrap();
    assert!(matches!(run(locker, "error").await, Err(Error::Busy(_))));
    let theirs = locker.clone();
    let panicked = tokio::spawn(async move { run(&theirs, "panicked").await }).await;
    assert!(panicked.unwrap_err().is_panic());
    let short = Duration::from_millis(200);
    let cancelled = tokio::time::timeout(short, run(locker, "hangs")).await;
    assert!(cancelled.is_err());
    let lock = locker.lock("runs").name("tenant-7");
    lock.until_free().await.unwrap();
    let evict = async {
        while !lock.force_release().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (lost, ()) = tokio::join!(run(locker, "hangs"), evict);
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exporter_serves_names_types_labels_and_values_of_each_outcome() {
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let listener = PrometheusBuilder::new().with_http_listener(([127, 0, 0, 1], port));
    listener.install().unwrap();
    let mut server = RedisServer::start();
    let locker = AppLocker::builder().store(server.url()).build().unwrap();

    // At the start.
    let begun = scrape_when_up(port);
    for name in [
        "held",
        "store_up",
        "lease_margin_seconds",
        "heartbeat_failures_total",
    ] {
        assert_eq!(begun.value(&format!("applock_{name}")), 0.0, "{name}");
    }

    // How calls end.
    let lock = locker
        .lock("calls")
        .name("tenant-7")
        .ttl(Duration::from_secs(60));
    let guard = lock.acquire().await.unwrap();
    let first = until(port, "it is held", |now| now.value("applock_held") == 1.0);
    assert_eq!(first.value("applock_store_up"), 1.0);
    assert!((40.0..60.0).contains(&first.value("applock_lease_margin_seconds")));
    assert_eq!(first.acquires("calls", "acquired"), 1.0);
    for outcome in [
        "busy",
        "unavailable",
        "denied",
        "misconfigured",
        "closed",
        "cancelled",
    ] {
        assert_eq!(first.acquires("calls", outcome), 0.0, "{outcome}");
    }
    for reason in ["expired", "taken", "at_most", "shutdown", "stopped"] {
        assert_eq!(first.losses("calls", reason), 0.0, "{reason}");
    }
    for outcome in ["ok", "error", "panicked", "cancelled", "lost"] {
        assert_eq!(first.last_run("calls", outcome), 0.0, "{outcome}");
    }
    assert!(lock.try_acquire().await.unwrap().is_none());
    let short = Duration::from_millis(50);
    let waiting = lock.clone().wait_forever();
    assert!(
        tokio::time::timeout(short, waiting.acquire())
            .await
            .is_err()
    );
    tokio::time::sleep(short).await;
    guard.release().await.unwrap();
    let guard = lock.acquire().await.unwrap();
    lock.force_release().await.unwrap();
    guard.lost().await;
    drop(guard);
    let () = server.run("ACL SETUSER default -set");
    assert!(matches!(lock.acquire().await, Err(Error::Denied(_))));
    let () = server.run("ACL SETUSER default +set");
    let whole = locker.lock("x").key("whole-key");
    whole.acquire().await.unwrap().release().await.unwrap();
    locker.ping().await.unwrap();
    each_outcome_of_a_run(&locker).await;
    let now = until(port, "all is given back", |now| {
        now.value("applock_held") == 0.0
    });
    assert_eq!(now.acquires("calls", "acquired"), 2.0);
    assert_eq!(now.acquires("calls", "busy"), 1.0);
    assert_eq!(now.acquires("calls", "cancelled"), 1.0);
    assert_eq!(now.acquires("calls", "denied"), 1.0);
    assert_eq!(now.acquires("(key)", "acquired"), 1.0);
    assert_eq!(
        (now.losses("calls", "taken"), now.losses("calls", "expired")),
        (1.0, 0.0)
    );
    assert_eq!(now.acquires("runs", "acquired"), 5.0);
    assert_eq!(now.losses("runs", "taken"), 1.0);
    assert_eq!(now.value("applock_lease_margin_seconds"), 0.0);
    // Of both, those that were granted; the ping is none.
    assert_eq!(now.value("applock_wait_seconds_count"), 8.0);
    assert_eq!(now.value("applock_held_seconds_count"), 8.0);
    assert!((0.05..60.0).contains(&now.value("applock_held_seconds_sum")));
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    for outcome in ["ok", "error", "panicked", "cancelled", "lost"] {
        let age = wall.as_secs_f64() - now.last_run("runs", outcome);
        assert!(
            (-1.0..LIMIT.as_secs_f64()).contains(&age),
            "{outcome}: {age}"
        );
    }
    assert!(now.last_run("runs", "ok") <= now.last_run("runs", "lost"));

    fails_in_the_end(&locker).await;
    let failed = scrape(port);
    assert!(failed.last_run("parts", "error") > 0.0);
    assert_eq!(failed.last_run("parts", "ok"), 0.0);
    a_load_of_runs(&locker, port).await;

    // Trouble, before it costs a lock, and when it has.
    let guard = lock
        .clone()
        .ttl(Duration::from_secs(3))
        .acquire()
        .await
        .unwrap();
    let (_, fine) = (server.kill(), scrape(port));
    let trouble = until(port, "heartbeats fail", |now| {
        now.value("applock_heartbeat_failures_total") > 0.0
    });
    assert_eq!(fine.value("applock_heartbeat_failures_total"), 0.0);
    assert_eq!(trouble.value("applock_store_up"), 0.0);
    guard.lost().await;
    assert!(matches!(lock.acquire().await, Err(Error::Unavailable(_))));
    drop(guard);
    let now = until(port, "it is lost", |now| {
        now.losses("calls", "expired") == 1.0
    });
    assert_eq!(now.acquires("calls", "unavailable"), 1.0);
    let _ = locker.drain(Duration::ZERO).await;
    assert!(matches!(lock.acquire().await, Err(Error::Closed { .. })));
    assert_eq!(scrape(port).acquires("calls", "closed"), 1.0);

    // Names, types, and descriptions; and the gauges are of all lockers together.
    let now = scrape(port);
    for (name, kind) in METRICS {
        assert!(
            now.text.contains(&format!("# TYPE {name} {kind}\n")),
            "{name}\n{}",
            now.text
        );
        assert!(now.text.contains(&format!("# HELP {name} ")), "{name}");
    }
    let is_known = |line: &str| METRICS.iter().any(|(name, _)| line.starts_with(name));
    assert!(now.values.keys().all(|line| is_known(line)), "{}", now.text);
    for text in ["tenant-7", "whole-key", "QUEUE", "applock-ping"] {
        assert!(!now.text.contains(text), "{text}\n{}", now.text);
    }
    drop((locker, lock, whole));
    let others = [AppLocker::in_memory(), AppLocker::in_memory()];
    let guards = others
        .each_ref()
        .map(|other| other.lock("a").acquire_blocking().unwrap());
    until(port, "both are counted", |now| {
        now.value("applock_held") == 2.0
    });
    drop(guards);
    until(port, "none is", |now| now.value("applock_held") == 0.0);
}

/// The exporter listens on a thread of its own.
fn scrape_when_up(port: u16) -> Scrape {
    wait::until("the exporter listens", LIMIT, || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    scrape(port)
}

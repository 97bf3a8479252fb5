//! Promise: a fleet moves over from the Python AppLocker one instance at a time, as
//! docs/MIGRATING.md says. The real package, in processes of its own, beside our lock: they exclude
//! each other, and each takes over from the other, in both directions.
//!
//! `scripts/python` installs the package, in each version that a Python of this machine can run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use applock::{AppLocker, Error, Lock};
use support::child::{self, ChildProcess};
use support::redis::RedisServer;
use support::wait;

/// The Python holder's: a heartbeat each second.
const PYTHON_TTL: Duration = Duration::from_secs(3);

/// However long it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Where `scripts/python` has installed each version: its name, and its directory.
fn versions() -> Vec<(String, PathBuf)> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(home).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.join("installed").is_file() {
            let name = path.file_name().unwrap().to_str().unwrap();
            found.push((name.to_owned(), path));
        }
    }
    // Never a skip: a promise that was not tested was not kept.
    assert!(
        found.iter().any(|(version, _)| version == "1.0.0a5"),
        "these tests need the Python AppLocker: run scripts/python (scripts/test does)"
    );
    found
}

/// A process with a Python AppLocker of the application `reports`.
struct Python {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Python {
    fn start(home: &Path, server: &RedisServer) -> Self {
        let mut process = Command::new(home.join("bin/python"))
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/python/holder.py"
            ))
            .args([
                server.port().to_string(),
                "reports".to_owned(),
                PYTHON_TTL.as_secs().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a Python");
        Self {
            to: process.stdin.take().unwrap(),
            from: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    fn tell(&mut self, expression: &str) {
        writeln!(self.to, "{expression}").expect("it listens");
    }

    #[track_caller]
    fn answer(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// What Python answers to an expression.
    #[track_caller]
    fn says(&mut self, expression: &str) -> serde_json::Value {
        self.tell(expression);
        self.answer()
    }
}

impl Drop for Python {
    /// SIGKILL: it has no time for anything.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Our side of the fleet, as docs/MIGRATING.md has it.
fn lock(server: &RedisServer) -> Lock {
    let locker = AppLocker::builder()
        .store(server.url())
        .key_prefix("LOCK:")
        .build()
        .unwrap();
    locker.lock("reports").ttl(Duration::from_secs(30))
}

/// The time that the lock of both has left.
fn left(server: &RedisServer) -> Duration {
    let millis: i64 = server.run("PTTL LOCK:reports");
    Duration::from_millis(millis.try_into().expect("the lock is taken, and expires"))
}

#[test]
fn a_python_holder_keeps_us_out_for_as_long_as_its_heart_beats_and_is_named() {
    for (version, home) in versions() {
        let server = RedisServer::start();
        let mut python = Python::start(&home, &server);
        assert_eq!(python.says("locker.acquire()"), true, "{version}");
        let instance = python.says("locker.instance_id");
        let instance = instance.as_str().unwrap();

        let lock = lock(&server);
        let error = lock.acquire_blocking().unwrap_err();
        let message = error.to_string();
        let Error::Busy(holder) = error else {
            panic!("{version}: {message}");
        };
        assert!(holder.is_foreign(), "{version}");
        assert_eq!(holder.instance_id(), instance, "{version}");
        assert_eq!(holder.pid(), Some(python.process.id()), "{version}");
        assert!(!holder.host().is_empty(), "{version}");
        assert!(message.contains(instance), "{version}: {message}");
        // By its own clock, which is ours here.
        let age = holder.acquired_at().unwrap().elapsed().unwrap();
        assert!(age < LIMIT, "{version}: {age:?}");
        let info = lock.info_blocking().unwrap().unwrap();
        assert_eq!(info.instance_id(), instance, "{version}");

        // For longer than its ttl.
        let begun = Instant::now();
        wait::until("two of its ttls are over", LIMIT, || {
            let taken = lock.try_acquire_blocking().unwrap();
            assert!(taken.is_none(), "{version}: after {:?}", begun.elapsed());
            begun.elapsed() > PYTHON_TTL * 2
        });
        // A waiter has it when Python gives it back, which tells no waiter.
        let waiting = lock.clone().wait(LIMIT);
        let guard = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| waiting.acquire_blocking());
            python.says("locker.release()");
            waiting.join().unwrap().unwrap()
        });
        assert!(guard.verify_blocking().unwrap(), "{version}");
    }
}

#[test]
fn our_lock_keeps_python_out_for_as_long_as_our_heart_beats() {
    for (version, home) in versions() {
        let server = RedisServer::start();
        let mut python = Python::start(&home, &server);
        let lock = lock(&server).ttl(PYTHON_TTL);
        let guard = lock.acquire_blocking().unwrap();
        wait::until("two ttls are over", LIMIT, || {
            assert_eq!(python.says("locker.acquire()"), false, "{version}");
            guard.held_for() > PYTHON_TTL * 2
        });
        // What docs/MIGRATING.md says that an old instance says of our lock.
        assert_eq!(
            python.says("locker.get_lock_info()"),
            serde_json::Value::Null
        );
        assert_eq!(python.says("locker.is_locked()"), false, "{version}");
        assert_eq!(python.says("locker.is_my_lock()"), false, "{version}");
        python.says("locker.release()");
        assert!(guard.verify_blocking().unwrap(), "{version}");
        guard.release_blocking().unwrap();
        assert_eq!(python.says("locker.acquire()"), true, "{version}");
        assert_eq!(python.says("locker.is_locked()"), true, "{version}");
    }
}

#[test]
fn a_python_holder_that_was_killed_is_replaced_by_us_when_its_ttl_is_over() {
    for (version, home) in versions() {
        let server = RedisServer::start();
        let mut python = Python::start(&home, &server);
        assert_eq!(python.says("locker.acquire()"), true, "{version}");
        drop(python);
        let guard = lock(&server).wait(LIMIT).acquire_blocking().unwrap();
        assert!(guard.verify_blocking().unwrap(), "{version}");
        assert!(guard.waited() < PYTHON_TTL * 3, "{version}");
        let () = server.run("DEL LOCK:reports LOCK:reports:INFO");
    }
}

/// A holder of ours, in a process of its own.
fn holds(url: &str) {
    let locker = AppLocker::builder().store(url).key_prefix("LOCK:").build();
    let lock = locker.unwrap().lock("reports").ttl(PYTHON_TTL);
    let _guard = lock.acquire_blocking().unwrap();
    child::say("held");
    child::until_dismissed();
}

#[test]
fn a_holder_of_ours_that_was_killed_is_replaced_by_python_when_its_ttl_is_over() {
    if let Some(url) = child::part() {
        return holds(&url);
    }
    for (version, home) in versions() {
        let server = RedisServer::start();
        let mut python = Python::start(&home, &server);
        let mut child = ChildProcess::start(
            child::name_of(
                a_holder_of_ours_that_was_killed_is_replaced_by_python_when_its_ttl_is_over,
            ),
            &server.url(),
        );
        assert_eq!(child.says(), "held");
        assert_eq!(python.says("locker.acquire()"), false, "{version}");
        child.kill();
        wait::until("Python has the lock", LIMIT, || {
            python.says("locker.acquire()") == true
        });
    }
}

/// By its `:INFO` alone a Python holder knows that it holds the lock: an evicted one whose `:INFO`
/// stayed would cut our lease to its own ttl with its next heartbeat, and delete our lock when it is
/// done.
#[test]
fn a_python_holder_that_was_ended_by_force_neither_cuts_nor_deletes_our_lock() {
    for (version, home) in versions() {
        let server = RedisServer::start();
        let mut python = Python::start(&home, &server);
        assert_eq!(python.says("locker.acquire()"), true, "{version}");
        let lock = lock(&server);
        assert!(lock.force_release_blocking().unwrap(), "{version}");
        let guard = lock.acquire_blocking().unwrap();
        assert_eq!(python.says("locker.is_my_lock()"), false, "{version}");
        wait::until("some of its heartbeats are over", LIMIT, || {
            let left = left(&server);
            assert!(left > PYTHON_TTL, "{version}: cut to {left:?}");
            guard.held_for() > PYTHON_TTL
        });
        python.says("locker.release()");
        assert!(guard.verify_blocking().unwrap(), "{version}");
        assert!(left(&server) > PYTHON_TTL, "{version}");
        guard.release_blocking().unwrap();
    }
}

/// Sections of a fleet of both, each of which adds one to a number without an atomic step.
#[test]
fn in_a_mixed_fleet_one_at_a_time_is_inside() {
    // A release takes Python a second: it waits for its heartbeat's thread.
    const PYTHONS: u32 = 4;
    const OURS: u32 = 60;
    for (version, home) in versions() {
        let server = RedisServer::start();
        let mut pythons = [(); 2].map(|()| Python::start(&home, &server));
        for python in &mut pythons {
            python.tell(&format!("sections({PYTHONS})"));
        }
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let lock = lock(&server).wait(LIMIT);
                    let mut redis = server.connect().unwrap();
                    let mut ask = |words: &str| -> u32 {
                        let mut command = redis::Cmd::new();
                        command.arg(words.split(' ').collect::<Vec<_>>());
                        let answer: Option<u32> = command.query(&mut redis).unwrap();
                        answer.unwrap_or(0)
                    };
                    for _ in 0..OURS {
                        let guard = lock.acquire_blocking().unwrap();
                        assert_eq!(ask("INCR inside"), 1, "{version}");
                        let total = ask("GET total");
                        ask(&format!("GETSET total {}", total + 1));
                        ask("DECR inside");
                        guard.release_blocking().unwrap();
                    }
                });
            }
        });
        for python in &mut pythons {
            assert_eq!(python.answer(), 0, "{version}");
        }
        assert_eq!(
            server.run::<u32>("GET total"),
            2 * (PYTHONS + OURS),
            "{version}"
        );
    }
}

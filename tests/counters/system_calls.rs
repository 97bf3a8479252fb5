//! System calls of all threads, counted by `strace` in a process of its own.
//!
//! Two runs that differ only in their number of cycles: what they start and end with is
//! the same and falls out of the difference.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use super::{alone, block_on, cycles, support, warm};

/// In the counted process: the server's URL and the number of cycles.
const COUNTED: &str = "APPLOCK_COUNTED";

const FEW: u32 = 200;
const MANY: u32 = 1_200;

/// For each of the two requests: the caller's thread wakes the engine's and is woken by
/// it (2 writes), and the engine's sends the request and reads the answer (2). And the caller's
/// asks which process it is in, for it may be one that was forked off (1).
const WORK: f64 = 10.0;

/// An owner id needs none.
const GETRANDOM: f64 = 0.0;

/// How often the two threads go to sleep depends on how fast the server answers: 6.8 to
/// 8.7 times were counted.
const SLEEPS: f64 = 11.0;

/// In which a thread sleeps until there is work.
const SLEEPING: [&str; 4] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "futex"];

/// Of a cycle. Two runs differ by a few calls at their start and end, too.
const ROUNDING: f64 = 0.05;

#[test]
fn a_cycle_makes_no_more_system_calls_than_it_did() {
    if let Ok(part) = std::env::var(COUNTED) {
        let (url, count) = part.split_once(' ').unwrap();
        return block_on(async {
            let lock = warm(url).await;
            cycles(&lock, count.parse().unwrap()).await;
        });
    }
    let _alone = alone();
    let server = support::redis::RedisServer::start();
    let few = counted(&server.url(), FEW);
    let many = counted(&server.url(), MANY);
    let a_cycle = |name: &str| {
        let of = |calls: &HashMap<String, u64>| calls.get(name).copied().unwrap_or(0) as f64;
        (of(&many) - of(&few)) / f64::from(MANY - FEW)
    };
    let (mut work, mut sleeps) = (0.0, 0.0);
    for name in many.keys() {
        if SLEEPING.contains(&name.as_str()) {
            sleeps += a_cycle(name);
        } else {
            work += a_cycle(name);
        }
    }
    let mut each: Vec<_> = many.keys().map(|name| (name, a_cycle(name))).collect();
    each.retain(|(_, calls)| *calls > ROUNDING);
    each.sort_by(|one, other| other.1.total_cmp(&one.1));
    assert!(work > 0.0, "nothing was counted");
    assert!(
        work <= WORK + ROUNDING && sleeps <= SLEEPS,
        "{work} system calls a cycle, and {sleeps} sleeps: {each:?}"
    );
    let random = a_cycle("getrandom");
    assert!(
        random <= GETRANDOM + ROUNDING,
        "{random} getrandom a cycle: {each:?}"
    );
}

/// Calls by name of a process that does so many cycles.
fn counted(url: &str, cycles: u32) -> HashMap<String, u64> {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary");
    let ended = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&summary)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1"])
        .arg("system_calls::a_cycle_makes_no_more_system_calls_than_it_did")
        .env(COUNTED, format!("{url} {cycles}"))
        .env_remove(applock::URL_VARIABLE)
        .stdout(Stdio::null())
        .status()
        .expect("this test needs strace: apt-get install strace | dnf install strace (scripts/test does so)");
    assert!(ended.success(), "strace: {ended}");
    let summary = std::fs::read_to_string(summary).unwrap();
    // % time, seconds, µs a call, calls, errors if any, name
    let read = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (calls, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        (name != "total").then(|| (name.to_owned(), calls))
    };
    summary.lines().filter_map(read).collect()
}

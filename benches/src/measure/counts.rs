//! What a cycle does in its own process that does not depend on the machine's speed: system
//! calls, as `strace` counts them, and allocations, as `valgrind` does.
//!
//! A driver is watched for a short time and for a longer one: what it starts and ends with is the
//! same, and falls out of the difference.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::race::rounds;
use super::{Bench, Found, OURS, Turns};
use crate::figures::short;
use crate::peers::Role;
use crate::process::Driver;
use crate::report::{Goal, Table};

const SHORT: f64 = 0.2;
const LONG: f64 = 1.0;

/// A watched process is slow.
const WATCHED: Duration = Duration::from_secs(60);

/// A thread sleeps in these until there is work: how often depends on how fast the server answers.
const SLEEPING: [&str; 4] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "futex"];

/// By cycle.
struct Turn {
    calls: Option<Calls>,
    allocations: Option<f64>,
}

/// System calls.
#[derive(Clone, Copy, Default)]
struct Calls {
    work: f64,
    sleeps: f64,
    random: f64,
}

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        Turns::ONE,
        |who| who.can_cycle() && who.is_crate() && who.role != Role::Peer,
        turn,
    );
    let mut table = Table::new(
        "System calls and allocations of a cycle",
        "Of all threads of the process. *Sleeps*: a thread waits for work (`epoll_wait`, `futex`); \
         how often depends on how fast the server answers, and it is slower beside a process that \
         is watched. A block of memory that grows is counted again.",
        &["", "system calls", "sleeps", "getrandom", "allocations"],
    );
    let mut found = Found::default();
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        if let Some(Turn { calls, allocations }) = outcome.turns.first() {
            let figures = [
                calls.map(|calls| calls.work),
                calls.map(|calls| calls.sleeps),
                calls.map(|calls| calls.random),
                *allocations,
            ];
            let shown = |figure: Option<f64>| figure.map(short).unwrap_or_default();
            table.row(who, figures.map(shown).to_vec());
            if let (Some(calls), Some(allocations), true) = (calls, allocations, who.name == OURS) {
                found.goals.push(Goal {
                    what: "system calls; allocations; getrandom a cycle",
                    goal: "≤ 15, sleeps not counted; ≤ 25; 0",
                    reached: format!(
                        "{}; {}; {}",
                        short(calls.work),
                        short(*allocations),
                        short(calls.random)
                    ),
                    met: calls.work <= 15.0 && *allocations < 25.5 && calls.random < 0.05,
                });
            }
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    found.tables.push(table);
    Ok(found)
}

fn turn(bench: &mut Bench, who: usize) -> Result<Turn> {
    let calls = |file: &Path| {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o"]).arg(file);
        strace
    };
    let allocations = |file: &Path| {
        let mut valgrind = Command::new("valgrind");
        valgrind.arg(format!("--log-file={}", file.display()));
        valgrind
    };
    Ok(Turn {
        calls: is_there("strace")
            .then(|| by_cycle(bench, who, calls, |text| Ok(read_calls(text))))
            .transpose()?
            .map(|[work, sleeps, random]| Calls {
                work,
                sleeps,
                random,
            }),
        allocations: is_there("valgrind")
            .then(|| by_cycle(bench, who, allocations, read_allocations))
            .transpose()?
            .map(|[allocations]| allocations),
    })
}

fn is_there(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").output();
    asked.is_ok_and(|answer| answer.status.success())
}

/// What two runs under a watcher differ by, by the cycles that they differ by. `read` reads what
/// the watcher has written at its end.
fn by_cycle<const N: usize>(
    bench: &mut Bench,
    who: usize,
    watcher: impl Fn(&Path) -> Command,
    read: impl Fn(&str) -> Result<[f64; N]>,
) -> Result<[f64; N]> {
    let mut watched = |seconds: f64| -> Result<(f64, [f64; N])> {
        bench.commands.clear()?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("counted");
        let mode = ["cycle".to_owned(), format!("--seconds={seconds}")];
        let contestant = &bench.contestants[who];
        let mut driver =
            Driver::start_under(watcher(&file), contestant, &bench.server.url(), &mode)?;
        driver.ready()?;
        driver.go()?;
        let report = driver.report(WATCHED)?;
        driver.ended()?;
        Ok((report.cycles as f64, read(&read_to_string(&file)?)?))
    };
    let (few, before) = watched(SHORT)?;
    let (many, after) = watched(LONG)?;
    ensure!(many > few, "no more cycles in {LONG} s than in {SHORT} s");
    let mut counted = after;
    for (one, before) in counted.iter_mut().zip(before) {
        *one = (*one - before) / (many - few);
    }
    Ok(counted)
}

/// Work, sleeps, and calls of `getrandom`, of strace's summary: % time, seconds, µs a call, calls,
/// errors if any, name.
fn read_calls(text: &str) -> [f64; 3] {
    let [mut work, mut sleeps, mut random] = [0.0; 3];
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let calls = words.get(3).and_then(|calls| calls.parse::<f64>().ok());
        match (words.last(), calls) {
            (Some(&"total"), _) | (None, _) | (_, None) => (),
            (Some(name), Some(calls)) if SLEEPING.contains(name) => sleeps += calls,
            (Some(name), Some(calls)) => {
                work += calls;
                random += if *name == "getrandom" { calls } else { 0.0 };
            }
        }
    }
    [work, sleeps, random]
}

/// Of valgrind's last lines: `total heap usage: 1,234 allocs, 1,200 frees, …`
fn read_allocations(text: &str) -> Result<[f64; 1]> {
    let counted = text.split_once("total heap usage: ").map(|(_, rest)| rest);
    let number = counted.and_then(|rest| rest.split(' ').next());
    let number = number.context("valgrind has counted nothing")?;
    Ok([number.replace(',', "").parse()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_watchers_write_is_read() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 50.00    0.000500           5       100           write
 30.00    0.000300           3       100         7 futex
 20.00    0.000200           2         4           getrandom
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           4       204         7 total
";
        assert_eq!(read_calls(summary), [104.0, 100.0, 4.0]);
        let ended = "==7==   total heap usage: 1,234 allocs, 1,200 frees, 5 bytes allocated";
        assert_eq!(read_allocations(ended).unwrap(), [1_234.0]);
        assert!(read_allocations("killed").is_err());
    }
}

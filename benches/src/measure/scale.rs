//! How the cost grows: with locks held, with waiters, and with names that were used.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::held::{self, TTL};
use super::race::{Contest, contend, cycles, rounds, start};
use super::{Bench, Found, OURS, Turns};
use crate::figures::{quantile, short};
use crate::peers::Role;
use crate::report::{Goal, Table};

/// At most so many processes wait.
const PROCESSES: u32 = 50;

/// Locks held at a time where their bytes are counted.
const COUNTED: u32 = 1_000;

/// In seconds.
const HOUR: f64 = 3_600.0;

/// How long acquiring them may take.
const ACQUIRED: Duration = Duration::from_secs(30);

/// See the list of measurements.
pub(crate) fn locks(bench: &mut Bench) -> Result<Found> {
    let who = ours(bench)?;
    let mut table = Table::new(
        "Locks held by one process",
        &format!(
            "applock alone, with a ttl of {} s, for {} s. The process's time and the server's \
             (of its main thread) are in percent of a core; a lock's bytes are what the process's \
             resident memory grew by while it acquired them.",
            TTL.as_secs(),
            bench.plan.held_for,
        ),
        &[
            "locks",
            "sent/s",
            "with those in scripts",
            "% of a core",
            "server, %",
            "bytes a lock",
        ],
    );
    for &locks in bench.plan.held_scale {
        eprintln!("  {locks} locks");
        let figures = match held::turn(bench, who, locks) {
            Ok(turn) => [turn.sent, turn.all, turn.percent, turn.server, turn.bytes]
                .map(short)
                .to_vec(),
            Err(error) => vec![format!("{error:#}")],
        };
        table.line(short(f64::from(locks)), figures);
    }
    Ok(of(table))
}

/// See the list of measurements.
pub(crate) fn waiters(bench: &mut Bench) -> Result<Found> {
    let who = ours(bench)?;
    let mut table = Table::new(
        "Waiters for one lock",
        &format!(
            "applock alone. All want one lock all the time, and release it as soon as they hold \
             it; each holds it one time or more. The gap is from a release to the next that holds. \
             Many processes are {PROCESSES} at most.",
        ),
        &[
            "waiters",
            "processes",
            "p50 gap µs",
            "p99 µs",
            "sent/section",
            "with those in scripts",
            "Jain",
        ],
    );
    for &waiters in bench.plan.waiters_scale {
        for processes in [1, waiters.min(PROCESSES)] {
            eprintln!("  {waiters} waiters in {processes} processes");
            let contest = Contest {
                processes,
                workers: waiters / processes,
                seconds: bench.plan.slice * 2.0,
                hold: Duration::ZERO,
                pause: Duration::ZERO,
            };
            let mut figures = vec![processes.to_string()];
            match contend(bench, who, contest) {
                Ok(mut found) => figures.extend([
                    short(found.gap()),
                    short(quantile(&mut found.gaps, 0.99)),
                    short(found.sent),
                    short(found.all),
                    format!("{:.3}", found.jain),
                ]),
                Err(error) => figures.push(format!("{error:#}")),
            }
            table.line(short(f64::from(waiters)), figures);
        }
    }
    Ok(of(table))
}

/// Bytes of one lock: held, and after its release.
struct Bytes {
    held: f64,
    left: u64,
    for_seconds: f64,
}

/// See the list of measurements.
pub(crate) fn bytes(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        Turns::ONE,
        |who| who.is_whole() && who.is_crate(),
        memory,
    );
    let mut table = Table::new(
        "Bytes in Redis",
        &format!(
            "All keys of a name, by the server's `MEMORY USAGE`: while its lock is held (of \
             {COUNTED} locks), and after its release; and for how long the last of them stays.",
        ),
        &["", "held", "left behind", "for s"],
    );
    let mut found = Found::default();
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        if let Some(turn) = outcome.turns.first() {
            table.row(
                who,
                vec![
                    short(turn.held),
                    turn.left.to_string(),
                    short(turn.for_seconds),
                ],
            );
            if who.name == OURS {
                found.goals.push(Goal {
                    what: "bytes in Redis of a lock held, with its fence",
                    goal: "≤ 450",
                    reached: short(turn.held),
                    met: turn.held <= 450.0,
                });
            }
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    let annotated = bench
        .contestants
        .iter()
        .position(|it| it.role == Role::Again);
    if let Some(who) = annotated {
        cycles(bench, who, &["once"])?;
        let (left, for_seconds) = bench.commands.memory()?;
        let after = if for_seconds > HOUR { left } else { 0 };
        found.goals.push(Goal {
            what: "bytes left an hour after the last use of a name made of arguments",
            goal: "0",
            reached: format!("{after} ({left} for {} s)", short(for_seconds)),
            met: after == 0,
        });
    }
    found.tables.push(table);
    Ok(found)
}

fn memory(bench: &mut Bench, who: usize) -> Result<Bytes> {
    cycles(bench, who, &["cycle"])?;
    let (left, for_seconds) = bench.commands.memory()?;
    let locks = format!("--locks={COUNTED}");
    let ttl = format!("--ttl-ms={}", TTL.as_millis());
    let mut drivers = start(bench, who, 1, &["hold", &locks, &ttl], 5.0)?;
    drivers[0].go()?;
    drivers[0].word("held", ACQUIRED)?;
    let (held, _) = bench.commands.memory()?;
    Ok(Bytes {
        held: held as f64 / f64::from(COUNTED),
        left,
        for_seconds,
    })
}

fn ours(bench: &Bench) -> Result<usize> {
    let mut all = bench.contestants.iter();
    let ours = all.position(|who| who.name == OURS);
    ours.context("applock is not among the contestants")
}

fn of(table: Table) -> Found {
    Found {
        tables: vec![table],
        ..Found::default()
    }
}

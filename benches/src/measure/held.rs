//! Ten thousand locks held by one process: what keeping them costs.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::race::{cycles, rounds, start};
use super::{BASELINE, Bench, Found, Turns};
use crate::figures::{short, smallest};
use crate::peers::Role;
use crate::report::{Goal, Table};

pub(super) const TTL: Duration = Duration::from_secs(10);

/// How long taking them may take.
const TAKEN: Duration = Duration::from_secs(30);

/// What one turn found.
pub(super) struct Turn {
    pub(super) sent: f64,
    pub(super) all: f64,
    pub(super) percent: f64,
    pub(super) bytes: f64,
    /// Run time of the server's main thread, in percent of a core.
    pub(super) server: f64,
}

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        Turns::ONE,
        |who| who.is_whole() && who.is_crate(),
        |bench, who| turn(bench, who, bench.plan.held),
    );
    let mut table = Table::new(
        "10,000 locks held",
        &format!(
            "One process holds {} locks with a ttl of {} s for {} s, and its library renews them. \
             The processor's time is of that process, in percent of a core, and in µs for each \
             time that a third of a lock's ttl went by; a lock's bytes are what its resident memory \
             grew by while it took them.",
            bench.plan.held,
            TTL.as_secs(),
            bench.plan.held_for,
        ),
        &[
            "",
            "sent/s",
            "with those in scripts",
            "% of a core",
            "µs a renewal",
            "bytes a lock",
        ],
    );
    let mut goals = Vec::new();
    let hand = cycle_by_hand(bench);
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        if let Some(turn) = outcome.turns.first() {
            let renewal = turn.percent * 1e4 / renewals_a_second(bench.plan.held);
            table.row(
                who,
                [turn.sent, turn.all, turn.percent, renewal, turn.bytes]
                    .map(short)
                    .to_vec(),
            );
            if who.role == Role::Ours {
                goals.extend(hand.map(|hand| Goal {
                    what: "processor time of a renewal, × by hand's of a cycle",
                    goal: "≤ 0.07",
                    reached: short(renewal / hand),
                    met: renewal / hand <= 0.07,
                }));
                goals.push(Goal {
                    what: "10,000 locks held, ttl 10 s",
                    goal: "≤ 40 commands/s; ≤ 0.5 % of a core; ≤ 700 bytes a lock",
                    reached: format!(
                        "{}; {} %; {}",
                        short(turn.sent),
                        short(turn.percent),
                        short(turn.bytes)
                    ),
                    met: turn.sent <= 40.0 && turn.percent <= 0.5 && turn.bytes <= 700.0,
                });
            }
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    Ok(Found {
        tables: vec![table],
        goals,
        ..Found::default()
    })
}

/// A lock is renewed each third of its ttl.
fn renewals_a_second(locks: u32) -> f64 {
    f64::from(locks) * 3.0 / TTL.as_secs_f64()
}

/// What a cycle by hand costs its own process, in µs of processor time: the smallest of a few
/// rounds.
fn cycle_by_hand(bench: &mut Bench) -> Option<f64> {
    let mut all = bench.contestants.iter();
    let who = all.position(|who| who.name == BASELINE)?;
    let rounds = (0..bench.plan.turns.ours).map(|_| cycles(bench, who, &["cycle"]));
    let reports = rounds.filter_map(Result::ok);
    smallest(reports.map(|(report, _)| 1e6 * report.cpu_seconds / report.cycles as f64))
}

/// One driver that holds so many.
pub(super) fn turn(bench: &mut Bench, who: usize, locks: u32) -> Result<Turn> {
    let seconds = bench.plan.held_for;
    let mode = [
        format!("--locks={locks}"),
        format!("--ttl-ms={}", TTL.as_millis()),
    ];
    let mode = ["hold", mode[0].as_str(), mode[1].as_str()];
    let mut drivers = start(bench, who, 1, &mode, seconds)?;
    let driver = &mut drivers[0];
    driver.go()?;
    driver.word("held", TAKEN)?;
    bench.commands.reset()?;
    let report = driver.report(Duration::from_secs_f64(seconds) + TAKEN)?;
    let counts = bench.commands.count(bench.contestants[who].sends)?;
    let keys = bench.commands.keys()?;
    ensure!(
        keys >= u64::from(locks),
        "of {locks} locks {keys} were left"
    );
    Ok(Turn {
        sent: counts.sent as f64 / report.seconds,
        all: counts.all as f64 / report.seconds,
        percent: 100.0 * report.cpu_seconds / report.seconds,
        server: counts.server as f64 / 1e7 / report.seconds,
        bytes: report.bytes as f64 / f64::from(locks),
    })
}

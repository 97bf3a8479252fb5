//! A thousand wait in ten processes, and one lets go: who is woken, and what that costs.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::race::{rounds, start};
use super::{Bench, Found};
use crate::commands::Counts;
use crate::figures::{Spread, short};
use crate::peers::{Contestant, Role};
use crate::process::left;
use crate::report::{Goal, Table};

const PROCESSES: u32 = 10;

/// The first holds so long: until then all others are in line, also on a busy machine.
const HOLD: Duration = Duration::from_millis(2_400);

/// What is counted begins so long before the release, and ends so long after it.
const AROUND: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let plan = bench.plan;
    bench.plan.rounds = 1;
    let waits = |who: &Contestant| {
        who.role != Role::Baseline && who.name != "applock, annotated" && !who.is_script()
    };
    let outcomes = rounds(bench, waits, turn);
    bench.plan = plan;
    let waiters = bench.plan.herd - 1;
    let mut table = Table::new(
        "A thousand waiters, one release",
        &format!(
            "{waiters} wait for one lock in {PROCESSES} processes. What the clients sent and what \
             was published in the second around the one release, of which one waiter gets the \
             lock."
        ),
        &[
            "",
            "messages published",
            "commands sent",
            "with those in scripts",
        ],
    );
    let mut goals = Vec::new();
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        if let Some(counts) = outcome.turns.first() {
            let show = |count: u64| {
                Spread::of([count as f64]).map_or(String::new(), |one| short(one.median))
            };
            table.row(
                who,
                vec![show(counts.published), show(counts.sent), show(counts.all)],
            );
            if who.role == Role::Ours {
                goals.push(Goal {
                    what: "1,000 waiters, one release",
                    goal: "one wake-up",
                    reached: format!(
                        "{} published, {} commands sent in a second",
                        counts.published, counts.sent
                    ),
                    met: counts.published == 1,
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

/// They are killed as soon as the counting is over.
fn turn(bench: &mut Bench, who: usize) -> Result<Counts> {
    let each = format!("--workers={}", bench.plan.herd / PROCESSES);
    let hold = format!("--hold-us={}", HOLD.as_micros());
    let mut drivers = start(bench, who, PROCESSES, &["workers", &each, &hold], 60.0)?;
    let released = Instant::now() + HOLD;
    for driver in &mut drivers {
        driver.go()?;
    }
    std::thread::sleep(left(released - AROUND));
    bench.commands.reset()?;
    std::thread::sleep(left(released + AROUND));
    bench.commands.count(bench.contestants[who].sends)
}

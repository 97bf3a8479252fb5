//! A thousand waiters in ten processes, and one release: how many are notified, and what that
//! costs.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::race::{more, rounds, start};
use super::{Bench, Found, Turns};
use crate::commands::Counts;
use crate::figures::{Spread, short};
use crate::peers::Role;
use crate::process::left;
use crate::report::{Goal, Table};

const PROCESSES: u32 = 10;

/// The holder holds so long: until then all waiters are queued, also on a busy machine.
const HOLD: Duration = Duration::from_millis(2_400);

/// By then the holder has the lock.
const FIRST: Duration = Duration::from_millis(200);

/// What is counted begins so long before the release, and ends so long after it.
const AROUND: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        Turns::ONE,
        |who| who.is_whole() && who.is_crate(),
        turn,
    );
    let mut table = Table::new(
        "A thousand waiters, one release",
        &format!(
            "{} wait for one lock in {PROCESSES} processes, and one more process holds it. What the clients sent and what \
             was published in the second around the one release, of which one waiter gets the \
             lock. Crates only.",
            bench.plan.herd,
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
                    goal: "one message",
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
    let hold = format!("--hold-us={}", HOLD.as_micros());
    let each = format!("--workers={}", bench.plan.herd / PROCESSES);
    let mut holder = start(bench, who, 1, &["workers", "--workers=1", &hold], 0.0)?;
    let mut waiters = more(bench, who, PROCESSES, &["workers", &each, &hold], 60.0)?;
    for driver in &mut holder {
        driver.go()?;
    }
    let released = Instant::now() + HOLD;
    std::thread::sleep(FIRST);
    for driver in &mut waiters {
        driver.go()?;
    }
    std::thread::sleep(left(released - AROUND));
    bench.commands.reset()?;
    std::thread::sleep(left(released + AROUND));
    bench.commands.count(bench.contestants[who].sends)
}

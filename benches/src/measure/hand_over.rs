//! From the release in one process to held in another, where one waits at a time.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::race::{Contest, Outcome, contend, rounds};
use super::{Bench, Found, LIMIT, by_name};
use crate::figures::{quantile, short, smallest};
use crate::peers::{Contestant, Role};
use crate::report::{Goal, Table};

/// The process that released stays away for longer than the other needs to acquire, and the
/// other holds for longer still: at each release exactly one process waits.
const PAUSE: Duration = Duration::from_millis(3);
const HOLD: Duration = Duration::from_millis(5);

/// The same for a library whose waiters poll, up to 300 ms apart.
const LONG_PAUSE: Duration = Duration::from_millis(320);
const LONG_HOLD: Duration = Duration::from_millis(340);

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(bench, bench.plan.hand_overs, Contestant::can_wait, turn);
    let mut table = Table::new(
        "Hand-over between two processes",
        "Two processes take turns on one lock. At each release exactly one waits: the process \
         that released stays away until the other has the lock. From before the release is asked \
         for in one process to held in the other. The 25th percentile is the smallest of the \
         rounds, and its ratio is to the limit's of the same rounds; the other two are of all \
         rounds. *Limit, by hand* is one script that hands over and publishes, and a waiter whose \
         thread blocks on its subscription; *other thread* is the same asked for from another \
         thread, in both processes.",
        &[
            "",
            "p25 µs",
            "× the limit",
            "p50 ms",
            "p99 ms",
            "hand-overs",
        ],
    );
    let mut goals = Vec::new();
    let limit = by_name(bench, &outcomes, LIMIT).and_then(quarter);
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        let mut times: Vec<f64> = outcome.turns.concat();
        if let Some(quarter) = quarter(outcome) {
            let p50 = quantile(&mut times, 0.5) / 1e3;
            let p99 = quantile(&mut times, 0.99) / 1e3;
            // A hundredth of a few is none of them.
            let rare = if times.len() < 100 { "max " } else { "" };
            let ratio = limit.map(|limit| quarter / limit);
            table.row(
                who,
                vec![
                    short(quarter),
                    ratio.map(short).unwrap_or_default(),
                    short(p50),
                    format!("{rare}{}", short(p99)),
                    times.len().to_string(),
                ],
            );
            if let (Role::Ours, Some(ratio)) = (who.role, ratio) {
                goals.push(Goal {
                    what: "hand-over between two processes, p25; p99",
                    goal: "≤ 1.35 × the limit; ≤ 1 ms",
                    reached: format!("{} ×; {} ms", short(ratio), short(p99)),
                    met: ratio <= 1.35 && p99 <= 1.0,
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

fn quarter(outcome: &Outcome<Vec<f64>>) -> Option<f64> {
    let turns = outcome.turns.iter();
    smallest(turns.map(|turn| quantile(&mut turn.clone(), 0.25)))
}

/// Its hand-overs, in µs.
fn turn(bench: &mut Bench, who: usize) -> Result<Vec<f64>> {
    let contest = contest(&bench.contestants[who], bench.plan.slice);
    let found = contend(bench, who, contest)?;
    ensure!(!found.hand_overs.is_empty(), "not one hand-over");
    Ok(found.hand_overs)
}

fn contest(who: &Contestant, slice: f64) -> Contest {
    let (pause, hold) = if who.polls {
        (LONG_PAUSE, LONG_HOLD)
    } else {
        (PAUSE, HOLD)
    };
    Contest {
        processes: 2,
        workers: 1,
        // Waiters that poll need more time for a few hand-overs.
        seconds: if who.polls { slice * 2.2 } else { slice },
        hold,
        pause,
    }
}

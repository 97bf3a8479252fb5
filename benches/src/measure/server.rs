//! What a cycle costs the server: run time of its main thread, which runs all commands.

use anyhow::{Result, ensure};

use super::race::{Outcome, cycles, rounds};
use super::replay::Recorded;
use super::{BASELINE, Bench, Found, OURS, by_name};
use crate::figures::{short, smallest};
use crate::peers::Contestant;
use crate::report::{Goal, Table};

/// A way to ask for cycles.
#[derive(Clone, Copy)]
enum Shape {
    Pipelined,
    OneAtATime,
    Callers,
}

/// All, with the goal for the ratio to the baseline.
const SHAPES: [(Shape, &str, &str, f64); 3] = [
    (
        Shape::Pipelined,
        "the server's time, pipelined",
        "≤ 4.0 × by hand",
        4.0,
    ),
    (
        Shape::OneAtATime,
        "the server's time, one at a time",
        "≤ 1.45 × by hand",
        1.45,
    ),
    (
        Shape::Callers,
        "the server's time, 64 callers",
        "≤ 2.3 × by hand",
        2.3,
    ),
];

/// Of one round: µs a cycle, by shape. None where a cycle can't be replayed.
struct Turn([Option<f64>; 3]);

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        bench.plan.turns,
        |who: &Contestant| who.can_cycle() && who.is_crate(),
        turn,
    );
    let mut table = Table::new(
        "What a cycle costs the server",
        "Run time of the server's main thread by cycle, in µs, as the kernel counts it \
         (`/proc/PID/task/PID/schedstat`); the smallest of the rounds, and its ratio to the \
         baseline's; less is cheaper. *Pipelined*: the commands of one recorded cycle, sent \
         again and again, 50 cycles at a time, so that reading and writing cost least. *One at \
         a time*: one caller. *64 callers*: one process, each caller on a lock of its own. A \
         cycle that does not repeat itself when it is sent again has no pipelined figure.",
        &[
            "",
            "pipelined",
            "× by hand",
            "one at a time",
            "× by hand",
            "64 callers",
            "× by hand",
        ],
    );
    let mut found = Found::default();
    let hand = by_name(bench, &outcomes, BASELINE);
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        let ratio = |at| Some(least(outcome, at)? / least(hand?, at)?);
        let shown = |figure: Option<f64>| figure.map(short).unwrap_or_default();
        if !outcome.turns.is_empty() {
            let figures = (0..SHAPES.len()).flat_map(|at| [least(outcome, at), ratio(at)]);
            table.row(who, figures.map(shown).collect());
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
        if who.name == OURS {
            for (at, (_, what, goal, most)) in SHAPES.into_iter().enumerate() {
                found.goals.extend(ratio(at).map(|ratio| Goal {
                    what,
                    goal,
                    reached: format!("{} ×", short(ratio)),
                    met: ratio <= most,
                }));
            }
        }
    }
    found.tables.push(table);
    Ok(found)
}

fn least(outcome: &Outcome<Turn>, at: usize) -> Option<f64> {
    smallest(outcome.turns.iter().filter_map(|turn| turn.0[at]))
}

fn turn(bench: &mut Bench, who: usize) -> Result<Turn> {
    let mut figures = [None; 3];
    for (figure, (shape, ..)) in figures.iter_mut().zip(SHAPES) {
        let mode: &[&str] = match shape {
            Shape::Pipelined => {
                let recorded = Recorded::of(bench, who)?;
                *figure = recorded.replay(bench, who).ok();
                continue;
            }
            Shape::OneAtATime => &["cycle"],
            Shape::Callers => &["many", "--locks=64"],
        };
        let (report, counts) = cycles(bench, who, mode)?;
        ensure!(counts.server > 0, "the kernel counts no run time");
        *figure = Some(counts.server as f64 / 1e3 / report.cycles as f64);
    }
    Ok(Turn(figures))
}

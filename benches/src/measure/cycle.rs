//! Acquire and release where nobody contends, beside the baseline.

use anyhow::Result;

use super::race::{Outcome, cycles, rounds};
use super::{BASELINE, Bench, Found, OURS, by_name};
use crate::commands::Counts;
use crate::driver::Report;
use crate::figures::{short, smallest};
use crate::peers::Contestant;
use crate::placement::{Pinned, Placement};
use crate::report::{Goal, Table};

const ANNOTATED: &str = "applock, annotated";

/// The peers that give a fencing token.
const WITH_TOKEN: &[&str] = &["nadis"];

/// Two runs of the same differ by so much on a busy machine.
const NOISE: f64 = 0.05;

type Turn = (Report, Counts);

/// One caller in one round: with the server on its core, and on a core of its own.
struct Placed {
    one: Turn,
    /// None where there is but one core.
    two: Option<Turn>,
}

/// One caller; an annotated function is among those measured.
pub(crate) fn one_caller(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        bench.plan.turns,
        Contestant::can_cycle,
        |bench, who| {
            let one = placed(bench, who, Placement::OneCore)?;
            let two = placed(bench, who, Placement::TwoCores).ok();
            Ok(Placed { one, two })
        },
    );
    let mut table = Table::new(
        "Acquire and release, one caller",
        "Cycles of one caller in one process, on a lock that nobody else wants. The latency is \
         the 25th percentile of single cycles, the smallest of the rounds; once with the server \
         and the process on the same core, and once on a core each. The ratio is the baseline's \
         latency to this one's in the same placement; more is faster. *By hand* is `SET NX PX` \
         and a script that compares and deletes, through the same redis crate on one connection, \
         without heartbeat, fencing token or information about the holder; *other thread* is the \
         same asked for from another thread, for the hop alone.",
        &[
            "",
            "one core, µs",
            "× by hand",
            "two cores, µs",
            "× by hand",
            "sent/cycle",
            "with those in scripts",
        ],
    );
    let hand = by_name(bench, &outcomes, BASELINE);
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        if let Some(turn) = outcome.turns.first() {
            let against = |of: fn(&Outcome<Placed>) -> Option<f64>| {
                let ratio = hand
                    .and_then(of)
                    .zip(of(outcome))
                    .map(|(hand, one)| hand / one);
                [shown(of(outcome)), shown(ratio)]
            };
            let mut figures = [against(one_core), against(two_cores)].concat();
            figures.push(short(a_cycle(&turn.one, turn.one.1.sent)));
            figures.push(short(a_cycle(&turn.one, turn.one.1.all)));
            table.row(who, figures);
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    let mut found = Found::default();
    let named = |name: &str| by_name(bench, &outcomes, name).and_then(one_core);
    if let (Some(ours), Some(hand)) = (named(OURS), named(BASELINE)) {
        let mut with_token = WITH_TOKEN.iter().filter_map(|name| named(name));
        found.goals.push(Goal {
            what: "acquire and release, one caller, one core, p25",
            goal: "≥ 0.48 × by hand, and faster than every peer with a token",
            reached: format!("{} ×", short(hand / ours)),
            met: hand / ours >= 0.48 && with_token.all(|peer| ours < peer),
        });
    }
    if let (Some(annotated), Some(ours)) = (named(ANNOTATED), named(OURS)) {
        found.goals.push(Goal {
            what: "an annotated function against a guard by hand",
            goal: "within noise",
            reached: format!("{} ×", short(ours / annotated)),
            met: ours / annotated >= 1.0 - NOISE,
        });
    }
    found.tables.push(table);
    Ok(found)
}

/// 64 callers, each on a key of its own.
pub(crate) fn many_keys(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        bench.plan.turns,
        |who| who.can_cycle() && who.is_crate(),
        |bench, who| cycles(bench, who, &["many", "--locks=64"]),
    );
    let mut table = Table::new(
        "Acquire and release, 64 callers on 64 keys",
        "All callers in one process, each on a lock of its own, left to the kernel's placement. \
         The time is that of the whole by the cycles of all callers, the smallest of the rounds. \
         The ratio is the baseline's time to this one's; more is faster.",
        &[
            "",
            "µs/cycle",
            "× by hand",
            "cycles/s",
            "sent/cycle",
            "with those in scripts",
        ],
    );
    let hand = by_name(bench, &outcomes, BASELINE).and_then(time);
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        if let (Some(turn), Some(time)) = (outcome.turns.first(), time(outcome)) {
            table.row(
                who,
                vec![
                    short(time),
                    shown(hand.map(|hand| hand / time)),
                    short(1e6 / time),
                    short(a_cycle(turn, turn.1.sent)),
                    short(a_cycle(turn, turn.1.all)),
                ],
            );
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    let mut found = Found::default();
    let ours = by_name(bench, &outcomes, OURS).and_then(time);
    if let Some((ours, hand)) = ours.zip(hand) {
        found.goals.push(Goal {
            what: "acquire and release, 64 callers on 64 keys",
            goal: "≥ 0.50 × by hand",
            reached: format!("{} ×", short(hand / ours)),
            met: hand / ours >= 0.5,
        });
    }
    found.tables.push(table);
    Ok(found)
}

fn placed(bench: &mut Bench, who: usize, placement: Placement) -> Result<Turn> {
    let _pinned = Pinned::to(placement, &bench.server)?;
    cycles(bench, who, &["cycle"])
}

fn one_core(outcome: &Outcome<Placed>) -> Option<f64> {
    smallest(outcome.turns.iter().map(|turn| turn.one.0.quarter))
}

fn two_cores(outcome: &Outcome<Placed>) -> Option<f64> {
    let turns = outcome.turns.iter().filter_map(|turn| turn.two.as_ref());
    smallest(turns.map(|turn| turn.0.quarter))
}

fn time(outcome: &Outcome<Turn>) -> Option<f64> {
    let time = |turn: &Turn| 1e6 * turn.0.seconds / turn.0.cycles as f64;
    smallest(outcome.turns.iter().map(time))
}

fn shown(figure: Option<f64>) -> String {
    figure.map(short).unwrap_or_default()
}

fn a_cycle(turn: &Turn, commands: u64) -> f64 {
    commands as f64 / turn.0.cycles as f64
}

//! Acquire and release where nobody contends, beside the baseline.

use anyhow::Result;

use super::race::{Outcome, cycles, rounds};
use super::{Bench, Found};
use crate::commands::Counts;
use crate::driver::Report;
use crate::figures::{Spread, short};
use crate::peers::Contestant;
use crate::report::{Goal, Table};

/// The name of what all are measured against.
const BASELINE: &str = "by hand";
const OURS: &str = "applock";
const ANNOTATED: &str = "applock, annotated";

/// Two rounds of the same differ by so much on a busy machine.
const NOISE: f64 = 0.05;

type Turn = (Report, Counts);

/// One caller; an annotated function is among those measured.
pub(crate) fn one_caller(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        bench.plan.turns,
        |_| true,
        |bench, who| cycles(bench, who, &["cycle"]),
    );
    let mut found = Found::default();
    found.tables.push(table(
        bench,
        &outcomes,
        "Acquire and release, one caller",
        "Cycles of one caller in one process, on a lock that nobody else wants. The ratio is to \
         the baseline in the same round; more is faster. *By hand* is `SET NX PX` and a script \
         that compares and deletes, through the same redis crate on one connection, without \
         heartbeat, fencing token or anything known of the holder; *other thread* is the same \
         asked for from another thread, for the hop alone.",
    ));
    let named = |name: &str| by_name(bench, &outcomes, name);
    if let (Some(ours), Some(hand)) = (named(OURS), named(BASELINE))
        && let (Some(ratio), Some(sent)) = (ratio(ours, hand), sent(ours))
    {
        found.goals.push(Goal {
            what: "acquire and release, one caller",
            goal: "≥ 0.85 × by hand; 2 commands",
            reached: format!("{ratio} ×; {}", short(sent.median)),
            met: ratio.median >= 0.85 && sent.median < 2.05,
        });
    }
    if let (Some(annotated), Some(ours)) = (named(ANNOTATED), named(OURS))
        && let Some(ratio) = ratio(annotated, ours)
    {
        found.goals.push(Goal {
            what: "an annotated function against a guard by hand",
            goal: "within noise",
            reached: format!("{ratio} ×"),
            met: ratio.median >= 1.0 - NOISE,
        });
    }
    Ok(found)
}

/// 64 callers, each on a key of its own.
pub(crate) fn many_keys(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(
        bench,
        bench.plan.turns,
        Contestant::is_crate,
        |bench, who| cycles(bench, who, &["many", "--locks=64"]),
    );
    let mut found = Found::default();
    found.tables.push(table(
        bench,
        &outcomes,
        "Acquire and release, 64 callers on 64 keys",
        "All callers in one process, each on a lock of its own. The ratio of what they do \
         together is to the baseline's in the same round.",
    ));
    let named = |name: &str| by_name(bench, &outcomes, name);
    if let (Some(ours), Some(hand)) = (named(OURS), named(BASELINE))
        && let Some(ratio) = ratio(ours, hand)
    {
        found.goals.push(Goal {
            what: "acquire and release, 64 callers on 64 keys",
            goal: "≥ 1.3 × by hand",
            reached: format!("{ratio} ×"),
            met: ratio.median >= 1.3,
        });
    }
    Ok(found)
}

fn table(bench: &Bench, outcomes: &[Outcome<Turn>], title: &str, about: &str) -> Table {
    let columns = &[
        "",
        "ratio",
        "cycles/s",
        "µs/cycle",
        "sent/cycle",
        "with those in scripts",
    ];
    let mut table = Table::new(title, about, columns);
    let hand = by_name(bench, outcomes, BASELINE);
    for outcome in outcomes {
        let who = &bench.contestants[outcome.who];
        if let Some(rate) = Spread::of(outcome.turns.iter().map(rate)) {
            let all = Spread::of(outcome.turns.iter().map(|turn| a_cycle(turn, turn.1.all)));
            let ratio = hand.and_then(|hand| ratio(outcome, hand));
            table.row(
                who,
                vec![
                    ratio.map(|ratio| ratio.to_string()).unwrap_or_default(),
                    short(rate.median),
                    short(1e6 / rate.median),
                    sent(outcome)
                        .map(|sent| short(sent.median))
                        .unwrap_or_default(),
                    all.map(|all| short(all.median)).unwrap_or_default(),
                ],
            );
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    table
}

fn by_name<'a>(
    bench: &Bench,
    outcomes: &'a [Outcome<Turn>],
    name: &str,
) -> Option<&'a Outcome<Turn>> {
    outcomes
        .iter()
        .find(|one| bench.contestants[one.who].name == name)
}

fn rate(turn: &Turn) -> f64 {
    turn.0.cycles as f64 / turn.0.seconds
}

fn a_cycle(turn: &Turn, commands: u64) -> f64 {
    commands as f64 / turn.0.cycles as f64
}

fn sent(outcome: &Outcome<Turn>) -> Option<Spread> {
    Spread::of(outcome.turns.iter().map(|turn| a_cycle(turn, turn.1.sent)))
}

/// Round by round.
fn ratio(one: &Outcome<Turn>, other: &Outcome<Turn>) -> Option<Spread> {
    let pairs = one.turns.iter().zip(&other.turns);
    Spread::of(pairs.map(|(one, other)| rate(one) / rate(other)))
}

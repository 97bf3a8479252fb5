//! Workers of one process, and of many, that want the same lock.

use std::time::Duration;

use anyhow::Result;

use super::race::{Contest, Contested, Outcome, contend, rounds};
use super::{Bench, Found, LIMIT, by_name};
use crate::figures::{Spread, quantile, short, smallest};
use crate::peers::Role;
use crate::plot::{Curve, Point};
use crate::report::{Goal, Table};

const HOLD: Duration = Duration::from_millis(1);

/// What there is to reach for so many.
struct Aim {
    what: &'static str,
    goal: &'static str,
    gap: f64,
    sent: f64,
    jain: f64,
}

const SIXTEEN: Aim = Aim {
    what: "16 workers in one process, 1 ms hold",
    goal: "p50 gap ≤ 100 µs; ≤ 2.0 commands; Jain ≥ 0.99",
    gap: 100.0,
    sent: 2.0,
    jain: 0.99,
};

const EIGHT_BY_TWO: Aim = Aim {
    what: "8 processes of 2 workers",
    goal: "p50 gap ≤ 200 µs; ≤ 2.1 commands; Jain ≥ 0.99",
    gap: 200.0,
    sent: 2.1,
    jain: 0.99,
};

const SATURATED: Aim = Aim {
    what: "128 workers in one process",
    goal: "≤ 2.1 commands; Jain ≥ 0.99; nobody starved",
    gap: f64::INFINITY,
    sent: 2.1,
    jain: 0.99,
};

const SIXTEEN_BY_EIGHT: Aim = Aim {
    what: "16 processes of 8 workers",
    ..SATURATED
};

/// From one worker to 128 in one process: two tables, and the plots.
pub(crate) fn one_process(bench: &mut Bench) -> Result<Found> {
    let mut found = Found::default();
    let mut curves: Vec<Curve> = Vec::new();
    for &workers in bench.plan.crowds {
        eprintln!("  {workers} workers");
        let outcomes = contest(bench, 1, workers);
        for outcome in &outcomes {
            let who = &bench.contestants[outcome.who];
            let at = curves.iter().position(|curve| curve.name == who.name);
            let at = at.unwrap_or_else(|| {
                curves.push(Curve {
                    name: who.name,
                    points: Vec::new(),
                });
                curves.len() - 1
            });
            let middle = |of: fn(&Contested) -> f64| {
                Spread::of(outcome.turns.iter().map(of)).map(|spread| spread.median)
            };
            if let (Some(gap), Some(sent), Some(jain)) = (
                middle(Contested::gap),
                middle(|turn| turn.sent),
                middle(|turn| turn.jain),
            ) {
                curves[at].points.push(Point {
                    workers,
                    gap,
                    sent,
                    jain,
                });
            }
        }
        match workers {
            16 => report(bench, &outcomes, &SIXTEEN, &mut found),
            128 => report(bench, &outcomes, &SATURATED, &mut found),
            _ => {}
        }
    }
    if let Some(table) = found.tables.last_mut() {
        crate::plot::files().for_each(|file| table.plot(file));
    }
    found.curves = curves;
    Ok(found)
}

/// 8 of 2, and 16 of 8.
pub(crate) fn processes(bench: &mut Bench) -> Result<Found> {
    let mut found = Found::default();
    for (processes, workers, aim) in [(8, 2, &EIGHT_BY_TWO), (16, 8, &SIXTEEN_BY_EIGHT)] {
        eprintln!("  {processes} processes of {workers} workers");
        let outcomes = contest(bench, processes, workers);
        report(bench, &outcomes, aim, &mut found);
    }
    Ok(found)
}

fn contest(bench: &mut Bench, processes: u32, workers: u32) -> Vec<Outcome<Contested>> {
    let plan = bench.plan;
    let many = processes * workers >= 64;
    let contest = Contest {
        processes,
        workers,
        seconds: if many { plan.slice * 2.5 } else { plan.slice },
        hold: HOLD,
        pause: Duration::ZERO,
    };
    rounds(
        bench,
        plan.crowd_turns,
        |who| who.can_wait() && (who.role != Role::Peer || !plan.ours_alone.contains(&workers)),
        |bench, who| contend(bench, who, contest),
    )
}

fn report(bench: &Bench, outcomes: &[Outcome<Contested>], aim: &Aim, found: &mut Found) {
    let mut table = Table::new(
        aim.what,
        "All want the same lock, all the time, and hold it for 1 ms (a timer of whole \
         milliseconds: up to 2). The gap is from a release \
         to the next that holds; commands are counted for each section that was held. Jain's \
         index is 1 where all had the same number of turns; the starved had none. The ratio is of \
         the smallest median gap of the rounds, to the limit's of the same rounds.",
        &[
            "",
            "p50 gap µs",
            "× the limit",
            "p99 µs",
            "sent/section",
            "with those in scripts",
            "Jain",
            "starved",
        ],
    );
    let limit = by_name(bench, outcomes, LIMIT).and_then(least);
    for outcome in outcomes {
        let who = &bench.contestants[outcome.who];
        let spread = |of: fn(&Contested) -> f64| Spread::of(outcome.turns.iter().map(of));
        let ratio = least(outcome).zip(limit).map(|(gap, limit)| gap / limit);
        let starved = outcome.turns.iter().map(|turn| turn.starved).max();
        let mut gaps: Vec<f64> = outcome
            .turns
            .iter()
            .flat_map(|turn| turn.gaps.clone())
            .collect();
        if let (Some(gap), Some(sent), Some(all), Some(jain), Some(starved)) = (
            spread(Contested::gap),
            spread(|turn| turn.sent),
            spread(|turn| turn.all),
            spread(|turn| turn.jain),
            starved,
        ) {
            table.row(
                who,
                vec![
                    gap.to_string(),
                    ratio.map(short).unwrap_or_default(),
                    short(quantile(&mut gaps, 0.99)),
                    sent.to_string(),
                    short(all.median),
                    jain_of(jain.median),
                    starved.to_string(),
                ],
            );
            if who.role == Role::Ours {
                found.goals.push(Goal {
                    what: aim.what,
                    goal: aim.goal,
                    reached: format!(
                        "{gap} µs; {}; {}; {starved} starved",
                        short(sent.median),
                        jain_of(jain.median),
                    ),
                    // A turn that was under way at the end has sent a part of its own.
                    met: gap.median <= aim.gap
                        && sent.median < aim.sent + 0.05
                        && jain.median >= aim.jain
                        && starved == 0,
                });
            }
        }
        if let Some(why) = &outcome.note {
            table.note(who, why);
        }
    }
    found.tables.push(table);
}

/// The smallest median gap of its rounds.
fn least(outcome: &Outcome<Contested>) -> Option<f64> {
    smallest(outcome.turns.iter().map(Contested::gap))
}

/// Near 1 the third digit counts.
fn jain_of(jain: f64) -> String {
    format!("{jain:.3}")
}

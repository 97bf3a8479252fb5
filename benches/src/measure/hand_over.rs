//! From the release in one process to held in another, where one waits at a time.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::race::{Contest, contend, rounds};
use super::{Bench, Found};
use crate::figures::{Spread, quantile, short};
use crate::peers::{Contestant, Role};
use crate::report::{Goal, Table};
use crate::round_trip;

/// Who has let go stays away for longer than the other needs to take it, and the other
/// holds for longer still: at each release exactly one waits.
const PAUSE: Duration = Duration::from_millis(3);
const HOLD: Duration = Duration::from_millis(5);

/// The same for those who ask again after up to 300 ms.
const LONG_PAUSE: Duration = Duration::from_millis(320);
const LONG_HOLD: Duration = Duration::from_millis(340);

/// Of a round trip, without a rest, and with one as between two hand-overs.
const PINGS: usize = 400;
const RESTED_PINGS: usize = 60;

/// What one turn found.
struct Turn {
    hand_overs: Vec<f64>,
    round_trip: f64,
    rested: f64,
}

/// See the module.
pub(crate) fn run(bench: &mut Bench) -> Result<Found> {
    let outcomes = rounds(bench, bench.plan.hand_overs, Contestant::is_whole, turn);
    let mut table = Table::new(
        "Hand-over between two processes",
        "Two processes take turns on one lock. At each release exactly one waits: who let go \
         stays away until the other has it. From before the release is asked for in one process \
         to held in the other, over all rounds; and the middle one in round trips of the \
         same round. A round trip is a PING through the redis crate on one connection, one after \
         the other. Between two hand-overs the processes rest, and so do the processor's cores: \
         a PING that is sent after as long a rest takes longer, and is shown beside it.",
        &[
            "",
            "p50 ms",
            "p99 ms",
            "round trips",
            "a round trip, µs",
            "after a rest, µs",
            "hand-overs",
        ],
    );
    let mut goals = Vec::new();
    for outcome in &outcomes {
        let who = &bench.contestants[outcome.who];
        let in_trips = |turn: &Turn| quantile(&mut turn.hand_overs.clone(), 0.5) / turn.round_trip;
        let mut times: Vec<f64> = outcome
            .turns
            .iter()
            .flat_map(|turn| turn.hand_overs.iter().copied())
            .collect();
        let spread = |of: &dyn Fn(&Turn) -> f64| Spread::of(outcome.turns.iter().map(of));
        if let (Some(trips), Some(rested), Some(trip)) = (
            spread(&in_trips),
            spread(&|turn| turn.rested),
            spread(&|turn| turn.round_trip),
        ) {
            let p50 = quantile(&mut times, 0.5) / 1e3;
            let p99 = quantile(&mut times, 0.99) / 1e3;
            // A hundredth of a few is none of them.
            let rare = if times.len() < 100 { "max " } else { "" };
            table.row(
                who,
                vec![
                    short(p50),
                    format!("{rare}{}", short(p99)),
                    trips.to_string(),
                    trip.to_string(),
                    rested.to_string(),
                    times.len().to_string(),
                ],
            );
            if who.role == Role::Ours {
                goals.push(Goal {
                    what: "hand-over between two processes, p50; p99",
                    goal: "≤ 4.5 round trips (0.35 ms where one takes 76 µs); ≤ 1 ms",
                    reached: format!("{trips}, {} ms; {} ms", short(p50), short(p99)),
                    met: trips.median <= 4.5 && p99 <= 1.0,
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

fn turn(bench: &mut Bench, who: usize) -> Result<Turn> {
    let round_trip = round_trip::measure(&bench.server.url(), PINGS, Duration::ZERO)?;
    let rested = round_trip::measure(&bench.server.url(), RESTED_PINGS, HOLD)?;
    let contest = contest(&bench.contestants[who], bench.plan.slice);
    let found = contend(bench, who, contest)?;
    ensure!(!found.hand_overs.is_empty(), "not one hand-over");
    Ok(Turn {
        hand_overs: found.hand_overs,
        round_trip,
        rested,
    })
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
        // Those who take their time need some for a few of them.
        seconds: if who.polls { slice * 2.2 } else { slice },
        hold,
        pause,
    }
}

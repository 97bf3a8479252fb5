//! Rounds in which each contestant is measured once, and one contended turn.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Bench, Turns};
use crate::commands::Counts;
use crate::driver::{Report, Section, monotonic};
use crate::figures::{jain, quantile};
use crate::peers::Contestant;
use crate::process::{Driver, left};

/// How long a driver may take beyond its time: workers that wait at its end still get the
/// lock.
const GRACE: Duration = Duration::from_secs(12);

/// What became of one contestant.
pub(crate) struct Outcome<T> {
    /// In [`Bench::contestants`].
    pub(crate) who: usize,
    /// Of each round that it took part in.
    pub(crate) turns: Vec<T>,
    /// Why it has none, or no more.
    pub(crate) note: Option<String>,
}

/// Measures each contestant that takes part once a round, forward and backward. A contestant
/// that fails is noted, and left out from then on.
pub(crate) fn rounds<T>(
    bench: &mut Bench,
    turns: Turns,
    takes_part: impl Fn(&Contestant) -> bool,
    mut turn: impl FnMut(&mut Bench, usize) -> Result<T>,
) -> Vec<Outcome<T>> {
    let mut outcomes: Vec<Outcome<T>> = (0..bench.contestants.len())
        .filter(|who| takes_part(&bench.contestants[*who]))
        .map(|who| Outcome {
            who,
            turns: Vec::new(),
            note: None,
        })
        .collect();
    for round in 0..turns.ours {
        for place in 0..outcomes.len() {
            let place = if round % 2 == 0 {
                place
            } else {
                outcomes.len() - 1 - place
            };
            let outcome = &mut outcomes[place];
            let most = turns.of(&bench.contestants[outcome.who]);
            if outcome.note.is_some() || round >= most {
                continue;
            }
            match turn(bench, outcome.who) {
                Ok(found) => outcome.turns.push(found),
                Err(error) => {
                    let name = bench.contestants[outcome.who].name;
                    eprintln!("  {name}: {error:#}");
                    outcome.note = Some(format!("{error:#}"));
                }
            }
        }
    }
    outcomes
}

/// One driver's turn of cycles, and what it sent.
pub(crate) fn cycles(bench: &mut Bench, who: usize, mode: &[&str]) -> Result<(Report, Counts)> {
    let seconds = bench.plan.cycles;
    let (mut reports, counts) = turn(bench, who, 1, mode, seconds)?;
    let report = reports.remove(0);
    ensure!(report.cycles > 0, "not one cycle in {seconds} s");
    Ok((report, counts))
}

/// How workers contend for one lock.
#[derive(Clone, Copy)]
pub(crate) struct Contest {
    /// So many drivers.
    pub(crate) processes: u32,
    /// In each of them.
    pub(crate) workers: u32,
    /// How long.
    pub(crate) seconds: f64,
    /// Between acquire and release.
    pub(crate) hold: Duration,
    /// Between release and acquire.
    pub(crate) pause: Duration,
}

/// How it went.
pub(crate) struct Contested {
    /// From a release to the next that holds, in µs; of those that began in time.
    pub(crate) gaps: Vec<f64>,
    /// The same, only where the next is another process.
    pub(crate) hand_overs: Vec<f64>,
    /// Jain's index over the workers.
    pub(crate) jain: f64,
    /// Workers that never held the lock.
    pub(crate) starved: usize,
    /// For each section: sent by clients.
    pub(crate) sent: f64,
    /// For each section: sent, and called by scripts.
    pub(crate) all: f64,
}

impl Contested {
    /// The gap in the middle, in µs.
    pub(crate) fn gap(&self) -> f64 {
        quantile(&mut self.gaps.clone(), 0.5)
    }
}

/// One turn of contention.
pub(crate) fn contend(bench: &mut Bench, who: usize, contest: Contest) -> Result<Contested> {
    let mode = [
        "workers".to_owned(),
        format!("--workers={}", contest.workers),
        format!("--hold-us={}", contest.hold.as_micros()),
        format!("--pause-us={}", contest.pause.as_micros()),
    ];
    let mode: Vec<&str> = mode.iter().map(String::as_str).collect();
    let until = |start: u64| start + (contest.seconds * 1e9) as u64;
    let (reports, counts) = turn(bench, who, contest.processes, &mode, contest.seconds)?;
    let mut sections: Vec<(u32, Section)> = (0..)
        .zip(reports)
        .flat_map(|(process, report)| report.sections.into_iter().map(move |one| (process, one)))
        .collect();
    ensure!(
        !sections.is_empty(),
        "not one section in {} s",
        contest.seconds
    );
    sections.sort_unstable_by_key(|(_, section)| section.0);
    let count = sections.len() as f64;
    let deadline = until(sections[0].1.0);
    sections.retain(|(_, (start, ..))| *start < deadline);
    Ok(judge(
        &sections,
        contest,
        (counts.sent as f64 / count, counts.all as f64 / count),
    ))
}

fn judge(sections: &[(u32, Section)], contest: Contest, (sent, all): (f64, f64)) -> Contested {
    let mut shares: HashMap<(u32, u32), u64> = HashMap::new();
    for (process, (_, _, worker)) in sections {
        *shares.entry((*process, *worker)).or_default() += 1;
    }
    let starved = (contest.processes * contest.workers) as usize - shares.len();
    let mut shares: Vec<u64> = shares.into_values().collect();
    shares.resize(shares.len() + starved, 0);
    let gap = |pair: &[(u32, Section)]| pair[1].1.0.saturating_sub(pair[0].1.1) as f64 / 1e3;
    let pairs = || sections.windows(2);
    Contested {
        gaps: pairs().map(gap).collect(),
        hand_overs: pairs()
            .filter(|pair| pair[0].0 != pair[1].0)
            .map(gap)
            .collect(),
        jain: jain(&shares),
        starved,
        sent,
        all,
    }
}

/// Starts so many drivers, has all go at the same time, and hears them.
fn turn(
    bench: &mut Bench,
    who: usize,
    processes: u32,
    mode: &[&str],
    seconds: f64,
) -> Result<(Vec<Report>, Counts)> {
    let mut drivers = start(bench, who, processes, mode, seconds)?;
    let until = Instant::now() + Duration::from_secs_f64(seconds) + GRACE;
    let started = monotonic();
    for driver in &mut drivers {
        driver.go()?;
    }
    let reports: Result<Vec<Report>> = drivers
        .iter()
        .map(|driver| driver.report(left(until)))
        .collect();
    let counts = bench.commands.count(bench.contestants[who].sends)?;
    let mut reports = reports?;
    for report in &mut reports {
        // Not of this turn: a clock that is not ours.
        report.sections.retain(|section| section.0 >= started);
    }
    Ok((reports, counts))
}

/// Starts so many drivers on an empty server, and counts from when all are ready.
pub(crate) fn start(
    bench: &mut Bench,
    who: usize,
    processes: u32,
    mode: &[&str],
    seconds: f64,
) -> Result<Vec<Driver>> {
    bench.commands.clear()?;
    let drivers = more(bench, who, processes, mode, seconds)?;
    bench.commands.reset()?;
    Ok(drivers)
}

/// Starts so many drivers, beside those that are there.
pub(crate) fn more(
    bench: &Bench,
    who: usize,
    processes: u32,
    mode: &[&str],
    seconds: f64,
) -> Result<Vec<Driver>> {
    let mut words: Vec<String> = mode.iter().map(|word| (*word).to_owned()).collect();
    words.push(format!("--seconds={seconds}"));
    let (url, who) = (bench.server.url(), &bench.contestants[who]);
    let drivers = (0..processes)
        .map(|_| Driver::start(who, &url, &words))
        .collect::<Result<Vec<_>>>()?;
    for driver in &drivers {
        driver.ready()?;
    }
    Ok(drivers)
}

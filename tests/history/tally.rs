//! The sums over all stretches, and the judgement of each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use crate::KEYS;
use crate::record::{Attempt, Outcome, Release, now};
use crate::resource::Counter;
use crate::spec::Terms;
use crate::verdict::{STEPS, Writes, count, judge};

pub struct Tally {
    seed: u64,
    writes: Vec<Writes>,
    happened: BTreeMap<&'static str, u64>,
    stretches: u32,
    /// What the wall clock was ahead of the other one at the start.
    ahead: i128,
}

impl Tally {
    pub fn new(keys: usize, seed: u64) -> Self {
        Self {
            seed,
            writes: vec![Writes::default(); keys],
            happened: BTreeMap::new(),
            stretches: 0,
            ahead: wall_ahead(),
        }
    }

    /// Panics if the history of this stretch is not that of a lock.
    pub fn judge(&mut self, attempts: Vec<Attempt>, counters: &[Counter], terms: &Terms) {
        self.stretches += 1;
        let mut by_key: Vec<Vec<Attempt>> = vec![Vec::new(); KEYS];
        for attempt in attempts {
            for kind in kinds(&attempt) {
                *self.happened.entry(kind).or_default() += 1;
            }
            self.writes[attempt.key].add(&attempt);
            by_key[attempt.key].push(attempt);
        }
        for (key, attempts) in by_key.iter().enumerate() {
            let sound = judge(attempts, terms, STEPS)
                .and_then(|()| count(&counters[key], &self.writes[key]));
            if let Err(why) = sound {
                panic!(
                    "lock {key}, stretch {}, APPLOCK_SEED={}: {why}\n\
                     the wall clock, by which the server's leases go, moved by {} ms against ours\n\
                     the whole history: {}",
                    self.stretches,
                    self.seed,
                    (wall_ahead() - self.ahead) / 1_000_000,
                    kept(attempts, self.seed)
                );
            }
        }
    }

    fn of(&self, kind: &str) -> u64 {
        self.happened.get(kind).copied().unwrap_or(0)
    }

    /// A history in which little happens proves nothing: so often each of these at the least.
    pub fn assert_that_much_happened(&self, least: &[(&str, u64)]) {
        for (kind, least) in least {
            let many = self.of(kind);
            assert!(many >= *least, "{kind}: only {many}, of at least {least}");
        }
    }
}

/// What it counts as.
fn kinds(attempt: &Attempt) -> impl Iterator<Item = &'static str> {
    let outcome = match attempt.outcome {
        Some((_, Outcome::Acquired(_))) => "acquired",
        Some((_, Outcome::Busy)) => "busy",
        Some((_, Outcome::Unknown)) => "unknown",
        None => "cut off",
    };
    let release = attempt.release.map(|(_, end)| match end {
        Some((_, Release::Released)) => "released",
        Some((_, Release::NotHeld)) => "not held any more",
        Some((_, Release::Lost)) => "lost",
        Some((_, Release::Unknown)) => "release unknown",
        None => "release cut off",
    });
    let write = attempt.write.map(|taken| match taken {
        Some(true) => "written",
        Some(false) => "write refused",
        None => "write cut off",
    });
    [Some(outcome), release, write].into_iter().flatten()
}

fn wall_ahead() -> i128 {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a date");
    i128::try_from(wall.as_nanos()).expect("some centuries") - i128::from(now())
}

/// Writes it down, for the search for the cause.
fn kept(attempts: &[Attempt], seed: u64) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}.txt"));
    let lines: Vec<String> = attempts.iter().map(|it| format!("{it:?}")).collect();
    match std::fs::write(&path, lines.join("\n")) {
        Ok(()) => path.display().to_string(),
        Err(error) => error.to_string(),
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&Writes) -> u64| self.writes.iter().map(of).sum::<u64>();
        write!(
            f,
            "operations: {:?}\nincrements: {} acknowledged, {} unanswered, {} refused\n\
             verdict: sound, in {} stretch(es)",
            self.happened,
            sum(|writes| writes.acknowledged),
            sum(|writes| writes.unanswered),
            sum(|writes| writes.refused),
            self.stretches
        )
    }
}

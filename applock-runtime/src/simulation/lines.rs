//! The checks of those who wait: nobody is forgotten in line, and nothing is left with
//! one who has gone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::Wait;

use super::ledger::{Event, Ledger, Owner, What};

/// How long a lock may be free at the server while one stands in line whose way is in
/// order: a knock, and a little; and each before it counts for a second.
const FREE: Duration = Duration::from_secs(2);
const EACH_AHEAD: Duration = Duration::from_secs(1);

/// How long a lock may stay with one who gave up, where its host's way is in order.
const GONE: Duration = Duration::from_secs(2);

/// How long after it was given a lock one is told who stood in line, where its host's
/// way is in order, and has been for a while.
const HEARD: Duration = Duration::from_millis(700);
const A_WHILE: Duration = Duration::from_secs(2);

/// How long after the end of its patience one is told, where its host's way is in order.
const LATE: Duration = Duration::from_millis(200);

/// One lock at the server.
#[derive(Default)]
struct Lock {
    /// When it is, or was, free.
    free_from: Duration,
    line: Vec<(Owner, Duration)>,
}

impl Ledger {
    /// No lock is free for long while one stands in line who can be told.
    pub(super) fn asleep(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut locks: BTreeMap<usize, Lock> = BTreeMap::new();
        for event in events {
            match event.what {
                What::Gave(key, ..) => {
                    let lock = locks.entry(key).or_default();
                    self.check_free(key, lock, event.at, &mut broken);
                }
                What::Lasts(key, _, until) | What::Kept(key, until) => {
                    locks.entry(key).or_default().free_from = until;
                }
                What::Took(key, _) => {
                    let lock = locks.entry(key).or_default();
                    lock.free_from = lock.free_from.min(event.at);
                }
                What::Entered(key, owner) => {
                    let lock = locks.entry(key).or_default();
                    lock.line.push((owner, event.at));
                }
                What::Left(key, owner) => {
                    let lock = locks.entry(key).or_default();
                    self.check_free(key, lock, event.at, &mut broken);
                    lock.line.retain(|(known, _)| *known != owner);
                }
                What::Forgot => locks.clear(),
                _ => (),
            }
        }
        let end = events.last().map_or(Duration::ZERO, |event| event.at);
        for (key, lock) in &locks {
            self.check_free(*key, lock, end, &mut broken);
        }
        broken
    }

    fn check_free(&self, key: usize, lock: &Lock, now: Duration, broken: &mut Vec<String>) {
        for (ahead, (owner, entered)) in lock.line.iter().enumerate() {
            let Some(host) = self.host_of(*owner) else {
                continue;
            };
            let from = lock.free_from.max(*entered);
            let ahead = u32::try_from(ahead.max(1)).unwrap();
            let calm = self.longest_calm(from, now, host);
            if calm > FREE + EACH_AHEAD * ahead {
                broken.push(format!(
                    "asleep: key {key} is free from {from:?} to {now:?}, and {owner} stands in \
                     line for it, {calm:?} long in order"
                ));
            }
        }
    }

    /// The longest time on end that nothing is wrong with a host's way.
    fn longest_calm(&self, from: Duration, to: Duration, host: usize) -> Duration {
        let mut troubles: Vec<_> = self
            .troubles
            .iter()
            .filter(|(.., whose)| whose.is_none_or(|whose| whose == host))
            .map(|(start, end, _)| (*start, *end))
            .collect();
        troubles.push((to, to));
        troubles.sort();
        let (mut calm_from, mut longest) = (from, Duration::ZERO);
        for (start, end) in troubles {
            longest = longest.max(start.min(to).saturating_sub(calm_from));
            calm_from = calm_from.max(end);
        }
        longest
    }

    /// No lock stays with one who was told 'no', or has gone.
    pub(super) fn leaked(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let gone = gone(events);
        // From when it is with one who has gone.
        let mut with: BTreeMap<usize, (Owner, Duration, Duration)> = BTreeMap::new();
        let mut check = |key: usize, (owner, from, until): (Owner, Duration, Duration), now| {
            let Some((left, host)) = gone.get(&owner).copied().zip(self.host_of(owner)) else {
                return;
            };
            let calm = self.longest_calm(from.max(left), until.min(now), host);
            if calm > GONE {
                broken.push(format!(
                    "leaked: {owner} has gone at {left:?}, and has key {key} from {from:?} \
                     until {:?}",
                    until.min(now)
                ));
            }
        };
        for event in events {
            match event.what {
                What::Lasts(key, owner, until) => {
                    let known = with.get(&key).filter(|(known, ..)| *known == owner);
                    let from = known.map_or(event.at, |(_, from, _)| *from);
                    with.insert(key, (owner, from, until));
                }
                What::Took(key, _) => {
                    if let Some(known) = with.remove(&key) {
                        check(key, known, event.at);
                    }
                }
                What::Forgot => with.clear(),
                _ => (),
            }
        }
        broken
    }

    /// No place in line is kept by one who has gone; and one who was given the lock is told.
    pub(super) fn unheard(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let gone = gone(events);
        let mut line: BTreeMap<(usize, Owner), Duration> = BTreeMap::new();
        for event in events {
            match event.what {
                What::Entered(key, owner) => drop(line.insert((key, owner), event.at)),
                What::Left(key, owner) => {
                    let entered = line.remove(&(key, owner)).unwrap_or(event.at);
                    if let Some((gone, host)) = gone.get(&owner).zip(self.host_of(owner))
                        && self.longest_calm(entered.max(*gone), event.at, host) > GONE
                    {
                        broken.push(format!(
                            "lingers: {owner} has gone at {gone:?}, and stands in line for key \
                             {key} until {:?}",
                            event.at
                        ));
                    }
                }
                What::Gave(key, owner, _) if line.contains_key(&(key, owner)) => {
                    let by = event.at + HEARD;
                    let holding = &self.holdings[&owner];
                    let was_told = holding.told.is_some_and(|(at, _)| at <= by);
                    let has_gone = gone.get(&owner).is_some_and(|at| *at <= by);
                    let since = event.at.saturating_sub(A_WHILE);
                    let troubled = self.is_troubled(since, by, holding.ask.host);
                    if !was_told && !has_gone && !troubled {
                        broken.push(format!(
                            "unheard: key {key} goes to {owner} at {:?}, who is told {:?}",
                            event.at, holding.told
                        ));
                    }
                }
                What::Forgot => line.clear(),
                _ => (),
            }
        }
        broken
    }

    /// Who stood in a line that the server forgot stands in it again soon.
    pub(super) fn forgotten(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let gone = gone(events);
        let mut line: BTreeMap<(usize, Owner), Duration> = BTreeMap::new();
        let mut forgotten = BTreeMap::new();
        for event in events {
            match event.what {
                What::Entered(key, owner) => {
                    line.insert((key, owner), event.at);
                    self.check_forgotten(
                        &gone,
                        forgotten.remove(&owner),
                        owner,
                        event.at,
                        &mut broken,
                    );
                }
                What::Left(key, owner) => drop(line.remove(&(key, owner))),
                What::Gave(_, owner, _) => {
                    self.check_forgotten(
                        &gone,
                        forgotten.remove(&owner),
                        owner,
                        event.at,
                        &mut broken,
                    );
                }
                What::Forgot => {
                    forgotten.extend(line.keys().map(|(_, owner)| (*owner, event.at)));
                    line.clear();
                }
                _ => (),
            }
        }
        let end = events.last().map_or(Duration::ZERO, |event| event.at);
        for (owner, at) in forgotten {
            self.check_forgotten(&gone, Some(at), owner, end, &mut broken);
        }
        broken
    }

    fn check_forgotten(
        &self,
        gone: &BTreeMap<Owner, Duration>,
        forgotten: Option<Duration>,
        owner: Owner,
        now: Duration,
        broken: &mut Vec<String>,
    ) {
        let (Some(at), Some(host)) = (forgotten, self.host_of(owner)) else {
            return;
        };
        let until = gone.get(&owner).map_or(now, |gone| now.min(*gone));
        if self.longest_calm(at, until, host) > A_WHILE {
            broken.push(format!(
                "forgotten: {owner} stood in the line that the server forgot at {at:?}, and in \
                 none until {until:?}"
            ));
        }
    }

    /// Whoever waits for so long is told at the end of it.
    pub(super) fn late(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut asked = BTreeMap::new();
        for event in events {
            match &event.what {
                What::Asked(ask) => drop(asked.insert(ask.owner, event.at)),
                What::Refused(owner, why) => {
                    let (ask, at) = (&self.holdings[owner].ask, asked[owner]);
                    let Wait::For(wait) = ask.wait else {
                        continue;
                    };
                    let end = at + wait.mul_f64(1.01) + LATE;
                    if event.at > end && !self.is_troubled(at, event.at, ask.host) {
                        broken.push(format!(
                            "late: {owner} waits from {at:?} for {wait:?}, and is told at {:?}: \
                             {why}",
                            event.at
                        ));
                    }
                }
                _ => (),
            }
        }
        broken
    }
}

/// When each gave up, or let go.
fn gone(events: &[&Event]) -> BTreeMap<Owner, Duration> {
    let mut gone = BTreeMap::new();
    for event in events {
        if let What::Refused(owner, _) | What::Dropped(owner) | What::LetGo(owner) = event.what {
            gone.entry(owner).or_insert(event.at);
        }
    }
    gone
}

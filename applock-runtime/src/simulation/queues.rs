//! The checks of waiters: no waiter is forgotten in a wait queue, and nothing is left with a
//! caller that has given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::Wait;

use super::history::{Event, History, OwnerNumber, What};

/// How long a lock may be free at the server while a waiter without a network fault is in its
/// wait queue: the interval of a poll and a margin; each waiter before it adds a second.
const FREE: Duration = Duration::from_secs(2);
const EACH_AHEAD: Duration = Duration::from_secs(1);

/// How long a lock may stay with a caller that gave up, where its host has no network fault.
const GONE: Duration = Duration::from_secs(2);

/// How soon after a grant a waiter is notified, where its host has no network fault, and has
/// had none for a while.
const NOTIFIED_WITHIN: Duration = Duration::from_millis(700);
const A_WHILE: Duration = Duration::from_secs(2);

/// How soon after its deadline a waiter gets its answer, where its host has no network fault.
const LATE: Duration = Duration::from_millis(200);

/// The same where it has to be found out first which server serves, or replicas have to answer.
const LATE_BY_MANY: Duration = Duration::from_millis(700);

/// One lock at the server.
#[derive(Default)]
struct LockTimeline {
    /// When it is, or was, free.
    free_from: Duration,
    queue: Vec<(OwnerNumber, Duration)>,
}

impl History {
    /// No lock is free for long while a waiter that can be notified is in its wait queue.
    pub(super) fn asleep(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut locks: BTreeMap<usize, LockTimeline> = BTreeMap::new();
        for event in events {
            match event.what {
                What::Gave(key, ..) => {
                    let lock = locks.entry(key).or_default();
                    self.check_free(key, lock, event.at, &mut broken);
                }
                What::Lasts(key, _, until)
                | What::Returned(key, _, until)
                | What::Kept(key, until) => {
                    locks.entry(key).or_default().free_from = until;
                }
                What::Took(key, _) => {
                    let lock = locks.entry(key).or_default();
                    lock.free_from = lock.free_from.min(event.at);
                }
                What::Entered(key, owner) => {
                    let lock = locks.entry(key).or_default();
                    lock.queue.push((owner, event.at));
                }
                What::Left(key, owner) => {
                    let lock = locks.entry(key).or_default();
                    self.check_free(key, lock, event.at, &mut broken);
                    lock.queue.retain(|(known, _)| *known != owner);
                }
                What::Unqueued(key, owner) => {
                    let lock = locks.entry(key).or_default();
                    lock.queue.retain(|(known, _)| *known != owner);
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

    fn check_free(&self, key: usize, lock: &LockTimeline, now: Duration, broken: &mut Vec<String>) {
        for (ahead, (owner, entered)) in lock.queue.iter().enumerate() {
            let Some(host) = self.host_of(*owner) else {
                continue;
            };
            let from = lock.free_from.max(*entered);
            let ahead = u32::try_from(ahead.max(1)).unwrap();
            let calm = self.longest_calm(from, now, host);
            if calm > FREE + EACH_AHEAD * ahead {
                broken.push(format!(
                    "asleep: key {key} is free from {from:?} to {now:?}, and {owner} waits in \
                     its queue, {calm:?} long without a fault"
                ));
            }
        }
    }

    /// The longest time on end without a fault of a host's network.
    pub(super) fn longest_calm(&self, from: Duration, to: Duration, host: usize) -> Duration {
        let mut troubles: Vec<_> = self
            .troubles
            .iter()
            .filter(|(.., whose)| whose.is_none_or(|whose| whose == host))
            .map(|(start, end, _)| (*start, *end))
            .chain(self.switch_times())
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

    /// No lock stays with a caller that was refused, or has given up.
    pub(super) fn leaked(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let gone = gone(events);
        // From when it is with a caller that has gone.
        let mut with: BTreeMap<usize, (OwnerNumber, Duration, Duration)> = BTreeMap::new();
        let mut check =
            |key: usize, (owner, from, until): (OwnerNumber, Duration, Duration), now| {
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
                // Also where another server serves, and a release is lost: it is repeated.
                What::Lasts(key, owner, until) | What::Returned(key, owner, until) => {
                    let known = with.remove(&key);
                    let from = match known {
                        Some((known, from, _)) if known == owner => from,
                        // It ran out.
                        Some(known) => {
                            check(key, known, event.at);
                            event.at
                        }
                        None => event.at,
                    };
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
        let end = events.last().map_or(Duration::ZERO, |event| event.at);
        for (key, known) in with {
            check(key, known, end);
        }
        broken
    }

    /// A caller that has gone keeps no position in a wait queue; and a granted waiter is notified.
    pub(super) fn unnotified(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let gone = gone(events);
        let mut queue: BTreeMap<(usize, OwnerNumber), Duration> = BTreeMap::new();
        let mut in_vain: BTreeSet<(usize, OwnerNumber)> = BTreeSet::new();
        for event in events {
            match event.what {
                What::Entered(key, owner) => drop(queue.insert((key, owner), event.at)),
                What::Unqueued(key, owner) => drop(queue.remove(&(key, owner))),
                What::EndedInVain(key, owner) => drop(in_vain.insert((key, owner))),
                What::Left(key, owner) => {
                    let entered = queue.remove(&(key, owner)).unwrap_or(event.at);
                    if let Some((gone, host)) = gone.get(&owner).zip(self.host_of(owner))
                        && !in_vain.contains(&(key, owner))
                        && self.longest_calm(entered.max(*gone), event.at, host) > GONE
                    {
                        broken.push(format!(
                            "lingers: {owner} has gone at {gone:?}, and waits in the queue of key \
                             {key} until {:?}",
                            event.at
                        ));
                    }
                }
                What::Gave(key, owner, _) if queue.contains_key(&(key, owner)) => {
                    let by = event.at + NOTIFIED_WITHIN;
                    let holding = &self.holdings[&owner];
                    let was_notified = holding.acquired.is_some_and(|(at, _)| at <= by);
                    let has_gone = gone.get(&owner).is_some_and(|at| *at <= by);
                    let since = event.at.saturating_sub(A_WHILE);
                    let host = holding.attempt.host;
                    let unacknowledged = self.acknowledged && self.has_fault(since, by, host);
                    let troubled = unacknowledged || self.is_troubled(since, by, host);
                    if !was_notified && !has_gone && !troubled {
                        broken.push(format!(
                            "unnotified: key {key} goes to {owner} at {:?}, which is notified {:?}",
                            event.at, holding.acquired
                        ));
                    }
                }
                What::Forgot => queue.clear(),
                _ => (),
            }
        }
        broken
    }

    /// A waiter whose wait queue the server lost is soon in it again.
    pub(super) fn forgotten(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let gone = gone(events);
        let mut queue: BTreeMap<(usize, OwnerNumber), Duration> = BTreeMap::new();
        let mut forgotten = BTreeMap::new();
        for event in events {
            match event.what {
                What::Entered(key, owner) => {
                    queue.insert((key, owner), event.at);
                    self.check_forgotten(
                        &gone,
                        forgotten.remove(&owner),
                        owner,
                        event.at,
                        &mut broken,
                    );
                }
                What::Left(key, owner) => drop(queue.remove(&(key, owner))),
                What::Unqueued(key, owner) => {
                    queue.remove(&(key, owner));
                    forgotten.insert(owner, event.at);
                }
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
                    forgotten.extend(queue.keys().map(|(_, owner)| (*owner, event.at)));
                    queue.clear();
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
        gone: &BTreeMap<OwnerNumber, Duration>,
        forgotten: Option<Duration>,
        owner: OwnerNumber,
        now: Duration,
        broken: &mut Vec<String>,
    ) {
        let (Some(at), Some(host)) = (forgotten, self.host_of(owner)) else {
            return;
        };
        let until = gone.get(&owner).map_or(now, |gone| now.min(*gone));
        if self.longest_calm(at, until, host) > A_WHILE {
            broken.push(format!(
                "forgotten: {owner} was in the queue that the server lost at {at:?}, and in \
                 none until {until:?}"
            ));
        }
    }

    /// A waiter gets its answer at its deadline.
    pub(super) fn late(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut asked = BTreeMap::new();
        for event in events {
            match &event.what {
                What::Attempted(attempt) => drop(asked.insert(attempt.owner, event.at)),
                What::Refused(owner, why) => {
                    let (attempt, at) = (&self.holdings[owner].attempt, asked[owner]);
                    let Wait::For(wait) = attempt.wait else {
                        continue;
                    };
                    let late = if self.switches.is_empty() {
                        LATE
                    } else {
                        LATE_BY_MANY
                    };
                    let end = at + wait.mul_f64(1.01) + late;
                    if event.at > end && !self.is_troubled(at, event.at, attempt.host) {
                        broken.push(format!(
                            "late: {owner} waits from {at:?} for {wait:?}, and is answered at {:?}: \
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

/// When each caller gave up, or let go.
fn gone(events: &[&Event]) -> BTreeMap<OwnerNumber, Duration> {
    let mut gone = BTreeMap::new();
    for event in events {
        if let What::Refused(owner, _) | What::Dropped(owner) | What::LetGo(owner) = event.what {
            gone.entry(owner).or_insert(event.at);
        }
    }
    gone
}

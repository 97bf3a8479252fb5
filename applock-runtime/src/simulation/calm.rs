//! The checks of what must not happen where nothing is wrong: that a lease is lost, that a
//! waiter is not served, and that an engine has ever more to do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::Wait;
use crate::store::CLAIM;

use super::history::{Event, History, ObservedHolding, OwnerNumber, What};

/// A lease so long outlasts a failover.
const LONG: Duration = Duration::from_secs(6);

/// A confirmed claim needs a heartbeat, which leaves after 50 ms.
const CONFIRM: Duration = Duration::from_millis(50);

/// Dialling anew, teaching the scripts, and a slow round trip or two.
const REDIAL: Duration = Duration::from_millis(500);

/// A lease that is shorter may end while its holder teaches the server to renew it: by then the dial, the
/// acquire and the renewal have taken six round trips of 40 ms. Found by seed 48 of its time, whose
/// lease of 323 ms had been asked for 170 ms before the server heard of it.
const TEACHES: Duration = Duration::from_millis(400);

/// How long a dial may go on that a fault has swallowed, with the fault over by then (the longest
/// that a dial may take). A kernel sends its SYN again after a second; the simulated network does
/// not. Until then the host has no connection, and whatever it sends waits: no lease that is
/// shorter outlasts that. Found by seed 53 of its time: a fault ended at 15.32 s, all requests of its
/// host were carried out at 17.38 s, and a lease of 389 ms lay in between.
const SWALLOWED_DIAL: Duration = Duration::from_secs(2);

/// The end that `at_most` sets counts from when the request left, as far as that is known: of a
/// grant that was notified, by the last poll, which may have been under way for a whole time-out.
const CAP_AFTER: f64 = 0.98;
const CAP_EARLIER: Duration = Duration::from_secs(1);

/// How long a lock may be free, all in all, while the same waiter waits for it and nothing is
/// wrong with its host's network: a poll, and what a subscription takes.
const IDLE: Duration = Duration::from_millis(2_500);

/// Within a second a holder's heart beats up to twelve times, and a call that comes or goes
/// asks as often at the most; a waiter that stands in a queue asks again once where that was
/// lost, and some do by themselves.
const WINDOW: Duration = Duration::from_secs(1);
const REQUESTS_ACTIVE: usize = 12;
const REQUESTS_TWO_IDLE: usize = 3;

/// For how long what a caller left behind is cleaned up: an orphan for five seconds after the
/// store has answered.
pub(super) const CLEANED_UP: Duration = Duration::from_secs(7);

impl History {
    /// A lease is lost only for a cause: `at_most`, data that the server lost, or a fault
    /// that two attempts of a heartbeat did not outlast.
    pub(super) fn lost_for_nothing(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut terms: BTreeMap<OwnerNumber, Duration> = BTreeMap::new();
        let mut forgotten: BTreeMap<OwnerNumber, Duration> = BTreeMap::new();
        for event in events {
            match event.what {
                What::Lasts(_, owner, until) => drop(terms.insert(owner, until - event.at)),
                What::Forgot => {
                    forgotten.extend(terms.keys().map(|owner| (*owner, event.at)));
                }
                What::Lost(_, owner) | What::InVain(_, owner, _) => {
                    forgotten.insert(owner, event.at);
                }
                What::Says(owner, false) => {
                    let holding = &self.holdings[&owner];
                    let Some((acquired, _)) = holding.acquired else {
                        continue;
                    };
                    let term = terms.get(&owner).copied().unwrap_or(CLAIM);
                    let since = holding.last_yes.unwrap_or(acquired);
                    let is_first = holding.no == Some(event.at);
                    let from = since.saturating_sub(attempts(holding, term));
                    // A long lease outlasts a failover.
                    let may_end = self.acknowledged || term < LONG;
                    let is_switched = may_end && self.is_at_a_switch(from, event.at);
                    if is_first
                        && !is_switched
                        && !forgotten.contains_key(&owner)
                        && !is_capped(holding, acquired, event.at)
                        && !self.has_fault(from, event.at, holding.attempt.host)
                        && !self.was_teaching(holding.attempt.host, term, event.at)
                    {
                        broken.push(format!(
                            "lost for nothing: {owner} has key {} from {acquired:?}, for \
                             {term:?} at the server, and says lost at {:?}",
                            holding.attempt.key, event.at
                        ));
                    }
                }
                _ => (),
            }
        }
        broken
    }

    /// Whether the host had to teach the server a script within a lease that is too short for that.
    fn was_teaching(&self, host: usize, term: Duration, lost: Duration) -> bool {
        let within = lost.saturating_sub(term)..=lost;
        term < TEACHES
            && (self.untaught.iter()).any(|(at, whose)| *whose == host && within.contains(at))
    }

    fn is_at_a_switch(&self, from: Duration, to: Duration) -> bool {
        let mut switches = self.switch_times();
        switches.any(|(start, end)| start <= to && end >= from)
    }

    pub(super) fn has_fault(&self, from: Duration, to: Duration, host: usize) -> bool {
        self.faults.iter().any(|(start, end, whose)| {
            *start <= to && *end >= from && whose.is_none_or(|whose| whose == host)
        })
    }

    /// All in all no lock is free for long while the same waiter waits for it, in a queue or
    /// not, without a network fault.
    pub(super) fn idle(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let free = self.free_times(events);
        let end = events.last().map_or(Duration::ZERO, |event| event.at);
        for (owner, holding) in &self.holdings {
            if holding.attempt.wait == Wait::Not {
                continue;
            }
            let until = holding.acquired.map(|(at, _)| at);
            let until = until.or(holding.gone).unwrap_or(end);
            let Some(free) = free.get(&holding.attempt.key) else {
                continue;
            };
            for (from, to) in self.calm_times(holding.attempted, until, holding.attempt.host) {
                let idle: Duration = free
                    .iter()
                    .map(|(start, end)| (*end).min(to).saturating_sub((*start).max(from)))
                    .sum();
                if idle > IDLE {
                    broken.push(format!(
                        "idle: key {} is free for {idle:?} from {from:?} to {to:?}, and {owner} \
                         waits for it",
                        holding.attempt.key
                    ));
                }
            }
        }
        broken
    }

    /// When each lock was free.
    fn free_times(&self, events: &[&Event]) -> BTreeMap<usize, Vec<(Duration, Duration)>> {
        let mut free: BTreeMap<usize, Vec<(Duration, Duration)>> = BTreeMap::new();
        let mut free_from: BTreeMap<usize, Duration> = BTreeMap::new();
        for holding in self.holdings.values() {
            free_from.entry(holding.attempt.key).or_default();
        }
        for event in events {
            match event.what {
                What::Gave(key, ..) => {
                    let from = free_from.get(&key).copied().unwrap_or_default();
                    if from < event.at {
                        free.entry(key).or_default().push((from, event.at));
                    }
                }
                What::Lasts(key, _, until)
                | What::Returned(key, _, until)
                | What::Kept(key, until) => {
                    free_from.insert(key, until);
                }
                What::Took(key, _) => {
                    let from = free_from.entry(key).or_default();
                    *from = (*from).min(event.at);
                }
                What::Forgot => free_from.values_mut().for_each(|from| *from = event.at),
                _ => (),
            }
        }
        let end = events.last().map_or(Duration::ZERO, |event| event.at);
        for (key, from) in free_from {
            if from < end {
                free.entry(key).or_default().push((from, end));
            }
        }
        free
    }

    /// The times without a fault of a host's network, or of the server.
    pub(super) fn calm_times(
        &self,
        from: Duration,
        to: Duration,
        host: usize,
    ) -> Vec<(Duration, Duration)> {
        let all = self.troubles.iter().chain(&self.faults);
        let mut troubles: Vec<_> = all
            .filter(|(.., whose)| whose.is_none_or(|whose| whose == host))
            .map(|(start, end, _)| (*start, *end))
            .chain(self.switch_times())
            .collect();
        troubles.push((to, to));
        troubles.sort();
        let mut calm = Vec::new();
        let mut since = from;
        for (start, end) in troubles {
            let start = start.min(to);
            if start > since {
                calm.push((since, start));
            }
            since = since.max(end);
        }
        calm
    }

    /// In no second does a host ask much more than its callers give reason to, without a
    /// fault or after it.
    pub(super) fn restless(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut asked: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        for (at, host, locks) in &self.requests {
            *asked.entry((*host, at.as_secs())).or_default() += locks;
        }
        for ((host, second), asked) in asked {
            let from = Duration::from_secs(second);
            let (mut active, mut idle) = (1, 0);
            for holding in self.holdings.values() {
                let is_here = holding.attempt.host == host
                    && holding.attempted <= from + WINDOW
                    && holding.gone.is_none_or(|at| at + CLEANED_UP >= from);
                let waits = holding.attempted + WINDOW < from
                    && holding.gone.is_none_or(|at| at > from + WINDOW)
                    && holding.acquired.is_none_or(|(at, _)| at > from + WINDOW);
                match (is_here, waits) {
                    (false, _) => (),
                    (true, false) => active += 1,
                    (true, true) => idle += 1,
                }
            }
            let bound = active * REQUESTS_ACTIVE + idle * REQUESTS_TWO_IDLE / 2;
            if asked > bound {
                broken.push(format!(
                    "restless: host {host} asks for {asked} locks from {from:?} on, with \
                     {idle} callers that wait, and {active} that come, hold or go"
                ));
            }
        }
        broken
    }

    /// An engine keeps nothing but what its callers have, or have left behind not long ago.
    pub(super) fn check_kept(&mut self, host: usize, kept: usize, now: Duration) {
        let of_host = |holding: &&ObservedHolding| holding.attempt.host == host;
        let known = self.holdings.values().filter(of_host);
        let known = known
            .filter(|holding| {
                let calm = |gone| self.longest_calm(gone, now, host);
                holding.gone.is_none_or(|gone| calm(gone) < CLEANED_UP)
            })
            .count();
        if kept > known {
            self.blame(format!(
                "growth: the engine of host {host} keeps {kept} acquisitions at {now:?}, and \
                 {known} are its callers', or were a while ago"
            ));
        }
    }
}

/// How long after a fault no heartbeat may have come through, at the longest. At its end the host
/// has either a connection that leads nowhere, which a heartbeat and one more attempt find out, or
/// a dial that does; then it dials anew. Not both: after the fault nothing is swallowed any more.
fn attempts(holding: &ObservedHolding, term: Duration) -> Duration {
    let due = match term < holding.attempt.ttl.mul_f64(0.9) {
        true => CONFIRM,
        false => term / 3,
    };
    let unnoticed = due + 2 * (term / 4).min(Duration::from_secs(1));
    unnoticed.max(SWALLOWED_DIAL) + REDIAL
}

/// Whether `at_most` may have ended it.
fn is_capped(holding: &ObservedHolding, acquired: Duration, lost: Duration) -> bool {
    let at_most = holding.attempt.at_most;
    at_most.is_some_and(|most| lost + CAP_EARLIER >= acquired + most.mul_f64(CAP_AFTER))
}

//! The checks of runs with several servers: what is lost when another server comes to serve, who
//! is told, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{Event, History, Lost, OwnerNumber, What, is_lost};
use super::world::server_name;

/// How soon after the switch is known a holder whose lock was lost is told: a question to the
/// sentinels or for the map, a dial with its login, a heartbeat, once more with the script's text.
const TOLD: Duration = Duration::from_millis(1_300);

/// For how long a sentinel's word is good.
const WORD: Duration = Duration::from_millis(1_000);

/// An answer that arrives in the step in which a switch is learned may have come before it.
const SAME_MOMENT: Duration = Duration::from_millis(20);

impl History {
    /// What was lost, from when on; where another heartbeat was carried out, until then.
    pub(super) fn lost(&self, events: &[&Event]) -> Lost {
        let mut lost = Lost::new();
        for event in events {
            match event.what {
                What::Lost(_, owner) | What::InVain(_, owner, _) => {
                    let times = lost.entry(owner).or_default();
                    if times.last().is_none_or(|(_, to)| *to != Duration::MAX) {
                        times.push((event.at, Duration::MAX));
                    }
                }
                What::Gave(_, owner, _) | What::Lasts(_, owner, _) => {
                    if let Some(last) = lost.get_mut(&owner).and_then(|times| times.last_mut())
                        && last.0 < event.at
                    {
                        last.1 = last.1.min(event.at);
                    }
                }
                _ => (),
            }
        }
        lost
    }

    /// A holder of a lost lock is told soon after the switch is known, where its host has no
    /// network fault.
    pub(super) fn untold(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        if self.acknowledged {
            // Nothing is lost that a holder rests on.
            return broken;
        }
        let lost = self.lost(events);
        for event in events {
            let What::Says(owner, true) = event.what else {
                continue;
            };
            if !is_lost(&lost, owner, event.at) {
                continue;
            }
            let attempt = &self.holdings[&owner].attempt;
            let times = &lost[&owner];
            let since = times.iter().rev().find(|(from, _)| *from <= event.at);
            let since = since.map_or(event.at, |(from, _)| *from);
            for switch in &self.switches {
                let known = switch.known.max(since);
                let after = match switch.is_published {
                    true => TOLD,
                    // The next heartbeat finds it.
                    false => TOLD + attempt.ttl / 3,
                };
                let is_this = switch.from <= since && since < switch.over;
                let by = known + after;
                if is_this && event.at > by && !self.has_own_trouble(switch.from, by, attempt.host)
                {
                    broken.push(format!(
                        "untold: {owner} says held at {:?}, and what it rests on is lost since \
                         {since:?}, by a switch that is known since {:?}",
                        event.at, switch.known
                    ));
                }
            }
        }
        broken.truncate(3);
        broken
    }

    /// Whether something was wrong with the network of a host itself.
    fn has_own_trouble(&self, from: Duration, to: Duration, host: usize) -> bool {
        let all = self.troubles.iter().chain(&self.faults);
        let mut own = all.filter(|(.., whose)| *whose == Some(host));
        own.any(|(start, end, _)| *start <= to && *end >= from)
    }

    /// No guard is made of a grant by a master whose successor its host has dialled.
    pub(super) fn retired(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut in_vain: BTreeMap<(OwnerNumber, u64), Duration> = BTreeMap::new();
        let mut given: BTreeSet<(OwnerNumber, u64)> = BTreeSet::new();
        for event in events {
            match event.what {
                // It may have been granted before by one that served.
                What::Gave(_, owner, token) => drop(given.insert((owner, token))),
                What::InVain(_, owner, token) if !given.contains(&(owner, token)) => {
                    in_vain.insert((owner, token), event.at);
                }
                What::Acquired(owner, token) => {
                    let Some(granted) = in_vain.get(&(owner, token)) else {
                        continue;
                    };
                    let host = self.holdings[&owner].attempt.host;
                    let switch = self.switches.iter().rev();
                    let switch = switch
                        .filter(|switch| switch.is_published)
                        .find(|switch| switch.promoted <= *granted);
                    let learned = switch.and_then(|switch| {
                        let mut dials = self.dialled.iter();
                        dials.find(|(at, by, server)| {
                            *at >= switch.promoted && *by == host && *server == switch.to
                        })
                    });
                    if let Some((learned, ..)) = learned
                        && *learned + SAME_MOMENT < event.at
                    {
                        broken.push(format!(
                            "retired: {owner} is acquired at {:?}, by a grant of {granted:?} of a \
                             master whose successor its host dials at {learned:?}",
                            event.at
                        ));
                    }
                }
                _ => (),
            }
        }
        broken
    }

    /// With sentinels no server is dialled which none of them has named a moment before.
    pub(super) fn remembered(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.named.is_empty() {
            return broken;
        }
        for (at, host, server) in &self.dialled {
            let mut named = self.named.iter();
            let is_named = named.any(|(when, to, whom)| {
                (to, whom) == (host, server) && *when <= *at && *when + WORD >= *at
            });
            if !is_named {
                broken.push(format!(
                    "remembered: host {host} dials {} at {at:?}, which no sentinel has named to \
                     it lately",
                    server_name(*server)
                ));
            }
        }
        broken
    }

    /// A release that was carried out is not told as 'not held'.
    pub(super) fn denied(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut released: BTreeMap<OwnerNumber, Duration> = BTreeMap::new();
        for event in events {
            match &event.what {
                What::Freed(_, owner) => drop(released.insert(*owner, event.at)),
                What::Released(owner, outcome) if outcome.contains("not held") => {
                    if let Some(at) = released.get(owner) {
                        broken.push(format!(
                            "denied: {owner} was released at {at:?}, and is told at {:?}: \
                             {outcome}",
                            event.at
                        ));
                    }
                }
                _ => (),
            }
        }
        broken
    }

    /// Whether a host has learned of the last switch only just now.
    fn is_news(&self, at: Duration, host: usize) -> bool {
        let mut switches = self.switches.iter().rev();
        let Some(switch) = switches.find(|switch| switch.promoted <= at) else {
            return false;
        };
        let mut dials = self.dialled.iter();
        !dials.any(|(when, by, server)| {
            *by == host && *server == switch.to && *when >= switch.promoted && *when + JUST_NOW < at
        })
    }

    /// No caller is refused for want of a server while nothing is wrong.
    pub(super) fn refused(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        for event in events {
            let What::Refused(owner, why) = &event.what else {
                continue;
            };
            let holding = &self.holdings[owner];
            let host = holding.attempt.host;
            let from = event.at.saturating_sub(LOOKED_BACK).max(holding.attempted);
            let is_clear = self
                .calm_times(from, event.at, host)
                .contains(&(from, event.at))
                && !self.has_fault(from, event.at, host);
            let has_time = holding.attempt.ttl >= WITH_TIME;
            // It was asked while its host learned of the switch.
            let is_news = why.contains("another server has come") && self.is_news(event.at, host);
            if why != "busy" && !is_news && is_clear && has_time {
                broken.push(format!(
                    "refused: {owner} is refused at {:?}, and nothing is wrong: {why}",
                    event.at
                ));
            }
        }
        broken
    }
}

/// A request for a lease that is shorter has little time, and may need a dial.
const WITH_TIME: Duration = Duration::from_secs(3);

/// A node is dialled, and the map fetched, within so long.
const JUST_NOW: Duration = Duration::from_millis(400);

/// A refusal is about what was a moment before.
const LOOKED_BACK: Duration = Duration::from_secs(3);

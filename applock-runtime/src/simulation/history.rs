//! What happened in a run, and the checks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::engine::Wait;

/// The number of an acquisition's owner id.
pub(super) type OwnerNumber = u64;

/// Something that happened, by the run's one time (which no host knows).
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) what: What,
}

pub(super) enum What {
    /// The network or the server was tampered with.
    Fault(String),
    /// The server lost all that it knew.
    Forgot,
    /// The server is to be reached again, after it forgot.
    Back,
    /// At the server, the lock went to another owner, with this token.
    Gave(usize, OwnerNumber, u64),
    /// At the server, the lock is that owner's until then, unless more is said.
    Lasts(usize, OwnerNumber, Duration),
    /// At the server, the lock is no longer that owner's.
    Took(usize, OwnerNumber),
    /// At the server, the lock was released, and is kept until then (`at_least`).
    Kept(usize, Duration),
    /// At the server, an owner released the lock.
    Freed(usize, OwnerNumber),
    /// Another server serves: what an owner's holding rests on is lost there.
    Lost(usize, OwnerNumber),
    /// A server whose word does not count any more granted an owner the lock, or renewed it.
    InVain(usize, OwnerNumber, u64),
    /// There an owner released the lock, or left the wait queue.
    EndedInVain(usize, OwnerNumber),
    /// Another server serves, and there an earlier holder has the lock again, until then.
    Returned(usize, OwnerNumber, Duration),
    /// Another server serves, and there an owner is not in the wait queue.
    Unqueued(usize, OwnerNumber),
    /// At the server, an owner entered the wait queue, or left it.
    Entered(usize, OwnerNumber),
    Left(usize, OwnerNumber),
    /// The server passed a message on to these hosts.
    Published(Vec<usize>),
    Attempted(Attempt),
    /// The caller has its guard, with this token.
    Acquired(OwnerNumber, u64),
    Refused(OwnerNumber, String),
    /// Its caller dropped the future.
    Dropped(OwnerNumber),
    /// The guard was asked whether the lock is held.
    Says(OwnerNumber, bool),
    /// The guard was released or dropped.
    LetGo(OwnerNumber),
    Released(OwnerNumber, String),
}

/// An acquisition that a host asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) owner: OwnerNumber,
    pub(super) host: usize,
    pub(super) key: usize,
    pub(super) ttl: Duration,
    pub(super) wait: Wait,
    pub(super) at_most: Option<Duration>,
}

/// A holding, as its caller saw it.
pub(super) struct ObservedHolding {
    pub(super) attempt: Attempt,
    pub(super) attempted: Duration,
    pub(super) acquired: Option<(Duration, u64)>,
    pub(super) last_yes: Option<Duration>,
    pub(super) no: Option<Duration>,
    /// When its caller was refused, gave up, or let go.
    pub(super) gone: Option<Duration>,
}

/// How long after the server is back, and the next heartbeat is due, a holder whose
/// lock was forgotten may still think that it holds it: dialling, the scripts that the
/// server does not know any more, a round trip.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// From when to when the holding of an owner rests on a write that was lost, or that was made at a
/// server that did not serve any more.
pub(super) type Lost = BTreeMap<OwnerNumber, Vec<(Duration, Duration)>>;

/// Whether an owner's holding is lost at that time.
pub(super) fn is_lost(lost: &Lost, owner: OwnerNumber, at: Duration) -> bool {
    let times = lost.get(&owner).into_iter().flatten();
    times.into_iter().any(|(from, to)| *from <= at && at < *to)
}

/// Another server comes to serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switch {
    /// From when on something is wrong.
    pub(super) from: Duration,
    pub(super) promoted: Duration,
    /// The new server.
    pub(super) to: usize,
    /// When hosts can know of it.
    pub(super) known: Duration,
    /// They hear of it without asking.
    pub(super) is_published: bool,
    /// When all is well again.
    pub(super) over: Duration,
}

#[derive(Default)]
pub(super) struct History {
    events: Vec<Event>,
    /// When something was wrong with the network between a host and the server.
    pub(super) troubles: Vec<(Duration, Duration, Option<usize>)>,
    /// The same without the time that it takes to recover; and what happened in a moment.
    pub(super) faults: Vec<(Duration, Duration, Option<usize>)>,
    /// When a server did not know a script, and which host had to send it: that is one more round trip.
    pub(super) untaught: Vec<(Duration, usize)>,
    /// When another server came to serve.
    pub(super) switches: Vec<Switch>,
    /// Whether all replicas acknowledge what is written: then no write is lost.
    pub(super) acknowledged: bool,
    /// The servers that sentinels named, to which hosts.
    pub(super) named: Vec<(Duration, usize, usize)>,
    /// The servers that hosts dialled.
    pub(super) dialled: Vec<(Duration, usize, usize)>,
    /// How many locks each host's requests were about, at the server.
    pub(super) requests: Vec<(Duration, usize, usize)>,
    blames: Vec<String>,
    pub(super) holdings: BTreeMap<OwnerNumber, ObservedHolding>,
}

impl History {
    pub(super) fn note(&mut self, at: Duration, what: What) {
        match &what {
            What::Attempted(attempt) => {
                let holding = ObservedHolding {
                    attempt: *attempt,
                    attempted: at,
                    acquired: None,
                    last_yes: None,
                    no: None,
                    gone: None,
                };
                self.holdings.insert(attempt.owner, holding);
            }
            What::Acquired(owner, token) => self.holding(*owner).acquired = Some((at, *token)),
            What::Says(owner, true) => {
                let holding = self.holding(*owner);
                holding.last_yes = Some(at);
                if let Some(no) = holding.no {
                    self.blame(format!(
                        "revived: {owner} was lost at {no:?}, and says held at {at:?}"
                    ));
                }
            }
            What::Says(owner, false) => {
                self.holding(*owner).no.get_or_insert(at);
            }
            What::Refused(owner, _) | What::Dropped(owner) | What::LetGo(owner) => {
                self.holding(*owner).gone.get_or_insert(at);
            }
            _ => (),
        }
        self.events.push(Event { at, what });
    }

    fn holding(&mut self, owner: OwnerNumber) -> &mut ObservedHolding {
        self.holdings.get_mut(&owner).unwrap()
    }

    /// A promise was broken.
    pub(super) fn blame(&mut self, what: String) {
        self.blames.push(what);
    }

    /// The events in the order of their time: hosts run one after another within a
    /// step of the simulation.
    fn in_order(&self) -> Vec<&Event> {
        let mut events: Vec<&Event> = self.events.iter().collect();
        events.sort_by_key(|event| event.at);
        events
    }

    /// Every broken promise.
    pub(super) fn broken(&self) -> Vec<String> {
        let events = self.in_order();
        let mut broken = self.blames.clone();
        broken.extend(self.overlaps(&events));
        broken.extend(self.unbacked(&events));
        broken.extend(self.shrunken_tokens(&events));
        broken.extend(self.unaware(&events));
        broken.extend(self.asleep(&events));
        broken.extend(self.leaked(&events));
        broken.extend(self.late(&events));
        broken.extend(self.unnotified(&events));
        broken.extend(self.forgotten(&events));
        broken.extend(self.lost_for_nothing(&events));
        broken.extend(self.idle(&events));
        broken.extend(self.restless());
        broken.extend(self.untold(&events));
        broken.extend(self.retired(&events));
        broken.extend(self.remembered());
        broken.extend(self.denied(&events));
        if !self.switches.is_empty() {
            broken.extend(self.refused(&events));
        }
        broken
    }

    /// No two leases of a key are valid at once: a lease is valid from when its caller
    /// got its guard to the guard's last 'held', for no guard says so again once it said no.
    ///
    /// Excused: the server forgot the one before it gave the other; or what one of them rests on
    /// was lost before, by a switch, where no acknowledgement was asked for.
    fn overlaps(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let lost = self.excused(events);
        let mut acquired: Vec<_> = self
            .holdings
            .values()
            .filter(|h| h.acquired.is_some())
            .collect();
        acquired.sort_by_key(|holding| holding.acquired);
        for (index, first) in acquired.iter().enumerate() {
            let Some(last_yes) = first.last_yes else {
                continue;
            };
            for second in &acquired[index + 1..] {
                let Some((since, _)) = second.acquired else {
                    continue;
                };
                if since > last_yes {
                    break;
                }
                let both = second.last_yes.is_some() && first.attempt.key == second.attempt.key;
                let owners = [first.attempt.owner, second.attempt.owner];
                let by_switch = owners.iter().any(|owner| is_lost(&lost, *owner, since));
                if both && !by_switch && !forgot_between(events, owners[0], owners[1]) {
                    broken.push(format!(
                        "overlap: key {} is held by {} until {last_yes:?}, and by {} from \
                         {since:?}",
                        first.attempt.key, first.attempt.owner, second.attempt.owner
                    ));
                }
            }
        }
        broken
    }

    /// A guard that says 'held' belongs to the holder at the server, at that very moment.
    ///
    /// Excused: the server forgot it, or it was lost by a switch, where no acknowledgement was
    /// asked for.
    fn unbacked(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let lost = self.excused(events);
        let mut holders: BTreeMap<usize, (OwnerNumber, Duration)> = BTreeMap::new();
        let mut forgotten: Vec<OwnerNumber> = Vec::new();
        for event in events {
            match event.what {
                What::Lasts(key, owner, until) | What::Returned(key, owner, until) => {
                    holders.insert(key, (owner, until));
                }
                What::Took(key, owner) if holders.get(&key).is_some_and(|of| of.0 == owner) => {
                    holders.remove(&key);
                }
                What::Forgot => {
                    // Every attempt so far may have been granted before.
                    forgotten.extend(self.holdings.keys());
                    holders.clear();
                }
                What::Says(owner, true)
                    if !forgotten.contains(&owner) && !is_lost(&lost, owner, event.at) =>
                {
                    let key = self.holdings[&owner].attempt.key;
                    match holders.get(&key) {
                        Some((holder, until)) if *holder == owner && *until >= event.at => (),
                        other => broken.push(format!(
                            "unbacked: {owner} says held at {:?}, and at the server key {key} \
                             is {other:?}",
                            event.at
                        )),
                    }
                }
                _ => (),
            }
        }
        broken
    }

    /// Tokens grow strictly, in the order in which the server gave the lock; and in the
    /// order in which callers got their guards, among the grants between two losses of data: a
    /// grant may be on its way while the server forgets it.
    fn shrunken_tokens(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut given: BTreeMap<usize, u64> = BTreeMap::new();
        let mut acquired: BTreeMap<(usize, u32), u64> = BTreeMap::new();
        let mut grants: BTreeMap<(OwnerNumber, u64), u32> = BTreeMap::new();
        let mut in_vain: BTreeSet<(OwnerNumber, u64)> = BTreeSet::new();
        let mut forgettings = 0;
        let mut check = |last: Option<u64>, token: u64, event: &Event| {
            if last.is_some_and(|last| last >= token) {
                broken.push(format!("token: {token} after {last:?} at {:?}", event.at));
            }
        };
        for event in events {
            match event.what {
                What::Gave(key, owner, token) => {
                    check(given.insert(key, token), token, event);
                    grants.insert((owner, token), forgettings);
                }
                What::Acquired(owner, token) => {
                    let key = self.holdings[&owner].attempt.key;
                    if in_vain.contains(&(owner, token)) {
                        continue;
                    }
                    match grants.get(&(owner, token)) {
                        Some(life) => check(acquired.insert((key, *life), token), token, event),
                        // It was never given.
                        None => check(Some(u64::MAX), token, event),
                    }
                }
                What::InVain(_, owner, token) => drop(in_vain.insert((owner, token))),
                What::Forgot | What::Lost(..) => forgettings += 1,
                _ => (),
            }
        }
        broken
    }

    /// After the server lost its data, the holder notices within a heartbeat of its being back,
    /// if the host's network has no fault.
    fn unaware(&self, events: &[&Event]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut forgot = Duration::ZERO;
        for event in events {
            match event.what {
                What::Forgot => forgot = event.at,
                What::Back => {
                    for holding in self.holdings.values() {
                        let attempt = &holding.attempt;
                        let by = event.at + attempt.ttl / 3 + NOTICED_WITHIN;
                        let held = holding.acquired.is_some_and(|(at, _)| at <= forgot);
                        if held
                            && holding.last_yes.is_some_and(|yes| yes > by)
                            && !self.is_troubled(event.at, by, attempt.host)
                        {
                            broken.push(format!(
                                "unaware: {} says held after {by:?}, and the server forgot it at \
                                 {forgot:?}",
                                attempt.owner
                            ));
                        }
                    }
                }
                _ => (),
            }
        }
        broken
    }

    /// What is excused for having been lost by a switch.
    fn excused(&self, events: &[&Event]) -> Lost {
        if self.acknowledged {
            return Lost::new();
        }
        self.lost(events)
    }

    pub(super) fn host_of(&self, owner: OwnerNumber) -> Option<usize> {
        Some(self.holdings.get(&owner)?.attempt.host)
    }

    pub(super) fn is_troubled(&self, from: Duration, to: Duration, host: usize) -> bool {
        let mut switches = self.switches.iter();
        self.troubles.iter().any(|(start, end, whose)| {
            *start <= to && *end > from && whose.is_none_or(|whose| whose == host)
        }) || switches.any(|switch| switch.from <= to && switch.over > from)
    }

    /// From when to when another server came to serve.
    pub(super) fn switch_times(&self) -> impl Iterator<Item = (Duration, Duration)> {
        self.switches
            .iter()
            .map(|switch| (switch.from, switch.over))
    }
}

/// Whether the server forgot after it gave the lock to `first`, and before it gave it
/// to `second`.
fn forgot_between(events: &[&Event], first: OwnerNumber, second: OwnerNumber) -> bool {
    let gave = |owner| {
        events
            .iter()
            .position(|event| matches!(event.what, What::Gave(_, whose, _) if whose == owner))
    };
    match (gave(first), gave(second)) {
        (Some(first), Some(second)) => events[first.min(second)..first.max(second)]
            .iter()
            .any(|event| matches!(event.what, What::Forgot)),
        _ => false,
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in self.in_order() {
            writeln!(f, "{event}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}  ", self.at.as_secs_f64())?;
        match &self.what {
            What::Fault(what) => write!(f, "                    fault: {what}"),
            What::Forgot => write!(f, "                    fault: the server forgets"),
            What::Back => write!(f, "                    the server is back"),
            What::Gave(key, owner, token) => {
                write!(f, "     server: key {key} goes to {owner}, token {token}")
            }
            What::Lasts(key, owner, until) => {
                let until = until.as_secs_f64();
                write!(f, "     server: key {key} is {owner}'s until {until:.3}")
            }
            What::Took(key, owner) => write!(f, "     server: key {key} is no longer {owner}'s"),
            What::Kept(key, until) => {
                let until = until.as_secs_f64();
                write!(f, "     server: key {key} is kept until {until:.3}")
            }
            What::Freed(key, owner) => {
                write!(f, "     server: key {key} is released by {owner}")
            }
            What::Lost(key, owner) => write!(f, "     switch: {owner} has lost key {key}"),
            What::InVain(key, owner, token) => {
                write!(
                    f,
                    "     server: {owner} has key {key} in vain, token {token}"
                )
            }
            What::EndedInVain(key, owner) => {
                write!(
                    f,
                    "     server: {owner} releases key {key}, or leaves, in vain"
                )
            }
            What::Returned(key, owner, until) => {
                let until = until.as_secs_f64();
                write!(
                    f,
                    "     switch: key {key} is {owner}'s again, until {until:.3}"
                )
            }
            What::Unqueued(key, owner) => {
                write!(f, "     switch: {owner} is not in the queue of key {key}")
            }
            What::Entered(key, owner) => {
                write!(f, "     server: {owner} enters the queue of key {key}")
            }
            What::Left(key, owner) => {
                write!(f, "     server: {owner} leaves the queue of key {key}")
            }
            What::Published(hosts) => write!(f, "     server: a message to hosts {hosts:?}"),
            What::Attempted(attempt) => write!(
                f,
                "{:>4} host {} asks for key {}, ttl {:?}, wait {:?}",
                attempt.owner, attempt.host, attempt.key, attempt.ttl, attempt.wait
            ),
            What::Acquired(owner, token) => {
                write!(f, "{owner:>4} is acquired: held, token {token}")
            }
            What::Refused(owner, why) => write!(f, "{owner:>4} is refused: {why}"),
            What::Dropped(owner) => write!(f, "{owner:>4} drops its future"),
            What::Says(owner, true) => write!(f, "{owner:>4} says: held"),
            What::Says(owner, false) => write!(f, "{owner:>4} says: lost"),
            What::LetGo(owner) => write!(f, "{owner:>4} lets go"),
            What::Released(owner, outcome) => write!(f, "{owner:>4} is acquired: {outcome}"),
        }
    }
}

#[test]
fn tokens_arrive_in_order_except_across_a_forgetting() {
    use What::{Acquired, Forgot, Gave};
    let blames = |events: Vec<What>| {
        let mut history = History::default();
        for owner in [1, 2] {
            let (ttl, wait) = (Duration::from_secs(1), Wait::Forever);
            let (host, key) = (0, 0);
            let attempt = Attempt {
                owner,
                host,
                key,
                ttl,
                wait,
                at_most: None,
            };
            history.note(Duration::ZERO, What::Attempted(attempt));
        }
        for what in events {
            history.note(Duration::ZERO, what);
        }
        history.shrunken_tokens(&history.in_order()).len()
    };
    let (first, second) = (|| Gave(0, 1, 1), || Gave(0, 2, 2));
    assert_eq!(
        blames(vec![first(), second(), Acquired(1, 1), Acquired(2, 2)]),
        0
    );
    assert_eq!(
        blames(vec![first(), second(), Acquired(2, 2), Acquired(1, 1)]),
        1
    );
    assert_eq!(
        blames(vec![
            first(),
            Forgot,
            second(),
            Acquired(2, 2),
            Acquired(1, 1)
        ]),
        0
    );
    assert_eq!(
        blames(vec![
            first(),
            second(),
            Forgot,
            Acquired(2, 2),
            Acquired(1, 1)
        ]),
        1
    );
    assert_eq!(blames(vec![Gave(0, 1, 2), Forgot, Gave(0, 2, 1)]), 1);
    assert_eq!(blames(vec![first(), Acquired(2, 2)]), 1);
}

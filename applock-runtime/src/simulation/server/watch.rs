//! Writes down what scripts do to locks and lines.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::simulation::ledger::{Owner, What};
use crate::simulation::world::{World, elapsed};

use super::data::{Holder, is_lock};

/// The locks of the script that runs.
#[derive(Default)]
pub(super) struct Watch {
    locks: RefCell<BTreeMap<String, Lock>>,
    /// When each host last asked about each lock.
    asked: RefCell<BTreeMap<(usize, usize), Duration>>,
    /// The hosts that listened for each lock when the server ended its last life.
    former: BTreeSet<(usize, usize)>,
}

/// The hosts that can be told of a grant, since when.
pub(super) type Listening = BTreeMap<usize, Duration>;

/// A host whose way is in order has said so soon that it listens.
const SAYS_SO: Duration = Duration::from_secs(5);

/// One that does not listen, and was silent for longer, is nobody to offer a lock to.
const SILENCE: Duration = Duration::from_secs(3);

struct Lock {
    number: usize,
    /// Whose script it is.
    host: usize,
    was_held: bool,
    /// As last seen.
    holder: Option<Holder>,
    /// Who stood in line when the script began.
    line: Vec<Owner>,
    /// Whom it went to last.
    given: Option<Owner>,
}

impl Watch {
    pub(super) fn new(world: &World) -> Self {
        Self {
            former: world.listening.take(),
            ..Self::default()
        }
    }

    /// Before a script.
    pub(super) fn begin(&self, world: &World, host: usize, keys: &[&str]) {
        let mut data = world.data.borrow_mut();
        data.expire(elapsed());
        let locks: BTreeSet<&str> = keys.iter().copied().filter(|key| is_lock(key)).collect();
        let locks = locks.into_iter().map(|key| {
            let lock = Lock {
                number: world.key_number(key),
                host,
                was_held: data.holder(key).is_some(),
                holder: data.holder(key),
                line: data.line(key),
                given: None,
            };
            (key.to_owned(), lock)
        });
        *self.locks.borrow_mut() = locks.collect();
        let mut asked = self.asked.borrow_mut();
        for lock in self.locks.borrow().values() {
            asked.insert((host, lock.number), elapsed());
        }
    }

    /// After the script.
    pub(super) fn end(&self, world: &World, listening: &Listening) {
        for (key, mut lock) in std::mem::take(&mut *self.locks.borrow_mut()) {
            let mut data = world.data.borrow_mut();
            let (after, kept) = (data.holder(&key), data.kept(&key));
            let (line, is_kept) = (data.line(&key), kept.is_some());
            drop(data);
            // Only now: a script may write a lock for a waiter, and delete it when that can't
            // be reached.
            if lock.holder != after {
                lock.changed(world, after);
                if let Some(until) = kept {
                    world.note(What::Kept(lock.number, until));
                }
            }
            lock.moved(world, &line);
            let heard = |owner: &Owner| self.can_be_told(world, &lock, *owner, listening);
            let blame = |what: String| {
                let (number, at) = (lock.number, elapsed());
                let mut ledger = world.ledger.borrow_mut();
                ledger.blame(format!("{what} (key {number}, at {at:?})"));
            };
            if let Some(passed) = lock
                .passed(world, &line)
                .into_iter()
                .find(|owner| heard(owner))
            {
                let given = lock.given;
                blame(format!(
                    "jumped: it goes to {given:?} past {passed}, who listens"
                ));
            }
            if let Some(next) = line.iter().find(|owner| heard(owner)) {
                if lock.was_held && lock.holder.is_none() && !is_kept {
                    blame(format!("unserved: it is free, and {next} listens"));
                }
                if let Some(deaf) = lock
                    .given
                    .filter(|given| self.is_deaf(world, &lock, *given, listening))
                {
                    blame(format!(
                        "wasted: it goes to {deaf}, who can't hear that, and {next} can"
                    ));
                }
            }
            let mut told = world.listening.borrow_mut();
            told.retain(|(_, number)| *number != lock.number);
            for host in listening.keys() {
                if self.has_said_so(world, &lock, *host, listening) {
                    told.insert((*host, lock.number));
                }
            }
        }
    }

    fn asked(&self, lock: &Lock, host: usize) -> Option<Duration> {
        self.asked.borrow().get(&(host, lock.number)).copied()
    }

    /// Whether a host listens, and the server has been told so.
    fn has_said_so(&self, world: &World, lock: &Lock, host: usize, listening: &Listening) -> bool {
        listening.get(&host).is_some_and(|since| {
            let asked = self.asked(lock, host);
            asked.is_some_and(|asked| asked >= *since + SAYS_SO)
                || !world.ledger.borrow().is_troubled(*since, elapsed(), host)
        })
    }

    /// Whether one in line can be told of a grant; or could, before the server restarted.
    fn can_be_told(&self, world: &World, lock: &Lock, owner: Owner, listening: &Listening) -> bool {
        let host = world.ledger.borrow().host_of(owner).unwrap();
        let before = self.former.contains(&(host, lock.number)) && self.asked(lock, host).is_none();
        before || self.has_said_so(world, lock, host, listening)
    }

    fn is_deaf(&self, world: &World, lock: &Lock, owner: Owner, listening: &Listening) -> bool {
        let host = world.ledger.borrow().host_of(owner).unwrap();
        let stood = lock.line.contains(&owner) && host != lock.host;
        let silent = |asked: Duration| elapsed() > asked + SILENCE;
        stood && !listening.contains_key(&host) && self.asked(lock, host).is_some_and(silent)
    }
}

impl Lock {
    fn changed(&mut self, world: &World, after: Option<Holder>) {
        let owner = |holder: Option<Holder>| holder.map(|(owner, ..)| owner);
        let before = std::mem::replace(&mut self.holder, after);
        if let Some((known, ..)) = before.filter(|_| owner(before) != owner(after)) {
            world.note(What::Took(self.number, known));
            self.given = None;
        }
        if let Some((new, token, until)) = after {
            if before.is_none_or(|(known, last, _)| (known, last) != (new, token)) {
                world.note(What::Gave(self.number, new, token));
                self.given = Some(new);
            }
            world.note(What::Lasts(self.number, new, until));
        }
    }

    /// Those who were before the one whom it went to, and stand in line still.
    fn passed(&self, world: &World, line: &[Owner]) -> Vec<Owner> {
        let comes_back =
            |given: &Owner| !self.line.contains(given) && world.stood.borrow().contains(given);
        let Some(given) = self.given.filter(|given| !comes_back(given)) else {
            return Vec::new();
        };
        let ahead = self.line.iter().take_while(|owner| **owner != given);
        ahead
            .filter(|owner| line.contains(owner))
            .copied()
            .collect()
    }

    fn moved(&self, world: &World, line: &[Owner]) {
        if self.line == line {
            return;
        }
        let before: BTreeSet<Owner> = self.line.iter().copied().collect();
        let after: BTreeSet<Owner> = line.iter().copied().collect();
        for owner in self.line.iter().filter(|owner| !after.contains(owner)) {
            world.note(What::Left(self.number, *owner));
        }
        for owner in line.iter().filter(|owner| !before.contains(owner)) {
            world.note(What::Entered(self.number, *owner));
        }
        let mut stood = world.stood.borrow_mut();
        let is_new = |owner: &&Owner| !before.contains(owner) && !stood.contains(owner);
        let new = line.iter().rev().take_while(is_new).count();
        let comes_between = line.iter().filter(is_new).count() > new;
        stood.extend(line);
        let stayed = self.line.iter().filter(|owner| after.contains(owner));
        let are_now = line.iter().filter(|owner| before.contains(owner));
        if comes_between || !stayed.eq(are_now) {
            world.ledger.borrow_mut().blame(format!(
                "order: the line of key {} was {:?}, and is {line:?} at {:?}",
                self.number,
                self.line,
                elapsed()
            ));
        }
    }
}

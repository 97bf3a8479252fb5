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
}

/// A host whose way is in order has said so soon that it listens.
const SAYS_SO: Duration = Duration::from_secs(5);

struct Lock {
    number: usize,
    /// As last seen.
    holder: Option<Holder>,
    /// Who stood in line when the script began.
    line: Vec<Owner>,
    /// Whom it went to last.
    given: Option<Owner>,
}

impl Watch {
    /// Before a script.
    pub(super) fn begin(&self, world: &World, host: usize, keys: &[&str]) {
        let mut data = world.data.borrow_mut();
        data.expire(elapsed());
        let locks: BTreeSet<&str> = keys.iter().copied().filter(|key| is_lock(key)).collect();
        let locks = locks.into_iter().map(|key| {
            let lock = Lock {
                number: world.key_number(key),
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

    /// After each of its commands: one script may pass a lock on several times.
    pub(super) fn look(&self, world: &World, words: &[&str]) {
        let [_, key, ..] = words else {
            return;
        };
        let mut locks = self.locks.borrow_mut();
        let Some(lock) = locks.get_mut(*key) else {
            return;
        };
        let after = world.data.borrow_mut().holder(key);
        let is_half_written = after.is_some_and(|(.., until)| until == Duration::MAX);
        if lock.holder != after && !is_half_written {
            lock.changed(world, after);
            if let Some(until) = world.data.borrow_mut().kept(key) {
                world.note(What::Kept(lock.number, until));
            }
        }
    }

    /// After the script. `listening`: the hosts that can be told of a grant, since when.
    pub(super) fn end(&self, world: &World, listening: &BTreeMap<usize, Duration>) {
        for (key, lock) in std::mem::take(&mut *self.locks.borrow_mut()) {
            let line = world.data.borrow_mut().line(&key);
            lock.moved(world, &line);
            for passed in lock.passed(&line) {
                self.check_passed(world, &lock, passed, listening);
            }
        }
    }

    fn check_passed(
        &self,
        world: &World,
        lock: &Lock,
        passed: Owner,
        listening: &BTreeMap<usize, Duration>,
    ) {
        let mut ledger = world.ledger.borrow_mut();
        let host = ledger.host_of(passed).unwrap();
        let Some(since) = listening.get(&host) else {
            return;
        };
        let asked = self.asked.borrow().get(&(host, lock.number)).copied();
        if asked.is_none_or(|asked| asked < *since + SAYS_SO)
            && ledger.is_troubled(*since, elapsed(), host)
        {
            return;
        }
        ledger.blame(format!(
            "jumped: key {} went to {:?} at {:?}, and {passed} stood before it and listens",
            lock.number,
            lock.given,
            elapsed()
        ));
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
    fn passed(&self, line: &[Owner]) -> Vec<Owner> {
        let Some(given) = self.given else {
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
        let stayed = self.line.iter().filter(|owner| after.contains(owner));
        if !stayed.zip(line).all(|(before, now)| before == now) {
            world.ledger.borrow_mut().blame(format!(
                "order: the line of key {} was {:?}, and is {line:?} at {:?}",
                self.number,
                self.line,
                elapsed()
            ));
        }
    }
}

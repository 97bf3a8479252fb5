//! Records what scripts do to locks and wait queues.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::simulation::history::{OwnerNumber, What};
use crate::simulation::world::{World, elapsed};

use super::data::{Holder, is_lock};

/// The locks of the script that runs.
#[derive(Default)]
pub(super) struct Watch {
    server: usize,
    /// As what master the server was seen last.
    term: Cell<u64>,
    locks: RefCell<BTreeMap<String, WatchedLock>>,
    /// When each host last asked about each lock.
    last_request: RefCell<BTreeMap<(usize, usize), Duration>>,
    /// The hosts subscribed for each lock when the server ended its last life.
    former: RefCell<BTreeSet<(usize, usize)>>,
}

/// The hosts that can be notified of a grant, since when.
pub(super) type Subscribed = BTreeMap<usize, Duration>;

/// A host without a network fault has reported its subscription within so long.
const SAYS_SO: Duration = Duration::from_secs(5);

/// A process without a subscription that was silent for longer is not offered a lock.
const SILENCE: Duration = Duration::from_secs(3);

struct WatchedLock {
    number: usize,
    /// Whose script it is.
    host: usize,
    was_held: bool,
    /// As last seen.
    holder: Option<Holder>,
    /// The wait queue when the script began.
    queue: Vec<OwnerNumber>,
    /// The owner that it went to last.
    given: Option<OwnerNumber>,
}

impl Watch {
    pub(super) fn new(world: &World, server: usize) -> Self {
        Self {
            server,
            former: RefCell::new(world.subscribed[server].take()),
            ..Self::default()
        }
    }

    /// A server that has become master knows nothing of what it heard as one before.
    fn begin_term(&self, world: &World) {
        let term = world.fleet.borrow().servers[self.server].term;
        let before = self.term.replace(term);
        if before != term && before != 0 {
            self.last_request.take();
            self.former.take();
            world.subscribed[self.server].take();
        }
    }

    /// Before a script.
    pub(super) fn begin(&self, world: &World, host: usize, keys: &[&str]) {
        self.begin_term(world);
        let data = world.data(self.server);
        let mut data = data.borrow_mut();
        data.expire(elapsed());
        let locks: BTreeSet<&str> = keys.iter().copied().filter(|key| is_lock(key)).collect();
        let locks = locks.into_iter().map(|key| {
            let lock = WatchedLock {
                number: world.key_number(key),
                host,
                was_held: data.holder(key).is_some(),
                holder: data.holder(key),
                queue: data.queue(key),
                given: None,
            };
            (key.to_owned(), lock)
        });
        *self.locks.borrow_mut() = locks.collect();
        let mut last_request = self.last_request.borrow_mut();
        for lock in self.locks.borrow().values() {
            last_request.insert((host, lock.number), elapsed());
        }
    }

    /// After the script.
    pub(super) fn end(&self, world: &World, subscribed: &Subscribed) {
        for (key, mut lock) in std::mem::take(&mut *self.locks.borrow_mut()) {
            let data = world.data(self.server);
            let mut data = data.borrow_mut();
            let (after, kept) = (data.holder(&key), data.kept(&key));
            let (queue, is_kept) = (data.queue(&key), kept.is_some());
            drop(data);
            if !world.fleet.borrow().serves(self.server, &key) {
                lock.changed_in_vain(world, after, &queue);
                continue;
            }
            // Only now: a script may write a lock for a waiter, and delete it when that can't
            // be reached.
            if lock.holder != after {
                lock.changed(world, after);
                if let Some(until) = kept {
                    world.note(What::Kept(lock.number, until));
                }
            }
            lock.moved(world, &queue);
            let can_be_reached =
                |owner: &OwnerNumber| self.can_be_notified(world, &lock, *owner, subscribed);
            let blame = |what: String| {
                let (number, at) = (lock.number, elapsed());
                let mut history = world.history.borrow_mut();
                history.blame(format!("{what} (key {number}, at {at:?})"));
            };
            if let Some(passed) = lock
                .passed(world, &queue)
                .into_iter()
                .find(|owner| can_be_reached(owner))
            {
                let given = lock.given;
                blame(format!(
                    "jumped: it goes to {given:?} past {passed}, which is subscribed"
                ));
            }
            if let Some(next) = queue.iter().find(|owner| can_be_reached(owner)) {
                if lock.was_held && lock.holder.is_none() && !is_kept {
                    blame(format!("unserved: it is free, and {next} is subscribed"));
                }
                if let Some(unreachable) = lock
                    .given
                    .filter(|given| self.is_unreachable(world, &lock, *given, subscribed))
                {
                    blame(format!(
                        "wasted: it goes to {unreachable}, which can't be notified, and {next} can"
                    ));
                }
            }
            let mut known = world.subscribed[self.server].borrow_mut();
            known.retain(|(_, number)| *number != lock.number);
            for host in subscribed.keys() {
                if self.has_told(world, &lock, *host, subscribed) {
                    known.insert((*host, lock.number));
                }
            }
        }
    }

    fn last_request(&self, lock: &WatchedLock, host: usize) -> Option<Duration> {
        self.last_request
            .borrow()
            .get(&(host, lock.number))
            .copied()
    }

    /// Whether a host is subscribed, and has reported that to the server.
    fn has_told(
        &self,
        world: &World,
        lock: &WatchedLock,
        host: usize,
        subscribed: &Subscribed,
    ) -> bool {
        subscribed.get(&host).is_some_and(|since| {
            let last_request = self.last_request(lock, host);
            last_request.is_some_and(|last_request| last_request >= *since + SAYS_SO)
                || !world.history.borrow().is_troubled(*since, elapsed(), host)
        })
    }

    /// Whether a waiter can be notified of a grant; or could, before the server restarted.
    fn can_be_notified(
        &self,
        world: &World,
        lock: &WatchedLock,
        owner: OwnerNumber,
        subscribed: &Subscribed,
    ) -> bool {
        let host = world.history.borrow().host_of(owner).unwrap();
        let before = self.former.borrow().contains(&(host, lock.number))
            && self.last_request(lock, host).is_none();
        before || self.has_told(world, lock, host, subscribed)
    }

    fn is_unreachable(
        &self,
        world: &World,
        lock: &WatchedLock,
        owner: OwnerNumber,
        subscribed: &Subscribed,
    ) -> bool {
        let host = world.history.borrow().host_of(owner).unwrap();
        let has_queued = lock.queue.contains(&owner) && host != lock.host;
        let silent = |last_request: Duration| elapsed() > last_request + SILENCE;
        has_queued
            && !subscribed.contains_key(&host)
            && self.last_request(lock, host).is_some_and(silent)
    }
}

impl WatchedLock {
    /// By a server whose word does not count any more.
    fn changed_in_vain(&self, world: &World, after: Option<Holder>, queue: &[OwnerNumber]) {
        // It has a ticket, and may bring it to the server that serves.
        world.has_queued.borrow_mut().extend(queue);
        let left = self.queue.iter().filter(|owner| !queue.contains(owner));
        let held = self.holder.map(|(owner, ..)| owner);
        let held = held.filter(|held| after.is_none_or(|(owner, ..)| owner != *held));
        for owner in left.chain(&held) {
            world.note(What::EndedInVain(self.number, *owner));
        }
        if let Some((owner, token, _)) = after.filter(|_| self.holder != after) {
            world.note(What::InVain(self.number, owner, token));
        }
    }

    fn changed(&mut self, world: &World, after: Option<Holder>) {
        let owner = |holder: Option<Holder>| holder.map(|(owner, ..)| owner);
        let before = std::mem::replace(&mut self.holder, after);
        if let Some((known, ..)) = before.filter(|_| owner(before) != owner(after)) {
            world.note(What::Took(self.number, known));
            world.note(What::Freed(self.number, known));
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

    /// The waiters ahead of the one that got the lock which are in the queue still.
    fn passed(&self, world: &World, queue: &[OwnerNumber]) -> Vec<OwnerNumber> {
        let returns = |given: &OwnerNumber| {
            !self.queue.contains(given) && world.has_queued.borrow().contains(given)
        };
        let Some(given) = self.given.filter(|given| !returns(given)) else {
            return Vec::new();
        };
        let ahead = self.queue.iter().take_while(|owner| **owner != given);
        ahead
            .filter(|owner| queue.contains(owner))
            .copied()
            .collect()
    }

    fn moved(&self, world: &World, queue: &[OwnerNumber]) {
        if self.queue == queue {
            return;
        }
        let before: BTreeSet<OwnerNumber> = self.queue.iter().copied().collect();
        let after: BTreeSet<OwnerNumber> = queue.iter().copied().collect();
        for owner in self.queue.iter().filter(|owner| !after.contains(owner)) {
            world.note(What::Left(self.number, *owner));
        }
        for owner in queue.iter().filter(|owner| !before.contains(owner)) {
            world.note(What::Entered(self.number, *owner));
        }
        let mut has_queued = world.has_queued.borrow_mut();
        let is_new = |owner: &&OwnerNumber| !before.contains(owner) && !has_queued.contains(owner);
        // At the end stand those that have come now: for the first time, or back without a ticket.
        let end = queue.iter().rev();
        let end = end.take_while(|owner| !before.contains(owner));
        let comes_between = queue.iter().filter(is_new).count() > end.filter(is_new).count();
        has_queued.extend(queue);
        let stayed = self.queue.iter().filter(|owner| after.contains(owner));
        let are_now = queue.iter().filter(|owner| before.contains(owner));
        if comes_between || !stayed.eq(are_now) {
            world.history.borrow_mut().blame(format!(
                "order: the queue of key {} was {:?}, and is {queue:?} at {:?}",
                self.number,
                self.queue,
                elapsed()
            ));
        }
    }
}

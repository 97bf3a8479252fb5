//! The waiters of one lock, in their order.
//!
//! - **Order.** A waiter stands in the queue by its *ticket*, a number that only grows: the
//!   store's clock in microseconds, or the last ticket and one. First come, first served, over
//!   all tasks, threads, processes and servers. A waiter knows its ticket: where the store has lost
//!   the queue, or dropped the waiter, it brings the ticket along and gets its old place back.
//! - **Nobody starves.** A free lock goes to the first waiter that can be reached, and never to a
//!   request that came later. (The order of tokio's batch semaphore, at a store.)
//! - **The dead are skipped.** A waiter is reached through its *process*. Each poll of any waiter
//!   of a process shows that it is alive. A process is out of reach when a notification reaches
//!   nobody; one that can't be notified, when it has been silent for
//!   [`Timing::silence`](super::Timing::silence); and each, once it has let a claim run out. A waiter
//!   out of reach leaves the queue, so that the dead are met once. If it lives, it comes back with
//!   its ticket, to its old place.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::request::{Due, Owner, Process, Requester};
use super::timing::StoreTime;

/// The waiters of one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WaitQueue<W> {
    /// By ticket; of two with the same ticket the smaller owner id comes first.
    pub(crate) waiters: BTreeMap<(u64, Owner), Waiter<W>>,
    /// Where each owner stands.
    tickets: BTreeMap<Owner, u64>,
    /// The processes of which a waiter stands here.
    pub(crate) processes: BTreeMap<Process, Attendance>,
    /// The waiter that was last granted the lock unasked, and its process: if that lets the claim
    /// run out, it is out of reach.
    pub(crate) claimed: Option<(Owner, Process)>,
    /// When the queue is forgotten, unless a waiter polls before.
    pub(crate) expires_at: u64,
}

/// A request that stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Waiter<W> {
    pub(crate) owner: Owner,
    pub(crate) process: Process,
    /// The ttl that it asks for.
    pub(crate) ttl: u64,
    /// For how long its holding is to be remembered.
    pub(crate) remember: u64,
    /// What an earlier run forbids: judged again when the lock is offered to it.
    pub(crate) due: Option<Due>,
    /// What the store shows of it, and how the store reaches it. The protocol does not read it.
    pub(crate) who: W,
}

/// A process of which some wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attendance {
    /// When one of its waiters last polled.
    pub(crate) polled_at: u64,
    /// Whether it can be notified. If not, only its polls find a grant.
    pub(crate) listens: bool,
    /// It has let a claim run out, and has not polled since: one claim is enough to find out.
    pub(crate) missed_claim: bool,
    /// How many of its waiters stand in the queue.
    waiters: usize,
}

// By hand: `W` need have no default.
impl<W> Default for WaitQueue<W> {
    fn default() -> Self {
        Self {
            waiters: BTreeMap::new(),
            tickets: BTreeMap::new(),
            processes: BTreeMap::new(),
            claimed: None,
            expires_at: 0,
        }
    }
}

impl<W> WaitQueue<W> {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether that owner stands in the queue.
    pub(crate) fn stands(&self, owner: Owner) -> bool {
        self.tickets.contains_key(&owner)
    }

    /// How many stand before that owner, if it stands in the queue.
    pub(crate) fn ahead(&self, owner: Owner) -> Option<usize> {
        let place = (*self.tickets.get(&owner)?, owner);
        let last = self.waiters.last_key_value().map(|(last, _)| *last);
        Some(match last {
            Some(last) if last == place => self.len() - 1,
            _ => self.waiters.range(..place).count(),
        })
    }

    /// The waiter at the head, or the next one after `place`.
    pub(crate) fn next_after(&self, place: Option<(u64, Owner)>) -> Option<(u64, Owner)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = place.map_or(Unbounded, Excluded);
        let mut rest = self.waiters.range((from, Unbounded));
        rest.next().map(|(place, _)| *place)
    }

    /// How long the process of that waiter has been silent.
    pub(crate) fn silence(&self, process: Process, now: StoreTime) -> u64 {
        let polled = self.processes.get(&process).map(|known| known.polled_at);
        polled.map_or(u64::MAX, |polled| now.at.saturating_sub(polled))
    }

    /// Puts a request into the queue, or leaves it where it stands; its process has polled by
    /// that. Answers its ticket, and whether it is new there. A new one gets the ticket that it
    /// brings, or one at the end.
    pub(super) fn join(
        &mut self,
        request: Requester<W>,
        ticket: Option<u64>,
        listens: bool,
        now: StoreTime,
    ) -> (u64, bool) {
        let Requester {
            owner,
            process,
            ttl,
            remember,
            due,
            who,
        } = request;
        let known = self.tickets.get(&owner).copied();
        if let Some(known) = known {
            // It may have another process behind it now.
            self.remove((known, owner));
        }
        let ticket = known.or(ticket).unwrap_or_else(|| {
            let last = self.waiters.last_key_value().map(|(place, _)| place.0);
            last.map_or(now.micros, |last| now.micros.max(last.saturating_add(1)))
        });
        self.tickets.insert(owner, ticket);
        self.waiters.insert(
            (ticket, owner),
            Waiter {
                owner,
                process,
                ttl,
                remember,
                due,
                who,
            },
        );
        let before = self.processes.get(&process).map_or(0, |one| one.waiters);
        self.processes.insert(
            process,
            Attendance {
                polled_at: now.at,
                listens,
                missed_claim: false,
                waiters: before + 1,
            },
        );
        (ticket, known.is_none())
    }

    /// Takes an owner out of the queue. `None`: it did not stand there.
    pub(crate) fn leave(&mut self, owner: Owner) -> Option<Waiter<W>> {
        let ticket = *self.tickets.get(&owner)?;
        self.remove((ticket, owner))
    }

    /// Takes the waiter at that place out, and forgets a process of which nobody waits any more.
    pub(super) fn remove(&mut self, place: (u64, Owner)) -> Option<Waiter<W>> {
        let waiter = self.waiters.remove(&place)?;
        self.tickets.remove(&waiter.owner);
        if let Entry::Occupied(mut process) = self.processes.entry(waiter.process) {
            process.get_mut().waiters -= 1;
            if process.get().waiters == 0 {
                process.remove();
            }
        }
        Some(waiter)
    }

    /// Puts a waiter where it stood, as a store has written it down.
    pub(crate) fn restore(
        &mut self,
        ticket: u64,
        waiter: Waiter<W>,
        polled_at: u64,
        listens: bool,
    ) {
        let known = self.processes.get(&waiter.process);
        let attendance = Attendance {
            polled_at,
            listens,
            missed_claim: known.is_some_and(|known| known.missed_claim),
            waiters: known.map_or(0, |known| known.waiters) + 1,
        };
        self.processes.insert(waiter.process, attendance);
        self.tickets.insert(waiter.owner, ticket);
        self.waiters.insert((ticket, waiter.owner), waiter);
    }
}

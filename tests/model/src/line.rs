//! The line at the server: who waits, who of them is next, and the claim of one who was
//! handed the lock unasked.

use crate::GRACE;
use crate::setup::{Fault, Setup};
use crate::state::{Channel, Owner};

/// The waiters, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// The first is the head.
    pub waiters: Vec<Waiter>,
    /// For how many ticks an asker has let the unreachable ones ahead of it have the lock.
    pub patience: Option<u8>,
}

/// One who stands in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// The owner id.
    pub owner: Owner,
    /// It was handed the lock, and not heard of since: it keeps its place, and is passed
    /// over until it knocks.
    pub missed: bool,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The asker's. It passes over some who can't be reached, or over none.
    Asker { passes_over: bool },
    /// That waiter's, who is handed the lock.
    Waiter(Owner),
    /// Nobody's who can be reached.
    Nobody,
}

/// What the server needs for the grant step, beside what it keeps.
pub(crate) struct Desk<'a> {
    pub(crate) tokens: &'a mut Vec<u8>,
    pub(crate) channels: &'a [Channel],
    /// The process that is about to be answered: it is reached by the answer.
    pub(crate) answered: Option<u8>,
    pub(crate) setup: &'a Setup,
}

impl Desk<'_> {
    fn reaches(&self, waiter: &Waiter) -> bool {
        if waiter.missed && !self.setup.has(Fault::HandedAgainAndAgain) {
            return false;
        }
        let process = self.setup.process(waiter.owner);
        let channel = self.channels.get(usize::from(process));
        self.answered == Some(process) || channel.is_some_and(|one| one.has_a_receiver())
    }
}

impl Line {
    /// Goes to the end, or keeps its place: also one that had missed its turn.
    pub(crate) fn enter(&mut self, owner: Owner, setup: &Setup) {
        if setup.has(Fault::BackWithEachKnock) {
            self.leave(owner);
        }
        match self.waiters.iter_mut().find(|one| one.owner == owner) {
            Some(place) => place.missed = false,
            None => self.waiters.push(Waiter {
                owner,
                missed: false,
            }),
        }
    }

    pub(crate) fn leave(&mut self, owner: Owner) {
        self.waiters.retain(|one| one.owner != owner);
    }

    /// The grant step: whose turn it is, now that the lock is free.
    pub(crate) fn turn(&self, asker: Option<Owner>, desk: &Desk<'_>) -> Turn {
        if desk.setup.has(Fault::LastInLineFirst) {
            let last = self.waiters.last().filter(|last| desk.reaches(last));
            if let Some(last) = last.filter(|last| Some(last.owner) != asker) {
                return Turn::Waiter(last.owner);
            }
        }
        let mut passes_over = false;
        for waiter in &self.waiters {
            if Some(waiter.owner) == asker {
                return Turn::Asker { passes_over };
            }
            if desk.reaches(waiter) {
                return Turn::Waiter(waiter.owner);
            }
            passes_over = true;
        }
        match asker {
            Some(_) => Turn::Asker { passes_over },
            None => Turn::Nobody,
        }
    }

    /// It is handed the lock. Its place is kept until it is heard of.
    pub(crate) fn hand(&mut self, owner: Owner, setup: &Setup) {
        if setup.has(Fault::PlaceLostWithTheClaim) {
            self.leave(owner);
        }
        for waiter in &mut self.waiters {
            waiter.missed |= waiter.owner == owner;
        }
    }

    /// Whether an asker has to let those ahead of it go first still, if they come back.
    pub(crate) fn has_patience(&self, setup: &Setup) -> bool {
        !setup.queue.impatient && self.patience != Some(GRACE)
    }

    /// Whether somebody could be handed the lock.
    pub(crate) fn has_reachable(&self, desk: &Desk<'_>) -> bool {
        self.waiters.iter().any(|one| desk.reaches(one))
    }
}

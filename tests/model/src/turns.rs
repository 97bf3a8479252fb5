//! Who entered the queue when, as seen from outside: the server keeps its own account, and
//! the properties compare.

use crate::setup::Setup;
use crate::state::{Channel, Owner, Phase, State};

/// An account of the queue that no fault touches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Turns {
    /// Who entered and had no turn yet, in the order of entering; and whether it was handed
    /// the lock since it was last heard of.
    entered: Vec<(Owner, bool)>,
    /// The lock went to somebody while one stood in the queue who was there before, and could
    /// have been told.
    pub jumped: bool,
    /// A release left the lock free while somebody stood in the queue who could have been told.
    pub left_lying: bool,
}

impl Turns {
    /// It stands in the queue, and was heard of. One that was granted the lock unheard has
    /// lost its place, unless it brings its ticket.
    pub(crate) fn enter(&mut self, owner: Owner, has_ticket: bool) {
        match self.entered.iter().position(|(one, _)| *one == owner) {
            Some(at) if self.entered[at].1 && !has_ticket => {
                self.entered.remove(at);
                self.entered.push((owner, false));
            }
            Some(at) => self.entered[at].1 = false,
            None => self.entered.push((owner, false)),
        }
    }

    /// It had its turn, and knows; or it does not want it any more.
    pub(crate) fn leave(&mut self, owner: Owner) {
        self.entered.retain(|(one, _)| *one != owner);
    }

    /// It was handed the lock, and may not know.
    fn hand(&mut self, owner: Owner) {
        let entered = self.entered.iter_mut();
        for (_, handed) in entered.filter(|(one, _)| *one == owner) {
            *handed = true;
        }
    }
}

impl State {
    /// The lock goes to this one: whether it was its turn.
    ///
    /// A late poll of one that has given up may bring its old ticket, and pass the lock through its
    /// hands for the time of a release: that is no turn.
    pub(crate) fn note_grant(&mut self, to: Owner, setup: &Setup) {
        let phase = self.acquisitions.get(usize::from(to));
        if !phase.is_some_and(Phase::is_under_way) {
            return;
        }
        let before = self.turns.entered.iter().take_while(|(one, _)| *one != to);
        let jumped = before.filter(|(_, handed)| !handed).any(|(one, _)| {
            let phase = self.acquisitions.get(usize::from(*one));
            let process = usize::from(setup.process(*one));
            matches!(phase, Some(Phase::Waiting { .. }))
                && self.channels.get(process) == Some(&Channel::Open)
        });
        self.turns.jumped |= jumped;
        self.turns.hand(to);
    }
}

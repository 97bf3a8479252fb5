//! Who entered the line when, as seen from outside: the server keeps its own account, and
//! the properties compare.

use crate::setup::Setup;
use crate::state::{Channel, Owner, Phase, State};

/// An account of the line that no fault touches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Turns {
    /// Who entered and had no turn yet, in the order of entering; and whether it was handed
    /// the lock since it was last heard of.
    entered: Vec<(Owner, bool)>,
    /// The lock went to somebody while one stood in line who was there before, and could
    /// have been told.
    pub jumped: bool,
    /// A release left the lock free while somebody stood in line who could have been told.
    pub left_lying: bool,
}

impl Turns {
    /// It stands in line, and was heard of.
    pub(crate) fn enter(&mut self, owner: Owner) {
        match self.entered.iter_mut().find(|(one, _)| *one == owner) {
            Some((_, handed)) => *handed = false,
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
    pub(crate) fn note_grant(&mut self, to: Owner, setup: &Setup) {
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

//! Which waiter joined the queue when, as seen from outside: the server keeps its own
//! account, and the properties compare.

use crate::state::{Owner, Stage, State};

/// An account of the queue that no fault touches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arrivals {
    /// The owners that joined the queue and do not know of a grant yet, in the order of
    /// joining.
    joined: Vec<(Owner, Place)>,
    /// The lock was granted past a waiter that had come before, and could have been granted it.
    pub jumped: bool,
    /// A lock that was given back was left free, although a waiter could have been granted it.
    pub left_free: bool,
    /// A waiter has lost its place, and was neither granted the lock nor dead.
    pub lost_place: bool,
    /// A waiter was written down as the holder and can't find out, or was notified of a
    /// grant that it did not get.
    pub granted_in_vain: bool,
}

/// What has become of a waiter's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// It stands in the queue.
    Kept,
    /// It was granted the lock, and has not been heard of since.
    Granted,
    /// Its process was dead, or the queue was forgotten; it has not been heard of since.
    Dropped,
    /// It came back without a ticket, for it had never heard of one: those that came
    /// meanwhile may go first.
    Late,
}

impl Arrivals {
    /// It polls, and brings a ticket or none.
    pub(crate) fn enter(&mut self, owner: Owner, with_ticket: bool) {
        match self.joined.iter_mut().find(|(one, _)| *one == owner) {
            Some((_, place @ (Place::Granted | Place::Dropped))) => {
                *place = match with_ticket {
                    true => Place::Kept,
                    false => Place::Late,
                };
            }
            Some(_) => {}
            None => self.joined.push((owner, Place::Kept)),
        }
    }

    /// It does not want the lock any more.
    pub(crate) fn leave(&mut self, owner: Owner) {
        self.joined.retain(|(one, _)| *one != owner);
    }

    /// These have no place at the server any more, and that is right.
    pub(crate) fn drop_those(&mut self, dropped: impl Fn(Owner) -> bool) {
        for (owner, place) in &mut self.joined {
            if *place == Place::Kept && dropped(*owner) {
                *place = Place::Dropped;
            }
        }
    }

    /// What has become of its place, if it has joined the queue.
    pub fn place(&self, owner: Owner) -> Option<Place> {
        let mut joined = self.joined.iter();
        joined
            .find(|(one, _)| *one == owner)
            .map(|(_, place)| *place)
    }

    /// Whether a waiter that has a right to its place does not stand in the queue.
    pub(crate) fn misses(&self, stands: impl Fn(Owner) -> bool) -> bool {
        let mut kept = self.joined.iter().filter(|(_, one)| *one == Place::Kept);
        kept.any(|(owner, _)| !stands(*owner))
    }

    /// It is granted the lock, and may not know.
    pub(crate) fn grant(&mut self, to: Owner) {
        for (owner, place) in &mut self.joined {
            if *owner == to && *place != Place::Late {
                *place = Place::Granted;
            }
        }
    }
}

impl State {
    /// A client that knows of its grant, or has left, waits no more.
    pub(crate) fn tidy_arrivals(&mut self) {
        let acquisitions = &self.acquisitions;
        self.arrivals.joined.retain(|(owner, _)| {
            let stage = acquisitions.get(usize::from(*owner));
            matches!(stage, Some(Stage::Waiting { .. } | Stage::Dead))
        });
    }

    /// The lock goes to this one: whether it came first of those that could be granted it.
    pub(crate) fn note_grant(&mut self, to: Owner, reachable: &[Owner]) {
        // A late poll of a client that waits no more has its old place: it did come first.
        let stage = self.acquisitions.get(usize::from(to));
        let waits_no_more = !matches!(stage, Some(Stage::Asking | Stage::Waiting { .. }));
        let before = self
            .arrivals
            .joined
            .iter()
            .take_while(|(one, _)| *one != to);
        let jumped = before
            .filter(|(owner, place)| *place == Place::Kept && reachable.contains(owner))
            .any(|(owner, _)| {
                let stage = self.acquisitions.get(usize::from(*owner));
                matches!(stage, Some(Stage::Waiting { .. }))
            });
        self.arrivals.jumped |= jumped && !waits_no_more;
        self.arrivals.grant(to);
    }
}

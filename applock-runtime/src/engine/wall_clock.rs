//! The wall clock, and the leases that a jump of it makes suspect.

use crate::store::OwnerId;

use super::core::{Actor, LOOK};
use super::lease::Standing;
use super::lease_time::Sent;
use super::state::EntryState;

impl Actor {
    /// Asks the store after every lease that a jump of the wall clock made suspect.
    pub(super) fn look_at_the_wall_clock(&mut self) {
        let Some(next) = self.next_look else {
            return;
        };
        let now = self.now();
        if now < next {
            return;
        }
        let sent = Sent::now(&*self.parts.clock);
        if let Some(jump) = sent.wall_jump_since(self.looked.replace(sent)) {
            tracing::warn!(
                ?jump,
                "the wall clock has jumped ahead: it was set, or this machine stood still; \
                 asking the store which locks are ours still"
            );
            for owner in self.owners() {
                if let Some(EntryState::Holding(holding)) = self.state(owner)
                    && holding.lease.standing() == Standing::Suspect
                    && holding.lease.asks_first()
                {
                    self.doubt(owner);
                }
            }
        }
        let mut states = self.entries.values().map(|entry| &entry.state);
        let held = states.any(|state| matches!(state, EntryState::Holding(_)));
        self.next_look = held.then(|| now + LOOK);
    }

    /// A jump of the wall clock has made the lease suspect: the store is asked at once.
    pub(super) fn doubt(&mut self, owner: OwnerId) {
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        let lease = &holding.lease;
        // A heartbeat may have cleared it meanwhile.
        if lease.standing() != Standing::Suspect {
            lease.settle();
        } else {
            tracing::debug!(
                key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
                "the wall clock has jumped ahead; asking whether the lock is ours still"
            );
            self.beat(owner);
            self.rest(owner);
        }
    }
}

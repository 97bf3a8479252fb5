//! The wall clock, and the leases that a jump of it makes suspect.

use crate::store::OwnerId;

use super::core::{Actor, WALL_CHECK};
use super::lease::Validity;
use super::lease_time::Sent;
use super::state::EntryState;

impl Actor {
    /// Asks the store after every lease that a jump of the wall clock made suspect.
    pub(super) fn check_wall_clock(&mut self) {
        let Some(next) = self.next_wall_check else {
            return;
        };
        let now = self.now();
        if now < next {
            return;
        }
        let sent = Sent::now(&*self.parts.clock);
        if let Some(jump) = sent.wall_jump_since(self.wall_checked.replace(sent)) {
            tracing::warn!(
                ?jump,
                "the wall clock has jumped ahead: it was set, or this machine stood still; \
                 asking the store which locks are ours still"
            );
            for owner in self.owners() {
                if let Some(EntryState::Holding(holding)) = self.state(owner)
                    && holding.lease.validity() == Validity::Suspect
                    && holding.lease.asks_first()
                {
                    self.suspect(owner);
                }
            }
        }
        let mut states = self.entries.values().map(|entry| &entry.state);
        let held = states.any(|state| matches!(state, EntryState::Holding(_)));
        self.next_wall_check = held.then(|| now + WALL_CHECK);
    }

    /// A jump of the wall clock has made the lease suspect: the store is asked at once.
    pub(super) fn suspect(&mut self, owner: OwnerId) {
        let Some(EntryState::Holding(holding)) = self.state(owner) else {
            return;
        };
        let lease = &holding.lease;
        // A heartbeat may have cleared it meanwhile.
        if lease.validity() != Validity::Suspect {
            lease.clear();
        } else {
            tracing::debug!(
                key = %lease.key.lock, owner = %owner.simple(), token = lease.token,
                "the wall clock has jumped ahead; asking whether the lock is ours still"
            );
            self.heartbeat(owner);
            self.arm_holding(owner);
        }
    }
}

//! The wall clock: a jump of it makes leases suspect, and the store is asked.
//!
//! Leases are judged by a clock that counts while the machine is suspended. A virtual
//! machine that is paused, or restored from a snapshot, stops that clock as well: it wakes
//! with leases that look fresh, while other processes have had the locks for hours. The
//! wall clock is what such a machine is set right by first. So wherever it runs ahead by
//! more than a second, every lease is *suspect*: it does not count as held until a
//! heartbeat that left after the jump is answered. (A wall clock that was set by hand costs
//! one heartbeat.)
//!
//! A guard that reads its lease finds the jump by itself; the check here, once a second, is
//! for holders that do not read theirs. The wall clock is used for nothing else: no lease is
//! judged by it.

use crate::store::OwnerId;

use super::core::{Actor, WALL_CHECK};
use super::lease::Validity;
use super::lease_time::Sent;
use super::state::EntryState;

impl Actor {
    /// Checks the wall clock, if it is time to, and sends a heartbeat for each suspect
    /// lease.
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
        debug_assert_eq!(
            self.held,
            self.entries
                .values()
                .filter(|entry| entry.state.is_held())
                .count(),
            "counted as it is"
        );
        self.next_wall_check = (self.held > 0).then(|| now + WALL_CHECK);
    }

    /// A lease is suspect: the store is asked at once, by a heartbeat.
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
                key = %lease.key, owner = %owner.simple(), token = lease.token,
                "the wall clock has jumped ahead; asking whether the lock is ours still"
            );
            self.heartbeat(owner);
            self.arm_holding(owner);
        }
    }
}

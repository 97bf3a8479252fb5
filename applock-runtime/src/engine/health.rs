//! What the engine knows of itself and of its store, for probes.
//!
//! Whether the store is up is a by-product of the answers that come anyhow: nothing is sent for it.
//! It says what the last answer was, and is no promise for the next.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::health::Health;
use crate::measures;
use crate::store::StoreResult;

use super::core::{Actor, Completion};
use super::state::EntryState;

/// Whether the store has answered; a refusal that a person has to mend is an answer.
pub(super) fn is_answer<T>(outcome: &StoreResult<T>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => !error.is_passing(),
    }
}

impl Completion {
    /// Whether the store has answered. `None`: it was not asked.
    fn tells(&self) -> Option<bool> {
        match self {
            Self::Acquired(_, _, outcomes) => Some(outcomes.iter().any(is_answer)),
            Self::Renewed(_, _, outcomes) => Some(outcomes.iter().any(is_answer)),
            Self::Released(_, _, outcomes) => Some(outcomes.iter().any(is_answer)),
            Self::Asked(is_answered) => Some(*is_answered),
            Self::Forced(_, is_answered) => Some(*is_answered),
            Self::Nothing => None,
        }
    }
}

impl Actor {
    /// Notes what an answer tells of the store. The gauges are told of a change before any counter
    /// is: who sees a failed heartbeat sees that the store is down.
    pub(super) fn note(&mut self, done: &Completion) {
        let Some(is_up) = done.tells() else {
            return;
        };
        if is_up {
            self.store_health.answered = Some(self.now());
        }
        if self.store_health.is_up.replace(is_up) != Some(is_up) {
            self.measure();
        }
    }

    /// How the engine is. Goes through all entries, once for each probe.
    pub(super) fn health(&self, reply: &SyncSender<Health>) {
        let now = self.now();
        let acquiring = |state: &EntryState| matches!(state, EntryState::Acquiring(_));
        let states = || self.entries.values().map(|entry| &entry.state);
        let health = Health {
            is_alive: true,
            store_is_up: self.store_health.is_up,
            last_answer_age: self.store_health.answered.map(|at| now - at),
            held: self.held,
            waiting: states().filter(|state| acquiring(state)).count(),
            smallest_margin: self.smallest_margin(),
            is_closed: self.closing.is_some(),
        };
        // The caller may have stopped waiting.
        let _ = reply.try_send(health);
    }

    /// Tells the gauges what has changed.
    pub(super) fn measure(&mut self) {
        if measures::ENABLED {
            let mut gauges = std::mem::take(&mut self.gauges);
            let is_up = self.store_health.is_up;
            gauges.tell(self.now(), self.held, is_up, || self.smallest_margin());
            self.gauges = gauges;
        }
    }

    /// How long until the first of the held leases ends.
    pub(super) fn smallest_margin(&self) -> Option<Duration> {
        let lease = |state: &EntryState| match state {
            EntryState::Holding(holding) => Some(holding.lease.remaining()),
            _ => None,
        };
        let states = self.entries.values().map(|entry| &entry.state);
        states.filter_map(lease).min()
    }
}

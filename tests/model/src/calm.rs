//! What comes of a state if nothing goes wrong any more, but for one thing: no notification
//! arrives.
//!
//! 'No waiter waits in vain' is about what comes later, and a search by states can't tell a
//! step that may never happen from one that will. So the rest is played to its end, in one
//! order: a holder releases, a waiter whose timer says so polls, and each is answered.

use crate::TTL;
use crate::server::Reply;
use crate::setup::{Fault, Setup};
use crate::state::{Message, Owner, Stage, State};

impl Setup {
    /// Whether each waiter that lives is granted the lock, wherever the world is now:
    /// with nothing but the timers.
    pub(crate) fn serves_all(&self, state: &State) -> bool {
        if !has_a_waiter(state) {
            return true;
        }
        let mut state = state.clone();
        // It is lost, all of it.
        state.network.clear();
        let grants = state.acquisitions.len() + state.server.waiters().count() + 1;
        for _ in 0..grants * usize::from(TTL + self.timing.claim + self.timing.grace + self.keep) {
            self.calm_tick(&mut state);
            if !has_a_waiter(&state) {
                return true;
            }
        }
        false
    }

    fn calm_tick(&self, state: &mut State) {
        let owners = 0..state.acquisitions.len();
        for owner in owners.filter_map(|owner| Owner::try_from(owner).ok()) {
            match state.stage(owner).cloned() {
                Some(Stage::Holding { .. } | Stage::Lost { .. } | Stage::Releasing { .. }) => {
                    self.release(state, owner);
                    state.set(owner, Stage::Over);
                }
                Some(Stage::Waiting { lag, ticket }) if self.polls_when_calm(state, owner, lag) => {
                    self.poll_is_answered(state, owner, ticket);
                }
                _ => {}
            }
            state.network.retain(is_an_answer);
        }
        let answers = std::mem::take(&mut state.network);
        for answer in answers {
            self.granted(state, answer);
        }
        state.network.clear();
        state.server.pass(self);
    }

    /// Whether its timer has it poll: or, where it was not answered yet, ask again.
    fn polls_when_calm(&self, state: &State, owner: Owner, lag: Option<i8>) -> bool {
        match self.fault {
            _ if lag.is_none() => true,
            Some(Fault::NobodyPolls) => false,
            Some(Fault::OnlyTheHeadPolls) => state.server.waiters().next() == Some(owner),
            _ => self.is_first(state, owner),
        }
    }

    fn poll_is_answered(&self, state: &mut State, owner: Owner, ticket: Option<u8>) {
        let stage = match self.acquire(state, owner, true, ticket) {
            Reply::Granted(grant) => Stage::Holding {
                token: grant.token,
                grant: grant.number,
                left: TTL - 1,
                revived: false,
            },
            Reply::Queued { ticket: new } => Stage::Waiting {
                lag: Some(0),
                ticket: new.or(ticket),
            },
            Reply::AlreadyRan => Stage::Over,
            Reply::Busy => return,
        };
        state.set(owner, stage);
    }
}

/// Whether a client waits that is alive.
fn has_a_waiter(state: &State) -> bool {
    let mut stages = state.acquisitions.iter();
    stages.any(|stage| matches!(stage, Stage::Waiting { .. }))
}

fn is_an_answer(message: &Message) -> bool {
    matches!(message, Message::Granted { .. }) && !message.is_notification()
}

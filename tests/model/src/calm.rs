//! What comes of a state if nothing goes wrong any more, but for one thing: no message that
//! nobody asked for arrives.
//!
//! 'Nobody waits in vain' is about what comes later, and a search by states can't tell a
//! step that may never happen from one that will. So the rest is played to its end, in one
//! order: who holds lets go, who has to poll polls, and each is answered.

use crate::server::Reply;
use crate::setup::{Fault, Setup};
use crate::state::{Message, Owner, Phase, State};
use crate::{CLAIM, GRACE, TTL};

impl Setup {
    /// Whether each who waits and lives has its turn, wherever the world is now: with
    /// nothing but the timers.
    pub(crate) fn serves_all(&self, state: &State) -> bool {
        if !waits_somebody(state) {
            return true;
        }
        let mut state = state.clone();
        // It is lost, all of it.
        state.network.clear();
        let turns = state.acquisitions.len() + state.server.waiters().count() + 1;
        for _ in 0..turns * usize::from(TTL + CLAIM + GRACE) {
            self.calm_tick(&mut state);
            if !waits_somebody(&state) {
                return true;
            }
        }
        false
    }

    fn calm_tick(&self, state: &mut State) {
        let owners = 0..state.acquisitions.len();
        for owner in owners.filter_map(|owner| Owner::try_from(owner).ok()) {
            match state.phase(owner).cloned() {
                Some(Phase::Holding { .. } | Phase::Lost { .. } | Phase::Ending { .. }) => {
                    self.release_arrives(state, owner);
                    state.set(owner, Phase::Over);
                }
                Some(Phase::Waiting { lag, .. }) if self.polls_when_calm(state, owner, lag) => {
                    self.poll_is_answered(state, owner);
                }
                _ => {}
            }
            state.network.retain(is_an_answer);
        }
        let answers = std::mem::take(&mut state.network);
        for answer in answers {
            self.handed(state, answer);
        }
        state.network.clear();
        state.server.tick(self);
    }

    /// Whether its timer has it poll: or, where it was not answered yet, ask again.
    fn polls_when_calm(&self, state: &State, owner: Owner, lag: Option<i8>) -> bool {
        let head = state.server.waiters().next();
        match self.fault {
            _ if lag.is_none() => true,
            Some(Fault::NobodyPolls) => false,
            Some(Fault::OnlyTheHeadPolls) => head == Some(owner),
            _ => self.is_first(state, owner),
        }
    }

    fn poll_is_answered(&self, state: &mut State, owner: Owner) {
        let known = match state.phase(owner) {
            Some(Phase::Waiting { ticket, .. }) => *ticket,
            _ => None,
        };
        let (server, mut desk) = state.desk(self);
        let (reply, _) = server.acquire(owner, true, known, &mut desk);
        let phase = match reply {
            Reply::Granted(held) => Phase::Holding {
                token: held.token,
                grant: held.grant,
                left: TTL - 1,
                revived: false,
            },
            Reply::Queued(ticket) => Phase::Waiting {
                lag: Some(0),
                ticket: ticket.or(known),
            },
            Reply::Busy => Phase::Waiting {
                lag: Some(0),
                ticket: known,
            },
        };
        state.set(owner, phase);
    }
}

/// Whether somebody waits who is alive.
fn waits_somebody(state: &State) -> bool {
    let mut phases = state.acquisitions.iter();
    phases.any(|phase| matches!(phase, Phase::Waiting { .. }))
}

fn is_an_answer(message: &Message) -> bool {
    use crate::state::By;
    matches!(message, Message::Handed { by: By::Answer, .. })
}

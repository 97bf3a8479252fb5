//! What a client makes of an answer, and of the time.

use crate::setup::{Fault, Setup};
use crate::state::{Message, Stage};
use crate::{COUNTS_FOR, TTL};

/// For how many ticks a lease counts still whose request left so long ago (rule R1).
fn counts_still(age: u8, setup: &Setup) -> u8 {
    let counts_for = match setup.fault {
        Some(Fault::NoMargin) => TTL,
        _ => COUNTS_FOR,
    };
    match setup.fault {
        Some(Fault::JudgedFromArrival) => counts_for,
        _ => counts_for.saturating_sub(age),
    }
}

impl Stage {
    /// An answer arrives.
    pub(crate) fn hear(&mut self, answer: &Message, setup: &Setup) {
        match *answer {
            Message::Acquired {
                token, grant, age, ..
            } => self.granted(token, grant, age, setup),
            Message::Renewed { age, .. } => self.renewed(age, setup),
            Message::NotYours { .. } => self.taken(),
            Message::Queued { lag, ticket, .. } => self.queued(lag, ticket),
            // Its engine sees to it that no request of it can come later (rule R6).
            Message::AlreadyRan { .. } if matches!(self, Stage::Waiting { .. }) => {
                *self = Stage::Releasing { held: false };
            }
            _ => {}
        }
    }

    /// Whether an answer would make a difference. If it would not, it never will: an
    /// acquisition never goes back, and an answer only grows older.
    pub(crate) fn would_hear(&self, answer: &Message, setup: &Setup) -> bool {
        let mut after = self.clone();
        after.hear(answer, setup);
        after != *self
    }

    /// 'It is yours', to a request that left so long ago. An answer to a client that does
    /// not ask any more is for the engine's release, which goes on anyway; one that came too
    /// late is heard by nobody, and leaves the outcome unknown.
    fn granted(&mut self, token: u8, grant: u8, age: u8, setup: &Setup) {
        let left = counts_still(age, setup);
        if left > 0 && matches!(self, Stage::Asking | Stage::Waiting { .. }) {
            *self = Stage::Holding {
                token,
                grant,
                left,
                revived: false,
            };
        }
    }

    /// 'You stand in the queue': the latest answer counts, and the latest ticket.
    fn queued(&mut self, judged: i8, new: Option<u8>) {
        if let Stage::Waiting { lag, ticket } = self {
            *lag = Some(judged);
            *ticket = new.or(*ticket);
        }
    }

    /// 'Renewed', to a heartbeat that left so long ago: moves the end forward, never back.
    fn renewed(&mut self, age: u8, setup: &Setup) {
        let more = counts_still(age, setup);
        match self {
            Stage::Holding { left, .. } => *left = more.max(*left),
            Stage::Lost { token, grant } if setup.has(Fault::LostComesBack) && more > 0 => {
                *self = Stage::Holding {
                    token: *token,
                    grant: *grant,
                    left: more,
                    revived: true,
                };
            }
            _ => {}
        }
    }

    /// 'Not yours': lost, with nothing to wait for (rule R4).
    fn taken(&mut self) {
        if let Stage::Holding { token, grant, .. } = *self {
            *self = Stage::Lost { token, grant };
        }
    }

    /// A tick of the client's clock: the lease ends by it, with no answer from anyone
    /// (rule R4).
    pub(crate) fn tick(&mut self, setup: &Setup) {
        if let Stage::Waiting { lag: Some(lag), .. } = self {
            *lag = setup.lag_of_a_waiter(*lag);
        }
        if let Stage::Holding { left, .. } = self {
            *left -= 1;
            if *left == 0 {
                self.taken();
            }
        }
    }
}

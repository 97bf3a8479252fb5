//! What a waiting client does: its knocks, what it makes of a grant that it did not ask for
//! just now, and what may happen to its process.

use crate::line::Desk;
use crate::protocol::Action;
use crate::server::{Given, Reply};
use crate::setup::{Fault, Judged, Setup};
use crate::state::{By, Channel, Message, Owner, Phase, State};
use crate::{CLAIM, JUMP, LIFE, TTL};

impl Setup {
    /// Whether this one may knock: it is the first waiter of its process.
    pub(crate) fn knocks(&self, state: &State, owner: Owner) -> bool {
        state.spent.knocks < self.queue.knocks && self.is_first(state, owner)
    }

    /// Whether no other of its process waits that asked earlier.
    pub(crate) fn is_first(&self, state: &State, owner: Owner) -> bool {
        let earlier = (0..owner).zip(&state.acquisitions);
        let mut siblings = earlier.filter(|(one, _)| self.process(*one) == self.process(owner));
        !siblings.any(|(_, phase)| matches!(phase, Phase::Waiting { .. }))
    }

    /// What may happen to those who wait, beside their own steps.
    pub(crate) fn queue_actions(&self, state: &State, to: &mut Vec<Action>) {
        let (queue, spent) = (&self.queue, &state.spent);
        for (process, channel) in (0..).zip(&state.channels) {
            if channel.lives() && spent.crashes < queue.crashes {
                to.push(Action::Crash(process));
            }
            match channel {
                Channel::Open if spent.breaks < queue.breaks => to.push(Action::Break(process)),
                Channel::Broken => to.push(Action::Mend(process)),
                _ => {}
            }
        }
        if spent.forced < queue.forced && state.server.holder.is_some() {
            to.push(Action::Force);
        }
        if spent.jumps < queue.jumps && !state.is_kept_for_somebody() {
            to.push(Action::Jump);
        }
    }

    /// One more acquisition that waits.
    pub(crate) fn wait(&self, state: &mut State) {
        let owner = state.add(Phase::Waiting { lag: None });
        self.knock(state, owner);
    }

    /// The same acquire again, with the same owner id.
    pub(crate) fn knock(&self, state: &mut State, owner: Owner) {
        state.network.insert(Message::Acquire {
            owner,
            waits: true,
            age: 0,
        });
    }

    /// A process dies; what it sent may arrive still.
    pub(crate) fn crash(&self, state: &mut State, process: u8) {
        state.spent.crashes += 1;
        let channel = match self.queue.half_open {
            true => Channel::HalfOpen,
            false => Channel::Gone,
        };
        state.set_channel(process, channel);
        for (owner, phase) in (0..).zip(&mut state.acquisitions) {
            if self.process(owner) == process {
                *phase = Phase::Dead;
            }
        }
    }

    /// A subscription breaks, with what was on its way there.
    pub(crate) fn disconnect(&self, state: &mut State, process: u8) {
        state.spent.breaks += 1;
        state.set_channel(process, Channel::Broken);
        state.network.retain(|message| {
            !matches!(message, Message::Handed { owner, by: By::Push, .. }
                if self.process(*owner) == process)
        });
    }

    /// The server's clock leaps: a lock expires earlier by that, and all its times are off
    /// against what it told before.
    pub(crate) fn jump(&self, state: &mut State) {
        state.spent.jumps += 1;
        for _ in 0..JUMP {
            state.server.tick(self);
        }
        if self.queue.judged == Judged::ServerTime {
            state.shift_lags(JUMP);
        }
    }

    /// An acquire arrives.
    pub(crate) fn acquire_arrives(&self, state: &mut State, owner: Owner, waits: bool, age: u8) {
        let grants = state.tokens.len();
        let (server, mut desk) = state.desk(self, None);
        let (reply, handed) = server.acquire(owner, waits, &mut desk);
        let answer = match reply {
            Reply::Granted(given) => {
                if state.tokens.len() > grants {
                    state.note_grant(owner, self);
                }
                state.turns.leave(owner);
                Some(Message::Granted {
                    owner,
                    token: given.token,
                    grant: given.grant,
                    age,
                })
            }
            Reply::NotNow if waits => {
                state.turns.enter(owner);
                let lag = self.lag_at_the_server(age);
                Some(Message::Queued { owner, lag })
            }
            Reply::NotNow => None,
        };
        state.network.extend(answer);
        self.send_handed(state, handed, None);
    }

    /// A release, or a leave, arrives.
    pub(crate) fn release_arrives(&self, state: &mut State, owner: Owner) {
        let process = self.process(owner);
        let held = state.server.holder.is_some();
        let (server, mut desk) = state.desk(self, Some(process));
        let handed = server.release(owner, &mut desk);
        let lying = server.holder.is_none() && server.line.has_reachable(&desk);
        state.turns.left_lying |= held && lying;
        state.turns.leave(owner);
        self.send_handed(state, handed, Some(process));
    }

    /// Somebody takes the lock from its holder.
    pub(crate) fn force(&self, state: &mut State) {
        state.spent.forced += 1;
        let (server, mut desk) = state.desk(self, None);
        let handed = server.force(&mut desk);
        self.send_handed(state, handed, None);
    }

    /// Tells a waiter that it was handed the lock: in the answer, if its process is about
    /// to have one.
    fn send_handed(&self, state: &mut State, handed: Option<Given>, answered: Option<u8>) {
        let Some(Given {
            owner,
            token,
            grant,
        }) = handed
        else {
            return;
        };
        state.note_grant(owner, self);
        let process = self.process(owner);
        let by = match answered == Some(process) {
            true => By::Answer,
            false => By::Push,
        };
        let channel = state.channels.get(usize::from(process));
        if channel.is_some_and(|one| one.lives()) {
            let age = 0;
            state.network.insert(Message::Handed {
                owner,
                token,
                grant,
                age,
                by,
            });
        }
    }

    /// A waiter hears that it was handed the lock.
    pub(crate) fn handed(&self, state: &mut State, message: Message) {
        let Message::Handed {
            owner,
            token,
            grant,
            age,
            by,
        } = message
        else {
            return;
        };
        let Some(phase) = state.phase(owner) else {
            return;
        };
        match *phase {
            Phase::Waiting { lag } => match self.left_of_a_claim(lag, age, by) {
                Some(left) => {
                    *phase = Phase::Holding {
                        token,
                        grant,
                        left,
                        revived: false,
                    };
                }
                // Not believed: a knock is answered 'yours' or not.
                None => self.knock(state, owner),
            },
            // Nobody wants it any more (rule R6).
            Phase::Over => *phase = Phase::Ending { held: false },
            _ => {}
        }
    }

    /// For how many ticks a claim counts still whose grant is heard of now; nothing if the
    /// grant is not to be believed.
    pub(crate) fn left_of_a_claim(&self, lag: Option<i8>, age: u8, by: By) -> Option<u8> {
        let age = i8::try_from(age).ok()?;
        let counts_for = match self.fault {
            Some(Fault::ClaimTakenForALease) => TTL - 1,
            _ => CLAIM - 1,
        };
        let began = match (by, self.queue.judged) {
            _ if self.has(Fault::GrantJudgedFromArrival) => 0,
            (By::Answer, _) => age,
            (By::Push, Judged::ServerTime) => lag?.saturating_add(age),
            (By::Push, Judged::ExchangeAlone) => lag?,
        };
        if began < 0 && !self.has(Fault::FutureBelieved) {
            return None;
        }
        let left = i8::try_from(counts_for).ok()? - began;
        u8::try_from(left).ok().filter(|left| *left > 0)
    }

    /// By how much a request is judged to have left before it was carried out: by its way
    /// to the server.
    fn lag_at_the_server(&self, age: u8) -> i8 {
        match self.fault {
            Some(Fault::ExchangeJudgedFromItsAnswer) => 0,
            _ => self.capped(i8::try_from(age).unwrap_or(i8::MAX)),
        }
    }

    /// The same a tick later, while the answer is on its way.
    pub(crate) fn lag_of_an_answer(&self, lag: i8) -> i8 {
        match self.fault {
            Some(Fault::ExchangeJudgedFromItsAnswer) => self.capped(lag - 1),
            _ => self.lag_of_a_waiter(lag),
        }
    }

    /// The same a tick later, while it waits. Both clocks go on: only where the server's is
    /// not looked at, it is longer ago.
    pub(crate) fn lag_of_a_waiter(&self, lag: i8) -> i8 {
        match self.queue.judged {
            Judged::ServerTime => lag,
            Judged::ExchangeAlone => self.capped(lag + 1),
        }
    }

    /// What is so long ago, or so far ahead, that more makes no difference.
    fn capped(&self, lag: i8) -> i8 {
        let most = i16::from(CLAIM) + i16::from(JUMP) * i16::from(self.queue.jumps);
        let least = -1 - i16::from(LIFE);
        let capped = i16::from(lag).clamp(least, most);
        i8::try_from(capped).unwrap_or(i8::MAX)
    }
}

impl State {
    /// The server, and what it needs to hand a lock over.
    pub(crate) fn desk<'a>(
        &'a mut self,
        setup: &'a Setup,
        answered: Option<u8>,
    ) -> (&'a mut crate::Server, Desk<'a>) {
        let desk = Desk {
            tokens: &mut self.tokens,
            channels: &self.channels,
            answered,
            setup,
        };
        (&mut self.server, desk)
    }

    /// The server's clock moves ahead of what it told: the time since an exchange seems
    /// longer to it by that, and so does the time since a grant.
    pub(crate) fn shift_lags(&mut self, by: u8) {
        let less = i8::try_from(by).unwrap_or(i8::MAX);
        for phase in &mut self.acquisitions {
            if let Phase::Waiting { lag: Some(lag) } = phase {
                *lag = lag.saturating_sub(less);
            }
        }
        let network = std::mem::take(&mut self.network).into_iter();
        let shifted = network.map(|mut message| {
            match &mut message {
                Message::Queued { lag, .. } => *lag = lag.saturating_sub(less),
                Message::Handed {
                    age, by: By::Push, ..
                } => *age += by,
                _ => {}
            }
            message
        });
        self.network = shifted.collect();
    }

    pub(crate) fn set_channel(&mut self, process: u8, channel: Channel) {
        if let Some(place) = self.channels.get_mut(usize::from(process)) {
            *place = channel;
        }
    }
}

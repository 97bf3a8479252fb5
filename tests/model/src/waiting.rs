//! What a waiting client does: its polls, what it makes of a grant that it did not ask for
//! just now, and what may happen to its process.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::{Desk, Handed, Reply};
use crate::setup::{Fault, Judged, Setup};
use crate::state::{By, Channel, Message, Owner, Phase, State};
use crate::steps::Action;
use crate::{CLAIM, JUMP, LIFE, TTL};

impl Setup {
    /// Whether this one may poll: it is the first waiter of its process.
    pub(crate) fn may_poll(&self, state: &State, owner: Owner) -> bool {
        state.spent.polls < self.queue.polls && self.is_first(state, owner)
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
                Channel::Broken | Channel::Returning => to.push(Action::Mend(process)),
                _ => {}
            }
        }
        if spent.forced < queue.forced && state.server.held().is_some() {
            to.push(Action::Force);
        }
        if spent.restarts < queue.restarts {
            to.push(Action::Restart);
        }
        if spent.jumps < queue.jumps && !state.is_kept_for_somebody() {
            to.push(Action::Jump);
        }
    }

    /// One more acquisition that waits.
    pub(crate) fn wait(&self, state: &mut State) {
        let owner = state.add(Phase::Waiting {
            lag: None,
            ticket: None,
        });
        self.poll(state, owner);
    }

    /// The same acquire again, with the same owner id.
    pub(crate) fn poll(&self, state: &mut State, owner: Owner) {
        let ticket = match state.phase(owner) {
            Some(Phase::Waiting { ticket, .. }) if !self.has(Fault::NoTicket) => *ticket,
            _ => None,
        };
        state.network.insert(Message::Acquire {
            owner,
            waits: true,
            ticket,
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
    pub(crate) fn acquire_arrives(
        &self,
        state: &mut State,
        owner: Owner,
        waits: bool,
        ticket: Option<u8>,
        age: u8,
    ) {
        let grants = state.tokens.len();
        let phase = state.phase(owner);
        let known = matches!(
            phase,
            Some(Phase::Waiting {
                ticket: Some(_),
                ..
            })
        );
        // A fault of the waiter's is none of the account's.
        let has_ticket = ticket.is_some() || known && self.has(Fault::NoTicket);
        let (server, mut desk) = state.desk(self);
        let (reply, handed) = server.acquire(owner, waits, ticket, &mut desk);
        let answer = match reply {
            Reply::Granted(held) => {
                if state.tokens.len() > grants {
                    state.note_grant(owner, self);
                }
                state.turns.leave(owner);
                Some(Message::Granted {
                    owner,
                    token: held.token,
                    grant: held.grant,
                    age,
                })
            }
            Reply::Queued(new) => {
                state.turns.enter(owner, has_ticket);
                let lag = self.lag_at_the_server(age);
                let ticket = new;
                Some(Message::Queued { owner, lag, ticket })
            }
            Reply::Busy => None,
        };
        state.network.extend(answer);
        self.send_handed(state, handed, None);
    }

    /// A release, or a leave, arrives.
    pub(crate) fn release_arrives(&self, state: &mut State, owner: Owner) {
        let process = self.process(owner);
        let held = state.server.held().is_some();
        let (server, mut desk) = state.desk(self);
        let handed = server.release(owner, &mut desk);
        let lying = state.server.held().is_none() && state.has_reachable(self, process);
        state.turns.left_lying |= held && lying;
        state.turns.leave(owner);
        self.send_handed(state, handed, Some(process));
    }

    /// Somebody takes the lock from its holder.
    pub(crate) fn force(&self, state: &mut State) {
        state.spent.forced += 1;
        let (server, mut desk) = state.desk(self);
        let handed = server.force(&mut desk);
        self.send_handed(state, handed, None);
    }

    /// Tells a waiter that it was handed the lock: in the answer, if its process is about
    /// to have one.
    fn send_handed(&self, state: &mut State, handed: Option<Handed>, answered: Option<u8>) {
        let Some(Handed { held, notified }) = handed else {
            return;
        };
        let (owner, token, grant) = (held.owner, held.token, held.grant);
        state.note_grant(owner, self);
        let process = self.process(owner);
        let by = match answered == Some(process) {
            true => By::Answer,
            false => By::Push,
        };
        let channel = state.channels.get(usize::from(process));
        let is_sent = by == By::Answer || notified;
        if is_sent && channel.is_some_and(|one| one.lives()) {
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
            Phase::Waiting { lag, .. } => match self.left_of_a_claim(lag, age, by) {
                Some(left) => {
                    *phase = Phase::Holding {
                        token,
                        grant,
                        left,
                        revived: false,
                    };
                }
                // Not believed: a poll is answered 'yours' or not.
                None => self.poll(state, owner),
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
    pub(crate) fn desk<'a>(&'a mut self, setup: &'a Setup) -> (&'a mut crate::Server, Desk<'a>) {
        let last = |all: Option<u8>| all.unwrap_or_default() + 1;
        let clock = last(self.tokens.iter().max().copied());
        let next_ticket = last(self.tickets().last().copied());
        let desk = Desk {
            tokens: &mut self.tokens,
            clock,
            next_ticket,
            channels: &self.channels,
            written_in_vain: &mut self.written_in_vain,
            setup,
        };
        (&mut self.server, desk)
    }

    /// The server's clock moves ahead of what it told: the time since an exchange seems
    /// longer to it by that, and so does the time since a grant.
    pub(crate) fn shift_lags(&mut self, by: u8) {
        let less = i8::try_from(by).unwrap_or(i8::MAX);
        for phase in &mut self.acquisitions {
            if let Phase::Waiting { lag: Some(lag), .. } = phase {
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

    /// The tickets that a waiter has, or may hear of, or brings along.
    pub(crate) fn tickets(&self) -> BTreeSet<u8> {
        let written = [&self.server, &self.replica].into_iter();
        let mut all: BTreeSet<u8> = written.flat_map(crate::Server::tickets).collect();
        all.extend(self.acquisitions.iter().filter_map(|phase| match phase {
            Phase::Waiting { ticket, .. } => *ticket,
            _ => None,
        }));
        all.extend(self.network.iter().filter_map(|message| match message {
            Message::Acquire { ticket, .. } | Message::Queued { ticket, .. } => *ticket,
            _ => None,
        }));
        all
    }

    /// Only the order of tickets counts: they are numbered anew, from one.
    pub(crate) fn number_tickets(&mut self) {
        let all = self.tickets();
        let new: BTreeMap<u8, u8> = all.into_iter().zip(1..).collect();
        if new.iter().all(|(old, new)| old == new) {
            return;
        }
        let change = |ticket: &mut Option<u8>| {
            *ticket = ticket.and_then(|ticket| new.get(&ticket).copied());
        };
        self.server.number_tickets(&new);
        self.replica.number_tickets(&new);
        for phase in &mut self.acquisitions {
            if let Phase::Waiting { ticket, .. } = phase {
                change(ticket);
            }
        }
        let network = std::mem::take(&mut self.network).into_iter();
        let changed = network.map(|mut message| {
            if let Message::Acquire { ticket, .. } | Message::Queued { ticket, .. } = &mut message {
                change(ticket);
            }
            message
        });
        self.network = changed.collect();
    }

    /// Whether a waiter stands in the queue that can be notified, or is told by the answer.
    fn has_reachable(&self, setup: &Setup, answered: u8) -> bool {
        self.server.waiters().any(|owner| {
            let process = setup.process(owner);
            let channel = self.channels.get(usize::from(process));
            process == answered || matches!(channel, Some(Channel::Open | Channel::HalfOpen))
        })
    }

    /// The server restarts with its data: every subscription is gone, with what was on its way there.
    pub(crate) fn restart(&mut self) {
        self.spent.restarts += 1;
        for channel in &mut self.channels {
            match channel {
                Channel::Open | Channel::Broken => *channel = Channel::Returning,
                Channel::HalfOpen => *channel = Channel::Gone,
                _ => {}
            }
        }
        self.network
            .retain(|message| !matches!(message, Message::Handed { by: By::Push, .. }));
    }

    pub(crate) fn set_channel(&mut self, process: u8, channel: Channel) {
        if let Some(place) = self.channels.get_mut(usize::from(process)) {
            *place = channel;
        }
    }
}

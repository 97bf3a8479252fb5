//! What a waiting client does: its polls, what it makes of a grant that it did not ask for
//! just now, and what may happen to its process.

use crate::server::Reply;
use crate::setup::{Fault, Judged, Setup};
use crate::state::{By, Channel, Death, Message, Owner, Stage, State};
use crate::steps::Action;
use crate::{CONFIRMATIONS, JUMP, TTL};

impl Setup {
    /// Whether this one may poll: it is the first waiter of its process.
    pub(crate) fn polls(&self, state: &State, owner: Owner) -> bool {
        state.spent.polls < self.queue.polls && self.is_first(state, owner)
    }

    /// Whether no other of its process waits that asked earlier.
    pub(crate) fn is_first(&self, state: &State, owner: Owner) -> bool {
        let earlier = (0..owner).zip(&state.acquisitions);
        let mut siblings = earlier.filter(|(one, _)| self.process(*one) == self.process(owner));
        !siblings.any(|(_, stage)| matches!(stage, Stage::Waiting { .. }))
    }

    /// What may happen to the waiters, beside their own steps.
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
        if spent.forced < queue.forced && state.server.is_taken() {
            to.push(Action::Force);
        }
        if spent.stale < queue.stale && state.server.is_taken() {
            to.push(Action::ForceStale);
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
        let owner = state.add(Stage::Waiting {
            lag: None,
            ticket: None,
        });
        self.poll(state, owner);
    }

    /// The same acquire again, with the same owner id.
    pub(crate) fn poll(&self, state: &mut State, owner: Owner) {
        let ticket = match state.stage(owner) {
            Some(Stage::Waiting { ticket, .. }) => *ticket,
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
        state.set_channel(process, Channel::Dead(self.queue.death));
        for (owner, stage) in (0..).zip(&mut state.acquisitions) {
            if self.process(owner) == process {
                *stage = Stage::Dead;
            }
        }
    }

    /// A subscription breaks, with what was on its way there.
    pub(crate) fn disconnect(&self, state: &mut State, process: u8) {
        state.spent.breaks += 1;
        state.set_channel(process, Channel::Broken);
        state.network.retain(|message| {
            !matches!(message, Message::Granted { owner, by: By::Notification, .. }
                if self.process(*owner) == process)
        });
    }

    /// The server's clock leaps: a lock expires earlier by that, and all its times are off
    /// against what it answered before.
    pub(crate) fn jump(&self, state: &mut State) {
        state.spent.jumps += 1;
        for _ in 0..JUMP {
            state.server.pass(self);
        }
        if self.queue.judged == Judged::ServerTime {
            state.shift_lags(JUMP);
        }
    }

    /// The server restarts: all subscriptions break, with what was on its way there.
    pub(crate) fn restart(&self, state: &mut State) {
        state.spent.restarts += 1;
        for channel in &mut state.channels {
            *channel = match *channel {
                Channel::Open | Channel::Broken => Channel::Returning,
                Channel::Dead(Death::Silent | Death::Unnoticed) => Channel::Dead(Death::Restarted),
                other => other,
            };
        }
        state.network.retain(|message| !message.is_notification());
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
        let answer = match self.acquire(state, owner, waits, ticket) {
            Reply::Granted(grant) => Message::Acquired {
                owner,
                token: grant.token,
                grant: grant.number,
                age,
            },
            Reply::Queued { ticket } => {
                let lag = self.lag_at_the_server(age);
                Message::Queued { owner, lag, ticket }
            }
            // As with 'busy', one that does not wait gives up.
            Reply::AlreadyRan if waits => Message::AlreadyRan { owner },
            Reply::AlreadyRan | Reply::Busy => return,
        };
        state.network.insert(answer);
    }

    /// A waiter hears that it was granted the lock.
    pub(crate) fn granted(&self, state: &mut State, message: Message) {
        let Message::Granted {
            owner,
            token,
            grant,
            age,
            by,
        } = message
        else {
            return;
        };
        let Some(stage) = state.stage(owner) else {
            return;
        };
        match *stage {
            Stage::Waiting { lag, .. } => match self.left_of_a_claim(lag, age, by) {
                // Where replicas have to acknowledge it, it is a hint.
                Some(left) if !self.acknowledged => {
                    *stage = Stage::Holding {
                        token,
                        grant,
                        left,
                        revived: false,
                    };
                }
                // Not believed: a poll is answered 'yours' or not.
                _ if state.spent.confirmations < CONFIRMATIONS => {
                    state.spent.confirmations += 1;
                    self.poll(state, owner);
                }
                _ => {}
            },
            // No client wants it any more (rule R6).
            Stage::Over => *stage = Stage::Releasing { held: false },
            _ => {}
        }
    }

    /// For how many ticks a claim counts still whose grant is heard of now; nothing if the
    /// grant is not to be believed.
    pub(crate) fn left_of_a_claim(&self, lag: Option<i8>, age: u8, by: By) -> Option<u8> {
        let age = i8::try_from(age).ok()?;
        let counts_for = match self.fault {
            Some(Fault::ClaimTakenForALease) => TTL - 1,
            _ => self.timing.claim - 1,
        };
        let began = match (by, self.queue.judged) {
            _ if self.has(Fault::GrantJudgedFromArrival) => 0,
            (By::Answer, _) => age,
            (By::Notification, Judged::ServerTime) => lag?.saturating_add(age),
            (By::Notification, Judged::ExchangeAlone) => lag?,
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
        let most = i16::from(self.timing.claim) + i16::from(JUMP) * i16::from(self.queue.jumps);
        let least = -1 - i16::from(self.life);
        let capped = i16::from(lag).clamp(least, most);
        i8::try_from(capped).unwrap_or(i8::MAX)
    }
}

impl State {
    /// The server's clock moves ahead of what it answered: the time since an exchange seems
    /// longer to it by that, and so does the time since a grant.
    pub(crate) fn shift_lags(&mut self, by: u8) {
        let less = i8::try_from(by).unwrap_or(i8::MAX);
        for stage in &mut self.acquisitions {
            if let Stage::Waiting { lag: Some(lag), .. } = stage {
                *lag = lag.saturating_sub(less);
            }
        }
        let network = std::mem::take(&mut self.network).into_iter();
        let shifted = network.map(|mut message| {
            match &mut message {
                Message::Queued { lag, .. } => *lag = lag.saturating_sub(less),
                Message::Granted {
                    age,
                    by: By::Notification,
                    ..
                } => *age += by,
                _ => {}
            }
            message
        });
        self.network = shifted.collect();
    }

    /// The replica becomes the master. A waiter that it does not know of has lost its place.
    pub(crate) fn fail_over(&mut self) {
        self.server = self.replica.clone();
        let known: Vec<Owner> = self.server.waiters().collect();
        self.arrivals.drop_those(|owner| !known.contains(&owner));
    }

    /// Numbers all tickets that there are anew, from one, in their order: only that counts.
    /// A new one is larger than them all, for the clock is.
    pub(crate) fn renumber_tickets(&mut self) {
        let mut tickets: Vec<u8> = self
            .server
            .tickets()
            .chain(self.replica.tickets())
            .collect();
        tickets.extend(self.acquisitions.iter().filter_map(|stage| match stage {
            Stage::Waiting { ticket, .. } => *ticket,
            _ => None,
        }));
        tickets.extend(self.network.iter().filter_map(Message::ticket));
        tickets.sort_unstable();
        tickets.dedup();
        if (1..).zip(&tickets).all(|(new, old)| new == *old) {
            return;
        }
        let new = |old: u8| {
            (1..)
                .zip(&tickets)
                .find(|(_, one)| **one == old)
                .map_or(old, |of| of.0)
        };
        self.server.renumber(new);
        self.replica.renumber(new);
        for stage in &mut self.acquisitions {
            if let Stage::Waiting { ticket, .. } = stage {
                *ticket = ticket.map(new);
            }
        }
        let network = std::mem::take(&mut self.network).into_iter();
        self.network = network
            .map(|mut message| {
                if let Some(ticket) = message.ticket_mut() {
                    *ticket = new(*ticket);
                }
                message
            })
            .collect();
    }

    pub(crate) fn set_channel(&mut self, process: u8, channel: Channel) {
        if let Some(place) = self.channels.get_mut(usize::from(process)) {
            *place = channel;
        }
    }
}

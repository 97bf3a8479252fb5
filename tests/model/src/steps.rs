//! What can happen next, and what comes of it.

use stateright::{Model, Property};

use crate::server::Server;
use crate::setup::{Fault, Setup};
use crate::state::{Channel, Message, Owner, Stage, State};
use crate::{LIFE, TTL, properties};

/// One step. The table in the crate's documentation says which rule each stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client asks for the lock, and does not wait for it.
    Ask,
    /// A client asks for the lock, and waits for it.
    Wait,
    /// A waiter asks again, with the same owner id.
    Poll(Owner),
    /// A process dies.
    Crash(u8),
    /// The subscription of a process breaks.
    Break(u8),
    /// It is there again.
    Mend(u8),
    /// An operator ends the holding.
    Force,
    /// An operator ends the holding if no heartbeat came for a while.
    ForceStale,
    /// The server restarts, and keeps what it knows.
    Restart,
    /// The server's clock jumps forward.
    Jump,
    /// It asks once more, with the same owner id: it has heard nothing.
    Retry(Owner),
    /// It stops waiting: a time-out, or a future that was dropped.
    GiveUp(Owner),
    /// A holder's heartbeat leaves.
    Renew(Owner),
    /// A holder lets go, or one that has lost its lease.
    LetGo(Owner),
    /// A holder's run fails, and it lets go.
    Fail(Owner),
    /// A holder looks at its lease, and then writes to the resource.
    Write(Owner),
    /// Something arrives.
    Deliver(Message),
    /// The same, and no replica acknowledges in time what it writes.
    Unacknowledged(Message),
    /// Time passes at the server and at all clients.
    Tick,
    /// Time passes for the server alone: its clock runs faster.
    RunAhead,
    /// The lock's record is lost at the server, and the fence stays.
    Evict,
    /// The server's clock steps back, by more than two grants are apart.
    StepBack,
    /// The replica catches up.
    Replicate,
    /// The replica becomes the master, with what it has.
    Failover,
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let polling = self.queue.processes - self.queue.polling;
        let channels = (0..self.queue.processes).map(|process| match process < polling {
            true => Channel::Open,
            false => Channel::Polls,
        });
        let channels = channels.collect();
        vec![State {
            channels,
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let room = state.may_ask(self);
        let nobody_waits = self.queue.processes == 0;
        let tries = nobody_waits || state.spent.tries < self.queue.tries;
        if room && tries || self.reusable(state).is_some() {
            actions.push(Action::Ask);
        }
        if room && !nobody_waits {
            actions.push(Action::Wait);
        }
        for (owner, stage) in (0..).zip(&state.acquisitions) {
            self.client_actions(state, owner, stage, actions);
        }
        actions.extend(state.network.iter().copied().map(Action::Deliver));
        if self.has_replica(state) {
            let writes = state.network.iter().copied().filter(is_acknowledged);
            actions.extend(writes.map(Action::Unacknowledged));
        }
        actions.push(Action::Tick);
        self.world_actions(state, actions);
        self.queue_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask => self.ask(&mut state),
            Action::Retry(owner) => {
                state.spent.retries += 1;
                send_acquire(&mut state, owner);
            }
            Action::Wait => self.wait(&mut state),
            Action::Poll(owner) => {
                state.spent.polls += 1;
                self.poll(&mut state, owner);
            }
            Action::Crash(process) => self.crash(&mut state, process),
            Action::Break(process) => self.disconnect(&mut state, process),
            Action::Mend(process) => state.set_channel(process, Channel::Open),
            Action::Force => {
                state.spent.forced += 1;
                self.force_release(&mut state, None);
            }
            Action::ForceStale => {
                state.spent.stale += 1;
                self.force_release(&mut state, Some(self.queue.asked));
            }
            Action::Restart => self.restart(&mut state),
            Action::Jump => self.jump(&mut state),
            Action::GiveUp(owner) if self.has(Fault::UnknownReadAsNo) => {
                state.set(owner, Stage::Over);
            }
            Action::GiveUp(owner) => {
                let waits = matches!(state.stage(owner), Some(Stage::Waiting { .. }));
                state.spent.leaves += u8::from(waits);
                state.set(owner, Stage::Releasing { held: false });
            }
            // The lease is over before its release leaves (rule R5).
            Action::LetGo(owner) => {
                if matches!(state.stage(owner), Some(Stage::Lost { .. })) && self.ticks.is_some() {
                    state.runs.failed.insert(owner);
                }
                state.set(owner, Stage::Releasing { held: true });
            }
            Action::Fail(owner) => {
                state.runs.failures += 1;
                state.runs.failed.insert(owner);
                state.set(owner, Stage::Releasing { held: true });
            }
            Action::Renew(owner) => {
                state.spent.renewals += u8::from(!self.has(Fault::HeartbeatForNobody));
                state.network.insert(Message::Renew { owner, age: 0 });
            }
            Action::Write(owner) => {
                state.spent.writes += 1;
                if let Some(&mut Stage::Holding { token, grant, .. }) = state.stage(owner) {
                    state.network.insert(Message::Write { token, grant });
                }
            }
            Action::Deliver(message) => {
                state.network.remove(&message);
                self.deliver(&mut state, message);
                if self.has_replica(&state) && is_acknowledged(&message) {
                    state.replica = state.server.clone();
                }
            }
            Action::Unacknowledged(message) => {
                state.network.remove(&message);
                let before = state.network.clone();
                self.deliver(&mut state, message);
                if !self.has(Fault::UnacknowledgedCounts) {
                    let is_no_yes = |one: &Message| {
                        !matches!(one, Message::Acquired { .. } | Message::Renewed { .. })
                    };
                    let network = &mut state.network;
                    network.retain(|one| before.contains(one) || is_no_yes(one));
                }
            }
            Action::Tick => self.tick(&mut state),
            Action::RunAhead => {
                if !state.server.run_ahead(self) {
                    return None;
                }
                if self.has(Fault::ElapsedTakenInFull) {
                    state.shift_lags(1);
                }
            }
            Action::Evict => {
                state.spent.evictions += 1;
                state.server.evict();
            }
            Action::StepBack => {
                state.spent.steps_back += 1;
                state.server.behind += 2;
            }
            Action::Replicate => state.replica = state.server.clone(),
            Action::Failover => {
                state.spent.failovers += 1;
                state.fail_over();
            }
        }
        if self.ticks.is_some() {
            self.note_runs(last, &mut state);
        }
        // For another holder it is counted anew.
        if state.given() != last.given() {
            state.kept_for_nobody = 0;
        }
        self.tidy(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

impl Setup {
    /// What a client, or its engine, may do about an acquisition.
    fn client_actions(&self, state: &State, owner: Owner, stage: &Stage, to: &mut Vec<Action>) {
        match stage {
            Stage::Asking => {
                if state.spent.retries < self.retries {
                    to.push(Action::Retry(owner));
                }
                to.push(Action::GiveUp(owner));
            }
            Stage::Holding { .. } => {
                if state.spent.renewals < self.renewals {
                    to.push(Action::Renew(owner));
                }
                if state.spent.writes < self.writes {
                    to.push(Action::Write(owner));
                }
                to.push(Action::LetGo(owner));
                let retries = self.ticks.is_some_and(|ticks| ticks.retry_failed);
                if retries && state.runs.failures == 0 {
                    to.push(Action::Fail(owner));
                }
            }
            Stage::Waiting { .. } => {
                if self.polls(state, owner) {
                    to.push(Action::Poll(owner));
                }
                if state.spent.leaves < self.queue.leaves {
                    to.push(Action::GiveUp(owner));
                }
            }
            Stage::Lost { .. } => to.push(Action::LetGo(owner)),
            Stage::Releasing { .. } if self.has(Fault::HeartbeatForNobody) => {
                to.push(Action::Renew(owner))
            }
            Stage::Releasing { .. } | Stage::Over | Stage::Dead => {}
        }
    }

    /// The body of an acquisition runs from when its client has heard of the grant.
    fn note_runs(&self, last: &State, state: &mut State) {
        for (owner, stage) in (0..).zip(&state.acquisitions) {
            let before = last.acquisitions.get(usize::from(owner));
            if stage.holds() && !before.is_some_and(Stage::holds) {
                let tick = self.tick_of(owner);
                state.runs.begun_again |= state.runs.ended_well.contains(&tick);
                state.runs.begun.push(tick);
            }
        }
    }

    /// Whether acknowledgements make a difference: a failover may come yet.
    fn has_replica(&self, state: &State) -> bool {
        self.acknowledged && state.spent.failovers < self.failovers
    }

    /// What may happen to the server.
    fn world_actions(&self, state: &State, to: &mut Vec<Action>) {
        if self.drift {
            to.push(Action::RunAhead);
        }
        if state.spent.evictions < self.evictions && state.server.is_taken() {
            to.push(Action::Evict);
        }
        if state.spent.steps_back < self.steps_back {
            to.push(Action::StepBack);
        }
        if state.spent.failovers < self.failovers {
            to.extend([Action::Replicate, Action::Failover]);
        }
    }

    /// The owner id belongs to this one acquisition (rule R6).
    fn ask(&self, state: &mut State) {
        state.spent.tries += u8::from(self.queue.processes > 0);
        let owner = match self.reusable(state) {
            Some(owner) => {
                state.set(owner, Stage::Asking);
                owner
            }
            None => state.add(Stage::Asking),
        };
        send_acquire(state, owner);
    }

    /// The owner id of an earlier acquisition, where they are used twice.
    fn reusable(&self, state: &State) -> Option<Owner> {
        if !self.has(Fault::OwnerIdReused) {
            return None;
        }
        let mut phases = (0..).zip(&state.acquisitions);
        let over = phases.find(|(_, stage)| !stage.is_under_way());
        over.map(|(owner, _)| owner)
    }

    fn deliver(&self, state: &mut State, message: Message) {
        match message {
            Message::Acquire {
                owner,
                waits,
                ticket,
                age,
            } => self.acquire_arrives(state, owner, waits, ticket, age),
            Message::Renew { owner, age } => {
                let answer = match self.renew(state, owner) {
                    true => Message::Renewed { owner, age },
                    false => Message::NotYours { owner },
                };
                state.network.insert(answer);
            }
            Message::Release { owner } => {
                self.release(state, owner);
                let watched = state.may_arrive(owner) && !self.has(Fault::OrphanReleasedOnce);
                let ending = matches!(state.stage(owner), Some(Stage::Releasing { .. }));
                if ending && !watched {
                    state.set(owner, Stage::Over);
                }
            }
            Message::Granted { .. } => self.granted(state, message),
            Message::Acquired { owner, .. }
            | Message::Queued { owner, .. }
            | Message::AlreadyRan { owner }
            | Message::Renewed { owner, .. }
            | Message::NotYours { owner } => {
                if let Some(stage) = state.stage(owner) {
                    stage.hear(&message, self);
                }
            }
            Message::Write { token, grant } => state.resource.write(token, grant, self.fencing),
        }
    }

    /// The server's clock and the clients' move on by one.
    fn tick(&self, state: &mut State) {
        for stage in &mut state.acquisitions {
            stage.tick(self);
        }
        state.server.pass(self);
        state.replica.pass(self);
        state.network = std::mem::take(&mut state.network)
            .into_iter()
            .map(|message| message.older(self))
            .filter(|message| message.age() <= self.life)
            .collect();
        if !self.has(Fault::ExchangeJudgedFromItsAnswer) {
            // Heard by now, or never: what it says is the same later.
            let network = &mut state.network;
            network.retain(|message| !matches!(message, Message::Queued { .. }));
        }
        if state.is_kept_for_nobody() {
            state.kept_for_nobody = (state.kept_for_nobody + 1).min(LIFE + TTL + 1);
        }
    }

    /// Puts a state into the form in which those that can't be told apart are equal.
    fn tidy(&self, state: &mut State) {
        // A releasing goes on until it is answered: one of its releases is always on its way.
        let releasing = (0..).zip(&state.acquisitions);
        let releasing = releasing.filter(|(_, stage)| matches!(stage, Stage::Releasing { .. }));
        let releases = releasing.map(|(owner, _)| Message::Release { owner });
        state.network.extend(releases);

        // What would change nothing on arrival, now or ever.
        let waits = self.queue.processes > 0;
        let (acquisitions, resource) = (&state.acquisitions, &state.resource);
        state.network.retain(|message| match *message {
            Message::Granted { owner, .. } => match acquisitions.get(usize::from(owner)) {
                Some(Stage::Waiting { .. }) => true,
                Some(Stage::Over) => self.failovers > 0,
                _ => false,
            },
            Message::Acquired { owner, .. }
            | Message::Queued { owner, .. }
            | Message::AlreadyRan { owner }
            | Message::Renewed { owner, .. }
            | Message::NotYours { owner } => {
                let stage = acquisitions.get(usize::from(owner));
                (self.fault.is_some() && !waits)
                    || stage.is_some_and(|one| one.would_hear(message, self))
            }
            Message::Write { token, .. } => !self.fencing || token >= resource.token,
            _ => true,
        });

        if state.spent.failovers >= self.failovers {
            state.replica = Server::default();
        }
        if !state.is_kept_for_nobody() {
            state.kept_for_nobody = 0;
        }
        let is_over = |owner: &Owner| {
            let stage = state.acquisitions.get(usize::from(*owner));
            matches!(stage, Some(Stage::Over | Stage::Dead))
        };
        state.runs.failed.retain(|owner| !is_over(owner));
        state.server.tidy(self);
        state.replica.tidy(self);
        if waits {
            state.tidy_arrivals();
            state.renumber_tickets();
        }
    }
}

/// Whether it writes what replicas have to acknowledge.
fn is_acknowledged(message: &Message) -> bool {
    matches!(message, Message::Acquire { .. } | Message::Renew { .. })
}

/// Asks, and does not wait.
fn send_acquire(state: &mut State, owner: Owner) {
    state.network.insert(Message::Acquire {
        owner,
        waits: false,
        ticket: None,
        age: 0,
    });
}

impl State {
    pub(crate) fn stage(&mut self, owner: Owner) -> Option<&mut Stage> {
        self.acquisitions.get_mut(usize::from(owner))
    }

    /// One more acquisition.
    pub(crate) fn add(&mut self, stage: Stage) -> Owner {
        self.acquisitions.push(stage);
        // There are a handful of them.
        u8::try_from(self.acquisitions.len() - 1).unwrap_or(Owner::MAX)
    }

    pub(crate) fn set(&mut self, owner: Owner, stage: Stage) {
        if let Some(place) = self.stage(owner) {
            *place = stage;
        }
    }
}

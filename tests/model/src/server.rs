//! The server: the product's own [`LockState`], and how it reaches the processes that wait.
//!
//! Every step of it is a call of the protocol. What a [`Fault`] changes about a decision is
//! put around that call. Times count from now: see [`Server::pass`].

use std::collections::BTreeMap;

use crate::protocol::{Decision, Granted, LockState, Notify, Reach, Requester, WhenBusy};
use crate::protocol::{Holding, Outcome, Phase, Releaser, StoreTime, Timing, Waiter};
use crate::setup::{Fault, NEVER, Setup, Tokens};
use crate::state::{By, Channel, Death, Message, Owner, Stage, State};
use crate::{DRIFT, TTL};

/// What the server's clock shows, always: time passes by moving all that is in the state
/// into the past. Larger than every length, so that nothing gets to before zero.
const NOW: u64 = 100;

/// The wall clock's reading before the first grant: larger than each ticket, which are
/// numbered anew after each step.
const FIRST_MICROS: u64 = 20;

/// A server, or what a replica has of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// What a store knows of the lock: the product's own type.
    pub(crate) lock: LockState<()>,
    /// Which grant the newest holding is. The server does not know this.
    pub grant: u8,
    /// By how much its wall clock is behind.
    pub behind: u8,
    /// How far its clock ran ahead since the lease was last set.
    pub ahead: u8,
    /// For how many ticks `at_least` keeps the lock still, by the model's own account.
    pub kept: u8,
    /// How many ticks ago the lease was last set, by the model's own account: where an
    /// operator asks for that.
    pub silent: u8,
    /// The tick that was begun last, by the model's own account.
    pub tick: u8,
    /// Whether its run counts, by the same account.
    pub ran: bool,
}

/// A lock that was granted: its token, and the number of the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) owner: Owner,
    pub(crate) token: u8,
    pub(crate) number: u8,
}

/// What an acquire is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Granted(Grant),
    Queued { ticket: Option<u8> },
    AlreadyRan,
    Busy,
}

/// The processes' subscriptions, and whom the protocol tried to notify in this step.
struct Subscriptions {
    channels: Vec<Channel>,
    grace: u64,
    tried: Vec<(Owner, u8, Reach)>,
}

impl Notify<()> for Subscriptions {
    fn reach(&mut self, waiter: &Waiter<()>, grant: &Granted) -> Reach {
        let channel = usize::try_from(waiter.process).ok();
        let channel = channel.and_then(|process| self.channels.get(process));
        let reach = match channel {
            Some(Channel::Open | Channel::Dead(Death::Unnoticed)) => Reach::Notified,
            Some(Channel::Returning | Channel::Dead(Death::Restarted)) => {
                let within = self.grace;
                Reach::MayReturn { within }
            }
            _ => Reach::Unreachable,
        };
        let tried = (short(waiter.owner), small(grant.token), reach);
        self.tried.push(tried);
        reach
    }
}

/// A step of the server under way: what was before it, for the properties.
struct Step {
    newest: Option<Holding<()>>,
    /// The waiters, where a fault has them keep their places.
    queue: BTreeMap<(u64, u128), Waiter<()>>,
    /// The owners that could be granted the lock by this step, were it their turn.
    reachable: Vec<Owner>,
    /// Those of them that are dropped by the protocol's own rules: dead, or forgotten.
    droppable: Vec<Owner>,
    /// Those whose queue is so old that they have no places any more.
    forgotten: Vec<Owner>,
    timing: Timing,
    now: StoreTime,
    subscriptions: Subscriptions,
}

impl Setup {
    /// An acquire arrives at the server.
    pub(crate) fn acquire(
        &self,
        state: &mut State,
        owner: Owner,
        waits: bool,
        ticket: Option<u8>,
    ) -> Reply {
        let process = self.process(owner);
        let is_due = self.is_due(&state.server, owner);
        let mut step = self.begin(state, Some(owner), None);
        if waits {
            // By a clock that stands still a waiter that joins an empty queue gets a ticket that
            // one that comes back may have, or a smaller one.
            let stands = self.tokens == Tokens::Counter;
            state.arrivals.enter(owner, ticket.is_some() && !stands);
        }
        let lock = &mut state.server.lock;
        if let Some(newest) = &mut lock.newest
            && newest.phase == Phase::Kept
            && self.has(Fault::KeptIsFree)
        {
            newest.expires_at = NOW;
        }
        let mut ticket = ticket.map(u64::from);
        match self.fault {
            Some(Fault::BackWithEachPoll) => {
                lock.queue.leave(owner.into());
                ticket = None;
            }
            Some(Fault::LastComeFirst) if lock.queue.ahead(owner.into()).is_none() => {
                ticket = Some(0);
            }
            Some(Fault::NoTicket) => ticket = None,
            _ => {}
        }
        let aside = match !waits && self.has(Fault::TryJumpsTheQueue) {
            true => Some(std::mem::take(&mut lock.queue)),
            false => None,
        };
        let request = Requester {
            owner: owner.into(),
            process: process.into(),
            ttl: TTL.into(),
            // What is forgotten with time is held against the scripts, and left out here.
            remember: u64::MAX,
            due: self.ticks.map(|ticks| ticks.due(owner)),
            who: (),
        };
        let listens = state.channels.get(usize::from(process)) != Some(&Channel::Polls);
        let when_busy = match waits {
            true => WhenBusy::Wait { ticket, listens },
            false => WhenBusy::Refuse,
        };
        let decision = lock.acquire(
            request,
            when_busy,
            step.now,
            &step.timing,
            &mut step.subscriptions,
        );
        if let Some(queue) = aside {
            lock.queue = queue;
        }
        if self.has(Fault::JudgedOnce) {
            for waiter in lock.queue.waiters.values_mut() {
                waiter.due = None;
            }
        }
        let is_refused = matches!(decision, Ok(Decision::AlreadyRan(_)));
        if is_refused {
            // A failover may bring its place back.
            state.arrivals.drop_those(|one| one == owner);
        }
        let requester = Some(owner).filter(|_| decision == Ok(Decision::Granted));
        let before = step.newest.clone().filter(|one| one.is_taken(step.now));
        let kept = state.server.kept > 0;
        let is_holder = !kept
            && before
                .as_ref()
                .is_some_and(|one| one.owner == u128::from(owner));
        state.wrong.due |= is_refused != (!is_due && !is_holder);
        self.finish(state, step, requester);
        let after = state.server.holding();
        let is_granted = decision == Ok(Decision::Granted);
        state.wrong.answer |= match before {
            // Only its holder is answered 'yours', and always is (rule R6).
            Some(before) => {
                is_granted != (before.owner == u128::from(owner) && !kept)
                    || after.map(|after| (after.owner, after.token))
                        != Some((before.owner, before.token))
            }
            None => is_granted && after.is_none_or(|after| after.owner != u128::from(owner)),
        };
        if let Ok(Decision::Queued { .. }) = decision {
            let queue = &state.server.lock.queue;
            let life = queue.expires_at.saturating_sub(NOW);
            state.wrong.queue |= queue.silence(process.into(), PRESENT) > 0;
            state.wrong.queue |= life != u64::from(self.timing.queue_life);
        }
        state.wrong.answer |= is_granted && state.server.left() != Some(TTL.into());
        match decision {
            Ok(Decision::Granted) => {
                state.arrivals.grant(owner);
                match state.server.newest() {
                    Some(grant) => Reply::Granted(grant),
                    None => Reply::Busy,
                }
            }
            Ok(Decision::Queued { ticket, .. }) => Reply::Queued {
                ticket: Some(small(ticket)),
            },
            Ok(Decision::AlreadyRan(_)) => Reply::AlreadyRan,
            Ok(Decision::Busy) | Err(_) => Reply::Busy,
        }
    }

    /// A heartbeat arrives at the server. Whether the lock is that owner's.
    pub(crate) fn renew(&self, state: &mut State, owner: Owner) -> bool {
        let mut step = self.begin(state, None, None);
        // A heartbeat does not look at the queue.
        step.forgotten.clear();
        let holds = state.server.is_held_by(owner);
        let lock = &mut state.server.lock;
        let by = match &lock.newest {
            Some(newest) if self.has(Fault::RenewByAnyOwner) => newest.owner,
            _ => owner.into(),
        };
        let renewed = lock.renew(by, TTL.into(), step.now);
        state.wrong.answer |= renewed != holds;
        state.wrong.answer |= renewed && state.server.left() != Some(TTL.into());
        state.wrong.answer |= !renewed && step.newest != state.server.lock.newest;
        self.finish(state, step, Some(owner).filter(|_| renewed));
        renewed
    }

    /// A release arrives at the server. An owner that waits leaves the queue by it.
    pub(crate) fn release(&self, state: &mut State, owner: Owner) {
        let own = self.process(owner);
        let holds = state.server.is_held_by(owner);
        let outcome = self.outcome(state, owner);
        if holds {
            self.note_end(state, owner, outcome);
        }
        let mut step = self.begin(state, None, Some(own));
        state.arrivals.leave(owner);
        let was_taken = state.server.is_taken();
        let keep = match state.stage(owner) {
            Some(Stage::Holding { .. } | Stage::Lost { .. } | Stage::Releasing { held: true }) => {
                self.keep
            }
            _ => 0,
        };
        let lock = &mut state.server.lock;
        let newest = lock.newest.as_ref();
        let releases = match newest.filter(|newest| newest.is_taken(step.now)) {
            Some(newest) if self.has(Fault::ReleaseByAnyOwner) => Some(newest.owner),
            Some(newest) if newest.phase == Phase::Claimed && self.has(Fault::LeaveKeepsClaim) => {
                Some(newest.owner).filter(|holder| *holder != owner.into())
            }
            _ => Some(owner.into()),
        };
        let aside = match self.has(Fault::ReleaseGrantsNothing) {
            true => Some(std::mem::take(&mut lock.queue)),
            false => None,
        };
        let ended = releases.map(|owner| {
            lock.release(
                Releaser {
                    owner,
                    outcome: match outcome {
                        Outcome::Unused if self.has(Fault::UnusedCounts) => Outcome::Released,
                        Outcome::Error if self.has(Fault::FailedCounts) => Outcome::Ok,
                        outcome => outcome,
                    },
                    keep: keep.into(),
                    own: Some(own.into()),
                },
                step.now,
                &step.timing,
                &mut step.subscriptions,
            )
        });
        if let Some(queue) = aside {
            lock.queue = queue;
        }
        if self.fault.is_some() {
            // What a fault has kept from the protocol.
            lock.queue.leave(owner.into());
        }
        let ends = ended.is_some_and(|ended| ended.ended);
        state.wrong.answer |= ends != holds;
        state.wrong.answer |= !ends && step.newest != lock.newest;
        if ends {
            state.server.kept = keep;
        }
        let granted = ended.and_then(|ended| ended.granted);
        self.note_a_free_lock(state, &step, was_taken);
        self.finish(state, step, granted.map(|granted| short(granted.owner)));
        if let Some(granted) = granted {
            let owner = short(granted.owner);
            self.send_grant(state, owner, small(granted.token), By::Answer);
        }
    }

    /// An operator ends the holding: of any holder, or of one that was silent for so long.
    pub(crate) fn force_release(&self, state: &mut State, stale: Option<u8>) {
        let mut step = self.begin(state, None, None);
        let was_taken = state.server.is_taken();
        let server = &mut state.server;
        let length = match server.is_claimed() {
            true => self.timing.claim,
            false => TTL,
        };
        let is_stale = |asked: u8| server.kept == 0 && server.silent >= asked.max(length / 2);
        let ends = was_taken && stale.is_none_or(is_stale);
        let (now, timing) = (step.now, &step.timing);
        let stale = stale.filter(|_| !self.has(Fault::StaleInAnyCase));
        let stale = stale.map(u64::from);
        let ended = server
            .lock
            .force_release(stale, (), now, timing, &mut step.subscriptions);
        state.wrong.forced |= ended != ends;
        state.wrong.forced |= !ended && step.newest != server.lock.newest;
        if ended {
            server.kept = 0;
        }
        self.note_a_free_lock(state, &step, was_taken);
        self.finish(state, step, None);
    }

    /// The tick of an acquisition; zero where there is none.
    pub(crate) fn tick_of(&self, owner: Owner) -> u8 {
        self.ticks.map_or(0, |ticks| ticks.of(owner))
    }

    /// Whether no earlier run forbids it, by the model's own account.
    fn is_due(&self, server: &Server, owner: Owner) -> bool {
        let tick = self.tick_of(owner);
        self.ticks.is_none() || tick > server.tick || tick == server.tick && !server.ran
    }

    /// How the run under an acquisition has ended, as its release says.
    fn outcome(&self, state: &State, owner: Owner) -> Outcome {
        let stage = state.acquisitions.get(usize::from(owner));
        match stage {
            // It decides nothing.
            _ if self.ticks.is_none() => Outcome::Released,
            // No code ran under it.
            Some(Stage::Releasing { held: false }) => Outcome::Unused,
            _ if state.runs.failed.contains(&owner) => Outcome::Error,
            _ => Outcome::Ok,
        }
    }

    /// A holder's release has arrived in time.
    fn note_end(&self, state: &mut State, owner: Owner, outcome: Outcome) {
        let Some(ticks) = self.ticks else {
            return;
        };
        let server = &mut state.server;
        match outcome {
            Outcome::Unused => server.ran = false,
            Outcome::Error => server.ran = !ticks.retry_failed,
            _ => {
                server.ran = true;
                state.runs.ended_well.insert(ticks.of(owner));
            }
        }
    }

    fn begin(&self, state: &mut State, requester: Option<Owner>, own: Option<u8>) -> Step {
        let timing = self.timing.of_the_protocol();
        let grants = u64::try_from(state.tokens.len()).unwrap_or(u64::MAX);
        let micros = FIRST_MICROS + grants + 1;
        let now = StoreTime {
            at: NOW,
            micros: match self.tokens {
                Tokens::Counter => 0,
                Tokens::Hybrid => micros.saturating_sub(state.server.behind.into()),
            },
        };
        let queue = &state.server.lock.queue;
        let is_forgotten = queue.expires_at <= NOW;
        let kept = match self.has(Fault::OfferedAgain) {
            true => queue.waiters.clone(),
            false => BTreeMap::new(),
        };
        // The process whose claim has run out, if this step finds the lock free.
        let newest = state.server.lock.newest.as_ref();
        let over = newest.filter(|newest| {
            !newest.is_taken(now) && matches!(newest.phase, Phase::Held | Phase::Claimed)
        });
        let missed_now = queue.claimed.and_then(|(owner, process)| {
            let is_over = over.is_some_and(|newest| newest.owner == owner);
            is_over.then_some(process)
        });
        let (mut reachable, mut droppable) = (Vec::new(), Vec::new());
        for waiter in queue.waiters.values() {
            let owner = short(waiter.owner);
            let silence = queue.silence(waiter.process, now);
            let process = self.process(owner);
            let missed = queue.processes.get(&waiter.process);
            let missed = missed.is_some_and(|known| known.missed_claim)
                || missed_now == Some(waiter.process);
            let can_be_granted = match state.channels.get(usize::from(process)) {
                Some(Channel::Polls) => silence <= timing.silence,
                Some(channel) => channel.can_be_granted(),
                None => false,
            };
            let can_be_granted = can_be_granted && !missed;
            let can_be_granted = can_be_granted || Some(owner) == requester || Some(process) == own;
            let can_be_granted = can_be_granted && self.is_due(&state.server, owner);
            if is_forgotten || !can_be_granted {
                droppable.push(owner);
            } else if can_be_granted {
                reachable.push(owner);
            }
        }
        if is_forgotten {
            state
                .arrivals
                .drop_those(|owner| droppable.contains(&owner));
        }
        let mut forgotten = match is_forgotten {
            true => droppable.clone(),
            false => Vec::new(),
        };
        forgotten.retain(|owner| Some(*owner) != requester);
        // It may come back by this step.
        let may_come =
            |owner: &Owner| !reachable.contains(owner) && self.is_due(&state.server, *owner);
        reachable.extend(requester.filter(may_come));
        Step {
            newest: state.server.lock.newest.clone(),
            queue: kept,
            reachable,
            droppable,
            forgotten,
            timing,
            now,
            subscriptions: Subscriptions {
                channels: state.channels.clone(),
                grace: timing.grace,
                tried: Vec::new(),
            },
        }
    }

    /// Notes what the step has done, and sends the notifications. `answered`: the owner to
    /// which the step's answer says that the lock is its.
    fn finish(&self, state: &mut State, step: Step, answered: Option<Owner>) {
        let server = &mut state.server;
        let (before, after) = (step.newest.as_ref(), server.lock.newest.as_ref());
        let taken = after.filter(|newest| newest.is_taken(step.now));
        if taken.is_some() && before != after {
            server.ahead = 0;
        }
        let new = taken.filter(|newest| {
            before.is_none_or(|before| {
                (before.owner, before.token) != (newest.owner, newest.token)
                    || !before.is_taken(step.now)
            })
        });
        let new = new.map(|newest| (short(newest.owner), small(newest.token)));
        let tried = &step.subscriptions.tried;
        let mut in_vain = tried.iter().any(|(owner, token, reach)| {
            *reach == Reach::Notified && new != Some((*owner, *token))
        });
        if new.is_some() || answered.is_some() {
            server.silent = 0;
        }
        if let Some((owner, token)) = new {
            if let Some(ticks) = self.ticks {
                state.wrong.due |= !self.is_due(server, owner);
                server.tick = ticks.of(owner);
                server.ran = !ticks.retry_failed;
            }
            state.wrong.kept |= server.kept > 0;
            server.kept = 0;
            state.tokens.push(token);
            server.grant = number_of(state.tokens.len());
            let process = usize::from(self.process(owner));
            let finds_out = answered == Some(owner)
                || tried
                    .iter()
                    .any(|(to, _, reach)| *to == owner && is_grant(*reach))
                || state.channels.get(process) == Some(&Channel::Polls)
                    && step.reachable.contains(&owner);
            in_vain |= !finds_out;
            state.note_grant(owner, &step.reachable);
        }
        state.arrivals.granted_in_vain |= in_vain;
        self.offer_again(state, &step);
        let queue = &state.server.lock.queue;
        let dropped =
            |owner| step.droppable.contains(&owner) && queue.ahead(owner.into()).is_none();
        state.arrivals.drop_those(dropped);
        let stands = |owner: Owner| queue.ahead(owner.into()).is_some() || answered == Some(owner);
        state.wrong.queue |= step.forgotten.iter().any(|owner| {
            queue.ahead((*owner).into()).is_some() || new.is_some_and(|(to, _)| to == *owner)
        });
        state.arrivals.lost_place |= state.arrivals.misses(stands);
        for (owner, token, reach) in step.subscriptions.tried {
            if reach == Reach::Notified {
                self.send_grant(state, owner, token, By::Notification);
            }
        }
    }

    /// A lock was given back, and lies free although a waiter could be granted it.
    fn note_a_free_lock(&self, state: &mut State, step: &Step, was_taken: bool) {
        if was_taken && !state.server.is_taken() {
            let queue = &state.server.lock.queue;
            let mut waiters = queue.waiters.values().map(|waiter| short(waiter.owner));
            state.arrivals.left_free |= waiters.any(|owner| step.reachable.contains(&owner));
        }
    }

    /// Where that is the fault: a waiter that was granted the lock keeps its place until it
    /// is heard of.
    fn offer_again(&self, state: &mut State, step: &Step) {
        let lock = &mut state.server.lock;
        let Some(newest) = lock
            .newest
            .as_ref()
            .filter(|_| self.has(Fault::OfferedAgain))
        else {
            return;
        };
        if newest.phase != Phase::Claimed {
            lock.queue.leave(newest.owner);
            return;
        }
        let mut before = step.queue.iter();
        let place = before.find(|(_, waiter)| waiter.owner == newest.owner);
        if let Some(((ticket, _), waiter)) = place {
            lock.queue.restore(*ticket, waiter.clone(), NOW, true);
        }
    }

    /// Tells a waiter of its grant, if its process lives.
    fn send_grant(&self, state: &mut State, owner: Owner, token: u8, by: By) {
        let channel = state.channels.get(usize::from(self.process(owner)));
        if channel.is_some_and(|one| one.lives()) {
            state.network.insert(Message::Granted {
                owner,
                token,
                grant: state.server.grant,
                age: 0,
                by,
            });
        }
    }
}

impl Server {
    /// Whether the lock is taken.
    pub fn is_taken(&self) -> bool {
        self.holding().is_some()
    }

    /// The holding that keeps the lock taken.
    pub(crate) fn holding(&self) -> Option<&Holding<()>> {
        let newest = self.lock.newest.as_ref();
        newest.filter(|newest| newest.is_taken(PRESENT))
    }

    /// Whose lock it is.
    pub fn holder(&self) -> Option<Owner> {
        self.holding().map(|holding| short(holding.owner))
    }

    /// Whether it was granted to a waiter that was not heard of since.
    pub fn is_claimed(&self) -> bool {
        let holding = self.holding();
        holding.is_some_and(|holding| holding.phase == Phase::Claimed)
    }

    /// Whether that owner holds it, and has not given it back.
    fn is_held_by(&self, owner: Owner) -> bool {
        self.kept == 0 && self.holder() == Some(owner)
    }

    /// For how many ticks the lock is taken still, if it is.
    pub(crate) fn left(&self) -> Option<u64> {
        self.holding()
            .map(|holding| holding.expires_at.saturating_sub(NOW))
    }

    /// The waiters, in their order.
    pub fn waiters(&self) -> impl Iterator<Item = Owner> + '_ {
        let waiters = self.lock.queue.waiters.values();
        waiters.map(|waiter| short(waiter.owner))
    }

    fn newest(&self) -> Option<Grant> {
        self.holding().map(|holding| Grant {
            owner: short(holding.owner),
            token: small(holding.token),
            number: self.grant,
        })
    }

    /// The lock's record is lost, and its fence stays: nobody holds it, and nobody is told.
    pub(crate) fn evict(&mut self) {
        if let Some(newest) = &mut self.lock.newest {
            newest.expires_at = 0;
        }
        self.kept = 0;
    }

    /// A tick of its clock: all that it knows is longer ago by one.
    pub(crate) fn pass(&mut self, setup: &Setup) {
        if let Some(newest) = &mut self.lock.newest
            && !(newest.phase == Phase::Claimed && setup.has(Fault::ClaimWithoutExpiry))
        {
            newest.expires_at = newest.expires_at.saturating_sub(1);
        }
        if let Some(newest) = &mut self.lock.newest {
            newest.heartbeat_at = newest.heartbeat_at.saturating_sub(1);
        }
        self.kept = self.kept.saturating_sub(1);
        self.silent = self.silent.saturating_add(1);
        let queue = &mut self.lock.queue;
        queue.expires_at = queue.expires_at.saturating_sub(1);
        for process in queue.processes.values_mut() {
            process.polled_at = process.polled_at.saturating_sub(1);
        }
    }

    /// A tick of its clock alone, if it may run ahead by one more: whether it could.
    pub(crate) fn run_ahead(&mut self, setup: &Setup) -> bool {
        let may = self.is_taken() && self.ahead < DRIFT;
        if may {
            self.ahead += 1;
            self.pass(setup);
        }
        may
    }

    /// What is so long ago that more makes no difference is equally long ago; what no
    /// decision looks at is not told apart.
    pub(crate) fn tidy(&mut self, setup: &Setup) {
        let timing = &setup.timing;
        let is_taken = self.is_taken();
        if !is_taken {
            self.ahead = 0;
        }
        self.silent = match is_taken && setup.queue.stale > 0 {
            true => self.silent.min(setup.queue.asked.max(TTL)),
            false => 0,
        };
        if let Some(newest) = &mut self.lock.newest {
            newest.acquired = StoreTime::default();
            // Nothing but staleness goes by it.
            let longest = u64::from(setup.queue.asked.max(TTL));
            newest.heartbeat_at = match is_taken && setup.queue.stale > 0 {
                true => newest.heartbeat_at.max(NOW - longest),
                false => 0,
            };
            newest.phase = match newest.phase {
                Phase::Released(_) => Phase::Released(StoreTime::default()),
                Phase::Forced(_) => Phase::Forced(StoreTime::default()),
                taken => taken,
            };
            if !is_taken {
                newest.expires_at = 0;
            }
        }
        if let Some(success) = &mut self.lock.success {
            success.acquired = StoreTime::default();
            success.phase = Phase::Released(StoreTime::default());
            (success.heartbeat_at, success.expires_at) = (0, 0);
        }
        let queue = &mut self.lock.queue;
        queue.expires_at = match timing.queue_life {
            _ if queue.is_empty() => 0,
            NEVER => NOW + u64::from(NEVER),
            _ => queue.expires_at.max(NOW),
        };
        for process in queue.processes.values_mut() {
            let silence = timing.silence * u8::from(!process.listens);
            let longest = Some(silence).filter(|length| *length != NEVER);
            let oldest = NOW - longest.map_or(0, |longest| u64::from(longest) + 1);
            process.polled_at = process.polled_at.max(oldest);
        }
    }

    /// The tickets of its waiters.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = u8> + '_ {
        self.lock.queue.waiters.keys().map(|place| small(place.0))
    }

    /// Gives each waiter a new ticket.
    pub(crate) fn renumber(&mut self, new: impl Fn(u8) -> u8) {
        let old = std::mem::take(&mut self.lock.queue);
        self.lock.queue.expires_at = old.expires_at;
        for ((ticket, _), waiter) in old.waiters {
            if let Some(process) = old.processes.get(&waiter.process) {
                let (polled_at, listens) = (process.polled_at, process.listens);
                let ticket = new(small(ticket)).into();
                self.lock.queue.restore(ticket, waiter, polled_at, listens);
            }
        }
    }
}

/// For the protocol's questions about the present.
const PRESENT: StoreTime = StoreTime { at: NOW, micros: 0 };

/// Whether the waiter hears of its grant by that, or finds it by its next poll.
fn is_grant(reach: Reach) -> bool {
    matches!(reach, Reach::Notified | Reach::MayReturn { .. })
}

fn number_of(grants: usize) -> u8 {
    u8::try_from(grants).unwrap_or(u8::MAX)
}

/// An owner id as the model has it: there are a handful of them.
fn short(owner: u128) -> Owner {
    Owner::try_from(owner).unwrap_or(Owner::MAX)
}

/// A token, a ticket or a number of grants: all are small here.
fn small(number: u64) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

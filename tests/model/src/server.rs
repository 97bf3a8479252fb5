//! The server: the product's own [`LockState`], and what is around it. Every decision is the
//! protocol's (`applock-runtime/src/protocol`); here are only the clock, the subscriptions, and
//! the faults that are put in on purpose.
//!
//! Times count from now, so that a state is the same at any hour: the protocol is always asked at
//! [`NOW`], and a tick takes one off every time in its state. What is so long ago that more makes no
//! difference, and what nothing depends on, is set to one value.

use std::collections::BTreeMap;

use crate::protocol::{
    Decision, Granted, LockState, Notify, Phase, Reach, Requester, StoreTime, Timing, WaitQueue,
    Waiter, WhenBusy,
};
use crate::setup::{Fault, Setup, Tokens};
use crate::state::{Channel, Owner};
use crate::{CLAIM, DRIFT, GRACE, TTL};

/// The time at which the protocol is asked, in ticks.
const NOW: u64 = 1_000;

/// Longer than any run.
const NEVER: u64 = 500;

/// A server, or what a replica has of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The lock, as the product has it.
    pub(crate) lock: LockState<()>,
    /// Which grant the newest holding is, counted over all. The server does not know this.
    pub(crate) grant: u8,
    /// By how much its wall clock is behind.
    pub(crate) behind: u8,
    /// How far its clock ran ahead since the lease was last set.
    ahead: u8,
}

/// Who has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) owner: Owner,
    /// The fencing token.
    pub(crate) token: u8,
    /// Which grant it was.
    pub(crate) grant: u8,
    /// It is a claim.
    pub(crate) claimed: bool,
}

/// What a step at the server needs, beside what the server keeps.
pub(crate) struct Desk<'a> {
    /// The tokens that were given out.
    pub(crate) tokens: &'a mut Vec<u8>,
    /// What the wall clock shows, if it never stepped back: past every token that was made of it.
    pub(crate) clock: u8,
    /// What it shows for a ticket, which is past every ticket. Told apart from the other, for their
    /// values would make states of one kind differ.
    pub(crate) next_ticket: u8,
    pub(crate) channels: &'a [Channel],
    /// A waiter was written down as the holder though it could not be reached.
    pub(crate) written_in_vain: &'a mut bool,
    pub(crate) setup: &'a Setup,
}

/// What an acquire is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is yours.
    Granted(Held),
    /// Busy, for a request that does not wait.
    Busy,
    /// You stand in the queue; with your ticket, if you did not stand there before.
    Queued(Option<u8>),
}

/// A waiter that was granted the lock by a step of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) held: Held,
    /// Its process was sent a message.
    pub(crate) notified: bool,
}

/// The subscriptions, as the server knows them.
struct Wires<'a> {
    channels: &'a [Channel],
    notified: Vec<u128>,
    unreachable: Vec<u128>,
}

impl Notify<()> for Wires<'_> {
    fn reach(&mut self, waiter: &Waiter<()>, _grant: &Granted) -> Reach {
        let process = usize::try_from(waiter.process).unwrap_or(usize::MAX);
        match self.channels.get(process) {
            Some(Channel::Open | Channel::HalfOpen) => {
                self.notified.push(waiter.owner);
                Reach::Notified
            }
            Some(Channel::Returning) => Reach::MayReturn {
                within: u64::from(GRACE),
            },
            _ => {
                self.unreachable.push(waiter.owner);
                Reach::Unreachable
            }
        }
    }
}

impl Setup {
    /// The protocol's constants, in ticks.
    pub(crate) fn timing(&self) -> Timing {
        let (dead_after, queue_life) = match self.queue.dead_after {
            0 => (NEVER, NEVER),
            ticks => (u64::from(ticks), u64::from(ticks) + 1),
        };
        Timing {
            claim: u64::from(CLAIM),
            silence: u64::from(CLAIM),
            dead_after,
            queue_life,
            grace: u64::from(GRACE),
        }
    }
}

impl<'a> Desk<'a> {
    fn now(&self, server: &Server) -> StoreTime {
        let clock = match self.setup.tokens {
            Tokens::Counter => 0,
            Tokens::Hybrid => self.clock.saturating_sub(server.behind),
        };
        StoreTime {
            at: NOW,
            micros: u64::from(clock),
        }
    }

    fn wires(&self) -> Wires<'a> {
        Wires {
            channels: self.channels,
            notified: Vec::new(),
            unreachable: Vec::new(),
        }
    }
}

impl Server {
    /// Who has the lock now.
    pub(crate) fn held(&self) -> Option<Held> {
        let newest = self.lock.newest.as_ref();
        let newest = newest.filter(|newest| newest.is_taken(time()))?;
        Some(Held {
            owner: small(newest.owner),
            token: u8::try_from(newest.token).unwrap_or(u8::MAX),
            grant: self.grant,
            claimed: newest.phase == Phase::Claimed,
        })
    }

    /// Who stands in the queue, in order.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Owner> + '_ {
        self.lock
            .queue
            .waiters
            .keys()
            .map(|(_, owner)| small(*owner))
    }

    pub(crate) fn tickets(&self) -> impl Iterator<Item = u8> + '_ {
        let waiters = self.lock.queue.waiters.keys();
        waiters.map(|(ticket, _)| u8::try_from(*ticket).unwrap_or(u8::MAX))
    }

    /// Gives each ticket its new number.
    pub(crate) fn number_tickets(&mut self, new: &BTreeMap<u8, u8>) {
        self.map_tickets(|ticket| {
            let small = u8::try_from(ticket).unwrap_or(u8::MAX);
            new.get(&small).map_or(ticket, |new| u64::from(*new))
        });
    }

    /// An acquire arrives. Says, too, which waiter was granted the lock by it.
    pub(crate) fn acquire(
        &mut self,
        owner: Owner,
        waits: bool,
        ticket: Option<u8>,
        desk: &mut Desk<'_>,
    ) -> (Reply, Option<Handed>) {
        let (setup, now) = (desk.setup, desk.now(self));
        let process = setup.process(owner);
        if setup.has(Fault::BackWithEachPoll) {
            self.lock.queue.leave(owner.into());
        }
        let when_busy = match waits {
            false => WhenBusy::Refuse,
            true => WhenBusy::Wait {
                ticket: Some(
                    ticket
                        .filter(|_| !setup.has(Fault::BackWithEachPoll))
                        .unwrap_or(desk.next_ticket)
                        .into(),
                ),
                listens: !setup.polls(process),
            },
        };
        let requester = Requester {
            owner: owner.into(),
            process: process.into(),
            ttl: TTL.into(),
            who: (),
        };
        let mut wires = desk.wires();
        let hidden = (!waits && setup.has(Fault::TryJumpsTheQueue))
            .then(|| std::mem::take(&mut self.lock.queue));
        let before = self.token();
        let decision = self
            .lock
            .acquire(requester, when_busy, now, &setup.timing(), &mut wires);
        if let Some(hidden) = hidden {
            self.lock.queue = hidden;
        }
        let handed = self.after(before, Some(owner), wires, desk);
        let reply = match (decision, self.held()) {
            (Ok(Decision::Granted), Some(held)) => Reply::Granted(held),
            (Ok(Decision::Queued { ticket, .. }), _) => {
                let ticket = ticket.map(|ticket| u8::try_from(ticket).unwrap_or(u8::MAX));
                Reply::Queued(ticket)
            }
            _ => Reply::Busy,
        };
        self.tidy(setup);
        (reply, handed)
    }

    /// Sets the lease back, if that owner id holds it.
    pub(crate) fn renew(&mut self, owner: Owner, setup: &Setup) -> bool {
        let renewed = self.lock.renew(owner.into(), TTL.into(), time());
        if renewed {
            self.ahead = 0;
        }
        self.tidy(setup);
        renewed
    }

    /// Gives the lock back, if that owner id holds it (rule R7), and its place in the queue.
    /// Says which waiter was granted the lock by it, and whether the answer tells of that.
    pub(crate) fn release(&mut self, owner: Owner, desk: &mut Desk<'_>) -> Option<Handed> {
        let setup = desk.setup;
        let held = self.held();
        let is_its = held.is_some_and(|held| held.owner == owner);
        if is_its && held.is_some_and(|held| held.claimed) && setup.has(Fault::LeaveKeepsTheClaim) {
            self.lock.queue.leave(owner.into());
            return None;
        }
        if !is_its && setup.has(Fault::UnconditionalDelete) {
            return self.force(desk);
        }
        let (now, before) = (desk.now(self), self.token());
        let own = Some(setup.process(owner).into());
        let mut wires = desk.wires();
        let hidden = setup
            .has(Fault::ReleaseHandsNothingOver)
            .then(|| std::mem::take(&mut self.lock.queue));
        if setup.has(Fault::LastComeFirstServed) {
            self.mirror();
        }
        let timing = setup.timing();
        let ended = self
            .lock
            .release(owner.into(), 0, own, now, &timing, &mut wires);
        if setup.has(Fault::LastComeFirstServed) {
            self.mirror();
        }
        if let Some(mut hidden) = hidden {
            hidden.leave(owner.into());
            self.lock.queue = hidden;
        }
        let handed = self.after(before, None, wires, desk);
        self.tidy(setup);
        handed.map(|handed| Handed {
            notified: handed.notified && ended.granted.is_none(),
            ..handed
        })
    }

    /// Takes the lock from its holder. Says which waiter was granted it.
    pub(crate) fn force(&mut self, desk: &mut Desk<'_>) -> Option<Handed> {
        let (now, before) = (desk.now(self), self.token());
        let mut wires = desk.wires();
        let timing = desk.setup.timing();
        self.lock.force_release(None, now, &timing, &mut wires);
        let handed = self.after(before, None, wires, desk);
        self.tidy(desk.setup);
        handed
    }

    /// The lock's key vanishes.
    pub(crate) fn evict(&mut self, setup: &Setup) {
        if let Some(newest) = &mut self.lock.newest {
            newest.expires_at = NOW;
        }
        self.tidy(setup);
    }

    /// A tick of its clock. A lock that expires is free; nobody is told, and nobody is granted
    /// it before the next poll.
    pub(crate) fn tick(&mut self, setup: &Setup) {
        let timing = setup.timing();
        if let Some(newest) = &mut self.lock.newest {
            let stays = newest.phase == Phase::Claimed && setup.has(Fault::ClaimWithoutExpiry);
            newest.expires_at -= u64::from(!stays && newest.expires_at > NOW);
        }
        let queue = &mut self.lock.queue;
        if timing.queue_life < NEVER {
            queue.expires_at = queue.expires_at.saturating_sub(1);
        }
        for process in queue.processes.values_mut() {
            process.polled_at = process.polled_at.saturating_sub(1);
        }
        self.tidy(setup);
    }

    /// A tick of its clock alone, if it may run ahead by one more: whether it could.
    pub(crate) fn run_ahead(&mut self, setup: &Setup) -> bool {
        let may = self.held().is_some() && self.ahead < DRIFT;
        if may {
            self.ahead += 1;
            self.tick(setup);
        }
        may
    }

    fn token(&self) -> Option<u64> {
        self.lock.newest.as_ref().map(|newest| newest.token)
    }

    /// After a step: whether the lock was granted, and to a waiter that did not ask just now.
    fn after(
        &mut self,
        before: Option<u64>,
        requester: Option<Owner>,
        wires: Wires<'_>,
        desk: &mut Desk<'_>,
    ) -> Option<Handed> {
        let newest = self.lock.newest.as_ref()?;
        if Some(newest.token) == before {
            if self
                .held()
                .is_some_and(|held| Some(held.owner) == requester)
            {
                // An acquire that was repeated: a full lease again.
                self.ahead = 0;
            }
            return None;
        }
        let owner = newest.owner;
        let (notified, unreachable) = (wires.notified, wires.unreachable);
        *desk.written_in_vain |= unreachable.contains(&owner);
        let token = u8::try_from(newest.token).unwrap_or(u8::MAX);
        desk.tokens.push(token);
        self.ahead = 0;
        self.grant = u8::try_from(desk.tokens.len()).unwrap_or(u8::MAX);
        let held = self.held()?;
        (requester != Some(held.owner)).then(|| Handed {
            held,
            notified: notified.contains(&owner),
        })
    }

    /// The queue from its other end.
    fn mirror(&mut self) {
        self.map_tickets(|ticket| u64::from(u8::MAX) - ticket);
    }

    fn map_tickets(&mut self, new: impl Fn(u64) -> u64) {
        let old = std::mem::take(&mut self.lock.queue);
        self.lock.queue.expires_at = old.expires_at;
        for ((ticket, _), waiter) in old.waiters {
            let known = old.processes.get(&waiter.process);
            let (polled_at, listens) =
                known.map_or((NOW, true), |one| (one.polled_at, one.listens));
            self.lock
                .queue
                .restore(new(ticket), waiter, polled_at, listens);
        }
    }

    /// Puts the state into the form in which those that can't be told apart are equal.
    fn tidy(&mut self, setup: &Setup) {
        let timing = setup.timing();
        if let Some(newest) = &mut self.lock.newest {
            let is_taken = newest.is_taken(time());
            newest.acquired = StoreTime::default();
            newest.heartbeat_at = 0;
            if !is_taken {
                // Nothing but its token counts any more.
                newest.owner = 0;
                newest.phase = Phase::Released(StoreTime::default());
                newest.expires_at = 0;
                self.grant = 0;
                self.ahead = 0;
            }
        }
        let queue = &mut self.lock.queue;
        let is_old = queue.expires_at <= NOW;
        if queue.is_empty() || is_old {
            *queue = WaitQueue::default();
        }
        let longest = match timing.dead_after {
            NEVER => timing.silence,
            finite => timing.silence.max(finite),
        };
        for process in queue.processes.values_mut() {
            let is_of_no_account = process.listens && timing.dead_after == NEVER;
            process.polled_at = match is_of_no_account {
                true => NOW,
                false => process.polled_at.max(NOW - longest - 1),
            };
        }
    }
}

fn time() -> StoreTime {
    StoreTime { at: NOW, micros: 0 }
}

fn small(owner: u128) -> Owner {
    // There are a handful of them.
    Owner::try_from(owner).unwrap_or(Owner::MAX)
}

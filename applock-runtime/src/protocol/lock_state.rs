//! One lock: who holds it or held it last, who waits for it, and every step that changes that.

use super::notify::{Notify, Reach};
use super::request::{
    Before, Decision, Due, Ended, Granted, Outcome, Owner, Process, Releaser, Requester, Tick,
    TokensUsedUp, WhenBusy,
};
use super::timing::{MAX_TOKEN, StoreTime, Timing};
use super::wait_queue::WaitQueue;

/// All that a store knows of one lock. `W`: a holder or a waiter. `B`: who ends a holding by force.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LockState<W, B = W> {
    /// The newest holding, be it over or not: its token is the last that was given.
    pub(crate) newest: Option<Holding<W, B>>,
    /// The newest before it that ended well. It is remembered as long as `newest` is.
    pub(crate) success: Option<Holding<W, B>>,
    pub(crate) queue: WaitQueue<W>,
}

/// One acquisition of the lock, from its grant to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holding<W, B = W> {
    pub(crate) owner: Owner,
    /// What the store shows of the holder.
    pub(crate) who: W,
    /// The fencing token.
    pub(crate) token: u64,
    pub(crate) phase: Phase,
    /// How it ended, as its holder said: of one that is kept or released.
    pub(crate) outcome: Outcome,
    /// Who ended it by force.
    pub(crate) forced_by: Option<B>,
    /// The largest tick that was begun until then.
    pub(crate) tick: Option<Begun>,
    /// The lease's length as the holder asked for it.
    pub(crate) ttl: u64,
    /// For how long it is remembered after its end.
    pub(crate) remember: u64,
    /// The same of the last holding until then that was once per tick; zero: of none. `remember` is
    /// not shorter, or a tick that was begun could run again once this holding is forgotten.
    pub(crate) ticks_remember: u64,
    /// When it was granted.
    pub(crate) acquired: StoreTime,
    /// When the lease was last set: by the grant, or by a heartbeat.
    pub(crate) heartbeat_at: u64,
    /// When the lease runs out. At exactly that time the lock is free.
    pub(crate) expires_at: u64,
}

/// A tick that has a number, and was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Begun {
    pub(crate) number: u64,
    /// The token of the run that began it last: perhaps not the newest, which may have had no
    /// tick.
    pub(crate) token: u64,
}

/// Where a holding stands. That its lease ran out is never written: it follows from the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Its holder keeps it alive.
    Held,
    /// It was granted to a waiter, and nothing was heard of that waiter since.
    Claimed,
    /// Its holder has given it back, but it stays taken until the lease's end (`at_least`).
    Kept,
    /// Its holder has given it back.
    Released(StoreTime),
    /// It was ended by force.
    Forced(StoreTime),
}

// By hand: neither type need have a default.
impl<W, B> Default for LockState<W, B> {
    fn default() -> Self {
        Self {
            newest: None,
            success: None,
            queue: WaitQueue::default(),
        }
    }
}

impl<W, B> Holding<W, B> {
    /// Whether the lock is taken: held, claimed, or kept for `at_least`.
    pub(crate) fn is_taken(&self, now: StoreTime) -> bool {
        let has_ended = matches!(self.phase, Phase::Released(_) | Phase::Forced(_));
        !has_ended && now.at < self.expires_at
    }

    /// Whether that owner holds it, and has not given it back.
    pub(crate) fn is_held_by(&self, owner: Owner, now: StoreTime) -> bool {
        self.owner == owner && self.phase != Phase::Kept && self.is_taken(now)
    }

    /// Whether the store still knows of it: it is taken, or its end is not longer ago than it is
    /// to be remembered. The order of tokens does not need it: the next one is never below the
    /// clock.
    pub(crate) fn is_remembered(&self, now: StoreTime) -> bool {
        now.at < self.forgotten_at()
    }

    /// From when on the store knows nothing of it, if no further heartbeat comes.
    pub(crate) fn forgotten_at(&self) -> u64 {
        let end = match self.phase {
            Phase::Released(at) | Phase::Forced(at) => at.at,
            Phase::Held | Phase::Claimed | Phase::Kept => self.expires_at,
        };
        end.saturating_add(self.remember)
    }

    /// The length of the lease as it is at the moment.
    pub(crate) fn term(&self, timing: &Timing) -> u64 {
        match self.phase {
            Phase::Claimed => self.ttl.min(timing.claim),
            _ => self.ttl,
        }
    }

    /// Whether its heart has stopped: no heartbeat for `asked`, and for half of its lease. A
    /// heart beats each third of the lease, so a shorter silence is none. What `at_least` keeps
    /// beats no more, on purpose, and is never stale.
    fn is_stale(&self, asked: u64, now: StoreTime, timing: &Timing) -> bool {
        let silence = now.at.saturating_sub(self.heartbeat_at);
        self.phase != Phase::Kept && silence >= asked.max(self.term(timing) / 2)
    }

    /// Whether it is over, and ended well.
    fn is_success(&self) -> bool {
        matches!(self.phase, Phase::Kept | Phase::Released(_)) && self.outcome == Outcome::Ok
    }

    /// Whether it counts as the run of its tick, as far as is known now.
    fn counts(&self, retry_failed: bool) -> bool {
        match self.phase {
            Phase::Kept | Phase::Released(_) if self.outcome == Outcome::Unused => false,
            _ if !retry_failed => true,
            Phase::Kept | Phase::Released(_) => self.outcome.is_fine(),
            // It goes on, and may end either way; it has expired; or it was ended by force.
            Phase::Held | Phase::Claimed | Phase::Forced(_) => false,
        }
    }

    /// A heartbeat, which also confirms a claim.
    fn refresh(&mut self, ttl: u64, now: StoreTime) {
        self.phase = Phase::Held;
        self.heartbeat_at = now.at;
        self.expires_at = now.at.saturating_add(ttl);
    }
}

impl<W: Clone, B> LockState<W, B> {
    /// Whether the lock is taken.
    pub(crate) fn is_taken(&self, now: StoreTime) -> bool {
        self.newest
            .as_ref()
            .is_some_and(|holding| holding.is_taken(now))
    }

    /// The newest holding, if the store still knows of it.
    pub(crate) fn remembered(&self, now: StoreTime) -> Option<&Holding<W, B>> {
        let newest = self.newest.as_ref();
        newest.filter(|newest| newest.is_remembered(now))
    }

    /// The newest holding that ended well, if the store still knows of it. One that is kept is not
    /// over yet.
    pub(crate) fn last_success(&self, now: StoreTime) -> Option<&Holding<W, B>> {
        let newest = self.remembered(now)?;
        match newest.is_success() && !newest.is_taken(now) {
            true => Some(newest),
            false => self.success.as_ref(),
        }
    }

    /// Which earlier run forbids a request. `None`: none does; but another may have the lock.
    fn forbids(&self, due: Option<Due>, now: StoreTime) -> Option<Before> {
        let Due { tick, retry_failed } = due?;
        let newest = self.newest.as_ref()?;
        let counts = newest.counts(retry_failed);
        match tick {
            Tick::Gap(gap) => {
                let is_recent =
                    |run: &Holding<W, B>| now.micros.saturating_sub(run.acquired.micros) < gap;
                if counts {
                    return is_recent(newest).then_some(Before::Newest);
                }
                let success = self.success.as_ref();
                success.is_some_and(is_recent).then_some(Before::Success)
            }
            Tick::Number(number) => {
                let begun = newest.tick?;
                // A later run without a tick closes the tick of a failed one.
                let is_open = begun.token == newest.token && !counts;
                if number > begun.number || number == begun.number && is_open {
                    return None;
                }
                let success = self.success.as_ref();
                Some(match success.is_some_and(|run| run.token == begun.token) {
                    true => Before::Success,
                    false => Before::Newest,
                })
            }
        }
    }

    /// How many stand in the queue.
    pub(crate) fn waiters(&self, now: StoreTime) -> usize {
        match now.at < self.queue.expires_at {
            true => self.queue.len(),
            false => 0,
        }
    }

    /// Takes the lock if it is free and no waiter before the requester can be reached, or if
    /// the requester holds it already: its first answer, or a grant, may have been lost (rule R6).
    ///
    /// Refused, whether the lock is free or not, if an earlier run forbids it.
    ///
    /// # Errors
    ///
    /// [`TokensUsedUp`], with nothing changed.
    pub(crate) fn acquire(
        &mut self,
        request: Requester<W>,
        when_busy: WhenBusy,
        now: StoreTime,
        timing: &Timing,
        notify: &mut impl Notify<W>,
    ) -> Result<Decision, TokensUsedUp> {
        self.forget(now);
        let owner = request.owner;
        if let Some(holding) = &mut self.newest
            && holding.is_held_by(owner, now)
        {
            holding.refresh(request.ttl, now);
            return Ok(Decision::Granted);
        }
        if let Some(before) = self.forbids(request.due, now) {
            self.leave(owner);
            return Ok(Decision::AlreadyRan(before));
        }
        let token = match self.is_taken(now) {
            true => None,
            // Before anything is changed.
            false => Some(self.next_token(now)?),
        };
        if let Some(token) = token
            && self.queue.is_empty()
        {
            self.grant(&request, token, request.ttl, Phase::Held, now);
            return Ok(Decision::Granted);
        }
        if token.is_some() {
            // Before the request joins: by that its process shows that it is alive.
            self.note_missed_claim();
        }
        let place = match when_busy {
            WhenBusy::Refuse => None,
            WhenBusy::Wait { ticket, listens } => {
                self.queue.expires_at = now.at.saturating_add(timing.queue_life);
                Some(self.queue.join(request.clone(), ticket, listens, now))
            }
        };
        if let Some(token) = token {
            self.offer(token, None, Some(owner), now, timing, notify);
            if !self.is_taken(now) {
                // No waiter can be reached.
                self.grant(&request, token, request.ttl, Phase::Held, now);
            }
            let newest = self.newest.as_ref();
            if newest.is_some_and(|newest| newest.owner == owner) {
                return Ok(Decision::Granted);
            }
        }
        Ok(match (place, self.queue.ahead(owner)) {
            (Some((ticket, is_new)), Some(ahead)) => Decision::Queued {
                ahead,
                ticket,
                is_new,
            },
            _ => Decision::Busy,
        })
    }

    /// A heartbeat: the lease is set back to its full length. `false`: not held by that owner
    /// (any more), and nothing was changed.
    pub(crate) fn renew(&mut self, owner: Owner, ttl: u64, now: StoreTime) -> bool {
        match &mut self.newest {
            Some(holding) if holding.is_held_by(owner, now) => {
                holding.refresh(ttl, now);
                true
            }
            _ => false,
        }
    }

    /// Its holder gives it back (rule R7), and the lock goes to the first waiter that can be
    /// reached; or it stays taken for `keep`. An owner that waits leaves the queue.
    ///
    pub(crate) fn release(
        &mut self,
        request: Releaser,
        now: StoreTime,
        timing: &Timing,
        notify: &mut impl Notify<W>,
    ) -> Ended {
        self.forget(now);
        let Releaser {
            owner,
            outcome,
            keep,
            own,
        } = request;
        let Some(holding) = self
            .newest
            .as_mut()
            .filter(|one| one.is_held_by(owner, now))
        else {
            self.leave(owner);
            return Ended::default();
        };
        holding.outcome = outcome;
        if keep > 0 {
            holding.phase = Phase::Kept;
            holding.ttl = keep;
            holding.heartbeat_at = now.at;
            holding.expires_at = now.at.saturating_add(keep);
            return Ended {
                ended: true,
                granted: None,
            };
        }
        holding.phase = Phase::Released(now);
        Ended {
            ended: true,
            granted: self.hand_over(own, now, timing, notify),
        }
    }

    /// Ends whatever holding there is: always, or (`stale`) if no heartbeat came for so long.
    /// The lock goes to the first waiter that can be reached. `false`: nothing was ended. `by`: who
    /// does it. Where `at_least` keeps the lock the run has ended before, as its holder said.
    pub(crate) fn force_release(
        &mut self,
        stale: Option<u64>,
        by: B,
        now: StoreTime,
        timing: &Timing,
        notify: &mut impl Notify<W>,
    ) -> bool {
        self.forget(now);
        let Some(holding) = self.newest.as_mut().filter(|one| one.is_taken(now)) else {
            return false;
        };
        if stale.is_some_and(|asked| !holding.is_stale(asked, now, timing)) {
            return false;
        }
        if holding.phase == Phase::Kept {
            holding.phase = Phase::Released(now);
        } else {
            holding.phase = Phase::Forced(now);
            holding.forced_by = Some(by);
        }
        self.hand_over(None, now, timing, notify);
        true
    }

    /// The larger of the last token plus one and the store's clock in microseconds (rule R8: it
    /// only grows, also where the counter or the clock was lost).
    fn next_token(&self, now: StoreTime) -> Result<u64, TokensUsedUp> {
        let last = self.newest.as_ref().map_or(0, |newest| newest.token);
        let token = last.saturating_add(1).max(now.micros);
        (token <= MAX_TOKEN).then_some(token).ok_or(TokensUsedUp)
    }

    /// The lock has become free. It is so in any case: where tokens are
    /// used up, the next request gets that error.
    fn hand_over(
        &mut self,
        own: Option<Process>,
        now: StoreTime,
        timing: &Timing,
        notify: &mut impl Notify<W>,
    ) -> Option<Granted> {
        if self.queue.is_empty() {
            self.queue = WaitQueue::default();
            return None;
        }
        let token = self.next_token(now).ok()?;
        self.offer(token, own, None, now, timing, notify)
    }

    /// The lock is free though its newest holder has not given it back. If that holder was granted
    /// it unasked, its process is out of reach, whether it has confirmed the claim or not: the
    /// other waiters of that process are not offered the lock before it polls again.
    fn note_missed_claim(&mut self) {
        let Some((owner, process)) = self.queue.claimed else {
            return;
        };
        let is_over = |newest: &Holding<W, B>| {
            let is_open = matches!(newest.phase, Phase::Held | Phase::Claimed);
            newest.owner == owner && is_open
        };
        if self.newest.as_ref().is_some_and(is_over)
            && let Some(known) = self.queue.processes.get_mut(&process)
        {
            known.missed_claim = true;
        }
    }

    /// Offers a free lock to the waiters, in their order, until one gets it; those out of reach
    /// leave the queue. Returns a grant to the process `own`, which the answer notifies; a `requester` that asks at this moment gets a full lease.
    fn offer(
        &mut self,
        token: u64,
        own: Option<Process>,
        requester: Option<Owner>,
        now: StoreTime,
        timing: &Timing,
        notify: &mut impl Notify<W>,
    ) -> Option<Granted> {
        let mut unreachable: Vec<Process> = Vec::new();
        let mut next = self.queue.next_after(None);
        while let Some(place) = next {
            next = self.queue.next_after(Some(place));
            let waiter = self.queue.waiters.get(&place)?;
            if self.forbids(waiter.due, now).is_some() {
                // It is told by its next poll.
                self.queue.remove(place);
                continue;
            }
            let (process, silence) = (waiter.process, self.queue.silence(waiter.process, now));
            let known = self.queue.processes.get(&process);
            let listens = known.is_some_and(|known| known.listens);
            let grant = Granted {
                owner: waiter.owner,
                token,
                acquired: now,
                claim: waiter.ttl.min(timing.claim),
            };
            let missed = known.is_some_and(|known| known.missed_claim);
            let (lease, phase) = if requester == Some(waiter.owner) {
                (Some(waiter.ttl), Phase::Held)
            } else if own == Some(process) {
                (Some(grant.claim), Phase::Claimed)
            } else if missed || unreachable.contains(&process) {
                (None, Phase::Claimed)
            } else if !listens {
                let polls = silence <= timing.silence;
                (polls.then_some(grant.claim), Phase::Claimed)
            } else {
                let lease = match notify.reach(waiter, &grant) {
                    Reach::Notified => Some(grant.claim),
                    Reach::MayReturn { within } => Some(within),
                    Reach::Unreachable => {
                        unreachable.push(process);
                        None
                    }
                };
                (lease, Phase::Claimed)
            };
            let waiter = self.queue.remove(place)?;
            if let Some(lease) = lease {
                if phase == Phase::Claimed {
                    self.queue.claimed = Some((waiter.owner, process));
                }
                let request = Requester {
                    owner: waiter.owner,
                    process,
                    ttl: waiter.ttl,
                    remember: waiter.remember,
                    due: waiter.due,
                    who: waiter.who,
                };
                self.grant(&request, token, lease, phase, now);
                return (own == Some(process)).then_some(grant);
            }
        }
        None
    }

    /// Makes it the holder of a free lock.
    fn grant(
        &mut self,
        request: &Requester<W>,
        token: u64,
        lease: u64,
        phase: Phase,
        now: StoreTime,
    ) {
        let before = self.newest.take();
        let tick = match request.due.map(|due| due.tick) {
            Some(Tick::Number(number)) => Some(Begun { number, token }),
            _ => before.as_ref().and_then(|before| before.tick),
        };
        let ticks_remember = match (request.due, &before) {
            (Some(_), _) => request.remember,
            (None, Some(before)) => before.ticks_remember,
            (None, None) => 0,
        };
        if let Some(success) = before.filter(Holding::is_success) {
            self.success = Some(success);
        }
        self.newest = Some(Holding {
            owner: request.owner,
            who: request.who.clone(),
            token,
            phase,
            outcome: Outcome::default(),
            forced_by: None,
            tick,
            ttl: request.ttl,
            remember: request.remember.max(ticks_remember),
            ticks_remember,
            acquired: now,
            heartbeat_at: now.at,
            expires_at: now.at.saturating_add(lease),
        });
    }

    /// Forgets a holding whose time is over, and an old queue: waiters poll far more often than
    /// a queue lives, so those of an old one are all dead.
    fn forget(&mut self, now: StoreTime) {
        if self.remembered(now).is_none() {
            self.newest = None;
            self.success = None;
        }
        if now.at >= self.queue.expires_at {
            self.queue = WaitQueue::default();
        }
    }

    /// An owner that does not hold the lock leaves the queue, if it stands there.
    fn leave(&mut self, owner: Owner) {
        if self.queue.leave(owner).is_some() && self.queue.is_empty() {
            self.queue = WaitQueue::default();
        }
    }
}

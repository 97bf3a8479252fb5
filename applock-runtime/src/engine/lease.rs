//! The lease of one acquisition: the one atomic that says whether a lock is held.
//!
//! Guard, body and engine share it, and each reads it with no I/O and no lock.
//! `valid_until` is a moment of the clock, or `OVER`. It moves forward only, by answered
//! heartbeats; and once it is over it is over for good (rule R4), whichever thread sees the
//! end first. All changes are compare-and-swap against the value that was judged, so that a
//! late answer, a loss and a release that race one another cannot bring a lease back.
//!
//! The danger this file guards against is a holder that believes in a lock that the store
//! has given away. Nothing here speaks to the store, and nothing here has a timer.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use crate::clock::{Clock, Moment};
use crate::error::{Error, Loss};
use crate::info::{LockInfo, Record};
use crate::key::Key;
use crate::protocol::Outcome;
use crate::store::{Identity, OwnerId};

use super::lease_time::{Sent, WALL_JUMP, wall_lead};

/// What can be said of a lease with no answer from anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Valid,
    /// It counts by the clock, but the clock itself is suspect: the store has to confirm
    /// the lease first.
    Suspect,
    Over,
}

/// The lease of one acquisition, shared by its guard, its body and the engine.
///
/// Three groups of fields: what the grant fixed (key, owner, token, ttl), the atomics that
/// heartbeats move, and why it ended. `loss` is written before `valid_until` says `OVER`,
/// so that no reader finds a lease over without a reason.
pub(crate) struct Lease {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
    /// For how long the store remembers the holding after its end.
    pub(crate) remember: Duration,
    pub(crate) acquired_at: SystemTime,
    /// When the answer to the acquisition arrived.
    pub(crate) since: Moment,
    pub(crate) at_least: Option<Duration>,
    /// The end that `at_most` sets, whatever the heartbeat says.
    cap: Option<Moment>,
    identity: Arc<Identity>,
    clock: Arc<dyn Clock>,
    /// The process that holds the lock: one that it forks off does not.
    pub(super) process: u32,
    /// Nanoseconds of the clock; [`OVER`] once the lease is lost or released.
    valid_until: AtomicU64,
    /// When the last confirmed heartbeat was sent.
    last_heartbeat: AtomicU64,
    /// How far the wall clock was ahead then: see [`Sent`].
    lead: AtomicI64,
    /// Whether a heartbeat was asked for since the lease became suspect.
    asked: AtomicBool,
    /// Why it is over: 0 while it is not; see [`Lease::loss`].
    loss: AtomicU8,
    /// How the run under it has ended, for the store: see [`Lease::outcome`].
    outcome: AtomicU8,
    changed: Notify,
}

const OVER: u64 = 0;

/// An outcome as a number.
fn code(outcome: Outcome) -> u8 {
    let place = Outcome::NAMES.iter().position(|(one, _)| *one == outcome);
    u8::try_from(place.unwrap_or_default()).unwrap_or_default()
}

const RELEASED: u8 = 255;
const LOSSES: [Loss; 5] = [
    Loss::Expired,
    Loss::Taken,
    Loss::AtMost,
    Loss::Shutdown,
    Loss::Stopped,
];

/// What a lease starts with.
pub(crate) struct Terms {
    pub(crate) key: Key,
    pub(crate) owner: OwnerId,
    pub(crate) token: u64,
    pub(crate) ttl: Duration,
    pub(crate) remember: Duration,
    pub(crate) acquired_at: SystemTime,
    /// When the answer arrived.
    pub(crate) since: Moment,
    pub(crate) at_least: Option<Duration>,
    pub(crate) cap: Option<Moment>,
    pub(crate) identity: Arc<Identity>,
    /// The process that holds the lock.
    pub(crate) process: u32,
}

impl Lease {
    pub(crate) fn new(
        terms: Terms,
        clock: Arc<dyn Clock>,
        sent: Sent,
        valid_until: Moment,
    ) -> Self {
        Self {
            key: terms.key,
            owner: terms.owner,
            token: terms.token,
            ttl: terms.ttl,
            remember: terms.remember,
            acquired_at: terms.acquired_at,
            since: terms.since,
            at_least: terms.at_least,
            cap: terms.cap,
            identity: terms.identity,
            valid_until: AtomicU64::new(valid_until.nanos().max(OVER + 1)),
            last_heartbeat: AtomicU64::new(sent.at.nanos()),
            lead: AtomicI64::new(sent.lead),
            asked: AtomicBool::new(false),
            loss: AtomicU8::new(0),
            outcome: AtomicU8::new(code(Outcome::Unused)),
            changed: Notify::new(),
            clock,
            process: terms.process,
        }
    }

    /// What is known of the lease. Reads both clocks; no I/O.
    ///
    /// The end by the clock comes first: a suspect lease that has run out is over, whatever
    /// the wall clock says.
    pub(crate) fn validity(&self) -> Validity {
        self.validity_at(self.clock.now())
    }

    fn is_suspect_at(&self, now: Moment) -> bool {
        let lead = self.lead.load(Ordering::Acquire);
        wall_lead(&*self.clock, now).saturating_sub(lead) > WALL_JUMP
    }

    /// `true` for the first reader that finds the lease suspect: it sends for the
    /// heartbeat.
    pub(crate) fn asks_first(&self) -> bool {
        !self.asked.swap(true, Ordering::AcqRel)
    }

    /// The store has answered about a suspect lease: a body that was kept back reads it
    /// again.
    pub(crate) fn clear(&self) {
        if self.asked.swap(false, Ordering::AcqRel) {
            self.changed.notify_waiters();
        }
    }

    /// The same at a moment that was just read. Reads the wall clock.
    pub(crate) fn validity_at(&self, now: Moment) -> Validity {
        if !self.is_valid_at(now) {
            Validity::Over
        } else if self.is_suspect_at(now) {
            Validity::Suspect
        } else {
            Validity::Valid
        }
    }

    /// Whether the lease still counts. Reads the clock; no I/O.
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid_at(self.clock.now())
    }

    /// Whether it was copied by a fork: the lock is held by the parent, whose engine sends the
    /// heartbeats, and the child holds nothing. A system call: asked once for each call of a
    /// user's, and never by the engine, whose thread no fork copies.
    pub(crate) fn is_of_another_process(&self) -> bool {
        self.process != std::process::id()
    }

    /// The same at a moment that was just read: one that is a little old never ends a lease too
    /// early.
    pub(crate) fn is_valid_at(&self, now: Moment) -> bool {
        loop {
            let until = self.valid_until.load(Ordering::Acquire);
            if until == OVER {
                return false;
            }
            if now.nanos() < until {
                return true;
            }
            // It ran out: over for good, so that an answer that comes late cannot bring it
            // back (rule R4). If the engine has extended it just now, judge it again.
            let loss = match self.cap {
                Some(cap) if cap.nanos() <= until => Loss::AtMost,
                _ => Loss::Expired,
            };
            if self.end(until, loss) {
                return false;
            }
        }
    }

    /// Whether the lease reaches the end that `at_most` sets, so that no heartbeat can
    /// move it further.
    pub(crate) fn is_capped(&self) -> bool {
        self.cap.is_some_and(|cap| self.valid_until() >= cap)
    }

    /// Moves the lease's end, forward only. `false`: it was over, and stays over (rule R4).
    ///
    /// `now` is when the answer came, `sent` when the heartbeat left. Answers may overtake one another, so the later of
    /// two ends counts, and the lead of the wall clock goes with the heartbeat that left
    /// last.
    pub(crate) fn extend(&self, now: Moment, sent: Sent, until: Moment) -> bool {
        let until = self.cap.map_or(until, |cap| until.min(cap));
        loop {
            if !self.is_valid_at(now) {
                return false;
            }
            let known = self.valid_until.load(Ordering::Acquire);
            if known == OVER {
                return false;
            }
            let extended = known.max(until.nanos());
            if self
                .valid_until
                .compare_exchange(known, extended, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
            {
                if self
                    .last_heartbeat
                    .fetch_max(sent.at.nanos(), Ordering::AcqRel)
                    <= sent.at.nanos()
                {
                    self.lead.store(sent.lead, Ordering::Release);
                }
                self.clear();
                return true;
            }
        }
    }

    /// Ends the lease as lost. `false`: it was over before.
    pub(crate) fn lose(&self, loss: Loss) -> bool {
        loop {
            let known = self.valid_until.load(Ordering::Acquire);
            if known == OVER {
                return false;
            }
            if self.end(known, loss) {
                return true;
            }
        }
    }

    /// The holder lets go. A lease that has run out is lost, also if no reader has seen it
    /// yet.
    pub(crate) fn release(&self, now: Moment) {
        self.is_valid_at(now);
        let _ = self
            .loss
            .compare_exchange(0, RELEASED, Ordering::AcqRel, Ordering::Acquire);
        self.valid_until.store(OVER, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Ends the lease if its end is still `known`. `false`: it has changed meanwhile.
    fn end(&self, known: u64, loss: Loss) -> bool {
        let code = LOSSES.iter().position(|known| *known == loss).unwrap_or(0) as u8 + 1;
        // The reason first, so that no reader can see 'over' without it; of two
        // reasons at the same moment the first stays.
        let _ = self
            .loss
            .compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        let ended = self
            .valid_until
            .compare_exchange(known, OVER, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if ended {
            self.changed.notify_waiters();
        } else if self.valid_until.load(Ordering::Acquire) != OVER {
            // Extended meanwhile: the reason does not hold.
            let _ = self
                .loss
                .compare_exchange(code, 0, Ordering::AcqRel, Ordering::Acquire);
        }
        ended
    }

    /// Notes how the run under it has ended, before it is released: [`Outcome::Unused`] until
    /// then, for a grant that nobody receives is no run.
    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        self.outcome.store(code(outcome), Ordering::Release);
    }

    /// What is noted, as it stands.
    pub(crate) fn noted_outcome(&self) -> Outcome {
        let noted = usize::from(self.outcome.load(Ordering::Acquire));
        let noted = Outcome::NAMES.get(noted);
        noted.map_or(Outcome::Released, |(outcome, _)| *outcome)
    }

    /// How the run has ended. One that was lost, and of which nothing else was said, is lost.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.noted_outcome() {
            Outcome::Released if self.loss().is_some() => Outcome::Lost,
            noted => noted,
        }
    }

    /// How it was lost, if it was.
    pub(crate) fn loss(&self) -> Option<Loss> {
        if self.valid_until.load(Ordering::Acquire) != OVER {
            return None;
        }
        let code = self.loss.load(Ordering::Acquire);
        code.checked_sub(1)
            .and_then(|index| LOSSES.get(usize::from(index)).copied())
    }

    /// The error for its holder, if it was lost.
    pub(crate) fn lost_error(&self) -> Option<Error> {
        self.loss().map(|reason| Error::Lost {
            key: self.key.lock.clone(),
            token: self.token,
            reason,
        })
    }

    /// Completes once the lease is over. No I/O: the engine's timer or an answer
    /// ends it. Safe to cancel.
    pub(crate) async fn over(&self) {
        while self.is_valid() {
            let mut changed = pin!(self.changed.notified());
            // By the clock at every poll: after a suspended machine wakes, the engine's
            // timer may come later than what else wakes this task.
            poll_fn(|context| {
                if self.is_valid() {
                    changed.as_mut().poll(context)
                } else {
                    Poll::Ready(())
                }
            })
            .await;
        }
    }

    /// The end of the lease.
    pub(crate) fn valid_until(&self) -> Moment {
        Moment::from_nanos(self.valid_until.load(Ordering::Acquire))
    }

    /// How long the lease still counts with no further heartbeat.
    pub(crate) fn remaining(&self) -> Duration {
        let now = self.clock.now();
        match self.is_valid_at(now) {
            true => self.valid_until().saturating_since(now),
            false => Duration::ZERO,
        }
    }

    /// How long the lock is held, by the clock.
    pub(crate) fn held_for(&self) -> Duration {
        self.clock.now().saturating_since(self.since)
    }

    /// How much longer the lock must stay taken for `at_least`'s sake.
    pub(crate) fn keep(&self) -> Option<Duration> {
        self.at_least
            .map(|least| least.saturating_sub(self.held_for()))
            .filter(|left| !left.is_zero())
    }

    /// What this process knows of its own holding.
    pub(crate) fn info(&self) -> LockInfo {
        let last_heartbeat = Moment::from_nanos(self.last_heartbeat.load(Ordering::Acquire));
        Record {
            key: self.key.lock.clone(),
            app: self.key.app().map(str::to_owned),
            name: self.key.name().map(str::to_owned),
            function: self.key.function.map(|function| function.to_string()),
            owner: self.owner.simple().to_string(),
            instance: self.identity.instance.clone(),
            host: self.identity.host.clone(),
            pid: Some(self.identity.pid),
            token: Some(self.token),
            acquired_at: Some(self.acquired_at),
            held_for: Some(self.held_for()),
            heartbeat_age: Some(self.clock.now().saturating_since(last_heartbeat)),
            remaining: Some(self.remaining()),
            ttl: Some(self.ttl),
            waiters: None,
            is_kept: false,
            foreign: None,
        }
        .into()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key.lock)
            .field("token", &self.token)
            .field("valid", &self.is_valid())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::engine::lease_time::{margin, valid_until};

    pub(in crate::engine) fn lease(clock: &ManualClock, ttl: Duration) -> Lease {
        let terms = Terms {
            key: Key::whole("k").unwrap(),
            owner: OwnerId::new_v4(),
            token: 7,
            ttl,
            remember: ttl * 10,
            acquired_at: SystemTime::UNIX_EPOCH,
            since: clock.now(),
            at_least: Some(ttl * 2),
            cap: None,
            identity: Arc::new(Identity {
                instance: "i".into(),
                host: "h".into(),
                pid: 1,
            }),
            process: std::process::id(),
        };
        let sent = Sent::now(clock);
        let until = valid_until(sent.at, ttl);
        Lease::new(terms, Arc::new(clock.clone()), sent, until)
    }

    #[test]
    fn a_lease_ends_by_its_margin_before_the_ttl_and_not_earlier() {
        let clock = ManualClock::new();
        let ttl = Duration::from_secs(10);
        let lease = lease(&clock, ttl);
        assert_eq!(lease.remaining(), ttl - margin(ttl));
        clock.advance(ttl - margin(ttl) - Duration::from_nanos(1));
        assert!(lease.is_valid());
        clock.advance(Duration::from_nanos(1));
        assert!(!lease.is_valid());
        assert_eq!(lease.loss(), Some(Loss::Expired));
        assert_eq!(lease.remaining(), Duration::ZERO);
    }

    #[test]
    fn an_outcome_is_what_was_noted_last_and_a_loss_of_which_nothing_was_said() {
        let lease = lease(&ManualClock::new(), Duration::from_secs(10));
        assert_eq!(lease.noted_outcome(), Outcome::Unused);
        for (outcome, _) in Outcome::NAMES {
            lease.set_outcome(outcome);
            assert_eq!((lease.noted_outcome(), lease.outcome()), (outcome, outcome));
        }
        lease.lose(Loss::Taken);
        for (outcome, _) in Outcome::NAMES {
            lease.set_outcome(outcome);
            let told = match outcome {
                Outcome::Released => Outcome::Lost,
                said => said,
            };
            assert_eq!((lease.noted_outcome(), lease.outcome()), (outcome, told));
        }
    }

    #[test]
    fn a_lost_lease_is_never_held_again_whatever_answer_comes_late() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        let sent = Sent::now(&clock);
        clock.advance(Duration::from_secs(10));
        // No check has seen it yet: the late answer itself must not revive it.
        assert!(!lease.extend(clock.now(), sent, clock.now() + Duration::from_secs(10)));
        assert!(!lease.is_valid());
        assert!(!lease.lose(Loss::Taken));
        assert_eq!(lease.loss(), Some(Loss::Expired));
    }

    #[test]
    fn a_lease_that_ran_out_unseen_is_lost_and_not_let_go() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        clock.advance(Duration::from_secs(10));
        lease.release(clock.now());
        assert_eq!(lease.loss(), Some(Loss::Expired));
    }

    #[test]
    fn a_heartbeat_never_shortens_a_lease() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        let before = lease.valid_until();
        assert!(lease.extend(
            clock.now(),
            Sent::now(&clock),
            before - Duration::from_secs(5)
        ));
        assert_eq!(lease.valid_until(), before);
    }

    #[test]
    fn at_least_counts_down_while_the_lock_is_held() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        clock.advance(Duration::from_secs(5));
        assert_eq!(lease.keep(), Some(Duration::from_secs(15)));
        clock.advance(Duration::from_secs(15));
        assert_eq!(lease.keep(), None);
    }

    #[test]
    fn a_capped_lease_ends_at_its_cap_or_before_it_and_says_which() {
        let ttl = Duration::from_secs(10);
        for (most, loss) in [(ttl / 2, Loss::AtMost), (ttl * 2, Loss::Expired)] {
            let clock = ManualClock::new();
            let mut lease = lease(&clock, ttl);
            let cap = clock.now() + most;
            lease.cap = Some(cap);
            lease.valid_until.fetch_min(cap.nanos(), Ordering::AcqRel);
            assert_eq!(lease.is_capped(), most < ttl);
            clock.advance(ttl);
            assert!(!lease.is_valid());
            assert_eq!(lease.loss(), Some(loss));
        }
    }

    #[test]
    fn no_heartbeat_moves_a_lease_beyond_its_cap() {
        let clock = ManualClock::new();
        let mut lease = lease(&clock, Duration::from_secs(10));
        let cap = clock.now() + Duration::from_secs(15);
        lease.cap = Some(cap);
        assert!(!lease.is_capped());
        let sent = Sent::now(&clock);
        assert!(lease.extend(clock.now(), sent, clock.now() + Duration::from_secs(20)));
        assert_eq!(lease.valid_until(), cap);
        assert!(lease.is_capped());
    }

    #[test]
    fn a_reason_that_came_to_nothing_is_not_told_later() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        // It was judged by an end that a heartbeat has moved meanwhile.
        let before = lease.valid_until().nanos() - 1;
        assert!(!lease.end(before, Loss::Taken));
        assert_eq!(lease.loss(), None);
        clock.advance(Duration::from_secs(10));
        assert!(!lease.is_valid());
        assert_eq!(lease.loss(), Some(Loss::Expired));
    }

    #[test]
    fn of_two_reasons_the_first_one_stays() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        assert!(lease.lose(Loss::Taken));
        assert!(!lease.lose(Loss::Shutdown));
        lease.release(clock.now());
        assert_eq!(lease.loss(), Some(Loss::Taken));
    }

    #[test]
    fn a_lease_is_suspect_when_the_wall_clock_is_ahead_by_more_than_a_second() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        clock.advance_wall(Duration::from_secs(1));
        assert_eq!(lease.validity(), Validity::Valid);
        clock.advance_wall(Duration::from_nanos(1));
        assert_eq!(lease.validity(), Validity::Suspect);
        // By the clock it is over, whatever the wall clock says.
        clock.advance(Duration::from_secs(10));
        assert_eq!(lease.validity(), Validity::Over);
    }

    #[test]
    fn one_reader_asks_for_each_jump_of_the_wall_clock_and_who_is_kept_back_is_woken() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        for _ in 0..2 {
            assert!(lease.asks_first());
            assert!(!lease.asks_first());
            let mut woken = pin!(lease.changed.notified());
            assert!(!woken.as_mut().enable());
            assert!(lease.extend(clock.now(), Sent::now(&clock), clock.now()));
            assert!(woken.as_mut().enable());
        }
    }

    #[test]
    fn the_lead_of_the_wall_clock_is_that_of_the_heartbeat_which_left_last() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        let early = Sent::now(&clock);
        clock.advance(Duration::from_secs(1));
        clock.advance_wall(Duration::from_secs(600));
        let late = Sent::now(&clock);
        assert!(lease.extend(clock.now(), late, clock.now()));
        // Its answer was overtaken; and it left before the jump.
        assert!(lease.extend(clock.now(), early, clock.now()));
        assert_eq!(lease.validity(), Validity::Valid);
    }

    #[test]
    fn a_process_that_was_forked_off_knows_it() {
        let clock = ManualClock::new();
        let mut lease = lease(&clock, Duration::from_secs(10));
        assert!(!lease.is_of_another_process());
        lease.process = std::process::id() + 1;
        assert!(lease.is_of_another_process());
    }

    #[test]
    fn what_is_shown_of_a_lease() {
        let clock = ManualClock::new();
        let lease = lease(&clock, Duration::from_secs(10));
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            format!("{lease:?}"),
            r#"Lease { key: "k", token: 7, valid: true, .. }"#
        );
        let info = lease.info();
        assert_eq!(info.fencing_token(), Some(7));
        assert_eq!(info.held_for(), Some(Duration::from_secs(1)));
        assert_eq!(info.heartbeat_age(), Some(Duration::from_secs(1)));
        assert_eq!(info.remaining(), Some(lease.remaining()));
        lease.release(clock.now());
        assert!(lease.lost_error().is_none(), "let go, and not lost");
    }
}

//! A lock that leases out, as it would behave if one thing happened at a time.

use crate::checker::{Operation, Spec};
use crate::record::{Attempt, Outcome, Release};

/// One acquisition. A worker that takes the lock again is another owner.
pub type Owner = u64;

/// An acquire that waited may leave an earlier try behind, which comes to life after
/// the later one was answered; one that was refused may have been handed the lock before it
/// knew. The same owner, once more.
const LATE_TRY: Owner = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Acquire(Owner),
    /// An acquire that was refused: it is held.
    Busy,
    Release(Owner),
    /// A release whose answer was that there is nothing to release.
    NotHeld(Owner),
    /// The lease ends, or a release that got no answer is carried out.
    Expire(Owner),
}

pub struct Lease;

impl Spec for Lease {
    type State = Option<Owner>;
    type Action = Action;

    fn initial() -> Option<Owner> {
        None
    }

    fn step(holder: &Option<Owner>, action: &Action) -> Option<Option<Owner>> {
        let possible = match action {
            Action::Acquire(_) => holder.is_none(),
            Action::Busy => holder.is_some(),
            Action::Release(owner) | Action::Expire(owner) => *holder == Some(*owner),
            Action::NotHeld(owner) => *holder != Some(*owner),
        };
        possible.then_some(match action {
            Action::Acquire(owner) => Some(*owner),
            Action::Busy | Action::NotHeld(_) => *holder,
            Action::Release(_) | Action::Expire(_) => None,
        })
    }
}

/// A release that is answered needs no replica: a master that dies just after it may take
/// the answer with it, and at the next one the lock is held for as long as its lease lasts.
const RETURNED: Owner = 1 << 62;

/// What a history is judged by.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// An acquire that waits and took no longer has left no try behind.
    pub time_out: u64,
    /// From when until when another server came to serve, and all processes learned of it. Two
    /// holders are never excused; but an answer that rests on no replica may be an old one.
    pub switches: Vec<(u64, u64)>,
}

/// What a master writes has reached its replica after so long: nanoseconds.
const ON_ITS_WAY: u64 = 500_000_000;

impl Terms {
    fn is_switching(&self, from: u64, to: u64) -> bool {
        let mut switches = self.switches.iter();
        switches.any(|(start, end)| *start <= to && from <= *end)
    }

    /// That a lock is held, told by a master that may be none any more.
    fn is_old_news(&self, attempt: &Attempt) -> bool {
        matches!(attempt.outcome, Some((end, Outcome::Busy)) if self.is_switching(attempt.start, end))
    }

    /// From when on a lock may be held again that was released then.
    fn may_return(&self, released: u64) -> Option<u64> {
        let mut switches = self.switches.iter();
        let lost = switches
            .find(|(start, end)| (start.saturating_sub(ON_ITS_WAY)..=*end).contains(&released));
        lost.map(|(start, _)| *start)
    }
}

/// What was, or may have been, done to one lock.
pub fn operations<'a>(
    attempts: impl IntoIterator<Item = &'a Attempt>,
    terms: &Terms,
) -> Vec<Operation<Action>> {
    let mut all = Vec::new();
    for attempt in attempts {
        if terms.is_old_news(attempt) {
            continue;
        }
        of_one(attempt, &mut all);
        let closed = attempt.outcome.filter(|(_, how)| *how != Outcome::Unknown);
        if attempt.waits
            && closed.is_some_and(|(end, how)| {
                // Refused at the end of its time: it may have been handed the lock just before, which
                // it gives back then.
                how == Outcome::Busy
                    || end - attempt.start >= terms.time_out
                    || terms.is_switching(attempt.start, end)
            })
        {
            unanswered(attempt.op | LATE_TRY, attempt.start, &mut all);
        }
        if let Some((_, Some((end, Release::Released)))) = attempt.release
            && let Some(from) = terms.may_return(end)
        {
            unanswered(attempt.op | RETURNED, from, &mut all);
        }
    }
    all
}

fn of_one(attempt: &Attempt, all: &mut Vec<Operation<Action>>) {
    let (op, start) = (attempt.op, attempt.start);
    let (end, token) = match attempt.outcome {
        None | Some((_, Outcome::Unknown)) => return unanswered(op, start, all),
        Some((end, Outcome::Busy)) => return all.push(closed(Action::Busy, start, end)),
        Some((end, Outcome::Acquired(token))) => (end, token),
    };
    debug_assert!(token > 0);
    all.push(closed(Action::Acquire(op), start, end));
    match attempt.release {
        Some((start, Some((end, Release::Released)))) => {
            // It can't have ended in any other way.
            return all.push(closed(Action::Release(op), start, end));
        }
        Some((start, Some((end, Release::NotHeld)))) => {
            all.push(closed(Action::NotHeld(op), start, end));
        }
        // Lost, unknown, or never released: the store may have ended it since its guard
        // last said that it is held.
        _ => (),
    }
    let last_yes = attempt.yes.map_or(start, |(_, last)| last);
    all.push(open(Action::Expire(op), last_yes, false));
}

/// An acquire that may have happened, and then ended at any time.
fn unanswered(owner: Owner, start: u64, all: &mut Vec<Operation<Action>>) {
    all.push(open(Action::Acquire(owner), start, true));
    all.push(open(Action::Expire(owner), start, false));
}

fn closed(action: Action, start: u64, end: u64) -> Operation<Action> {
    Operation {
        action,
        start,
        end: Some(end),
        twin: false,
    }
}

fn open(action: Action, start: u64, twin: bool) -> Operation<Action> {
    Operation {
        action,
        start,
        end: None,
        twin,
    }
}

//! The steps in which it matters who waits: an acquisition, a release (by which one who
//! waits also leaves), and looking.

use std::sync::atomic::Ordering;

use super::lease::{self, Decision};
use super::line::{Engine, Line};
use super::names::Files;
use super::patience::{Attempt, Leave};
use super::place::Manner;
use super::record::Holding;
use super::time::{Now, system_time};
use super::{DirStore, Inside, fault};
use crate::info::LockInfo;
use crate::key::Key;
use crate::store::{Acquire, Acquired, Inspection, QueuePosition, Release, StoreResult};

impl DirStore {
    /// `number`: how many were asked for before, so that those of one engine stand in line
    /// in the order of their asking.
    pub(super) fn acquire_one(
        &self,
        (number, ask): &(u64, Acquire),
        leave: &Leave<'_>,
    ) -> Attempt<Acquired> {
        if let Some(answer) = self.busy(ask)? {
            return Ok(answer);
        }
        let inside = self.inside(&ask.key)?;
        let (files, now) = (&inside.files, &inside.now);
        let mut line = self.place.read_line(files, now)?;
        if let Some(found) = &inside.found {
            // Whoever has it, or had it last, waits no more.
            line.leave(&found.owner);
        }
        let is_mine =
            matches!(&inside.found, Some(found) if lease::is_held_by(found, &ask.owner, now));
        let is_new = !is_mine
            && ask.line.is_some()
            && line.enter(ask.owner, *number, Engine::new(self.id, &ask.identity, now));
        let before = match &inside.found {
            Some(_) if is_mine => None,
            Some(found) if lease::is_taken(found, now) => Some(lease::info(found, now)),
            _ => line.before(&ask.owner, &ask.key, now),
        };
        if let Some(holder) = before {
            self.place.write_line(files, &line, now, leave)?;
            return Ok(told(ask, holder, &line, is_new, now));
        }
        self.take(ask, inside, line, leave)
    }

    /// The answer to one who finds the lock taken, if that can be told from outside: many
    /// who knock do not hinder the one who works.
    fn busy(&self, ask: &Acquire) -> StoreResult<Option<Acquired>> {
        let files = self.place.files(&ask.key.lock);
        let Some(found) = self.place.read(&files, &ask.key.lock)? else {
            return Ok(None);
        };
        let now = (self.clock)();
        if !lease::is_busy(&found, ask, &now) {
            return Ok(None);
        }
        let line = self.place.read_line(&files, &now)?;
        let may_stay_outside = ask.line.is_none() || line.knows(&ask.owner, &now);
        let answer = || told(ask, lease::info(&found, &now), &line, false, &now);
        Ok(may_stay_outside.then(answer))
    }

    /// Takes the lock, which is free or its own, and leaves the line.
    fn take(
        &self,
        ask: &Acquire,
        inside: Inside,
        mut line: Line,
        leave: &Leave<'_>,
    ) -> Attempt<Acquired> {
        let Inside {
            _latch,
            files,
            found,
            now,
        } = inside;
        let is_first = found.is_none();
        let holding = match lease::acquire(found, ask, &now) {
            Ok(Decision::Take(holding)) => holding,
            Ok(Decision::Busy(info)) => return Ok(Acquired::Busy(info)),
            Err(lease::TokensUsedUp) => return Err(fault::tokens_used_up(&files.record).into()),
        };
        self.place.write(&files, &holding, Manner::Durable, leave)?;
        if is_first {
            self.created.fetch_add(1, Ordering::Relaxed);
        }
        line.leave(&ask.owner);
        // The lock is ours, whatever becomes of the line: whoever writes it next removes us.
        let _ = self.place.write_line(&files, &line, &now, leave);
        Ok(granted(&holding))
    }

    pub(super) fn release_one(&self, ask: &Release, leave: &Leave<'_>) -> Attempt<bool> {
        let Inside {
            _latch,
            files,
            found,
            now,
        } = self.inside(&ask.key)?;
        if let Some(holding) = lease::release(found, ask, &now) {
            self.place.write(&files, &holding, Manner::Whole, leave)?;
            return Ok(true);
        }
        let mut line = self.place.read_line(&files, &now)?;
        if line.ahead(&ask.owner).is_some() {
            line.leave(&ask.owner);
            self.place.write_line(&files, &line, &now, leave)?;
        }
        Ok(false)
    }

    pub(super) fn inspect_one(&self, key: &Key) -> StoreResult<Inspection> {
        let files = self.place.files(&key.lock);
        let found = self.place.read(&files, &key.lock)?;
        let now = (self.clock)();
        let mut inspection = lease::inspect(found.as_ref(), &now);
        inspection.holder = match inspection.holder {
            Some(holder) => Some(holder.with_waiters(self.waiters(&files, &now)?)),
            None => None,
        };
        Ok(inspection)
    }

    fn waiters(&self, files: &Files, now: &Now) -> StoreResult<u64> {
        Ok(self.place.read_line(files, now)?.len())
    }
}

fn granted(holding: &Holding) -> Acquired {
    Acquired::Granted {
        token: holding.token,
        at: system_time(holding.taken_ms),
    }
}

/// What one is told who can't have the lock.
fn told(ask: &Acquire, holder: LockInfo, line: &Line, is_new: bool, now: &Now) -> Acquired {
    let holder = holder.with_waiters(line.len());
    match line.ahead(&ask.owner).filter(|_| ask.line.is_some()) {
        Some(ahead) => Acquired::Queued(QueuePosition {
            holder,
            ahead,
            at: now.up_ns / 1_000,
            is_new,
            ticket: None,
            is_notified: false,
        }),
        None => Acquired::Busy(holder),
    }
}

//! One lock of the table: who has it or had it last, who waits for it, and every decision
//! about that, as functions of the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Moment;
use crate::info::{Ending, LastHolding, LockInfo, Record};
use crate::key::Key;
use crate::store::{
    Acquire, Acquired, CLAIM, Grant, Identity, Inspection, MAX_TOKEN, Notification, OwnerId,
    QueuePosition, Release, Renew, StoreError, StoreErrorKind, StoreResult, is_stale, next_token,
};

/// One reading of both clocks.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) at: Moment,
    pub(super) wall: SystemTime,
}

impl Now {
    /// Never zero, which would be no time.
    fn micros(&self) -> u64 {
        self.at.nanos() / 1_000 + 1
    }
}

/// A lock that somebody has asked for.
#[derive(Default)]
pub(super) struct Lock {
    /// The newest holding, be it over or not.
    newest: Option<Holding>,
    /// Who waits, first come first. Each has a [`line`](Acquire::line).
    waiters: Vec<Acquire>,
}

struct Holding {
    key: Key,
    owner: OwnerId,
    identity: Arc<Identity>,
    token: u64,
    since: Now,
    beat: Moment,
    ttl: Duration,
    /// It was handed over, and is not confirmed yet: what it has instead of the ttl.
    claim: Option<Duration>,
    until: Now,
    ended: Option<(Ending, SystemTime)>,
}

impl Lock {
    pub(super) fn acquire(&mut self, now: Now, wish: Acquire) -> StoreResult<Acquired> {
        if let Some(holding) = &mut self.newest
            && holding.is_beating(&wish.owner, now)
        {
            holding.extend(wish.ttl, now);
            return Ok(Acquired::Granted {
                token: holding.token,
                at: holding.since.wall,
            });
        }
        let owner = wish.owner;
        let is_new = wish.line.is_some() && self.enter(&wish);
        if let Err(error) = self.serve(now, &wish) {
            self.leave(&owner);
            return Err(error);
        }
        let Some(holding) = &self.newest else {
            return Err(StoreError::new(StoreErrorKind::Unknown, "no answer", ""));
        };
        if holding.is_beating(&owner, now) {
            let (token, at) = (holding.token, holding.since.wall);
            return Ok(Acquired::Granted { token, at });
        }
        let holder = holding.info(now, self.waiters.len());
        let ahead = self.waiters.iter().position(|other| other.owner == owner);
        Ok(match ahead {
            None => Acquired::Busy(holder),
            Some(ahead) => Acquired::Queued(QueuePosition {
                holder,
                ahead: ahead as u64,
                at: now.micros(),
                is_new,
                ticket: None,
                is_notified: true,
            }),
        })
    }

    /// `false`: not held by that owner (any more).
    pub(super) fn renew(&mut self, now: Now, beat: &Renew) -> bool {
        match &mut self.newest {
            Some(holding) if holding.is_beating(&beat.owner, now) => {
                holding.extend(beat.ttl, now);
                true
            }
            _ => false,
        }
    }

    /// `false`: not held by that owner, who leaves the line if it stood there.
    pub(super) fn release(&mut self, now: Now, end: &Release) -> bool {
        match &mut self.newest {
            Some(holding) if holding.is_beating(&end.owner, now) => {
                holding.keep(end.keep.unwrap_or(Duration::ZERO), now);
            }
            _ => {
                self.leave(&end.owner);
                return false;
            }
        }
        self.hand_over_if_free(now);
        true
    }

    pub(super) fn force_release(&mut self, now: Now, stale: Option<Duration>) -> bool {
        match &mut self.newest {
            Some(holding) if holding.is_held(now) && holding.may_be_forced(stale, now) => {
                holding.ended = Some((Ending::Forced, now.wall));
                holding.until.at = now.at;
            }
            _ => return false,
        }
        self.hand_over_if_free(now);
        true
    }

    pub(super) fn inspect(&self, now: Now) -> Inspection {
        let Some(holding) = &self.newest else {
            return Inspection::default();
        };
        Inspection {
            holder: holding
                .is_held(now)
                .then(|| holding.info(now, self.waiters.len())),
            last: Some(holding.last(now)),
        }
    }

    fn is_held(&self, now: Now) -> bool {
        self.newest
            .as_ref()
            .is_some_and(|holding| holding.is_held(now))
    }

    /// Puts one at the end of the line, unless it stands there already.
    fn enter(&mut self, wish: &Acquire) -> bool {
        let is_new = self.waiters.iter().all(|other| other.owner != wish.owner);
        if is_new {
            self.waiters.push(wish.clone());
        }
        is_new
    }

    fn leave(&mut self, owner: &OwnerId) {
        self.waiters.retain(|waiter| waiter.owner != *owner);
    }

    /// Gives a free lock to the first in line, or to the one who asks.
    fn serve(&mut self, now: Now, wish: &Acquire) -> StoreResult<()> {
        if !self.is_held(now) {
            self.hand_over(now, Some(wish.owner))?;
        }
        if !self.is_held(now) {
            // Nobody is before it.
            self.give(now, wish, None)?;
        }
        Ok(())
    }

    fn hand_over_if_free(&mut self, now: Now) {
        if !self.is_held(now) {
            // It is free in any case; whoever asks next is told what is wrong.
            drop(self.hand_over(now, None));
        }
    }

    /// Gives a free lock to the first in line whose engine still runs. `asker` is told by
    /// its answer and has it for its full ttl; another is told, and has to confirm it.
    fn hand_over(&mut self, now: Now, asker: Option<OwnerId>) -> StoreResult<()> {
        while let Some(first) = self.waiters.first().cloned() {
            let claim = (asker != Some(first.owner)).then(|| first.ttl.min(CLAIM));
            let Some(notices) = first.line.as_ref().filter(|line| !line.is_closed()) else {
                self.waiters.remove(0);
                continue;
            };
            let token = self.give(now, &first, claim)?;
            self.waiters.remove(0);
            let Some(claim) = claim else {
                return Ok(());
            };
            let grant = Grant {
                owner: first.owner,
                token,
                at: now.wall,
                micros: now.micros(),
                claim,
            };
            if notices.send(Notification::Granted(grant)).is_ok() {
                return Ok(());
            }
            // Its engine has ended this very moment.
            if let Some(holding) = &mut self.newest {
                holding.until = now;
            }
        }
        Ok(())
    }

    /// Makes it the holder of a free lock. Answers its fencing token.
    fn give(&mut self, now: Now, wish: &Acquire, claim: Option<Duration>) -> StoreResult<u64> {
        let last = self.newest.as_ref().map_or(0, |holding| holding.token);
        let token = next_token(last, unix_micros(now.wall));
        if token > MAX_TOKEN {
            return Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("the fencing token {token} is past {MAX_TOKEN}"),
                "set this machine's clock right",
            ));
        }
        self.newest = Some(Holding {
            key: wish.key.clone(),
            owner: wish.owner,
            identity: Arc::clone(&wish.identity),
            token,
            since: now,
            beat: now.at,
            ttl: wish.ttl,
            claim,
            until: now.after(claim.unwrap_or(wish.ttl)),
            ended: None,
        });
        Ok(token)
    }
}

impl Now {
    fn after(self, length: Duration) -> Self {
        Self {
            at: self.at + length,
            wall: self.wall + length,
        }
    }
}

fn unix_micros(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

impl Holding {
    fn is_held(&self, now: Now) -> bool {
        let by_force = matches!(self.ended, Some((Ending::Forced, _)));
        !by_force && now.at < self.until.at
    }

    /// Held by that owner, who has not given it back.
    fn is_beating(&self, owner: &OwnerId, now: Now) -> bool {
        self.owner == *owner && self.ended.is_none() && self.is_held(now)
    }

    /// A heartbeat, which also confirms what was handed over.
    fn extend(&mut self, ttl: Duration, now: Now) {
        self.claim = None;
        self.beat = now.at;
        self.until = now.after(ttl);
    }

    /// Its holder gives it back; it stays taken for `keep` (`at_least`).
    fn keep(&mut self, keep: Duration, now: Now) {
        self.until.at = now.at + keep;
        self.ttl = keep;
        self.beat = now.at;
        self.ended = Some((Ending::Released, now.wall + keep));
    }

    fn may_be_forced(&self, stale: Option<Duration>, now: Now) -> bool {
        stale.is_none_or(|asked| {
            let term = self.claim.unwrap_or(self.ttl);
            self.ended.is_none() && is_stale(now.at - self.beat, asked, term)
        })
    }

    fn info(&self, now: Now, waiters: usize) -> LockInfo {
        Record {
            key: self.key.lock.clone(),
            app: self.key.app().map(str::to_owned),
            name: self.key.name().map(str::to_owned),
            owner: self.owner.simple().to_string(),
            instance: self.identity.instance.clone(),
            host: self.identity.host.clone(),
            pid: Some(self.identity.pid),
            token: Some(self.token),
            acquired_at: Some(self.since.wall),
            held_for: Some(now.at - self.since.at),
            heartbeat_age: Some(now.at - self.beat),
            remaining: Some(self.until.at - now.at),
            ttl: Some(self.ttl),
            waiters: Some(waiters as u64),
            foreign: None,
        }
        .into()
    }

    fn last(&self, now: Now) -> LastHolding {
        let (ending, until) = match self.ended {
            // At_least keeps it.
            Some((Ending::Released, _)) if self.is_held(now) => (Ending::Held, None),
            Some((ending, at)) => (ending, Some(at)),
            None if now.at < self.until.at => (Ending::Held, None),
            None => (Ending::Expired, Some(self.until.wall)),
        };
        LastHolding {
            key: self.key.lock.clone(),
            owner_id: self.owner.simple().to_string(),
            instance_id: self.identity.instance.clone(),
            host: self.identity.host.clone(),
            pid: Some(self.identity.pid),
            fencing_token: self.token,
            from: self.since.wall,
            until,
            ending,
        }
    }
}

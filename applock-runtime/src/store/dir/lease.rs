//! Who holds a lock: every decision of this store, as functions of what was found,
//! what is asked, and the time. No I/O here.
//!
//! A decision that changes something returns the record to write in its place.

use std::sync::Arc;
use std::time::Duration;

use super::record::{Holding, Phase};
use super::time::{Now, nanos, system_time};
use crate::info::{Ending, LastHolding, LockInfo, Record};
use crate::protocol::MAX_TOKEN;
use crate::store::{Acquire, Inspection, OwnerId, Release, Renew, is_stale, next_token};

/// The fencing tokens of a lock are used up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokensUsedUp;

/// The answer to an [`Acquire`].
#[derive(Debug)]
pub(super) enum Decision {
    Take(Box<Holding>),
    Busy(LockInfo),
}

/// Whether the lock is taken: held, or kept for `at_least`. At exactly the lease's
/// end it is free.
pub(super) fn is_taken(found: &Holding, now: &Now) -> bool {
    matches!(found.phase, Phase::Held | Phase::Kept)
        && now.up_ns < found.end_ns
        && now.is_in(&found.boot, found.beat_ns)
}

/// Whether that owner holds it, and has not given it back.
pub(super) fn is_held_by(found: &Holding, owner: &OwnerId, now: &Now) -> bool {
    found.owner == *owner && found.phase == Phase::Held && is_taken(found, now)
}

/// Whether it is held by someone other than `ask.owner`, as [`acquire`] would find.
pub(super) fn is_busy(found: &Holding, ask: &Acquire, now: &Now) -> bool {
    // What its owner has released, and only `at_least` keeps, is nobody's: a late
    // copy of the acquisition must not take it up again.
    is_taken(found, now) && !is_held_by(found, &ask.owner, now)
}

/// Takes the lock if it is free, its lease ran out, or the same owner asks again
/// because the first answer was lost (rule R6).
pub(super) fn acquire(
    found: Option<Holding>,
    ask: &Acquire,
    now: &Now,
) -> Result<Decision, TokensUsedUp> {
    let last = match found {
        Some(found) if is_busy(&found, ask, now) => return Ok(Decision::Busy(info(&found, now))),
        // The holder counts its lease from this sending (rule R1).
        Some(found) if is_taken(&found, now) => {
            return Ok(Decision::Take(Box::new(beat(found, ask.ttl, now))));
        }
        Some(found) => found.token,
        None => 0,
    };
    let token = next_token(last, now.wall_us);
    if token > MAX_TOKEN {
        return Err(TokensUsedUp);
    }
    let ttl_ns = nanos(ask.ttl);
    Ok(Decision::Take(Box::new(Holding {
        key: Arc::clone(&ask.key.lock),
        app: ask.key.app().map(str::to_owned),
        name: ask.key.name().map(str::to_owned),
        owner: ask.owner,
        token,
        instance: ask.identity.instance.clone(),
        host: ask.identity.host.clone(),
        pid: ask.identity.pid,
        phase: Phase::Held,
        ttl_ns,
        taken_ns: now.up_ns,
        beat_ns: now.up_ns,
        end_ns: now.up_ns.saturating_add(ttl_ns),
        taken_ms: now.wall_ms(),
        boot: now.boot(),
    })))
}

/// The record after a heartbeat, unless it is not that owner's (any more).
pub(super) fn renew(found: Option<Holding>, ask: &Renew, now: &Now) -> Option<Holding> {
    let found = found.filter(|found| is_held_by(found, &ask.owner, now))?;
    Some(beat(found, ask.ttl, now))
}

fn beat(found: Holding, ttl: Duration, now: &Now) -> Holding {
    let ttl_ns = nanos(ttl);
    Holding {
        ttl_ns,
        beat_ns: now.up_ns,
        // A heartbeat never shortens a lease.
        end_ns: found.end_ns.max(now.up_ns.saturating_add(ttl_ns)),
        boot: now.boot(),
        ..found
    }
}

/// The record after a release, unless it is not that owner's (any more) (rule R7).
pub(super) fn release(found: Option<Holding>, ask: &Release, now: &Now) -> Option<Holding> {
    let found = found.filter(|found| is_held_by(found, &ask.owner, now))?;
    Some(match ask.keep.filter(|keep| !keep.is_zero()) {
        Some(keep) => Holding {
            phase: Phase::Kept,
            end_ns: now.up_ns.saturating_add(nanos(keep)),
            boot: now.boot(),
            ..found
        },
        None => Holding {
            phase: Phase::Released {
                wall_ms: now.wall_ms(),
            },
            ..found
        },
    })
}

/// The record after a release by force; `None` where nothing is held, or its heart
/// beats. What `at_least` keeps beats no more, on purpose: it is never stale.
pub(super) fn force_release(
    found: Option<Holding>,
    stale: Option<Duration>,
    now: &Now,
) -> Option<Holding> {
    let found = found.filter(|found| is_taken(found, now))?;
    if let Some(stale) = stale {
        let silent = Duration::from_nanos(now.up_ns.saturating_sub(found.beat_ns));
        if found.phase == Phase::Kept
            || !is_stale(silent, stale, Duration::from_nanos(found.ttl_ns))
        {
            return None;
        }
    }
    Some(Holding {
        phase: Phase::Forced {
            wall_ms: now.wall_ms(),
        },
        ..found
    })
}

/// Who holds it, and who held it last.
pub(super) fn inspect(found: Option<&Holding>, now: &Now) -> Inspection {
    Inspection {
        holder: found
            .filter(|found| is_taken(found, now))
            .map(|found| info(found, now)),
        last: found.map(|found| last(found, now)),
    }
}

/// When the lock was last of use to anyone, in milliseconds of the wall clock.
pub(super) fn last_use_ms(found: &Holding) -> u64 {
    match found.phase {
        Phase::Held | Phase::Kept => lease_end_ms(found),
        Phase::Released { wall_ms } | Phase::Forced { wall_ms } => wall_ms,
    }
}

fn lease_end_ms(found: &Holding) -> u64 {
    found.boot.began_ms.saturating_add(found.end_ns / 1_000_000)
}

pub(super) fn info(found: &Holding, now: &Now) -> LockInfo {
    let since = |then: u64| Some(Duration::from_nanos(now.up_ns.saturating_sub(then)));
    Record {
        key: Arc::clone(&found.key),
        app: found.app.clone(),
        name: found.name.clone(),
        owner: found.owner.simple().to_string(),
        instance: found.instance.clone(),
        host: found.host.clone(),
        pid: Some(found.pid),
        token: Some(found.token),
        acquired_at: Some(system_time(found.taken_ms)),
        held_for: since(found.taken_ns),
        heartbeat_age: since(found.beat_ns),
        remaining: Some(Duration::from_nanos(found.end_ns.saturating_sub(now.up_ns))),
        ttl: Some(Duration::from_nanos(found.ttl_ns)),
        waiters: None,
        foreign: None,
    }
    .into()
}

fn last(found: &Holding, now: &Now) -> LastHolding {
    let (ending, until_ms) = match found.phase {
        Phase::Held | Phase::Kept if is_taken(found, now) => (Ending::Held, None),
        Phase::Held => (Ending::Expired, Some(lease_end_ms(found))),
        // Its holder released it; the rest was `at_least`.
        Phase::Kept => (Ending::Released, Some(lease_end_ms(found))),
        Phase::Released { wall_ms } => (Ending::Released, Some(wall_ms)),
        Phase::Forced { wall_ms } => (Ending::Forced, Some(wall_ms)),
    };
    LastHolding {
        key: Arc::clone(&found.key),
        owner_id: found.owner.simple().to_string(),
        instance_id: found.instance.clone(),
        host: found.host.clone(),
        pid: Some(found.pid),
        fencing_token: found.token,
        from: system_time(found.taken_ms),
        until: until_ms.map(system_time),
        ending,
    }
}

//! What is made of the protocol's state and its decisions: what people are shown
//! ([`LockInfo`], [`LastHolding`]), and what the engine is answered.
//!
//! For the stores that keep the protocol's own state. Times are nanoseconds.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::info::{Ending, LastHolding, LockInfo, Operator, Record};
use crate::protocol::{Before, Decision, Granted, Holding, LockState, Outcome, Phase, StoreTime};

use super::request::{Acquire, Acquired, By, Grant, Identity, Inspection, OwnerId, QueuePosition};
use super::{StoreError, StoreErrorKind, StoreResult};

/// Whom a store shows as a holder or a waiter. Cheap to clone: a queue has many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) key: Arc<str>,
    pub(crate) app: Option<Arc<str>>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) function: Option<Arc<str>>,
    pub(crate) identity: Arc<Identity>,
}

impl Who {
    pub(crate) fn of(request: &Acquire) -> Self {
        Self {
            key: Arc::clone(&request.key.lock),
            app: request.key.app().map(Arc::from),
            name: request.key.name().map(Arc::from),
            function: request
                .key
                .function
                .map(|function| Arc::from(function.to_string())),
            identity: Arc::clone(&request.identity),
        }
    }
}

/// What holds a [`Who`], and perhaps more that a store needs.
pub(crate) trait Shown {
    fn who(&self) -> &Who;
}

impl Shown for Who {
    fn who(&self) -> &Who {
        self
    }
}

/// Who holds the lock, and who held it last.
pub(crate) fn inspection<W: Shown + Clone>(state: &LockState<W, By>, now: StoreTime) -> Inspection {
    inspection_with(state, Some(state.waiters(now) as u64), now)
}

/// The same, by a store that may not know how many wait: `None`.
pub(crate) fn inspection_with<W: Shown + Clone>(
    state: &LockState<W, By>,
    waiters: Option<u64>,
    now: StoreTime,
) -> Inspection {
    let newest = state.remembered(now);
    Inspection {
        holder: newest
            .filter(|newest| newest.is_taken(now))
            .map(|newest| lock_info(newest, waiters, now)),
        last: newest.map(|newest| last_holding(newest, now)),
        success: state.last_success(now).map(|run| last_holding(run, now)),
        unreadable: None,
    }
}

/// The answer to an acquire, of the state after its decision. `is_notified`: whether the store
/// notifies the waiter of its grant.
pub(crate) fn acquired<W: Shown + Clone>(
    state: &LockState<W, By>,
    decision: Decision,
    is_notified: bool,
    now: StoreTime,
) -> StoreResult<Acquired> {
    let Some(newest) = &state.newest else {
        // Each decision leaves a holder; there is nothing to answer otherwise.
        return Err(StoreError::new(StoreErrorKind::Unknown, "no answer", ""));
    };
    let holder = || lock_info(newest, Some(state.waiters(now) as u64), now);
    Ok(match decision {
        Decision::Granted => Acquired::Granted {
            token: newest.token,
            at: acquired_at(newest),
        },
        Decision::Busy => Acquired::Busy(holder()),
        Decision::Queued {
            ahead,
            ticket,
            is_new,
        } => Acquired::Queued(QueuePosition {
            holder: holder(),
            ahead: ahead as u64,
            at: micros_of(now.at),
            is_new,
            ticket: Some(ticket),
            is_notified,
        }),
        Decision::AlreadyRan(before) => {
            let success = state.success.as_ref().filter(|_| before == Before::Success);
            Acquired::AlreadyRan(last_holding(success.unwrap_or(newest), now))
        }
    })
}

/// A grant, for the engine of the waiter.
pub(crate) fn grant(granted: &Granted) -> Grant {
    Grant {
        owner: OwnerId::from_u128(granted.owner),
        token: granted.token,
        at: unix(granted.acquired.micros),
        micros: micros_of(granted.acquired.at),
        claim: Duration::from_nanos(granted.claim),
        needs_proof: false,
    }
}

/// The clock that queue positions and grants are dated by.
fn micros_of(at: u64) -> u64 {
    at / 1_000
}

fn lock_info<W: Shown>(holding: &Holding<W, By>, waiters: Option<u64>, now: StoreTime) -> LockInfo {
    let who = holding.who.who();
    let since = |then: u64| Some(Duration::from_nanos(now.at.saturating_sub(then)));
    Record {
        key: Arc::clone(&who.key),
        app: who.app.as_deref().map(str::to_owned),
        name: who.name.as_deref().map(str::to_owned),
        function: who.function.as_deref().map(str::to_owned),
        owner: owner_id(holding),
        instance: who.identity.instance.clone(),
        host: who.identity.host.clone(),
        pid: Some(who.identity.pid),
        token: Some(holding.token),
        acquired_at: Some(acquired_at(holding)),
        held_for: since(holding.acquired.at),
        heartbeat_age: since(holding.heartbeat_at),
        remaining: Some(Duration::from_nanos(
            holding.expires_at.saturating_sub(now.at),
        )),
        ttl: Some(Duration::from_nanos(holding.ttl)),
        waiters,
        is_kept: holding.phase == Phase::Kept,
        foreign: None,
    }
    .into()
}

fn last_holding<W: Shown>(holding: &Holding<W, By>, now: StoreTime) -> LastHolding {
    let who = holding.who.who();
    let lease_end = || wall(&holding.acquired, holding.expires_at);
    let (ending, until) = match holding.phase {
        Phase::Released(at) => (ending(holding.outcome), Some(unix(at.micros))),
        Phase::Forced(at) => (Ending::Forced, Some(unix(at.micros))),
        // Also while `at_least` keeps it.
        _ if holding.is_taken(now) => (Ending::Held, None),
        // Its holder gave it back; the rest was `at_least`.
        Phase::Kept => (ending(holding.outcome), Some(lease_end())),
        Phase::Held | Phase::Claimed => (Ending::Expired, Some(lease_end())),
    };
    LastHolding {
        key: Arc::clone(&who.key),
        function: who.function.as_deref().map(str::to_owned),
        owner_id: owner_id(holding),
        instance_id: who.identity.instance.clone(),
        host: who.identity.host.clone(),
        pid: Some(who.identity.pid),
        fencing_token: holding.token,
        from: acquired_at(holding),
        until,
        ending,
        forced_by: holding.forced_by.as_ref().map(|by| {
            Operator {
                instance: &by.identity.instance,
                host: &by.identity.host,
                pid: Some(by.identity.pid),
                reason: &by.reason,
            }
            .to_string()
        }),
        next_at: None,
    }
}

/// How a holding has ended whose holder gave it back.
pub(crate) fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Released => Ending::Released,
        Outcome::Ok => Ending::Ok,
        Outcome::Error => Ending::Error,
        Outcome::Panicked => Ending::Panicked,
        Outcome::Cancelled => Ending::Cancelled,
        Outcome::Lost => Ending::Lost,
        Outcome::Unused => Ending::Unused,
    }
}

/// Since when it is held, by the wall clock.
pub(crate) fn acquired_at<W, B>(holding: &Holding<W, B>) -> SystemTime {
    unix(holding.acquired.micros)
}

fn owner_id<W, B>(holding: &Holding<W, B>) -> String {
    OwnerId::from_u128(holding.owner).simple().to_string()
}

/// What the wall clock shows at a time of the other clock, as it went at `known`.
fn wall(known: &StoreTime, at: u64) -> SystemTime {
    let passed = at.saturating_sub(known.at) / 1_000;
    unix(known.micros.saturating_add(passed))
}

/// The last microsecond of the year 9999: beyond it no date can be shown.
const LAST_DATE: u64 = 253_402_300_799_999_999;

/// The same in milliseconds.
pub(crate) const LAST_DATE_MS: u64 = LAST_DATE / 1_000;

/// Microseconds since 1970, as a time.
pub(crate) fn unix(micros: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(micros.min(LAST_DATE)))
        .unwrap_or(UNIX_EPOCH)
}

/// A time, as microseconds since 1970.
pub(crate) fn micros(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A length in whole nanoseconds; beyond 584 years it is capped there.
pub(crate) fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

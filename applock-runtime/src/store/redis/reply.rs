//! The scripts' answers, read, in RESP2 and RESP3 alike.
//!
//! The other half of `requests.rs`: what stands in a header under 'Answer' is read here, into the
//! store's own types. Nothing is decided here, and nothing is sent.
//!
//! Danger: an answer that no script of ours gives (a proxy, another program's key, a damaged
//! hash) taken for a yes or a no. Whatever can't be read as a whole is [`unreadable`], an
//! `Unknown` outcome; a lock's key that holds something else is a foreign holder, and never free.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;
use serde::Deserialize;

use crate::info::{Ending, LastHolding, LockInfo, Record};
use crate::key::Key;
use crate::store::view::LAST_DATE_MS;
use crate::store::{
    Acquired, Grant, Inspection, OwnerId, QueuePosition, Released, StoreError, StoreErrorKind,
    StoreResult,
};

use super::error;

/// The error for an answer that can't be read, with its beginning for a person to see.
pub(super) fn unreadable(value: &Value) -> StoreError {
    let mut shown = format!("{value:?}");
    if let Some((end, _)) = shown.char_indices().nth(200) {
        shown.truncate(end);
    }
    // It does not tell whether the step was carried out.
    StoreError::new(
        StoreErrorKind::Unknown,
        format!("Redis answered what no script of ours answers: {shown}"),
        "see whether the URL leads to a Redis, and not to a proxy that changes answers",
    )
}

/// A text, in each form that a server or a proxy may give it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// A number, also one that is given as text.
fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Boolean(flag) => Some(i64::from(*flag)),
        other => text(other)?.parse().ok(),
    }
}

fn unsigned(value: &Value) -> Option<u64> {
    u64::try_from(number(value)?).ok()
}

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items),
        _ => None,
    }
}

/// Milliseconds since 1970, as a time. `None` for what no clock shows.
fn at(millis: u64) -> Option<SystemTime> {
    if millis > LAST_DATE_MS {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// A key's time left; `None` if it has no expiry (-1) or does not exist (-2).
fn millis(value: i64) -> Option<Duration> {
    u64::try_from(value).ok().map(Duration::from_millis)
}

/// The answer for one lock of several: as it is, or as the error that this lock met.
pub(crate) fn done(value: Value) -> StoreResult<Value> {
    let failed = || {
        let items = array(&value)?;
        match (items, number(items.first()?)) {
            ([_, said], Some(-1)) => text(said),
            _ => None,
        }
    };
    match failed() {
        Some(said) => Err(error::of_text(&said)),
        None => Ok(value),
    }
}

/// The answer of `acquire.lua` for one lock. `is_notified`: whether the request said that this
/// process listens on its channel.
pub(crate) fn acquired(key: &Key, value: &Value, is_notified: bool) -> StoreResult<Acquired> {
    let read = || -> Option<Acquired> {
        if let Value::BulkString(bytes) = value {
            let (token, at) = str::from_utf8(bytes).ok()?.split_once(' ')?;
            return Some(Acquired::Granted {
                token: token.parse().ok()?,
                at: self::at(at.parse().ok()?)?,
            });
        }
        match array(value)? {
            [_, kind, left, micros, waiters, ahead, new, said] => {
                let (left, at) = (number(left)?, unsigned(micros)?);
                let waiters = unsigned(waiters);
                let holder = lock_info(key, &text(kind)?, &text(said)?, left, at / 1000, waiters)?;
                Some(match u64::try_from(number(ahead)?) {
                    Err(_) => Acquired::Busy(holder),
                    Ok(ahead) => Acquired::Queued(QueuePosition {
                        holder,
                        ahead,
                        at,
                        is_new: number(new)? != 0,
                        ticket: unsigned(new).filter(|ticket| *ticket > 0),
                        is_notified,
                    }),
                })
            }
            _ => None,
        }
    };
    read().ok_or_else(|| unreadable(value))
}

/// The answer of `release.lua` for one lock: a number, or the grant to a waiter of this process,
/// which no message tells of.
pub(crate) fn released(value: &Value) -> StoreResult<Released> {
    let read = || -> Option<Released> {
        match value {
            Value::Array(items) => match items.as_slice() {
                [owner, token, at, micros, claim] => Some(Released {
                    ended: true,
                    next: Some(Grant {
                        owner: OwnerId::try_parse(&text(owner)?).ok()?,
                        token: unsigned(token)?,
                        at: self::at(unsigned(at)?)?,
                        micros: unsigned(micros)?,
                        claim: Duration::from_millis(unsigned(claim)?),
                    }),
                }),
                _ => None,
            },
            flag => Some(Released::from(number(flag)? == 1)),
        }
    };
    read().ok_or_else(|| unreadable(value))
}

/// The message that `queue.lua` publishes to a waiter's process. `None` for any other text: a
/// channel is open to every client, and a message is only a hint.
pub(crate) fn grant(message: &str) -> Option<Grant> {
    let mut parts = message.split(' ');
    let owner = OwnerId::try_parse(parts.next()?).ok()?;
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (token, micros, claim) = (number()?, number()?, number()?);
    Some(Grant {
        owner,
        token,
        at: at(micros / 1000)?,
        micros,
        claim: Duration::from_millis(claim),
    })
}

/// The answer of `renew.lua`: one flag for each lock. As a whole or not at all: a flag that is
/// missing would make another lock's flag this lock's.
pub(crate) fn flags(value: &Value, count: usize) -> StoreResult<Vec<bool>> {
    let read = || -> Option<Vec<bool>> {
        let items = array(value)?;
        if items.len() != count {
            return None;
        }
        items
            .iter()
            .map(|item| match number(item)? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            })
            .collect()
    };
    read().ok_or_else(|| unreadable(value))
}

/// The answer of `force_release.lua`. The name of a type means that the key is no lock: an error
/// for a person, and nothing was deleted.
pub(crate) fn forced(value: &Value) -> StoreResult<bool> {
    match value {
        Value::Int(0) => Ok(false),
        Value::Int(1) => Ok(true),
        other => match text(other) {
            Some(kind) => Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("the key holds a {kind}, which is no lock; it was left alone"),
                "look at it with redis-cli, and delete it by hand if nobody needs it",
            )),
            None => Err(unreadable(other)),
        },
    }
}

/// The answer of `inspect.lua`. All times are compared by the server's clock, which is in the
/// answer: this machine's may be wrong.
pub(crate) fn inspection(key: &Key, value: &Value) -> StoreResult<Inspection> {
    let read = || -> Option<Inspection> {
        let items = array(value)?;
        let now = u64::try_from(number(items.first()?)?).ok()?;
        let kind = text(items.get(1)?)?;
        let left = number(items.get(2)?)?;
        let holder = lock_info(
            key,
            &kind,
            &text(items.get(3)?)?,
            left,
            now,
            unsigned(items.get(6)?),
        );
        let fence_left = number(items.get(4)?)?;
        let fence = text(items.get(5)?)?;
        let last = last_holding(key, holder.as_ref(), &fence, fence_left, now);
        Some(Inspection { holder, last })
    };
    read().ok_or_else(|| unreadable(value))
}

/// A lock's text, or a fence's: see `queue.lua`. What is missing is left out; a text without an
/// owner id and a token is none of ours.
#[derive(Deserialize)]
struct Holding {
    #[serde(rename = "applock")]
    version: u64,
    owner: String,
    token: u64,
    acquired_at: u64,
    #[serde(default)]
    remember: u64,
    #[serde(default)]
    app: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    instance: String,
    #[serde(default)]
    host: String,
    pid: Option<u32>,
    #[serde(default)]
    ttl: u64,
    /// Of a lock: the lease of a waiter that has not confirmed its grant.
    claim: Option<u64>,
    /// Of a lock: for how long it is kept after its release.
    kept: Option<u64>,
    /// Of a fence: how the holding ended, and when.
    ended: Option<String>,
    until: Option<u64>,
}

/// The version of the layout that the scripts write.
const VERSION: u64 = 1;

/// A text of this version.
fn holding(text: &str) -> Option<Holding> {
    let holding: Holding = serde_json::from_str(text).ok()?;
    (holding.version == VERSION).then_some(holding)
}

/// The version of a text that another version of this library may have written.
fn version(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("{\"applock\":")?;
    digits[..digits.find(',')?].parse().ok()
}

/// Who holds a lock, from its key: `None` only if there is no such key.
fn lock_info(
    key: &Key,
    kind: &str,
    text: &str,
    left: i64,
    now: u64,
    waiters: Option<u64>,
) -> Option<LockInfo> {
    let record = match kind {
        "none" => return None,
        "string" => match holding(text) {
            Some(holding) => holder(key, holding, left, now),
            None => foreign(key, kind, text, left),
        },
        _ => foreign(key, kind, text, left),
    };
    Some(Record { waiters, ..record }.into())
}

/// A lock that this library wrote.
fn holder(key: &Key, holding: Holding, left: i64, now: u64) -> Record {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let remaining = millis(left);
    Record {
        key: key.lock.clone(),
        app: some(holding.app),
        name: some(holding.name),
        owner: holding.owner,
        instance: holding.instance,
        host: holding.host,
        pid: holding.pid,
        token: Some(holding.token),
        acquired_at: at(holding.acquired_at),
        held_for: Some(Duration::from_millis(
            now.saturating_sub(holding.acquired_at),
        )),
        // A heartbeat sets the expiry back to the ttl, so what is gone of that is the
        // heartbeat's age. A claim and a keep have a length of their own.
        heartbeat_age: remaining.map(|left| {
            let lease = holding.claim.or(holding.kept).unwrap_or(holding.ttl);
            Duration::from_millis(lease).saturating_sub(left)
        }),
        remaining,
        ttl: Some(Duration::from_millis(holding.kept.unwrap_or(holding.ttl))),
        waiters: None,
        foreign: None,
    }
}

/// A key that this library did not write counts as a holder: another program may mean it.
fn foreign(key: &Key, kind: &str, text: &str, left: i64) -> Record {
    let what = match (kind, version(text)) {
        ("string", Some(version)) if version != VERSION => format!(
            "the key holds a lock in the layout of version {version}, which this version of \
             applock does not read"
        ),
        ("string", _) => {
            "the key holds a plain string, so perhaps another program's lock".to_owned()
        }
        (other, _) => format!("the key holds a {other}, which is no lock"),
    };
    Record::foreign(Arc::clone(&key.lock), what, millis(left))
}

/// The last holding, from the fence. That a lease ran out is written nowhere: a holding that
/// does not hold the lock now, and has no note of how it ended, has expired.
fn last_holding(
    key: &Key,
    holder: Option<&LockInfo>,
    fence: &str,
    fence_left: i64,
    now: u64,
) -> Option<LastHolding> {
    let last = holding(fence)?;
    let ending = match last.ended.as_deref() {
        // Also while at_least keeps it.
        _ if holder.is_some_and(|holder| holder.owner_id() == last.owner) => Ending::Held,
        Some("released") => Ending::Released,
        Some("forced") => Ending::Forced,
        _ => Ending::Expired,
    };
    let until = match ending {
        Ending::Held => None,
        // The fence outlives the lease by `remember`, and every heartbeat says so anew.
        Ending::Expired => u64::try_from(fence_left)
            .ok()
            .map(|left| now.saturating_add(left).saturating_sub(last.remember))
            .map(|end| end.min(now))
            .and_then(at),
        _ => last.until.and_then(at),
    };
    Some(LastHolding {
        key: key.lock.clone(),
        owner_id: last.owner,
        instance_id: last.instance,
        host: last.host,
        pid: last.pid,
        fencing_token: last.token,
        from: at(last.acquired_at)?,
        until,
        ending,
    })
}

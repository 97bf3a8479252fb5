//! The scripts' answers, read, in RESP2 and RESP3 alike.
//!
//! The other half of `requests.rs`: what stands in a header under 'Answer' is read here, into the
//! store's own types. Nothing is decided here, and nothing is sent.
//!
//! Danger: an answer that no script of ours gives (a proxy, another program's key, a damaged
//! hash) taken for a yes or a no. Whatever can't be read as a whole is [`unreadable`], an
//! `Unknown` outcome; a lock's key that holds something else is a foreign holder, and never free.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::Value;
use serde::Deserialize;

use crate::info::{Ending, LastHolding, LockInfo, Operator, OwnWords, Record};
use crate::key::{Key, MAX_KEY};
use crate::protocol::{MAX_TOKEN, Outcome, Timing};
use crate::shown::shown;
use crate::store::view::{self, LAST_DATE_MS};
use crate::store::{
    Acquired, Grant, Inspection, OwnerId, QueuePosition, Released, StoreError, StoreErrorKind,
    StoreResult,
};

use super::error;
use super::requests::{INSTANCE, REMEMBER};

/// The error for an answer that can't be read, with its beginning for a person to see.
pub(super) fn unreadable(value: &Value) -> StoreError {
    let shown = shown(format_args!("{value:?}")).to_string();
    // It does not tell whether the step was carried out.
    StoreError::new(
        StoreErrorKind::Unknown,
        format!("Redis answered what no script of ours answers: {shown}"),
        "see whether the URL leads to a Redis, and not to a proxy that changes answers",
    )
}

/// A text, in each form that a server or a proxy may give it.
pub(super) fn text(value: &Value) -> Option<String> {
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

/// A yes or a no: any other number is neither (rule R9).
fn flag(value: &Value) -> Option<bool> {
    match number(value)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// A fencing token: one that a script has drawn.
fn token(number: u64) -> Option<u64> {
    (1..=MAX_TOKEN).contains(&number).then_some(number)
}

/// The lease that a grant begins with. Longer than a script makes one, it is no grant: its waiter
/// would hold on to a lock that another may have by then.
fn claim(millis: u64) -> Option<Duration> {
    (1..=Timing::MILLIS.claim)
        .contains(&millis)
        .then(|| Duration::from_millis(millis))
}

/// The name of a type, as TYPE answers it: also that of a module's type.
fn type_name(value: &Value) -> Option<String> {
    let Value::BulkString(name) = value else {
        return None;
    };
    let is_name = name.len() <= 32
        && name.first().is_some_and(u8::is_ascii_alphabetic)
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_name.then(|| String::from_utf8_lossy(name).into_owned())
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
            let said = str::from_utf8(bytes).ok()?;
            let (token, at) = match said.split_once(' ') {
                Some((token, at)) => (token.parse().ok()?, at.parse().ok()?),
                // The token is the clock in microseconds, which has 16 digits until 2286.
                None if said.len() == 16 => {
                    let token: u64 = said.parse().ok()?;
                    (token, token / 1_000)
                }
                None => return None,
            };
            return Some(Acquired::Granted {
                token: self::token(token)?,
                at: self::at(at)?,
            });
        }
        match array(value)? {
            // `forbids` in `queue.lua`.
            [two, which, now, left, said, holder] if number(two) == Some(2) => {
                let (now, left) = (unsigned(now)?, number(left)?);
                let (said, holder) = (text(said)?, text(holder)?);
                let run = match &*text(which)? {
                    "newest" => last_holding(key, Some(&*holder), &said, left, now)?,
                    "success" => earlier_success(key, &said)?,
                    _ => return None,
                };
                Some(Acquired::AlreadyRan(run))
            }
            [zero, kind, left, micros, waiters, ahead, new, ticket, said]
                if number(zero) == Some(0) =>
            {
                let (left, at) = (number(left)?, unsigned(micros)?);
                let waiters = unsigned(waiters);
                let holder = lock_info(
                    key,
                    &type_name(kind)?,
                    &text(said)?,
                    left,
                    at / 1000,
                    waiters,
                )?;
                if number(ahead) == Some(-1) {
                    return Some(Acquired::Busy(holder));
                }
                let ticket = unsigned(ticket)?;
                Some(Acquired::Queued(QueuePosition {
                    holder,
                    ahead: unsigned(ahead)?,
                    at,
                    is_new: flag(new)?,
                    ticket: Some(ticket).filter(|ticket| *ticket > 0),
                    is_notified,
                }))
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
                        token: self::token(unsigned(token)?)?,
                        at: self::at(unsigned(at)?)?,
                        micros: unsigned(micros)?,
                        claim: self::claim(unsigned(claim)?)?,
                        needs_proof: false,
                    }),
                }),
                _ => None,
            },
            other => Some(Released::from(flag(other)?)),
        }
    };
    read().ok_or_else(|| unreadable(value))
}

/// The message that `queue.lua` publishes to a waiter's process. `None` for any other text: a
/// channel is open to every client, and a message is only a hint. So is one with a longer claim
/// than a script gives, or a token that is below the store's clock (rule R8).
pub(crate) fn grant(message: &str) -> Option<(Key, Grant)> {
    let mut parts = message.splitn(5, ' ');
    let owner = OwnerId::try_parse(parts.next()?).ok()?;
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (token, micros, claim) = (number()?, number()?, number()?);
    let lock = parts
        .next()
        .filter(|lock| (1..=MAX_KEY).contains(&lock.len()))?;
    if token < micros {
        return None;
    }
    let grant = Grant {
        owner,
        token: self::token(token)?,
        at: at(micros / 1000)?,
        micros,
        claim: self::claim(claim)?,
        needs_proof: false,
    };
    Some((Key::of_lock(lock), grant))
}

/// A field of the text that `INFO` and `CLUSTER INFO` answer with.
pub(super) fn info_field<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = info.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

/// Names and values, in RESP2 one after the other.
pub(super) fn fields(value: &Value) -> Option<HashMap<String, String>> {
    let pair = |(name, value): (&Value, &Value)| Some((text(name)?, text(value)?));
    match value {
        Value::Map(pairs) => Some(pairs.iter().filter_map(|(a, b)| pair((a, b))).collect()),
        Value::Array(items) => Some(
            items
                .chunks_exact(2)
                .filter_map(|two| pair((two.first()?, two.get(1)?)))
                .collect(),
        ),
        _ => None,
    }
}

/// The answer to SCAN: the cursor for the next one, and keys. A key that is no text is no lock's.
pub(super) fn scanned(value: &Value) -> StoreResult<(String, Vec<String>)> {
    let read = || -> Option<(String, Vec<String>)> {
        let [cursor, keys] = array(value)? else {
            return None;
        };
        let cursor = text(cursor)?;
        let is_number = !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_digit());
        let key = |key: &Value| match key {
            Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
            other => text(other),
        };
        let keys = array(keys)?.iter().filter_map(key).collect();
        is_number.then_some((cursor, keys))
    };
    read().ok_or_else(|| unreadable(value))
}

/// The answer of `renew.lua`: one flag for each lock. As a whole or not at all: a flag that is
/// missing would make another lock's flag this lock's.
pub(crate) fn flags(value: &Value, count: usize) -> StoreResult<Vec<bool>> {
    let read = || -> Option<Vec<bool>> {
        let items = array(value)?;
        if items.len() != count {
            return None;
        }
        items.iter().map(flag).collect()
    };
    read().ok_or_else(|| unreadable(value))
}

/// Whether `force_release.lua` has left a plain string alone, for want of its fifth key.
pub(super) fn is_plain(value: &Value) -> bool {
    type_name(value).is_some_and(|kind| kind == "string")
}

/// The answer of `force_release.lua`. The name of a type means that the key is no lock: an error
/// for a person, and nothing was deleted.
pub(crate) fn forced(value: &Value) -> StoreResult<bool> {
    match (flag(value), type_name(value)) {
        (Some(forced), _) => Ok(forced),
        (None, Some(kind)) => Err(StoreError::new(
            StoreErrorKind::Misconfigured,
            format!("the key holds a {kind}, which is no lock; it was left alone"),
            "look at it with redis-cli, and delete it by hand if nobody needs it",
        )),
        (None, None) => Err(unreadable(value)),
    }
}

/// The answer of `inspect.lua`. All times are compared by the server's clock, which is in the
/// answer: this machine's may be wrong.
pub(crate) fn inspection(key: &Key, value: &Value) -> StoreResult<Inspection> {
    let read = || -> Option<Inspection> {
        let [now, kind, left, said, fence_left, fence, waiters] = array(value)? else {
            return None;
        };
        let now = unsigned(now)?;
        let kind = type_name(kind)?;
        let waiters = unsigned(waiters);
        let holder = lock_info(key, &kind, &text(said)?, number(left)?, now, waiters);
        let (fence_left, fence) = (number(fence_left)?, text(fence)?);
        let owner = holder.as_ref().map(LockInfo::owner_id);
        let last = last_holding(key, owner, &fence, fence_left, now);
        let success = match &last {
            // It may be held still for `at_least`.
            Some(last) if last.ending == Ending::Ok => Some(last.clone()),
            _ => earlier_success(key, &fence),
        };
        Some(Inspection {
            holder,
            last,
            success,
            unreadable: unreadable_fence(&fence),
        })
    };
    read().ok_or_else(|| unreadable(value))
}

/// What is wrong with a fence that is there: another program's, or of another version.
fn unreadable_fence(fence: &str) -> Option<StoreError> {
    let line = fence.split('\n').next().unwrap_or_default();
    if fence.is_empty() || holding(line).is_some() {
        return None;
    }
    let what = match version(line) {
        Some(version) if version != VERSION => {
            format!("its fence is of version {version} of the layout")
        }
        _ => {
            let begin: String = line.chars().take(80).collect();
            format!("its fence holds {begin:?}")
        }
    };
    Some(StoreError::new(
        StoreErrorKind::Misconfigured,
        what,
        "delete the key beside the lock that keeps it (…:fence)",
    ))
}

/// A lock's text, or a fence's: see `queue.lua`. What is missing is left out; a text without an
/// owner id and a token is none of ours.
#[derive(Deserialize)]
struct Holding {
    #[serde(rename = "applock")]
    version: u64,
    state: String,
    owner: String,
    token: u64,
    /// Only where the token is not the time of it, in microseconds.
    acquired_at: Option<u64>,
    #[serde(default = "remember")]
    remember: u64,
    #[serde(default)]
    app: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    function: String,
    /// Only where it is not the beginning of the owner id.
    instance: Option<String>,
    #[serde(default)]
    host: String,
    pid: Option<u32>,
    forced_by: Option<ForcedBy>,
    #[serde(default)]
    ttl: u64,
    /// Of a run that ended before the newest one began: when that was written down, in
    /// microseconds, and for how many ms it would have been remembered still.
    noted_at: Option<u64>,
    left: Option<i64>,
}

fn remember() -> u64 {
    REMEMBER
}

impl Holding {
    fn instance(&self) -> String {
        let instance = self.instance.as_deref();
        instance
            .or_else(|| self.owner.get(INSTANCE))
            .unwrap_or_default()
            .to_owned()
    }

    /// In ms.
    fn acquired_at(&self) -> u64 {
        self.acquired_at.unwrap_or(self.token / 1_000)
    }
}

/// Who has ended a holding by force.
#[derive(Deserialize)]
struct ForcedBy {
    #[serde(default)]
    instance: String,
    #[serde(default)]
    host: String,
    pid: Option<u32>,
    #[serde(default)]
    reason: String,
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
    let (instance, acquired_at) = (holding.instance(), holding.acquired_at());
    let remaining = millis(left);
    Record {
        key: key.lock.clone(),
        app: some(holding.app),
        name: some(holding.name),
        function: some(holding.function),
        owner: holding.owner,
        instance,
        host: holding.host,
        pid: holding.pid,
        token: Some(holding.token),
        acquired_at: at(acquired_at),
        held_for: Some(Duration::from_millis(now.saturating_sub(acquired_at))),
        // A heartbeat sets the expiry back to the ttl, so what is gone of that is the
        // heartbeat's age. A claim and a keep have a length of their own.
        heartbeat_age: remaining.map(|left| {
            let lease = match &*holding.state {
                "claimed" => holding.ttl.min(Timing::MILLIS.claim),
                _ => holding.ttl,
            };
            Duration::from_millis(lease).saturating_sub(left)
        }),
        remaining,
        ttl: Some(Duration::from_millis(holding.ttl)),
        waiters: None,
        is_kept: holding.state == "kept",
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

/// What the Python AppLocker writes beside the plain string that is its lock.
#[derive(Deserialize)]
struct PythonInfo {
    owner: String,
    #[serde(default)]
    host: String,
    /// Seconds since 1970, by its own clock.
    acquired_at: f64,
}

/// The Python AppLocker that holds a lock, in its own words. `None` if this is not what it
/// writes.
pub(super) fn python_info(value: &Value) -> Option<OwnWords> {
    let info: PythonInfo = serde_json::from_str(&text(value)?).ok()?;
    // A host is written as `NAME-PID`.
    let parts = info.host.rsplit_once('-');
    let parts = parts.and_then(|(host, pid)| Some((host.to_owned(), pid.parse().ok()?)));
    let (host, pid) = match parts {
        Some((host, pid)) => (host, Some(pid)),
        None => (info.host, None),
    };
    let since = Duration::try_from_secs_f64(info.acquired_at).ok();
    Some(OwnWords {
        instance: info.owner,
        host,
        pid,
        acquired_at: since.and_then(|since| at(u64::try_from(since.as_millis()).ok()?)),
    })
}

/// The last holding, from the fence. That a lease ran out is written nowhere: a holding that
/// does not hold the lock now, and has no note of how it ended, has expired.
fn last_holding(
    key: &Key,
    holder: Option<&str>,
    fence: &str,
    fence_left: i64,
    now: u64,
) -> Option<LastHolding> {
    let last = holding(fence.lines().next()?)?;
    // Also while at_least keeps it.
    let is_held = holder.is_some_and(|holder| holder == last.owner);
    past(key, last, is_held, fence_left, now)
}

/// The newest run that ended well before the newest holding: the second line of a fence.
fn earlier_success(key: &Key, fence: &str) -> Option<LastHolding> {
    let run = holding(fence.lines().nth(1)?)?;
    let (now, left) = (run.noted_at? / 1_000, run.left?);
    past(key, run, false, left, now)
}

/// What a fence says of a holding, whose line would expire `fence_left` after `now`.
fn past(key: &Key, last: Holding, is_held: bool, fence_left: i64, now: u64) -> Option<LastHolding> {
    let ending = match (&*last.state, Outcome::named(&last.state)) {
        _ if is_held => Ending::Held,
        (_, Some(outcome)) => view::ending(outcome),
        ("forced", None) => Ending::Forced,
        _ => Ending::Expired,
    };
    // The fence outlives the lease or its release by `remember`: every heartbeat, and the release,
    // set its expiry anew. What at_least keeps ends later than now, and may be evicted before.
    let until = u64::try_from(fence_left)
        .ok()
        .filter(|_| ending != Ending::Held)
        .map(|left| now.saturating_add(left).saturating_sub(last.remember))
        .map(|end| end.min(now))
        .and_then(at);
    Some(LastHolding {
        key: key.lock.clone(),
        from: at(last.acquired_at())?,
        instance_id: last.instance(),
        function: Some(last.function).filter(|text| !text.is_empty()),
        owner_id: last.owner,
        host: last.host,
        pid: last.pid,
        fencing_token: last.token,
        until,
        ending,
        forced_by: last.forced_by.map(|by| {
            Operator {
                instance: &by.instance,
                host: &by.host,
                pid: by.pid,
                reason: &by.reason,
            }
            .to_string()
        }),
        next_at: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn key() -> Key {
        Key::whole("k").unwrap()
    }

    const OWNER: &str = "00000000000000000000000000000001";

    /// What no script of ours answers, to any call: a proxy, a damaged answer, another version.
    fn odd() -> Vec<Value> {
        let ints = [-7, -2, -1, 2, 7, i64::MIN, i64::MAX].map(Value::Int);
        let texts = [
            "", " ", "OK", "QUEUED", "-1", "2", "nil", "1 ", "a b", "1\n", "5 -1", "0 5",
        ];
        let long = "x".repeat(1 << 20);
        ints.into_iter()
            // A word by itself may be the name of a type, to `forced`; a status is none.
            .chain(
                texts
                    .iter()
                    .map(|text| Value::SimpleString((*text).to_owned())),
            )
            .chain(
                [
                    "",
                    " ",
                    "-1",
                    "2",
                    "a b",
                    "1\n",
                    "5 -1",
                    "0 5",
                    "9007199254740992 5",
                    "9007199254740992",
                    "999999999999999",
                    "17000000000000000",
                    &long,
                ]
                .map(bulk),
            )
            .chain([
                Value::Nil,
                Value::Okay,
                Value::Double(1.0),
                Value::Array(vec![]),
                Value::Map(vec![]),
                Value::Array(vec![Value::Nil; 5]),
                Value::Array(vec![Value::Int(1); 3]),
                Value::Array(vec![Value::Array(vec![]); 7]),
                Value::Array(vec![Value::Nil; 9]),
            ])
            .collect()
    }

    #[track_caller]
    fn is_unknown<T: std::fmt::Debug>(answer: &Value, read: StoreResult<T>) {
        let error = match read {
            Err(error) => error,
            Ok(read) => panic!("{answer:?} was read as {read:?}"),
        };
        assert_eq!(error.kind, StoreErrorKind::Unknown, "{answer:?}");
        assert!(error.what.len() < 400, "{}", error.what);
    }

    #[test]
    fn an_answer_of_an_odd_shape_is_unknown_to_every_call() {
        for answer in odd() {
            is_unknown(&answer, acquired(&key(), &answer, true));
            is_unknown(&answer, released(&answer));
            is_unknown(&answer, flags(&answer, 1));
            is_unknown(&answer, flags(&Value::Array(vec![answer.clone()]), 1));
            is_unknown(&answer, forced(&answer));
            is_unknown(&answer, inspection(&key(), &answer));
        }
        for name in ["list", "hash", "ReJSON-RL"] {
            let error = forced(&bulk(name)).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Misconfigured);
        }
    }

    /// An answer with one part replaced by each odd one, in turn.
    fn with_one_odd(good: &[Value], keep: &[usize]) -> Vec<Value> {
        let parts = (0..good.len()).filter(|at| !keep.contains(at));
        let one = |at: usize| odd().into_iter().map(move |odd| (at, odd));
        parts
            .flat_map(one)
            .map(|(at, odd)| {
                let mut answer = good.to_vec();
                answer[at] = odd;
                Value::Array(answer)
            })
            .collect()
    }

    #[test]
    fn an_answer_with_one_odd_part_is_unknown() {
        let hold = format!(
            r#"{{"applock":1,"state":"held","owner":"{OWNER}","ttl":9,"token":7,"acquired_at":1}}"#
        );
        let busy = |ahead| {
            [
                Value::Int(0),
                bulk("string"),
                Value::Int(5),
                bulk("1000"),
                Value::Int(1),
                Value::Int(ahead),
                Value::Int(0),
                bulk("0"),
                bulk(&hold),
            ]
        };
        let read = |answer: &[Value]| acquired(&key(), &Value::Array(answer.to_vec()), true);
        assert!(matches!(read(&busy(-1)), Ok(Acquired::Busy(_))));
        assert!(matches!(read(&busy(3)), Ok(Acquired::Queued(_))));
        // Kept: what is only shown, or may be any number or text.
        for answer in with_one_odd(&busy(3), &[2, 3, 4, 5, 6, 7, 8]) {
            is_unknown(&answer, acquired(&key(), &answer, true));
        }
        for ahead in [-7, -2, i64::MIN] {
            is_unknown(&Value::Int(ahead), read(&busy(ahead)));
        }
        let mut negative = busy(3);
        negative[7] = Value::Int(-1);
        is_unknown(&negative[7], read(&negative));

        let grant = [
            bulk(OWNER),
            bulk("70000"),
            bulk("60"),
            bulk("60000"),
            Value::Int(3000),
        ];
        assert!(
            released(&Value::Array(grant.to_vec()))
                .unwrap()
                .next
                .is_some()
        );
        for answer in with_one_odd(&grant, &[1, 2, 3, 4]) {
            is_unknown(&answer, released(&answer));
        }
        for claim in [-1, 0, 3001, 3_600_000] {
            let mut answer = grant.to_vec();
            answer[4] = Value::Int(claim);
            let answer = Value::Array(answer);
            is_unknown(&answer, released(&answer));
        }
        assert!(released(&Value::Int(1)).unwrap().ended);
        assert!(!released(&Value::Int(0)).unwrap().ended);
    }

    #[test]
    fn what_a_locks_text_leaves_out_is_known_all_the_same() {
        let info = |rest: &str| {
            let text =
                format!(r#"{{"applock":1,"state":"held","owner":"{OWNER}","ttl":9,{rest}}}"#);
            lock_info(&key(), "string", &text, 5, 1_700_000_000_999, None).unwrap()
        };
        let short = info(r#""host":"h","token":1700000000123456"#);
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(short.instance_id(), &OWNER[..16]);
        assert_eq!(short.acquired_at(), Some(at));
        assert_eq!(short.held_for(), Some(Duration::from_millis(876)));
        // A token that had to be larger than the clock.
        let long = info(
            r#""instance":"i","host":"h","token":1800000000123456,"acquired_at":1700000000123"#,
        );
        assert_eq!((long.instance_id(), long.acquired_at()), ("i", Some(at)));
    }

    #[test]
    fn what_a_python_holder_says_of_itself_is_read_if_it_is_that() {
        let read = |text: &str| python_info(&bulk(text));
        let words = read(
            r#"{"acquired_at": 1700000000.25, "owner": "a-1f", "application": "a", "host": "web-1-42"}"#,
        );
        let words = words.unwrap();
        assert_eq!((&*words.instance, &*words.host), ("a-1f", "web-1"));
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!((words.pid, words.acquired_at), (Some(42), Some(at)));
        // Its own words all the same: times that no clock shows, hosts without a pid.
        for (host, acquired_at) in [
            ("web-1", "1e300"),
            ("web", "-1"),
            ("", "1e12"),
            ("x-", "1e99"),
        ] {
            let text =
                format!(r#"{{"acquired_at": {acquired_at}, "owner": "a-1f", "host": "{host}"}}"#);
            let words = read(&text).unwrap();
            assert_eq!(words.acquired_at, None, "{text}");
        }
        for text in [
            "",
            "7",
            "{}",
            "[]",
            r#"{"applock":1,"owner":"x"}"#,
            r#"{"owner": 7}"#,
        ] {
            assert!(read(text).is_none(), "{text}");
        }
        for answer in odd() {
            assert!(python_info(&answer).is_none(), "{answer:?}");
        }
    }

    #[test]
    fn a_message_is_a_grant_only_if_a_script_may_have_published_it() {
        assert!(grant(&format!("{OWNER} 70000 60000 3000 k")).is_some());
        assert!(grant(&format!("{OWNER} 60000 60000 1 k")).is_some());
        for message in [
            "",
            "70000 60000 3000 k",
            "x 70000 60000 3000 k",
            &format!("{OWNER} 70000 60000"),
            &format!("{OWNER} 70000 60000 3000"),
            &format!("{OWNER} 70000 60000 3000 "),
            &format!("{OWNER} 70000 60000 -1 k"),
            // A claim of an hour, of just too much, and of nothing.
            &format!("{OWNER} 70000 60000 3600000 k"),
            &format!("{OWNER} 70000 60000 3001 k"),
            &format!("{OWNER} 70000 60000 0 k"),
            // Tokens that no script draws.
            &format!("{OWNER} 59999 60000 3000 k"),
            &format!("{OWNER} 0 0 3000 k"),
            &format!("{OWNER} 9007199254740992 60000 3000 k"),
        ] {
            assert!(grant(message).is_none(), "{message}");
        }
    }
}

//! Feature `serde`: what people and programs read of locks, as JSON and its like.
//!
//! The names of fields and values are part of the public interface: they are added to, and never
//! change. Each field is always there, `null` where it is not known. Times are RFC 3339 in UTC with
//! milliseconds, lengths whole milliseconds (`…_ms`). Texts stand as they are in the store: who
//! prints them has to escape them, as JSON does.
//!
//! Here and not at the types, so that what is promised stands on one page.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::error::{ErrorKind, Loss};
use crate::health::Health;
use crate::info::{Ending, LastHolding, LockInfo};

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
struct LockInfoFields<'a> {
    key: &'a str,
    app: Option<&'a str>,
    name: Option<&'a str>,
    function: Option<&'a str>,
    owner_id: Option<&'a str>,
    instance_id: Option<&'a str>,
    host: Option<&'a str>,
    pid: Option<u32>,
    fencing_token: Option<u64>,
    acquired_at: Option<String>,
    ended_at: Option<String>,
    held_for_ms: Option<u64>,
    heartbeat_age_ms: Option<u64>,
    remaining_ms: Option<u64>,
    ttl_ms: Option<u64>,
    waiters: Option<u64>,
    foreign: bool,
}

/// With the feature `serde`. Fields: `key`, `app`, `name`, `function`, `owner_id`, `instance_id`,
/// `host`, `pid`, `fencing_token`, `acquired_at`, `ended_at`, `held_for_ms`, `heartbeat_age_ms`,
/// `remaining_ms`, `ttl_ms`, `waiters`, `foreign`: always all, `null` where not known. Times are
/// RFC 3339 in UTC with milliseconds, lengths whole milliseconds.
impl Serialize for LockInfo {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        LockInfoFields {
            key: self.key(),
            app: self.application(),
            name: self.name(),
            function: self.function(),
            owner_id: some(self.owner_id()),
            instance_id: some(self.instance_id()),
            host: some(self.host()),
            pid: self.pid(),
            fencing_token: self.fencing_token(),
            acquired_at: self.acquired_at().map(time),
            ended_at: self.ended_at().map(time),
            held_for_ms: self.held_for().map(millis),
            heartbeat_age_ms: self.heartbeat_age().map(millis),
            remaining_ms: self.remaining().map(millis),
            ttl_ms: self.ttl().map(millis),
            waiters: self.waiters(),
            foreign: self.is_foreign(),
        }
        .serialize(to)
    }
}

/// An empty one is not known.
fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[derive(Serialize)]
struct LastHoldingFields<'a> {
    key: &'a str,
    function: Option<&'a str>,
    owner_id: Option<&'a str>,
    instance_id: Option<&'a str>,
    host: Option<&'a str>,
    pid: Option<u32>,
    fencing_token: u64,
    from: String,
    until: Option<String>,
    ending: Ending,
    forced_by: Option<&'a str>,
    next_at: Option<String>,
}

/// With the feature `serde`. Fields: `key`, `function`, `owner_id`, `instance_id`, `host`, `pid`,
/// `fencing_token`, `from`, `until`, `ending`, `forced_by`, `next_at`: always all, `null` where not known. Times are RFC 3339
/// in UTC with milliseconds.
impl Serialize for LastHolding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        LastHoldingFields {
            key: &self.key,
            function: self.function.as_deref(),
            owner_id: some(&self.owner_id),
            instance_id: some(&self.instance_id),
            host: some(&self.host),
            pid: self.pid,
            fencing_token: self.fencing_token,
            from: time(self.from),
            until: self.until.map(time),
            ending: self.ending,
            forced_by: self.forced_by.as_deref(),
            next_at: self.next_at.map(time),
        }
        .serialize(to)
    }
}

/// With the feature `serde`: one word, `held`, `ok`, `error`, `panicked`, `cancelled`, `lost`, `unused`,
/// `released`, `expired` or `forced`.
impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match self {
            Self::Held => "held",
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Unused => "unused",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Forced => "forced",
        })
    }
}

/// With the feature `serde`: the word that is its [`name`](Loss::name).
impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// With the feature `serde`: the word that is its [`name`](ErrorKind::name).
impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

#[derive(Serialize)]
struct HealthFields {
    is_alive: bool,
    is_ready: bool,
    is_closed: bool,
    store_is_up: Option<bool>,
    last_answer_age_ms: Option<u64>,
    held: usize,
    waiting: usize,
    smallest_margin_ms: Option<u64>,
}

/// With the feature `serde`. Fields: `is_alive`, `is_ready`, `is_closed`, `store_is_up`,
/// `last_answer_age_ms`, `held`, `waiting`, `smallest_margin_ms`: always all, `null` where not known.
impl Serialize for Health {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        HealthFields {
            is_alive: self.is_alive,
            is_ready: self.is_ready(),
            is_closed: self.is_closed,
            store_is_up: self.store_is_up,
            last_answer_age_ms: self.last_answer_age.map(millis),
            held: self.held,
            waiting: self.waiting,
            smallest_margin_ms: self.smallest_margin.map(millis),
        }
        .serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::info::Record;

    #[test]
    fn the_fields_of_a_holder_are_these() {
        let record = Record {
            key: "QUEUE:a:b".into(),
            app: Some("a".to_owned()),
            name: Some("b".to_owned()),
            owner: "o1".to_owned(),
            instance: "worker-7".to_owned(),
            host: "h\n".to_owned(),
            pid: Some(7),
            token: Some(9_007_199_254_740_991),
            acquired_at: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            held_for: Some(Duration::from_micros(1_500_999)),
            heartbeat_age: Some(Duration::from_millis(500)),
            remaining: Some(Duration::from_millis(29_500)),
            ttl: Some(Duration::from_secs(30)),
            waiters: Some(2),
            is_kept: true,
            ..Record::default()
        };
        let text = serde_json::to_string(&LockInfo::from(record)).unwrap();
        assert_eq!(
            text,
            r#"{"key":"QUEUE:a:b","app":"a","name":"b","function":null,"owner_id":"o1","#
                .to_owned()
                + r#""instance_id":"worker-7","host":"h\n","pid":7,"fencing_token":9007199254740991,"#
                + r#""acquired_at":"2023-11-14T22:13:20.123Z","ended_at":"2023-11-14T22:13:21.123Z","#
                + r#""held_for_ms":1500,"heartbeat_age_ms":500,"remaining_ms":29500,"ttl_ms":30000,"#
                + r#""waiters":2,"foreign":false}"#
        );
        let foreign = Record::foreign(Arc::from("k"), "a plain string", None);
        let read = serde_json::to_value(LockInfo::from(foreign)).unwrap();
        assert_eq!(read["foreign"], true);
        let known = read.as_object().unwrap().values();
        assert_eq!(known.filter(|value| !value.is_null()).count(), 2);
    }

    #[test]
    fn the_fields_of_the_last_holding_are_these() {
        let last = LastHolding {
            key: "k".into(),
            function: Some("jobs::nightly".to_owned()),
            owner_id: "o1".to_owned(),
            instance_id: "worker-7".to_owned(),
            host: "h".to_owned(),
            pid: None,
            fencing_token: 1,
            from: UNIX_EPOCH,
            until: Some(UNIX_EPOCH + Duration::from_secs(1)),
            ending: Ending::Forced,
            forced_by: Some("db9 (pid 7): \"off\"".to_owned()),
            next_at: Some(UNIX_EPOCH),
        };
        assert_eq!(
            serde_json::to_string(&last).unwrap(),
            r#"{"key":"k","function":"jobs::nightly","owner_id":"o1","#.to_owned()
                + r#""instance_id":"worker-7","host":"h","pid":null,"#
                + r#""fencing_token":1,"from":"1970-01-01T00:00:00.000Z","#
                + r#""until":"1970-01-01T00:00:01.000Z","ending":"forced","#
                + r#""forced_by":"db9 (pid 7): \"off\"","next_at":"1970-01-01T00:00:00.000Z"}"#
        );
    }

    #[test]
    fn the_fields_of_a_lockers_health_are_these() {
        assert_eq!(
            serde_json::to_string(&Health::IDLE).unwrap(),
            r#"{"is_alive":true,"is_ready":true,"is_closed":false,"store_is_up":null,"#.to_owned()
                + r#""last_answer_age_ms":null,"held":0,"waiting":0,"smallest_margin_ms":null}"#
        );
    }

    #[test]
    fn an_errors_kind_a_loss_and_an_ending_are_these_words() {
        fn words<T: Serialize>(all: &[T]) -> String {
            let words = all.iter().map(|one| serde_json::to_value(one).unwrap());
            let words: Vec<String> = words.map(|word| word.as_str().unwrap().into()).collect();
            words.join(" ")
        }
        let kinds = [
            ErrorKind::Busy,
            ErrorKind::Lost,
            ErrorKind::NotHeld,
            ErrorKind::Unavailable,
            ErrorKind::Denied,
            ErrorKind::Misconfigured,
            ErrorKind::Invalid,
            ErrorKind::Closed,
            ErrorKind::AlreadyRan,
        ];
        assert_eq!(
            words(&kinds),
            "busy lost not_held unavailable denied misconfigured invalid closed already_ran"
        );
        let losses = [
            Loss::Expired,
            Loss::Taken,
            Loss::AtMost,
            Loss::Shutdown,
            Loss::Stopped,
        ];
        assert_eq!(words(&losses), "expired taken at_most shutdown stopped");
        let endings = [
            Ending::Held,
            Ending::Ok,
            Ending::Error,
            Ending::Panicked,
            Ending::Cancelled,
            Ending::Lost,
            Ending::Unused,
            Ending::Released,
            Ending::Expired,
            Ending::Forced,
        ];
        assert_eq!(
            words(&endings),
            "held ok error panicked cancelled lost unused released expired forced"
        );
    }
}

//! Each request as a script's keys and arguments.
//!
//! The Rust side of the headers in `scripts/*.lua`: the order of keys and arguments here and the
//! `KEYS` and `ARGV` there must agree. `reply.rs` is the same for the answers. Nothing is decided
//! here.
//!
//! Danger: two places that say how long a claim or a silence is. The numbers that are the
//! protocol's stand in the scripts as numbers, so that a script is one fixed text with one hash;
//! a test below compares them.

use std::time::Duration;

use redis::Cmd;
use serde::{Serialize, Serializer};

use crate::key::{Function, Key, Side};
use crate::protocol::{Due, Outcome, Tick};
use crate::store::{Acquire, By, Release, Renew};

use super::script::{Script, ScriptCall, millis};

/// One script of several files, in this order. Its text is fixed when the crate is compiled, and so is
/// its hash: a process of a short life would spend more time on hashing than on the lock. A test below
/// says what to write here after a change of a script.
macro_rules! script {
    ($hash:literal, $($file:literal),+) => {
        Script::new(concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+), $hash)
    };
}

static ACQUIRE: Script = script!(
    "48d17ef98ecc923d313bfc2721e7e56cc9debb2d",
    "clock",
    "acquire_short",
    "queue",
    "acquire"
);
static RENEW: Script = script!("994c7e22136d36b2e11e89152c0acb56641bc2b3", "renew");
static RELEASE: Script = script!(
    "6304ac4f356240f53c11679d635571752c294285",
    "release_short",
    "clock",
    "queue",
    "release"
);
static INSPECT: Script = script!("a9c2dff646abbc090cf428a3574e4e02ea869a61", "inspect");
static FORCE_RELEASE: Script = script!(
    "becee22a8d45ede2e3ba1c2aaf525434124aff8d",
    "clock",
    "queue",
    "force_release"
);

/// How the text of a lock that is held begins.
const HELD: &str = r#"{"applock":1,"state":"held",     "#;

/// What stands in it before the owner id, from its state on.
const HELD_BY: &str = r#"held",     "owner":""#;

/// A text that says nothing else is remembered for a week, in ms.
pub(super) const REMEMBER: u64 = 604_800_000;

/// How much of an owner id the instance is, where no name was given to it.
pub(super) const INSTANCE: std::ops::Range<usize> = 0..16;

/// What stands in a lock's text between its state and its token: what the request knows, in the
/// order that the scripts and people read.
#[derive(Serialize)]
struct Holder<'a> {
    owner: &'a str,
    ttl: u64,
    // What there is not, or is as always, costs the server nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remember: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(serialize_with = "path", skip_serializing_if = "Option::is_none")]
    function: Option<Function>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    host: &'a str,
    pid: u32,
}

fn path<S: Serializer>(function: &Option<Function>, to: S) -> Result<S::Ok, S::Error> {
    match function {
        Some(function) => to.collect_str(function),
        None => to.serialize_none(),
    }
}

impl<'a> Holder<'a> {
    fn of(request: &'a Acquire, owner: &'a str) -> Self {
        let instance = &*request.identity.instance;
        Self {
            owner,
            ttl: millis(request.ttl),
            remember: Some(millis(request.remember)).filter(|remember| *remember != REMEMBER),
            app: request.key.app(),
            name: request.key.name(),
            function: request.key.function,
            instance: Some(instance).filter(|it| owner.get(INSTANCE) != Some(*it)),
            host: &request.identity.host,
            pid: request.identity.pid,
        }
    }
}

/// What an earlier run forbids, as `forbids` in `queue.lua` reads it.
fn due(due: Due) -> String {
    let retry = u8::from(due.retry_failed);
    match due.tick {
        // The server shows when a run began in milliseconds.
        Tick::Gap(gap) => format!("gap {} {retry}", gap.div_ceil(1_000)),
        Tick::Number(number) => format!("tick {number} {retry}"),
    }
}

/// The first of several, if `of` is the same of all: then it is sent once.
fn shared<'a, Q, T: PartialEq>(all: &[&'a Q], of: impl Fn(&Q) -> T) -> Option<&'a Q> {
    let (first, others) = all.split_first()?;
    let is_same = !others.is_empty() && others.iter().all(|other| of(other) == of(first));
    is_same.then_some(*first)
}

/// Takes locks for one process. `run` is the run id of the server where the process has
/// subscribed to `channel`, `None` while it has not: then the server expects it to poll.
pub(crate) fn acquire(requests: &[&Acquire], channel: &str, run: Option<&str>) -> ScriptCall {
    let is_waited = |request: &&Acquire| request.notifications.is_some();
    let any_due = requests.iter().any(|request| request.due.is_some());
    let any_waits = any_due || requests.iter().any(is_waited);
    // A lock's text is as long as eight other words.
    let mut call = ScriptCall::new(&ACQUIRE, requests.len() * 4, requests.len() * 12);
    call.says_subscribed = run.is_some();
    call.is_acknowledged = true;
    let keys = requests.iter().map(|request| &request.key);
    call.by_kind(keys, [Side::Queue, Side::Waiters, Side::Fence]);
    let wait = |call: &mut ScriptCall, request: &Acquire| {
        if is_waited(&request) {
            let (ticket, run) = (request.ticket.unwrap_or(0), run.unwrap_or("0"));
            call.text(&format!("{ticket} {run} {channel}"));
        } else {
            call.text("");
        }
    };
    let text = |call: &mut ScriptCall, request: &Acquire| {
        let mut digits = [0; 32];
        let owner = request.owner.simple().encode_lower(&mut digits);
        call.json_between(HELD, &Holder::of(request, owner), ",\"token\":");
    };
    let shared = shared(requests, |request| {
        let ticket = request.notifications.as_ref().map(|_| request.ticket);
        (request.ttl, request.remember, ticket)
    });
    if let Some(first) = shared.filter(|_| !any_due) {
        call.millis(first.ttl).fence_ttl(first.ttl, first.remember);
        wait(&mut call, first);
        requests.iter().for_each(|request| text(&mut call, request));
        return call;
    }
    for request in requests {
        call.millis(request.ttl)
            .fence_ttl(request.ttl, request.remember);
        text(&mut call, request);
        if any_waits {
            wait(&mut call, request);
        }
        if any_due {
            call.text(&request.due.map(due).unwrap_or_default());
        }
    }
    call
}

/// The state of a lock or a fence, as it stands in its text: all are 20 bytes long.
fn state(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Released => r#""state":"released", "#,
        Outcome::Ok => r#""state":"ok",       "#,
        Outcome::Error => r#""state":"error",    "#,
        Outcome::Panicked => r#""state":"panicked", "#,
        Outcome::Cancelled => r#""state":"cancelled","#,
        Outcome::Lost => r#""state":"lost",     "#,
        Outcome::Unused => r#""state":"unused",   "#,
    }
}

/// Sends heartbeats. Neither queue nor waiters: a heartbeat must be the cheapest step.
pub(crate) fn renew(beats: &[&Renew]) -> ScriptCall {
    let mut call = ScriptCall::new(&RENEW, beats.len() * 2, beats.len() * 3);
    call.is_acknowledged = true;
    for beat in beats {
        call.lock(&beat.key);
    }
    for beat in beats {
        call.side(&beat.key, Side::Fence);
    }
    let shared = shared(beats, |beat| (beat.ttl, beat.remember));
    for (at, beat) in beats.iter().enumerate() {
        if at == 0 || shared.is_none() {
            call.millis(beat.ttl).fence_ttl(beat.ttl, beat.remember);
        }
        call.owner(beat.owner);
    }
    call
}

/// Ends holdings, for the process of that channel.
pub(crate) fn release(ends: &[&Release], channel: &str) -> ScriptCall {
    let mut call = ScriptCall::new(&RELEASE, ends.len() * 4, 1 + ends.len() * 3);
    let keys = ends.iter().map(|end| &end.key);
    call.by_kind(keys, [Side::Waiters, Side::Queue, Side::Fence]);
    call.text(channel);
    let shared = shared(ends, |end| (end.remember, end.outcome, end.keep));
    for (at, end) in ends.iter().enumerate() {
        if at == 0 || shared.is_none() {
            call.millis(end.remember);
            let state = state(end.outcome);
            match end.keep.map_or(0, millis) {
                0 => call.text(state),
                keep => call.text(&format!("{state}{keep}")),
            };
        }
        call.text_and_owner(HELD_BY, end.owner);
    }
    call
}

/// Reads a lock, its fence, and how many wait.
pub(crate) fn inspect(key: &Key) -> ScriptCall {
    let mut call = ScriptCall::new(&INSPECT, 3, 0);
    call.lock(key).side(key, Side::Fence).side(key, Side::Queue);
    call
}

/// Ends whatever holding there is of ours, or only one without a heartbeat for `stale`.
pub(crate) fn force_release(key: &Key, stale: Option<Duration>, by: &By) -> ScriptCall {
    let mut call = ScriptCall::new(&FORCE_RELEASE, 4, 2);
    call.sides(key);
    match stale {
        None => call.text("-1"),
        Some(stale) => call.millis(stale),
    };
    call.json(&Operator::of(by));
    call
}

/// Who ends a holding by force.
#[derive(Serialize)]
struct Operator<'a> {
    instance: &'a str,
    host: &'a str,
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl<'a> Operator<'a> {
    fn of(by: &'a By) -> Self {
        Self {
            instance: &by.identity.instance,
            host: &by.identity.host,
            pid: by.identity.pid,
            reason: &by.reason,
        }
    }
}

/// The same in any case, a plain string included. With a key that a lock of ours does not need: a
/// user may have no right to it. `is_beside`: it is in the lock's slot; in a cluster it seldom is,
/// and then it is left alone.
pub(crate) fn force_release_plain(key: &Key, is_beside: bool, by: &By) -> ScriptCall {
    let mut call = ScriptCall::new(&FORCE_RELEASE, 5, 2);
    call.sides(key);
    match is_beside {
        true => call.text(&python_info(key)),
        false => call.lock(key),
    };
    call.text("-1").json(&Operator::of(by));
    call
}

/// Where the Python AppLocker says who holds a lock.
pub(crate) fn python_info(key: &Key) -> String {
    format!("{}:INFO", key.lock)
}

/// Reads that, no more than a person would. By a command that a lock of ours needs the right to as
/// well.
pub(super) fn read_python_info(key: &Key) -> Cmd {
    let mut command = redis::cmd("GETRANGE");
    command.arg(python_info(key)).arg(0).arg(4095);
    command
}

/// Asks for the next keys of a node. The server looks at a bounded number.
pub(super) fn scan(cursor: &str, pattern: &str) -> Cmd {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern);
    command.arg("COUNT").arg(A_SCAN);
    command
}

/// How many keys the server looks at in one SCAN: about 100 µs, in which it serves nobody else.
const A_SCAN: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_TOKEN, Timing};

    /// The number that `queue.lua` gives that name.
    fn number(name: &str) -> u64 {
        let definition = format!("local {name} = ");
        let mut found = include_str!("scripts/queue.lua")
            .lines()
            .filter_map(|line| line.trim().strip_prefix(&definition));
        let (Some(number), None) = (found.next(), found.next()) else {
            panic!("{name} is not defined once");
        };
        number.trim_matches('\'').parse().unwrap()
    }

    #[test]
    fn the_numbers_in_the_scripts_are_the_protocols() {
        let in_the_scripts = Timing {
            claim: number("CLAIM"),
            silence: number("SILENCE"),
            queue_life: number("QUEUE_LIFE"),
            grace: number("GRACE"),
        };
        assert_eq!(in_the_scripts, Timing::MILLIS);
        assert_eq!(number("MAX_TOKEN"), MAX_TOKEN);
        assert_eq!(number("REMEMBER"), REMEMBER);
    }

    /// Danger: a script whose hash is wrong works, but its text travels with each call.
    #[test]
    fn each_script_is_called_by_its_hash() {
        for (name, script) in [
            ("ACQUIRE", &ACQUIRE),
            ("RENEW", &RENEW),
            ("RELEASE", &RELEASE),
            ("INSPECT", &INSPECT),
            ("FORCE_RELEASE", &FORCE_RELEASE),
        ] {
            let hash = redis::Script::new(script.code).get_hash().to_owned();
            assert_eq!(script.hash, hash, "{name}: write the second one there");
        }
    }

    fn request(instance: &str, remember: u64) -> Acquire {
        Acquire {
            key: Key::whole("k").unwrap(),
            owner: uuid::Uuid::from_u64_pair(7, 9),
            ttl: Duration::from_secs(60),
            remember: Duration::from_millis(remember),
            due: None,
            identity: std::sync::Arc::new(crate::store::Identity {
                instance: instance.to_owned(),
                host: "db9".to_owned(),
                pid: 7,
            }),
            notifications: None,
            ticket: None,
        }
    }

    /// Arguments of a call, after its keys.
    fn arguments(call: &ScriptCall, keys: usize) -> Vec<String> {
        let words = call.by_hash().args_iter().skip(3 + keys);
        words
            .map(|word| match word {
                redis::Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_locks_text_leaves_out_what_goes_without_saying() {
        let text = |instance, remember| {
            let call = acquire(&[&request(instance, remember)], "applock:0", None);
            arguments(&call, 4).pop().unwrap()
        };
        let owner = "00000000000000070000000000000009";
        assert_eq!(
            text(&owner[..16], REMEMBER),
            format!(
                "{HELD}\"owner\":\"{owner}\",\"ttl\":60000,\"host\":\"db9\",\"pid\":7,\"token\":"
            )
        );
        assert_eq!(
            text("web-1", 3_600_000),
            format!(
                "{HELD}\"owner\":\"{owner}\",\"ttl\":60000,\"remember\":3600000,\
                 \"instance\":\"web-1\",\"host\":\"db9\",\"pid\":7,\"token\":"
            )
        );
    }

    #[test]
    fn what_is_the_same_of_several_locks_is_sent_once() {
        let (one, same, other) = (request("i", 1), request("i", 1), request("i", 2));
        let words = |all: &[&Acquire]| arguments(&acquire(all, "applock:0", None), all.len() * 4);
        assert_eq!(words(&[&one]).len(), 3);
        assert_eq!(words(&[&one, &same])[..3], ["60000", "60001", ""]);
        assert_eq!(words(&[&one, &same]).len(), 5);
        assert_eq!(words(&[&one, &other]).len(), 6);
    }

    #[test]
    fn a_release_compares_a_lock_from_its_state_on() {
        assert_eq!(HELD.find("held"), Some(22));
        assert!(format!("{HELD}\"owner\":\"").ends_with(HELD_BY));
        assert_eq!(22 + HELD_BY.len() + 32, 74);
    }

    #[test]
    fn every_outcome_fits_where_the_state_stands() {
        for (outcome, name) in Outcome::NAMES {
            let field = format!("\"state\":\"{name}\",");
            assert_eq!(state(outcome), format!("{field:20}"));
            assert_eq!(state(outcome).len(), 20, "{name}");
        }
    }
}

//! How a holder and a run are shown: in a few lines to people, as JSON to programs.
//!
//! The JSON is a promise: docs/ON_CALL.md lists its fields, and a test compares them. Fields may be
//! added; none changes its meaning.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use applock_runtime::__private::shown_text;
use applock_runtime::{LastHolding, LockInfo};
use serde::Serialize;

use crate::exit::{self, Failure};

/// A holder.
#[derive(Debug, Serialize)]
pub(crate) struct Holder<'a> {
    /// Another program's key.
    foreign: bool,
    /// `at_least` keeps the lock, and nothing runs.
    kept: bool,
    owner: &'a str,
    token: Option<u64>,
    app: Option<&'a str>,
    name: Option<&'a str>,
    function: Option<&'a str>,
    instance: &'a str,
    host: &'a str,
    pid: Option<u32>,
    acquired_at: Option<String>,
    held_ms: Option<u64>,
    heartbeat_age_ms: Option<u64>,
    remaining_ms: Option<u64>,
    ttl_ms: Option<u64>,
}

impl<'a> Holder<'a> {
    pub(crate) fn of(info: &'a LockInfo) -> Self {
        Self {
            foreign: info.is_foreign(),
            kept: info.ended_at().is_some(),
            owner: info.owner_id(),
            token: info.fencing_token(),
            app: info.application(),
            name: info.name(),
            function: info.function(),
            instance: info.instance_id(),
            host: info.host(),
            pid: info.pid(),
            acquired_at: info.acquired_at().map(date_ms),
            held_ms: info.held_for().map(millis),
            heartbeat_age_ms: info.heartbeat_age().map(millis),
            remaining_ms: info.remaining().map(millis),
            ttl_ms: info.ttl().map(millis),
        }
    }
}

/// A run.
#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
    owner: &'a str,
    token: u64,
    instance: &'a str,
    host: &'a str,
    pid: Option<u32>,
    from: String,
    until: Option<String>,
    /// How it ended, in words: `released`, `expired`…; `still held`.
    ending: String,
}

impl<'a> Run<'a> {
    pub(crate) fn of(run: &'a LastHolding) -> Self {
        Self {
            owner: &run.owner_id,
            token: run.fencing_token,
            instance: &run.instance_id,
            host: &run.host,
            pid: run.pid,
            from: date_ms(run.from),
            until: run.until.map(date_ms),
            ending: run.ending.to_string(),
        }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// A time for programs.
fn date_ms(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// A time for people.
pub(crate) fn date(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A length for people, of two units at the most: `3d 4h`, `2m 5s`, `1.2s`.
pub(crate) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds < 10 {
        return format!("{:.1}s", length.as_secs_f64());
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if parts.len() == 2 {
            break;
        }
        let count = left / unit;
        left %= unit;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.join(" ")
}

/// How long ago that was by this machine's clock; a time to come is no time ago.
pub(crate) fn ago(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

/// A run in one line.
pub(crate) fn run(run: &LastHolding) -> String {
    let mut line = format!("{} on {}", date(run.from), shown_text(&run.host));
    if let Some(pid) = run.pid {
        line.push_str(&format!(" (pid {pid})"));
    }
    match run.until {
        Some(until) => {
            let took = until.duration_since(run.from).unwrap_or_default();
            line.push_str(&format!(", for {}: {}", length(took), run.ending));
        }
        None => line.push_str(&format!(": {}", run.ending)),
    }
    line
}

/// Whether it is a date at all: stores answer 1970 where they know none.
pub(crate) fn is_date(at: SystemTime) -> bool {
    at > UNIX_EPOCH
}

/// One line of JSON.
pub(crate) fn json(answer: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(answer)
        .map_err(|error| Failure::new(exit::FAILED, format!("no JSON: {error}")))?;
    Ok(text + "\n")
}

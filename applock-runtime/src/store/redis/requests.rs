//! What each request is as the call of a script: its keys and its arguments.

use std::sync::LazyLock;
use std::time::Duration;

use crate::key::{Key, Side};
use crate::store::{Acquire, Release, Renew};

use super::script::{Script, ScriptCall};

/// How long the fence (token counter and last holding) outlives its last use.
pub(super) const FENCE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

macro_rules! script {
    ($($file:literal),+) => {
        LazyLock::new(|| {
            Script::new(concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+))
        })
    };
}

static ACQUIRE: LazyLock<Script> = script!("queue", "acquire");
static RENEW: LazyLock<Script> = script!("renew");
static RELEASE: LazyLock<Script> = script!("queue", "release");
static INSPECT: LazyLock<Script> = script!("inspect");
static FORCE_RELEASE: LazyLock<Script> = script!("queue", "force_release");

/// Takes locks for one process. `run` is the server where it listens on `channel`, if it does.
pub(crate) fn acquire(requests: &[Acquire], channel: &str, run: Option<&str>) -> ScriptCall {
    let mut call = ScriptCall::new(&ACQUIRE, requests.len() * 4, 6 + requests.len() * 5);
    for request in requests {
        call.sides(&request.key);
    }
    call.millis(FENCE_LIFE)
        .text(channel)
        .text(run.unwrap_or("0"));
    if let Some(first) = requests.first() {
        call.text(&first.identity.instance)
            .text(&first.identity.host)
            .number(u64::from(first.identity.pid));
    }
    for request in requests {
        call.owner(request.owner)
            .millis(request.ttl)
            .text(request.key.app().unwrap_or_default())
            .text(request.key.name().unwrap_or_default());
        match &request.line {
            None => call.text(""),
            Some(_) => call.number(request.ticket.unwrap_or(0)),
        };
    }
    call
}

/// Sends heartbeats.
pub(crate) fn renew(beats: &[Renew]) -> ScriptCall {
    let mut call = ScriptCall::new(&RENEW, beats.len() * 2, 1 + beats.len() * 2);
    for beat in beats {
        call.lock(&beat.key).side(&beat.key, Side::Fence);
    }
    call.millis(FENCE_LIFE);
    for beat in beats {
        call.owner(beat.owner).millis(beat.ttl);
    }
    call
}

/// Gives locks back, for the process of that channel.
pub(crate) fn release(ends: &[Release], channel: &str) -> ScriptCall {
    let mut call = ScriptCall::new(&RELEASE, ends.len() * 4, 2 + ends.len() * 2);
    for end in ends {
        call.sides(&end.key);
    }
    call.millis(FENCE_LIFE).text(channel);
    for end in ends {
        call.owner(end.owner)
            .millis(end.keep.unwrap_or(Duration::ZERO));
    }
    call
}

/// Reads a lock.
pub(crate) fn inspect(key: &Key) -> ScriptCall {
    let mut call = ScriptCall::new(&INSPECT, 3, 0);
    call.lock(key).side(key, Side::Fence).side(key, Side::Queue);
    call
}

/// Ends whatever holding there is, or only a stale one.
pub(crate) fn force_release(key: &Key, stale: Option<Duration>) -> ScriptCall {
    let mut call = ScriptCall::new(&FORCE_RELEASE, 4, 2);
    call.sides(key);
    match stale {
        None => call.text("-1"),
        Some(stale) => call.millis(stale),
    };
    call.millis(FENCE_LIFE);
    call
}

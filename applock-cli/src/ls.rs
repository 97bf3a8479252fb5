//! `applock ls`: who holds what.

use applock_runtime::__private::shown_text;
use applock_runtime::LockInfo;

use crate::args::{LsArgs, StoreArgs};
use crate::exit::{self, Failure};
use crate::view::{Paint, Tone, length, table};
use crate::{input, output, view};

pub(crate) fn ls(args: &LsArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let locker = input::locker(store)?;
    let locks = locker.locks_blocking(&args.pattern)?;
    if args.json {
        output::print(view::json(&locks)?)?;
        return Ok(exit::OK);
    }
    if locks.is_empty() {
        // Not on standard output: there `wc -l` counts locks.
        output::say("no lock is held");
        return Ok(exit::OK);
    }
    let heading = [
        "KEY",
        "HOLDER",
        "SINCE",
        "HELD",
        "HEARTBEAT",
        "LEFT",
        "WAITING",
    ];
    let mut rows = vec![
        heading
            .iter()
            .map(|title| (Tone::Heading, (*title).to_owned()))
            .collect(),
    ];
    rows.extend(locks.iter().map(row));
    output::print(table(&rows, Paint::of_stdout()))?;
    Ok(exit::OK)
}

fn row(info: &LockInfo) -> Vec<(Tone, String)> {
    let plain = |text: Option<String>| (Tone::Plain, text.unwrap_or_else(|| "-".to_owned()));
    let beat = match (info.heartbeat_age(), info.ended_at()) {
        (_, Some(_)) => (Tone::Plain, "kept".to_owned()),
        (Some(age), None) if is_silent(info) => (Tone::Bad, format!("{} ago", length(age))),
        (Some(age), None) => (Tone::Plain, format!("{} ago", length(age))),
        (None, None) => plain(None),
    };
    vec![
        (Tone::Plain, shown_text(info.key())),
        (Tone::Plain, holder(info)),
        plain(info.acquired_at().map(view::date)),
        plain(info.held_for().map(length)),
        beat,
        plain(info.remaining().map(length)),
        plain(info.waiters().map(|count| count.to_string())),
    ]
}

/// The holder in few words.
pub(crate) fn holder(info: &LockInfo) -> String {
    let host = if info.host().is_empty() {
        "another program".to_owned()
    } else {
        shown_text(info.host())
    };
    let mut words = vec![host];
    if let Some(pid) = info.pid() {
        words.push(format!("pid {pid}"));
    }
    // An id that was drawn says nothing to a person.
    let is_drawn = info.instance_id().len() == 32
        && info
            .instance_id()
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit());
    if !info.instance_id().is_empty() && !is_drawn {
        words.push(shown_text(info.instance_id()));
    }
    if let Some(function) = info.function() {
        words.push(shown_text(function));
    }
    words.join(" ")
}

/// No heartbeat for half of the lease: a heart beats every third.
pub(crate) fn is_silent(info: &LockInfo) -> bool {
    let times = info.heartbeat_age().zip(info.ttl());
    info.ended_at().is_none() && times.is_some_and(|(age, ttl)| age > ttl / 2)
}

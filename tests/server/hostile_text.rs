//! Promise: whatever bytes stand in a lock, its fence, its queue and its key, an error, a line of
//! the log and a span show them on one line, short, and without control characters.

use std::error::Error as _;
use std::time::Duration;

use crate::support::log;
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, Lock};

/// The longest that a person is asked to read.
const MOST: usize = 2_000;

/// The `Debug` of all that we have.
const MOST_OF_ALL: usize = 5_000;

#[track_caller]
fn is_tame(text: &str, most: usize) {
    let wild = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{feff}');
    let beginning: String = text.chars().take(300).collect();
    assert!(!text.chars().any(wild), "{beginning:?}");
    assert!(text.chars().count() <= most, "{}: {beginning}", text.len());
}

#[track_caller]
fn is_told_tamely(error: &Error) {
    is_tame(&error.to_string(), MOST);
    is_tame(&format!("{error:?}"), MOST_OF_ALL);
    let mut source = error.source();
    while let Some(inner) = source {
        is_tame(&inner.to_string(), MOST);
        source = inner.source();
    }
}

/// Everything that an instance can ask of the lock.
fn ask(lock: &Lock) {
    let stale = Duration::from_secs(1);
    for outcome in [
        lock.acquire_blocking().map(drop),
        lock.try_acquire_blocking().map(drop),
        lock.clone()
            .wait(Duration::from_millis(20))
            .acquire_blocking()
            .map(drop),
        lock.force_release_if_stale_blocking(stale).map(drop),
    ] {
        outcome.err().iter().for_each(is_told_tamely);
    }
    match lock.info_blocking() {
        Ok(Some(info)) => {
            is_tame(&info.to_string(), MOST);
            is_tame(&format!("{info:?}"), MOST_OF_ALL);
        }
        Ok(None) => (),
        Err(error) => is_told_tamely(&error),
    }
    match lock.last_holding_blocking() {
        Ok(Some(last)) => {
            is_tame(&last.to_string(), MOST);
            is_tame(&format!("{last:?}"), MOST_OF_ALL);
        }
        Ok(None) => (),
        Err(error) => is_told_tamely(&error),
    }
}

/// What a text may do to a reader.
fn hostile(random: &mut fastrand::Rng) -> String {
    let forged = "\r\n2026-01-01T00:00:00Z ERROR forged\n";
    match random.u8(..6) {
        0 => format!("host{forged}"),
        1 => "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{202e}\u{2028}".to_owned(),
        2 => "m".repeat(1 << 20),
        3 => forged.repeat(30_000),
        4 => String::new(),
        _ => std::iter::repeat_with(|| random.char(..))
            .take(500)
            .collect(),
    }
}

/// A text of this layout, with hostile fields; now and then with rubbish inside, or nothing else.
fn text(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = serde_json::json!({
        "owner": "0".repeat(32), "token": 7, "acquired_at": 1_000, "remember": 60_000,
        "app": hostile(random), "name": hostile(random), "instance": hostile(random),
        "host": hostile(random), "pid": 1, "ttl": 60_000,
    });
    let states = [
        "held",
        "claimed",
        "kept",
        "released",
        "forced",
        "of-tomorrow",
    ];
    let state = states[random.usize(..states.len())];
    if random.u8(..4) == 0 {
        text["token"] = hostile(random).into();
    }
    let fields = text.as_object().unwrap();
    let order = [
        "owner",
        "ttl",
        "remember",
        "app",
        "name",
        "instance",
        "host",
        "pid",
        "token",
        "acquired_at",
    ];
    let written = order.map(|name| format!("\"{name}\":{}", fields[name]));
    let mut bytes = format!(
        "{{\"applock\":1,\"state\":\"{state}\",{}}}",
        written.join(",")
    )
    .into_bytes();
    match random.u8(..8) {
        0 => bytes = hostile(random).into_bytes(),
        1 => {
            bytes = std::iter::repeat_with(|| random.u8(..))
                .take(1_000)
                .collect()
        }
        2 => {
            let at = random.usize(..bytes.len().min(200));
            bytes[at] = random.u8(..);
        }
        _ => (),
    }
    bytes
}

fn set(server: &RedisServer, words: &[&[u8]]) {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    let mut connection = server.connect().unwrap();
    command.query::<redis::Value>(&mut connection).unwrap();
}

#[test]
fn no_message_shows_hostile_bytes_from_the_store_as_they_are() {
    log::keep();
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    for seed in 0..10 {
        let random = &mut fastrand::Rng::with_seed(seed);
        let lock = locker.lock("job").ttl(Duration::from_secs(60));
        if random.bool() {
            set(&server, &[b"SET", b"QUEUE:job", &text(random)]);
        }
        if random.bool() {
            set(&server, &[b"SET", b"{QUEUE:job}:fence", &text(random)]);
        }
        if random.bool() {
            let member = text(random);
            set(&server, &[b"ZADD", b"{QUEUE:job}:queue", b"1", &member]);
            set(
                &server,
                &[b"HSET", b"{QUEUE:job}:waiters", &member, &text(random)],
            );
        }
        ask(&lock);
        // The log says whom it was taken from.
        let forced = lock.force_release_blocking();
        forced.err().iter().for_each(is_told_tamely);
        // The lock of a holder is replaced.
        set(&server, &[b"FLUSHALL"]);
        let guard = lock.acquire_blocking().unwrap();
        set(&server, &[b"SET", b"QUEUE:job", &text(random)]);
        guard
            .release_blocking()
            .err()
            .iter()
            .for_each(is_told_tamely);
        set(&server, &[b"FLUSHALL"]);
    }
    for (_, line) in log::lines(&[]) {
        is_tame(&line, MOST_OF_ALL);
    }
}

/// A user or a guest chooses what a key is made of.
#[test]
fn a_hostile_key_is_shown_on_one_line_in_errors_the_log_and_spans() {
    log::keep();
    let mut server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let key = format!("hostile\n\u{1b}[31m\u{202e}{}", "k".repeat(60_000));
    let lock = locker.lock("job").key(&*key).ttl(Duration::from_secs(1));
    let ran = pollster::block_on(lock.run(async { ask(&locker.lock("job").key(&*key)) }));
    ran.unwrap();
    let guard = lock.acquire_blocking().unwrap();
    assert_eq!(guard.info().key(), key);
    assert!(lock.force_release_blocking().unwrap());
    guard.lost_blocking();
    is_told_tamely(&guard.ensure_held().unwrap_err());
    is_told_tamely(&guard.release_blocking().unwrap_err());
    let guard = lock.acquire_blocking().unwrap();
    server.kill();
    guard.lost_blocking();
    is_told_tamely(&guard.release_blocking().unwrap_err());
    is_told_tamely(&lock.acquire_blocking().unwrap_err());
    locker.shutdown_blocking(Duration::from_millis(100)).ok();
    is_told_tamely(&lock.acquire_blocking().unwrap_err());
    assert!(!log::lines(&["hostile"]).is_empty());
    assert!(!log::spans(&["hostile"]).is_empty());
    let lines = log::lines(&[]).into_iter().map(|(_, line)| line);
    for line in lines.chain(log::spans(&[])) {
        is_tame(&line, MOST_OF_ALL);
    }
}

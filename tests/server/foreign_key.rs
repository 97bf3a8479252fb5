//! Promise: a key that another program made, of whatever type, is busy ('held by someone
//! else'), and never changed; a fence that can't be read is reported, and no lock is taken
//! (F19).

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::support::lease::LIMIT;
use crate::support::redis::{RedisServer, fence_text};
use crate::support::refusal::{assert_misconfigured, assert_says, is_taken, refusal};
use applock::{AppLocker, Error};

#[test]
fn a_key_of_another_type_is_busy_held_by_someone_else_and_never_changed() {
    for make in [
        "SET QUEUE:job another-program PX 600000",
        "RPUSH QUEUE:job one two",
        "SADD QUEUE:job one",
        "ZADD QUEUE:job 1 one",
        "XADD QUEUE:job * field value",
        "HSET QUEUE:job field value",
        // A lock in the layout of another version.
        "SET QUEUE:job {\"applock\":2,\"owner\":\"x\",\"token\":7} PX 600000",
    ] {
        let server = RedisServer::start();
        let () = server.run(make);
        let dump: Vec<u8> = server.run("DUMP QUEUE:job");
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let error = refusal(&locker);
        let holder = error.holder().unwrap_or_else(|| panic!("{make}: {error}"));
        assert!(holder.is_foreign(), "{make}: {error}");
        assert_says(&error, &["QUEUE:job", "held by someone else"]);
        assert_eq!(holder.remaining().is_some(), make.contains("PX"), "{make}");
        let info = locker.lock("job").info_blocking().unwrap().unwrap();
        assert!(info.is_foreign());
        assert!(locker.lock("job").try_acquire_blocking().unwrap().is_none());
        assert_eq!(server.run::<Vec<u8>>("DUMP QUEUE:job"), dump, "{make}");
        // Once the other program has deleted it, it is ours.
        let lock = locker.lock("job").wait(LIMIT);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lock.acquire_blocking());
            let () = server.run("DEL QUEUE:job");
            assert!(waiting.join().unwrap().unwrap().is_held());
        });
    }
}

/// What another program may have at the key: its name, the script that puts it there, and how large
/// it is then.
const FOREIGN: [(&str, &str, &str); 8] = [
    (
        "a large hash",
        "for i = 1, 300000 do redis.call('HSET', KEYS[1], i, i) end",
        "HLEN",
    ),
    (
        "a hash like a lock",
        "redis.call('HSET', KEYS[1], 'owner', 'me')",
        "HLEN",
    ),
    (
        "a list",
        "for i = 1, 100000 do redis.call('RPUSH', KEYS[1], i) end",
        "LLEN",
    ),
    (
        "a set",
        "for i = 1, 100000 do redis.call('SADD', KEYS[1], i) end",
        "SCARD",
    ),
    (
        "a sorted set",
        "for i = 1, 100000 do redis.call('ZADD', KEYS[1], i, i) end",
        "ZCARD",
    ),
    (
        "a stream",
        "for i = 1, 30000 do redis.call('XADD', KEYS[1], '*', 'a', i) end",
        "XLEN",
    ),
    (
        "an empty string",
        "redis.call('SET', KEYS[1], '')",
        "STRLEN",
    ),
    (
        "a large string",
        "redis.call('SET', KEYS[1], string.rep('x', 20000000))",
        "STRLEN",
    ),
];

// F19
#[test]
fn whatever_another_program_has_there_no_step_changes_it_fetches_it_or_takes_long() {
    for (what, script, length) in FOREIGN {
        let server = RedisServer::start();
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        let lock = locker.lock("job").ttl(Duration::from_secs(60));
        // A large one takes the server its time to make: that is none of ours.
        let making = Cell::new(Duration::ZERO);
        let make = || {
            let begun = Instant::now();
            let () = server.run("DEL QUEUE:job");
            let words = ["EVAL", script, "1", "QUEUE:job"];
            server.try_run::<redis::Value>(&words).unwrap();
            making.set(making.get() + begun.elapsed());
            (server.run::<i64>(&format!("{length} QUEUE:job")), -1)
        };
        let found = || {
            let size = server.run::<i64>(&format!("{length} QUEUE:job"));
            (size, server.run::<i64>("PTTL QUEUE:job"))
        };
        let there = make();
        let before = server.info("total_net_output_bytes");
        let begun = Instant::now();
        making.set(Duration::ZERO);
        let asked = |error: Error| {
            let holder = error.holder().unwrap_or_else(|| panic!("{what}: {error}"));
            assert!(holder.is_foreign(), "{what}: {error}");
        };
        asked(lock.acquire_blocking().unwrap_err());
        assert!(lock.try_acquire_blocking().unwrap().is_none(), "{what}");
        let waiting = lock.clone().wait(Duration::from_millis(100));
        asked(waiting.acquire_blocking().unwrap_err());
        assert!(
            lock.info_blocking().unwrap().unwrap().is_foreign(),
            "{what}"
        );
        assert_eq!(lock.last_holding_blocking().unwrap(), None, "{what}");
        for stale in [Duration::ZERO, Duration::from_secs(3600)] {
            let forced = lock.force_release_if_stale_blocking(stale).unwrap();
            assert!(!forced, "{what}");
        }
        assert_eq!(found(), there, "{what}");
        // In place of a lock that was held.
        let () = server.run("DEL QUEUE:job");
        let guard = lock.acquire_blocking().unwrap();
        assert_eq!(make(), there);
        assert!(!guard.verify_blocking().unwrap(), "{what}");
        assert!(
            matches!(guard.release_blocking(), Err(Error::Lost { .. })),
            "{what}"
        );
        let () = server.run("DEL QUEUE:job");
        let guard = lock.acquire_blocking().unwrap();
        assert_eq!(make(), there);
        let released = guard.release_blocking();
        assert!(
            matches!(released, Err(Error::NotHeld { .. })),
            "{what}: {released:?}"
        );
        assert_eq!(found(), there, "{what}");
        let sent = server.info("total_net_output_bytes") - before;
        assert!(sent < 200_000, "{what}: {sent} bytes");
        // Of twelve steps: no single one may take its time-out of a second.
        let took = begun.elapsed().saturating_sub(making.get());
        assert!(took < Duration::from_secs(8), "{what}: {took:?}");
        // The hammer frees a string, and nothing else.
        match lock.force_release_blocking() {
            Ok(forced) => assert!(forced && length == "STRLEN", "{what}"),
            Err(error) => {
                assert_misconfigured(&error, &["QUEUE:job", "left alone"]);
                assert_eq!(found(), there, "{what}");
            }
        }
    }
}

/// A hundred megabytes cost the server half a second for each look if a script reads them.
/// What can fail comes first (R3): a waiter that is refused for it leaves nothing.
#[test]
fn a_waiter_whose_record_can_not_be_written_does_not_stand_in_the_queue() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let _held = locker.lock("job").acquire_blocking().unwrap();
    let () = server.run("SET {QUEUE:job}:waiters another-program");
    let waiting = locker.lock("job").wait(Duration::from_secs(10));
    for _ in 0..3 {
        let error = waiting.acquire_blocking().unwrap_err();
        assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    }
    assert!(!server.run::<bool>("EXISTS {QUEUE:job}:queue"));
}

#[test]
fn a_large_string_is_not_read_as_a_whole_for_a_look() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let make = "redis.call('SET', KEYS[1], string.rep('x', 50000000))";
    let by_the_scripts = |what: &str, asked: &dyn Fn()| {
        let before = server.info("used_memory_lua");
        asked();
        let more = server.info("used_memory_lua").saturating_sub(before);
        assert!(more < 5_000_000, "{what}: {more} bytes");
    };
    let lock = locker.lock("job").wait(Duration::from_millis(100));
    for key in ["QUEUE:job", "{QUEUE:job}:fence"] {
        let words = ["EVAL", make, "1", key];
        server.try_run::<redis::Value>(&words).unwrap();
        let () = server.run("EVAL collectgarbage() 0");
        by_the_scripts(key, &|| drop(lock.info_blocking()));
        by_the_scripts(key, &|| drop(lock.acquire_blocking()));
        by_the_scripts(key, &|| {
            drop(lock.force_release_if_stale_blocking(Duration::ZERO))
        });
        let () = server.run(&format!("DEL {key}"));
    }
}

#[test]
fn a_holder_whose_key_another_program_has_taken_over_is_lost_and_leaves_it_alone() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("job").acquire_blocking().unwrap();
    let () = server.run("SET QUEUE:job another-program");
    assert!(!guard.verify_blocking().unwrap());
    assert!(matches!(guard.release_blocking(), Err(Error::Lost { .. })));
    let guard = locker.lock("other").acquire_blocking().unwrap();
    let () = server.run("SET QUEUE:other another-program");
    assert!(matches!(
        guard.release_blocking(),
        Err(Error::NotHeld { .. })
    ));
    for key in ["QUEUE:job", "QUEUE:other"] {
        assert_eq!(
            server.run::<String>(&format!("GET {key}")),
            "another-program"
        );
        assert_eq!(server.run::<i64>(&format!("PTTL {key}")), -1);
    }
}

#[test]
fn a_foreign_lock_is_never_stale_and_only_the_hammer_frees_it() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("foreign");
    let () = server.run("SET QUEUE:foreign another-program PX 600000");
    assert!(
        !lock
            .force_release_if_stale_blocking(Duration::ZERO)
            .unwrap()
    );
    assert_eq!(server.run::<String>("GET QUEUE:foreign"), "another-program");
    assert!(lock.force_release_blocking().unwrap());
    assert!(!server.run::<bool>("EXISTS QUEUE:foreign"));
    // What is no lock at all is left alone even then.
    let () = server.run("RPUSH QUEUE:foreign one");
    let error = lock.force_release_blocking().unwrap_err();
    assert_misconfigured(&error, &["list"]);
    assert_eq!(server.run::<i64>("LLEN QUEUE:foreign"), 1);
}

#[test]
fn a_fence_of_another_type_or_unreadable_is_misconfigured_and_no_lock_is_taken() {
    for make in [
        "SET {QUEUE:job}:fence 7".to_owned(),
        "RPUSH {QUEUE:job}:fence one".to_owned(),
        "HSET {QUEUE:job}:fence token 7".to_owned(),
        format!("SET {{QUEUE:job}}:fence {}", fence_text("\"rubbish\"")),
        format!("SET {{QUEUE:job}}:fence {}", fence_text("-5")),
        format!(
            "SET {{QUEUE:job}}:fence {}",
            fence_text("99999999999999999999")
        ),
        // Of another version of the layout.
        "SET {QUEUE:job}:fence {\"applock\":2,\"token\":7}".to_owned(),
    ] {
        let server = RedisServer::start();
        let () = server.run(&make);
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        assert_misconfigured(&refusal(&locker), &["QUEUE:job", "fenc"]);
        assert!(!is_taken(&server), "{make}");
        let () = server.run("DEL {QUEUE:job}:fence");
        assert!(locker.lock("job").acquire_blocking().unwrap().is_held());
    }
}

/// What the Python AppLocker writes: its lock is a plain string, and beside it stands who holds it.
const PYTHON: &str = r#"{"acquired_at": 1700000000.25, "owner": "job-1f2e", "application": "job", "host": "web-1-42"}"#;

/// Makes the Python AppLocker's two keys, for a minute.
fn python_holds(server: &RedisServer, info: &str) {
    for (key, text) in [("QUEUE:job", "6f1c"), ("QUEUE:job:INFO", info)] {
        let words = ["SET", key, text, "EX", "60"];
        assert_eq!(server.try_run::<String>(&words).unwrap(), "OK");
    }
}

#[test]
fn a_python_holder_is_named_by_what_it_says_of_itself() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("job");
    python_holds(&server, PYTHON);
    let waiting = lock.clone().wait(Duration::from_millis(50));
    for lock in [&lock, &waiting] {
        let error = lock.acquire_blocking().unwrap_err();
        assert_says(
            &error,
            &[
                "it says that it is job-1f2e on web-1 (pid 42), since 2023-11-14T22:13:20Z",
                "it expires in",
            ],
        );
    }
    let info = lock.info_blocking().unwrap().unwrap();
    assert!(info.is_foreign());
    assert_eq!((info.instance_id(), info.host()), ("job-1f2e", "web-1"));
    assert_eq!(info.pid(), Some(42));
    let at = Duration::from_millis(1_700_000_000_250);
    assert_eq!(info.acquired_at(), Some(std::time::UNIX_EPOCH + at));
    // One that says nothing of the kind, or too much, is busy all the same.
    let long = format!(
        r#"{{"owner": "{}", "acquired_at": 1}}"#,
        "x".repeat(1_000_000)
    );
    for said in ["", "{}", "another-program", &long] {
        python_holds(&server, said);
        let before = server.info("total_net_output_bytes");
        let error = lock.acquire_blocking().unwrap_err();
        let holder = error.holder().unwrap();
        assert!(holder.is_foreign() && holder.instance_id().is_empty());
        assert!(server.info("total_net_output_bytes") - before < 50_000);
    }
    let () = server.run("DEL QUEUE:job:INFO");
    let () = server.run("RPUSH QUEUE:job:INFO one");
    assert!(lock.acquire_blocking().unwrap_err().holder().is_some());
}

#[test]
fn a_python_holder_that_is_ended_by_force_leaves_nothing_by_which_it_believes_that_it_holds() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("job");
    python_holds(&server, PYTHON);
    assert!(lock.force_release_blocking().unwrap());
    assert_eq!(server.run::<i64>("EXISTS QUEUE:job QUEUE:job:INFO"), 0);
    // What Python did not write is left alone: another program's, and a lock of ours of that name.
    python_holds(&server, "another-program");
    assert!(lock.force_release_blocking().unwrap());
    assert_eq!(
        server.run::<String>("GET QUEUE:job:INFO"),
        "another-program"
    );
    let () = server.run("DEL QUEUE:job:INFO");
    let guard = locker.lock("job").name("INFO").acquire_blocking().unwrap();
    assert_eq!(guard.info().key(), "QUEUE:job:INFO");
    let () = server.run("SET QUEUE:job another-program");
    assert!(lock.force_release_blocking().unwrap());
    assert!(!server.run::<bool>("EXISTS QUEUE:job"));
    assert!(guard.verify_blocking().unwrap());
    // Nor is it touched where the lock that ends is one of ours.
    drop(guard);
    let guard = lock.acquire_blocking().unwrap();
    let words = ["SET", "QUEUE:job:INFO", PYTHON];
    assert_eq!(server.try_run::<String>(&words).unwrap(), "OK");
    assert!(lock.force_release_blocking().unwrap());
    assert_eq!(server.run::<String>("GET QUEUE:job:INFO"), PYTHON);
    drop(guard);
}

/// 'No run is remembered' would be an alarm at night, or the lack of one.
#[test]
fn what_was_remembered_and_cannot_be_read_is_no_run_that_was_not() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("job");
    let fence = "{QUEUE:job}:fence";
    for (words, part) in [
        (
            vec!["SET", fence, r#"{"applock":2,"state":"held"}"#],
            "its fence is of version 2 of the layout",
        ),
        (vec!["SET", fence, "hello"], r#"its fence holds "hello""#),
        (vec!["SET", fence, "\nhello"], r#"its fence holds """#),
        (vec!["RPUSH", fence, "x"], r#"its fence holds "(a list)""#),
    ] {
        let _: redis::Value = server.try_run(&words).unwrap();
        for asked in [lock.last_holding_blocking(), lock.last_success_blocking()] {
            let error = asked.unwrap_err();
            assert!(matches!(error, Error::Misconfigured(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains(part) && text.contains("QUEUE:job"), "{text}");
        }
        // Who holds it is known, and in the list.
        assert_eq!(lock.info_blocking().unwrap(), None);
        let () = server.run(&format!("DEL {fence}"));
        assert_eq!(lock.last_holding_blocking().unwrap(), None);
    }
}

//! Promise: a key that another program made, of whatever type, is busy ('held by someone
//! else'), and never changed; a fence that can't be read is reported, and no lock is taken
//! (F19).

use std::time::Duration;

use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
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
        "SET {QUEUE:job}:fence 7",
        "RPUSH {QUEUE:job}:fence one",
        "HSET {QUEUE:job}:fence token rubbish",
        "HSET {QUEUE:job}:fence token -5",
        "HSET {QUEUE:job}:fence token 99999999999999999999",
    ] {
        let server = RedisServer::start();
        let () = server.run(make);
        let locker = AppLocker::connect_blocking(server.url()).unwrap();
        assert_misconfigured(&refusal(&locker), &["QUEUE:job", "fenc"]);
        assert!(!is_taken(&server), "{make}");
        let () = server.run("DEL {QUEUE:job}:fence");
        assert!(locker.lock("job").acquire_blocking().unwrap().is_held());
    }
}

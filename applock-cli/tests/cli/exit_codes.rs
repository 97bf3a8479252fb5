//! The table of exit codes.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{RedisServer, Running, applock, code, err, out, output, run};

#[test]
fn the_exit_code_says_what_happened() {
    let server = RedisServer::start();
    let url = server.url();
    for (script, expected) in [
        ("true", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        assert_eq!(code(&mut run(&url, "", script)), Some(expected), "{script}");
    }
    for (command, expected) in [
        ("/etc/passwd", 126),
        ("/etc", 126),
        ("no-such", 127),
        ("/no/such", 127),
    ] {
        let mut applock = applock(&url, &format!("run --app jobs -- {command}"));
        assert_eq!(code(&mut applock), Some(expected), "{command}");
    }
    // Its children are reaped by nobody but the keeper, whatever was ignored where it was started.
    // A dash would ignore nothing.
    let mut ignoring = Command::new("bash");
    let line = format!(
        "trap '' CHLD; exec {} run --app jobs -- sh -c 'exit 3'",
        env!("CARGO_BIN_EXE_applock")
    );
    ignoring.args(["-c", &line]).env("APPLOCK_URL", &url);
    assert_eq!(Running::start(&mut ignoring).ends(), Some(3));
    // No mistake of these was a run.
    server.run::<()>("FLUSHALL");
    assert_eq!(
        code(&mut applock(&url, "run --app jobs -- no-such")),
        Some(127)
    );
    assert_eq!(server.run::<i64>("DBSIZE"), 0);
}

#[test]
fn busy_is_75_or_what_the_caller_says_and_names_the_holder() {
    let server = RedisServer::start();
    let url = server.url();
    let mut holder = Running::start(&mut run(&url, "", "echo here; sleep 1000"));
    holder.says();

    let refused = output(&mut run(&url, "", "echo ran"));
    assert_eq!(refused.status.code(), Some(75));
    assert_eq!(out(&refused), "");
    let line = err(&refused);
    assert!(
        line.starts_with("applock: busy: ") && line.lines().count() == 1,
        "{line}"
    );
    let pid = holder.pid().as_raw_nonzero().to_string();
    assert!(
        line.contains(&pid) && line.contains("instance sh"),
        "{line}"
    );

    for (arguments, expected) in [
        ("--quiet", 75),
        ("-E 9 --quiet", 9),
        ("--busy-code 0 --quiet", 0),
        ("--ok-if-busy", 0),
        ("--wait 100ms --quiet", 75),
    ] {
        let refused = output(&mut run(&url, arguments, "echo ran"));
        assert_eq!(refused.status.code(), Some(expected), "{arguments}");
        assert_eq!(
            (out(&refused), err(&refused)),
            (String::new(), String::new())
        );
    }
}

#[test]
fn a_store_that_is_not_there_is_69_and_one_that_refuses_us_77() {
    let server = RedisServer::with(&["--requirepass", "right"]);
    let port = server.port();
    for (url, expected, word) in [
        ("redis://127.0.0.1:1".to_owned(), 69, "unavailable"),
        (format!("redis://:wrong@127.0.0.1:{port}"), 77, "denied"),
        (format!("redis://127.0.0.1:{port}"), 77, "denied"),
    ] {
        for command in [
            "run --app jobs -- echo ran",
            "info --app jobs",
            "wait --app jobs",
            "release --app jobs --stale 30s",
        ] {
            let refused = output(&mut applock(&url, command));
            assert_eq!(refused.status.code(), Some(expected), "{command}");
            let line = err(&refused);
            assert!(line.starts_with(&format!("applock: {word}: ")), "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(!line.contains("wrong@") && out(&refused).is_empty());
        }
        let unknown = output(&mut applock(&url, "check --app jobs --max-age 1h"));
        assert_eq!(unknown.status.code(), Some(3));
        assert!(out(&unknown).starts_with(&format!("UNKNOWN - {word}: ")));
    }
}

#[test]
fn who_lacks_a_right_learns_from_whom_to_hear_which() {
    let server = RedisServer::start();
    let rights = "ACL SETUSER poor on >secret ~* &* +@all -del";
    assert_eq!(server.run::<String>(rights), "OK");
    let mut holder = Running::start(&mut run(&server.url(), "", "echo here; sleep 1000"));
    holder.says();
    let url = format!("redis://poor:secret@127.0.0.1:{}", server.port());
    let release = "release --app jobs --force --reason test";
    let refused = output(&mut applock(&url, release));
    assert_eq!(refused.status.code(), Some(77));
    let line = err(&refused);
    assert!(line.ends_with("; `applock doctor` says which\n"), "{line}");
    assert!(!line.contains("secret"), "{line}");
    let findings = out(&output(&mut applock(&url, "doctor")));
    assert!(findings.contains("+del is missing"), "{findings}");
}

#[test]
fn a_lease_that_is_lost_is_76_whatever_the_command_says() {
    let server = RedisServer::start();
    let script = "trap 'echo told; exit 0' TERM; echo here; while :; do sleep 0.02; done";
    let mut running = Running::start(&mut run(&server.url(), "--ttl 1s", script));
    assert_eq!(running.says(), "here");
    assert_eq!(
        code(&mut applock(
            &server.url(),
            "release --app jobs --force --reason test"
        )),
        Some(0)
    );
    assert_eq!(running.says(), "told");
    assert_eq!(running.ends(), Some(76));
    let told = running.complaints();
    assert!(told.contains("applock: lost: "), "{told}");
}

#[test]
fn a_lock_that_was_taken_from_a_command_just_before_its_end_is_told_and_no_way_out_is_made_up() {
    let server = RedisServer::start();
    let script = "echo here; read line";
    let mut command = run(&server.url(), "--ttl 10m", script);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    running.says();
    server.run::<()>("DEL QUEUE:jobs");
    running.hang_up();
    // What the command says counts: it did not hear of it.
    assert_eq!(running.ends(), Some(1));
    let told = running.complaints();
    assert!(
        told.contains("applock: not held: ") && !told.contains("its ttl frees"),
        "{told}"
    );
}

#[test]
fn a_command_that_takes_longer_than_at_most_is_ended() {
    let server = RedisServer::start();
    let mut running = Running::start(&mut run(
        &server.url(),
        "--at-most 500ms",
        "echo here; sleep 1000",
    ));
    running.says();
    assert_eq!(running.ends(), Some(76));
    assert!(running.complaints().contains("at_most"));
    // The next one may come.
    let next = format!("--wait {}s", Duration::from_secs(30).as_secs());
    assert_eq!(code(&mut run(&server.url(), &next, "true")), Some(0));
}

//! What a command under the lock has, and that it is alone.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{
    LONGEST, RedisServer, Running, applock, children, code, err, group, out, output, pid, run, wait,
};

#[test]
fn the_command_has_its_token_its_key_and_its_owner_id() {
    let server = RedisServer::start();
    let script = "echo $APPLOCK_TOKEN $APPLOCK_KEY $APPLOCK_OWNER";
    let mut last = 0;
    for _ in 0..3 {
        let said = out(&output(&mut run(&server.url(), "--name 'a{b}", script)));
        let words: Vec<&str> = said.split_whitespace().collect();
        // Its first line is the newest run.
        let fence: String = server.run("GET {QUEUE:jobs:'a%7Bb%7D}:fence");
        let newest = fence.lines().next().expect("a line");
        let fence: serde_json::Value = serde_json::from_str(newest).expect("JSON");
        let token: u64 = words[0].parse().expect("a number");
        assert_eq!(fence["token"].as_u64(), Some(token));
        assert_eq!(words[1], "QUEUE:jobs:'a%7Bb%7D");
        assert_eq!(fence["owner"].as_str(), Some(words[2]));
        assert!(token > last);
        last = token;
    }
}

#[test]
fn a_key_of_ones_own_and_a_prefix_reach_the_store_as_they_are() {
    let server = RedisServer::start();
    let url = server.url();
    let told = |arguments: &str| {
        let mut command = applock(&url, &format!("run {arguments} --"));
        out(&output(command.args(["sh", "-c", "echo $APPLOCK_KEY"])))
    };
    assert_eq!(told("--key jobs{eu}"), "jobs{eu}\n");
    assert_eq!(told("--key-prefix staging: --app a"), "staging:a\n");
}

#[test]
fn standard_input_output_and_errors_are_the_commands() {
    let server = RedisServer::start();
    let mut process = run(&server.url(), "", "cat; echo oh >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("applock runs");
    let mut stdin = process.stdin.take().expect("its input");
    stdin.write_all(b"hello").expect("it reads");
    drop(stdin);
    let said = process.wait_with_output().expect("its end");
    assert_eq!((out(&said), err(&said)), ("hello".into(), "oh\n".into()));
}

#[test]
fn one_at_a_time_runs_however_many_ask_and_who_waits_is_served() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    // mkdir is atomic: two at once would be seen.
    let script = format!(
        "mkdir {0}/inside || exit 99; sleep 0.05; rmdir {0}/inside",
        folder.path().display()
    );
    let waiting: Vec<Running> = (0..8)
        .map(|_| Running::start(&mut run(&server.url(), "--wait forever --ttl 5s", &script)))
        .collect();
    for mut running in waiting {
        assert_eq!(running.ends(), Some(0));
    }
}

#[test]
fn the_command_is_in_a_group_of_its_own_unless_it_is_to_be_in_the_foreground() {
    let server = RedisServer::start();
    let script = "echo $$; sleep 1000";
    let mut apart = Running::start(&mut run(&server.url(), "--name a", script));
    let command = pid(&apart.says());
    assert_eq!(group(command), command.as_raw_nonzero().to_string());
    assert_ne!(group(apart.keeper()), group(apart.pid()));

    // Danger: its command has a parent in another group, the keeper. Were it in the group of all tests,
    // its end could make that an orphaned one, and the kernel would wake (SIGHUP, SIGCONT) the servers
    // that other tests have frozen.
    let mut near = run(&server.url(), "--name b --foreground", script);
    let mut near = Running::start(near.process_group(0));
    let command = pid(&near.says());
    assert_eq!(group(command), group(near.pid()));
}

#[test]
fn a_waiter_that_gets_a_signal_leaves_the_queue() {
    let server = RedisServer::start();
    let url = server.url();
    let mut holder = Running::start(&mut run(&url, "", "echo here; sleep 1000"));
    holder.says();
    let queued = || server.run::<i64>("ZCARD {QUEUE:jobs}:queue");
    let mut waiter = Running::start(&mut run(&url, "--wait forever", "echo ran"));
    wait::until("it waits", LONGEST, || queued() == 1);
    let keeper = waiter.keeper();
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.ends(), Some(128 + 15));
    assert_eq!(waiter.rest(), "");
    wait::until("it has left the queue", LONGEST, || queued() == 0);
    crate::support::dies(keeper);
    assert_eq!(children(holder.pid()).len(), 1);
}

#[test]
fn at_least_keeps_the_lock_after_a_short_command() {
    let server = RedisServer::start();
    let url = server.url();
    assert_eq!(code(&mut run(&url, "--at-least 1h", "true")), Some(0));
    assert_eq!(code(&mut run(&url, "--ok-if-busy", "exit 9")), Some(0));
    let refused = err(&output(&mut run(&url, "", "true")));
    assert!(refused.contains("is kept until"), "{refused}");
}

#[test]
fn a_directory_is_a_store_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("dir:{}", folder.path().display());
    let mut holder = Running::start(&mut run(&url, "", "echo here; sleep 1000"));
    holder.says();
    assert_eq!(code(&mut run(&url, "--quiet", "true")), Some(75));
    holder.signal(Signal::TERM);
    assert_eq!(holder.ends(), Some(128 + 15));
    assert_eq!(code(&mut run(&url, "--quiet", "true")), Some(0));
}

#[test]
fn the_password_of_the_store_is_in_no_message() {
    let server = RedisServer::with(&["--requirepass", "hunter2"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port());
    let mut holder = Running::start(&mut run(&url, "", "echo here; sleep 1000"));
    holder.says();
    for command in [
        "run --app jobs -- true",
        "info --app jobs",
        "info --app jobs --json",
        "check --app jobs --max-age 1h",
        "release --app jobs --stale 30s",
    ] {
        let said = output(&mut applock(&url, command));
        assert!(!out(&said).contains("hunter2") && !err(&said).contains("hunter2"));
    }
    // In the wrong place of a command line, too.
    let said = output(&mut applock(
        &url,
        &format!("info --app jobs {url} --ulr={url}"),
    ));
    assert_eq!(said.status.code(), Some(64));
    assert!(!err(&said).contains("hunter2"), "{}", err(&said));
}

#[test]
fn once_in_so_long_it_runs_and_a_failed_run_may_be_taken_up() {
    let server = RedisServer::start();
    let url = server.url();
    assert_eq!(code(&mut run(&url, "--every 1h", "exit 3")), Some(3));
    let again = output(&mut run(&url, "--every 1h", "echo ran"));
    assert_eq!(
        (again.status.code(), out(&again)),
        (Some(75), String::new())
    );
    assert!(
        err(&again).starts_with("applock: already ran: "),
        "{}",
        err(&again)
    );
    let quiet = output(&mut run(&url, "--every 1h --ok-if-busy", "echo ran"));
    assert_eq!((quiet.status.code(), err(&quiet)), (Some(0), String::new()));
    // It failed.
    assert_eq!(
        code(&mut run(&url, "--every 1h --retry-failed", "true")),
        Some(0)
    );
    assert_eq!(
        code(&mut run(&url, "--every 1h --retry-failed -E 9 -q", "true")),
        Some(9)
    );
}

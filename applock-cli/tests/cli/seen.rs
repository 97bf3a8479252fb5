//! Who holds what, and since when: `ls`, `info`, `wait`, `watch`, `release`, `check`.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{LONGEST, RedisServer, Running, applock, code, err, out, output, run, wait};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn holds(url: &str, arguments: &str) -> Running {
    let mut holder = Running::start(&mut run(url, arguments, "echo here; sleep 1000"));
    assert_eq!(holder.says(), "here");
    holder
}

#[test]
fn info_is_0_for_a_lock_that_is_held_and_1_for_one_that_is_free() {
    let server = RedisServer::start();
    let url = server.url();
    let free = output(&mut applock(&url, "info --app jobs"));
    assert_eq!(free.status.code(), Some(1));
    assert_eq!(out(&free), "free\nno run is remembered\n");

    let mut holder = holds(&url, "");
    let held = output(&mut applock(&url, "info --app jobs"));
    assert_eq!(held.status.code(), Some(0));
    let pid = format!("pid {}", holder.pid().as_raw_nonzero());
    assert!(out(&held).contains(&pid), "{}", out(&held));

    let told = json(&out(&output(&mut applock(&url, "info --app jobs --json"))));
    assert_eq!(told["held"], true);
    assert_eq!(told["holder"]["key"], "QUEUE:jobs");
    assert_eq!(told["holder"]["pid"], holder.pid().as_raw_nonzero().get());
    assert_eq!(told["holder"]["instance_id"], "sh");
    assert_eq!(told["last"]["ending"], "held");

    holder.signal(Signal::TERM);
    holder.ends();
    let told = json(&out(&output(&mut applock(&url, "info --app jobs --json"))));
    assert_eq!(
        (&told["held"], &told["holder"]),
        (&Value::Bool(false), &Value::Null)
    );
    assert_eq!(told["last"]["ending"], "error");
    assert_eq!(told["last_success"], Value::Null);
    let free = out(&output(&mut applock(&url, "info --app jobs")));
    assert!(
        free.starts_with("free\nlast run: ") && free.ends_with("ended with an error\n"),
        "{free}"
    );
    assert_eq!(code(&mut run(&url, "", "true")), Some(0));
    assert_eq!(code(&mut run(&url, "", "false")), Some(1));
    let both = out(&output(&mut applock(&url, "info --app jobs")));
    assert!(both.contains("\nlast success: "), "{both}");
}

#[test]
fn ls_has_a_line_for_each_lock_and_an_element_for_programs() {
    let server = RedisServer::start();
    let url = server.url();
    let none = output(&mut applock(&url, "ls"));
    assert_eq!((none.status.code(), out(&none)), (Some(0), String::new()));
    let _one = holds(&url, "--name one");
    let _two = holds(&url, "--name two");
    let _waits = Running::start(&mut run(&url, "--name two --wait forever", "true"));
    wait::until("it waits", LONGEST, || {
        server.run::<i64>("ZCARD {QUEUE:jobs:two}:queue") == 1
    });
    let table = out(&output(&mut applock(&url, "ls")));
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert_eq!(lines[0][0], "KEY");
    assert_eq!(
        (lines[1][0], lines[1].last()),
        ("QUEUE:jobs:one", Some(&"0"))
    );
    assert_eq!(
        (lines[2][0], lines[2].last()),
        ("QUEUE:jobs:two", Some(&"1"))
    );
    // No colours into a pipe.
    assert!(!table.contains('\u{1b}'));

    let told = json(&out(&output(&mut applock(&url, "ls QUEUE:*two --json"))));
    assert_eq!(told.as_array().map(Vec::len), Some(1));
    assert_eq!(told[0]["waiters"], 1);
    assert_eq!(
        json(&out(&output(&mut applock(&url, "ls other:* --json")))),
        json("[]")
    );
}

#[test]
fn a_user_without_a_command_that_writes_can_list_and_ask() {
    let server = RedisServer::start();
    let _holder = holds(&server.url(), "");
    server.run::<()>(
        "ACL SETUSER eyes on >p resetkeys resetchannels -@all ~QUEUE:* ~{QUEUE:*}:* +@read +eval +evalsha +time",
    );
    let url = format!("redis://eyes:p@127.0.0.1:{}", server.port());
    for command in [
        "ls",
        "ls --json",
        "info --app jobs",
        "check --app jobs --max-age 1h",
    ] {
        let said = output(&mut applock(&url, command));
        assert_eq!(said.status.code(), Some(0), "{command}: {}", err(&said));
        assert!(out(&said).contains("QUEUE:jobs") || command.starts_with("check"));
    }
    assert_eq!(
        code(&mut applock(&url, "release --app jobs --force --reason x")),
        Some(77)
    );
    assert!(server.run::<bool>("EXISTS QUEUE:jobs"));
}

#[test]
fn colours_are_for_a_terminal_and_for_one_that_wants_them() {
    let server = RedisServer::start();
    let _holder = holds(&server.url(), "");
    // script(1) gives it a terminal.
    let on_terminal = |name: &str, value: &str| {
        let line = format!("{} ls", env!("CARGO_BIN_EXE_applock"));
        let mut command = std::process::Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .env("APPLOCK_URL", server.url())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env(name, value)
            .stdin(std::process::Stdio::null());
        out(&output(&mut command))
    };
    assert!(on_terminal("LANG", "C").contains("\u{1b}[1mKEY"));
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let said = on_terminal(name, value);
        assert!(said.contains("KEY") && !said.contains('\u{1b}'), "{said}");
    }
}

#[test]
fn wait_takes_nothing_and_ends_when_the_lock_is_free() {
    let server = RedisServer::start();
    let url = server.url();
    assert_eq!(code(&mut applock(&url, "wait --app jobs")), Some(0));
    let mut holder = holds(&url, "");
    let late = output(&mut applock(&url, "wait --app jobs --timeout 100ms"));
    assert_eq!(late.status.code(), Some(75));
    assert!(err(&late).starts_with("applock: busy: "));
    let mut waiting = Running::start(&mut applock(&url, "wait --app jobs --timeout 1m"));
    holder.signal(Signal::TERM);
    holder.ends();
    assert_eq!(waiting.ends(), Some(0));
    assert_eq!(code(&mut applock(&url, "info --app jobs")), Some(1));
}

#[test]
fn release_frees_what_a_dead_holder_left_and_by_force_any() {
    let server = RedisServer::start();
    let url = server.url();
    let free = output(&mut applock(&url, "release --app jobs --stale 1s"));
    assert_eq!(
        (free.status.code(), out(&free)),
        (Some(1), "nothing to release: it is free\n".into())
    );

    let mut holder = holds(&url, "--ttl 3s");
    let alive = output(&mut applock(&url, "release --app jobs --stale 100ms"));
    assert_eq!(alive.status.code(), Some(1));
    assert!(
        out(&alive).starts_with("not released, for it is not stale: "),
        "{}",
        out(&alive)
    );

    holder.signal(Signal::KILL);
    holder.ends();
    let mut said = String::new();
    wait::until("its heart has stopped", LONGEST, || {
        let stale = output(&mut applock(&url, "release --app jobs --stale 100ms"));
        said = out(&stale);
        stale.status.code() == Some(0)
    });
    assert!(
        said.starts_with("released. Before: \"QUEUE:jobs\" is held by "),
        "{said}"
    );

    let mut holder = holds(&url, "");
    let mut force = applock(&url, "release --app jobs --force --reason");
    let forced = output(force.arg("host db3 is off\nthe network"));
    assert_eq!(forced.status.code(), Some(0));
    let said = out(&forced);
    assert!(
        said.ends_with("; reason: \"host db3 is off\\nthe network\"\n"),
        "{said}"
    );
    assert_eq!(holder.ends(), Some(76));
    let last = out(&output(&mut applock(&url, "info --app jobs")));
    assert!(last.contains("released by force by "), "{last}");
    assert!(last.contains(": host db3 is off\\nthe network"), "{last}");
}

#[test]
fn why_a_lock_was_taken_from_its_holder_is_remembered_with_the_run_in_every_store() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    for url in [server.url(), format!("dir:{}", folder.path().display())] {
        let _holder = holds(&url, "");
        let reason = format!("db3 is \"off\", \"ttl\":5}} {}", "x".repeat(1_000));
        let mut force = applock(&url, "release --app jobs --force --reason");
        assert_eq!(code(force.arg(&reason)), Some(0));
        let said = json(&out(&output(&mut applock(&url, "info --app jobs --json"))));
        let by = said["last"]["forced_by"].as_str().expect("who did it");
        assert!(
            by.contains("): db3 is \"off\", \"ttl\":5} xxx") && by.len() < 400,
            "{by}"
        );
        // What is remembered is read as before.
        assert_eq!(said["last"]["ending"], "forced");
        assert_eq!(code(&mut run(&url, "--wait 10s", "true")), Some(0));
    }
}

#[test]
fn check_answers_as_monitors_ask() {
    let server = RedisServer::start();
    let url = server.url();
    let check = |age: &str| {
        let said = output(&mut applock(
            &url,
            &format!("check --app jobs --max-age {age}"),
        ));
        (said.status.code(), out(&said))
    };
    let (never, line) = check("1h");
    assert_eq!(never, Some(2));
    assert!(
        line.starts_with("CRITICAL - no run is remembered"),
        "{line}"
    );

    let mut holder = holds(&url, "");
    let (runs, line) = check("1h");
    assert_eq!(runs, Some(0));
    assert!(
        line.starts_with("OK - ") && line.contains("still held | age="),
        "{line}"
    );
    holder.signal(Signal::TERM);
    holder.ends();
    let (failed, line) = check("1h");
    assert_eq!(failed, Some(1));
    assert!(line.contains("ended with an error"), "{line}");
    assert_eq!(check("1h --must-succeed").0, Some(2));
    assert_eq!(code(&mut run(&url, "", "true")), Some(0));
    assert_eq!(check("1h").0, Some(0));
    assert_eq!(code(&mut run(&url, "", "false")), Some(1));
    let (succeeded, line) = check("1h --must-succeed");
    assert_eq!(succeeded, Some(0));
    assert!(line.starts_with("OK - the last success began "), "{line}");
    let (old, line) = check("0s");
    assert_eq!(old, Some(2));
    assert!(
        line.starts_with("CRITICAL - ") && line.lines().count() == 1,
        "{line}"
    );

    let _holder = holds(&url, "");
    code(&mut applock(
        &url,
        "release --app jobs --force --reason test",
    ));
    let (forced, line) = check("1h");
    assert_eq!(forced, Some(1));
    assert!(line.starts_with("WARNING - "), "{line}");
}

#[test]
fn watch_has_a_line_for_each_change() {
    let server = RedisServer::start();
    let url = server.url();
    let mut watch = Running::start(&mut applock(&url, "watch --json --interval 20ms"));
    let mut next = |event: &str| {
        let change = json(&watch.says());
        assert_eq!(change["event"], event, "{change}");
        change
    };
    let mut holder = holds(&url, "");
    assert_eq!(next("held")["holder"]["instance_id"], "sh");
    let mut waiter = Running::start(&mut run(&url, "--wait forever", "echo next; sleep 1000"));
    assert_eq!(next("waiting")["holder"]["waiters"], 1);
    holder.signal(Signal::TERM);
    holder.ends();
    waiter.says();
    assert_eq!(next("over")["key"], "QUEUE:jobs");
    next("held");
    code(&mut applock(
        &url,
        "release --app jobs --force --reason test",
    ));
    assert_eq!(next("forced")["run"]["ending"], "forced");
    waiter.ends();
    server.freeze();
    assert!(next("unavailable")["error"].is_string());
    server.thaw();
    next("available");
    watch.signal(Signal::KILL);
}

#[test]
fn watch_hears_each_change_at_once_where_the_server_tells_of_changes() {
    let server = RedisServer::with(&["--notify-keyspace-events", "K$gx"]);
    let url = server.url();
    for pattern in ["", "QUEUE:jobs"] {
        let mut command = applock(&url, "watch --json --interval 1h");
        command.args(pattern.split_whitespace());
        let mut watch = Running::start(&mut command);
        wait::until("it listens", LONGEST, || {
            server.run::<i64>("PUBSUB NUMPAT") == 1
        });
        let mut holder = holds(&url, "");
        assert_eq!(json(&watch.says())["event"], "held");
        holder.signal(Signal::KILL);
        holder.ends();
        server.run::<()>("PEXPIRE QUEUE:jobs 1");
        assert_eq!(json(&watch.says())["event"], "expired");
        // However short it was: what was not seen of it is remembered.
        assert_eq!(code(&mut run(&url, "", "exit 7")), Some(7));
        let mut change = json(&watch.says());
        if change["event"] == "held" {
            change = json(&watch.says());
        }
        assert_eq!(
            (&change["event"], &change["key"]),
            (&"failed".into(), &"QUEUE:jobs".into())
        );
        assert_eq!(change["run"]["ending"], "error");
        watch.signal(Signal::KILL);
        watch.ends();
        let said = watch.complaints();
        assert!(said.contains("changes are told as they happen"), "{said}");
        wait::until("it has gone", LONGEST, || {
            server.run::<i64>("PUBSUB NUMPAT") == 0
        });
    }
}

#[test]
fn watch_tells_no_end_of_a_run_that_goes_on_however_fast_runs_follow() {
    let server = RedisServer::with(&["--notify-keyspace-events", "K$gx"]);
    let url = server.url();
    let mut watch = Running::start(&mut applock(&url, "watch --json --interval 1h"));
    wait::until("it listens", LONGEST, || {
        server.run::<i64>("PUBSUB NUMPAT") == 1
    });
    let command = "run --app jobs --ok-if-busy -- true";
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // On a busy machine one of them may find the store too slow.
                for _ in 0..100 {
                    code(&mut applock(&url, command));
                }
            });
        }
    });
    wait::until("a last run", LONGEST, || {
        code(&mut applock(&url, "run --app last -- false")) == Some(1)
    });
    loop {
        let change = json(&watch.says());
        assert_ne!(change["run"]["ending"], "held", "{change}");
        if change["key"] == "QUEUE:last" && change["event"] == "failed" {
            break;
        }
    }
}

#[test]
fn watch_says_where_it_only_looks_and_where_it_cant_know() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    server.run::<()>(
        "ACL SETUSER reader on >pw ~* &* +@read +@connection +@pubsub +eval +evalsha +time",
    );
    let reader = format!("redis://reader:pw@127.0.0.1:{}", server.port());
    for (url, expected) in [
        (server.url(), "CONFIG SET notify-keyspace-events K$gx"),
        (
            format!("dir:{}", folder.path().display()),
            "tells of no changes",
        ),
        (reader, "and listening"),
    ] {
        let mut watch = Running::start(&mut applock(&url, "watch --json --interval 20ms"));
        // A reader needs no right to write.
        let mut holder = holds(&url.replace("reader:pw@", ""), "");
        assert_eq!(json(&watch.says())["event"], "held");
        holder.signal(Signal::TERM);
        holder.ends();
        watch.signal(Signal::KILL);
        watch.ends();
        let said = watch.complaints();
        assert!(
            said.starts_with("applock: looking every 0.0s") && said.contains(expected),
            "{said}"
        );
    }
}

#[test]
fn watch_ends_when_nobody_reads_any_more() {
    let server = RedisServer::start();
    let line = format!(
        "{} watch --interval 20ms | head -n 1",
        env!("CARGO_BIN_EXE_applock")
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]).env("APPLOCK_URL", server.url());
    let mut both = Running::start(&mut command);
    for _ in 0..2 {
        // Each is a change, until the watch is gone.
        code(&mut run(&server.url(), "", "sleep 0.2"));
    }
    wait::until("both have ended", LONGEST, || {
        code(&mut run(&server.url(), "", "sleep 0.1"));
        both.has_ended()
    });
}

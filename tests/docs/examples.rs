//! Every example runs to its end and shows what it says it shows: on a directory, and on
//! a real Redis.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::lease::LIMIT;
use crate::support::ports::nowhere;
use crate::support::redis::RedisServer;
use crate::support::wait;

/// Where `cargo test` has built it: beside the directory of the tests.
fn built(example: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("the path of this test");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{path:?} is not built; `cargo test` without a filter builds it, or `cargo build --examples`"
    );
    path
}

/// Runs an example, with a temporary directory that must be empty afterwards.
fn run(example: &str, url: Option<&str>) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(built(example));
    command.env("TMPDIR", home.path());
    match url {
        Some(url) => command.env(applock::URL_VARIABLE, url),
        None => command.env_remove(applock::URL_VARIABLE),
    };
    let output = command.output().expect("the example starts");
    let left: Vec<_> = std::fs::read_dir(home.path())
        .expect("the temporary directory")
        .collect();
    assert!(left.is_empty(), "{example} left behind {left:?}");
    output
}

/// What a successful run printed.
#[track_caller]
fn shown(example: &str, url: Option<&str>) -> String {
    let output = run(example, url);
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success(),
        "{example} failed: {shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    shown
}

/// On a directory, and on a Redis.
fn on_both(example: &str, check: impl Fn(&str)) {
    check(&shown(example, None));
    let server = RedisServer::start();
    check(&shown(example, Some(&server.url())));
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn the_nightly_report_runs_on_one_of_three_processes_in_each_of_two_nights() {
    on_both("nightly_report", |shown| {
        assert_eq!(count(shown, ": ran it, with fencing token "), 2, "{shown}");
        assert_eq!(count(shown, ": busy: \"QUEUE:reports\" is held by "), 4);
        for part in ["(pid ", "instance server-", " since 2"] {
            assert_eq!(count(shown, part), 4, "{part:?} in {shown}");
        }
        let tokens: Vec<u64> = shown
            .lines()
            .filter_map(|line| line.split_once("ran it, with fencing token "))
            .map(|(_, token)| token.parse().expect("a token"))
            .collect();
        assert!(tokens[0] < tokens[1], "{shown}");
    });
}

#[test]
fn an_example_whose_store_cannot_be_reached_says_so_and_fails() {
    let url = format!("redis://127.0.0.1:{}", nowhere());
    for example in [
        "nightly_report",
        "cron",
        "leader",
        "blocking_job",
        "fenced_write",
        "web",
        "service",
    ] {
        let output = run(example, Some(&url));
        assert_eq!(output.status.code(), Some(1), "{example}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            error.contains("unavailable") && error.contains(&url),
            "{example}: {error}"
        );
    }
}

#[test]
fn two_schedulers_run_the_job_once_a_second() {
    on_both("cron", |shown| {
        let ran = count(shown, "tidies up");
        let left = count(shown, "leaves it to");
        // Without the lock it would be twice that.
        assert!((1..=5).contains(&ran), "{shown}");
        // The first second and the last may be cut off between the two. (On a busy machine
        // a run that comes late keeps both out of the next second: more are left then.)
        assert!(left >= 1 && left + 2 >= ran, "{shown}");
    });
}

#[test]
fn a_leader_that_is_killed_and_one_that_steps_down_are_each_replaced() {
    on_both("leader", |shown| {
        assert_eq!(count(shown, " is killed"), 1, "{shown}");
        assert_eq!(count(shown, " steps down"), 1, "{shown}");
        assert_eq!(count(shown, " leads"), 3, "{shown}");
    });
}

#[test]
fn a_blocking_job_runs_on_one_thread_and_is_refused_to_two() {
    on_both("blocking_job", |shown| {
        assert_eq!(count(shown, ": indexed 10 pages"), 1, "{shown}");
        assert_eq!(count(shown, ": busy: "), 2, "{shown}");
        assert_eq!(count(shown, "under a lock taken by hand"), 1, "{shown}");
        assert_eq!(count(shown, ": ended well; fencing token "), 1, "{shown}");
    });
}

#[test]
fn a_web_service_answers_409_for_busy_and_503_for_unavailable() {
    on_both("web", |shown| {
        for line in [
            "the first client: HTTP/1.1 200 OK",
            "the second client: HTTP/1.1 409 Conflict",
            "a client of a server without a store: HTTP/1.1 503 Service Unavailable",
        ] {
            assert_eq!(count(shown, line), 1, "{line} in {shown}");
        }
    });
}

#[test]
fn a_resource_refuses_the_write_of_a_holder_that_was_overtaken() {
    on_both("fenced_write", |shown| {
        assert_eq!(count(shown, "server-1 writes 101: refused: "), 1, "{shown}");
        assert_eq!(count(shown, "the balance is 200"), 1, "{shown}");
        assert_eq!(count(shown, "server-1 learns: lost: "), 1, "{shown}");
    });
}

/// A user looks for a fault of their own with it.
#[cfg(target_os = "linux")]
#[test]
fn a_program_runs_under_valgrind() {
    wait::until("it runs under valgrind", LIMIT, || {
        let output = Command::new("valgrind")
            .args(["--quiet", "--error-exitcode=9"])
            .arg(built("fenced_write"))
            .env_remove(applock::URL_VARIABLE)
            .output()
            .expect("valgrind, which scripts/test installs: apt-get install valgrind");
        let error = String::from_utf8_lossy(&output.stderr);
        // Under it a program is many times slower: on a busy machine a step in the directory may
        // take longer than the second that it has.
        let is_too_slow =
            output.status.code() == Some(1) && error.contains("gave no answer within");
        let is_well = output.status.success();
        assert!(is_well || is_too_slow, "{}: {error}", output.status);
        is_well
    });
}

#[test]
fn a_service_that_is_asked_to_end_lets_its_run_end_and_frees_its_lock() {
    on_both("service", |shown| {
        let order = [
            "import 1 begins",
            "asked to end",
            "import 1 is done",
            "import 2 is not begun",
            "all is released",
            "the next server has the lock",
        ];
        let places = order.map(|part| shown.find(part));
        assert!(places.is_sorted() && places[0].is_some(), "{shown}");
    });
}

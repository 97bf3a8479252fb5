//! Bad input to each command and argument: one line that names it and the way out, and nothing
//! half-done.

use crate::support::{RedisServer, applock, err, out, output};

#[test]
fn each_bad_value_is_78_and_each_command_line_that_cant_be_read_64() {
    let server = RedisServer::start();
    let url = server.url();
    for (arguments, expected, names, remedy) in [
        // Values.
        ("run --app a --ttl x -- true", 78, "--ttl \"x\"", "60"),
        (
            "run --app a --ttl 1ms -- true",
            78,
            "--ttl 1ms",
            "such as --ttl 60s",
        ),
        ("run --app a --ttl 20y -- true", 78, "--ttl", "ten years"),
        ("run --app a --ttl= -- true", 78, "--ttl \"\"", "60"),
        ("run --app a --ttl -5 -- true", 78, "--ttl \"-5\"", "60"),
        (
            "run --app a --wait -1s -- true",
            78,
            "--wait \"-1s\": it is less than nothing",
            "5m",
        ),
        ("watch --interval -1s", 78, "--interval \"-1s\"", "5m"),
        ("run --app a -E -1 -- true", 78, "-E \"-1\"", "255"),
        ("run --app a --ttl=-5 -- true", 78, "--ttl \"-5\"", "60"),
        (
            "run --app a --ttl 99999999999999999999 -- true",
            78,
            "--ttl",
            "60",
        ),
        (
            "run --app a --wait soon -- true",
            78,
            "--wait \"soon\"",
            "5m",
        ),
        ("run --app a --every x -- true", 78, "--every", "5m"),
        ("run --app a --every 20y -- true", 78, "--every", "write"),
        (
            "run --app a --retry-failed -- true",
            64,
            "--every",
            "--help",
        ),
        ("run --app a --at-least x -- true", 78, "--at-least", "5m"),
        ("run --app a --at-most 0 -- true", 78, "--at-most", "100"),
        (
            "run --app a --at-least 2m --at-most 1m -- true",
            78,
            "--at-least",
            "make --at-most the longer one",
        ),
        (
            "run --app a --kill-after x -- true",
            78,
            "--kill-after",
            "5m",
        ),
        ("run --app a -E 256 -- true", 78, "-E \"256\"", "255"),
        ("run --app a -E many -- true", 78, "-E \"many\"", "255"),
        ("run --key {} -- true", 78, "key", "braces"),
        ("run --key {a}:fence -- true", 78, "key", "another key"),
        ("run --url nonsense --app a -- true", 78, "url", "redis://"),
        ("run --url memory: --app a -- true", 78, "--url", "dir:"),
        ("run --url dir:locks --app a -- true", 78, "url", "dir:/"),
        ("info --url http://x --app a", 78, "url", "redis://"),
        ("doctor nfs://x", 78, "url", "dir:/var/lock/app\n"),
        ("info --key-prefix {} --app a", 78, "--key-prefix", "braces"),
        ("wait --app a --timeout x", 78, "--timeout", "5m"),
        ("release --app a --stale x", 78, "--stale", "5m"),
        ("release --app a --stale 20y", 78, "--stale", "30 s"),
        ("release --app a --force --reason=", 78, "--reason", "why"),
        ("check --app a --max-age x", 78, "--max-age", "25h"),
        ("completions ksh", 78, "ksh", "zsh"),
        // Command lines.
        ("rum --app a", 64, "rum", "run"),
        ("run --app a", 64, "CMD", "--help"),
        ("run --app a true", 64, "true", "--help"),
        ("run -- true", 64, "--app", "--help"),
        ("run --name n -- true", 64, "--app", "--help"),
        ("run --app a --key k -- true", 64, "--key", "--help"),
        (
            "run --app a --ok-if-busy -E 3 -- true",
            64,
            "--ok-if-busy",
            "--help",
        ),
        ("run --app a --tll 5 -- true", 64, "--tll", "--ttl"),
        ("run --app a --app b -- true", 64, "--app", "--help"),
        ("info", 64, "--app", "--help"),
        ("info --app a b", 64, "b", "--help"),
        ("info --app a -5", 64, "-5", "--help"),
        ("info --app a --json -5", 64, "-5", "--help"),
        ("wait", 64, "--app", "--help"),
        ("release --app a", 64, "--stale", "--force"),
        ("release --app a --force", 64, "--reason", "--help"),
        (
            "release --app a --stale 1s --force --reason x",
            64,
            "--force",
            "--help",
        ),
        (
            "release --app a --stale 1s --reason x",
            64,
            "--reason",
            "--help",
        ),
        ("watch --interval x", 78, "--interval", "5m"),
        ("watch --interval 0", 78, "--interval", "200ms"),
        ("ls [", 78, "pattern", "QUEUE:reports*"),
        ("check --app a", 64, "--max-age", "--help"),
        ("completions", 64, "SHELL", "--help"),
    ] {
        let said = output(&mut applock(&url, arguments));
        let line = err(&said);
        assert_eq!(said.status.code(), Some(expected), "{arguments}: {line}");
        assert_eq!(line.lines().count(), 1, "{arguments}: {line}");
        assert!(line.starts_with("applock: "), "{arguments}: {line}");
        assert!(
            line.contains(names) && line.contains(remedy),
            "{arguments}: {line}"
        );
        assert_eq!(out(&said), "", "{arguments}");
        assert_eq!(server.run::<i64>("DBSIZE"), 0, "{arguments}");
    }
}

#[test]
fn a_negative_number_behind_the_dashes_is_the_commands() {
    let server = RedisServer::start();
    let command = "run --app a -- printf %s. -v -5";
    let said = output(&mut applock(&server.url(), command));
    assert_eq!((out(&said), err(&said)), ("-v.-5.".into(), String::new()));
}

#[test]
fn a_bad_environment_is_named_too() {
    for (name, value) in [
        ("APPLOCK_URL", ""),
        ("APPLOCK_URL", "memory:"),
        ("APPLOCK_URL", "redis://h/x"),
        ("APPLOCK_INSTANCE", ""),
    ] {
        let mut command = applock("redis://127.0.0.1:1", "run --app a -- true");
        let said = output(command.env(name, value));
        assert_eq!(said.status.code(), Some(78), "{name}={value}");
        assert!(err(&said).contains(name), "{}", err(&said));
    }
}

#[test]
fn hostile_text_stays_on_its_line() {
    let url = "redis://127.0.0.1:1";
    let evil = "\u{1b}[31m\nroot: all is well";
    for arguments in [
        vec!["run", "--app", "a", "--ttl", evil, "--", "true"],
        vec!["run", "--app", "a", "--", evil],
        vec!["run", "--app", "a", "--url", evil, "--", "true"],
        vec!["completions", evil],
        vec!["info", "--app", "a", evil],
        vec![evil],
    ] {
        let mut command = applock(url, "");
        let said = output(command.args(&arguments));
        let line = err(&said);
        assert!(matches!(said.status.code(), Some(64 | 78 | 127)), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

#[test]
fn help_is_no_error_and_each_command_has_examples() {
    let url = "redis://127.0.0.1:1";
    for command in [
        "",
        "run",
        "ls",
        "info",
        "wait",
        "release",
        "check",
        "watch",
        "doctor",
        "completions",
    ] {
        for flag in ["--help", "-h"] {
            let said = output(&mut applock(url, &format!("{command} {flag}")));
            assert_eq!(said.status.code(), Some(0));
            assert!(err(&said).is_empty());
            let text = out(&said);
            assert!(text.contains("Usage: applock"), "{text}");
            if flag == "--help" {
                assert!(text.contains("Example"), "{text}");
            }
        }
    }
    assert_eq!(output(&mut applock(url, "")).status.code(), Some(64));
    let version = out(&output(&mut applock(url, "--version")));
    assert_eq!(version, format!("applock {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn each_shell_has_a_completion() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = output(&mut applock(
            "redis://127.0.0.1:1",
            &format!("completions {shell}"),
        ));
        assert_eq!(said.status.code(), Some(0));
        assert!(out(&said).contains("kill-after"), "{shell}");
    }
}

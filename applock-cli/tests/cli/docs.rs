//! The commands in the documentation are run as they stand there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{RedisServer, Running, applock, err, out, output, run};

const ON_CALL: &str = include_str!("../../../docs/ON_CALL.md");
const README: &str = include_str!("../../../README.md");

/// The lines of the `sh` blocks.
fn lines() -> impl Iterator<Item = &'static str> {
    ON_CALL
        .split("```sh\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines)
}

/// As a shell parts them: what is in quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("one").push(c),
        }
    }
    words
}

#[test]
fn each_command_for_people_on_call_does_what_it_says() {
    let server = RedisServer::start();
    let url = server.url();
    // One that has succeeded.
    let before = output(&mut applock(&url, "run --app reports -- true"));
    assert_eq!(before.status.code(), Some(0), "{}", err(&before));
    let mut count = 0;
    for line in lines() {
        let mut holder = Running::start(&mut applock(&url, "run --app reports -- sleep 1000"));
        crate::support::wait::until("it holds", crate::support::LONGEST, || {
            server.run::<bool>("EXISTS QUEUE:reports")
        });
        let words = words(line);
        match words[0].as_str() {
            "applock" => {
                let said = output(applock(&url, "").args(&words[1..]));
                // A server without persistence is not what a doctor wants to see, and a heart that
                // beats is never stale.
                let expected = match words[1].as_str() {
                    "doctor" => 1,
                    "release" if words.contains(&"--stale".to_owned()) => 1,
                    _ => 0,
                };
                assert_eq!(said.status.code(), Some(expected), "{line}: {}", err(&said));
                assert!(!out(&said).is_empty() || line.contains("billing"), "{line}");
            }
            "redis-cli" if words[1] == "--scan" => {
                let (_, keys): (String, Vec<String>) = server
                    .try_run(&["SCAN", "0", "MATCH", &words[3], "COUNT", "100"])
                    .expect("an answer");
                assert_eq!(keys, ["QUEUE:reports"]);
            }
            "redis-cli" => {
                let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
                let answer = server.try_run::<redis::Value>(&words);
                assert!(
                    !matches!(answer, Ok(redis::Value::Nil) | Err(_)),
                    "{line}: {answer:?}"
                );
            }
            other => panic!("{other}: neither applock nor redis-cli"),
        }
        count += 1;
        holder.signal(rustix::process::Signal::TERM);
        holder.ends();
        server.run::<()>("DEL QUEUE:reports");
    }
    assert!(count > 15, "only {count} lines");
}

/// The words in back-ticks of the lines that begin so.
fn documented(begin: &str) -> BTreeSet<String> {
    let from = ON_CALL.find(begin).unwrap_or_else(|| panic!("{begin}"));
    let item = ON_CALL[from + begin.len()..]
        .split("\n\n")
        .next()
        .unwrap_or_default();
    let item = item.split("\n- ").next().unwrap_or_default();
    item.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn fields(value: &Value) -> BTreeSet<String> {
    let object = value.as_object().unwrap_or_else(|| panic!("{value}"));
    object.keys().cloned().collect()
}

#[test]
fn the_json_has_the_fields_that_are_promised() {
    let server = RedisServer::start();
    let url = server.url();
    let mut holder = Running::start(&mut run(&url, "", "echo here; sleep 1000"));
    holder.says();
    let json = |arguments: &str| -> Value {
        let said = output(&mut applock(&url, arguments));
        let text = out(&said);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{arguments}: {error}: {text} {}", err(&said)))
    };
    let info = json("info --app jobs --json");
    assert_eq!(
        fields(&info),
        ["held", "holder", "last", "last_success"]
            .map(str::to_owned)
            .into()
    );
    assert_eq!(fields(&info["holder"]), documented("- A holder: "));
    assert_eq!(fields(&info["last"]), documented("- A run: "));
    assert_eq!(fields(&json("ls --json")[0]), documented("- A holder: "));
    let finding = ["level", "server", "about", "what", "remedy"].map(str::to_owned);
    assert_eq!(fields(&json("doctor --json")[0]), finding.into());
    let mut watch = Running::start(&mut applock(&url, "watch --json"));
    let change: Value = serde_json::from_str(&watch.says()).expect("JSON");
    let expected = ["at", "event", "key", "holder", "run", "error"].map(str::to_owned);
    assert_eq!(fields(&change), expected.into());
}

#[test]
fn the_cron_line_of_the_readme_runs_on_one_machine_and_the_others_say_nothing() {
    let server = RedisServer::start();
    let line = README
        .lines()
        .find(|line| line.contains(" * * *") && line.contains("applock run"))
        .expect("the README has the line");
    // Five fields of time, and the rest is for the shell.
    let command: Vec<&str> = line.split_whitespace().skip(5).collect();
    let command = command.join(" ");
    let home = tempfile::tempdir().expect("a folder");
    let program = home.path().join("nightly-report");
    fs::write(&program, "#!/bin/sh\necho ran >> \"$HOME/runs\"\n").expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_applock"))
        .parent()
        .expect("a folder");
    // What cron gives a job: no terminal, and next to no environment.
    let started: Vec<_> = (0..5)
        .map(|_| {
            Command::new("/bin/sh")
                .args(["-c", &command])
                .env_clear()
                .env("HOME", home.path())
                .env(
                    "PATH",
                    format!("{}:{}:/usr/bin:/bin", home.path().display(), bin.display()),
                )
                .env("APPLOCK_URL", server.url())
                .current_dir(home.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("a shell")
        })
        .collect();
    for job in started {
        let said = job.wait_with_output().expect("its end");
        // Whatever it said, cron would send as a mail.
        assert_eq!(
            (said.status.code(), out(&said), err(&said)),
            (Some(0), String::new(), String::new())
        );
    }
    let runs = fs::read_to_string(home.path().join("runs")).expect("it ran");
    assert_eq!(runs, "ran\n");
}

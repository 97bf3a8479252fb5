//! Signals reach the command, and what it started.

use rustix::process::{Signal, kill_process};

use crate::support::{LONGEST, RedisServer, Running, lives, pid, run, state, wait};

/// Tells of each signal, by a child that has to get it as well; ends by TERM.
const TELLS: &str = "trap 'echo got HUP' HUP; trap 'echo got INT' INT; trap 'echo got QUIT' QUIT; \
    trap 'echo got USR1' USR1; trap 'echo got USR2' USR2; trap 'echo got TERM; exit 7' TERM; \
    echo $$; while :; do sleep 0.02; done";

#[test]
fn each_signal_is_passed_on_and_the_commands_own_end_counts() {
    let server = RedisServer::start();
    let mut running = Running::start(&mut run(&server.url(), "", TELLS));
    running.says();
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::TERM, "TERM"),
    ] {
        running.signal(signal);
        assert_eq!(running.says(), format!("got {name}"));
    }
    assert_eq!(running.ends(), Some(7));
}

#[test]
fn a_signal_reaches_the_whole_group() {
    let server = RedisServer::start();
    // The shell waits for a child that does not know it.
    let script = "sh -c 'trap \"echo child; exit\" TERM; echo here; while :; do sleep 0.02; done'; echo parent";
    let mut running = Running::start(&mut run(
        &server.url(),
        "",
        &format!("trap 'echo told' TERM; {script}"),
    ));
    running.says();
    running.signal(Signal::TERM);
    let mut said = [running.says(), running.says(), running.says()];
    said.sort();
    assert_eq!(said, ["child", "parent", "told"]);
    assert_eq!(running.ends(), Some(0));
}

/// A service manager sends TERM to each process of a service.
#[test]
fn the_keeper_does_not_end_by_a_signal_that_is_for_the_command() {
    let server = RedisServer::start();
    let mut running = Running::start(&mut run(&server.url(), "", TELLS));
    running.says();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1] {
        kill_process(running.keeper(), signal).expect("it runs");
    }
    running.signal(Signal::USR1);
    assert_eq!(running.says(), "got USR1");
    running.signal(Signal::TERM);
    assert_eq!(running.says(), "got TERM");
    assert_eq!(running.ends(), Some(7));
}

#[test]
fn what_nohup_has_ignored_stays_ignored() {
    let server = RedisServer::start();
    let job = format!(
        "trap '' HUP; exec {} run --app jobs -- sh -c 'echo $$; grep SigIgn /proc/$$/status; read line; echo done'",
        env!("CARGO_BIN_EXE_applock")
    );
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &job])
        .env("APPLOCK_URL", server.url())
        .stdin(std::process::Stdio::piped());
    let mut running = Running::start(&mut command);
    let inside = pid(&running.says());
    let ignored = running.says();
    // The lowest bit is HUP; whoever runs the tests in the background ignores others, too.
    let last = ignored.chars().last().and_then(|digit| digit.to_digit(16));
    assert!(
        last.is_some_and(|bits| bits & 1 == 1),
        "the command ignores HUP: {ignored}"
    );
    running.signal(Signal::HUP);
    kill_process(inside, Signal::HUP).expect("it runs");
    running.signal(Signal::USR1);
    // Only that one ends it.
    assert_eq!(running.ends(), Some(128 + 10));
}

#[test]
fn ctrl_z_stops_the_command_and_it_goes_on_with_applock() {
    let server = RedisServer::start();
    // Not a loop of the shell: one that is stopped while it forks (vfork) is never seen as stopped.
    let script = "echo $$; exec sleep 1000";
    let mut running = Running::start(&mut run(&server.url(), "", script));
    let command = pid(&running.says());
    running.signal(Signal::TSTP);
    wait::until("both stand still", LONGEST, || {
        state(command).as_deref() == Some("T") && state(running.pid()).as_deref() == Some("T")
    });
    running.signal(Signal::CONT);
    wait::until("both go on", LONGEST, || {
        state(command).as_deref() != Some("T") && state(running.pid()).as_deref() != Some("T")
    });
    assert!(lives(command));
    running.signal(Signal::TERM);
    assert_eq!(running.ends(), Some(128 + 15));
}

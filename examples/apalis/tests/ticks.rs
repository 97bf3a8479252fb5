//! The example runs to its end, and runs each tick once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn two_servers_run_each_tick_once() {
    let mut example = Command::new(env!("CARGO_BIN_EXE_applock-example-apalis"));
    let output = example.env_remove("APPLOCK_URL").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}{error}");
    let ran: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split_once(" tidies up at "))
        .map(|(_, tick)| tick)
        .collect();
    assert!((2..=5).contains(&ran.len()), "{shown}");
    let ticks: BTreeSet<&str> = ran.iter().copied().collect();
    assert_eq!(ticks.len(), ran.len(), "a tick ran twice: {shown}");
    assert!(shown.contains(" leaves it"), "{shown}");
}

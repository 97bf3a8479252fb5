//! Nothing of a command goes on without its lock: however applock, its keeper or the lease ends.

use rustix::process::{Signal, kill_process};

use crate::support::{
    LONGEST, RedisServer, Running, applock, code, dies, lives, pid, run, state, wait,
};

/// A command with a child, a grandchild that has left the group, and a deaf one; tells their ids.
const FAMILY: &str = "trap '' TERM; sleep 1000 & echo $!; \
    sh -c 'setsid sh -c \"echo \\$\\$; sleep 1000; :\" & wait' & sleep 0.1; echo $$; wait; wait; wait";

fn family(running: &mut Running) -> Vec<rustix::process::Pid> {
    (0..3).map(|_| pid(&running.says())).collect()
}

#[test]
fn kill_9_of_applock_leaves_no_process_behind() {
    let server = RedisServer::start();
    let mut running = Running::start(&mut run(&server.url(), "", FAMILY));
    let family = family(&mut running);
    let keeper = running.keeper();
    assert!(family.iter().all(|one| lives(*one)));
    running.signal(Signal::KILL);
    for one in family {
        dies(one);
    }
    dies(keeper);
    // And nobody has the output open any more.
    assert_eq!(running.rest(), "");
}

#[test]
fn kill_9_of_the_keeper_ends_the_command_and_frees_the_lock() {
    let server = RedisServer::start();
    let mut running = Running::start(&mut run(&server.url(), "", FAMILY));
    let family = family(&mut running);
    kill_process(running.keeper(), Signal::KILL).expect("it runs");
    assert_eq!(running.ends(), Some(125));
    let (child, command) = (family[0], family[2]);
    dies(child);
    dies(command);
    assert_eq!(
        code(&mut applock(&server.url(), "info --app jobs")),
        Some(1)
    );
    // Out of reach without a keeper.
    let deserter = family[1];
    if lives(deserter) {
        kill_process(deserter, Signal::KILL).expect("it runs");
    }
}

#[test]
fn kill_9_of_applock_and_its_keeper_at_one_moment_ends_the_command() {
    let server = RedisServer::start();
    let script = "trap '' TERM HUP; echo $$; while :; do sleep 0.02; done";
    let mut running = Running::start(&mut run(&server.url(), "", script));
    let command = pid(&running.says());
    let keeper = running.keeper();
    // Neither can do anything between the two.
    kill_process(keeper, Signal::STOP).expect("it runs");
    running.signal(Signal::KILL);
    kill_process(keeper, Signal::KILL).expect("it runs");
    dies(command);
}

#[test]
fn kill_9_while_it_waits_leaves_no_process_behind() {
    let server = RedisServer::start();
    let mut holder = Running::start(&mut run(&server.url(), "", "echo here; sleep 1000"));
    holder.says();
    let waiter = Running::start(&mut run(&server.url(), "--wait forever", "echo ran"));
    let queued = || server.run::<i64>("ZCARD {QUEUE:jobs}:queue");
    wait::until("it waits", LONGEST, || queued() == 1);
    let keeper = waiter.keeper();
    waiter.signal(Signal::KILL);
    dies(keeper);
}

#[test]
fn a_lost_lease_ends_all_of_the_command_first_by_term_then_by_kill() {
    let server = RedisServer::start();
    let mut running = Running::start(&mut run(
        &server.url(),
        "--ttl 1s --kill-after 300ms",
        FAMILY,
    ));
    let family = family(&mut running);
    server.freeze();
    // The child is not deaf, the command is.
    dies(family[0]);
    assert_eq!(running.ends(), Some(76));
    server.thaw();
    for one in family {
        assert!(!lives(one), "it outlived applock");
    }
}

#[test]
fn an_applock_that_stands_still_does_not_leave_the_command_without_a_lease() {
    let server = RedisServer::start();
    let script = "trap 'echo told; exit' TERM; echo $$; while :; do sleep 0.02; done";
    let mut running = Running::start(&mut run(&server.url(), "--ttl 1s", script));
    let command = pid(&running.says());
    running.signal(Signal::STOP);
    assert_eq!(running.says(), "told");
    dies(command);
    assert_eq!(state(running.pid()).as_deref(), Some("T"));
    running.signal(Signal::CONT);
    assert_eq!(running.ends(), Some(76));
}

#[test]
fn a_command_that_stands_still_is_told_of_the_loss_too() {
    let server = RedisServer::start();
    let script = "trap 'echo told; exit' TERM; echo $$; while :; do sleep 0.02; done";
    let mut running = Running::start(&mut run(&server.url(), "--kill-after 1h", script));
    let command = pid(&running.says());
    kill_process(command, Signal::STOP).expect("it runs");
    let release = "release --app jobs --force --reason test";
    assert_eq!(code(&mut applock(&server.url(), release)), Some(0));
    assert_eq!(running.says(), "told");
    assert_eq!(running.ends(), Some(76));
}

#[test]
fn a_long_command_outlasts_many_leases() {
    let server = RedisServer::start();
    assert_eq!(
        code(&mut run(&server.url(), "--ttl 1s", "sleep 4")),
        Some(0)
    );
}

#[test]
fn what_a_command_leaves_in_its_group_is_ended_before_the_lock_is_free() {
    let server = RedisServer::start();
    let script = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.02; done' & \
        setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.2; exit 4";
    let mut running = Running::start(&mut run(&server.url(), "--kill-after 300ms", script));
    let mut two = [running.says(), running.says()].map(|line| pid(&line));
    two.sort_by_key(|one| crate::support::group(*one) == one.as_raw_nonzero().to_string());
    let [left_behind, daemon] = two;
    assert_eq!(running.ends(), Some(4));
    assert!(!lives(left_behind));
    // Who leaves the group says that it is to stay.
    assert!(lives(daemon));
    kill_process(daemon, Signal::KILL).expect("it runs");
    assert_eq!(
        code(&mut applock(&server.url(), "info --app jobs")),
        Some(1)
    );
}

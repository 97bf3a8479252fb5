//! Promise: a server that an endless script keeps busy (BUSY) is reported as unavailable,
//! with the remedy; a lock is kept if the script ends in time, and reported as lost before
//! its lease is over if it does not (F20).

use crate::support::fault::Fault;
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_unavailable, is_taken};
use crate::support::wait;

const BUSY: Fault = Fault {
    server: || RedisServer::with(&["--busy-reply-threshold", "50"]),
    begins: run_for_ever,
    reported: |_, error| assert_unavailable(error, &["QUEUE:job", "busy", "SCRIPT KILL"]),
    ends: |server| {
        let () = server.run("SCRIPT KILL");
        // Answered at once; the script ends a moment later.
        wait::until("it is busy no more", LIMIT, || server.answers());
        // No orphan either: a server that says BUSY has not done it.
        assert!(!is_taken(server));
    },
};

fn run_for_ever(server: &mut RedisServer) {
    let mut connection = server.connect().unwrap();
    std::thread::spawn(move || {
        let mut script = redis::cmd("EVAL");
        script.arg("while true do end").arg(0);
        // Ends when the script is killed, with an error.
        script.query::<()>(&mut connection)
    });
    wait::until("it is busy", LIMIT, || server.answers_with("BUSY"));
}

#[test]
fn a_lock_is_kept_if_the_script_ends_in_time() {
    BUSY.passes();
}

#[test]
fn a_script_that_outlasts_the_lease_is_reported_in_time() {
    BUSY.lasts();
}
